//! Bytes as a web page saved as one file.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cairn_fuzz::read(MediaType::WebArchive, "a.mhtml", bytes));
