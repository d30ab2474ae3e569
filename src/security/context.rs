//! The principal of a connection and what else a handler knows of a request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// On whose behalf a request runs (`KafkaPrincipal`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// `User` for all that authenticate by listener.
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

impl Principal {
    pub fn user(name: &str) -> Principal {
        Principal {
            kind: Arc::from("User"),
            name: Arc::from(name),
        }
    }

    /// Whoever comes by a listener without authentication.
    pub fn anonymous() -> Principal {
        Principal::user("ANONYMOUS")
    }
}

/// As ACLs and logs write it: `User:alice`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// Of one request. Cloning is a few reference counts; it crosses cores with the request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub principal: Principal,
    pub client_id: Option<Arc<str>>,
    pub client_address: SocketAddr,
    /// Name of the listener that it came by.
    pub listener: Arc<str>,
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
}

impl RequestContext {
    /// Of what the node itself does.
    pub fn internal() -> RequestContext {
        RequestContext {
            principal: Principal::anonymous(),
            client_id: None,
            client_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            listener: Arc::from(""),
            api_key: -1,
            api_version: -1,
            correlation_id: -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_print_as_in_acls() {
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
    }
}
