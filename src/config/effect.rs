//! What Ottla acts on. The table holds all of Kafka's properties; docs/CONFIG.md and the
//! start tell which of them change anything here, out of what the typed views read.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::layers::{ConfigMap, Layers, Reader};
use super::listeners::Listeners;
use super::load::SINGLE_NODE;
use super::node::{DynamicConfig, NodeConfig, Roles};
use super::table::{self, Scope};
use super::topic;

/// Properties of nodes and topics that are read into a typed field which nothing goes by
/// yet. A test keeps the list true.
const NOT_ACTED_ON: &[&str] = &[
    "controller.quorum.append.linger.ms",
    "delete.retention.ms",
    "log.flush.start.offset.checkpoint.interval.ms",
    "max.compaction.lag.ms",
    "max.request.partition.size.limit",
    "metadata.max.idle.interval.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "num.recovery.threads.per.data.dir",
    "preallocate",
    "request.timeout.ms",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "transaction.max.timeout.ms",
    "unclean.leader.election.enable",
];

/// Broker properties that Ottla acts on; it accepts the others, but they change nothing.
pub fn node_names() -> &'static BTreeSet<&'static str> {
    static NAMES: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = typed_names().clone();
        for property in table::properties(Scope::Topic) {
            if topic_names().contains(property.name) {
                names.extend(topic::synonyms(property.name).iter().map(|(name, _)| *name));
            }
        }
        names.retain(|name| !NOT_ACTED_ON.contains(name));
        names
    })
}

/// Topic properties that Ottla acts on.
pub fn topic_names() -> &'static BTreeSet<&'static str> {
    static NAMES: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = topic::typed_names().clone();
        names.retain(|name| !NOT_ACTED_ON.contains(name));
        names
    })
}

/// Broker properties that have a field in one of the typed views.
fn typed_names() -> &'static BTreeSet<&'static str> {
    static NAMES: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let fixed: ConfigMap = SINGLE_NODE
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let reader = Reader::new(Layers::of_node(&fixed));
        let roles = Roles {
            broker: true,
            controller: true,
        };
        let listeners = Listeners::read(&reader, roles, "localhost").expect("a test reads these");
        NodeConfig::read(Arc::default(), listeners, &reader);
        DynamicConfig::read(&reader);
        let mut names = reader.names_read();
        names.extend([
            "log.dir",
            "log.dirs",
            "node.id",
            "broker.id",
            "metadata.log.dir",
        ]);
        names
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Names whose field is called otherwise.
    const FIELDS: &[(&str, &str)] = &[
        ("advertised.listeners", "listeners"),
        ("authorizer.class.name", "authorizer"),
        ("broker.id", "node_id"),
        ("broker.rack", "rack"),
        ("compression.gzip.level", "compression"),
        ("compression.lz4.level", "compression"),
        ("compression.type", "compression"),
        ("compression.zstd.level", "compression"),
        ("controller.listener.names", "listeners"),
        (
            "controller.quorum.bootstrap.servers",
            "quorum_bootstrap_servers",
        ),
        ("controller.quorum.voters", "quorum_voters"),
        ("inter.broker.listener.name", "listeners"),
        (
            "internal.metadata.log.segment.bytes",
            "metadata_log_segment_bytes",
        ),
        ("internal.segment.bytes", "segment_bytes"),
        ("listener.security.protocol.map", "listeners"),
        ("log.dir", "log_dirs"),
        ("ottla.cores", "cores"),
        ("ottla.durability", "durability"),
        ("ottla.fetch.path", "fetch_path"),
        ("ottla.log.level", "log_level"),
        ("ottla.metrics.listen", "metrics_listen"),
        ("ottla.spin.mode", "spin_mode"),
        ("ottla.spin.us", "spin_us"),
        ("process.roles", "roles"),
        ("security.inter.broker.protocol", "listeners"),
    ];

    /// All code outside `config`, and the generated messages left out.
    fn code_outside() -> String {
        fn add(folder: &Path, code: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with("src/config") && !path.ends_with("src/wire") {
                    add(&path, code);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    code.push_str(&std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut code = String::new();
        add(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut code,
        );
        code
    }

    #[test]
    fn what_is_said_to_have_an_effect_is_used() {
        let code = code_outside();
        let words: BTreeSet<&str> = code
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect();
        let synonyms: BTreeSet<&str> = table::properties(Scope::Topic)
            .flat_map(|property| topic::synonyms(property.name))
            .map(|(name, _)| *name)
            .collect();
        let typed = typed_names().iter().chain(topic::typed_names());
        let mut wrong = Vec::new();
        for name in typed.filter(|name| !synonyms.contains(**name) || is_topics(name)) {
            let field = FIELDS
                .iter()
                .find(|(known, _)| known == name)
                .map_or_else(|| name.replace('.', "_"), |(_, field)| (*field).to_owned());
            match (words.contains(field.as_str()), NOT_ACTED_ON.contains(name)) {
                (true, true) => wrong.push(format!("{name} is used; take it off NOT_ACTED_ON")),
                (false, false) => wrong.push(format!("{name} is used nowhere")),
                _ => {}
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    fn is_topics(name: &str) -> bool {
        table::find(Scope::Topic, name).is_some()
    }
}
