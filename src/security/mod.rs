//! Layer 2: who asks and whether he may. Every handler has a [`RequestContext`] and asks an
//! [`Authorizer`] before it acts; the only authorizer so far allows everything.
//!
//! Called by: `api` handlers on every core, `controller` on its own. Pure.

mod authorizer;
mod context;

pub use authorizer::{
    AllowAll, Authorizer, CLUSTER_NAME, OPERATIONS_NOT_ASKED, Operation, ResourceType,
    authorized_operations,
};
pub use context::{Principal, RequestContext};
