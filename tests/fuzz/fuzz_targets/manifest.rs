//! Bytes as a snapshot's manifest.
#![no_main]

use cairn::snapshot::SnapshotManifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = SnapshotManifest::decode(bytes) {
        let again = SnapshotManifest::decode(&manifest.encode()).expect("what was read can be written and read");
        assert_eq!(again, manifest);
    }
});
