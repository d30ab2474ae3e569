//! Layer 1: Kafka's wire protocol, bytes to structs and back. Called by connections, API
//! handlers, coordinators, the metadata log and tools, on any core; does no I/O and keeps
//! no state.
//!
//! [`codec`] has the primitive encodings, [`messages`] a generated struct per schema of
//! Apache Kafka with all its versions, [`api_key`] the table of APIs, [`header`] request and
//! response headers, [`record_frame`] what stands before a message stored as a record. The
//! two hot APIs have hand-written forms that neither allocate nor copy records:
//! [`produce_view`], [`produce_encoder`], [`fetch_view`] and [`fetch_encoder`].

pub mod api_key;
pub mod codec;
pub mod fetch_encoder;
pub mod fetch_view;
pub mod header;
pub mod messages;
pub mod produce_encoder;
pub mod produce_view;
pub mod record_frame;

pub use api_key::ApiKey;
pub use codec::{DecodeError, Decoder, EncodeError, Message};
