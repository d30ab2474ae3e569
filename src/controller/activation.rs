//! The records with which a new active controller begins (`ActivationRecordsGenerator`):
//! the bootstrap records of an empty log, or the end of a transaction that a predecessor
//! left open.

use crate::base::Offset;
use crate::metadata::{MetadataImage, MetadataRecord, MetadataVersion};
use crate::wire::messages::{AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord};

/// Records to append on activation. `bootstrap` is what bootstrap.checkpoint holds,
/// `open_transaction` where an unfinished transaction begins.
pub fn activation_records(
    image: &MetadataImage,
    bootstrap: &[MetadataRecord],
    open_transaction: Option<Offset>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    if open_transaction.is_some() {
        let reason = Some("Controller failover".to_owned());
        records.push(AbortTransactionRecord { reason }.into());
    }
    if image.features.metadata_version.is_some() {
        return records;
    }
    let in_transaction =
        bootstrap_version(bootstrap).is_some_and(MetadataVersion::has_transactions);
    if in_transaction {
        let name = Some("Bootstrap records".to_owned());
        records.push(BeginTransactionRecord { name }.into());
    }
    records.extend(bootstrap.iter().cloned());
    if in_transaction {
        records.push(EndTransactionRecord {}.into());
    }
    records
}

fn bootstrap_version(bootstrap: &[MetadataRecord]) -> Option<MetadataVersion> {
    bootstrap.iter().find_map(|record| match record {
        MetadataRecord::FeatureLevel(feature) if feature.name == "metadata.version" => {
            MetadataVersion::from_level(feature.feature_level)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_log_begins_with_the_bootstrap_records() {
        let bootstrap = [MetadataRecord::feature_level("metadata.version", 30)];
        let empty = MetadataImage::default();
        let names = |records: Vec<MetadataRecord>| {
            records.iter().map(|r| r.type_name()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(activation_records(&empty, &bootstrap, None)),
            [
                "BEGIN_TRANSACTION_RECORD",
                "FEATURE_LEVEL_RECORD",
                "END_TRANSACTION_RECORD"
            ]
        );
        assert_eq!(
            activation_records(&empty, &bootstrap, Some(Offset(3))).len(),
            4
        );
    }
}
