//! What a simulated core does instead of the kernel. `sim` implements these; `Rt`,
//! `Listener` and `Stream` call them where a real core calls its driver.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::{Disk, File, ListenOptions, SendQueue};
use crate::base::{Millis, Nanos};

pub(crate) type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// One core's view of the simulated world.
pub(crate) trait SimCore {
    fn now(&self) -> Nanos;
    fn wall_ms(&self) -> Millis;
    fn disk(&self) -> Rc<dyn Disk>;
    fn listen(&self, at: SocketAddr, options: &ListenOptions) -> io::Result<Box<dyn SimListener>>;
    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<io::Result<Box<dyn SimStream>>>;
    fn attach(&self, connection: SimConnection) -> Box<dyn SimStream>;
    fn sync(&self, file: &Arc<dyn File>) -> LocalBoxFuture<io::Result<()>>;
}

pub(crate) trait SimListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn SimStream>>>;
    fn local_addr(&self) -> SocketAddr;
}

pub(crate) trait SimStream {
    fn poll_receive(&self, into: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
    /// Sends some of a queue that isn't empty.
    fn poll_send(&self, out: &mut SendQueue, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn peer_addr(&self) -> SocketAddr;
    fn local_addr(&self) -> SocketAddr;
    /// Gives the connection up without closing it.
    fn detach(self: Box<Self>) -> SimConnection;
}

/// Names one end of a simulated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SimConnection(pub(crate) u64);
