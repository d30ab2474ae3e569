//! The metadata quorum's state machine, several of them on virtual time under a seed: messages
//! are lost, delayed, doubled and overtake each other, links are cut one way, nodes crash and
//! lose what they hadn't synced, disks are slow, clocks jump, voters come and go, snapshots
//! are taken at any moment. After each event:
//!
//! - an epoch has one leader, and it has everything that was ever committed;
//! - what is committed stays, the same on every node, in order and without a gap;
//! - a node's high watermark never falls while it runs;
//! - two batches at one offset of one epoch are the same;
//! - a replica votes once in an epoch, and forgets neither vote nor epoch in a crash;
//! - what a voter's Fetch says it has is on stable storage;
//! - every request is answered once at most;
//! - the machine's own invariants hold.
//!
//! At the end faults stop, and all nodes must get whatever is committed.
//!
//! `OTTLA_SEED=7` replays a seed and prints what happens, `OTTLA_SEEDS=1000` runs so many.

#[path = "raft_sim/checks.rs"]
mod checks;
#[path = "raft_sim/counts.rs"]
mod counts;
#[path = "raft_sim/disk.rs"]
mod disk;
#[path = "raft_sim/faults.rs"]
mod faults;
#[path = "raft_sim/wire.rs"]
mod wire;
#[path = "raft_sim/world.rs"]
mod world;

use counts::{Count, Counts};
use world::World;

/// Events with faults of each seed, before it may settle.
const EVENTS: u64 = 3_000;

const SEEDS: u64 = 1_000;

/// Seeds that once failed.
const FAILED: &[u64] = &[15, 31, 123, 196, 396, 669, 2420];

fn run(seed: u64, is_traced: bool) -> Counts {
    let ran = std::panic::catch_unwind(|| World::new(seed, is_traced).run(EVENTS));
    ran.unwrap_or_else(|panic| {
        eprintln!("OTTLA_SEED={seed} fails");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn the_quorum_agrees_whatever_happens() {
    if let Ok(seed) = std::env::var("OTTLA_SEED") {
        let counts = run(seed.parse().expect("a number"), true);
        return counts.print(1);
    }
    let seeds = std::env::var("OTTLA_SEEDS").map_or(SEEDS, |n| n.parse().expect("a number"));
    let mut all = Counts::default();
    for seed in 0..seeds {
        all.add_seed(&run(seed, false));
    }
    all.print(seeds);
    for count in [
        Count::Elections,
        Count::Truncations,
        Count::SnapshotsTaken,
        Count::SnapshotsLoaded,
        Count::VotersAdded,
        Count::VotersRemoved,
        Count::Crashes,
    ] {
        let with = all.seeds_with(count);
        assert!(
            seeds < 50 || with * 10 >= seeds,
            "{count:?} in {with} of {seeds} seeds only"
        );
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in FAILED {
        run(*seed, false);
    }
}
