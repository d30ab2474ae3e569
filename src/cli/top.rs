//! `ottla top`: what a node is doing now.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;

use super::output;
use crate::top::{self, Options};

#[derive(Args, Debug)]
pub struct TopArgs {
    /// Where the node serves its numbers: its ottla.metrics.listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9464")]
    pub metrics: String,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// Print what has happened since the node's start, and end (also without a terminal)
    #[arg(long)]
    pub once: bool,
}

pub const HELP: &str = "\
The node is started with ottla.metrics.listen, for example
  ottla start -o ottla.metrics.listen=127.0.0.1:9464

Cores: connections, partitions, requests, bytes in and out, requests in flight and their
memory, requests at other cores (mesh) and in line for them, polls (slow) and file calls
(blocked) that held the core for over 500 us, times it was silent, times it slept (parks).
Requests: by API, the 99th percentile in all and of each stage that a request passes.
Topics: batches, bytes in and out, bytes of a batch on average.

Keys: left and right choose a core, up and down scroll topics, q quits.";

pub fn run(args: &TopArgs) -> Result<(), String> {
    let options = Options {
        metrics: args.metrics.clone(),
        interval: args.interval,
    };
    if args.once || !std::io::stdout().is_terminal() {
        return output::print(&top::once(&options)?);
    }
    top::live(&options)
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is expected")?;
    if (0.1..=3_600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.1 to 3600 seconds are possible".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_bounded() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
