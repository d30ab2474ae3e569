//! Mistakes on the command line or in the config end in clear lines, never in a panic
//! or a backtrace.

use std::process::{Command, Output};

fn ottla(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(args)
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

/// The error lines of a command that fails with status 1.
fn failure(args: &[&str]) -> String {
    let output = ottla(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("backtrace"),
        "{stderr}"
    );
    assert_eq!(output.stdout, b"");
    stderr
}

#[test]
fn a_bad_value_names_file_line_key_and_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.properties");
    std::fs::write(
        &file,
        "# mine\nnum.partitions=many\nlog.cleaner.enable=perhaps\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(
        failure(&["start", "--config", path]),
        format!(
            "ottla: {path}:3: log.cleaner.enable=perhaps: expected true or false\n\
             ottla: {path}:2: num.partitions=many: expected a whole number (32 bits), at least 1\n"
        )
    );
}

#[test]
fn a_bad_override_is_named_as_such() {
    assert_eq!(
        failure(&["start", "--override", "num.partitions=0"]),
        "ottla: --override num.partitions=0: expected a whole number (32 bits), at least 1\n"
    );
    assert_eq!(
        failure(&["start", "--override", "num.partitions"]),
        "ottla: --override wants KEY=VALUE, not `num.partitions`\n"
    );
    assert!(
        failure(&["start", "-o", "ottla.log.level=loud"]).contains("expected error, warn, info")
    );
}

#[test]
fn a_missing_file_is_named() {
    let stderr = failure(&["start", "--config", "/nonexistent/server.properties"]);
    assert!(
        stderr.starts_with("ottla: can't read the config file /nonexistent/server.properties: ")
    );
}

#[test]
fn what_is_not_served_yet_stops_the_start() {
    let stderr = failure(&["start", "-o", "authorizer.class.name=x.Y"]);
    assert_eq!(
        stderr,
        "ottla: --override authorizer.class.name=x.Y: Java authorizers can't be loaded; only org.apache.kafka.metadata.authorizer.StandardAuthorizer is served\n"
    );
    let listeners = "listeners=SSL://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    let stderr = failure(&[
        "start",
        "-o",
        listeners,
        "-o",
        "security.inter.broker.protocol=SSL",
    ]);
    assert!(stderr.contains("only PLAINTEXT is served yet"), "{stderr}");
}

#[test]
fn a_wrong_command_line_has_status_2_and_help() {
    let output = ottla(&["strat"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--help"));
    let output = ottla(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ottla start"));
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [
        &["--help"][..],
        &["start", "--help"],
        &["--version"],
        &["help"],
    ] {
        let output = ottla(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn random_uuids_are_ids_of_22_characters() {
    let output = ottla(&["random-uuid"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let id: ottla::base::Uuid = text.trim_end().parse().unwrap();
    assert!(!id.is_reserved());
    assert_ne!(ottla(&["random-uuid"]).stdout, text.as_bytes());
}
