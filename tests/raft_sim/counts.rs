//! What happened in how many seeds: a simulation that never gets into trouble tests
//! nothing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Events,
    Elections,
    Truncations,
    SnapshotsTaken,
    SnapshotsLoaded,
    LogStartsAdvanced,
    VotersAdded,
    VotersRemoved,
    LeadersRemoved,
    Crashes,
    ChangesLost,
    Shutdowns,
    Resignations,
    ClockJumps,
    Cuts,
    MessagesLost,
    MessagesDoubled,
    Proposals,
    Committed,
}

const ALL: [(Count, &str); 19] = [
    (Count::Events, "events"),
    (Count::Elections, "elections"),
    (Count::Truncations, "truncations"),
    (Count::SnapshotsTaken, "snapshots taken"),
    (Count::SnapshotsLoaded, "snapshots fetched and loaded"),
    (Count::LogStartsAdvanced, "log starts advanced"),
    (Count::VotersAdded, "voters added"),
    (Count::VotersRemoved, "voters removed"),
    (Count::LeadersRemoved, "leaders removed themselves"),
    (Count::Crashes, "crashes"),
    (Count::ChangesLost, "unsynced writes lost"),
    (Count::Shutdowns, "shutdowns in order"),
    (Count::Resignations, "resignations"),
    (Count::ClockJumps, "clock jumps"),
    (Count::Cuts, "links cut"),
    (Count::MessagesLost, "messages lost"),
    (Count::MessagesDoubled, "messages doubled"),
    (Count::Proposals, "proposals"),
    (Count::Committed, "records committed"),
];

#[derive(Clone, Debug, Default)]
pub struct Counts {
    totals: [u64; ALL.len()],
    /// Seeds in which it happened.
    seeds: [u64; ALL.len()],
}

impl Counts {
    pub fn add(&mut self, count: Count, n: u64) {
        self.totals[count as usize] += n;
    }

    pub fn get(&self, count: Count) -> u64 {
        self.totals[count as usize]
    }

    pub fn seeds_with(&self, count: Count) -> u64 {
        self.seeds[count as usize]
    }

    pub fn add_seed(&mut self, other: &Counts) {
        for at in 0..ALL.len() {
            self.totals[at] += other.totals[at];
            self.seeds[at] += u64::from(other.totals[at] > 0);
        }
    }

    pub fn print(&self, seeds: u64) {
        for (at, (_, name)) in ALL.iter().enumerate() {
            println!(
                "{:>10} {name}, in {} of {seeds} seeds",
                self.totals[at], self.seeds[at]
            );
        }
    }
}
