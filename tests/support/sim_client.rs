//! A client in a simulated world.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla::io::{Rt, SendQueue, Stream};
use ottla::wire::ApiKey;
use ottla::wire::codec::{Decoder, Message};
use ottla::wire::header::{decode_response_header, encode_request_header};

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
