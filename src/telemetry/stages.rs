//! The stages of requests, by API: which there are, and one core's histograms of them.
//!
//! `shard::metrics` has one [`StageTable`] a core, made when the core starts; recording
//! never allocates. What the stages mean is told in docs/ARCHITECTURE.md.

use std::time::Duration;

use super::histogram::{DURATIONS, DurationHistogram, HistogramSnapshot};

/// A part of a request's way. A stage is counted on the core where it ended, and only for
/// requests that pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the first bytes until it is whole and its turn to start has come.
    Received,
    /// Understanding it.
    Parsed,
    /// A part's way to the core that owns its partitions.
    Hop,
    /// Appending a part's batches, on the owning core.
    Appended,
    /// Reading a part's records, on the owning core.
    Read,
    /// Waiting until the in-sync replicas have it, or until there is enough to read.
    Purgatory,
    /// Waiting for the disk after that.
    Flushed,
    /// From the start until what to reply is known: all of the above but `Received`.
    Answered,
    /// From there, or the reply's turn, until the kernel has it all.
    Sent,
    /// From the first bytes of the request to the last of the reply.
    Total,
}

impl Stage {
    pub const ALL: [Stage; 10] = [
        Stage::Received,
        Stage::Parsed,
        Stage::Hop,
        Stage::Appended,
        Stage::Read,
        Stage::Purgatory,
        Stage::Flushed,
        Stage::Answered,
        Stage::Sent,
        Stage::Total,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Received => "received",
            Stage::Parsed => "parsed",
            Stage::Hop => "hop",
            Stage::Appended => "appended",
            Stage::Read => "read",
            Stage::Purgatory => "purgatory",
            Stage::Flushed => "flushed",
            Stage::Answered => "answered",
            Stage::Sent => "sent",
            Stage::Total => "total",
        }
    }
}

/// One core's histograms, by row (an API) and stage.
#[derive(Debug)]
pub struct StageTable(Box<[[DurationHistogram; Stage::ALL.len()]]>);

/// A histogram that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageSnapshot {
    pub api: &'static str,
    pub stage: Stage,
    pub durations: HistogramSnapshot<DURATIONS>,
}

impl StageTable {
    pub fn new(rows: usize) -> StageTable {
        StageTable((0..rows).map(|_| Default::default()).collect())
    }

    pub fn record(&self, row: usize, stage: Stage, took: Duration) {
        self.0[row][stage as usize].record_duration(took);
    }

    /// What has been recorded; `api` names a row.
    pub fn snapshot(&self, api: impl Fn(usize) -> &'static str) -> Vec<StageSnapshot> {
        let mut found = Vec::new();
        for (row, stages) in self.0.iter().enumerate() {
            for (stage, histogram) in Stage::ALL.into_iter().zip(stages) {
                let durations = histogram.snapshot();
                if durations.count() > 0 {
                    found.push(StageSnapshot {
                        api: api(row),
                        stage,
                        durations,
                    });
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_by_row_and_only_those_that_were_passed() {
        let table = StageTable::new(2);
        assert_eq!(table.snapshot(|_| "x"), []);
        table.record(1, Stage::Sent, Duration::from_micros(3));
        table.record(1, Stage::Parsed, Duration::ZERO);
        let found = table.snapshot(|row| ["Produce", "Fetch"][row]);
        let names: Vec<_> = found.iter().map(|s| (s.api, s.stage.name())).collect();
        assert_eq!(names, [("Fetch", "parsed"), ("Fetch", "sent")]);
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
    }
}
