//! One client connection on its core: frames in, responses out in request order.
//!
//! Started by `shard::acceptor` as one task; each frame goes to [`processor::start`], runs
//! in the connection's [`Pipeline`], and its reply comes back here to be sent. So a client
//! that pipelines sees what Kafka shows it (which takes one request at a time), and
//! appends keep their order. Sending, receiving and the requests go on side by side.
//!
//! A connection whose records are mostly another core's moves there ([`Traffic`]): it
//! starts nothing new until all is answered and sent, then the socket and what was received
//! of it go over as an [`Arrival`], and that core goes on where this one left off.
//!
//! Invariants: the socket is not read beyond what the pipeline takes, nor while calls of
//! this core to others stand in line; the receive buffer grows with the bytes that arrived, never with the size that a frame claims; an idle
//! connection holds no buffers.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tracing::debug;

use super::Shard;
use super::connections::Seat;
use super::limits::{Admission, Charge, Ticket};
use super::load::Counted;
use super::messages::ShardRequest;
use super::pipeline::Pipeline;
use super::processor::{self, Reply};
use super::traffic::Traffic;
use crate::base::{CoreId, Nanos};
use crate::io::{DetachedStream, SendQueue, Stream, local};
use crate::telemetry::Stage;
use crate::wire::api_key::ApiKey;

/// Least room offered for the rest of a frame, and most that is reserved ahead of the bytes.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;
const RECEIVE_BYTES_MAX: usize = 1024 * 1024;
/// The size field before each frame.
const SIZE_BYTES: usize = 4;
/// A connection lets others in after it has started so many requests.
const REQUESTS_PER_TURN: u32 = 64;
/// An idle connection keeps its buffers for so long.
const BUFFERS_KEPT: Duration = Duration::from_secs(1);

/// Why a connection ended; logged once, here.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed")]
    ByPeer,
    #[error("idle for too long")]
    Idle,
    #[error("too many connections, and it was the one not used for longest")]
    Evicted,
    #[error("the node is stopping")]
    Stopping,
    #[error("a frame of {size} bytes, allowed are 1 to {max}")]
    FrameSize { size: i32, max: i32 },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A connection on its way to the core that serves it, with nothing in flight and nothing
/// unsent.
#[derive(Debug)]
pub struct Arrival {
    stream: DetachedStream,
    counted: Counted,
    /// Name of the listener that accepted it.
    listener: Arc<str>,
    ticket: Ticket,
    received: BytesMut,
    moves: u32,
}

impl Closed {
    /// What metrics call the reasons.
    pub const REASONS: [&str; 7] = [
        "peer",
        "idle",
        "stopping",
        "frame_size",
        "refused",
        "error",
        "evicted",
    ];

    /// Of its reason in [`Closed::REASONS`].
    pub fn index(&self) -> usize {
        match self {
            Closed::ByPeer => 0,
            Closed::Idle => 1,
            Closed::Stopping => 2,
            Closed::FrameSize { .. } => 3,
            Closed::Refused(_) => 4,
            Closed::Io(_) => 5,
            Closed::Evicted => 6,
        }
    }
}

impl Arrival {
    /// A connection on which nothing has been received.
    pub fn new(
        stream: DetachedStream,
        counted: Counted,
        listener: Arc<str>,
        ticket: Ticket,
    ) -> Arrival {
        Arrival {
            stream,
            counted,
            listener,
            ticket,
            received: BytesMut::new(),
            moves: 0,
        }
    }
}

/// Serves a connection until it ends or moves to another core.
#[expect(
    clippy::manual_async_fn,
    reason = "an async function has room for its argument twice"
)]
pub fn serve(mut connection: Connection) -> impl Future<Output = ()> {
    async move {
        match connection.run().await {
            End::Closed(reason) => {
                connection.shard.metrics().count_closed(&reason);
                let core = connection.shard.core();
                let peer = connection.peer.address;
                debug!(%core, conn = %peer, %reason, "connection closed");
            }
            // Boxed, for it is rare and every connection's task would have its size.
            End::Move(core) => Box::pin(connection.depart(core)).await,
        }
    }
}

/// A connection as the core that serves it has it.
pub struct Connection {
    shard: Rc<Shard>,
    stream: Stream,
    counted: Counted,
    peer: processor::Peer,
    admission: Admission,
    seat: Seat,
    received: BytesMut,
    /// Size of the buffer in which `received` lies, with frames that were split off it; and
    /// how much of it `received` had when that was noted.
    buffer_bytes: usize,
    room: usize,
    /// For what was received and isn't answered yet.
    charge: Charge,
    pipeline: Pipeline,
    /// What is being sent.
    out: SendQueue,
    /// The requests that it answers, with when their first bytes had come.
    sending: Vec<(ApiKey, Nanos)>,
    /// When it was taken to be sent.
    sending_since: Nanos,
    /// When the first bytes of the frame at the front had come.
    began: Nanos,
    /// When bytes came last.
    received_at: Nanos,
    traffic: Rc<Traffic>,
    /// Bytes were received since the buffers were last given back.
    holds_buffers: bool,
    /// Requests started since others were last let in.
    turn: u32,
    /// Set when nothing starts any more: how it ends when all is answered.
    ending: Option<End>,
}

#[derive(Debug)]
enum End {
    Closed(Closed),
    Move(CoreId),
}

enum Event {
    /// The front request has finished, and nothing is being sent.
    Finished,
    Sent(std::io::Result<()>),
    Received(std::io::Result<usize>),
    /// No call to another core stands in line any more.
    Uncongested,
    Evicted,
    Stopping,
}

impl Connection {
    /// A connection that this core serves from its beginning.
    pub fn accepted(
        stream: Stream,
        counted: Counted,
        listener: Arc<str>,
        admission: Admission,
    ) -> Connection {
        Connection::new(
            stream,
            counted,
            listener,
            admission,
            Traffic::default(),
            BytesMut::new(),
        )
    }

    /// A connection that another core has handed over.
    pub fn arrived(shard: &Rc<Shard>, arrival: Arrival) -> Connection {
        let Arrival {
            stream,
            counted,
            listener,
            ticket,
            received,
            moves,
        } = arrival;
        Connection::new(
            shard.rt().attach(stream),
            counted,
            listener,
            Admission::held(shard, ticket),
            Traffic::after_moves(moves),
            received,
        )
    }

    fn new(
        stream: Stream,
        counted: Counted,
        listener: Arc<str>,
        admission: Admission,
        traffic: Traffic,
        received: BytesMut,
    ) -> Connection {
        let shard = admission.shard().clone();
        let now = shard.rt().last_stamp();
        Connection {
            peer: processor::Peer::new(stream.peer_addr(), listener),
            seat: shard
                .connections()
                .enter(admission.class(), shard.rt().now()),
            admission,
            charge: Charge::new(&shard, received.len()),
            shard,
            stream,
            counted,
            buffer_bytes: received.capacity(),
            room: received.capacity(),
            received,
            pipeline: Pipeline::default(),
            out: SendQueue::new(),
            sending: Vec::new(),
            sending_since: now,
            began: now,
            received_at: now,
            traffic: Rc::new(traffic),
            holds_buffers: true,
            turn: 0,
            ending: None,
        }
    }

    async fn run(&mut self) -> End {
        loop {
            if let Err(closed) = self.start_requests() {
                // Requests before the bad one are still answered, in order.
                self.ending = Some(End::Closed(closed));
            }
            self.take_finished();
            if self.out.is_empty()
                && self.pipeline.is_empty()
                && let Some(end) = self.ending.take()
            {
                return end;
            }
            if self.turn >= REQUESTS_PER_TURN {
                self.turn = 0;
                self.shard.rt().yield_now().await;
            }
            if self.has_frame() {
                // The replies that were taken made room for it.
                continue;
            }
            let unsent = self.out.len_bytes();
            match self.next_event().await {
                Ok(Event::Finished | Event::Uncongested) => {}
                Ok(Event::Sent(Ok(()))) => self.seat.mark_used(self.shard.rt().now()),
                Ok(Event::Received(Ok(0))) => return End::Closed(Closed::ByPeer),
                Ok(Event::Received(Ok(count))) => {
                    self.seat.mark_used(self.shard.rt().now());
                    self.received_at = self.shard.rt().last_stamp();
                    if self.received.len() == count {
                        self.began = self.received_at;
                    }
                    self.charge.add(count, self.request_bytes());
                    self.holds_buffers = true;
                    self.note_buffer();
                }
                Ok(Event::Sent(Err(error)) | Event::Received(Err(error))) => {
                    return End::Closed(error.into());
                }
                Ok(Event::Evicted) => return End::Closed(Closed::Evicted),
                Ok(Event::Stopping) => return End::Closed(Closed::Stopping),
                Err(local::Elapsed) if self.could_release() => self.release_buffers(),
                // A peer that takes a large response slowly isn't idle.
                Err(local::Elapsed) if self.out.len_bytes() < unsent => {
                    self.seat.mark_used(self.shard.rt().now());
                }
                Err(local::Elapsed) => return End::Closed(Closed::Idle),
            }
        }
    }

    /// Starts every complete frame that may start now.
    fn start_requests(&mut self) -> Result<(), Closed> {
        while self.may_start() {
            let Some(frame) = self.next_frame()? else {
                return Ok(());
            };
            self.charge.request(SIZE_BYTES + frame.len());
            let began = std::mem::replace(&mut self.began, self.received_at);
            let (peer, traffic) = (&self.peer, &self.traffic);
            let arrived = processor::Arrived {
                frame,
                buffer_bytes: self.buffer_bytes,
                began,
            };
            let started = processor::start(&self.shard, peer, traffic, arrived)
                .map_err(|refusal| Closed::Refused(refusal.to_string()))?;
            self.pipeline.start(started);
            self.turn += 1;
        }
        Ok(())
    }

    fn may_start(&self) -> bool {
        self.ending.is_none()
            && !self.shard.is_congested()
            && self.pipeline.may_start(self.out.len_bytes())
    }

    /// Takes the finished replies at the front to be sent, when all before are sent.
    fn take_finished(&mut self) {
        if !self.out.is_empty() {
            return;
        }
        self.note_sent();
        while let Some(finished) = self.pipeline.pop_finished() {
            self.charge.finished();
            self.traffic.count_request();
            match finished.reply {
                Reply::Send(response) => {
                    self.out.extend(response.into_chunks());
                    self.sending.push((finished.api, finished.began));
                }
                Reply::Nothing => {}
                Reply::Close(reason) => {
                    self.pipeline.clear();
                    self.ending = Some(End::Closed(Closed::Refused(reason)));
                }
            }
        }
        if self.out.is_empty() {
            self.charge.sent();
        }
        self.sending_since = self.shard.rt().last_stamp();
        if self.ending.is_none() {
            let to = self.traffic.decide_move(self.shard.core());
            self.ending = to.map(End::Move);
        }
    }

    /// All that was to be sent has left.
    fn note_sent(&mut self) {
        self.charge.sent();
        if self.sending.is_empty() {
            return;
        }
        let now = self.shard.rt().stamp();
        let metrics = self.shard.metrics();
        for (api, began) in self.sending.drain(..) {
            metrics.record(api as i16, Stage::Sent, self.sending_since, now);
            metrics.record(api as i16, Stage::Total, began, now);
        }
    }

    /// The size of the frame at the front, once it is known.
    fn frame_bytes(&self) -> Option<i32> {
        let size = self.received.first_chunk::<SIZE_BYTES>()?;
        Some(i32::from_be_bytes(*size))
    }

    /// The same for the memory of requests: 0 before it is known.
    fn request_bytes(&self) -> usize {
        let size = self.frame_bytes().unwrap_or(0);
        usize::try_from(size).unwrap_or(0)
    }

    /// Whether the next frame could be started now, or refused.
    fn has_frame(&self) -> bool {
        let whole = |size| match usize::try_from(size) {
            Ok(len) => self.received.len() - SIZE_BYTES >= len,
            Err(_) => true,
        };
        self.may_start() && self.frame_bytes().is_some_and(whole)
    }

    /// Takes one whole frame off the received bytes, without its size.
    fn next_frame(&mut self) -> Result<Option<BytesMut>, Closed> {
        let Some(size) = self.frame_bytes() else {
            return Ok(None);
        };
        let max = self.shard.node().config.network.socket_request_max_bytes;
        let len = match usize::try_from(size) {
            Ok(len) if size > 0 && size <= max => len,
            _ => return Err(Closed::FrameSize { size, max }),
        };
        if self.received.len() < SIZE_BYTES + len {
            return Ok(None);
        }
        self.received.advance(SIZE_BYTES);
        let frame = self.received.split_to(len);
        self.room = self.received.capacity();
        Ok(Some(frame))
    }

    /// Notices a new buffer, or an old one that is used anew from its start: there is more
    /// room than before.
    fn note_buffer(&mut self) {
        let room = self.received.capacity();
        if room > self.room {
            self.buffer_bytes = room;
        }
        self.room = room;
    }

    /// Makes room for the rest of a frame that has begun, but no more than as much again as
    /// has arrived. Returns how many bytes of it the frame surely lacks.
    fn reserve(&mut self) -> usize {
        let have = self.received.len();
        let missing = match self.frame_bytes() {
            Some(size) => {
                let size = usize::try_from(size).unwrap_or(0);
                (SIZE_BYTES + size).saturating_sub(have)
            }
            None => 0,
        };
        let room = missing
            .min(have)
            .clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX);
        if have > 0 {
            self.received.reserve(room);
            self.note_buffer();
        }
        missing.min(room)
    }

    /// Waits until all is sent, a request has finished, bytes have come, the peer was idle
    /// for too long, or the node stops.
    async fn next_event(&mut self) -> Result<Event, local::Elapsed> {
        let may_receive = self.may_start();
        let missing = if may_receive { self.reserve() } else { 0 };
        let request_bytes = self.request_bytes();
        let at = self.patience().map(|limit| self.seat.last_used() + limit);
        let Connection {
            shard,
            stream,
            received,
            charge,
            pipeline,
            out,
            seat,
            ..
        } = self;
        let sending = !out.is_empty();
        let mut send = pin!(async {
            if sending {
                stream.send(out).await
            } else {
                pending().await
            }
        });
        let mut receive = pin!(async {
            if may_receive {
                charge.room(request_bytes).await;
                stream.recv_missing(received, missing).await
            } else {
                pending().await
            }
        });
        let congested = shard.is_congested();
        let mut uncongested = pin!(shard.uncongested());
        let mut stopping = pin!(shard.rt().stopping());
        let event = poll_fn(|context| {
            // The requests run while a full socket keeps us from sending.
            let finished = pipeline.poll(context).is_ready();
            if let Poll::Ready(result) = send.as_mut().poll(context) {
                return Poll::Ready(Event::Sent(result));
            }
            if finished && !sending {
                return Poll::Ready(Event::Finished);
            }
            if let Poll::Ready(result) = receive.as_mut().poll(context) {
                return Poll::Ready(Event::Received(result));
            }
            if congested && uncongested.as_mut().poll(context).is_ready() {
                return Poll::Ready(Event::Uncongested);
            }
            if seat.poll_evicted(context).is_ready() {
                return Poll::Ready(Event::Evicted);
            }
            stopping.as_mut().poll(context).map(|()| Event::Stopping)
        });
        match at {
            Some(at) => local::or_deadline(shard.rt(), event, at).await,
            None => Ok(event.await),
        }
    }

    /// How long after its last use to wait for an event. As in Kafka, a request that is
    /// being served doesn't keep its connection from being idle: only bytes do.
    fn patience(&self) -> Option<Duration> {
        let network = &self.shard.node().config.network;
        let limit = u64::try_from(network.connections_max_idle_ms).ok();
        let limit = limit.map(Duration::from_millis);
        match limit {
            _ if !self.could_release() => limit,
            Some(limit) => Some(limit.min(BUFFERS_KEPT)),
            None => Some(BUFFERS_KEPT),
        }
    }

    /// Whether it is idle and has memory that it could do without.
    fn could_release(&self) -> bool {
        self.holds_buffers
            && self.pipeline.is_empty()
            && self.out.is_empty()
            && self.received.is_empty()
    }

    fn release_buffers(&mut self) {
        self.holds_buffers = false;
        self.received = BytesMut::new();
        (self.buffer_bytes, self.room) = (0, 0);
        self.out = SendQueue::new();
        self.sending = Vec::new();
        self.pipeline.release_memory();
        self.charge.release_memory();
    }

    /// Hands the connection to another core.
    async fn depart(self, to: CoreId) {
        let Connection {
            shard,
            stream,
            mut counted,
            peer,
            admission,
            seat,
            received,
            traffic,
            ..
        } = self;
        if seat.is_evicted() {
            debug!(core = %shard.core(), conn = %peer.address, reason = %Closed::Evicted, "connection closed");
            return;
        }
        // From here on it isn't found here any more.
        drop(seat);
        debug!(core = %shard.core(), conn = %peer.address, %to, "connection moves");
        let stream = match stream.detach().await {
            Ok(stream) => stream,
            Err(error) => {
                debug!(core = %shard.core(), conn = %peer.address, %error, "connection closed");
                return;
            }
        };
        counted.move_to(to);
        let arrival = Arrival {
            stream,
            counted,
            listener: peer.listener,
            ticket: admission.into_ticket(),
            received,
            moves: traffic.moves() + 1,
        };
        // When that core is gone the connection is closed with the message.
        shard.post(to, ShardRequest::Adopt(Box::new(arrival)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F: Future>(_: impl Fn(Connection) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_takes_little_memory() {
        let bytes = future_bytes(serve);
        println!("a connection's task: {bytes} bytes");
        assert!(bytes <= 2_048, "{bytes} bytes");
    }
}
