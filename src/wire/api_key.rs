//! The APIs: key, name, versions and listeners, from the request schemas. The table itself
//! is generated (`messages/api_keys.rs`); the connection, the API registry and ApiVersions
//! read it.

use std::fmt;
use std::ops::RangeInclusive;

pub use super::messages::api_keys::ApiKey;

/// What the schemas say of one API.
#[derive(Debug)]
pub struct ApiInfo {
    pub key: ApiKey,
    /// Kafka's name, as in metrics and `kafka-broker-api-versions`.
    pub name: &'static str,
    /// Versions that have a codec, an unstable latest one included.
    pub versions: RangeInclusive<i16>,
    /// First version in the flexible form, of request and response; `i16::MAX` = none.
    pub flexible_from: i16,
    /// Whether the last version is still hidden from clients.
    pub latest_version_unstable: bool,
    pub on_brokers: bool,
    pub on_controllers: bool,
}

impl ApiInfo {
    /// Versions to offer and accept while unstable ones are off.
    pub fn stable_versions(&self) -> RangeInclusive<i16> {
        *self.versions.start()..=self.versions.end() - i16::from(self.latest_version_unstable)
    }
}

/// Apache Kafka offers Produce from version 0, because librdkafka takes the lowest version
/// as a sign of what a broker can do, and refuses versions 0 to 2 (KIP-896).
pub const PRODUCE_OFFERED_MIN: i16 = 0;

impl ApiKey {
    pub fn from_i16(key: i16) -> Option<ApiKey> {
        let index = ApiKey::ALL.binary_search_by_key(&key, |info| info.key as i16);
        index.ok().map(|index| ApiKey::ALL[index].key)
    }

    pub fn info(self) -> &'static ApiInfo {
        let index = ApiKey::ALL.binary_search_by_key(&(self as i16), |info| info.key as i16);
        &ApiKey::ALL[index.expect("the table has every ApiKey")]
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }

    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.info().flexible_from
    }

    /// Version 1, or 2 with tagged fields.
    pub fn request_header_version(self, version: i16) -> i16 {
        1 + i16::from(self.is_flexible(version))
    }

    /// Version 0, or 1 with tagged fields. ApiVersions always has 0, so that a client can
    /// read the answer to a version that the broker doesn't know.
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != ApiKey::ApiVersions && self.is_flexible(version))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! api_keys {
    ($($name:ident = $key:literal: $versions:expr, $flexible:expr, $unstable:literal, $broker:literal, $controller:literal;)*) => {
        /// The key of an API, as it stands in a request's header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// All APIs in the order of their keys.
            pub const ALL: &[$crate::wire::api_key::ApiInfo] = &[
                $($crate::wire::api_key::ApiInfo {
                    key: ApiKey::$name,
                    name: stringify!($name),
                    versions: $versions,
                    flexible_from: $flexible,
                    latest_version_unstable: $unstable,
                    on_brokers: $broker,
                    on_controllers: $controller,
                },)*
            ];
        }
    };
}
pub(crate) use api_keys;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_kafkas() {
        assert!(ApiKey::ALL.is_sorted_by_key(|info| info.key));
        for info in ApiKey::ALL {
            assert_eq!(ApiKey::from_i16(info.key as i16), Some(info.key));
            assert_eq!(info.key.name(), info.name);
        }
        assert_eq!(ApiKey::from_i16(4), None);
        assert_eq!(ApiKey::from_i16(-1), None);
        assert_eq!(ApiKey::Produce.info().versions, 3..=13);
        assert_eq!(ApiKey::InitProducerId.info().versions, 0..=6);
        assert_eq!(ApiKey::InitProducerId.info().stable_versions(), 0..=5);
        let on = |on: fn(&&ApiInfo) -> bool| ApiKey::ALL.iter().filter(on).count();
        // 75 are offered by a broker; the two telemetry APIs need a plugin.
        assert_eq!(on(|info| info.on_brokers), 77);
        assert_eq!(on(|info| info.on_controllers), 41);
    }

    #[test]
    fn header_versions() {
        assert_eq!(ApiKey::Produce.request_header_version(8), 1);
        assert_eq!(ApiKey::Produce.request_header_version(9), 2);
        assert_eq!(ApiKey::Produce.response_header_version(9), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(4), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
