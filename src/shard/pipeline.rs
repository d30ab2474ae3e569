//! The requests of one connection that are in flight: which may run beside which, and how
//! much may be finished without being sent.
//!
//! Used by `shard::connection` alone. Produce, Fetch and ListOffsets overlap; every other
//! request is a barrier: it runs alone and nothing starts before it has been answered.
//!
//! Invariants: at most [`IN_FLIGHT_MAX`] requests; replies leave in request order; none
//! starts while the finished replies and the expected size of those that run are
//! [`UNSENT_BYTES_MAX`] or more, so a peer that doesn't read holds about that much.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::processor::{Reply, Started};
use super::spares::Running;
use crate::base::Nanos;
use crate::wire::api_key::ApiKey;

/// Requests of one connection that are in flight at a time.
pub const IN_FLIGHT_MAX: usize = 64;
/// Bytes of replies that may wait to be sent while requests still start.
pub const UNSENT_BYTES_MAX: usize = 4 << 20;
/// What a first reply is taken to be. Later ones are expected to be like those before, so
/// a peer whose replies are small soon has all its requests running.
const FIRST_REPLY_BYTES: usize = 1 << 20;

pub struct Pipeline {
    requests: VecDeque<InFlight>,
    barriers: usize,
    running: usize,
    /// Bytes of the finished replies that are still here.
    finished_bytes: usize,
    /// Recent replies were about this large, the largest of them.
    expected_bytes: usize,
}

struct InFlight {
    api: ApiKey,
    began: Nanos,
    barrier: bool,
    state: State,
}

/// A request that has its reply.
pub struct Finished {
    pub api: ApiKey,
    /// When its first bytes had come.
    pub began: Nanos,
    pub reply: Reply,
}

enum State {
    Running(Running),
    Finished(Reply),
}

impl Default for Pipeline {
    fn default() -> Pipeline {
        Pipeline {
            requests: VecDeque::new(),
            barriers: 0,
            running: 0,
            finished_bytes: 0,
            expected_bytes: FIRST_REPLY_BYTES,
        }
    }
}

impl Pipeline {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether the next request may start, when `sending` bytes are being sent.
    pub fn may_start(&self, sending: usize) -> bool {
        let expected = self.running.saturating_mul(self.expected_bytes);
        let unsent = self.finished_bytes + sending;
        self.requests.len() < IN_FLIGHT_MAX
            && self.barriers == 0
            && unsent.saturating_add(expected) < UNSENT_BYTES_MAX
    }

    /// Adds a request and runs its first step, so that appends happen in request order. A
    /// barrier with others before it waits until it is alone.
    pub fn start(&mut self, started: Started) {
        let Started {
            api,
            began,
            barrier,
            future,
        } = started;
        let waits = barrier && !self.requests.is_empty();
        self.barriers += usize::from(barrier);
        self.running += 1;
        self.requests.push_back(InFlight {
            api,
            began,
            barrier,
            state: State::Running(future),
        });
        if !waits {
            // Whoever waits for the connection polls it again, with a waker.
            let last = self.requests.len() - 1;
            self.poll_at(last, &mut Context::from_waker(Waker::noop()));
        }
    }

    /// Polls everything that may run; ready when the front has finished.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for index in 0..self.requests.len() {
            if self.requests[index].barrier && index > 0 {
                break;
            }
            self.poll_at(index, context);
        }
        match self.requests.front() {
            Some(InFlight {
                state: State::Finished(_),
                ..
            }) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// The front request, once it has finished.
    pub fn pop_finished(&mut self) -> Option<Finished> {
        match self.requests.pop_front()? {
            InFlight {
                api,
                began,
                barrier,
                state: State::Finished(reply),
            } => {
                let bytes = reply_bytes(&reply);
                self.barriers -= usize::from(barrier);
                self.finished_bytes -= bytes;
                self.expected_bytes = bytes.max(self.expected_bytes / 2);
                Some(Finished { api, began, reply })
            }
            running => {
                self.requests.push_front(running);
                None
            }
        }
    }

    /// Drops all requests; those that run are given up.
    pub fn clear(&mut self) {
        *self = Pipeline::default();
    }

    /// Gives memory back when there is no request.
    pub fn release_memory(&mut self) {
        if self.requests.is_empty() {
            self.requests = VecDeque::new();
        }
    }

    fn poll_at(&mut self, index: usize, context: &mut Context<'_>) {
        let request = &mut self.requests[index];
        if let State::Running(future) = &mut request.state
            && let Poll::Ready(reply) = Pin::new(future).poll(context)
        {
            self.running -= 1;
            self.finished_bytes += reply_bytes(&reply);
            request.state = State::Finished(reply);
        }
    }
}

fn reply_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Send(response) => response.len_bytes(),
        Reply::Nothing | Reply::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::local::oneshot;

    fn response(bytes: usize) -> Reply {
        Reply::Send(bytes::Bytes::from(vec![0; bytes]).into())
    }

    fn running(future: impl Future<Output = Reply> + 'static) -> Running {
        Running::new(std::rc::Rc::default(), future)
    }

    fn finished(bytes: usize) -> Started {
        Started {
            api: ApiKey::Fetch,
            began: Nanos(0),
            barrier: false,
            future: running(std::future::ready(response(bytes))),
        }
    }

    fn poll(pipeline: &mut Pipeline) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pipeline.poll(&mut context).is_ready()
    }

    #[test]
    fn finished_replies_that_nobody_takes_stop_new_requests() {
        let mut pipeline = Pipeline::default();
        let mut started = 0;
        while pipeline.may_start(0) {
            pipeline.start(finished(1 << 20));
            started += 1;
        }
        assert_eq!(started, 4);
        assert!(pipeline.pop_finished().is_some());
        assert!(pipeline.may_start(0));
        assert!(!pipeline.may_start(1 << 20), "what is being sent counts");
    }

    #[test]
    fn requests_that_run_count_as_much_as_the_replies_before_them() {
        let mut pipeline = Pipeline::default();
        let endless = || Started {
            api: ApiKey::Fetch,
            began: Nanos(0),
            barrier: false,
            future: running(std::future::pending()),
        };
        let fill = |pipeline: &mut Pipeline| {
            let mut started = 0;
            while pipeline.may_start(0) {
                pipeline.start(endless());
                started += 1;
            }
            started
        };
        assert_eq!(fill(&mut pipeline), 4, "nothing is known yet");
        pipeline.clear();
        for _ in 0..20 {
            pipeline.start(finished(100));
            assert!(pipeline.pop_finished().is_some());
        }
        assert_eq!(fill(&mut pipeline), IN_FLIGHT_MAX);
        pipeline.clear();
        pipeline.start(finished(3 << 20));
        assert!(pipeline.pop_finished().is_some());
        assert_eq!(fill(&mut pipeline), 2);
    }

    #[test]
    fn a_barrier_runs_alone_and_replies_keep_their_order() {
        let mut pipeline = Pipeline::default();
        let (answer, answered) = oneshot::<()>();
        pipeline.start(Started {
            api: ApiKey::Fetch,
            began: Nanos(0),
            barrier: false,
            future: running(async move {
                answered.await.expect("it is answered");
                response(1)
            }),
        });
        pipeline.start(finished(2));
        let ran = std::rc::Rc::new(std::cell::Cell::new(false));
        let barrier_ran = ran.clone();
        pipeline.start(Started {
            api: ApiKey::Fetch,
            began: Nanos(0),
            barrier: true,
            future: running(async move {
                barrier_ran.set(true);
                response(3)
            }),
        });
        assert!(!pipeline.may_start(0));
        assert!(!poll(&mut pipeline));
        assert!(pipeline.pop_finished().is_none());
        answer.send(()).expect("it waits");
        assert!(poll(&mut pipeline));
        let mut sizes = Vec::new();
        while let Some(finished) = pipeline.pop_finished() {
            sizes.push(reply_bytes(&finished.reply));
        }
        assert_eq!(sizes, [1, 2]);
        assert!(!ran.get());
        assert!(poll(&mut pipeline) && ran.get());
        let last = pipeline.pop_finished().map(|last| reply_bytes(&last.reply));
        assert_eq!(last, Some(3));
        assert!(pipeline.is_empty() && pipeline.may_start(0));
    }
}
