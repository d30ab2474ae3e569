//! Operations, resource types, and the question whether a principal may.

use std::sync::Arc;

use super::{AclIndex, RequestContext};

/// What is done to a resource (`AclOperation`, by its wire code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum Operation {
    Unknown = 0,
    Any = 1,
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    CreateTokens = 13,
    DescribeTokens = 14,
    TwoPhaseCommit = 15,
}

/// What it is done to (`ResourceType`, by its wire code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ResourceType {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
    DelegationToken = 6,
    User = 7,
}

/// The only resource of type cluster.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// In a response's field of authorized operations: the request didn't ask.
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// Decides whether a request's principal may do something, by its own settings and the
/// cluster's ACLs.
pub trait Authorizer: Send + Sync {
    fn authorize(
        &self,
        acls: &AclIndex,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool;

    /// Whether there is some resource of a type, existing or not, to which the principal
    /// may do that.
    fn authorize_by_resource_type(
        &self,
        acls: &AclIndex,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
    ) -> bool;

    /// Whether it goes by ACLs; else clients can't have any.
    fn has_acls(&self) -> bool;
}

/// As a cluster without `authorizer.class.name`: everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(
        &self,
        _: &AclIndex,
        _: &RequestContext,
        _: Operation,
        _: ResourceType,
        _: &str,
    ) -> bool {
        true
    }

    fn authorize_by_resource_type(
        &self,
        _: &AclIndex,
        _: &RequestContext,
        _: Operation,
        _: ResourceType,
    ) -> bool {
        true
    }

    fn has_acls(&self) -> bool {
        false
    }
}

/// An authorizer together with the ACLs that it goes by now.
#[derive(Clone)]
pub struct CurrentAuthorizer {
    authorizer: Arc<dyn Authorizer>,
    acls: AclIndex,
}

impl CurrentAuthorizer {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> CurrentAuthorizer {
        CurrentAuthorizer {
            authorizer,
            acls: AclIndex::default(),
        }
    }

    /// Takes over the ACLs of a newer image.
    pub fn set_acls(&mut self, acls: &AclIndex) {
        self.acls = acls.clone();
    }

    pub fn authorize(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        let authorizer = &self.authorizer;
        authorizer.authorize(&self.acls, context, operation, resource, name)
    }

    pub fn has_acls(&self) -> bool {
        self.authorizer.has_acls()
    }
}

impl ResourceType {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// For tables: 0 to [`ResourceType::COUNT`].
    pub(super) fn index(self) -> usize {
        self as usize - ResourceType::Topic as usize
    }

    pub fn from_code(code: i8) -> Option<ResourceType> {
        use ResourceType::*;
        let all = [
            Topic,
            Group,
            Cluster,
            TransactionalId,
            DelegationToken,
            User,
        ];
        all.into_iter().find(|resource| *resource as i8 == code)
    }

    /// Operations that apply to resources of this type (`AclEntry.supportedOperations`).
    pub fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            ResourceType::Topic => &[
                Read,
                Write,
                Create,
                Describe,
                Delete,
                Alter,
                DescribeConfigs,
                AlterConfigs,
            ],
            ResourceType::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            ResourceType::Cluster => &[
                Create,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
                Alter,
                Describe,
            ],
            ResourceType::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            ResourceType::DelegationToken => &[Describe],
            ResourceType::User => &[CreateTokens, DescribeTokens],
        }
    }
}

/// The operations that the principal may do to a resource, one bit per wire code.
pub fn authorized_operations(
    authorizer: &dyn Authorizer,
    acls: &AclIndex,
    context: &RequestContext,
    resource: ResourceType,
    name: &str,
) -> i32 {
    resource
        .operations()
        .iter()
        .filter(|operation| authorizer.authorize(acls, context, **operation, resource, name))
        .fold(0, |bits, operation| bits | 1 << (*operation as i8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that Kafka 4.3.1 answers with when everything is allowed.
    #[test]
    fn bits_are_kafkas() {
        let bits = |resource| {
            let (acls, context) = (AclIndex::default(), RequestContext::internal());
            authorized_operations(&AllowAll, &acls, &context, resource, "x")
        };
        assert_eq!(bits(ResourceType::Topic), 0b1101_1111_1000);
        assert_eq!(bits(ResourceType::Cluster), 0b1_1111_1010_0000);
        assert_eq!(bits(ResourceType::Group), 0b1101_0100_1000);
    }
}
