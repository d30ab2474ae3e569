//! Calls between real cores: order, loop-back, full rings, cores that end.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ottla::base::CoreId;
use ottla::io::local::or_deadline;
use ottla::io::{Backend, CoreConfig, CoreHandle, Queue, Rt, run_core};
use ottla::mesh::{Gone, Port, PortSeed, mesh};

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

/// Runs one main per core to the end.
fn join<T>(handles: Vec<CoreHandle<T>>) -> Vec<T> {
    handles.into_iter().map(CoreHandle::join).collect()
}

#[test]
fn calls_arrive_in_order_and_replies_come_in_any() {
    let handles = start(mesh(2, 8), async |rt: Rt, port: Port<u64, u64>| {
        let other = CoreId(1 - rt.core().0);
        if rt.core().0 == 0 {
            // More than the ring and its outstanding calls take: the rest waits in line.
            let calls: Vec<_> = (0..200).map(|n| port.call(other, n)).collect();
            for (n, call) in calls.into_iter().enumerate() {
                assert_eq!(call.await, Ok(n as u64 + 1_000));
            }
        } else {
            let mut kept = Vec::new();
            for n in 0..200u64 {
                let (from, question, slot) = port.next_request().await;
                assert_eq!((from, question), (other, n));
                kept.push((slot, question));
                // At most 32 are unanswered, so these must be answered for more to come.
                if kept.len() == 30 {
                    while let Some((slot, question)) = kept.pop() {
                        port.reply(slot, question + 1_000);
                    }
                }
            }
            for (slot, question) in kept {
                slot.reply(question + 1_000);
            }
        }
    });
    join(handles);
}

#[test]
fn a_core_calls_itself() {
    let handles = start(mesh(1, 1), async |rt: Rt, port: Port<u64, u64>| {
        serve_doubles(&rt, &port);
        let calls: Vec<_> = (0..10).map(|n| port.call(CoreId(0), n)).collect();
        let mut sum = 0;
        for call in calls {
            sum += call.await.unwrap();
        }
        sum
    });
    assert_eq!(join(handles), [90]);
}

#[test]
fn a_dropped_slot_and_an_ended_core_answer_gone() {
    let handles = start(mesh(3, 4), async |rt: Rt, port: Port<u64, u64>| {
        match rt.core().0 {
            // Drops one request, then ends with one slot kept and others not taken.
            1 => {
                let (_, _, slot) = port.next_request().await;
                drop(slot);
                let kept = port.next_request().await;
                rt.sleep(Duration::from_millis(50)).await;
                drop(kept);
                Vec::new()
            }
            0 => {
                let first = port.call(CoreId(1), 0).await;
                let calls: Vec<_> = (0..100).map(|n| port.call(CoreId(1), n)).collect();
                let mut answers = vec![first];
                for call in calls {
                    answers.push(call.await);
                }
                // And whoever asks later.
                answers.push(port.call(CoreId(1), 7).await);
                answers
            }
            _ => Vec::new(),
        }
    });
    let answers = join(handles);
    assert_eq!(answers[0], [Err(Gone); 102]);
}

#[test]
fn abandoned_calls_free_their_places() {
    let handles = start(mesh(2, 1), async |rt: Rt, port: Port<u64, u64>| {
        if rt.core().0 == 1 {
            serve_doubles(&rt, &port);
            rt.stopping().await;
            return;
        }
        for n in 0..2_000u64 {
            // Some are under way, some wait in line, some are answered already.
            let abandoned: Vec<_> = (0..n % 12).map(|n| port.call(CoreId(1), n)).collect();
            if n.is_multiple_of(3) {
                rt.yield_now().await;
            }
            drop(abandoned);
            if n.is_multiple_of(7) {
                let soon = rt.now() + PATIENCE;
                let answer = or_deadline(&rt, port.call(CoreId(1), n), soon).await;
                assert_eq!(answer, Ok(Ok(n * 2)));
            }
        }
    });
    let server = handles[1].stopper();
    let mut handles = handles.into_iter();
    handles.next().unwrap().join();
    server.stop();
    handles.next().unwrap().join();
}

#[test]
fn a_core_may_attach_long_after_it_was_called() {
    let mut seeds = mesh(2, 4).into_iter();
    let (first, second) = (seeds.next().unwrap(), seeds.next().unwrap());
    let caller = start(vec![first], async |rt: Rt, port: Port<u64, u64>| {
        let calls: Vec<_> = (0..20).map(|n| port.call(CoreId(1), n)).collect();
        let mut sum = 0;
        for call in calls {
            let soon = rt.now() + PATIENCE;
            sum += or_deadline(&rt, call, soon).await.unwrap().unwrap();
        }
        sum
    });
    std::thread::sleep(Duration::from_millis(50));
    let server = start(vec![second], async |rt: Rt, port: Port<u64, u64>| {
        serve_doubles(&rt, &port);
        rt.stopping().await;
        0
    });
    assert_eq!(join(caller), [380]);
    server[0].stopper().stop();
    join(server);
}
