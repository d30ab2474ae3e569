//! Layer 5: `ottla top`, what a node is doing now, per core, API and topic. Called by
//! `cli::top`. Not a part of the broker: it reads the text that `ottla.metrics.listen`
//! serves, as any scraper would.
//!
//! ```text
//! scrape   one answer over HTTP, bounded in time and bytes
//! text     its lines → names, labels, numbers
//! model    two scrapes → what happened between them, by core, API and topic
//! sheet    a model → tables of text
//! plain    tables → lines
//! view     tables → the terminal's cells (ratatui)
//! live     the loop: keys, scrapes, drawing
//! ```
//! All but [`scrape`](mod@scrape) and [`live`](mod@live) are pure.

mod live;
mod model;
mod plain;
mod scrape;
mod sheet;
mod text;
mod units;
mod view;

use std::time::Duration;

pub use live::run as live;
use model::Model;
use scrape::scrape;

/// Where to look, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of `ottla.metrics.listen`.
    pub metrics: String,
    pub interval: Duration,
}

/// A table of all that has happened since the node started.
pub fn once(options: &Options) -> Result<String, String> {
    let found = scrape(&options.metrics)?;
    Ok(plain::text(&Model::since_start(&options.metrics, &found)))
}
