//! What the active controller does without being asked, once its time has come: fence
//! brokers whose sessions ended, give leadership back to preferred replicas, elect leaders
//! uncleanly where that was allowed meanwhile (`PeriodicTaskControlManager`).
//!
//! Pure: the node asks [`Controller::next_deadline`] how long it may sleep, then calls
//! [`Controller::decide_due`] until that gives nothing more. Each call does one piece, whose
//! records are appended and replayed before the next.
//!
//! ```text
//!   next_deadline ─▶ sleep ─▶ decide_due ─▶ records ─▶ append, replay ─▶ decide_due ─▶ … None
//! ```

use bytes::Bytes;

use super::leader_election::Cause;
use super::{Controller, ControllerSettings, Turn};
use crate::base::Nanos;
use crate::metadata::{ConfigResourceType, MetadataRecord};

const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

/// When the periodic pieces are due. Soft: begins anew with every controller.
#[derive(Debug, Default)]
pub(super) struct Timers {
    has_begun: bool,
    /// Never, where leaders aren't balanced.
    balance: Option<Nanos>,
    unclean: Option<Nanos>,
}

impl Timers {
    pub fn begin(&mut self, settings: &ControllerSettings, now: Nanos) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        let balance = settings.leader_imbalance_check_interval;
        self.balance = balance.map(|interval| now + interval);
        self.unclean = Some(now + settings.unclean_leader_election_interval);
    }

    /// An unclean election that has just been allowed doesn't wait.
    pub fn on_records(&mut self, records: &[MetadataRecord]) {
        let allows = |record: &MetadataRecord| match record {
            MetadataRecord::Config(config) => {
                let kind = ConfigResourceType(config.resource_type);
                config.name == UNCLEAN_LEADER_ELECTION
                    && [ConfigResourceType::TOPIC, ConfigResourceType::BROKER].contains(&kind)
            }
            _ => false,
        };
        if records.iter().any(allows) {
            self.unclean = Some(Nanos(0));
        }
    }
}

/// Records that nobody asked for. They may be cut into batches anywhere.
#[derive(Debug)]
pub struct DueDecision {
    /// For logs.
    pub reason: &'static str,
    pub records: Vec<MetadataRecord>,
    pub values: Vec<Bytes>,
}

impl Controller {
    /// When there is something to do next, if the controller isn't asked before. It isn't
    /// known before the first turn.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let timeout_ms = self.settings.broker_session_timeout_ms;
        let session = self
            .heartbeats
            .next_to_expire(&self.image.cluster, timeout_ms)
            .map(|(end, _)| end);
        [session, self.timers.balance, self.timers.unclean]
            .into_iter()
            .flatten()
            .min()
    }

    /// One piece of what is due; `None` when nothing is.
    pub fn decide_due(&mut self, turn: &Turn) -> Option<DueDecision> {
        self.begin(turn);
        let mut records = Vec::new();
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= turn.now);
        let timeout_ms = self.settings.broker_session_timeout_ms;
        let session = self
            .heartbeats
            .next_to_expire(&self.image.cluster, timeout_ms);
        // One at a time, so that the next one's partitions are seen as they then are.
        if let Some((end, id)) = session
            && end <= turn.now
        {
            let broker = self.image.cluster.broker(id).expect("it has a session");
            self.fence(&std::sync::Arc::clone(broker), &mut records);
            return Some(self.due("session timeout", records));
        }
        if due(self.timers.unclean) {
            let interval = self.settings.unclean_leader_election_interval;
            self.timers.unclean = Some(turn.now + interval);
            self.update_leaders(Cause::Nothing, &mut records);
            if !records.is_empty() {
                return Some(self.due("leaderless partitions", records));
            }
        }
        if due(self.timers.balance) {
            let has_more = self.balance_leaders(&mut records);
            if !has_more {
                let interval = self.settings.leader_imbalance_check_interval;
                self.timers.balance = interval.map(|interval| turn.now + interval);
            }
            if !records.is_empty() {
                return Some(self.due("preferred leaders", records));
            }
        }
        None
    }

    fn due(&self, reason: &'static str, records: Vec<MetadataRecord>) -> DueDecision {
        let values = self.encode(&records, false);
        DueDecision {
            reason,
            values: values.expect("only an atomic decision can be too large"),
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::Bench;
    use crate::base::BrokerId;
    use crate::metadata::ConfigResourceType;

    const SESSION: Duration = Duration::from_millis(9_000);

    #[test]
    fn a_silent_broker_is_fenced_when_its_session_ends() {
        let mut bench = Bench::with_brokers(3);
        bench.create_topic_on("t", &[1, 2, 3]);
        let begin = bench.now;
        bench.now = begin + Duration::from_millis(8_999);
        for broker in [2, 3] {
            bench.heartbeat(broker, |_| {});
        }
        assert_eq!(bench.controller.next_deadline(), Some(begin + SESSION));
        assert_eq!(bench.run_due(), [""; 0]);
        bench.now = begin + SESSION;
        assert_eq!(bench.run_due(), ["session timeout"]);
        let partition = bench.partition("t", 0);
        assert_eq!((partition.leader, partition.isr.len()), (BrokerId(2), 2));
        let image = bench.controller.image();
        assert!(image.cluster.broker(BrokerId(1)).unwrap().fenced);
        // With the epoch that it has it comes back.
        assert_eq!(bench.heartbeat(1, |_| {}), (false, false));
    }

    #[test]
    fn brokers_of_one_moment_are_fenced_one_after_the_other() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        bench.now = bench.now + SESSION;
        assert_eq!(bench.run_due(), ["session timeout"; 2]);
        let partition = bench.partition("t", 0);
        assert_eq!(
            (partition.leader, &partition.isr[..]),
            (BrokerId::NONE, &[BrokerId(2)][..])
        );
    }

    #[test]
    fn a_new_controller_gives_a_whole_session() {
        let mut bench = Bench::with_brokers(2);
        bench.now = bench.now + Duration::from_millis(8_000);
        bench.restart_controller();
        assert_eq!(bench.run_due(), [""; 0]);
        // The first is in the controller's own process; of the second nothing is known.
        assert_eq!(bench.register(2, 99), 101);
        assert_eq!(bench.register(1, 99), 0);
        bench.now = bench.now + SESSION;
        assert_eq!(bench.run_due(), ["session timeout"]);
        assert_eq!(bench.register(2, 99), 0);
    }

    #[test]
    fn preferred_leaders_return_by_themselves() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        bench.heartbeat(1, |request| request.want_fence = true);
        bench.heartbeat(1, |_| {});
        bench.propose_isr(2, "t", &[2, 1]);
        let mut done = Vec::new();
        let end = bench.now + Duration::from_secs(301);
        while bench.now < end {
            assert_eq!(bench.partition("t", 0).leader, BrokerId(2));
            bench.now = bench.now + Duration::from_secs(7);
            bench.heartbeat(1, |_| {});
            bench.heartbeat(2, |_| {});
            done.extend(bench.run_due());
        }
        assert_eq!(done, ["preferred leaders"]);
        assert_eq!(bench.partition("t", 0).leader, BrokerId(1));
    }

    #[test]
    fn what_was_allowed_to_be_unclean_is_elected_at_once() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        bench.heartbeat(2, |request| request.want_fence = true);
        bench.heartbeat(1, |request| request.want_fence = true);
        bench.heartbeat(2, |_| {});
        assert_eq!(bench.run_due(), [""; 0]);
        let key = "unclean.leader.election.enable";
        bench.set_config(ConfigResourceType::TOPIC, "t", key, "true");
        assert!(bench.controller.next_deadline() <= Some(bench.now));
        assert_eq!(bench.run_due(), ["leaderless partitions"]);
        let partition = bench.partition("t", 0);
        assert_eq!(
            (partition.leader, partition.recovering),
            (BrokerId(2), true)
        );
    }
}
