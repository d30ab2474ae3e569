//! What goes wrong, and what administrators do meanwhile.

use bytes::Bytes;
use ottla::raft::checkpoint::Checkpoint;
use ottla::raft::quorum::{Input, OffsetAndEpoch, Quorum, Request, StateName};
use ottla::wire::messages::add_raft_voter_request::Listener;
use ottla::wire::messages::{
    AddRaftVoterRequest, DescribeQuorumRequest, RemoveRaftVoterRequest, describe_quorum_request,
};

use crate::counts::Count;
use crate::world::{CLUSTER, Event, MS, Node, World};

impl World {
    pub(crate) fn fault(&mut self) {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        match self.rng.below(20) {
            0 | 1 => self.crash(at),
            2 => self.step(at, Input::Shutdown),
            3 | 4 => self.cut_links(at),
            5 => self.cut_off_the_leader(),
            6..=8 => self.cut.clear(),
            9 => self.nodes[at].slowness = [1, 1, 10, 100][self.rng.below(4) as usize],
            10 => {
                self.nodes[at].skew += self.rng.below(6_000 * MS);
                self.counts.add(Count::ClockJumps, 1);
                self.step(at, Input::Tick);
            }
            11..=14 => self.take_snapshot(at),
            15..=18 => self.change_voters(at),
            _ => {
                let quorum = self.nodes[at].quorum.as_ref();
                if let Some(epoch) = quorum.map(Quorum::epoch) {
                    self.step(at, Input::Resign(epoch));
                }
                self.describe_quorum(at);
            }
        }
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].quorum.is_none() {
            return;
        }
        let lost = self.nodes[at].disk.crash(&mut self.rng);
        self.stop(at);
        self.counts.add(Count::Crashes, 1);
        self.counts.add(Count::ChangesLost, lost as u64);
        let delay = self.rng.below(5_000 * MS);
        self.after(delay, Event::Start { node: at });
    }

    fn cut_links(&mut self, at: usize) {
        let (is_out, is_in) = (self.rng.one_in(2), self.rng.one_in(2));
        for other in 0..self.nodes.len() {
            if other != at && !self.rng.one_in(3) {
                if is_out || !is_in {
                    self.cut.insert((at, other));
                }
                if is_in {
                    self.cut.insert((other, at));
                }
                self.counts.add(Count::Cuts, 1);
            }
        }
    }

    fn cut_off_the_leader(&mut self) {
        let is_leader = |node: &Node| {
            let quorum = node.quorum.as_ref();
            quorum.is_some_and(|quorum| quorum.state() == StateName::Leader)
        };
        if let Some(at) = self.nodes.iter().position(is_leader) {
            for other in 0..self.nodes.len() {
                self.cut.insert((at, other));
                self.cut.insert((other, at));
            }
            self.counts.add(Count::Cuts, 1);
        }
    }

    fn take_snapshot(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(quorum) = &node.quorum else {
            return;
        };
        let state = node.applied;
        let id = OffsetAndEpoch {
            epoch: state.epoch,
            offset: state.offset,
        };
        if state.offset <= quorum.log().start()
            || quorum.high_watermark().is_none_or(|hw| hw < state.offset)
            || node.disk.snapshots.contains_key(&id)
        {
            return;
        }
        let (kraft_version, voters) = quorum.log().voters_at(id.offset);
        let mut value = vec![0; 400];
        value[..8].copy_from_slice(&state.hash.to_be_bytes());
        value[8..16].copy_from_slice(&state.offset.0.to_be_bytes());
        value[16..20].copy_from_slice(&state.epoch.0.to_be_bytes());
        let file = Checkpoint {
            last_contained_log_timestamp_ms: 0,
            kraft_version,
            voters,
            values: vec![Bytes::from(value)],
        };
        let file = file.to_bytes(id.epoch, 0);
        let size = file.len() as u64;
        node.disk.snapshots.insert(id, file);
        self.counts.add(Count::SnapshotsTaken, 1);
        self.step(at, Input::SnapshotTaken { id, size });
        if !self.rng.one_in(3) {
            self.step(at, Input::Clean { before: id });
        }
    }

    /// An administrator adds or removes a voter.
    fn change_voters(&mut self, at: usize) {
        let mut nodes = self.nodes.iter();
        let leader = nodes.position(|node| {
            let quorum = node.quorum.as_ref();
            quorum.is_some_and(|quorum| quorum.state() == StateName::Leader)
        });
        let (Some(leader), true) = (leader, self.is_dynamic) else {
            return;
        };
        let quorum = self.nodes[leader].quorum.as_ref().expect("it leads");
        let target = &self.nodes[at].config;
        let request = if quorum.voters().is_voter(&target.me) {
            Request::RemoveRaftVoter(RemoveRaftVoterRequest {
                cluster_id: Some(CLUSTER.to_owned()),
                voter_id: target.me.id.0,
                voter_directory_id: target.me.wire_directory(),
            })
        } else {
            let endpoint = &target.endpoints[0];
            Request::AddRaftVoter(AddRaftVoterRequest {
                cluster_id: None,
                timeout_ms: 1_000,
                voter_id: target.me.id.0,
                voter_directory_id: target.me.wire_directory(),
                listeners: vec![Listener {
                    name: endpoint.listener.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                }],
                ack_when_committed: self.rng.one_in(2),
            })
        };
        self.deliver(leader, None, request);
    }

    fn describe_quorum(&mut self, at: usize) {
        let request = Request::DescribeQuorum(DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData {
                topic_name: ottla::raft::METADATA_TOPIC.to_owned(),
                partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
            }],
        });
        self.deliver(at, None, request);
    }
}
