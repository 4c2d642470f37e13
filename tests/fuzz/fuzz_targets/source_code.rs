//! Bytes as programs and configuration; the first one chooses the language.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

/// One of each kind that is read in its own way.
const NAMES: &[&str] = &["a.rs", "a.py", "a.go", "a.c", "a.sh", "a.yaml", "a.toml", "a.xml", "a.sql", "a.ini", "Makefile"];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    cairn_fuzz::read(MediaType::SourceCode, NAMES[usize::from(*choice) % NAMES.len()], bytes);
});
