//! Kafka's 128-bit ids (topics, directories, incarnations) and their text form:
//! 22 characters of URL-safe base64 without padding (`org.apache.kafka.common.Uuid`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Rng;

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// "None": the id that is absent. Also a directory that is MIGRATING.
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// Topic id of `__cluster_metadata`; as a directory id, UNASSIGNED.
    pub const METADATA_TOPIC: Uuid = Uuid::reserved(1);
    /// A directory that is LOST (KIP-858).
    pub const LOST_DIR: Uuid = Uuid::reserved(2);

    const fn reserved(last: u8) -> Uuid {
        let mut bytes = [0; 16];
        bytes[15] = last;
        Uuid(bytes)
    }

    /// The first hundred ids are reserved and never generated (KIP-858).
    pub fn is_reserved(&self) -> bool {
        self.0[..15] == [0; 15] && self.0[15] < 100
    }

    pub fn is_zero(&self) -> bool {
        *self == Uuid::ZERO
    }

    /// A version 4 uuid. As in Kafka its text never begins with '-', so that it can be
    /// given on a command line.
    pub fn random(rng: &mut Rng) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
            bytes[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            let id = Uuid(bytes);
            if !id.is_reserved() && !id.to_string().starts_with('-') {
                return id;
            }
        }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 22];
        URL_SAFE_NO_PAD
            .encode_slice(self.0, &mut text)
            .expect("16 bytes are 22 characters of base64");
        f.write_str(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a uuid of 22 base64url characters")]
pub struct ParseUuidError(String);

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Uuid(bytes)),
            _ => Err(ParseUuidError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_kafkas() {
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAQ".parse(), Ok(Uuid::METADATA_TOPIC));
        assert!("AAAA".parse::<Uuid>().is_err());
        assert!("".parse::<Uuid>().is_err());
    }

    #[test]
    fn random_ids_round_trip_and_are_version_4() {
        let mut rng = Rng::new(7);
        for _ in 0..1_000 {
            let id = Uuid::random(&mut rng);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.0[6] >> 4, 4);
            assert!(!id.to_string().starts_with('-'));
        }
    }
}
