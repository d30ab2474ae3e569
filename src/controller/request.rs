//! What other cores ask of the controller. Requests and responses cross the mesh as the
//! generated messages, with the context of the request that a client sent; the context's
//! `api_version` is the version that the answer will be written in.

use super::api_error::ApiError;
use crate::security::{Operation, RequestContext};
use crate::wire::messages::*;

macro_rules! controller_requests {
    ($($variant:ident: $request:ident => $response:ident,)*) => {
        /// An operation that the controller decides on, or a question to it.
        #[derive(Clone, Debug)]
        pub enum ControllerRequest {
            $($variant {
                ctx: RequestContext,
                request: $request,
            },)*
        }

        /// The answer, of the same name as the request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ControllerResponse {
            $($variant($response),)*
        }

        impl ControllerRequest {
            pub fn context(&self) -> &RequestContext {
                match self {
                    $(ControllerRequest::$variant { ctx, .. } => ctx,)*
                }
            }

            /// The name of the operation, for logs.
            pub fn name(&self) -> &'static str {
                match self {
                    $(ControllerRequest::$variant { .. } => stringify!($variant),)*
                }
            }
        }

        $(impl From<$response> for ControllerResponse {
            fn from(response: $response) -> Self {
                ControllerResponse::$variant(response)
            }
        })*
    };
}

controller_requests! {
    CreateTopics: CreateTopicsRequest => CreateTopicsResponse,
    DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse,
    CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse,
    AlterConfigs: AlterConfigsRequest => AlterConfigsResponse,
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse,
    CreateAcls: CreateAclsRequest => CreateAclsResponse,
    DeleteAcls: DeleteAclsRequest => DeleteAclsResponse,
    AllocateProducerIds: AllocateProducerIdsRequest => AllocateProducerIdsResponse,
    RegisterBroker: BrokerRegistrationRequest => BrokerRegistrationResponse,
    BrokerHeartbeat: BrokerHeartbeatRequest => BrokerHeartbeatResponse,
    RegisterController: ControllerRegistrationRequest => ControllerRegistrationResponse,
    AssignReplicasToDirs: AssignReplicasToDirsRequest => AssignReplicasToDirsResponse,
    UnregisterBroker: UnregisterBrokerRequest => UnregisterBrokerResponse,
    AlterPartition: AlterPartitionRequest => AlterPartitionResponse,
    ElectLeaders: ElectLeadersRequest => ElectLeadersResponse,
    AlterPartitionReassignments:
        AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse,
    ListPartitionReassignments:
        ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse,
}

impl ControllerRequest {
    /// What its client has to be allowed to do to the cluster (`ControllerApis`); none
    /// where the decision itself authorises.
    pub fn cluster_operation(&self) -> Option<Operation> {
        match self {
            Self::AllocateProducerIds { .. }
            | Self::RegisterBroker { .. }
            | Self::BrokerHeartbeat { .. }
            | Self::RegisterController { .. }
            | Self::AssignReplicasToDirs { .. } => Some(Operation::ClusterAction),
            Self::AlterPartition { .. } => Some(Operation::ClusterAction),
            Self::CreateAcls { .. }
            | Self::DeleteAcls { .. }
            | Self::UnregisterBroker { .. }
            | Self::ElectLeaders { .. }
            | Self::AlterPartitionReassignments { .. } => Some(Operation::Alter),
            Self::ListPartitionReassignments { .. } => Some(Operation::Describe),
            Self::CreateTopics { .. }
            | Self::DeleteTopics { .. }
            | Self::CreatePartitions { .. }
            | Self::AlterConfigs { .. }
            | Self::IncrementalAlterConfigs { .. } => None,
        }
    }

    /// The answer when the whole operation fails: every item carries the error.
    pub fn error_response(&self, error: &ApiError) -> ControllerResponse {
        let code = error.code.0;
        let message = || error.message.clone();
        match self {
            Self::CreateTopics { request, .. } => CreateTopicsResponse {
                topics: request
                    .topics
                    .iter()
                    .map(|topic| create_topics_response::CreatableTopicResult {
                        name: topic.name.clone(),
                        error_code: code,
                        error_message: message(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }
            .into(),
            Self::DeleteTopics { request, .. } => {
                let named = request.topic_names.iter();
                let named = named.map(|name| (Some(name.clone()), Default::default()));
                let states = request.topics.iter().map(|t| (t.name.clone(), t.topic_id));
                DeleteTopicsResponse {
                    responses: named
                        .chain(states)
                        .map(
                            |(name, topic_id)| delete_topics_response::DeletableTopicResult {
                                name,
                                topic_id,
                                error_code: code,
                                ..Default::default()
                            },
                        )
                        .collect(),
                    ..Default::default()
                }
                .into()
            }
            Self::CreatePartitions { request, .. } => CreatePartitionsResponse {
                results: request
                    .topics
                    .iter()
                    .map(
                        |topic| create_partitions_response::CreatePartitionsTopicResult {
                            name: topic.name.clone(),
                            error_code: code,
                            error_message: message(),
                        },
                    )
                    .collect(),
                ..Default::default()
            }
            .into(),
            Self::AlterConfigs { request, .. } => AlterConfigsResponse {
                responses: request
                    .resources
                    .iter()
                    .map(|r| alter_configs_response::AlterConfigsResourceResponse {
                        error_code: code,
                        error_message: message(),
                        resource_type: r.resource_type,
                        resource_name: r.resource_name.clone(),
                    })
                    .collect(),
                ..Default::default()
            }
            .into(),
            Self::IncrementalAlterConfigs { request, .. } => IncrementalAlterConfigsResponse {
                responses: request
                    .resources
                    .iter()
                    .map(
                        |r| incremental_alter_configs_response::AlterConfigsResourceResponse {
                            error_code: code,
                            error_message: message(),
                            resource_type: r.resource_type,
                            resource_name: r.resource_name.clone(),
                        },
                    )
                    .collect(),
                ..Default::default()
            }
            .into(),
            Self::CreateAcls { request, .. } => {
                let result = create_acls_response::AclCreationResult {
                    error_code: code,
                    error_message: message(),
                };
                CreateAclsResponse {
                    results: vec![result; request.creations.len()],
                    ..Default::default()
                }
                .into()
            }
            Self::DeleteAcls { request, .. } => {
                let result = delete_acls_response::DeleteAclsFilterResult {
                    error_code: code,
                    error_message: message(),
                    ..Default::default()
                };
                DeleteAclsResponse {
                    filter_results: vec![result; request.filters.len()],
                    ..Default::default()
                }
                .into()
            }
            Self::AllocateProducerIds { .. } => AllocateProducerIdsResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::RegisterBroker { .. } => BrokerRegistrationResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::BrokerHeartbeat { .. } => BrokerHeartbeatResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::AssignReplicasToDirs { .. } => AssignReplicasToDirsResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::RegisterController { .. } => ControllerRegistrationResponse {
                error_code: code,
                error_message: message(),
                ..Default::default()
            }
            .into(),
            Self::UnregisterBroker { .. } => UnregisterBrokerResponse {
                error_code: code,
                error_message: message(),
                ..Default::default()
            }
            .into(),
            Self::AlterPartition { .. } => AlterPartitionResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::ElectLeaders { .. } => ElectLeadersResponse {
                error_code: code,
                ..Default::default()
            }
            .into(),
            Self::AlterPartitionReassignments { request, .. } => {
                AlterPartitionReassignmentsResponse {
                    allow_replication_factor_change: request.allow_replication_factor_change,
                    error_code: code,
                    error_message: message(),
                    ..Default::default()
                }
                .into()
            }
            Self::ListPartitionReassignments { .. } => ListPartitionReassignmentsResponse {
                error_code: code,
                error_message: message(),
                ..Default::default()
            }
            .into(),
        }
    }
}
