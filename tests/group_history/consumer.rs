//! A member as a client library plays it: what it knows, how answers change that, and the
//! assignment that it makes when it leads.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla::base::{ErrorCode, Rng};
use ottla::coordinator::Waiter;
use ottla::wire::messages::join_group_request::JoinGroupRequestProtocol;
use ottla::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla::wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

pub const TOPIC: &str = "topic";
pub const PARTITIONS: i32 = 8;

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Is to join, with the member id that it has.
    Out,
    /// A JoinGroup is under way.
    Joining(Waiter),
    /// Is to sync; a leader knows everyone's metadata.
    Joined {
        members: Vec<(String, Bytes)>,
    },
    /// A SyncGroup is under way.
    Syncing(Waiter),
    Stable,
    /// Sends nothing any more.
    Dead,
}

#[derive(Clone, Debug)]
pub struct Consumer {
    pub group: String,
    pub name: String,
    pub instance: Option<String>,
    pub protocols: Vec<&'static str>,
    pub join_version: i16,
    pub member_id: String,
    pub generation: i32,
    pub state: State,
    pub protocol: String,
    pub owned: BTreeSet<i32>,
    /// Changes the metadata, as a changed subscription would.
    pub metadata_tag: u8,
    /// Ids under which it lived before, for its ghosts.
    pub former: Vec<(String, i32)>,
    /// Will not sync in this generation.
    pub is_slow: bool,
}

impl Consumer {
    pub fn join_request(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 9_000,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: "consumer".into(),
            protocols: self
                .protocols
                .iter()
                .map(|name| JoinGroupRequestProtocol {
                    name: (*name).into(),
                    metadata: self.metadata(),
                })
                .collect(),
            ..JoinGroupRequest::default()
        }
    }

    /// A subscription whose user data are the partitions owned.
    fn metadata(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(1);
        out.put_i32(1);
        out.put_i16(TOPIC.len() as i16);
        out.put_slice(TOPIC.as_bytes());
        out.put_u8(self.metadata_tag);
        put_partitions(&mut out, &self.owned);
        out.freeze()
    }

    /// With `rng`, the assignment is one of chance.
    pub fn sync_request(&self, rng: Option<&mut Rng>) -> SyncGroupRequest {
        let State::Joined { members } = &self.state else {
            panic!("it has not joined");
        };
        SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some(self.protocol.clone()),
            assignments: assign(&self.protocol, members, rng),
        }
    }

    pub fn heartbeat_request(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance.clone(),
        }
    }

    pub fn on_join(&mut self, response: &JoinGroupResponse) {
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => {
                self.member_id = response.member_id.clone();
                self.generation = response.generation_id;
                self.protocol = response.protocol_name.clone().unwrap_or_default();
                if response.skip_assignment {
                    // A leader that came back: the group keeps its assignment.
                    self.state = State::Joined { members: vec![] };
                    return;
                }
                if !self.is_cooperative() {
                    self.owned.clear();
                }
                self.state = State::Joined {
                    members: response
                        .members
                        .iter()
                        .map(|member| (member.member_id.clone(), member.metadata.clone()))
                        .collect(),
                };
            }
            ErrorCode::MEMBER_ID_REQUIRED => {
                self.member_id = response.member_id.clone();
                self.state = State::Out;
            }
            error => self.on_error(error),
        }
    }

    /// Whether partitions must be given up first, so that it joins again.
    pub fn on_sync(&mut self, response: &SyncGroupResponse) -> bool {
        if response.error_code != 0 {
            self.on_error(ErrorCode(response.error_code));
            return false;
        }
        let assigned = get_partitions(&response.assignment);
        let revokes = self.is_cooperative() && !self.owned.is_subset(&assigned);
        self.owned = assigned;
        self.state = if revokes { State::Out } else { State::Stable };
        revokes
    }

    pub fn on_error(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::NONE => {}
            ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::GROUP_MAX_SIZE_REACHED
            | ErrorCode::GROUP_ID_NOT_FOUND => {
                if error != ErrorCode::ILLEGAL_GENERATION {
                    self.forget_id();
                }
                self.owned.clear();
                self.state = State::Out;
            }
            ErrorCode::FENCED_INSTANCE_ID => {
                self.forget_id();
                self.owned.clear();
                self.state = State::Dead;
            }
            _ => self.state = State::Out,
        }
    }

    pub fn forget_id(&mut self) {
        if !self.member_id.is_empty() {
            self.former
                .push((std::mem::take(&mut self.member_id), self.generation));
        }
    }

    pub fn is_cooperative(&self) -> bool {
        self.protocol == "cooperative"
    }
}

/// Deals the partitions out in an order of chance. The cooperative way leaves what somebody
/// owns with its owner or with nobody, and gives the rest away.
fn assign(
    protocol: &str,
    members: &[(String, Bytes)],
    mut rng: Option<&mut Rng>,
) -> Vec<SyncGroupRequestAssignment> {
    if members.is_empty() {
        return Vec::new();
    }
    let mut owners: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (index, (_, metadata)) in members.iter().enumerate() {
        for partition in owned_in(metadata) {
            owners.entry(partition).or_default().push(index);
        }
    }
    let mut assigned: Vec<BTreeSet<i32>> = vec![BTreeSet::new(); members.len()];
    let shift = match rng.as_deref_mut() {
        Some(rng) => rng.below(members.len() as u64) as usize,
        None => 0,
    };
    for partition in 0..PARTITIONS {
        let target = (partition as usize + shift) % members.len();
        let blocked = protocol == "cooperative"
            && owners
                .get(&partition)
                .is_some_and(|owners| owners.iter().any(|&owner| owner != target));
        if !blocked {
            assigned[target].insert(partition);
        }
    }
    members
        .iter()
        .zip(assigned)
        // Now and then a member is forgotten.
        .filter(|_| !rng.as_deref_mut().is_some_and(|rng| rng.one_in(40)))
        .map(|((member_id, _), partitions)| {
            let mut out = BytesMut::new();
            put_partitions(&mut out, &partitions);
            SyncGroupRequestAssignment {
                member_id: member_id.clone(),
                assignment: out.freeze(),
            }
        })
        .collect()
}

fn owned_in(metadata: &Bytes) -> BTreeSet<i32> {
    get_partitions(&metadata[2 + 4 + 2 + TOPIC.len() + 1..])
}

fn put_partitions(out: &mut BytesMut, partitions: &BTreeSet<i32>) {
    for partition in partitions {
        out.put_i32(*partition);
    }
}

pub fn get_partitions(mut bytes: &[u8]) -> BTreeSet<i32> {
    let mut partitions = BTreeSet::new();
    while bytes.has_remaining() {
        partitions.insert(bytes.get_i32());
    }
    partitions
}
