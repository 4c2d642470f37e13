//! The program for aarch64 beside this machine's own: `make test-aarch64` builds it, runs it by qemu-user, and tests it with the tests
//! that this machine's own program passes, and with these, which compare the two.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value};

use crate::left_out::on_request;
use crate::node::{CAIRN, assert_says, cairn, clean, json_of, list, stdout};
use crate::static_binary::{DEBIAN_12, newest_glibc};

/// How far a score may be from the other processor's, whose kernels add in another order: it is shown with four decimals.
const TOLERANCE: f64 = 1.5e-4;

/// The program for aarch64, as a file; `None` where the emulator is not in use.
fn file() -> Option<PathBuf> {
    let file = std::env::var_os("AARCH64_PROGRAM").map(PathBuf::from);
    if file.is_none() {
        on_request("takes a program for aarch64; `make test-aarch64` builds one");
    }
    file
}

/// What both programs answer to the same arguments, the emulated one first.
fn both(arguments: &[&str]) -> [Output; 2] {
    [cairn(), clean(Command::new(CAIRN))].map(|mut command| command.args(arguments).output().expect("it runs"))
}

#[test]
fn the_file_is_static_and_fits_every_page_size() {
    let Some(file) = file() else { return };
    let brief = Command::new("file").arg("--brief").arg(&file).output().expect("file is installed");
    assert_says(&stdout(&brief), &["ARM aarch64", "static-pie linked", "stripped"]);
    // Kernels have pages of 4, 16 or 64 KiB; the largest decides.
    let headers = Command::new("readelf").args(["-lW"]).arg(&file).output().expect("readelf is installed");
    let headers = stdout(&headers);
    let aligned: Vec<&str> = headers
        .lines()
        .filter(|line| line.trim_start().starts_with("LOAD"))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert!(aligned.len() > 1 && aligned.iter().all(|alignment| *alignment == "0x10000"), "{headers}");
}

/// Loaders of Jetson's and Raspberry Pi OS take what Debian 12's takes.
#[test]
fn its_gpu_helper_asks_for_no_newer_c_library_than_debian_12_has() {
    let Some(file) = file() else { return };
    let target = file.ancestors().nth(2).expect("target/aarch64-unknown-linux-gnu/PROFILE/cairn");
    let helper = target.join("gpu-helper/aarch64-unknown-linux-gnu/helper/cairn-gpu");
    let brief = Command::new("file").arg("--brief").arg(&helper).output().expect("file is installed");
    assert_says(&stdout(&brief), &["ARM aarch64", "dynamically linked", "/lib/ld-linux-aarch64.so.1"]);
    assert!(newest_glibc(&helper) <= DEBIAN_12, "{:?}", newest_glibc(&helper));
}

/// The emulator lets no process filter its system calls.
#[test]
fn a_gpu_helper_that_cannot_restrict_itself_says_so() {
    if file().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gpu.md");
    let add = cairn().arg("--json").arg("add").arg(document).args(["-c", "gpu", "--data-dir"]).arg(&data).output();
    json_of(&add.expect("it runs"));
    let output = cairn().args(["doctor", "--data-dir"]).arg(&data).output().expect("it runs");
    let shown = stdout(&output);
    assert_says(&shown, &["gpu      none: ", "cannot restrict its own system calls"]);
    assert!(!shown.contains("version of the driver"), "{shown}");
}

#[test]
fn both_give_the_same_answers_of_the_same_store() {
    if file().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let manual = manual.to_string_lossy();
    let data: Vec<String> =
        ["aarch64", "own"].map(|name| folder.path().join(name).to_string_lossy().into_owned()).to_vec();
    // Each adds what it reads and embeds itself, and each answers from both stores.
    for (data, mut program) in data.iter().zip([cairn(), clean(Command::new(CAIRN))]) {
        json_of(
            &program.args(["--json", "add", &manual, "-c", "manual", "--data-dir", data]).output().expect("it runs"),
        );
    }
    for question in [
        "How do I add my own documents?",
        "restore a snapshot after a disk failed",
        "who may read a collection",
        "`cairn rollback`",
        "GPU",
        "what happens at a power cut",
        "Kubernetes ingress",
        "memory of a small board",
    ] {
        for mode in ["hybrid", "dense", "lexical"] {
            let arguments =
                |data| ["--json", "search", question, "-c", "manual", "-n", "10", "--mode", mode, "--data-dir", data];
            let [of_theirs, of_own] = [0, 1].map(|store| both(&arguments(&data[store])).map(|output| results(&output)));
            for [emulated, own] in [&of_theirs, &of_own] {
                assert!(!own.is_empty(), "{question}: nothing found");
                let ids = |results: &[Value]| results.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
                assert_eq!(ids(emulated), ids(own), "{mode}: {question}");
                emulated.iter().zip(own).for_each(|(one, other)| assert_same_scores(one, other, question));
            }
            // Documents come into a store in another order each time, and that decides between equal scores.
            let own = &of_own[1];
            for (one, other) in of_theirs[0].iter().zip(own) {
                let same = own.iter().find(|other| other["id"] == one["id"]);
                assert_same_scores(one, same.unwrap_or(other), question);
            }
        }
    }
}

fn results(output: &Output) -> Vec<Value> {
    list(&json_of(output)["results"]).to_vec()
}

#[track_caller]
fn assert_same_scores(one: &Value, other: &Value, question: &str) {
    let scores = other["score"].as_object().expect("scores");
    assert_eq!(one["score"].as_object().map(Map::len), Some(scores.len()), "{question}");
    for (name, score) in scores {
        let [found, expected] = [&one["score"][name], score].map(|score| score.as_f64().expect("a number"));
        assert!(
            (found - expected).abs() <= TOLERANCE,
            "{question}: {name} of {} is {found}, not {expected}",
            one["id"]
        );
    }
}
