//! What can be said on the command line, with its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Kafka-wire-compatible broker: point any Kafka client at it.
#[derive(Debug, Parser)]
#[command(
    name = "ottla",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with `ottla start`: one node on 127.0.0.1:9092 with its data in ./data.\n\
                  Settings are Apache Kafka's; `ottla config` lists them."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node and serve until SIGTERM or Ctrl-C
    #[command(after_help = START_HELP)]
    Start(StartArgs),
    /// Give data directories their identity before the first start
    #[command(after_help = FORMAT_HELP)]
    Format(FormatArgs),
    /// List the settings, or explain one
    Config(ConfigArgs),
    /// Check whether a node can run here, and say what mends what is wrong
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Print a new id for a cluster
    RandomUuid,
    /// Print what is in log segments, indexes and snapshots, as kafka-dump-log.sh does
    DumpLog(DumpLogArgs),
    /// Measure latency and throughput of any Kafka-compatible broker
    Bench(Box<super::bench::BenchArgs>),
    /// Show what a node is doing now, per core, API and topic
    #[command(after_help = super::top::HELP)]
    Top(super::top::TopArgs),
}

#[derive(Args, Debug)]
pub struct StartArgs {
    /// Settings as a Java properties file (a KRaft node's server.properties works as it is)
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, stronger than the file's; may be given several times
    #[arg(short = 'o', long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Settings as a Java properties file; those of the node that is to run
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, stronger than the file's; may be given several times
    #[arg(short = 'o', long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Args, Debug)]
pub struct FormatArgs {
    /// The cluster's id (`ottla random-uuid` makes one)
    #[arg(short = 't', long, value_name = "ID")]
    pub cluster_id: String,
    /// Settings as a Java properties file; log.dirs names the directories
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, stronger than the file's; may be given several times
    #[arg(short = 'o', long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Skip directories that are formatted already instead of failing
    #[arg(short = 'g', long)]
    pub ignore_formatted: bool,
    /// The controller is its quorum's only voter, to begin with (so it is without a word)
    #[arg(short, long)]
    pub standalone: bool,
    /// The voters of a new quorum, as id@host:port:directory-id, comma-separated
    #[arg(short = 'I', long, value_name = "LIST", conflicts_with = "standalone")]
    pub initial_controllers: Option<String>,
    /// The controller joins the voters of a quorum later
    #[arg(short = 'N', long, conflicts_with_all = ["standalone", "initial_controllers"])]
    pub no_initial_controllers: bool,
}

#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The settings to explain; all are listed without
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
    /// List a topic's settings instead of a node's
    #[arg(long, conflicts_with = "group")]
    pub topic: bool,
    /// List a group's settings instead of a node's
    #[arg(long)]
    pub group: bool,
}

#[derive(Args, Debug)]
pub struct DumpLogArgs {
    /// Files ending in .log, .index, .timeindex, .txnindex, .snapshot or .checkpoint
    #[arg(value_name = "FILE", required_unless_present = "listed")]
    pub files: Vec<PathBuf>,
    /// The same, separated by commas, as kafka-dump-log takes them
    #[arg(long = "files", value_name = "FILES", value_delimiter = ',')]
    pub listed: Vec<PathBuf>,
    /// Print keys and values
    #[arg(long)]
    pub print_data_log: bool,
    /// Print a line for each record, not only for each batch
    #[arg(long)]
    pub deep_iteration: bool,
    /// Read the records of __consumer_offsets, and print them
    #[arg(long, group = "decoder")]
    pub offsets_decoder: bool,
    /// Read the records of __transaction_state, and print them
    #[arg(long, group = "decoder")]
    pub transaction_log_decoder: bool,
    /// Read the records of __cluster_metadata or of its snapshots, and print them
    #[arg(long, group = "decoder")]
    pub cluster_metadata_decoder: bool,
    /// Read the records of __share_group_state, and print them
    #[arg(long, group = "decoder")]
    pub share_group_state_decoder: bool,
    /// Print what is in the records, and nothing about them
    #[arg(long)]
    pub skip_record_metadata: bool,
    /// Compare the indexes with the logs, and print only what is wrong
    #[arg(long)]
    pub verify_index_only: bool,
    /// Tell only whether a broker would take the indexes as they are
    #[arg(long)]
    pub index_sanity_check: bool,
    /// Read at most so much of each log
    #[arg(long, value_name = "BYTES")]
    pub max_bytes: Option<u64>,
}

const START_HELP: &str = "\
Without a config file the node is a broker and controller for this machine: it listens on
127.0.0.1:9092 (clients) and 127.0.0.1:9093 (controller), keeps its data in ./data and
formats that directory at first start.

Often wanted:
  -o listeners=PLAINTEXT://0.0.0.0:9092 -o advertised.listeners=PLAINTEXT://HOST:9092
  -o log.dirs=/var/lib/ottla
  -o num.partitions=4
  -o ottla.cores=2

`ottla config KEY` explains a setting; docs/CONFIG.md has them all.";

const DOCTOR_HELP: &str = "\
Each line begins with ok, warn (a node starts, but is slower, smaller or less safe than it
could be) or FAIL (a node doesn't start), and says what to do, with the command. The exit
status is 1 if anything is FAIL. `ottla start` looks at the fatal ones first, too.

It looks at the kernel and io_uring (and at what blocks it: kernel.io_uring_disabled, seccomp
filters of containers), the event loops, limits of locked memory, open files and pipes, CPUs,
cpuset, CPU quota, NUMA, clock, CPU frequency, huge pages, and the file system of each
directory of log.dirs. Nothing is created or changed.

Run it as the user that the node runs as, in its container or unit: root is exempt from most
limits.

  ottla doctor --config server.properties
  sudo -u ottla ottla doctor -o log.dirs=/var/lib/ottla -o ottla.cores=0-3";

const FORMAT_HELP: &str = "\
A first start of a single node formats its directories by itself, with a cluster id of its
own. Format beforehand to choose the id:

  ottla format --cluster-id $(ottla random-uuid) --config server.properties";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn start_takes_a_file_and_overrides() {
        let cli = Cli::try_parse_from([
            "ottla",
            "start",
            "--config",
            "f",
            "--override",
            "a=1",
            "-o",
            "b=2",
        ]);
        let Ok(Cli {
            command: Command::Start(args),
        }) = cli
        else {
            panic!("{cli:?}");
        };
        assert_eq!(args.config, Some(PathBuf::from("f")));
        assert_eq!(args.overrides, ["a=1", "b=2"]);
    }
}
