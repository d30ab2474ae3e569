//! Java's `String.hashCode`: brokers agree by it on which partition of an internal topic
//! coordinates a group or a transactional id.

/// `String.hashCode` over UTF-16 code units.
pub fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// Partition of an internal topic for a key, as `Utils.abs(key.hashCode) % partitions`
/// (where the absolute value of the smallest integer is 0). `partitions` is at least 1.
pub fn coordinator_partition(key: &str, partitions: i32) -> i32 {
    let hash = java_string_hash(key);
    let abs = if hash == i32::MIN { 0 } else { hash.abs() };
    abs % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_java() {
        assert_eq!(java_string_hash(""), 0);
        assert_eq!(java_string_hash("hello"), 99_162_322);
        assert_eq!(java_string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(coordinator_partition("polygenelubricants", 50), 0);
        assert_eq!(java_string_hash("\u{1F600}"), 1_772_899);
    }
}
