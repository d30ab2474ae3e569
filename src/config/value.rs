//! Reading one value: Kafka's types and bounds (`ConfigDef.parseType` and its
//! validators), and the text that a value is shown as.
//!
//! Messages are word for word those of Apache Kafka 4.3.1, since AlterConfigs and
//! CreateTopics return them to tools. [`expectation`] says the same for a person whose
//! file is wrong.

use super::table::{Check, Kind, Property};

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    /// INT, SHORT and LONG.
    Integer(i64),
    Double(f64),
    List(Vec<String>),
    /// STRING, CLASS and PASSWORD.
    Text(String),
}

/// Reads `text` as the property's type and checks its bounds.
pub fn parse(property: &Property, text: &str) -> Result<Value, String> {
    parse_as(property, property.name, text)
}

/// The same under another name: a key with a listener's prefix.
pub fn parse_as(property: &Property, name: &str, text: &str) -> Result<Value, String> {
    let value = parse_kind(property.kind, name, text)?;
    check(property, name, &value)?;
    Ok(value)
}

impl Value {
    /// The text of the value as Kafka shows it (`ConfigDef.convertToString`).
    pub fn to_text(&self) -> String {
        match self {
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Double(value) => java_double(*value),
            Value::List(entries) => entries.join(","),
            Value::Text(text) => text.clone(),
        }
    }
}

/// What would have been right, for a person: `a whole number, at least 1`.
pub fn expectation(property: &Property) -> String {
    let kind = match property.kind {
        Kind::Boolean => "true or false",
        Kind::Int => "a whole number (32 bits)",
        Kind::Short => "a whole number (16 bits)",
        Kind::Long => "a whole number (64 bits)",
        Kind::Double => "a number",
        Kind::List => "a comma-separated list",
        Kind::Class => "the name of a Java class",
        Kind::String | Kind::Password => "text",
    };
    match property.check {
        Check::Any => kind.to_owned(),
        Check::Min(least) => format!("{kind}, at least {least}"),
        Check::Between(least, most) => format!("{kind} from {least} to {most}"),
        Check::Fraction(least, most) => format!("{kind} from {least} to {most}"),
        Check::NonEmpty => format!("{kind}, not empty"),
        Check::OneOf(choices) => format!("one of {}", choices.join(", ")),
        Check::OneOfAnyCase(choices) => {
            format!("one of {} (upper or lower case)", choices.join(", "))
        }
        Check::UniqueList => format!("{kind} without repeated entries"),
        Check::NonEmptyList => format!("{kind} without repeated entries, not empty"),
        Check::ListOf(choices) => format!("{kind} of {}, not empty", choices.join(", ")),
        Check::ListOfOrEmpty(choices) => format!("{kind} of {}, or nothing", choices.join(", ")),
        Check::GzipLevel => "a level from 1 to 9, or -1".to_owned(),
        Check::Voters => "a list of id@host:port".to_owned(),
        Check::Endpoints => "a list of host:port".to_owned(),
        Check::ThrottledReplicas => "* or a list of partition:broker".to_owned(),
        Check::OffsetReset => "earliest, latest or by_duration:<ISO 8601 duration>".to_owned(),
        Check::LogFilter => {
            "error, warn, info, debug, trace, off, or target=level pairs".to_owned()
        }
        Check::Cores => "auto, a number of cores from 1 to 256, or CPUs such as 0,2-3".to_owned(),
    }
}

/// The entries of a LIST, as Kafka splits them: blanks around commas go, and so does
/// an entirely blank text.
pub fn split_list(text: &str) -> Vec<String> {
    let text = java_trim(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',')
        .map(|entry| entry.trim_matches(java_space).to_owned())
        .collect()
}

/// `host:port`, where the host may be an IPv6 address in brackets.
pub fn split_endpoint(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => host,
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
    (!host.is_empty() && host.chars().all(valid)).then_some((host, port))
}

/// An ISO 8601 duration as Java's `Duration.parse` takes it, in milliseconds.
pub fn parse_iso_duration_ms(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let (negative, rest) = match upper.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, upper.strip_prefix('+').unwrap_or(&upper)),
    };
    let rest = rest.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    if !days.is_empty() {
        let days: i64 = days.strip_suffix('D')?.parse().ok()?;
        total = days.checked_mul(86_400_000)?;
    }
    let mut time = time;
    for (unit, millis) in [('H', 3_600_000), ('M', 60_000)] {
        if let Some((number, rest)) = time.split_once(unit) {
            let number: i64 = number.parse().ok()?;
            total = total.checked_add(number.checked_mul(millis)?)?;
            time = rest;
        }
    }
    if !time.is_empty() {
        let number = time.strip_suffix('S')?;
        let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, ""));
        let whole: i64 = whole.parse().ok()?;
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let fraction: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
        let fraction = if number.starts_with('-') {
            -fraction
        } else {
            fraction
        };
        total = total.checked_add(whole.checked_mul(1_000)?.checked_add(fraction)?)?;
    }
    if negative {
        total.checked_neg()
    } else {
        Some(total)
    }
}

fn parse_kind(kind: Kind, name: &str, text: &str) -> Result<Value, String> {
    let trimmed = java_trim(text);
    let not_a_number = || {
        format!(
            "Invalid value {text} for configuration {name}: Not a number of type {}",
            kind.name()
        )
    };
    let integer = |least: i64, most: i64| {
        parse_integer(trimmed)
            .filter(|value| (least..=most).contains(value))
            .map(Value::Integer)
            .ok_or_else(not_a_number)
    };
    match kind {
        Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
        Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
        Kind::Boolean => Err(format!(
            "Invalid value {text} for configuration {name}: Expected value to be either true or false"
        )),
        Kind::Int => integer(i64::from(i32::MIN), i64::from(i32::MAX)),
        Kind::Short => integer(i64::from(i16::MIN), i64::from(i16::MAX)),
        Kind::Long => integer(i64::MIN, i64::MAX),
        Kind::Double => parse_double(trimmed)
            .map(Value::Double)
            .ok_or_else(not_a_number),
        Kind::List => Ok(Value::List(split_list(text))),
        Kind::String | Kind::Class | Kind::Password => Ok(Value::Text(trimmed.to_owned())),
    }
}

fn check(property: &Property, name: &str, value: &Value) -> Result<(), String> {
    let invalid = |why: String| {
        Err(format!(
            "Invalid value {} for configuration {name}: {why}",
            value.to_text()
        ))
    };
    match (property.check, value) {
        (Check::Min(least), Value::Integer(number)) if *number < least => {
            invalid(format!("Value must be at least {least}"))
        }
        (Check::Between(least, _), Value::Integer(number)) if *number < least => {
            invalid(format!("Value must be at least {least}"))
        }
        (Check::Between(_, most), Value::Integer(number)) if *number > most => {
            invalid(format!("Value must be no more than {most}"))
        }
        (Check::Fraction(least, _), Value::Double(number)) if *number < least => {
            invalid(format!("Value must be at least {least}"))
        }
        (Check::Fraction(_, most), Value::Double(number)) if *number > most => {
            invalid(format!("Value must be no more than {most}"))
        }
        (Check::NonEmpty, Value::Text(text)) if text.is_empty() => {
            invalid("String must be non-empty".to_owned())
        }
        (Check::OneOf(choices), Value::Text(text)) if !choices.contains(&text.as_str()) => {
            invalid(format!("String must be one of: {}", choices.join(", ")))
        }
        (Check::OneOfAnyCase(choices), Value::Text(text))
            if !choices
                .iter()
                .any(|choice| choice.eq_ignore_ascii_case(text)) =>
        {
            invalid(format!(
                "String must be one of (case insensitive): {}",
                choices.join(", ")
            ))
        }
        (Check::GzipLevel, Value::Integer(level)) if *level != -1 && !(1..=9).contains(level) => {
            invalid("Value must be between 1 and 9 or equal to -1".to_owned())
        }
        (Check::UniqueList, Value::List(entries)) => check_list(name, entries, &[], true),
        (Check::NonEmptyList, Value::List(entries)) => check_list(name, entries, &[], false),
        (Check::ListOf(choices), Value::List(entries)) => check_list(name, entries, choices, false),
        (Check::ListOfOrEmpty(choices), Value::List(entries)) => {
            check_list(name, entries, choices, true)
        }
        (Check::Voters, Value::List(entries)) => entries
            .iter()
            .try_for_each(|entry| check_voter(name, entry)),
        (Check::Endpoints, Value::List(entries)) => {
            entries
                .iter()
                .try_for_each(|entry| match split_endpoint(entry) {
                    Some(_) => Ok(()),
                    None => Err(format!(
                        "Failed to parse host name from {entry} for the configuration {name}. \
                     Each entry should be in the form \"{{host}}:{{port}}\""
                    )),
                })
        }
        (Check::ThrottledReplicas, Value::List(entries)) => check_throttled(name, entries),
        (Check::OffsetReset, Value::Text(text)) if !is_offset_reset(text) => invalid(format!(
            "Invalid value `{text}` for configuration {name}. The value must be either \
             'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
        )),
        (Check::Cores, Value::Text(text)) if super::node::Cores::parse(text).is_none() => {
            invalid(format!("expected {}", expectation(property)))
        }
        (Check::LogFilter, Value::Text(text)) if !is_log_filter(text) => {
            invalid(format!("expected {}", expectation(property)))
        }
        _ => Ok(()),
    }
}

/// Kafka's `ConfigDef.ValidList`.
fn check_list(
    name: &str,
    entries: &[String],
    choices: &[&str],
    may_be_empty: bool,
) -> Result<(), String> {
    if entries.is_empty() && !may_be_empty {
        let valid = if choices.is_empty() {
            "any non-empty value".to_owned()
        } else {
            format!("[{}]", choices.join(", "))
        };
        return Err(format!(
            "Configuration '{name}' must not be empty. Valid values include: {valid}"
        ));
    }
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index].contains(entry) {
            return Err(format!(
                "Configuration '{name}' values must not be duplicated."
            ));
        }
    }
    for entry in entries {
        if entry.is_empty() {
            return Err(format!("Configuration '{name}' values must not be empty."));
        }
        if !choices.is_empty() && !choices.contains(&entry.as_str()) {
            return Err(format!(
                "Invalid value {entry} for configuration {name}: String must be one of: {}",
                choices.join(", ")
            ));
        }
    }
    Ok(())
}

fn check_voter(name: &str, entry: &str) -> Result<(), String> {
    const FORM: &str = "Each entry should be in the form `{id}@{host}:{port}`.";
    let Some((id, endpoint)) = entry.split_once('@') else {
        return Err(format!("Invalid configuration value for {name}. {FORM}"));
    };
    if parse_integer(id).is_none_or(|id| i32::try_from(id).is_err()) {
        return Err(format!(
            "Failed to parse voter ID as an integer from {name}. {FORM}"
        ));
    }
    match split_endpoint(endpoint) {
        Some(_) => Ok(()),
        None => Err(format!(
            "Failed to parse host name from entry {entry} for the configuration {name}. {FORM}"
        )),
    }
}

fn check_throttled(name: &str, entries: &[String]) -> Result<(), String> {
    let is_replica = |entry: &String| {
        entry.split_once(':').is_some_and(|(partition, broker)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits(partition) && digits(broker)
        })
    };
    if entries == ["*"] || entries.iter().all(is_replica) {
        return Ok(());
    }
    Err(format!(
        "Invalid value [{}] for configuration {name}: {name} must be the literal '*' or a list of \
         replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        entries.join(", ")
    ))
}

fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => parse_iso_duration_ms(duration).is_some_and(|ms| ms >= 0),
        None => text == "earliest" || text == "latest",
    }
}

fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',').all(|part| {
        let level = part.split_once('=').map_or(part, |(_, level)| level);
        LEVELS.contains(&level.to_ascii_lowercase().as_str())
    })
}

/// `Long.parseLong`: a sign and decimal digits, nothing else.
fn parse_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// `Double.parseDouble`, but for hexadecimal floats.
fn parse_double(text: &str) -> Option<f64> {
    let magnitude = text.strip_prefix(['+', '-']).unwrap_or(text);
    match magnitude {
        "NaN" | "Infinity" => text.parse().ok(),
        // Rust also reads "inf" and the like, Java a trailing type letter.
        _ => {
            let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
            let first = magnitude.bytes().next()?;
            (first.is_ascii_digit() || first == b'.').then(|| number.parse().ok())?
        }
    }
}

/// `Double.toString`: plain from 10^-3 to 10^7, scientific beyond.
fn java_double(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if value.is_nan() || value == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

/// Java's `String.trim` takes everything up to the blank, control characters included.
fn java_trim(text: &str) -> &str {
    text.trim_matches(java_space)
}

fn java_space(c: char) -> bool {
    c <= ' '
}

#[cfg(test)]
mod tests {
    use super::super::table::{self, DefaultValue, Scope};
    use super::*;

    fn broker(name: &str, text: &str) -> Result<Value, String> {
        parse(table::find(Scope::Broker, name).expect(name), text)
    }

    #[test]
    fn every_default_is_valid_and_in_canonical_form() {
        for property in table::all() {
            if let DefaultValue::V(text) = property.default {
                let value = parse(property, text).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(value.to_text(), text, "{}", property.name);
            }
        }
    }

    #[test]
    fn messages_are_kafkas() {
        for (name, text, message) in [
            (
                "num.partitions",
                "x",
                "Invalid value x for configuration num.partitions: Not a number of type INT",
            ),
            (
                "num.partitions",
                "0",
                "Invalid value 0 for configuration num.partitions: Value must be at least 1",
            ),
            (
                "num.partitions",
                "99999999999",
                "Invalid value 99999999999 for configuration num.partitions: Not a number of type INT",
            ),
            (
                "num.partitions",
                "",
                "Invalid value  for configuration num.partitions: Not a number of type INT",
            ),
            (
                "compression.type",
                "foo",
                "Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                "auto.create.topics.enable",
                "yes",
                "Invalid value yes for configuration auto.create.topics.enable: Expected value to be either true or false",
            ),
            (
                "log.cleanup.policy",
                "foo",
                "Invalid value foo for configuration log.cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "log.cleanup.policy",
                "delete,delete",
                "Configuration 'log.cleanup.policy' values must not be duplicated.",
            ),
            (
                "log.cleanup.policy",
                "delete,,compact",
                "Configuration 'log.cleanup.policy' values must not be empty.",
            ),
            (
                "process.roles",
                "",
                "Configuration 'process.roles' must not be empty. Valid values include: [broker, controller]",
            ),
            (
                "listeners",
                "",
                "Configuration 'listeners' must not be empty. Valid values include: any non-empty value",
            ),
            (
                "log.cleaner.min.cleanable.ratio",
                "1.5",
                "Invalid value 1.5 for configuration log.cleaner.min.cleanable.ratio: Value must be no more than 1",
            ),
            (
                "log.cleaner.min.cleanable.ratio",
                "x",
                "Invalid value x for configuration log.cleaner.min.cleanable.ratio: Not a number of type DOUBLE",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.zstd.level",
                "23",
                "Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22",
            ),
            (
                "offsets.topic.replication.factor",
                "99999",
                "Invalid value 99999 for configuration offsets.topic.replication.factor: Not a number of type SHORT",
            ),
            (
                "group.consumer.migration.policy",
                "zz",
                "Invalid value zz for configuration group.consumer.migration.policy: String must be one of (case insensitive): DISABLED, DOWNGRADE, UPGRADE, BIDIRECTIONAL",
            ),
            (
                "controller.quorum.voters",
                "abc",
                "Invalid configuration value for controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`.",
            ),
            (
                "controller.quorum.voters",
                "1@h",
                "Failed to parse host name from entry 1@h for the configuration controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`.",
            ),
            (
                "controller.quorum.bootstrap.servers",
                "localhost",
                "Failed to parse host name from localhost for the configuration controller.quorum.bootstrap.servers. Each entry should be in the form \"{host}:{port}\"",
            ),
            (
                "remote.log.storage.manager.class.name",
                "",
                "Invalid value  for configuration remote.log.storage.manager.class.name: String must be non-empty",
            ),
        ] {
            assert_eq!(broker(name, text), Err(message.to_owned()));
        }
        let throttled = table::find(Scope::Topic, "leader.replication.throttled.replicas").unwrap();
        assert_eq!(
            parse(throttled, "none"),
            Err("Invalid value [none] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...".to_owned())
        );
        let reset = table::find(Scope::Group, "share.auto.offset.reset").unwrap();
        assert_eq!(
            parse(reset, "foo"),
            Err("Invalid value foo for configuration share.auto.offset.reset: Invalid value `foo` for configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.".to_owned())
        );
    }

    #[test]
    fn values_are_read_as_java_reads_them() {
        assert_eq!(
            broker("log.retention.bytes", " +5\t"),
            Ok(Value::Integer(5))
        );
        assert!(broker("log.retention.bytes", "5L").is_err());
        assert_eq!(broker("log.cleanup.policy", " "), Ok(Value::List(vec![])));
        assert_eq!(
            broker("log.cleanup.policy", "compact , delete"),
            Ok(Value::List(vec!["compact".into(), "delete".into()]))
        );
        assert_eq!(
            broker("auto.create.topics.enable", "TRUE"),
            Ok(Value::Boolean(true))
        );
        for (text, value) in [
            ("1d", 1.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("Infinity", f64::INFINITY),
        ] {
            assert_eq!(
                broker("log.cleaner.io.buffer.load.factor", text),
                Ok(Value::Double(value))
            );
        }
        for text in ["inf", "infinity", "", "-", "1x", "nan", "d"] {
            assert!(
                broker("log.cleaner.io.buffer.load.factor", text).is_err(),
                "{text}"
            );
        }
        assert_eq!(
            broker("controller.quorum.voters", "1@[::1]:9093")
                .unwrap()
                .to_text(),
            "1@[::1]:9093"
        );
    }

    #[test]
    fn doubles_are_shown_as_java_shows_them() {
        for (value, text) in [
            (f64::MAX, "1.7976931348623157E308"),
            (0.5, "0.5"),
            (1.0, "1.0"),
            (0.0, "0.0"),
            (1e7, "1.0E7"),
            (9_999_999.0, "9999999.0"),
            (1.5e-5, "1.5E-5"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(java_double(value), text);
        }
    }

    #[test]
    fn iso_durations() {
        for (text, ms) in [
            ("PT1H", Some(3_600_000)),
            ("P1D", Some(86_400_000)),
            ("P1DT2H3M4.5S", Some(93_784_500)),
            ("PT-1.5S", Some(-1_500)),
            ("-PT1H", Some(-3_600_000)),
            ("PT0.0001S", Some(0)),
            ("x", None),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("PT1", None),
            ("PT1S1H", None),
            ("P99999999999999999999D", None),
            ("PT1.x", None),
        ] {
            assert_eq!(parse_iso_duration_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn endpoints_split_at_the_last_colon() {
        assert_eq!(split_endpoint("h:1"), Some(("h", 1)));
        assert_eq!(split_endpoint("[::1]:9092"), Some(("::1", 9092)));
        for text in ["h", ":1", "h:", "h:x", "h:70000", "[::1:9", "a b:1", ""] {
            assert_eq!(split_endpoint(text), None, "{text}");
        }
    }
}
