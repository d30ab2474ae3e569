//! The table of operations that a core has with the kernel.
//!
//! A slot is one operation: single-shot (poll, fsync, connect) or multishot (accept,
//! receive) with a queue of results. Its number and generation are the `user_data` of its
//! submissions. A slot is *owned* by a future or a stream, and *in flight* while the kernel
//! may still post completions for it; it is freed when neither holds. What the kernel
//! refers to (descriptor, address, file) is kept in the slot until it is out of flight, so
//! an owner may be dropped at any time.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;
use slab::Slab;

use super::buffers::{BufferId, Buffers};
use crate::io::File;
use crate::io::pipes::{Buffer, Lease, Pipe};

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
    /// Of a name's removal.
    Path {
        _path: CString,
    },
    /// Of a read whose bytes nobody wants.
    Fetch {
        _file: OwnedFd,
        _buffer: Box<[u8]>,
    },
    /// Of a read.
    Read {
        _file: Arc<dyn File>,
        _buffer: Rc<Lease<Buffer>>,
    },
    /// Of a splice into a pipe.
    Fill {
        _file: Arc<dyn File>,
        _pipe: Rc<Lease<Pipe>>,
    },
    /// Of a splice out of a pipe.
    Drain {
        _pipe: Rc<Lease<Pipe>>,
        _socket: Rc<OwnedFd>,
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
    /// In flight is a poll instead of a receive: the owner takes the bytes itself.
    pub(super) polling: bool,
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

impl Accepted {
    /// Takes a completion of a multishot accept.
    pub(super) fn on_completion(&mut self, result: i32) {
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us.
            let socket = unsafe { OwnedFd::from_raw_fd(result as RawFd) };
            self.sockets.push_back(socket);
        } else if !matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) {
            self.error = Some(-result);
        }
    }
}

impl Received {
    /// Takes a completion of a multishot receive, with the buffer that it filled, or of a
    /// poll.
    pub(super) fn on_completion(
        &mut self,
        buffers: &mut Buffers,
        result: i32,
        buffer: Option<BufferId>,
        turn: u64,
    ) {
        if std::mem::take(&mut self.polling) {
            // Whatever it says, the owner's next receive tells more.
            return;
        }
        if let Some(buffer) = buffer {
            buffers.take(buffer);
            self.keep(buffers, buffer, usize::try_from(result).unwrap_or(0), turn);
        }
        match result {
            0 => self.end = Some(0),
            1.. => {}
            // Started again at the next poll: buffers have come back by then, or we had
            // stopped it ourselves.
            _ if matches!(
                -result,
                libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN
            ) => {}
            _ => self.end = Some(-result),
        }
    }

    fn keep(&mut self, buffers: &mut Buffers, buffer: BufferId, len: usize, turn: u64) {
        if len == 0 {
            buffers.give(buffer);
            return;
        }
        if self.bytes == 0 {
            self.since_turn = turn;
        }
        self.bytes += len;
        if buffers.are_scarce() {
            // Whoever doesn't take its bytes must not keep the others from receiving.
            let copy = BytesMut::from(buffers.bytes(buffer, len));
            self.pieces.push_back(Piece::Copied(copy));
            buffers.give(buffer);
        } else {
            self.pieces.push_back(Piece::Lent { buffer, len });
        }
    }

    /// Moves all bytes to the end of `into`; returns how many.
    pub(super) fn take(&mut self, buffers: &mut Buffers, into: &mut BytesMut) -> usize {
        let count = std::mem::take(&mut self.bytes);
        into.reserve(count);
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::Lent { buffer, len } => {
                    into.extend_from_slice(buffers.bytes(buffer, len));
                    buffers.give(buffer);
                }
                Piece::Copied(bytes) => into.extend_from_slice(&bytes),
            }
        }
        count
    }
}

impl Op {
    /// Throws away what was received for an owner that is gone.
    pub(super) fn discard(&mut self, buffers: &mut Buffers) {
        match &mut self.state {
            OpState::Once(_) => {}
            OpState::Accept(accepted) => accepted.sockets.clear(),
            OpState::Receive(received) => {
                received.bytes = 0;
                for piece in received.pieces.drain(..) {
                    if let Piece::Lent { buffer, .. } = piece {
                        buffers.give(buffer);
                    }
                }
            }
        }
    }
}
