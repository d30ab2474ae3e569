//! What counting costs a request: stamps and records in histograms.
//! Expected on a 3 GHz machine: 20 to 25 ns for a look at the monotonic clock, 10 to 20 ns
//! for a stamp, 2 to 3 ns for a record in the cache; so some 70 ns for a produce of one
//! partition on one core, which has three stamps (the last is shared by all replies that are
//! sent together) and six records. A request without any counting has two looks at the
//! clock, for its start and its deadline, which the stamps replace: counting should cost
//! some 30 ns of the 3 to 9 µs of CPU that such a request takes, the less the cheaper it is.
//!
//! `cargo bench --bench metrics`; `cargo test --benches` runs a few rounds.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use criterion::Criterion;
use ottla::base::{CoreId, Nanos};
use ottla::io::local::oneshot;
use ottla::io::{CoreConfig, Queue, Rt, run_core};
use ottla::telemetry::{Stage, StageTable};

const ROWS: usize = 29;
const PRODUCE: usize = 0;

fn main() {
    let core = run_core(CoreConfig::new(CoreId(0)), |rt| async move {
        let (done, ended) = oneshot();
        let core = rt.clone();
        rt.spawn(Queue::Request, async move {
            // The rate of the CPU's counter is known after some polls.
            for _ in 0..3 {
                core.sleep(Duration::from_millis(5)).await;
            }
            let mut criterion = Criterion::default().configure_from_args();
            measure(&mut criterion, &core);
            criterion.final_summary();
            let _ = done.send(());
        });
        ended.await.expect("the task runs to its end");
    });
    core.expect("a core can be had here").join();
}

fn measure(criterion: &mut Criterion, rt: &Rt) {
    let table = Rc::new(StageTable::new(ROWS));
    criterion.bench_function("metrics/now", |bencher| {
        bencher.iter(|| black_box(rt.now()));
    });
    criterion.bench_function("metrics/stamp", |bencher| {
        bencher.iter(|| black_box(rt.stamp()));
    });
    criterion.bench_function("metrics/last_stamp", |bencher| {
        bencher.iter(|| black_box(rt.last_stamp()));
    });
    let mut at = 0;
    criterion.bench_function("metrics/record", |bencher| {
        bencher.iter(|| {
            at += 977;
            table.record(PRODUCE, Stage::Parsed, Nanos(at % 1_000_000) - Nanos(0));
        });
    });
    criterion.bench_function("metrics/produce", |bencher| {
        bencher.iter(|| produce(rt, &table));
    });
    criterion.bench_function("metrics/produce_without", |bencher| {
        bencher.iter(|| {
            // What it took before: when a request started, and its deadline.
            black_box((rt.now(), rt.now()));
        });
    });
}

/// As `shard` and `api` count a produce of one partition on the connection's core.
fn produce(rt: &Rt, table: &StageTable) {
    let record = |stage, from: Nanos, to: Nanos| {
        table.record(PRODUCE, stage, to.saturating_since(from));
    };
    let began = black_box(rt.last_stamp());
    let started = rt.last_stamp();
    record(Stage::Received, began, started);
    for stage in [Stage::Parsed, Stage::Appended] {
        let from = rt.last_stamp();
        record(stage, from, rt.stamp());
    }
    let sending = rt.last_stamp();
    record(Stage::Answered, started, sending);
    let sent = rt.stamp();
    record(Stage::Sent, sending, sent);
    record(Stage::Total, began, sent);
}
