//! The node's typed configuration, read once at start and immutable from then on.
//!
//! Fields carry Kafka's names; times are in the unit of their name, sizes in bytes.
//! What can change while running is read through [`super::Layers`] instead
//! ([`DynamicConfig`], [`super::TopicConfig`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::BrokerId;

use super::layers::{ConfigMap, Layers, Reader};
use super::listeners::Listeners;
use super::load::{ConfigError, Mistake, Origin, Origins};

/// Everything that the parts of a node need to know at start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub roles: Roles,
    /// None: a node id is drawn at first start and kept in meta.properties.
    pub node_id: Option<BrokerId>,
    pub rack: Option<String>,
    pub listeners: Listeners,
    /// Static quorum (`controller.quorum.voters`); empty with a dynamic one.
    pub quorum_voters: Vec<Voter>,
    /// Host and port of each of `controller.quorum.bootstrap.servers`.
    pub quorum_bootstrap_servers: Vec<(String, u16)>,
    /// At least one.
    pub log_dirs: Vec<PathBuf>,
    /// The first of `log_dirs` unless set.
    pub metadata_log_dir: PathBuf,
    pub runtime: RuntimeConfig,
    pub network: NetworkConfig,
    pub fetch: FetchConfig,
    pub replication: ReplicationConfig,
    pub topics: TopicDefaults,
    pub log: LogManagerConfig,
    pub group: GroupCoordinatorConfig,
    pub transaction: TransactionConfig,
    pub metadata: MetadataConfig,
    /// None: everybody may do everything.
    pub authorizer: Option<AuthorizerConfig>,
    /// Keys and values of the file and the command line: the bottom layer for
    /// [`super::TopicConfig`] and DescribeConfigs.
    pub fixed: Arc<ConfigMap>,
    /// Where each of them was written.
    pub(super) origins: Arc<Origins>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    pub broker: bool,
    pub controller: bool,
}

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
}

/// Ottla's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    pub cores: Cores,
    /// How long an idle event loop looks for work before it sleeps.
    pub spin_us: u32,
    pub spin_mode: SpinMode,
    pub fetch_path: FetchPath,
    /// Hosts and ports where the node's numbers are served.
    pub metrics_listen: Vec<(String, u16)>,
    /// A tracing filter.
    pub log_level: String,
}

/// `ottla.cores`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One event loop for each CPU that the process may use, pinned to it; fewer and not
    /// pinned where a quota grants less.
    Auto,
    /// That many event loops, 1 to [`Cores::MAX`]; pinned if there are as many CPUs.
    Count(usize),
    /// One event loop on each of these CPUs, without repetition.
    Cpus(Vec<usize>),
}

/// `ottla.spin.mode`: when an idle event loop looks for work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinMode {
    /// While most of its waits have been short.
    Adaptive,
    /// Each time: for CPUs that nobody else needs.
    Always,
}

/// `ottla.fetch.path`: how what isn't in the tail cache goes from its file to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPath {
    /// By size and by what the page cache holds.
    Auto,
    /// Read, then sent.
    Memory,
    /// `sendfile`, which blocks the event loop on what isn't cached.
    Sendfile,
    /// io_uring splice through a pipe.
    Splice,
}

/// `ottla.durability`: where a record has to be before it is acknowledged or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the page cache of every in-sync replica, as in Kafka.
    Os,
    /// On stable storage of every in-sync replica.
    Fsync,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// A larger request closes its connection before anything is allocated for it.
    pub socket_request_max_bytes: i32,
    pub socket_listen_backlog_size: i32,
    /// -1 leaves the system's default.
    pub socket_send_buffer_bytes: i32,
    /// -1 leaves the system's default.
    pub socket_receive_buffer_bytes: i32,
    pub connections_max_idle_ms: i64,
    pub queued_max_request_bytes: QueuedBytes,
    pub request_timeout_ms: i32,
}

/// `queued.max.request.bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuedBytes {
    /// Not set: bounded by the memory that the process may use.
    Auto,
    Unlimited,
    Max(u64),
}

/// How followers fetch from leaders.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicationConfig {
    pub num_replica_fetchers: i32,
    pub replica_fetch_backoff_ms: i32,
    pub replica_fetch_max_bytes: i32,
    pub replica_fetch_min_bytes: i32,
    pub replica_fetch_response_max_bytes: i32,
    pub replica_fetch_wait_max_ms: i32,
    pub replica_socket_timeout_ms: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchConfig {
    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,
}

/// What a new topic gets.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicDefaults {
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogManagerConfig {
    pub log_retention_check_interval_ms: i64,
    pub log_flush_scheduler_interval_ms: i64,
    pub log_flush_offset_checkpoint_interval_ms: i32,
    pub log_flush_start_offset_checkpoint_interval_ms: i32,
    pub log_initial_task_delay_ms: i64,
    pub replica_high_watermark_checkpoint_interval_ms: i64,
    pub num_recovery_threads_per_data_dir: i32,
    pub producer_id_expiration_check_interval_ms: i32,
    pub replica_lag_time_max_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GroupCoordinatorConfig {
    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_size: i32,
    pub offset_metadata_max_bytes: i32,
    pub offsets_commit_timeout_ms: i32,
    pub offsets_load_buffer_size: i32,
    pub offsets_retention_minutes: i32,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_segment_bytes: i32,
    /// Codec number of batches in `__consumer_offsets`: 0 none, 1 gzip, 2 snappy, 3 lz4,
    /// 4 zstd.
    pub offsets_topic_compression_codec: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TransactionConfig {
    pub transaction_max_timeout_ms: i32,
    pub transaction_state_log_num_partitions: i32,
    pub transaction_state_log_replication_factor: i16,
    pub transaction_state_log_min_isr: i32,
    pub transaction_state_log_segment_bytes: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetadataConfig {
    pub metadata_log_max_record_bytes_between_snapshots: i64,
    pub metadata_max_retention_bytes: i64,
    pub metadata_max_retention_ms: i64,
    pub metadata_max_idle_interval_ms: i32,
    pub metadata_log_segment_bytes: i32,
    pub metadata_log_segment_ms: i64,
    pub controller_quorum_append_linger_ms: i32,
    pub controller_quorum_election_timeout_ms: i32,
    pub controller_quorum_election_backoff_max_ms: i32,
    pub controller_quorum_fetch_timeout_ms: i32,
    pub controller_quorum_request_timeout_ms: i32,
    pub controller_quorum_retry_backoff_ms: i32,
    pub controller_quorum_auto_join_enable: bool,
    pub controller_quorum_fetch_max_bytes: i32,
    pub controller_quorum_fetch_snapshot_max_bytes: i32,
    pub broker_heartbeat_interval_ms: i32,
    pub broker_session_timeout_ms: i32,
}

/// The authorizer that goes by ACLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerConfig {
    /// Each as `User:name`.
    pub super_users: Vec<String>,
    pub allow_everyone_if_no_acl_found: bool,
}

/// What a listener's connections are held to: its own values, else the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimitsConfig {
    pub max_connections: i32,
    pub max_connection_creation_rate: i32,
}

/// Broker settings that may change while running and belong to no topic.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicConfig {
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// `host:count` entries as written.
    pub max_connections_per_ip_overrides: String,
    pub max_connection_creation_rate: i32,
    pub producer_id_expiration_ms: i32,
    pub durability: Durability,
    /// Paths of `log.dirs`, or `*`.
    pub cordoned_log_dirs: Vec<String>,
    pub replica_alter_log_dirs_io_max_bytes_per_second: i64,
}

impl NodeConfig {
    /// Reads the typed view out of checked values. `fixed` has passed
    /// [`super::load`]'s checks of each value by itself.
    pub(super) fn read(fixed: Arc<ConfigMap>, listeners: Listeners, reader: &Reader<'_>) -> Self {
        let r = reader;
        let roles = r.list("process.roles");
        let has_role = |name: &str| roles.iter().any(|role| role == name);
        let log_dirs = log_dirs(r);
        let metadata_log_dir = r
            .opt_text("metadata.log.dir")
            .map_or_else(|| log_dirs[0].clone(), PathBuf::from);
        NodeConfig {
            roles: Roles {
                broker: has_role("broker"),
                controller: has_role("controller"),
            },
            node_id: node_id(r),
            rack: r.opt_text("broker.rack"),
            listeners,
            quorum_voters: r
                .list("controller.quorum.voters")
                .iter()
                .filter_map(|v| voter(v))
                .collect(),
            quorum_bootstrap_servers: r
                .list("controller.quorum.bootstrap.servers")
                .iter()
                .filter_map(|server| super::value::split_endpoint(server))
                .map(|(host, port)| (host.to_owned(), port))
                .collect(),
            log_dirs,
            metadata_log_dir,
            runtime: runtime(r),
            network: network(r),
            fetch: FetchConfig {
                fetch_max_bytes: r.int("fetch.max.bytes"),
                max_incremental_fetch_session_cache_slots: r
                    .int("max.incremental.fetch.session.cache.slots"),
                max_request_partition_size_limit: r.int("max.request.partition.size.limit"),
            },
            replication: replication(r),
            topics: TopicDefaults {
                num_partitions: r.int("num.partitions"),
                // An INT in Kafka, though a replication factor has 16 bits everywhere else.
                default_replication_factor: i16::try_from(r.int("default.replication.factor"))
                    .unwrap_or(i16::MAX),
                auto_create_topics_enable: r.boolean("auto.create.topics.enable"),
                delete_topic_enable: r.boolean("delete.topic.enable"),
            },
            log: log_manager(r),
            group: group(r),
            transaction: TransactionConfig {
                transaction_max_timeout_ms: r.int("transaction.max.timeout.ms"),
                transaction_state_log_num_partitions: r.int("transaction.state.log.num.partitions"),
                transaction_state_log_replication_factor: r
                    .short("transaction.state.log.replication.factor"),
                transaction_state_log_min_isr: r.int("transaction.state.log.min.isr"),
                transaction_state_log_segment_bytes: r.int("transaction.state.log.segment.bytes"),
            },
            metadata: MetadataConfig {
                metadata_max_retention_bytes: r.long("metadata.max.retention.bytes"),
                metadata_max_retention_ms: r.long("metadata.max.retention.ms"),
                metadata_log_max_record_bytes_between_snapshots: r
                    .long("metadata.log.max.record.bytes.between.snapshots"),
                metadata_max_idle_interval_ms: r.int("metadata.max.idle.interval.ms"),
                metadata_log_segment_bytes: r
                    .opt_int("internal.metadata.log.segment.bytes")
                    .unwrap_or_else(|| r.int("metadata.log.segment.bytes")),
                metadata_log_segment_ms: r.long("metadata.log.segment.ms"),
                controller_quorum_append_linger_ms: r.int("controller.quorum.append.linger.ms"),
                controller_quorum_election_timeout_ms: r
                    .int("controller.quorum.election.timeout.ms"),
                controller_quorum_election_backoff_max_ms: r
                    .int("controller.quorum.election.backoff.max.ms"),
                controller_quorum_fetch_timeout_ms: r.int("controller.quorum.fetch.timeout.ms"),
                controller_quorum_request_timeout_ms: r.int("controller.quorum.request.timeout.ms"),
                controller_quorum_retry_backoff_ms: r.int("controller.quorum.retry.backoff.ms"),
                controller_quorum_auto_join_enable: r.boolean("controller.quorum.auto.join.enable"),
                controller_quorum_fetch_max_bytes: r.int("controller.quorum.fetch.max.bytes"),
                controller_quorum_fetch_snapshot_max_bytes: r
                    .int("controller.quorum.fetch.snapshot.max.bytes"),
                broker_heartbeat_interval_ms: r.int("broker.heartbeat.interval.ms"),
                broker_session_timeout_ms: r.int("broker.session.timeout.ms"),
            },
            authorizer: authorizer(r),
            fixed,
            origins: Arc::default(),
        }
    }

    /// For what only the machine can tell to be wrong: an error that names where the setting
    /// stands, as those that are found while loading do.
    pub fn mistake(&self, key: &'static str, what: String) -> ConfigError {
        let origin = self.origins.get(key).cloned();
        let value = self.fixed.get(key).filter(|_| origin.is_some()).cloned();
        ConfigError::Mistakes(vec![Mistake {
            origin: origin.unwrap_or(Origin::BuiltIn),
            key: key.to_owned(),
            value,
            what,
        }])
    }

    /// The layers of this node without anything dynamic.
    pub fn layers(&self) -> Layers<'_> {
        Layers::of_node(&self.fixed)
    }
}

impl DynamicConfig {
    pub fn effective(layers: &Layers<'_>) -> DynamicConfig {
        DynamicConfig::read(&Reader::new(*layers))
    }

    /// Whether a log directory takes no new partitions (KIP-1066).
    pub fn is_cordoned(&self, log_dir: &Path) -> bool {
        let mut named = self.cordoned_log_dirs.iter();
        named.any(|name| name == "*" || Path::new(name) == log_dir)
    }

    pub(super) fn read(r: &Reader<'_>) -> DynamicConfig {
        DynamicConfig {
            max_connections: r.int("max.connections"),
            max_connections_per_ip: r.int("max.connections.per.ip"),
            max_connections_per_ip_overrides: r.text("max.connections.per.ip.overrides"),
            max_connection_creation_rate: r.int("max.connection.creation.rate"),
            producer_id_expiration_ms: r.int("producer.id.expiration.ms"),
            durability: Durability::parse(&r.text("ottla.durability"))
                .expect("the table's check allows these names"),
            cordoned_log_dirs: r.list("cordoned.log.dirs"),
            replica_alter_log_dirs_io_max_bytes_per_second: r
                .long("replica.alter.log.dirs.io.max.bytes.per.second"),
        }
    }
}

impl ListenerLimitsConfig {
    pub fn effective(layers: &Layers<'_>, listener: &str) -> ListenerLimitsConfig {
        let r = Reader::new(*layers);
        ListenerLimitsConfig {
            max_connections: r.int_of_listener(listener, "max.connections"),
            max_connection_creation_rate: r
                .int_of_listener(listener, "max.connection.creation.rate"),
        }
    }
}

impl Cores {
    /// More event loops than this are refused.
    pub const MAX: usize = 256;

    pub(super) fn parse(text: &str) -> Option<Cores> {
        if text == "auto" {
            return Some(Cores::Auto);
        }
        if let Ok(count) = text.parse::<usize>() {
            return (1..=Cores::MAX)
                .contains(&count)
                .then_some(Cores::Count(count));
        }
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            if first > last || last - first >= Cores::MAX {
                return None;
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) || cpus.len() == Cores::MAX {
                    return None;
                }
                cpus.push(cpu);
            }
        }
        Some(Cores::Cpus(cpus))
    }
}

impl SpinMode {
    pub(super) const NAMES: [&str; 2] = ["adaptive", "always"];

    pub(super) fn parse(text: &str) -> Option<SpinMode> {
        Some(match text {
            "adaptive" => SpinMode::Adaptive,
            "always" => SpinMode::Always,
            _ => return None,
        })
    }
}

impl FetchPath {
    pub(super) const NAMES: [&str; 4] = ["auto", "memory", "sendfile", "splice"];

    pub(super) fn parse(text: &str) -> Option<FetchPath> {
        Some(match text {
            "auto" => FetchPath::Auto,
            "memory" => FetchPath::Memory,
            "sendfile" => FetchPath::Sendfile,
            "splice" => FetchPath::Splice,
            _ => return None,
        })
    }
}

impl Durability {
    pub(super) const NAMES: [&str; 2] = ["os", "fsync"];

    pub(super) fn parse(text: &str) -> Option<Durability> {
        Some(match text {
            "os" => Durability::Os,
            "fsync" => Durability::Fsync,
            _ => return None,
        })
    }
}

/// `node.id`, or its older name. Kafka's -1 of broker.id means "none".
pub(super) fn node_id(r: &Reader<'_>) -> Option<BrokerId> {
    r.opt_int("node.id")
        .or_else(|| r.opt_int("broker.id").filter(|id| *id >= 0))
        .map(BrokerId)
}

fn log_dirs(r: &Reader<'_>) -> Vec<PathBuf> {
    let dirs = r.opt_list("log.dirs").unwrap_or_else(|| r.list("log.dir"));
    assert!(
        !dirs.is_empty(),
        "both keys are checked to name a directory"
    );
    dirs.into_iter().map(PathBuf::from).collect()
}

fn voter(entry: &str) -> Option<Voter> {
    let (id, endpoint) = entry.split_once('@')?;
    let (host, port) = super::value::split_endpoint(endpoint)?;
    Some(Voter {
        id: BrokerId(id.parse().ok()?),
        host: host.to_owned(),
        port,
    })
}

fn runtime(r: &Reader<'_>) -> RuntimeConfig {
    RuntimeConfig {
        cores: Cores::parse(&r.text("ottla.cores")).expect("the table's check parses it"),
        spin_us: u32::try_from(r.int("ottla.spin.us")).expect("the table's bound is 0"),
        spin_mode: SpinMode::parse(&r.text("ottla.spin.mode"))
            .expect("the table's check allows these names"),
        fetch_path: FetchPath::parse(&r.text("ottla.fetch.path"))
            .expect("the table's check allows these names"),
        metrics_listen: r
            .list("ottla.metrics.listen")
            .iter()
            .filter_map(|endpoint| super::value::split_endpoint(endpoint))
            .map(|(host, port)| (host.to_owned(), port))
            .collect(),
        log_level: r.text("ottla.log.level"),
    }
}

fn network(r: &Reader<'_>) -> NetworkConfig {
    NetworkConfig {
        socket_request_max_bytes: r.int("socket.request.max.bytes"),
        socket_listen_backlog_size: r.int("socket.listen.backlog.size"),
        socket_send_buffer_bytes: r.int("socket.send.buffer.bytes"),
        socket_receive_buffer_bytes: r.int("socket.receive.buffer.bytes"),
        connections_max_idle_ms: r.long("connections.max.idle.ms"),
        queued_max_request_bytes: match u64::try_from(r.long("queued.max.request.bytes")) {
            _ if !r.is_set("queued.max.request.bytes") => QueuedBytes::Auto,
            Ok(bytes) if bytes > 0 => QueuedBytes::Max(bytes),
            _ => QueuedBytes::Unlimited,
        },
        request_timeout_ms: r.int("request.timeout.ms"),
    }
}

fn replication(r: &Reader<'_>) -> ReplicationConfig {
    ReplicationConfig {
        num_replica_fetchers: r.int("num.replica.fetchers"),
        replica_fetch_backoff_ms: r.int("replica.fetch.backoff.ms"),
        replica_fetch_max_bytes: r.int("replica.fetch.max.bytes"),
        replica_fetch_min_bytes: r.int("replica.fetch.min.bytes"),
        replica_fetch_response_max_bytes: r.int("replica.fetch.response.max.bytes"),
        replica_fetch_wait_max_ms: r.int("replica.fetch.wait.max.ms"),
        replica_socket_timeout_ms: r.int("replica.socket.timeout.ms"),
    }
}

fn log_manager(r: &Reader<'_>) -> LogManagerConfig {
    LogManagerConfig {
        log_retention_check_interval_ms: r.long("log.retention.check.interval.ms"),
        log_flush_scheduler_interval_ms: r.long("log.flush.scheduler.interval.ms"),
        log_flush_offset_checkpoint_interval_ms: r.int("log.flush.offset.checkpoint.interval.ms"),
        log_flush_start_offset_checkpoint_interval_ms: r
            .int("log.flush.start.offset.checkpoint.interval.ms"),
        log_initial_task_delay_ms: r.long("log.initial.task.delay.ms"),
        replica_high_watermark_checkpoint_interval_ms: r
            .long("replica.high.watermark.checkpoint.interval.ms"),
        num_recovery_threads_per_data_dir: r.int("num.recovery.threads.per.data.dir"),
        producer_id_expiration_check_interval_ms: r.int("producer.id.expiration.check.interval.ms"),
        replica_lag_time_max_ms: r.long("replica.lag.time.max.ms"),
    }
}

fn authorizer(r: &Reader<'_>) -> Option<AuthorizerConfig> {
    let config = AuthorizerConfig {
        super_users: r
            .opt_text("super.users")
            .unwrap_or_default()
            .split(';')
            .map(str::trim)
            .filter(|user| !user.is_empty())
            .map(str::to_owned)
            .collect(),
        allow_everyone_if_no_acl_found: r.boolean("allow.everyone.if.no.acl.found"),
    };
    // Any other class was refused.
    (!r.text("authorizer.class.name").is_empty()).then_some(config)
}

fn group(r: &Reader<'_>) -> GroupCoordinatorConfig {
    GroupCoordinatorConfig {
        group_min_session_timeout_ms: r.int("group.min.session.timeout.ms"),
        group_max_session_timeout_ms: r.int("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms: r.int("group.initial.rebalance.delay.ms"),
        group_max_size: r.int("group.max.size"),
        offset_metadata_max_bytes: r.int("offset.metadata.max.bytes"),
        offsets_commit_timeout_ms: r.int("offsets.commit.timeout.ms"),
        offsets_load_buffer_size: r.int("offsets.load.buffer.size"),
        offsets_retention_minutes: r.int("offsets.retention.minutes"),
        offsets_retention_check_interval_ms: r.long("offsets.retention.check.interval.ms"),
        offsets_topic_num_partitions: r.int("offsets.topic.num.partitions"),
        offsets_topic_replication_factor: r.short("offsets.topic.replication.factor"),
        offsets_topic_segment_bytes: r.int("offsets.topic.segment.bytes"),
        offsets_topic_compression_codec: r.int("offsets.topic.compression.codec"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_auto_a_number_or_cpus() {
        assert_eq!(Cores::parse("auto"), Some(Cores::Auto));
        assert_eq!(Cores::parse("4"), Some(Cores::Count(4)));
        assert_eq!(Cores::parse("0,2-3"), Some(Cores::Cpus(vec![0, 2, 3])));
        assert_eq!(Cores::parse("1-1"), Some(Cores::Cpus(vec![1])));
        for text in [
            "",
            "0",
            "257",
            "-1",
            "a",
            "1,1",
            "3-2",
            "0-999999999999",
            "0,",
            "1-2-3",
        ] {
            assert_eq!(Cores::parse(text), None, "{text}");
        }
    }
}
