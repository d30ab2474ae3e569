//! AllocateProducerIds (`ProducerIdControlManager`): brokers take ids in blocks.

use super::api_error::ApiError;
use super::{Controller, Outcome};
use crate::base::{BrokerId, ErrorCode};
use crate::wire::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ProducerIdsRecord,
};

/// Ids in a block.
pub const PRODUCER_ID_BLOCK: i32 = 1_000;

impl Controller {
    pub(super) fn decide_allocate_producer_ids(
        &self,
        request: &AllocateProducerIdsRequest,
    ) -> Outcome<AllocateProducerIdsResponse> {
        self.check_broker_epoch(BrokerId(request.broker_id), request.broker_epoch)?;
        let start = self.image.next_producer_id.max(0);
        let next = start
            .checked_add(i64::from(PRODUCER_ID_BLOCK))
            .ok_or_else(|| ApiError::silent(ErrorCode::UNKNOWN_SERVER_ERROR))?;
        let record = ProducerIdsRecord {
            broker_id: request.broker_id,
            broker_epoch: request.broker_epoch,
            next_producer_id: next,
        };
        let response = AllocateProducerIdsResponse {
            producer_id_start: start,
            producer_id_len: PRODUCER_ID_BLOCK,
            ..Default::default()
        };
        Ok((vec![record.into()], response))
    }

    /// Whether a broker speaks for its present registration.
    pub(super) fn check_broker_epoch(&self, id: BrokerId, epoch: i64) -> Result<(), ApiError> {
        let current = self.image.cluster.broker(id).map(|broker| broker.epoch);
        if current == Some(epoch) {
            return Ok(());
        }
        Err(ApiError::silent(ErrorCode::STALE_BROKER_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::security::RequestContext;

    fn allocate(bench: &mut Bench, broker_epoch: i64) -> (i16, i64, i32) {
        let ctx = RequestContext::internal();
        let request = AllocateProducerIdsRequest {
            broker_id: 1,
            broker_epoch,
        };
        match bench.run(ControllerRequest::AllocateProducerIds { ctx, request }) {
            ControllerResponse::AllocateProducerIds(r) => {
                (r.error_code, r.producer_id_start, r.producer_id_len)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_never_overlap() {
        let mut bench = Bench::with_brokers(1);
        let epoch = bench
            .controller
            .image()
            .cluster
            .broker(BrokerId(1))
            .unwrap()
            .epoch;
        assert_eq!(allocate(&mut bench, epoch), (0, 0, 1_000));
        assert_eq!(allocate(&mut bench, epoch), (0, 1_000, 1_000));
        assert_eq!(
            allocate(&mut bench, epoch + 1).0,
            ErrorCode::STALE_BROKER_EPOCH.0
        );
        assert_eq!(bench.controller.image().next_producer_id, 2_000);
    }
}
