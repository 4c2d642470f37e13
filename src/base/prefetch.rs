//! Asking the processor for memory before it is needed.
//!
//! Invariant: nothing here changes what a program sees; a processor that cannot be asked is not.

#![allow(unsafe_code)]

/// Has the processor fetch bytes that are read in a moment. What is picked from all over a large table is waited for otherwise, one
/// place after the other.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this kind has it, and it reads nothing that the program sees.
        unsafe { _mm_prefetch(line.as_ptr().cast::<i8>(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
