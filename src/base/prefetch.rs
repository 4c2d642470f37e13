//! Prefetching memory into the processor's caches.
//!
//! Invariant: this never changes what a program sees; on processors without support it does nothing.

#![allow(unsafe_code)]

/// Prefetches bytes that are read soon. Otherwise, reads scattered over a large table wait for memory one after
/// another.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this architecture supports it, and it has no visible effect.
        unsafe { _mm_prefetch(line.as_ptr().cast::<i8>(), _MM_HINT_T0) };
    }
    #[cfg(target_arch = "aarch64")]
    for line in bytes.chunks(64) {
        // SAFETY: every processor of this architecture supports it, and it has no visible effect, faults included.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line.as_ptr(),
                options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = bytes;
}
