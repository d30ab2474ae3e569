//! The group coordinator against Apache Kafka 4.3.1: the same sessions of requests, in all
//! their versions, answered by both, and the records that each then has in
//! `__consumer_offsets`, field by field.
//!
//! Kafka's answers stand in `tests/golden/group/kafka-4.3.1.txt`, so that the coordinator's
//! are compared without Java, in simulated time. With `OTTLA_KAFKA_CLASSPATH` set, as
//! `scripts/test` does, Kafka is run and asked again, and so is a whole node of ours (which
//! takes as long, some 80 seconds); `OTTLA_UPDATE_GOLDEN=1` then writes the file anew.

#[path = "group_kafka/lifetimes.rs"]
mod lifetimes;
#[path = "group_kafka/members.rs"]
mod members;
#[path = "group_kafka/node.rs"]
mod node;
#[path = "group_kafka/offsets.rs"]
mod offsets;
#[path = "group_kafka/ours.rs"]
mod ours;
#[path = "group_kafka/requests.rs"]
mod requests;
#[path = "group_kafka/scenarios.rs"]
mod scenarios;
#[path = "group_kafka/session.rs"]
mod session;

use std::path::PathBuf;

use session::{Session, Target};

fn golden_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/group/kafka-4.3.1.txt")
}

fn play(target: &mut dyn Target) -> String {
    let mut session = Session::new(target);
    for (name, scenario) in scenarios::ALL {
        session.title(name);
        scenario(&mut session);
    }
    session.finish()
}

fn assert_same(ours: &str, theirs: &str, who: &str) {
    let mut title = "";
    for (index, (our, their)) in ours.lines().zip(theirs.lines()).enumerate() {
        if our.starts_with("== ") {
            title = our;
        }
        assert!(
            our == their,
            "line {}, in {title}\n  ours:   {our}\n  {who}: {their}",
            index + 1
        );
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn answers_and_records_are_kafkas() {
    let golden = std::fs::read_to_string(golden_path()).expect("the golden file is there");
    ours::run(|target| assert_same(&play(target), &golden, "Kafka's"));
}

#[test]
fn a_whole_node_answers_so() {
    if std::env::var_os("OTTLA_KAFKA_CLASSPATH").is_none() {
        return;
    }
    let golden = std::fs::read_to_string(golden_path()).expect("the golden file is there");
    assert_same(&play(&mut node::Node::ottla()), &golden, "Kafka's");
}

#[test]
fn kafka_still_answers_so() {
    let Some(mut kafka) = node::Node::kafka() else {
        return;
    };
    let answers = play(&mut kafka);
    if std::env::var_os("OTTLA_UPDATE_GOLDEN").is_some() {
        std::fs::write(golden_path(), &answers).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(golden_path()).expect("the golden file is there");
    assert_same(&golden, &answers, "Kafka's");
}
