//! `partition.metadata`: the topic id that a partition's directory belongs to.
//!
//! ```text
//! version: 0
//! topic_id: AbCdEfGhIjKlMnOpQrStUv
//! ```
//! It must be there before the first record: Kafka takes a directory without it, or with
//! another id, for a stray of an older topic.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, Durability};
use crate::base::Uuid;
use crate::io::disk::{Disk, File};

pub const FILE_NAME: &str = "partition.metadata";

/// The topic id; `None` where there is no file.
pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Uuid>> {
    let bytes = match disk.read(&dir.join(FILE_NAME), 1024) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let id = std::str::from_utf8(&bytes).ok().and_then(parse);
    id.map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("malformed {FILE_NAME} in {}", dir.display()),
        )
    })
}

pub fn write(
    disk: &dyn Disk,
    dir: &Path,
    topic_id: Uuid,
    durability: Durability,
) -> io::Result<Arc<dyn File>> {
    let text = format!("version: 0\ntopic_id: {topic_id}");
    checkpoint::replace_file(disk, &dir.join(FILE_NAME), text.as_bytes(), durability)
}

fn parse(text: &str) -> Option<Uuid> {
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let id = lines.next()?.strip_prefix("topic_id:")?.trim();
    let id: Uuid = id.parse().ok()?;
    (version == "0" && !id.is_zero()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    #[test]
    fn file_is_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&RealDisk, dir.path()).unwrap(), None);
        let id: Uuid = "jAwAAAAAQACAAAAAAAAAAQ".parse().unwrap();
        write(&RealDisk, dir.path(), id, Durability::Now).unwrap();
        let path = dir.path().join(FILE_NAME);
        let text = RealDisk.read(&path, 100).unwrap();
        assert_eq!(text, b"version: 0\ntopic_id: jAwAAAAAQACAAAAAAAAAAQ");
        assert_eq!(text.len(), 43);
        assert_eq!(read(&RealDisk, dir.path()).unwrap(), Some(id));
        for bad in [
            "",
            "version: 1\ntopic_id: jAwAAAAAQACAAAAAAAAAAQ",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
            "version: 0\ntopic_id: short",
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&RealDisk, dir.path()).is_err(), "{bad:?}");
        }
    }
}
