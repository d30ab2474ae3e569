//! DescribeAcls: the ACLs that a filter matches, by resource. Answered from this core's
//! image, in steps, so that many ACLs don't hold the core.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::security::{AclFilter, CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use crate::wire::messages::{AccessControlEntryRecord, DescribeAclsRequest, DescribeAclsResponse};

/// ACLs that are looked at before others get their turn.
const STEP: usize = 500;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let (describe, cluster) = (Operation::Describe, ResourceType::Cluster);
    if !shard.authorize(&context, describe, cluster, CLUSTER_NAME) {
        return failed(
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            "Cluster authorization failed.",
        );
    }
    if !shard.node().authorizer.has_acls() {
        return failed(
            ErrorCode::SECURITY_DISABLED,
            "No Authorizer is configured on the broker",
        );
    }
    let filter = AclFilter {
        resource_type: request.resource_type_filter,
        resource_name: request.resource_name_filter.as_deref(),
        pattern_type: request.pattern_type_filter,
        principal: request.principal_filter.as_deref(),
        host: request.host_filter.as_deref(),
        operation: request.operation,
        permission_type: request.permission_type,
    };
    if let Some(fault) = filter.fault() {
        // Kafka 4.3.1 closes the connection.
        return failed(ErrorCode::INVALID_REQUEST, fault);
    }
    let image = shard.image();
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for (seen, acl) in image.acls.bindings().enumerate() {
        if seen % STEP == STEP - 1 {
            shard.rt().yield_now().await;
        }
        if !filter.matches(acl) {
            continue;
        }
        // ACLs of one resource are neighbours.
        match resources.last_mut() {
            Some(last) if is_of(last, acl) => last.acls.push(description(acl)),
            _ => resources.push(DescribeAclsResource {
                resource_type: acl.resource_type,
                resource_name: acl.resource_name.clone(),
                pattern_type: acl.pattern_type,
                acls: vec![description(acl)],
            }),
        }
    }
    DescribeAclsResponse {
        resources,
        ..Default::default()
    }
}

fn is_of(resource: &DescribeAclsResource, acl: &AccessControlEntryRecord) -> bool {
    resource.resource_type == acl.resource_type
        && resource.pattern_type == acl.pattern_type
        && resource.resource_name == acl.resource_name
}

fn description(acl: &AccessControlEntryRecord) -> AclDescription {
    AclDescription {
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation,
        permission_type: acl.permission_type,
    }
}

fn failed(error: ErrorCode, message: &str) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: error.0,
        error_message: Some(message.to_owned()),
        ..Default::default()
    }
}
