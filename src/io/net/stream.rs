//! One TCP connection.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::BytesMut;
use socket2::SockRef;

use super::into_socket_addr;
use super::splice;
use super::transmit::{self, Wire};
use crate::io::driver::{Driver, OpOwner};
use crate::io::seam::{SimConnection, SimStream};
use crate::io::{Rt, SendQueue};

/// A connection. One task may receive while another sends (share it by `Rc`), but there
/// is one receiver and one sender at a time. It may be dropped at any time: what is in
/// flight is cancelled, then the socket is closed, once.
pub struct Stream(Kind);

enum Kind {
    Real(Real),
    Sim(Box<dyn SimStream>),
}

struct Real {
    rt: Rt,
    driver: Rc<Driver>,
    socket: Rc<OwnedFd>,
    /// The multishot receive, from the first `recv` on.
    receiver: OnceCell<OpOwner>,
    /// Bytes that came on another core before the connection moved here.
    carried: RefCell<BytesMut>,
    peer: SocketAddr,
    local: SocketAddr,
    sending: Cell<bool>,
    /// What a dropped send has left with the kernel.
    splice: splice::Slot,
    /// Bytes received since the receiver last waited.
    received: Cell<usize>,
}

/// A connection between two cores: without operations, with the bytes that were received
/// and not taken.
#[derive(Debug)]
pub struct DetachedStream(Detached);

#[derive(Debug)]
enum Detached {
    Real {
        socket: OwnedFd,
        carried: BytesMut,
        peer: SocketAddr,
        local: SocketAddr,
    },
    Sim(SimConnection),
}

/// A receiver that the socket never makes wait lets others in after so many bytes.
const BYTES_PER_TURN: usize = 512 << 10;

impl Stream {
    /// Appends whatever has arrived to `into` (at least a byte) and returns how much; 0
    /// when the peer has ended. A dropped future loses nothing. While nobody receives, the
    /// socket is read no further than about 64 KiB and what one turn brings.
    pub async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        self.recv_missing(into, 0).await
    }

    /// As [`recv`](Self::recv), for a caller that knows that `missing` more bytes are to
    /// come: when these are 32 KiB or more and `into` has room for as many, they go
    /// straight from the socket into it. More than is missing may be appended too.
    pub async fn recv_missing(&self, into: &mut BytesMut, missing: usize) -> io::Result<usize> {
        let real = match &self.0 {
            Kind::Real(real) => real,
            Kind::Sim(stream) => {
                return poll_fn(|cx| stream.poll_receive(into, cx)).await;
            }
        };
        {
            let mut carried = real.carried.borrow_mut();
            if !carried.is_empty() {
                let carried = std::mem::take(&mut *carried);
                into.extend_from_slice(&carried);
                return Ok(carried.len());
            }
        }
        let receiver = real
            .receiver
            .get_or_init(|| real.driver.receiver(real.socket.clone()));
        if real.received.get() >= BYTES_PER_TURN {
            real.received.set(0);
            real.rt.yield_now().await;
        }
        let mut waited = false;
        let count = poll_fn(|cx| {
            let poll = receiver.poll_receive(into, missing, cx);
            waited |= poll.is_pending();
            poll
        })
        .await?;
        let before = if waited { 0 } else { real.received.get() };
        real.received.set(before + count);
        Ok(count)
    }

    /// Sends all of `out`. What was sent is taken off its front, so after an error or a
    /// dropped future it holds what wasn't, but for a splice under way, which the next send
    /// takes off: it must be called with the same queue, or fails with `BrokenPipe`.
    pub async fn send(&self, out: &mut SendQueue) -> io::Result<()> {
        let real = match &self.0 {
            Kind::Real(real) => real,
            Kind::Sim(stream) => {
                while !out.is_empty() {
                    poll_fn(|cx| stream.poll_send(out, cx)).await?;
                }
                return Ok(());
            }
        };
        let _sole = SoleSender::new(&real.sending);
        let wire = Wire {
            rt: &real.rt,
            driver: &real.driver,
            paths: real.rt.send_paths(),
            socket: &real.socket,
            splice: &real.splice,
        };
        transmit::send(&wire, out).await
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match &self.0 {
            Kind::Real(real) => real.peer,
            Kind::Sim(stream) => stream.peer_addr(),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            Kind::Real(real) => real.local,
            Kind::Sim(stream) => stream.local_addr(),
        }
    }

    /// Ends one or both directions; the peer sees an end after what was sent.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Kind::Real(real) => SockRef::from(&*real.socket).shutdown(how),
            Kind::Sim(stream) => stream.shutdown(how),
        }
    }

    /// Takes the connection off this core, to be attached to another. Nobody may be
    /// sending or receiving.
    pub async fn detach(self) -> io::Result<DetachedStream> {
        let real = match self.0 {
            Kind::Real(real) => real,
            Kind::Sim(stream) => return Ok(DetachedStream(Detached::Sim(stream.detach()))),
        };
        let mut carried = real.carried.into_inner();
        if let Some(receiver) = real.receiver.into_inner() {
            receiver.stop().await;
            receiver.take_received(&mut carried);
        }
        let mut socket = real.socket;
        let socket = loop {
            // An operation that was dropped just before may still be in flight.
            match Rc::try_unwrap(socket) {
                Ok(socket) => break socket,
                Err(shared) => socket = shared,
            }
            real.rt.sleep(DETACH_PAUSE).await;
        };
        Ok(DetachedStream(Detached::Real {
            socket,
            carried,
            peer: real.peer,
            local: real.local,
        }))
    }

    /// A connected socket, non-blocking; an error when it is connected no longer.
    pub(super) fn new(rt: Rt, driver: Rc<Driver>, socket: Rc<OwnedFd>) -> io::Result<Stream> {
        let (peer, local) = {
            let socket = SockRef::from(&*socket);
            (
                into_socket_addr(socket.peer_addr()?)?,
                into_socket_addr(socket.local_addr()?)?,
            )
        };
        Ok(Stream(Kind::Real(Real {
            rt,
            driver,
            socket,
            receiver: OnceCell::new(),
            carried: RefCell::new(BytesMut::new()),
            peer,
            local,
            sending: Cell::new(false),
            splice: splice::Slot::default(),
            received: Cell::new(0),
        })))
    }

    pub(in crate::io) fn simulated(stream: Box<dyn SimStream>) -> Stream {
        Stream(Kind::Sim(stream))
    }
}

impl DetachedStream {
    pub(in crate::io) fn into_simulated(self) -> SimConnection {
        match self.0 {
            Detached::Sim(connection) => connection,
            Detached::Real { .. } => panic!("a real connection can't move to a simulated core"),
        }
    }
}

pub(in crate::io) fn attach(rt: &Rt, driver: &Rc<Driver>, detached: DetachedStream) -> Stream {
    let Detached::Real {
        socket,
        carried,
        peer,
        local,
    } = detached.0
    else {
        panic!("a simulated connection can't move to a real core")
    };
    Stream(Kind::Real(Real {
        rt: rt.clone(),
        driver: driver.clone(),
        socket: Rc::new(socket),
        receiver: OnceCell::new(),
        carried: RefCell::new(carried),
        peer,
        local,
        sending: Cell::new(false),
        splice: splice::Slot::default(),
        received: Cell::new(0),
    }))
}

/// Between looks whether the last operation has landed.
const DETACH_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// Asserts that sends don't interleave.
struct SoleSender<'a>(&'a Cell<bool>);

impl<'a> SoleSender<'a> {
    fn new(sending: &'a Cell<bool>) -> SoleSender<'a> {
        assert!(!sending.replace(true), "one task sends at a time");
        SoleSender(sending)
    }
}

impl Drop for SoleSender<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
