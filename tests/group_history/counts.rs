//! How often each kind of thing happened.

use std::fmt;

macro_rules! counts {
    ($($kind:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Count { $($kind),* }

        impl Count {
            pub const ALL: &'static [Count] = &[$(Count::$kind),*];
        }
    };
}

counts!(
    Events,
    JoinSent,
    JoinAnswered,
    MemberIdGiven,
    Generation,
    SyncSent,
    SyncAnswered,
    CooperativeRevocation,
    Heartbeat,
    HeartbeatRefused,
    CommitSent,
    CommitAcknowledged,
    CommitRefused,
    SimpleCommit,
    OffsetRead,
    Leave,
    LeaveByInstance,
    MetadataChanged,
    MemberDied,
    MemberEvicted,
    PendingMemberExpired,
    SyncTimedOut,
    StaticReplacement,
    ZombieFenced,
    AnswerLost,
    CoordinatorCrash,
    TailLost,
    GroupLoadedWithMembers,
    AppendFailed,
    CommitTimedOut,
    GroupFull,
    GroupDeleted,
    OffsetDeleted,
    TopicDeleted,
    OffsetExpired,
    GroupExpired,
    Described,
);

#[derive(Clone, Default)]
pub struct Counts(Vec<u64>);

impl Counts {
    pub fn get(&self, kind: &Count) -> u64 {
        self.0.get(*kind as usize).copied().unwrap_or(0)
    }

    pub fn hit(&mut self, kind: Count) {
        self.many(kind, 1);
    }

    pub fn many(&mut self, kind: Count, times: u64) {
        self.0.resize(Count::ALL.len(), 0);
        self.0[kind as usize] += times;
    }

    pub fn add(&mut self, other: &Counts) {
        for kind in Count::ALL {
            self.many(*kind, other.get(kind));
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, kind) in Count::ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{kind:?} {}", self.get(kind))?;
        }
        Ok(())
    }
}
