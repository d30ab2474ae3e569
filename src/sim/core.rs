//! One core's view of the simulated world: what its `Rt` calls.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::world::{NodeId, World};
use crate::base::{Millis, Nanos};
use crate::io::local::oneshot;
use crate::io::seam::{LocalBoxFuture, SimConnection, SimCore, SimListener, SimStream};
use crate::io::{Disk, File, ListenOptions};

/// A sync takes at most this long.
const SYNC_NANOS_MAX: u64 = 10_000_000;

pub(super) struct CoreView {
    pub(super) world: Rc<World>,
    pub(super) node: NodeId,
    pub(super) disk: Rc<dyn Disk>,
}

impl SimCore for CoreView {
    fn now(&self) -> Nanos {
        self.world.now()
    }

    fn wall_ms(&self) -> Millis {
        self.world.wall_ms(self.node)
    }

    fn disk(&self) -> Rc<dyn Disk> {
        self.disk.clone()
    }

    fn listen(
        &self,
        _at: SocketAddr,
        _options: &ListenOptions,
    ) -> io::Result<Box<dyn SimListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect(&self, _to: SocketAddr) -> LocalBoxFuture<io::Result<Box<dyn SimStream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn attach(&self, connection: SimConnection) -> Box<dyn SimStream> {
        unreachable!("there is no connection {}", connection.0)
    }

    fn sync(&self, file: &Arc<dyn File>) -> LocalBoxFuture<io::Result<()>> {
        let (done, synced) = oneshot();
        let file = file.clone();
        let at = self.world.now() + Duration::from_nanos(self.world.below(SYNC_NANOS_MAX));
        self.world.schedule(at, "sync", move |_| {
            // Nobody waits any more when the node is down.
            let _ = done.send(file.sync_data());
        });
        Box::pin(async move {
            synced
                .await
                .unwrap_or(Err(io::ErrorKind::Interrupted.into()))
        })
    }
}
