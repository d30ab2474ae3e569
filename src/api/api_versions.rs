//! ApiVersions: what this broker serves, and nothing else (KIP-35, KIP-511, KIP-584).

use std::rc::Rc;

use super::TABLE;
use crate::base::ErrorCode;
use crate::metadata::supported_features;
use crate::security::RequestContext;
use crate::shard::Shard;
use crate::shard::processor::{Reply, reply};
use crate::wire::api_key::ApiKey;
use crate::wire::messages::ApiVersionsRequest;
use crate::wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

pub async fn handle(
    shard: Rc<Shard>,
    context: RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let version = context.api_version;
    if version >= 3
        && !(is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::INVALID_REQUEST.0,
            ..Default::default()
        };
    }
    let image = shard.image();
    ApiVersionsResponse {
        api_keys: shard
            .served(&context.listener)
            .map(|api| ApiVersion {
                api_key: api.key as i16,
                min_version: api.advertised_min,
                max_version: *api.versions.end(),
            })
            .collect(),
        supported_features: supported_features()
            // Version 3 can't express a minimum of 0 (KIP-1022).
            .filter(|(_, min, _)| version >= 4 || *min > 0)
            .map(|(name, min_version, max_version)| SupportedFeatureKey {
                name: name.to_owned(),
                min_version,
                max_version,
            })
            .collect(),
        finalized_features_epoch: image.provenance.offset.0,
        finalized_features: image
            .finalized_features()
            .map(|(name, level)| FinalizedFeatureKey {
                name: name.to_owned(),
                max_version_level: level,
                min_version_level: level,
            })
            .collect(),
        ..Default::default()
    }
}

/// A version of ApiVersions that isn't served is answered in version 0, with the range
/// of ApiVersions alone, so that any client can go on (KIP-511).
pub fn unsupported(context: &RequestContext) -> Reply {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.0,
        api_keys: TABLE
            .iter()
            .filter(|api| matches!(api.key, ApiKey::ApiVersions))
            .map(|api| ApiVersion {
                api_key: api.key as i16,
                min_version: api.advertised_min,
                max_version: *api.versions.end(),
            })
            .collect(),
        ..Default::default()
    };
    let context = RequestContext {
        api_version: 0,
        ..context.clone()
    };
    reply(&context, &response)
}

/// Letters, digits, '-' and '.', beginning and ending with a letter or digit.
fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_are_kafkas() {
        for good in ["kcat", "a", "1.2.3-rc.4", "librdkafka"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-", "a b", "x-", ".x", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
