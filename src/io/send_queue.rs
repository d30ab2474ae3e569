//! What is to be sent on one connection: chunks in order, with their total size.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Chunk;

/// A FIFO of chunks. It holds no empty chunk.
#[derive(Clone, Debug, Default)]
pub struct SendQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl SendQueue {
    pub fn new() -> SendQueue {
        SendQueue::default()
    }

    /// Adds a chunk at the end; an empty one is dropped.
    pub fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub fn push_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.push(Chunk::Bytes(bytes.into()));
    }

    /// Moves all of `other` to the end.
    pub fn append(&mut self, other: &mut SendQueue) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.chunks.append(&mut other.chunks);
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter()
    }

    pub fn front(&self) -> Option<&Chunk> {
        self.chunks.front()
    }

    /// Drops the first `count` bytes, which must be there.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "only what is queued can be taken off");
        self.bytes -= count;
        while count > 0 {
            let front = self.chunks.front_mut().expect("the bytes are there");
            let taken = count.min(front.len());
            count -= taken;
            if taken == front.len() {
                self.chunks.pop_front();
            } else {
                front.advance(taken);
            }
        }
    }

    pub fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Puts bytes in the place of the first chunk, which has the same length.
    pub(super) fn replace_front(&mut self, bytes: Bytes) {
        let front = self.chunks.front_mut().expect("there is a front");
        assert_eq!(front.len(), bytes.len());
        *front = Chunk::Bytes(bytes);
    }
}

impl Extend<Chunk> for SendQueue {
    fn extend<I: IntoIterator<Item = Chunk>>(&mut self, chunks: I) {
        for chunk in chunks {
            self.push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes_across_chunks() {
        let mut queue = SendQueue::new();
        queue.push_bytes(&b"abc"[..]);
        queue.push_bytes(&b""[..]);
        queue.push_bytes(&b"defgh"[..]);
        let mut more = SendQueue::new();
        more.push_bytes(&b"ij"[..]);
        queue.append(&mut more);
        assert!(more.is_empty());
        assert_eq!((queue.len_bytes(), queue.chunks().count()), (10, 3));
        queue.advance(4);
        assert_eq!((queue.len_bytes(), queue.chunks().count()), (6, 2));
        assert!(matches!(queue.front(), Some(Chunk::Bytes(bytes)) if bytes == "efgh"));
        queue.advance(6);
        assert!(queue.is_empty() && queue.front().is_none());
        queue.extend([Chunk::Bytes(Bytes::from_static(b"x"))]);
        queue.clear();
        assert!(queue.is_empty());
    }
}
