//! The codecs' names and levels, and the encoders, framed as Kafka's clients frame them.
//!
//! | codec | frame | level |
//! |---|---|---|
//! | gzip | one member | 1-9, or -1 the default |
//! | snappy | xerial: magic, versions, then blocks of 32 KiB with a length each | none |
//! | lz4 | LZ4 frame, independent blocks of 64 KiB, no checksums of content or blocks | see below |
//! | zstd | one frame, content size unknown | -131072 to 22 |
//!
//! Kafka takes LZ4's high-compression encoder at every level but 9; we have the fast one
//! only, so `compression.lz4.level` is accepted and changes nothing. Any LZ4 reader reads
//! either.

use std::io::{self, Write};

use flate2::GzBuilder;
use flate2::write::GzEncoder;

/// A codec, by the number in a batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CompressionType {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl CompressionType {
    pub const ALL: [CompressionType; 5] = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ];

    pub fn id(self) -> i8 {
        self as i8
    }

    pub fn from_id(id: i8) -> Option<CompressionType> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    pub fn name(self) -> &'static str {
        match self {
            CompressionType::None => "none",
            CompressionType::Gzip => "gzip",
            CompressionType::Snappy => "snappy",
            CompressionType::Lz4 => "lz4",
            CompressionType::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<CompressionType> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Kafka's default of `compression.<codec>.level`; 0 where there are no levels.
    pub fn default_level(self) -> i32 {
        match self {
            CompressionType::None | CompressionType::Snappy => 0,
            CompressionType::Gzip => -1,
            CompressionType::Lz4 => 9,
            CompressionType::Zstd => 3,
        }
    }
}

/// A codec and the level to encode at. Levels out of range are taken as the nearest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    pub codec: CompressionType,
    pub level: i32,
}

impl Compression {
    pub const NONE: Compression = Compression {
        codec: CompressionType::None,
        level: 0,
    };

    pub fn new(codec: CompressionType, level: i32) -> Compression {
        Compression { codec, level }
    }
}

impl From<CompressionType> for Compression {
    fn from(codec: CompressionType) -> Compression {
        Compression::new(codec, codec.default_level())
    }
}

/// Encodes `bytes` as the records of a batch are encoded.
pub fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(compression, Vec::new());
    compressor.write(bytes);
    compressor.finish()
}

const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
const LZ4_BLOCK_BYTES: usize = 64 * 1024;

/// Magic, version 1, oldest compatible version 1.
pub(super) const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// How the magic alone begins.
pub(super) const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
pub(super) const LZ4_MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
/// Set in a block's length where the block is stored as it is.
pub(super) const LZ4_STORED_BIT: u32 = 1 << 31;

/// An encoder that appends to what `out` holds already.
pub(super) struct Compressor(Kind);

enum Kind {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Blocks(Blocks),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    pub fn new(compression: Compression, out: Vec<u8>) -> Compressor {
        Compressor(match compression.codec {
            CompressionType::None => Kind::Plain(out),
            CompressionType::Gzip => {
                let level = match compression.level {
                    ..=0 => flate2::Compression::default(),
                    level => flate2::Compression::new(level.unsigned_abs().min(9)),
                };
                Kind::Gzip(GzBuilder::new().operating_system(0).write(out, level))
            }
            CompressionType::Snappy => Kind::Blocks(Blocks::snappy(out)),
            CompressionType::Lz4 => Kind::Blocks(Blocks::lz4(out)),
            CompressionType::Zstd => {
                let level = compression.level.clamp(-131_072, 22);
                Kind::Zstd(
                    zstd::stream::write::Encoder::new(out, level)
                        .expect("a level in range is taken"),
                )
            }
        })
    }

    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Plain(out) => out.extend_from_slice(bytes),
            Kind::Gzip(encoder) => infallible(encoder.write_all(bytes)),
            Kind::Blocks(blocks) => blocks.write(bytes),
            Kind::Zstd(encoder) => infallible(encoder.write_all(bytes)),
        }
    }

    /// Bytes written out so far; encoders hold some back until [`finish`](Self::finish).
    pub fn written(&self) -> usize {
        match &self.0 {
            Kind::Plain(out) => out.len(),
            Kind::Gzip(encoder) => encoder.get_ref().len(),
            Kind::Blocks(blocks) => blocks.out.len(),
            Kind::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        match self.0 {
            Kind::Plain(out) => out,
            Kind::Gzip(encoder) => infallible(encoder.finish()),
            Kind::Blocks(blocks) => blocks.finish(),
            Kind::Zstd(encoder) => infallible(encoder.finish()),
        }
    }
}

fn infallible<T>(result: io::Result<T>) -> T {
    result.expect("encoding into memory does not fail")
}

/// The codecs that work on blocks: collects one, encodes it, appends it.
struct Blocks {
    out: Vec<u8>,
    block: Vec<u8>,
    block_bytes: usize,
    scratch: Vec<u8>,
    encode: fn(&[u8], &mut Vec<u8>, &mut Vec<u8>),
    trailer: &'static [u8],
}

impl Blocks {
    fn snappy(mut out: Vec<u8>) -> Blocks {
        out.extend_from_slice(&XERIAL_HEADER);
        Blocks::new(out, SNAPPY_BLOCK_BYTES, encode_snappy, &[])
    }

    fn lz4(mut out: Vec<u8>) -> Blocks {
        // Version 1, independent blocks; block size 4 is 64 KiB.
        let descriptor = [0x60, 0x40];
        out.extend_from_slice(&LZ4_MAGIC);
        out.extend_from_slice(&descriptor);
        out.push(lz4_descriptor_check(&descriptor));
        Blocks::new(out, LZ4_BLOCK_BYTES, encode_lz4, &[0; 4])
    }

    fn new(
        out: Vec<u8>,
        block_bytes: usize,
        encode: fn(&[u8], &mut Vec<u8>, &mut Vec<u8>),
        trailer: &'static [u8],
    ) -> Blocks {
        Blocks {
            out,
            block: Vec::new(),
            block_bytes,
            scratch: Vec::new(),
            encode,
            trailer,
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = bytes.len().min(self.block_bytes - self.block.len());
            self.block.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.block.len() == self.block_bytes {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if !self.block.is_empty() {
            (self.encode)(&self.block, &mut self.scratch, &mut self.out);
            self.block.clear();
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out.extend_from_slice(self.trailer);
        self.out
    }
}

fn encode_snappy(block: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    scratch.resize(snap::raw::max_compress_len(block.len()), 0);
    let length = snap::raw::Encoder::new()
        .compress(block, scratch)
        .expect("the scratch has room for the worst case");
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&scratch[..length]);
}

fn encode_lz4(block: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    scratch.resize(lz4_flex::block::get_maximum_output_size(block.len()), 0);
    let length = lz4_flex::block::compress_into(block, scratch)
        .expect("the scratch has room for the worst case");
    let (length, bytes) = if length < block.len() {
        (length as u32, &scratch[..length])
    } else {
        (block.len() as u32 | LZ4_STORED_BIT, block)
    };
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The checksum byte of an LZ4 frame's descriptor.
pub(super) fn lz4_descriptor_check(descriptor: &[u8]) -> u8 {
    (twox_hash::XxHash32::oneshot(0, descriptor) >> 8) as u8
}
