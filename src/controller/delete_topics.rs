//! DeleteTopics (`ControllerApis.deleteTopics`, `ReplicationControlManager.deleteTopics`).
//! Topics are named by name, or from version 6 on by name or id. Answers come in random
//! order, so that positions don't tell absent topics from hidden ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api_error::ApiError;
use super::placement::shuffle;
use super::{Controller, Outcome};
use crate::base::{ErrorCode, Uuid};
use crate::metadata::{MetadataRecord, TopicImage};
use crate::security::{CLUSTER_NAME, Operation, RequestContext, ResourceType};
use crate::wire::messages::delete_topics_response::DeletableTopicResult;
use crate::wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse, RemoveTopicRecord};

/// What a request names, each once.
#[derive(Default)]
struct Targets<'a> {
    /// How often each name was given.
    names: BTreeMap<&'a str, usize>,
    ids: BTreeMap<Uuid, usize>,
}

impl Controller {
    pub(super) fn decide_delete_topics(
        &mut self,
        ctx: &RequestContext,
        request: &DeleteTopicsRequest,
    ) -> Outcome<DeleteTopicsResponse> {
        if !self.settings.delete_topic_enable {
            return Err(if ctx.api_version < 3 {
                ApiError::new(
                    ErrorCode::INVALID_REQUEST,
                    "This version does not support topic deletion.",
                )
            } else {
                ApiError::silent(ErrorCode::TOPIC_DELETION_DISABLED)
            });
        }
        let mut results = Vec::new();
        let targets = targets(request, &mut results);
        let mut found = self.find_by_id(ctx, &targets, &mut results);
        self.find_by_name(ctx, &targets, &mut found, &mut results);

        let records: Vec<MetadataRecord> = found
            .keys()
            .map(|topic_id| {
                RemoveTopicRecord {
                    topic_id: *topic_id,
                }
                .into()
            })
            .collect();
        let deleted = found.values().map(|topic| DeletableTopicResult {
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            error_code: ErrorCode::NONE.0,
            error_message: None,
        });
        results.extend(deleted);
        shuffle(&mut results, &mut self.rng);
        let response = DeleteTopicsResponse {
            responses: results,
            ..Default::default()
        };
        Ok((records, response))
    }

    fn find_by_id(
        &self,
        ctx: &RequestContext,
        targets: &Targets<'_>,
        results: &mut Vec<DeletableTopicResult>,
    ) -> BTreeMap<Uuid, Arc<TopicImage>> {
        let mut found = BTreeMap::new();
        for (id, count) in &targets.ids {
            let topic = self.image.topics.by_id(*id);
            let (name, error) = match topic {
                _ if *count > 1 => (None, invalid("Duplicate topic id.")),
                None => (None, ApiError::general(ErrorCode::UNKNOWN_TOPIC_ID)),
                Some(topic) if self.may(ctx, Operation::Delete, &topic.name) => {
                    found.insert(*id, Arc::clone(topic));
                    continue;
                }
                Some(topic) => {
                    // Whoever may not describe the topic does not learn its name.
                    let may_see = self.may(ctx, Operation::Describe, &topic.name);
                    let name = may_see.then(|| topic.name.to_string());
                    (
                        name,
                        ApiError::general(ErrorCode::TOPIC_AUTHORIZATION_FAILED),
                    )
                }
            };
            results.push(failed(name, *id, error));
        }
        found
    }

    fn find_by_name(
        &self,
        ctx: &RequestContext,
        targets: &Targets<'_>,
        found: &mut BTreeMap<Uuid, Arc<TopicImage>>,
        results: &mut Vec<DeletableTopicResult>,
    ) {
        let unauthorized = || ApiError::general(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        for (name, count) in &targets.names {
            let (id, error) = match self.image.topics.by_name(name) {
                _ if *count > 1 => (Uuid::ZERO, invalid("Duplicate topic name.")),
                _ if !self.may(ctx, Operation::Describe, name) => (Uuid::ZERO, unauthorized()),
                None => {
                    let error = ApiError::general(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
                    (Uuid::ZERO, error)
                }
                Some(_) if !self.may(ctx, Operation::Delete, name) => (Uuid::ZERO, unauthorized()),
                Some(topic) if targets.ids.contains_key(&topic.id) => {
                    found.remove(&topic.id);
                    let text = "The provided topic name maps to an ID that was already supplied.";
                    (topic.id, invalid(text))
                }
                Some(topic) => {
                    found.insert(topic.id, Arc::clone(topic));
                    continue;
                }
            };
            results.push(failed(Some((*name).to_owned()), id, error));
        }
    }

    fn may(&self, ctx: &RequestContext, operation: Operation, topic: &str) -> bool {
        let authorizer = &self.authorizer;
        authorizer.authorize(ctx, Operation::Delete, ResourceType::Cluster, CLUSTER_NAME)
            || authorizer.authorize(ctx, operation, ResourceType::Topic, topic)
    }
}

fn targets<'a>(
    request: &'a DeleteTopicsRequest,
    results: &mut Vec<DeletableTopicResult>,
) -> Targets<'a> {
    let mut targets = Targets::default();
    for name in &request.topic_names {
        *targets.names.entry(name).or_default() += 1;
    }
    for topic in &request.topics {
        match (&topic.name, topic.topic_id) {
            (None, id) if id.is_zero() => {
                let error = invalid("Neither topic name nor id were specified.");
                results.push(failed(None, id, error));
            }
            (None, id) => *targets.ids.entry(id).or_default() += 1,
            (Some(name), id) if id.is_zero() => *targets.names.entry(name).or_default() += 1,
            (Some(name), id) => {
                let error = invalid("You may not specify both topic name and topic id.");
                results.push(failed(Some(name.clone()), id, error));
            }
        }
    }
    targets
}

fn invalid(text: &str) -> ApiError {
    ApiError::new(ErrorCode::INVALID_REQUEST, text)
}

fn failed(name: Option<String>, topic_id: Uuid, error: ApiError) -> DeletableTopicResult {
    DeletableTopicResult {
        name,
        topic_id,
        error_code: error.code.0,
        error_message: error.message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::metadata::ConfigResourceType;
    use crate::wire::messages::delete_topics_request::DeleteTopicState;

    fn by_name(name: &str) -> DeleteTopicState {
        DeleteTopicState {
            name: Some(name.to_owned()),
            topic_id: Uuid::ZERO,
        }
    }

    fn by_id(topic_id: Uuid) -> DeleteTopicState {
        DeleteTopicState {
            name: None,
            topic_id,
        }
    }

    fn delete(
        bench: &mut Bench,
        topics: Vec<DeleteTopicState>,
    ) -> Vec<(Option<String>, Uuid, i16)> {
        let request = DeleteTopicsRequest {
            topics,
            ..Default::default()
        };
        let ctx = RequestContext {
            api_version: 6,
            ..RequestContext::internal()
        };
        match bench.run(ControllerRequest::DeleteTopics { ctx, request }) {
            ControllerResponse::DeleteTopics(response) => {
                let mut results: Vec<_> = response
                    .responses
                    .into_iter()
                    .map(|r| (r.name, r.topic_id, r.error_code))
                    .collect();
                results.sort();
                results
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn topics_go_with_their_configs() {
        let mut bench = Bench::with_brokers(1);
        let ids = [bench.create_topic("a", 1), bench.create_topic("b.c", 2)];
        bench.set_config(ConfigResourceType::TOPIC, "a", "retention.ms", "5");
        let results = delete(&mut bench, vec![by_name("a"), by_id(ids[1])]);
        assert_eq!(
            results,
            [
                (Some("a".to_owned()), ids[0], 0),
                (Some("b.c".to_owned()), ids[1], 0)
            ]
        );
        let image = bench.controller.image();
        assert!(image.topics.is_empty());
        assert_eq!(image.configs.of_type(ConfigResourceType::TOPIC).count(), 0);
        // The name is free again, for colliding ones too.
        bench.create_topic("b_c", 1);
    }

    #[test]
    fn faults_have_kafkas_codes() {
        let mut bench = Bench::with_brokers(1);
        let id = bench.create_topic("a", 1);
        let unknown = Uuid([7; 16]);
        let end = bench.next_offset;
        let name = |name: &str| Some(name.to_owned());
        let both = DeleteTopicState {
            name: name("a"),
            topic_id: id,
        };
        let cases = [
            (vec![by_name("x")], vec![(name("x"), Uuid::ZERO, 3)]),
            (vec![by_id(unknown)], vec![(None, unknown, 100)]),
            (vec![by_id(Uuid::ZERO)], vec![(None, Uuid::ZERO, 42)]),
            (vec![both], vec![(name("a"), id, 42)]),
            (
                vec![by_name("a"), by_name("a")],
                vec![(name("a"), Uuid::ZERO, 42)],
            ),
            (vec![by_id(id), by_id(id)], vec![(None, id, 42)]),
            (vec![by_name("a"), by_id(id)], vec![(name("a"), id, 42)]),
        ];
        for (topics, expected) in cases {
            assert_eq!(delete(&mut bench, topics.clone()), expected, "{topics:?}");
        }
        assert_eq!(bench.next_offset, end, "nothing is written");
    }
}
