//! A failed assertion is our own bug: one line that says where, then the process ends.
//! No core may be left dead among live ones, so nothing unwinds.

use std::io::Write;
use std::panic::PanicHookInfo;

/// Replaces Rust's panic message for the whole process.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        // Without a terminal there is nobody to tell, and the end is the same.
        let _ = writeln!(std::io::stderr(), "{}", line(info));
        std::process::abort();
    }));
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let what = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    let place = info
        .location()
        .map(|location| format!(" at {}:{}", location.file(), location.line()))
        .unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    format!(
        "ottla: internal error{place} (thread {thread}): {}; this is a bug, please report it",
        what.replace('\n', " ")
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    /// Set in the process that is to panic.
    const CHILD: &str = "OTTLA_TEST_PANIC";

    #[test]
    fn a_panic_is_one_line_and_the_end() {
        if std::env::var_os(CHILD).is_some() {
            super::install();
            std::thread::Builder::new()
                .name("core-7".to_owned())
                .spawn(|| panic!("two\nlines"))
                .unwrap()
                .join()
                .unwrap();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cli::panic::tests::a_panic_is_one_line_and_the_end",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(
            lines[0].starts_with("ottla: internal error at src/cli/panic.rs:"),
            "{stderr}"
        );
        assert!(lines[0].ends_with("(thread core-7): two lines; this is a bug, please report it"));
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    }
}
