//! The mesh under load: posts, back-pressure, full rings in both directions, many cores,
//! and no allocation while it is busy.

#[path = "support/allocations.rs"]
mod allocations;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use allocations::allocations;
use ottla::base::CoreId;
use ottla::io::local::{channel, or_deadline};
use ottla::io::{Backend, CoreConfig, CoreHandle, Queue, Rt, check_memlock, run_core};
use ottla::mesh::{Port, PortSeed, mesh};

const PATIENCE: Duration = Duration::from_secs(60);

fn start<T, F>(seeds: Vec<PortSeed<u64, u64>>, backend: Backend, main: F) -> Vec<CoreHandle<T>>
where
    T: Send + 'static,
    F: AsyncFn(Rt, Port<u64, u64>) -> T + Clone + Send + 'static,
{
    let start_one = |seed: PortSeed<u64, u64>| {
        let mut config = CoreConfig::new(seed.core());
        config.backend = backend;
        config.recv_buffers = 8;
        config.recv_buffer_bytes = 512;
        let main = main.clone();
        run_core(config, move |rt| async move {
            let port = seed.attach(&rt);
            main(rt, port).await
        })
    };
    seeds
        .into_iter()
        .map(|seed| start_one(seed).unwrap())
        .collect()
}

fn join<T>(handles: Vec<CoreHandle<T>>) -> Vec<T> {
    handles.into_iter().map(CoreHandle::join).collect()
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

/// Asked last: the core that answers it may end.
const LAST: u64 = u64::MAX;

#[test]
fn posts_and_calls_arrive_in_the_order_in_which_they_were_made() {
    let handles = start(
        mesh(2, 4),
        Backend::Ring,
        async |rt: Rt, port: Port<u64, u64>| {
            let other = CoreId(1 - rt.core().0);
            if rt.core().0 == 0 {
                // To itself as well.
                port.post(rt.core(), 7);
                let (from, question, slot) = port.next_request().await;
                assert_eq!((from, question), (rt.core(), 7));
                drop(slot);
                for n in 0..1_000 {
                    if n % 3 == 0 {
                        assert_eq!(port.call(other, n).await, Ok(n));
                    } else {
                        port.post(other, n);
                    }
                }
                assert_eq!(port.call(other, LAST).await, Ok(LAST));
            } else {
                for n in 0..1_000 {
                    let (_, question, slot) = port.next_request().await;
                    assert_eq!(question, n);
                    // Some are answered, some not: to a post it's the same.
                    if n % 3 == 0 || n % 2 == 0 {
                        slot.reply(question);
                    }
                }
                let (_, question, slot) = port.next_request().await;
                slot.reply(question);
                // The reply is in the ring when this core ends.
            }
        },
    );
    join(handles);
}

#[test]
fn a_port_is_congested_until_every_request_in_line_was_sent() {
    // A ring of one request, four unanswered.
    let handles = start(
        mesh(2, 1),
        Backend::Bare,
        async |rt: Rt, port: Port<u64, u64>| {
            let other = CoreId(1 - rt.core().0);
            if rt.core().0 == 1 {
                // Takes ten requests, and answers none before it has four.
                let mut slots = Vec::new();
                for _ in 0..10 {
                    if slots.len() == 4 {
                        slots.clear();
                    }
                    let (_, _, slot) = port.next_request().await;
                    slots.push(slot);
                }
                slots.clear();
                let (_, question, slot) = port.next_request().await;
                slot.reply(question);
                return;
            }
            assert!(!port.is_congested());
            port.uncongested().await;
            for n in 0..10 {
                port.post(other, n);
            }
            assert!(port.is_congested());
            let told = Rc::new(Cell::new(false));
            rt.spawn(Queue::Request, {
                let (port, told) = (port.clone(), told.clone());
                async move {
                    port.uncongested().await;
                    told.set(true);
                }
            });
            let soon = rt.now() + PATIENCE;
            or_deadline(&rt, port.uncongested(), soon).await.unwrap();
            assert!(!port.is_congested());
            rt.yield_now().await;
            assert_eq!(port.call(other, LAST).await, Ok(LAST));
            assert!(told.get());
        },
    );
    join(handles);
}

#[test]
fn congestion_ends_when_the_other_core_does() {
    let handles = start(
        mesh(2, 1),
        Backend::Bare,
        async |rt: Rt, port: Port<u64, u64>| {
            if rt.core().0 == 1 {
                let first = port.next_request().await;
                drop(first);
                return;
            }
            for n in 0..100 {
                port.post(CoreId(1), n);
            }
            let soon = rt.now() + PATIENCE;
            or_deadline(&rt, port.uncongested(), soon).await.unwrap();
            port.post(CoreId(1), 1);
            assert!(!port.is_congested());
        },
    );
    join(handles);
}

/// Calls at random from `callers` tasks; ends when all have their answers and so have the
/// other cores.
async fn call_at_random(rt: &Rt, port: &Port<u64, u64>, callers: u64, calls: u64) {
    serve_doubles(rt, port);
    let (finished, mut each) = channel(8);
    for caller in 0..callers {
        let (rt2, port, finished) = (rt.clone(), port.clone(), finished.clone());
        rt.spawn(Queue::Request, async move {
            for n in 0..calls {
                let to = CoreId(rt2.rng().below(port.cores() as u64) as u16);
                let question = caller << 32 | n;
                if n % 5 == 4 {
                    port.post(to, question);
                } else {
                    assert_eq!(port.call(to, question).await, Ok(question * 2));
                }
            }
            finished.send(()).await.unwrap();
        });
    }
    let deadline = rt.now() + PATIENCE;
    for _ in 0..callers {
        let next = or_deadline(rt, each.recv(), deadline).await;
        next.expect("no call hangs").unwrap();
    }
}

/// Runs cores until all are done, and only then stops them.
fn run_at_random(cores: usize, capacity: usize, backend: Backend, callers: u64, calls: u64) {
    let (done, all_done) = std::sync::mpsc::channel();
    let handles = start(
        mesh(cores, capacity),
        backend,
        async move |rt: Rt, port: Port<u64, u64>| {
            call_at_random(&rt, &port, callers, calls).await;
            done.send(()).unwrap();
            rt.stopping().await;
        },
    );
    for _ in 0..cores {
        all_done.recv_timeout(PATIENCE).unwrap();
    }
    for handle in &handles {
        handle.stopper().stop();
    }
    join(handles);
}

#[test]
fn callers_on_both_sides_of_full_rings_finish() {
    run_at_random(2, 1, Backend::Ring, 100, 100);
    run_at_random(2, 2, Backend::Bare, 100, 100);
}

#[test]
fn sixty_four_cores_call_each_other() {
    // glommio's rings need more memory than an ordinary limit allows 64 times.
    let cores = if check_memlock(64, Backend::Bare).is_ok() {
        64
    } else {
        16
    };
    run_at_random(cores, 8, Backend::Bare, 8, 25);
}

#[test]
fn nothing_is_allocated_in_a_steady_state() {
    const ROUNDS: u64 = 100;
    let handles = start(
        mesh(2, 64),
        Backend::Bare,
        async |rt: Rt, port: Port<u64, u64>| {
            if rt.core().0 == 1 {
                let mut taken = 0;
                loop {
                    let (_, question, slot) = port.next_request().await;
                    slot.reply(question);
                    taken += 1;
                    if question == LAST {
                        return taken;
                    }
                }
            }
            let calls = RefCell::new(Vec::with_capacity(64));
            let round = async || {
                // More than there is room for.
                for n in 0..400 {
                    port.post(CoreId(1), n);
                }
                for n in 0..64 {
                    calls.borrow_mut().push(port.call(CoreId(1), n));
                }
                while let Some(call) = { calls.borrow_mut().pop() } {
                    call.await.unwrap();
                }
                port.uncongested().await;
            };
            for _ in 0..ROUNDS {
                round().await;
            }
            let before = allocations();
            for _ in 0..ROUNDS {
                round().await;
            }
            let allocated = allocations() - before;
            port.call(CoreId(1), LAST).await.unwrap();
            allocated
        },
    );
    let answers = join(handles);
    assert_eq!(answers[1], 2 * ROUNDS * 464 + 1);
    assert_eq!(answers[0], 0, "allocations in {ROUNDS} rounds");
}
