//! The architecture's rules that the compiler doesn't know: imports go down only, unsafe
//! code stays in three modules, the pure layer touches nothing outside, files stay small
//! and say what they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom, as docs/ARCHITECTURE.md draws them. A part of a module that
/// belongs higher stands by its path.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["wire", "record", "config", "telemetry"],
    &[
        "replica",
        "purgatory",
        "raft",
        "metadata",
        "controller",
        "coordinator",
        "quota",
        "security",
    ],
    &["io", "mesh", "log"],
    &["shard", "api", "coordinator/runtime"],
    &["bench", "cli", "node", "top"],
];

/// Runs layers 0 to 4, so it may see them all; nothing may see it.
const SIM: &str = "sim";

const MAY_BE_UNSAFE: [&str; 3] = ["io", "mesh", "record"];

/// What the pure layer may not touch: it is replayed under a seed.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "getrandom",
    "glommio",
    "async",
    "await",
];

const LINES_MAX: usize = 900;

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    let mut same_layer: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        let Some(from) = file.module.clone() else {
            continue;
        };
        for to in file.imports() {
            if to == from.name || from.name.starts_with(&format!("{to}/")) {
                continue;
            }
            let allowed = match (from.layer, layer(&to)) {
                (_, None) => {
                    wrong.push(format!(
                        "{}: crate::{to} is in no layer",
                        file.path.display()
                    ));
                    continue;
                }
                (None, Some(to_layer)) => to_layer < 5,
                (Some(from_layer), Some(to_layer)) => {
                    if from_layer == to_layer {
                        same_layer
                            .entry(from.name.clone())
                            .or_default()
                            .insert(to.clone());
                    }
                    to_layer <= from_layer
                }
            };
            if !allowed {
                wrong.push(format!(
                    "{}: {} imports {to}, which lies above it",
                    file.path.display(),
                    from.name
                ));
            }
        }
    }
    for (from, tos) in &same_layer {
        for to in tos {
            if same_layer.get(to).is_some_and(|back| back.contains(from)) {
                wrong.push(format!("{from} and {to} of one layer import each other"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_in_io_mesh_and_record() {
    let mut wrong = Vec::new();
    for file in sources() {
        let name = file
            .module
            .as_ref()
            .map_or("", |module| module.name.as_str());
        if !MAY_BE_UNSAFE.contains(&name) && words(&file.code).any(|word| word == "unsafe") {
            wrong.push(file.path.display().to_string());
        }
        let allows = file.code.matches("allow(unsafe_code)").count();
        let expected = if file.path.ends_with("src/lib.rs") {
            MAY_BE_UNSAFE.len()
        } else {
            0
        };
        if allows != expected {
            wrong.push(format!(
                "{}: allows unsafe code {allows} times",
                file.path.display()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe outside its modules:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_pure_layer_touches_nothing_outside() {
    let mut wrong = Vec::new();
    for file in sources() {
        let pure = file
            .module
            .as_ref()
            .is_some_and(|module| module.layer == Some(2));
        for what in IMPURE.iter().filter(|what| pure && names(&file.code, what)) {
            wrong.push(format!("{}: {what}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_is_small_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in sources() {
        let generated = file.path.starts_with(source_root().join("wire/messages"));
        let lines = file.text.lines().count();
        if lines > LINES_MAX && !generated {
            wrong.push(format!("{}: {lines} lines", file.path.display()));
        }
        if !file.text.starts_with("//!") {
            wrong.push(format!("{}: no header", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

struct Source {
    path: PathBuf,
    text: String,
    /// Without comments, text literals and unit tests.
    code: String,
    /// None for lib.rs and main.rs.
    module: Option<Module>,
    /// How many `super::` lead out of the file to the crate's root.
    depth: usize,
}

#[derive(Clone)]
struct Module {
    name: String,
    /// None for the simulation.
    layer: Option<usize>,
}

impl Source {
    /// The top-level modules that the code names, by `crate::` or enough `super::`.
    fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                self.names_at(&self.code[at + "crate::".len()..], &mut found);
            }
        }
        let root = "super::".repeat(self.depth);
        for (at, _) in self.code.match_indices(&root).filter(|_| self.depth > 0) {
            let outside = self.code[..at].ends_with("super::");
            let rest = &self.code[at + root.len()..];
            if !outside && !rest.starts_with("super::") {
                self.names_at(rest, &mut found);
            }
        }
        found
    }

    /// The names at the start of a path: one, or those of a group in braces.
    fn names_at(&self, path: &str, found: &mut BTreeSet<String>) {
        if let Some(group) = path.trim_start().strip_prefix('{') {
            let mut depth = 1;
            let mut start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => start = true,
                    c if depth == 1 && start && c.is_alphabetic() => {
                        start = false;
                        self.name_at(&group[at..], found);
                    }
                    _ => {}
                }
                if depth == 0 {
                    return;
                }
            }
        } else {
            self.name_at(path, found);
        }
    }

    fn name_at(&self, path: &str, found: &mut BTreeSet<String>) {
        let mut parts = path.split("::").map(|part| {
            let end = part
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(part.len());
            &part[..end]
        });
        let name = parts.next().unwrap_or_default();
        let second = parts.next().unwrap_or_default();
        let deeper = format!("{name}/{second}");
        if layer(&deeper).is_some() {
            found.insert(deeper);
        } else if name.chars().next().is_some_and(char::is_lowercase) {
            found.insert(name.to_owned());
        }
    }
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&name))
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file that is part of the program, test-only modules left out.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&source_root(), &mut paths);
    paths.sort();
    let texts: Vec<(PathBuf, String)> = paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    let test_only: Vec<PathBuf> = texts
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let sources: Vec<Source> = texts
        .into_iter()
        .filter(|(path, _)| {
            !test_only
                .iter()
                .any(|test| path.starts_with(test) || path == &test.with_extension("rs"))
        })
        .map(|(path, text)| {
            let inside = path.strip_prefix(source_root()).unwrap().to_owned();
            let mut parts: Vec<String> = inside
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            let file = parts.pop().unwrap();
            let own = file.trim_end_matches(".rs").to_owned();
            if !["mod", "lib", "main"].contains(&own.as_str()) {
                parts.push(own);
            }
            let module = parts.first().map(|first| {
                let deeper = format!("{first}/{}", parts.get(1).map_or("", String::as_str));
                let name = if layer(&deeper).is_some() {
                    deeper
                } else {
                    first.clone()
                };
                assert!(
                    name == SIM || layer(&name).is_some(),
                    "{name} is in no layer"
                );
                Module {
                    layer: layer(&name),
                    name,
                }
            });
            Source {
                code: code_of(&text),
                depth: parts.len(),
                path,
                text,
                module,
            }
        })
        .collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Folders (and, with `.rs`, files) of modules that a file declares for tests only.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = match path.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" | "main" => path.parent().unwrap().to_owned(),
        stem => path.parent().unwrap().join(stem),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| {
            let declared = pair[1]
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ");
            let name = declared.strip_prefix("mod ")?.strip_suffix(';')?;
            Some(folder.join(name))
        })
        .collect()
}

/// The code alone: no comments, no contents of literals, no unit tests at the end.
fn code_of(text: &str) -> String {
    let text = match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_literal(rest)
        } else if first == '"' {
            literal(rest)
        } else if let Some(quoted) = ["'\"'", "'\\''", "'\\\\'"]
            .iter()
            .find(|q| rest.starts_with(**q))
        {
            quoted.len()
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn literal(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier is one letter long here.
fn raw_literal(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    let start = 1 + hashes;
    if !text[start..].starts_with('"') {
        return 1;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start + 1..]
        .find(&end)
        .map_or(text.len(), |at| start + 1 + at + end.len())
}

/// Whether the code has `what` as a whole word or path.
fn names(code: &str, what: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(what).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + what.len()..].chars().next();
        // std::net::Tcp stands for all that begin so
        let begins = what.ends_with("Tcp") || what.ends_with("Udp");
        !part_of_word(before) && (begins || !part_of_word(after))
    })
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

mod the_test_itself {
    use super::*;

    fn imports(text: &str, depth: usize) -> Vec<String> {
        let source = Source {
            path: PathBuf::new(),
            text: String::new(),
            code: code_of(text),
            module: None,
            depth,
        };
        source.imports().into_iter().collect()
    }

    #[test]
    fn sees_imports_in_every_form() {
        assert_eq!(imports("use crate::base::Offset;", 1), ["base"]);
        assert_eq!(
            imports("use crate::{base::{A, B}, io::Rt, Error};", 1),
            ["base", "io"]
        );
        assert_eq!(imports("fn f() { crate::log::x() }", 1), ["log"]);
        assert_eq!(imports("use super::super::io::Rt;", 2), ["io"]);
        assert_eq!(imports("use super::super::io::Rt;", 3), [""; 0]);
        assert_eq!(
            imports("use crate::coordinator::runtime::X;", 1),
            ["coordinator/runtime"]
        );
        assert_eq!(
            imports("use crate::coordinator::group::X;", 1),
            ["coordinator"]
        );
    }

    #[test]
    fn does_not_see_comments_literals_and_tests() {
        assert_eq!(imports("// crate::io\n/* crate::io */", 1), [""; 0]);
        assert_eq!(
            imports(
                r##"let a = "crate::io \" crate::io"; let b = r#"crate::io"#;"##,
                1
            ),
            [""; 0]
        );
        assert_eq!(
            imports("let q = '\"'; crate::io::x(); let r = '\"';", 1),
            ["io"]
        );
        assert_eq!(
            imports("\n#[cfg(test)]\nmod tests {\nuse crate::io;\n}", 1),
            [""; 0]
        );
        assert!(words(&code_of("unsafe { x }")).any(|word| word == "unsafe"));
        assert!(!words(&code_of("#![deny(unsafe_code)] // unsafe")).any(|word| word == "unsafe"));
    }
}
