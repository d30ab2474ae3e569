//! The authorizer that goes by ACLs (`StandardAuthorizer` of Apache Kafka 4.3.1): who is in
//! `super.users` may do everything; for the others a denial goes before an allowance, and
//! what nothing allows is denied, except with `allow.everyone.if.no.acl.found` for
//! resources without any ACL.
//!
//! What the node asks of itself isn't authorised. A listener opens when the first image is
//! there, so no request finds the ACLs not yet loaded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::acl_index::{AclIndex, Action, Verdict};
use super::{Authorizer, Operation, RequestContext, ResourceType};

#[derive(Clone, Debug, Default)]
pub struct StandardAuthorizer {
    /// Each as `User:name`.
    super_users: BTreeSet<String>,
    allow_if_no_acl: bool,
}

impl StandardAuthorizer {
    pub fn new(
        super_users: impl IntoIterator<Item = String>,
        allow_if_no_acl: bool,
    ) -> StandardAuthorizer {
        StandardAuthorizer {
            super_users: super_users.into_iter().collect(),
            allow_if_no_acl,
        }
    }

    fn may_do_everything(&self, context: &RequestContext) -> bool {
        context.principal.is_node() || self.super_users.contains(context.principal.as_str())
    }
}

impl Authorizer for StandardAuthorizer {
    fn authorize(
        &self,
        acls: &AclIndex,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        if self.may_do_everything(context) {
            return true;
        }
        let verdict = acls.verdict(&Action {
            principal: context.principal.as_str(),
            host: host(context),
            operation,
            resource,
            name,
        });
        match verdict {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::Unmentioned => self.allow_if_no_acl && !acls.mentions(resource, name),
        }
    }

    fn authorize_by_resource_type(
        &self,
        acls: &AclIndex,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        // Kafka asks for a name that nobody has, too, which tells super users and what is
        // allowed for want of ACLs.
        self.authorize(acls, context, operation, resource, "hardcode")
            || acls.allows_some(
                context.principal.as_str(),
                host(context),
                operation,
                resource,
            )
    }

    fn has_acls(&self) -> bool {
        true
    }
}

/// An IPv4 client of an IPv6 socket counts by its own address, as in Java.
fn host(context: &RequestContext) -> IpAddr {
    context.client_address.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::super::{PERMISSION_ALLOW, PERMISSION_DENY, Principal};
    use super::*;
    use crate::wire::messages::AccessControlEntryRecord;

    fn context(name: &str, address: &str) -> RequestContext {
        RequestContext {
            principal: Principal::user(name),
            client_address: address.parse().unwrap(),
            ..RequestContext::internal()
        }
    }

    fn acls(permissions: &[(&str, &str, i8)]) -> AclIndex {
        let mut index = AclIndex::default();
        for (principal, host, permission_type) in permissions {
            index.insert(&AccessControlEntryRecord {
                resource_type: ResourceType::Topic as i8,
                resource_name: "t".to_owned(),
                pattern_type: super::super::PATTERN_LITERAL,
                principal: (*principal).to_owned(),
                host: (*host).to_owned(),
                operation: Operation::Read as i8,
                permission_type: *permission_type,
                ..Default::default()
            });
        }
        index
    }

    #[test]
    fn super_users_may_do_what_is_denied() {
        let acls = acls(&[("User:*", "*", PERMISSION_DENY)]);
        let authorizer = StandardAuthorizer::new(["User:root".to_owned()], true);
        let may = |context: &RequestContext| {
            authorizer.authorize(&acls, context, Operation::Read, ResourceType::Topic, "t")
        };
        assert!(may(&context("root", "10.0.0.1:5")));
        assert!(!may(&context("alice", "10.0.0.1:5")));
        assert!(may(&RequestContext::internal()));
    }

    #[test]
    fn without_any_acl_the_setting_decides() {
        let acls = acls(&[("User:bob", "*", PERMISSION_ALLOW)]);
        for setting in [false, true] {
            let authorizer = StandardAuthorizer::new([], setting);
            let may = |name: &str| {
                let context = context("alice", "10.0.0.1:5");
                let (read, topic) = (Operation::Read, ResourceType::Topic);
                authorizer.authorize(&acls, &context, read, topic, name)
            };
            assert_eq!(may("other"), setting);
            // There is an ACL on it, though for somebody else.
            assert!(!may("t"));
        }
    }

    #[test]
    fn hosts_are_clients_addresses() {
        let acls = acls(&[
            ("User:*", "10.0.0.1", PERMISSION_ALLOW),
            ("User:eve", "10.0.0.1", PERMISSION_DENY),
        ]);
        let authorizer = StandardAuthorizer::default();
        let may = |name: &str, address: &str| {
            let context = context(name, address);
            let (read, topic) = (Operation::Read, ResourceType::Topic);
            authorizer.authorize(&acls, &context, read, topic, "t")
        };
        assert!(may("alice", "10.0.0.1:9"));
        assert!(may("alice", "[::ffff:10.0.0.1]:9"));
        assert!(!may("alice", "10.0.0.2:9"));
        assert!(!may("eve", "10.0.0.1:9"));
    }
}
