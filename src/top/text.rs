//! Reads Prometheus' text format as far as we write it; what isn't understood is an error,
//! never a panic.

use std::collections::BTreeMap;

/// Names and labels of one scrape, with their numbers.
#[derive(Debug, Default)]
pub struct Scrape(BTreeMap<String, Vec<Sample>>);

#[derive(Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Scrape {
    /// The error names the line.
    pub fn parse(text: &str) -> Result<Scrape, String> {
        let mut found = Scrape::default();
        for line in text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let (name, sample) = sample(line).ok_or_else(|| {
                let start: String = line.chars().take(60).collect();
                format!("not a metric: {start:?}")
            })?;
            match found.0.get_mut(name) {
                Some(samples) => samples.push(sample),
                None => {
                    found.0.insert(name.to_owned(), vec![sample]);
                }
            }
        }
        Ok(found)
    }

    pub fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

fn sample(line: &str) -> Option<(&str, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, more) = rest.split_once("=\"")?;
            let (value, more) = quoted(more)?;
            labels.push((label.to_owned(), value));
            rest = more.strip_prefix(',').unwrap_or(more);
        }
        rest = &rest[1..];
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some((name, Sample { labels, value }))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_numbers_are_found() {
        let text = "# HELP a b\n# TYPE a gauge\na 1\n\
                    b{x=\"1\",y=\"a\\\"\\\\\\n}, \"} 2.5\nb{x=\"2\"} +Inf\n";
        let found = Scrape::parse(text).unwrap();
        assert_eq!(found.samples("a")[0].value, 1.0);
        let all = found.samples("b");
        assert_eq!((all[0].label("x"), all[0].value), ("1", 2.5));
        assert_eq!(all[0].label("y"), "a\"\\\n}, ");
        assert_eq!((all[1].label("y"), all[1].value), ("", f64::INFINITY));
        assert_eq!(found.samples("c"), []);
    }

    #[test]
    fn what_is_no_metric_is_named() {
        for line in [
            "<html>",
            "a",
            "a{b",
            "a{b=\"c",
            "a{b=\"c\\",
            "a{b=\"c\"} x",
            " 1",
        ] {
            let error = Scrape::parse(line).unwrap_err();
            assert!(error.starts_with("not a metric: "), "{line}: {error}");
        }
    }
}
