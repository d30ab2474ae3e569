//! `ottla bench floor --serve`: answers exactly the generator's requests with one thread on
//! epoll, one write per batch and one sendfile per fetch. Not a broker: no checks, no
//! replication, no recovery; its files are gone with it. The ceiling for one that has them.
//!
//! ```text
//! readable → frames → Produce  write to the partition's file, answer, wake waiting fetches
//!                     Fetch    answer's head, then the file's range by sendfile; parked if
//!                              there is too little, until batches or its time come
//! ```
//! Where a batch must be on the disk first, its connection's answers are held until the end
//! of the round: one fdatasync a partition for all that the round brought.
//!
//! Invariants: answers leave in the order of requests (while a fetch is parked or the socket
//! is full, its connection's further requests wait in its buffer); only whole batches are
//! sent; a produce or a fetch allocates nothing once its connection's buffers have grown.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, send};
use slab::Slab;

use super::super::client::frame_size;
use super::answers::{self, Appended, Terms, Wanted};
use super::store::{PartitionKey, Store};
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message as _};
use crate::wire::header::RequestHeader;
use crate::wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest,
};
use crate::wire::produce_view::{ProduceView, TopicRef};

const EVENTS_MAX: usize = 256;
/// A connection's buffer at first; it grows to the longest frame.
const INPUT_BYTES: usize = 128 << 10;
const SIZE_BYTES: usize = 4;
const LISTENER: u64 = u64::MAX;

pub type Fault = Box<dyn std::error::Error>;

struct Server {
    epoll: Epoll,
    address: (String, u16),
    store: Store,
    connections: Slab<Connection>,
    /// When to look at parked fetches: at most one valid entry a connection (`timer`).
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Kept for their memory; empty between requests.
    places: Vec<(Appended, Range<usize>)>,
    appended: Vec<Appended>,
    /// Connections whose parked fetches may have enough now.
    woken: Vec<usize>,
    /// Partitions with batches that aren't on the disk but must be, and the connections
    /// whose answers wait for it.
    unsynced: Vec<PartitionKey>,
    held: Vec<usize>,
    /// Those of the round before; kept for its memory.
    released: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    input: Input,
    /// What `queue` refers to.
    output: BytesMut,
    /// Bytes of `output` that the socket has taken.
    sent: usize,
    queue: VecDeque<Piece>,
    /// Whether it waits for a sync.
    held: bool,
    /// What the fetch that is parked or under way wants, and its session after it.
    wanted: Vec<Wanted>,
    /// Which of them is looked at first: none may starve the others.
    first: usize,
    /// Partitions that tell this connection of their batches, as of so many deletions.
    told_by: Vec<PartitionKey>,
    told_at: u64,
    parked: Option<Parked>,
    timer: Option<Instant>,
    interest: EpollFlags,
}

enum Piece {
    /// Of `output`, up to here.
    Bytes(usize),
    Records {
        partition: PartitionKey,
        position: i64,
        left: usize,
    },
}

#[derive(Clone, Copy)]
struct Parked {
    correlation_id: i32,
    terms: Terms,
    until: Instant,
}

/// Bytes received: `from..to` are not yet taken.
struct Input {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// Serves until the process is ended. `ready` is told the address once it listens; the
/// files are made in `dir` and have no names there.
pub fn serve(
    address: &str,
    dir: &Path,
    ready: impl FnOnce(SocketAddr) -> Result<(), String>,
) -> Result<(), String> {
    let fault = |error: io::Error| format!("floor on {address}: {error}");
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let epoll = Epoll::new(EpollCreateFlags::empty()).map_err(|error| fault(error.into()))?;
    epoll
        .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .map_err(|error| fault(error.into()))?;
    allow_many_files();
    let mut server = Server {
        epoll,
        address: (bound.ip().to_string(), bound.port()),
        store: Store::new(dir),
        connections: Slab::new(),
        timers: BinaryHeap::new(),
        places: Vec::new(),
        appended: Vec::new(),
        woken: Vec::new(),
        unsynced: Vec::new(),
        held: Vec::new(),
        released: Vec::new(),
    };
    ready(bound)?;
    server.run(&listener).map_err(fault)
}

/// A file a partition and one a connection. Refused, the scenarios with thousands fail
/// with a clear error.
fn allow_many_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl Server {
    fn run(&mut self, listener: &TcpListener) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(&mut events, self.next_timeout()) {
                Err(Errno::EINTR) => 0,
                counted => counted?,
            };
            for event in &events[..count] {
                if event.data() == LISTENER {
                    self.accept(listener)?;
                    continue;
                }
                let (key, what) = (event.data() as usize, event.events());
                if what.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    self.close(key);
                } else {
                    self.turn(key, what.contains(EpollFlags::EPOLLIN));
                }
                self.answer_woken();
            }
            self.sync()?;
            self.answer_overdue();
        }
    }

    /// Brings to the disk what must be there, and lets the answers go that waited for it;
    /// they may bring more of the same.
    fn sync(&mut self) -> io::Result<()> {
        while !self.held.is_empty() {
            for key in self.unsynced.drain(..) {
                // Its topic may have been deleted since.
                if let Some(partition) = self.store.partitions.get(key) {
                    partition.file.sync_data()?;
                    self.woken.extend_from_slice(&partition.waiting);
                }
            }
            std::mem::swap(&mut self.held, &mut self.released);
            for at in 0..self.released.len() {
                let key = self.released[at];
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.held = false;
                    self.turn(key, false);
                }
            }
            self.released.clear();
            self.answer_woken();
        }
        Ok(())
    }

    fn next_timeout(&self) -> EpollTimeout {
        let Some(Reverse((at, _))) = self.timers.peek() else {
            return EpollTimeout::NONE;
        };
        let left = at.saturating_duration_since(Instant::now());
        let rounded = left + Duration::from_millis(1);
        EpollTimeout::try_from(rounded).unwrap_or(EpollTimeout::MAX)
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let entry = self.connections.vacant_entry();
                let interest = EpollFlags::EPOLLIN;
                let event = EpollEvent::new(interest, entry.key() as u64);
                self.epoll.add(&stream, event)?;
                entry.insert(Connection {
                    stream,
                    input: Input::new(),
                    output: BytesMut::new(),
                    sent: 0,
                    queue: VecDeque::new(),
                    held: false,
                    wanted: Vec::new(),
                    first: 0,
                    told_by: Vec::new(),
                    told_at: 0,
                    parked: None,
                    timer: None,
                    interest,
                });
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a connection on as far as it goes.
    fn turn(&mut self, key: usize, readable: bool) {
        if !self.connections.contains(key) {
            return; // Closed by an event before in the same round.
        }
        if let Err(error) = self.try_turn(key, readable) {
            if error.downcast_ref::<Closed>().is_none() {
                // Whoever closed the terminal doesn't want to see it.
                let _ = writeln!(io::stderr(), "floor: closed a connection: {error}");
            }
            self.close(key);
        }
    }

    /// Dropping the socket takes it out of the epoll too.
    fn close(&mut self, key: usize) {
        if self.connections.contains(key) {
            self.tell_of_no_batches(key);
            drop(self.connections.remove(key));
        }
    }

    fn try_turn(&mut self, key: usize, readable: bool) -> Result<(), Fault> {
        if readable {
            let connection = &mut self.connections[key];
            connection.input.read(&mut connection.stream)?;
        }
        let blocked = loop {
            let connection = &mut self.connections[key];
            if connection.held {
                break false;
            }
            let blocked = connection.flush(&self.store)?;
            if blocked || connection.parked.is_some() || !self.take_requests(key)? {
                break blocked;
            }
        };
        let connection = &mut self.connections[key];
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, connection.input.has_room());
        interest.set(EpollFlags::EPOLLOUT, blocked);
        if interest != connection.interest {
            connection.interest = interest;
            let mut event = EpollEvent::new(interest, key as u64);
            self.epoll.modify(&connection.stream, &mut event)?;
        }
        Ok(())
    }

    /// Takes the frames that are there, up to a fetch that must wait; false if there were
    /// none.
    fn take_requests(&mut self, key: usize) -> Result<bool, Fault> {
        let mut taken = false;
        // Out of the connection, so that both can be changed; no frame grows it meanwhile.
        let mut input = std::mem::replace(&mut self.connections[key].input, Input::EMPTY);
        let result = loop {
            if self.connections[key].parked.is_some() {
                break Ok(taken);
            }
            match input.next_frame() {
                Ok(None) => break Ok(taken),
                Ok(Some(frame)) => match self.on_request(key, frame) {
                    Ok(()) => taken = true,
                    Err(fault) => break Err(fault),
                },
                Err(fault) => break Err(fault),
            }
        };
        self.connections[key].input = input;
        result
    }

    fn on_request(&mut self, key: usize, frame: &mut [u8]) -> Result<(), Fault> {
        let (header, body_at) = RequestHeader::decode_borrowed(frame)?;
        let (api, version, id) = (header.api, header.api_version, header.correlation_id);
        if !answers::is_served(api, version) {
            return Err(format!("{api} version {version} isn't the generator's").into());
        }
        match api {
            ApiKey::Produce => self.produce(key, &mut frame[body_at..], version, id),
            ApiKey::Fetch => self.fetch(key, &frame[body_at..], id),
            _ => self.answer_rarely(key, &frame[body_at..], api, version, id),
        }
    }

    fn answer_rarely(
        &mut self,
        key: usize,
        body: &[u8],
        api: ApiKey,
        version: i16,
        id: i32,
    ) -> Result<(), Fault> {
        let body = Bytes::copy_from_slice(body);
        let mut d = Decoder::new(&body);
        let store = &mut self.store;
        let connection = &mut self.connections[key];
        let out = &mut connection.output;
        match api {
            ApiKey::ApiVersions => {
                answers::put_message(out, api, version, id, &answers::api_versions())?;
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut d, version)?;
                let (host, port) = &self.address;
                let answer = answers::metadata(&request, store, host, *port);
                answers::put_message(out, api, version, id, &answer)?;
            }
            ApiKey::CreateTopics => {
                let request = CreateTopicsRequest::decode(&mut d, version)?;
                let answer = answers::create_topics(&request, store)?;
                answers::put_message(out, api, version, id, &answer)?;
            }
            ApiKey::DeleteTopics => {
                let request = DeleteTopicsRequest::decode(&mut d, version)?;
                let answer = answers::delete_topics(&request, store);
                answers::put_message(out, api, version, id, &answer)?;
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(&mut d, version)?;
                let answer = answers::list_offsets(&request, store);
                answers::put_message(out, api, version, id, &answer)?;
            }
            _ => return Err("not an API of the generator".into()),
        }
        connection.queue_bytes();
        Ok(())
    }

    fn produce(&mut self, key: usize, body: &mut [u8], version: i16, id: i32) -> Result<(), Fault> {
        let view = ProduceView::decode(Decoder::borrowed(body), version)?;
        let acks = view.acks;
        self.places.clear();
        for place in view.partitions() {
            let TopicRef::Name(name) = place.topic else {
                return Err("topics go by name".into());
            };
            let found = self.store.find(name, place.partition_index);
            let appended = Appended {
                topic_index: place.topic_index,
                partition: found.ok_or("unknown partition")?,
                base_offset: 0,
            };
            let records = place.records.ok_or("produce of nothing")?;
            self.places.push((appended, records));
        }
        self.appended.clear();
        for (place, records) in self.places.drain(..) {
            let partition = &mut self.store.partitions[place.partition];
            let base_offset = partition.append(&mut body[records])?;
            if !partition.synced {
                self.woken.extend_from_slice(&partition.waiting);
            } else if !self.unsynced.contains(&place.partition) {
                self.unsynced.push(place.partition);
            }
            self.appended.push(Appended {
                base_offset,
                ..place
            });
        }
        let connection = &mut self.connections[key];
        if !self.unsynced.is_empty() && !connection.held {
            connection.held = true;
            self.held.push(key);
        }
        if acks != 0 {
            let out = &mut connection.output;
            answers::put_produced(out, version, id, &self.appended, &self.store)?;
            connection.queue_bytes();
        }
        Ok(())
    }

    fn fetch(&mut self, key: usize, body: &[u8], id: i32) -> Result<(), Fault> {
        let connection = &mut self.connections[key];
        let terms = answers::read_fetch(body, &self.store, &mut connection.wanted)?;
        let asked = Parked {
            correlation_id: id,
            terms,
            until: Instant::now() + terms.wait,
        };
        self.answer_or_park(key, asked, terms.wait.is_zero())
    }

    /// Answers the fetch that `wanted` describes, unless it has too little and may wait.
    fn answer_or_park(&mut self, key: usize, asked: Parked, overdue: bool) -> Result<(), Fault> {
        let connection = &mut self.connections[key];
        let Terms {
            bytes_min,
            bytes_max,
            ..
        } = asked.terms;
        let (mut bytes, mut left) = (0, bytes_max);
        let count = connection.wanted.len();
        let first = connection.first;
        for at in (first..first + count).map(|at| at % count) {
            let one = &mut connection.wanted[at];
            let partition = self.store.partitions.get(one.partition);
            let partition = partition.ok_or("the topic was deleted")?;
            let limit = one.bytes_max.min(left);
            (one.position, one.bytes) = partition.range(one.offset, limit, bytes == 0);
            bytes += one.bytes;
            left = left.saturating_sub(one.bytes as u64);
            if one.bytes > 0 {
                connection.first = at + 1;
            }
        }
        if bytes >= bytes_min || overdue {
            return connection.queue_fetched(key, asked, &self.store);
        }
        self.tell_of_batches(key);
        let connection = &mut self.connections[key];
        connection.parked = Some(asked);
        if connection.timer.is_none_or(|at| asked.until < at) {
            connection.timer = Some(asked.until);
            self.timers.push(Reverse((asked.until, key)));
        }
        Ok(())
    }

    /// Has the wanted partitions, and no others, tell the connection of their batches. Most
    /// often they do: a consumer wants the same ones again and again.
    fn tell_of_batches(&mut self, key: usize) {
        let connection = &self.connections[key];
        let mut wanted = connection.wanted.iter().map(|one| &one.partition);
        // After a deletion a key may be another partition's.
        let same_keys = connection.told_at == self.store.deletions;
        if same_keys && wanted.by_ref().eq(&connection.told_by) {
            return;
        }
        self.tell_of_no_batches(key);
        let connection = &mut self.connections[key];
        connection.told_at = self.store.deletions;
        for one in &connection.wanted {
            self.store.partitions[one.partition].waiting.push(key);
            connection.told_by.push(one.partition);
        }
    }

    fn tell_of_no_batches(&mut self, key: usize) {
        for partition in self.connections[key].told_by.drain(..) {
            if let Some(partition) = self.store.partitions.get_mut(partition) {
                partition.waiting.retain(|waiting| *waiting != key);
            }
        }
    }

    /// Looks at a parked fetch again, and goes on with its connection.
    fn look_again(&mut self, key: usize, overdue: bool) {
        let connection = self.connections.get_mut(key);
        if let Some(asked) = connection.and_then(|it| it.parked.take()) {
            match self.answer_or_park(key, asked, overdue) {
                Ok(()) => self.turn(key, false),
                Err(_) => self.close(key),
            }
        }
    }

    fn answer_woken(&mut self) {
        while let Some(key) = self.woken.pop() {
            self.look_again(key, false);
        }
    }

    fn answer_overdue(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            if connection.timer != Some(at) {
                continue; // Of a fetch that waited for longer, or of a connection before.
            }
            connection.timer = None;
            match connection.parked {
                Some(parked) if parked.until <= now => self.look_again(key, true),
                Some(parked) => {
                    connection.timer = Some(parked.until);
                    self.timers.push(Reverse((parked.until, key)));
                }
                None => {}
            }
            self.answer_woken();
        }
    }
}

impl Connection {
    /// Notes that `output` has grown.
    fn queue_bytes(&mut self) {
        let end = self.output.len();
        match self.queue.back_mut() {
            Some(Piece::Bytes(before)) => *before = end,
            _ => self.queue.push_back(Piece::Bytes(end)),
        }
    }

    fn queue_fetched(&mut self, key: usize, asked: Parked, store: &Store) -> Result<(), Fault> {
        let Connection {
            queue,
            output: out,
            wanted,
            ..
        } = self;
        let terms = asked.terms;
        // A connection has one session at most.
        let session_id = match terms.in_session {
            true => i32::try_from(key)? + 1,
            false => 0,
        };
        let id = asked.correlation_id;
        let only_found = terms.goes_on;
        let mut cut_at = None;
        answers::put_fetched(
            out,
            id,
            session_id,
            wanted,
            only_found,
            store,
            |end, one| {
                cut_at = Some(end);
                queue.push_back(Piece::Bytes(end));
                queue.push_back(Piece::Records {
                    partition: one.partition,
                    position: one.position as i64,
                    left: one.bytes,
                });
            },
        )?;
        // After the last records come the heads of the partitions without any.
        if cut_at != Some(self.output.len()) {
            self.queue_bytes();
        }
        Ok(())
    }

    /// Sends what the socket takes; true if it is full.
    fn flush(&mut self, store: &Store) -> Result<bool, Fault> {
        while let Some(piece) = self.queue.front_mut() {
            let done = match piece {
                Piece::Bytes(end) => {
                    let (from, end) = (self.sent, *end);
                    let mut flags = MsgFlags::MSG_NOSIGNAL;
                    // Head and records in one segment, where they fit.
                    let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
                    flags.set(more, self.queue.len() > 1);
                    let bytes = &self.output[from..end];
                    send(self.stream.as_raw_fd(), bytes, flags).map(|count| {
                        self.sent += count;
                        self.sent == end
                    })
                }
                Piece::Records {
                    partition,
                    position,
                    left,
                } => {
                    let found = store.partitions.get(*partition);
                    let file = &found.ok_or("the topic was deleted")?.file;
                    match sendfile(&self.stream, file, Some(position), *left) {
                        Ok(0) => return Err("the file is too short".into()),
                        Ok(count) => {
                            *left -= count;
                            Ok(*left == 0)
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match done {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Closed.into()),
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(false)
    }
}

impl Input {
    const EMPTY: Input = Input {
        bytes: Vec::new(),
        from: 0,
        to: 0,
    };

    fn new() -> Input {
        Input {
            bytes: vec![0; INPUT_BYTES],
            from: 0,
            to: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.to < self.bytes.len() || self.from > 0
    }

    /// Reads once.
    fn read(&mut self, stream: &mut TcpStream) -> Result<(), Fault> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.bytes.len() {
            self.move_to_front();
        }
        if self.to == self.bytes.len() {
            return Ok(()); // Full of requests that wait for the one before.
        }
        match stream.read(&mut self.bytes[self.to..]) {
            Ok(0) => Err(Closed.into()),
            Ok(count) => {
                self.to += count;
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
                ErrorKind::ConnectionReset => Err(Closed.into()),
                _ => Err(error.into()),
            },
        }
    }

    fn move_to_front(&mut self) {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
    }

    /// A whole frame without its size, if there is one; else there is room for it after.
    fn next_frame(&mut self) -> Result<Option<&mut [u8]>, Fault> {
        let there = &self.bytes[self.from..self.to];
        let Some(size) = there.first_chunk() else {
            return Ok(None);
        };
        let frame_bytes = SIZE_BYTES + frame_size(*size)?;
        if there.len() < frame_bytes {
            if self.from + frame_bytes > self.bytes.len() {
                self.move_to_front();
            }
            if frame_bytes > self.bytes.len() {
                self.bytes.resize(frame_bytes.next_power_of_two(), 0);
            }
            return Ok(None);
        }
        let frame = self.from + SIZE_BYTES..self.from + frame_bytes;
        self.from = frame.end;
        Ok(Some(&mut self.bytes[frame]))
    }
}

/// The peer went, which is no fault.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the peer")
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn frames_come_whole_however_they_arrive_and_the_buffer_grows_to_the_longest() {
        let (mut near, mut far) = pair();
        let lengths = [10, INPUT_BYTES - 20, 30, 3 * INPUT_BYTES, 5];
        let mut sent = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            sent.extend_from_slice(&(*length as u32).to_be_bytes());
            sent.extend(std::iter::repeat_n(index as u8, *length));
        }
        let writer = std::thread::spawn(move || near.write_all(&sent).map(|()| near));
        let mut input = Input::new();
        let mut seen = Vec::new();
        while seen.len() < lengths.len() {
            input.read(&mut far).unwrap();
            while let Some(frame) = input.next_frame().unwrap() {
                let index = seen.len() as u8;
                assert!(frame.iter().all(|byte| *byte == index));
                seen.push(frame.len());
            }
        }
        assert_eq!(seen, lengths);
        assert_eq!(input.bytes.len(), 4 * INPUT_BYTES);
        drop(writer.join().unwrap());
        assert!(input.read(&mut far).is_err());
    }

    #[test]
    fn a_full_buffer_reads_no_more() {
        let (mut near, mut far) = pair();
        near.write_all(&[0; 8]).unwrap();
        let mut input = Input {
            bytes: vec![0; 4],
            from: 0,
            to: 4,
        };
        assert!(!input.has_room());
        input.read(&mut far).unwrap();
        assert_eq!(input.to, 4);
    }
}
