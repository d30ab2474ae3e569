//! The principal of a connection and what else a handler knows of a request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// On whose behalf a request runs (`KafkaPrincipal`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// As ACLs and logs write it: `User:alice`. Whoever authenticates by listener is a
    /// `User`. Empty for the node itself, which no client can be and no ACL names.
    text: Arc<str>,
}

impl Principal {
    pub fn user(name: &str) -> Principal {
        Principal::of("User", name)
    }

    pub fn of(kind: &str, name: &str) -> Principal {
        Principal {
            text: format!("{kind}:{name}").into(),
        }
    }

    /// Whoever comes by a listener without authentication.
    pub fn anonymous() -> Principal {
        Principal::user("ANONYMOUS")
    }

    /// The node that this is: what it asks of itself is not authorised.
    pub fn node() -> Principal {
        Principal {
            text: Arc::from(""),
        }
    }

    pub fn is_node(&self) -> bool {
        self.text.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `User` for all that authenticate by listener.
    pub fn kind(&self) -> &str {
        self.text.split_once(':').map_or("", |(kind, _)| kind)
    }

    pub fn name(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
            principal: Principal::node(),
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
        assert!(!Principal::anonymous().is_node());
        let odd = Principal::user("a:b");
        assert_eq!((odd.kind(), odd.name()), ("User", "a:b"));
        assert!(RequestContext::internal().principal.is_node());
    }
}
