//! Loading: the log is read from its start and replayed, a little at a time.

use tracing::{debug, error, info};

use super::{CoordinatorState, Inner};
use crate::base::{ErrorCode, Offset};
use crate::coordinator::batch::{ReadError, read_batch};
use crate::record::{BatchError, Batches};

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the log can't be read: {0}")]
    Log(ErrorCode),
    #[error("at offset {at}: {source}")]
    Batch { at: Offset, source: BatchError },
    #[error(transparent)]
    Record(#[from] ReadError),
}

impl Inner {
    /// Replays the whole log and becomes active, or failed. A coordinator that was unloaded
    /// meanwhile stays closed.
    pub(super) async fn load(&self) {
        let started = self.rt.now();
        let loaded = self.replay_log().await;
        let now = self.now();
        let mut core = self.core.borrow_mut();
        if core.state != CoordinatorState::Loading {
            return;
        }
        match loaded {
            Ok(bytes) => {
                core.activate(now);
                let elapsed_ms = now.mono.saturating_since(started).as_millis();
                let partition = self.partition.0;
                // Fifty empty ones would bury what a person looks for at start.
                if bytes > 0 {
                    info!(partition, bytes, elapsed_ms, "group coordinator loaded");
                } else {
                    debug!(partition, "empty group coordinator loaded");
                }
            }
            Err(error) => {
                error!(partition = self.partition.0, %error, "group coordinator could not be loaded");
                core.close(now, CoordinatorState::Failed);
            }
        }
    }

    async fn replay_log(&self) -> Result<usize, LoadError> {
        let mut at = self.log.log_start_offset();
        let mut bytes_read = 0;
        while at < self.log.log_end_offset() {
            let bytes = self
                .log
                .read(at, self.config.load_buffer_bytes)
                .await
                .map_err(LoadError::Log)?;
            if bytes.is_empty() {
                // A compacted log may end in nothing.
                break;
            }
            bytes_read += bytes.len();
            let from = at;
            let budget = self.rt.budget();
            for batch in Batches::new(&bytes) {
                let batch = batch.map_err(|source| LoadError::Batch { at, source })?;
                if batch.next_offset() <= at {
                    continue;
                }
                {
                    let mut core = self.core.borrow_mut();
                    if core.state != CoordinatorState::Loading {
                        return Ok(bytes_read);
                    }
                    let now_ms = self.rt.wall_ms();
                    core.shard.set_committed(self.log.committed());
                    read_batch(&batch, |entry| core.shard.replay(now_ms, entry))?;
                }
                at = batch.next_offset();
                budget.breathe().await;
            }
            if at == from {
                break;
            }
        }
        Ok(bytes_read)
    }
}
