//! The generated codecs against Apache Kafka's own: every message, every version.
//!
//! `tests/golden/messages.txt.gz` holds bytes and JSON that Kafka 4.3.1's codecs wrote for
//! pseudo-random instances (scripts/golden-bytes). Each line decodes, encodes to the same
//! bytes and prints the same JSON; no prefix of it decodes; and a new object of ours is
//! Kafka's. Where Kafka's jars are at hand, the committed files are shown to be fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use ottla::wire::codec::{DecodeError, Decoder, EncodeError, Message};
use ottla::wire::messages::*;

const GOLDEN: &[u8] = include_bytes!("golden/messages.txt.gz");

type Recoded = Result<(usize, BytesMut), DecodeError>;

/// One message type, its type erased.
struct Codec {
    versions: std::ops::RangeInclusive<i16>,
    /// Decodes, and returns the bytes left over with what the message encodes to.
    recode: fn(&Bytes, i16) -> Recoded,
    encode_default: fn(i16) -> Result<BytesMut, EncodeError>,
    json: Option<fn(&Bytes, i16) -> serde_json::Value>,
}

fn recode<M: Message>(bytes: &Bytes, version: i16) -> Recoded {
    let mut d = Decoder::new(bytes);
    let message = M::decode(&mut d, version)?;
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|e| panic!("{} version {version}: {e}", M::NAME));
    Ok((d.remaining(), out))
}

fn encode_default<M: Message>(version: i16) -> Result<BytesMut, EncodeError> {
    let mut out = BytesMut::new();
    M::default().encode(&mut out, version).map(|()| out)
}

macro_rules! codecs {
    ($($kind:ident $name:ident;)*) => {
        BTreeMap::from([$((
            $name::NAME,
            Codec {
                versions: $name::VERSIONS,
                recode: recode::<$name>,
                encode_default: encode_default::<$name>,
                json: codecs!(@json $kind $name),
            },
        ),)*])
    };
    (@json plain $name:ident) => { None };
    (@json json $name:ident) => {
        Some(|bytes, version| {
            let decoded = $name::decode(&mut Decoder::new(bytes), version);
            decoded.expect("it has been decoded before").to_json(version)
        })
    };
}

fn codecs() -> BTreeMap<&'static str, Codec> {
    ottla::every_message!(codecs)
}

struct Line<'a> {
    name: &'a str,
    version: i16,
    kind: &'a str,
    bytes: Bytes,
    json: Option<&'a str>,
}

fn golden() -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(GOLDEN)
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().map(|line| {
        let mut fields = line.splitn(5, ' ');
        let mut next = || fields.next().unwrap();
        let (name, version, kind) = (next(), next().parse().unwrap(), next());
        let hex = next().as_bytes();
        let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
        let bytes = hex.chunks(2).map(|p| digit(p[0]) << 4 | digit(p[1]));
        Line {
            name,
            version,
            kind,
            bytes: bytes.collect(),
            json: fields.next(),
        }
    })
}

#[test]
fn every_message_and_version_is_covered() {
    let codecs = codecs();
    assert_eq!(codecs.len(), 272);
    let expected: BTreeSet<(&str, i16)> = codecs
        .iter()
        .flat_map(|(name, codec)| codec.versions.clone().map(|version| (*name, version)))
        .collect();
    let text = golden();
    let mut full = BTreeSet::new();
    let mut count = 0;
    for line in lines(&text) {
        if line.kind == "full" {
            full.insert((line.name, line.version));
        }
        count += 1;
    }
    assert_eq!(full, expected);
    assert_eq!(full.len(), 728);
    println!("{count} instances of {} versions", full.len());
}

#[test]
fn kafkas_bytes_decode_and_encode_to_themselves() {
    let codecs = codecs();
    let text = golden();
    for line in lines(&text) {
        let context = format!("{} version {} {}", line.name, line.version, line.kind);
        let codec = &codecs[line.name];
        let (left, out) =
            (codec.recode)(&line.bytes, line.version).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(left, 0, "{context}");
        assert_eq!(out, line.bytes, "{context}");
        assert_eq!(codec.json.is_some(), line.json.is_some(), "{context}");
        if let (Some(json), Some(expected)) = (codec.json, line.json) {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            let printed = json(&line.bytes, line.version);
            assert_eq!(printed, expected, "{context}");
            // Field order too.
            assert_eq!(printed.to_string(), expected.to_string(), "{context}");
        }
    }
}

#[test]
fn our_defaults_are_kafkas() {
    let codecs = codecs();
    let text = golden();
    let mut compared = BTreeSet::new();
    for line in lines(&text).filter(|line| line.kind == "default") {
        let ours = (codecs[line.name].encode_default)(line.version);
        let context = format!("{} version {}", line.name, line.version);
        assert_eq!(ours.as_deref(), Ok(&line.bytes[..]), "{context}");
        compared.insert((line.name, line.version));
    }
    for (name, codec) in &codecs {
        for version in codec.versions.clone() {
            let ours = (codec.encode_default)(version);
            let theirs = compared.contains(&(*name, version));
            assert_eq!(ours.is_ok(), theirs, "{name} version {version}: {ours:?}");
        }
    }
}

#[test]
fn no_prefix_decodes_and_none_panics() {
    let codecs = codecs();
    let text = golden();
    for line in lines(&text) {
        for end in 0..line.bytes.len() {
            let cut = line.bytes.slice(..end);
            let decoded = (codecs[line.name].recode)(&cut, line.version);
            assert!(
                decoded.is_err(),
                "{} version {} cut at {end} of {}",
                line.name,
                line.version,
                line.bytes.len()
            );
        }
    }
}

#[test]
fn unsupported_versions_are_errors() {
    for (name, codec) in codecs() {
        for version in [codec.versions.start() - 1, codec.versions.end() + 1] {
            let frame = Bytes::from_static(&[0; 64]);
            assert_eq!(
                (codec.recode)(&frame, version).map(|_| ()),
                Err(DecodeError::UnsupportedVersion { name, version })
            );
            assert!((codec.encode_default)(version).is_err(), "{name} {version}");
        }
    }
}

/// Runs where scripts/test has brought Kafka's jars, under cargo (the scripts need the
/// caller's Rust tools).
#[test]
fn committed_files_are_what_kafkas_jars_give() {
    for needed in ["OTTLA_KAFKA_CLASSPATH", "CARGO"] {
        if std::env::var_os(needed).is_none() {
            println!("not compared: {needed} is not set");
            return;
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in ["scripts/generate-messages", "scripts/golden-bytes"] {
        let output = Command::new(root.join(script)).arg("--check").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} --check: {said}");
    }
}
