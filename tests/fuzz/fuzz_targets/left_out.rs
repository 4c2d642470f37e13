//! Any file of a folder: whether it is left out, what it is, and which saved page it may be a part of.
#![no_main]

use cairn::ingest::{MediaType, left_out, pages_saved_with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((name, bytes)) = cairn_fuzz::named(bytes) else { return };
    let detected = MediaType::detect(name, &bytes[..bytes.len().min(8 << 10)]);
    if let Some((kind, error)) = left_out(name, bytes) {
        assert_eq!(error.file_kind(), Some(kind), "what is left out has a kind");
        assert!(!error.to_string().is_empty() && !kind.label(1).is_empty());
    } else {
        assert!(detected.is_ok(), "what is not left out has a format");
    }
    assert!(pages_saved_with(name).iter().all(|page| page.len() <= name.len() + 6), "a page lies beside its folder");
    if let Some(media_type) = MediaType::from_mime(name) {
        assert_eq!(MediaType::from_mime(media_type.as_str()), Some(media_type));
    }
});
