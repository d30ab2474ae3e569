//! SIGTERM and SIGINT: the first asks for a clean stop, the second ends the process.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// A request to stop, from a signal or from [`Stop::request`]. It can be waited for, or
/// its descriptor polled: readable means requested.
#[derive(Debug)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    reader: UnixStream,
    writer: UnixStream,
}

impl Stop {
    /// One that only [`Stop::request`] triggers.
    pub fn new() -> io::Result<Stop> {
        let (reader, writer) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        Ok(Stop {
            requested: Arc::default(),
            reader,
            writer,
        })
    }

    /// One that SIGTERM and SIGINT trigger. The handlers stay for the process's life.
    pub fn on_signals() -> io::Result<Stop> {
        let stop = Stop::new()?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the flag is still false at the first signal.
            let requested = stop.requested.clone();
            signal_hook::flag::register_conditional_shutdown(signal, 1, requested)?;
            signal_hook::flag::register(signal, stop.requested.clone())?;
            signal_hook::low_level::pipe::register(signal, stop.writer.try_clone()?)?;
        }
        Ok(stop)
    }

    /// Asks for the stop from inside the process.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        // A full pipe is readable already.
        let _ = (&self.writer).write(&[1]);
    }

    /// What a request sets.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.requested
    }

    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Blocks this thread until a stop is requested.
    pub fn wait(&self) {
        let mut byte = [0];
        while !self.is_requested() {
            match (&self.reader).read(&mut byte) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_the_wait() {
        let stop = Stop::new().unwrap();
        assert!(!stop.is_requested());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait());
            stop.request();
            waiting.join().unwrap();
        });
        assert!(stop.is_requested());
        stop.wait();
    }
}
