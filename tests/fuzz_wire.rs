//! Hostile bytes for every decoder: mutated golden bytes of Apache Kafka, in process.
//!
//! Each execution must end without a panic and within the decoder's memory budget, which a
//! counting allocator checks: the peak of live heap during one decode is at most
//! `BUDGET_FACTOR × frame + BUDGET_BASE_BYTES + SLACK_BYTES`. Some of the inputs that decode
//! are encoded again, which must succeed and decode to the same.
//!
//! Run it optimised: `cargo test --release --test fuzz_wire`. Environment:
//! - `OTTLA_FUZZ_EXECUTIONS`: executions over all decoders (10 million; 200 thousand in a
//!   debug build)
//! - `OTTLA_FUZZ_SEED`: seed of the first worker (1)
//! - `OTTLA_LONG`: also 10 million for each decoder that an unauthenticated client reaches,
//!   and for the hot ones
//!
//! A failure prints the seed, the decoder, the version and the (beginning of the) input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use bytes::{BufMut as _, Bytes, BytesMut};
use ottla::base::Rng;
use ottla::wire::codec::{BUDGET_BASE_BYTES, BUDGET_FACTOR, DecodeError, Decoder, Message};
use ottla::wire::fetch_view::FetchView;
use ottla::wire::header;
use ottla::wire::messages::*;
use ottla::wire::produce_view::ProduceView;
use ottla::wire::{ApiKey, record_frame};

const GOLDEN: &[u8] = include_bytes!("golden/messages.txt.gz");
/// For what a decode allocates beside its budget: the shared count of a `Bytes`.
const SLACK_BYTES: usize = 256;
/// Executions of one decoder between two looks at another.
const ROUND: u64 = 64;
const WORKERS: u64 = 2;
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Of a failing frame, how much is printed; the seed gives the rest.
const HEX_BYTES_MAX: usize = 4096;
const FOCUS_EXECUTIONS: u64 = 10_000_000;
/// Reached before authentication, and the hottest.
const FOCUS: &[&str] = &[
    "request header",
    "request",
    "ApiVersionsRequest",
    "SaslHandshakeRequest",
    "SaslAuthenticateRequest",
    "produce view",
    "fetch view",
    "ProduceRequest",
    "FetchRequest",
    "MetadataRequest",
];

// --- Heap in use by this thread ---------------------------------------------------------

struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator with the same arguments. `realloc` is
// the trait's own, which allocates, copies and frees, so that both blocks count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get() + layout.size();
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Blocks of another thread may be freed here.
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` returns, and the most heap that was live beyond what was before.
fn peak_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let value = f();
    (value, PEAK.get() - before)
}

// --- Decoders ---------------------------------------------------------------------------

/// The error if it didn't decode, and the peak of heap.
type Run = fn(&Input<'_>) -> Outcome;
type Outcome = (Option<DecodeError>, usize);

struct Input<'a> {
    frame: &'a Bytes,
    version: i16,
    /// Over a borrowed slice, `Bytes` are copies.
    borrowed: bool,
    /// Encode again what decodes.
    deep: bool,
}

impl<'a> Input<'a> {
    fn decoder(&self) -> Decoder<'a> {
        if self.borrowed {
            Decoder::borrowed(self.frame)
        } else {
            Decoder::new(self.frame)
        }
    }
}

struct Target {
    name: &'static str,
    run: Run,
    samples: Vec<(i16, Bytes)>,
}

impl Target {
    fn newest_version(&self) -> i16 {
        let versions = self.samples.iter().map(|(version, _)| *version);
        versions.max().expect("a target has samples")
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    executions: u64,
    decoded: u64,
    peak_max: usize,
}

fn run_message<M: Message>(input: &Input<'_>) -> Outcome {
    let (decoded, peak) = peak_of(|| M::decode(&mut input.decoder(), input.version));
    if let (Ok(message), true) = (&decoded, input.deep) {
        let bytes = encode(message, input.version);
        let again = M::decode(&mut Decoder::new(&bytes), input.version);
        match again {
            Ok(again) => assert_eq!(encode(&again, input.version), bytes),
            // Bytes after the message had made the first budget larger.
            Err(error) => assert_eq!(error, DecodeError::OverBudget),
        }
    }
    (decoded.err(), peak)
}

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    let encoded = message.encode(&mut out, version);
    encoded.expect("what a version decodes it encodes");
    out.freeze()
}

/// Zero-allocation, and refuses what the generated decoder refuses.
fn run_produce_view(input: &Input<'_>) -> Outcome {
    let (view, peak) = peak_of(|| ProduceView::decode(input.decoder(), input.version));
    assert_eq!(peak, 0, "the view allocates nothing");
    if let Ok(view) = &view {
        let bytes: usize = view
            .partitions()
            .filter_map(|partition| partition.records)
            .map(|range| input.frame[range].len())
            .sum();
        assert_eq!(bytes, view.records_bytes());
        assert_eq!(view.partitions().count(), view.partition_count());
    }
    if input.deep {
        let decoded = ProduceRequest::decode(&mut input.decoder(), input.version);
        if decoded != Err(DecodeError::OverBudget) {
            assert_eq!(view.as_ref().err(), decoded.as_ref().err());
        }
    }
    (view.err(), peak)
}

/// Meets as many partitions as the generated decoder, and refuses what that refuses.
fn run_fetch_view(input: &Input<'_>) -> Outcome {
    let (asked, forgotten) = (Cell::new(0), Cell::new(0));
    let (view, peak) = peak_of(|| {
        let count = |counter: &Cell<usize>| counter.set(counter.get() + 1);
        let mut decoder = input.decoder();
        FetchView::decode(
            &mut decoder,
            input.version,
            |_, _| count(&asked),
            |_, _| count(&forgotten),
        )
    });
    if input.deep {
        let decoded = FetchRequest::decode(&mut input.decoder(), input.version);
        if decoded != Err(DecodeError::OverBudget) {
            assert_eq!(view.as_ref().err(), decoded.as_ref().err());
        }
        if let Ok(request) = decoded {
            let of_topics = request.topics.iter().map(|topic| topic.partitions.len());
            assert_eq!(asked.get(), of_topics.sum::<usize>());
            let of_topics = request.forgotten_topics_data.iter();
            let count: usize = of_topics.map(|topic| topic.partitions.len()).sum();
            assert_eq!(forgotten.get(), count);
        }
    }
    (view.err(), peak)
}

fn run_request_header(input: &Input<'_>) -> Outcome {
    let (decoded, peak) = peak_of(|| header::RequestHeader::decode(input.frame).map(|_| ()));
    assert_eq!(peak, 0, "a header allocates nothing");
    (decoded.err().map(malformed), peak)
}

fn run_response_header(input: &Input<'_>) -> Outcome {
    let version = input.version;
    let decode = || header::decode_response_header(&mut input.decoder(), ApiKey::Metadata, version);
    let (decoded, peak) = peak_of(decode);
    (decoded.err(), peak)
}

fn run_metadata_record(input: &Input<'_>) -> Outcome {
    let (decoded, peak) = peak_of(|| record_frame::decode_metadata(input.frame).map(|_| ()));
    (decoded.err(), peak)
}

fn run_coordinator_record(input: &Input<'_>) -> Outcome {
    let (decoded, peak) = peak_of(|| record_frame::decode_coordinator(input.frame).map(|_| ()));
    (decoded.err(), peak)
}

macro_rules! targets {
    ($($kind:ident $name:ident;)*) => {
        vec![$(Target { name: $name::NAME, run: run_message::<$name>, samples: Vec::new() },)*]
    };
}

macro_rules! request_bodies {
    ($($kind:ident $name:ident;)*) => {
        fn decode_body(
            api: ApiKey,
            d: &mut Decoder<'_>,
            version: i16,
        ) -> Result<(), DecodeError> {
            $(request_bodies!(@one $kind $name, api, d, version);)*
            Err(DecodeError::UnknownType)
        }
    };
    (@one json $name:ident, $api:ident, $d:ident, $version:ident) => {};
    (@one plain $name:ident, $api:ident, $d:ident, $version:ident) => {
        if $name::API_KEY == Some($api as i16) && $name::NAME.ends_with("Request") {
            return $name::decode($d, $version).map(|_| ());
        }
    };
}
ottla::every_message!(request_bodies);

/// Header and body as a connection reads them, for any API.
fn run_request(input: &Input<'_>) -> Outcome {
    let (decoded, peak) = peak_of(|| {
        let (header, mut d) = header::RequestHeader::decode(input.frame).map_err(malformed)?;
        if !header.is_supported() {
            return Err(DecodeError::UnknownType);
        }
        decode_body(header.api, &mut d, header.api_version)
    });
    (decoded.err(), peak)
}

fn malformed(error: header::HeaderError) -> DecodeError {
    match error {
        header::HeaderError::UnknownApi { .. } => DecodeError::UnknownType,
        header::HeaderError::Malformed(error) => error,
    }
}

fn targets() -> Vec<Target> {
    let mut targets = ottla::every_message!(targets);
    let mut samples: BTreeMap<String, Vec<(i16, Bytes)>> = BTreeMap::new();
    for (name, version, bytes) in golden() {
        samples.entry(name).or_default().push((version, bytes));
    }
    let mut requests = Vec::new();
    for info in ApiKey::ALL {
        for (version, body) in &samples[&format!("{}Request", info.name)] {
            let mut out = BytesMut::new();
            header::encode_request_header(&mut out, info.key, *version, 7, Some("client"));
            out.put_slice(body);
            requests.push((*version, out.freeze()));
        }
    }
    for target in &mut targets {
        target.samples = samples[target.name].clone();
    }
    let prefixed = |prefix: &'static [u8], name: &str| {
        samples[name]
            .iter()
            .map(|(version, bytes)| (*version, Bytes::from([prefix, bytes].concat())))
            .collect()
    };
    let mut add = |name, run, samples| targets.push(Target { name, run, samples });
    let headers = requests.iter().step_by(9).cloned().collect();
    add("request header", run_request_header, headers);
    add("request", run_request, requests);
    let view = samples["ProduceRequest"].clone();
    add("produce view", run_produce_view as Run, view);
    let view = samples["FetchRequest"].clone();
    add("fetch view", run_fetch_view, view);
    let bodies = prefixed(&[0, 0, 0, 1, 0], "MetadataResponse");
    add("response header", run_response_header, bodies);
    let records = prefixed(&[1, 3, 0], "PartitionRecord");
    add("metadata record", run_metadata_record, records);
    let records = prefixed(&[0, 3], "OffsetCommitValue");
    add("coordinator record", run_coordinator_record, records);
    targets
}

fn golden() -> Vec<(String, i16, Bytes)> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(GOLDEN)
        .read_to_string(&mut text)
        .unwrap();
    let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.splitn(5, ' ').collect();
            let pairs = fields[3].as_bytes().chunks(2);
            let bytes = pairs.map(|p| digit(p[0]) << 4 | digit(p[1])).collect();
            (fields[0].to_owned(), fields[1].parse().unwrap(), bytes)
        })
        .collect()
}

// --- Mutation ---------------------------------------------------------------------------

const BYTES: &[u8] = &[0, 1, 2, 3, 0x7f, 0x80, 0x81, 0xfe, 0xff];
const INTS: &[i64] = &[
    0,
    1,
    -1,
    -2,
    127,
    128,
    255,
    256,
    0x7fff,
    -0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    -0x8000_0000,
    i64::MAX,
    i64::MIN,
];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

fn index(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

/// One change to the bytes, most often of what looks like a length, count or tag.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = index(rng, bytes.len() + 1);
    let rest = bytes.len() - at;
    match rng.below(12) {
        0 if rest > 0 => bytes[at] ^= 1 << rng.below(8),
        1 if rest > 0 => bytes[at] = pick(rng, BYTES),
        2 if rest > 0 => bytes[at] = bytes[at].wrapping_add(pick(rng, &[1, 0xff, 2, 16])),
        3 => {
            let value = pick(rng, INTS).to_be_bytes();
            let width = pick(rng, &[2usize, 4, 4, 8]).min(rest);
            bytes[at..at + width].copy_from_slice(&value[8 - width..]);
        }
        4 if rest > 0 => {
            let value = rng.next_u64() >> rng.below(64);
            bytes.splice(at..at + 1, uvarint(value as u32));
        }
        5 => bytes.truncate(at),
        6 => {
            let end = at + index(rng, rest + 1).min(16);
            bytes.drain(at..end);
        }
        7 => {
            let end = at + index(rng, rest + 1).min(64);
            let chunk = bytes[at..end].to_vec();
            let to = index(rng, bytes.len() + 1);
            bytes.splice(to..to, chunk);
        }
        8 => {
            let from = index(rng, other.len() + 1);
            let end = from + index(rng, other.len() - from + 1);
            bytes.splice(at.., other[from..end].iter().copied());
        }
        9 => {
            let count = index(rng, 20);
            let byte = pick(rng, BYTES);
            bytes.splice(at..at, std::iter::repeat_n(byte, count));
        }
        10 => {
            let count = index(rng, 9);
            let random: Vec<u8> = (0..count).map(|_| rng.next_u64() as u8).collect();
            bytes.splice(at..at, random);
        }
        // An array of many small elements: a count, then filler or a repeated chunk.
        _ if rng.one_in(16) => {
            let shift_max = if rng.one_in(64) { 17 } else { 10 };
            let count = 1 << rng.below(shift_max);
            let chunk = match rng.below(3) {
                0 => vec![pick(rng, BYTES)],
                1 => vec![0; 1 + index(rng, 12)],
                _ => bytes[at..at + rest.min(1 + index(rng, 24))].to_vec(),
            };
            let mut hostile = if rng.one_in(2) {
                uvarint(count as u32 + 1)
            } else {
                (count as u32).to_be_bytes().to_vec()
            };
            for _ in 0..count {
                if hostile.len() + chunk.len() > FRAME_BYTES_MAX {
                    break;
                }
                hostile.extend_from_slice(&chunk);
            }
            let end = at + rest.min(index(rng, 5));
            bytes.splice(at..end, hostile);
        }
        _ if rest > 1 => {
            let with = at + index(rng, rest);
            bytes.swap(at, with);
        }
        _ => bytes.push(rng.next_u64() as u8),
    }
}

fn uvarint(value: u32) -> Vec<u8> {
    let mut out = BytesMut::new();
    ottla::wire::codec::put_uvarint(&mut out, value);
    out.to_vec()
}

// --- Running ----------------------------------------------------------------------------

/// Tells what was being decoded if the thread panics.
struct Witness {
    seed: u64,
    name: &'static str,
    version: i16,
    frame: Bytes,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut hex = String::new();
            for byte in self.frame.iter().take(HEX_BYTES_MAX) {
                let _ = write!(hex, "{byte:02x}");
            }
            let (seed, name, version, len) = (self.seed, self.name, self.version, self.frame.len());
            eprintln!("seed {seed}: {name} version {version}, {len} bytes: {hex}");
        }
    }
}

fn execute(rng: &mut Rng, target: &Target, witness: &mut Witness, counts: &mut Counts) {
    let (version, bytes) = &target.samples[index(rng, target.samples.len())];
    let (other_version, other) = &target.samples[index(rng, target.samples.len())];
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        mutate(rng, &mut bytes, other);
    }
    witness.name = target.name;
    witness.version = if rng.one_in(8) {
        *other_version
    } else {
        *version
    };
    witness.frame = Bytes::from(bytes);
    let input = Input {
        frame: &witness.frame,
        version: witness.version,
        borrowed: rng.one_in(4),
        deep: rng.one_in(4),
    };
    let (error, peak) = checked(target, &input);
    counts.executions += 1;
    counts.decoded += u64::from(error.is_none());
    counts.peak_max = counts.peak_max.max(peak);
}

/// Decodes within the limit of heap, or panics.
fn checked(target: &Target, input: &Input<'_>) -> Outcome {
    let outcome = (target.run)(input);
    let limit = BUDGET_FACTOR * input.frame.len() + BUDGET_BASE_BYTES + SLACK_BYTES;
    assert!(
        outcome.1 <= limit,
        "{} bytes of heap for a frame of {}, {limit} are allowed",
        outcome.1,
        input.frame.len()
    );
    outcome
}

/// Rounds over all targets until each has its share.
fn work(targets: &[&Target], seed: u64, executions: u64) -> Vec<Counts> {
    let mut rng = Rng::new(seed);
    let mut counts = vec![Counts::default(); targets.len()];
    let mut witness = Witness {
        seed,
        name: "",
        version: 0,
        frame: Bytes::new(),
    };
    let share = executions.div_ceil(targets.len() as u64);
    let mut done = 0;
    while done < share {
        let round = ROUND.min(share - done);
        for (target, counts) in targets.iter().zip(&mut counts) {
            for _ in 0..round {
                execute(&mut rng, target, &mut witness, counts);
            }
        }
        done += round;
    }
    counts
}

/// Splits the executions over workers and prints what each decoder had, past the test
/// runner's capture.
fn fuzz(targets: &[&Target], executions: u64) {
    let seed = number("OTTLA_FUZZ_SEED").unwrap_or(1);
    let started = std::time::Instant::now();
    let counts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn(move || work(targets, seed + worker, executions.div_ceil(WORKERS)))
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<Counts>>| {
            worker.join().expect("a decoder failed, see above")
        };
        workers.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut report = String::new();
    let mut total = Counts::default();
    for (i, target) in targets.iter().enumerate() {
        let mut sum = Counts::default();
        for worker in &counts {
            sum.executions += worker[i].executions;
            sum.decoded += worker[i].decoded;
            sum.peak_max = sum.peak_max.max(worker[i].peak_max);
        }
        let (n, decoded, peak) = (sum.executions, sum.decoded, sum.peak_max);
        let _ = writeln!(
            report,
            "fuzz {:45} {n:>9} executions {decoded:>9} decoded {peak:>8} bytes at most",
            target.name
        );
        total.executions += n;
        total.decoded += decoded;
    }
    let _ = writeln!(
        report,
        "fuzz seed {seed}: {} executions, {} decoded, {} decoders, {:.1} s",
        total.executions,
        total.decoded,
        targets.len(),
        started.elapsed().as_secs_f64()
    );
    let _ = std::io::stderr().write_all(report.as_bytes());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a whole number"))
}

#[test]
fn hostile_bytes_neither_panic_nor_amplify() {
    let targets = targets();
    let all: Vec<&Target> = targets.iter().collect();
    let executions = if cfg!(debug_assertions) {
        200_000
    } else {
        10_000_000
    };
    fuzz(&all, number("OTTLA_FUZZ_EXECUTIONS").unwrap_or(executions));
}

/// Finds every array of every message, then the elements that take the most heap for their
/// bytes, and sends a frame full of them.
#[test]
fn no_array_amplifies() {
    let frame_bytes = if cfg!(debug_assertions) {
        1 << 15
    } else {
        1 << 17
    };
    let mut arrays = 0;
    let mut refused = 0;
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for target in targets() {
        if target.name == "request" {
            // The same messages behind a header.
            continue;
        }
        // The longest instance has elements nearly everywhere.
        let mut longest = BTreeMap::new();
        for (version, bytes) in &target.samples {
            let sample = longest.entry(*version).or_insert(bytes);
            if bytes.len() > sample.len() {
                *sample = bytes;
            }
        }
        if cfg!(debug_assertions) {
            longest = longest.split_off(&target.newest_version());
        }
        for (version, bytes) in longest {
            for array in arrays_of(&target, version, bytes) {
                let frame = array.frame(bytes, frame_bytes);
                let input = plain(&frame, version);
                let (error, peak) = checked(&target, &input);
                arrays += 1;
                refused += usize::from(error == Some(DecodeError::OverBudget));
                let ratio = peak as f64 / frame.len() as f64;
                let worst = worst.entry(target.name).or_default();
                *worst = worst.max(ratio);
            }
        }
    }
    let mut worst: Vec<_> = worst.into_iter().collect();
    worst.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, ratio) in &worst {
        let _ = writeln!(
            std::io::stderr(),
            "fuzz {name:45} heap at most {ratio:.1} times the frame"
        );
    }
    let _ = writeln!(
        std::io::stderr(),
        "fuzz {arrays} arrays in frames of {frame_bytes} bytes, {refused} refused over budget"
    );
    assert!(arrays > 1000, "{arrays} arrays");
}

/// An array of a sample, and elements for it.
struct Array {
    /// Where its count stands, and in how many bytes.
    at: usize,
    width: usize,
    /// Bytes to repeat as elements.
    element: Vec<u8>,
}

impl Array {
    /// The sample up to the array, which fills the rest.
    fn frame(&self, sample: &[u8], frame_bytes: usize) -> Bytes {
        let mut frame = sample[..self.at].to_vec();
        let count = frame_bytes / self.element.len();
        if self.width == 1 {
            frame.extend_from_slice(&uvarint(count as u32 + 1));
        } else {
            frame.extend_from_slice(&(count as u32).to_be_bytes());
        }
        for _ in 0..count {
            frame.extend_from_slice(&self.element);
        }
        Bytes::from(frame)
    }
}

fn plain(frame: &Bytes, version: i16) -> Input<'_> {
    Input {
        frame,
        version,
        borrowed: false,
        deep: false,
    }
}

/// A count stands where a number of elements is too much for the bytes left, which are none.
fn arrays_of(target: &Target, version: i16, sample: &Bytes) -> Vec<Array> {
    // 0x7f is a whole varint; as a classic count it is the first of four bytes.
    let counts: [(usize, &[u8]); 2] = [(1, &[0x7f]), (4, &[0x7f, 0xff, 0xff, 0xff])];
    let is_count = |at: usize, number: &[u8]| {
        let frame = Bytes::from([&sample[..at], number].concat());
        checked(target, &plain(&frame, version)).0 == Some(DecodeError::ArrayTooLong)
    };
    let array = |at| {
        let (width, _) = *counts.iter().find(|(_, number)| is_count(at, number))?;
        Some(Array {
            at,
            width,
            element: dearest_element(target, version, sample, at, width),
        })
    };
    let arrays_max = if cfg!(debug_assertions) {
        8
    } else {
        usize::MAX
    };
    (0..sample.len())
        .filter_map(array)
        .take(arrays_max)
        .collect()
}

/// Of chunks that follow the count, and of runs of one byte, the one with the highest peak
/// of heap.
fn dearest_element(
    target: &Target,
    version: i16,
    sample: &Bytes,
    at: usize,
    width: usize,
) -> Vec<u8> {
    let after = &sample[(at + width).min(sample.len())..];
    let chunks = (1..=after.len().min(96)).map(|len| after[..len].to_vec());
    let runs = [0, 1].into_iter().map(|byte| vec![byte]);
    let peak = |element: &Vec<u8>| {
        let array = Array {
            at,
            width,
            element: element.clone(),
        };
        let frame = array.frame(sample, 512);
        checked(target, &plain(&frame, version)).1
    };
    let dearest = chunks.chain(runs).max_by_key(peak);
    dearest.expect("there are runs")
}

#[test]
fn hostile_bytes_at_length_where_anyone_can_send_them() {
    if std::env::var_os("OTTLA_LONG").is_none() {
        return;
    }
    let targets = targets();
    for name in FOCUS {
        let target = targets.iter().find(|target| target.name == *name);
        fuzz(&[target.expect("a target of that name")], FOCUS_EXECUTIONS);
    }
}

#[test]
fn the_allocator_counts_both_blocks_of_a_move() {
    let (bytes, peak) = peak_of(|| {
        let mut bytes: Vec<u8> = Vec::with_capacity(1000);
        bytes.extend_from_slice(&[7; 1000]);
        bytes.reserve_exact(2000);
        bytes
    });
    assert!((4000..4100).contains(&peak), "{peak} for {}", bytes.len());
}
