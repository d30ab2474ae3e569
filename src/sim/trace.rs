//! What has happened in a world: a digest of all of it, the last lines, and on request
//! every line.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use crate::base::Nanos;

pub(super) struct Trace {
    digest: u64,
    last: VecDeque<String>,
    /// Every line, if they are kept.
    kept: Option<String>,
}

/// Lines that are printed when a scenario fails.
const LAST_LINES_MAX: usize = 50;

impl Trace {
    pub(super) fn new() -> Trace {
        Trace {
            digest: 0xcbf2_9ce4_8422_2325,
            last: VecDeque::new(),
            kept: None,
        }
    }

    /// Keeps every line from now on.
    pub(super) fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    pub(super) fn note(&mut self, at: Nanos, line: fmt::Arguments<'_>) {
        let mut text = if self.last.len() < LAST_LINES_MAX {
            String::new()
        } else {
            self.last.pop_front().unwrap_or_default()
        };
        text.clear();
        // Writing to a string can't fail.
        let _ = write!(text, "{} {line}", at.0);
        // FNV-1a, with the line's end.
        for byte in text.bytes().chain([b'\n']) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(kept) = &mut self.kept {
            kept.push_str(&text);
            kept.push('\n');
        }
        self.last.push_back(text);
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn kept(&self) -> &str {
        self.kept.as_deref().unwrap_or("")
    }

    pub(super) fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
