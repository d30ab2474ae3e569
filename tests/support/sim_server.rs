//! A whole node in a simulated world, and a client that speaks to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla::config::load;
use ottla::io::{Queue, Rt, SendQueue, Stream};
use ottla::node::lifecycle::{self, Life};
use ottla::node::listeners::BoundListener;
use ottla::node::{self, storage};
use ottla::shard::Node;
use ottla::sim::{NodeId, Sim};
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::header::{decode_response_header, encode_request_header};

pub const DATA_CORES: usize = 2;
pub const PORT: u16 = 9092;

/// Boots a node of `DATA_CORES` and the controller's core on its disk, configured by these
/// lines besides the necessary ones. Gives the message of its start, and what its cores
/// share.
pub fn boot(
    sim: &Sim,
    server: NodeId,
    lines: &str,
) -> (mpsc::Receiver<lifecycle::Started>, Arc<Node>) {
    let ip = sim.ip(server);
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs=/data\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{ip}:{PORT},CONTROLLER://{ip}:9093\n\
         controller.quorum.voters=1@{ip}:9093\n\
         offsets.topic.replication.factor=1\n{lines}"
    );
    let config = load::from_bytes(Path::new("sim.properties"), properties.as_bytes(), &[])
        .expect("the properties are right")
        .node;
    let cores = sim.boot(server);
    let controller = cores.last().expect("a node has cores").clone();
    let storage = storage::open(
        &*controller.disk(),
        &config,
        controller.wall_ms(),
        &mut controller.rng(),
    )
    .expect("the simulated disk works");
    let listeners = vec![BoundListener {
        name: "PLAINTEXT".into(),
        address: SocketAddr::new(ip, PORT),
        advertised_host: ip.to_string(),
        advertised_port: PORT,
        protocol: 0,
        is_controller: false,
    }];
    let shared = node::shared(config, &storage, DATA_CORES);
    let (started, starting) = mpsc::channel();
    let life = Life {
        node: shared.clone(),
        listeners,
        storage,
        started,
    };
    let mut seeds = node::wire_up(DATA_CORES);
    let last = seeds.pop().expect("one seed for each core");
    for (rt, seed) in cores.iter().zip(seeds) {
        rt.spawn(
            Queue::Request,
            node::data_core(rt.clone(), seed, shared.clone()),
        );
    }
    controller.spawn(
        Queue::Request,
        lifecycle::run(controller.clone(), last, life),
    );
    (starting, shared)
}

/// A connection that asks one thing at a time.
pub struct Client {
    stream: Stream,
    received: BytesMut,
    pub correlation_id: i32,
}

impl Client {
    /// Connects as soon as the server listens.
    pub async fn connect(rt: &Rt, to: SocketAddr) -> Client {
        loop {
            match rt.connect(to).await {
                Ok(stream) => {
                    return Client {
                        stream,
                        received: BytesMut::new(),
                        correlation_id: 0,
                    };
                }
                Err(_) => rt.sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub async fn ask<Q: Message, R: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> std::io::Result<R> {
        self.send(api, version, request).await?;
        let id = self.correlation_id;
        self.answer(api, version, id).await
    }

    pub async fn send<Q: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> std::io::Result<()> {
        self.correlation_id += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        encode_request_header(&mut frame, api, version, self.correlation_id, Some("sim"));
        request.encode(&mut frame, version).unwrap();
        let size = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        let mut out = SendQueue::new();
        out.push_bytes(frame.freeze());
        self.stream.send(&mut out).await
    }

    pub async fn answer<R: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        to: i32,
    ) -> std::io::Result<R> {
        let response = self.frame().await?;
        let mut decoder = Decoder::new(&response);
        let id = decode_response_header(&mut decoder, api, version).unwrap();
        assert_eq!(id, to);
        Ok(R::decode(&mut decoder, version).unwrap())
    }

    async fn frame(&mut self) -> std::io::Result<Bytes> {
        loop {
            if let Some(size) = self.received.first_chunk::<4>() {
                let size = i32::from_be_bytes(*size) as usize;
                if self.received.len() >= 4 + size {
                    self.received.advance(4);
                    return Ok(self.received.split_to(size).freeze());
                }
            }
            if self.stream.recv(&mut self.received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
