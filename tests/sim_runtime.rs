//! The simulated runtime: one seed, one history.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ottla::base::CoreId;
use ottla::io::Queue;
use ottla::mesh::mesh;
use ottla::sim;

#[test]
fn sleeps_take_no_time() {
    let started = std::time::Instant::now();
    sim::run(1, |sim| {
        let node = sim.add_node(1);
        let rt = sim.boot(node).remove(0);
        let inner = rt.clone();
        let slept = sim.block_on(&rt, Duration::from_secs(90_000), async move {
            let before = inner.now();
            inner.sleep(Duration::from_secs(86_400)).await;
            inner.now() - before
        });
        assert!(slept >= Duration::from_secs(86_400));
        assert!(slept < Duration::from_secs(86_401));
    });
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Three cores whose tasks call each other; the order of what happens.
fn calls(seed: u64) -> (Vec<(u16, u64)>, String) {
    sim::run(seed, |sim| {
        let node = sim.add_node(3);
        let cores = sim.boot(node);
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut waiting = Vec::new();
        for (rt, seed) in cores.iter().zip(mesh::<u64, u64>(3, 2)) {
            let port = seed.attach(rt);
            let server = port.clone();
            rt.spawn(Queue::Request, async move {
                loop {
                    let (_, question, slot) = server.next_request().await;
                    slot.reply(question + 1);
                }
            });
            for n in 0..10u64 {
                let (port, rt2, order) = (port.clone(), rt.clone(), order.clone());
                let (done, finished) = ottla::io::local::oneshot();
                waiting.push(finished);
                rt.spawn(Queue::Request, async move {
                    rt2.sleep(Duration::from_millis(n % 3)).await;
                    let to = CoreId(rt2.rng().below(3) as u16);
                    assert_eq!(port.call(to, n).await, Ok(n + 1));
                    order.borrow_mut().push((rt2.core().0, n));
                    done.send(()).unwrap();
                });
            }
        }
        sim.block_on(&cores[0], Duration::from_secs(1), async move {
            for finished in waiting {
                finished.await.unwrap();
            }
        });
        (order.take(), sim.trace())
    })
}

#[test]
fn one_seed_replays_and_seeds_differ() {
    let (first, first_trace) = calls(7);
    let (again, again_trace) = calls(7);
    assert_eq!(first, again);
    assert!(first_trace == again_trace);
    let (other, other_trace) = calls(8);
    assert_eq!(other.len(), 30);
    assert_ne!(first, other);
    assert!(first_trace != other_trace);
}
