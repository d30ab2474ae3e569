//! TCP on a core's ring: listeners, connections, connecting.
//!
//! Called by `shard` through [`Rt`](super::Rt). Accepting and receiving are multishot
//! operations of the driver; sending is done inline by the task (`sendmsg`, `sendfile`)
//! where that can't block; what isn't in memory, and a full socket, wait in the ring.
//!
//! Invariant: a descriptor is owned by one `Rc<OwnedFd>` whose clones are held by the
//! stream or listener and by the operations in flight, so it is closed once, by whichever
//! ends last.

mod listener;
mod read;
mod splice;
mod stream;
mod transmit;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub(super) use listener::listen;
pub use listener::{ListenOptions, Listener};
pub(super) use stream::attach;
pub use stream::{DetachedStream, Stream};
pub(super) use transmit::{PIPES_MAX, SendPaths};
pub use transmit::{PathStats, SendStats};

use super::Rt;
use super::driver::{Driver, Keep};

/// Opens a connection through the ring.
pub(super) async fn connect(rt: &Rt, driver: &Rc<Driver>, to: SocketAddr) -> io::Result<Stream> {
    let socket = tcp_socket(to)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    let socket: Rc<OwnedFd> = Rc::new(socket.into());
    let address = Box::new(SockAddr::from(to));
    let fd = types::Fd(socket.as_raw_fd());
    let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
    let keep = Keep::Connect {
        _socket: socket.clone(),
        _address: address,
    };
    // SAFETY: the entry points into the boxed address and names the socket; both are kept.
    let result = unsafe { driver.once(entry, keep, true) }.await;
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Stream::new(rt.clone(), driver.clone(), socket)
}

/// A non-blocking, close-on-exec TCP socket of the address's family.
fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    Ok(socket)
}

fn into_socket_addr(address: SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}
