//! The active controller, wherever it is: operations and requests for the quorum's leader go
//! to this node's own controller while it leads, and over the network while another does.
//!
//! Called on the controller's core for what its own broker and clients of its listeners ask.
//!
//! Its connections are not the quorum's: an operation is answered when it is committed, which
//! takes fetches that would wait behind it.
//!
//! Invariant: what comes by the controllers' listener is never passed on: two nodes that
//! believe each other to lead would pass it to and fro.

use std::rc::Rc;
use std::time::Duration;

use super::controller::ControllerHandle;
use super::links::{Address, Links};
use super::peers;
use crate::base::{BrokerId, ErrorCode};
use crate::controller::{ApiError, ControllerRequest, ControllerResponse};
use crate::io::Rt;
use crate::raft::quorum::{Request, Response};
use crate::wire::api_key::ApiKey;

/// How long an operation may take; longer than it takes to find out that a leader is gone.
const ANSWER_TIME: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct ActiveController {
    me: BrokerId,
    handle: ControllerHandle,
    links: Rc<Links>,
}

impl ActiveController {
    pub fn new(rt: &Rt, me: BrokerId, handle: ControllerHandle) -> ActiveController {
        ActiveController {
            me,
            handle,
            links: Rc::new(Links::new(rt.clone(), ANSWER_TIME)),
        }
    }

    pub fn is_here(&self) -> bool {
        self.handle.leader().id == Some(self.me)
    }

    /// Where the leader is reached, if it is another node.
    fn elsewhere(&self) -> Option<Address> {
        let leader = self.handle.leader();
        let is_other = leader.id.is_some_and(|id| id != self.me);
        let endpoint = leader.endpoint.filter(|_| is_other)?;
        Some((endpoint.host, endpoint.port))
    }

    /// The answer to an operation.
    pub async fn call(&self, request: ControllerRequest) -> ControllerResponse {
        let Some(address) = self.elsewhere() else {
            return self.handle.call(request).await;
        };
        let answer = call(&self.links, &address, &request).await;
        answer.unwrap_or_else(|| {
            request.error_response(&ApiError::general(ErrorCode::NOT_CONTROLLER))
        })
    }

    /// The leader's answer to a request for the quorum.
    pub async fn ask(&self, api_version: i16, request: Request) -> Option<Response> {
        match self.elsewhere() {
            Some(address) => peers::ask(&self.links, &address, &request).await,
            None => self.handle.ask(api_version, request).await,
        }
    }
}

macro_rules! call_by {
    ($links:expr, $to:expr, $request:expr, $($variant:ident as $api:ident,)*) => {
        match $request {
            $(ControllerRequest::$variant { ctx, request } => {
                let api = ApiKey::$api;
                // A client's answer is written in the version of its request.
                let version = match ctx.api_key == api as i16 {
                    true => ctx.api_version,
                    false => *api.info().stable_versions().end(),
                };
                let asked = $links.ask($to, api, version, request);
                asked.await.map(ControllerResponse::$variant)
            })*
        }
    };
}

async fn call(
    links: &Links,
    to: &Address,
    request: &ControllerRequest,
) -> Option<ControllerResponse> {
    call_by!(
        links,
        to,
        request,
        CreateTopics as CreateTopics,
        DeleteTopics as DeleteTopics,
        CreatePartitions as CreatePartitions,
        AlterConfigs as AlterConfigs,
        IncrementalAlterConfigs as IncrementalAlterConfigs,
        AllocateProducerIds as AllocateProducerIds,
        RegisterBroker as BrokerRegistration,
        BrokerHeartbeat as BrokerHeartbeat,
        RegisterController as ControllerRegistration,
        AssignReplicasToDirs as AssignReplicasToDirs,
        CreateAcls as CreateAcls,
        DeleteAcls as DeleteAcls,
        UnregisterBroker as UnregisterBroker,
        AlterPartition as AlterPartition,
        ElectLeaders as ElectLeaders,
        AlterPartitionReassignments as AlterPartitionReassignments,
        ListPartitionReassignments as ListPartitionReassignments,
    )
}
