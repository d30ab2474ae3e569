//! `ottla bench report`: its options and help; the work is in `crate::bench::report`.

use std::path::PathBuf;

use clap::Args;

use super::output;
use crate::bench::report;

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct ReportArgs {
    /// Where results are (--json of runs, --out of compare), however deep
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Write the Markdown into FILE, between the lines that mark its place; a new file has them
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub fn run(args: &ReportArgs) -> Result<(), String> {
    output::print(&report::write(&args.dir, args.into.as_deref())?)
}

const HELP: &str = "\
Prints Markdown tables, and writes percentile plots (SVG) beside the results of comparisons.
The same results give the same report, byte for byte. Invalid runs are marked with their
reasons. A file about.md in a directory stands in front of its tables.

  ottla bench produce --json results/produce.json
  ottla bench report results --into report.md";
