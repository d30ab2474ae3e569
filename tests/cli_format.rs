//! `ottla format` gives directories an identity once, and leaves formatted ones alone.

use std::path::Path;
use std::process::{Command, Output};

fn format(dir: &Path, cluster_id: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["format", "--cluster-id", cluster_id, "-o"])
        .arg(format!("log.dirs={0}/a,{0}/b", dir.display()))
        .args(more)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn property(dir: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(dir.join("meta.properties")).unwrap();
    let prefix = format!("{key}=");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("{key} is not in {text}"))
        .to_owned()
}

fn failure(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_directory_gets_the_nodes_identity_and_its_own_id() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let output = format(dir.path(), "MkU3OEVBNTcwNTJENDM2Qg", &["-o", "node.id=7"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = format!(
        "formatted {} for node 7 of cluster MkU3OEVBNTcwNTJENDM2Qg\n\
         formatted {} for node 7 of cluster MkU3OEVBNTcwNTJENDM2Qg\n",
        a.display(),
        b.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
    for directory in [&a, &b] {
        assert_eq!(property(directory, "cluster.id"), "MkU3OEVBNTcwNTJENDM2Qg");
        assert_eq!(property(directory, "node.id"), "7");
        assert_eq!(property(directory, "version"), "1");
    }
    assert_ne!(property(&a, "directory.id"), property(&b, "directory.id"));
    // The metadata log's directory alone says what a new cluster starts from.
    assert!(a.join("bootstrap.checkpoint").exists());
    assert!(!b.join("bootstrap.checkpoint").exists());
}

#[test]
fn a_formatted_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(format(dir.path(), "one", &[]).status.code(), Some(0));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (id, node) = (property(&a, "directory.id"), property(&a, "node.id"));

    let stderr = failure(format(dir.path(), "one", &[]));
    assert!(
        stderr.contains("is already formatted; --ignore-formatted"),
        "{stderr}"
    );
    let stderr = failure(format(dir.path(), "two", &["--ignore-formatted"]));
    assert!(
        stderr.contains("belongs to cluster one, not two"),
        "{stderr}"
    );

    let output = format(dir.path(), "one", &["--ignore-formatted"]);
    assert_eq!(output.stdout, b"all directories are already formatted\n");
    // A disk that was replaced gets the node's identity, and an id of its own.
    std::fs::remove_dir_all(&b).unwrap();
    assert_eq!(
        format(dir.path(), "one", &["--ignore-formatted"])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        (property(&a, "directory.id"), property(&b, "node.id")),
        (id, node)
    );
}

#[test]
fn an_empty_cluster_id_and_a_broken_identity_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(failure(format(dir.path(), "", &[])).contains("ottla random-uuid"));
    std::fs::create_dir(dir.path().join("a")).unwrap();
    std::fs::write(dir.path().join("a/meta.properties"), "nonsense").unwrap();
    let stderr = failure(format(dir.path(), "one", &[]));
    assert!(stderr.starts_with(&format!(
        "ottla: the directory {}/a: ",
        dir.path().display()
    )));
}
