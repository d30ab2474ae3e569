//! From a file and a command line to a checked [`NodeConfig`].
//!
//! Every mistake is reported with the file and line it stands on, the key and what was
//! expected there; all mistakes at once, one line each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layers::{ConfigMap, Layers, Reader};
use super::listeners::{Listeners, SecurityProtocol};
use super::node::{NodeConfig, Roles};
use super::properties;
use super::table::{self, Kind, Property, Scope, Update};
use super::value;

/// What a node without `process.roles` is: one broker and controller for this machine.
/// Each line gives way to the file and the command line.
pub const SINGLE_NODE: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    (
        "listeners",
        "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
    ),
    ("controller.listener.names", "CONTROLLER"),
    ("log.dirs", "./data"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    // There is no other replica to keep what a power cut takes.
    ("ottla.durability", "fsync"),
];

/// A node's config and what a person should know about it.
#[derive(Debug)]
pub struct Loaded {
    pub node: NodeConfig,
    /// One line each; the start goes on.
    pub warnings: Vec<String>,
    /// Keys that were set and have no effect in Ottla.
    pub without_effect: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the config file {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{source}", path.display())]
    Syntax {
        path: PathBuf,
        source: properties::SyntaxError,
    },
    #[error("--override wants KEY=VALUE, not `{0}`")]
    Override(String),
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
}

/// One wrong setting. Its text: `server.properties:12: num.partitions=x: expected …`.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub origin: Origin,
    pub key: String,
    /// None where it must not be shown or isn't set.
    pub value: Option<String>,
    pub what: String,
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File { path: Arc<PathBuf>, line: usize },
    CommandLine,
    BuiltIn,
}

/// Loads a node's config: `file` if there is one, then `overrides` (`KEY=VALUE`).
pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Loaded, ConfigError> {
    let bytes = match file {
        None => Vec::new(),
        Some(path) => std::fs::read(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?,
    };
    from_bytes(file.unwrap_or(Path::new("")), &bytes, overrides)
}

/// The same from a file's bytes; `path` names it in messages.
pub fn from_bytes(path: &Path, bytes: &[u8], overrides: &[String]) -> Result<Loaded, ConfigError> {
    let mut warnings = Vec::new();
    let mut settings = collect(path, bytes, overrides, &mut warnings)?;
    fill_in(&mut settings);
    let mut mistakes = Vec::new();
    check_each(&settings, &mut mistakes, &mut warnings);
    if !mistakes.is_empty() {
        return Err(ConfigError::Mistakes(mistakes));
    }
    let fixed: ConfigMap = settings
        .iter()
        .map(|(key, setting)| (key.clone(), setting.value.clone()))
        .collect();
    match check_together(Arc::new(fixed)) {
        Ok(mut node) => {
            let written = settings.iter().filter(|(_, s)| s.origin != Origin::BuiltIn);
            let origins = written.map(|(key, setting)| (key.clone(), setting.origin.clone()));
            node.origins = Arc::new(origins.collect());
            let without_effect = settings
                .iter()
                .filter(|(key, setting)| setting.origin != Origin::BuiltIn && has_no_effect(key))
                .map(|(key, _)| key.clone())
                .collect();
            Ok(Loaded {
                node,
                warnings,
                without_effect,
            })
        }
        Err((key, what)) => Err(ConfigError::Mistakes(vec![mistake(&settings, key, what)])),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display())?,
            Origin::CommandLine => f.write_str("--override ")?,
            Origin::BuiltIn => {}
        }
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Where the settings of the file and the command line stand, by key.
pub(super) type Origins = BTreeMap<String, Origin>;

struct Setting {
    value: String,
    origin: Origin,
}

type Settings = BTreeMap<String, Setting>;

fn lines(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(Mistake::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// File, then command line; later ones replace earlier ones.
fn collect(
    path: &Path,
    bytes: &[u8],
    overrides: &[String],
    warnings: &mut Vec<String>,
) -> Result<Settings, ConfigError> {
    let path = Arc::new(path.to_owned());
    let entries = properties::parse(bytes).map_err(|source| ConfigError::Syntax {
        path: path.as_ref().clone(),
        source,
    })?;
    let mut settings = Settings::new();
    for entry in entries {
        let origin = Origin::File {
            path: path.clone(),
            line: entry.line,
        };
        let setting = Setting {
            value: entry.value.trim().to_owned(),
            origin,
        };
        if let Some(Setting {
            origin: Origin::File { line, .. },
            ..
        }) = settings.insert(entry.key.clone(), setting)
        {
            warnings.push(format!(
                "{}:{}: {} is also set on line {line}; the last one counts",
                path.display(),
                entry.line,
                entry.key
            ));
        }
    }
    for text in overrides {
        let (key, value) =
            properties::parse_override(text).ok_or_else(|| ConfigError::Override(text.clone()))?;
        settings.insert(
            key,
            Setting {
                value,
                origin: Origin::CommandLine,
            },
        );
    }
    Ok(settings)
}

/// Adds [`SINGLE_NODE`] where the roles aren't configured, and Kafka's twin of node.id.
fn fill_in(settings: &mut Settings) {
    let built_in = |value: &str| Setting {
        value: value.to_owned(),
        origin: Origin::BuiltIn,
    };
    if !settings.contains_key("process.roles") {
        let own_controller = settings.contains_key("controller.listener.names");
        if let Some(listeners) = settings.get_mut("listeners")
            && !own_controller
            && !listeners.value.to_uppercase().contains("CONTROLLER://")
        {
            listeners.value.push_str(",CONTROLLER://127.0.0.1:9093");
        }
        for (key, value) in SINGLE_NODE {
            let replaced = *key == "log.dirs" && settings.contains_key("log.dir");
            if !replaced && !settings.contains_key(*key) {
                settings.insert((*key).to_owned(), built_in(value));
            }
        }
    }
    for (from, to) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
        if let Some(id) = settings.get(from)
            && !settings.contains_key(to)
            && id.value != "-1"
        {
            let twin = Setting {
                value: id.value.clone(),
                origin: Origin::BuiltIn,
            };
            settings.insert(to.to_owned(), twin);
        }
    }
}

/// Each setting by itself.
fn check_each(settings: &Settings, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    for (key, setting) in settings {
        let Some(property) = table::find_broker(key) else {
            if !table::is_plugin_key(key) {
                warnings.push(unknown(key, &setting.origin));
            }
            continue;
        };
        if property.update == Update::DynamicOnly {
            warnings.push(format!(
                "{}{key} can only be set dynamically (kafka-configs); ignored here",
                place(&setting.origin)
            ));
        }
        if value::parse_as(property, key, &setting.value).is_err() {
            let expected = format!("expected {}", value::expectation(property));
            // A twin of a wrong value is reported under the name that was written.
            if setting.origin != Origin::BuiltIn {
                mistakes.push(Mistake {
                    origin: setting.origin.clone(),
                    key: key.clone(),
                    value: (!property.is_sensitive()).then(|| setting.value.clone()),
                    what: expected,
                });
            }
        } else if let Some(what) = refusal(property, &setting.value) {
            mistakes.push(mistake(settings, property.name, what));
        }
    }
}

fn unknown(key: &str, origin: &Origin) -> String {
    let place = place(origin);
    if table::find(Scope::Topic, key).is_some() {
        let synonyms = super::topic::synonyms(key);
        if let Some((name, _)) = synonyms.first() {
            return format!("{place}{key} is a topic's key; for all topics set {name}");
        }
    }
    format!(
        "{place}unknown key {key}; did you mean {}?",
        table::nearest(Scope::Broker, key)
    )
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line } => format!("{}:{line}: ", path.display()),
        Origin::CommandLine => "--override: ".to_owned(),
        Origin::BuiltIn => String::new(),
    }
}

/// Kafka's authorizer, whose ACLs stand in the metadata log.
pub(super) const STANDARD_AUTHORIZER: &str =
    "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

fn is_no_principal(user: &str) -> bool {
    !user.is_empty() && !user.contains(':')
}

/// Settings that protect something: to accept them without doing what they say would be
/// a lie.
fn refusal(property: &Property, value: &str) -> Option<String> {
    let what = match property.name {
        "authorizer.class.name" if !["", STANDARD_AUTHORIZER].contains(&value) => {
            return Some(format!(
                "Java authorizers can't be loaded; only {STANDARD_AUTHORIZER} is served"
            ));
        }
        "super.users" => match value
            .split(';')
            .map(str::trim)
            .find(|user| is_no_principal(user))
        {
            Some(user) => {
                return Some(format!(
                    "{user} is no principal; it is written as User:{user}"
                ));
            }
            None => return None,
        },
        "create.topic.policy.class.name" | "alter.config.policy.class.name"
            if !value.is_empty() =>
        {
            "Java policies can't be loaded"
        }
        "principal.builder.class" if !value.ends_with(".DefaultKafkaPrincipalBuilder") => {
            "Java principal builders can't be loaded"
        }
        "client.quota.callback.class" if !value.is_empty() => "Java quota plug-ins can't be loaded",
        "remote.log.storage.system.enable" if value.eq_ignore_ascii_case("true") => {
            "tiered storage is not served yet"
        }
        "ssl.engine.factory.class" if !value.is_empty() => "Java TLS engines can't be loaded",
        _ => return None,
    };
    debug_assert!(matches!(
        property.kind,
        Kind::Class | Kind::String | Kind::Boolean
    ));
    Some(what.to_owned())
}

/// The settings against each other (`KafkaConfig.validateValues`) and against what is
/// served today.
fn check_together(fixed: Arc<ConfigMap>) -> Result<NodeConfig, (&'static str, String)> {
    let layers = fixed.clone();
    let reader = Reader::new(Layers::of_node(&layers));
    let listed = reader.list("process.roles");
    let roles = Roles {
        broker: listed.iter().any(|role| role == "broker"),
        controller: listed.iter().any(|role| role == "controller"),
    };
    let (node, broker) = (
        reader.opt_int("node.id"),
        reader.opt_int("broker.id").filter(|id| *id >= 0),
    );
    if let (Some(node), Some(broker)) = (node, broker)
        && node != broker
    {
        return Err((
            "broker.id",
            format!("differs from node.id, which is {node}"),
        ));
    }
    if reader.list("controller.listener.names").is_empty() {
        return Err((
            "controller.listener.names",
            "must name a listener".to_owned(),
        ));
    }
    if reader.opt_text("inter.broker.listener.name").is_some()
        && fixed.contains_key("security.inter.broker.protocol")
    {
        return Err((
            "security.inter.broker.protocol",
            "can't be set together with inter.broker.listener.name".to_owned(),
        ));
    }
    let listeners = Listeners::read(&reader, roles, &host_name())?;
    let config = NodeConfig::read(fixed, listeners, &reader);
    check_bounds(&reader)?;
    check_served(&config)?;
    Ok(config)
}

/// Pairs of numbers that must be in order.
fn check_bounds(r: &Reader<'_>) -> Result<(), (&'static str, String)> {
    const ORDERED: &[(&str, &str)] = &[
        ("replica.fetch.wait.max.ms", "replica.socket.timeout.ms"),
        ("replica.fetch.wait.max.ms", "replica.lag.time.max.ms"),
        (
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
        ),
        (
            "group.consumer.min.session.timeout.ms",
            "group.consumer.session.timeout.ms",
        ),
        (
            "group.consumer.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        ),
        (
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.heartbeat.interval.ms",
        ),
        (
            "group.consumer.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ),
        (
            "log.cleaner.min.compaction.lag.ms",
            "log.cleaner.max.compaction.lag.ms",
        ),
        ("broker.heartbeat.interval.ms", "broker.session.timeout.ms"),
    ];
    for (lower, upper) in ORDERED {
        let (low, high) = (r.long(lower), r.long(upper));
        if low > high {
            return Err((lower, format!("must not exceed {upper}, which is {high}")));
        }
    }
    let queued = r.long("queued.max.request.bytes");
    let largest = r.long("socket.request.max.bytes");
    if queued > 0 && queued < largest {
        return Err((
            "queued.max.request.bytes",
            format!("must be at least socket.request.max.bytes, which is {largest}, or -1"),
        ));
    }
    if !(0..=4).contains(&r.int("offsets.topic.compression.codec")) {
        return Err((
            "offsets.topic.compression.codec",
            "expected a codec from 0 to 4".to_owned(),
        ));
    }
    for name in [
        "log.retention.ms",
        "log.retention.minutes",
        "log.retention.hours",
    ] {
        if r.opt_long(name) == Some(0) {
            let name = table::find(Scope::Broker, name)
                .expect("it was just read")
                .name;
            return Err((name, "must be -1 (for ever) or at least 1".to_owned()));
        }
    }
    let factor = r.int("default.replication.factor");
    if !(1..=i32::from(i16::MAX)).contains(&factor) {
        return Err((
            "default.replication.factor",
            "expected a number from 1 to 32767".to_owned(),
        ));
    }
    Ok(())
}

/// What Kafka allows and Ottla doesn't serve yet.
fn check_served(config: &NodeConfig) -> Result<(), (&'static str, String)> {
    if let Some(listener) = config
        .listeners
        .all
        .iter()
        .find(|l| l.protocol != SecurityProtocol::Plaintext)
    {
        return Err((
            "listeners",
            format!(
                "{} uses {}, only PLAINTEXT is served yet",
                listener.name,
                listener.protocol.name()
            ),
        ));
    }
    if config.quorum_voters.len() > 1 && config.roles.controller && config.node_id.is_none() {
        return Err((
            "controller.quorum.voters",
            "node.id must say which of them this is".to_owned(),
        ));
    }
    let is_named = |id| config.quorum_voters.iter().any(|voter| voter.id == id);
    if let (Some(voter), Some(id)) = (config.quorum_voters.first(), config.node_id)
        && config.roles.controller
        && !is_named(id)
    {
        return Err((
            "controller.quorum.voters",
            format!("names node {}, but this is node {id}", voter.id),
        ));
    }
    Ok(())
}

fn mistake(settings: &Settings, key: &str, what: String) -> Mistake {
    match settings.get(key) {
        Some(setting) if setting.origin != Origin::BuiltIn => Mistake {
            origin: setting.origin.clone(),
            key: key.to_owned(),
            value: Some(setting.value.clone()),
            what,
        },
        _ => Mistake {
            origin: Origin::BuiltIn,
            key: key.to_owned(),
            value: None,
            what,
        },
    }
}

fn has_no_effect(key: &str) -> bool {
    table::find_broker(key)
        .is_some_and(|property| !super::effect::node_names().contains(property.name))
}

/// What this machine calls itself, for listeners without a host.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::base::BrokerId;

    use super::*;

    const PATH: &str = "server.properties";

    fn load_text(text: &str, overrides: &[&str]) -> Result<Loaded, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        from_bytes(Path::new(PATH), text.as_bytes(), &overrides)
    }

    fn error(text: &str, overrides: &[&str]) -> String {
        load_text(text, overrides).unwrap_err().to_string()
    }

    const STOCK: &str = "\
# the shape of the file that Apache Kafka ships
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

    #[test]
    fn nothing_configured_is_one_node_for_this_machine() {
        let Loaded {
            node,
            warnings,
            without_effect,
        } = load_text("", &[]).unwrap();
        assert_eq!(
            node.roles,
            Roles {
                broker: true,
                controller: true
            }
        );
        assert_eq!(node.node_id, None);
        assert_eq!(node.log_dirs, [PathBuf::from("./data")]);
        assert_eq!(node.metadata_log_dir, PathBuf::from("./data"));
        let addresses: Vec<_> = node
            .listeners
            .all
            .iter()
            .map(|l| (l.name.as_str(), l.host.as_deref(), l.port, l.is_controller))
            .collect();
        assert_eq!(
            addresses,
            [
                ("PLAINTEXT", Some("127.0.0.1"), 9092, false),
                ("CONTROLLER", Some("127.0.0.1"), 9093, true)
            ]
        );
        assert_eq!(node.group.offsets_topic_replication_factor, 1);
        assert_eq!(node.transaction.transaction_state_log_min_isr, 1);
        assert_eq!((warnings.len(), without_effect.len()), (0, 0));
    }

    #[test]
    fn a_stock_server_properties_works_as_it_is() {
        let Loaded { node, warnings, .. } = load_text(STOCK, &[]).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(node.node_id, Some(BrokerId(1)));
        assert_eq!(node.log_dirs, [PathBuf::from("/tmp/kraft-combined-logs")]);
        assert_eq!(
            node.quorum_bootstrap_servers,
            [("localhost".to_owned(), 9093)]
        );
        assert_eq!(node.fixed.get("broker.id").map(String::as_str), Some("1"));
        // Nothing of Ottla's own defaults is mixed in.
        assert_eq!(node.group.group_initial_rebalance_delay_ms, 3000);
        let without_roles = STOCK.replace("process.roles=broker,controller\n", "");
        assert!(load_text(&without_roles, &[]).unwrap().warnings.is_empty());
    }

    #[test]
    fn the_command_line_beats_the_file() {
        let loaded = load_text("num.partitions=3\nlog.dir=/d\n", &["num.partitions=4"]).unwrap();
        assert_eq!(loaded.node.topics.num_partitions, 4);
        assert_eq!(loaded.node.log_dirs, [PathBuf::from("/d")]);
        assert_eq!(
            error("", &["num.partitions"]),
            "--override wants KEY=VALUE, not `num.partitions`"
        );
    }

    #[test]
    fn own_listeners_keep_the_controller() {
        let loaded = load_text("", &["listeners=PLAINTEXT://127.0.0.1:19092"]).unwrap();
        let ports: Vec<_> = loaded.node.listeners.all.iter().map(|l| l.port).collect();
        assert_eq!(ports, [19092, 9093]);
    }

    #[test]
    fn mistakes_name_file_line_key_and_what_was_expected() {
        assert_eq!(
            error("\n# c\nnum.partitions = abc\n", &[]),
            "server.properties:3: num.partitions=abc: expected a whole number (32 bits), at least 1"
        );
        assert_eq!(
            error("", &["num.partitions=0"]),
            "--override num.partitions=0: expected a whole number (32 bits), at least 1"
        );
        assert_eq!(
            error("a=\\u12", &[]),
            "server.properties:1: `\\u` wants four hexadecimal digits after it"
        );
        // all of them at once, in the order of the keys
        assert_eq!(
            error("num.partitions=x\nauto.create.topics.enable=si\n", &[]),
            "server.properties:2: auto.create.topics.enable=si: expected true or false\n\
             server.properties:1: num.partitions=x: expected a whole number (32 bits), at least 1"
        );
        assert_eq!(
            error("ottla.cores=many", &[]),
            "server.properties:1: ottla.cores=many: expected auto, a number of cores from 1 to 256, or CPUs such as 0,2-3"
        );
        assert_eq!(
            error("node.id=x", &[]),
            "server.properties:1: node.id=x: expected a whole number (32 bits), at least 0"
        );
    }

    #[test]
    fn what_the_machine_finds_wrong_is_told_like_the_rest() {
        let told = |text: &str, overrides: &[&str]| {
            let node = load_text(text, overrides).unwrap().node;
            let error = node.mistake("ottla.cores", "no such CPU".to_owned());
            error.to_string()
        };
        assert_eq!(
            told("\nottla.cores=7-9", &[]),
            "server.properties:2: ottla.cores=7-9: no such CPU"
        );
        assert_eq!(
            told("ottla.cores=1", &["ottla.cores=7"]),
            "--override ottla.cores=7: no such CPU"
        );
        assert_eq!(told("", &[]), "ottla.cores: no such CPU");
    }

    #[test]
    fn settings_are_checked_against_each_other() {
        for (text, message) in [
            (
                "node.id=1\nbroker.id=2",
                "server.properties:2: broker.id=2: differs from node.id, which is 1",
            ),
            (
                "queued.max.request.bytes=10",
                "server.properties:1: queued.max.request.bytes=10: must be at least socket.request.max.bytes, which is 104857600, or -1",
            ),
            (
                "group.min.session.timeout.ms=9\ngroup.max.session.timeout.ms=8",
                "server.properties:1: group.min.session.timeout.ms=9: must not exceed group.max.session.timeout.ms, which is 8",
            ),
            (
                "log.retention.ms=0",
                "server.properties:1: log.retention.ms=0: must be -1 (for ever) or at least 1",
            ),
            (
                "listeners=SSL://:1,CONTROLLER://:2\nsecurity.inter.broker.protocol=SSL",
                "server.properties:1: listeners=SSL://:1,CONTROLLER://:2: SSL uses SSL, only PLAINTEXT is served yet",
            ),
            (
                "authorizer.class.name=com.example.Authorizer",
                "server.properties:1: authorizer.class.name=com.example.Authorizer: Java authorizers can't be loaded; only org.apache.kafka.metadata.authorizer.StandardAuthorizer is served",
            ),
            (
                "super.users=User:root;alice",
                "server.properties:1: super.users=User:root;alice: alice is no principal; it is written as User:alice",
            ),
            (
                "node.id=1\ncontroller.quorum.voters=2@b:1,3@c:1",
                "server.properties:2: controller.quorum.voters=2@b:1,3@c:1: names node 2, but this is node 1",
            ),
        ] {
            assert_eq!(error(text, &[]), message);
        }
        // Kafka demands this one once the roles are written down.
        assert_eq!(
            error(
                "process.roles=broker,controller\nlisteners=PLAINTEXT://:1",
                &[]
            ),
            "controller.listener.names: must name a listener"
        );
    }

    #[test]
    fn unknown_keys_warn_with_their_neighbour() {
        let loaded = load_text(
            "num.partition=3\nretention.ms=5\nrsm.config.x=1\nleader.replication.throttled.rate=5\nnum.io.threads=1\nnum.io.threads=2\n",
            &["foo.bar=1"],
        )
        .unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "server.properties:6: num.io.threads is also set on line 5; the last one counts",
                "--override: unknown key foo.bar; did you mean log.dir?",
                "server.properties:4: leader.replication.throttled.rate can only be set dynamically (kafka-configs); ignored here",
                "server.properties:1: unknown key num.partition; did you mean num.partitions?",
                "server.properties:2: retention.ms is a topic's key; for all topics set log.retention.ms",
            ]
        );
        assert_eq!(
            loaded.without_effect,
            ["leader.replication.throttled.rate", "num.io.threads"]
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Path::new("/nonexistent/server.properties");
        let message = load(Some(missing), &[]).unwrap_err().to_string();
        assert!(message.starts_with("can't read the config file /nonexistent/server.properties: "));
    }

    #[test]
    fn secrets_are_not_shown() {
        let property = table::find(Scope::Broker, "ssl.key.password").unwrap();
        assert!(property.is_sensitive());
    }
}
