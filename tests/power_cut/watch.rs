//! What a node says while it runs in the simulation: recoveries are counted, and an error
//! fails the test.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use crate::clients::TORN_IS_DAMAGE;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// What a node may say at ERROR about an unclean stop.
const EXPECTED: &[&str] = &["rebuilding indexes"];
/// And where torn batches are kept as damage.
const EXPECTED_DAMAGE: &[&str] = &["damaged batch", "records can't be read"];

#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Said>>);

#[derive(Default)]
pub struct Said {
    /// Ends of logs that were cut off.
    pub truncations: u64,
    pub errors: Vec<String>,
}

impl Watch {
    pub fn take(&self) -> Said {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with it"))
    }
}

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                // Writing to a string can't fail.
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut said = self.0.lock().expect("nobody panics with it");
        let is_error = *event.metadata().level() == Level::ERROR;
        let is_among = |texts: &[&str]| texts.iter().any(|expected| text.0.contains(expected));
        let is_expected = is_among(EXPECTED) || (TORN_IS_DAMAGE && is_among(EXPECTED_DAMAGE));
        if is_error && !is_expected {
            println!("the node says {}", text.0);
            said.errors.push(text.0);
        } else if text.0.contains("cut off") {
            said.truncations += 1;
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
