//! A node follows a leader that is a script, in the simulated world: terms come and go, logs
//! part, connections are cut, batches arrive damaged, the power goes. In the end the follower
//! has the leader's bytes, and a fetch offset never says more than what a power cut leaves.

#[path = "sim_follower/leader.rs"]
mod leader;
#[path = "support/sim_server.rs"]
mod sim_server;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use leader::{Leader, PARTITIONS, Served, TOPIC};
use ottla::base::{ErrorCode, Rng};
use ottla::io::{Disk, Rt};
use ottla::record::batch::Batches;
use ottla::sim::{self, NodeId, Sim};
use sim_server::{DATA_CORES, boot};

/// Small, so that answers end in the midst of batches.
const LINES: &str = "replica.fetch.max.bytes=600\nreplica.fetch.backoff.ms=200\n";
const LISTENERS: &[&str] = &["PLAINTEXT", "CONTROLLER"];
const PATIENCE: Duration = Duration::from_secs(120);

struct World<'s> {
    sim: &'s Sim,
    server: NodeId,
    peer: NodeId,
    rt: Rt,
    leader: Rc<Leader>,
}

impl World<'_> {
    /// Runs a scenario with a leader that leads.
    fn run(seed: u64, scenario: impl FnOnce(&World<'_>, &mut Rng)) -> Served {
        sim::run(seed, |sim| {
            let mut rng = Rng::new(seed);
            let server = sim.add_node(DATA_CORES + 1);
            let peer = sim.add_node(1);
            let rt = sim.boot(peer).remove(0);
            let leader = Leader::start(&rt, sim.ip(peer), sim.ip(server), &mut rng);
            let (_starting, node) = boot(sim, server, LINES, LISTENERS);
            let world = World {
                sim,
                server,
                peer,
                rt,
                leader,
            };
            let joining = world.leader.clone();
            let cluster_id = node.cluster_id.to_string();
            world.wait(async move { joining.join(&cluster_id).await });
            scenario(&world, &mut rng);
            world.leader.served()
        })
    }

    fn wait(&self, future: impl Future<Output = ()> + 'static) {
        self.sim.block_on(&self.rt, PATIENCE, future);
    }

    fn catch_up(&self, partition: i32) {
        let leader = self.leader.clone();
        self.wait(async move { leader.caught_up(partition).await });
    }

    fn lead_again(&self) {
        let leader = self.leader.clone();
        self.wait(async move { leader.lead_again().await });
    }

    /// The power goes and comes back.
    fn cut_power(&self) {
        self.sim.crash(self.server);
        self.leader.on_power_cut();
        boot(self.sim, self.server, LINES, LISTENERS);
    }

    /// The follower has what its leader has, byte for byte.
    fn compare(&self) {
        for partition in 0..PARTITIONS {
            self.catch_up(partition);
            let (start, _) = self.leader.range(partition);
            let held = self.held(partition, start);
            assert_eq!(
                held,
                self.leader.batches(partition),
                "partition {partition}"
            );
        }
    }

    /// Batches on the follower's disk that have anything from `start` on.
    fn held(&self, partition: i32, start: i64) -> Vec<Bytes> {
        let disk = self.sim.disk(self.server);
        let directory = format!("/data/{TOPIC}-{partition}");
        let directory = Path::new(&directory);
        let files = disk.read_dir(directory).expect("the partition is there");
        let mut names: Vec<String> = files.into_iter().map(|file| file.name).collect();
        names.retain(|name| name.ends_with(".log"));
        names.sort_unstable();
        let mut batches = Vec::new();
        for name in names {
            let bytes = disk.read(&directory.join(name), u64::MAX).expect("a file");
            let whole = Batches::new(&bytes).map_while(Result::ok);
            let wanted = whole.filter(|batch| batch.last_offset().0 >= start);
            batches.extend(wanted.map(|batch| Bytes::copy_from_slice(batch.bytes())));
        }
        batches
    }

    /// Some event of many.
    fn step(&self, rng: &mut Rng, cuts: &mut u64) {
        let partition = rng.below(PARTITIONS as u64) as i32;
        let leader = &self.leader;
        let (start, end) = leader.range(partition);
        let somewhere = |rng: &mut Rng| start + rng.below((end - start) as u64 + 1) as i64;
        match rng.below(16) {
            0..=5 => {
                for _ in 0..=rng.below(4) {
                    let records = 1 + rng.below(4) as i32;
                    leader.append(partition, records, rng.below(150) as usize);
                }
            }
            6 | 7 => self.lead_again(),
            8 => {
                leader.cut(partition, somewhere(rng));
                self.lead_again();
            }
            9 => leader.delete_below(partition, somewhere(rng)),
            10 => self.sim.break_connections(self.server, self.peer),
            11 => leader.spoil(partition, 1 + rng.below(3) as u32),
            12 => {
                let errors = [
                    ErrorCode::NOT_LEADER_OR_FOLLOWER,
                    ErrorCode::UNKNOWN_LEADER_EPOCH,
                    ErrorCode::UNKNOWN_TOPIC_ID,
                    ErrorCode::KAFKA_STORAGE_ERROR,
                    ErrorCode::OFFSET_OUT_OF_RANGE,
                ];
                let error = errors[rng.below(errors.len() as u64) as usize];
                leader.refuse(partition, error);
            }
            13 => leader.forget_sessions(),
            14 => {
                // Deaf for a while, behind which the log may leave it.
                self.sim.set_blocked(self.peer, self.server, true);
                leader.append(partition, 3, 100);
                let (_, end) = leader.range(partition);
                leader.delete_below(partition, end);
                leader.append(partition, 2, 50);
                self.sim.run_for(Duration::from_millis(rng.below(300)));
                self.sim.set_blocked(self.peer, self.server, false);
            }
            _ => {
                self.cut_power();
                *cuts += 1;
            }
        }
        self.sim.run_for(Duration::from_micros(rng.below(60_000)));
    }
}

#[test]
fn whatever_happens_the_follower_ends_with_its_leaders_bytes() {
    let seeds = match std::env::var("OTTLA_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed")],
        Err(_) => (0..30).collect::<Vec<u64>>(),
    };
    let is_one = seeds.len() == 1;
    let (mut all, mut cuts) = (Served::default(), 0);
    for seed in seeds {
        let served = World::run(seed, |world, rng| {
            for _ in 0..40 {
                world.step(rng, &mut cuts);
            }
            world.compare();
        });
        all.fetches += served.fetches;
        all.diverging += served.diverging;
        all.out_of_range += served.out_of_range;
        all.spoilt += served.spoilt;
        all.refused += served.refused;
        all.torn += served.torn;
        all.incremental += served.incremental;
    }
    println!("{all:?}, {cuts} power cuts");
    assert!(is_one || cuts > 10, "{cuts} power cuts");
    let counts = [
        all.diverging,
        all.out_of_range,
        all.spoilt,
        all.refused,
        all.torn,
        all.incremental,
    ];
    assert!(is_one || counts.iter().all(|count| *count > 5), "{all:?}");
}

/// While one partition's batches come damaged, its log takes none of them, the other one goes
/// on, and both have everything once they come whole.
#[test]
fn damaged_batches_of_one_partition_harm_no_other() {
    let served = World::run(7, |world, _| {
        let leader = &world.leader;
        for partition in 0..PARTITIONS {
            leader.append(partition, 3, 100);
            world.catch_up(partition);
        }
        leader.spoil(0, 4);
        leader.append(0, 2, 100);
        for _ in 0..10 {
            leader.append(1, 2, 100);
            world.catch_up(1);
        }
        assert_eq!(world.held(0, 0).len(), 1, "a damaged batch is refused");
        assert_eq!(world.held(1, 0), leader.batches(1));
        world.compare();
    });
    assert_eq!(served.spoilt, 4);
}

/// Everything that a fetch offset has promised is there after a power cut, though the disk
/// takes its time.
#[test]
fn a_fetch_offset_promises_what_survives_a_power_cut() {
    for seed in 20..24 {
        let served = World::run(seed, |world, rng| {
            for _ in 0..12 {
                for _ in 0..4 {
                    world.leader.append(rng.below(2) as i32, 2, 80);
                    world.sim.run_for(Duration::from_micros(rng.below(20_000)));
                }
                // The leader checks the first fetch after it.
                world.cut_power();
                world.sim.run_for(Duration::from_millis(50));
            }
            world.compare();
        });
        assert_eq!((served.diverging, served.out_of_range), (0, 0));
    }
}

/// A new term that ends a follower's fetches begins with one at once, and not when the leader
/// is done holding the last one.
#[test]
fn a_new_term_is_fetched_from_at_once() {
    World::run(3, |world, _| {
        for _ in 0..5 {
            world.lead_again();
            let begun = world.rt.now();
            world.leader.append(0, 1, 10);
            world.catch_up(0);
            let took = world.rt.now() - begun;
            assert!(took < Duration::from_millis(150), "{took:?}");
        }
    });
}
