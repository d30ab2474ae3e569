//! What an idle connection costs. Alone in its process, for it measures memory.

#[path = "support/live_bytes.rs"]
mod live_bytes;
#[path = "support/shards.rs"]
mod shards;

use live_bytes::{live_bytes, resident_bytes};
use ottla::wire::ApiKey;
use shards::{Shards, fetch, values, wait_until};

const CONNECTIONS: usize = 1_000;
const BYTES_EACH_MAX: isize = 4 << 10;
const RESIDENT_BYTES_EACH_MAX: isize = 16 << 10;

#[test]
fn an_idle_connection_gives_its_buffers_back() {
    let shards = Shards::start(2);
    let mut client = shards.connect();
    for partition in [0, 1] {
        client.send_produce(partition, &[7; 60_000]);
        client.produced().expect("it was appended");
        assert_eq!(client.read_all(partition).len(), 2);
    }
    let mut clients: Vec<_> = Vec::with_capacity(CONNECTIONS);
    let (before, resident_before) = (live_bytes(), resident_bytes());
    let each = |count: usize| (live_bytes() - before) / count as isize;
    for count in 1..=CONNECTIONS {
        clients.push(shards.connect());
        // No more wait to be accepted than the listeners let wait.
        if count % 20 == 0 {
            wait_until("all are placed", || {
                shards.connections().iter().sum::<usize>() == count + 1
            });
        }
    }
    let resident = (resident_bytes() - resident_before) / CONNECTIONS as isize;
    println!("new: {} bytes each, {resident} resident", each(CONNECTIONS));
    assert!(resident <= RESIDENT_BYTES_EACH_MAX, "{resident} bytes each");
    for client in &mut clients {
        // A large request, that is refused, and a large answer.
        client.send_produce(99, &[7; 60_000]);
        client.produced().expect_err("there is no such partition");
        client.send(ApiKey::Fetch, 12, &fetch(0, 0, 60_000, (0, -1)));
        assert_eq!(values(&client.fetched())[0].1, b"first");
        assert_eq!(client.unanswered(), 0);
    }
    println!("used: {} bytes each", each(CONNECTIONS));
    wait_until("the buffers are given back", || {
        each(CONNECTIONS) <= BYTES_EACH_MAX
    });
    println!("idle: {} bytes each", each(CONNECTIONS));
    println!("{} moves", shards.moves());
    drop(clients);
    shards.stop();
}
