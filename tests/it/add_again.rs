//! `cairn add` a second time, from elsewhere, with odd names, on a full disk, and while the node goes away: what it says is so.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, list, run_on, stderr, stdout, texts};

/// Writes a file, with the folders above it.
fn file(folder: &Path, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, content).expect("written");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}{}", stdout(output), stderr(output)))
}

/// Ids of the documents of a collection.
fn ids(node: &TestNode, collection: &str) -> Vec<String> {
    texts(
        &node.call("list_documents", json!({"collection": collection, "limit": 1000, "max_tokens": 200_000}))["documents"],
        "id",
    )
}

/// Status and reason of a file.
fn of(report: &Value, source: &str) -> (String, String) {
    let file = list(&report["files"]).iter().find(|file| file["source"] == source);
    let file = file.unwrap_or_else(|| panic!("{source} is not in {report}"));
    let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn what_was_taken_out_of_a_file_is_not_found_any_more() {
    let node = TestNode::start();
    let folder = node.scratch().join("plant");
    file(&folder, "access.md", "# Access\n\nThe code of the gate is 4711.\n");
    file(&folder, "crew.csv", "name,shift\nAna,early\nBo,late\n");
    file(&folder, "events.json", r#"[{"id": "e1", "text": "Valve V7 leaked."}]"#);
    file(&folder, "log.jsonl", "{\"_id\":\"1\",\"text\":\"Pump P3 tripped.\"}\n");
    file(&folder, "kept.md", "The basin is full.\n");
    let add = || node.cairn(&["--json", "add", text(&folder), "-c", "plant"]);
    assert_eq!(report(&add())["created"], 5);
    file(&folder, "access.md", "");
    file(&folder, "crew.csv", "name,shift\n");
    file(&folder, "events.json", "[]");
    file(&folder, "log.jsonl", " \n");
    let emptied = add();
    assert_eq!(emptied.status.code(), Some(0), "{}", stderr(&emptied));
    let emptied = report(&emptied);
    assert_eq!((&emptied["deleted"], &emptied["unchanged"]), (&json!(4), &json!(1)), "{emptied}");
    assert_eq!(of(&emptied, "plant/access.md").0, "deleted");
    assert_eq!(ids(&node, "plant"), ["plant/plant/kept.md"]);
    for query in ["4711", "Ana", "leaked", "tripped"] {
        let answer = node.call("search", json!({"query": query, "mode": "lexical"}));
        assert_eq!(answer["results"], json!([]), "{query}");
    }
    // From then on they are what an empty file always is.
    let again = report(&add());
    assert_eq!((&again["deleted"], &again["skipped"], &again["failed"]), (&json!(0), &json!(4), &json!(0)), "{again}");
    file(&folder, "access.md", "# Access\n\nThe code of the gate is 1147.\n");
    assert_eq!(report(&add())["created"], 1);
}

#[test]
fn files_without_text_are_skipped_and_a_broken_one_is_news_once() {
    let node = TestNode::start();
    let folder = node.scratch().join("code");
    file(&folder, "lib/__init__.py", "");
    file(&folder, "py.typed", "");
    file(&folder, "lib/a.py", "def f(): pass\n");
    let add = |more: &[&str]| node.cairn(&[&["add", text(&folder), "-c", "code"], more].concat());
    let first = add(&[]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert_says(&stderr(&first), &["2 skipped: 2 files without text; -v names them"]);
    assert!(!stdout(&first).contains("__init__"), "{}", stdout(&first));
    assert_says(&stdout(&add(&["-v"])), &["skipped", "code/lib/__init__.py: there is no text in it"]);

    file(&folder, "broken.json", "{\"a\": ");
    let broken = add(&[]);
    assert_eq!(broken.status.code(), Some(1));
    assert_says(&stdout(&broken), &["failed", "code/broken.json", "JSON"]);
    // A restart and another client make no difference: the log remembers.
    let again = add(&[]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_says(&stderr(&again), &["1 failed", "1 file still cannot be read, as last time; -v names them"]);
    assert!(!stdout(&again).contains("broken.json"), "{}", stdout(&again));
    assert_says(&stdout(&add(&["-v"])), &["failed", "code/broken.json"]);
    let named = node.cairn(&["add", text(&folder.join("broken.json")), "-c", "code", "--prefix", "code"]);
    assert_eq!(named.status.code(), Some(1), "somebody asked for it");
    let json = report(&add(&["--json"]));
    let entry = list(&json["files"]).iter().find(|file| file["source"] == "code/broken.json").expect("listed");
    assert_eq!((&entry["status"], &entry["as_last_time"]), (&json!("failed"), &json!(true)));
    file(&folder, "broken.json", "{\"b\": ");
    assert_eq!(add(&[]).status.code(), Some(1), "other bytes");
    file(&folder, "broken.json", "{\"b\": \"mended\"}");
    assert_eq!(add(&[]).status.code(), Some(0));
    file(&folder, "broken.json", "{\"b\": ");
    assert_eq!(add(&[]).status.code(), Some(1), "broken again is news");
}

#[test]
fn a_broken_file_is_remembered_across_a_restart() {
    let mut node = TestNode::start();
    let folder = node.scratch().join("code");
    file(&folder, "broken.json", "{\"a\": ");
    let add = |node: &TestNode| node.cairn(&["add", text(&folder), "-c", "code"]).status.code();
    assert_eq!(add(&node), Some(1));
    node.kill();
    node.restart();
    assert_eq!(add(&node), Some(0));
}

#[test]
fn what_a_folder_holds_besides_documents_is_summed_up() {
    let node = TestNode::start();
    let folder = node.scratch().join("office");
    for name in ["lease.docx", "costs.xlsx", "old/plan.DOCX", "talk.pptx"] {
        file(&folder, name, b"PK\x03\x04\x14\0\0\0");
    }
    for name in ["a.png", "b.png"] {
        file(&folder, name, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    }
    file(&folder, "all.zip", b"PK\x03\x04\x14\0\0\0");
    let output = node.cairn(&["add", text(&folder), "-c", "office"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_says(
        &stderr(&output),
        &["7 skipped: 4 Office documents (docx, pptx, xlsx), 2 pictures, 1 archive; -v names them"],
    );
    let told = report(&node.cairn(&["--json", "add", text(&folder), "-c", "office"]));
    let kinds: Vec<u64> =
        list(&told["skipped_by_kind"]).iter().map(|kind| kind["files"].as_u64().expect("a count")).collect();
    assert_eq!(kinds, [4, 2, 1]);
    assert_eq!(told["skipped_by_kind"][0]["extensions"], json!(["docx", "pptx", "xlsx"]));
}

/// Two folders of one name, with files of the same names.
fn two_of_one_name(root: &Path) -> [PathBuf; 2] {
    ["north", "south"].map(|site| {
        let folder = root.join(site).join("docs");
        for number in 1..=3 {
            file(&folder, format!("a{number}.md"), format!("Pump {number} of the {site} site."));
        }
        file(&folder, format!("{site}.md"), format!("The {site} site."));
        folder
    })
}

#[test]
fn another_folder_of_the_same_name_is_refused_with_the_way_out() {
    let mut node = TestNode::start();
    let [north, south] = two_of_one_name(node.scratch());
    assert!(node.cairn(&["add", text(&north), "-c", "sites"]).status.success());
    let before = ids(&node, "sites");
    for keep in [&[][..], &["--keep"], &["--yes"], &["--delete-all"]] {
        let refused = node.cairn(&[&["add", text(&south), "-c", "sites"], keep].concat());
        assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
        assert_says(&stderr(&refused), &[text(&north), text(&south), "--prefix south/docs", "--moved"]);
    }
    assert_eq!(ids(&node, "sites"), before);
    // Known after a crash, by another process, and over the network too.
    node.kill();
    let here = run_on(&node.data_dir(), &["add", text(&south), "-c", "sites"]);
    assert_says(&stderr(&here), &[text(&north), "--moved"]);
    node.restart();
    let mut remote = cairn();
    remote.args(["--url", node.base(), "add", text(&south), "-c", "sites"]).stdin(Stdio::null());
    assert_says(&stderr(&remote.output().expect("the binary runs")), &[text(&north), "--moved"]);
    assert_eq!(ids(&node, "sites"), before);

    // As itself, by another path, in another collection, and under another name it goes in.
    assert!(node.cairn(&["add", text(&north), "-c", "sites"]).status.success());
    let link = node.scratch().join("docs");
    std::os::unix::fs::symlink(&north, &link).expect("linked");
    assert!(node.cairn(&["add", text(&link), "-c", "sites"]).status.success(), "the same folder");
    assert!(node.cairn(&["add", text(&south), "-c", "others"]).status.success());
    assert!(node.cairn(&["add", text(&south), "-c", "sites", "--prefix", "south/docs"]).status.success());
    assert_eq!(ids(&node, "sites").len(), 8);
}

#[test]
fn a_folder_that_moved_says_so_once() {
    let node = TestNode::start();
    let [north, _] = two_of_one_name(node.scratch());
    assert!(node.cairn(&["add", text(&north), "-c", "sites"]).status.success());
    let moved = node.scratch().join("archive/docs");
    fs::create_dir_all(moved.parent().expect("a folder")).expect("created");
    fs::rename(&north, &moved).expect("moved");
    assert_eq!(node.cairn(&["add", text(&moved), "-c", "sites"]).status.code(), Some(1));
    let told = report(&node.cairn(&["--json", "add", text(&moved), "-c", "sites", "--moved"]));
    assert_eq!(told["unchanged"], 4, "{told}");
    assert!(node.cairn(&["add", text(&moved), "-c", "sites"]).status.success(), "remembered");
}

#[test]
fn where_a_folder_came_from_is_part_of_a_backup() {
    let mut node = TestNode::start();
    let [north, south] = two_of_one_name(node.scratch());
    assert!(node.cairn(&["add", text(&north), "-c", "sites"]).status.success());
    assert!(node.cairn(&["snapshot", "create"]).status.success());
    let file_of_it = node.scratch().join("all.cairn-snapshot");
    assert!(node.cairn(&["snapshot", "export", text(&file_of_it)]).status.success());
    node.stop();
    let elsewhere = node.scratch().join("restored");
    let restored = run_on(&elsewhere, &["snapshot", "restore", text(&file_of_it), "--yes"]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    let refused = run_on(&elsewhere, &["add", text(&south), "-c", "sites"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert_says(&stderr(&refused), &[text(&north), "--moved"]);
}

#[test]
fn a_folder_that_was_put_below_another_keeps_its_documents() {
    let node = TestNode::start();
    let (site, guides) = (node.scratch().join("site"), node.scratch().join("guides"));
    file(&site, "index.md", "The site.");
    file(&guides, "pump.md", "How to start the pump.");
    assert!(node.cairn(&["add", text(&site), "-c", "all"]).status.success());
    assert!(node.cairn(&["add", text(&guides), "-c", "all", "--prefix", "site/guides"]).status.success());
    let told = report(&node.cairn(&["--json", "add", text(&site), "-c", "all"]));
    assert_eq!((&told["deleted"], &told["unchanged"]), (&json!(0), &json!(1)), "{told}");
    assert_eq!(ids(&node, "all"), ["all/site/guides/pump.md", "all/site/index.md"]);
}

#[test]
fn two_folders_of_one_name_in_one_command_are_told_apart_before_anything_is_done() {
    let node = TestNode::start();
    let [north, south] = two_of_one_name(node.scratch());
    let refused = node.cairn(&["add", text(&north), text(&south), "-c", "sites"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stdout(&refused));
    assert_says(&stderr(&refused), &[text(&north), text(&south), "--prefix"]);
    assert!(node.cairn(&["add", text(&north), text(&north), "-c", "sites"]).status.success(), "one, named twice");
}

#[test]
fn no_name_keeps_the_others_out() {
    let node = TestNode::start();
    let folder = node.scratch().join("odd");
    let deep = format!("{0}/{0}/{0}/leaf.md", "d".repeat(200));
    let odd: [&[u8]; 10] = [
        b"line\nfeed.md",
        b"tab\tand bell\x07.md",
        b"escape\x1b[31m.md",
        b"caf\xe9.md",
        b"caf\xff.md",
        b"dots...",
        b"percent%2Fslash.md",
        b"back\\slash.md",
        b" spaces .md",
        deep.as_bytes(),
    ];
    for name in odd {
        file(&folder, OsStr::from_bytes(name), format!("This is {}.", name.escape_ascii()));
    }
    file(&folder, "plain.md", "This one is plain.");
    for place in [&["--url", node.base()][..], &[]] {
        let mut command = cairn();
        command.args(["--json", "add", "--data-dir"]).arg(node.data_dir()).arg(&folder).args(["-c", "odd"]).args(place);
        let told = report(&command.stdin(Stdio::null()).output().expect("the binary runs"));
        assert_eq!(list(&told["files"]).len(), 11, "each has its line: {told}");
        let control = [b"line\nfeed.md".as_slice(), b"tab\tand bell\x07.md", b"escape\x1b[31m.md"];
        for name in control {
            let (status, reason) = of(&told, &format!("odd/{}", std::str::from_utf8(name).expect("UTF-8")));
            assert_eq!(status, "failed");
            assert_says(&reason, &["control characters"]);
        }
        let (status, reason) = of(&told, &format!("odd/{deep}"));
        assert_eq!(status, "failed");
        assert_says(&reason, &["512 bytes"]);
        let (mut twins, lost) = (Vec::new(), "odd/caf\u{fffd}.md");
        for entry in list(&told["files"]).iter().filter(|entry| entry["source"] == lost) {
            twins.push(entry["status"].as_str().expect("a status"));
        }
        twins.sort_unstable();
        assert!(matches!(twins[..], ["created" | "unchanged", "failed"] | ["failed", "unchanged"]), "{twins:?}");
        for name in ["dots...", "percent%2Fslash.md", "back\\slash.md", " spaces .md", "plain.md"] {
            assert!(["created", "unchanged"].contains(&of(&told, &format!("odd/{name}")).0.as_str()), "{name}: {told}");
            assert!(ids(&node, "odd").contains(&format!("odd/odd/{name}")), "{name}");
        }
    }
    let plain = node.cairn(&["add", text(&folder), "-c", "odd", "-v"]);
    assert!(!stderr(&plain).contains("panicked"));
}

#[test]
fn many_files_that_became_empty_are_asked_for() {
    let node = TestNode::start();
    let folder = node.scratch().join("copy");
    for number in 0..20 {
        file(&folder, format!("{number:02}.md"), format!("Note {number}."));
    }
    let add = |more: &[&str]| node.cairn(&[&["--json", "add", text(&folder), "-c", "copy"], more].concat());
    assert!(add(&[]).status.success());
    for number in 0..15 {
        file(&folder, format!("{number:02}.md"), "");
    }
    let asked = add(&[]);
    assert_eq!(asked.status.code(), Some(1));
    assert_says(&stderr(&asked), &["15 of 20 files below 'copy/' are empty now", "--yes"]);
    assert_eq!(ids(&node, "copy").len(), 20);
    assert_eq!(report(&add(&["--yes"]))["deleted"], 15);
    assert_eq!(ids(&node, "copy").len(), 5);
}

#[test]
fn a_full_disk_is_said_once_and_ends_the_work() {
    let mut node = TestNode::start();
    let folder = node.scratch().join("many");
    for number in 0..300 {
        file(&folder, format!("{number:03}.md"), format!("Note {number}."));
    }
    file(&folder, "gone.md", "This one goes.");
    assert!(node.cairn(&["add", text(&folder.join("gone.md")), "-c", "many", "--prefix", "many"]).status.success());
    fs::remove_file(folder.join("gone.md")).expect("removed");
    node.stop();
    // No disk is as large as what is to stay free.
    for running in [false, true] {
        let mut full = cairn();
        full.env("CAIRN_STORE_RESERVE_BYTES", "900TiB").arg("--data-dir").arg(node.data_dir()).stdin(Stdio::null());
        let mut child = None;
        if running {
            let mut serve = cairn();
            serve
                .env("CAIRN_STORE_RESERVE_BYTES", "900TiB")
                .args(["--json", "serve", "--data-dir"])
                .arg(node.data_dir());
            serve.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).stdin(Stdio::null());
            let mut started = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
            let mut line = String::new();
            BufReader::new(started.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("its line");
            child = Some(started);
        }
        let output = full.args(["add", text(&folder), "-c", "many"]).output().expect("the binary runs");
        if let Some(mut child) = child {
            child.kill().expect("killed");
            child.wait().expect("it ends");
        }
        assert_eq!(output.status.code(), Some(1));
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(said.matches("the disk is full").count(), 1, "{said}");
        assert_says(&said, &["TiB", "300 of 3", "not added", "run the same command again"]);
        assert!(said.lines().count() < 8, "{said}");
    }
    let mut status = cairn();
    status.env("CAIRN_STORE_RESERVE_BYTES", "900TiB").arg("--data-dir").arg(node.data_dir()).arg("status");
    let status = status.output().expect("the binary runs");
    assert_says(&stdout(&status), &["refused", "900"]);
}

/// A way to a node that can be cut, and that cuts itself at the n-th write of a file.
struct Way {
    address: String,
    /// Where the node is; `None`: connections end at once.
    node: Arc<Mutex<Option<String>>>,
}

impl Way {
    /// * `cut`: what is done at the `at`-th file, before the node hears of it.
    fn new(node: &str, at: usize, cut: impl FnOnce() + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let node = Arc::new(Mutex::new(Some(node.strip_prefix("http://").expect("plain").to_owned())));
        let (files, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Some(cut))));
        let place = Arc::clone(&node);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (files, cut, place) = (Arc::clone(&files), Arc::clone(&cut), Arc::clone(&place));
                thread::spawn(move || {
                    let address = place.lock().expect("a lock").clone();
                    let Some(Ok(node)) = address.map(TcpStream::connect) else { return };
                    let (mut back, mut to) = (node.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
                    thread::spawn(move || {
                        // Ends with either.
                        let _ = io::copy(&mut back, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                    forward(client, node, &files, at, &cut, &place);
                });
            }
        });
        Self { address, node }
    }

    fn opens(&self, node: &str) {
        *self.node.lock().expect("a lock") = Some(node.strip_prefix("http://").expect("plain").to_owned());
    }
}

fn forward<F: FnOnce()>(
    mut client: TcpStream,
    mut node: TcpStream,
    files: &AtomicUsize,
    at: usize,
    cut: &Mutex<Option<F>>,
    place: &Mutex<Option<String>>,
) {
    let mut bytes = [0; 64 << 10];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let writes = bytes[..length].windows(11).any(|part| part == b"POST /v1/co");
        if writes && files.fetch_add(1, Ordering::SeqCst) + 1 == at {
            *place.lock().expect("a lock") = None;
            if let Some(cut) = cut.lock().expect("a lock").take() {
                cut();
            }
        }
        if node.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = node.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

/// Adds 120 files over a way that is cut at the thirtieth; what was said, and the report.
fn add_over_a_cut(wait: &str, comes_back: bool) -> (TestNode, Vec<String>, Value, Option<i32>) {
    let mut node = TestNode::start();
    let folder = node.scratch().join("many");
    for number in 0..120 {
        file(&folder, format!("{number:03}.md"), format!("Note {number} about pump {}.", number % 7));
    }
    let (cut, is_cut) = mpsc::channel();
    let (killed, is_killed) = mpsc::channel::<()>();
    let way = Way::new(node.base(), 30, move || {
        cut.send(()).expect("somebody waits");
        is_killed.recv().expect("it is killed");
    });
    let mut adding = cairn()
        .args(["--json", "--url", &way.address, "add", text(&folder), "-c", "many", "--wait", wait])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    is_cut.recv().expect("it comes so far");
    node.kill();
    killed.send(()).expect("somebody waits");
    let mut said = Vec::new();
    for line in BufReader::new(adding.stderr.take().expect("a pipe")).lines() {
        let line = line.expect("readable");
        if line.contains("waiting for it") && comes_back {
            node.restart();
            way.opens(node.base());
        }
        said.push(line);
    }
    let output = adding.wait_with_output().expect("it ends");
    if !comes_back {
        node.restart();
    }
    (node, said, report(&output), output.status.code())
}

#[test]
fn a_node_that_goes_away_is_waited_for_and_nothing_is_lost() {
    let (node, said, told, code) = add_over_a_cut("10m", true);
    assert_eq!(code, Some(0), "{said:?} {told}");
    let count = |word: &str| said.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("waiting for it"), count("answers again")), (1, 1), "{said:?}");
    assert_eq!((&told["created"], &told["failed"], &told["not_tried"]), (&json!(120), &json!(0), &json!(0)), "{told}");
    assert_eq!(ids(&node, "many").len(), 120);
}

#[test]
fn what_a_node_that_stays_away_has_not_got_is_named() {
    let (node, said, told, code) = add_over_a_cut("2s", false);
    assert_eq!(code, Some(1), "{said:?} {told}");
    let (created, left) = (told["created"].as_u64().expect("a count"), told["not_tried"].as_u64().expect("a count"));
    assert!(created > 0 && left > 0 && created + left == 120, "{told}");
    assert!(
        said.iter().any(|line| line.contains("not added") && line.contains("run the same command again")),
        "{said:?}"
    );
    // What it calls created is there.
    let there = ids(&node, "many");
    for entry in list(&told["files"]).iter().filter(|entry| entry["status"] == "created") {
        assert!(there.contains(&format!("many/{}", entry["source"].as_str().expect("a name"))), "{entry}");
    }
}

/// A link leads to a disk that is not mounted now: nothing of it is lost, and the folder's other files are in step.
#[test]
fn a_link_that_leads_nowhere_fails_nothing_and_loses_nothing() {
    let node = TestNode::start();
    let (folder, disk) = (node.scratch().join("plant"), node.scratch().join("disk"));
    file(&folder, "kept.md", "The basin is full.\n");
    file(&disk, "manual/pump.md", "The pump is blue.\n");
    file(&disk, "valve.md", "The valve is shut.\n");
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).expect("linked");
    link(&disk.join("manual"), "manual");
    link(&disk.join("valve.md"), "valve.md");
    link(Path::new("loop.md"), "loop.md");
    let add = || node.cairn(&["--json", "add", text(&folder), "-c", "plant"]);
    assert_eq!(report(&add())["created"], 3);
    fs::rename(&disk, node.scratch().join("unmounted")).expect("moved");
    for _ in 0..2 {
        let output = add();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let found = report(&output);
        assert_eq!(
            (&found["deleted"], &found["failed"], &found["skipped"]),
            (&json!(0), &json!(0), &json!(3)),
            "{found}"
        );
        for source in ["plant/manual", "plant/valve.md", "plant/loop.md"] {
            assert_eq!(of(&found, source), ("skipped".to_owned(), "a link that leads nowhere".to_owned()));
        }
    }
    assert_eq!(ids(&node, "plant").len(), 3);
    // Who takes the links away means it.
    for name in ["manual", "valve.md"] {
        fs::remove_file(folder.join(name)).expect("removed");
    }
    assert_eq!(report(&add())["deleted"], 2);
}

#[test]
fn a_mailbox_is_its_mails_and_an_unread_format_is_named_once() {
    let node = TestNode::start();
    let folder = node.scratch().join("home");
    let mail = |id: &str, words: &str| {
        format!(
            "From - Mon May  4 10:11:12 2026\nMessage-ID: <{id}>\nFrom: ana@site.example\nSubject: Pump\n\n{words}\n\n"
        )
    };
    file(&folder, "Inbox", mail("a@site.example", "The pump is blue.") + &mail("b@site.example", "The valve is shut."));
    file(&folder, "plan.docx", b"PK\x03\x04");
    file(&folder, "novel.epub", b"PK\x03\x04");
    let found = report(&node.cairn(&["--json", "add", text(&folder), "-c", "home"]));
    assert_eq!(of(&found, "home/plan.docx").1, "Office documents are not read");
    assert_eq!(of(&found, "home/novel.epub").1, "electronic books are not read");
    let inbox = ["home/home/Inbox#a@site.example", "home/home/Inbox#b@site.example"];
    assert_eq!(ids(&node, "home"), inbox, "{found}");
    assert_says(&stdout(&node.cairn(&["get", inbox[1]])), &["The valve is shut."]);
}
