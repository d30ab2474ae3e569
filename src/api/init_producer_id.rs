//! InitProducerId: an id for an idempotent producer (KIP-98). Each core hands out ids of
//! its own block; the controller gives the blocks.

use std::rc::Rc;

use crate::base::ErrorCode;
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::shard::Shard;
use crate::wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Some(transactional_id) = &request.transactional_id {
        let allowed = shard.authorize(
            &context,
            Operation::Write,
            ResourceType::TransactionalId,
            transactional_id,
        );
        return failed(if allowed {
            // No transaction coordinator lives here yet.
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        });
    }
    let allowed = shard.authorize(
        &context,
        Operation::IdempotentWrite,
        ResourceType::Cluster,
        CLUSTER_NAME,
    ) || shard.authorize_any_topic(&context, Operation::Write);
    if !allowed {
        return failed(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        // Both or none.
        return failed(ErrorCode::INVALID_REQUEST);
    }
    match shard.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id: producer_id.0,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(error) => failed(error),
    }
}

fn failed(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.0,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}
