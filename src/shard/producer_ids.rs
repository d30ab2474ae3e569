//! This core's block of producer ids. The controller hands out blocks of a thousand; no
//! two cores, and no two lives of a node, ever hand out the same id.

use std::cell::Cell;

use crate::base::{ErrorCode, ProducerId};
use crate::wire::messages::AllocateProducerIdsResponse;

#[derive(Default)]
pub struct Block {
    next: Cell<i64>,
    end: Cell<i64>,
}

impl Block {
    /// The next id; asks for a block when there is none left. While several requests ask
    /// at the same time, the later block wins and the other's ids are never used.
    pub async fn next(
        &self,
        allocate: impl AsyncFnOnce() -> Option<AllocateProducerIdsResponse>,
    ) -> Result<ProducerId, ErrorCode> {
        if self.next.get() == self.end.get() {
            // Clients try again after this one (RPCProducerIdManager).
            let response = allocate()
                .await
                .ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)?;
            if response.error_code != 0 {
                tracing::warn!(
                    error = %ErrorCode(response.error_code),
                    "the controller gave no producer ids"
                );
                return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            }
            self.next.set(response.producer_id_start);
            self.end
                .set(response.producer_id_start + i64::from(response.producer_id_len));
        }
        let id = self.next.get();
        if id >= self.end.get() {
            return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        }
        self.next.set(id + 1);
        Ok(ProducerId(id))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn blocks_follow_each_other() {
        let block = Block::default();
        let asked = Cell::new(0);
        let mut ids = Vec::new();
        for _ in 0..5 {
            let id = block_on(block.next(async || {
                asked.set(asked.get() + 1);
                Some(AllocateProducerIdsResponse {
                    producer_id_start: 1_000 * asked.get(),
                    producer_id_len: 2,
                    ..Default::default()
                })
            }));
            ids.push(id.unwrap().0);
        }
        assert_eq!(ids, [1_000, 1_001, 2_000, 2_001, 3_000]);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn without_a_controller_the_client_is_to_try_again() {
        let block = Block::default();
        assert_eq!(
            block_on(block.next(async || None)),
            Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
        );
    }
}
