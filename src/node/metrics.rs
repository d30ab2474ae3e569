//! The node's numbers over HTTP, in Prometheus' text format (`ottla.metrics.listen`).
//!
//! Runs on the controller's core, in the background queue. A scrape costs a data core one
//! message, answered with a copy of its counters; the text is written here, in steps that
//! let others in. A connection is answered once and closed. Called by
//! [`lifecycle`](super::lifecycle).
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, [`HEAD_BYTES_MAX`] of a request's head and as much
//! behind it, and [`PATIENCE`] from the accept to the last byte. Whoever exceeds them is
//! closed; nothing that he sends is more than looked at.

use std::cell::Cell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::StartError;
use crate::base::CoreId;
use crate::io::local::{self, Either};
use crate::io::{Listener, Queue, Rt, SendQueue, Stream};
use crate::mesh::Port;
use crate::shard::messages::{ShardReply, ShardRequest};
use crate::shard::{Node, metrics};
use crate::telemetry::{CoreSnapshot, render};

const CONNECTIONS_MAX: usize = 8;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// As for clients' listeners: a killed process's sockets are free a little after its end.
const IN_USE_MAX: Duration = Duration::from_millis(1_500);
const IN_USE_PAUSE: Duration = Duration::from_millis(25);

type MeshPort = Port<ShardRequest, ShardReply>;

/// What a scrape asks.
#[derive(Clone)]
struct Source {
    rt: Rt,
    node: Arc<Node>,
    port: MeshPort,
}

/// Listens on every address of `ottla.metrics.listen`; returns the addresses.
pub async fn start(
    rt: &Rt,
    node: &Arc<Node>,
    port: &MeshPort,
) -> Result<Vec<SocketAddr>, StartError> {
    let mut addresses = Vec::new();
    for (host, number) in &node.config.runtime.metrics_listen {
        let failed = |source| StartError::Bind {
            listener: "ottla.metrics.listen".to_owned(),
            address: format!("{host}:{number}"),
            source,
        };
        let address = (host.as_str(), *number)
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let listener = listen(rt, address).await.map_err(failed)?;
        addresses.push(listener.local_addr());
        let source = Source {
            rt: rt.clone(),
            node: node.clone(),
            port: port.clone(),
        };
        rt.spawn(Queue::Background, accept(source, listener));
    }
    Ok(addresses)
}

async fn listen(rt: &Rt, address: SocketAddr) -> std::io::Result<Listener> {
    let end = rt.now() + IN_USE_MAX;
    loop {
        match rt.listen(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && rt.now() < end => {
                rt.sleep(IN_USE_PAUSE).await;
            }
            listening => return listening,
        }
    }
}

async fn accept(source: Source, listener: Listener) {
    let rt = source.rt.clone();
    let open = Rc::new(Cell::new(0));
    loop {
        let accepted = match local::either(rt.stopping(), listener.accept()).await {
            Either::First(()) => return,
            Either::Second(accepted) => accepted,
        };
        match accepted {
            // Beyond the bound a connection is closed at once.
            Ok(_) if open.get() >= CONNECTIONS_MAX => {}
            Ok((stream, _)) => {
                open.set(open.get() + 1);
                let (source, open) = (source.clone(), open.clone());
                rt.spawn(Queue::Background, async move {
                    let end = source.rt.now() + PATIENCE;
                    let answering = local::either(source.rt.stopping(), answer(&stream, &source));
                    // Whoever is too slow, or has gone, is closed with the stream.
                    let _ = local::or_deadline(&source.rt, answering, end).await;
                    open.set(open.get() - 1);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the metrics listener failed");
                return;
            }
        }
    }
}

async fn answer(stream: &Stream, source: &Source) -> std::io::Result<()> {
    let mut received = BytesMut::new();
    let asked = loop {
        if stream.recv(&mut received).await? == 0 {
            return Ok(());
        }
        if let Some(asked) = Asked::parse(&received) {
            break asked;
        }
    };
    let body = match asked.kind {
        Kind::Metrics => text(source).await,
        Kind::Hint => "the node's numbers are at /metrics\n".to_owned(),
        Kind::NotFound => "not found; the node's numbers are at /metrics\n".to_owned(),
        Kind::Method => "only GET and HEAD are served\n".to_owned(),
        Kind::Bad => "not an HTTP request\n".to_owned(),
        Kind::TooLarge => "the request's head is too large\n".to_owned(),
    };
    let mut out = SendQueue::new();
    out.push_bytes(head(asked.kind, body.len()).into_bytes());
    if !asked.head_only {
        out.push_bytes(body.into_bytes());
    }
    stream.send(&mut out).await?;
    // The peer ends first, so that nothing it still sends resets what it hasn't read.
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut behind = 0;
    while behind <= HEAD_BYTES_MAX {
        received.clear();
        match stream.recv(&mut received).await? {
            0 => break,
            count => behind += count,
        }
    }
    Ok(())
}

/// What all cores have counted.
async fn text(source: &Source) -> String {
    let Source { rt, node, port } = source;
    let calls: Vec<_> = (0..node.cores)
        .map(|core| port.call(CoreId(core), ShardRequest::Snapshot))
        .collect();
    let mut cores = Vec::with_capacity(calls.len() + 1);
    for call in calls {
        // A core that has ended is left out.
        if let Ok(ShardReply::Snapshot(snapshot)) = call.await {
            cores.push(*snapshot);
        }
    }
    cores.push(CoreSnapshot {
        core: "controller".into(),
        samples: metrics::with_loop(Vec::new(), rt, port),
        ..CoreSnapshot::default()
    });
    let budget = rt.budget();
    render(&metrics::of_node(node), &cores, &async || {
        budget.breathe().await;
    })
    .await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Metrics,
    Hint,
    NotFound,
    Method,
    Bad,
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    kind: Kind,
    head_only: bool,
}

impl Asked {
    /// Nothing until the head is whole, or can't become one.
    fn parse(received: &[u8]) -> Option<Asked> {
        let refused = |kind| {
            Some(Asked {
                kind,
                head_only: false,
            })
        };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(received) {
            Ok(httparse::Status::Partial) if received.len() > HEAD_BYTES_MAX => {
                refused(Kind::TooLarge)
            }
            Ok(httparse::Status::Partial) => None,
            Err(httparse::Error::TooManyHeaders) => refused(Kind::TooLarge),
            Err(_) => refused(Kind::Bad),
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.unwrap_or("");
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                let method = request.method.unwrap_or("");
                let kind = match (method, path) {
                    ("GET" | "HEAD", "/metrics") => Kind::Metrics,
                    ("GET" | "HEAD", "/") => Kind::Hint,
                    ("GET" | "HEAD", _) => Kind::NotFound,
                    _ => Kind::Method,
                };
                Some(Asked {
                    kind,
                    head_only: method == "HEAD",
                })
            }
        }
    }
}

fn head(kind: Kind, body_bytes: usize) -> String {
    let (status, content_type) = match kind {
        Kind::Metrics => ("200 OK", "text/plain; version=0.0.4; charset=utf-8"),
        Kind::Hint => ("200 OK", "text/plain; charset=utf-8"),
        Kind::NotFound => ("404 Not Found", "text/plain; charset=utf-8"),
        Kind::Method => (
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            "text/plain; charset=utf-8",
        ),
        Kind::Bad => ("400 Bad Request", "text/plain; charset=utf-8"),
        Kind::TooLarge => (
            "431 Request Header Fields Too Large",
            "text/plain; charset=utf-8",
        ),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {body_bytes}\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(request: &str) -> Option<Kind> {
        Asked::parse(request.as_bytes()).map(|asked| asked.kind)
    }

    #[test]
    fn heads_are_understood_or_refused() {
        assert_eq!(kind("GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        let whole = "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(kind(whole), Some(Kind::Metrics));
        assert_eq!(kind("GET / HTTP/1.0\r\n\r\n"), Some(Kind::Hint));
        assert_eq!(kind("GET /x HTTP/1.1\r\n\r\n"), Some(Kind::NotFound));
        assert_eq!(kind("POST / HTTP/1.1\r\n\r\n"), Some(Kind::Method));
        assert_eq!(kind("\0\0\0\x12"), Some(Kind::Bad));
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(kind(&long), Some(Kind::TooLarge));
        let head = Asked::parse(b"HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert!(head.head_only && head.kind == Kind::Metrics);
    }
}
