//! Messages as they cross the network: encoded and decoded, at the versions that nodes use.

use bytes::BytesMut;
use ottla::raft::quorum::{Request, Response};
use ottla::wire::{Decoder, Message};

pub fn api_version(request: &Request) -> i16 {
    match request {
        Request::Vote(_) => 2,
        Request::BeginQuorumEpoch(_) | Request::EndQuorumEpoch(_) | Request::FetchSnapshot(_) => 1,
        Request::AddRaftVoter(_) => 1,
        Request::RemoveRaftVoter(_) | Request::UpdateRaftVoter(_) => 0,
        Request::Fetch(_) => 18,
        Request::DescribeQuorum(_) => 2,
        Request::ApiVersions(_) => 4,
    }
}

fn pass<M: Message>(message: &M, version: i16) -> M {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("it can be sent");
    let bytes = bytes.freeze();
    M::decode(&mut Decoder::new(&bytes), version).expect("it can be read")
}

macro_rules! pass_all {
    ($message:expr, $type:ident, $version:expr, $($variant:ident),*) => {
        match $message {
            $($type::$variant(message) => $type::$variant(pass(message, $version)),)*
        }
    };
}

pub fn pass_request(request: &Request) -> Request {
    let version = api_version(request);
    pass_all!(
        request,
        Request,
        version,
        Vote,
        BeginQuorumEpoch,
        EndQuorumEpoch,
        Fetch,
        FetchSnapshot,
        AddRaftVoter,
        RemoveRaftVoter,
        UpdateRaftVoter,
        DescribeQuorum,
        ApiVersions
    )
}

pub fn pass_response(response: &Response, version: i16) -> Response {
    pass_all!(
        response,
        Response,
        version,
        Vote,
        BeginQuorumEpoch,
        EndQuorumEpoch,
        Fetch,
        FetchSnapshot,
        AddRaftVoter,
        RemoveRaftVoter,
        UpdateRaftVoter,
        DescribeQuorum,
        ApiVersions
    )
}
