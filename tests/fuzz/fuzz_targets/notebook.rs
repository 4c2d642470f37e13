//! Bytes as a notebook.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cairn_fuzz::read(MediaType::Notebook, "a.ipynb", bytes));
