//! Bytes as a page of a bucket's listing.
#![no_main]

use cairn::snapshot::check_page;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match check_page(bytes) {
        Ok(()) => assert!(bytes.windows(16).any(|name| name == b"ListBucketResult"), "what is taken is a listing"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
