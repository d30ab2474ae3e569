//! A whole node whose power is cut, and whose process is killed, at random moments under
//! random clients; after each restart everything that it has promised must be there.
//!
//! ```text
//! seed → lives: boot → check → clients run → an end (kill, power cut, clean stop; between
//!        two polls or between two operations of the disk) → boot …
//! ```
//! The disk loses unsynced writes, keeps them out of order, tears them in sectors of 512
//! bytes and forgets names (`sim::SimDisk`). Seeds are as many as end within a minute of a
//! debug build; OTTLA_SEEDS=n runs n, OTTLA_SEED=n that one, which replays its history.

#[path = "power_cut/check.rs"]
mod check;
#[path = "power_cut/clients.rs"]
mod clients;
#[path = "power_cut/model.rs"]
mod model;
#[path = "support/sim_server.rs"]
mod sim_server;
#[path = "power_cut/watch.rs"]
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clients::{Clients, Topic};
use model::{Counts, Losses, Model};
use ottla::base::Rng;
use ottla::config::table;
use ottla::io::{Disk, Queue};
use ottla::sim::{self, CutCounts, End, NodeId, Sim};
use sim_server::{DATA_CORES, PORT};
use watch::Watch;

/// How durable the node is told to be, and what it owes then.
#[derive(Clone, Copy, Debug)]
struct Mode {
    lines: &'static str,
    /// A power cut is among the ends.
    power_cuts: bool,
    /// Records are deleted, by request and by retention.
    deletions: bool,
    /// What a power cut may take.
    losses: Losses,
}

/// Acknowledged when written: a kill takes nothing, of a power cut nothing is promised.
const OS: Mode = Mode {
    lines: "",
    power_cuts: false,
    deletions: true,
    losses: Losses::NONE,
};

/// The same with power cuts: what is there afterwards must be whole and in order.
const OS_CUT: Mode = Mode {
    power_cuts: true,
    losses: Losses {
        acknowledged: true,
        reads: true,
        commits: true,
        gaps: true,
    },
    ..OS
};

/// Acknowledged when synced, and read when synced, where the node has `ottla.durability`.
fn flush_messages() -> Mode {
    let mode = Mode {
        lines: "log.flush.interval.messages=1\n",
        power_cuts: true,
        deletions: true,
        losses: Losses::NONE,
    };
    if has_durability() {
        return mode;
    }
    Mode {
        // The high watermark runs ahead of the disk. What it has passed may be deleted, and
        // then counts as durable.
        lines: "log.flush.interval.messages=1\n",
        deletions: false,
        losses: Losses {
            reads: true,
            commits: true,
            ..mode.losses
        },
        ..mode
    }
}

const FSYNC: Mode = Mode {
    lines: "ottla.durability=fsync\n",
    power_cuts: true,
    deletions: true,
    losses: Losses::NONE,
};

fn has_durability() -> bool {
    table::find_broker("ottla.durability").is_some()
}

const TOPICS: &[Topic] = &[
    Topic {
        name: "rolled",
        partitions: 2,
        value_bytes_max: 700,
        configs: &[
            ("internal.segment.bytes", "5000"),
            ("index.interval.bytes", "300"),
        ],
    },
    Topic {
        name: "large",
        partitions: 1,
        value_bytes_max: 3_000,
        configs: &[("index.interval.bytes", "1000")],
    },
    Topic {
        name: "retained",
        partitions: 1,
        value_bytes_max: 500,
        configs: &[
            ("internal.segment.bytes", "3000"),
            ("retention.bytes", "9000"),
            ("file.delete.delay.ms", "30"),
        ],
    },
    Topic {
        name: "deleted",
        partitions: 1,
        value_bytes_max: 600,
        configs: &[
            ("internal.segment.bytes", "4000"),
            ("file.delete.delay.ms", "30"),
        ],
    },
];

const CHURNED: &[&str] = &["comes", "goes"];

/// Short intervals, so that a life has everything in it.
const LINES: &str = "offsets.topic.num.partitions=2\nlog.initial.task.delay.ms=20\n\
    log.flush.offset.checkpoint.interval.ms=60\nreplica.high.watermark.checkpoint.interval.ms=40\n\
    metadata.log.max.record.bytes.between.snapshots=2000\n\
    internal.metadata.log.segment.bytes=4000\nmetadata.max.retention.bytes=20000\n";

/// A seed goes on until so much has happened.
const EVENTS_MIN: u64 = 2_000;
const LIVES_MIN: u64 = 8;

/// What a seed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    counts: Counts,
    disk: CutCounts,
    digest: u64,
}

fn run_seed(seed: u64, mode: Mode) -> Outcome {
    let watch = Watch::default();
    tracing::subscriber::with_default(watch.clone(), || {
        sim::run(seed, |sim| {
            let mut scenario = Scenario::new(sim, mode, watch);
            scenario.life(true);
            while scenario.events() < EVENTS_MIN || scenario.lives < LIVES_MIN {
                scenario.life(false);
            }
            scenario.last_check();
            Outcome {
                counts: scenario.clients.model.borrow().counts,
                disk: sim.disk(scenario.server).cut_counts(),
                digest: sim.digest(),
            }
        })
    })
}

struct Scenario<'a> {
    sim: &'a Sim,
    mode: Mode,
    watch: Watch,
    server: NodeId,
    client_node: NodeId,
    clients: Clients,
    dice: Rng,
    lives: u64,
    /// What the ends since the last check may have taken.
    losses: Losses,
    segments: BTreeSet<String>,
    wall_ahead_ms: i64,
}

impl<'a> Scenario<'a> {
    fn new(sim: &'a Sim, mode: Mode, watch: Watch) -> Scenario<'a> {
        let server = sim.add_node(DATA_CORES + 1);
        let client_node = sim.add_node(1);
        let rt = sim.boot(client_node).remove(0);
        let clients = Clients {
            rt: rt.clone(),
            at: SocketAddr::new(sim.ip(server), PORT),
            model: Rc::new(RefCell::new(Model::default())),
            gate: Rc::new(Cell::new(false)),
            may_lose: mode.losses.acknowledged,
        };
        rt.spawn(Queue::Request, clients.clone().plain_producer(0, TOPICS));
        rt.spawn(Queue::Request, clients.clone().plain_producer(1, TOPICS));
        for (number, topic) in [(2, &TOPICS[0]), (3, &TOPICS[1]), (4, &TOPICS[3])] {
            let producer = clients.clone().idempotent_producer(number, topic);
            rt.spawn(Queue::Request, producer);
        }
        rt.spawn(
            Queue::Request,
            clients.clone().consumer("one", &TOPICS[..2]),
        );
        rt.spawn(
            Queue::Request,
            clients.clone().consumer("two", &TOPICS[2..]),
        );
        if mode.deletions {
            rt.spawn(Queue::Request, clients.clone().deleter(&TOPICS[3]));
        }
        rt.spawn(Queue::Request, clients.clone().churner(5, CHURNED));
        Scenario {
            sim,
            mode,
            watch,
            server,
            client_node,
            clients,
            dice: Rng::new(sim.seed() ^ 0x706f_7765_7220_6375),
            lives: 0,
            losses: Losses::default(),
            segments: BTreeSet::new(),
            wall_ahead_ms: 0,
        }
    }

    fn events(&self) -> u64 {
        self.clients.model.borrow().counts.events()
    }

    /// From a boot to an end.
    fn life(&mut self, first: bool) {
        self.lives += 1;
        if !first && self.dice.one_in(4) {
            let end = self.draw_end();
            let operations = self.dice.below(400);
            self.sim.end_after(self.server, operations, end);
            let _starting = sim_server::boot(self.sim, self.server, &self.lines(), &["PLAINTEXT"]);
            self.run_until_down(Duration::from_millis(400));
            self.end(end);
            self.clients.model.borrow_mut().counts.early_ends += 1;
            return;
        }
        self.start(first);
        self.clients.gate.set(true);
        if self.dice.one_in(2) {
            // Time for what happens every half minute by the wall clock: it jumps.
            self.sim
                .run_for(Duration::from_millis(150 + self.dice.below(250)));
            self.wall_ahead_ms += 40_000;
            self.sim.set_wall_ahead_ms(self.server, self.wall_ahead_ms);
        }
        self.run_to_an_end();
        self.clients.gate.set(false);
        self.sim.break_connections(self.server, self.client_node);
        self.sim.run_for(Duration::from_millis(20));
    }

    fn last_check(&mut self) {
        self.start(false);
    }

    fn lines(&self) -> String {
        let retention_ms = if self.mode.deletions { 70 } else { i64::MAX };
        format!(
            "{LINES}log.retention.check.interval.ms={retention_ms}\n{}",
            self.mode.lines
        )
    }

    /// Boots the node, creates the topics or checks them.
    fn start(&mut self, first: bool) {
        let (starting, _) = sim_server::boot(self.sim, self.server, &self.lines(), &["PLAINTEXT"]);
        let clients = self.clients.clone();
        let losses = std::mem::take(&mut self.losses);
        let limit = Duration::from_secs(120);
        self.sim.block_on(&self.clients.rt, limit, async move {
            match first {
                true => check::create(clients, TOPICS).await,
                false => check::check(clients, TOPICS, CHURNED, losses).await,
            }
        });
        assert!(matches!(starting.try_recv(), Ok(Ok(_))), "the node started");
        self.look_around();
    }

    fn look_around(&mut self) {
        check::rolled_segments(&self.sim.disk(self.server), &mut self.segments);
        let said = self.watch.take();
        assert!(said.errors.is_empty(), "the node said {:?}", said.errors);
        let mut model = self.clients.model.borrow_mut();
        model.counts.truncations += said.truncations;
        model.counts.rolls = self.segments.len() as u64;
    }

    fn draw_end(&mut self) -> End {
        match self.mode.power_cuts && !self.dice.one_in(3) {
            true => End::PowerCut,
            false => End::Kill,
        }
    }

    fn run_to_an_end(&mut self) {
        let end = self.draw_end();
        let time = Duration::from_micros(2_000 + self.dice.below(500_000));
        match self.dice.below(6) {
            0 | 1 => self.sim.run_for(time),
            2 | 3 => {
                self.sim.end_after(self.server, self.dice.below(3_000), end);
                self.run_until_down(time);
            }
            4 => {
                self.sim.run_for(time);
                self.sim.end_after(self.server, self.dice.below(150), end);
                self.sim.ask_to_stop(self.server);
                self.run_until_down(time);
            }
            _ => {
                self.sim.run_for(time);
                self.stop();
                return;
            }
        }
        self.end(end);
    }

    /// Stops the node in good order. Then not even a power cut takes anything.
    fn stop(&mut self) {
        self.sim.ask_to_stop(self.server);
        let disk = self.sim.disk(self.server);
        let marker = Path::new("/data/.kafka_cleanshutdown");
        for _ in 0..30_000 {
            if disk.exists(marker).expect("the simulated disk works") {
                break;
            }
            self.sim.run_for(Duration::from_millis(1));
        }
        assert!(disk.exists(marker).expect("as above"), "the node stops");
        self.sim.run_for(Duration::from_millis(20));
        match self.mode.power_cuts && self.dice.one_in(2) {
            true => self.sim.crash(self.server),
            false => self.sim.shut_down(self.server),
        }
        self.clients.model.borrow_mut().counts.clean_stops += 1;
    }

    /// Until an armed end has come, or for that long.
    fn run_until_down(&mut self, limit: Duration) {
        let until = self.sim.now() + limit;
        while self.sim.is_up(self.server) && self.sim.now() < until {
            self.sim.run_for(Duration::from_micros(500));
        }
    }

    /// Ends the node, if it hasn't been, and notes what that may take.
    fn end(&mut self, end: End) {
        if self.sim.is_up(self.server) {
            match end {
                End::Kill => self.sim.shut_down(self.server),
                End::PowerCut => self.sim.crash(self.server),
            }
        }
        let mut model = self.clients.model.borrow_mut();
        match end {
            End::Kill => model.counts.kills += 1,
            End::PowerCut => {
                model.counts.cuts += 1;
                self.losses = self.mode.losses;
                self.losses.gaps = true;
            }
        }
    }
}

/// Runs the seeds of a mode on all CPUs and prints what happened.
fn run_mode(mode: Mode, seeds_in_ci: u64) {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let (first, last) = match (number("OTTLA_SEED"), number("OTTLA_SEEDS")) {
        (Some(seed), _) => (seed, seed),
        (None, seeds) => (1, seeds.unwrap_or(seeds_in_ci)),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = || {
            let mut outcomes = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > last || failed.load(Ordering::Relaxed) {
                    return outcomes;
                }
                let run = AssertUnwindSafe(|| run_seed(seed, mode));
                match catch_unwind(run) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(reason) => {
                        println!("OTTLA_SEED={seed} of {:?} failed", mode.lines);
                        failed.store(true, Ordering::Relaxed);
                        resume_unwind(reason);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        // Which seed failed has been printed.
        joined
            .flat_map(|done| done.expect("a seed failed"))
            .collect()
    });
    let mut counts = Counts::default();
    let mut disk = CutCounts::default();
    for outcome in &outcomes {
        counts += outcome.counts;
        disk += outcome.disk;
        assert!(outcome.counts.events() >= EVENTS_MIN);
    }
    println!(
        "{:?}: {} seeds, {} events\n{counts:?}\n{disk:?}",
        mode.lines,
        outcomes.len(),
        counts.events(),
    );
    if first < last {
        assert!(counts.rolls > 0 && counts.commits > 0 && counts.topics > 0);
        assert!(!mode.power_cuts || (disk.torn_writes > 0 && counts.truncations > 0));
    }
}

#[test]
fn a_kill_takes_nothing() {
    run_mode(OS, 3);
}

#[test]
fn a_power_cut_leaves_whole_records_in_order() {
    run_mode(OS_CUT, 4);
}

#[test]
fn a_power_cut_takes_nothing_acknowledged_under_flush_messages() {
    run_mode(flush_messages(), 12);
}

#[test]
fn a_power_cut_takes_nothing_acknowledged_or_read_under_fsync() {
    if !has_durability() {
        println!("this node has no ottla.durability");
        return;
    }
    run_mode(FSYNC, 16);
}

#[test]
fn a_seed_replays() {
    let first = run_seed(3, flush_messages());
    assert_eq!(run_seed(3, flush_messages()), first);
}
