//! The metadata log's replica on this node: the quorum's state machine with the files that
//! belong to it. Carries out the effects of each step in their order.
//!
//! ```text
//!   input ─▶ step ─▶ effects: log, quorum-state, snapshots, answers, peers ─▶ what is done: Event
//!                        └──▶ Notice: leading, committed up to, another leader
//! ```
//! Owned by [`super::controller`], which passes on each [`Event`] and acts on the notices.
//! What takes long is a task that reports by an event: a sync, an exchange with a peer.
//!
//! Invariant: an effect is carried out, or begun, before the next input is given; any error
//! of the files but want of space for a proposal is final.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::controller::Event;
use super::metadata_log::{
    MetadataLog, MetadataLogError, QUORUM_STATE, finish_part, part_of, replace_durably,
    snapshot_bytes,
};
use super::peers::Peers;
use crate::base::{BrokerId, ErrorCode, LeaderEpoch, Nanos, Offset};
use crate::io::local;
use crate::io::{Queue, Rt};
use crate::metadata::{MetadataImage, MetadataLoader};
use crate::raft::checkpoint::Checkpoint;
use crate::raft::quorum::{
    Effect, Effects, FlushId, Input, Now, OffsetAndEpoch, Proposal, Quorum, Request, RequestId,
    Response, Version,
};

/// Longest snapshot that is fetched.
const SNAPSHOT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// What the controller has to know of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Everything below is committed.
    Committed(Offset),
    /// The state of this snapshot takes the place of the one before.
    Load(OffsetAndEpoch),
    /// This node leads, and has all that was committed before.
    Leading(LeaderEpoch),
    /// The leader of the epoch, as far as it is known.
    Leader(LeaderEpoch, Option<BrokerId>),
    /// The node has handed over and may stop.
    Stopped,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// Appended, up to this offset.
    UpTo(Offset),
    /// This node doesn't lead that epoch any more.
    NotLeader,
    /// There is no space for it.
    Full,
}

pub struct Replica {
    rt: Rt,
    quorum: Quorum,
    log: MetadataLog,
    events: local::mpsc::Sender<Event>,
    peers: Peers,
    /// Where the answers to requests of others go.
    replies: BTreeMap<RequestId, local::oneshot::Sender<Response>>,
    next_request: u64,
    /// A quorum-state is being written, and the one that comes after it.
    is_persisting: bool,
    to_persist: Option<(Version, Vec<u8>)>,
    is_writing_snapshot: bool,
    /// When the machine wants to be called.
    wake_at: Nanos,
    notices: VecDeque<Notice>,
    proposed: Option<Option<Offset>>,
}

impl Replica {
    pub fn new(
        rt: Rt,
        quorum: Quorum,
        log: MetadataLog,
        events: local::mpsc::Sender<Event>,
        peers: Peers,
    ) -> Replica {
        Replica {
            wake_at: rt.now(),
            rt,
            quorum,
            log,
            events,
            peers,
            replies: BTreeMap::new(),
            next_request: 0,
            is_persisting: false,
            to_persist: None,
            is_writing_snapshot: false,
            notices: VecDeque::new(),
            proposed: None,
        }
    }

    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    pub fn wake_at(&self) -> Nanos {
        self.wake_at
    }

    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Gives the machine an input and carries out what comes of it.
    pub fn step(&mut self, input: Input) -> Result<(), MetadataLogError> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = Now {
                mono: self.rt.now(),
                wall_ms: self.rt.wall_ms(),
            };
            let is_proposal = matches!(input, Input::Propose(_));
            let mut fx = Effects::default();
            self.quorum.step(now, input, &mut fx);
            self.wake_at = fx.wake_at;
            for effect in fx.list {
                if let Effect::Append {
                    batches,
                    base_offset,
                    ..
                } = effect
                {
                    match self.log.append(batches, self.quorum.epoch(), now.wall_ms) {
                        Err(error) if is_proposal && error.is_out_of_space() => {
                            tracing::debug!(%error, "no space for a proposal");
                            next = Some(Input::Unwritten { base_offset });
                        }
                        appended => appended?,
                    }
                } else {
                    self.carry_out(effect)?;
                }
            }
            if next.is_some() {
                self.proposed = None;
            }
        }
        Ok(())
    }

    /// Appends a batch of metadata records.
    pub fn propose(
        &mut self,
        epoch: LeaderEpoch,
        values: Vec<Bytes>,
    ) -> Result<Proposed, MetadataLogError> {
        self.proposed = None;
        let proposal = Proposal {
            epoch,
            values,
            tag: 0,
        };
        self.step(Input::Propose(proposal))?;
        Ok(match self.proposed.take() {
            Some(Some(last)) => Proposed::UpTo(last),
            Some(None) => Proposed::NotLeader,
            None if self.quorum.epoch() == epoch => Proposed::Full,
            None => Proposed::NotLeader,
        })
    }

    /// A request of another replica, or of an administrator.
    pub fn ask(
        &mut self,
        api_version: i16,
        request: Request,
        reply: local::oneshot::Sender<Response>,
    ) -> Result<(), MetadataLogError> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.replies.insert(id, reply);
        self.step(Input::Request {
            id,
            api_version,
            request,
        })
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), MetadataLogError> {
        let now_ms = self.rt.wall_ms();
        match effect {
            Effect::Persist {
                version,
                state,
                kraft_version,
                voters,
            } => {
                self.to_persist = Some((version, state.to_bytes(kraft_version, &voters)));
                self.persist_next();
            }
            Effect::Append { .. } => unreachable!("carried out by the step"),
            Effect::Truncate { to } => self.log.truncate(to, now_ms)?,
            Effect::ResetLog { snapshot } => self.log.reset(snapshot.offset, now_ms)?,
            Effect::AdvanceLogStart { snapshot } => self.log.advance_start(snapshot, now_ms)?,
            Effect::Flush(id) => self.flush(id)?,
            Effect::Send { call, to, request } => self.peers.send(call, to, request),
            Effect::Reply { id, response } => self.reply(id, response),
            Effect::ReplyRecords {
                id,
                mut response,
                from,
                max_bytes,
            } => {
                let bytes_max = usize::try_from(max_bytes).unwrap_or(0);
                let records = self.log.read(from, bytes_max)?;
                response.responses[0].partitions[0].records = Some(records);
                self.reply(id, Response::Fetch(response));
            }
            Effect::ReplySnapshot {
                id,
                mut response,
                snapshot,
                position,
                max_bytes,
            } => {
                let position = u64::try_from(position).unwrap_or(0);
                let bytes_max = usize::try_from(max_bytes).unwrap_or(0);
                let piece = self.log.read_piece(snapshot, position, bytes_max)?;
                let partition = &mut response.topics[0].partitions[0];
                match piece {
                    Some(piece) => partition.unaligned_records = piece,
                    None => partition.error_code = ErrorCode::SNAPSHOT_NOT_FOUND.0,
                }
                self.reply(id, Response::FetchSnapshot(response));
            }
            Effect::WriteSnapshot {
                id,
                position,
                bytes,
            } => self.log.write_piece(id, position, &bytes)?,
            Effect::FinishSnapshot { id } => self.finish_snapshot(id),
            Effect::LoadSnapshot { id } => self.notices.push_back(Notice::Load(id)),
            Effect::HighWatermark(to) => self.notices.push_back(Notice::Committed(to)),
            Effect::LeaderChanged { epoch, leader } => {
                self.notices.push_back(Notice::Leader(epoch, leader));
            }
            Effect::Leading(epoch) => self.notices.push_back(Notice::Leading(epoch)),
            Effect::Proposed { last_offset, .. } => self.proposed = Some(last_offset),
            Effect::Stopped => self.notices.push_back(Notice::Stopped),
            Effect::PeerError(what) => tracing::warn!(what, "a controller broke the protocol"),
            Effect::Fault(fault) => return Err(fault.into()),
        }
        Ok(())
    }

    fn reply(&mut self, id: RequestId, response: Response) {
        if let Some(reply) = self.replies.remove(&id) {
            // Whoever asked may be gone.
            let _ = reply.send(response);
        }
    }

    /// Syncs what was appended so far, and reports it.
    fn flush(&mut self, id: FlushId) -> Result<(), MetadataLogError> {
        let work = self.log.take_flush()?;
        let (rt, dir) = (self.rt.clone(), self.log.dir().to_owned());
        self.report(async move {
            let Some(work) = work else {
                return Event::Flushed(id, None);
            };
            for file in &work.files {
                if let Err(source) = rt.sync(file).await {
                    return Event::Failed(MetadataLogError::Disk { path: dir, source });
                }
            }
            Event::Flushed(id, Some(work.up_to))
        });
        Ok(())
    }

    pub fn on_flushed(
        &mut self,
        id: FlushId,
        up_to: Option<Offset>,
    ) -> Result<(), MetadataLogError> {
        if let Some(up_to) = up_to {
            self.log.on_flushed(up_to);
        }
        self.step(Input::Flushed(id))
    }

    /// Writes the quorum-state that is to be written, unless one is being written.
    fn persist_next(&mut self) {
        if self.is_persisting {
            return;
        }
        let Some((version, bytes)) = self.to_persist.take() else {
            return;
        };
        self.is_persisting = true;
        let rt = self.rt.clone();
        let path = self.log.dir().join(QUORUM_STATE);
        self.report(async move {
            match replace_durably(&rt, &path, &bytes).await {
                Ok(()) => Event::Persisted(version),
                Err(error) => Event::Failed(error),
            }
        });
    }

    pub fn on_persisted(&mut self, version: Version) -> Result<(), MetadataLogError> {
        self.is_persisting = false;
        self.persist_next();
        self.step(Input::Persisted(version))
    }

    /// Makes a fetched snapshot durable, and sees whether it is whole.
    fn finish_snapshot(&self, id: OffsetAndEpoch) {
        let rt = self.rt.clone();
        let path = self.log.snapshot_path(id);
        self.report(async move {
            let part = part_of(&path);
            let file = match rt.disk().read(&part, SNAPSHOT_BYTES_MAX) {
                Ok(file) => file,
                Err(source) => return Event::Failed(MetadataLogError::Disk { path: part, source }),
            };
            let content = match Checkpoint::parse(&file) {
                Ok(content) => content,
                Err(error) => {
                    tracing::error!(%error, "a fetched metadata snapshot can't be read");
                    return Event::Input(Input::SnapshotBroken(id));
                }
            };
            match finish_part(&rt, &path).await {
                Ok(()) => Event::Input(Input::SnapshotFinished {
                    id,
                    size: file.len() as u64,
                    kraft_version: content.kraft_version,
                    voters: content.voters,
                }),
                Err(error) => Event::Failed(error),
            }
        });
    }

    /// Writes a snapshot when enough was appended since the last one. The log is the
    /// truth with or without it: a failure is told and tried again after as much more.
    pub fn maybe_snapshot(&mut self, image: &MetadataImage, bytes_between: u64) {
        if self.is_writing_snapshot || !self.log.is_snapshot_due(bytes_between) {
            return;
        }
        self.is_writing_snapshot = true;
        let end = image.provenance.offset + 1;
        let (kraft_version, voters) = self.quorum.log().voters_at(end);
        let (id, bytes) = snapshot_bytes(image, kraft_version, voters, self.rt.wall_ms());
        let rt = self.rt.clone();
        let path = self.log.snapshot_path(id);
        self.report(async move {
            let written = replace_durably(&rt, &path, &bytes).await;
            Event::SnapshotWritten(id, bytes.len() as u64, written)
        });
    }

    pub fn on_snapshot_written(
        &mut self,
        id: OffsetAndEpoch,
        size: u64,
        written: Result<(), MetadataLogError>,
    ) -> Result<(), MetadataLogError> {
        self.is_writing_snapshot = false;
        if let Err(error) = written {
            tracing::error!(%error, "metadata snapshot not written");
            return Ok(());
        }
        tracing::info!(offset = id.offset.0, "metadata snapshot written");
        self.step(Input::SnapshotTaken { id, size })?;
        match self.log.oldest_to_keep(self.rt.wall_ms()) {
            Ok(Some(before)) => self.step(Input::Clean { before }),
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "old metadata snapshots not removed");
                Ok(())
            }
        }
    }

    /// Reads what is committed into the state; up to where.
    pub fn replay(
        &mut self,
        loader: &mut MetadataLoader,
        from: Offset,
        to: Offset,
    ) -> Result<(), MetadataLogError> {
        let mut next = from;
        while next < to {
            next = self.log.replay(loader, next, to)?;
        }
        Ok(())
    }

    pub fn read_snapshot(&self, id: OffsetAndEpoch) -> Result<MetadataImage, MetadataLogError> {
        self.log.read_snapshot(id)
    }

    pub fn close(&mut self) -> Result<(), MetadataLogError> {
        self.log.close()
    }

    /// Runs a task and queues what it comes to.
    fn report(&self, task: impl Future<Output = Event> + 'static) {
        let events = self.events.clone();
        self.rt.spawn(Queue::Request, async move {
            let _ = events.send(task.await).await;
        });
    }
}
