//! Rules for topic names (`org.apache.kafka.common.internals.Topic`), with Kafka's texts.

/// Longest name, in characters: with a partition's number it must fit a directory name.
pub const NAME_CHARS_MAX: usize = 249;

pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
pub const TRANSACTION_STATE: &str = "__transaction_state";
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Checks a name; the error is the text that Kafka answers.
pub fn validate(name: &str) -> Result<(), String> {
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > NAME_CHARS_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_CHARS_MAX}")
    } else if !name.bytes().all(is_legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// Topics that coordinators keep their state in.
pub fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&name)
}

/// Whether the name holds a character that metric names can't tell from another.
pub fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// What colliding names have in common.
pub fn unify_collision_chars(name: &str) -> String {
    name.replace('.', "_")
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kafkas() {
        assert_eq!(validate("a.B_9-"), Ok(()));
        assert_eq!(validate(&"x".repeat(249)), Ok(()));
        let text = |name| validate(name).unwrap_err();
        assert_eq!(
            text(""),
            "Topic name is invalid: the empty string is not allowed"
        );
        assert_eq!(text(".."), "Topic name is invalid: '..' is not allowed");
        assert_eq!(
            text("a b"),
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'"
        );
        let long = "x".repeat(250);
        assert!(text(&long).ends_with("is longer than the max allowed length 249"));
    }

    #[test]
    fn collisions_are_of_dots_and_underscores() {
        assert!(has_collision_chars("a.b") && has_collision_chars("a_b"));
        assert!(!has_collision_chars("a-b"));
        assert_eq!(
            unify_collision_chars("a.b_c"),
            unify_collision_chars("a_b.c")
        );
        assert!(is_internal("__consumer_offsets") && !is_internal(CLUSTER_METADATA));
    }
}
