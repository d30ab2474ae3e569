//! Layer 5: `ottla bench`, latency that can be believed of any Kafka-compatible broker.
//! Called by `cli::bench`. Not a part of the broker: it shares nothing with one but the
//! wire format, and meets ours through a socket like any other.
//!
//! ```text
//! scenario ── phase ─┬─ worker ── producer   connections that publish, from a template or
//!    │               │                       an encoder, on a schedule
//!    │               ├─ worker ── consumer   connections that fetch, and time what arrives
//!    │               └─ progress             what a person watches
//!    └─ result   the JSON of a run, which report and compare read; summary: as text
//! recovery       starts a broker and ends it, and times the first acknowledgement
//! floor::serve   not a broker: answers the generator, the ceiling that one is measured against
//! floor::kernel  what the kernel gives, in the same units
//! compare        runs of either against two servers in turns, and the ratio of each pair
//! report         results as tables and plots
//! ```
//! A new scenario is a row in [`params::Scenario`] with its defaults in `cli::bench`.
//! [`schedule`], [`template`], [`encoder`] and [`record`] are pure.
//!
//! Invariants: in open loop every latency counts from the intended time; a run that kept
//! less than 99 % of its schedule, or that the generator limited, is invalid and says why;
//! every answer is checked.

mod client;
pub mod compare;
mod consumer;
mod encoder;
pub mod floor;
mod machine;
pub mod params;
mod phase;
mod producer;
mod progress;
pub mod record;
pub mod recovery;
pub mod report;
pub mod result;
pub mod scenario;
mod schedule;
mod socket;
mod summary;
mod template;
mod usage;
mod worker;

pub use summary::text;
