//! What a request costs a running node besides its work, over loopback: allocations on the
//! cores' threads, and system calls. Alone in its process, for it counts allocations.

#[path = "support/core_allocations.rs"]
mod core_allocations;
#[path = "support/shards.rs"]
mod shards;

use std::io::{Read, Write};

use core_allocations::{count_this_thread, on_cores};
use ottla::io::IoStats;
use ottla::wire::ApiKey;
use ottla::wire::messages::ProduceRequest;
use shards::{Client, Shards, fetch};

const CORES: usize = 2;
/// A connection asks for the partitions in turn, so it has no reason to move.
const PARTITIONS: [i32; CORES] = [0, 1];

fn read_answer(client: &mut Client, answer: &mut Vec<u8>) {
    let mut size = [0; 4];
    let stream = &mut client.stream;
    stream.read_exact(&mut size).expect("the node answers");
    answer.resize(i32::from_be_bytes(size) as usize, 0);
    stream.read_exact(answer).expect("the node answers");
}

/// Allocations per request when one client sends these frames in turn, one at a time.
fn allocations_each(what: &str, client: &mut Client, frames: &[Vec<u8>]) -> f64 {
    const WARM: usize = 2_000;
    const COUNTED: usize = 4_000;
    let mut answer = Vec::with_capacity(1 << 20);
    let mut before = 0;
    for n in 0..WARM + COUNTED {
        if n == WARM {
            before = on_cores();
        }
        let frame = &frames[n % frames.len()];
        client.stream.write_all(frame).expect("the node reads");
        read_answer(client, &mut answer);
    }
    let each = (on_cores() - before) as f64 / COUNTED as f64;
    println!("{what}: {each:.3} allocations per request");
    each
}

/// A produce of one batch with acks=1, and a fetch of the first of them, for each partition.
fn frames(client: &mut Client) -> [Vec<Vec<u8>>; 2] {
    let produce = PARTITIONS.map(|partition| {
        let request = ProduceRequest {
            acks: 1,
            ..shards::produce(partition, &[b'v'; 100])
        };
        client.frame(ApiKey::Produce, 9, &request).to_vec()
    });
    let fetch = PARTITIONS.map(|partition| {
        let request = fetch(partition, 1, 1 << 10, (0, -1));
        client.frame(ApiKey::Fetch, 12, &request).to_vec()
    });
    [produce.to_vec(), fetch.to_vec()]
}

/// What remains are a slab of the tail cache now and then, and what background tasks do
/// twice a second.
const ALLOCATIONS_EACH_MAX: f64 = 0.02;

#[test]
fn steady_requests_allocate_nothing_wherever_their_partition_is() {
    let shards = Shards::start_with(CORES, count_this_thread);
    let mut client = shards.connect();
    let [produce, fetch] = frames(&mut client);
    // Of one partition: the connection moves to its core.
    let counts = [
        (
            "produce",
            allocations_each("produce", &mut client, &produce[..1]),
        ),
        ("fetch", allocations_each("fetch", &mut client, &fetch[..1])),
        (
            "produce, half by hop",
            allocations_each("produce, half by hop", &mut client, &produce),
        ),
        (
            "fetch, half by hop",
            allocations_each("fetch, half by hop", &mut client, &fetch),
        ),
    ];
    for (what, each) in counts {
        assert!(each <= ALLOCATIONS_EACH_MAX, "{what}: {each}");
    }
    // It was work that was counted: one partition alone, then both by halves.
    let mut reader = shards.connect();
    let appended = PARTITIONS.map(|partition| reader.read_all(partition).len());
    assert_eq!(appended, [1, 0].map(|alone| 1 + 6_000 * alone + 3_000));
    assert_eq!(reader.unanswered(), 0);
    assert!(shards.moves() <= 2 && shards.connections().iter().sum::<usize>() == 2);
    shards.stop();
}

/// System calls per request of 64 clients that wait for their answers, `pipelined` at a time.
fn system_calls_each(
    what: &str,
    pipelined: usize,
    of: impl Fn(&mut Client) -> Vec<Vec<u8>>,
) -> f64 {
    const CONNECTIONS: usize = 64;
    const ROUNDS: usize = 50;
    let shards = Shards::start(CORES);
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| shards.connect()).collect();
    let frames = of(&mut clients[0]);
    let mut answer = Vec::with_capacity(1 << 20);
    for round in 0..ROUNDS {
        let frame = frames[round % frames.len()].repeat(pipelined);
        for client in &mut clients {
            client.stream.write_all(&frame).expect("the node reads");
        }
        for client in &mut clients {
            for _ in 0..pipelined {
                read_answer(client, &mut answer);
            }
        }
    }
    let requests = (CONNECTIONS * ROUNDS * pipelined) as f64;
    let stats = shards.stop();
    let sum = |count: fn(&IoStats) -> u64| stats.iter().map(count).sum::<u64>() as f64 / requests;
    let enters = sum(|stats| stats.driver.enters);
    let sends = sum(|stats| stats.send.memory.calls - stats.send.in_rounds);
    let together = sum(|stats| stats.send.in_rounds);
    println!(
        "{what}, {pipelined} in flight: {enters:.3} enters and {sends:.3} sends per request, {together:.3} sent in rounds"
    );
    enters + sends
}

#[test]
fn system_calls_of_64_connections() {
    for pipelined in [1, 8] {
        for (kind, what) in ["produce", "fetch"].into_iter().enumerate() {
            let each = system_calls_each(what, pipelined, |client| frames(client)[kind].clone());
            // One at a time it depends on how many come together.
            assert!(pipelined == 1 || each <= 0.5, "{what}: {each}");
        }
    }
}
