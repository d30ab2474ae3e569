//! The one thing that the coordinator reads out of a consumer's embedded metadata: which
//! topics it subscribes to. Offsets of subscribed topics neither expire nor may be deleted.
//!
//! ```text
//! version i16 │ topics: count i32, each length i16 + UTF-8 │ user data and, by version, more
//! ```
//! Version 0 is a prefix of every later version, so that is how it is read, whatever the
//! version says (`ConsumerProtocol.deserializeConsumerProtocolSubscription`).

use std::collections::BTreeSet;

use bytes::Buf;

/// The topics, or `None` where the bytes are not of that form.
pub(super) fn add_topics(mut metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let version = metadata.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = metadata.try_get_i32().ok()?;
    for _ in 0..u32::try_from(count).ok()? {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        let name = metadata.get(..length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        metadata.advance(length);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &[u8]) -> Option<Vec<String>> {
        let mut set = BTreeSet::new();
        add_topics(metadata, &mut set)?;
        Some(set.into_iter().collect())
    }

    #[test]
    fn reads_the_topics_of_any_version() {
        let metadata = b"\0\x03\0\0\0\x02\0\x01b\0\x02aa\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics(metadata), Some(vec!["aa".into(), "b".into()]));
        assert_eq!(topics(b"\0\0\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn refuses_what_is_not_a_subscription() {
        for bad in [
            &b""[..],
            b"\0",
            b"\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x05ab",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            assert_eq!(topics(bad), None, "{bad:?}");
        }
    }
}
