//! The other controllers, as the quorum's state machine reaches them: not at all yet.

use super::controller::Event;
use crate::io::local;
use crate::io::{Queue, Rt};
use crate::raft::quorum::{CallId, Destination, Input, Request};

pub struct Peers {
    rt: Rt,
    events: local::mpsc::Sender<Event>,
}

impl Peers {
    pub fn new(rt: Rt, events: local::mpsc::Sender<Event>) -> Peers {
        Peers { rt, events }
    }

    /// Sends a request; its answer, or that there will be none, comes as an event.
    pub fn send(&mut self, call: CallId, to: Destination, request: Request) {
        drop((to, request));
        let events = self.events.clone();
        self.rt.spawn(Queue::Request, async move {
            let _ = events.send(Event::Input(Input::CallFailed(call))).await;
        });
    }
}
