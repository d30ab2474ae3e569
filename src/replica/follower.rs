//! What a replica keeps while it follows: whom it fetches from, in which term.
//!
//! Made by [`Replica::on_assignment`](super::Replica::on_assignment) for each term.

use crate::base::{BrokerId, LeaderEpoch};

#[derive(Debug)]
pub struct Follower {
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
}

impl Follower {
    pub fn new(leader: BrokerId, leader_epoch: LeaderEpoch) -> Follower {
        Follower {
            leader,
            leader_epoch,
        }
    }

    pub fn leader(&self) -> BrokerId {
        self.leader
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }
}
