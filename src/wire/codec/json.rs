//! JSON of records as Kafka's generated JSON converters print it: lower camel case names,
//! bytes in base64, uuids in their text form, tagged fields only where they differ from the
//! default. Called by the generated `to_json` (for `dump-log`, `quorum-state`, tests).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::base::Uuid;

/// Fields in the order in which they were put.
#[derive(Default)]
pub struct Object(Map<String, Value>);

impl Object {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    pub fn finish(self) -> Value {
        Value::Object(self.0)
    }
}

pub fn bytes(bytes: &Bytes) -> Value {
    Value::String(STANDARD.encode(bytes))
}

pub fn nullable_bytes(value: &Option<Bytes>) -> Value {
    value.as_ref().map_or(Value::Null, bytes)
}

pub fn uuid(id: &Uuid) -> Value {
    Value::String(id.to_string())
}

pub fn array<T>(array: &[T], element: impl FnMut(&T) -> Value) -> Value {
    array.iter().map(element).collect()
}

pub fn nullable_array<T>(value: &Option<Vec<T>>, element: impl FnMut(&T) -> Value) -> Value {
    value
        .as_ref()
        .map_or(Value::Null, |value| array(value, element))
}
