//! What the driver costs beside plain epoll: echo of 200 bytes over loopback, at 1 and 64
//! connections, slices of both alternating. Expected, relative to epoll's CPU: 1.16 and 1.05
//! parked, 1.05 and 1.08 spinning on glommio; about 1.0 on our own executor.
//!
//! `cargo bench --bench echo`; noisy unless the machine is otherwise idle.

#[path = "../tests/support/allocations.rs"]
mod allocations;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use allocations::allocations;
use bytes::BytesMut;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ottla::base::CoreId;
use ottla::io::{Backend, CoreConfig, Queue, SendQueue, Stream, run_core};

const MESSAGE_BYTES: usize = 200;
const ALTERNATIONS: usize = 5;

/// What a server's thread used, at one moment.
#[derive(Clone, Copy, Default)]
struct Used {
    cpu_us: f64,
    syscalls: u64,
    allocations: u64,
}

impl Used {
    /// By the calling thread; the system calls are counted by the server.
    fn now(syscalls: u64) -> Used {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let time = usage.user_time() + usage.system_time();
        Used {
            cpu_us: time.num_microseconds() as f64,
            syscalls,
            allocations: allocations(),
        }
    }
}

/// One slice's figures, per message.
#[derive(Clone, Copy)]
struct Slice {
    cpu_us: f64,
    p50_us: f64,
    syscalls: f64,
    allocations: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Server {
    Epoll,
    Ours(Backend, u64),
}

const SERVERS: [(&str, Server); 5] = [
    ("epoll", Server::Epoll),
    ("glommio, parked", Server::Ours(Backend::Ring, 0)),
    ("glommio, spin 50 µs", Server::Ours(Backend::Ring, 50)),
    ("bare, parked", Server::Ours(Backend::Bare, 0)),
    ("bare, spin 50 µs", Server::Ours(Backend::Bare, 50)),
];

fn main() {
    // `cargo test --benches` runs it small.
    let (alternations, slice) = if std::env::args().any(|arg| arg == "--bench") {
        (ALTERNATIONS, Duration::from_secs(1))
    } else {
        (1, Duration::from_millis(20))
    };
    for connections in [1, 64] {
        let mut slices = vec![Vec::new(); SERVERS.len()];
        for _ in 0..alternations {
            for (index, (_, server)) in SERVERS.iter().enumerate() {
                slices[index].push(run(*server, connections, slice));
            }
        }
        println!("\n{connections} connections, medians of {alternations}");
        println!(
            "{:22} {:>8} {:>9} {:>7} {:>9} {:>7}",
            "", "cpu µs", "to epoll", "p50 µs", "syscalls", "allocs"
        );
        for (index, (name, _)) in SERVERS.iter().enumerate() {
            let own = &slices[index];
            let ratios = own.iter().zip(&slices[0]).map(|(a, b)| a.cpu_us / b.cpu_us);
            println!(
                "{name:22} {:8.2} {:9.2} {:7.1} {:9.2} {:7.3}",
                median(own.iter().map(|s| s.cpu_us)),
                median(ratios),
                median(own.iter().map(|s| s.p50_us)),
                median(own.iter().map(|s| s.syscalls)),
                median(own.iter().map(|s| s.allocations)),
            );
        }
    }
}

/// A server of its own for each slice, warmed up; its figures are taken by a message of
/// another length, which both servers understand.
fn run(server: Server, connections: usize, length: Duration) -> Slice {
    let (tell, told) = mpsc::channel();
    let (tell_used, used) = mpsc::channel();
    let stop: Box<dyn FnOnce()> = match server {
        Server::Epoll => {
            let thread = thread::spawn(move || epoll_server(&tell, &tell_used));
            Box::new(move || thread.join().unwrap())
        }
        Server::Ours(backend, spin_us) => {
            let config = CoreConfig {
                backend,
                spin: Duration::from_micros(spin_us),
                ..CoreConfig::new(CoreId(0))
            };
            let core = run_core(config, move |rt| async move {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let listener = rt.listen(any).unwrap();
                tell.send(listener.local_addr()).unwrap();
                let acceptor = rt.clone();
                rt.spawn(Queue::Request, async move {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (rt, tell_used) = (acceptor.clone(), tell_used.clone());
                        acceptor.spawn(Queue::Request, async move {
                            let mark = || {
                                let stats = rt.stats();
                                let sends = stats.send.memory.calls - stats.send.in_rounds;
                                let _ = tell_used.send(Used::now(stats.driver.enters + sends));
                            };
                            echo(stream, mark).await;
                        });
                    }
                });
                rt.stopping().await;
            })
            .unwrap();
            Box::new(move || {
                core.stopper().stop();
                core.join();
            })
        }
    };
    let at = told.recv().unwrap();
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(at).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
        .collect();
    let mark = |streams: &mut [TcpStream]| {
        streams[0].write_all(&[1]).unwrap();
        used.recv().unwrap()
    };
    load(&mut streams, length / 5);
    let before = mark(&mut streams);
    let (messages, p50_us) = load(&mut streams, length);
    let after = mark(&mut streams);
    drop(streams);
    stop();
    Slice {
        cpu_us: (after.cpu_us - before.cpu_us) / messages as f64,
        p50_us,
        syscalls: (after.syscalls - before.syscalls) as f64 / messages as f64,
        allocations: (after.allocations - before.allocations) as f64 / messages as f64,
    }
}

/// Rounds of a message on each connection; how many messages, and a round's median.
fn load(streams: &mut [TcpStream], length: Duration) -> (u64, f64) {
    let message = [7; MESSAGE_BYTES];
    let mut back = [0; MESSAGE_BYTES];
    let mut rounds_us = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    while start.elapsed() < length {
        let round = Instant::now();
        for stream in &mut *streams {
            stream.write_all(&message).unwrap();
        }
        for stream in &mut *streams {
            stream.read_exact(&mut back).unwrap();
        }
        rounds_us.push(round.elapsed().as_secs_f64() * 1e6);
    }
    let messages = (rounds_us.len() * streams.len()) as u64;
    (messages, median(rounds_us.into_iter()))
}

async fn echo(stream: Stream, mark: impl Fn()) {
    let mut received = BytesMut::with_capacity(64 << 10);
    let mut out = SendQueue::new();
    while let Ok(1..) = stream.recv(&mut received).await {
        if received.len() == 1 {
            received.clear();
            mark();
            continue;
        }
        out.push_bytes(received.split().freeze());
        if stream.send(&mut out).await.is_err() {
            return;
        }
    }
}

/// One thread, level-triggered, until the last connection is gone.
fn epoll_server(tell: &mpsc::Sender<SocketAddr>, tell_used: &mpsc::Sender<Used>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    tell.send(listener.local_addr().unwrap()).unwrap();
    // SAFETY: a plain system call.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    assert!(epoll >= 0);
    let add = |fd: i32, key: u64| {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: key,
        };
        // SAFETY: both descriptors are open and the event lives for the call.
        let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(added, 0);
    };
    const LISTENER: u64 = u64::MAX;
    add(listener.as_raw_fd(), LISTENER);
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let mut buffer = [0; 4_096];
    let mut syscalls = 0;
    while streams.is_empty() || streams.iter().any(Option::is_some) {
        syscalls += 1;
        // SAFETY: the array has room for as many events as are asked for.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 64, -1) };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            let key = event.u64;
            if key == LISTENER {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                add(stream.as_raw_fd(), streams.len() as u64);
                streams.push(Some(stream));
                continue;
            }
            let slot = &mut streams[key as usize];
            let Some(stream) = slot else { continue };
            syscalls += 1;
            match stream.read(&mut buffer) {
                Ok(1) => tell_used.send(Used::now(syscalls)).unwrap(),
                Ok(0) => *slot = None,
                Ok(len) => {
                    syscalls += 1;
                    stream.write_all(&buffer[..len]).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *slot = None,
            }
        }
    }
    // SAFETY: the descriptor is ours and used no more.
    unsafe { libc::close(epoll) };
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
