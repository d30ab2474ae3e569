//! Finds the results under a directory. Called by `report`.
//!
//! ```text
//! DIR/quick/about.md            what the group is: put in front of its tables as it stands
//! DIR/quick/produce/compare.json  and its slices: a comparison
//! DIR/quick/floor.json          a single result
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::compare;
use super::super::compare::plan::{PLAN_FILE, Plan, Slice};
use super::super::result::{BenchResult, TOOL};

const ABOUT_FILE: &str = "about.md";
/// A directory tree that is deeper isn't one of results.
const DEPTH_MAX: usize = 8;

/// What lies in one directory.
#[derive(Default)]
pub struct Group {
    /// From the directory that was asked for; empty for itself.
    pub name: String,
    pub about: Option<String>,
    pub comparisons: Vec<Compared>,
    pub singles: Vec<Single>,
}

pub struct Compared {
    pub dir: PathBuf,
    pub plan: Plan,
    pub results: Vec<(Slice, BenchResult)>,
}

pub struct Single {
    pub path: PathBuf,
    pub result: BenchResult,
}

impl Group {
    pub fn results(&self) -> impl Iterator<Item = &BenchResult> {
        let compared = self.comparisons.iter().flat_map(|it| &it.results);
        let singles = self.singles.iter().map(|single| &single.result);
        singles.chain(compared.map(|(_, result)| result))
    }
}

/// Groups with results, sorted by name.
pub fn collect(dir: &Path) -> Result<Vec<Group>, String> {
    let mut groups = BTreeMap::new();
    visit(dir, "", 0, &mut groups)?;
    let found = groups.into_values();
    Ok(found
        .filter(|group| group.results().next().is_some())
        .collect())
}

fn visit(
    dir: &Path,
    name: &str,
    depth: usize,
    groups: &mut BTreeMap<String, Group>,
) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("{}: {error}", dir.display());
    let group = groups.entry(name.to_owned()).or_default();
    name.clone_into(&mut group.name);
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(fault)?;
    entries.sort();
    let mut inner = Vec::new();
    for path in entries {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            let plan = path.join(PLAN_FILE);
            if plan.exists() {
                group.comparisons.push(read_comparison(&path, &plan)?);
            } else {
                inner.push((path.clone(), file_name.into_owned()));
            }
        } else if file_name == ABOUT_FILE {
            let text = fs::read_to_string(&path).map_err(fault)?;
            group.about = Some(text);
        } else if file_name.ends_with(".json") && is_result(&path) {
            let result = compare::read_result(&path)?;
            group.singles.push(Single { path, result });
        }
    }
    if depth < DEPTH_MAX {
        for (path, file_name) in inner {
            let name = match name {
                "" => file_name,
                outer => format!("{outer}/{file_name}"),
            };
            visit(&path, &name, depth + 1, groups)?;
        }
    }
    Ok(())
}

fn read_comparison(dir: &Path, plan: &Path) -> Result<Compared, String> {
    let text = fs::read_to_string(plan).map_err(|error| error.to_string());
    let parsed = text.and_then(|text| Plan::from_json(&text));
    let parsed = parsed.map_err(|error| format!("{}: {error}", plan.display()))?;
    Ok(Compared {
        results: compare::load(&parsed, dir)?,
        plan: parsed,
        dir: dir.to_owned(),
    })
}

/// Other tools' JSON is nobody's fault; a broken one of ours is.
fn is_result(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
    value.is_ok_and(|value| value["tool"] == TOOL)
}
