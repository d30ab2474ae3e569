//! Group coordinator, random histories: members (dynamic, static, cooperative) join, sync,
//! send heartbeats, commit, leave and die while the coordinator crashes between any two
//! steps and is loaded again from what its log kept. After each event:
//!
//! - within a generation no partition is given to two members;
//! - generations that members synced to never fall;
//! - offsets read are those that the surviving log holds, below the high watermark or, for
//!   stable reads, at its end; acknowledged commits are among them;
//! - no parked request is answered twice, none that isn't parked is answered;
//! - the shard's own invariants hold.
//!
//! At the end faults stop and every member that lives must get its partitions.
//!
//! `GROUP_HISTORY_SEEDS=100 GROUP_HISTORY_FIRST_SEED=1 GROUP_HISTORY_EVENTS=5000` widen it;
//! a failing run prints its seed, which alone reproduces it.

#[path = "group_history/checks.rs"]
mod checks;
#[path = "group_history/consumer.rs"]
mod consumer;
#[path = "group_history/counts.rs"]
mod counts;
#[path = "group_history/model.rs"]
mod model;
#[path = "group_history/world.rs"]
mod world;

use counts::{Count, Counts};
use world::World;

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: {text}")),
        Err(_) => default,
    }
}

#[test]
fn partitions_have_one_owner_and_commits_survive() {
    let first = from_env("GROUP_HISTORY_FIRST_SEED", 1);
    let seeds = from_env("GROUP_HISTORY_SEEDS", 24);
    let events = from_env("GROUP_HISTORY_EVENTS", 2_500);
    let mut total = Counts::default();
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..events {
            world.event();
            world.check();
        }
        world.settle();
        println!("  {}", world.counts);
        total.add(&world.counts);
    }
    println!("all {seeds} seeds: {total}");
    if seeds >= 4 {
        for kind in Count::ALL {
            assert!(total.get(kind) > 0, "never happened: {kind:?}");
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    let run = || {
        let mut world = World::new(77);
        for _ in 0..600 {
            world.event();
        }
        (world.log_bytes(), world.counts.to_string())
    };
    assert_eq!(run(), run());
}
