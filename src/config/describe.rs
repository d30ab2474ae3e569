//! What DescribeConfigs answers: value, source and synonyms of each property of a
//! resource, as Kafka's `ConfigHelper` of 4.3.1 finds them.

use super::layers::{ConfigMap, Layers, Source, default_of, valid};
use super::table::{self, Kind, Property, Scope};
use super::topic;
use super::value::Value;

/// One property of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    /// None if unset or sensitive.
    pub value: Option<String>,
    pub source: Source,
    pub is_sensitive: bool,
    pub is_read_only: bool,
    /// None for keys that the table doesn't know (reported as type UNKNOWN, 0).
    pub kind: Option<Kind>,
    /// Every setting that bears on the value, the one that counts first.
    pub synonyms: Vec<Synonym>,
    pub documentation: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

impl Described {
    /// The type as DescribeConfigs numbers it.
    pub fn type_id(&self) -> i8 {
        self.kind.map_or(0, Kind::wire_id)
    }
}

/// All properties of a topic; its own values are `layers.resource`.
pub fn topic(layers: &Layers<'_>) -> Vec<Described> {
    table::properties(Scope::Topic)
        .filter(|p| !p.internal || layers.resource.contains_key(p.name))
        .map(|property| {
            let value = topic::value(layers, property);
            let mut synonyms = own_synonym(layers.resource, property, Source::Topic);
            if let Some((first, _)) = topic::synonyms(property.name).first() {
                synonyms.extend(broker_settings(first, layers));
            }
            described(property, value, synonyms, false)
        })
        .collect()
}

/// Keys that in Kafka are the authorizer's and no broker's: told where they are set.
const OF_AUTHORIZER: [&str; 2] = ["allow.everyone.if.no.acl.found", "super.users"];

/// All properties of this broker (resource name = its id).
pub fn broker(layers: &Layers<'_>) -> Vec<Described> {
    let listed = table::properties(Scope::Broker).filter(|property| {
        let set = layers
            .broker()
            .iter()
            .any(|(map, _)| map.contains_key(property.name));
        let is_hidden = property.internal
            || property.update == table::Update::DynamicOnly
            || OF_AUTHORIZER.contains(&property.name);
        set || !is_hidden
    });
    let mut all: Vec<Described> = listed
        .map(|property| {
            let value = broker_value(property, layers);
            described(
                property,
                value,
                broker_settings(property.name, layers),
                !property.is_dynamic(),
            )
        })
        .collect();
    let mut others: Vec<&String> = layers
        .broker()
        .iter()
        .flat_map(|(map, _)| map.keys())
        .filter(|key| table::find(Scope::Broker, key).is_none())
        .collect();
    others.sort();
    others.dedup();
    all.extend(
        others
            .into_iter()
            .map(|key| other_broker_key(key, &layers.broker())),
    );
    all
}

/// What is set for all brokers (resource name empty).
pub fn broker_default(dynamic_default: &ConfigMap) -> Vec<Described> {
    let layers = [(dynamic_default, Source::DynamicDefault)];
    dynamic_default
        .keys()
        .map(|key| match table::find(Scope::Broker, key) {
            None => other_broker_key(key, &layers),
            Some(property) => {
                let synonym = Synonym {
                    name: key.clone(),
                    value: shown(property, &dynamic_default[key]),
                    source: Source::DynamicDefault,
                };
                let value = valid(dynamic_default, property);
                described(property, value, vec![synonym], !property.is_dynamic())
            }
        })
        .collect()
}

/// All properties of a group; its own values are `layers.resource`.
pub fn group(layers: &Layers<'_>) -> Vec<Described> {
    table::properties(Scope::Group)
        .map(|property| {
            let broker_name = format!("group.{}", property.name);
            let inherited = table::find(Scope::Broker, &broker_name);
            let value = valid(layers.resource, property)
                .or_else(|| inherited.and_then(|broker| broker_value(broker, layers)))
                .or_else(|| default_of(property));
            let mut synonyms = own_synonym(layers.resource, property, Source::Group);
            match inherited {
                Some(broker) => synonyms.extend(broker_settings(broker.name, layers)),
                None => synonyms.extend(default_setting(property)),
            }
            described(property, value, synonyms, false)
        })
        .collect()
}

/// All properties of a client metrics subscription.
pub fn client_metrics(own: &ConfigMap) -> Vec<Described> {
    table::properties(Scope::ClientMetrics)
        .map(|property| {
            let value = valid(own, property).or_else(|| default_of(property));
            let synonyms = own_synonym(own, property, Source::ClientMetrics);
            described(property, value, synonyms, false)
        })
        .collect()
}

fn described(
    property: &'static Property,
    value: Option<Value>,
    synonyms: Vec<Synonym>,
    is_read_only: bool,
) -> Described {
    Described {
        name: property.name.to_owned(),
        value: value
            .filter(|_| !property.is_sensitive())
            .map(|value| value.to_text()),
        source: synonyms
            .first()
            .map_or(Source::Default, |synonym| synonym.source),
        is_sensitive: property.is_sensitive(),
        is_read_only,
        kind: Some(property.kind),
        synonyms,
        documentation: Some(property.help),
    }
}

/// A key with a listener's prefix, or one that the table doesn't know: its value may be
/// a secret.
fn other_broker_key(key: &str, layers: &[(&ConfigMap, Source)]) -> Described {
    let property = table::find_broker(key);
    let is_sensitive = property.is_none_or(Property::is_sensitive);
    let synonyms: Vec<Synonym> = layers
        .iter()
        .filter_map(|(map, source)| {
            let value = map.get(key)?;
            Some(Synonym {
                name: key.to_owned(),
                value: (!is_sensitive).then(|| value.clone()),
                source: *source,
            })
        })
        .collect();
    Described {
        name: key.to_owned(),
        value: synonyms.first().and_then(|synonym| synonym.value.clone()),
        source: synonyms
            .first()
            .map_or(Source::Default, |synonym| synonym.source),
        is_sensitive,
        is_read_only: !property.is_some_and(Property::is_dynamic)
            || table::find(Scope::Broker, key).is_none(),
        kind: property.map(|property| property.kind),
        synonyms,
        documentation: property.map(|property| property.help),
    }
}

/// The broker's effective value of one key by itself. As in Kafka a dynamic value of a
/// synonym hides the weaker settings of the others.
fn broker_value(property: &'static Property, layers: &Layers<'_>) -> Option<Value> {
    let family = topic::broker_synonyms(property.name);
    for (map, source) in layers.broker() {
        if let Some(value) = valid(map, property) {
            return Some(value);
        }
        if source != Source::StaticBroker && family.iter().any(|name| map.contains_key(*name)) {
            break;
        }
    }
    default_of(property)
}

/// The settings that bear on a broker key, from the one that counts on. Those of its
/// synonyms come in only behind one of its own, which is Kafka's way of reporting.
fn broker_settings(name: &'static str, layers: &Layers<'_>) -> Vec<Synonym> {
    let family = topic::broker_synonyms(name);
    let family = if family.is_empty() {
        vec![name]
    } else {
        family
    };
    let properties: Vec<&'static Property> = family
        .iter()
        .filter_map(|name| table::find(Scope::Broker, name))
        .collect();
    let mut settings = Vec::new();
    for (map, source) in layers.broker() {
        for property in &properties {
            if let Some(text) = map.get(property.name) {
                let name = property.name.to_owned();
                settings.push(Synonym {
                    name,
                    value: shown(property, text),
                    source,
                });
            }
        }
    }
    settings.extend(
        properties
            .iter()
            .filter_map(|property| default_setting(property)),
    );
    let first = settings
        .iter()
        .position(|setting| setting.name == name)
        .unwrap_or(settings.len());
    settings.split_off(first)
}

fn default_setting(property: &Property) -> Option<Synonym> {
    if property.update == table::Update::DynamicOnly {
        return None;
    }
    let text = default_of(property)?.to_text();
    Some(Synonym {
        name: property.name.to_owned(),
        value: shown(property, &text),
        source: Source::Default,
    })
}

fn own_synonym(own: &ConfigMap, property: &Property, source: Source) -> Vec<Synonym> {
    own.get(property.name)
        .map(|text| Synonym {
            name: property.name.to_owned(),
            value: shown(property, text),
            source,
        })
        .into_iter()
        .collect()
}

fn shown(property: &Property, text: &str) -> Option<String> {
    (!property.is_sensitive()).then(|| text.to_owned())
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

    /// `value|SOURCE|flags|name=value@SOURCE;…`, the form in which Kafka's own answers
    /// were noted.
    fn line(all: &[Described], name: &str) -> String {
        let entry = all
            .iter()
            .find(|entry| entry.name == name)
            .unwrap_or_else(|| panic!("{name}"));
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
        let synonyms: String = entry
            .synonyms
            .iter()
            .map(|s| format!("{}={}@{:?};", s.name, text(&s.value), s.source))
            .collect();
        let flags = format!(
            "{}{}",
            if entry.is_sensitive { "S" } else { "" },
            if entry.is_read_only { "R" } else { "" }
        );
        format!(
            "{}|{:?}|{flags}|{synonyms}",
            text(&entry.value),
            entry.source
        )
    }

    /// A node of Apache Kafka 4.3.1 gave the expected answers for the same settings.
    #[test]
    fn a_broker_answers_as_kafkas_does() {
        let fixed = map(&[
            ("log.retention.hours", "100"),
            ("foo.custom", "hello"),
            ("ssl.key.password", "secret"),
            ("num.io.threads", "4"),
            ("node.id", "1"),
        ]);
        let before = broker(&Layers::of_node(&fixed));
        for (name, expected) in [
            (
                "log.retention.hours",
                "100|StaticBroker|R|log.retention.hours=100@StaticBroker;log.retention.hours=168@Default;",
            ),
            ("log.retention.minutes", "null|Default|R|"),
            ("log.retention.ms", "null|Default||"),
            ("log.roll.ms", "null|Default||"),
            (
                "foo.custom",
                "null|StaticBroker|SR|foo.custom=null@StaticBroker;",
            ),
            (
                "ssl.key.password",
                "null|StaticBroker|S|ssl.key.password=null@StaticBroker;",
            ),
            (
                "num.io.threads",
                "4|StaticBroker||num.io.threads=4@StaticBroker;num.io.threads=8@Default;",
            ),
            ("node.id", "1|StaticBroker|R|node.id=1@StaticBroker;"),
            (
                "log.cleaner.io.max.bytes.per.second",
                "1.7976931348623157E308|Default||log.cleaner.io.max.bytes.per.second=1.7976931348623157E308@Default;",
            ),
        ] {
            assert_eq!(line(&before, name), expected, "{name}");
        }
        assert!(
            before
                .iter()
                .all(|entry| entry.name != "leader.replication.throttled.rate")
        );
        assert!(
            before
                .iter()
                .all(|entry| !entry.name.starts_with("internal."))
        );

        let default = map(&[
            ("log.retention.ms", "7777777"),
            ("message.max.bytes", "1000000"),
            ("foo.dyn", "v"),
        ]);
        let own = map(&[
            ("log.roll.ms", "888888888"),
            ("leader.replication.throttled.rate", "1000"),
        ]);
        let layers = Layers {
            dynamic_broker: &own,
            dynamic_default: &default,
            ..Layers::of_node(&fixed)
        };
        let after = broker(&layers);
        for (name, expected) in [
            (
                "log.retention.hours",
                "168|StaticBroker|R|log.retention.hours=100@StaticBroker;log.retention.hours=168@Default;",
            ),
            (
                "log.retention.ms",
                "7777777|DynamicDefault||log.retention.ms=7777777@DynamicDefault;log.retention.hours=100@StaticBroker;log.retention.hours=168@Default;",
            ),
            (
                "log.roll.ms",
                "888888888|DynamicBroker||log.roll.ms=888888888@DynamicBroker;log.roll.hours=168@Default;",
            ),
            (
                "log.roll.hours",
                "168|Default|R|log.roll.hours=168@Default;",
            ),
            (
                "leader.replication.throttled.rate",
                "1000|DynamicBroker||leader.replication.throttled.rate=1000@DynamicBroker;",
            ),
            (
                "foo.dyn",
                "null|DynamicDefault|SR|foo.dyn=null@DynamicDefault;",
            ),
        ] {
            assert_eq!(line(&after, name), expected, "{name}");
        }
        let defaults = broker_default(&default);
        assert_eq!(defaults.len(), 3);
        assert_eq!(
            line(&defaults, "message.max.bytes"),
            "1000000|DynamicDefault||message.max.bytes=1000000@DynamicDefault;"
        );
        assert_eq!(
            line(&defaults, "foo.dyn"),
            "null|DynamicDefault|SR|foo.dyn=null@DynamicDefault;"
        );
    }

    #[test]
    fn a_topic_answers_as_kafkas_does() {
        let fixed = map(&[("log.retention.hours", "100")]);
        let default = map(&[
            ("log.retention.ms", "7777777"),
            ("message.max.bytes", "1000000"),
        ]);
        let own = map(&[("log.roll.ms", "888888888")]);
        let topic_own = map(&[("retention.ms", "12345"), ("cleanup.policy", "compact")]);
        let layers = Layers {
            resource: &topic_own,
            dynamic_broker: &own,
            dynamic_default: &default,
            fixed: &fixed,
        };
        let all = topic(&layers);
        assert_eq!(all.len(), 33);
        for (name, expected) in [
            (
                "cleanup.policy",
                "compact|Topic||cleanup.policy=compact@Topic;log.cleanup.policy=delete@Default;",
            ),
            (
                "retention.ms",
                "12345|Topic||retention.ms=12345@Topic;log.retention.ms=7777777@DynamicDefault;log.retention.hours=100@StaticBroker;log.retention.hours=168@Default;",
            ),
            (
                "segment.ms",
                "888888888|DynamicBroker||log.roll.ms=888888888@DynamicBroker;log.roll.hours=168@Default;",
            ),
            ("segment.jitter.ms", "0|Default||"),
            ("flush.ms", "9223372036854775807|Default||"),
            (
                "max.message.bytes",
                "1000000|DynamicDefault||message.max.bytes=1000000@DynamicDefault;message.max.bytes=1048588@Default;",
            ),
            ("remote.storage.enable", "false|Default||"),
            ("leader.replication.throttled.replicas", "|Default||"),
        ] {
            assert_eq!(line(&all, name), expected, "{name}");
        }
        // A key that is set in hours only is effective, but not named.
        let quiet = topic(&Layers::of_node(&fixed));
        assert_eq!(line(&quiet, "retention.ms"), "360000000|Default||");
    }

    #[test]
    fn groups_and_subscriptions_answer_as_kafkas_do() {
        let fixed = ConfigMap::new();
        let own = map(&[("consumer.session.timeout.ms", "50000")]);
        let all = group(&Layers::of_node(&fixed).with_resource(&own));
        assert_eq!(all.len(), 17);
        for (name, expected) in [
            (
                "consumer.session.timeout.ms",
                "50000|Group||consumer.session.timeout.ms=50000@Group;group.consumer.session.timeout.ms=45000@Default;",
            ),
            (
                "share.auto.offset.reset",
                "latest|Default||share.auto.offset.reset=latest@Default;",
            ),
            (
                "streams.num.standby.replicas",
                "0|Default||group.streams.num.standby.replicas=0@Default;",
            ),
        ] {
            assert_eq!(line(&all, name), expected, "{name}");
        }
        let all = client_metrics(&map(&[("interval.ms", "1000")]));
        assert_eq!(
            line(&all, "interval.ms"),
            "1000|ClientMetrics||interval.ms=1000@ClientMetrics;"
        );
        assert_eq!(line(&all, "match"), "|Default||");
    }
}
