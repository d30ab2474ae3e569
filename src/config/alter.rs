//! What AlterConfigs, IncrementalAlterConfigs and CreateTopics may set: checks whose
//! messages are word for word those of Apache Kafka 4.3.1, and the arithmetic of lists.
//!
//! The caller has settled that the resource exists and may be altered.

use crate::base::ErrorCode;

use super::layers::{ConfigMap, Layers};
use super::table::{self, Kind, Scope, Update};
use super::topic;
use super::value::{self, Value};

/// A refused change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub error: ErrorCode,
    pub message: String,
}

/// `AlterConfigOp.OpType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Op {
    pub fn from_wire(id: i8) -> Option<Op> {
        match id {
            0 => Some(Op::Set),
            1 => Some(Op::Delete),
            2 => Some(Op::Append),
            3 => Some(Op::Subtract),
            _ => None,
        }
    }
}

/// The value of a key after one operation; None where it is unset. `current` is the
/// resource's own value. Lists grow from their default.
pub fn apply(
    scope: Scope,
    name: &str,
    op: Op,
    current: Option<&str>,
    value: &str,
) -> Result<Option<String>, Invalid> {
    let verb = match op {
        Op::Set => return Ok(Some(value.to_owned())),
        Op::Delete => return Ok(None),
        Op::Append => "append",
        Op::Subtract => "subtract",
    };
    let property = match scope {
        Scope::Broker => table::find_broker(name),
        _ => table::find(scope, name),
    };
    let Some(property) = property.filter(|property| property.kind == Kind::List) else {
        return Err(invalid_config(match scope {
            // Broker resources are answered by the broker, the others by the controller.
            Scope::Broker => format!("Config value {verb} is not allowed for config key: {name}"),
            _ => format!(
                "Can't {} to key {name} because its type is not LIST.",
                verb.to_uppercase()
            ),
        }));
    };
    let current = match (current, property.default) {
        (Some(text), _) => text,
        (None, table::DefaultValue::V(text)) => text,
        (None, _) => "",
    };
    let mut entries: Vec<&str> = current
        .split(',')
        .filter(|entry| !entry.is_empty())
        .collect();
    for entry in value.split(',') {
        let at = entries.iter().position(|known| *known == entry);
        match (op, at) {
            (Op::Append, None) => entries.push(entry),
            (Op::Subtract, Some(at)) => {
                entries.remove(at);
            }
            _ => {}
        }
    }
    Ok(Some(entries.join(",")))
}

/// Checks all of a topic's own values, as they would be after the change.
pub fn check_topic(own: &ConfigMap, layers: &Layers<'_>) -> Result<(), Invalid> {
    for name in own.keys() {
        if table::find(Scope::Topic, name).is_none() {
            return Err(invalid_config(format!("Unknown topic config name: {name}")));
        }
    }
    check_values(Scope::Topic, own)?;
    let layers = layers.with_resource(own);
    let effective = |name: &str| {
        table::find(Scope::Topic, name).and_then(|property| topic::value(&layers, property))
    };
    if let (Some(Value::Integer(least)), Some(Value::Integer(most))) = (
        effective("min.compaction.lag.ms"),
        effective("max.compaction.lag.ms"),
    ) && least > most
    {
        return Err(invalid_config(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )));
    }
    if effective("remote.storage.enable") == Some(Value::Boolean(true)) {
        return Err(invalid_config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ));
    }
    Ok(())
}

/// Checks all of a broker's dynamic values, as they would be after the change;
/// `per_broker` is false for the cluster's default.
pub fn check_broker(own: &ConfigMap, per_broker: bool) -> Result<(), Invalid> {
    let names = |wanted: &dyn Fn(&str) -> bool| -> Vec<&str> {
        own.keys()
            .map(String::as_str)
            .filter(|name| wanted(name))
            .collect()
    };
    let plain = |name: &str| table::find(Scope::Broker, name);
    let fixed = names(&|name| plain(name).is_some_and(|p| p.update == Update::AtStart));
    refuse("Cannot update these configs dynamically", &fixed)?;
    let bare = names(&|name| LISTENER_SECURITY.contains(&name));
    refuse(
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        &bare,
    )?;
    for (name, text) in own {
        if let Some(property) = table::find_broker(name) {
            value::parse_as(property, name, text).map_err(invalid_request)?;
            let plug_in = match property.name {
                "metric.reporters" => value::split_list(text)
                    .into_iter()
                    .find(|class| !is_known_class(property.default, class)),
                _ if property.kind != Kind::Class => None,
                _ => Some(text.clone()).filter(|class| !is_known_class(property.default, class)),
            };
            if let Some(class) = plug_in {
                return Err(invalid_request(format!(
                    "Invalid value {class} for configuration {name}: Class {class} could not be found."
                )));
            }
        }
    }
    if !per_broker {
        let own_only = names(&|name| match plain(name) {
            Some(property) => property.update == Update::PerBroker,
            // With a listener's prefix, all but the limits of a listener.
            None => table::find_broker(name).is_some_and(|property| {
                property.is_dynamic() && !LISTENER_LIMITS.contains(&property.name)
            }),
        });
        refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            &own_only,
        )?;
    }
    if own
        .get("log.retention.ms")
        .is_some_and(|text| text.trim() == "0")
    {
        return Err(invalid_request(
            "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        ));
    }
    Ok(())
}

/// Checks all of a group's own values against the node's bounds.
pub fn check_group(own: &ConfigMap, layers: &Layers<'_>) -> Result<(), Invalid> {
    for name in own.keys() {
        if table::find(Scope::Group, name).is_none() {
            return Err(invalid_config(format!("Unknown group config name: {name}")));
        }
    }
    check_values(Scope::Group, own)?;
    let broker = |name: &str| super::layers::Reader::new(*layers).opt_long(name);
    for (name, text) in own {
        let Ok(number) = text.trim().parse::<i64>() else {
            continue;
        };
        let Some((family, rest)) = name.split_once('.') else {
            continue;
        };
        // group.<family>.min.<rest> and .max.<rest>, where there are such bounds
        let rest = rest.strip_prefix("num.").unwrap_or(rest);
        for (bound, word, breaks) in [
            ("min", "greater", i64::lt as fn(&i64, &i64) -> bool),
            ("max", "less", i64::gt as fn(&i64, &i64) -> bool),
        ] {
            let bound = format!("group.{family}.{bound}.{rest}");
            if table::find(Scope::Broker, &bound).is_some()
                && broker(&bound).is_some_and(|limit| breaks(&number, &limit))
            {
                return Err(invalid_config(format!(
                    "{name} must be {word} than or equal to {bound}"
                )));
            }
        }
    }
    for family in ["consumer", "share", "streams"] {
        let effective = |name: &str| {
            let own = own.get(&format!("{family}.{name}"));
            own.and_then(|text| text.trim().parse().ok())
                .or_else(|| broker(&format!("group.{family}.{name}")))
        };
        if let (Some(session), Some(heartbeat)) = (
            effective("session.timeout.ms"),
            effective("heartbeat.interval.ms"),
        ) && session <= heartbeat
        {
            return Err(invalid_config(format!(
                "{family}.session.timeout.ms must be greater than {family}.heartbeat.interval.ms"
            )));
        }
    }
    Ok(())
}

/// Checks all of a client metrics subscription's own values.
pub fn check_client_metrics(own: &ConfigMap) -> Result<(), Invalid> {
    for name in own.keys() {
        if table::find(Scope::ClientMetrics, name).is_none() {
            return Err(invalid_request(format!(
                "Unknown client metrics configuration: {name}"
            )));
        }
    }
    if let Some(text) = own.get("interval.ms") {
        let number: i32 = text.trim().parse().map_err(|_| {
            invalid_config(format!(
                "Invalid value {text} for configuration interval.ms: Not a number of type INT"
            ))
        })?;
        if !(100..=3_600_000).contains(&number) {
            return Err(invalid_request(format!(
                "Invalid value {number} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            )));
        }
    }
    for pattern in own
        .get("match")
        .map(|text| value::split_list(text))
        .unwrap_or_default()
    {
        let valid = pattern.split_once('=').is_some_and(|(name, expression)| {
            CLIENT_MATCHES.contains(&name.trim()) && !expression.contains('=')
        });
        if !valid {
            return Err(invalid_config(format!(
                "Illegal client matching pattern: {pattern}"
            )));
        }
    }
    Ok(())
}

/// Security keys that belong to one listener each.
const LISTENER_SECURITY: &[&str] = &[
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Keys that may be set for one listener in all brokers.
const LISTENER_LIMITS: &[&str] = &[
    "max.connections",
    "max.connection.creation.rate",
    "num.network.threads",
];

/// What a subscription can tell clients apart by.
const CLIENT_MATCHES: &[&str] = &[
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

fn check_values(scope: Scope, own: &ConfigMap) -> Result<(), Invalid> {
    // In the order of the table, so that the first of several mistakes is Kafka's.
    for property in table::properties(scope) {
        if let Some(text) = own.get(property.name) {
            value::parse(property, text).map_err(invalid_config)?;
        }
    }
    Ok(())
}

fn is_known_class(default: table::DefaultValue, text: &str) -> bool {
    text.trim().is_empty()
        || matches!(default, table::DefaultValue::V(known) if known == text.trim())
}

fn refuse(why: &str, names: &[&str]) -> Result<(), Invalid> {
    if names.is_empty() {
        return Ok(());
    }
    Err(invalid_request(format!("{why}: [{}]", names.join(", "))))
}

fn invalid_config(message: impl Into<String>) -> Invalid {
    Invalid {
        error: ErrorCode::INVALID_CONFIG,
        message: message.into(),
    }
}

fn invalid_request(message: impl Into<String>) -> Invalid {
    Invalid {
        error: ErrorCode::INVALID_REQUEST,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn topic(pairs: &[(&str, &str)]) -> Result<(), String> {
        let fixed = ConfigMap::new();
        check_topic(&map(pairs), &Layers::of_node(&fixed)).map_err(|e| {
            assert_eq!(e.error, ErrorCode::INVALID_CONFIG);
            e.message
        })
    }

    fn broker(pairs: &[(&str, &str)], per_broker: bool) -> Result<(), String> {
        check_broker(&map(pairs), per_broker).map_err(|e| {
            assert_eq!(e.error, ErrorCode::INVALID_REQUEST);
            e.message
        })
    }

    fn group(name: &str, value: &str) -> Result<(), String> {
        let fixed = ConfigMap::new();
        check_group(&map(&[(name, value)]), &Layers::of_node(&fixed)).map_err(|e| e.message)
    }

    #[test]
    fn topics_are_checked_with_kafkas_words() {
        assert_eq!(
            topic(&[("retention.ms", "-1"), ("internal.segment.bytes", "100")]),
            Ok(())
        );
        for (pairs, message) in [
            (&[("foo", "1")][..], "Unknown topic config name: foo"),
            (&[("ottla.x", "1")], "Unknown topic config name: ottla.x"),
            (
                &[("retention.ms", "x"), ("segment.bytes", "y")],
                "Invalid value y for configuration segment.bytes: Not a number of type INT",
            ),
            (
                &[("retention.ms", "")],
                "Invalid value  for configuration retention.ms: Not a number of type LONG",
            ),
            (
                &[
                    ("min.compaction.lag.ms", "100"),
                    ("max.compaction.lag.ms", "50"),
                ],
                "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
            ),
            (
                &[("remote.storage.enable", "true")],
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
            ),
        ] {
            assert_eq!(topic(pairs), Err(message.to_owned()));
        }
    }

    #[test]
    fn brokers_are_checked_with_kafkas_words() {
        for (pairs, per_broker) in [
            (&[("foo", "3")][..], true),
            (&[("listener.name.a.ssl.keystore.location", "x")], true),
            (&[("message.max.bytes", "5")], false),
            (&[("listener.name.x.max.connections", "5")], false),
            (&[("listener.name.x.num.partitions", "5")], true),
            (&[("leader.replication.throttled.rate", "1000")], true),
        ] {
            assert_eq!(broker(pairs, per_broker), Ok(()), "{pairs:?}");
        }
        for (pairs, per_broker, message) in [
            (
                &[("num.partitions", "3")][..],
                true,
                "Cannot update these configs dynamically: [num.partitions]",
            ),
            (
                &[("log.retention.hours", "5")],
                false,
                "Cannot update these configs dynamically: [log.retention.hours]",
            ),
            (
                &[("ssl.keystore.location", "x")],
                true,
                "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.location]",
            ),
            (
                &[("listener.name.a.ssl.keystore.location", "x")],
                false,
                "Cannot update these configs at default cluster level, broker id must be specified: [listener.name.a.ssl.keystore.location]",
            ),
            (
                &[("log.cleaner.threads", "x")],
                true,
                "Invalid value x for configuration log.cleaner.threads: Not a number of type INT",
            ),
            (
                &[("listeners", "x")],
                false,
                "Cannot update these configs at default cluster level, broker id must be specified: [listeners]",
            ),
            (
                &[("listener.name.x.num.io.threads", "5")],
                false,
                "Cannot update these configs at default cluster level, broker id must be specified: [listener.name.x.num.io.threads]",
            ),
            (
                &[("leader.replication.throttled.rate", "-5")],
                true,
                "Invalid value -5 for configuration leader.replication.throttled.rate: Value must be at least 0",
            ),
            (
                &[("log.retention.ms", "0")],
                true,
                "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
            ),
            (
                &[(
                    "metric.reporters",
                    "org.apache.kafka.common.metrics.JmxReporter,nope.X",
                )],
                true,
                "Invalid value nope.X for configuration metric.reporters: Class nope.X could not be found.",
            ),
            (
                &[("principal.builder.class", "nope.X")],
                true,
                "Invalid value nope.X for configuration principal.builder.class: Class nope.X could not be found.",
            ),
        ] {
            assert_eq!(
                broker(pairs, per_broker),
                Err(message.to_owned()),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn groups_are_checked_with_kafkas_words() {
        for (name, value) in [
            ("consumer.heartbeat.interval.ms", "14000"),
            ("share.delivery.count.limit", "2"),
            ("share.partition.max.record.locks", "100"),
            ("share.auto.offset.reset", "by_duration:PT1H"),
        ] {
            assert_eq!(group(name, value), Ok(()));
        }
        for (name, value, message) in [
            ("foo", "1", "Unknown group config name: foo"),
            (
                "consumer.session.timeout.ms",
                "1",
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
            ),
            (
                "consumer.session.timeout.ms",
                "70000",
                "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
            ),
            (
                "consumer.assignment.interval.ms",
                "20000",
                "consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms",
            ),
            (
                "share.record.lock.duration.ms",
                "1000",
                "share.record.lock.duration.ms must be greater than or equal to group.share.min.record.lock.duration.ms",
            ),
            (
                "share.delivery.count.limit",
                "11",
                "share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit",
            ),
            (
                "share.delivery.count.limit",
                "1",
                "Invalid value 1 for configuration share.delivery.count.limit: Value must be at least 2",
            ),
            (
                "streams.num.standby.replicas",
                "3",
                "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
            ),
        ] {
            assert_eq!(group(name, value), Err(message.to_owned()));
        }
        let fixed = map(&[("group.consumer.max.heartbeat.interval.ms", "50000")]);
        let own = map(&[("consumer.heartbeat.interval.ms", "46000")]);
        assert_eq!(
            check_group(&own, &Layers::of_node(&fixed))
                .unwrap_err()
                .message,
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        );
    }

    #[test]
    fn subscriptions_are_checked_with_kafkas_words() {
        for (name, value, message) in [
            ("metrics", "*", None),
            ("match", "client_id=a,client_software_name=b", None),
            ("match", "", None),
            (
                "foo",
                "1",
                Some("Unknown client metrics configuration: foo"),
            ),
            (
                "interval.ms",
                "99",
                Some(
                    "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
                ),
            ),
            (
                "interval.ms",
                "x",
                Some("Invalid value x for configuration interval.ms: Not a number of type INT"),
            ),
            (
                "match",
                "foo=bar",
                Some("Illegal client matching pattern: foo=bar"),
            ),
            (
                "match",
                "client_id=a=b",
                Some("Illegal client matching pattern: client_id=a=b"),
            ),
        ] {
            let result = check_client_metrics(&map(&[(name, value)]));
            assert_eq!(
                result.err().map(|e| e.message).as_deref(),
                message,
                "{name}={value}"
            );
        }
    }

    #[test]
    fn lists_grow_and_shrink() {
        let list = |op, current, value| {
            apply(Scope::Topic, "cleanup.policy", op, current, value)
                .unwrap()
                .unwrap()
        };
        assert_eq!(list(Op::Append, None, "compact"), "delete,compact");
        assert_eq!(
            list(Op::Append, Some("delete,compact"), "compact"),
            "delete,compact"
        );
        assert_eq!(
            list(Op::Subtract, Some("delete,compact"), "delete,foo"),
            "compact"
        );
        assert_eq!(list(Op::Subtract, Some("delete"), "delete"), "");
        assert_eq!(list(Op::Append, Some(""), "delete"), "delete");
        assert_eq!(
            apply(Scope::Topic, "retention.ms", Op::Delete, Some("5"), ""),
            Ok(None)
        );
        assert_eq!(
            apply(Scope::Topic, "retention.ms", Op::Append, None, "5")
                .unwrap_err()
                .message,
            "Can't APPEND to key retention.ms because its type is not LIST."
        );
        assert_eq!(
            apply(Scope::Broker, "num.io.threads", Op::Append, None, "5")
                .unwrap_err()
                .message,
            "Config value append is not allowed for config key: num.io.threads"
        );
        assert_eq!(
            (0..=4).map(Op::from_wire).filter(Option::is_some).count(),
            4
        );
    }
}
