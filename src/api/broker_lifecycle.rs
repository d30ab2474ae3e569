//! What brokers and controllers ask of the active controller, on the controllers' listener:
//! registrations, heartbeats, blocks of producer ids, directories of replicas.

use std::rc::Rc;

use super::controller_down;
use crate::base::ErrorCode;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::*;

macro_rules! controller_api {
    ($name:ident, $variant:ident, $request:ident => $response:ident) => {
        pub async fn $name(
            shard: Rc<Shard>,
            context: RequestContext,
            request: $request,
        ) -> $response {
            let refused = |error: ErrorCode| $response {
                error_code: error.0,
                ..Default::default()
            };
            let is_allowed = shard.authorize(
                &context,
                Operation::ClusterAction,
                ResourceType::Cluster,
                CLUSTER_NAME,
            );
            if !is_allowed {
                return refused(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
            }
            let call = ControllerRequest::$variant {
                ctx: context,
                request,
            };
            match shard.controller(call).await {
                Some(ControllerResponse::$variant(response)) => response,
                other => refused(controller_down(&other)),
            }
        }
    };
}

controller_api!(register, RegisterBroker, BrokerRegistrationRequest => BrokerRegistrationResponse);
controller_api!(alter_partition, AlterPartition, AlterPartitionRequest => AlterPartitionResponse);
controller_api!(heartbeat, BrokerHeartbeat, BrokerHeartbeatRequest => BrokerHeartbeatResponse);
controller_api!(
    allocate_producer_ids, AllocateProducerIds,
    AllocateProducerIdsRequest => AllocateProducerIdsResponse
);
controller_api!(
    register_controller, RegisterController,
    ControllerRegistrationRequest => ControllerRegistrationResponse
);
controller_api!(
    assign_replicas_to_dirs, AssignReplicasToDirs,
    AssignReplicasToDirsRequest => AssignReplicasToDirsResponse
);
