//! `.kafka_cleanshutdown`: everything in the log directory was synced and cut to size
//! when the process stopped, and under which broker epoch it had been registered.
//!
//! ```text
//! {"version":0,"brokerEpoch":17}
//! ```
//! Written last; read and removed first. The epoch goes to the controller as
//! PreviousBrokerEpoch, which tells it that no acknowledged record is missing (KIP-966).

use std::io;
use std::path::Path;

use super::checkpoint::{self, Durability};
use crate::io::disk::Disk;

pub const FILE_NAME: &str = ".kafka_cleanshutdown";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// -1 where the file, of an older version, has none.
    pub broker_epoch: i64,
}

/// Reads and removes the marker; `None` after an unclean stop.
pub fn take(disk: &dyn Disk, log_dir: &Path) -> io::Result<Option<CleanShutdown>> {
    let path = log_dir.join(FILE_NAME);
    let bytes = match disk.read(&path, 4096) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    disk.remove_file(&path)?;
    disk.sync_dir(log_dir)?;
    let content: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let broker_epoch = content
        .and_then(|json| json.get("brokerEpoch")?.as_i64())
        .unwrap_or(-1);
    Ok(Some(CleanShutdown { broker_epoch }))
}

pub fn write(disk: &dyn Disk, log_dir: &Path, broker_epoch: i64) -> io::Result<()> {
    let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    let path = log_dir.join(FILE_NAME);
    checkpoint::replace_file(disk, &path, text.as_bytes(), Durability::Now)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    #[test]
    fn marker_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(&RealDisk, dir.path()).unwrap(), None);
        write(&RealDisk, dir.path(), 17).unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(
            RealDisk.read(&path, 100).unwrap(),
            b"{\"version\":0,\"brokerEpoch\":17}"
        );
        let taken = take(&RealDisk, dir.path()).unwrap();
        assert_eq!(taken, Some(CleanShutdown { broker_epoch: 17 }));
        assert_eq!(take(&RealDisk, dir.path()).unwrap(), None);
        std::fs::write(&path, "").unwrap();
        let taken = take(&RealDisk, dir.path()).unwrap();
        assert_eq!(taken, Some(CleanShutdown { broker_epoch: -1 }));
    }
}
