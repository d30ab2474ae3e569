//! `ottla bench compare`: the same run against two servers in turns, with whoever isn't at
//! its turn frozen, and the ratio of each pair. Called by `cli::bench_compare`.
//!
//! ```text
//! for each slice without a result:
//!   thaw the server, wait for its answer → make the topic → run (a process of its own)
//!   → keep the result → delete the topic, wait for its files to go → freeze
//! ```
//! A slice is a process of its own so that no run inherits another's memory or CPU time. Its
//! result gets its name only when it is whole: whatever stops a comparison, the same command
//! goes on with it.
//!
//! Invariant: at most one server runs at any time, and at the end all do.

pub mod plan;
mod server;
pub mod stats;
pub mod summary;
mod topics;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::Signal;

use super::result::BenchResult;
use plan::{PLAN_FILE, Plan, Role, Slice};
use server::Thaw;

pub use server::{Process, Server};

pub struct Comparison {
    pub plan: Plan,
    pub a: Server,
    pub b: Server,
    pub ceiling: Option<Server>,
    /// Where the plan and the results are.
    pub dir: PathBuf,
}

/// Ends a comparison from another thread: no slice is begun any more, the one under way is
/// ended.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<(AtomicBool, Mutex<Option<Process>>)>);

impl Interrupt {
    pub fn request(&self) {
        self.0.0.store(true, Ordering::Release);
        let running = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself, of the same Ctrl-C.
        let _ = running.map(|process| process.signal(Signal::SIGTERM));
    }

    fn is_requested(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    fn running(&self, process: Option<Process>) {
        *self.0.1.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }
}

/// Runs what has no result yet; returns the summary.
pub fn run(comparison: &Comparison, interrupt: &Interrupt) -> Result<String, String> {
    let Comparison { plan, dir, .. } = comparison;
    begin(plan, dir)?;
    let servers = comparison.servers();
    if !plan.unserved {
        for server in &servers {
            server.find()?;
        }
    }
    let _thaw = Thaw(servers.clone());
    for server in &servers {
        server.freeze()?;
    }
    let slices = plan.slices();
    for (number, slice) in (1..).zip(&slices) {
        if dir.join(plan.file_name(*slice)).exists() {
            continue;
        }
        let server = comparison.server(slice.role);
        let count = slices.len();
        // Whoever closed the terminal doesn't want to see it.
        let _ = writeln!(
            std::io::stderr(),
            "{}: slice {number} of {count}: {}",
            plan.name,
            server.name
        );
        if plan.unserved {
            comparison.run_slice(*slice, server, interrupt)?;
        } else {
            server.thaw()?;
            comparison.run_slice(*slice, server, interrupt)?;
            server.freeze()?;
        }
    }
    let results = load(plan, dir)?;
    Ok(summary::text(plan, &summary::summarise(plan, &results)))
}

/// The results that are there, in the plan's order.
pub fn load(plan: &Plan, dir: &Path) -> Result<Vec<(Slice, BenchResult)>, String> {
    let mut found = Vec::new();
    for slice in plan.slices() {
        let path = dir.join(plan.file_name(slice));
        if path.exists() {
            found.push((slice, read_result(&path)?));
        }
    }
    Ok(found)
}

pub fn read_result(path: &Path) -> Result<BenchResult, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    let result = text.and_then(|text| BenchResult::from_json(&text));
    result.map_err(|error| format!("{}: {error}", path.display()))
}

/// Leaves the plan in the directory, or checks that the one there is the same.
fn begin(plan: &Plan, dir: &Path) -> Result<(), String> {
    let path = dir.join(PLAN_FILE);
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() {
        let before = Plan::from_json(&fs::read_to_string(&path).map_err(fault)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if !plan.continues(&before) {
            let dir = dir.display();
            return Err(format!(
                "{dir} holds another comparison; take an empty directory or the same command"
            ));
        }
    }
    fs::create_dir_all(dir).map_err(fault)?;
    fs::write(&path, plan.to_json()).map_err(fault)
}

impl Comparison {
    fn servers(&self) -> Vec<&Server> {
        let two = [&self.a, &self.b];
        two.into_iter().chain(self.ceiling.as_ref()).collect()
    }

    fn server(&self, role: Role) -> &Server {
        match role {
            Role::A => &self.a,
            Role::B => &self.b,
            Role::Ceiling => self.ceiling.as_ref().expect("the plan has a ceiling"),
        }
    }

    fn run_slice(
        &self,
        slice: Slice,
        server: &Server,
        interrupt: &Interrupt,
    ) -> Result<(), String> {
        let plan = &self.plan;
        let path = self.dir.join(plan.file_name(slice));
        let part = path.with_extension("part");
        // The process's id keeps the topics of an attempt before apart.
        let topic = format!(
            "bench-{}-{:02}-{}-{}",
            plan.name,
            slice.pair,
            server.name,
            std::process::id()
        );
        if let Some(partitions) = plan.topic_partitions {
            topics::create(&server.address, &topic, partitions, &plan.topic_configs)?;
        }
        let ran = self.spawn(slice, server, &topic, &part, interrupt);
        let deleted = if plan.unserved {
            Ok(())
        } else {
            let deleted = topics::delete(&server.address, &topic);
            deleted.and_then(|()| server.await_deleted(&topic))
        };
        ran?;
        read_result(&part)?;
        fs::rename(&part, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        deleted
    }

    fn spawn(
        &self,
        slice: Slice,
        server: &Server,
        topic: &str,
        json: &Path,
        interrupt: &Interrupt,
    ) -> Result<(), String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let words = words(&self.plan, slice, server, topic, json);
        let (program, arguments) = if self.plan.external {
            words.split_first().ok_or("no program to run")?
        } else {
            (&own.to_string_lossy().into_owned(), words.as_slice())
        };
        let named = |error| format!("can't run {program}: {error}");
        if interrupt.is_requested() {
            return Err(INTERRUPTED.to_owned());
        }
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(named)?;
        interrupt.running(Process::find(child.id()).ok());
        // Its summary belongs to one slice; only the comparison's is printed.
        let output = child.stdout.take().map(std::io::read_to_string);
        let status = child.wait().map_err(named);
        interrupt.running(None);
        if interrupt.is_requested() {
            return Err(INTERRUPTED.to_owned());
        }
        if !status?.success() {
            let output = output.and_then(Result::ok).unwrap_or_default();
            let shown = output.trim_end();
            return Err(format!("{program} {} failed\n{shown}", arguments.join(" ")));
        }
        Ok(())
    }
}

const INTERRUPTED: &str = "interrupted; the same command goes on from here";

/// The slice's command line; of a scenario without the program.
fn words(plan: &Plan, slice: Slice, server: &Server, topic: &str, json: &Path) -> Vec<String> {
    let name = format!("{}-{}", server.name, slice.pair);
    let json = json.to_string_lossy();
    let pid = server.process.map(|process| process.pid().to_string());
    if plan.external {
        let pid = pid.unwrap_or_default();
        let fill = |word: &String| {
            word.replace("{bootstrap}", &server.address)
                .replace("{topic}", topic)
                .replace("{json}", &json)
                .replace("{name}", &name)
                .replace("{side}", &server.name)
                .replace("{pid}", &pid)
        };
        return plan.command.iter().map(fill).collect();
    }
    let own = [
        ("--bootstrap", server.address.as_str()),
        ("--topic", topic),
        ("--json", &json),
        ("--name", &name),
        ("--broker-name", &server.name),
    ];
    let own = own
        .into_iter()
        .chain(pid.as_deref().map(|pid| ("--broker-pid", pid)));
    let mut words = vec!["bench".to_owned()];
    words.extend(plan.command.iter().cloned());
    words.extend(own.flat_map(|(option, value)| [option.to_owned(), value.to_owned()]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            name: "kafka".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            process: None,
            dir: None,
        }
    }

    const SLICE: Slice = Slice {
        pair: 2,
        role: Role::B,
    };

    #[test]
    fn a_scenario_is_told_where_what_and_whose() {
        let plan = Plan {
            command: vec!["produce".to_owned(), "--closed".to_owned()],
            ..Default::default()
        };
        let words = words(&plan, SLICE, &server(), "t", Path::new("/d/x.part"));
        let wanted = "bench produce --closed --bootstrap 127.0.0.1:1 --topic t \
                      --json /d/x.part --name kafka-2 --broker-name kafka";
        assert_eq!(words.join(" "), wanted);
    }

    #[test]
    fn a_program_has_its_places_filled() {
        let command = [
            "tool",
            "--to={bootstrap}/{topic}",
            "{json}",
            "{name}",
            "{side}",
        ];
        let plan = Plan {
            external: true,
            command: command.map(str::to_owned).to_vec(),
            ..Default::default()
        };
        let words = words(&plan, SLICE, &server(), "t", Path::new("j"));
        assert_eq!(words.join(" "), "tool --to=127.0.0.1:1/t j kafka-2 kafka");
    }

    #[test]
    fn a_directory_belongs_to_one_comparison() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = Plan {
            schema: plan::SCHEMA,
            tool: plan::TOOL.to_owned(),
            pairs: 2,
            ..Default::default()
        };
        begin(&plan, dir.path()).unwrap();
        plan.pairs = 5;
        begin(&plan, dir.path()).unwrap();
        plan.command.push("other".to_owned());
        assert!(begin(&plan, dir.path()).unwrap_err().contains("another"));
    }

    #[test]
    fn an_interrupt_ends_what_runs() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let interrupt = Interrupt::default();
        interrupt.running(Process::find(child.id()).ok());
        interrupt.request();
        assert!(!child.wait().unwrap().success());
        assert!(interrupt.is_requested());
    }
}
