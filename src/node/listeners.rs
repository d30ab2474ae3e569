//! The addresses that a node listens on.

use std::net::SocketAddr;
use std::sync::Arc;

/// A listener whose address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    pub name: Arc<str>,
    /// As configured, for the registration and the banner.
    pub host: String,
    pub address: SocketAddr,
    /// Speaks to controllers and their tools, not to clients.
    pub is_controller: bool,
}
