//! What the kernel and the CPU give without a broker, in the units of the other scenarios:
//! latency of a step and bytes per second. Each is run for a while on one or two threads.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::sendfile::sendfile;
use serde_json::{Value, json};

use super::super::record::{histogram, latency};
use super::super::result::{BenchResult, Phase, SCHEMA, TOOL, Throughput};
use super::super::{machine, summary};
use super::store::unnamed_file;

/// Appending begins anew in the file after so many bytes: the page cache, not the disk's
/// size, is what is measured.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub record_bytes: usize,
    pub batch_bytes: usize,
    /// Of each measurement.
    pub duration: Duration,
}

pub struct Floor {
    pub name: &'static str,
    /// Of one step.
    pub latency: Histogram<u64>,
    pub seconds: f64,
    pub bytes_per_second: f64,
}

/// All measurements, with files in `dir`.
pub fn measure(sizes: Sizes, dir: &Path) -> Result<Vec<Floor>, String> {
    let Sizes {
        record_bytes,
        batch_bytes,
        duration,
    } = sizes;
    let named = |name, measured: io::Result<Floor>| {
        measured.map_err(|error| format!("floor: {name}: {error}"))
    };
    Ok(vec![
        named("ping-pong", ping_pong(record_bytes, duration))?,
        named("stream", stream(batch_bytes, duration))?,
        named("append", append(batch_bytes, duration, dir, false))?,
        named("fdatasync", append(batch_bytes, duration, dir, true))?,
        named("sendfile", send_file(batch_bytes, duration, dir))?,
        named("splice", splice_file(batch_bytes, duration, dir))?,
        named("crc32c", crc32c(batch_bytes, duration))?,
        named("memcpy", memcpy(batch_bytes, duration))?,
    ])
}

/// As a result of the scenario `floor`, with a phase for each measurement.
pub fn to_json(floors: &[Floor], sizes: Sizes, dir: &Path) -> Value {
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut result = BenchResult {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: "floor".to_owned(),
        name: "floor".to_owned(),
        began_ms: began.map_or(0, |began| began.as_millis() as u64),
        valid: true,
        options: json!({
            "record_bytes": sizes.record_bytes,
            "batch_bytes": sizes.batch_bytes,
            "duration": sizes.duration.as_secs_f64(),
        }),
        machine: machine::fingerprint(dir),
        ..Default::default()
    };
    for floor in floors {
        let steps_per_s = floor.latency.len() as f64 / floor.seconds;
        result.add(Phase {
            name: floor.name.to_owned(),
            pace: "none".to_owned(),
            seconds: floor.seconds,
            valid: true,
            throughput: Throughput {
                bytes_per_s: floor.bytes_per_second,
                batches_per_s: steps_per_s,
                ..Default::default()
            },
            latencies: [("step".to_owned(), latency(&floor.latency))].into(),
            ..Default::default()
        });
    }
    serde_json::to_value(&result).expect("its maps have string keys")
}

pub fn text(floors: &[Floor]) -> String {
    let mut out = summary::heading();
    for floor in floors {
        summary::row(&mut out, floor.name, &floor.latency);
        out.truncate(out.trim_end().len());
        out.push_str(&format!("{:>12.1} MB/s\n", floor.bytes_per_second / 1e6));
    }
    out
}

/// Repeats a step of `bytes` until the time is over.
fn repeat(
    name: &'static str,
    bytes: usize,
    duration: Duration,
    mut step: impl FnMut() -> io::Result<()>,
) -> io::Result<Floor> {
    let mut latency = histogram();
    let began = Instant::now();
    let mut before = began;
    let mut steps = 0u64;
    while before - began < duration {
        step()?;
        let now = Instant::now();
        latency.saturating_record(((now - before).as_nanos() as u64).max(1));
        before = now;
        steps += 1;
    }
    let seconds = (before - began).as_secs_f64();
    Ok(Floor {
        name,
        latency,
        seconds,
        bytes_per_second: steps as f64 * bytes as f64 / seconds,
    })
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

fn ping_pong(bytes: usize, duration: Duration) -> io::Result<Floor> {
    let (mut near, mut far) = pair()?;
    let echo = thread::spawn(move || {
        let mut data = vec![0; bytes];
        while far.read_exact(&mut data).is_ok() && far.write_all(&data).is_ok() {}
    });
    let mut data = vec![0; bytes];
    let floor = repeat("ping-pong", bytes, duration, || {
        near.write_all(&data)?;
        near.read_exact(&mut data)
    });
    drop(near);
    let _ = echo.join();
    floor
}

/// A thread that reads until the other side closes.
fn drain(mut far: TcpStream, bytes: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut data = vec![0; bytes.max(64 << 10)];
        while matches!(far.read(&mut data), Ok(count) if count > 0) {}
    })
}

fn stream(bytes: usize, duration: Duration) -> io::Result<Floor> {
    let (mut near, far) = pair()?;
    let reader = drain(far, bytes);
    let data = vec![0; bytes];
    let floor = repeat("stream", bytes, duration, || near.write_all(&data));
    drop(near);
    let _ = reader.join();
    floor
}

fn append(bytes: usize, duration: Duration, dir: &Path, sync: bool) -> io::Result<Floor> {
    let mut file = unnamed_file(dir)?;
    let data = vec![0x5a; bytes];
    let mut written = 0;
    let name = if sync { "fdatasync" } else { "append" };
    repeat(name, bytes, duration, || {
        if written > FILE_BYTES_MAX {
            file.rewind()?;
            written = 0;
        }
        file.write_all(&data)?;
        written += bytes as u64;
        if sync { file.sync_data() } else { Ok(()) }
    })
}

fn send_file(bytes: usize, duration: Duration, dir: &Path) -> io::Result<Floor> {
    let mut file: File = unnamed_file(dir)?;
    file.write_all(&vec![0x5a; bytes])?;
    let (near, far) = pair()?;
    let reader = drain(far, bytes);
    let floor = repeat("sendfile", bytes, duration, || {
        let mut position = 0;
        while (position as usize) < bytes {
            let left = bytes - position as usize;
            sendfile(&near, &file, Some(&mut position), left)?;
        }
        Ok(())
    });
    drop(near);
    let _ = reader.join();
    floor
}

/// As [`send_file`], but by way of a pipe, as io_uring's splice goes.
fn splice_file(bytes: usize, duration: Duration, dir: &Path) -> io::Result<Floor> {
    let mut file: File = unnamed_file(dir)?;
    file.write_all(&vec![0x5a; bytes])?;
    let (near, far) = pair()?;
    let reader = drain(far, bytes);
    let (pipe_out, pipe_in) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let floor = repeat("splice", bytes, duration, || {
        let mut position: i64 = 0;
        while (position as usize) < bytes {
            let left = bytes - position as usize;
            let (none, flags) = (None, SpliceFFlags::empty());
            let mut in_pipe = splice(&file, Some(&mut position), &pipe_in, none, left, flags)?;
            while in_pipe > 0 {
                in_pipe -= splice(&pipe_out, None, &near, None, in_pipe, flags)?;
            }
        }
        Ok(())
    });
    drop(near);
    let _ = reader.join();
    floor
}

fn crc32c(bytes: usize, duration: Duration) -> io::Result<Floor> {
    let data = vec![0x5a; bytes];
    repeat("crc32c", bytes, duration, || {
        black_box(crc_fast::crc32_iscsi(black_box(&data)));
        Ok(())
    })
}

fn memcpy(bytes: usize, duration: Duration) -> io::Result<Floor> {
    let data = vec![0x5a; bytes];
    let mut copy = vec![0; bytes];
    repeat("memcpy", bytes, duration, || {
        copy.copy_from_slice(black_box(&data));
        black_box(&copy);
        Ok(())
    })
}
