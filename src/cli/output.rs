//! Writing to the terminal. A reader that went away (`ottla config | head`) is no error,
//! and never a panic.

use std::io::{self, Write};

/// Writes `text` to stdout.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("can't write to stdout: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes an error to stderr, each of its lines marked as ours.
pub fn error(message: &str) {
    let mut out = io::stderr().lock();
    for line in message.lines() {
        // There is no other place to tell it.
        let _ = writeln!(out, "ottla: {line}");
    }
}
