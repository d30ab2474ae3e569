//! Reads batches of committed metadata records into images. Keeps apart what stands in an
//! open metadata transaction (KIP-868): it becomes visible with its EndTransaction record,
//! or never.
//!
//! ```text
//!   … a b │ Begin  c d  …  e  End │ f …
//!         ↑ visible until End       ↑ everything visible; after Abort: a b f
//! ```

use super::changes::ImageChanges;
use super::delta::{MetadataDelta, ReplayError};
use super::image::{MetadataImage, Provenance};
use super::record::MetadataRecord;
use crate::base::{Millis, Offset};

#[derive(Debug)]
pub struct MetadataLoader {
    /// The last image given out.
    image: MetadataImage,
    /// Visible changes since then.
    visible: MetadataDelta,
    /// Up to where `visible` goes.
    visible_to: Provenance,
    /// With the records of the open transaction.
    transaction: Option<MetadataDelta>,
    /// Where the open transaction began.
    transaction_start: Offset,
}

/// Of the batch that records stand in.
#[derive(Clone, Copy, Debug)]
pub struct BatchOrigin {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub leader_epoch: i32,
    pub timestamp_ms: Millis,
}

impl MetadataLoader {
    /// Goes on from an image (of a snapshot, or empty).
    pub fn new(image: MetadataImage) -> MetadataLoader {
        MetadataLoader {
            visible: MetadataDelta::new(&image),
            visible_to: image.provenance,
            transaction: None,
            transaction_start: Offset::UNKNOWN,
            image,
        }
    }

    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The state as of all batches so far, without ending what [`MetadataLoader::take`] tells.
    pub fn latest(&self) -> MetadataImage {
        self.visible.clone().apply(self.visible_to).0
    }

    /// Goes on from the image of a snapshot, which takes the place of what was read so far.
    pub fn replace(&mut self, image: MetadataImage) {
        self.transaction = None;
        self.visible_to = image.provenance;
        self.visible = MetadataDelta::between(&self.image, image);
    }

    /// Sets the version that the log's control records finalize.
    pub fn set_kraft_version(&mut self, version: i16) {
        self.image.kraft_version = version;
        self.visible.set_kraft_version(version);
        if let Some(transaction) = &mut self.transaction {
            transaction.set_kraft_version(version);
        }
    }

    /// Offset of the Begin record of a transaction that is still open.
    pub fn open_transaction(&self) -> Option<Offset> {
        self.transaction.as_ref().map(|_| self.transaction_start)
    }

    /// Takes the records of one committed batch.
    pub fn replay_batch(
        &mut self,
        origin: BatchOrigin,
        records: &[MetadataRecord],
    ) -> Result<(), ReplayError> {
        for (index, record) in (0..).zip(records) {
            let offset = origin.base_offset + index;
            match record {
                MetadataRecord::BeginTransaction(_) => self.begin(offset)?,
                MetadataRecord::EndTransaction(_) => {
                    let delta = self.transaction.take();
                    self.visible = delta.ok_or(ReplayError::NoTransaction("EndTransaction"))?;
                }
                MetadataRecord::AbortTransaction(_) => {
                    let delta = self.transaction.take();
                    delta.ok_or(ReplayError::NoTransaction("AbortTransaction"))?;
                }
                other => {
                    let delta = self.transaction.as_mut().unwrap_or(&mut self.visible);
                    delta.replay(other)?;
                }
            }
            if self.transaction.is_none() {
                self.visible_to = at(offset, origin);
            }
        }
        self.skip_batch(origin);
        Ok(())
    }

    /// Passes over a batch without metadata records (a control batch).
    pub fn skip_batch(&mut self, origin: BatchOrigin) {
        if self.transaction.is_none() {
            self.visible_to = at(origin.last_offset, origin);
        }
    }

    /// The image as of all batches so far and what changed since the one given last; `None`
    /// when nothing new is visible.
    pub fn take(&mut self) -> Option<(MetadataImage, ImageChanges)> {
        if self.visible_to == self.image.provenance {
            return None;
        }
        let delta = std::mem::replace(&mut self.visible, MetadataDelta::new(&self.image));
        let (image, changes) = delta.apply(self.visible_to);
        self.visible = MetadataDelta::new(&image);
        if let Some(transaction) = &mut self.transaction {
            transaction.rebase(&image);
        }
        self.image = image.clone();
        Some((image, changes))
    }

    fn begin(&mut self, offset: Offset) -> Result<(), ReplayError> {
        if self.transaction.is_some() {
            return Err(ReplayError::NestedTransaction("BeginTransaction"));
        }
        self.transaction = Some(self.visible.clone());
        self.transaction_start = offset;
        Ok(())
    }
}

fn at(offset: Offset, origin: BatchOrigin) -> Provenance {
    Provenance {
        offset,
        epoch: origin.leader_epoch,
        timestamp_ms: origin.timestamp_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Uuid;
    use crate::wire::messages::{
        AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, TopicRecord,
    };

    fn topic(name: &str) -> MetadataRecord {
        TopicRecord {
            name: name.to_owned(),
            topic_id: Uuid([name.as_bytes()[0]; 16]),
        }
        .into()
    }

    fn begin() -> MetadataRecord {
        BeginTransactionRecord::default().into()
    }

    fn end() -> MetadataRecord {
        EndTransactionRecord::default().into()
    }

    fn abort() -> MetadataRecord {
        AbortTransactionRecord::default().into()
    }

    struct Script {
        loader: MetadataLoader,
        next: i64,
    }

    impl Script {
        fn batch(&mut self, records: &[MetadataRecord]) -> Result<(), ReplayError> {
            let origin = BatchOrigin {
                base_offset: Offset(self.next),
                last_offset: Offset(self.next + records.len() as i64 - 1),
                leader_epoch: 1,
                timestamp_ms: 1,
            };
            self.next += records.len() as i64;
            self.loader.replay_batch(origin, records)
        }

        /// Topics of the image, those that were created in it, and its last offset.
        fn take(&mut self) -> Option<(String, String, i64)> {
            let (image, changes) = self.loader.take()?;
            let all: String = image.topics.iter().map(|topic| &*topic.name).collect();
            let new = changes.topics_created.iter();
            let new: String = new.map(|topic| &*topic.name).collect();
            Some((all, new, image.provenance.offset.0))
        }
    }

    fn script() -> Script {
        Script {
            loader: MetadataLoader::new(MetadataImage::default()),
            next: 0,
        }
    }

    fn seen(all: &str, new: &str, offset: i64) -> Option<(String, String, i64)> {
        Some((all.to_owned(), new.to_owned(), offset))
    }

    #[test]
    fn a_transaction_is_seen_when_it_ends() {
        let mut script = script();
        script.batch(&[topic("a"), begin(), topic("b")]).unwrap();
        assert_eq!(script.take(), seen("a", "a", 0));
        assert_eq!(script.take(), None);
        script.batch(&[topic("c")]).unwrap();
        assert_eq!(script.loader.open_transaction(), Some(Offset(1)));
        assert_eq!(script.take(), None);
        script.batch(&[end(), topic("d")]).unwrap();
        assert_eq!(script.take(), seen("abcd", "bcd", 5));
    }

    #[test]
    fn an_aborted_transaction_is_never_seen() {
        let mut script = script();
        script.batch(&[topic("a")]).unwrap();
        script.batch(&[begin(), topic("b")]).unwrap();
        script.batch(&[topic("c"), abort(), topic("d")]).unwrap();
        assert_eq!(script.take(), seen("ad", "ad", 5));
        assert_eq!(script.loader.open_transaction(), None);
    }

    #[test]
    fn transactions_do_not_nest() {
        let mut script = script();
        assert!(matches!(
            script.batch(&[end()]),
            Err(ReplayError::NoTransaction(_))
        ));
        assert!(matches!(
            script.batch(&[abort()]),
            Err(ReplayError::NoTransaction(_))
        ));
        script.batch(&[begin()]).unwrap();
        assert!(matches!(
            script.batch(&[begin()]),
            Err(ReplayError::NestedTransaction(_))
        ));
    }
}
