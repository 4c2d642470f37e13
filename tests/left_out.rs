//! What a test run leaves out, and why: said in one place, so that a run that tested less does not look like one that tested all.
//!
//! What is left out because the machine lacks something (root, the emulated host, a kernel's feature) fails where `CI` is set: there
//! everything has to run. Each reason is a line in the file that `CAIRN_TEST_LEFT_OUT` names; `make test` counts them at its end.
//! Used by the unit tests, which include this file through `base`, and by the integration tests.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

/// The calling test, or the rest of it, is left out, because this machine lacks what it takes.
///
/// # Panics
/// Where `CI` is set.
#[track_caller]
pub fn left_out(reason: &str) {
    assert!(env::var_os("CI").is_none(), "left out: {reason}; where CI is set, everything has to run");
    note(reason);
}

/// The calling test is one that runs when it is asked for: it takes minutes, or a server of somebody's own.
pub fn on_request(how: &str) {
    note(how);
}

fn note(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("LEFT OUT: {test}: {reason}");
    let Some(path) = env::var_os("CAIRN_TEST_LEFT_OUT") else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{reason}\t{test}\n").as_bytes()));
    written.expect("the list of what was left out is written");
}
