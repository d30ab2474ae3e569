//! A node with 64 unpinned cores on however few CPUs there are, under producers whose
//! connections move from core to core, readers of all partitions and short connections:
//! every acknowledged record is there once and in order, and no core sleeps through its
//! work.
//!
//! A few seconds; `OTTLA_SOAK_SECONDS` says otherwise. As many cores as the limit of
//! lockable memory allows, where that is fewer.

#[path = "support/shards.rs"]
mod shards;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use ottla::base::Rng;
use ottla::io::{Backend, IoStats, Memlock};
use ottla::wire::ApiKey;
use shards::{Client, Shards, fetch, values, wait_until};

const CORES: usize = 64;
const PRODUCERS: u64 = 12;
const READERS: u64 = 4;
const PIPELINED: i32 = 8;
/// More than a connection's window of bytes after which it may move.
const REQUESTS_PER_PHASE: u64 = 300;

/// Records that a producer had acknowledged, by partition.
type Acknowledged = BTreeMap<i32, u64>;

#[test]
fn sixty_four_unpinned_cores_lose_nothing_and_none_is_silent() {
    // One more is the controller's.
    let room = Memlock::read().cores_max(Backend::Ring).saturating_sub(1);
    let cores = CORES.min(room);
    let length = soak_length();
    println!("{cores} cores for {length:?}");
    let shards = Shards::start(cores);
    let end = Instant::now() + length;
    let (acknowledged, read) = thread::scope(|scope| {
        let shards = &shards;
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| scope.spawn(move || produce(shards, number, end)))
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|seed| scope.spawn(move || read(shards, Rng::new(1000 + seed), end)))
            .collect();
        let acknowledged: Vec<Acknowledged> = producers
            .into_iter()
            .map(|producer| producer.join().expect("a producer"))
            .collect();
        let read: u64 = readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader"))
            .sum();
        (acknowledged, read)
    });
    wait_until("the clients' connections have ended", || {
        shards.connections().iter().sum::<usize>() == 0
    });
    let moves = shards.moves();
    let written: u64 = acknowledged.iter().flat_map(BTreeMap::values).sum();
    let mut client = shards.connect();
    for partition in 0..cores as i32 {
        verify(&mut client, partition, &acknowledged);
    }
    let stats: Vec<IoStats> = shards.stop();
    println!("{written} records acknowledged, {read} read, {moves} moves");
    assert!(moves > 0 && read > 0);
    assert_eq!(stats.iter().map(|s| s.silences).sum::<u64>(), 0);
}

/// Produces to one partition after another, over a connection that is new now and then.
fn produce(shards: &Shards, number: u64, end: Instant) -> Acknowledged {
    let mut rng = Rng::new(number);
    let mut acknowledged = Acknowledged::new();
    let mut sent = BTreeMap::<i32, u64>::new();
    let mut client = shards.connect();
    while Instant::now() < end {
        if rng.one_in(4) {
            client = shards.connect();
        }
        let partition = rng.below(u64::from(shards.node.cores)) as i32;
        let sequence = sent.entry(partition).or_default();
        for _ in 0..REQUESTS_PER_PHASE {
            client.send_produce(partition, format!("{number}:{sequence}").as_bytes());
            *sequence += 1;
            if client.unanswered() > PIPELINED {
                client.produced().expect("it was appended");
            }
        }
        while client.unanswered() > 0 {
            client.produced().expect("it was appended");
        }
        acknowledged.insert(partition, *sequence);
    }
    acknowledged
}

/// Reads partitions from the beginning, each record's offset one after the last's.
fn read(shards: &Shards, mut rng: Rng, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        let mut client = shards.connect();
        let partition = rng.below(u64::from(shards.node.cores)) as i32;
        let mut next = 0;
        loop {
            client.send(
                ApiKey::Fetch,
                12,
                &fetch(partition, next, 64 << 10, (0, -1)),
            );
            let found = values(&client.fetched());
            if found.is_empty() {
                break;
            }
            for (offset, _) in found {
                assert_eq!(offset, next, "offsets are dense");
                next += 1;
                count += 1;
            }
        }
    }
    count
}

fn verify(client: &mut Client, partition: i32, acknowledged: &[Acknowledged]) {
    let mut next = vec![0; acknowledged.len()];
    for value in client.read_all(partition).values() {
        let text = std::str::from_utf8(value).expect("text");
        // What the topic's creation wrote has no number.
        let Some((number, sequence)) = text.split_once(':') else {
            continue;
        };
        let number: usize = number.parse().expect("a number");
        assert_eq!(
            sequence.parse(),
            Ok(next[number]),
            "no gap, no repetition, in order"
        );
        next[number] += 1;
    }
    for (next, acknowledged) in next.iter().zip(acknowledged) {
        assert_eq!(*next, acknowledged.get(&partition).copied().unwrap_or(0));
    }
}

fn soak_length() -> Duration {
    let seconds = std::env::var("OTTLA_SOAK_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}
