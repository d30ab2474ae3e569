//! Names of files and directories in a log directory.

use crate::base::{Offset, PartitionIndex, Rng};

pub const LOG: &str = ".log";
pub const OFFSET_INDEX: &str = ".index";
pub const TIME_INDEX: &str = ".timeindex";
pub const TXN_INDEX: &str = ".txnindex";
pub const SNAPSHOT: &str = ".snapshot";

/// To be unlinked.
pub const DELETED: &str = ".deleted";
/// Output of a compaction that hasn't finished.
pub const CLEANED: &str = ".cleaned";
/// Output of a compaction that is complete and takes the place of its sources.
pub const SWAP: &str = ".swap";
/// A deleted KRaft snapshot, which is `raft`'s to remove.
pub const CHECKPOINT_DELETED: &str = ".checkpoint.deleted";

const NAME_LEN_MAX: usize = 255;

/// `<20-digit offset><suffix>`.
pub fn file_name(base_offset: Offset, suffix: &str) -> String {
    format!("{:020}{suffix}", base_offset.0)
}

/// The offset that a file name starts with; what follows the first dot comes second.
pub fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let dot = name.find('.')?;
    let (digits, suffix) = name.split_at(dot);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
}

/// What a directory of a log directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirKind {
    /// `<topic>-<partition>`
    Live,
    /// `….<unique>-delete`: its topic was deleted.
    Delete,
    /// `….<unique>-future`: a replica that is moving here from another log directory.
    Future,
    /// `….<unique>-stray`: a replica that nobody knows.
    Stray,
}

impl DirKind {
    fn suffix(self) -> &'static str {
        match self {
            DirKind::Live => "",
            DirKind::Delete => "-delete",
            DirKind::Future => "-future",
            DirKind::Stray => "-stray",
        }
    }
}

/// The name of a partition's directory, parsed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirName {
    pub kind: DirKind,
    /// Cut short in a `-delete` or `-stray` directory of a topic with a long name.
    pub topic: String,
    pub partition: PartitionIndex,
}

pub fn live_dir_name(topic: &str, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}")
}

/// A name for the directory in a role other than live; drawn anew each time.
pub fn renamed_dir_name(
    topic: &str,
    partition: PartitionIndex,
    kind: DirKind,
    rng: &mut Rng,
) -> String {
    let (high, low) = (rng.next_u64(), rng.next_u64());
    let rest = format!("-{partition}.{high:016x}{low:016x}{}", kind.suffix());
    // Topic names are ASCII; Kafka cuts `-delete` and `-stray` names, not `-future` ones.
    let topic_len_max = match kind {
        DirKind::Future | DirKind::Live => topic.len(),
        DirKind::Delete | DirKind::Stray => NAME_LEN_MAX - rest.len(),
    };
    let topic = topic.get(..topic_len_max).unwrap_or(topic);
    format!("{topic}{rest}")
}

/// `None` for a name that no partition has: Kafka refuses to start with such a directory.
pub fn parse_dir_name(name: &str) -> Option<DirName> {
    let (kind, name) = [DirKind::Delete, DirKind::Future, DirKind::Stray]
        .into_iter()
        .find_map(|kind| {
            let rest = name.strip_suffix(kind.suffix())?;
            let (dir, unique) = rest.rsplit_once('.')?;
            (!unique.is_empty()).then_some((kind, dir))
        })
        .unwrap_or((DirKind::Live, name));
    let (topic, partition) = name.rsplit_once('-')?;
    let partition: i32 = partition.parse().ok()?;
    if topic.is_empty() || partition < 0 {
        return None;
    }
    Some(DirName {
        kind,
        topic: topic.to_owned(),
        partition: PartitionIndex(partition),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        assert_eq!(file_name(Offset(68), LOG), "00000000000000000068.log");
        let parse = parse_file_name;
        assert_eq!(
            parse("00000000000000000068.log.deleted"),
            Some((Offset(68), ".log.deleted"))
        );
        assert_eq!(parse("leader-epoch-checkpoint"), None);
        assert_eq!(parse(".log"), None);
        assert_eq!(parse("99999999999999999999.log"), None);
        let snapshot = "00000000000000000010-0000000003.checkpoint";
        assert_eq!(parse(snapshot), None);
    }

    #[test]
    fn directory_names() {
        let live = parse_dir_name("my-topic.x-12").unwrap();
        assert_eq!((live.kind, live.partition.0), (DirKind::Live, 12));
        assert_eq!(live.topic, "my-topic.x");
        for bad in ["lost+found", "x", "-1", "x-", "x-y", "x-1-delete", "x--1"] {
            let parsed = parse_dir_name(bad);
            assert!(
                parsed.is_none() || bad == "x--1" && parsed.unwrap().topic == "x-",
                "{bad}"
            );
        }
        let mut rng = Rng::new(1);
        for kind in [DirKind::Delete, DirKind::Stray, DirKind::Future] {
            let name = renamed_dir_name("a.b", PartitionIndex(3), kind, &mut rng);
            let parsed = parse_dir_name(&name).unwrap();
            assert_eq!((parsed.kind, parsed.topic.as_str()), (kind, "a.b"));
            assert_eq!(parsed.partition, PartitionIndex(3));
        }
        let long = "t".repeat(249);
        let name = renamed_dir_name(&long, PartitionIndex(3), DirKind::Delete, &mut rng);
        assert_eq!(name.len(), 255);
        assert!(parse_dir_name(&name).unwrap().topic.starts_with("ttt"));
    }
}
