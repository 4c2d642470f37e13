//! Bytes as what a Markdown file says of itself; the first one chooses the notation.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

/// What stands before and behind the fields.
const FENCES: &[(&str, &str)] = &[("---\n", "\n---\nwords"), ("+++\n", "\n+++\nwords"), ("{\n", "\n}\nwords")];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (before, behind) = FENCES[usize::from(*choice) % FENCES.len()];
    cairn_fuzz::read(MediaType::Markdown, "a.md", &[before.as_bytes(), bytes, behind.as_bytes()].concat());
});
