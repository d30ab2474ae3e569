//! A connection that never blocks: frames of ours wait in `output` until the socket takes
//! them, frames of the broker come whole out of `input`. Owned by a lane of `worker`.
//!
//! Invariant: bytes leave in the order in which they were given.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use bytes::{Buf as _, Bytes, BytesMut};

use super::client::frame_size;

/// Read at once while the size of what comes isn't known.
const READ_BYTES_MIN: usize = 8 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

pub struct Socket {
    stream: TcpStream,
    output: BytesMut,
    input: BytesMut,
}

impl Socket {
    pub fn new(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        Ok(Socket {
            stream,
            output: BytesMut::new(),
            input: BytesMut::new(),
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Where the next frame goes; [`flush`](Self::flush) sends it.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.output.len()
    }

    /// Sends what the socket takes; true once nothing waits.
    pub fn flush(&mut self) -> Result<bool, String> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        // Its room is used again.
        self.output.clear();
        Ok(true)
    }

    /// Reads once; true if there may be more to read.
    pub fn fill(&mut self) -> Result<bool, String> {
        let have = self.input.len();
        let wanted = match self.input.first_chunk() {
            Some(size) => (4 + frame_size(*size)?).saturating_sub(have),
            None => 0,
        };
        let room = wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        self.input.resize(have + room, 0);
        let read = loop {
            match self.stream.read(&mut self.input[have..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(have + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err("the broker closed the connection".to_owned()),
            Ok(count) => Ok(count == room),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The next whole frame without its size.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, String> {
        let Some(size) = self.input.first_chunk() else {
            return Ok(None);
        };
        let size = frame_size(*size)?;
        if self.input.len() < 4 + size {
            return Ok(None);
        }
        let mut frame = self.input.split_to(4 + size);
        frame.advance(4);
        Ok(Some(frame.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut socket = Socket::new(far).unwrap();
        assert!(!socket.fill().unwrap());

        let large = vec![7; 100_000];
        let mut sent = 5i32.to_be_bytes().to_vec();
        sent.extend(b"hello");
        sent.extend(100_000i32.to_be_bytes());
        sent.extend(&large);
        let mut frames = Vec::new();
        for part in sent.chunks(999) {
            near.write_all(part).unwrap();
            // Loopback: what was written is there to be read.
            while socket.fill().unwrap() {}
            while let Some(frame) = socket.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0], "hello");
        assert_eq!(frames[1], large);
        drop(near);
        assert!(socket.fill().unwrap_err().contains("closed"));
    }
}
