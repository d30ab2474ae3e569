//! The simulated runtime: one seed, one history.

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ottla::base::{CoreId, Nanos};
use ottla::io::{Chunk, Disk, OpenMode, Queue, Rt, SendQueue, Stream};
use ottla::mesh::{Port, mesh};
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
        sim.keep_trace();
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

/// A server of three cores: each record goes to the core that owns its key, is appended
/// to that core's file and synced before it is acknowledged with its position; the answer
/// carries the record read back from the file.
fn serve(rt: Rt, port: Port<Bytes, u64>, at: SocketAddr) {
    let path = PathBuf::from(format!("/data/{}", rt.core()));
    rt.disk().create_dir_all(Path::new("/data")).unwrap();
    let file = rt.disk().open(&path, OpenMode::Create).unwrap();
    rt.disk().sync_dir(Path::new("/data")).unwrap();
    let (appender, owner, log) = (rt.clone(), port.clone(), file.clone());
    rt.spawn(Queue::Request, async move {
        let mut end = log.len().unwrap();
        loop {
            let (_, record, slot) = owner.next_request().await;
            log.write_all_at(&[IoSlice::new(&record)], end).unwrap();
            let position = end;
            end += record.len() as u64;
            let (rt, log) = (appender.clone(), log.clone());
            appender.spawn(Queue::Request, async move {
                rt.sync(&log).await.unwrap();
                slot.reply(position);
            });
        }
    });
    let listener = rt.listen(at).unwrap();
    let acceptor = rt.clone();
    rt.spawn(Queue::Request, async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (port, rt) = (port.clone(), acceptor.clone());
            acceptor.spawn(Queue::Request, async move {
                // A broken connection ends its task.
                let _ = serve_connection(&rt, &port, &stream).await;
            });
        }
    });
}

async fn serve_connection(
    rt: &Rt,
    port: &Port<Bytes, u64>,
    stream: &Stream,
) -> std::io::Result<()> {
    let mut received = BytesMut::new();
    loop {
        while received.len() < RECORD_BYTES {
            if stream.recv(&mut received).await? == 0 {
                return Ok(());
            }
        }
        let record = received.split_to(RECORD_BYTES).freeze();
        let owner = CoreId(u16::from(record[0] % 3));
        let position = port
            .call(owner, record)
            .await
            .map_err(std::io::Error::other)?;
        let path = PathBuf::from(format!("/data/{owner}"));
        let mut out = SendQueue::new();
        out.push_bytes(position.to_be_bytes().to_vec());
        out.push(Chunk::File {
            file: rt.disk().open(&path, OpenMode::Read)?,
            position,
            len: RECORD_BYTES as u32,
        });
        stream.send(&mut out).await?;
    }
}

const RECORD_BYTES: usize = 700;

/// Sends records until the connection breaks or `count` are acknowledged.
async fn produce(
    rt: &Rt,
    to: SocketAddr,
    client: u8,
    count: u8,
    acknowledged: &RefCell<Vec<(u8, u64, Vec<u8>)>>,
) -> std::io::Result<()> {
    let stream = rt.connect(to).await?;
    let mut received = BytesMut::new();
    for n in 0..count {
        let mut record = vec![n; RECORD_BYTES];
        record[0] = client.wrapping_add(n);
        record[1] = client;
        let mut out = SendQueue::new();
        out.push_bytes(record.clone());
        stream.send(&mut out).await?;
        while received.len() < 8 + RECORD_BYTES {
            if stream.recv(&mut received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let position = u64::from_be_bytes(received[..8].try_into().unwrap());
        assert_eq!(received[8..8 + RECORD_BYTES], record);
        received.advance(8 + RECORD_BYTES);
        acknowledged
            .borrow_mut()
            .push((record[0] % 3, position, record));
    }
    Ok(())
}

/// Five clients, a server that loses power in between; returns what was acknowledged and
/// everything that happened.
fn crash_and_recover(seed: u64) -> (usize, String) {
    sim::run(seed, |sim| {
        sim.keep_trace();
        let (server, clients) = (sim.add_node(3), sim.add_node(1));
        let at = SocketAddr::new(sim.ip(server), 9_092);
        let client = sim.boot(clients).remove(0);
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let start_server = || {
            for (rt, seed) in sim.boot(server).into_iter().zip(mesh(3, 4)) {
                let port = seed.attach(&rt);
                serve(rt, port, at);
            }
        };
        start_server();
        for id in 0..5u8 {
            let (rt, acknowledged) = (client.clone(), acknowledged.clone());
            client.spawn(Queue::Request, async move {
                // The crash breaks it, or keeps it waiting for ever.
                let _ = produce(&rt, at, id, 100, &acknowledged).await;
            });
        }
        sim.run_for(Duration::from_millis(20 + seed % 50));
        sim.crash(server);
        sim.run_for(Duration::from_millis(10));
        start_server();
        let (rt, acks) = (client.clone(), acknowledged.clone());
        sim.block_on(&client, Duration::from_secs(60), async move {
            produce(&rt, at, 200, 10, &acks).await.unwrap();
        });
        let disk: Rc<dyn Disk> = Rc::new(sim.disk(server));
        for (owner, position, record) in acknowledged.borrow().iter() {
            let path = PathBuf::from(format!("/data/{owner}"));
            let file = disk.open(&path, OpenMode::Read).unwrap();
            let mut stored = vec![0; RECORD_BYTES];
            file.read_exact_at(&mut stored, *position).unwrap();
            assert!(stored == *record, "an acknowledged record is durable");
        }
        (acknowledged.borrow().len(), sim.trace())
    })
}

#[test]
fn acknowledged_records_survive_a_crash_in_every_history() {
    let mut before_crash = 0;
    for seed in 0..60 {
        let (acknowledged, _) = crash_and_recover(seed);
        before_crash += acknowledged - 10;
    }
    assert!(before_crash > 60, "{before_crash}");
}

#[test]
fn a_crash_replays_byte_for_byte() {
    let (_, first) = crash_and_recover(3);
    let (_, again) = crash_and_recover(3);
    assert!(first == again);
    let (_, other) = crash_and_recover(4);
    assert!(first != other);
    assert!(first.lines().any(|line| line.ends_with("crash node 0")));
}

#[test]
fn partitions_delay_and_breaks_reset() {
    sim::run(5, |sim| {
        let (a, b) = (sim.add_node(1), sim.add_node(1));
        let at = SocketAddr::new(sim.ip(a), 1);
        let (server, client) = (sim.boot(a).remove(0), sim.boot(b).remove(0));
        let listener = server.listen(at).unwrap();
        server.spawn(Queue::Request, async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut received = BytesMut::new();
            while stream
                .recv(&mut received)
                .await
                .is_ok_and(|count| count > 0)
            {
                let mut out = SendQueue::new();
                out.push_bytes(received.split().freeze());
                stream.send(&mut out).await.unwrap();
            }
        });
        let connect = client.clone();
        let second = Duration::from_secs(1);
        let stream = sim.block_on(&client, second, async move {
            Rc::new(connect.connect(at).await.unwrap())
        });
        let round_trip = |limit| {
            let (stream, rt) = (stream.clone(), client.clone());
            sim.block_on(&client, limit, async move {
                let mut out = SendQueue::new();
                out.push_bytes(vec![1; 100_000]);
                let before = rt.now();
                stream.send(&mut out).await?;
                let mut back = BytesMut::new();
                while back.len() < 100_000 {
                    stream.recv(&mut back).await?;
                }
                Ok::<Duration, std::io::Error>(rt.now() - before)
            })
        };
        assert!(round_trip(second).unwrap() < second);
        // The answers are held up for five seconds.
        sim.set_blocked(a, b, true);
        let (sim_client, stream2) = (client.clone(), stream.clone());
        client.spawn(Queue::Request, async move {
            let mut out = SendQueue::new();
            out.push_bytes(vec![2; 10]);
            stream2.send(&mut out).await.unwrap();
            drop(sim_client);
        });
        sim.run_for(Duration::from_secs(5));
        sim.set_blocked(a, b, false);
        let (late, rt) = (stream.clone(), client.clone());
        let got = sim.block_on(&client, second, async move {
            let mut back = BytesMut::new();
            while back.len() < 10 {
                late.recv(&mut back).await.unwrap();
            }
            (back, rt.now())
        });
        assert_eq!(&got.0[..], [2; 10]);
        assert!(got.1 >= Nanos(5_000_000_000));
        sim.break_connections(a, b);
        let broken = round_trip(second).unwrap_err();
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
        // Nobody listens there any more.
        let rt = client.clone();
        let refused = sim.block_on(&client, second, async move { rt.connect(at).await.err() });
        assert_eq!(
            refused.map(|error| error.kind()),
            Some(std::io::ErrorKind::ConnectionRefused)
        );
    });
}
