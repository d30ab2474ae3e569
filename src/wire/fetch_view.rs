//! A Fetch request without an allocation: its head, and its partitions as they are met.
//! Called by the Fetch handler, which makes of each partition what it needs.
//!
//! Invariant: it accepts what the generated `FetchRequest` decodes, and gives the same; only
//! the cluster's id, the rack and the partitions' tagged fields are left out. Nothing is
//! kept here, so the decoder's budget isn't touched: what the caller keeps of a partition is
//! bounded by the 16 bytes that it takes in the frame.

use super::codec::{DecodeError, Decoder, Message as _};
use super::messages::FetchRequest;
use super::messages::fetch_request::{FetchPartition, ReplicaState};
use super::produce_view::TopicRef;

/// What a Fetch asks besides its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchView {
    /// From the tagged field since version 15.
    pub replica_id: i32,
    /// The epoch of the replica's registration; -1 where it isn't told.
    pub replica_epoch: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub isolation_level: i8,
    pub session_id: i32,
    pub session_epoch: i32,
}

impl FetchView {
    /// Walks the whole body at the decoder. `asked` is given each partition, `forgotten`
    /// each that the session is to forget, in the request's order; what they were given of
    /// a body that turns out to be undecodable is to be thrown away.
    pub fn decode<'a>(
        d: &mut Decoder<'a>,
        version: i16,
        mut asked: impl FnMut(TopicRef<'a>, FetchPartition),
        mut forgotten: impl FnMut(TopicRef<'a>, i32),
    ) -> Result<FetchView, DecodeError> {
        DecodeError::check_version(FetchRequest::NAME, FetchRequest::VERSIONS, version)?;
        let flex = version >= FetchRequest::FLEXIBLE_FROM;
        let mut view = FetchView {
            replica_id: if version <= 14 { d.i32()? } else { -1 },
            replica_epoch: -1,
            max_wait_ms: d.i32()?,
            min_bytes: d.i32()?,
            max_bytes: d.i32()?,
            isolation_level: d.i8()?,
            session_id: if version >= 7 { d.i32()? } else { 0 },
            session_epoch: if version >= 7 { d.i32()? } else { -1 },
        };
        for_each(d, flex, 3, |d| {
            let topic = topic(d, version)?;
            for_each(d, flex, 16, |d| {
                asked(topic, FetchPartition::decode(d, version)?);
                Ok(())
            })?;
            end(d, flex)
        })?;
        if version >= 7 {
            for_each(d, flex, 3, |d| {
                let topic = topic(d, version)?;
                for_each(d, flex, 4, |d| {
                    forgotten(topic, d.i32()?);
                    Ok(())
                })?;
                end(d, flex)
            })?;
        }
        if version >= 11 {
            d.nullable_str(flex)?.ok_or(DecodeError::UnexpectedNull)?;
        }
        if flex {
            d.tags(|d, tag| {
                match tag {
                    0 => {
                        d.nullable_str(flex)?;
                    }
                    1 if version >= 15 => {
                        let state = ReplicaState::decode(d, version)?;
                        view.replica_id = state.replica_id;
                        view.replica_epoch = state.replica_epoch;
                    }
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
        }
        Ok(view)
    }
}

fn for_each<'a>(
    d: &mut Decoder<'a>,
    flex: bool,
    element_min: usize,
    mut element: impl FnMut(&mut Decoder<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let count = d.nullable_count(flex, element_min)?;
    for _ in 0..count.ok_or(DecodeError::UnexpectedNull)? {
        element(d)?;
    }
    Ok(())
}

fn topic<'a>(d: &mut Decoder<'a>, version: i16) -> Result<TopicRef<'a>, DecodeError> {
    if version >= 13 {
        return Ok(TopicRef::Id(d.uuid()?));
    }
    let name = d.nullable_str(version >= FetchRequest::FLEXIBLE_FROM)?;
    Ok(TopicRef::Name(name.ok_or(DecodeError::UnexpectedNull)?))
}

fn end(d: &mut Decoder<'_>, flex: bool) -> Result<(), DecodeError> {
    if flex { d.skip_tags() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::base::{Rng, Uuid};
    use crate::wire::messages::fetch_request::{FetchTopic, ForgottenTopic};

    fn random_request(rng: &mut Rng, version: i16) -> FetchRequest {
        let mut number = |max: u64| rng.below(max) as i32 - 1;
        let by_id = version >= 13;
        let name = |n: i32| {
            if by_id {
                String::new()
            } else {
                format!("t{n}")
            }
        };
        let id = |n: i32| {
            if by_id {
                Uuid([n as u8; 16])
            } else {
                Uuid::ZERO
            }
        };
        let mut request = FetchRequest {
            max_wait_ms: number(1 << 20),
            min_bytes: number(1 << 20),
            max_bytes: number(1 << 30),
            isolation_level: number(3) as i8,
            ..Default::default()
        };
        if version >= 7 {
            (request.session_id, request.session_epoch) = (number(1 << 30), number(100));
        }
        match version {
            15.. => request.replica_state.replica_id = number(9),
            _ => request.replica_id = number(9),
        }
        if version >= 11 {
            request.rack_id = "rack".to_owned();
        }
        if version >= 12 && number(2) == 0 {
            request.cluster_id = Some("cluster".to_owned());
        }
        for n in 0..number(5) {
            let partitions = (0..number(4)).map(|partition| FetchPartition {
                partition,
                fetch_offset: i64::from(number(1 << 30)),
                partition_max_bytes: number(1 << 30),
                replica_directory_id: match version {
                    17.. => Uuid([5; 16]),
                    _ => Uuid::ZERO,
                },
                ..Default::default()
            });
            let partitions = partitions.collect();
            let (topic, topic_id) = (name(n), id(n));
            request.topics.push(FetchTopic {
                topic,
                topic_id,
                partitions,
            });
        }
        for n in 0..if version >= 7 { number(4) } else { 0 } {
            request.forgotten_topics_data.push(ForgottenTopic {
                topic: name(n),
                topic_id: id(n),
                partitions: (0..number(4)).collect(),
            });
        }
        request
    }

    type Met = (String, Uuid);

    fn met(topic: TopicRef<'_>) -> Met {
        match topic {
            TopicRef::Name(name) => (name.to_owned(), Uuid::ZERO),
            TopicRef::Id(id) => (String::new(), id),
        }
    }

    #[test]
    fn it_sees_what_the_generated_message_holds_and_refuses_what_that_refuses() {
        let mut rng = Rng::new(3);
        for round in 0..600 {
            let version = 4 + (round % 15) as i16;
            let request = random_request(&mut rng, version);
            let mut body = BytesMut::new();
            request.encode(&mut body, version).expect("it fits");
            let cut = rng.below(body.len() as u64 + 1) as usize;
            for body in [&body[..], &body[..cut]] {
                let body = Bytes::copy_from_slice(body);
                let (mut asked, mut forgotten) = (Vec::new(), Vec::new());
                let view = FetchView::decode(
                    &mut Decoder::borrowed(&body),
                    version,
                    |topic, partition| asked.push((met(topic), partition)),
                    |topic, index| forgotten.push((met(topic), index)),
                );
                let decoded = FetchRequest::decode(&mut Decoder::new(&body), version);
                let (view, decoded) = match (view, decoded) {
                    (Ok(view), Ok(decoded)) => (view, decoded),
                    (view, decoded) => {
                        assert_eq!(view.err(), decoded.err());
                        continue;
                    }
                };
                let replica = match version {
                    15.. => decoded.replica_state.replica_id,
                    _ => decoded.replica_id,
                };
                assert_eq!(view.replica_id, replica);
                assert_eq!(view.replica_epoch, decoded.replica_state.replica_epoch);
                assert_eq!(view.session_id, decoded.session_id);
                assert_eq!(view.session_epoch, decoded.session_epoch);
                assert_eq!(view.max_wait_ms, decoded.max_wait_ms);
                assert_eq!(view.min_bytes, decoded.min_bytes);
                assert_eq!(view.max_bytes, decoded.max_bytes);
                assert_eq!(view.isolation_level, decoded.isolation_level);
                let topics = decoded.topics.into_iter();
                let expected: Vec<_> = topics
                    .flat_map(|t| {
                        let topic = (t.topic, t.topic_id);
                        t.partitions.into_iter().map(move |p| (topic.clone(), p))
                    })
                    .collect();
                assert_eq!(asked, expected);
                let topics = decoded.forgotten_topics_data.into_iter();
                let expected: Vec<_> = topics
                    .flat_map(|t| {
                        let topic = (t.topic, t.topic_id);
                        t.partitions.into_iter().map(move |p| (topic.clone(), p))
                    })
                    .collect();
                assert_eq!(forgotten, expected);
            }
        }
    }
}
