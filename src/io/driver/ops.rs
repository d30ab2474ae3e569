//! The table of operations that a core has with the kernel.
//!
//! A slot is one operation: single-shot (poll, fsync, connect) or multishot (accept,
//! receive) with a queue of results. Its number and generation are the `user_data` of its
//! submissions. A slot is *owned* by a future or a stream, and *in flight* while the kernel
//! may still post completions for it; it is freed when neither holds. What the kernel
//! refers to (descriptor, address, file) is kept in the slot until it is out of flight, so
//! an owner may be dropped at any time.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;
use slab::Slab;

use super::buffers::BufferId;
use crate::io::File;

/// What must outlive an operation.
pub(in crate::io) enum Keep {
    Socket(Rc<OwnedFd>),
    Connect {
        _socket: Rc<OwnedFd>,
        _address: Box<socket2::SockAddr>,
    },
    File {
        _file: Arc<dyn File>,
    },
}

/// Names a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct OpId {
    index: u32,
    generation: u32,
}

impl OpId {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_user_data(user_data: u64) -> OpId {
        OpId {
            index: (user_data & 0xffff_ffff) as u32,
            generation: (user_data >> 32) as u32,
        }
    }
}

pub(super) struct Op {
    generation: u32,
    pub(super) owned: bool,
    pub(super) in_flight: bool,
    /// A cancel was submitted for the operation in flight.
    pub(super) cancelling: bool,
    pub(super) waker: Option<Waker>,
    pub(super) state: OpState,
    pub(super) keep: Keep,
}

pub(super) enum OpState {
    /// Result of a single-shot operation.
    Once(Option<i32>),
    Accept(Accepted),
    Receive(Received),
}

/// Connections that the kernel has accepted and nobody has taken yet.
#[derive(Default)]
pub(super) struct Accepted {
    pub(super) sockets: VecDeque<OwnedFd>,
    /// Why the kernel stopped accepting, as an errno.
    pub(super) error: Option<i32>,
}

/// Bytes that the kernel has received and nobody has taken yet.
#[derive(Default)]
pub(super) struct Received {
    pub(super) pieces: VecDeque<Piece>,
    pub(super) bytes: usize,
    /// The driver's turn in which the oldest of them came.
    pub(super) since_turn: u64,
    /// The peer has ended (0) or the connection has failed (an errno); after the pieces.
    pub(super) end: Option<i32>,
}

pub(super) enum Piece {
    Lent { buffer: BufferId, len: usize },
    Copied(BytesMut),
}

pub(super) struct Ops {
    slots: Slab<Op>,
    /// Generation of the next operation; numbers of one slot differ for 2^32 operations.
    generation: u32,
    in_flight: usize,
}

impl Ops {
    pub(super) fn new() -> Ops {
        Ops {
            slots: Slab::new(),
            generation: 0,
            in_flight: 0,
        }
    }

    /// A new owned slot, not in flight.
    pub(super) fn add(&mut self, state: OpState, keep: Keep) -> OpId {
        // Bit 31 is never set, so that no id equals one of the reserved user_data.
        self.generation = (self.generation + 1) & 0x7fff_ffff;
        let index = self.slots.insert(Op {
            generation: self.generation,
            owned: true,
            in_flight: false,
            cancelling: false,
            waker: None,
            state,
            keep,
        });
        OpId {
            index: u32::try_from(index).expect("fewer than 2^32 operations"),
            generation: self.generation,
        }
    }

    pub(super) fn get_mut(&mut self, id: OpId) -> &mut Op {
        let op = &mut self.slots[id.index as usize];
        assert_eq!(op.generation, id.generation, "an id is used while it lasts");
        op
    }

    pub(super) fn set_in_flight(&mut self, id: OpId) {
        let op = self.get_mut(id);
        assert!(!op.in_flight, "an operation is submitted once at a time");
        op.in_flight = true;
        op.cancelling = false;
        self.in_flight += 1;
    }

    /// The kernel has posted the last completion of the operation.
    pub(super) fn set_landed(&mut self, id: OpId) {
        let op = self.get_mut(id);
        assert!(op.in_flight, "only an operation in flight completes");
        op.in_flight = false;
        self.in_flight -= 1;
    }

    /// Frees the slot when nobody needs it any more.
    pub(super) fn free_if_unused(&mut self, id: OpId) -> Option<Op> {
        let op = self.get_mut(id);
        if op.owned || op.in_flight {
            return None;
        }
        Some(self.slots.remove(id.index as usize))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}
