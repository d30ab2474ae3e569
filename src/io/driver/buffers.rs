//! The receive buffers that a core lends to the kernel: a ring of buffer descriptors
//! (`IORING_REGISTER_PBUF_RING`) over one block of memory.
//!
//! Owned by the core's [`Driver`](super::Driver), which hands a buffer out when a
//! completion names it and gives it back when its bytes were copied.
//!
//! Invariant: a buffer is either with the kernel (its descriptor is between the kernel's
//! head and our tail) or with us (`held`), never both.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types::BufRingEntry};

/// The only group of buffers on a ring.
pub(super) const GROUP: u16 = 0;

/// Number of a buffer in its pool, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferId(pub(super) u16);

pub(super) struct Buffers {
    /// `count` descriptors, page-aligned as the kernel wants them.
    descriptors: NonNull<BufRingEntry>,
    descriptors_layout: Layout,
    /// `count` buffers of `size` bytes.
    memory: NonNull<u8>,
    memory_layout: Layout,
    count: u16,
    size: u32,
    /// Descriptors published so far, modulo 2^16.
    tail: u16,
    /// Which buffers are with us.
    held: Vec<bool>,
    held_count: u16,
}

impl Buffers {
    /// Allocates `count` (a power of two, at most 2^15) buffers of `size` bytes and lends
    /// them to `ring`. The caller must keep the pool until the ring has no receive in
    /// flight and [`unregister`](Self::unregister) was called.
    pub(super) fn register(ring: &IoUring, count: u16, size: u32) -> io::Result<Buffers> {
        if !count.is_power_of_two() || count > 1 << 15 || size == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "receive buffers: the count must be a power of two up to 32768, the size not 0",
            ));
        }
        let descriptors_layout =
            Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE_BYTES)
                .map_err(io::Error::other)?;
        let memory_layout = Layout::from_size_align(usize::from(count) * size as usize, PAGE_BYTES)
            .map_err(io::Error::other)?;
        let mut buffers = Buffers {
            descriptors: allocate(descriptors_layout).cast(),
            descriptors_layout,
            memory: allocate(memory_layout),
            memory_layout,
            count,
            size,
            tail: 0,
            held: vec![true; usize::from(count)],
            held_count: count,
        };
        let address = buffers.descriptors.as_ptr() as u64;
        // SAFETY: `address` points at `count` zeroed descriptors, aligned to a page, which
        // live until `Buffers` is dropped, and that is after `unregister`.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        for id in 0..count {
            buffers.give(BufferId(id));
        }
        Ok(buffers)
    }

    pub(super) fn unregister(&self, ring: &IoUring) -> io::Result<()> {
        ring.submitter().unregister_buf_ring(GROUP)
    }

    /// Notes that the kernel has filled a buffer; it is ours until `give`.
    pub(super) fn take(&mut self, id: BufferId) {
        let held = &mut self.held[usize::from(id.0)];
        assert!(!*held, "the kernel fills only buffers that it was lent");
        *held = true;
        self.held_count += 1;
    }

    /// The first `len` bytes of a buffer that is ours.
    pub(super) fn bytes(&self, id: BufferId, len: usize) -> &[u8] {
        assert!(self.held[usize::from(id.0)], "the buffer is ours");
        assert!(len <= self.size as usize, "a completion fits its buffer");
        // SAFETY: the buffer lies within `memory` (asserted: `id` indexes `held`, which
        // has `count` entries), was zeroed at first, and nobody writes to it while it is
        // ours: the kernel gets it by `give` only, which needs `&mut self`.
        unsafe {
            let start = self.memory.as_ptr().add(self.offset(id));
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Lends a buffer of ours to the kernel again.
    pub(super) fn give(&mut self, id: BufferId) {
        let held = &mut self.held[usize::from(id.0)];
        assert!(*held, "only a buffer of ours is given back");
        *held = false;
        self.held_count -= 1;
        let index = usize::from(self.tail & (self.count - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `index` is below `count`, the number of descriptors. The kernel reads
        // descriptors between its head and the published tail only, and at most `count`
        // buffers exist, so this one isn't read yet. The tail shares memory with the first
        // descriptor's reserved field, which the setters don't touch; the kernel reads it
        // with acquire, so it is stored with release, after the descriptor.
        unsafe {
            let descriptor = &mut *self.descriptors.as_ptr().add(index);
            descriptor.set_addr(self.memory.as_ptr().add(self.offset(id)) as u64);
            descriptor.set_len(self.size);
            descriptor.set_bid(id.0);
            let tail = BufRingEntry::tail(self.descriptors.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// Whether so many buffers are ours that new bytes must not keep theirs.
    pub(super) fn are_scarce(&self) -> bool {
        u32::from(self.held_count) * 4 >= u32::from(self.count) * 3
    }

    fn offset(&self, id: BufferId) -> usize {
        usize::from(id.0) * self.size as usize
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both blocks were allocated with these layouts; the owner has
        // unregistered the ring of descriptors and no receive is in flight.
        unsafe {
            dealloc(self.descriptors.as_ptr().cast(), self.descriptors_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}

const PAGE_BYTES: usize = 4_096;

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: callers ask for at least one descriptor or buffer, so the size isn't 0.
    let block = unsafe { alloc_zeroed(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}
