//! Tells how far the opening of this core's logs is, when recovery takes long: every few
//! seconds the logs and bytes done and left, and the rate.
//!
//! Called by `shard::replicas` around opening the logs of an image.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use crate::io::Queue;
use crate::io::local::{self, Either, Notify};
use crate::log::Progress;

const TELL_INTERVAL: Duration = Duration::from_secs(3);

/// The opening that is under way on a core, or was.
#[derive(Default)]
pub struct Opening {
    pub progress: Progress,
    opened: Cell<usize>,
    total: Cell<usize>,
    /// Of the opening that is under way; none at 0.
    number: Cell<u64>,
    begun: Cell<u64>,
    over: Notify,
}

impl Opening {
    /// So many logs are to be opened; until [`Opening::end`] it is told how far that is.
    pub fn begin(shard: &Rc<Shard>, total: usize) {
        let opening = &shard.opening;
        opening.opened.set(0);
        opening.total.set(total);
        opening.begun.set(opening.begun.get() + 1);
        let number = opening.begun.get();
        opening.number.set(number);
        let shard = shard.clone();
        shard.rt().clone().spawn(Queue::Background, async move {
            let rt = shard.rt();
            let (begun, mut read_before) = (rt.now(), shard.opening.progress.read_bytes());
            loop {
                let over = shard.opening.over.notified();
                let woken = local::either(over, rt.sleep(TELL_INTERVAL)).await;
                if shard.opening.number.get() != number {
                    return;
                }
                if let Either::First(()) = woken {
                    continue;
                }
                let progress = &shard.opening.progress;
                let read_bytes = progress.read_bytes();
                tracing::info!(
                    core = %shard.core(),
                    logs = shard.opening.opened.get(),
                    logs_total = shard.opening.total.get(),
                    bytes_left_in_log = progress.left_bytes(),
                    bytes_per_second = (read_bytes - read_before) / TELL_INTERVAL.as_secs(),
                    elapsed_s = (rt.now() - begun).as_secs(),
                    "opening and recovering logs"
                );
                read_before = read_bytes;
            }
        });
    }

    pub fn on_opened(&self) {
        self.opened.set(self.opened.get() + 1);
    }

    pub fn end(&self) {
        self.number.set(0);
        self.over.notify_all();
    }
}
