//! The other end of `e2e`: one thread that fetches one partition and takes each record's
//! latency from the intended time that it carries. Started by `scenario`.
//!
//! Every batch's CRC is checked, and that offsets follow each other without a gap.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::{ANSWER_WAIT, Client};
use super::load::{cpu_ns, ns};
use super::record::histogram;
use super::schedule::Window;
use super::template::stamp_of;
use crate::record::{BatchError, Batches, records};

const FETCH_BYTES_MAX: i32 = 1 << 20;
const FETCH_WAIT: Duration = Duration::from_millis(100);

pub struct Arrival<'a> {
    pub client: Client,
    pub topic: &'a str,
    pub partition: i32,
    pub from_offset: i64,
    pub window: Window,
    pub epoch: Instant,
    /// Records that the producer had acknowledged; `u64::MAX` while it runs.
    pub expected: &'a AtomicU64,
}

pub struct Arrived {
    pub latencies: Histogram<u64>,
    /// Warm-up included.
    pub records: u64,
    /// Of those due in the window, the ones that came in time.
    pub achieved: u64,
    pub cpu_percent: f64,
}

/// Runs until everything that was acknowledged has arrived.
pub fn run(mut arrival: Arrival<'_>) -> Result<Arrived, String> {
    let cpu_before = cpu_ns();
    let began_ns = ns(arrival.epoch);
    let give_up_ns = arrival.window.to_ns + ANSWER_WAIT.as_nanos() as u64;
    let mut found = Arrived {
        latencies: histogram(),
        records: 0,
        achieved: 0,
        cpu_percent: 0.0,
    };
    let mut offset = arrival.from_offset;
    while found.records < arrival.expected.load(Ordering::Acquire) && ns(arrival.epoch) < give_up_ns
    {
        let fetched = arrival.client.fetch(
            arrival.topic,
            arrival.partition,
            offset,
            FETCH_BYTES_MAX,
            FETCH_WAIT,
        )?;
        let now_ns = ns(arrival.epoch);
        offset = take(&fetched, offset, now_ns, arrival.window, &mut found)?;
    }
    let elapsed = ns(arrival.epoch).saturating_sub(began_ns).max(1);
    found.cpu_percent = (cpu_ns() - cpu_before) as f64 * 100.0 / elapsed as f64;
    Ok(found)
}

/// Takes the records from `offset` on; returns the offset after them.
fn take(
    fetched: &[u8],
    mut offset: i64,
    now_ns: u64,
    window: Window,
    found: &mut Arrived,
) -> Result<i64, String> {
    for batch in Batches::new(fetched) {
        let batch = match batch {
            Ok(batch) => batch,
            // The rest comes with the next fetch.
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => return Err(format!("fetch at {offset}: {error}")),
        };
        if batch.base_offset().0 != offset {
            let came = batch.base_offset().0;
            return Err(format!("fetch: offset {came} came instead of {offset}"));
        }
        if !batch.verify_crc() {
            return Err(format!("fetch at {offset}: the batch's CRC is wrong"));
        }
        let fault = |error| format!("fetch at {offset}: {error}");
        let mut all = records(&batch).map_err(fault)?;
        while let Some(record) = all.next() {
            let record = record.map_err(fault)?;
            let intended_ns = record
                .value
                .and_then(stamp_of)
                .ok_or_else(|| format!("fetch at {offset}: a record that we didn't send"))?;
            found.records += 1;
            if window.contains(intended_ns) {
                found.achieved += u64::from(now_ns < window.achieved_until_ns());
                let latency = now_ns.saturating_sub(intended_ns).max(1);
                found.latencies.saturating_record(latency);
            }
        }
        offset = batch.next_offset().0;
    }
    Ok(offset)
}
