//! Backups: what was in the node comes back, and whatever is wrong with one is named.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::node::{TestNode, agent, cairn, json_of, list, run_on, stderr, stdout};
use crate::s3::{Bucket, objects};

/// Ten documents about ten birds.
fn birds() -> Value {
    let names = ["heron", "kestrel", "dunnock", "godwit", "avocet", "siskin", "gannet", "merlin", "plover", "whinchat"];
    let sentences = names.iter().enumerate().map(|(number, name)| {
        let text =
            format!("The {name} was counted {} times at the weir in the spring of 19{}.", number + 3, 60 + number);
        json!({"id": format!("{name}.md"), "title": name, "text": text})
    });
    sentences.collect()
}

/// What a search finds, without what changes with every write.
fn answer(node: &TestNode, query: &str) -> Value {
    let mut answer = node.call("search", json!({"query": query, "collections": ["birds"]}));
    answer["searched"]["generation"] = Value::Null;
    answer
}

fn documents(node: &TestNode) -> Value {
    node.call("get_status", json!({}))["documents"].clone()
}

fn repository(node: &TestNode) -> PathBuf {
    node.scratch().join("data-snapshots")
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

fn segments(node: &TestNode) -> Vec<PathBuf> {
    files(&repository(node).join("segments"))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Changes one bit of a repository's file, and not of the log's file that it may be a link of.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 1;
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}

fn create(node: &TestNode) -> Value {
    node.cairn_json(&["snapshot", "create", "--json"])
}

#[test]
fn a_snapshot_is_proved_and_any_flipped_byte_is_named() {
    let node = TestNode::start();
    node.add("birds", birds());
    let created = create(&node);
    assert_eq!((&created["documents"], &created["new_segments"]), (&json!(10), &json!(1)));
    assert!(created["canaries"].as_u64().expect("a number") >= 10);
    let verified = node.cairn_json(&["snapshot", "verify", "--json"]);
    assert_eq!(
        (&verified["ok"], &verified["documents"], &verified["canaries"], &verified["id"]),
        (&json!(true), &json!(10), &created["canaries"], &created["id"])
    );
    let segment = segments(&node).pop().expect("one");
    let length = fs::metadata(&segment).expect("there").len() as usize;
    let manifest = files(&repository(&node).join("snapshots")).pop().expect("one");
    let manifest_length = fs::metadata(&manifest).expect("there").len() as usize;
    let places = [
        (&segment, vec![0, 70, 150, length / 2, length - 1]),
        (&manifest, vec![0, 40, manifest_length / 2, manifest_length - 1]),
    ];
    for (file, places) in places {
        for at in places {
            flip(file, at);
            let output = node.cairn(&["snapshot", "verify"]);
            assert_eq!(output.status.code(), Some(1), "byte {at} of {}", file.display());
            assert!(stdout(&output).contains(name(file)), "byte {at}: {}", stdout(&output));
            flip(file, at);
        }
    }
    fs::remove_file(&segment).expect("removed");
    let output = node.cairn(&["snapshot", "verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains(name(&segment)) && stdout(&output).contains("missing"), "{}", stdout(&output));
    let status = node.call("get_status", json!({}));
    let warnings = status["snapshots"]["warnings"].to_string();
    assert!(warnings.contains("the last verification failed"), "{warnings}");
}

#[test]
fn verifying_leaves_nothing_behind() {
    let node = TestNode::start();
    node.add("birds", birds());
    create(&node);
    node.cairn_json(&["snapshot", "verify", "--json"]);
    assert!(!node.data_dir().join("verify").exists());
    assert!(!node.data_dir().join("restore").exists());
}

#[test]
fn deleted_documents_come_back_and_are_found_as_before() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    let before = answer(&node, "which bird was counted at the weir in 1963");
    create(&node);
    node.call("delete_documents", json!({"ids": ["birds/heron.md", "birds/godwit.md", "birds/avocet.md"]}));
    node.add("birds", json!([{"id": "late.md", "text": "A late note about the weir in 1963."}]));
    assert_ne!(answer(&node, "which bird was counted at the weir in 1963"), before);
    node.stop();
    let refused = node.cairn(&["snapshot", "restore"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--yes"), "{}", stderr(&refused));
    let restored = node.cairn_json(&["snapshot", "restore", "--yes", "--json"]);
    assert_eq!((&restored["status"], &restored["documents"]), (&json!("restored"), &json!(10)));
    node.restart();
    node.catch_up();
    assert_eq!(answer(&node, "which bird was counted at the weir in 1963"), before);
    let old = PathBuf::from(restored["old_data"].as_str().expect("kept"));
    assert!(old.join("log").is_dir());
    let dropped = node.cairn_json(&["snapshot", "restore", "--drop-old", "--json"]);
    assert_eq!(dropped["removed"], json!([old]));
    assert!(!old.exists());
}

#[test]
fn a_restore_goes_to_a_position_and_to_a_moment() {
    let mut node = TestNode::start();
    let lsn = |answer: &Value| answer["lsn"].as_u64().expect("a position");
    node.add("birds", birds());
    let second = node.add("birds", json!([{"id": "two", "text": "The second note."}]));
    let moment = after_a_millisecond();
    node.add("birds", json!([{"id": "three", "text": "The third note."}]));
    create(&node);
    let fourth = node.add("birds", json!([{"id": "four", "text": "The fourth note."}]));
    create(&node);
    node.add("birds", json!([{"id": "five", "text": "The fifth note, in no snapshot."}]));
    node.stop();
    let beyond = node.cairn(&["snapshot", "restore", "--to-lsn", "999999", "--yes"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert!(stderr(&beyond).contains("no snapshot holds record 999999"), "{}", stderr(&beyond));
    let early = node.cairn(&["snapshot", "restore", "--to-time", "2001-01-01T00:00:00Z", "--yes"]);
    assert!(stderr(&early).contains("nothing had been written by 2001-01-01"), "{}", stderr(&early));
    let restore = |node: &TestNode, option: &str, value: &str| {
        node.cairn_json(&["snapshot", "restore", option, value, "--yes", "--json"])
    };
    let restored = restore(&node, "--to-lsn", &lsn(&fourth).to_string());
    assert_eq!((&restored["documents"], lsn(&restored)), (&json!(13), lsn(&fourth)));
    let restored = restore(&node, "--to-time", &moment);
    assert_eq!((&restored["documents"], lsn(&restored)), (&json!(11), lsn(&second)));
    for folder in ["restore", "verify"] {
        assert!(!node.data_dir().join(folder).exists(), "{folder} was for building it");
    }
    node.restart();
    node.add("birds", json!([{"id": "other", "text": "Another history begins."}]));
    assert_eq!(documents(&node), json!(12));
    let created = create(&node);
    assert_eq!(node.cairn_json(&["snapshot", "verify", "--json"])["documents"], json!(12));
    // The abandoned history is still there by its snapshot's name.
    let listed = node.cairn_json(&["snapshot", "list", "--json"]);
    let ids: Vec<&str> =
        listed["snapshots"].as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id")).collect();
    assert_eq!((ids.len(), ids[0]), (3, created["id"].as_str().expect("an id")));
    node.stop();
    let back = node.cairn_json(&["snapshot", "restore", ids[1], "--yes", "--json"]);
    assert_eq!(back["documents"], json!(13));
}

/// The time, which is later than everything before and earlier than everything after.
fn after_a_millisecond() -> String {
    let start = jiff::Timestamp::now().as_millisecond();
    let wait = |than: i64| {
        loop {
            let now = jiff::Timestamp::now();
            if now.as_millisecond() > than {
                return now;
            }
            std::thread::yield_now();
        }
    };
    let moment = wait(start);
    wait(moment.as_millisecond());
    moment.to_string()
}

#[test]
fn a_second_snapshot_copies_only_what_is_new() {
    let node = TestNode::start();
    node.add("birds", birds());
    let first = create(&node);
    assert_eq!(node.call("get_status", json!({}))["snapshots"].get("under_way"), None, "it is over");
    assert_eq!(first["new_bytes"], first["bytes"]);
    let before = segments(&node);
    node.add("birds", json!([{"id": "more", "text": "One more note."}]));
    let second = create(&node);
    assert_eq!((&second["segments"], &second["new_segments"]), (&json!(2), &json!(1)));
    assert!(second["new_bytes"].as_u64() < first["bytes"].as_u64());
    let after = segments(&node);
    assert_eq!((after.len(), after[..1] == before[..]), (2, true));
    let third = create(&node);
    assert_eq!((&third["new_segments"], &third["new_bytes"]), (&json!(0), &json!(0)));
    let listed = node.cairn_json(&["snapshot", "list", "--json"]);
    let new: Vec<&Value> =
        listed["snapshots"].as_array().expect("a list").iter().map(|one| &one["new_bytes"]).collect();
    assert_eq!(new, [&third["new_bytes"], &second["new_bytes"], &first["new_bytes"]]);
    // A directory on the same disk costs no space at all.
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(&after[0]).expect("there").nlink(), 2);
}

#[test]
fn a_restore_that_is_killed_leaves_the_node_as_it_was_and_can_be_repeated() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    create(&node);
    node.add("birds", json!([{"id": "more", "text": "One more note."}]));
    create(&node);
    node.call("delete_documents", json!({"ids": ["birds/heron.md"]}));
    let before = node.found("birds", "one more note about the heron", "hybrid");
    node.stop();
    // A pipe that nobody writes to: whoever reads the last segment waits.
    let last = segments(&node).pop().expect("two");
    let aside = node.scratch().join("aside");
    fs::rename(&last, &aside).expect("moved");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &last, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    let mut restore = cairn()
        .arg("--data-dir")
        .arg(node.data_dir())
        .args(["snapshot", "restore", "--yes"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let staged = node.data_dir().join("restore");
    while !staged.is_dir() || !has_segment(&staged) {
        assert_eq!(restore.try_wait().expect("asked"), None, "it waits for the pipe");
        std::thread::yield_now();
    }
    restore.kill().expect("killed");
    restore.wait().expect("ended");
    node.restart();
    node.catch_up();
    assert_eq!(node.found("birds", "one more note about the heron", "hybrid"), before);
    node.stop();
    fs::remove_file(&last).expect("removed");
    fs::rename(&aside, &last).expect("moved back");
    let restored = node.cairn_json(&["snapshot", "restore", "--yes", "--json"]);
    assert_eq!(restored["documents"], json!(11));
}

fn has_segment(staged: &Path) -> bool {
    let found = fs::read_dir(staged).into_iter().flatten().flatten();
    found
        .flat_map(|entry| fs::read_dir(entry.path().join("log")).into_iter().flatten().flatten())
        .any(|file| file.path().extension().is_some_and(|extension| extension == "seg"))
}

#[test]
fn a_damaged_snapshot_is_not_restored() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    create(&node);
    node.stop();
    flip(&segments(&node)[0], 200);
    let refused = node.cairn(&["snapshot", "restore", "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(name(&segments(&node)[0])), "{}", stderr(&refused));
    node.restart();
    assert_eq!(documents(&node), json!(10));
}

#[test]
fn a_running_node_restores_itself_and_serves_again() {
    let node = TestNode::start();
    node.add("birds", birds());
    let before = answer(&node, "the merlin at the weir");
    let created = node.call("create_snapshot", json!({}));
    node.call("delete_documents", json!({"ids": ["birds/merlin.md"]}));
    let words = node.refusal("restore_snapshot", json!({"id": created["id"]}));
    assert!(words.contains("'restore'"), "{words}");
    let planned = node.call("restore_snapshot", json!({"id": created["id"], "dry_run": true}));
    assert_eq!((&planned["status"], &planned["lsn"]), (&json!("planned"), &created["lsn"]));
    assert_eq!(documents(&node), json!(9));
    let done = node.call("restore_snapshot", json!({"id": created["id"], "confirm": "restore"}));
    assert_eq!((&done["status"], &done["documents"]), (&json!("restarting"), &json!(10)));
    wait_for_restart(&node, &created["lsn"]);
    node.catch_up();
    assert_eq!(answer(&node, "the merlin at the weir"), before);
    assert_eq!(node.get(&format!("{}/ready", node.admin)).status, 200);
    // And once more, by the command line.
    node.call("delete_documents", json!({"ids": ["birds/merlin.md"]}));
    let listed = node.call("list_snapshots", json!({}));
    assert_eq!(listed["snapshots"][0]["id"], created["id"]);
    let done = node.cairn_json(&["snapshot", "restore", "--yes", "--json"]);
    assert_eq!(done["status"], "restarting");
    wait_for_restart(&node, &created["lsn"]);
    node.catch_up();
    assert_eq!(answer(&node, "the merlin at the weir"), before);
}

/// Waits until the node serves a log that ends with record `lsn`.
fn wait_for_restart(node: &TestNode, lsn: &Value) {
    let agent = ureq::Agent::config_builder().proxy(None).max_idle_connections(0).build().new_agent();
    let url = format!("{}/v1/tools/get_status", node.base());
    loop {
        let status =
            agent.post(&url).send_json(json!({})).and_then(|mut answer| answer.body_mut().read_json::<Value>());
        if status.is_ok_and(|status| status["lsn"] == *lsn && status["ready"] == true) {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_travels_in_one_file() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    let created = create(&node);
    let stick = node.scratch().join("stick");
    fs::create_dir(&stick).expect("made");
    let exported = node.cairn_json(&["snapshot".as_ref(), "export".as_ref(), stick.as_os_str(), "--json".as_ref()]);
    node.stop();
    let file = PathBuf::from(exported["path"].as_str().expect("a path"));
    assert_eq!((files(&stick), &exported["id"]), (vec![file.clone()], &created["id"]));
    let elsewhere = node.scratch().join("elsewhere");
    let path = file.to_str().expect("UTF-8");
    let restored = json_of(&run_on(&elsewhere, &["snapshot", "restore", path, "--yes", "--json"]));
    assert_eq!((&restored["documents"], &restored["old_data"]), (&json!(10), &Value::Null));
    let found = json_of(&run_on(&elsewhere, &["search", "the gannet at the weir", "--json"]));
    assert_eq!(found["results"][0]["source"]["document"], "gannet.md");
    // The same node now, so its own history goes on there.
    assert_eq!(json_of(&run_on(&elsewhere, &["snapshot", "verify", "--json"]))["ok"], json!(true));
    let length = fs::metadata(&file).expect("there").len() as usize;
    for at in [600, length / 2] {
        flip(&file, at);
        let third = node.scratch().join("third");
        let refused = run_on(&third, &["snapshot", "import", path]);
        assert_eq!(refused.status.code(), Some(1), "byte {at}");
        let listed = run_on(&third, &["snapshot", "list", "--json"]);
        assert!(!String::from_utf8_lossy(&listed.stdout).contains("lsn"), "nothing of it is there: {listed:?}");
        flip(&file, at);
    }
}

/// Runs a verb with a key.
fn with_key(node: &TestNode, key: Option<&Path>, arguments: &[&str]) -> Output {
    let mut command: Command = cairn();
    command.arg("--data-dir").arg(node.data_dir()).args(arguments).stdin(Stdio::null());
    if let Some(key) = key {
        command.env("CAIRN_SNAPSHOT_ENCRYPTION_KEY_FILE", key);
    }
    command.output().expect("run")
}

#[test]
fn an_encrypted_snapshot_opens_with_its_key_only() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    node.stop();
    let (key, other) = (node.scratch().join("key"), node.scratch().join("other"));
    for path in [&key, &other] {
        node.cairn_json(&["snapshot".as_ref(), "keygen".as_ref(), path.as_os_str(), "--json".as_ref()]);
    }
    let again = node.cairn(&["snapshot".as_ref(), "keygen".as_ref(), key.as_os_str()]);
    assert_eq!(again.status.code(), Some(1), "a key is never overwritten");
    let created = json_of(&with_key(&node, Some(&key), &["snapshot", "create", "--json"]));
    assert_eq!(json_of(&with_key(&node, Some(&key), &["snapshot", "verify", "--json"]))["ok"], json!(true));
    for file in files(&repository(&node).join("segments")).iter().chain(&files(&repository(&node).join("snapshots"))) {
        let bytes = fs::read(file).expect("readable");
        assert!(name(file).ends_with(".age"));
        assert!(!bytes.windows(6).any(|window| window == b"heron." || window == b"birds\""), "{}", file.display());
    }
    let wrong = with_key(&node, Some(&other), &["snapshot", "verify"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("the key is another one"), "{}", stderr(&wrong));
    let missing = with_key(&node, None, &["snapshot", "restore", "--yes"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("set snapshot.encryption_key_file"), "{}", stderr(&missing));
    let no_file = with_key(&node, Some(Path::new("/nonexistent/key")), &["snapshot", "list"]);
    assert!(stderr(&no_file).contains("cannot read the key file"), "{}", stderr(&no_file));
    let restored = json_of(&with_key(&node, Some(&key), &["snapshot", "restore", "--yes", "--json"]));
    assert_eq!((&restored["documents"], &restored["snapshot"]), (&json!(10), &created["id"]));
}

#[test]
fn the_age_command_makes_keys_and_opens_what_they_encrypt() {
    let mut node = TestNode::start();
    node.add("birds", birds());
    node.stop();
    let [key, opened] = ["key", "opened"].map(|name| node.scratch().join(name));
    let age = |program: &str, arguments: &[&Path]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; make setup installs it"));
        assert!(output.status.success(), "{program}: {}", stderr(&output));
    };
    age("age-keygen", &["-o".as_ref(), &key]);
    let created = json_of(&with_key(&node, Some(&key), &["snapshot", "create", "--json"]));
    let sealed = files(&repository(&node).join("segments"));
    assert_eq!(json!(sealed.len()), created["segments"]);
    age("age", &["--decrypt".as_ref(), "-i".as_ref(), &key, "-o".as_ref(), &opened, &sealed[0]]);
    // The log's only segment, which the snapshot closed.
    let log = files(&node.data_dir().join("log"));
    let segment = log.iter().find(|path| name(path).ends_with("0001.seg")).expect("a segment");
    assert!(fs::read(&opened).expect("readable") == fs::read(segment).expect("readable"), "another content");
}

#[test]
fn a_node_ships_its_log_by_itself() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().to_str().expect("UTF-8");
    let node = TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1s")]);
    node.add("birds", birds());
    let shipped = |lsn: &Value| {
        loop {
            let listed = node.call("list_snapshots", json!({}));
            let snapshots = listed["snapshots"].as_array().expect("a list").clone();
            if snapshots.first().is_some_and(|newest| newest["lsn"] == *lsn) {
                return snapshots;
            }
            std::thread::yield_now();
        }
    };
    let lsn = |number: u32| node.add("birds", json!([{"id": number.to_string(), "text": "More."}]))["lsn"].clone();
    let first = shipped(&lsn(0));
    assert_eq!(first.last().expect("one")["kind"], "scheduled", "the first of the day");
    for number in 1..4 {
        let snapshots = shipped(&lsn(number));
        assert_eq!((snapshots[0]["kind"].as_str(), snapshots.len() <= 3), (Some("shipped"), true), "{snapshots:?}");
    }
    let status = node.call("get_status", json!({}));
    assert_eq!(status["snapshots"]["scheduled"], json!(true));
    assert!(node.log().contains("is on the disk of the data"), "{}", node.log());
    assert!(node.get(&format!("{}/metrics", node.admin)).text.contains("cairn_snapshot_age_seconds"));
    let ready = node.get(&format!("{}/ready", node.admin)).json();
    assert_eq!((&ready["ready"], ready["snapshots"]["age_seconds"].is_u64()), (&json!(true), true));
}

#[test]
fn the_schedule_and_what_prune_would_do_are_shown() {
    let node = TestNode::start();
    let empty = node.cairn(&["snapshot", "create"]);
    assert!(stderr(&empty).contains("the log is empty"), "{}", stderr(&empty));
    let none = node.cairn(&["snapshot", "verify"]);
    assert!(stderr(&none).contains("`cairn snapshot create` makes one"), "{}", stderr(&none));
    node.add("birds", birds());
    let created = create(&node);
    let shown = node.cairn_json(&["snapshot", "schedule", "--json"]);
    assert_eq!((&shown["scheduled"], &shown["newest"], &shown["daily"]), (&json!(false), &created["id"], &json!(30)));
    let pruned = node.cairn_json(&["snapshot", "prune", "--dry-run", "--json"]);
    assert_eq!((&pruned["snapshots"], &pruned["kept"]), (&json!([]), &json!(1)));
    let unknown = node.cairn(&["snapshot", "verify", "20200101T000000Z-1"]);
    assert!(stderr(&unknown).contains("there is no snapshot 20200101T000000Z-1"), "{}", stderr(&unknown));
    let text = stdout(&node.cairn(&["snapshot", "list"]));
    assert!(text.starts_with("ID ") && text.contains("manual"), "{text}");
    assert!(stdout(&node.cairn(&["status"])).contains("snapshots   newest"));
}

/// Runs a verb on a node's data directory with these settings; its JSON.
fn with_settings(node: &TestNode, settings: &[(&str, String)], arguments: &[&str]) -> Output {
    let settings = settings.iter().map(|(name, value)| (name, value));
    cairn()
        .arg("--data-dir")
        .arg(node.data_dir())
        .args(arguments)
        .envs(settings)
        .stdin(Stdio::null())
        .output()
        .expect("run")
}

#[test]
fn a_bucket_behind_a_bad_line_receives_proves_and_gives_back() {
    let bucket = Bucket::start();
    let mut settings = bucket.settings();
    let environment: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut all = environment.clone();
    all.push(("CAIRN_SNAPSHOT_INTERVAL", "1s"));
    let mut node = TestNode::with(&all);
    bucket.break_line();
    node.add("birds", birds());
    let before = answer(&node, "the plover at the weir");
    // Noise does not get smaller by compression: its segment goes up in parts.
    let noise: Vec<Value> = (0..240u64)
        .map(|number| {
            let mut state = number + 1;
            let text: String = (0..60_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    char::from(b'!' + 2 + (state >> 33) as u8 % 56)
                })
                .collect();
            json!({"id": format!("noise-{number}"), "text": "Noise.", "metadata": {"noise": text}})
        })
        .collect();
    node.add("noise", json!(noise));
    let created = node.call("create_snapshot", json!({}));
    assert_eq!(created["target"], "s3://backup/site/one");
    assert!(created["bytes"].as_u64().expect("a number") > 10 << 20, "{created}");
    let last = node.add("birds", json!([{"id": "late.md", "text": "A late note."}]))["lsn"].clone();
    let shipped = || {
        let listed = node.call("list_snapshots", json!({}));
        listed["snapshots"][0]["lsn"] == last
    };
    while !shipped() {
        std::thread::yield_now();
    }
    let verified = with_settings(&node, &settings, &["snapshot", "verify", "--json"]);
    assert_eq!(json_of(&verified)["documents"], json!(251));
    node.call("delete_documents", json!({"ids": ["birds/plover.md"]}));
    let done = node.call("restore_snapshot", json!({"id": created["id"], "confirm": "restore"}));
    assert_eq!(done["documents"], json!(250));
    wait_for_restart(&node, &created["lsn"]);
    node.catch_up();
    assert_eq!(answer(&node, "the plover at the weir"), before);
    let folder = bucket.folder().join("site/one");
    for name in objects(&folder.join("segments")) {
        assert!(name.ends_with(".seg"), "{name}");
    }
    let met = bucket.met();
    assert!(met.refused > 0 && met.lost > 0 && met.cut > 0 && met.stalled == 1, "{met:?}");
    node.stop();
    settings.retain(|(name, _)| !name.starts_with("AWS_"));
    let refused = with_settings(&node, &settings, &["snapshot", "list"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("there is no access key"), "{}", stderr(&refused));
}

#[test]
fn a_node_says_how_far_long_work_is() {
    // A bucket that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let mut node = TestNode::with(&[
        ("CAIRN_SNAPSHOT_TARGET", "s3://backup/site"),
        ("CAIRN_SNAPSHOT_S3_ENDPOINT", &url),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("CAIRN_SNAPSHOT_INTERVAL", "1h"),
    ]);
    node.add("birds", birds());
    assert_eq!(node.call("get_status", json!({}))["snapshots"].get("under_way"), None);
    let creating = {
        let (agent, url) = (agent(), format!("{}/v1/tools/create_snapshot", node.base()));
        std::thread::spawn(move || agent.post(&url).send_json(json!({})).is_ok())
    };
    let status = loop {
        let status = node.call("get_status", json!({}));
        if status["snapshots"].get("under_way").is_some() {
            break status;
        }
        std::thread::yield_now();
    };
    let under_way = &status["snapshots"]["under_way"];
    assert_eq!((list(under_way).len(), &under_way[0]["work"]), (1, &json!("create")), "{under_way}");
    let shown = stdout(&node.cairn(&["status"]));
    assert!(shown.contains("create: "), "{shown}");
    node.kill();
    assert!(!creating.join().expect("ended"), "nobody answered it");
}
