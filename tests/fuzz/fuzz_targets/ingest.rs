//! Any bytes under any name, as a file that somebody adds: the format is detected, what comes out is checked.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((name, bytes)) = cairn_fuzz::named(bytes) else { return };
    if let Ok(media_type) = MediaType::detect(name, &bytes[..bytes.len().min(8 << 10)]) {
        cairn_fuzz::read(media_type, name, bytes);
    }
});
