//! Requests of the metadata quorum's replicas and administrators: each goes to the state
//! machine on the controller's core, which answers.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::raft::quorum::{Request, Response};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::shard::messages::QuorumCall;
use crate::wire::messages::*;

/// An API of the quorum: who may use it, and whether it is for the leader.
macro_rules! quorum_api {
    ($name:ident, $variant:ident, $request:ident => $response:ident, $operation:ident, $for_leader:expr) => {
        pub async fn $name(
            shard: Rc<Shard>,
            context: RequestContext,
            request: $request,
        ) -> $response {
            let is_allowed = shard.authorize(
                &context,
                Operation::$operation,
                ResourceType::Cluster,
                CLUSTER_NAME,
            );
            if !is_allowed {
                return $response {
                    error_code: ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0,
                    ..Default::default()
                };
            }
            let call = QuorumCall {
                api_version: context.api_version,
                request: Request::$variant(request),
                for_leader: $for_leader && !shard.is_controller_listener(&context.listener),
            };
            match shard.quorum(call).await {
                Some(Response::$variant(response)) => response,
                _ => $response {
                    error_code: ErrorCode::BROKER_NOT_AVAILABLE.0,
                    ..Default::default()
                },
            }
        }
    };
}

quorum_api!(vote, Vote, VoteRequest => VoteResponse, ClusterAction, false);
quorum_api!(
    begin_epoch, BeginQuorumEpoch,
    BeginQuorumEpochRequest => BeginQuorumEpochResponse, ClusterAction, false
);
quorum_api!(
    end_epoch, EndQuorumEpoch,
    EndQuorumEpochRequest => EndQuorumEpochResponse, ClusterAction, false
);
quorum_api!(fetch, Fetch, FetchRequest => FetchResponse, ClusterAction, false);
quorum_api!(
    fetch_snapshot, FetchSnapshot,
    FetchSnapshotRequest => FetchSnapshotResponse, ClusterAction, false
);
quorum_api!(
    describe, DescribeQuorum,
    DescribeQuorumRequest => DescribeQuorumResponse, Describe, true
);
quorum_api!(
    add_voter, AddRaftVoter,
    AddRaftVoterRequest => AddRaftVoterResponse, Alter, true
);
quorum_api!(
    remove_voter, RemoveRaftVoter,
    RemoveRaftVoterRequest => RemoveRaftVoterResponse, Alter, true
);
quorum_api!(
    update_voter, UpdateRaftVoter,
    UpdateRaftVoterRequest => UpdateRaftVoterResponse, ClusterAction, false
);
