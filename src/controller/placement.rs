//! Where replicas of new partitions go: Kafka's `StripedReplicaPlacer`. Replicas are dealt
//! round robin over racks (sorted, from a random one), partition i beginning one rack
//! further than partition i-1; within a rack round robin over brokers, unfenced ones first.
//!
//! ```text
//!   racks A{0,1} B{2,3} C{4}:   partition 0: 0 2 4    partition 1: 3 4 1    partition 2: 4 0 2
//! ```
//! The first replica (the leader) is always an unfenced broker; two replicas never share a
//! broker.

use crate::base::{BrokerId, Rng};
use crate::metadata::ClusterImage;

/// A broker that may get replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableBroker {
    pub id: BrokerId,
    pub rack: Option<String>,
    pub fenced: bool,
}

/// Brokers that new replicas may be placed on: registered, not shutting down, with a
/// directory that isn't cordoned.
pub fn usable_brokers(cluster: &ClusterImage) -> Vec<UsableBroker> {
    cluster
        .brokers
        .values()
        .filter(|broker| !broker.in_controlled_shutdown && !broker.is_cordoned())
        .map(|broker| UsableBroker {
            id: broker.id,
            rack: broker.rack.clone(),
            fenced: broker.fenced,
        })
        .collect()
}

/// Places `partitions` partitions of `replicas` replicas each; the error is Kafka's text
/// of an invalid replication factor.
pub fn place(
    brokers: &[UsableBroker],
    partitions: usize,
    replicas: i16,
    rng: &mut Rng,
) -> Result<Vec<Vec<BrokerId>>, String> {
    let count = usize::try_from(replicas).unwrap_or(0);
    if count == 0 {
        return Err(format!(
            "Invalid replication factor {replicas}: the replication factor must be positive."
        ));
    }
    if brokers.iter().all(|broker| broker.fenced) {
        return Err(
            "All brokers are currently fenced, or have all their log directories cordoned."
                .to_owned(),
        );
    }
    if count > brokers.len() {
        return Err(format!(
            "The target replication factor of {replicas} cannot be reached because only {} \
             broker(s) are registered or some brokers have all their log directories cordoned.",
            brokers.len()
        ));
    }
    let mut racks = RackList::new(brokers, rng);
    Ok((0..partitions).map(|_| racks.place(count, rng)).collect())
}

/// Brokers of one kind in a rack, dealt round robin. Each partition is an iteration of its
/// own, which begins one broker further.
#[derive(Debug, Default)]
struct Dealer {
    brokers: Vec<BrokerId>,
    /// Dealt in the current iteration.
    dealt: usize,
    offset: usize,
    iteration: usize,
}

impl Dealer {
    fn initialize(&mut self, rng: &mut Rng) {
        self.brokers.sort();
        self.offset = rng.below(self.brokers.len() as u64) as usize;
    }

    fn next(&mut self, iteration: usize) -> Option<BrokerId> {
        let count = self.brokers.len();
        if count == 0 {
            return None;
        }
        if self.iteration != iteration {
            self.iteration = iteration;
            self.dealt = 0;
            self.offset = (self.offset + 1) % count;
        }
        if self.dealt == count {
            return None;
        }
        let broker = self.brokers[(self.dealt + self.offset) % count];
        self.dealt += 1;
        Some(broker)
    }
}

#[derive(Debug, Default)]
struct Rack {
    unfenced: Dealer,
    fenced: Dealer,
}

impl Rack {
    fn next(&mut self, iteration: usize) -> Option<BrokerId> {
        self.unfenced
            .next(iteration)
            .or_else(|| self.fenced.next(iteration))
    }
}

struct RackList {
    /// In the order in which they are dealt from.
    racks: Vec<Rack>,
    unfenced_count: usize,
    iteration: usize,
    /// Rack that the next partition begins with.
    offset: usize,
}

impl RackList {
    fn new(brokers: &[UsableBroker], rng: &mut Rng) -> RackList {
        let mut by_name = std::collections::BTreeMap::<Option<&str>, Rack>::new();
        for broker in brokers {
            let rack = by_name.entry(broker.rack.as_deref()).or_default();
            let dealer = if broker.fenced {
                &mut rack.fenced
            } else {
                &mut rack.unfenced
            };
            dealer.brokers.push(broker.id);
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.initialize(rng);
            rack.unfenced.initialize(rng);
        }
        RackList {
            offset: rng.below(racks.len() as u64) as usize,
            racks,
            unfenced_count: brokers.iter().filter(|broker| !broker.fenced).count(),
            iteration: 0,
        }
    }

    /// Replicas of one partition. The caller has checked that there are enough brokers and
    /// that one is unfenced.
    fn place(&mut self, replicas: usize, rng: &mut Rng) -> Vec<BrokerId> {
        // After as many partitions as there are leaders, deal anew, so that the same
        // assignments don't come again. A single one would come anew for ever.
        if self.iteration == self.unfenced_count && self.unfenced_count > 1 {
            self.shuffle(rng);
            self.iteration = 0;
        }
        let rack_count = self.racks.len();
        self.offset %= rack_count;
        let iteration = self.iteration;
        let mut placed = Vec::with_capacity(replicas);

        let first_rack = (0..rack_count)
            .map(|step| (self.offset + step) % rack_count)
            .find(|rack| {
                let leader = self.racks[*rack].unfenced.next(iteration);
                placed.extend(leader);
                leader.is_some()
            })
            .expect("a broker is unfenced");
        // The rack that gave the leader is passed over the first time.
        let mut passed_first = false;
        let mut rack = self.offset;
        while placed.len() < replicas {
            if rack == first_rack && !passed_first {
                passed_first = true;
            } else {
                placed.extend(self.racks[rack].next(iteration));
            }
            rack = (rack + 1) % rack_count;
        }
        self.iteration += 1;
        self.offset += 1;
        placed
    }

    fn shuffle(&mut self, rng: &mut Rng) {
        shuffle(&mut self.racks, rng);
        for rack in &mut self.racks {
            shuffle(&mut rack.unfenced.brokers, rng);
            shuffle(&mut rack.fenced.brokers, rng);
        }
    }
}

/// Fisher and Yates.
pub fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for index in (1..items.len()).rev() {
        items.swap(index, rng.below(index as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn broker(id: i32, rack: Option<&str>, fenced: bool) -> UsableBroker {
        UsableBroker {
            id: BrokerId(id),
            rack: rack.map(str::to_owned),
            fenced,
        }
    }

    #[test]
    fn one_broker_takes_all() {
        let brokers = [broker(1, None, false)];
        let placed = place(&brokers, 5, 1, &mut Rng::new(1)).unwrap();
        assert_eq!(placed, vec![vec![BrokerId(1)]; 5]);
    }

    #[test]
    fn texts_are_kafkas() {
        let brokers = [broker(1, None, false)];
        let rng = &mut Rng::new(1);
        assert_eq!(
            place(&brokers, 1, 2, rng).unwrap_err(),
            "The target replication factor of 2 cannot be reached because only 1 broker(s) are \
             registered or some brokers have all their log directories cordoned."
        );
        assert_eq!(
            place(&[broker(1, None, true)], 1, 1, rng).unwrap_err(),
            "All brokers are currently fenced, or have all their log directories cordoned."
        );
        assert!(place(&brokers, 1, 0, rng).is_err());
        assert!(place(&[], 1, 1, rng).is_err());
    }

    #[test]
    fn leaders_are_unfenced_and_replicas_differ() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let brokers: Vec<_> = (0..7)
                .map(|id| {
                    let rack = ["a", "b", "c"][rng.below(3) as usize];
                    broker(id, Some(rack), id != 3 && rng.below(3) == 0)
                })
                .collect();
            let fenced: BTreeSet<_> = brokers.iter().filter(|b| b.fenced).map(|b| b.id).collect();
            for replicas in place(&brokers, 20, 4, &mut rng).unwrap() {
                assert!(!fenced.contains(&replicas[0]), "seed {seed}");
                let distinct: BTreeSet<_> = replicas.iter().collect();
                assert_eq!(distinct.len(), 4, "seed {seed}");
            }
        }
    }

    #[test]
    fn racks_are_spread_and_leaders_balanced() {
        let brokers: Vec<_> = (0..6)
            .map(|id| broker(id, Some(["a", "b", "c"][id as usize % 3]), false))
            .collect();
        let placed = place(&brokers, 60, 3, &mut Rng::new(9)).unwrap();
        let mut leaders = BTreeMap::new();
        for replicas in &placed {
            let racks: BTreeSet<_> = replicas.iter().map(|id| id.0 % 3).collect();
            assert_eq!(racks.len(), 3);
            *leaders.entry(replicas[0]).or_insert(0) += 1;
        }
        assert!(leaders.values().all(|count| *count == 10), "{leaders:?}");
    }
}
