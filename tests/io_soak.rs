//! Eight cores on two CPUs under everything that could make one sleep through its work:
//! no timers that would wake it by chance, idle gaps, short connections, calls between
//! cores, a background task. Every request is answered and the sentinel finds nothing.
//!
//! A few seconds; an hour with `OTTLA_LONG`; `OTTLA_SOAK_SECONDS` says otherwise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use ottla::base::{CoreId, Rng};
use ottla::io::local::Notify;
use ottla::io::{Backend, CoreConfig, IoStats, Queue, Rt, SendQueue, Stream, run_core};
use ottla::mesh::{Port, PortSeed, mesh};

const CORES: usize = 8;
const CLIENTS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// The background task works in slices that hold its core for so long.
const SLICE: Duration = Duration::from_micros(100);
const SLICES_PER_REQUEST: usize = 20;

type CorePort = Port<u64, u64>;

#[test]
fn no_core_sleeps_through_its_work() {
    let length = soak_length();
    println!("soaking for {length:?}");
    for backend in [Backend::Ring, Backend::Bare] {
        soak(backend, length / 2);
    }
}

fn soak(backend: Backend, length: Duration) {
    let cpus = two_cpus();
    let (tell, told) = mpsc::channel();
    let cores: Vec<_> = mesh(CORES, 4)
        .into_iter()
        .map(|seed: PortSeed<u64, u64>| {
            let config = CoreConfig {
                cpu: Some(cpus[seed.core().index() % cpus.len()]),
                backend,
                ..CoreConfig::new(seed.core())
            };
            let tell = tell.clone();
            run_core(config, move |rt| serve(rt, seed, tell)).unwrap()
        })
        .collect();
    let mut at: Vec<(CoreId, SocketAddr)> = told.iter().take(CORES).collect();
    at.sort_unstable();
    let at: Vec<SocketAddr> = at.into_iter().map(|(_, at)| at).collect();
    let end = Instant::now() + length;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let at = at.clone();
            thread::spawn(move || ask(&at, Rng::new(seed), end))
        })
        .collect();
    let answers: u64 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    for core in &cores {
        core.stopper().stop();
    }
    let stats: Vec<IoStats> = cores.into_iter().map(|core| core.join()).collect();
    let sum = |of: fn(&IoStats) -> u64| stats.iter().map(of).sum::<u64>();
    println!(
        "{backend:?}: {answers} answers, {} parks, {} bells",
        sum(|s| s.driver.parks),
        sum(|s| s.driver.bells_rung)
    );
    assert!(answers > 0);
    assert!(
        sum(|s| s.driver.bells_rung) > 0,
        "cores slept and were rung"
    );
    assert_eq!(sum(|s| s.silences), 0, "{stats:?}");
}

/// A core: answers its connections with what another core says.
async fn serve(
    rt: Rt,
    seed: PortSeed<u64, u64>,
    tell: mpsc::Sender<(CoreId, SocketAddr)>,
) -> IoStats {
    let port = seed.attach(&rt);
    let answers = port.clone();
    rt.spawn(Queue::Request, async move {
        loop {
            let (_, question, slot) = answers.next_request().await;
            slot.reply(question + 1);
        }
    });
    let work = Rc::new(Notify::new());
    if rt.core() == CoreId(0) {
        rt.spawn(Queue::Background, background(rt.clone(), work.clone()));
    }
    let listener = rt.listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    tell.send((rt.core(), listener.local_addr())).unwrap();
    let acceptor = rt.clone();
    rt.spawn(Queue::Request, async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            work.notify_one();
            acceptor.spawn(Queue::Request, answer(stream, port.clone()));
        }
    });
    rt.stopping().await;
    rt.stats()
}

async fn background(rt: Rt, work: Rc<Notify>) {
    loop {
        work.notified().await;
        for _ in 0..SLICES_PER_REQUEST {
            let start = rt.now();
            while rt.now().saturating_since(start) < SLICE {}
            rt.yield_now().await;
        }
    }
}

async fn answer(stream: Stream, port: CorePort) {
    let mut received = BytesMut::new();
    let mut out = SendQueue::new();
    loop {
        while received.len() < 8 {
            match stream.recv(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let question = u64::from_be_bytes(received.split_to(8)[..].try_into().unwrap());
        let to = CoreId((question % CORES as u64) as u16);
        let answer = port.call(to, question).await.unwrap();
        out.push_bytes(answer.to_be_bytes().to_vec());
        if stream.send(&mut out).await.is_err() {
            return;
        }
    }
}

/// A client: short connections, a few questions each, and pauses in between of which some
/// are longer than a core may be silent.
fn ask(at: &[SocketAddr], mut rng: Rng, end: Instant) -> u64 {
    let mut answers = 0;
    while Instant::now() < end {
        let core = rng.below(at.len() as u64) as usize;
        let mut stream = TcpStream::connect(at[core]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..=rng.below(4) {
            let question = rng.next_u64() >> 1;
            stream.write_all(&question.to_be_bytes()).unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).expect("an answer in time");
            assert_eq!(u64::from_be_bytes(answer), question + 1);
            answers += 1;
        }
        let pause_us = match rng.below(100) {
            0 => 700_000,
            1..10 => rng.below(20_000),
            _ => rng.below(500),
        };
        thread::sleep(Duration::from_micros(pause_us));
    }
    answers
}

fn soak_length() -> Duration {
    let seconds = std::env::var("OTTLA_SOAK_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let default = match std::env::var_os("OTTLA_LONG") {
        Some(_) => 3_600,
        None => 4,
    };
    Duration::from_secs(seconds.unwrap_or(default))
}

/// Two of the CPUs that this process may use, or the only one.
fn two_cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap())
        .take(2)
        .collect()
}
