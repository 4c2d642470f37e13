//! One file, and nothing else: the binary needs no library, no loader, no file and no device of the machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::left_out::left_out;
use crate::node::{CAIRN, agent, assert_says, clean, documents, send, stderr, stdout};

#[test]
fn the_binary_is_static() {
    let file = Command::new("file").args(["--brief", CAIRN]).output().expect("file is installed");
    assert_says(&stdout(&file), &["static-pie linked", "stripped"]);
    let ldd = Command::new("ldd").arg(CAIRN).env("LC_ALL", "C").output().expect("ldd is there");
    let said = format!("{}{}", stdout(&ldd), stderr(&ldd));
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

/// The newest version of glibc that a file asks for.
pub fn newest_glibc(file: &Path) -> (u32, u32) {
    let listed =
        Command::new("readelf").args(["--version-info", "--wide"]).arg(file).output().expect("readelf is there");
    let listed = stdout(&listed);
    let versions = listed.split("GLIBC_").skip(1).filter_map(|rest| {
        let version = rest.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    versions.max().unwrap_or_else(|| panic!("no version of glibc in {listed}"))
}

/// glibc of Debian 12, the oldest system that the GPU helper has to start on.
pub const DEBIAN_12: (u32, u32) = (2, 36);

#[test]
fn the_gpu_helper_asks_for_no_newer_c_library_than_debian_12_has() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let helper = folder.path().join("cairn-gpu");
    fs::write(&helper, cairn::index::gpu::helper_program().expect("a build with the helper")).expect("written");
    assert!(newest_glibc(&helper) <= DEBIAN_12, "{:?}", newest_glibc(&helper));
}

/// A process that ends with its test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The error is "it has ended": what was wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_from_an_empty_root() {
    if !rustix::process::geteuid().is_root() {
        left_out("an empty root takes root to enter");
        return;
    }
    let root = tempfile::tempdir().expect("temporary directory");
    let place = root.path().join("cairn");
    fs::copy(CAIRN, &place).expect("copied");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut command = clean(Command::new("/usr/sbin/chroot"));
    command.arg(root.path()).args(["/cairn", "--json", "serve", "--data-dir", "/data"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Killed(command.spawn().expect("chroot is there"));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("the line with the addresses");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    let base = line["mcp"].as_str().expect("an address").trim_end_matches("/mcp").to_owned();
    let call = |tool: &str, arguments: Value| -> Value {
        let headers = [("content-type", "application/json")];
        let url = format!("{base}/v1/tools/{tool}");
        let answer = send(&agent(), "POST", &url, &headers, Some(arguments.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let heron = json!([{"id": "heron.md", "text": "The heron stands in the reeds."}]);
    call("add_documents", json!({"collection": "birds", "documents": heron}));
    let found = call("search", json!({"query": "bird between the reeds"}));
    assert_eq!(documents(&found), ["heron.md"]);
    drop(process);
    let mut there: Vec<String> = fs::read_dir(root.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert!(there.iter().all(|name| ["cairn", "data", "data-snapshots"].contains(&name.as_str())), "{there:?}");
}
