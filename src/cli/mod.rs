//! Layer 5: the command line. One file a subcommand; parsing and help are here.
//!
//! Called by `main`. A user's mistake ends in one clear line on stderr and exit status 1
//! (2 where the command line itself is wrong), never in a panic message or a backtrace.

mod args;
mod banner;
mod bench;
mod bench_compare;
mod bench_report;
mod config;
mod doctor;
mod dump_log;
mod format;
mod output;
mod panic;
mod random_uuid;
mod start;
mod stop;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

pub use args::Cli;
use args::Command;
pub use stop::Stop;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    panic::install();
    run(std::env::args_os())
}

/// Runs one command; `args` begins with the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help and version come this way too, for stdout and with status 0.
        Err(error) => {
            let status = error.exit_code();
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(status).unwrap_or(1));
        }
    };
    let outcome = match cli.command {
        Command::Start(args) => start::run(&args),
        Command::Format(args) => format::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::RandomUuid => random_uuid::run(),
        Command::DumpLog(args) => dump_log::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Top(args) => top::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::error(&message);
            ExitCode::FAILURE
        }
    }
}
