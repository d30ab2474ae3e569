//! A leader's change of its ISR, from the proposal to the controller's word
//! (AlterPartition; replication digest, section 3).
//!
//! ```text
//!                 propose                    accepted │ newer metadata
//!   committed ───────────▶ in flight ─────────────────────────────────▶ committed (the new)
//!       ▲                      │  └─ refused, perhaps not for us to know why: in flight until
//!       └──────────────────────┘     newer metadata tells
//!          refused for certain
//! ```
//! Held by `replica::leader`. Whether an attempt fails and is made again is the sender's
//! business (`node::isr`): here it is in flight until there is an answer.
//!
//! Invariant: while a proposal may come into force, with an answer or without, its members
//! count beside the committed ones ([`Isr::maximal`]), and no other is made. Who would leave
//! counts until that is committed. So whichever ISR the controller has, no record is
//! acknowledged that one of its members lacks.

use crate::base::{BrokerId, ErrorCode, LeaderEpoch};

/// What a leader asks of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub leader_epoch: LeaderEpoch,
    /// Of the assignment that it would change.
    pub partition_epoch: i32,
    /// Each with the epoch of its registration as it told; -1 where that isn't known, and for
    /// the leader itself.
    pub isr: Vec<(BrokerId, i64)>,
}

/// The controller's last word on a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Those of the proposal.
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub result: Result<Accepted, ErrorCode>,
}

/// The partition as the controller has it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: Vec<BrokerId>,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This is the ISR now, as of this partition epoch.
    Committed {
        isr: Vec<BrokerId>,
        partition_epoch: i32,
    },
    /// The committed ISR stays.
    Reverted,
    /// Something else is known to the controller: metadata will tell what.
    AwaitsMetadata,
    /// It answers nothing that is in flight.
    Stale,
}

#[derive(Clone, Debug, Default)]
pub struct Isr {
    in_flight: Option<Proposal>,
}

impl Isr {
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a member of a proposal that may come into force.
    pub fn is_proposed(&self, id: BrokerId) -> bool {
        let proposal = self.in_flight.as_ref();
        proposal.is_some_and(|proposal| proposal.isr.iter().any(|(member, _)| *member == id))
    }

    /// Members that `committed` and what is in flight have together.
    pub fn maximal<'a>(
        &'a self,
        committed: &'a [BrokerId],
    ) -> impl Iterator<Item = BrokerId> + use<'a> {
        let proposed = self.in_flight.iter().flat_map(|proposal| &proposal.isr);
        let added = proposed
            .map(|(id, _)| *id)
            .filter(|id| !committed.contains(id));
        committed.iter().copied().chain(added)
    }

    /// It is on its way to the controller.
    pub fn propose(&mut self, proposal: Proposal) -> Proposal {
        assert!(self.in_flight.is_none(), "one proposal at a time");
        self.in_flight = Some(proposal.clone());
        proposal
    }

    /// The metadata log has got as far as this partition epoch. A proposal for an earlier one
    /// has led to it, or can't come into force any more.
    pub fn on_metadata(&mut self, partition_epoch: i32) {
        let is_over = |proposal: &Proposal| proposal.partition_epoch < partition_epoch;
        self.in_flight.take_if(|proposal| is_over(proposal));
    }

    pub fn on_answer(&mut self, answer: Answer) -> Settled {
        let is_it = |proposal: &Proposal| {
            proposal.leader_epoch == answer.leader_epoch
                && proposal.partition_epoch == answer.partition_epoch
        };
        if !self.in_flight.as_ref().is_some_and(is_it) {
            return Settled::Stale;
        }
        match answer.result {
            Ok(accepted)
                if accepted.leader_epoch == answer.leader_epoch
                    && accepted.partition_epoch >= answer.partition_epoch =>
            {
                self.in_flight = None;
                Settled::Committed {
                    isr: accepted.isr,
                    partition_epoch: accepted.partition_epoch,
                }
            }
            Err(ErrorCode::INELIGIBLE_REPLICA | ErrorCode::OPERATION_NOT_ATTEMPTED) => {
                self.in_flight = None;
                Settled::Reverted
            }
            // Of another term, or one of: 3, 42, 74, 95, 100, 108.
            Ok(_) | Err(_) => Settled::AwaitsMetadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: [BrokerId; 2] = [BrokerId(1), BrokerId(2)];

    fn in_flight(members: &[i32]) -> Isr {
        let mut isr = Isr::default();
        isr.propose(Proposal {
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 8,
            isr: members.iter().map(|id| (BrokerId(*id), -1)).collect(),
        });
        isr
    }

    fn maximal(isr: &Isr) -> Vec<i32> {
        isr.maximal(&COMMITTED).map(|id| id.0).collect()
    }

    fn answer(result: Result<Accepted, ErrorCode>) -> Answer {
        Answer {
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 8,
            result,
        }
    }

    fn accepted(leader_epoch: i32, partition_epoch: i32) -> Result<Accepted, ErrorCode> {
        Ok(Accepted {
            leader_epoch: LeaderEpoch(leader_epoch),
            partition_epoch,
            isr: vec![BrokerId(1)],
        })
    }

    #[test]
    fn who_would_join_counts_at_once_and_who_would_leave_still_counts() {
        assert_eq!(maximal(&Isr::default()), [1, 2]);
        assert_eq!(maximal(&in_flight(&[1, 2, 3])), [1, 2, 3]);
        assert_eq!(maximal(&in_flight(&[1])), [1, 2]);
        assert!(in_flight(&[1, 2, 3]).is_proposed(BrokerId(3)));
        assert!(!in_flight(&[1, 2]).is_proposed(BrokerId(3)));
    }

    #[test]
    fn an_accepted_proposal_is_committed() {
        for partition_epoch in [8, 9] {
            let mut isr = in_flight(&[1]);
            assert_eq!(
                isr.on_answer(answer(accepted(3, partition_epoch))),
                Settled::Committed {
                    isr: vec![BrokerId(1)],
                    partition_epoch,
                }
            );
            assert!(!isr.is_in_flight());
        }
    }

    #[test]
    fn a_certain_refusal_ends_it() {
        for error in [
            ErrorCode::INELIGIBLE_REPLICA,
            ErrorCode::OPERATION_NOT_ATTEMPTED,
        ] {
            let mut isr = in_flight(&[1, 2, 3]);
            assert_eq!(isr.on_answer(answer(Err(error))), Settled::Reverted);
            assert_eq!(maximal(&isr), [1, 2]);
        }
    }

    #[test]
    fn what_the_controller_may_have_done_counts_until_metadata_tells() {
        let unsure = [
            Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Err(ErrorCode::INVALID_REQUEST),
            Err(ErrorCode::FENCED_LEADER_EPOCH),
            Err(ErrorCode::INVALID_UPDATE_VERSION),
            Err(ErrorCode::UNKNOWN_TOPIC_ID),
            Err(ErrorCode::NEW_LEADER_ELECTED),
            accepted(4, 9),
            accepted(3, 7),
        ];
        for result in unsure {
            let mut isr = in_flight(&[1, 2, 3]);
            assert_eq!(isr.on_answer(answer(result)), Settled::AwaitsMetadata);
            assert_eq!(maximal(&isr), [1, 2, 3]);
            isr.on_metadata(8);
            assert_eq!(maximal(&isr), [1, 2, 3]);
            isr.on_metadata(9);
            assert_eq!(maximal(&isr), [1, 2]);
        }
    }

    #[test]
    fn an_answer_to_something_else_is_ignored() {
        let mut isr = in_flight(&[1]);
        let stale = Answer {
            partition_epoch: 7,
            ..answer(accepted(3, 9))
        };
        assert_eq!(isr.on_answer(stale), Settled::Stale);
        assert!(isr.is_in_flight());
        isr.on_metadata(9);
        assert_eq!(isr.on_answer(answer(accepted(3, 9))), Settled::Stale);
    }
}
