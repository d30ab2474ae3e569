//! Nodes, their disks, the network between them, and what goes wrong with all of it, on
//! virtual time under one seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset, Rng, Uuid};
use ottla::raft::checkpoint::Checkpoint;
use ottla::raft::quorum::{
    Boot, CallId, Config, Destination, Effect, Effects, FlushId, Input, Now, OffsetAndEpoch,
    Proposal, Quorum, Request, RequestId, Response, StateName, Version,
};
use ottla::raft::voters::Endpoint;
use ottla::raft::{ReplicaKey, VoterSet};
use ottla::wire::messages::ApiVersionsResponse;
use ottla::wire::messages::api_versions_response::SupportedFeatureKey;

use crate::checks::{Checks, State};
use crate::counts::{Count, Counts};
use crate::disk::Disk;
use crate::wire::{api_version, pass_request, pass_response};

const LISTENER: &str = "CONTROLLER";
pub(crate) const CLUSTER: &str = "simulated-cluster-----";
pub(crate) const MS: u64 = 1_000_000;

/// Steps at one moment after which the machine turns in circles.
const SPINS_MAX: u32 = 2_000;

pub struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    pub(crate) sequence: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) requests: BTreeMap<RequestId, Asked>,
    pub(crate) next_request: u64,
    pub(crate) next_tag: u64,
    /// Links that nothing passes, from and to.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// One in so many messages is lost, and doubled.
    pub(crate) loss: u64,
    pub(crate) doubling: u64,
    pub(crate) is_dynamic: bool,
    pub(crate) has_faults: bool,
    pub(crate) checks: Checks,
    pub(crate) counts: Counts,
    pub(crate) spins: (u64, u32),
    pub(crate) is_traced: bool,
}

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) fixed_voters: VoterSet,
    pub(crate) disk: Disk,
    pub(crate) quorum: Option<Quorum>,
    /// Counts starts: what was under way for an older one is void.
    pub(crate) life: u32,
    /// How far its clock is ahead.
    pub(crate) skew: u64,
    /// A disk that takes so many times as long.
    pub(crate) slowness: u64,
    pub(crate) wake: u64,
    pub(crate) applied: State,
    pub(crate) high_watermark: Offset,
    pub(crate) is_faulted: bool,
}

/// A request that is being served.
pub(crate) struct Asked {
    by: Option<(usize, u32, CallId)>,
    api_version: i16,
    /// Candidate and epoch of a vote that isn't a pre-vote.
    vote: Option<(BrokerId, LeaderEpoch)>,
    at: usize,
}

pub(crate) enum Event {
    Tick {
        node: usize,
        life: u32,
        wake: u64,
    },
    Deliver {
        node: usize,
        from: usize,
        life: u32,
        call: CallId,
        request: Box<Request>,
    },
    Answer {
        node: usize,
        life: u32,
        call: CallId,
        response: Box<Response>,
    },
    Failed {
        node: usize,
        life: u32,
        call: CallId,
    },
    Synced {
        node: usize,
        life: u32,
        id: FlushId,
        up_to: u64,
    },
    StateSynced {
        node: usize,
        life: u32,
        version: Version,
    },
    Finish {
        node: usize,
        life: u32,
        id: OffsetAndEpoch,
    },
    Start {
        node: usize,
    },
    Fault,
    Propose,
}

impl World {
    pub fn new(seed: u64, is_traced: bool) -> World {
        let mut rng = Rng::new(seed);
        let is_dynamic = !rng.one_in(3);
        let voters = 1 + 2 * rng.below(3) as usize;
        let count = voters + if is_dynamic { 2 } else { 1 };
        let configs: Vec<Config> = (0..count).map(|at| config(at, count, &mut rng)).collect();
        let first: VoterSet = configs[..voters]
            .iter()
            .map(|config| {
                let mut voter = config.as_voter();
                if !is_dynamic {
                    voter.key.directory = None;
                }
                voter
            })
            .collect();
        let mut world = World {
            now: 1,
            events: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            next_tag: 0,
            cut: BTreeSet::new(),
            loss: [0, 200, 30, 8][rng.below(4) as usize],
            doubling: [0, 100, 10][rng.below(3) as usize],
            is_dynamic,
            has_faults: true,
            checks: Checks::default(),
            counts: Counts::default(),
            spins: (0, 0),
            is_traced,
            rng,
        };
        for (at, mut config) in configs.into_iter().enumerate() {
            if !is_dynamic && at < voters {
                config.bootstrap_servers = 0;
            }
            config.is_controller = is_dynamic || at < voters;
            let mut disk = Disk::default();
            if is_dynamic && at < voters {
                let file = Checkpoint {
                    kraft_version: 1,
                    voters: Some(first.clone()),
                    ..Default::default()
                };
                let file = file.to_bytes(LeaderEpoch(0), 0);
                disk.snapshots.insert(OffsetAndEpoch::BOOTSTRAP, file);
            }
            let fixed_voters = if is_dynamic {
                VoterSet::default()
            } else {
                first.clone()
            };
            world.nodes.push(Node {
                config,
                fixed_voters,
                disk,
                quorum: None,
                life: 0,
                skew: world.rng.below(1_000 * MS),
                slowness: 1,
                wake: 0,
                applied: State::default(),
                high_watermark: Offset(0),
                is_faulted: false,
            });
            let delay = world.rng.below(50 * MS);
            world.after(delay, Event::Start { node: at });
        }
        world.after(200 * MS, Event::Fault);
        world.after(100 * MS, Event::Propose);
        world
    }

    /// Runs with faults for at least so many steps of nodes, then without until all agree.
    pub fn run(mut self, steps: u64) -> Counts {
        while self.counts.get(Count::Events) < steps {
            self.next_event();
        }
        self.heal();
        // Long enough for whatever was under way to be given up, and for several elections.
        let settled = self.now + 15_000 * MS;
        while self.now < settled {
            self.next_event();
        }
        let goal = self.checks.committed_end();
        assert!(goal > Offset(0), "nothing was ever committed");
        let patience = self.now + 60_000 * MS;
        while self.now < patience && !self.have_all(goal + 1) {
            self.next_event();
        }
        assert!(
            self.have_all(goal + 1),
            "not all nodes get what is committed: {}",
            self.describe()
        );
        for node in &self.nodes {
            self.checks.check_log(&node.disk.log);
        }
        let elections = self.checks.elections() as u64;
        self.counts.add(Count::Elections, elections);
        let committed = self.checks.committed_end().0 as u64;
        self.counts.add(Count::Committed, committed);
        self.counts
    }

    pub(crate) fn have_all(&self, goal: Offset) -> bool {
        self.nodes.iter().all(|node| node.high_watermark >= goal)
    }

    pub(crate) fn describe(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            let quorum = node.quorum.as_ref();
            let state = quorum.map(|q| (q.state(), q.epoch(), q.leader_id(), q.log().last()));
            let voters = quorum.map(|q| q.voters().iter().map(|v| v.key.id.0).collect::<Vec<_>>());
            let id = node.config.me.id;
            out += &format!(
                "\n  node {id}: {state:?} hw {} {voters:?}",
                node.high_watermark
            );
        }
        out
    }

    /// Ends all faults and starts all nodes.
    pub(crate) fn heal(&mut self) {
        self.has_faults = false;
        self.cut.clear();
        self.loss = 0;
        self.doubling = 0;
        for at in 0..self.nodes.len() {
            self.nodes[at].slowness = 1;
            if self.nodes[at].quorum.is_none() {
                self.after(10 * MS, Event::Start { node: at });
            }
        }
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    pub(crate) fn next_event(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("proposals never end");
        if at > self.now {
            self.spins = (at, 0);
        }
        self.spins.1 += 1;
        assert!(
            self.spins.1 < SPINS_MAX,
            "turns in circles: {}",
            self.describe()
        );
        self.now = at;
        match event {
            Event::Tick { node, life, wake } => {
                if self.nodes[node].life == life && self.nodes[node].wake == wake {
                    self.step(node, Input::Tick);
                }
            }
            Event::Deliver {
                node,
                from,
                life,
                call,
                request,
            } => {
                self.deliver(node, Some((from, life, call)), *request);
            }
            Event::Answer {
                node,
                life,
                call,
                response,
            } => {
                if self.nodes[node].life == life {
                    self.step(
                        node,
                        Input::Response {
                            call,
                            response: *response,
                        },
                    );
                }
            }
            Event::Failed { node, life, call } => {
                if self.nodes[node].life == life {
                    self.step(node, Input::CallFailed(call));
                }
            }
            Event::Synced {
                node,
                life,
                id,
                up_to,
            } => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk.sync(up_to);
                    self.step(node, Input::Flushed(id));
                }
            }
            Event::StateSynced {
                node,
                life,
                version,
            } => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk.sync_state(version);
                    self.step(node, Input::Persisted(version));
                }
            }
            Event::Finish { node, life, id } => self.finish_snapshot(node, life, id),
            Event::Start { node } => self.start(node),
            Event::Fault => {
                if self.has_faults {
                    self.fault();
                    let delay = self.rng.below(600 * MS);
                    self.after(delay, Event::Fault);
                }
            }
            Event::Propose => {
                self.propose();
                let delay = self.rng.below(200 * MS);
                self.after(delay, Event::Propose);
            }
        }
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.nodes[at].quorum.is_some() {
            return;
        }
        let rng = Rng::new(self.rng.next_u64());
        let now = self.node_now(at);
        let node = &mut self.nodes[at];
        let log = node.disk.open(&node.fixed_voters);
        node.applied = state_of(&node.disk);
        node.high_watermark = Offset(0);
        let boot = Boot {
            config: node.config.clone(),
            log,
            election: node.disk.quorum_state.clone(),
            rng,
        };
        node.quorum = Some(Quorum::start(now, boot));
        node.is_faulted = false;
        self.step(at, Input::Tick);
    }

    pub(crate) fn stop(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.quorum = None;
        node.life += 1;
    }

    pub(crate) fn node_now(&self, at: usize) -> Now {
        let mono = self.now + self.nodes[at].skew;
        Now {
            mono: Nanos(mono),
            wall_ms: (mono / MS) as i64,
        }
    }

    pub(crate) fn step(&mut self, at: usize, input: Input) {
        let now = self.node_now(at);
        let Some(mut quorum) = self.nodes[at].quorum.take() else {
            return;
        };
        self.counts.add(Count::Events, 1);
        let before = (quorum.state(), quorum.epoch());
        if self.is_traced {
            let id = self.nodes[at].config.me.id;
            println!("{:>12} node {id} {before:?} <- {input:?}", self.now);
        }
        let mut fx = Effects::default();
        quorum.step(now, input, &mut fx);
        let after = (quorum.state(), quorum.epoch());
        let life = self.nodes[at].life;
        self.nodes[at].quorum = Some(quorum);
        for effect in std::mem::take(&mut fx.list) {
            if self.is_traced {
                println!("{:>25} {effect:?}", "");
            }
            self.carry_out(at, effect);
            if self.nodes[at].life != life {
                return;
            }
        }
        if after != before {
            self.on_changed(at, before.0, after);
        }
        let node = &mut self.nodes[at];
        node.wake += 1;
        if fx.wake_at != Nanos::MAX {
            let wake = node.wake;
            let delay = fx.wake_at.0.saturating_sub(now.mono.0);
            self.after(
                delay,
                Event::Tick {
                    node: at,
                    life,
                    wake,
                },
            );
        }
    }

    pub(crate) fn on_changed(
        &mut self,
        at: usize,
        before: StateName,
        after: (StateName, LeaderEpoch),
    ) {
        let node = &self.nodes[at];
        match after.0 {
            StateName::Leader => {
                self.checks
                    .on_leader(after.1, node.config.me.id, &node.disk.log);
            }
            StateName::Resigned if before == StateName::Leader => {
                let quorum = node.quorum.as_ref().expect("it runs");
                if !quorum.voters().is_voter(&node.config.me) {
                    self.counts.add(Count::LeadersRemoved, 1);
                }
                self.counts.add(Count::Resignations, 1);
            }
            _ => {}
        }
    }

    pub(crate) fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Persist { version, state, .. } => {
                self.nodes[at].disk.write_state(version, state);
                let life = self.nodes[at].life;
                let delay = self.disk_delay(at);
                self.after(
                    delay,
                    Event::StateSynced {
                        node: at,
                        life,
                        version,
                    },
                );
            }
            Effect::Append {
                batches,
                base_offset,
                end_offset,
            } => {
                let disk = &mut self.nodes[at].disk;
                assert_eq!(disk.log.end(), base_offset);
                let added = disk.append(&batches);
                assert_eq!(disk.log.end(), end_offset);
                added.iter().for_each(|batch| self.checks.on_append(batch));
            }
            Effect::Truncate { to } => {
                let node = &mut self.nodes[at];
                assert!(to >= node.high_watermark, "cuts what is committed");
                node.disk.truncate(to);
                self.counts.add(Count::Truncations, 1);
            }
            Effect::ResetLog { snapshot } => self.nodes[at].disk.reset(snapshot.offset),
            Effect::AdvanceLogStart { snapshot } => {
                self.nodes[at].disk.advance_start(snapshot);
                self.counts.add(Count::LogStartsAdvanced, 1);
            }
            Effect::Flush(id) => {
                let life = self.nodes[at].life;
                let up_to = self.nodes[at].disk.written();
                let delay = self.disk_delay(at);
                self.after(
                    delay,
                    Event::Synced {
                        node: at,
                        life,
                        id,
                        up_to,
                    },
                );
            }
            Effect::Send { call, to, request } => self.send(at, call, to, request),
            Effect::Reply { id, response } => self.reply(at, id, response),
            Effect::ReplyRecords {
                id,
                mut response,
                from,
                max_bytes,
            } => {
                let cut = self.rng.one_in(4);
                let records = self.nodes[at].disk.log.read(from, max_bytes, cut);
                response.responses[0].partitions[0].records = Some(records);
                self.reply(at, id, Response::Fetch(response));
            }
            Effect::ReplySnapshot {
                id,
                mut response,
                snapshot,
                position,
                max_bytes,
            } => {
                let piece = self.nodes[at].disk.snapshots.get(&snapshot).map(|file| {
                    let from = position as usize;
                    file.slice(from..file.len().min(from + max_bytes as usize))
                });
                let partition = &mut response.topics[0].partitions[0];
                match piece {
                    Some(piece) => partition.unaligned_records = piece,
                    None => partition.error_code = ErrorCode::SNAPSHOT_NOT_FOUND.0,
                }
                self.reply(at, id, Response::FetchSnapshot(response));
            }
            Effect::WriteSnapshot {
                id,
                position,
                bytes,
            } => {
                self.nodes[at].disk.write_part(id, position, &bytes);
            }
            Effect::FinishSnapshot { id } => {
                let life = self.nodes[at].life;
                let delay = self.disk_delay(at);
                self.after(delay, Event::Finish { node: at, life, id });
            }
            Effect::LoadSnapshot { id } => {
                let state = state_of(&self.nodes[at].disk);
                assert_eq!((state.offset, state.epoch), (id.offset, id.epoch));
                self.checks.check_state(state);
                self.nodes[at].applied = state;
                self.counts.add(Count::SnapshotsLoaded, 1);
            }
            Effect::HighWatermark(to) => {
                let node = &mut self.nodes[at];
                assert!(to > node.high_watermark, "the high watermark never falls");
                node.high_watermark = to;
                if to > node.applied.offset {
                    node.applied = self.checks.on_committed(&node.disk.log, node.applied, to);
                }
            }
            Effect::LeaderChanged { .. } | Effect::Leading(_) | Effect::Proposed { .. } => {}
            Effect::Stopped => {
                self.nodes[at].disk.close();
                self.stop(at);
                self.counts.add(Count::Shutdowns, 1);
                let delay = self.rng.below(3_000 * MS);
                self.after(delay, Event::Start { node: at });
            }
            Effect::PeerError(what) => {
                let is_expected = what == "a batch that doesn't follow on the log";
                assert!(is_expected, "node {at}: {what}");
            }
            Effect::Fault(fault) => panic!("node {at}: {fault}{}", self.describe()),
        }
    }

    pub(crate) fn disk_delay(&mut self, at: usize) -> u64 {
        let base = if self.rng.one_in(20) { 50 * MS } else { 3 * MS };
        self.rng.below(base) * self.nodes[at].slowness
    }

    pub(crate) fn send(&mut self, at: usize, call: CallId, to: Destination, request: Request) {
        self.check_sent(at, &request);
        let life = self.nodes[at].life;
        let to = match to {
            Destination::Node(id, endpoint) => {
                let endpoint = endpoint.expect("endpoints are known");
                assert_eq!(i32::from(endpoint.port), 9_000 + id.0);
                id.0 as usize
            }
            Destination::Bootstrap(index) => index,
        };
        if self.is_lost(at, to) {
            // The connection may tell, or the time.
            if self.rng.one_in(2) {
                let delay = self.rng.below(50 * MS);
                self.after(
                    delay,
                    Event::Failed {
                        node: at,
                        life,
                        call,
                    },
                );
            }
            return;
        }
        let request = if self.rng.one_in(8) {
            pass_request(&request)
        } else {
            request
        };
        let copies = 1 + u64::from(self.rng.one_in(self.doubling));
        self.counts.add(Count::MessagesDoubled, copies - 1);
        for _ in 0..copies {
            let delay = self.net_delay();
            let request = Box::new(request.clone());
            self.after(
                delay,
                Event::Deliver {
                    node: to,
                    from: at,
                    life,
                    call,
                    request,
                },
            );
        }
    }

    /// What a node says it must have on stable storage.
    pub(crate) fn check_sent(&mut self, at: usize, request: &Request) {
        let node = &self.nodes[at];
        let durable = node.disk.quorum_state.as_ref();
        let epoch = durable.map_or(LeaderEpoch(0), |state| state.epoch);
        let said = match request {
            Request::Vote(request) => {
                let asked = &request.topics[0].partitions[0];
                let me = node.config.me;
                if !asked.pre_vote {
                    let epoch = LeaderEpoch(asked.replica_epoch);
                    assert_eq!(durable.and_then(|s| s.voted), Some(me), "its own vote");
                    self.checks.on_vote(me, epoch, me.id);
                }
                asked.replica_epoch
            }
            Request::BeginQuorumEpoch(request) => {
                assert_eq!(durable.and_then(|s| s.leader), Some(node.config.me.id));
                request.topics[0].partitions[0].leader_epoch
            }
            Request::Fetch(request) => {
                let asked = &request.topics[0].partitions[0];
                let end = node.disk.durable_end();
                assert!(
                    !node.config.is_controller || Offset(asked.fetch_offset) <= end,
                    "it says {} and has {end}",
                    asked.fetch_offset
                );
                asked.current_leader_epoch
            }
            _ => return,
        };
        assert!(said <= epoch.0, "epoch {said} is said, {epoch} is durable");
    }

    pub(crate) fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let is_lost = self.cut.contains(&(from, to)) || self.rng.one_in(self.loss);
        self.counts.add(Count::MessagesLost, u64::from(is_lost));
        is_lost
    }

    pub(crate) fn net_delay(&mut self) -> u64 {
        let base = match self.rng.below(40) {
            0 if self.has_faults => 1_500 * MS,
            1..5 => 30 * MS,
            _ => 3 * MS,
        };
        1 + self.rng.below(base)
    }

    pub(crate) fn deliver(
        &mut self,
        at: usize,
        by: Option<(usize, u32, CallId)>,
        request: Request,
    ) {
        if self.nodes[at].quorum.is_none() {
            if let Some((node, life, call)) = by
                && self.rng.one_in(2)
            {
                self.after(MS, Event::Failed { node, life, call });
            }
            return;
        }
        let version = api_version(&request);
        if let Request::ApiVersions(_) = request {
            let response = Response::ApiVersions(ApiVersionsResponse {
                supported_features: vec![SupportedFeatureKey {
                    name: "kraft.version".to_owned(),
                    min_version: 0,
                    max_version: 1,
                }],
                ..Default::default()
            });
            let (node, life, call) = by.expect("nodes ask");
            let response = Box::new(response);
            return self.after(
                MS,
                Event::Answer {
                    node,
                    life,
                    call,
                    response,
                },
            );
        }
        let vote = match &request {
            Request::Vote(vote) => {
                let asked = &vote.topics[0].partitions[0];
                let epoch = LeaderEpoch(asked.replica_epoch);
                (!asked.pre_vote).then_some((BrokerId(asked.replica_id), epoch))
            }
            _ => None,
        };
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let asked = Asked {
            by,
            api_version: version,
            vote,
            at,
        };
        self.requests.insert(id, asked);
        self.step(
            at,
            Input::Request {
                id,
                api_version: version,
                request,
            },
        );
    }

    pub(crate) fn reply(&mut self, at: usize, id: RequestId, response: Response) {
        let asked = self.requests.remove(&id).expect("answered once");
        assert_eq!(asked.at, at);
        if let (Response::Vote(response), Some((candidate, epoch))) = (&response, asked.vote)
            && response.topics[0].partitions[0].vote_granted
        {
            let node = &self.nodes[at];
            let durable = node.disk.quorum_state.as_ref().expect("it voted");
            // An epoch with a leader has no votes to give, whoever it had one for.
            let is_durable = durable.epoch > epoch
                || durable.epoch == epoch
                    && (durable.voted.map(|key| key.id) == Some(candidate)
                        || durable.leader.is_some());
            assert!(is_durable, "a vote that could be forgotten: {durable:?}");
            self.checks.on_vote(node.config.me, epoch, candidate);
        }
        let Some((to, life, call)) = asked.by else {
            return self.on_admin_answer(&response);
        };
        if self.is_lost(at, to) {
            return;
        }
        let response = if self.rng.one_in(8) {
            pass_response(&response, asked.api_version)
        } else {
            response
        };
        let copies = 1 + u64::from(self.rng.one_in(self.doubling));
        for _ in 0..copies {
            let delay = self.net_delay();
            let response = Box::new(response.clone());
            self.after(
                delay,
                Event::Answer {
                    node: to,
                    life,
                    call,
                    response,
                },
            );
        }
    }

    pub(crate) fn on_admin_answer(&mut self, response: &Response) {
        let (error, count) = match response {
            Response::AddRaftVoter(response) => (response.error_code, Count::VotersAdded),
            Response::RemoveRaftVoter(response) => (response.error_code, Count::VotersRemoved),
            _ => return,
        };
        let error = ErrorCode(error);
        let expected = [
            ErrorCode::NONE,
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::NOT_LEADER_OR_FOLLOWER,
            ErrorCode::DUPLICATE_VOTER,
            ErrorCode::VOTER_NOT_FOUND,
        ];
        assert!(expected.contains(&error), "{response:?}");
        self.counts.add(count, u64::from(error.is_ok()));
    }

    pub(crate) fn finish_snapshot(&mut self, at: usize, life: u32, id: OffsetAndEpoch) {
        let node = &mut self.nodes[at];
        if node.life != life {
            return;
        }
        let input = match node.disk.finish_part(id) {
            Some((size, content)) => Input::SnapshotFinished {
                id,
                size,
                kraft_version: content.kraft_version,
                voters: content.voters,
            },
            None => Input::SnapshotBroken(id),
        };
        self.step(at, input);
    }

    pub(crate) fn propose(&mut self) {
        for at in 0..self.nodes.len() {
            let Some(quorum) = &self.nodes[at].quorum else {
                continue;
            };
            if quorum.state() != StateName::Leader {
                continue;
            }
            let epoch = quorum.epoch();
            let count = 1 + self.rng.below(3);
            let values = (0..count).map(|_| {
                self.next_tag += 1;
                let mut value = self.next_tag.to_be_bytes().to_vec();
                value.resize(8 + self.rng.below(60) as usize, 7);
                Bytes::from(value)
            });
            let values = values.collect();
            let tag = self.next_tag;
            self.counts.add(Count::Proposals, 1);
            self.step(at, Input::Propose(Proposal { epoch, values, tag }));
        }
    }
}

/// A node, of which all others know.
fn config(at: usize, count: usize, rng: &mut Rng) -> Config {
    let me = ReplicaKey {
        id: BrokerId(at as i32),
        directory: Some(Uuid([at as u8 + 1; 16])),
    };
    let mut config = Config::new(me, CLUSTER, LISTENER);
    config.endpoints = vec![Endpoint {
        listener: LISTENER.to_owned(),
        host: format!("node-{at}"),
        port: 9_000 + at as u16,
    }];
    config.bootstrap_servers = count;
    config.fetch_max_bytes = [200, 1_000, 20_000][rng.below(3) as usize];
    config.fetch_snapshot_max_bytes = [100, 300, 5_000][rng.below(3) as usize];
    config.auto_join = rng.one_in(4);
    config
}

/// The state that the latest snapshot holds.
fn state_of(disk: &Disk) -> State {
    let latest = disk.snapshots.values().next_back();
    let content = latest.map(|file| Checkpoint::parse(file).expect("whole"));
    let values = content.map(|content| content.values).unwrap_or_default();
    let Some(value) = values.first() else {
        return State::default();
    };
    State {
        hash: u64::from_be_bytes(value[..8].try_into().expect("8 bytes")),
        offset: Offset(i64::from_be_bytes(
            value[8..16].try_into().expect("8 bytes"),
        )),
        epoch: LeaderEpoch(i32::from_be_bytes(
            value[16..20].try_into().expect("4 bytes"),
        )),
    }
}
