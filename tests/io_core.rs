//! A core by itself: sleeps, queues, files, stop, errors at start.

use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use ottla::base::CoreId;
use ottla::io::local::{Either, Notify, channel, either, oneshot};
use ottla::io::{Backend, CoreConfig, OpenMode, Queue, Rt, StartError, check_memlock, run_core};

const BACKENDS: [Backend; 2] = [Backend::Ring, Backend::Bare];

fn config(backend: Backend) -> CoreConfig {
    CoreConfig {
        backend,
        ..CoreConfig::new(CoreId(0))
    }
}

fn on_core<T, Fut>(config: CoreConfig, main: impl FnOnce(Rt) -> Fut + Send + 'static) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    run_core(config, main).unwrap().join()
}

#[test]
fn a_thousand_sleeps_end_in_order_and_never_early() {
    for backend in BACKENDS {
        for spin in [Duration::ZERO, Duration::from_micros(50)] {
            let config = CoreConfig {
                spin,
                ..config(backend)
            };
            let parks = on_core(config, |rt: Rt| async move {
                let (tell, mut told) = channel(1_000);
                let start = rt.now();
                for n in 0..1_000u64 {
                    let (rt2, tell) = (rt.clone(), tell.clone());
                    rt.spawn(Queue::Request, async move {
                        let at = start + Duration::from_micros(n * 37 % 1_000 * 200);
                        // On a loaded machine a deadline may be past before it is waited for.
                        let mut sleep = rt2.sleep_until(at);
                        let waited = poll_once(&mut sleep).await.is_none();
                        sleep.await;
                        assert!(rt2.now() >= at);
                        tell.send((at, waited)).await.unwrap();
                    });
                }
                let mut last = start;
                for _ in 0..1_000 {
                    let (at, waited) = told.recv().await.unwrap();
                    // In one tick they end in the order in which they were begun.
                    if waited {
                        assert!(at.0 / 1_000_000 + 1 >= last.0 / 1_000_000);
                        last = at;
                    }
                }
                assert!(rt.now() - start >= Duration::from_micros(999 * 200));
                rt.stats().driver.parks
            });
            assert!(parks > 10, "it slept in between: {parks}");
        }
    }
}

#[test]
fn dropped_sleeps_leave_nothing_behind() {
    let slept = on_core(config(Backend::Ring), |rt: Rt| async move {
        let start = Instant::now();
        for _ in 0..100 {
            let long = rt.sleep(Duration::from_secs(3_600));
            let short = rt.sleep(Duration::from_micros(100));
            assert_eq!(either(long, short).await, Either::Second(()));
        }
        start.elapsed()
    });
    assert!(slept < Duration::from_secs(10));
}

#[test]
fn background_work_neither_starves_nor_starves_others() {
    for backend in BACKENDS {
        let (requests, background) = on_core(config(backend), |rt: Rt| async move {
            let background = Rc::new(Cell::new(0u64));
            let (rt2, count) = (rt.clone(), background.clone());
            rt.spawn(Queue::Background, async move {
                loop {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_micros(100) {}
                    count.set(count.get() + 1);
                    rt2.yield_now().await;
                }
            });
            // Ping-pong between two request tasks, with sleeps that go through the ring.
            let (ping, pong) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
            let (ping2, pong2) = (ping.clone(), pong.clone());
            rt.spawn(Queue::Request, async move {
                loop {
                    ping2.notified().await;
                    pong2.notify_one();
                }
            });
            let start = Instant::now();
            let mut requests = 0u64;
            while start.elapsed() < Duration::from_millis(300) {
                ping.notify_one();
                pong.notified().await;
                requests += 1;
                if requests.is_multiple_of(1_000) {
                    rt.sleep(Duration::from_millis(1)).await;
                }
            }
            (requests, background.get())
        });
        assert!(requests > 1_000, "{requests}");
        assert!(background > 10, "{background}");
    }
}

#[test]
fn a_file_is_synced_through_the_ring_while_others_run() {
    let dir = tempfile::tempdir().unwrap();
    for backend in BACKENDS {
        let path = dir.path().join(format!("{backend:?}"));
        on_core(config(backend), move |rt: Rt| async move {
            let disk = rt.disk();
            let file = disk.open(&path, OpenMode::Create).unwrap();
            file.write_all_at(&[IoSlice::new(b"durable")], 0).unwrap();
            rt.sync(&file).await.unwrap();
            // A sync that nobody waits for doesn't outlive the core.
            let sync = rt.clone();
            let again = file.clone();
            rt.spawn(Queue::Background, async move {
                let _ = sync.sync(&again).await;
            });
            rt.yield_now().await;
            rt.yield_now().await;
        });
        assert_eq!(
            std::fs::read(dir.path().join(format!("{backend:?}"))).unwrap(),
            b"durable"
        );
    }
}

#[test]
fn a_stop_from_another_thread_wakes_a_sleeping_core() {
    for backend in BACKENDS {
        let core = run_core(config(backend), |rt: Rt| async move {
            assert!(!rt.is_stopping());
            rt.stopping().await;
            rt.stopping().await;
            rt.is_stopping()
        })
        .unwrap();
        let stopper = core.stopper();
        std::thread::sleep(Duration::from_millis(20));
        stopper.stop();
        assert!(core.join());
        // Late and repeated stops harm nobody.
        stopper.stop();
    }
}

#[test]
fn tasks_are_dropped_when_main_ends() {
    struct Told(std::sync::mpsc::Sender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    for backend in BACKENDS {
        let (tell, told) = std::sync::mpsc::channel();
        on_core(config(backend), move |rt: Rt| async move {
            for queue in [Queue::Request, Queue::Replication, Queue::Background] {
                let (held, rt2) = (Told(tell.clone()), rt.clone());
                rt.spawn(queue, async move {
                    rt2.sleep(Duration::from_secs(3_600)).await;
                    drop(held);
                });
            }
            // One that waits for another, whose end wakes it.
            let (held, (waits, never)) = (Told(tell.clone()), oneshot::<()>());
            rt.spawn(Queue::Request, async move {
                let _ = never.await;
                drop(held);
            });
            let forever = rt.clone();
            rt.spawn(Queue::Request, async move {
                forever.sleep(Duration::from_secs(3_600)).await;
                drop(waits);
            });
            rt.yield_now().await;
        });
        assert_eq!(told.iter().take(4).count(), 4);
    }
}

#[test]
fn cores_start_and_end_many_times() {
    for round in 0..20 {
        let backend = BACKENDS[round % 2];
        let got = on_core(config(backend), move |rt: Rt| async move {
            rt.sleep(Duration::from_millis(1)).await;
            round
        });
        assert_eq!(got, round);
    }
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_at_start() {
    let config = CoreConfig {
        cpu: Some(1_000),
        ..config(Backend::Ring)
    };
    let error = run_core(config, |_| async {}).unwrap_err();
    assert!(matches!(error, StartError::Affinity { cpu: 1_000, .. }));
}

#[test]
fn pinned_cores_run_where_they_are_told() {
    let config = CoreConfig {
        cpu: Some(0),
        ..config(Backend::Ring)
    };
    let cpu = on_core(config, |_| async { nix::sched::sched_getcpu().unwrap() });
    assert_eq!(cpu, 0);
}

#[test]
fn locked_memory_is_checked_before_the_start() {
    // Root is exempt; everybody has room for one bare core.
    assert!(check_memlock(1, Backend::Bare).is_ok());
}
