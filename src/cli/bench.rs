//! `ottla bench`: its options and help; the work is in `crate::bench`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::output;
use crate::bench::floor::{kernel, serve};
use crate::bench::scenario::{self, Params};
use crate::bench::{Outcome, text, write_json};

#[derive(Args, Debug)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Publish: in closed loop for saturation, in open loop (--rate) for latency
    Produce(LoadArgs),
    /// From publishing to arrival at a consumer, by the time in each record
    E2e(LoadArgs),
    /// What the kernel gives in the same units; with --serve, the least in a broker's place
    Floor(FloorArgs),
}

#[derive(Args, Debug)]
struct LoadArgs {
    /// Any broker of the cluster
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Created if it is missing, with a partition for each connection
    #[arg(long, value_name = "NAME", default_value = "ottla-bench")]
    topic: String,
    /// Bytes of a record's value, at least 8
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..))]
    record_bytes: u32,
    /// Bytes of values in a batch; smaller than a record means one record
    #[arg(long, value_name = "BYTES", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..))]
    batch_bytes: u32,
    /// Connections that produce, each with a thread and a partition
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Requests under way on a connection in closed loop
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,
    /// Who must have a batch before it is acknowledged
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Open loop: records per second of all connections together
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    duration: Duration,
    /// Seconds before them that are not
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warm_up: Duration,
    /// Write the result with the machine's fingerprint to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write an HdrHistogram interval log to FILE
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
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
    All,
    #[value(name = "1")]
    Leader,
}

pub fn run(args: &BenchArgs) -> Result<(), String> {
    match &args.scenario {
        Scenario::Produce(args) => end(args, &scenario::produce(&params(args))?),
        Scenario::E2e(args) => end(args, &scenario::e2e(&params(args))?),
        Scenario::Floor(args) => floor(args),
    }
}

fn params(args: &LoadArgs) -> Params {
    Params {
        bootstrap: args.bootstrap.clone(),
        topic: args.topic.clone(),
        record_bytes: args.record_bytes as usize,
        batch_bytes: args.batch_bytes as usize,
        connections: usize::from(args.connections),
        depth: usize::from(args.depth),
        acks: match args.acks {
            Acks::All => -1,
            Acks::Leader => 1,
        },
        rate: args.rate,
        duration: args.duration,
        warm_up: args.warm_up,
    }
}

fn end(args: &LoadArgs, outcome: &Outcome) -> Result<(), String> {
    if let Some(path) = &args.json {
        outcome.write_json(path)?;
    }
    if let Some(path) = &args.hlog {
        outcome.write_hlog(path)?;
    }
    output::print(&text(outcome))
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
        write_json(path, &kernel::to_json(&floors, sizes, &args.dir))?;
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

const BENCH_HELP: &str = "\
In closed loop the next batch goes when an answer comes: for saturation. With --rate batches
go on a fixed schedule, and latency counts from the time that each was meant to go, so that
a broker that stalls can't hide it. A run that achieved less than 99 % of its rate, or that
the generator itself limited, is INVALID and says why.

  ottla bench produce --bootstrap HOST:9092
  ottla bench e2e --rate 10000 --batch-bytes 100 --json e2e.json --hlog e2e.hlog
  ottla bench floor
  ottla bench floor --serve 127.0.0.1:9192 &
  ottla bench produce --bootstrap 127.0.0.1:9192";
