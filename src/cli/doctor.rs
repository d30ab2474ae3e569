//! `ottla doctor`: a line for each thing that a node depends on, with the command that mends
//! it where it needs mending.

use std::fmt::Write as _;

use super::args::DoctorArgs;
use super::{output, start};
use crate::config::{self, Loaded};
use crate::node::doctor::{self, Check, Status};

pub fn run(args: &DoctorArgs) -> Result<(), String> {
    let Loaded {
        node: config,
        warnings,
        ..
    } = config::load(args.config.as_deref(), &args.overrides).map_err(|e| e.to_string())?;
    // As a start does: what counts is what the user may have.
    start::raise_limits();
    let settings = warnings.into_iter().map(|text| Check {
        status: Status::Warn,
        subject: "config",
        text,
    });
    let checks: Vec<Check> = settings.chain(doctor::examine(&config)).collect();
    let mut text = String::new();
    for check in &checks {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{check}");
    }
    output::print(&text)?;
    let fatal = checks.iter().filter(|check| check.status == Status::Fail);
    match fatal.count() {
        0 => Ok(()),
        1 => Err("a node can't start here: see FAIL".to_owned()),
        count => Err(format!(
            "a node can't start here, for {count} reasons: see FAIL"
        )),
    }
}
