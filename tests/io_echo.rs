//! The real runtime over loopback: connections, slow and vanishing peers, large files.

#[path = "support/server.rs"]
mod server;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use ottla::base::CoreId;
use ottla::io::local::{Elapsed, or_deadline};
use ottla::io::{
    Backend, Chunk, CoreConfig, ListenOptions, OpenMode, Queue, Rt, SendQueue, Stream, run_core,
};
use server::server;

const BACKENDS: [Backend; 2] = [Backend::Ring, Backend::Bare];
const PATIENCE: Duration = Duration::from_secs(20);

fn config(backend: Backend) -> CoreConfig {
    CoreConfig {
        backend,
        ..CoreConfig::new(CoreId(0))
    }
}

/// Sends back what it receives.
async fn echo(stream: Stream) {
    let mut received = BytesMut::new();
    let mut out = SendQueue::new();
    while let Ok(1..) = stream.recv(&mut received).await {
        out.push_bytes(received.split().freeze());
        if stream.send(&mut out).await.is_err() {
            return;
        }
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == message);
}

#[test]
fn echoes_on_one_connection() {
    for backend in BACKENDS {
        let (core, at) = server(config(backend), ListenOptions::default(), async |_, s| {
            echo(s).await
        });
        let mut stream = connect(at);
        for len in [1, 200, 4_096, 100_000] {
            round_trip(&mut stream, &vec![len as u8; len]);
        }
        drop(stream);
        core.stopper().stop();
        core.join();
    }
}

#[test]
fn echoes_on_64_connections() {
    for backend in BACKENDS {
        let (core, at) = server(config(backend), ListenOptions::default(), async |_, s| {
            echo(s).await
        });
        let mut streams: Vec<TcpStream> = (0..64).map(|_| connect(at)).collect();
        for round in 0..20u8 {
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[round ^ i as u8; 200]).unwrap();
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 200];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, [round ^ i as u8; 200]);
            }
        }
        core.stopper().stop();
        // 64 connections, the acceptor and main.
        assert_eq!(core.join().tasks, 66);
        for mut stream in streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the core's end closes");
        }
    }
}

#[test]
fn a_slow_receiver_gets_headers_and_file_ranges_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let contents: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&path, &contents).unwrap();
    for backend in BACKENDS {
        let path = path.clone();
        let options = ListenOptions {
            send_buffer_bytes: Some(8 << 10),
            ..ListenOptions::default()
        };
        let (core, at) = server(
            config(backend),
            options,
            async move |rt: Rt, stream: Stream| {
                let file = rt.disk().open(&path, OpenMode::Read).unwrap();
                let mut out = SendQueue::new();
                for part in 0..3u32 {
                    out.push_bytes(vec![b'h'; 100]);
                    out.push(Chunk::File {
                        file: file.clone(),
                        position: u64::from(part) * 1_000_000,
                        len: 1_000_000,
                    });
                }
                // More pieces than one call takes.
                for _ in 0..2_000 {
                    out.push_bytes(&b"tail"[..]);
                }
                stream.send(&mut out).await.unwrap();
                assert!(out.is_empty());
            },
        );
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&at.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = Vec::new();
        let mut piece = [0; 30_011];
        loop {
            let count = stream.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&piece[..count]);
        }
        let mut expected = Vec::new();
        for part in contents.chunks(1_000_000) {
            expected.extend_from_slice(&[b'h'; 100]);
            expected.extend_from_slice(part);
        }
        expected.extend_from_slice(&b"tail".repeat(2_000));
        assert!(received == expected, "{} bytes", received.len());
        core.stopper().stop();
        core.join();
    }
}

#[test]
fn a_file_shorter_than_its_chunk_breaks_the_send() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short");
    std::fs::write(&path, b"12345").unwrap();
    let (tell, told) = mpsc::channel();
    let options = ListenOptions::default();
    let (core, at) = server(
        config(Backend::Ring),
        options,
        async move |rt: Rt, stream: Stream| {
            let file = rt.disk().open(&path, OpenMode::Read).unwrap();
            let mut out = SendQueue::new();
            out.push(Chunk::File {
                file,
                position: 0,
                len: 10,
            });
            let error = stream.send(&mut out).await.unwrap_err();
            tell.send((error.kind(), out.len_bytes())).unwrap();
        },
    );
    let mut received = Vec::new();
    connect(at).read_to_end(&mut received).unwrap();
    assert_eq!(received, b"12345");
    assert_eq!(told.recv(), Ok((ErrorKind::UnexpectedEof, 5)));
    core.stopper().stop();
    core.join();
}

#[test]
fn aborted_and_half_open_connections_end_their_tasks() {
    for backend in BACKENDS {
        let (ended, ends) = mpsc::channel();
        let options = ListenOptions::default();
        let (core, at) = server(config(backend), options, async move |_, stream: Stream| {
            let mut received = BytesMut::new();
            let mut out = SendQueue::new();
            let end = loop {
                match stream.recv(&mut received).await {
                    Ok(0) => break Ok(()),
                    Ok(_) => out.push_bytes(received.split().freeze()),
                    Err(error) => break Err(error.kind()),
                }
                if let Err(error) = stream.send(&mut out).await {
                    break Err(error.kind());
                }
            };
            // The half-open peer still reads.
            out.push_bytes(&b"bye"[..]);
            let _ = stream.send(&mut out).await;
            ended.send(end).unwrap();
        });
        // Reset at once, before anything was said.
        for _ in 0..20 {
            let stream = socket2::Socket::from(connect(at));
            stream.set_linger(Some(Duration::ZERO)).unwrap();
        }
        // Reset with bytes under way in both directions.
        for _ in 0..20 {
            let mut stream = connect(at);
            stream.write_all(&[1; 10_000]).unwrap();
            socket2::Socket::from(stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        // Half-closed: the answer still comes.
        let mut stream = connect(at);
        stream.write_all(b"last words").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"last wordsbye");
        let mut seen = 0;
        // A connection reset early may never have been accepted.
        while let Ok(end) = ends.recv_timeout(Duration::from_millis(500)) {
            assert!(matches!(
                end,
                Ok(()) | Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
            ));
            seen += 1;
        }
        assert!((1..=41).contains(&seen), "{seen}");
        core.stopper().stop();
        assert_eq!(core.join().tasks, 2, "only main and the acceptor are left");
    }
}

#[test]
fn a_socket_that_nobody_reads_is_not_read_without_end() {
    let (tell, told) = mpsc::channel();
    let options = ListenOptions {
        recv_buffer_bytes: Some(64 << 10),
        ..ListenOptions::default()
    };
    let (core, at) = server(
        config(Backend::Ring),
        options,
        async move |rt: Rt, stream: Stream| {
            let mut received = BytesMut::new();
            stream.recv(&mut received).await.unwrap();
            // Nobody receives while the sender pushes all that the kernel takes.
            rt.sleep(Duration::from_millis(300)).await;
            tell.send(rt.stats().driver.receives_paused).unwrap();
            let mut total = received.len();
            while let Ok(count @ 1..) = stream.recv(&mut received).await {
                total += count;
            }
            assert!(
                received
                    .iter()
                    .enumerate()
                    .all(|(i, &byte)| byte == (i % 253) as u8)
            );
            tell.send(total as u64).unwrap();
        },
    );
    let bytes: Vec<u8> = (0..20_000_000usize).map(|i| (i % 253) as u8).collect();
    let mut stream = connect(at);
    stream.write_all(&bytes).unwrap();
    drop(stream);
    assert!(
        told.recv_timeout(PATIENCE).unwrap() >= 1,
        "the receive was paused"
    );
    assert_eq!(told.recv_timeout(PATIENCE), Ok(bytes.len() as u64));
    core.stopper().stop();
    core.join();
}

#[test]
fn few_receive_buffers_serve_many_connections() {
    // 32 connections send more than 8 buffers of 512 bytes hold.
    let few = CoreConfig {
        recv_buffers: 8,
        recv_buffer_bytes: 512,
        ..config(Backend::Bare)
    };
    let (core, at) = server(few, ListenOptions::default(), async |_, s| echo(s).await);
    let mut streams: Vec<TcpStream> = (0..32).map(|_| connect(at)).collect();
    for stream in &mut streams {
        stream.write_all(&[9; 5_000]).unwrap();
    }
    for stream in &mut streams {
        let mut back = [0; 5_000];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [9; 5_000]);
    }
    core.stopper().stop();
    core.join();
}

#[test]
fn a_stream_dropped_while_it_waits_closes_the_connection() {
    for backend in BACKENDS {
        let options = ListenOptions {
            send_buffer_bytes: Some(8 << 10),
            ..ListenOptions::default()
        };
        let (core, at) = server(
            config(backend),
            options,
            async move |rt: Rt, stream: Stream| {
                let mut received = BytesMut::new();
                let soon = rt.now() + Duration::from_millis(20);
                let waited = or_deadline(&rt, stream.recv(&mut received), soon).await;
                assert!(matches!(waited, Err(Elapsed)));
                let mut out = SendQueue::new();
                out.push_bytes(vec![0; 16 << 20]);
                let soon = rt.now() + Duration::from_millis(20);
                let waited = or_deadline(&rt, stream.send(&mut out), soon).await;
                assert!(matches!(waited, Err(Elapsed)));
            },
        );
        let mut stream = connect(at);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.len() < 16 << 20);
        core.stopper().stop();
        assert_eq!(core.join().tasks, 2);
    }
}

#[test]
fn connects_and_is_refused() {
    for backend in BACKENDS {
        let core = run_core(config(backend), async |rt: Rt| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = rt.listen(any).unwrap();
            let at = listener.local_addr();
            let server = rt.clone();
            rt.spawn(Queue::Request, async move {
                let (stream, peer) = listener.accept().await.unwrap();
                assert_eq!(stream.peer_addr(), peer);
                echo(stream).await;
                drop((server, listener));
            });
            let stream = rt.connect(at).await.unwrap();
            assert_eq!(stream.peer_addr(), at);
            let mut out = SendQueue::new();
            out.push_bytes(&b"hello"[..]);
            stream.send(&mut out).await.unwrap();
            let mut back = BytesMut::new();
            while back.len() < 5 {
                assert!(stream.recv(&mut back).await.unwrap() > 0);
            }
            assert_eq!(&back[..], b"hello");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.recv(&mut back).await.unwrap(), 0);
            drop(stream);
            let free = std::net::TcpListener::bind(any).unwrap();
            let refusing = free.local_addr().unwrap();
            drop(free);
            rt.connect(refusing).await.err().map(|error| error.kind())
        })
        .unwrap();
        assert_eq!(core.join(), Some(ErrorKind::ConnectionRefused));
    }
}

#[test]
fn a_connection_moves_to_another_core_with_its_unread_bytes() {
    let (give, given) = mpsc::channel::<ottla::io::DetachedStream>();
    let (ready, started) = mpsc::channel();
    let second = run_core(CoreConfig::new(CoreId(1)), async move |rt: Rt| {
        ready.send(rt.stopper()).unwrap();
        rt.stopping().await;
        let detached = given.recv().unwrap();
        echo(rt.attach(detached)).await;
    })
    .unwrap();
    let wake_second = started.recv().unwrap();
    let options = ListenOptions::default();
    let (first, at) = server(
        config(Backend::Bare),
        options,
        async move |rt: Rt, stream: Stream| {
            let mut received = BytesMut::new();
            stream.recv(&mut received).await.unwrap();
            assert_eq!(&received[..], b"go");
            // What comes now is received by this core and not taken.
            rt.sleep(Duration::from_millis(100)).await;
            let detached = stream.detach().await.unwrap();
            give.send(detached).unwrap();
            wake_second.stop();
        },
    );
    let mut stream = connect(at);
    stream.write_all(b"go").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(b"unread bytes").unwrap();
    let mut back = [0; 12];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"unread bytes");
    round_trip(&mut stream, b"and later ones");
    drop(stream);
    second.join();
    first.stopper().stop();
    first.join();
}

#[test]
fn listeners_of_several_cores_share_a_port() {
    let options = ListenOptions::default();
    let (first, at) = server(config(Backend::Ring), options, async |_, s| echo(s).await);
    let second = run_core(CoreConfig::new(CoreId(1)), async move |rt: Rt| {
        rt.listen(at).map(|_| ()).map_err(|error| error.kind())
    })
    .unwrap();
    assert_eq!(second.join(), Ok(()));
    first.stopper().stop();
    first.join();
}

#[test]
fn large_and_small_receives_keep_the_order() {
    for backend in BACKENDS {
        let (tell, told) = mpsc::channel();
        let options = ListenOptions::default();
        let (core, at) = server(
            config(backend),
            options,
            async move |rt: Rt, stream: Stream| {
                let (mut total, mut received) = (0usize, BytesMut::new());
                loop {
                    // Now with room for a large frame, now without, now after a while.
                    let missing = match rt.rng().below(3) {
                        0 => {
                            received.reserve(300_000);
                            300_000
                        }
                        1 => {
                            received = BytesMut::new();
                            300_000
                        }
                        _ => 0,
                    };
                    if rt.rng().one_in(10) {
                        rt.sleep(Duration::from_millis(1)).await;
                    }
                    let before = received.len();
                    let count = stream.recv_missing(&mut received, missing).await.unwrap();
                    for &byte in &received[before..] {
                        assert_eq!(byte, (total % 253) as u8);
                        total += 1;
                    }
                    if count == 0 {
                        break;
                    }
                    received.clear();
                }
                tell.send(total).unwrap();
            },
        );
        let bytes: Vec<u8> = (0..8_000_000usize).map(|i| (i % 253) as u8).collect();
        let mut stream = connect(at);
        let mut rest = &bytes[..];
        let mut step = 1;
        while !rest.is_empty() {
            step = step * 7 % 65_537;
            let (now, later) = rest.split_at(step.min(rest.len()));
            stream.write_all(now).unwrap();
            rest = later;
        }
        drop(stream);
        assert_eq!(told.recv_timeout(PATIENCE), Ok(bytes.len()));
        core.stopper().stop();
        core.join();
    }
}
