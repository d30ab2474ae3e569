//! One client connection on its core: frames in, responses out in request order.
//!
//! Started by `shard::acceptor` as one task; each frame goes to [`processor::start`], the
//! finished responses come back here and are sent. Produce, Fetch and ListOffsets overlap;
//! every other request is a barrier: it starts alone and nothing starts beside it. So a
//! client that pipelines sees what Kafka shows it (which takes one request at a time),
//! and appends keep their order.
//!
//! Invariants: at most [`IN_FLIGHT_MAX`] requests are in flight and the socket is not read
//! beyond that; the receive buffer grows with the bytes that arrived, never with the
//! size that a frame claims.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tracing::debug;

use super::Shard;
use super::load::Counted;
use super::processor::{self, Reply, Started};
use crate::io::{DetachedStream, SendQueue, Stream, local};

/// Requests of one connection that are in flight at a time.
const IN_FLIGHT_MAX: usize = 64;
/// Least room offered to a receive, and most that is reserved ahead of the bytes.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;
const RECEIVE_BYTES_MAX: usize = 1024 * 1024;
/// The size field before each frame.
const SIZE_BYTES: usize = 4;

/// Why a connection ended; logged once, here.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed")]
    ByPeer,
    #[error("idle for too long")]
    Idle,
    #[error("the node is stopping")]
    Stopping,
    #[error("a frame of {size} bytes, allowed are 1 to {max}")]
    FrameSize { size: i32, max: i32 },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A connection on its way to the core that serves it.
#[derive(Debug)]
pub struct Arrival {
    stream: DetachedStream,
    counted: Counted,
    /// Name of the listener that accepted it.
    listener: Arc<str>,
}

impl Arrival {
    pub fn new(stream: DetachedStream, counted: Counted, listener: Arc<str>) -> Arrival {
        Arrival {
            stream,
            counted,
            listener,
        }
    }
}

/// Serves a connection until it ends.
pub async fn serve(shard: Rc<Shard>, arrival: Arrival) {
    let Arrival {
        stream,
        counted: _counted,
        listener,
    } = arrival;
    let stream = shard.rt().attach(stream);
    let peer = stream.peer_addr();
    let mut connection = Connection {
        received: BytesMut::new(),
        in_flight: VecDeque::new(),
        peer: processor::Peer {
            address: peer,
            listener,
        },
        shard,
        stream,
    };
    let closed = connection.run().await;
    debug!(core = %connection.shard.core(), conn = %peer, reason = %closed, "connection closed");
}

struct Connection {
    shard: Rc<Shard>,
    stream: Stream,
    peer: processor::Peer,
    received: BytesMut,
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    barrier: bool,
    state: State,
}

enum State {
    Running(Pin<Box<dyn Future<Output = Reply>>>),
    Finished(Reply),
}

enum Event {
    Progress,
    Received(std::io::Result<usize>),
    Stopping,
}

impl Connection {
    async fn run(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.start_requests() {
                // Requests before the bad one are still answered, in order.
                return match self.finish().await {
                    Ok(()) => closed,
                    Err(closed) => closed,
                };
            }
            match self.send_finished().await {
                // What waited behind it in the received bytes may start now.
                Ok(sent) if sent > 0 => continue,
                Ok(_) => {}
                Err(closed) => return closed,
            }
            match self.next_event().await {
                Ok(Event::Progress) => {}
                Ok(Event::Received(Ok(0))) => return Closed::ByPeer,
                Ok(Event::Received(Ok(_))) => {}
                Ok(Event::Received(Err(error))) => return error.into(),
                Ok(Event::Stopping) => return Closed::Stopping,
                Err(local::Elapsed) => return Closed::Idle,
            }
        }
    }

    /// Starts every complete frame that may start now.
    fn start_requests(&mut self) -> Result<(), Closed> {
        while self.may_start() {
            let Some(frame) = self.next_frame()? else {
                return Ok(());
            };
            let started = processor::start(&self.shard, &self.peer, frame)
                .map_err(|refusal| Closed::Refused(refusal.to_string()))?;
            let Started { barrier, future } = started;
            if barrier && !self.in_flight.is_empty() {
                // Its first poll waits until it is alone.
                self.in_flight.push_back(InFlight {
                    barrier,
                    state: State::Running(future),
                });
                return Ok(());
            }
            self.in_flight.push_back(InFlight {
                barrier,
                state: State::Running(future),
            });
            self.poll_last_now();
        }
        Ok(())
    }

    /// The first step of a request runs as it is taken off the stream, so that appends
    /// happen in request order.
    fn poll_last_now(&mut self) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        if let Some(last) = self.in_flight.back_mut() {
            last.poll(&mut context);
        }
    }

    fn may_start(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX && !self.in_flight.iter().any(|r| r.barrier)
    }

    /// Takes one whole frame off the received bytes, without its size.
    fn next_frame(&mut self) -> Result<Option<BytesMut>, Closed> {
        let Some(size) = self.received.first_chunk::<SIZE_BYTES>() else {
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        let max = self.shard.node().config.network.socket_request_max_bytes;
        let len = match usize::try_from(size) {
            Ok(len) if size > 0 && size <= max => len,
            _ => return Err(Closed::FrameSize { size, max }),
        };
        if self.received.len() < SIZE_BYTES + len {
            return Ok(None);
        }
        self.received.advance(SIZE_BYTES);
        Ok(Some(self.received.split_to(len)))
    }

    /// Makes room for the next receive: for what the frame still lacks, but no more than as
    /// much again as has arrived. Returns how many bytes of it the frame surely lacks.
    fn reserve(&mut self) -> usize {
        let have = self.received.len();
        let missing = match self.received.first_chunk::<SIZE_BYTES>() {
            Some(size) => {
                let size = usize::try_from(i32::from_be_bytes(*size)).unwrap_or(0);
                (SIZE_BYTES + size).saturating_sub(have)
            }
            None => 0,
        };
        let room = missing
            .min(have)
            .clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX);
        self.received.reserve(room);
        missing.min(room)
    }

    /// Sends what is finished at the front; returns for how many requests.
    async fn send_finished(&mut self) -> Result<usize, Closed> {
        let mut out = SendQueue::new();
        let mut refused = None;
        let mut count = 0;
        while let Some(InFlight {
            state: State::Finished(_),
            ..
        }) = self.in_flight.front()
        {
            let Some(InFlight {
                state: State::Finished(reply),
                ..
            }) = self.in_flight.pop_front()
            else {
                unreachable!("the front was just seen to be finished");
            };
            count += 1;
            match reply {
                Reply::Send(mut response) => out.append(&mut response),
                Reply::Nothing => {}
                Reply::Close(reason) => {
                    refused = Some(Closed::Refused(reason));
                    break;
                }
            }
        }
        if !out.is_empty() {
            self.stream.send(&mut out).await?;
        }
        refused.map_or(Ok(count), Err)
    }

    /// Answers what is in flight already, then leaves.
    async fn finish(&mut self) -> Result<(), Closed> {
        while !self.in_flight.is_empty() {
            self.send_finished().await?;
            if self.in_flight.is_empty() {
                break;
            }
            poll_fn(|context| self.poll_requests(context)).await;
        }
        Ok(())
    }

    /// Waits for a finished request, bytes, the idle limit, or the node's stop.
    async fn next_event(&mut self) -> Result<Event, local::Elapsed> {
        let may_receive = self.may_start();
        let missing = if may_receive { self.reserve() } else { 0 };
        let rt = self.shard.rt().clone();
        let idle = self.in_flight.is_empty();
        let idle_ms = self.shard.node().config.network.connections_max_idle_ms;
        let limit = u64::try_from(idle_ms).ok().map(Duration::from_millis);
        let Connection {
            stream,
            received,
            in_flight,
            ..
        } = self;
        let mut receive = pin!(async {
            if may_receive {
                stream.recv_missing(received, missing).await
            } else {
                std::future::pending().await
            }
        });
        let mut stopping = pin!(rt.stopping());
        let event = poll_fn(|context| {
            if poll_in_flight(in_flight, context).is_ready() {
                return Poll::Ready(Event::Progress);
            }
            if let Poll::Ready(result) = receive.as_mut().poll(context) {
                return Poll::Ready(Event::Received(result));
            }
            stopping.as_mut().poll(context).map(|()| Event::Stopping)
        });
        match limit {
            Some(limit) if idle => local::or_deadline(&rt, event, rt.now() + limit).await,
            _ => Ok(event.await),
        }
    }

    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<()> {
        poll_in_flight(&mut self.in_flight, context)
    }
}

/// Polls everything in flight that may run; ready when the front has finished.
fn poll_in_flight(in_flight: &mut VecDeque<InFlight>, context: &mut Context<'_>) -> Poll<()> {
    for (index, request) in in_flight.iter_mut().enumerate() {
        if request.barrier && index > 0 {
            break;
        }
        request.poll(context);
    }
    match in_flight.front() {
        Some(InFlight {
            state: State::Finished(_),
            ..
        }) => Poll::Ready(()),
        _ => Poll::Pending,
    }
}

impl InFlight {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let State::Running(future) = &mut self.state
            && let Poll::Ready(reply) = future.as_mut().poll(context)
        {
            self.state = State::Finished(reply);
        }
    }
}
