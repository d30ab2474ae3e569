//! A strict reader of Prometheus' text format 0.0.4: it takes nothing that the format's
//! description doesn't promise, and checks what it asks of families and histograms.

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values, in the order of the names.
pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub struct Exposition {
    /// By family: its type.
    pub kinds: BTreeMap<String, String>,
    pub samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Panics, with the line, at whatever is not as it must be.
    pub fn parse(text: &str) -> Exposition {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut found = Exposition::default();
        let mut helped = BTreeSet::new();
        let mut family: Option<String> = None;
        for line in text.lines() {
            assert!(!line.is_empty() && !line.contains('\r'), "{line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty(), "{line}");
                unescape(help, "\\n");
                assert!(helped.insert(name.to_owned()), "told twice: {line}");
                family = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(family.as_deref(), Some(name), "TYPE without HELP: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                let before = found.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "told twice: {line}");
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (name, labels, value) = sample(line);
                let of = family.as_deref().expect(line);
                let kind = found.kinds.get(of).expect(line).as_str();
                let suffix = name.strip_prefix(of).expect(line);
                let suffixes: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "not of {of}: {line}");
                assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
                let whole = kind == "gauge" || value >= 0.0;
                assert!(whole && value.is_finite(), "{line}");
                let twice = found.samples.insert((name, labels), value);
                assert_eq!(twice, None, "twice: {line}");
            }
        }
        assert_eq!(helped.len(), found.kinds.len(), "HELP without TYPE");
        for (name, _) in found.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            found.check_histogram(name);
        }
        found
    }

    /// The sum of all samples of a name that have these labels.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        self.matching(name, wanted).map(|(_, value)| value).sum()
    }

    pub fn matching(
        &self,
        name: &str,
        wanted: &[(&str, &str)],
    ) -> impl Iterator<Item = (&Labels, f64)> {
        self.samples
            .iter()
            .filter(move |((found, labels), _)| {
                let has = |(label, value): &(&str, &str)| {
                    labels.get(*label) == Some(&(*value).to_owned())
                };
                found == name && wanted.iter().all(has)
            })
            .map(|((_, labels), value)| (labels, *value))
    }

    fn check_histogram(&self, name: &str) {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (labels, value) in self.matching(&format!("{name}_bucket"), &[]) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap();
            let bound = match bound.as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().unwrap(),
            };
            series.entry(labels).or_default().push((bound, value));
        }
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                "{name} {labels:?} {buckets:?}"
            );
            let (bound, last) = buckets[buckets.len() - 1];
            assert_eq!(bound, f64::INFINITY, "{name} {labels:?}");
            let of = |suffix| {
                self.samples
                    .get(&(format!("{name}{suffix}"), labels.clone()))
            };
            assert_eq!(of("_count"), Some(&last), "{name} {labels:?}");
            assert!(of("_sum").is_some(), "{name} {labels:?}");
        }
        for suffix in ["_sum", "_count"] {
            for (labels, _) in self.matching(&format!("{name}{suffix}"), &[]) {
                let mut labels = labels.clone();
                labels.insert("le".to_owned(), "+Inf".to_owned());
                let bucket = (format!("{name}_bucket"), labels);
                assert!(self.samples.contains_key(&bucket), "{bucket:?}");
            }
        }
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let name = &line[..end];
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, more) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let mut escaped = false;
            let end = more.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.expect(line);
            let value = unescape(&more[..end], "\\n\"");
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = &more[end + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    // A time after the value would be allowed, but we write none.
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, value.parse().expect(line))
}

fn unescape(text: &str, allowed: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escaped = chars.next().expect(text);
        assert!(allowed.contains(escaped), "\\{escaped} in {text}");
        out.push(if escaped == 'n' { '\n' } else { escaped });
    }
    out
}

fn is_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    name.chars().all(valid) && name.starts_with(|c: char| !c.is_ascii_digit())
}
