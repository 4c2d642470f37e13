//! `cairn add`: folders kept in sync, every format read, and what cannot be read named and skipped.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::node::{CAIRN, TestNode, assert_says, cairn, clean, documents, list, stderr, stdout, texts};
use crate::pdf;

/// A node and a folder to add to it.
struct AddFixture {
    node: TestNode,
    folder: PathBuf,
}

impl AddFixture {
    fn new() -> Self {
        Self::with(TestNode::start())
    }

    fn with(node: TestNode) -> Self {
        let folder = node.scratch().join("docs");
        fs::create_dir(&folder).expect("created");
        Self { node, folder }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(&path, content).expect("written");
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.to_str().expect("UTF-8");
        self.node.cairn(&[&["--json", "add", folder, "-c", "fixture"], arguments].concat())
    }

    /// Adds the folder; everything in it must be readable.
    fn add(&self) -> Value {
        let output = self.run(&[]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Adds the folder; something in it must fail.
    fn add_with_failures(&self) -> Value {
        let output = self.run(&[]);
        assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn search(&self, query: &str) -> Value {
        let answer = self.node.call(
            "search",
            json!({"query": query, "mode": "lexical", "limit": 1, "detail": "full", "include": ["source"]}),
        );
        list(&answer["results"]).first().cloned().unwrap_or_default()
    }
}

/// Status of each file, in the order of their names.
fn statuses(report: &Value) -> Vec<(String, String)> {
    texts(&report["files"], "source").into_iter().zip(texts(&report["files"], "status")).collect()
}

/// Why a file was not taken.
fn reason(report: &Value, source: &str) -> String {
    let file = list(&report["files"]).iter().find(|file| file["source"] == source);
    let file = file.unwrap_or_else(|| panic!("{source} is not in {report}"));
    assert!(["failed", "skipped"].iter().any(|status| file["status"] == *status), "{file}");
    file["reason"].as_str().unwrap_or_else(|| panic!("no reason in {file}")).to_owned()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(source, status)| (source.to_owned(), status.to_owned())).collect()
}

#[test]
fn a_folder_is_kept_in_step() {
    let fixture = AddFixture::new();
    fixture.file("a.md", "# Anchors\n\nAn anchor holds the boat.\n");
    fixture.file("sub/b.txt", "A sail drives the boat.\n");
    fixture.file("c.md", "# Oars\n\nAn oar moves the boat.\n");
    let first = fixture.add();
    assert_eq!(
        statuses(&first),
        pairs(&[("docs/a.md", "created"), ("docs/c.md", "created"), ("docs/sub/b.txt", "created")])
    );

    let second = fixture.add();
    assert_eq!((&second["unchanged"], &second["passages"]), (&json!(3), &json!(0)), "nothing is written twice");

    fixture.file("a.md", "# Anchors\n\nAn anchor holds the ship.\n");
    fixture.file("d.md", "# Keels\n\nA keel steadies the boat.\n");
    fs::remove_file(fixture.folder.join("c.md")).expect("removed");
    let third = fixture.add();
    let expected =
        [("docs/a.md", "updated"), ("docs/c.md", "deleted"), ("docs/d.md", "created"), ("docs/sub/b.txt", "unchanged")];
    assert_eq!(statuses(&third), pairs(&expected));

    let listed = fixture.node.call("list_documents", json!({"collection": "fixture"}));
    assert_eq!(texts(&listed["documents"], "id"), ["fixture/docs/a.md", "fixture/docs/d.md", "fixture/docs/sub/b.txt"]);
    assert_eq!(fixture.search("ship")["source"]["document"], "docs/a.md");
    assert_eq!(fixture.search("oar"), Value::Null);
}

#[test]
fn keep_leaves_what_is_gone_and_a_dry_run_leaves_everything() {
    let fixture = AddFixture::new();
    let path = fixture.file("a.md", "An anchor holds the boat.");
    fixture.file("b.md", "A sail drives the boat.");
    let dry = fixture.run(&["--dry-run"]);
    let dry: Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    assert_eq!(dry, json!({"dry_run": true, "files": ["docs/a.md", "docs/b.md"]}));
    assert_eq!(fixture.node.call("get_status", json!({}))["documents"], 0);
    fixture.add();
    fs::remove_file(path).expect("removed");
    assert!(fixture.run(&["--keep"]).status.success());
    assert_eq!(fixture.search("anchor")["source"]["document"], "docs/a.md");
}

#[test]
fn metadata_from_the_command_line_can_be_filtered_by() {
    let fixture = AddFixture::new();
    fixture.file("a.md", "---\nteam: pumps\n---\n\nAn anchor holds the boat.");
    assert!(fixture.run(&["--meta", "site=north", "--meta", "year=2026"]).status.success());
    for filter in [json!({"site": "north"}), json!({"year": {"gte": 2026}}), json!({"team": "pumps"})] {
        let answer = fixture.node.call("search", json!({"query": "anchor", "filter": filter}));
        assert_eq!(documents(&answer), ["docs/a.md"], "{filter}");
    }
    let elsewhere = fixture.node.call("search", json!({"query": "anchor", "filter": {"site": "south"}}));
    assert_eq!(documents(&elsewhere), [""; 0]);
}

#[test]
fn every_format_is_read() {
    let fixture = AddFixture::new();
    fixture.file("boat.pdf", pdf::write(&[&pdf::page_about("anchors"), &pdf::page_about("spinnakers")]));
    fixture.file(
        "page.html",
        "<!doctype html><html><head><title>Winches</title><script>var capstan = 1;</script></head>\
        <body><nav>Menu</nav><h1>Winches</h1><p>A windlass lifts the chain.</p></body></html>",
    );
    fixture.file("crew.csv", "name,role\nAna,helmsman\nBo,bowman\n");
    fixture.file(
        "log.jsonl",
        "{\"_id\":\"day-1\",\"text\":\"We reefed in a squall.\"}\n{\"_id\":\"day-2\",\"text\":\"Doldrums all day.\"}\n",
    );
    fixture.file("parts.json", r#"[{"id":"p1","title":"Shackle","text":"A shackle joins two chains."}]"#);
    fixture
        .file("main.rs", "/// Computes the tack angle.\nfn tack_angle(heading: f64) -> f64 {\n    heading + 90.0\n}\n");
    fixture.file(
        "guide.mdx",
        "---\ntitle: Mooring\n---\nimport Tabs from '@theme/Tabs';\n\n<Tabs>\n\nUse a bollard.\n\n</Tabs>\n",
    );
    fixture.file("notes.txt", "The bilge is dry.");
    let report = fixture.add();
    assert_eq!((&report["created"], &report["failed"]), (&json!(8), &json!(0)), "{report}");
    for (query, document) in [
        ("anchors", "docs/boat.pdf"),
        ("windlass", "docs/page.html"),
        ("helmsman", "docs/crew.csv#2"),
        ("squall", "docs/log.jsonl#day-1"),
        ("doldrums", "docs/log.jsonl#day-2"),
        ("shackle", "docs/parts.json#p1"),
        ("tack_angle", "docs/main.rs"),
        ("bollard", "docs/guide.mdx"),
        ("bilge", "docs/notes.txt"),
    ] {
        assert_eq!(fixture.search(query)["source"]["document"], document, "{query}");
    }
    assert_eq!(
        (&fixture.search("anchors")["source"]["page"], &fixture.search("spinnakers")["source"]["page"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (&fixture.search("windlass")["title"], &fixture.search("bollard")["title"]),
        (&json!("Winches"), &json!("Mooring"))
    );
    assert_eq!(fixture.search("capstan"), Value::Null, "scripts are not text");
}

#[test]
fn records_of_a_file_are_kept_in_step_one_by_one() {
    let fixture = AddFixture::new();
    fixture.file("log.jsonl", "{\"_id\":\"1\",\"text\":\"We reefed.\"}\n{\"_id\":\"2\",\"text\":\"Doldrums.\"}\n{\"_id\":\"3\",\"text\":\"Landfall.\"}\n");
    fixture.add();
    fixture.file("log.jsonl", "{\"_id\":\"1\",\"text\":\"We reefed.\"}\n{\"_id\":\"2\",\"text\":\"Storm.\"}\n{\"_id\":\"4\",\"text\":\"Harbour.\"}\n");
    assert_eq!(statuses(&fixture.add()), pairs(&[("docs/log.jsonl", "updated")]));
    let listed = fixture.node.call("list_documents", json!({"collection": "fixture", "include": ["dates"]}));
    assert_eq!(
        texts(&listed["documents"], "id"),
        ["fixture/docs/log.jsonl#1", "fixture/docs/log.jsonl#2", "fixture/docs/log.jsonl#4"]
    );
    let versions: Vec<&Value> = list(&listed["documents"]).iter().map(|document| &document["version"]).collect();
    assert_eq!(versions, [&json!(1), &json!(2), &json!(1)]);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_goes_in() {
    let fixture = AddFixture::with(TestNode::with(&[("CAIRN_INGEST_SOURCE_BYTES_MAX", "256KiB")]));
    fixture.file("good.md", "# Good\n\nThis one is fine.\n");
    fixture.file("noise.txt", b"\x01\x02\xff\x03\x04\xfe\x05\x06\x07\x08");
    fixture.file("deep.json", format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    let whole = pdf::write(&["The whole file."]);
    fixture.file("torn.pdf", &whole[..whole.len() / 2]);
    fixture.file("secret.pdf", pdf::encrypt(&whole, "sesame"));
    fixture.file("empty.md", "");
    fixture.file("broken.json", "{\"a\": ");
    fixture.file("twice.jsonl", "{\"_id\":\"x\",\"text\":\"a\"}\n{\"_id\":\"x\",\"text\":\"b\"}\n");
    fixture.file("big.txt", "word ".repeat(100_000));
    let report = fixture.add_with_failures();
    assert_eq!((&report["created"], &report["failed"]), (&json!(1), &json!(7)), "{report}");
    assert_eq!((&report["skipped"], &report["error"]["code"]), (&json!(1), &json!("failed")), "{report}");
    assert_says(&reason(&report, "docs/noise.txt"), &["UTF-8", "iconv"]);
    assert_says(&reason(&report, "docs/deep.json"), &["nested deeper than"]);
    assert_says(&reason(&report, "docs/torn.pdf"), &["PDF"]);
    assert_says(&reason(&report, "docs/secret.pdf"), &["encrypted", "password"]);
    assert_says(&reason(&report, "docs/broken.json"), &["JSON"]);
    assert_says(&reason(&report, "docs/twice.jsonl"), &["'x'", "twice"]);
    assert_says(&reason(&report, "docs/big.txt"), &["256"]);
    assert_eq!(fixture.search("fine")["source"]["document"], "docs/good.md");

    // A file that went in before and cannot be read now keeps what it had.
    fixture.file("good.md", b"\x01\x02\xff\x03\x04\xfe\x05\x06\x07\x08");
    assert_says(&reason(&fixture.add_with_failures(), "docs/good.md"), &["UTF-8"]);
    assert_eq!(fixture.search("fine")["source"]["document"], "docs/good.md");
}

#[test]
fn pictures_and_archives_in_a_folder_are_skipped_but_named_ones_fail() {
    let fixture = AddFixture::new();
    fixture.file("good.md", "This one is fine.");
    fixture.file("photo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    fixture.file("tool", [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 64]].concat());
    let junk: Vec<u8> = (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let junk = fixture.file("junk.dat", junk);
    let report = fixture.add();
    assert_eq!(
        (&report["created"], &report["skipped"], &report["failed"]),
        (&json!(1), &json!(3), &json!(0)),
        "{report}"
    );

    let output = fixture.node.cairn(&["add", junk.to_str().expect("UTF-8"), "-c", "fixture"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stdout(&output), &["failed", "junk.dat", "binary"]);
}

#[test]
fn loops_pipes_and_dead_links_hold_nothing_up() {
    let fixture = AddFixture::new();
    fixture.file("sub/good.md", "This one is fine.");
    symlink(&fixture.folder, fixture.folder.join("sub/loop")).expect("linked");
    symlink(fixture.folder.join("nowhere"), fixture.folder.join("dead.md")).expect("linked");
    symlink("self.md", fixture.folder.join("self.md")).expect("linked");
    mknodat(CWD, fixture.folder.join("pipe.md"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    let output = fixture.run(&[]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["created"], 1, "{report}");
    assert_eq!(fixture.search("fine")["source"]["document"], "docs/sub/good.md");
    let looped = list(&report["files"]).iter().find(|file| file["source"] == "docs/sub/loop");
    assert_eq!(looped.expect("it is named")["status"], "skipped");
    assert_says(&reason(&report, "docs/dead.md"), &["a link that leads nowhere"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let pipe = fixture.folder.join("pipe.md");
    let output = fixture.node.cairn(&["add", pipe.to_str().expect("UTF-8"), "-c", "fixture"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stdout(&output), &["pipe.md"]);
}

#[test]
fn what_the_kernel_shows_of_itself_is_left_out() {
    let fixture = AddFixture::new();
    fixture.file("good.md", "This one is fine.");
    // Links there lead to all of the machine: a walk would take hours, and find everything many times.
    symlink("/proc/self", fixture.folder.join("machine")).expect("linked");
    let report = fixture.add();
    assert_eq!(statuses(&report), pairs(&[("docs/good.md", "created"), ("docs/machine", "skipped")]));
    let machine = list(&report["files"]).iter().find(|file| file["source"] == "docs/machine").expect("it is named");
    assert_says(&machine["reason"].to_string(), &["file system of the kernel"]);
}

#[test]
fn a_gigabyte_is_refused_without_reading_it() {
    let fixture = AddFixture::new();
    let path = fixture.file("good.md", "This one is fine.");
    let huge = fs::File::create(fixture.folder.join("huge.txt")).expect("created");
    huge.set_len(1 << 30).expect("a sparse file");
    let report = fixture.add_with_failures();
    assert_says(&reason(&report, "docs/huge.txt"), &["1 GiB", "64 MiB"]);
    assert_eq!(report["created"], 1);
    assert!(path.exists());
    assert!(peak_memory(fixture.node.pid()) < 512 << 20, "the node never held it");
}

/// Most memory that a process ever had resident, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kib << 10
}

#[test]
fn an_unreadable_folder_is_named_and_nothing_of_it_is_deleted() {
    let fixture = AddFixture::new();
    fixture.file("open.md", "This one is fine.");
    fixture.file("closed/kept.md", "This one is out of reach later.");
    fixture.add();
    let closed = fixture.folder.join("closed");
    let mode = |mode: u32| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("changed");
    mode(0o000);
    let output = as_nobody(&fixture);
    mode(0o755);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(output.status.code(), Some(1));
    assert_says(&reason(&report, "docs/closed"), &["this user may not read it"]);
    assert_eq!((&report["unchanged"], &report["deleted"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(fixture.search("reach")["source"]["document"], "docs/closed/kept.md");
}

/// Runs the sync as a user whom permissions hold back: root reads everything.
fn as_nobody(fixture: &AddFixture) -> Output {
    if !rustix::process::geteuid().is_root() {
        return fixture.run(&[]);
    }
    const NOBODY: u32 = 65_534;
    let readable = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
    let program = fixture.node.scratch().join("cairn");
    fs::copy(CAIRN, &program).expect("copied");
    readable(fixture.node.scratch());
    readable(&program);
    clean(std::process::Command::new(program))
        .args(["--json", "--url", fixture.node.base(), "add"])
        .arg(&fixture.folder)
        .args(["-c", "fixture"])
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

#[test]
fn hidden_and_ignored_files_stay_out() {
    let fixture = AddFixture::new();
    fixture.file(".gitignore", "drafts/\n*.tmp\n");
    fixture.file(".secret.md", "hidden");
    fixture.file("drafts/a.md", "ignored");
    fixture.file("b.tmp", "ignored");
    fixture.file("c.md", "taken");
    assert_eq!(statuses(&fixture.add()), pairs(&[("docs/c.md", "created")]));
}

#[test]
fn files_with_any_name_go_in() {
    let fixture = AddFixture::new();
    let names = ["two words.md", "ünï ✓.md", "a#3.md", "50%.md", "q?x=1&y.md", "plus+.md", "'quote\".md"];
    for (number, name) in names.iter().enumerate() {
        fixture.file(name, format!("The code word is w{}x.", number * 7919));
    }
    let report = fixture.add();
    assert_eq!(report["created"], names.len(), "{report}");
    for (number, name) in names.iter().enumerate() {
        let hit = fixture.search(&format!("w{}x", number * 7919));
        assert_eq!(hit["source"]["document"], format!("docs/{name}"));
        let document = fixture.node.call("fetch", json!({"id": format!("fixture/docs/{name}")}));
        assert_eq!(document["text"], format!("The code word is w{}x.", number * 7919), "{name}");
    }
    assert_eq!(fixture.add()["unchanged"], names.len());
}

#[test]
fn without_a_node_the_data_directory_is_filled_all_the_same() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let folder = directory.path().join("docs");
    fs::create_dir(&folder).expect("created");
    fs::write(folder.join("a.md"), "An anchor holds the boat.").expect("written");
    let run = |arguments: &[&str]| {
        cairn().arg("--data-dir").arg(directory.path().join("data")).args(arguments).output().expect("the binary runs")
    };
    let added = run(&["add", folder.to_str().expect("UTF-8"), "-c", "fixture"]);
    assert!(added.status.success(), "{}", stderr(&added));
    assert_says(&stdout(&added), &["created", "docs/a.md"]);
    let found = run(&["search", "anchor"]);
    assert_says(&stdout(&found), &["An anchor holds the boat.", "fixture/docs/a.md#0"]);
}
