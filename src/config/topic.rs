//! A topic's effective config: its own values over the broker's synonyms
//! (`retention.ms` over `log.retention.ms`, `.minutes`, `.hours`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::layers::{ConfigMap, Layers, default_of, valid};
use super::node::{Durability, DynamicConfig};
use super::table::{self, Property, Scope};
use super::value::Value;

/// What a partition of the topic goes by. Times in milliseconds, sizes in bytes; -1 is
/// "without bound" where Kafka allows it, `i64::MAX` is "never".
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression: Compression,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    /// `internal.segment.bytes` where it is set: tests roll small segments with it.
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

/// `cleanup.policy`. Neither is allowed: then only DeleteRecords shortens the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// `compression.type`, with the level that the broker uses when it compresses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Batches stay as the producer sent them.
    Producer,
    Uncompressed,
    /// 1 to 9, -1 for the codec's default.
    Gzip(i32),
    Snappy,
    /// 1 to 17.
    Lz4(i32),
    /// -131072 to 22.
    Zstd(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// `flush.messages` of a topic whose records are on disk before they are acknowledged.
const FLUSH_EACH: i64 = 1;

impl TopicConfig {
    /// The effective config; `layers.resource` holds the topic's own values. Where the
    /// topic has no `flush.messages` itself, `ottla.durability=fsync` means 1.
    pub fn effective(layers: &Layers<'_>) -> TopicConfig {
        let mut config = TopicConfig::read(&|name| value(layers, property(name)));
        let own = valid(layers.resource, property("flush.messages"));
        if own.is_none() && DynamicConfig::effective(layers).durability == Durability::Fsync {
            config.flush_messages = FLUSH_EACH;
        }
        config
    }

    /// `flush.messages=1`, Kafka's own words for it, asks for the disk.
    pub fn durability(&self) -> Durability {
        match self.flush_messages {
            FLUSH_EACH => Durability::Fsync,
            _ => Durability::Os,
        }
    }

    fn read(get: &dyn Fn(&'static str) -> Option<Value>) -> TopicConfig {
        let long = |name| match get(name) {
            Some(Value::Integer(value)) => value,
            other => panic!("topic config `{name}` is not an integer: {other:?}"),
        };
        let int = |name| i32::try_from(long(name)).expect("an INT has 32 bits");
        let flag = |name| get(name) == Some(Value::Boolean(true));
        let text = |name| match get(name) {
            Some(Value::Text(value)) => value,
            other => panic!("topic config `{name}` is not text: {other:?}"),
        };
        let policies = match get("cleanup.policy") {
            Some(Value::List(entries)) => entries,
            _ => Vec::new(),
        };
        TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: policies.iter().any(|p| p == "delete"),
                compact: policies.iter().any(|p| p == "compact"),
            },
            compression: match text("compression.type").as_str() {
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip(int("compression.gzip.level")),
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4(int("compression.lz4.level")),
                "zstd" => Compression::Zstd(int("compression.zstd.level")),
                _ => Compression::Producer,
            },
            delete_retention_ms: long("delete.retention.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            max_message_bytes: int("max.message.bytes"),
            message_timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            message_timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: match get("min.cleanable.dirty.ratio") {
                Some(Value::Double(value)) => value,
                other => panic!("topic config `min.cleanable.dirty.ratio`: {other:?}"),
            },
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            preallocate: flag("preallocate"),
            retention_bytes: long("retention.bytes"),
            retention_ms: long("retention.ms"),
            segment_bytes: match get("internal.segment.bytes") {
                Some(_) => int("internal.segment.bytes").max(1),
                None => int("segment.bytes"),
            },
            segment_index_bytes: int("segment.index.bytes"),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_ms: long("segment.ms"),
            unclean_leader_election_enable: flag("unclean.leader.election.enable"),
        }
    }
}

/// Topic properties that have a field in [`TopicConfig`].
pub(super) fn typed_names() -> &'static BTreeSet<&'static str> {
    static NAMES: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let names = RefCell::new(BTreeSet::new());
        let fixed = ConfigMap::new();
        let layers = Layers::of_node(&fixed);
        TopicConfig::read(&|name| {
            names.borrow_mut().insert(name);
            value(&layers, property(name))
        });
        let mut names = names.into_inner();
        names.extend([
            "compression.gzip.level",
            "compression.lz4.level",
            "compression.zstd.level",
        ]);
        names
    })
}

/// The effective value of one topic property.
pub(super) fn value(layers: &Layers<'_>, property: &Property) -> Option<Value> {
    valid(layers.resource, property)
        .or_else(|| inherited(layers, property))
        .or_else(|| default_of(property))
}

/// The broker's keys behind a topic property, the most exact first.
pub(super) fn synonyms(topic_name: &str) -> &'static [(&'static str, Unit)] {
    SYNONYMS
        .iter()
        .find(|(name, _)| *name == topic_name)
        .map_or(&[], |(_, synonyms)| *synonyms)
}

/// All keys that mean the same as a broker key, itself included, the most exact first.
pub(super) fn broker_synonyms(broker_name: &str) -> Vec<&'static str> {
    SYNONYMS
        .iter()
        .map(|(_, synonyms)| *synonyms)
        .find(|synonyms| synonyms.iter().any(|(name, _)| *name == broker_name))
        .map(|synonyms| synonyms.iter().map(|(name, _)| *name).collect())
        .unwrap_or_default()
}

/// In what a broker key counts what the topic property counts in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Same,
    Minutes,
    Hours,
}

fn inherited(layers: &Layers<'_>, property: &Property) -> Option<Value> {
    let keys = synonyms(property.name);
    let broker = |name: &str| {
        table::find(Scope::Broker, name).expect("a test looks every synonym up in the table")
    };
    let found = layers
        .broker()
        .into_iter()
        .flat_map(|(map, _)| keys.iter().map(move |(name, unit)| (map, *name, *unit)))
        .find_map(|(map, name, unit)| Some((valid(map, broker(name))?, unit)))
        .or_else(|| {
            keys.iter()
                .find_map(|(name, unit)| Some((default_of(broker(name))?, *unit)))
        });
    let (value, unit) = found?;
    let Value::Integer(number) = value else {
        return Some(value);
    };
    let millis = match unit {
        Unit::Same => number,
        Unit::Minutes => number.saturating_mul(60_000),
        Unit::Hours => number.saturating_mul(3_600_000),
    };
    // Any negative retention means "for ever", as in Kafka.
    let floor = if property.name == "retention.ms" {
        -1
    } else {
        i64::MIN
    };
    Some(Value::Integer(millis.max(floor)))
}

fn property(name: &str) -> &'static Property {
    table::find(Scope::Topic, name).unwrap_or_else(|| panic!("`{name}` is not in the table"))
}

type Synonyms = &'static [(&'static str, Unit)];

#[rustfmt::skip]
const SYNONYMS: &[(&str, Synonyms)] = &[
    ("cleanup.policy", &[("log.cleanup.policy", Unit::Same)]),
    ("compression.gzip.level", &[("compression.gzip.level", Unit::Same)]),
    ("compression.lz4.level", &[("compression.lz4.level", Unit::Same)]),
    ("compression.type", &[("compression.type", Unit::Same)]),
    ("compression.zstd.level", &[("compression.zstd.level", Unit::Same)]),
    ("delete.retention.ms", &[("log.cleaner.delete.retention.ms", Unit::Same)]),
    ("file.delete.delay.ms", &[("log.segment.delete.delay.ms", Unit::Same)]),
    ("flush.messages", &[("log.flush.interval.messages", Unit::Same)]),
    ("flush.ms", &[("log.flush.interval.ms", Unit::Same), ("log.flush.scheduler.interval.ms", Unit::Same)]),
    ("index.interval.bytes", &[("log.index.interval.bytes", Unit::Same)]),
    ("local.retention.bytes", &[("log.local.retention.bytes", Unit::Same)]),
    ("local.retention.ms", &[("log.local.retention.ms", Unit::Same)]),
    ("max.compaction.lag.ms", &[("log.cleaner.max.compaction.lag.ms", Unit::Same)]),
    ("max.message.bytes", &[("message.max.bytes", Unit::Same)]),
    ("message.timestamp.after.max.ms", &[("log.message.timestamp.after.max.ms", Unit::Same)]),
    ("message.timestamp.before.max.ms", &[("log.message.timestamp.before.max.ms", Unit::Same)]),
    ("message.timestamp.type", &[("log.message.timestamp.type", Unit::Same)]),
    ("min.cleanable.dirty.ratio", &[("log.cleaner.min.cleanable.ratio", Unit::Same)]),
    ("min.compaction.lag.ms", &[("log.cleaner.min.compaction.lag.ms", Unit::Same)]),
    ("min.insync.replicas", &[("min.insync.replicas", Unit::Same)]),
    ("preallocate", &[("log.preallocate", Unit::Same)]),
    ("retention.bytes", &[("log.retention.bytes", Unit::Same)]),
    ("retention.ms", &[("log.retention.ms", Unit::Same), ("log.retention.minutes", Unit::Minutes), ("log.retention.hours", Unit::Hours)]),
    ("segment.bytes", &[("log.segment.bytes", Unit::Same)]),
    ("segment.index.bytes", &[("log.index.size.max.bytes", Unit::Same)]),
    ("segment.jitter.ms", &[("log.roll.jitter.ms", Unit::Same), ("log.roll.jitter.hours", Unit::Hours)]),
    ("segment.ms", &[("log.roll.ms", Unit::Same), ("log.roll.hours", Unit::Hours)]),
    ("unclean.leader.election.enable", &[("unclean.leader.election.enable", Unit::Same)]),
];

#[cfg(test)]
mod tests {
    use super::super::layers::ConfigMap;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::effective(&Layers::of_node(&ConfigMap::new()));
        assert_eq!(config.retention_ms, 604_800_000);
        assert_eq!(config.segment_ms, 604_800_000);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.flush_ms, i64::MAX);
        assert_eq!(config.compression, Compression::Producer);
        assert_eq!(
            config.cleanup_policy,
            CleanupPolicy {
                delete: true,
                compact: false
            }
        );
        assert_eq!(config.message_timestamp_type, TimestampType::CreateTime);
    }

    #[test]
    fn every_synonym_is_in_the_table_with_the_topic_type() {
        for (topic, keys) in SYNONYMS {
            for (key, unit) in *keys {
                let broker = table::find(Scope::Broker, key).unwrap_or_else(|| panic!("{key}"));
                if *unit == Unit::Same {
                    assert_eq!(broker.kind, property(topic).kind, "{topic} {key}");
                }
            }
        }
    }

    #[test]
    fn the_topic_comes_before_the_broker_and_milliseconds_before_hours() {
        let fixed = map(&[("log.retention.hours", "1"), ("log.roll.hours", "2")]);
        let layers = Layers::of_node(&fixed);
        let config = TopicConfig::effective(&layers);
        assert_eq!(
            (config.retention_ms, config.segment_ms),
            (3_600_000, 7_200_000)
        );

        let fixed = map(&[("log.retention.hours", "1"), ("log.retention.minutes", "3")]);
        let layers = Layers::of_node(&fixed);
        assert_eq!(TopicConfig::effective(&layers).retention_ms, 180_000);

        let dynamic = map(&[("log.retention.ms", "7")]);
        let layers = Layers {
            dynamic_default: &dynamic,
            ..layers
        };
        assert_eq!(TopicConfig::effective(&layers).retention_ms, 7);

        let own = map(&[("retention.ms", "9"), ("segment.ms", "nonsense")]);
        let config = TopicConfig::effective(&layers.with_resource(&own));
        assert_eq!((config.retention_ms, config.segment_ms), (9, 604_800_000));
    }

    #[test]
    fn a_topics_own_flush_messages_goes_before_the_nodes_durability() {
        let durability = |node: &[(&str, &str)], own: &[(&str, &str)]| {
            let (fixed, own) = (map(node), map(own));
            TopicConfig::effective(&Layers::of_node(&fixed).with_resource(&own)).durability()
        };
        let (os, fsync) = (Durability::Os, Durability::Fsync);
        assert_eq!(durability(&[], &[]), os);
        assert_eq!(durability(&[("ottla.durability", "fsync")], &[]), fsync);
        let node = [
            ("ottla.durability", "fsync"),
            ("log.flush.interval.messages", "9"),
        ];
        assert_eq!(durability(&node, &[]), fsync);
        assert_eq!(durability(&node, &[("flush.messages", "1000")]), os);
        assert_eq!(durability(&[], &[("flush.messages", "1")]), fsync);
        assert_eq!(
            durability(&[("log.flush.interval.messages", "1")], &[]),
            fsync
        );

        let (fixed, dynamic) = (map(&[("ottla.durability", "os")]), map(&node[..1]));
        let layers = Layers {
            dynamic_default: &dynamic,
            ..Layers::of_node(&fixed)
        };
        assert_eq!(TopicConfig::effective(&layers).durability(), fsync);
    }

    #[test]
    fn a_negative_retention_is_for_ever() {
        for pair in [("log.retention.hours", "-5"), ("log.retention.ms", "-7")] {
            let fixed = map(&[pair]);
            assert_eq!(
                TopicConfig::effective(&Layers::of_node(&fixed)).retention_ms,
                -1
            );
        }
    }

    #[test]
    fn compression_carries_its_own_level() {
        for (name, level, expected) in [
            ("gzip", "compression.gzip.level", Compression::Gzip(4)),
            ("lz4", "compression.lz4.level", Compression::Lz4(4)),
            ("zstd", "compression.zstd.level", Compression::Zstd(4)),
        ] {
            let own = map(&[("compression.type", name), (level, "4")]);
            let fixed = ConfigMap::new();
            let layers = Layers::of_node(&fixed).with_resource(&own);
            assert_eq!(TopicConfig::effective(&layers).compression, expected);
        }
    }

    #[test]
    fn tests_may_set_a_segment_size_below_the_bound() {
        let own = map(&[("internal.segment.bytes", "1000")]);
        let fixed = ConfigMap::new();
        let layers = Layers::of_node(&fixed).with_resource(&own);
        assert_eq!(TopicConfig::effective(&layers).segment_bytes, 1000);
    }
}
