//! Accepts connections of one listener on one core. Every core listens on the same
//! address with SO_REUSEPORT; each connection goes to the data core that has fewest
//! ([`load`](super::load)), before anything was received on it.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::{self, Arrival, Connection};
use super::limits::{self, Admission};
use super::messages::{ListenerSpec, ShardRequest};
use super::{Shard, load::Counted};
use crate::io::{ListenOptions, Listener, Queue, Stream, local};

/// Opens all listeners and serves them until the core stops. Fails at once if an address
/// can't be had.
pub fn start_all(shard: &Rc<Shard>, listeners: &[ListenerSpec]) -> std::io::Result<()> {
    listeners
        .iter()
        .try_for_each(|listener| start(shard, listener))
}

/// Serves a connection that another core hands over, from where that core left off.
pub fn adopt(shard: &Rc<Shard>, arrival: Arrival) {
    // A core that is stopping closes it by dropping it.
    if !shard.rt().is_stopping() {
        serve(shard, Connection::arrived(shard, arrival));
    }
}

fn serve(shard: &Shard, connection: Connection) {
    shard
        .rt()
        .spawn(Queue::Request, connection::serve(connection));
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
            Ok((stream, peer)) => {
                // Nothing more is accepted here while this one waits for a slot or its turn.
                shard.metrics().accepted.increment();
                let admitting = limits::admit(&shard, &name, peer.ip());
                let admitted = match local::either(rt.stopping(), admitting).await {
                    local::Either::First(()) => return,
                    local::Either::Second(admitted) => admitted,
                };
                if let Some(admission) = admitted {
                    let counted = shard.node().load.place(shard.core());
                    hand_over(&shard, stream, counted, name.clone(), admission).await;
                }
            }
            Err(error) => {
                tracing::error!(core = %shard.core(), listener = %name, %error, "listener failed");
                return;
            }
        }
    }
}

async fn hand_over(
    shard: &Rc<Shard>,
    stream: Stream,
    counted: Counted,
    listener: Arc<str>,
    admission: Admission,
) {
    let core = counted.core();
    if core == shard.core() {
        serve(
            shard,
            Connection::accepted(stream, counted, listener, admission),
        );
        return;
    }
    // Nothing is under way on it yet, so this neither waits nor fails.
    let Ok(stream) = stream.detach().await else {
        return;
    };
    let arrival = Arrival::new(stream, counted, listener, admission.into_ticket());
    // When that core is gone the connection is closed with the message.
    shard.post(core, ShardRequest::Adopt(Box::new(arrival)));
}
