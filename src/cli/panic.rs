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
