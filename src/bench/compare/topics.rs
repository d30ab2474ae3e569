//! The topic of a slice: made with the settings that the comparison is about, and deleted
//! when the slice is over, so that no slice pays for another's data. Called by `compare`.

use std::time::Duration;

use bytes::BytesMut;

use super::super::client::Client;
use crate::base::ErrorCode;
use crate::wire::ApiKey;
use crate::wire::codec::{Decoder, Message};
use crate::wire::header::encode_request_header;
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

/// Known to every broker since 2.4.
const VERSION: i16 = 5;
const CLIENT_ID: &str = "ottla-bench-compare";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Creates the topic; `configs` are `KEY=VALUE`.
pub fn create(
    address: &str,
    topic: &str,
    partitions: i32,
    configs: &[String],
) -> Result<(), String> {
    let configs = configs.iter().map(|config| {
        let (name, value) = config.split_once('=').unwrap_or((config, ""));
        CreatableTopicConfig {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        }
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        }],
        timeout_ms: TIMEOUT.as_millis() as i32,
        ..Default::default()
    };
    let answer: CreateTopicsResponse = call(address, ApiKey::CreateTopics, &request)?;
    let results = answer.topics.iter();
    check("create", address, topic, results.map(|it| it.error_code))
}

/// Deletes the topic, if it is there.
pub fn delete(address: &str, topic: &str) -> Result<(), String> {
    let request = DeleteTopicsRequest {
        topic_names: vec![topic.to_owned()],
        timeout_ms: TIMEOUT.as_millis() as i32,
        ..Default::default()
    };
    let answer: DeleteTopicsResponse = call(address, ApiKey::DeleteTopics, &request)?;
    let absent = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
    let codes = answer.responses.iter().map(|it| it.error_code);
    check(
        "delete",
        address,
        topic,
        codes.filter(|code| *code != absent),
    )
}

fn check(
    what: &str,
    address: &str,
    topic: &str,
    codes: impl Iterator<Item = i16>,
) -> Result<(), String> {
    for code in codes.map(ErrorCode) {
        if !code.is_ok() {
            return Err(format!("{address}: can't {what} {topic}: {code}"));
        }
    }
    Ok(())
}

fn call<Q: Message, A: Message>(address: &str, api: ApiKey, request: &Q) -> Result<A, String> {
    let fault = |error: String| format!("{address}: {api}: {error}");
    let mut client = Client::connect(address)?;
    let mut out = BytesMut::from(&[0; 4][..]);
    encode_request_header(&mut out, api, VERSION, 0, Some(CLIENT_ID));
    let encoded = request.encode(&mut out, VERSION);
    encoded.map_err(|error| fault(error.to_string()))?;
    let size = u32::try_from(out.len() - 4).expect("a small request");
    out[..4].copy_from_slice(&size.to_be_bytes());
    let body = client.call_frame(api, VERSION, 0, &out)?;
    A::decode(&mut Decoder::new(&body), VERSION).map_err(|error| fault(error.to_string()))
}
