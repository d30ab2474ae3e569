//! The addresses that a node listens on, claimed before anything is started, so that a
//! port in use is one clear line.
//!
//! Cores share each address by SO_REUSEPORT, which would also let two processes share it,
//! and each would get some of the other's clients. So a socket without that option finds
//! whoever has the address; then it stays bound, not listening, with the option switched
//! on: our cores can listen beside it, and nobody else can claim the address.

use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

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

/// Keeps other processes off an address while it lives.
#[derive(Debug)]
pub struct Claim(Socket);

/// Resolves and claims every listener; the claims are to be held for as long as the node
/// listens. A port of 0 becomes a free one.
pub fn reserve(config: &NodeConfig) -> Result<(Vec<BoundListener>, Vec<Claim>), StartError> {
    let mut claims = Vec::new();
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
        let claim = claim(address).map_err(failed)?;
        let address = claim.address().map_err(failed)?;
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
        claims.push(claim);
    }
    Ok((bound, claims))
}

impl Claim {
    fn new(address: SocketAddr) -> io::Result<Claim> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.port() == 0 {
            // Nobody else is given the port from here on.
            socket.bind(&address.into())?;
        } else {
            // Connections of an earlier process that still time out are no obstacle. Then
            // two who bind at once could both: only one of them gets as far as to listen.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(1)?;
            socket.set_reuse_address(false)?;
            // It listens no more, but stays bound.
            socket.shutdown(Shutdown::Read)?;
        }
        socket.set_reuse_port(true)?;
        Ok(Claim(socket))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        let address = self.0.local_addr()?.as_socket();
        address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

fn claim(address: SocketAddr) -> io::Result<Claim> {
    let started = Instant::now();
    loop {
        match Claim::new(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < IN_USE_MAX =>
            {
                std::thread::sleep(IN_USE_PAUSE);
            }
            claimed => return claimed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A core's listener.
    fn listen(address: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(64)?;
        Ok(socket.into())
    }

    #[test]
    fn an_address_that_comes_free_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let claiming = std::thread::spawn(move || {
            tell.send(()).unwrap();
            claim(address)
        });
        told.recv().unwrap();
        drop(holder);
        let claim = claiming.join().unwrap().unwrap();
        assert_eq!(claim.address().unwrap(), address);
    }

    #[test]
    fn an_address_that_stays_in_use_is_an_error() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = claim(holder.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_was_claimed_is_nobody_elses_before_and_while_its_cores_listen() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let first = Claim::new(any.parse().unwrap()).unwrap();
            let address = first.address().unwrap();
            let refused = |what: &str| {
                let error = Claim::new(address).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{any} {what}");
            };
            refused("before");
            let mut local = address;
            if address.ip().is_unspecified() {
                local.set_ip("127.0.0.1".parse().unwrap());
            }
            let early = TcpStream::connect(local).unwrap_err();
            assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused, "{any}");
            let cores = [listen(address).unwrap(), listen(address).unwrap()];
            refused("while cores listen");
            // Every client gets to a core, none to the claim.
            for core in &cores {
                core.set_nonblocking(true).unwrap();
            }
            let clients: Vec<_> = (0..32)
                .map(|_| TcpStream::connect(local).unwrap())
                .collect();
            let accepted = cores
                .iter()
                .flat_map(|core| core.incoming().map_while(Result::ok));
            assert_eq!(accepted.count(), clients.len(), "{any}");
            drop(cores);
            refused("after");
            // With connections left over, the same address can be had again, by its number.
            drop(first);
            let again = Claim::new(address).unwrap();
            refused("again");
            listen(address).unwrap();
            drop((again, clients));
        }
    }
}
