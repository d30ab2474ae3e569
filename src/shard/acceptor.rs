//! Accepts connections of one listener on one core. Every core listens on the same
//! address with SO_REUSEPORT; each connection stays on the core that accepted it.

use std::rc::Rc;
use std::sync::Arc;

use super::messages::ListenerSpec;
use super::{Shard, connection};
use crate::io::{ListenOptions, Listener, Queue, local};

/// Opens all listeners and serves them until the core stops. Fails at once if an address
/// can't be had.
pub fn start_all(shard: &Rc<Shard>, listeners: &[ListenerSpec]) -> std::io::Result<()> {
    listeners
        .iter()
        .try_for_each(|listener| start(shard, listener))
}

fn start(shard: &Rc<Shard>, spec: &ListenerSpec) -> std::io::Result<()> {
    let options = ListenOptions {
        reuse_port: true,
        backlog: u32::try_from(shard.node().config.network.socket_listen_backlog_size)
            .unwrap_or(50),
        ..ListenOptions::default()
    };
    let listener = shard.rt().listen_with(spec.address, &options)?;
    let accepting = accept(shard.clone(), listener, spec.name.clone());
    shard.rt().spawn(Queue::Request, accepting);
    Ok(())
}

async fn accept(shard: Rc<Shard>, listener: Listener, name: Arc<str>) {
    let rt = shard.rt().clone();
    loop {
        let accepted = match local::either(rt.stopping(), listener.accept()).await {
            local::Either::First(()) => return,
            local::Either::Second(accepted) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection::serve(shard.clone(), stream, name.clone());
                rt.spawn(Queue::Request, serving);
            }
            Err(error) => {
                tracing::error!(core = %shard.core(), listener = %name, %error, "listener failed");
                return;
            }
        }
    }
}
