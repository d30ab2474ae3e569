//! A piece of what is to be sent: bytes in memory, or a range of a file that goes to the
//! socket by the core's fetch path (`net::transmit`). `log` makes them, `shard` puts them behind
//! response headers, `io` sends them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::File;

#[derive(Clone, Debug)]
pub enum Chunk {
    Bytes(Bytes),
    /// `len` bytes of `file` from `position` on. They were written before the chunk was
    /// made and the file is only appended to; after a truncation by a new leader they
    /// may be missing, and the sender must treat that as a broken connection.
    File {
        file: Arc<dyn File>,
        position: u64,
        len: u32,
    },
}

impl Chunk {
    pub fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::File { len, .. } => *len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` bytes; nothing when it is not longer.
    pub fn truncate(&mut self, len_max: usize) {
        match self {
            Chunk::Bytes(bytes) => bytes.truncate(len_max),
            Chunk::File { len, .. } => {
                *len = (*len).min(u32::try_from(len_max).unwrap_or(u32::MAX));
            }
        }
    }

    /// Drops the first `count` bytes, at most all.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len());
        match self {
            Chunk::Bytes(bytes) => bytes::Buf::advance(bytes, count),
            Chunk::File { position, len, .. } => {
                *position += count as u64;
                // `count` is at most `len`, which is a u32.
                *len -= count as u32;
            }
        }
    }

    /// The bytes in memory, read from the file if need be.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        match self {
            Chunk::Bytes(bytes) => Ok(bytes.clone()),
            Chunk::File {
                file,
                position,
                len,
            } => {
                let mut read = vec![0; *len as usize];
                file.read_exact_at(&mut read, *position)?;
                Ok(read.into())
            }
        }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Chunk::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::io::disk::{Disk, OpenMode, RealDisk};

    #[test]
    fn both_kinds_cut_alike() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk
            .open(&dir.path().join("f"), OpenMode::Create)
            .unwrap();
        file.write_all_at(&[IoSlice::new(b"0123456789")], 0)
            .unwrap();
        let from_file = Chunk::File {
            file,
            position: 2,
            len: 6,
        };
        let from_memory = Chunk::from(Bytes::from_static(b"234567"));
        for mut chunk in [from_file, from_memory] {
            assert_eq!(&chunk.to_bytes().unwrap()[..], b"234567");
            chunk.advance(1);
            chunk.truncate(3);
            assert_eq!(chunk.len(), 3);
            assert_eq!(&chunk.to_bytes().unwrap()[..], b"345");
            chunk.truncate(100);
            chunk.advance(100);
            assert!(chunk.is_empty());
        }
    }
}
