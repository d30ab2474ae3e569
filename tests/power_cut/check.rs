//! After a restart: reads everything that the node has and holds it against the model.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ottla::base::ErrorCode;
use ottla::io::Disk;
use ottla::sim::SimDisk;
use ottla::wire::ApiKey;
use ottla::wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use ottla::wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::clients::{
    CHURNED_PARTITIONS, Clients, EARLIEST, LATEST, TORN_IS_DAMAGE, Topic, create_topic, fetch,
    find_coordinator, list_offset, topic_id, values,
};
use crate::model::{LogId, Losses, RecordId};
use crate::sim_server::Client;

/// A log that hasn't reached the end that it must have after so long won't.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Creates the topics that stay.
pub async fn create(clients: Clients, topics: &'static [Topic]) {
    let mut client = Client::connect(&clients.rt, clients.at).await;
    for topic in topics {
        let created = create_topic(&mut client, topic.name, topic.partitions, topic.configs);
        created.await.expect("nothing is cut here");
        let mut model = clients.model.borrow_mut();
        for log in topic.logs() {
            let state = model.logs.entry(log).or_default();
            state.retained = topic
                .configs
                .iter()
                .any(|(name, _)| *name == "retention.bytes");
        }
    }
}

/// Checks logs, topics and committed offsets.
pub async fn check(
    clients: Clients,
    topics: &'static [Topic],
    churned: &'static [&'static str],
    losses: Losses,
) {
    let mut client = Client::connect(&clients.rt, clients.at).await;
    for log in topics.iter().flat_map(Topic::logs) {
        check_log(&clients, &mut client, &log, losses).await;
    }
    for name in churned {
        let found = topic_id(&mut client, name).await;
        let found = found.expect("nothing is cut here");
        let live = {
            let mut model = clients.model.borrow_mut();
            model.check_churned(name, found);
            model.churned[*name].live
        };
        let Some((_, incarnation)) = live else {
            continue;
        };
        for partition in 0..CHURNED_PARTITIONS {
            let log = LogId {
                topic: (*name).to_owned(),
                incarnation,
                partition,
            };
            check_log(&clients, &mut client, &log, losses).await;
        }
    }
    check_commits(&clients, &mut client, losses).await;
}

async fn check_log(clients: &Clients, client: &mut Client, log: &LogId, losses: Losses) {
    let least_end = clients.model.borrow().least_end(log, losses);
    let until = clients.rt.now() + END_PATIENCE;
    let (start, end, found) = loop {
        if let Some(read) = read_log(clients, client, log).await {
            let (_, end, _) = read;
            if end >= least_end || clients.rt.now() > until {
                break read;
            }
        }
        clients.rt.sleep(Duration::from_millis(2)).await;
    };
    let mut model = clients.model.borrow_mut();
    assert!(
        end >= least_end,
        "{log:?} ends at {end}, not at {least_end}"
    );
    model.check_log(log, start, end, &found, losses);
}

/// Start, end and records; none where the log isn't led yet, or its start moved meanwhile.
async fn read_log(
    clients: &Clients,
    client: &mut Client,
    log: &LogId,
) -> Option<(i64, i64, Vec<(i64, RecordId)>)> {
    let start = list_offset(client, log, EARLIEST).await;
    let start = start.expect("nothing is cut here")?;
    let end = list_offset(client, log, LATEST).await;
    let end = end.expect("nothing is cut here")?;
    let mut found = Vec::new();
    let mut next = start;
    while next < end {
        let answer = fetch(client, &[(log, next)], 0).await;
        let answer = answer.expect("nothing is cut here");
        let data = &answer.responses[0].partitions[0];
        match ErrorCode(data.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::OFFSET_OUT_OF_RANGE => return None,
            ErrorCode::CORRUPT_MESSAGE if TORN_IS_DAMAGE => {
                next += 1;
                continue;
            }
            other => panic!("{log:?} can't be read at {next}: {other}"),
        }
        let before = next;
        for (offset, value) in values(&data.records) {
            if offset >= next && offset < end {
                let record = clients.model.borrow().identify(log, &value);
                found.push((offset, record));
                next = offset + 1;
            }
        }
        if next == before {
            // What lies before the end has no records.
            break;
        }
    }
    Some((start, end, found))
}

async fn check_commits(clients: &Clients, client: &mut Client, losses: Losses) {
    let keys: Vec<_> = clients.model.borrow().commits.keys().cloned().collect();
    let groups: BTreeSet<&String> = keys.iter().map(|(group, ..)| group).collect();
    for group in groups {
        let found = find_coordinator(client, group).await;
        found.expect("nothing is cut here");
    }
    for key in keys {
        let (group, topic, partition) = &key;
        let request = OffsetFetchRequest {
            group_id: group.clone(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.clone(),
                partition_indexes: vec![*partition],
            }]),
            ..Default::default()
        };
        let offset = loop {
            let answer: std::io::Result<OffsetFetchResponse> =
                client.ask(ApiKey::OffsetFetch, 5, &request).await;
            let answer = answer.expect("nothing is cut here");
            match ErrorCode(answer.error_code) {
                ErrorCode::NONE => break answer.topics[0].partitions[0].committed_offset,
                ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => {
                    clients.rt.sleep(Duration::from_millis(2)).await;
                }
                other => panic!("{key:?} can't be fetched: {other}"),
            }
        };
        clients
            .model
            .borrow_mut()
            .check_commit(&key, offset, losses);
    }
}

/// Segments of clients' topics that begin past the first offset, as `directory/file`.
pub fn rolled_segments(disk: &SimDisk, into: &mut BTreeSet<String>) {
    let data = Path::new("/data");
    for dir in disk.read_dir(data).expect("it is there") {
        let is_ours = dir.is_dir && !dir.name.starts_with("__");
        if !is_ours {
            continue;
        }
        for file in disk.read_dir(&data.join(&dir.name)).expect("as above") {
            let is_first = file.name.starts_with("00000000000000000000.");
            if file.name.ends_with(".log") && !is_first {
                into.insert(format!("{}/{}", dir.name, file.name));
            }
        }
    }
}
