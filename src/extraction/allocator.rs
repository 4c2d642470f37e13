//! The program's allocator: in a child that reads documents it counts bytes, elsewhere it only forwards calls.
//!
//! The count is exact and independent of how the allocator rounds and caches, so that the same document needs the same
//! memory everywhere; and the process can report a document that needs too much. A kernel limit could only make some
//! allocation fail. One is set in addition ([`super::sandbox`]), in case a process has been taken over.
//!
//! Unsafe: [`GlobalAlloc`] is, and its contract is fulfilled by forwarding every call unchanged.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicIsize, Ordering};

/// Exit status of a child whose document needed too much memory.
pub(super) const OUT_OF_MEMORY: i32 = 77;

/// Bytes that may be in use; `isize::MAX` where nothing is counted.
static LIMIT: AtomicIsize = AtomicIsize::new(isize::MAX);
/// Bytes in use since [`set_limit`]; negative when older memory was freed since. Separate loads and stores suffice:
/// counting processes have one thread.
static USED: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Starts counting, and ends the process with [`OUT_OF_MEMORY`] when more than `limit` bytes are requested. For
/// processes with one thread.
pub(super) fn set_limit(limit: u64) {
    USED.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
    LIMIT.store(isize::try_from(limit).unwrap_or(isize::MAX - 1).min(isize::MAX - 1), Ordering::Relaxed);
}

/// Peak number of bytes since [`set_limit`].
pub(super) fn peak() -> u64 {
    PEAK.load(Ordering::Relaxed).max(0).unsigned_abs() as u64
}

#[inline]
fn count(grown: isize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit != isize::MAX {
        count_within(grown, limit);
    }
}

#[cold]
#[inline(never)]
fn count_within(grown: isize, limit: isize) {
    let used = USED.load(Ordering::Relaxed).saturating_add(grown);
    if used > limit {
        // SAFETY: it ends the process without running anything.
        unsafe { libc::_exit(OUT_OF_MEMORY) }
    }
    USED.store(used, Ordering::Relaxed);
    if used > PEAK.load(Ordering::Relaxed) {
        PEAK.store(used, Ordering::Relaxed);
    }
}

/// An allocator that counts what `A` gives, in children that read documents.
#[derive(Debug)]
pub struct Counted<A>(pub A);

// SAFETY: every call and every result is forwarded to and from `A` unchanged; a size is at most `isize::MAX` by the
// contract of `Layout`.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller fulfils the contract.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller fulfils the contract.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller fulfils the contract.
        unsafe { self.0.dealloc(place, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller fulfils the contract.
        unsafe { self.0.realloc(place, layout, size) }
    }
}
