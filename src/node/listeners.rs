//! The addresses that a node listens on, claimed before anything is started, so that a
//! port in use is one clear line.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use super::StartError;
use crate::config::NodeConfig;

/// A listener whose address is known to be free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// What clients are told.
    pub advertised_host: String,
    pub advertised_port: u16,
    /// Number of the security protocol in registrations.
    pub protocol: i16,
    /// Speaks to controllers and their tools, not to clients.
    pub is_controller: bool,
}

/// Resolves and probes every listener. Cores later share each address by SO_REUSEPORT,
/// which would also let two processes share it: the probe, without that option, finds
/// whoever listens already. A port of 0 becomes a free one.
pub fn reserve(config: &NodeConfig) -> Result<Vec<BoundListener>, StartError> {
    let mut probes = Vec::new();
    let mut bound = Vec::new();
    for listener in &config.listeners.all {
        let host = listener.host.as_deref().unwrap_or("0.0.0.0");
        let failed = |source| StartError::Bind {
            listener: listener.name.to_string(),
            address: format!("{host}:{}", listener.port),
            source,
        };
        let address = (host, listener.port)
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let probe = TcpListener::bind(address).map_err(failed)?;
        let address = probe.local_addr().map_err(failed)?;
        bound.push(BoundListener {
            name: listener.name.as_str().into(),
            address,
            advertised_host: listener.advertised_host.clone(),
            advertised_port: match listener.advertised_port {
                0 => address.port(),
                port => port,
            },
            protocol: listener.protocol.wire_id(),
            is_controller: listener.is_controller,
        });
        probes.push(probe);
    }
    Ok(bound)
}
