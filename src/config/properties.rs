//! Java's `.properties` files, as `java.util.Properties.load` reads them, each entry
//! with the line that it begins on.
//!
//! Bytes are ISO 8859-1 there, other characters are written `\uXXXX`; so a stock file
//! means the same to us as to Apache Kafka.

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1.
    pub line: usize,
    pub key: String,
    pub value: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: `\\u` wants four hexadecimal digits after it")]
pub struct SyntaxError {
    pub line: usize,
}

/// Every entry in the order of the file; a repeated key is there twice.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    for (line, logical) in logical_lines(bytes) {
        let (key, value) = split(&logical);
        let error = |()| SyntaxError { line };
        entries.push(Entry {
            line,
            key: unescape(key).map_err(error)?,
            value: unescape(value).map_err(error)?,
        });
    }
    Ok(entries)
}

/// `KEY=VALUE` from a command line: a properties line without comments or
/// continuations. None when there is no key or no separator.
pub fn parse_override(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key.to_owned(), value.trim().to_owned()))
}

/// Joins continued lines; leaves out blank ones and comments.
fn logical_lines(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (index, natural) in natural_lines(bytes).into_iter().enumerate() {
        let start = natural
            .iter()
            .position(|b| !is_blank(*b))
            .unwrap_or(natural.len());
        let content = &natural[start..];
        if open.is_none() && matches!(content.first(), None | Some(b'#' | b'!')) {
            continue;
        }
        let (first_line, mut joined) = open.take().unwrap_or((index + 1, Vec::new()));
        let slashes = content.iter().rev().take_while(|b| **b == b'\\').count();
        if slashes % 2 == 1 {
            joined.extend_from_slice(&content[..content.len() - 1]);
            // As in Java, nothing yet is no line yet: a comment may still follow.
            open = (!joined.is_empty()).then_some((first_line, joined));
        } else {
            joined.extend_from_slice(content);
            lines.push((first_line, joined));
        }
    }
    lines.extend(open);
    lines
}

fn natural_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let ending = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + ending..];
    }
    lines.push(rest);
    lines
}

/// Key and value: divided by the first `=`, `:` or blank that isn't escaped, with blanks
/// around it.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = line
        .iter()
        .position(|b| {
            let ends = !escaped && (is_blank(*b) || matches!(b, b'=' | b':'));
            escaped = !escaped && *b == b'\\';
            ends
        })
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = skip_blanks(rest);
    let value = match rest.first() {
        Some(b'=' | b':') => skip_blanks(&rest[1..]),
        _ => rest,
    };
    (key, value)
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|b| !is_blank(*b))
        .unwrap_or(bytes.len());
    &bytes[start..]
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

fn unescape(bytes: &[u8]) -> Result<String, ()> {
    let mut units: Vec<u16> = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        let unit = match byte {
            b'\\' => match bytes.next() {
                None => break,
                Some(b't') => u16::from(b'\t'),
                Some(b'n') => u16::from(b'\n'),
                Some(b'r') => u16::from(b'\r'),
                Some(b'f') => 0x0c,
                Some(b'u') => hex4(bytes.by_ref())?,
                Some(other) => u16::from(*other),
            },
            plain => u16::from(*plain),
        };
        units.push(unit);
    }
    Ok(String::from_utf16_lossy(&units))
}

fn hex4<'a>(bytes: impl Iterator<Item = &'a u8>) -> Result<u16, ()> {
    let mut value = 0;
    let mut count = 0;
    for byte in bytes.take(4) {
        let digit = char::from(*byte).to_digit(16).ok_or(())?;
        value = value * 16 + digit;
        count += 1;
    }
    if count < 4 {
        return Err(());
    }
    u16::try_from(value).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|entry| (entry.line, entry.key, entry.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators_and_blanks() {
        for text in [
            "a=b",
            "a = b",
            "a:b",
            "a b",
            "  a\t:\tb",
            "a  b",
            "a =b",
            "a\u{c}b",
        ] {
            assert_eq!(one(text), ("a".into(), "b".into()), "{text:?}");
        }
        assert_eq!(one("a"), ("a".into(), "".into()));
        assert_eq!(one("a="), ("a".into(), "".into()));
        assert_eq!(one("=b"), ("".into(), "b".into()));
        assert_eq!(one("a==b"), ("a".into(), "=b".into()));
        assert_eq!(one("a b=c"), ("a".into(), "b=c".into()));
        assert_eq!(one("a=b  "), ("a".into(), "b  ".into()));
    }

    #[test]
    fn comments_blank_lines_and_line_ends() {
        assert_eq!(
            pairs("# c\r\n\n  ! d\ra=1\r\n \t\nb=2"),
            [(4, "a".into(), "1".into()), (6, "b".into(), "2".into())]
        );
        assert_eq!(pairs(""), []);
        assert_eq!(
            one("a=b # not a comment"),
            ("a".into(), "b # not a comment".into())
        );
    }

    #[test]
    fn continuations_keep_the_first_line() {
        assert_eq!(
            pairs("\nlisteners=A,\\\n   B,\\\n# C\nx=1"),
            [
                (2, "listeners".into(), "A,B,# C".into()),
                (5, "x".into(), "1".into())
            ]
        );
        assert_eq!(one("a=b\\\\"), ("a".into(), "b\\".into()));
        assert_eq!(one("a=b\\"), ("a".into(), "b".into()));
        assert_eq!(one("a=b\\\n\n"), ("a".into(), "b".into()));
        assert_eq!(pairs("\\\n# c\n\\\n\n"), []);
    }

    #[test]
    fn escapes() {
        assert_eq!(one(r"a\ b\=\:c=d"), ("a b=:c".into(), "d".into()));
        assert_eq!(
            one(r"a=\t\n\r\f\q\\"),
            ("a".into(), "\t\n\r\u{c}q\\".into())
        );
        assert_eq!(one(r"a=\u00e9\uD83D\uDE00"), ("a".into(), "é😀".into()));
        assert_eq!(parse(b"x=1\na=\\u00g0"), Err(SyntaxError { line: 2 }));
        assert_eq!(parse(b"a=\\u00"), Err(SyntaxError { line: 1 }));
        assert_eq!(parse(b"a=\xe9").unwrap()[0].value, "é");
    }

    #[test]
    fn overrides_want_a_key_and_a_separator() {
        assert_eq!(parse_override("a = b=c "), Some(("a".into(), "b=c".into())));
        assert_eq!(parse_override("a="), Some(("a".into(), "".into())));
        assert_eq!(parse_override("a"), None);
        assert_eq!(parse_override("=b"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn escaped_entries_come_back(key in "[ -~]{1,20}", value in "[ -~]{0,20}") {
            let escape = |text: &str| -> String {
                text.chars().flat_map(|c| ['\\', c]).map(|c| c.to_string())
                    .collect::<String>()
                    // a backslash before these letters has a meaning of its own
                    .replace("\\t", "t").replace("\\n", "n").replace("\\r", "r")
                    .replace("\\f", "f").replace("\\u", "u")
            };
            prop_assume!(!key.contains('\\') && !value.contains('\\'));
            let entries = parse(format!("{}={}", escape(&key), escape(&value)).as_bytes()).unwrap();
            prop_assert_eq!(&entries[0].key, &key);
            prop_assert_eq!(&entries[0].value, &value);
        }
    }
}
