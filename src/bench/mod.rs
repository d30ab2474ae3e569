//! Layer 5: `ottla bench`, latency that can be believed of any Kafka-compatible broker.
//! Called by `cli::bench`. Not a part of the broker: it shares nothing with one but the
//! wire format, and meets ours through a socket like any other.
//!
//! ```text
//! scenario ─┬─ load     a thread a connection: produces from a template on a schedule
//!           ├─ arrival  a thread a partition: fetches, and times what arrives
//!           └─ result   the JSON of a run, which report and compare read
//! floor::serve   not a broker: answers the generator, the ceiling that one is measured against
//! floor::kernel  what the kernel gives, in the same units
//! ```
//! A new scenario is a file that starts loads and arrivals of its own and returns an
//! [`result::Outcome`]. [`schedule`], [`template`] and [`record`] are pure.
//!
//! Invariants: in open loop every latency counts from the intended time; a run that kept
//! less than 99 % of its schedule, or that the generator limited, is invalid and says why;
//! every answer is checked.

mod arrival;
mod client;
pub mod floor;
mod load;
mod machine;
mod outcome;
pub mod record;
pub mod result;
pub mod scenario;
mod schedule;
mod summary;
mod template;

pub use outcome::{Outcome, write_json};
pub use summary::text;
