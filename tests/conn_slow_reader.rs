//! A peer that asks and doesn't read: the node holds a bounded amount for it, serves others
//! meanwhile, and notices when it goes. Alone in its process, for it measures memory.

#[path = "support/live_bytes.rs"]
mod live_bytes;
#[path = "support/shards.rs"]
mod shards;

use std::io::Write;
use std::time::Duration;

use live_bytes::{live_bytes, resident_bytes};
use ottla::wire::ApiKey;
use shards::{Shards, fetch, values, wait_until};

const REQUESTS: usize = 20_000;
/// What one connection may hold: unsent replies, a response over that, and buffers; the
/// rest is for the allocator and what else happens in the process.
const GROWTH_MAX: isize = 12 << 20;

fn assert_growth((live, resident): (isize, isize)) {
    let (live, resident) = (live_bytes() - live, resident_bytes() - resident);
    println!("{live} bytes more, {resident} resident");
    assert!(live < GROWTH_MAX && resident < GROWTH_MAX);
}

#[test]
fn a_peer_that_does_not_read_takes_bounded_memory_and_loses_nothing() {
    let shards = Shards::start(2);
    let mut producer = shards.connect();
    for partition in [0, 1] {
        for _ in 0..16 {
            producer.send_produce(partition, &[7; 60_000]);
            producer.produced().expect("it was appended");
        }
    }

    // Large answers: nobody reads them, and the connection ends with its peer.
    let before = (live_bytes(), resident_bytes());
    let mut deaf = shards.connect();
    let timeout = Some(Duration::from_millis(500));
    deaf.stream.set_write_timeout(timeout).expect("a socket");
    let mut taken = 0;
    for n in 0..REQUESTS {
        let request = deaf.frame(ApiKey::Fetch, 12, &fetch(n as i32 % 2, 0, 1 << 20, (0, -1)));
        if deaf.stream.write_all(&request).is_err() {
            break;
        }
        taken += 1;
    }
    println!("{taken} large requests were taken");
    assert_growth(before);
    producer.send_produce(0, b"others go on");
    producer.produced().expect("it was appended");
    assert!(producer.read_all(0).len() > 16);
    drop(deaf);
    wait_until("the connection has ended", || {
        shards.connections().iter().sum::<usize>() == 1
    });

    // Small answers, read late: all of them, in order.
    let mut late = shards.connect();
    let mut writer = late.stream.try_clone().expect("a socket");
    let requests: Vec<_> = (0..REQUESTS)
        .map(|n| late.frame(ApiKey::Fetch, 12, &fetch(n as i32 % 2, 0, 100, (0, -1))))
        .collect();
    let before = (live_bytes(), resident_bytes());
    let (written, peak) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        for request in requests {
            writer.write_all(&request).expect("the node reads at last");
            let _ = written.send(());
        }
    });
    // Until nothing more is taken.
    while peak.recv_timeout(Duration::from_millis(500)).is_ok() {}
    assert_growth(before);
    assert_eq!(late.unanswered(), REQUESTS as i32);
    while late.unanswered() > 0 {
        assert_eq!(values(&late.fetched())[0].1, b"first");
    }
    writing.join().expect("all was written");
    println!("{} moves", shards.moves());
    // A node stops though a peer doesn't read.
    let mut deaf = shards.connect();
    deaf.stream.set_write_timeout(timeout).expect("a socket");
    for _ in 0..200 {
        let request = deaf.frame(ApiKey::Fetch, 12, &fetch(0, 0, 1 << 20, (0, -1)));
        if deaf.stream.write_all(&request).is_err() {
            break;
        }
    }
    shards.stop();
}
