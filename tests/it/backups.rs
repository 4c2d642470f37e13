//! Backups that are not there are missed: whatever became of the place where they went, nobody is told that all is well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::node::{TestNode, assert_says, cairn, json_of, list, run_on, stderr, stdout};
use crate::s3::{Bucket, Lie, objects};

/// Adds a note; every one is different.
fn note(node: &TestNode, number: u32) {
    node.add(
        "notes",
        json!([{"id": format!("note-{number}"), "text": format!("Pump {number} was serviced in spring.")}]),
    );
}

/// Takes a snapshot; its id.
fn create(node: &TestNode) -> String {
    let created = node.cairn_json(&["snapshot", "create", "--json"]);
    created["id"].as_str().expect("an id").to_owned()
}

fn repository(node: &TestNode) -> PathBuf {
    node.scratch().join("data-snapshots")
}

fn manifest(node: &TestNode, id: &str) -> PathBuf {
    repository(node).join("snapshots").join(format!("{id}.json"))
}

fn backups(node: &TestNode) -> Value {
    node.call("get_status", json!({}))["snapshots"].clone()
}

/// Runs a verb that must end with this exit code and say these words, on either stream.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_says(&said, words);
}

/// A metric's line.
fn metric(node: &TestNode, name: &str) -> String {
    let text = node.get(&format!("{}/metrics", node.admin)).text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// The node says everywhere that its backups are in this state, and that it serves.
#[track_caller]
fn is_told(node: &TestNode, state: &str, words: &[&str]) {
    let status = backups(node);
    assert_eq!(status["state"], state, "{status}");
    assert_says(status["problem"].as_str().expect("a problem"), words);
    let shown = node.cairn(&["status"]);
    fails(&shown, 4, &["PROBLEM"]);
    assert_says(&stdout(&shown), words);
    let ready = node.get(&format!("{}/ready", node.admin));
    assert_eq!((ready.status, &ready.json()["snapshots"]["state"]), (200, &json!(state)), "{}", ready.text);
    assert_says(&ready.text, words);
    assert_eq!(metric(node, "cairn_snapshot_target_up"), "0");
    fails(&node.cairn(&["snapshot", "list"]), 1, words);
    fails(&node.cairn(&["snapshot", "schedule"]), 1, words);
}

/// Nobody has anything to say but that all is well.
#[track_caller]
fn is_well(node: &TestNode) {
    let status = backups(node);
    assert_eq!((&status["state"], status.get("problem")), (&json!("ok"), None), "{status}");
    assert!(node.cairn(&["status"]).status.success());
    assert!(node.cairn(&["snapshot", "list"]).status.success());
    assert_eq!(metric(node, "cairn_snapshot_target_up"), "1");
}

#[test]
fn a_place_that_is_gone_is_missed_and_not_made_again() {
    let node = TestNode::start();
    note(&node, 1);
    let first = create(&node);
    is_well(&node);
    let (place, aside) = (repository(&node), node.scratch().join("aside"));
    fs::rename(&place, &aside).expect("moved");
    is_told(&node, "gone", &["is gone", "a snapshot of this node", &first, "is its disk mounted?", "--begin-anew"]);
    let status = backups(&node);
    assert_eq!(
        (status.get("age_seconds"), status.get("verified_age_seconds"), status.get("newest")),
        (None, None, None)
    );
    let age = metric(&node, "cairn_snapshot_age_seconds");
    assert!(age.parse::<f64>().expect("a number").is_infinite(), "{age}");
    note(&node, 2);
    for verb in ["create", "verify", "prune", "restore"] {
        let arguments = if verb == "restore" { vec!["snapshot", verb, "--dry-run"] } else { vec!["snapshot", verb] };
        fails(&node.cairn(&arguments), 1, &["is gone", "is its disk mounted?"]);
        assert!(!place.exists(), "{verb} made the place again");
    }
    let failures = node.get(&format!("{}/metrics", node.admin)).text;
    assert_says(&failures, &["cairn_snapshot_failures_total{work=\"create\"} 1"]);
    fs::rename(&aside, &place).expect("moved back");
    is_well(&node);
    let second = create(&node);
    assert!(second > first);
    assert_eq!(backups(&node)["snapshots"], 2);
}

#[test]
fn an_empty_place_and_another_repository_are_not_taken_for_the_one_that_was_there() {
    let node = TestNode::start();
    note(&node, 1);
    create(&node);
    note(&node, 2);
    create(&node);
    let (place, aside) = (repository(&node), node.scratch().join("aside"));
    fs::rename(&place, &aside).expect("moved");
    // A mount point without its disk.
    fs::create_dir(&place).expect("made");
    is_told(&node, "empty", &["is empty", "2 snapshots of this node", "is its disk mounted?"]);
    fails(&node.cairn(&["snapshot", "create"]), 1, &["is empty"]);
    assert_eq!(objects(&place), Vec::<String>::new());
    // Another node's disk.
    let other =
        TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", place.to_str().expect("UTF-8")), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    note(&other, 3);
    create(&other);
    is_told(&node, "foreign", &["holds another repository"]);
    fails(&node.cairn(&["snapshot", "create"]), 1, &["holds another repository"]);
    // Meant so.
    let created = node.cairn_json(&["snapshot", "create", "--begin-anew", "--json"]);
    assert_eq!(created.get("problem"), None, "{created}");
    is_well(&node);
    assert_eq!(backups(&node)["snapshots"], 1);
    assert_eq!(json_of(&node.cairn(&["snapshot", "verify", "--json"]))["ok"], json!(true));
}

#[test]
fn the_newest_that_vanishes_is_missed_until_it_is_given_up() {
    let node = TestNode::start();
    note(&node, 1);
    let first = create(&node);
    note(&node, 2);
    let second = create(&node);
    node.cairn_json(&["snapshot", "verify", "--json"]);
    assert!(backups(&node)["verified_age_seconds"].is_u64());
    fs::remove_file(manifest(&node, &second)).expect("removed");
    is_told(&node, "missing", &["1 of the 2 snapshots", &second]);
    let status = backups(&node);
    assert_eq!((&status["newest"], &status["missing"]), (&json!(first), &json!(1)), "{status}");
    assert_eq!(status.get("verified_age_seconds"), None, "what was proved is not there");
    fails(&node.cairn(&["snapshot", "verify"]), 1, &[&second, "is missing"]);
    fails(&node.cairn(&["snapshot", "restore", "--dry-run"]), 1, &[&second, "is missing", &format!("restore {first}")]);
    fails(&node.cairn(&["snapshot", "prune"]), 1, &[&second, "missing"]);
    // What is left can be proved and taken by its name.
    assert_eq!(json_of(&node.cairn(&["snapshot", "verify", &first, "--json"]))["ok"], json!(true));
    assert!(node.cairn(&["snapshot", "restore", &first, "--dry-run"]).status.success());
    // Backing up goes on, and the loss is not forgotten by that.
    // Ids are made of the second and the position: another position.
    note(&node, 3);
    let third = node.cairn(&["snapshot", "create"]);
    assert!(third.status.success(), "{}", stderr(&third));
    assert_says(&stderr(&third), &[&second, "missing"]);
    is_told(&node, "missing", &[&second]);
    assert!(node.cairn(&["snapshot", "create", "--begin-anew"]).status.success());
    is_well(&node);
    assert_eq!(json_of(&node.cairn(&["snapshot", "verify", "--json"]))["ok"], json!(true));
}

#[test]
fn where_all_are_missing_nobody_says_that_there_never_were_any() {
    let node = TestNode::start();
    note(&node, 1);
    let only = create(&node);
    fs::remove_file(manifest(&node, &only)).expect("removed");
    is_told(&node, "missing", &["1 of the 1 snapshots", &only]);
    for verb in [&["verify"][..], &["restore", "--dry-run"], &["prune"], &["export", "/nonexistent/x"]] {
        fails(&node.cairn(&[&["snapshot"], verb].concat()), 1, &[&only, "missing"]);
    }
}

#[test]
fn a_new_machine_misses_the_newest_too() {
    let mut node = TestNode::start();
    note(&node, 1);
    let first = create(&node);
    note(&node, 2);
    let second = create(&node);
    node.stop();
    fs::remove_file(manifest(&node, &second)).expect("removed");
    let place = repository(&node);
    let elsewhere = node.scratch().join("elsewhere");
    let run = |arguments: &[&str]| on(&elsewhere, &place, arguments);
    fails(&run(&["snapshot", "restore", "--yes"]), 1, &[&second, "is missing", &first]);
    let restored = json_of(&run(&["snapshot", "restore", &first, "--yes", "--json"]));
    assert_eq!(restored["documents"], 1);
}

/// Runs a verb on a data directory with a place for snapshots.
fn on(data_dir: &Path, place: &Path, arguments: &[&str]) -> Output {
    let mut command = cairn();
    command.arg("--data-dir").arg(data_dir).env("CAIRN_SNAPSHOT_TARGET", place);
    command.args(arguments).stdin(Stdio::null()).output().expect("run")
}

#[test]
fn a_file_of_the_newest_that_is_missing_or_cut_is_named_and_brought_again() {
    let node = TestNode::start();
    note(&node, 1);
    create(&node);
    let segments = repository(&node).join("segments");
    let name = objects(&segments).pop().expect("a segment");
    fs::remove_file(segments.join(&name)).expect("removed");
    is_told(&node, "incomplete", &[&name]);
    fs::write(segments.join(&name), "cut").expect("written");
    is_told(&node, "incomplete", &[&name]);
    create(&node);
    is_well(&node);
    assert_eq!(json_of(&node.cairn(&["snapshot", "verify", "--json"]))["ok"], json!(true));
}

#[test]
fn a_repository_of_the_first_release_is_marked_and_its_newest_is_missed() {
    let node = TestNode::start();
    note(&node, 1);
    let first = create(&node);
    note(&node, 2);
    let second = create(&node);
    // As release 0.1.0 left both.
    let place = repository(&node);
    fs::remove_file(place.join("repository.json")).expect("a marker");
    fs::remove_dir_all(place.join("nodes")).expect("notes");
    let memory = node.data_dir().join("snapshots.json");
    let mut remembered: Value = serde_json::from_slice(&fs::read(&memory).expect("memory")).expect("JSON");
    remembered.as_object_mut().expect("an object").remove("targets").expect("what was shipped");
    fs::write(&memory, remembered.to_string()).expect("written");
    is_well(&node);
    let aside = node.scratch().join("aside");
    fs::rename(manifest(&node, &second), &aside).expect("moved");
    is_told(&node, "missing", &[&second]);
    fs::rename(&aside, manifest(&node, &second)).expect("moved back");
    is_well(&node);
    fs::remove_file(manifest(&node, &first)).expect("removed");
    is_told(&node, "missing", &[&first]);
    // Ids are made of the second and the position: another position.
    note(&node, 3);
    let third = create(&node);
    assert!(place.join("repository.json").is_file(), "no marker");
    assert_eq!(objects(&place.join("nodes")).len(), 1);
    assert!(node.log().contains("a repository of an earlier release was marked"), "{}", node.log());
    assert_eq!(backups(&node)["newest"], json!(third));
}

#[test]
fn what_is_remembered_is_the_owners_only() {
    let node = TestNode::start();
    note(&node, 1);
    create(&node);
    for name in ["snapshots.json", "snapshots.lock"] {
        let mode = fs::metadata(node.data_dir().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    fs::write(node.data_dir().join("snapshots.json"), "{ not JSON").expect("written");
    for _ in 0..2 {
        let warnings = backups(&node)["warnings"].to_string();
        assert_says(&warnings, &["snapshots.json could not be read"]);
    }
    // What is there is known from there.
    is_well(&node);
    fs::remove_file(node.data_dir().join("snapshots.json.damaged")).expect("set aside");
    assert!(!backups(&node)["warnings"].to_string().contains("could not be read"));
}

#[test]
fn nodes_that_share_a_place_keep_to_their_own() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().to_str().expect("UTF-8");
    let start = || TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    let (mut alpha, mut beta) = (start(), start());
    note(&alpha, 1);
    let of_alpha = create(&alpha);
    note(&beta, 2);
    note(&beta, 3);
    let of_beta = create(&beta);
    let [id_alpha, id_beta] =
        [&alpha, &beta].map(|node| node.call("get_status", json!({}))["node"].as_str().expect("an id").to_owned());
    alpha.stop();
    beta.stop();
    let run = |node: &TestNode, arguments: &[&str]| on(&node.data_dir(), place.path(), arguments);
    // Each sees its own, and that there are others.
    let listed = json_of(&run(&alpha, &["snapshot", "list", "--json"]));
    let ids = |listed: &Value| list(&listed["snapshots"]).iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&listed), [json!(of_alpha)]);
    assert_eq!((&listed["others"][0]["node"], &listed["others"][0]["newest"]), (&json!(id_beta), &json!(of_beta)));
    assert_says(&stdout(&run(&alpha, &["snapshot", "list"])), &[&of_alpha, &id_beta, "--any"]);
    assert_eq!(ids(&json_of(&run(&alpha, &["snapshot", "list", "--any", "--json"]))).len(), 2);
    assert_eq!(ids(&json_of(&run(&alpha, &["snapshot", "list", "--node", &id_beta[..6], "--json"]))), [json!(of_beta)]);
    // Each goes back to its own, and to another's only when it is named.
    let plan = |arguments: &[&str]| {
        json_of(&run(&alpha, &[&["snapshot", "restore", "--dry-run", "--json"], arguments].concat()))
    };
    assert_eq!(plan(&[])["snapshot"], json!(of_alpha));
    assert_eq!(plan(&["--node", &id_beta])["snapshot"], json!(of_beta));
    assert_eq!(plan(&[&of_beta, "--any"])["snapshot"], json!(of_beta));
    fails(&run(&alpha, &["snapshot", "restore", &of_beta, "--yes"]), 1, &[&id_beta, &id_alpha, "--node"]);
    fails(&run(&alpha, &["snapshot", "restore", "--node", "ffff0000", "--yes"]), 1, &["no node", &id_beta]);
    // A new machine has to say which.
    let elsewhere = alpha.scratch().join("elsewhere");
    fails(&on(&elsewhere, place.path(), &["snapshot", "restore", "--yes"]), 1, &["several nodes", &id_alpha, &id_beta]);
    let restored =
        json_of(&on(&elsewhere, place.path(), &["snapshot", "restore", "--node", &id_beta, "--yes", "--json"]));
    assert_eq!(restored["documents"], 2);
    // A retention that keeps nothing but the newest leaves the other's alone.
    for number in 4..7 {
        beta.restart();
        note(&beta, number);
        beta.stop();
        json_of(&run(&beta, &["snapshot", "create", "--json"]));
    }
    let strict = [
        ("CAIRN_SNAPSHOT_POINT_IN_TIME", "0s"),
        ("CAIRN_SNAPSHOT_DAILY", "0"),
        ("CAIRN_SNAPSHOT_WEEKLY", "0"),
        ("CAIRN_SNAPSHOT_MONTHLY", "0"),
    ];
    let prune = |node: &TestNode, arguments: &[&str]| {
        let mut command = cairn();
        command.arg("--data-dir").arg(node.data_dir()).env("CAIRN_SNAPSHOT_TARGET", place.path()).envs(strict);
        json_of(
            &command.args(["snapshot", "prune", "--json"]).args(arguments).stdin(Stdio::null()).output().expect("run"),
        )
    };
    assert_eq!(list(&prune(&alpha, &[])["snapshots"]), Vec::<Value>::new().as_slice());
    let pruned = prune(&beta, &[]);
    assert_eq!((list(&pruned["snapshots"]).len(), &pruned["kept"]), (3, &json!(1)), "{pruned}");
    assert_eq!(ids(&json_of(&run(&alpha, &["snapshot", "list", "--json"]))), [json!(of_alpha)]);
    assert!(run(&beta, &["snapshot", "list"]).status.success(), "what was pruned is not missed");
}

#[test]
fn a_place_with_others_snapshots_only_gives_none_of_them_unasked() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().to_str().expect("UTF-8");
    let start = || TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    let (alpha, beta) = (start(), start());
    note(&alpha, 1);
    let of_alpha = create(&alpha);
    note(&beta, 2);
    let shown = on(&beta.data_dir(), place.path(), &["snapshot", "list"]);
    assert_says(&stdout(&shown), &["no snapshots of this node", &of_alpha]);
    let words = beta.refusal("restore_snapshot", json!({"confirm": "restore"}));
    assert_says(&words, &["is of this node", "--node"]);
    fails(&beta.cairn(&["snapshot", "verify"]), 1, &["is of this node"]);
    let status = backups(&beta);
    assert_eq!((&status["state"], status.get("newest")), (&json!("new"), None));
}

/// Runs a verb with a key.
fn with_key(node: &TestNode, key: Option<&Path>, arguments: &[&str]) -> Output {
    let mut command = cairn();
    command.arg("--data-dir").arg(node.data_dir()).args(arguments).stdin(Stdio::null());
    if let Some(key) = key {
        command.env("CAIRN_SNAPSHOT_ENCRYPTION_KEY_FILE", key);
    }
    command.output().expect("run")
}

#[test]
fn plain_text_never_joins_what_is_encrypted() {
    let mut node = TestNode::start();
    note(&node, 1);
    node.stop();
    let key = node.scratch().join("key");
    node.cairn_json(&["snapshot".as_ref(), "keygen".as_ref(), key.as_os_str(), "--json".as_ref()]);
    json_of(&with_key(&node, Some(&key), &["snapshot", "create", "--json"]));
    let before = [objects(&repository(&node).join("segments")), objects(&repository(&node).join("snapshots"))];
    fails(
        &with_key(&node, None, &["snapshot", "create"]),
        1,
        &["are encrypted and no key is set", "snapshot.encryption_key_file"],
    );
    fails(&with_key(&node, None, &["snapshot", "list"]), 1, &["are encrypted and no key is set"]);
    fails(&with_key(&node, None, &["snapshot", "create", "--begin-anew"]), 1, &["are encrypted and no key is set"]);
    fails(&with_key(&node, None, &["status"]), 4, &["are encrypted and no key is set"]);
    assert_eq!([objects(&repository(&node).join("segments")), objects(&repository(&node).join("snapshots"))], before);
    // Nor when the place was emptied meanwhile: the setting is what is missing.
    let aside = node.scratch().join("aside");
    fs::rename(repository(&node), &aside).expect("moved");
    fails(&with_key(&node, None, &["snapshot", "create", "--begin-anew"]), 1, &["are encrypted and no key is set"]);
    assert!(!repository(&node).exists());
    fs::rename(&aside, repository(&node)).expect("moved back");
    // A key that everybody may read is said.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    let shown = with_key(&node, Some(&key), &["status"]);
    assert_eq!(shown.status.code(), Some(0), "{}", stdout(&shown));
    assert_says(&stdout(&shown), &["mode 0644", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    assert!(!stdout(&with_key(&node, Some(&key), &["status"])).contains("mode 0"));
    // Plain ones that came later all the same, as the first release let them.
    let elsewhere = TestNode::start();
    note(&elsewhere, 2);
    let plain = create(&elsewhere);
    fs::copy(manifest(&elsewhere, &plain), repository(&node).join("snapshots/20991231T235959Z-1.json"))
        .expect("copied");
    fails(&with_key(&node, Some(&key), &["snapshot", "list"]), 1, &["not encrypted", "20991231T235959Z-1"]);
}

#[test]
fn a_key_that_comes_later_is_no_fault_and_is_told() {
    let mut node = TestNode::start();
    note(&node, 1);
    create(&node);
    node.stop();
    let key = node.scratch().join("key");
    node.cairn_json(&["snapshot".as_ref(), "keygen".as_ref(), key.as_os_str(), "--json".as_ref()]);
    json_of(&with_key(&node, Some(&key), &["snapshot", "create", "--json"]));
    let shown = with_key(&node, Some(&key), &["status"]);
    assert_eq!(shown.status.code(), Some(0), "{}", stdout(&shown));
    assert_says(&stdout(&shown), &["from before there was a key are not encrypted: 1"]);
}

#[test]
fn a_dry_run_of_a_file_changes_nothing() {
    let node = TestNode::start();
    note(&node, 1);
    let id = create(&node);
    let file = node.scratch().join("carried.cairn-snapshot");
    node.cairn_json(&["snapshot".as_ref(), "export".as_ref(), file.as_os_str(), "--json".as_ref()]);
    let path = file.to_str().expect("UTF-8");
    let elsewhere = node.scratch().join("elsewhere");
    let planned = json_of(&run_on(&elsewhere, &["snapshot", "restore", path, "--dry-run", "--json"]));
    assert_eq!((&planned["status"], &planned["snapshot"]), (&json!("planned"), &json!(id)));
    assert!(!node.scratch().join("elsewhere-snapshots").exists(), "it was put among the snapshots");
    assert!(!elsewhere.exists(), "a data directory was made");
    // Nor does a no, which is what the end of standard input is.
    fails(&run_on(&elsewhere, &["snapshot", "restore", path]), 2, &["--yes"]);
    assert!(!node.scratch().join("elsewhere-snapshots").exists());
    // A running node is asked for nothing either.
    let other = TestNode::start();
    note(&other, 2);
    let planned = json_of(&other.cairn(&["snapshot", "restore", path, "--dry-run", "--json"]));
    assert_eq!(planned["snapshot"], json!(id));
    assert!(!repository(&other).exists());
}

#[test]
fn a_carried_file_cannot_name_a_place_elsewhere() {
    let node = TestNode::start();
    note(&node, 1);
    create(&node);
    let file = node.scratch().join("carried.cairn-snapshot");
    node.cairn_json(&["snapshot".as_ref(), "export".as_ref(), file.as_os_str(), "--json".as_ref()]);
    // The same manifest with another id and the digest that belongs to it.
    let mut archive = tar::Archive::new(fs::File::open(&file).expect("open"));
    let mut first = archive.entries().expect("entries").next().expect("a manifest").expect("readable");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut first, &mut text).expect("text");
    let body = text.split_once("\"manifest\":").expect("a manifest").1.strip_suffix("}\n").expect("its end");
    let id = serde_json::from_str::<Value>(body).expect("JSON")["id"].as_str().expect("an id").to_owned();
    let body = body.replace(&id, "../../../evil");
    let made = format!("{{\"blake3\":\"{}\",\"manifest\":{body}}}\n", blake3::hash(body.as_bytes()));
    let evil = node.scratch().join("evil.cairn-snapshot");
    let mut archive = tar::Builder::new(fs::File::create(&evil).expect("made"));
    let mut header = tar::Header::new_gnu();
    header.set_size(made.len() as u64);
    archive.append_data(&mut header, "snapshots/x.json", made.as_bytes()).expect("written");
    archive.into_inner().expect("whole");
    let path = evil.to_str().expect("UTF-8");
    for verb in [&["import", path][..], &["restore", path, "--dry-run"], &["restore", path, "--yes"]] {
        let output = run_on(&node.scratch().join("third"), &[&["snapshot"], verb].concat());
        fails(&output, 1, &["../../../evil", "expected a time and a position"]);
    }
}

/// A node that ships to a bucket when it is asked to, and the settings for commands.
fn shipping_to(bucket: &Bucket) -> TestNode {
    let settings = bucket.settings();
    let mut all: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("CAIRN_SNAPSHOT_INTERVAL", "1h"));
    TestNode::with(&all)
}

fn at_bucket(node: &TestNode, bucket: &Bucket, arguments: &[&str]) -> Output {
    let mut command = cairn();
    command.arg("--data-dir").arg(node.data_dir()).envs(bucket.settings()).env("CAIRN_SNAPSHOT_POINT_IN_TIME", "0s");
    command.args(arguments).stdin(Stdio::null()).output().expect("run")
}

#[test]
fn a_listing_that_cannot_be_believed_is_refused_with_its_reason() {
    let bucket = Bucket::start();
    let node = shipping_to(&bucket);
    for number in 1..4 {
        note(&node, number);
        node.call("create_snapshot", json!({}));
    }
    let folder = bucket.folder().join("site/one");
    let before = [objects(&folder.join("segments")), objects(&folder.join("snapshots"))];
    let at = |arguments: &[&str]| at_bucket(&node, &bucket, arguments);
    assert!(at(&["snapshot", "list"]).status.success());
    for (lie, words) in [
        (Lie::NoToken, "gives no token"),
        (Lie::WebPage, "is not a bucket"),
        (Lie::ErrorPage, "AccessDenied"),
        (Lie::NoBucket, "there is no such bucket"),
        (Lie::Circles, "again and again"),
        (Lie::EmptyPages, "has no end"),
        (Lie::Forgets, "missing"),
    ] {
        bucket.lie(lie);
        for verb in [&["list"][..], &["restore", "--dry-run"], &["verify"], &["prune"]] {
            fails(&at(&[&["snapshot"], verb].concat()), 1, &[words]);
        }
        let listed = node.try_call("list_snapshots", json!({}));
        let said = listed.map_or_else(|words| words, |listed| listed["problem"].to_string());
        assert_says(&said, &[words]);
        let status = backups(&node);
        assert_ne!(status["state"], "ok", "{lie:?}: {status}");
        assert_says(status["problem"].as_str().expect("a problem"), &[words]);
        assert_eq!(metric(&node, "cairn_snapshot_target_up"), "0", "{lie:?}");
        fails(&node.cairn(&["status"]), 4, &["PROBLEM"]);
    }
    assert!(bucket.pages() < 20_000, "{} pages were asked for", bucket.pages());
    bucket.lie(Lie::None);
    assert!(at(&["snapshot", "list"]).status.success());
    assert_eq!(json_of(&at(&["snapshot", "verify", "--json"]))["ok"], json!(true));
    assert_eq!(
        [objects(&folder.join("segments")), objects(&folder.join("snapshots"))],
        before,
        "something was removed"
    );
}

#[test]
fn what_a_bucket_did_not_keep_is_no_snapshot() {
    let bucket = Bucket::start();
    let node = shipping_to(&bucket);
    note(&node, 1);
    node.call("create_snapshot", json!({}));
    note(&node, 2);
    for (lie, words) in [(Lie::Swallows, "does not have it"), (Lie::Halves, "gives back")] {
        bucket.lie(lie);
        let refusal = node.refusal("create_snapshot", json!({}));
        assert_says(&refusal, &[words]);
        bucket.lie(Lie::None);
        let status = backups(&node);
        assert_eq!(status["snapshots"], 1, "{status}");
        assert_says(&status["problem"].to_string(), &["the last snapshot failed", words]);
    }
    node.call("create_snapshot", json!({}));
    assert_eq!(backups(&node)["snapshots"], 2);
    assert_eq!(json_of(&at_bucket(&node, &bucket, &["snapshot", "verify", "--json"]))["ok"], json!(true));
}

#[test]
fn a_bucket_that_was_emptied_is_not_filled_anew_by_itself() {
    let bucket = Bucket::start();
    let settings = bucket.settings();
    let mut all: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("CAIRN_SNAPSHOT_INTERVAL", "1s"));
    let node = TestNode::with(&all);
    note(&node, 1);
    // A round ends with the proof. What is removed within one may be written again by its last steps.
    while !node.log().contains("a snapshot was verified") {
        std::thread::yield_now();
    }
    fs::remove_dir_all(bucket.folder().join("site")).expect("emptied");
    note(&node, 2);
    while !node.log().contains("the log could not be shipped") {
        std::thread::yield_now();
    }
    let words = node.refusal("create_snapshot", json!({}));
    assert_says(&words, &["is empty", "of this node"]);
    assert!(!bucket.folder().join("site/one/snapshots").exists());
    node.call("create_snapshot", json!({"begin_anew": true}));
    let status = backups(&node);
    assert_eq!((&status["state"], status.get("problem")), (&json!("ok"), None), "{status}");
}

#[test]
fn the_command_line_sees_the_snapshots_of_the_node_that_runs() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().to_str().expect("UTF-8");
    let mut node = TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    note(&node, 1);
    let id = create(&node);
    // The commands are not told the node's settings.
    assert_says(&stdout(&node.cairn(&["snapshot", "list"])), &[&id]);
    let schedule = node.cairn_json(&["snapshot", "schedule", "--json"]);
    assert_eq!((&schedule["target"], &schedule["newest"]), (&json!(target), &json!(id)), "{schedule}");
    assert_eq!((&schedule["scheduled"], &schedule["interval_seconds"]), (&json!(true), &json!(3_600)), "{schedule}");
    assert_says(&stdout(&node.cairn(&["snapshot", "schedule"])), &[target, "every 3,600 s", &id]);
    let pruned = node.cairn_json(&["snapshot", "prune", "--dry-run", "--json"]);
    assert_eq!((&pruned["kept"], &pruned["dry_run"], &pruned["snapshots"]), (&json!(1), &json!(true), &json!([])));
    let stick = node.scratch().join("stick");
    fs::create_dir(&stick).expect("created");
    let exported = node.cairn_json(&["snapshot".as_ref(), "export".as_ref(), stick.as_os_str(), "--json".as_ref()]);
    assert_eq!(exported["id"], json!(id));
    let file = exported["path"].as_str().expect("a path");
    node.cairn_json(&["snapshot", "import", file, "--json"]);
    assert!(!repository(&node).exists(), "nothing went where the node does not look");
    // By its address too, from wherever.
    let away = |arguments: &[&str]| {
        let mut command = cairn();
        command.args(arguments).args(["--url", node.base(), "--json"]).stdin(Stdio::null());
        json_of(&command.output().expect("run"))
    };
    assert_eq!(away(&["snapshot", "schedule"])["newest"], json!(id));
    assert_eq!(away(&["snapshot", "prune", "--dry-run"])["kept"], json!(1));
    node.stop();
    // Nobody is asked now, and the settings are not the node's: that is said, and never that there is none.
    let went = [&*id, "went to", target];
    for verb in [&["snapshot", "list"][..], &["snapshot", "schedule"], &["snapshot", "export", "x"]] {
        fails(&node.cairn(verb), 1, &went);
    }
    for verb in
        [&["snapshot", "restore", "--dry-run"][..], &["snapshot", "verify"], &["snapshot", "prune", "--dry-run"]]
    {
        fails(&node.cairn(verb), 1, &went);
    }
    fails(&node.cairn(&["status"]), 4, &went);
    let other = node.scratch().join("other");
    let shown = on(&node.data_dir(), &other, &["snapshot", "list"]);
    assert_says(&stdout(&shown), &[&id, "went to", target]);
    fails(&on(&node.data_dir(), &other, &["snapshot", "restore", "--dry-run"]), 1, &went);
    fails(&on(&node.data_dir(), &other, &["snapshot", "prune", "--dry-run"]), 1, &went);
    assert_says(&stdout(&on(&node.data_dir(), place.path(), &["snapshot", "list"])), &[&id]);
    // Whoever means it begins there.
    node.cairn_json(&["snapshot", "create", "--json"]);
    assert!(node.cairn(&["status"]).status.success());
}

#[test]
fn a_node_whose_snapshots_fail_says_so_everywhere() {
    let place = tempfile::tempdir().expect("temporary directory");
    let target = place.path().to_str().expect("UTF-8");
    let node = TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    note(&node, 1);
    // It can be looked at, and not be written to.
    let segments = place.path().join("segments");
    std::os::unix::fs::symlink("/nonexistent/segments", &segments).expect("linked");
    node.refusal("create_snapshot", json!({}));
    let words = ["the last snapshot failed", target];
    let status = backups(&node);
    assert_eq!(status["state"], "failing", "{status}");
    assert_says(status["problem"].as_str().expect("a problem"), &words);
    let shown = node.cairn(&["status"]);
    fails(&shown, 4, &["PROBLEM"]);
    assert_eq!(stdout(&shown).matches("the last snapshot failed").count(), 1, "{}", stdout(&shown));
    for verb in ["list", "schedule"] {
        fails(&node.cairn(&["snapshot", verb]), 1, &words);
    }
    let ready = node.get(&format!("{}/ready", node.admin));
    assert_eq!((ready.status, &ready.json()["snapshots"]["state"]), (200, &json!("failing")), "{}", ready.text);
    assert_eq!([metric(&node, "cairn_snapshot_target_up"), metric(&node, "cairn_snapshot_succeeded")], ["1", "0"]);
    fs::remove_file(&segments).expect("removed");
    create(&node);
    is_well(&node);
    assert_eq!(metric(&node, "cairn_snapshot_succeeded"), "1");
}

#[test]
fn what_a_proof_found_is_missed_until_the_next_one_is_well() {
    let node = TestNode::start();
    note(&node, 1);
    create(&node);
    let segments = repository(&node).join("segments");
    let path = segments.join(objects(&segments).pop().expect("a segment"));
    let whole = fs::read(&path).expect("read");
    // A link of the log's: the copy takes its place.
    let replace = |bytes: &[u8]| {
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");
    };
    let mut flipped = whole.clone();
    flipped[600] ^= 1;
    replace(&flipped);
    assert_eq!(node.cairn(&["snapshot", "verify"]).status.code(), Some(1));
    fails(&node.cairn(&["status"]), 4, &["the last verification failed", "digest"]);
    assert_eq!(backups(&node)["state"], "unproved");
    // A mistyped id is nothing that was found.
    replace(&whole);
    assert!(node.cairn(&["snapshot", "verify"]).status.success());
    assert_eq!(node.cairn(&["snapshot", "verify", "20200101T000000Z-1"]).status.code(), Some(1));
    is_well(&node);
}

#[test]
fn of_a_place_that_is_gone_nobody_says_on_which_disk_it_is() {
    let scratch = tempfile::tempdir().expect("temporary directory");
    let place = scratch.path().join("snapshots");
    let target = place.to_str().expect("UTF-8");
    let node = TestNode::with(&[("CAIRN_SNAPSHOT_TARGET", target), ("CAIRN_SNAPSHOT_INTERVAL", "1h")]);
    note(&node, 1);
    create(&node);
    assert_says(&stdout(&node.cairn(&["status"])), &["is on the disk of the data"]);
    fs::remove_dir_all(&place).expect("removed");
    let shown = stdout(&node.cairn(&["status"]));
    assert!(shown.contains("is gone") && !shown.contains("on the disk of the data"), "{shown}");
}

#[test]
fn files_are_written_whole_or_not_at_all_and_where_they_can_be() {
    let node = TestNode::start();
    note(&node, 1);
    let id = create(&node);
    let stick = node.scratch().join("stick");
    fs::create_dir(&stick).expect("created");
    let export = |path: &str| node.cairn(&["snapshot", "export", path, "--id", &id]);
    let file = stick.join("all");
    let path = file.to_str().expect("UTF-8");
    fs::write(&file, "mine").expect("written");
    fails(&export(path), 1, &["all is there already"]);
    fails(&export(&format!("{path}-more/")), 1, &["there is no folder"]);
    fails(&export("/nonexistent/all"), 1, &["there is no folder /nonexistent"]);
    fails(&export("-"), 2, &["standard output"]);
    fails(&node.cairn(&["image", "build", "-o", "/nonexistent/"]), 1, &["there is no folder /nonexistent/"]);
    fails(&node.cairn(&["bundle", "create", "-o", "-", "--key", path]), 2, &["standard output"]);
    fails(&node.cairn(&["bundle", "keygen", "-o", "-"]), 2, &["standard output"]);
    // What cannot be read to its end leaves nothing of what was.
    let segments = repository(&node).join("segments");
    let segment = segments.join(objects(&segments).pop().expect("a segment"));
    fs::remove_file(&segment).expect("removed");
    fs::create_dir(&segment).expect("created");
    fails(&export(&format!("{path}-2")), 1, &["cannot"]);
    assert_eq!(
        (objects(&stick), fs::read_to_string(&file).expect("read")),
        (vec!["all".to_owned()], "mine".to_owned())
    );
    // Another kind of file is named as that, without its content.
    fs::write(&file, "login:x:0:0:login:/root:/bin/sh\n".repeat(40)).expect("written");
    let refused = node.cairn(&["snapshot", "import", path]);
    fails(&refused, 1, &["all is not a snapshot file"]);
    assert!(!stderr(&refused).contains("login"), "{}", stderr(&refused));
}
