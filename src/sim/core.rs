//! One core's view of the simulated world: what its `Rt`, listeners and streams call.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;

use super::disk::{SimDisk, SyncTicket};
use super::net::{self, HeldEnd};
use super::world::{NodeId, World};
use crate::base::{Millis, Nanos};
use crate::io::local::oneshot;
use crate::io::seam::{LocalBoxFuture, SimConnection, SimCore, SimListener, SimStream};
use crate::io::{Disk, File, ListenOptions, SendQueue};

/// A sync takes at most this long.
const SYNC_NANOS_MAX: u64 = 10_000_000;
/// How often a sync that is held looks whether it still is.
const HELD_LOOK: Duration = Duration::from_millis(1);

/// A core of a node in one of its boots.
#[derive(Clone)]
pub(super) struct CoreView {
    pub(super) world: Rc<World>,
    pub(super) node: NodeId,
    pub(super) epoch: u64,
    pub(super) disk: SimDisk,
}

impl CoreView {
    fn hold(&self, end: u64) -> Box<dyn SimStream> {
        stream(HeldEnd::new(self.world.clone(), end))
    }
}

impl SimCore for CoreView {
    fn now(&self) -> Nanos {
        self.world.now()
    }

    fn wall_ms(&self) -> Millis {
        self.world.wall_ms(self.node)
    }

    fn disk(&self) -> Rc<dyn Disk> {
        Rc::new(self.disk.clone())
    }

    fn listen(&self, at: SocketAddr, options: &ListenOptions) -> io::Result<Box<dyn SimListener>> {
        let (reuse, backlog) = (options.reuse_port, options.backlog);
        let id = net::listen(&self.world, self.node, self.epoch, at, reuse, backlog)?;
        Ok(Box::new(ListeningEnd {
            view: self.clone(),
            id,
        }))
    }

    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<io::Result<Box<dyn SimStream>>> {
        let connected = net::connect(&self.world, self.node, self.epoch, to);
        Box::pin(async move {
            let end = connected
                .await
                .unwrap_or(Err(io::ErrorKind::Interrupted.into()))?;
            Ok(stream(end))
        })
    }

    fn attach(&self, connection: SimConnection) -> Box<dyn SimStream> {
        self.hold(connection.0)
    }

    fn sync(&self, file: &Arc<dyn File>) -> LocalBoxFuture<io::Result<()>> {
        let Some(ticket) = self.disk.begin_sync(file) else {
            // A file of before the node's last crash.
            return Box::pin(async { Err(io::ErrorKind::NotFound.into()) });
        };
        let (done, synced) = oneshot();
        let nanos = Duration::from_nanos(self.world.below(SYNC_NANOS_MAX));
        let at = self.world.now() + nanos + self.disk.sync_delay();
        let disk = self.disk.clone();
        self.world.schedule(at, "sync", move |world| {
            finish_sync(world, disk, ticket, move |synced| {
                // Nobody waits any more when the node is down.
                let _ = done.send(synced);
            });
        });
        Box::pin(async move {
            synced
                .await
                .unwrap_or(Err(io::ErrorKind::Interrupted.into()))
        })
    }
}

/// Finishes a sync as soon as it isn't held.
fn finish_sync(
    world: &Rc<World>,
    disk: SimDisk,
    ticket: SyncTicket,
    done: impl FnOnce(io::Result<()>) + 'static,
) {
    if !disk.is_held(&ticket) {
        return done(disk.finish_sync(ticket));
    }
    let later = world.now() + HELD_LOOK;
    world.schedule(later, "held sync", move |world| {
        finish_sync(world, disk, ticket, done);
    });
}

struct ListeningEnd {
    view: CoreView,
    id: u64,
}

impl SimListener for ListeningEnd {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn SimStream>>> {
        let accepted = net::poll_accept(&self.view.world, self.id, cx);
        accepted.map_ok(|end| self.view.hold(end))
    }

    fn local_addr(&self) -> SocketAddr {
        net::listener_addr(&self.view.world, self.id)
    }
}

impl Drop for ListeningEnd {
    fn drop(&mut self) {
        net::close_listener(&self.view.world, self.id);
    }
}

struct StreamEnd {
    end: HeldEnd,
    local: SocketAddr,
    peer: SocketAddr,
}

fn stream(end: HeldEnd) -> Box<dyn SimStream> {
    let (local, peer) = net::addresses(end.world(), end.id());
    Box::new(StreamEnd { end, local, peer })
}

impl SimStream for StreamEnd {
    fn poll_receive(&self, into: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        net::poll_receive(self.end.world(), self.end.id(), into, cx)
    }

    fn poll_send(&self, out: &mut SendQueue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        net::poll_send(self.end.world(), self.end.id(), out, cx)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match how {
            Shutdown::Write | Shutdown::Both => net::shut_write(self.end.world(), self.end.id()),
            Shutdown::Read => {}
        }
        Ok(())
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn detach(self: Box<Self>) -> SimConnection {
        SimConnection(self.end.give_up())
    }
}
