//! `meta.properties`: which cluster and node a log directory belongs to.
//!
//! A Java properties file. Version 1 (KRaft) has `cluster.id`, `node.id` and, since
//! KIP-858, `directory.id`; unknown keys are kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::checkpoint::{self, Durability};
use crate::base::{BrokerId, Uuid};
use crate::io::disk::Disk;

pub const FILE_NAME: &str = "meta.properties";
const LEN_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub cluster_id: String,
    pub node_id: BrokerId,
    /// Absent in directories formatted before KIP-858.
    pub directory_id: Option<Uuid>,
    /// Keys that we don't know.
    pub others: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MetaPropertiesError {
    #[error("meta.properties: {0}")]
    Io(#[from] io::Error),
    #[error("meta.properties is not UTF-8")]
    NotText,
    #[error("meta.properties version {0:?} is not supported")]
    Version(String),
    #[error("meta.properties has no valid {0}")]
    Field(&'static str),
}

impl MetaProperties {
    /// `None` where the directory hasn't been formatted.
    pub fn read(
        disk: &dyn Disk,
        log_dir: &Path,
    ) -> Result<Option<MetaProperties>, MetaPropertiesError> {
        match disk.read(&log_dir.join(FILE_NAME), LEN_MAX) {
            Ok(bytes) => {
                let text = std::str::from_utf8(&bytes).map_err(|_| MetaPropertiesError::NotText)?;
                Self::parse(text).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn write(&self, disk: &dyn Disk, log_dir: &Path) -> io::Result<()> {
        let path = log_dir.join(FILE_NAME);
        checkpoint::replace_file(disk, &path, self.to_text().as_bytes(), Durability::Now)?;
        Ok(())
    }

    pub fn parse(text: &str) -> Result<MetaProperties, MetaPropertiesError> {
        let mut properties = parse_properties(text);
        let version = properties.remove("version").unwrap_or_default();
        if version != "1" {
            return Err(MetaPropertiesError::Version(version));
        }
        let cluster_id = properties
            .remove("cluster.id")
            .filter(|id| !id.is_empty())
            .ok_or(MetaPropertiesError::Field("cluster.id"))?;
        let node_id = properties
            .remove("node.id")
            .and_then(|id| id.parse().ok())
            .filter(|id| *id >= 0)
            .ok_or(MetaPropertiesError::Field("node.id"))?;
        let directory_id = match properties.remove("directory.id") {
            None => None,
            Some(id) => Some(
                id.parse()
                    .ok()
                    .filter(|id: &Uuid| !id.is_reserved())
                    .ok_or(MetaPropertiesError::Field("directory.id"))?,
            ),
        };
        Ok(MetaProperties {
            cluster_id,
            node_id: BrokerId(node_id),
            directory_id,
            others: properties,
        })
    }

    pub fn to_text(&self) -> String {
        let mut text = String::from("#\n");
        let mut line = |key: &str, value: &str| {
            writeln!(text, "{}={}", escape(key, true), escape(value, false))
                .expect("a String takes all");
        };
        line("cluster.id", &self.cluster_id);
        if let Some(id) = self.directory_id {
            line("directory.id", &id.to_string());
        }
        line("node.id", &self.node_id.to_string());
        line("version", "1");
        for (key, value) in &self.others {
            line(key, value);
        }
        text
    }
}

/// Reads the format of `java.util.Properties`: comments, `=`, `:` or blanks as separator,
/// backslash escapes, continued lines.
pub fn parse_properties(text: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut lines = text.split(['\n', '\r']);
    while let Some(line) = lines.next() {
        let mut line = line.trim_start().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while ends_in_odd_backslashes(&line) {
            line.pop();
            match lines.next() {
                Some(next) => line.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split_key(&line);
        properties.insert(unescape(key), unescape(value));
    }
    properties
}

fn ends_in_odd_backslashes(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn split_key(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let is_separator = |c: char| {
        let found = !escaped && matches!(c, '=' | ':' | ' ' | '\t' | '\x0c');
        escaped = c == '\\' && !escaped;
        found
    };
    let Some(end) = line.find(is_separator) else {
        return (line, "");
    };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches([' ', '\t', '\x0c']);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches([' ', '\t', '\x0c']))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\x0c'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let unit = u32::from_str_radix(&digits, 16).ok();
                plain.push(unit.and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

fn escape(text: &str, is_key: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '=' | ':' | '#' | '!' | '\\' => escaped.extend(['\\', c]),
            ' ' if is_key || i == 0 => escaped.push_str("\\ "),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::disk::RealDisk;

    #[test]
    fn round_trips_through_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            MetaProperties::read(&RealDisk, dir.path())
                .unwrap()
                .is_none()
        );
        let meta = MetaProperties {
            cluster_id: "4L6g3nShT-eMCtK--X86sw".into(),
            node_id: BrokerId(7),
            directory_id: Some("jAwAAAAAQACAAAAAAAAAAQ".parse().unwrap()),
            others: BTreeMap::from([("a key".into(), " x=\\y#".into())]),
        };
        meta.write(&RealDisk, dir.path()).unwrap();
        let read = MetaProperties::read(&RealDisk, dir.path()).unwrap();
        assert_eq!(read, Some(meta));
    }

    #[test]
    fn reads_javas_format() {
        let text = "#\n#Thu Jan 01 00:00:00 UTC 2026\n! more\n\ncluster.id = abc\\=\\u0041\r\n\
                    node.id:3\n  version 1\nlong=one\\\n   two\n";
        let meta = MetaProperties::parse(text).unwrap();
        assert_eq!(meta.cluster_id, "abc=A");
        assert_eq!(meta.node_id, BrokerId(3));
        assert_eq!(meta.directory_id, None);
        assert_eq!(meta.others["long"], "onetwo");
    }

    #[test]
    fn what_is_missing_is_told() {
        let parse = |text| MetaProperties::parse(text).unwrap_err().to_string();
        assert!(parse("version=0\n").contains("version \"0\""));
        assert!(parse("version=1\nnode.id=1\n").contains("cluster.id"));
        assert!(parse("version=1\ncluster.id=x\nnode.id=-1\n").contains("node.id"));
        let reserved = "version=1\ncluster.id=x\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ";
        assert!(parse(reserved).contains("directory.id"));
    }
}
