//! The threads of a node: started first, put to work together, stopped in reverse.
//!
//! ```text
//! reserve   a loop on each core, with all that it locks; fewer where that runs out
//! start     now that their number is known: each gets its end of the mesh, and its main
//! stop      connections first, then the controller's core closes everything in order
//! ```
//! Called by `node::run`. How much memory other processes of the user have locked can't be
//! read, only tried: so the loops stand before anything depends on how many there are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::cores::Plan;
use super::lifecycle::{self, Life};
use super::{StartError, data_core, wire_up};
use crate::io::{self, CoreConfig, CoreHandle, Rt, Stopper, run_core};
use crate::shard::Node;

/// Between two looks of a core for its work. No other thread can wake a core's task, and
/// this goes on for as long as the other cores take to start.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Loops that wait for their work.
pub(super) struct Reserved {
    data: Vec<Waiting>,
    controller: Waiting,
}

/// Loops at work.
pub(super) struct Running {
    data: Vec<CoreHandle<()>>,
    controller: CoreHandle<()>,
}

struct Waiting {
    core: CoreHandle<()>,
    /// Dropped without work, it ends the core.
    give: SyncSender<Work>,
}

/// A core's main.
type Work = Box<dyn FnOnce(Rt) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Starts the loops of a plan. Where the lockable memory runs out before they all stand, the
/// plan shrinks to those that do.
pub(super) fn reserve(plan: &mut Plan) -> Result<Reserved, StartError> {
    let mut data = Vec::new();
    let mut ran_out = None;
    for config in plan.data_cores() {
        let core = config.core;
        match Waiting::start(config) {
            Ok(waiting) => data.push(waiting),
            Err(error @ io::StartError::MemlockUsedUp { .. }) if !data.is_empty() => {
                ran_out = Some(error);
                break;
            }
            // The process ends with this error, and the cores that run already with it.
            Err(error) => return Err(StartError::core(core, error)),
        }
    }
    let controller = loop {
        let config = plan.controller_core(data.len());
        let core = config.core;
        match Waiting::start(config) {
            Ok(waiting) => break waiting,
            Err(error @ io::StartError::MemlockUsedUp { .. }) if data.len() > 1 => {
                ran_out = Some(error);
                data.pop().expect("more than one").end();
            }
            Err(error) => return Err(StartError::core(core, error)),
        }
    };
    if let Some(error) = ran_out {
        let (count, wanted) = (data.len(), plan.places.len());
        tracing::warn!("{count} instead of {wanted} event loops: {error}");
        plan.places.truncate(count);
    }
    Ok(Reserved { data, controller })
}

impl Reserved {
    /// Puts every core to work.
    pub(super) fn start(self, node: &Arc<Node>, life: Life) -> Running {
        let mut seeds = wire_up(self.data.len());
        let seed = seeds.pop().expect("one seed for each core");
        let data = self.data.into_iter().zip(seeds).map(|(waiting, seed)| {
            let node = node.clone();
            waiting.work(Box::new(move |rt| Box::pin(data_core(rt, seed, node))))
        });
        let data = data.collect();
        let main: Work = Box::new(move |rt| Box::pin(lifecycle::run(rt, seed, life)));
        let controller = self.controller.work(main);
        Running { data, controller }
    }
}

impl Running {
    /// They ask the cores to stop, the data cores first.
    pub(super) fn stoppers(&self) -> Vec<Stopper> {
        let data = self.data.iter().map(CoreHandle::stopper);
        data.chain([self.controller.stopper()]).collect()
    }

    pub(super) fn stop(self) {
        for core in &self.data {
            core.stopper().stop();
        }
        self.controller.stopper().stop();
        self.controller.join();
        for core in self.data {
            core.join();
        }
    }
}

impl Waiting {
    fn start(config: CoreConfig) -> Result<Waiting, io::StartError> {
        let (give, take) = sync_channel(1);
        let core = run_core(config, move |rt| wait_for_work(rt, take))?;
        Ok(Waiting { core, give })
    }

    fn work(self, work: Work) -> CoreHandle<()> {
        let given = self.give.send(work);
        assert!(given.is_ok(), "a core waits for work until it has some");
        self.core
    }

    fn end(self) {
        drop(self.give);
        self.core.join();
    }
}

async fn wait_for_work(rt: Rt, take: Receiver<Work>) {
    loop {
        match take.try_recv() {
            Ok(work) => return work(rt).await,
            Err(TryRecvError::Empty) => rt.sleep(LOOK_INTERVAL).await,
            Err(TryRecvError::Disconnected) => return,
        }
    }
}
