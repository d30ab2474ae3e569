//! The other controllers, as the quorum's state machine reaches them.
//!
//! Called by [`super::replica`]; each request is answered by an event, or found to have no
//! answer.

use std::rc::Rc;

use super::controller::Event;
use super::links::{Address, Links};
use crate::io::local;
use crate::io::{Queue, Rt};
use crate::raft::quorum::{CallId, Destination, Input, Request, Response};
use crate::wire::api_key::ApiKey;

pub struct Peers {
    rt: Rt,
    events: local::mpsc::Sender<Event>,
    links: Rc<Links>,
    /// `controller.quorum.bootstrap.servers`
    bootstrap: Vec<Address>,
}

impl Peers {
    pub fn new(
        rt: Rt,
        events: local::mpsc::Sender<Event>,
        links: Rc<Links>,
        bootstrap: Vec<Address>,
    ) -> Peers {
        Peers {
            rt,
            events,
            links,
            bootstrap,
        }
    }

    /// Sends a request; its answer, or that there will be none, comes as an event.
    pub fn send(&mut self, call: CallId, to: Destination, request: Request) {
        let address = match to {
            Destination::Node(_, endpoint) => endpoint.map(|e| (e.host, e.port)),
            Destination::Bootstrap(index) => self.bootstrap.get(index).cloned(),
        };
        let links = Rc::clone(&self.links);
        let events = self.events.clone();
        self.rt.spawn(Queue::Request, async move {
            let response = match &address {
                Some(address) => ask(&links, address, &request).await,
                None => None,
            };
            let input = match response {
                Some(response) => Input::Response { call, response },
                None => Input::CallFailed(call),
            };
            let _ = events.send(Event::Input(input)).await;
        });
    }
}

macro_rules! ask_by {
    ($links:expr, $to:expr, $request:expr, $($variant:ident @ $version:literal,)*) => {
        match $request {
            $(Request::$variant(request) => {
                let asked = $links.ask($to, ApiKey::$variant, $version, request);
                asked.await.map(Response::$variant)
            })*
        }
    };
}

/// Asks a node, in the versions that quorums of Kafka 4 speak.
pub async fn ask(links: &Links, to: &Address, request: &Request) -> Option<Response> {
    ask_by!(
        links,
        to,
        request,
        Vote @ 2,
        BeginQuorumEpoch @ 1,
        EndQuorumEpoch @ 1,
        Fetch @ 17,
        FetchSnapshot @ 1,
        AddRaftVoter @ 1,
        RemoveRaftVoter @ 0,
        UpdateRaftVoter @ 0,
        DescribeQuorum @ 2,
        ApiVersions @ 4,
    )
}
