//! UnregisterBroker (`ReplicationControlManager.unregisterBroker`): an operator takes a
//! broker out of the cluster. Its id stays in replica lists until they are reassigned.

use super::api_error::ApiError;
use super::leader_election::Cause;
use super::{Controller, Outcome};
use crate::base::{BrokerId, ErrorCode};
use crate::wire::messages::{
    UnregisterBrokerRecord, UnregisterBrokerRequest, UnregisterBrokerResponse,
};

impl Controller {
    pub(super) fn decide_unregister_broker(
        &self,
        request: &UnregisterBrokerRequest,
    ) -> Outcome<UnregisterBrokerResponse> {
        let id = BrokerId(request.broker_id);
        let broker = self.image.cluster.broker(id).ok_or_else(|| {
            ApiError::new(
                ErrorCode::BROKER_ID_NOT_REGISTERED,
                format!("Broker ID {id} is not currently registered"),
            )
        })?;
        let mut records = Vec::new();
        self.update_leaders(Cause::Removed(id), &mut records);
        let record = UnregisterBrokerRecord {
            broker_id: id.0,
            broker_epoch: broker.epoch,
        };
        records.push(record.into());
        Ok((records, UnregisterBrokerResponse::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::security::RequestContext;

    fn unregister(bench: &mut Bench, broker_id: i32) -> (i16, String) {
        let request = UnregisterBrokerRequest { broker_id };
        let ctx = RequestContext::internal();
        match bench.run(ControllerRequest::UnregisterBroker { ctx, request }) {
            ControllerResponse::UnregisterBroker(r) => (r.error_code, r.error_message.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_broker_goes_and_its_replicas_stay_listed() {
        let mut bench = Bench::with_brokers(2);
        bench.create_topic_on("t", &[1, 2]);
        assert_eq!(unregister(&mut bench, 1), (0, String::new()));
        let partition = bench.partition("t", 0);
        assert_eq!(partition.replicas, [BrokerId(1), BrokerId(2)]);
        assert_eq!(
            (partition.leader, &partition.isr[..]),
            (BrokerId(2), &[BrokerId(2)][..])
        );
        assert!(
            bench
                .controller
                .image()
                .cluster
                .broker(BrokerId(1))
                .is_none()
        );
        let (code, text) = unregister(&mut bench, 1);
        assert_eq!(code, ErrorCode::BROKER_ID_NOT_REGISTERED.0);
        assert_eq!(text, "Broker ID 1 is not currently registered");
        // The id is free at once.
        assert_eq!(bench.register(1, 9), 0);
    }
}
