//! Layer 1: diagnostics. Sets tracing up for the process ([`init`]), keeps repeatable
//! warnings rare ([`RateLimit`]), and has the plain per-core numbers that every part
//! counts with ([`Counter`], [`Gauge`], [`StageTable`]);
//! [`render`] makes text of them.
//!
//! Fields have fixed names: core, conn, api, version, correlation_id, client_id, topic,
//! partition, leader_epoch, offset. Nothing is logged per record.

mod counters;
mod exposition;
mod histogram;
mod rate_limit;
mod stages;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

pub use counters::{Counter, Gauge, Totals};
pub use exposition::{CoreSnapshot, Metric, Sample, TopicSnapshot, render};
pub use histogram::{DurationHistogram, HistogramSnapshot, SizeHistogram};
pub use rate_limit::RateLimit;
pub use stages::{Stage, StageSnapshot, StageTable};

/// Starts diagnostics on stderr. `RUST_LOG` is stronger than `level`
/// (`ottla.log.level`): a level, or `target=level` pairs. The error is one line.
pub fn init(level: &str) -> Result<(), String> {
    let (origin, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("ottla.log.level", level.to_owned()),
    };
    let filter = parse(&text).map_err(|why| {
        format!(
            "{origin}={text}: expected error, warn, info, debug, trace or target=level pairs ({why})"
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| format!("diagnostics can't start: {error}"))
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    // A single word is a level here; the library would take it for a target.
    let one_word = !text.contains(['=', ',']);
    if one_word && (text.is_empty() || text.parse::<tracing::level_filters::LevelFilter>().is_err())
    {
        return Err(format!("`{text}` is no level"));
    }
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    if text.contains("glommio") || text.eq_ignore_ascii_case("off") {
        return Ok(filter);
    }
    // It warns of buffers that it has to do without, which nothing of ours uses.
    let errors_only = "glommio=error".parse().expect("a well-formed pair");
    Ok(filter.add_directive(errors_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_pairs_are_understood() {
        for text in [
            "info",
            "WARN",
            "ottla=debug",
            "warn,ottla::shard=trace",
            "off",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in ["loud", "ottla=loud", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
