//! The one table of every property: Apache Kafka's and our own `ottla.*`.
//!
//! `--help`, docs/CONFIG.md, DescribeConfigs, AlterConfigs and the typed views
//! ([`super::NodeConfig`], [`super::TopicConfig`]) are all derived from it. Adding a
//! property means adding a row here and a field where it is read, nothing else.
//!
//! A row: name, type, default, bound, importance, how it may change; then its help.

use std::collections::HashMap;
use std::sync::OnceLock;

mod cluster;
mod coordinator;
mod internal;
mod log;
mod node;
mod ottla;
mod remote;
mod resource;
mod security;
mod topic;

use Check::*;
use DefaultValue::*;
use Importance::*;
use Kind::*;
use Update::*;

/// One property, as declared.
#[derive(Debug)]
pub struct Property {
    pub name: &'static str,
    pub scope: Scope,
    pub kind: Kind,
    pub default: DefaultValue,
    pub check: Check,
    pub importance: Importance,
    pub update: Update,
    /// Kafka's test-only keys: accepted, but neither listed nor described.
    pub internal: bool,
    pub help: &'static str,
}

/// What a property is set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The node's file, the command line, or a BROKER resource.
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

/// Kafka's `ConfigDef.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Int,
    Long,
    Short,
    Double,
    List,
    String,
    /// Name of a Java class: read as text.
    Class,
    /// Text that is never shown.
    Password,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// A value, in the form it would have in a file.
    V(&'static str),
    /// Unset is a meaning of its own.
    Null,
    /// Kafka demands a value. Ottla fills it in ([`super::load::SINGLE_NODE`]).
    Required,
}

/// What a value must satisfy beyond its type (Kafka's `ConfigDef.Validator`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    Any,
    Min(i64),
    Between(i64, i64),
    Fraction(f64, f64),
    NonEmpty,
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    /// A list without repeated or blank entries; may be empty.
    UniqueList,
    /// The same, not empty.
    NonEmptyList,
    /// The same, of these only; not empty.
    ListOf(&'static [&'static str]),
    /// The same, of these only; may be empty.
    ListOfOrEmpty(&'static [&'static str]),
    /// 1 to 9, or -1.
    GzipLevel,
    /// `id@host:port` entries.
    Voters,
    /// `host:port` entries.
    Endpoints,
    /// `*`, or `partition:broker` entries.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:<ISO 8601>`.
    OffsetReset,
    /// `auto`, a number of cores, or a list of CPUs such as `0,2-3`.
    Cores,
    /// A level, or `target=level` pairs.
    LogFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// When a change of a property can take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Read once, when the node starts.
    AtStart,
    /// Dynamic, for one broker at a time.
    PerBroker,
    /// Dynamic, for one broker or as the cluster's default.
    ClusterWide,
    /// Dynamic only: has no place in a file.
    DynamicOnly,
    /// Set on the topic, group or subscription itself.
    PerResource,
}

impl Property {
    pub fn is_sensitive(&self) -> bool {
        self.kind == Password
    }

    pub fn is_dynamic(&self) -> bool {
        self.update != AtStart
    }
}

impl Kind {
    /// The type as DescribeConfigs reports it.
    pub fn wire_id(self) -> i8 {
        match self {
            Boolean => 1,
            String => 2,
            Int => 3,
            Short => 4,
            Long => 5,
            Double => 6,
            List => 7,
            Class => 8,
            Password => 9,
        }
    }

    /// Kafka's name of the type, as in its messages.
    pub fn name(self) -> &'static str {
        match self {
            Boolean => "BOOLEAN",
            String => "STRING",
            Int => "INT",
            Short => "SHORT",
            Long => "LONG",
            Double => "DOUBLE",
            List => "LIST",
            Class => "CLASS",
            Password => "PASSWORD",
        }
    }
}

/// Every property of a scope, in the order of the table.
pub fn properties(scope: Scope) -> impl Iterator<Item = &'static Property> {
    all().filter(move |property| property.scope == scope)
}

/// Every property of every scope.
pub fn all() -> impl Iterator<Item = &'static Property> {
    AREAS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The table by area, for help and documentation.
pub fn areas() -> &'static [(&'static str, &'static [Property])] {
    AREAS
}

/// The property of that exact name.
pub fn find(scope: Scope, name: &str) -> Option<&'static Property> {
    static INDEX: OnceLock<HashMap<(Scope, &'static str), &'static Property>> = OnceLock::new();
    INDEX
        .get_or_init(|| all().map(|row| ((row.scope, row.name), row)).collect())
        .get(&(scope, name))
        .copied()
}

/// The property behind a broker key, which may carry a listener's prefix
/// (`listener.name.internal.ssl.keystore.location`, with or without a SASL mechanism
/// before the key).
pub fn find_broker(name: &str) -> Option<&'static Property> {
    find(Scope::Broker, name).or_else(|| {
        let (_listener, key) = name.strip_prefix("listener.name.")?.split_once('.')?;
        find(Scope::Broker, key).or_else(|| {
            let (_mechanism, key) = key.split_once('.')?;
            find(Scope::Broker, key)
        })
    })
}

/// Whether a key belongs to a plug-in, so that nobody but it knows what is right.
pub fn is_plugin_key(name: &str) -> bool {
    ["rsm.config.", "rlmm.config.", "config.providers."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The known name that is most like `name`: what was probably meant.
pub fn nearest(scope: Scope, name: &str) -> &'static str {
    properties(scope)
        .filter(|property| !property.internal)
        .min_by_key(|property| edit_distance(name, property.name))
        .map(|property| property.name)
        .expect("every scope has properties")
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = [
        vec![0; b.len() + 1],
        (0..=b.len()).collect(),
        vec![0; b.len() + 1],
    ];
    for i in 1..=a.len() {
        rows.rotate_left(1);
        // rows[2] is now the row two back, rows[0] the last one; write into rows[1].
        let [last, this, before] = &mut rows;
        this[0] = i;
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(this[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            this[j] = best;
        }
    }
    rows[1][b.len()]
}

const AREAS: &[(&str, &[Property])] = &[
    ("Ottla's own", ottla::OTTLA),
    ("Node", node::NODE),
    ("Topics and logs", log::LOG),
    ("Controller, replication", cluster::CLUSTER),
    (
        "Groups, transactions, share groups",
        coordinator::COORDINATOR,
    ),
    ("Security", security::SECURITY),
    ("Tiered storage", remote::REMOTE),
    ("Internal", internal::INTERNAL),
    ("Topic", topic::TOPIC),
    ("Internal, of topics", internal::INTERNAL_TOPIC),
    ("Group", resource::GROUP),
    ("Client metrics subscription", resource::CLIENT_METRICS),
];

/// Declares a part of the table.
macro_rules! declare {
    ($table:ident: $scope:ident; $($rows:tt)*) => {
        declare! { @ $table $scope false $($rows)* }
    };
    ($table:ident: $scope:ident internal; $($rows:tt)*) => {
        declare! { @ $table $scope true $($rows)* }
    };
    (@ $table:ident $scope:ident $internal:literal $(
        $name:literal, $kind:ident, $default:expr, $check:expr, $importance:ident, $update:ident,
        $help:literal;
    )*) => {
        pub(super) const $table: &[Property] = &[$(Property {
            name: $name,
            scope: Scope::$scope,
            kind: Kind::$kind,
            default: $default,
            check: $check,
            importance: $importance,
            update: $update,
            internal: $internal,
            help: $help,
        }),*];
    };
}
use declare;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_within_a_scope() {
        let mut seen = HashSet::new();
        for property in all() {
            assert!(
                seen.insert((property.scope, property.name)),
                "{}",
                property.name
            );
        }
        assert!(seen.len() > 400);
    }

    #[test]
    fn helps_are_sentences() {
        for property in all() {
            assert!(
                property.help.ends_with('.'),
                "{}: {}",
                property.name,
                property.help
            );
            assert!(
                property.help.len() < 140,
                "{}: {}",
                property.name,
                property.help
            );
        }
    }

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        assert_eq!(nearest(Scope::Broker, "num.partition"), "num.partitions");
        assert_eq!(
            nearest(Scope::Broker, "log.retention.hour"),
            "log.retention.hours"
        );
        assert_eq!(nearest(Scope::Topic, "retentoin.ms"), "retention.ms");
        assert_eq!(nearest(Scope::Broker, "otla.cores"), "ottla.cores");
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("ab", "ba"), 1);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn listener_prefixes_lead_to_the_plain_key() {
        for key in [
            "ssl.keystore.location",
            "listener.name.internal.ssl.keystore.location",
            "listener.name.internal.scram-sha-256.ssl.keystore.location",
        ] {
            assert_eq!(
                find_broker(key).map(|p| p.name),
                Some("ssl.keystore.location")
            );
        }
        assert!(find_broker("listener.name.internal").is_none());
        assert!(find_broker("listener.name.internal.nonsense").is_none());
    }
}
