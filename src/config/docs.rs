//! docs/CONFIG.md and `ottla config`, written out of the table.

use std::fmt::Write as _;

use super::effect;
use super::load::SINGLE_NODE;
use super::table::{self, DefaultValue, Property, Scope, Update};
use super::value::expectation;

/// The whole of docs/CONFIG.md.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for (key, value) in SINGLE_NODE {
        let _ = writeln!(out, "    {key}={value}");
    }
    for (area, rows) in table::areas() {
        if rows.iter().all(|row| row.internal) {
            continue;
        }
        let _ = write!(
            out,
            "\n## {area}\n\n| key | type | default | allowed | changes | in effect | |\n|---|---|---|---|---|---|---|\n"
        );
        for row in rows.iter() {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} | {} | {} |",
                row.name,
                row.kind.name().to_lowercase(),
                default_cell(row),
                cell(&expectation(row)),
                change(row),
                if has_effect(row) { "yes" } else { "" },
                cell(row.help),
            );
        }
    }
    out
}

/// One property in full, for a terminal.
pub fn entry(property: &Property) -> String {
    let default = match property.default {
        DefaultValue::V("") => "(empty)".to_owned(),
        DefaultValue::V(text) => text.to_owned(),
        DefaultValue::Null => "(unset)".to_owned(),
        DefaultValue::Required => "(filled in)".to_owned(),
    };
    let effect = if has_effect(property) {
        ""
    } else {
        "\n  note     accepted, has no effect in Ottla yet"
    };
    format!(
        "{}\n  {}\n  expects  {}\n  default  {default}\n  changes  {}{effect}\n",
        property.name,
        property.help,
        expectation(property),
        change(property),
    )
}

/// The list of names of a scope, with their helps, for a terminal.
pub fn listing(scope: Scope) -> String {
    let mut out = String::new();
    for (area, rows) in table::areas() {
        if rows.iter().all(|row| row.internal || row.scope != scope) {
            continue;
        }
        let _ = writeln!(out, "{area}:");
        for row in rows.iter() {
            let _ = writeln!(out, "  {:<48} {}", row.name, row.help);
        }
        out.push('\n');
    }
    out
}

/// Whether Ottla acts on the property.
pub fn has_effect(property: &Property) -> bool {
    match property.scope {
        Scope::Broker => effect::node_names().contains(property.name),
        Scope::Topic => effect::topic_names().contains(property.name),
        Scope::Group | Scope::ClientMetrics => false,
    }
}

const INTRODUCTION: &str = "\
# Configuration

Written from the table in `src/config/table` by `cargo test config_docs` with
`OTTLA_WRITE_DOCS=1`; a test compares the two.

Keys are Apache Kafka 4.3.1's, so a KRaft node's `server.properties` works as it is. Own
keys begin with `ottla.`. A value comes from the first of these that has one: the topic's
or group's own config, the broker's dynamic config, the cluster's dynamic default,
`--override KEY=VALUE`, the file, the default. `ottla config KEY` prints one entry.

*In effect* tells what Ottla acts on today. The other keys are accepted and described to
Kafka's tools, but change nothing. Keys that would protect something that Ottla doesn't
do yet (TLS, Java authorizers and policies) stop the start instead.

Where `process.roles` isn't set, the node is a broker and controller for this machine,
as if the following were written (each line gives way to the file and the command line):

";

fn change(property: &Property) -> &'static str {
    match property.update {
        Update::AtStart => "at start",
        Update::PerBroker => "dynamic, one broker",
        Update::ClusterWide => "dynamic",
        Update::DynamicOnly => "dynamic only",
        Update::PerResource => "any time",
    }
}

fn default_cell(property: &Property) -> String {
    match property.default {
        DefaultValue::V("") => "empty".to_owned(),
        DefaultValue::V("9223372036854775807") => "no limit".to_owned(),
        DefaultValue::V("2147483647") => "no limit".to_owned(),
        DefaultValue::V("1.7976931348623157E308") => "no limit".to_owned(),
        DefaultValue::V(text) => format!("`{}`", text.replace(',', ", ")),
        DefaultValue::Null => "unset".to_owned(),
        DefaultValue::Required => "filled in".to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('*', "\\*")
        .replace('<', "&lt;")
}
