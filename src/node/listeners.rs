//! The addresses that a node listens on, claimed before anything is started, so that a
//! port in use is one clear line.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How long an address may be in use before that counts: the kernel gives the sockets of a
/// killed process's rings back a little after the process is gone.
const IN_USE_MAX: Duration = Duration::from_millis(1_500);
const IN_USE_PAUSE: Duration = Duration::from_millis(25);

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
        let probe = bind(address).map_err(failed)?;
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

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < IN_USE_MAX =>
            {
                std::thread::sleep(IN_USE_PAUSE);
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_comes_free_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let binding = std::thread::spawn(move || {
            tell.send(()).unwrap();
            bind(address)
        });
        told.recv().unwrap();
        drop(holder);
        assert_eq!(
            binding.join().unwrap().unwrap().local_addr().unwrap(),
            address
        );
    }

    #[test]
    fn an_address_that_stays_in_use_is_an_error() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(holder.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
