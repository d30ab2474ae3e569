//! Control records: markers of transactions in data logs, and the records by which KRaft
//! speaks of itself in the metadata log. A control batch has attribute bit 5; its records'
//! keys are `i16 version, i16 type`.
//!
//! Only the marker's value is known here; the other values are wire messages.

/// What a control record says (`ControlRecordType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum ControlType {
    Abort = 0,
    Commit = 1,
    LeaderChange = 2,
    SnapshotHeader = 3,
    SnapshotFooter = 4,
    KRaftVersion = 5,
    KRaftVoters = 6,
}

impl ControlType {
    /// The record's key, version 0.
    pub fn key(self) -> [u8; 4] {
        let [high, low] = (self as i16).to_be_bytes();
        [0, 0, high, low]
    }

    /// Reads a control record's key. `None` for a type that we don't know, which readers
    /// skip, and for a key that is malformed.
    pub fn from_key(key: &[u8]) -> Option<ControlType> {
        let (version, rest) = key.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes(*rest.first_chunk::<2>()?) {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            2 => ControlType::LeaderChange,
            3 => ControlType::SnapshotHeader,
            4 => ControlType::SnapshotFooter,
            5 => ControlType::KRaftVersion,
            6 => ControlType::KRaftVoters,
            _ => return None,
        })
    }
}

/// The end of a transaction in one partition (`EndTransactionMarker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    pub commit: bool,
    /// Epoch of the transaction coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    pub fn control_type(&self) -> ControlType {
        if self.commit {
            ControlType::Commit
        } else {
            ControlType::Abort
        }
    }

    /// The record's value: `i16 version 0, i32 coordinator epoch`.
    pub fn value(&self) -> [u8; 6] {
        let [a, b, c, d] = self.coordinator_epoch.to_be_bytes();
        [0, 0, a, b, c, d]
    }

    /// Reads key and value of a control record; `None` if it is not a marker. Later
    /// versions of the value may be longer.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<EndTxnMarker> {
        let commit = match ControlType::from_key(key)? {
            ControlType::Abort => false,
            ControlType::Commit => true,
            _ => return None,
        };
        let (version, rest) = value.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        Some(EndTxnMarker {
            commit,
            coordinator_epoch: i32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_markers_round_trip() {
        for kind in [
            ControlType::Abort,
            ControlType::Commit,
            ControlType::LeaderChange,
            ControlType::SnapshotHeader,
            ControlType::SnapshotFooter,
            ControlType::KRaftVersion,
            ControlType::KRaftVoters,
        ] {
            assert_eq!(ControlType::from_key(&kind.key()), Some(kind));
        }
        assert_eq!(ControlType::from_key(&[0, 0, 0, 7]), None);
        assert_eq!(ControlType::from_key(&[0, 0, 0]), None);
        assert_eq!(ControlType::from_key(&[0xff, 0xff, 0, 1]), None);
        let marker = EndTxnMarker {
            commit: true,
            coordinator_epoch: 7,
        };
        let key = marker.control_type().key();
        assert_eq!(EndTxnMarker::parse(&key, &marker.value()), Some(marker));
        assert_eq!(EndTxnMarker::parse(&key, &marker.value()[..5]), None);
        let other = ControlType::KRaftVersion.key();
        assert_eq!(EndTxnMarker::parse(&other, &marker.value()), None);
    }
}
