//! Layer 3: the seam between Ottla and the machine. One [`Rt`] per core gives tasks, time,
//! sleeps, TCP and files; nothing above this module knows how they are done.
//!
//! ```text
//! core       a core's thread, its loop, its end
//! executor   tasks in weighted queues, with an exact count of what is runnable
//! driver     the core's io_uring: operations, receive buffers, parking, doorbell
//! net        listeners and streams over the driver
//! timers     sleeps on a timing wheel
//! local      oneshot, notify, mpsc and deadlines among the tasks of a core
//! disk       files, synchronous
//! budget     how long a loop may hold the core
//! cold       file reads that don't wait for the disk
//! blocked    file calls that held the core for too long
//! stamps     a cheap clock for the stages of requests
//! sentinel   a thread that tells of silent cores and rings them
//! topology   the machine's CPUs as this process may use them
//! memlock    how much memory cores lock, and how much they may
//! probe      what io_uring grants this process
//! pipes      what file ranges pass through: bounded pools of pipes and buffers
//! seam       what a simulated core does instead
//! ```
//! Everything here belongs to one core and stays on its thread, except `Stopper`,
//! `DetachedStream` and `File`s.

mod blocked;
mod budget;
pub mod chunk;
mod cold;
mod config;
mod core;
pub mod disk;
mod driver;
mod executor;
pub mod local;
mod memlock;
mod net;
mod pipes;
pub mod probe;
mod rt;
pub(crate) mod seam;
mod send_queue;
mod sentinel;
mod spin;
mod stamps;
mod timers;
pub mod topology;

pub use self::core::{CoreHandle, run_core};
pub use crate::config::FetchPath;
pub use blocked::{BlockedCalls, Operation};
pub use budget::Budget;
pub use chunk::Chunk;
pub use config::{Backend, CoreConfig, StartError};
pub use disk::{Disk, File, OpenMode, RealDisk};
pub use driver::DriverStats;
pub use executor::{Queue, SlowPolls};
pub use memlock::{Memlock, check_memlock};
pub use net::{DetachedStream, ListenOptions, Listener, PathStats, SendStats, Stream};
pub use pipes::PoolStats;
pub use rt::{IoStats, Rt, Stopper};
pub use send_queue::SendQueue;
pub use timers::Sleep;

pub(crate) use driver::{Bell, Inbox};
pub(crate) use executor::{Executor, Host, RunQueues};
pub(crate) use rt::Poller;
