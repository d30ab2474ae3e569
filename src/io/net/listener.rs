//! Listening sockets.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::{Stream, into_socket_addr, tcp_socket};
use crate::io::Rt;
use crate::io::driver::{Driver, OpOwner};
use crate::io::seam::SimListener;

/// Options of a listener. Besides these, SO_REUSEADDR, TCP_NODELAY and SO_KEEPALIVE are
/// always on, and accepted connections inherit them.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Lets the listeners of several cores share an address.
    pub reuse_port: bool,
    /// Connections that may wait to be accepted; the kernel caps it (`somaxconn`).
    pub backlog: u32,
    /// SO_SNDBUF of the connections; the kernel's own choice without it.
    pub send_buffer_bytes: Option<usize>,
    /// SO_RCVBUF of the connections; the kernel's own choice without it.
    pub recv_buffer_bytes: Option<usize>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            reuse_port: true,
            backlog: 1_024,
            send_buffer_bytes: None,
            recv_buffer_bytes: None,
        }
    }
}

/// A listening socket; dropping it closes it, and refuses the connections that wait.
pub struct Listener(Kind);

enum Kind {
    Real {
        rt: Rt,
        driver: Rc<Driver>,
        acceptor: OpOwner,
        local: SocketAddr,
    },
    Sim(Box<dyn SimListener>),
}

/// Pause after an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// The next connection; one task at a time. Failures of a single connection are
    /// skipped, and a lack of descriptors or memory is waited out, so an error means that
    /// the listener itself is broken.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.0 {
            Kind::Real {
                rt,
                driver,
                acceptor,
                ..
            } => loop {
                let stream = match poll_fn(|cx| acceptor.poll_accept(cx)).await {
                    // The peer may be gone already: that connection is dropped.
                    Ok(socket) => match Stream::new(rt.clone(), driver.clone(), Rc::new(socket)) {
                        Ok(stream) => stream,
                        Err(_) => continue,
                    },
                    Err(error) => {
                        rt.count_accept_error();
                        on_accept_error(rt, error).await?;
                        continue;
                    }
                };
                let peer = stream.peer_addr();
                return Ok((stream, peer));
            },
            Kind::Sim(listener) => {
                let stream = poll_fn(|cx| listener.poll_accept(cx)).await?;
                let peer = stream.peer_addr();
                Ok((Stream::simulated(stream), peer))
            }
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            Kind::Real { local, .. } => *local,
            Kind::Sim(listener) => listener.local_addr(),
        }
    }

    pub(in crate::io) fn simulated(listener: Box<dyn SimListener>) -> Listener {
        Listener(Kind::Sim(listener))
    }
}

/// accept(2) reports errors of the new connection and shortages; both pass.
async fn on_accept_error(rt: &Rt, error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            tracing::warn!(core = rt.core().0, %error, "can't accept connections");
            rt.sleep(ACCEPT_PAUSE).await;
            Ok(())
        }
        Some(
            libc::ECONNABORTED
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => Ok(()),
        _ => Err(error),
    }
}

pub(in crate::io) fn listen(
    rt: &Rt,
    driver: &Rc<Driver>,
    at: SocketAddr,
    options: &ListenOptions,
) -> io::Result<Listener> {
    let socket = tcp_socket(at)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if at.is_ipv6() {
        // As Java's sockets do: an IPv6 listener takes IPv4 connections too.
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&at.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let local = into_socket_addr(socket.local_addr()?)?;
    let socket: Rc<OwnedFd> = Rc::new(socket.into());
    Ok(Listener(Kind::Real {
        rt: rt.clone(),
        driver: driver.clone(),
        acceptor: driver.acceptor(socket),
        local,
    }))
}
