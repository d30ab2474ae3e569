//! `ottla bench compare`: its options and help; the work is in `crate::bench::compare`.

use std::path::PathBuf;

use clap::Args;

use super::output;
use super::stop::Stop;
use crate::bench::compare::plan::{Plan, SCHEMA, Side, TOOL};
use crate::bench::compare::{Comparison, Interrupt, Process, Server, run as compare};

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct CompareArgs {
    /// The one side: its name and any broker of it
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = named)]
    a: (String, String),
    /// The other; ratios are a to b
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = named)]
    b: (String, String),
    /// Run once beside them, as `floor --serve`
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = named)]
    ceiling: Option<(String, String)>,
    /// The process of a, frozen while it isn't its turn
    #[arg(long, value_name = "PID")]
    a_pid: Option<u32>,
    /// The process of b
    #[arg(long, value_name = "PID")]
    b_pid: Option<u32>,
    /// The ceiling's process
    #[arg(long, value_name = "PID", requires = "ceiling")]
    ceiling_pid: Option<u32>,
    /// Log directory of a: a slice's deleted topic is awaited there
    #[arg(long, value_name = "DIR")]
    a_dir: Option<PathBuf>,
    /// Log directory of b
    #[arg(long, value_name = "DIR")]
    b_dir: Option<PathBuf>,
    /// Pairs of slices
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
    /// Where plan and results go; one with the same plan is gone on with
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Short name; the directory's if not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it shows, for the report
    #[arg(long, value_name = "TEXT", default_value = "")]
    title: String,
    /// Create each slice's topic with so many partitions, instead of leaving it to the run
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting of that topic, as flush.messages=1; may be given several times
    #[arg(long, value_name = "KEY=VALUE", requires = "partitions")]
    topic_config: Vec<String>,
    /// The command is a program, with {bootstrap} {topic} {name} {side} {pid} and {json} in it
    #[arg(long)]
    external: bool,
    /// The program starts what it measures: the sides' addresses are only told to it
    #[arg(long, requires = "external", conflicts_with_all = ["partitions", "a_pid", "b_pid", "ceiling_pid"])]
    unserved: bool,
    /// The scenario with its options, or the program
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(args: &CompareArgs) -> Result<(), String> {
    let comparison = comparison(args)?;
    let stop = Stop::on_signals().map_err(|error| format!("can't listen for signals: {error}"))?;
    let interrupt = Interrupt::default();
    let interrupting = interrupt.clone();
    std::thread::spawn(move || {
        stop.wait();
        interrupting.request();
    });
    output::print(&compare(&comparison, &interrupt)?)
}

fn comparison(args: &CompareArgs) -> Result<Comparison, String> {
    let side = |(name, _): &(String, String)| Side { name: name.clone() };
    let server = |named: &(String, String), pid: Option<u32>, dir: Option<&PathBuf>| {
        Ok::<_, String>(Server {
            name: named.0.clone(),
            address: named.1.clone(),
            process: pid.map(Process::find).transpose()?,
            dir: dir.cloned(),
        })
    };
    let names = [Some(&args.a), Some(&args.b), args.ceiling.as_ref()];
    let names: Vec<&str> = names
        .into_iter()
        .flatten()
        .map(|it| it.0.as_str())
        .collect();
    if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
        return Err("each side needs a name of its own".to_owned());
    }
    let of_dir = || Some(args.out.file_name()?.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(of_dir);
    let ceiling = args.ceiling.as_ref();
    Ok(Comparison {
        plan: Plan {
            schema: SCHEMA,
            tool: TOOL.to_owned(),
            name: name.ok_or("--out needs a name of its own")?,
            title: args.title.clone(),
            a: side(&args.a),
            b: side(&args.b),
            ceiling: ceiling.map(side),
            pairs: args.pairs,
            command: args.command.clone(),
            external: args.external,
            unserved: args.unserved,
            topic_partitions: args.partitions,
            topic_configs: args.topic_config.clone(),
        },
        a: server(&args.a, args.a_pid, args.a_dir.as_ref())?,
        b: server(&args.b, args.b_pid, args.b_dir.as_ref())?,
        ceiling: ceiling
            .map(|named| server(named, args.ceiling_pid, None))
            .transpose()?,
        dir: args.out.clone(),
    })
}

/// The name goes into topics and files.
fn named(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("it is NAME=HOST:PORT")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || !name.chars().all(fits) {
        return Err("a name is of letters, digits and -".to_owned());
    }
    Ok((name.to_owned(), address.to_owned()))
}

const HELP: &str = "\
The order turns with each pair (A B, B A, ...), so that what drifts favours nobody. A slice is
a process of its own: `ottla bench COMMAND`, told --bootstrap, --topic, --json, --name,
--broker-name and --broker-pid; its topic is deleted after it. Of the pairs' ratios the median
is printed, and the interval that holds the true one with 90 % (by order statistics; below
five pairs the whole range, with what it is worth). Interrupted, the same command goes on.

  ottla bench compare --a ottla=127.0.0.1:9092 --a-pid 4711 --b kafka=127.0.0.1:9192 \\
    --b-pid 4712 --pairs 5 --out results/produce -- produce --closed --duration 10
  ottla bench report results";
