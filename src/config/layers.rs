//! Where a value comes from: the resource's own config, the broker's dynamic config, the
//! cluster's dynamic default, the file and command line, the table's default: the first
//! that has a valid one wins.
//!
//! A value that doesn't parse is skipped. Those of the file were checked at start, but
//! dynamic ones come out of the metadata log, which a Kafka controller may have written.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::table::{self, DefaultValue, Property, Scope};
use super::value::{self, Value};

/// Key and value as text, as in a file or a ConfigRecord.
pub type ConfigMap = BTreeMap<String, String>;

static EMPTY: ConfigMap = ConfigMap::new();

/// The layers below the resource, from strong to weak, and the resource's own.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Of the topic, group or subscription.
    pub resource: &'a ConfigMap,
    /// Of this broker, set dynamically.
    pub dynamic_broker: &'a ConfigMap,
    /// Of all brokers (resource name empty), set dynamically.
    pub dynamic_default: &'a ConfigMap,
    /// From the file and the command line ([`super::NodeConfig::fixed`]).
    pub fixed: &'a ConfigMap,
}

impl<'a> Layers<'a> {
    /// Nothing but the file and the command line.
    pub fn of_node(fixed: &'a ConfigMap) -> Layers<'a> {
        Layers {
            resource: &EMPTY,
            dynamic_broker: &EMPTY,
            dynamic_default: &EMPTY,
            fixed,
        }
    }

    /// The same with a resource's own config on top.
    pub fn with_resource(self, resource: &'a ConfigMap) -> Layers<'a> {
        Layers { resource, ..self }
    }

    /// The broker's layers, strongest first.
    pub(super) fn broker(&self) -> [(&'a ConfigMap, Source); 3] {
        [
            (self.dynamic_broker, Source::DynamicBroker),
            (self.dynamic_default, Source::DynamicDefault),
            (self.fixed, Source::StaticBroker),
        ]
    }
}

/// Kafka's `ConfigSource`, with its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefault = 3,
    StaticBroker = 4,
    Default = 5,
    BrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

impl Source {
    pub fn wire_id(self) -> i8 {
        self as i8
    }
}

/// The valid value of `name` in one layer.
pub(super) fn valid(map: &ConfigMap, property: &Property) -> Option<Value> {
    valid_as(map, property, property.name)
}

/// The same under another name, such as a listener's.
fn valid_as(map: &ConfigMap, property: &Property, name: &str) -> Option<Value> {
    value::parse(property, map.get(name)?).ok()
}

/// The value of a property's default.
pub(super) fn default_of(property: &Property) -> Option<Value> {
    match property.default {
        DefaultValue::V(text) => {
            Some(value::parse(property, text).expect("a test parses every default of the table"))
        }
        DefaultValue::Null | DefaultValue::Required => None,
    }
}

/// Typed reading of broker properties through the layers. Notes which names were read:
/// from that docs/CONFIG.md tells what has an effect in Ottla.
pub(super) struct Reader<'a> {
    layers: Layers<'a>,
    read: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub fn new(layers: Layers<'a>) -> Reader<'a> {
        Reader {
            layers,
            read: RefCell::default(),
        }
    }

    pub fn names_read(&self) -> BTreeSet<&'static str> {
        self.read.borrow().clone()
    }

    /// None where the property is unset and has no default.
    fn value(&self, name: &str) -> Option<Value> {
        let property = table::find(Scope::Broker, name)
            .unwrap_or_else(|| panic!("`{name}` is not in the table"));
        self.read.borrow_mut().insert(property.name);
        self.layers
            .broker()
            .into_iter()
            .find_map(|(map, _)| valid(map, property))
            .or_else(|| default_of(property))
    }

    /// Whether any layer has it.
    pub fn is_set(&self, name: &str) -> bool {
        let mut layers = self.layers.broker().into_iter();
        layers.any(|(map, _)| map.contains_key(name))
    }

    /// The value with the listener's prefix, in any layer, before the one without.
    pub fn int_of_listener(&self, listener: &str, name: &str) -> i32 {
        let property = table::find(Scope::Broker, name)
            .unwrap_or_else(|| panic!("`{name}` is not in the table"));
        let own = format!("listener.name.{}.{name}", listener.to_lowercase());
        let own = self
            .layers
            .broker()
            .into_iter()
            .find_map(|(map, _)| valid_as(map, property, &own));
        match own {
            Some(Value::Integer(value)) => {
                i32::try_from(value).expect("an INT has at most 32 bits")
            }
            _ => self.int(name),
        }
    }

    pub fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Boolean(value)) => value,
            other => panic!("`{name}` is not a BOOLEAN with a default: {other:?}"),
        }
    }

    pub fn long(&self, name: &str) -> i64 {
        self.opt_long(name)
            .unwrap_or_else(|| panic!("`{name}` has no default"))
    }

    pub fn opt_long(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Integer(value)) => Some(value),
            None => None,
            other => panic!("`{name}` is not an integer: {other:?}"),
        }
    }

    pub fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("an INT or SHORT has at most 32 bits")
    }

    pub fn opt_int(&self, name: &str) -> Option<i32> {
        self.opt_long(name)
            .map(|v| i32::try_from(v).expect("an INT or SHORT has at most 32 bits"))
    }

    pub fn short(&self, name: &str) -> i16 {
        i16::try_from(self.long(name)).expect("a SHORT has 16 bits")
    }

    pub fn text(&self, name: &str) -> String {
        self.opt_text(name)
            .unwrap_or_else(|| panic!("`{name}` has no default"))
    }

    pub fn opt_text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(value)) => Some(value),
            None => None,
            other => panic!("`{name}` is not text: {other:?}"),
        }
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.opt_list(name).unwrap_or_default()
    }

    pub fn opt_list(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name) {
            Some(Value::List(value)) => Some(value),
            None => None,
            other => panic!("`{name}` is not a LIST: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_strongest_valid_layer_wins() {
        let fixed = map(&[("num.io.threads", "3"), ("num.network.threads", "4")]);
        let default = map(&[("num.io.threads", "5"), ("num.network.threads", "x")]);
        let broker = map(&[("num.io.threads", "6")]);
        let layers = Layers {
            dynamic_default: &default,
            dynamic_broker: &broker,
            ..Layers::of_node(&fixed)
        };
        let reader = Reader::new(layers);
        assert_eq!(reader.int("num.io.threads"), 6);
        assert_eq!(reader.int("num.network.threads"), 4);
        assert_eq!(reader.int("background.threads"), 10);
        assert_eq!(reader.opt_text("broker.rack"), None);
        assert_eq!(reader.names_read().len(), 4);
    }
}
