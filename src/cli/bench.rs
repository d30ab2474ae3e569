//! `ottla bench`: its options and help; the work is in `crate::bench`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::output;
use super::stop::Stop;
use crate::bench::floor::{kernel, serve};
use crate::bench::params::{Params, Plan, Scenario};
use crate::bench::record::write_hlog;
use crate::bench::recovery::{self, Recovery};
use crate::bench::scenario::{self, Outcome};
use crate::bench::text;
use crate::record::CompressionType;

#[derive(Args, Debug)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publishing: how much, and how long until the acknowledgement
    Produce(LoadArgs),
    /// Catching up: reads data that is there from the start to the end, over and over
    Fetch(LoadArgs),
    /// From publishing to arrival at a consumer, by the time in each record
    E2e(LoadArgs),
    /// Fan-out: like e2e, each record to several consumers
    Mixed(LoadArgs),
    /// Thousands of connections that publish small batches
    Conns(LoadArgs),
    /// Thousands of partitions, published to in turn and read by one consumer
    Partitions(LoadArgs),
    /// 100 producers with keys and small batches, each encoded anew
    Keyed(LoadArgs),
    /// From the start, and from a crash, to the first acknowledgement
    Recovery(RecoveryArgs),
    /// What the kernel gives in the same units; with --serve, the least in a broker's place
    Floor(FloorArgs),
    /// The same run against two brokers in turns, the idle one frozen, and the ratio
    Compare(super::bench_compare::CompareArgs),
    /// Results as Markdown tables and percentile plots
    Report(super::bench_report::ReportArgs),
}

#[derive(Args, Debug)]
#[command(after_help = LOAD_HELP)]
struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: ShapeArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    generator: GeneratorArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Broker and topic")]
struct TargetArgs {
    /// Any broker of the cluster
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Use this topic and keep it [default: a new one, deleted afterwards]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Partitions of the topic [default: one a connection; conns 16, keyed 12, partitions 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    partitions: Option<u32>,
    /// Replicas of each partition, where the topic is created
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: i16,
    /// Who must have a batch before it is acknowledged
    #[arg(long, value_enum, default_value_t = Acks::All, allow_negative_numbers = true)]
    acks: Acks,
    /// The broker's process on this machine: its CPU and memory are measured, too
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    broker_pid: Option<u32>,
    /// The broker's software, for the result: no broker tells it
    #[arg(long, value_name = "NAME")]
    broker_name: Option<String>,
    /// And its version
    #[arg(long, value_name = "VERSION")]
    broker_version: Option<String>,
    /// Where its log lies, for the fingerprint of disk and file system [default: as it tells]
    #[arg(long, value_name = "DIR")]
    broker_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
struct ShapeArgs {
    /// Connections that publish or (fetch) read [default: 4; e2e 1, mixed 2, conns 1000,
    /// keyed 100]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Option<u32>,
    /// Consumers of each partition [default: 1; mixed 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    fan_out: Option<u32>,
    /// Requests under way on a connection in closed loop [default: 5; conns 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
    /// Bytes of a record's value, at least 8
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..))]
    record_bytes: u32,
    /// Bytes of values in a batch; less than a record means one record [default: 16384; e2e,
    /// mixed, conns, partitions, keyed 1000]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    batch_bytes: Option<u32>,
    /// Encode every batch anew instead of sending prepared ones; what that costs shows in the
    /// generator's CPU
    #[arg(long)]
    encode: bool,
    /// Distinct keys, which choose the partition as Kafka's partitioner does; implies --encode
    /// [default: none; keyed 10000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: Option<u32>,
    /// Compress batches; implies --encode
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// fetch: MiB of values that are published first, of all partitions together
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    data_mib: u64,
    /// Bytes that a fetch asks for
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1024..=1 << 28))]
    fetch_bytes: u32,
    /// Check the CRC and all records of one fetched batch in so many; offsets of every batch
    /// and the errors of every answer are checked anyway
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    check_every: u32,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Pace")]
struct PaceArgs {
    /// Open loop only, at this many records per second of all connections together
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["closed", "shares"])]
    rate: Option<u64>,
    /// Closed loop only: the saturation
    #[arg(long, conflicts_with = "shares")]
    closed: bool,
    /// After the saturation, percents of it to offer in open loop
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_values_t = [20.0, 50.0, 80.0, 95.0], value_parser = percent)]
    shares: Vec<f64>,
    /// Seconds that are measured, of each phase
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    duration: Duration,
    /// Seconds before them that are not
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warm_up: Duration,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Generator")]
struct GeneratorArgs {
    /// Threads that publish, and as many again that read [default: half of the CPUs, 4 at
    /// most]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Pin the threads to these CPUs in turn, as 2,3
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    cpus: Vec<usize>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Write everything to DIR: NAME.json, and NAME-PHASE.hlog (by intervals) and
    /// NAME-PHASE-total.hlog (the whole phase) for HdrHistogram's tools
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name the result [default: the scenario]
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    name: Option<String>,
    /// Write only the JSON, to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = RECOVERY_HELP)]
struct RecoveryArgs {
    /// Where the broker will be
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Starts the broker, by the shell and in the foreground
    #[arg(long, value_name = "COMMAND", required_unless_present = "pid")]
    start: Option<String>,
    /// A broker that runs already, is killed (SIGKILL) and started again by --start or by whoever
    /// watches over it
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(2..))]
    pid: Option<u32>,
    /// How many crashes; with --pid and without --start it is 1
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
    /// Seconds of publishing before each crash
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    duration: Duration,
    /// Seconds to wait for the first acknowledgement
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = positive_seconds)]
    patience: Duration,
    /// Partitions that are published to
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    /// Bytes of a batch of one record
    #[arg(long, value_name = "BYTES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(8..))]
    record_bytes: u32,
    /// Who must have a batch before it is acknowledged
    #[arg(long, value_enum, default_value_t = Acks::All, allow_negative_numbers = true)]
    acks: Acks,
    /// The broker's software, for the result
    #[arg(long, value_name = "NAME")]
    broker_name: Option<String>,
    /// And its version
    #[arg(long, value_name = "VERSION")]
    broker_version: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
struct FloorArgs {
    /// Answer the generator's requests at this address until ended, instead of measuring
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "json")]
    serve: Option<SocketAddr>,
    /// Where the files are, which have no names and go with the process
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Bytes of a ping-pong's message
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    record_bytes: u32,
    /// Bytes of a step of everything else
    #[arg(long, value_name = "BYTES", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..))]
    batch_bytes: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = positive_seconds)]
    duration: Duration,
    /// Write the result with the machine's fingerprint to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Acks {
    #[value(alias = "-1")]
    All,
    #[value(name = "1")]
    Leader,
}

impl Acks {
    fn number(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    fn kind(self) -> CompressionType {
        match self {
            Codec::None => CompressionType::None,
            Codec::Gzip => CompressionType::Gzip,
            Codec::Snappy => CompressionType::Snappy,
            Codec::Lz4 => CompressionType::Lz4,
            Codec::Zstd => CompressionType::Zstd,
        }
    }
}

pub fn run(args: &BenchArgs) -> Result<(), String> {
    let (scenario, args) = match &args.scenario {
        Command::Produce(args) => (Scenario::Produce, args),
        Command::Fetch(args) => (Scenario::Fetch, args),
        Command::E2e(args) => (Scenario::E2e, args),
        Command::Mixed(args) => (Scenario::Mixed, args),
        Command::Conns(args) => (Scenario::Conns, args),
        Command::Partitions(args) => (Scenario::Partitions, args),
        Command::Keyed(args) => (Scenario::Keyed, args),
        Command::Recovery(args) => return recover(args),
        Command::Floor(args) => return floor(args),
        Command::Compare(args) => return super::bench_compare::run(args),
        Command::Report(args) => return super::bench_report::run(args),
    };
    args.output.check()?;
    let stop = Stop::on_signals().map_err(|error| format!("can't listen for signals: {error}"))?;
    let mut outcome = scenario::run(&params(scenario, args), stop.flag())?;
    let cut_short = outcome.cut_short.take();
    end(&args.output, outcome)?;
    cut_short.map_or(Ok(()), Err)
}

impl OutputArgs {
    /// Whether the result can be written: before the run, not after it.
    fn check(&self) -> Result<(), String> {
        let try_out = |path: &Path| {
            let is_new = !path.exists();
            if !is_new && !path.is_file() && !path.is_dir() {
                // A pipe or a terminal: opening it would begin to write.
                return Ok(());
            }
            let opened = OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(|error| cant_write(path, &error))?;
            if is_new {
                std::fs::remove_file(path).map_err(|error| cant_write(path, &error))?;
            }
            Ok(())
        };
        if let Some(dir) = &self.out {
            std::fs::create_dir_all(dir).map_err(|error| cant_write(dir, &error))?;
            try_out(&dir.join(".ottla-bench"))?;
        }
        self.json.as_deref().map_or(Ok(()), try_out)
    }
}

fn params(scenario: Scenario, args: &LoadArgs) -> Params {
    let (target, load, pace) = (&args.target, &args.load, &args.pace);
    let or = |given: Option<u32>, default: usize| given.map_or(default, |it| it as usize);
    let connections = match scenario {
        Scenario::E2e => 1,
        Scenario::Mixed => 2,
        Scenario::Conns => 1000,
        Scenario::Keyed => 100,
        Scenario::Produce | Scenario::Fetch | Scenario::Partitions => 4,
    };
    let connections = or(load.connections, connections);
    let partitions = match scenario {
        Scenario::Conns => connections.min(16),
        Scenario::Keyed => 12,
        Scenario::Partitions => 1000,
        _ => connections,
    };
    let keys = if scenario == Scenario::Keyed {
        10_000
    } else {
        0
    };
    let batch_bytes = match scenario {
        Scenario::Produce | Scenario::Fetch => 16384,
        _ => 1000,
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Params {
        scenario,
        bootstrap: target.bootstrap.clone(),
        topic: target.topic.clone(),
        partitions: or(target.partitions, partitions),
        replication_factor: target.replication_factor,
        record_bytes: load.record_bytes as usize,
        batch_bytes: or(load.batch_bytes, batch_bytes),
        connections,
        fan_out: or(
            load.fan_out,
            if scenario == Scenario::Mixed { 3 } else { 1 },
        ),
        depth: or(
            load.depth.map(u32::from),
            if scenario == Scenario::Conns { 1 } else { 5 },
        ),
        acks: target.acks.number(),
        plan: match pace.rate {
            Some(rate) => Plan::Rate(rate),
            None if pace.closed => Plan::Closed,
            None => Plan::Shares(pace.shares.clone()),
        },
        duration: pace.duration,
        warm_up: pace.warm_up,
        encode: load.encode,
        keys: or(load.keys, keys),
        compression: load.compression.kind(),
        data_bytes: load.data_mib << 20,
        fetch_bytes: load.fetch_bytes as usize,
        check_every: u64::from(load.check_every),
        threads: or(
            args.generator.threads.map(u32::from),
            (cpus / 2).clamp(1, 4),
        ),
        cpus: args.generator.cpus.clone(),
        broker_pid: target.broker_pid,
        broker_name: target.broker_name.clone(),
        broker_version: target.broker_version.clone(),
        broker_dir: target.broker_dir.clone(),
        name: args.output.name.clone(),
    }
}

fn recover(args: &RecoveryArgs) -> Result<(), String> {
    args.output.check()?;
    let result = recovery::run(&Recovery {
        bootstrap: args.bootstrap.clone(),
        start: args.start.clone(),
        pid: args.pid,
        times: args.times,
        duration: args.duration,
        patience: args.patience,
        partitions: args.partitions,
        record_bytes: args.record_bytes as usize,
        acks: args.acks.number(),
        broker_name: args.broker_name.clone(),
        broker_version: args.broker_version.clone(),
        name: args.output.name.clone(),
    })?;
    let outcome = Outcome {
        result,
        measured: Vec::new(),
        cut_short: None,
    };
    end(&args.output, outcome)
}

/// Writes what was asked for and prints the summary.
fn end(output: &OutputArgs, mut outcome: Outcome) -> Result<(), String> {
    // First: what follows may fail.
    output::print(&text(&outcome.result))?;
    if let Some(dir) = &output.out {
        std::fs::create_dir_all(dir).map_err(|error| cant_write(dir, &error))?;
        write_hlogs(dir, &mut outcome)?;
        let path = dir.join(format!("{}.json", outcome.result.name));
        write(&path, &outcome.result.to_json())?;
    }
    if let Some(path) = &output.json {
        write(path, &outcome.result.to_json())?;
    }
    Ok(())
}

/// Two interval logs for each phase; their names go into the result.
fn write_hlogs(dir: &Path, outcome: &mut Outcome) -> Result<(), String> {
    let name = outcome.result.name.clone();
    for (phase, measured) in outcome.result.phases.iter_mut().zip(&outcome.measured) {
        // A name without what a shell or a file system may mistake.
        let stem = format!("{name}-{}", phase.name.replace('%', "pct"));
        let logs = [
            (format!("{stem}.hlog"), measured.interval_lines()),
            (format!("{stem}-total.hlog"), measured.total_lines()),
        ];
        for (file, lines) in logs {
            let path = dir.join(&file);
            let written = File::create(&path).and_then(|file| {
                let mut out = BufWriter::new(file);
                write_hlog(&mut out, measured.began, &lines)?;
                out.flush()
            });
            written.map_err(|error| cant_write(&path, &error))?;
            phase.hlogs.push(file);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| cant_write(path, &error))
}

fn cant_write(path: &Path, error: &std::io::Error) -> String {
    format!("can't write {}: {error}", path.display())
}

fn floor(args: &FloorArgs) -> Result<(), String> {
    if let Some(address) = &args.serve {
        return serve::serve(&address.to_string(), &args.dir, |bound| {
            output::print(&format!("floor is serving on {bound}\n"))
        });
    }
    let sizes = kernel::Sizes {
        record_bytes: args.record_bytes as usize,
        batch_bytes: args.batch_bytes as usize,
        duration: args.duration,
    };
    let floors = kernel::measure(sizes, &args.dir)?;
    if let Some(path) = &args.json {
        write(
            path,
            &format!("{:#}\n", kernel::to_json(&floors, sizes, &args.dir)),
        )?;
    }
    output::print(&kernel::text(&floors))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|it| {
        if it.is_zero() {
            Err("more than 0".into())
        } else {
            Ok(it)
        }
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number")?;
    let good = percent > 0.0 && percent <= 1000.0;
    good.then_some(percent)
        .ok_or_else(|| "from above 0 to 1000".to_owned())
}

fn file_name(text: &str) -> Result<String, String> {
    let good = |it: char| it.is_ascii_alphanumeric() || "-_.+".contains(it);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(good) {
        return Err("letters, digits and -_.+ only: it names files".to_owned());
    }
    Ok(text.to_owned())
}

const BENCH_HELP: &str = "\
Works against any Kafka-compatible broker. A scenario first measures the saturation in
closed loop (the next batch goes when an answer comes), then offers 20, 50, 80 and 95 % of it
in open loop: batches go on a fixed schedule, whatever became of the ones before, and latency
counts from the time that each was meant to go, so that a broker that stalls can't hide it.
That time stands in every record's value, so that arrival is timed in the same way.

A phase that achieved less than 99 % of its rate, or that the generator itself limited or
was late for, is INVALID and says why; that is no failure of the command, which ends with 0
(the JSON has `valid` and `faults`). Throughput is of values: 1 MB is 10^6 bytes of them.
Ctrl-C or SIGTERM ends a run with what its finished phases found, and 1; a second one at once.

  ottla bench produce --bootstrap HOST:9092                 all of it, about a minute
  ottla bench produce --closed --connections 8 --threads 4  only how much
  ottla bench e2e --rate 10000 --batch-bytes 100            only how fast, at that rate
  ottla bench e2e --out results --name e2e-mine --broker-pid $(pidof ottla)
  ottla bench recovery --start 'ottla start --config server.properties'
  ottla bench floor
  ottla bench floor --serve 127.0.0.1:9192 &
  ottla bench produce --bootstrap 127.0.0.1:9192

`ottla bench SCENARIO --help` tells all options.";

const LOAD_HELP: &str = "\
What the summary shows, by phase: throughput of what was acknowledged (or arrived); latency
in µs, where `publish` is a batch's from the intended time to the acknowledgement, `arrival`
a record's to its consumer, `fetch` a fetch's, `connect` a connection's with its first answer,
`own late` the generator's own lateness, which is no fault of the broker; CPU and memory
(peak RSS is the process's since its start).

Throughput counts all that was answered in the measured seconds, whenever it was due; the
share of the rate that was achieved counts only what was due in them and answered by their
end. What still waits half of that time later isn't sent any more, and counts as late as it
is by then. With consumers throughput is theirs: a record that three read counts three times.

Without --topic the run makes a topic and deletes it. A topic that is named is kept, is
created where there is none, and is written to (`fetch` puts --data-mib into it first).

If the generator is said to be the limit: give it more --threads, or another machine.
HdrHistogram's log analyzer reads the .hlog files; values are in ns.";

const RECOVERY_HELP: &str = "\
Starts the broker, and counts from then until a batch is acknowledged. Then, so many times:
publishes for a while, kills the broker with SIGKILL, starts it again at once, and counts from
the kill. What was acknowledged before must be there afterwards, or the run is INVALID.

  ottla bench recovery --start 'ottla start --config server.properties' --times 10
  ottla bench recovery --pid 4711     (a service manager starts it again)";
