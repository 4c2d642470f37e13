//! The program for aarch64 beside this machine's own: `make test-aarch64` builds it, runs it by qemu-user, and tests it with the tests
//! that this machine's own program passes, and with these, which compare the two.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cairn::base::{Lsn, SystemClock};
use cairn::store::{self, ChangeKind};
use serde_json::{Map, Value};

use crate::host::cut_the_power_while_writing;
use crate::host_guest::{self, Guest, is_board};
use crate::left_out::on_request;
use crate::node::{CAIRN, TestNode, assert_says, cairn, clean, json_of, list, stderr, stdout};
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

/// Its GPU helper; `None` where it was built without one.
fn gpu_helper() -> Option<PathBuf> {
    file()?;
    let helper = std::env::var_os("AARCH64_GPU_HELPER").map(PathBuf::from);
    if helper.is_none() {
        on_request("takes a program for aarch64 with its GPU helper; `make test-aarch64` builds one");
    }
    helper
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
    let Some(helper) = gpu_helper() else { return };
    let brief = Command::new("file").arg("--brief").arg(&helper).output().expect("file is installed");
    assert_says(&stdout(&brief), &["ARM aarch64", "dynamically linked", "/lib/ld-linux-aarch64.so.1"]);
    assert!(newest_glibc(&helper) <= DEBIAN_12, "{:?}", newest_glibc(&helper));
}

/// The emulator lets no process filter its system calls.
#[test]
fn a_gpu_helper_that_cannot_restrict_itself_says_so() {
    if gpu_helper().is_none() {
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

/// Both programs have added the manual to a store of their own, the emulated one first.
fn two_stores(folder: &Path) -> [PathBuf; 2] {
    let data = ["aarch64", "own"].map(|name| folder.join(name));
    // Each adds what it reads and embeds itself.
    for (data, program) in data.iter().zip([cairn(), clean(Command::new(CAIRN))]) {
        add_manual(program, data);
    }
    data
}

/// Has a program add the manual to its collection of that name, in a store that no node has open.
fn add_manual(mut program: Command, data: &Path) {
    let add = program.arg("--json").arg("add").arg(manual()).args(["-c", "manual", "--data-dir"]).arg(data);
    json_of(&add.output().expect("it runs"));
}

fn manual() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// A node that the emulator runs as this processor, on the store of `data`.
fn emulated_node(processor: &str, data: &Path) -> TestNode {
    let mut node = TestNode::with(&[("QEMU_CPU", processor)]);
    node.stop();
    fs::remove_dir_all(node.data_dir()).expect("removed");
    let copied = Command::new("cp").arg("-a").arg(data).arg(node.data_dir()).status().expect("cp runs");
    assert!(copied.success());
    node.restart();
    node
}

/// Asks a node, or a store that no node has open.
fn ask(question: &str, mode: &str, whom: [&str; 2]) -> Vec<Value> {
    let mut own = clean(Command::new(CAIRN));
    own.args(["--json", "search", question, "-c", "manual", "-n", "10", "--mode", mode]).args(whom);
    list(&json_of(&own.output().expect("it runs"))["results"]).to_vec()
}

/// As the emulator names them: a Raspberry Pi 4, a Raspberry Pi 5, and all that the emulator knows.
const PROCESSORS: &[(&str, &[&str])] = &[
    ("cortex-a72", &["NEON"]),
    ("cortex-a76", &["NEON", "NEON FP16", "NEON dot product"]),
    ("max", &["NEON", "NEON dot product", "NEON BF16", "SVE", "SVE dot product"]),
];

#[test]
fn every_processor_gives_this_machines_answers_of_the_same_store() {
    if file().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    add_manual(clean(Command::new(CAIRN)), &data);
    let nodes: Vec<_> = PROCESSORS.iter().map(|(processor, _)| (processor, emulated_node(processor, &data))).collect();
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
            let own = ask(question, mode, ["--data-dir", data.to_str().expect("a path in UTF-8")]);
            assert!(!own.is_empty(), "{question}: nothing found");
            for (processor, node) in &nodes {
                let emulated = ask(question, mode, ["--url", node.base()]);
                assert_same_results(&emulated, &own, &format!("{processor}: {mode}: {question}"));
            }
        }
    }
}

#[test]
fn processors_use_the_instructions_that_they_have() {
    if file().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (processor, expected) in PROCESSORS {
        let mut doctor = cairn();
        doctor.env("QEMU_CPU", processor).args(["--json", "doctor", "--data-dir"]).arg(folder.path().join("none"));
        let report = doctor.output().expect("it runs");
        let report: Value = serde_json::from_slice(&report.stdout).expect("a report");
        assert_eq!(report["cpu"]["architecture"], "aarch64");
        let found: Vec<&str> = list(&report["cpu"]["instructions"]).iter().filter_map(Value::as_str).collect();
        let missing: Vec<_> = expected.iter().filter(|one| !found.contains(one)).collect();
        assert!(missing.is_empty() && (*processor == "max" || found.len() == expected.len()), "{processor}: {found:?}");
    }
}

#[test]
fn both_embed_the_same_passages_byte_for_byte() {
    if file().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [emulated, own] = two_stores(folder.path()).map(|data| embeddings(&data));
    assert!(own.len() > 500, "{}", own.len());
    assert_eq!(emulated.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
    for (digest, bytes) in &own {
        assert_eq!(emulated.get(digest), Some(bytes), "{digest}");
    }
}

/// The embeddings of a store, by digest of their passages.
fn embeddings(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let config = store::Config::new(data.to_owned(), Arc::new(SystemClock));
    let (_writer, reader, _) = store::open(config).expect("it opens");
    let mut found = BTreeMap::new();
    for change in reader.changes_after(Lsn::ZERO) {
        let ChangeKind::DocumentPut { bodies, .. } = change.expect("it is read").kind else { continue };
        for body in bodies {
            let bytes = body.embedding.iter().flat_map(|component| component.to_le_bytes()).collect();
            found.insert(body.digest.to_string(), bytes);
        }
    }
    found
}

/// The same results in the same order.
#[track_caller]
fn assert_same_results(one: &[Value], other: &[Value], question: &str) {
    let ids = |results: &[Value]| results.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert!(!other.is_empty(), "{question}: nothing found");
    assert_eq!(ids(one), ids(other), "{question}");
    one.iter().zip(other).for_each(|(one, other)| assert_same_scores(one, other, question));
}

/// A bundle for both processors comes to a board with pages of 16 KiB and no network.
#[test]
fn a_board_is_installed_from_a_bundle_and_keeps_what_it_acknowledged() {
    if !is_board() {
        on_request("takes an emulated board; `make test-host ARCH=arm64` makes one");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let here = |arguments: &[&str]| {
        let output = clean(Command::new(CAIRN)).current_dir(folder.path()).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    let (program, manual) = (host_guest::program(), manual());
    let [program_name, manual] = [&program, &manual].map(|path| path.to_str().expect("a path in UTF-8"));
    here(&["bundle", "keygen", "-o", "site.key"]);
    let create = ["bundle", "create", "-o", "site.bundle", "--key", "site.key", "--documents", manual];
    here(&[&create[..], &["--with-platform", program_name]].concat());
    let Some(mut guest) = Guest::start(&[
        (&program, "/root/cairn"),
        (&folder.path().join("site.bundle"), "/root/site.bundle"),
        (&folder.path().join("site.pub"), "/root/site.pub"),
    ]) else {
        return;
    };
    assert_eq!(guest.must("uname -m; getconf PAGESIZE; ls /sys/class/net"), "aarch64\n16384\nlo\n");
    let install = "/root/cairn install --yes --bundle /root/site.bundle --public-key /root/site.pub --json";
    let installed: Value = serde_json::from_str(&guest.must(install)).expect("JSON");
    let (token, authority) = (installed["token"].as_str().expect("a token"), &installed["authority"]);
    let search = format!(
        "CAIRN_TOKEN={token} cairn search 'what happens at a power cut' -c docs --url https://127.0.0.1:7171 --ca {} --json",
        authority.as_str().expect("a path")
    );
    let before: Value = serde_json::from_str(&guest.must(&search)).expect("JSON");
    assert!(!results_of(&before).is_empty(), "{before}");
    cut_the_power_while_writing(&mut guest, 1);
    let after: Value = serde_json::from_str(&guest.must(&search)).expect("JSON");
    assert_eq!(results_of(&after), results_of(&before));
    let own_kib = guest.must("awk '/^RssAnon:/ { print $2 }' /proc/$(systemctl show -P MainPID cairn)/status");
    assert!(own_kib.trim().parse::<u64>().is_ok_and(|kib| kib < 32 << 10), "{own_kib}");
    let doctor = guest.must("systemctl stop cairn; cairn --data-dir /var/lib/cairn doctor");
    assert_says(&doctor, &["cpu      aarch64: NEON, NEON FP16, NEON dot product", "the log is whole"]);
    guest.shutdown();
}

fn results_of(answer: &Value) -> Vec<Value> {
    list(&answer["results"]).to_vec()
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
