//! The real runtime over loopback: connections, slow and vanishing peers, large files.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use ottla::base::CoreId;
use ottla::io::{
    Backend, CoreConfig, CoreHandle, ListenOptions, Queue, Rt, SendQueue, Stream, run_core,
};

const BACKENDS: [Backend; 2] = [Backend::Ring, Backend::Bare];
const PATIENCE: Duration = Duration::from_secs(20);

fn config(backend: Backend) -> CoreConfig {
    CoreConfig {
        backend,
        ..CoreConfig::new(CoreId(0))
    }
}

/// Sends back what it receives.
async fn echo(stream: Stream) {
    let mut received = BytesMut::new();
    let mut out = SendQueue::new();
    while let Ok(1..) = stream.recv(&mut received).await {
        out.push_bytes(received.split().freeze());
        if stream.send(&mut out).await.is_err() {
            return;
        }
    }
}

/// A core that serves every connection by `serve` until it is stopped; it returns how
/// many tasks were unfinished then.
fn server<F>(config: CoreConfig, options: ListenOptions, serve: F) -> (CoreHandle<u64>, SocketAddr)
where
    F: AsyncFn(Rt, Stream) + Clone + Send + 'static,
{
    let (tell, told) = mpsc::channel();
    let handle = run_core(config, move |rt| async move {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = rt.listen_with(any, &options).unwrap();
        tell.send(listener.local_addr()).unwrap();
        let acceptor = rt.clone();
        rt.spawn(Queue::Request, async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (rt, serve) = (acceptor.clone(), serve.clone());
                acceptor.spawn(Queue::Request, async move { serve(rt, stream).await });
            }
        });
        rt.stopping().await;
        rt.stats().tasks
    })
    .unwrap();
    (handle, told.recv_timeout(PATIENCE).unwrap())
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == message);
}

#[test]
fn echoes_on_one_connection() {
    for backend in BACKENDS {
        let (core, at) = server(config(backend), ListenOptions::default(), async |_, s| {
            echo(s).await
        });
        let mut stream = connect(at);
        for len in [1, 200, 4_096, 100_000] {
            round_trip(&mut stream, &vec![len as u8; len]);
        }
        drop(stream);
        core.stopper().stop();
        core.join();
    }
}

#[test]
fn echoes_on_64_connections() {
    for backend in BACKENDS {
        let (core, at) = server(config(backend), ListenOptions::default(), async |_, s| {
            echo(s).await
        });
        let mut streams: Vec<TcpStream> = (0..64).map(|_| connect(at)).collect();
        for round in 0..20u8 {
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[round ^ i as u8; 200]).unwrap();
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 200];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, [round ^ i as u8; 200]);
            }
        }
        core.stopper().stop();
        // 64 connections, the acceptor and main.
        assert_eq!(core.join(), 66);
        for mut stream in streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the core's end closes");
        }
    }
}
