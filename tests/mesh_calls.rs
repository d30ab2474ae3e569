//! Calls between real cores: order, loop-back, full rings, cores that end.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ottla::base::CoreId;
use ottla::io::local::or_deadline;
use ottla::io::{Backend, CoreConfig, CoreHandle, Queue, Rt, run_core};
use ottla::mesh::{Port, PortSeed, mesh};

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a core for each seed, alternating between the backends.
fn start<T, F>(seeds: Vec<PortSeed<u64, u64>>, main: F) -> Vec<CoreHandle<T>>
where
    T: Send + 'static,
    F: AsyncFn(Rt, Port<u64, u64>) -> T + Clone + Send + 'static,
{
    seeds
        .into_iter()
        .map(|seed| {
            let core = seed.core();
            let mut config = CoreConfig::new(core);
            config.backend = [Backend::Ring, Backend::Bare][core.index() % 2];
            let main = main.clone();
            run_core(config, move |rt| async move {
                let port = seed.attach(&rt);
                main(rt, port).await
            })
            .unwrap()
        })
        .collect()
}

/// Answers every request with its double, for ever.
fn serve_doubles(rt: &Rt, port: &Port<u64, u64>) {
    let port = port.clone();
    rt.spawn(Queue::Request, async move {
        loop {
            let (_, question, slot) = port.next_request().await;
            slot.reply(question * 2);
        }
    });
}

#[test]
fn four_cores_call_each_other_over_full_rings() {
    const CALLS: u64 = 5_000;
    const CALLERS: u64 = 50;
    let all_done = Arc::new(Barrier::new(4));
    let barrier = all_done.clone();
    // Rings of four requests, 50 callers each: full in both directions all the time.
    let handles = start(mesh(4, 4), async move |rt: Rt, port: Port<u64, u64>| {
        {
            let barrier = barrier.clone();
            serve_doubles(&rt, &port);
            let (finished, mut each) = ottla::io::local::channel(8);
            for caller in 0..CALLERS {
                let (rt2, port, finished) = (rt.clone(), port.clone(), finished.clone());
                rt.spawn(Queue::Request, async move {
                    let mut answers = 0;
                    for n in 0..CALLS / CALLERS {
                        let to = CoreId((rt2.rng().below(4)) as u16);
                        let question = caller << 32 | n;
                        assert_eq!(port.call(to, question).await, Ok(question * 2));
                        answers += 1;
                    }
                    finished.send(answers).await.unwrap();
                });
            }
            let mut answers = 0;
            for _ in 0..CALLERS {
                let next = or_deadline(&rt, each.recv(), rt.now() + PATIENCE).await;
                answers += next.expect("no call hangs").unwrap();
            }
            // Nobody leaves while another may still ask.
            let stopper = rt.stopper();
            std::thread::spawn(move || {
                barrier.wait();
                stopper.stop();
            });
            rt.stopping().await;
            answers
        }
    });
    for handle in handles {
        assert_eq!(handle.join(), CALLS);
    }
}
