//! The line that a person watches while a run goes on: rate, percentiles, time left. On
//! stderr; where that is no terminal, a line for each phase that is over. Called by `phase`,
//! which tells it what came, and by `scenario`.

use std::io::{Write as _, stderr};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::result::Phase;

const STEPS_PER_SECOND: f64 = 10.0;

pub struct Progress {
    bar: ProgressBar,
    /// Of the phases before this one.
    done: Duration,
    total: Duration,
    phase: String,
    news: String,
}

impl Progress {
    /// For phases that take `total` together.
    pub fn new(total: Duration) -> Progress {
        let steps = steps(total);
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:24} {msg}").expect("a constant template");
        bar.set_style(style);
        Progress {
            bar,
            done: Duration::ZERO,
            total,
            phase: String::new(),
            news: String::new(),
        }
    }

    pub fn begin(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
        self.news.clear();
        self.at(Duration::ZERO);
    }

    /// A whole second of the phase.
    pub fn second(&mut self, records: u64, latencies: &Histogram<u64>) {
        let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        self.news = format!(
            "  {records} records/s  p50 {:.1} µs  p99 {:.1} µs  max {:.1} µs",
            micros(0.5),
            micros(0.99),
            micros(1.0),
        );
    }

    /// The phase is that old.
    pub fn at(&self, elapsed: Duration) {
        let over = self.done + elapsed;
        let left = self.total.saturating_sub(over).as_secs();
        self.bar.set_position(steps(over));
        let (phase, news) = (&self.phase, &self.news);
        self.bar
            .set_message(format!("{phase}{news}  {left} s left"));
    }

    pub fn end(&mut self, took: Duration) {
        self.done += took;
    }

    /// A phase is over; who sees no moving line is told now.
    pub fn phase_over(&self, phase: &Phase) {
        if self.bar.is_hidden() {
            let rate = phase.throughput.records_per_s;
            let valid = if phase.valid { "" } else { ", INVALID" };
            // Whoever closed it doesn't want to see it.
            let _ = writeln!(stderr(), "{}: {rate:.0} records/s{valid}", phase.name);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn steps(of: Duration) -> u64 {
    (of.as_secs_f64() * STEPS_PER_SECOND) as u64
}
