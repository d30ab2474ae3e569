//! The CreateTopics request for topics that come into being because someone needs them:
//! named in a Metadata request, or an internal topic of a coordinator.

use super::topic_name;
use crate::wire::messages::CreateTopicsRequest;
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

/// Version of CreateTopics that the request is built for.
pub const AUTO_CREATE_VERSION: i16 = 7;

/// How topics are created automatically; from the node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoCreateSettings {
    /// `num.partitions`, if configured; else the controller's.
    pub num_partitions: Option<i32>,
    /// `default.replication.factor`, if configured; else the controller's.
    pub replication_factor: Option<i16>,
    /// `offsets.topic.*`
    pub offsets: InternalTopicSettings,
    /// `transaction.state.log.*`
    pub transactions: InternalTopicSettings,
    /// `share.coordinator.state.topic.*`
    pub shares: InternalTopicSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopicSettings {
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub segment_bytes: i32,
    /// Where Kafka sets it on the topic.
    pub min_insync_replicas: i32,
}

/// A request that creates `names`. Invalid names are left out.
pub fn auto_create_request(names: &[&str], settings: &AutoCreateSettings) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: names
            .iter()
            .filter(|name| topic_name::validate(name).is_ok())
            .map(|name| creatable(name, settings))
            .collect(),
        ..Default::default()
    }
}

fn creatable(name: &str, settings: &AutoCreateSettings) -> CreatableTopic {
    let (internal, configs) = match name {
        topic_name::CONSUMER_OFFSETS => {
            let configs = vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", settings.offsets.segment_bytes.to_string()),
            ];
            (&settings.offsets, configs)
        }
        topic_name::TRANSACTION_STATE => {
            let internal = &settings.transactions;
            let configs = vec![
                ("unclean.leader.election.enable", "false".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("cleanup.policy", "compact".to_owned()),
                (
                    "min.insync.replicas",
                    internal.min_insync_replicas.to_string(),
                ),
                ("segment.bytes", internal.segment_bytes.to_string()),
            ];
            (internal, configs)
        }
        topic_name::SHARE_GROUP_STATE => {
            let internal = &settings.shares;
            let configs = vec![
                ("cleanup.policy", "delete".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", internal.segment_bytes.to_string()),
                (
                    "min.insync.replicas",
                    internal.min_insync_replicas.to_string(),
                ),
                ("retention.ms", "-1".to_owned()),
            ];
            (internal, configs)
        }
        _ => {
            return CreatableTopic {
                name: name.to_owned(),
                num_partitions: settings.num_partitions.unwrap_or(-1),
                replication_factor: settings.replication_factor.unwrap_or(-1),
                ..Default::default()
            };
        }
    };
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: internal.num_partitions,
        replication_factor: internal.replication_factor,
        configs: configs
            .into_iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.to_owned(),
                value: Some(value),
            })
            .collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_topics_bring_their_configs() {
        let internal = |num_partitions| InternalTopicSettings {
            num_partitions,
            replication_factor: 1,
            segment_bytes: 104_857_600,
            min_insync_replicas: 2,
        };
        let settings = AutoCreateSettings {
            num_partitions: None,
            replication_factor: Some(3),
            offsets: internal(50),
            transactions: internal(49),
            shares: internal(48),
        };
        let names = ["t", "__consumer_offsets", "a b", "__transaction_state"];
        let request = auto_create_request(&names, &settings);
        let topics: Vec<_> = request
            .topics
            .iter()
            .map(|t| {
                (
                    t.name.as_str(),
                    t.num_partitions,
                    t.replication_factor,
                    t.configs.len(),
                )
            })
            .collect();
        assert_eq!(
            topics,
            [
                ("t", -1, 3, 0),
                ("__consumer_offsets", 50, 1, 3),
                ("__transaction_state", 49, 1, 5)
            ]
        );
    }
}
