//! What a call to another core costs, there and back, with one and 32 calls in flight.
//! Expected on a 3 GHz machine with a CPU for each core: about 1 µs when both spin (four
//! cache lines change hands, two tasks run), 10 to 20 µs when both park (two wake-ups
//! through the kernel); with 32 in flight a tenth of it for each call.
//!
//! `cargo bench --bench mesh`; `cargo test --benches` runs a few rounds.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ottla::base::CoreId;
use ottla::io::{Backend, CoreConfig, Queue, run_core};
use ottla::mesh::{Port, PortSeed, mesh};

/// In the order of a mesh of the size of a large machine, of which two cores run: what the
/// others cost must not be seen.
const CORES: usize = 64;

struct Case {
    backend: Backend,
    spin: Duration,
    in_flight: usize,
    rounds: usize,
}

fn config(core: CoreId, case: &Case) -> CoreConfig {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let index = core.index();
    CoreConfig {
        backend: case.backend,
        spin: case.spin,
        // Two that share a CPU would wait for each other's time slices.
        cpu: (cpus > 1).then_some(index % cpus),
        ..CoreConfig::new(core)
    }
}

/// Nanoseconds for each round of `in_flight` calls.
fn measure(case: &Case) -> Histogram<u64> {
    let mut seeds = mesh::<u64, u64>(CORES, 256).into_iter();
    let (asking, answering) = (seeds.next().unwrap(), seeds.next().unwrap());
    let (other, in_flight, rounds) = (answering.core(), case.in_flight, case.rounds);
    let server = run_core(config(other, case), move |rt| async move {
        let port = answering.attach(&rt);
        let stopping = rt.clone();
        rt.spawn(Queue::Request, serve(port));
        stopping.stopping().await;
    })
    .unwrap();
    let client = run_core(config(asking.core(), case), move |rt| async move {
        let port: Port<u64, u64> = PortSeed::attach(asking, &rt);
        let mut took = Histogram::<u64>::new_with_max(60_000_000_000, 3).unwrap();
        let mut calls = Vec::with_capacity(in_flight);
        for round in 0..rounds + rounds / 10 {
            let start = Instant::now();
            calls.extend((0..in_flight as u64).map(|n| port.call(other, n)));
            for call in calls.drain(..) {
                call.await.unwrap();
            }
            // The first rounds warm up.
            if round >= rounds / 10 {
                took.saturating_record(start.elapsed().as_nanos() as u64);
            }
        }
        took
    })
    .unwrap();
    let took = client.join();
    server.stopper().stop();
    server.join();
    took
}

async fn serve(port: Port<u64, u64>) {
    loop {
        let (_, question, slot) = port.next_request().await;
        slot.reply(question);
    }
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    println!("round trip of a call, ns each: p50, p99, mean; calls/s");
    for backend in [Backend::Ring, Backend::Bare] {
        for (name, spin) in [
            ("spinning", Duration::from_secs(1)),
            ("parked", Duration::ZERO),
        ] {
            for in_flight in [1, 32] {
                let rounds = if full { 100_000 / in_flight } else { 10 };
                let case = Case {
                    backend,
                    spin,
                    in_flight,
                    rounds,
                };
                let took = measure(&case);
                let each = |nanos: f64| nanos / in_flight as f64;
                println!(
                    "{backend:?} {name:8} {in_flight:2} in flight: {:9.0} {:9.0} {:9.0}; {:9.0}",
                    each(took.value_at_quantile(0.5) as f64),
                    each(took.value_at_quantile(0.99) as f64),
                    each(took.mean()),
                    1e9 / each(took.mean()),
                );
            }
        }
    }
}
