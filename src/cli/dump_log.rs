//! `ottla dump-log`: what is in the files of a log directory.

use std::io::{self, BufWriter, Write as _};

use super::args::DumpLogArgs;
use crate::io::RealDisk;
use crate::log::dump::{self, Decoder, DumpOptions};

pub fn run(args: &DumpLogArgs) -> Result<(), String> {
    let decoders = [
        (args.offsets_decoder, Decoder::Offsets),
        (args.transaction_log_decoder, Decoder::TransactionLog),
        (args.cluster_metadata_decoder, Decoder::ClusterMetadata),
        (args.share_group_state_decoder, Decoder::ShareGroupState),
    ];
    let decoder = decoders.into_iter().find(|(wanted, _)| *wanted);
    let options = DumpOptions {
        print_data: args.print_data_log || decoder.is_some(),
        deep_iteration: args.deep_iteration,
        decoder: decoder.map_or(Decoder::Text, |(_, decoder)| decoder),
        skip_record_metadata: args.skip_record_metadata,
        verify_index_only: args.verify_index_only,
        index_sanity_check: args.index_sanity_check,
        bytes_max: args.max_bytes.unwrap_or(u64::MAX),
    };
    let files: Vec<_> = args.files.iter().chain(&args.listed).cloned().collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let dumped = dump::dump(
        &RealDisk,
        &files,
        &options,
        &mut out,
        &mut io::stderr().lock(),
    );
    match dumped.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
