//! How file ranges leave: every path gives the same bytes, to slow receivers and to many,
//! and a path's few pipes and buffers serve all connections, whatever becomes of some.

#[path = "support/server.rs"]
mod server;

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use ottla::base::CoreId;
use ottla::io::{
    Chunk, CoreConfig, CoreHandle, FetchPath, IoStats, ListenOptions, OpenMode, Rt, SendQueue,
    Stream, run_core,
};

const PATHS: [FetchPath; 4] = [
    FetchPath::Auto,
    FetchPath::Memory,
    FetchPath::Sendfile,
    FetchPath::Splice,
];
const PATIENCE: Duration = Duration::from_secs(60);
/// As `net::transmit` bounds a core's pipes.
const PIPES_MAX: u64 = 16;

/// What each connection gets: pairs of memory and file range, by the file's contents.
#[derive(Clone)]
struct Script {
    path: PathBuf,
    pieces: Vec<(Vec<u8>, u64, u32)>,
}

impl Script {
    fn expected(&self, contents: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        for (bytes, position, len) in &self.pieces {
            all.extend_from_slice(bytes);
            let position = *position as usize;
            all.extend_from_slice(&contents[position..position + *len as usize]);
        }
        all
    }

    fn queue(&self, rt: &Rt) -> SendQueue {
        let file = rt.disk().open(&self.path, OpenMode::Read).unwrap();
        let mut out = SendQueue::new();
        for (bytes, position, len) in &self.pieces {
            out.push_bytes(bytes.clone());
            out.push(Chunk::File {
                file: file.clone(),
                position: *position,
                len: *len,
            });
        }
        out
    }
}

/// A file without repetition at the distance of a page, written through to the disk.
fn write_file(dir: &Path, len: usize) -> (PathBuf, Vec<u8>) {
    let path = dir.join("segment");
    let contents: Vec<u8> = (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&contents).unwrap();
    file.sync_all().unwrap();
    (path, contents)
}

/// Asks the kernel to drop the file's pages.
fn evict(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    nix::fcntl::posix_fadvise(
        &file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )
    .unwrap();
}

/// A core that sends the script on every connection once a byte has come, until it is
/// stopped; then it returns its counters.
fn sender(fetch_path: FetchPath, script: Script) -> (CoreHandle<IoStats>, SocketAddr) {
    let config = CoreConfig {
        fetch_path,
        ..CoreConfig::new(CoreId(0))
    };
    let options = ListenOptions {
        send_buffer_bytes: Some(32 << 10),
        ..ListenOptions::default()
    };
    server::server(config, options, async move |rt: Rt, stream: Stream| {
        serve(&rt, &stream, &script).await;
    })
}

async fn serve(rt: &Rt, stream: &Stream, script: &Script) {
    let mut received = BytesMut::new();
    while let Ok(1..) = stream.recv(&mut received).await {
        for _ in received.split() {
            let mut out = script.queue(rt);
            if stream.send(&mut out).await.is_err() {
                return;
            }
            assert!(out.is_empty());
        }
    }
}

fn connect(to: SocketAddr, receive_buffer_bytes: Option<usize>) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn finish(core: CoreHandle<IoStats>) -> IoStats {
    core.stopper().stop();
    core.join()
}

#[test]
fn all_paths_give_a_slow_receiver_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = write_file(dir.path(), 5_000_000);
    // Odd places and lengths: in a page, across pages, across pipes, small and large.
    let ranges = [
        (0u64, 1u32),
        (4_095, 2),
        (1, 16_383),
        (12_345, 16_385),
        (99_999, 70_001),
        (7, 1_048_577),
        (1_000_001, 2_500_003),
        (4_999_999, 1),
        (4_096, 262_144),
    ];
    let pieces = ranges
        .iter()
        .enumerate()
        .map(|(i, (position, len))| (vec![i as u8; 1 + i * 701], *position, *len))
        .collect();
    let script = Script { path, pieces };
    let expected = script.expected(&contents);
    for fetch_path in PATHS {
        for cold in [false, true] {
            if cold {
                evict(&script.path);
            }
            let (core, at) = sender(fetch_path, script.clone());
            let mut stream = connect(at, Some(4 << 10));
            stream.write_all(&[1]).unwrap();
            let mut got = Vec::new();
            let mut dribble = [0; 30_011];
            let mut step = 1;
            while got.len() < expected.len() {
                let count = stream.read(&mut dribble[..step]).unwrap();
                assert!(count > 0, "{fetch_path:?}: ended at {}", got.len());
                got.extend_from_slice(&dribble[..count]);
                step = (step * 7 + 13) % dribble.len() + 1;
            }
            assert!(got == expected, "{fetch_path:?}, cold: {cold}");
            // The server closes when its send is over, and has counted all of it then.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut dribble).unwrap(), 0);
            let stats = finish(core).send;
            let files: u64 = ranges.iter().map(|(_, len)| u64::from(*len)).sum();
            let through = |bytes: u64| bytes >= files;
            match fetch_path {
                FetchPath::Auto => {
                    let all = stats.read.bytes + stats.sendfile.bytes + stats.splice.bytes;
                    assert!(through(all), "{stats:?}");
                    assert!(cold || stats.sendfile.bytes > 3_000_000, "{stats:?}");
                    assert_eq!(stats.splice.calls > 0, cold, "{stats:?}");
                }
                FetchPath::Memory => {
                    assert!(through(stats.read.bytes), "{stats:?}");
                    assert_eq!(stats.read_cold > 0, cold, "{stats:?}");
                }
                FetchPath::Sendfile => assert_eq!(stats.sendfile.bytes, files),
                FetchPath::Splice => {
                    assert_eq!(stats.splice.bytes, files);
                    assert!(stats.splice_full > 0, "{stats:?}");
                }
            }
            let total =
                stats.memory.bytes + stats.read.bytes + stats.sendfile.bytes + stats.splice.bytes;
            assert_eq!(total, expected.len() as u64);
        }
    }
}

#[test]
fn a_thousand_readers_share_the_pipes_of_one_core() {
    const READERS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = write_file(dir.path(), 1_000_000);
    let script = Script {
        path,
        pieces: vec![
            (vec![b'h'; 100], 3, 90_001),
            (vec![b'i'; 33], 500_001, 70_003),
        ],
    };
    let expected = script.expected(&contents);
    for fetch_path in [FetchPath::Splice, FetchPath::Memory] {
        let (core, at) = sender(fetch_path, script.clone());
        let mut readers: Vec<TcpStream> =
            (0..READERS).map(|_| connect(at, Some(4 << 10))).collect();
        for reader in &mut readers {
            reader.write_all(&[1]).unwrap();
        }
        // Nobody has read a byte yet; the last to ask is served first.
        let mut got = vec![0; expected.len()];
        for reader in readers.iter_mut().rev() {
            reader.read_exact(&mut got).unwrap();
            assert!(got == expected);
        }
        let stats = finish(core).send;
        let pool = match fetch_path {
            FetchPath::Splice => stats.pipes,
            _ => stats.buffers,
        };
        assert!(pool.count_max <= PIPES_MAX, "{stats:?}");
        assert!(pool.waits > 0 && pool.given_up > 0, "{stats:?}");
    }
}

#[test]
fn a_connection_that_ends_amid_a_splice_spoils_nothing_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = write_file(dir.path(), 4_000_000);
    let script = Script {
        path,
        pieces: vec![(vec![b'h'; 10], 1, 3_999_999)],
    };
    let expected = script.expected(&contents);
    for fetch_path in [FetchPath::Splice, FetchPath::Memory, FetchPath::Auto] {
        let (core, at) = sender(fetch_path, script.clone());
        for round in 0..100usize {
            let mut stream = connect(at, None);
            stream.write_all(&[1]).unwrap();
            let mut some = vec![0; round * 997 + 1];
            stream.read_exact(&mut some).unwrap();
            assert!(some == expected[..some.len()]);
            if round % 2 == 0 {
                // A reset instead of an end.
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            drop(stream);
        }
        let mut stream = connect(at, None);
        let mut got = vec![0; expected.len()];
        for _ in 0..3 {
            stream.write_all(&[1]).unwrap();
            stream.read_exact(&mut got).unwrap();
            assert!(got == expected);
        }
        drop(stream);
        let stats = finish(core).send;
        assert!(stats.pipes.count_max <= PIPES_MAX, "{stats:?}");
    }
}

#[test]
fn sends_that_are_dropped_and_called_again_lose_and_repeat_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = write_file(dir.path(), 2_000_000);
    let script = Script {
        path: path.clone(),
        pieces: vec![(vec![b'h'; 77], 1, 1_900_001), (vec![b'i'; 78], 5, 12_345)],
    };
    let expected = script.expected(&contents);
    for fetch_path in PATHS {
        evict(&path);
        let (tell, told) = mpsc::channel();
        let config = CoreConfig {
            fetch_path,
            ..CoreConfig::new(CoreId(0))
        };
        let script = script.clone();
        let core = run_core(config, move |rt| async move {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = rt.listen(any).unwrap();
            tell.send(listener.local_addr()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut out = script.queue(&rt);
            // Each attempt is dropped when it has to wait; its steps wake the next.
            while !out.is_empty() {
                let mut send = Box::pin(stream.send(&mut out));
                let mut first = true;
                poll_fn(|cx| {
                    if !std::mem::take(&mut first) {
                        return Poll::Ready(());
                    }
                    send.as_mut().poll(cx).map(|sent| sent.unwrap())
                })
                .await;
            }
            rt.stats().send
        })
        .unwrap();
        let at = told.recv_timeout(PATIENCE).unwrap();
        let mut stream = connect(at, Some(4 << 10));
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == expected, "{fetch_path:?}");
        drop(stream);
        let stats = core.join();
        assert!(stats.pipes.count_max <= PIPES_MAX, "{stats:?}");
        assert_eq!(
            fetch_path == FetchPath::Splice,
            stats.sendfile.calls == 0 && stats.read.calls == 0
        );
    }
}

#[test]
fn a_truncated_file_ends_the_connection_on_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = write_file(dir.path(), 100_000);
    let script = Script {
        path,
        pieces: vec![(vec![b'h'; 10], 50_000, 50_001)],
    };
    for fetch_path in PATHS {
        let (core, at) = sender(fetch_path, script.clone());
        let mut stream = connect(at, None);
        stream.write_all(&[1]).unwrap();
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        assert!(got.len() <= 50_010);
        assert!(
            got.get(10..)
                .is_none_or(|got| contents[50_000..].starts_with(got))
        );
        drop(stream);
        finish(core);
    }
}

#[test]
fn no_descriptor_outlives_its_core() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = write_file(dir.path(), 3_000_000);
    let target = |fd: &std::fs::DirEntry| std::fs::read_link(fd.path()).ok();
    let script = Script {
        path: path.clone(),
        pieces: vec![(Vec::new(), 0, 3_000_000)],
    };
    let (core, at) = sender(FetchPath::Splice, script);
    let mut stream = connect(at, Some(4 << 10));
    stream.write_all(&[1]).unwrap();
    let mut some = [0; 1_000];
    stream.read_exact(&mut some).unwrap();
    // Its core ends while the rest is in a pipe.
    finish(core);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let left = open
        .filter_map(Result::ok)
        .filter(|fd| target(fd).is_some_and(|to| to == path))
        .count();
    assert_eq!(left, 0, "the segment is closed");
    drop(stream);
}
