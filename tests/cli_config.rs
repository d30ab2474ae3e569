//! The settings on the command line and in docs/CONFIG.md come from the one table.

use std::path::Path;
use std::process::{Command, Output};

use ottla::config::docs;

fn ottla(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `OTTLA_WRITE_DOCS=1` writes the document instead of comparing it.
#[test]
fn config_docs_are_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    let wanted = docs::markdown();
    if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/CONFIG.md differs from the table; write it with OTTLA_WRITE_DOCS=1"
    );
}

#[test]
fn config_lists_settings_by_area() {
    let nodes = stdout(&ottla(&["config"]));
    assert!(nodes.starts_with("Ottla's own:\n  ottla.cores "), "{nodes}");
    assert!(nodes.contains("\n  num.partitions "));
    assert!(!nodes.contains("internal.metadata"));
    let topics = stdout(&ottla(&["config", "--topic"]));
    assert!(topics.contains("\n  retention.ms "));
    assert!(!topics.contains("num.partitions"));
    assert!(stdout(&ottla(&["config", "--group"])).contains("share.auto.offset.reset"));
}

#[test]
fn config_explains_a_key() {
    let text = stdout(&ottla(&["config", "num.partitions", "retention.ms"]));
    assert!(
        text.contains("expects  a whole number (32 bits), at least 1\n  default  1\n"),
        "{text}"
    );
    assert!(text.contains("\nretention.ms\n"), "{text}");
    let output = ottla(&["config", "num.partition"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ottla: unknown key num.partition; did you mean num.partitions?\n"
    );
}

#[test]
fn config_survives_a_reader_that_leaves() {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{} config | head -1", env!("CARGO_BIN_EXE_ottla")))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&status.stderr), "");
}
