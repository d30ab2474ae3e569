//! Layer 2: who asks and whether he may. Every handler has a [`RequestContext`] and asks an
//! [`Authorizer`] before it acts: one that goes by ACLs, or one that allows everything.
//! The ACLs stand in the metadata image ([`AclIndex`]), so every core has them.
//!
//! Called by: `api` handlers on every core, `controller` on its own; `metadata` keeps the
//! index. Pure.

mod acl_filter;
mod acl_index;
mod authorizer;
mod context;
mod patterns;
mod standard;

pub use acl_filter::{AclFilter, resource_type_name};
pub use acl_index::{
    AclIndex, Action, PATTERN_ANY, PATTERN_LITERAL, PATTERN_MATCH, PATTERN_PREFIXED,
    PERMISSION_ALLOW, PERMISSION_DENY, Verdict, WILDCARD, WILDCARD_PRINCIPAL,
};
pub use authorizer::{
    AllowAll, Authorizer, CLUSTER_NAME, CurrentAuthorizer, OPERATIONS_NOT_ASKED, Operation,
    ResourceType, authorized_operations,
};
pub use context::{Principal, RequestContext};
pub use standard::StandardAuthorizer;
