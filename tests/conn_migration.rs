//! Connections over four cores: where they are placed, how they move to the core that has
//! their records, and that pipelining clients notice nothing of it.

#[path = "support/shards.rs"]
mod shards;

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::base::Rng;
use ottla::wire::ApiKey;
use ottla::wire::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use shards::{Client, Shards, fetch, values, wait_until};

const CORES: usize = 4;

/// So many connections that each core has `each` of them; no others are open.
fn connect_evenly(shards: &Shards, each: usize) -> Vec<Client> {
    wait_until("earlier connections have ended", || {
        shards.connections() == [0; CORES]
    });
    let clients = (0..each * CORES)
        .map(|_| {
            let mut client = shards.connect();
            // Answered, so it was placed.
            let api = ApiKey::ListOffsets;
            client.send(api, 7, &ListOffsetsRequest::default());
            let _: ListOffsetsResponse = client.answer(api, 7);
            client
        })
        .collect();
    assert_eq!(shards.connections(), [each; CORES]);
    clients
}

#[test]
fn connections_are_placed_evenly_and_leave_the_table_when_they_end() {
    let shards = Shards::start(CORES);
    let clients = connect_evenly(&shards, 10);
    drop(clients);
    wait_until("all connections have ended", || {
        shards.connections() == [0; CORES]
    });
    shards.stop();
}

/// Produces to one partition after another, each for longer than the connection's window,
/// with some requests in flight; returns how many records went to each partition.
fn produce_in_phases(shards: &Shards, number: usize, phases: u32) -> BTreeMap<i32, usize> {
    const PIPELINED: i32 = 8;
    let mut client = shards.connect();
    let mut sent = BTreeMap::new();
    let mut last = BTreeMap::new();
    let mut check = |(partition, offset): (i32, i64)| {
        let before = last.insert(partition, offset);
        assert!(before.is_none_or(|before| before < offset), "in order");
    };
    for phase in 0..phases {
        let partition = (number as i32 + phase as i32) % CORES as i32;
        for _ in 0..(64 << phase) * 2 + PIPELINED {
            let sequence = sent.entry(partition).or_insert(0usize);
            let value = format!("{number}:{sequence}");
            *sequence += 1;
            client.send_produce(partition, value.as_bytes());
            if client.unanswered() > PIPELINED {
                check(client.produced().expect("it was appended"));
            }
        }
    }
    while client.unanswered() > 0 {
        check(client.produced().expect("it was appended"));
    }
    sent
}

#[test]
fn moving_connections_of_pipelining_producers_lose_and_reorder_nothing() {
    const PRODUCERS: usize = 6;
    const PHASES: u32 = 4;
    let shards = Shards::start(CORES);
    let sent: Vec<BTreeMap<i32, usize>> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                scope.spawn({
                    let shards = &shards;
                    move || produce_in_phases(shards, number, PHASES)
                })
            })
            .collect();
        let results = producers.into_iter().map(|producer| producer.join());
        results.map(|sent| sent.expect("a producer")).collect()
    });
    // At least all phases but the one that begins at home.
    let moves = shards.moves();
    println!("{moves} moves");
    assert!(moves >= (PRODUCERS as u64) * u64::from(PHASES - 1));
    let mut client = shards.connect();
    for partition in 0..CORES as i32 {
        let mut next = [0; PRODUCERS];
        for value in client.read_all(partition).values() {
            let text = std::str::from_utf8(value).expect("text");
            let Some((number, sequence)) = text.split_once(':') else {
                continue;
            };
            let number: usize = number.parse().expect("a number");
            assert_eq!(sequence.parse(), Ok(next[number]), "no gap, no repetition");
            next[number] += 1;
        }
        for (number, sent) in sent.iter().enumerate() {
            assert_eq!(next[number], sent.get(&partition).copied().unwrap_or(0));
        }
    }
    shards.stop();
}

/// A request of an open session that changes nothing.
fn unchanged(id: i32, epoch: i32) -> FetchRequest {
    FetchRequest {
        topics: Vec::new(),
        ..fetch(0, 0, 1 << 20, (id, epoch))
    }
}

#[test]
fn a_fetch_session_goes_with_its_connection_to_the_core_of_its_records() {
    const FETCHES: i32 = 64 * 10;
    let shards = Shards::start(CORES);
    // One client on each core, and all read the same partition: all but one have to move.
    for mut client in connect_evenly(&shards, 1) {
        client.send(ApiKey::Fetch, 12, &fetch(0, 0, 1 << 20, (0, 0)));
        let id = client.fetched().session_id;
        assert_ne!(id, 0);
        let check = |response: FetchResponse| {
            assert_eq!((response.error_code, response.session_id), (0, id));
            assert_eq!(values(&response)[0].1, b"first");
        };
        for epoch in 1..=FETCHES {
            client.send(ApiKey::Fetch, 12, &unchanged(id, epoch));
            if client.unanswered() > 3 {
                check(client.fetched());
            }
        }
        while client.unanswered() > 0 {
            check(client.fetched());
        }
    }
    assert_eq!(shards.moves(), CORES as u64 - 1);
    shards.stop();
}

#[test]
fn a_fetch_session_is_used_by_connections_on_any_core() {
    let shards = Shards::start(CORES);
    let mut clients: Vec<_> = (0..CORES).map(|_| shards.connect()).collect();
    clients[0].send(ApiKey::Fetch, 12, &fetch(1, 0, 1 << 20, (0, 0)));
    let id = clients[0].fetched().session_id;
    assert_ne!(id, 0);
    let mut epoch = 1;
    for client in (0..3 * CORES).map(|n| n * 3 % CORES) {
        let client = &mut clients[client];
        client.send(ApiKey::Fetch, 12, &unchanged(id, epoch));
        let response = client.fetched();
        assert_eq!((response.error_code, response.session_id), (0, id));
        assert_eq!(values(&response)[0].1, b"first");
        epoch += 1;
    }
    // Closed by one, it is gone for all.
    clients[2].send(ApiKey::Fetch, 12, &unchanged(id, -1));
    assert_eq!(clients[2].fetched().session_id, 0);
    wait_until("the session is gone everywhere", || {
        clients.iter_mut().all(|client| {
            client.send(ApiKey::Fetch, 12, &unchanged(id, epoch));
            client.fetched().error_code == 70
        })
    });
    shards.stop();
}

/// How many answers there were with each error.
type ByError = BTreeMap<i16, u32>;

/// Connections on all cores use the same sessions, with some requests in flight; with
/// `closes` they close them now and then, too.
fn fight(shards: &Shards, ids: &[i32], closes: bool) -> ByError {
    const ROUNDS: u32 = 300;
    const CLIENTS: u64 = 2 * CORES as u64;
    let client = |seed| {
        let mut rng = Rng::new(seed);
        let mut client = shards.connect();
        let timeout = Some(Duration::from_secs(60));
        client.stream.set_read_timeout(timeout).expect("a socket");
        let mut answered = ByError::new();
        let mut epochs = BTreeMap::new();
        for _ in 0..ROUNDS {
            let id = ids[rng.below(ids.len() as u64) as usize];
            let epoch = epochs.entry(id).or_insert(1);
            let sent = if closes && rng.one_in(50) { -1 } else { *epoch };
            client.send(ApiKey::Fetch, 12, &unchanged(id, sent));
            *epoch += 1 + rng.below(3) as i32;
            if client.unanswered() > 4 {
                *answered.entry(client.fetched().error_code).or_default() += 1;
            }
        }
        while client.unanswered() > 0 {
            *answered.entry(client.fetched().error_code).or_default() += 1;
        }
        answered
    };
    let mut all = ByError::new();
    std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|seed| scope.spawn(move || client(seed)))
            .collect();
        for client in clients {
            for (error, count) in client.join().expect("a client") {
                *all.entry(error).or_default() += count;
            }
        }
    });
    println!("by error: {all:?}");
    assert_eq!(all.values().sum::<u32>(), ROUNDS * CLIENTS as u32);
    all
}

#[test]
fn connections_that_fight_for_sessions_are_all_answered_and_lose_none() {
    let shards = Shards::start(CORES);
    let mut first = shards.connect();
    let ids: Vec<i32> = (0..CORES as i32)
        .map(|partition| {
            first.send(ApiKey::Fetch, 12, &fetch(partition, 0, 1 << 20, (0, 0)));
            first.fetched().session_id
        })
        .collect();
    // Another's epoch may be the session's by now, but the session is there.
    let by_error = fight(&shards, &ids, false);
    assert!(by_error.keys().all(|error| matches!(error, 0 | 71)));
    assert!(by_error[&0] > 0);
    let by_error = fight(&shards, &ids, true);
    assert!(by_error.keys().all(|error| matches!(error, 0 | 70 | 71)));
    shards.stop();
}
