//! Streaming decoders of the codecs, as lenient and as strict as the readers of Kafka's
//! clients, with a hard bound on what comes out.
//!
//! Memory of one stream, whatever its bytes claim:
//! - gzip: the inflater's 32 KiB window.
//! - snappy: one block. A block is believed to expand at most 64/3 times (a copy of 64
//!   bytes takes 3), so never more than about 22 times the batch; 32 KiB for Java's.
//! - lz4: one block of at most 4 MiB (64 KiB for Java's), never more than 256 times its
//!   compressed size.
//! - zstd: the window that the frame declares, up to 128 MiB as in Kafka (2 MiB at the
//!   default level, 8 MiB up to level 19), touched only as far as content comes out.
//!   A context that grew beyond 8 MiB is freed after use, smaller ones are pooled.
//!
//! What ends a stream early (`Truncated`, `Corrupt`) is what Kafka's readers throw as
//! `IOException`. Kept on purpose: lz4 ignores the content checksum and whatever follows
//! the end mark; gzip reads on into a further member and ignores other trailing bytes;
//! zstd reads on into further frames and takes one that is cut off as the end;
//! snappy takes the xerial framing, concatenations of it, and one raw block.

use std::cell::RefCell;
use std::io;

use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::compression::{
    CompressionType, LZ4_MAGIC, LZ4_STORED_BIT, XERIAL_HEADER, XERIAL_MAGIC, lz4_descriptor_check,
};

/// Default bound on the bytes that come out of one stream: 1 GiB, which is gzip's greatest
/// expansion of a batch of 1 MiB. Kafka has none.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// Largest window that zstd frames may ask for; the same as in Kafka.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Contexts that have grown larger are not pooled.
const ZSTD_POOLED_BYTES_MAX: usize = 9 << 20;
/// Idle contexts kept per thread.
const ZSTD_POOL_MAX: usize = 4;
/// Largest compressed chunk within the xerial framing (its Java reader's bound).
const XERIAL_CHUNK_BYTES_MAX: usize = 512 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    #[error("the compressed stream ends early")]
    Truncated,
    #[error("the compressed stream is corrupt: {0}")]
    Corrupt(&'static str),
    #[error("more than {0} bytes come out of the compressed stream")]
    OutputLimit(u64),
}

const CORRUPT_GZIP: DecompressError = DecompressError::Corrupt("gzip header");

/// A decoder that holds no reference to its input: every call is given the whole input
/// again, and the decoder knows how far it has read. So it can be kept across yields
/// beside the buffer that it reads.
pub struct Decompressor {
    kind: Kind,
    output_bytes_max: u64,
    output_left: u64,
}

enum Kind {
    Gzip(Box<Gzip>),
    Snappy(Snappy),
    Lz4(Lz4),
    Zstd(Zstd),
}

impl Decompressor {
    /// `None` for [`CompressionType::None`], which needs no decoder.
    pub fn new(codec: CompressionType) -> Option<Decompressor> {
        Self::with_limit(codec, OUTPUT_BYTES_MAX)
    }

    pub fn with_limit(codec: CompressionType, output_bytes_max: u64) -> Option<Decompressor> {
        let kind = match codec {
            CompressionType::None => return None,
            CompressionType::Gzip => Kind::Gzip(Box::new(Gzip::new())),
            CompressionType::Snappy => Kind::Snappy(Snappy::default()),
            CompressionType::Lz4 => Kind::Lz4(Lz4::default()),
            CompressionType::Zstd => Kind::Zstd(Zstd::new()),
        };
        Some(Decompressor {
            kind,
            output_bytes_max,
            output_left: output_bytes_max,
        })
    }

    /// Decodes some bytes into `out`, which is not empty. Returns 0 at the end.
    pub fn read(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        debug_assert!(!out.is_empty(), "an empty buffer looks like the end");
        let count = match &mut self.kind {
            Kind::Gzip(gzip) => gzip.read(input, out),
            Kind::Snappy(snappy) => snappy.read(input, out),
            Kind::Lz4(lz4) => lz4.read(input, out),
            Kind::Zstd(zstd) => zstd.read(input, out),
        }?;
        self.output_left = self
            .output_left
            .checked_sub(count as u64)
            .ok_or(DecompressError::OutputLimit(self.output_bytes_max))?;
        Ok(count)
    }

    /// This decoder with its input, as a reader.
    pub fn reader(self, input: &[u8]) -> DecompressReader<'_> {
        DecompressReader {
            decompressor: self,
            input,
        }
    }
}

/// A [`Decompressor`] over one input.
pub struct DecompressReader<'a> {
    decompressor: Decompressor,
    input: &'a [u8],
}

impl io::Read for DecompressReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.decompressor
            .read(self.input, out)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The next `N` bytes of `input` at `at`, which moves behind them.
fn take<const N: usize>(input: &[u8], at: &mut usize) -> Result<[u8; N], DecompressError> {
    let bytes = input
        .get(*at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(DecompressError::Truncated)?;
    *at += N;
    Ok(*bytes)
}

/// The next `length` bytes of `input` at `at`, which moves behind them.
fn take_slice<'a>(
    input: &'a [u8],
    at: &mut usize,
    length: usize,
) -> Result<&'a [u8], DecompressError> {
    let bytes = input
        .get(*at..)
        .and_then(|rest| rest.get(..length))
        .ok_or(DecompressError::Truncated)?;
    *at += length;
    Ok(bytes)
}

/// A decoded block that is handed out piece by piece.
#[derive(Default)]
struct Block {
    /// Grows to the largest block; only `filled` bytes of it count.
    bytes: Vec<u8>,
    filled: usize,
    at: usize,
}

impl Block {
    /// Room for a block of at most `length` bytes.
    fn room(&mut self, length: usize) -> &mut [u8] {
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        &mut self.bytes[..length]
    }

    fn filled(&mut self, filled: usize) {
        self.filled = filled;
        self.at = 0;
    }

    fn is_drained(&self) -> bool {
        self.at == self.filled
    }

    fn drain(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.bytes[self.at..self.filled];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        count
    }
}

struct Gzip {
    at: usize,
    state: GzipState,
    inflater: flate2::Decompress,
    crc: crc_fast::Digest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GzipState {
    Header,
    Body,
    End,
}

impl Gzip {
    fn new() -> Gzip {
        Gzip {
            at: 0,
            state: GzipState::Header,
            inflater: flate2::Decompress::new(false),
            crc: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
        }
    }

    fn read(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        loop {
            match self.state {
                GzipState::Header => {
                    self.header(input)?;
                    self.state = GzipState::Body;
                }
                GzipState::Body => {
                    let count = self.body(input, out)?;
                    if count > 0 {
                        return Ok(count);
                    }
                }
                GzipState::End => return Ok(0),
            }
        }
    }

    fn header(&mut self, input: &[u8]) -> Result<(), DecompressError> {
        const HEADER_CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;
        let start = self.at;
        let fixed: [u8; 10] = take(input, &mut self.at)?;
        if fixed[..3] != [0x1f, 0x8b, 8] {
            return Err(CORRUPT_GZIP);
        }
        let flags = fixed[3];
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes(take(input, &mut self.at)?);
            take_slice(input, &mut self.at, usize::from(length))?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                let rest = input.get(self.at..).unwrap_or_default();
                let end = rest.iter().position(|&byte| byte == 0);
                self.at += end.ok_or(DecompressError::Truncated)? + 1;
            }
        }
        if flags & HEADER_CRC != 0 {
            let computed = crc_fast::crc32_iso_hdlc(&input[start..self.at]) as u16;
            if computed != u16::from_le_bytes(take(input, &mut self.at)?) {
                return Err(CORRUPT_GZIP);
            }
        }
        Ok(())
    }

    /// Returns 0 only when the state has changed.
    fn body(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        loop {
            let (in_before, out_before) = (self.inflater.total_in(), self.inflater.total_out());
            let rest = input.get(self.at..).unwrap_or_default();
            let status = self
                .inflater
                .decompress(rest, out, flate2::FlushDecompress::None)
                .map_err(|_| DecompressError::Corrupt("deflate data"))?;
            let read = (self.inflater.total_in() - in_before) as usize;
            let count = (self.inflater.total_out() - out_before) as usize;
            self.at += read;
            self.crc.update(&out[..count]);
            if status == flate2::Status::StreamEnd {
                self.member_end(input)?;
                return Ok(count);
            }
            if count > 0 {
                return Ok(count);
            }
            if read == 0 {
                return Err(DecompressError::Truncated);
            }
        }
    }

    fn member_end(&mut self, input: &[u8]) -> Result<(), DecompressError> {
        let crc = u32::from_le_bytes(take(input, &mut self.at)?);
        let size = u32::from_le_bytes(take(input, &mut self.at)?);
        if u64::from(crc) != self.crc.finalize() || size != self.inflater.total_out() as u32 {
            return Err(DecompressError::Corrupt("gzip trailer"));
        }
        let another = input
            .get(self.at..)
            .is_some_and(|rest| rest.len() >= 18 && rest.starts_with(&[0x1f, 0x8b, 8]));
        self.state = if another {
            self.inflater.reset(false);
            self.crc.reset();
            GzipState::Header
        } else {
            GzipState::End
        };
        Ok(())
    }
}

#[derive(Default)]
struct Snappy {
    at: usize,
    framing: Option<SnappyFraming>,
    block: Block,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SnappyFraming {
    Xerial,
    Raw,
}

impl Snappy {
    fn read(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        while self.block.is_drained() {
            if !self.next_block(input)? {
                return Ok(0);
            }
        }
        Ok(self.block.drain(out))
    }

    fn next_block(&mut self, input: &[u8]) -> Result<bool, DecompressError> {
        match self.framing {
            None => {
                if input.is_empty() {
                    return Err(DecompressError::Truncated);
                }
                if input.len() >= XERIAL_HEADER.len() && input.starts_with(&XERIAL_MAGIC) {
                    self.at = XERIAL_HEADER.len();
                    self.framing = Some(SnappyFraming::Xerial);
                    return self.next_chunk(input);
                }
                self.framing = Some(SnappyFraming::Raw);
                self.at = input.len();
                self.decode(input)?;
                Ok(true)
            }
            Some(SnappyFraming::Raw) => Ok(false),
            Some(SnappyFraming::Xerial) => self.next_chunk(input),
        }
    }

    fn next_chunk(&mut self, input: &[u8]) -> Result<bool, DecompressError> {
        loop {
            let rest = input.get(self.at..).unwrap_or_default();
            // Up to three bytes after the last chunk are ignored.
            if rest.len() < 4 {
                return Ok(false);
            }
            if rest.starts_with(&XERIAL_MAGIC[..4]) {
                // Streams put one after the other.
                let header: [u8; XERIAL_HEADER.len()] = take(input, &mut self.at)?;
                if !header.starts_with(&XERIAL_MAGIC) {
                    self.at = input.len();
                    return Ok(false);
                }
                let version = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
                if version < 1 {
                    return Err(DecompressError::Corrupt("snappy version"));
                }
                continue;
            }
            let length = u32::from_be_bytes(take(input, &mut self.at)?) as usize;
            if length > XERIAL_CHUNK_BYTES_MAX {
                return Err(DecompressError::Corrupt("snappy chunk length"));
            }
            let chunk = take_slice(input, &mut self.at, length)?;
            self.decode(chunk)?;
            return Ok(true);
        }
    }

    fn decode(&mut self, chunk: &[u8]) -> Result<(), DecompressError> {
        const CORRUPT: DecompressError = DecompressError::Corrupt("snappy block");
        let length = snap::raw::decompress_len(chunk).map_err(|_| CORRUPT)?;
        if length as u64 > chunk.len() as u64 * 64 / 3 {
            return Err(CORRUPT);
        }
        let filled = snap::raw::Decoder::new()
            .decompress(chunk, self.block.room(length))
            .map_err(|_| CORRUPT)?;
        self.block.filled(filled);
        Ok(())
    }
}

#[derive(Default)]
struct Lz4 {
    at: usize,
    frame: Option<Lz4Frame>,
    ended: bool,
    block: Block,
}

#[derive(Clone, Copy)]
struct Lz4Frame {
    block_bytes_max: usize,
    block_checksums: bool,
    content_checksum: bool,
}

impl Lz4 {
    fn read(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => {
                let frame = self.header(input)?;
                self.frame = Some(frame);
                frame
            }
        };
        while self.block.is_drained() {
            if self.ended {
                return Ok(0);
            }
            self.next_block(input, frame)?;
        }
        Ok(self.block.drain(out))
    }

    fn header(&mut self, input: &[u8]) -> Result<Lz4Frame, DecompressError> {
        const CORRUPT: DecompressError = DecompressError::Corrupt("lz4 frame descriptor");
        if take(input, &mut self.at)? != LZ4_MAGIC {
            return Err(CORRUPT);
        }
        let start = self.at;
        let [flags, sizes] = take(input, &mut self.at)?;
        // Reserved bits are 0, version is 1, blocks are independent.
        if flags & 0b1110_0011 != 0b0110_0000 || sizes & 0x8f != 0 {
            return Err(CORRUPT);
        }
        let size_code = sizes >> 4;
        if !(4..=7).contains(&size_code) {
            return Err(CORRUPT);
        }
        if flags & 0b1000 != 0 {
            take::<8>(input, &mut self.at)?;
        }
        let check = lz4_descriptor_check(&input[start..self.at]);
        if take(input, &mut self.at)? != [check] {
            return Err(CORRUPT);
        }
        Ok(Lz4Frame {
            block_bytes_max: 1 << (2 * size_code + 8),
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
        })
    }

    fn next_block(&mut self, input: &[u8], frame: Lz4Frame) -> Result<(), DecompressError> {
        let word = u32::from_le_bytes(take(input, &mut self.at)?);
        let length = (word & !LZ4_STORED_BIT) as usize;
        if length == 0 {
            self.ended = true;
            if frame.content_checksum {
                take::<4>(input, &mut self.at)?;
            }
            return Ok(());
        }
        if length > frame.block_bytes_max {
            return Err(DecompressError::Corrupt("lz4 block length"));
        }
        let bytes = take_slice(input, &mut self.at, length)?;
        let filled = if word & LZ4_STORED_BIT != 0 {
            self.block.room(length).copy_from_slice(bytes);
            length
        } else {
            // One byte of length yields at most 255.
            let room = frame.block_bytes_max.min(length * 256);
            lz4_flex::block::decompress_into(bytes, self.block.room(room))
                .map_err(|_| DecompressError::Corrupt("lz4 block"))?
        };
        self.block.filled(filled);
        if frame.block_checksums {
            let check = u32::from_le_bytes(take(input, &mut self.at)?);
            if check != twox_hash::XxHash32::oneshot(0, bytes) {
                return Err(DecompressError::Corrupt("lz4 block checksum"));
            }
        }
        Ok(())
    }
}

thread_local! {
    /// Idle zstd contexts of this core: making one costs more than decoding a small batch.
    static ZSTD_POOL: RefCell<Vec<DCtx<'static>>> = const { RefCell::new(Vec::new()) };
}

struct Zstd {
    at: usize,
    /// Whether the input read so far ends with a frame's end.
    at_frame_end: bool,
    /// Whether a frame has ended so far.
    frame_ended: bool,
    /// Taken out when this is dropped.
    context: Option<DCtx<'static>>,
}

impl Zstd {
    fn new() -> Zstd {
        let mut context = ZSTD_POOL
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(DCtx::create);
        context
            .reset(ResetDirective::SessionOnly)
            .and_then(|_| context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)))
            .expect("a fresh session takes a window in range");
        Zstd {
            at: 0,
            at_frame_end: false,
            frame_ended: false,
            context: Some(context),
        }
    }

    fn read(&mut self, input: &[u8], out: &mut [u8]) -> Result<usize, DecompressError> {
        let context = self.context.as_mut().expect("present until dropped");
        loop {
            let rest = input.get(self.at..).unwrap_or_default();
            if rest.is_empty() && self.at_frame_end {
                return Ok(0);
            }
            let mut source = InBuffer::around(rest);
            let mut sink = OutBuffer::around(out);
            let hint = context
                .decompress_stream(&mut sink, &mut source)
                .map_err(|code| DecompressError::Corrupt(zstd_safe::get_error_name(code)))?;
            let (read, count) = (source.pos(), sink.pos());
            self.at += read;
            self.at_frame_end = hint == 0;
            self.frame_ended |= self.at_frame_end;
            if count > 0 {
                return Ok(count);
            }
            if read == 0 {
                return if self.frame_ended {
                    Ok(0)
                } else {
                    Err(DecompressError::Truncated)
                };
            }
        }
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        let Some(context) = self.context.take() else {
            return;
        };
        if context.sizeof() <= ZSTD_POOLED_BYTES_MAX {
            // At a thread's end the pool may be gone before its last user.
            let _ = ZSTD_POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < ZSTD_POOL_MAX {
                    pool.push(context);
                }
            });
        }
    }
}
