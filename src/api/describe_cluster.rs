//! DescribeCluster: the brokers (KIP-700), on request with the fenced ones (KIP-1073).

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::endpoint;
use crate::base::ErrorCode;
use crate::security::{
    CLUSTER_NAME, OPERATIONS_NOT_ASKED, Operation, RequestContext, ResourceType,
};
use crate::shard::Shard;
use crate::wire::messages::DescribeClusterRequest;
use crate::wire::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};

/// `EndpointType` of KIP-919: what a listener knows.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let operations = if request.include_cluster_authorized_operations {
        shard.cluster_operations(&context)
    } else {
        OPERATIONS_NOT_ASKED
    };
    let known = if shard.is_controller_listener(&context.listener) {
        CONTROLLERS
    } else {
        BROKERS
    };
    // Brokers tell everybody where they are, controllers only administrators.
    let (alter, cluster) = (Operation::Alter, ResourceType::Cluster);
    if known == CONTROLLERS && !shard.authorize(&context, alter, cluster, CLUSTER_NAME) {
        return DescribeClusterResponse {
            error_code: ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0,
            error_message: Some("Cluster authorization failed.".to_owned()),
            ..Default::default()
        };
    }
    if request.endpoint_type != known {
        let name = |kind| {
            if kind == BROKERS {
                "BROKER"
            } else {
                "CONTROLLER"
            }
        };
        let (error, message) = if matches!(request.endpoint_type, BROKERS | CONTROLLERS) {
            let (here, wanted) = (name(known), name(request.endpoint_type));
            let text = format!(
                "The request was sent to an endpoint of type {here}, but we wanted an endpoint \
                 of type {wanted}"
            );
            (ErrorCode::MISMATCHED_ENDPOINT_TYPE, text)
        } else {
            let text = format!("Unsupported endpoint type {}", request.endpoint_type);
            (ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, text)
        };
        return DescribeClusterResponse {
            error_code: error.0,
            error_message: Some(message),
            endpoint_type: known,
            ..Default::default()
        };
    }
    let image = shard.image();
    let endpoints = if known == CONTROLLERS {
        endpoint::controllers(&image, &context.listener)
    } else {
        image
            .cluster
            .brokers
            .values()
            .filter(|broker| request.include_fenced_brokers || !broker.fenced)
            .filter_map(|broker| endpoint::of(broker, &context.listener))
            .collect()
    };
    let brokers = endpoints
        .into_iter()
        .map(|broker| DescribeClusterBroker {
            broker_id: broker.id.0,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            is_fenced: broker.fenced,
        })
        .collect();
    DescribeClusterResponse {
        endpoint_type: known,
        cluster_id: shard.node().cluster_id.to_string(),
        // Brokers don't tell who it is, but send what is for it to where it is.
        controller_id: match known {
            CONTROLLERS => shard.node().quorum_leader.load(Ordering::Relaxed),
            _ => shard.node().id.0,
        },
        brokers,
        cluster_authorized_operations: operations,
        ..Default::default()
    }
}
