//! One partition's next registration, as a record (`PartitionChangeBuilder`): a target ISR,
//! target replicas and an election go in, the fields that really change come out.
//!
//! ```text
//!   target ISR, replicas ─▶ reassignment done? ─▶ who becomes eligible (ELR) ─▶ election ─▶ record
//! ```
//! Called by every decision that touches a partition. Pure.
//!
//! Invariants: without eligible leader replicas (KIP-966) an ISR never becomes empty, its
//! last member stays in it while the partition has no leader; a leader is chosen from the
//! target ISR, or from the ELR when that is empty, except by an unclean election; a leader
//! epoch grows exactly when the record names a leader.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{BrokerId, PartitionIndex, Uuid};
use crate::metadata::topics::{NO_LEADER_CHANGE, numbers};
use crate::metadata::{MetadataVersion, PartitionImage};
use crate::wire::messages::PartitionChangeRecord;

/// How far an election may go to find a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The first replica takes over from a good leader, if it is in sync.
    Preferred,
    /// A leader that is good stays; otherwise another one that is in sync.
    Online,
    /// The same, and at worst a replica that lacks records.
    Unclean,
}

/// What a topic and its cluster say about changes of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub version: MetadataVersion,
    /// Whether eligible.leader.replicas.version is finalized.
    pub has_elr: bool,
    /// Of the topic, capped by its number of replicas; 1 where ELRs don't matter.
    pub min_isr: usize,
    /// `unclean.leader.election.enable`
    pub unclean: bool,
}

pub(super) struct PartitionChange<'a> {
    pub partition: &'a PartitionImage,
    terms: Terms,
    pub election: Election,
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub recovering: bool,
    /// A broker that came back without having stopped cleanly: what it has may lack
    /// records that it once acknowledged, so that it isn't eligible.
    pub unclean_shutdown: Option<BrokerId>,
    elr: Vec<BrokerId>,
    /// Directories of replicas that have one.
    pub directories: BTreeMap<BrokerId, Uuid>,
}

impl<'a> PartitionChange<'a> {
    /// No change yet, with the election that the topic allows.
    pub fn new(partition: &'a PartitionImage, terms: Terms) -> PartitionChange<'a> {
        let directories = partition.directories.iter().copied();
        PartitionChange {
            partition,
            terms,
            election: if terms.unclean {
                Election::Unclean
            } else {
                Election::Online
            },
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            removing: partition.removing.clone(),
            adding: partition.adding.clone(),
            recovering: partition.recovering,
            unclean_shutdown: None,
            elr: partition.elr.clone(),
            directories: partition
                .replicas
                .iter()
                .copied()
                .zip(directories)
                .collect(),
        }
    }

    /// The record, if anything changes. `can_lead` tells who is up with the replica's
    /// directory, `default_directory` where a replica goes that is new on its broker.
    pub fn build(
        mut self,
        topic_id: Uuid,
        index: PartitionIndex,
        can_lead: &dyn Fn(BrokerId) -> bool,
        default_directory: &dyn Fn(BrokerId) -> Uuid,
    ) -> Option<PartitionChangeRecord> {
        let before = self.partition;
        let nothing = PartitionChangeRecord {
            topic_id,
            partition_id: index.0,
            ..Default::default()
        };
        let mut record = nothing.clone();
        self.complete_reassignment();
        self.find_eligible();
        self.elect(can_lead, &mut record);
        let names_leader = |record: &PartitionChangeRecord| record.leader != NO_LEADER_CHANGE;
        // A replica that leaves must not be followed, nor lead, in the term that it knows.
        if !names_leader(&record) && !holds_all(&self.replicas, &before.replicas) {
            record.leader = before.leader.0;
        }
        self.record_elr(&mut record);
        if record.isr.is_none()
            && (!self.isr.is_empty() || self.terms.has_elr)
            && self.isr != before.isr
        {
            record.isr = Some(numbers(&self.isr));
        }
        let shrinks = record.isr.is_some() && !holds_all(&self.isr, &before.isr);
        if shrinks
            && !names_leader(&record)
            && self.terms.version.bumps_leader_epoch_on_isr_shrink()
        {
            record.leader = before.leader.0;
        }
        self.record_last_leader(&mut record);
        self.record_assignment(default_directory, &mut record);
        if self.recovering != before.recovering {
            record.leader_recovery_state = i8::from(self.recovering);
        }
        (record != nothing).then_some(record)
    }

    /// A reassignment is over when all replicas that stay are in sync.
    fn complete_reassignment(&mut self) {
        if self.removing.is_empty() && self.adding.is_empty() {
            return;
        }
        let stays = |broker: &&BrokerId| !self.removing.contains(broker);
        let isr: Vec<BrokerId> = self.isr.iter().filter(stays).copied().collect();
        let replicas: Vec<BrokerId> = self.replicas.iter().filter(stays).copied().collect();
        if isr.is_empty() || replicas.is_empty() || !holds_all(&isr, &replicas) {
            return;
        }
        self.isr = isr;
        self.replicas = replicas;
        self.removing.clear();
        self.adding.clear();
    }

    /// While fewer than the minimum are in sync the high watermark stands still: whoever
    /// leaves the ISR then has all that is committed.
    fn find_eligible(&mut self) {
        if !self.terms.has_elr {
            return;
        }
        if self.isr.len() >= self.terms.min_isr {
            self.elr.clear();
            return;
        }
        let candidates: BTreeSet<BrokerId> = self
            .elr
            .iter()
            .chain(&self.partition.isr)
            .copied()
            .collect();
        let is_eligible = |broker: &BrokerId| {
            !self.isr.contains(broker) && self.unclean_shutdown != Some(*broker)
        };
        self.elr = candidates.into_iter().filter(is_eligible).collect();
    }

    fn elect(&mut self, can_lead: &dyn Fn(BrokerId) -> bool, record: &mut PartitionChangeRecord) {
        let (leader, is_unclean) = self.choose(can_lead);
        if leader == self.partition.leader {
            return;
        }
        if self.elr.contains(&leader) {
            self.isr = vec![leader];
            self.elr.retain(|broker| *broker != leader);
        }
        record.leader = leader.0;
        if is_unclean {
            // Records that other replicas have may be lost: they must follow the winner
            // anew before they count again.
            self.isr = vec![leader];
            record.isr = Some(vec![leader.0]);
            if !self.partition.recovering {
                record.leader_recovery_state = 1;
            }
        }
    }

    /// The leader, and whether it may lack records.
    fn choose(&self, can_lead: &dyn Fn(BrokerId) -> bool) -> (BrokerId, bool) {
        let is_safe = |broker: &BrokerId| {
            let is_eligible = self.isr.is_empty() && self.elr.contains(broker);
            (self.isr.contains(broker) || is_eligible) && can_lead(*broker)
        };
        let current = self.partition.leader;
        if self.election == Election::Preferred
            && let Some(preferred) = self.replicas.first().filter(|broker| is_safe(broker))
        {
            return (*preferred, false);
        }
        if is_safe(&current) {
            return (current, false);
        }
        if let Some(leader) = self.replicas.iter().find(|broker| is_safe(broker)) {
            return (*leader, false);
        }
        if let Some(last) = self.last_leader().filter(|broker| can_lead(*broker)) {
            return (last, true);
        }
        if self.election == Election::Unclean
            && let Some(any) = self.replicas.iter().find(|broker| can_lead(**broker))
        {
            return (*any, true);
        }
        (BrokerId::NONE, false)
    }

    /// Who led last, when nobody is left who surely has everything.
    fn last_leader(&self) -> Option<BrokerId> {
        match self.partition.last_known_elr[..] {
            [last] if self.terms.has_elr && self.isr.is_empty() && self.elr.is_empty() => {
                Some(last)
            }
            _ => None,
        }
    }

    fn record_elr(&mut self, record: &mut PartitionChangeRecord) {
        let is_unclean = record.isr.is_some();
        if is_unclean || !self.terms.has_elr {
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            record.eligible_leader_replicas = Some(numbers(&self.elr));
        }
    }

    fn record_last_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.terms.has_elr {
            return;
        }
        let (leader, known) = (self.partition.leader, &self.partition.last_known_elr);
        let becomes_empty = record.isr.as_ref().is_some_and(Vec::is_empty);
        // Kafka also notes a leader that there wasn't: -1, which helps nobody.
        if becomes_empty && *known != [leader] {
            if self.partition.has_leader() {
                record.last_known_elr = Some(vec![leader.0]);
            }
            return;
        }
        let keeps_leader = leader != BrokerId::NONE && record.leader != BrokerId::NONE.0;
        if (record.leader >= 0 || keeps_leader) && !known.is_empty() {
            record.last_known_elr = Some(Vec::new());
        }
    }

    fn record_assignment(
        &self,
        default_directory: &dyn Fn(BrokerId) -> Uuid,
        record: &mut PartitionChangeRecord,
    ) {
        let before = self.partition;
        if self.terms.version.has_directories() {
            let directory = |broker: &BrokerId| {
                let known = self.directories.get(broker).copied();
                known.unwrap_or_else(|| default_directory(*broker))
            };
            let directories: Vec<Uuid> = self.replicas.iter().map(directory).collect();
            if directories != before.directories {
                record.directories = Some(directories);
            }
        }
        let changed = |new: &Vec<BrokerId>, old: &Vec<BrokerId>| (new != old).then(|| numbers(new));
        record.replicas = changed(&self.replicas, &before.replicas);
        record.removing_replicas = changed(&self.removing, &before.removing);
        record.adding_replicas = changed(&self.adding, &before.adding);
    }
}

fn holds_all(set: &[BrokerId], members: &[BrokerId]) -> bool {
    members.iter().all(|member| set.contains(member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::LeaderEpoch;
    use crate::metadata::topics::brokers;

    const TERMS: Terms = Terms {
        version: MetadataVersion::LATEST,
        has_elr: false,
        min_isr: 1,
        unclean: false,
    };
    const WITH_ELR: Terms = Terms {
        has_elr: true,
        min_isr: 2,
        ..TERMS
    };

    fn partition(replicas: &[i32], isr: &[i32], leader: i32) -> PartitionImage {
        PartitionImage {
            replicas: brokers(replicas),
            directories: replicas.iter().map(|id| directory(BrokerId(*id))).collect(),
            isr: brokers(isr),
            removing: vec![],
            adding: vec![],
            elr: vec![],
            last_known_elr: vec![],
            leader: BrokerId(leader),
            leader_epoch: LeaderEpoch(7),
            partition_epoch: 9,
            recovering: false,
        }
    }

    fn directory(broker: BrokerId) -> Uuid {
        Uuid([0x40 + broker.0 as u8; 16])
    }

    /// The partition after a change while the brokers `up` are up.
    fn after(change: PartitionChange<'_>, up: &[i32]) -> PartitionImage {
        let before = change.partition;
        let record = change.build(
            Uuid([1; 16]),
            PartitionIndex(0),
            &|broker| up.contains(&broker.0),
            &directory,
        );
        record.map_or_else(|| before.clone(), |record| before.merge(&record).unwrap())
    }

    fn without(partition: &PartitionImage, broker: i32) -> Vec<BrokerId> {
        let isr = partition.isr.iter().copied();
        isr.filter(|member| member.0 != broker).collect()
    }

    fn remove(partition: &PartitionImage, terms: Terms, broker: i32, up: &[i32]) -> PartitionImage {
        let change = PartitionChange {
            isr: without(partition, broker),
            ..PartitionChange::new(partition, terms)
        };
        after(change, up)
    }

    #[test]
    fn nothing_to_change_is_no_record() {
        let partition = partition(&[1, 2, 3], &[1, 2], 2);
        let same = after(PartitionChange::new(&partition, TERMS), &[1, 2, 3]);
        assert_eq!(
            same, partition,
            "a good leader stays though it isn't preferred"
        );
    }

    #[test]
    fn the_first_in_sync_in_order_of_preference_leads() {
        let before = partition(&[1, 3, 2], &[1, 2, 3], 1);
        let after = remove(&before, TERMS, 1, &[2, 3]);
        assert_eq!(after.leader, BrokerId(3));
        assert_eq!(after.isr, brokers(&[2, 3]));
        assert_eq!(
            (after.leader_epoch, after.partition_epoch),
            (LeaderEpoch(8), 10)
        );
    }

    #[test]
    fn an_isr_that_shrinks_keeps_the_term_since_3_6() {
        let before = partition(&[1, 2, 3], &[1, 2, 3], 1);
        let shrunk = remove(&before, TERMS, 3, &[1, 2]);
        assert_eq!(
            (shrunk.leader_epoch, shrunk.partition_epoch),
            (LeaderEpoch(7), 10)
        );
        let old = Terms {
            version: MetadataVersion::from_level(11).unwrap(),
            ..TERMS
        };
        let shrunk = remove(&before, old, 3, &[1, 2]);
        assert_eq!(
            (shrunk.leader_epoch, shrunk.leader),
            (LeaderEpoch(8), BrokerId(1))
        );
    }

    #[test]
    fn the_last_in_sync_stays_and_nobody_leads() {
        let before = partition(&[1, 2], &[1], 1);
        let after = remove(&before, TERMS, 1, &[2]);
        assert_eq!(
            (after.leader, &after.isr[..]),
            (BrokerId::NONE, &brokers(&[1])[..])
        );
        assert_eq!(after.leader_epoch, LeaderEpoch(8));
        let unclean = Terms {
            unclean: true,
            ..TERMS
        };
        let after = remove(&before, unclean, 1, &[2]);
        assert_eq!(
            (after.leader, &after.isr[..]),
            (BrokerId(2), &brokers(&[2])[..])
        );
        assert!(after.recovering);
    }

    #[test]
    fn eligible_replicas_lead_when_nobody_is_in_sync() {
        let before = partition(&[1, 2, 3], &[1, 2], 1);
        let one = remove(&before, WITH_ELR, 2, &[1, 3]);
        assert_eq!(
            (&one.isr[..], &one.elr[..]),
            (&brokers(&[1])[..], &brokers(&[2])[..])
        );
        let none = remove(&one, WITH_ELR, 1, &[3]);
        assert_eq!(none.isr, []);
        assert_eq!(none.elr, brokers(&[1, 2]));
        assert_eq!(
            (none.leader, &none.last_known_elr[..]),
            (BrokerId::NONE, &brokers(&[1])[..])
        );
        // 3 has nothing to show; 2 was in sync when the high watermark stopped.
        let still = after(PartitionChange::new(&none, WITH_ELR), &[3]);
        assert_eq!(still, none);
        let back = after(PartitionChange::new(&none, WITH_ELR), &[2, 3]);
        assert_eq!(
            (back.leader, &back.isr[..]),
            (BrokerId(2), &brokers(&[2])[..])
        );
        assert_eq!(
            (&back.elr[..], &back.last_known_elr[..]),
            (&brokers(&[1])[..], &[][..])
        );
        assert!(!back.recovering);
        let full = PartitionChange {
            isr: brokers(&[2, 3]),
            ..PartitionChange::new(&back, WITH_ELR)
        };
        assert_eq!(after(full, &[2, 3]).elr, []);
    }

    #[test]
    fn after_unclean_stops_of_all_the_last_leader_leads() {
        let before = partition(&[1, 2], &[2], 2);
        let stopped = PartitionChange {
            isr: vec![],
            unclean_shutdown: Some(BrokerId(2)),
            ..PartitionChange::new(&before, WITH_ELR)
        };
        let stopped = after(stopped, &[1]);
        assert_eq!((stopped.isr.len(), stopped.elr.len()), (0, 0));
        assert_eq!(stopped.last_known_elr, brokers(&[2]));
        assert_eq!(
            after(PartitionChange::new(&stopped, WITH_ELR), &[1]),
            stopped
        );
        let back = after(PartitionChange::new(&stopped, WITH_ELR), &[1, 2]);
        assert_eq!(
            (back.leader, &back.isr[..]),
            (BrokerId(2), &brokers(&[2])[..])
        );
        assert!(back.recovering && back.last_known_elr.is_empty());
    }

    #[test]
    fn preferred_leaders_take_over_only_in_sync() {
        let preferred = |isr: &[i32], up: &[i32]| {
            let before = partition(&[1, 2, 3], isr, 2);
            let change = PartitionChange {
                election: Election::Preferred,
                ..PartitionChange::new(&before, TERMS)
            };
            after(change, up).leader
        };
        assert_eq!(preferred(&[1, 2], &[1, 2, 3]), BrokerId(1));
        assert_eq!(preferred(&[2, 3], &[1, 2, 3]), BrokerId(2));
        assert_eq!(preferred(&[1, 2, 3], &[2, 3]), BrokerId(2));
        assert_eq!(preferred(&[2, 3], &[3]), BrokerId(3));
    }

    #[test]
    fn a_reassignment_ends_when_all_that_stay_are_in_sync() {
        let mut before = partition(&[4, 2, 1], &[1, 2], 1);
        before.adding = brokers(&[4]);
        before.removing = brokers(&[1]);
        let joined = PartitionChange {
            isr: brokers(&[1, 2]),
            ..PartitionChange::new(&before, TERMS)
        };
        assert_eq!(after(joined, &[1, 2, 4]), before, "4 isn't in sync yet");
        let joined = PartitionChange {
            isr: brokers(&[1, 2, 4]),
            ..PartitionChange::new(&before, TERMS)
        };
        let done = after(joined, &[1, 2, 4]);
        assert_eq!(done.replicas, brokers(&[4, 2]));
        assert_eq!(
            done.directories,
            [directory(BrokerId(4)), directory(BrokerId(2))]
        );
        assert_eq!((&done.adding[..], &done.removing[..]), (&[][..], &[][..]));
        assert_eq!(
            (done.leader, &done.isr[..]),
            (BrokerId(4), &brokers(&[2, 4])[..])
        );
        assert_eq!(
            (done.leader_epoch, done.partition_epoch),
            (LeaderEpoch(8), 10)
        );
    }

    #[test]
    fn a_leader_that_stays_gets_a_new_term_when_a_replica_leaves() {
        let mut before = partition(&[1, 2, 3], &[1, 2, 3], 1);
        before.removing = brokers(&[3]);
        let done = after(PartitionChange::new(&before, TERMS), &[1, 2, 3]);
        assert_eq!(
            (done.leader, done.leader_epoch),
            (BrokerId(1), LeaderEpoch(8))
        );
        assert_eq!(done.replicas, brokers(&[1, 2]));
    }
}
