//! Bytes as a segment file: read in full, cut, asked for times.
#![no_main]

use std::fs;

use cairn::base::{Lsn, UnixMillis};
use cairn::store::{check_segment, cut_segment, lsn_at};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = format!("/dev/shm/cairn-fuzz-{}.seg", std::process::id());
    fs::write(&path, bytes).expect("memory for the file");
    let path = path.as_ref();
    if let Ok(report) = check_segment(path) {
        let _ = lsn_at(path, report.last_time);
        let _ = lsn_at(path, UnixMillis(0));
        if let Ok(last) = cut_segment(path, Lsn(report.first.0 + report.records / 2)) {
            let cut = check_segment(path).expect("what was readable stays so");
            assert!(cut.end.0 <= last.0 + 1 || !cut.damage.is_empty());
        }
    }
});
