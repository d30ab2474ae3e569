//! Connections to other nodes, one to each address: requests are pipelined and answered in
//! order.
//!
//! ```text
//!   ask ─▶ queue (bounded) ─▶ link's task: connect, write ─▶ peer
//!   answer ◀── reader: the oldest that waits gets each frame ◀──┘
//! ```
//! Called on the controller's core by [`super::peers`] (the quorum) and [`super::remote`]
//! (operations for the active controller).
//!
//! Invariants: everything asked gets one outcome, at the latest when its time is over: then
//! the connection is given up, since answers come in order. After a failure a link is left
//! alone for a moment, and what is asked meanwhile fails at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::base::Nanos;
use crate::io::local::{self, Either, Notify};
use crate::io::{Queue, Rt, SendQueue, Stream};
use crate::wire::api_key::ApiKey;
use crate::wire::codec::{Decoder, Message};
use crate::wire::header::{decode_response_header, encode_request_header};

/// Requests that wait for a link's task.
const QUEUE_MAX: usize = 64;
/// Largest answer that is taken.
const FRAME_MAX: usize = 64 << 20;
/// For how long a link is left alone after a failure, which doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

const CLIENT_ID: &str = "ottla";

/// Where a node is reached.
pub type Address = (String, u16);

pub struct Links {
    rt: Rt,
    /// How long a request waits for its answer.
    timeout: Duration,
    links: RefCell<BTreeMap<Address, local::mpsc::Sender<Asked>>>,
}

/// A request on its way.
struct Asked {
    api: ApiKey,
    version: i16,
    /// Encoded, without its header.
    body: Bytes,
    deadline: Nanos,
    reply: local::oneshot::Sender<Bytes>,
}

/// A request that was sent.
struct Waiting {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
    deadline: Nanos,
    reply: local::oneshot::Sender<Bytes>,
}

impl Links {
    pub fn new(rt: Rt, timeout: Duration) -> Links {
        Links {
            rt,
            timeout,
            links: RefCell::default(),
        }
    }

    /// Sends a request and waits for its answer; none where there is none in time.
    pub async fn ask<Q: Message, R: Message>(
        &self,
        to: &Address,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> Option<R> {
        let mut body = BytesMut::new();
        if let Err(error) = request.encode(&mut body, version) {
            tracing::error!(%error, api = api.name(), "a request to another node");
            return None;
        }
        let (reply, answer) = local::oneshot();
        let asked = Asked {
            api,
            version,
            body: body.freeze(),
            deadline: self.rt.now() + self.timeout,
            reply,
        };
        self.link(to).try_send(asked).ok()?;
        let body = answer.await.ok()?;
        match R::decode(&mut Decoder::new(&body), version) {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::warn!(%error, api = api.name(), "an answer of another node");
                None
            }
        }
    }

    fn link(&self, to: &Address) -> local::mpsc::Sender<Asked> {
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.get(to) {
            return link.clone();
        }
        let (sender, queue) = local::channel(QUEUE_MAX);
        links.insert(to.clone(), sender.clone());
        let link = Link {
            rt: self.rt.clone(),
            to: to.clone(),
            timeout: self.timeout,
            correlation_id: 0,
        };
        self.rt.spawn(Queue::Request, link.run(queue));
        sender
    }
}

struct Link {
    rt: Rt,
    to: Address,
    timeout: Duration,
    correlation_id: i32,
}

impl Link {
    /// Connects when there is something to ask, for as long as somebody may ask.
    async fn run(mut self, mut queue: local::mpsc::Receiver<Asked>) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = queue.recv().await {
            match self.connect().await {
                Some(stream) => {
                    if self.serve(stream, first, &mut queue).await {
                        backoff = BACKOFF_MIN;
                    }
                }
                None => drop(first),
            }
            // Whoever asks now learns at once that it is in vain.
            let until = self.rt.now() + backoff;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            while let Ok(Some(asked)) = local::or_deadline(&self.rt, queue.recv(), until).await {
                drop(asked);
            }
        }
    }

    async fn connect(&self) -> Option<Stream> {
        let address = resolve(&self.to)?;
        let until = self.rt.now() + self.timeout;
        match local::or_deadline(&self.rt, self.rt.connect(address), until).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "no connection to another node");
                None
            }
            Err(_) => {
                tracing::debug!(%address, "no connection to another node in time");
                None
            }
        }
    }

    /// Writes what is asked until the connection breaks. Whether it was of any use.
    async fn serve(
        &mut self,
        stream: Stream,
        first: Asked,
        queue: &mut local::mpsc::Receiver<Asked>,
    ) -> bool {
        let wire = Rc::new(Wire {
            stream,
            waiting: RefCell::default(),
            grown: Notify::new(),
            state: RefCell::default(),
            broken: Notify::new(),
        });
        let reading = read(self.rt.clone(), Rc::clone(&wire));
        self.rt.spawn(Queue::Request, reading);
        let mut next = Some(first);
        while let Some(asked) = next.take() {
            self.correlation_id = self.correlation_id.wrapping_add(1);
            let (api, version) = (asked.api, asked.version);
            let frame = frame(&asked, self.correlation_id);
            let deadline = asked.deadline;
            wire.waiting.borrow_mut().push_back(Waiting {
                correlation_id: self.correlation_id,
                api,
                version,
                deadline,
                reply: asked.reply,
            });
            wire.grown.notify_one();
            let mut out = SendQueue::new();
            out.push_bytes(frame);
            let sending = local::or_deadline(&self.rt, wire.stream.send(&mut out), deadline);
            if !matches!(sending.await, Ok(Ok(()))) {
                break;
            }
            if wire.state.borrow().is_broken {
                break;
            }
            match local::either(queue.recv(), wire.broken.notified()).await {
                Either::First(asked) => next = asked,
                Either::Second(()) => {}
            }
        }
        wire.give_up();
        wire.state.borrow().has_answered
    }
}

/// A connection as its writer and its reader share it.
struct Wire {
    stream: Stream,
    waiting: RefCell<VecDeque<Waiting>>,
    grown: Notify,
    state: RefCell<State>,
    broken: Notify,
}

#[derive(Default)]
struct State {
    is_broken: bool,
    has_answered: bool,
}

impl Wire {
    /// Nothing more will be answered.
    fn give_up(&self) {
        self.state.borrow_mut().is_broken = true;
        self.waiting.borrow_mut().clear();
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.broken.notify_all();
        self.grown.notify_all();
    }
}

async fn read(rt: Rt, wire: Rc<Wire>) {
    let mut received = BytesMut::new();
    while !wire.state.borrow().is_broken {
        let first = wire
            .waiting
            .borrow()
            .front()
            .map(|waiting| waiting.deadline);
        let Some(deadline) = first else {
            // A connection that nobody waits for may end by itself.
            let grown = wire.grown.notified();
            match local::either(grown, wire.stream.recv(&mut received)).await {
                Either::First(()) => continue,
                Either::Second(Ok(count)) if count > 0 => {}
                Either::Second(_) => break,
            }
            continue;
        };
        if let Some(frame) = take_frame(&mut received) {
            let Some(frame) = frame else { break };
            if !answer(&wire, frame) {
                break;
            }
            wire.state.borrow_mut().has_answered = true;
            continue;
        }
        let more = local::or_deadline(&rt, wire.stream.recv(&mut received), deadline).await;
        if !matches!(more, Ok(Ok(count)) if count > 0) {
            break;
        }
    }
    wire.give_up();
}

/// The next whole frame, if it is there; an inner `None` where it is out of bounds.
fn take_frame(received: &mut BytesMut) -> Option<Option<Bytes>> {
    let size = received.get(..4)?;
    let size = i32::from_be_bytes(size.try_into().expect("4 bytes"));
    let Some(size) = usize::try_from(size).ok().filter(|size| *size <= FRAME_MAX) else {
        return Some(None);
    };
    if received.len() < 4 + size {
        received.reserve(4 + size - received.len());
        return None;
    }
    received.advance(4);
    Some(Some(received.split_to(size).freeze()))
}

/// Gives a frame to the oldest that waits; false where it is another's.
fn answer(wire: &Wire, frame: Bytes) -> bool {
    let Some(waiting) = wire.waiting.borrow_mut().pop_front() else {
        return false;
    };
    let mut decoder = Decoder::new(&frame);
    let id = decode_response_header(&mut decoder, waiting.api, waiting.version);
    if id != Ok(waiting.correlation_id) {
        return false;
    }
    let body = frame.slice(decoder.position()..);
    // Whoever asked may have gone on.
    let _ = waiting.reply.send(body);
    true
}

fn frame(asked: &Asked, correlation_id: i32) -> Bytes {
    let mut frame = BytesMut::with_capacity(asked.body.len() + 64);
    frame.extend_from_slice(&[0; 4]);
    encode_request_header(
        &mut frame,
        asked.api,
        asked.version,
        correlation_id,
        Some(CLIENT_ID),
    );
    frame.extend_from_slice(&asked.body);
    let size = i32::try_from(frame.len() - 4).expect("requests of ours are small");
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.freeze()
}

/// Names are looked up anew for each connection.
fn resolve(to: &Address) -> Option<SocketAddr> {
    let (host, port) = to;
    match (host.as_str(), *port).to_socket_addrs() {
        Ok(mut addresses) => addresses.next(),
        Err(error) => {
            tracing::warn!(%error, host, "a node's name");
            None
        }
    }
}
