//! A node that searches on a GPU, and one whose GPU fails. On the software rasteriser of Mesa, which counts as a GPU for these tests
//! only.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::gpu::{helper_of, is_open};
use crate::left_out::left_out;
use crate::node::{CAIRN, TestNode, assert_says, cairn, clean, documents, list, stderr, stdout};
use crate::tls::wait_until;

/// More passages than a collection must have for the GPU.
const DOCUMENTS: usize = 4_200;
const SOFTWARE: (&str, &str) = ("CAIRN_INDEX_GPU", "software");
const PARTS: [&str; 8] = ["valve", "pump", "boiler", "filter", "gauge", "hose", "motor", "relay"];
const STATES: [&str; 7] = ["hums", "sticks", "leaks", "was replaced", "runs hot", "rattles", "is new"];

fn text(number: usize) -> String {
    let (part, state) = (PARTS[number % PARTS.len()], STATES[number % STATES.len()]);
    format!("The {part} {number} in hall {} {state} since shift {}.", number % 31, number % 17)
}

fn fill(node: &TestNode, collection: &str) {
    for first in (0..DOCUMENTS).step_by(700) {
        let batch = first..first + 700;
        let document = |number: usize| json!({"id": format!("d{number}"), "text": text(number), "metadata": {"third": number % 3}});
        node.add(collection, batch.map(document).collect());
    }
}

fn gpu(node: &TestNode) -> Value {
    node.call("get_status", json!({}))["gpu"].clone()
}

fn searched_by(node: &TestNode, collection: &str) -> (Value, String) {
    let gpu = gpu(node);
    let of = gpu["collections"].as_array().into_iter().flatten().find(|one| one["name"] == collection);
    of.map_or((Value::Null, String::new()), |one| {
        (one["searched_by"].clone(), one["reason"].as_str().expect("words").to_owned())
    })
}

fn by_gpu(node: &TestNode, collection: &str) {
    wait_until("the GPU takes the collection", || searched_by(node, collection).0 == "gpu");
}

/// A node whose GPU searches a collection.
fn with_gpu(environment: &[(&str, &str)]) -> TestNode {
    let node = TestNode::with(&[&[SOFTWARE], environment].concat());
    fill(&node, "parts");
    by_gpu(&node, "parts");
    node
}

fn ask(node: &TestNode, query: &str) -> Value {
    node.call("search", json!({"query": query, "collections": ["parts"], "mode": "dense", "limit": 20, "detail": "ids", "max_tokens": 6000, "include": ["scores"]}))
}

/// Hits with their scores.
fn hits(answer: &Value) -> Vec<(String, Value)> {
    list(&answer["results"])
        .iter()
        .map(|hit| (hit["id"].as_str().expect("an id").to_owned(), hit["score"].clone()))
        .collect()
}

fn fallbacks(node: &TestNode, reason: &str) -> u64 {
    let text = node.get(&format!("{}/metrics", node.admin)).text;
    let name = format!("cairn_gpu_fallbacks_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().expect("a number"))
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().expect("kill is there").success());
}

#[test]
fn the_gpu_answers_what_the_cpu_answers() {
    let node = with_gpu(&[]);
    let plain = TestNode::with(&[("CAIRN_INDEX_GPU", "off")]);
    fill(&plain, "parts");
    let before = node.metric("cairn_gpu_questions_total");
    let mut asked = 0;
    for number in 0..40 {
        let query = format!("a {} that {} near {number}", PARTS[number % 8], STATES[number % 7]);
        for mode in ["dense", "hybrid"] {
            for extra in [json!({}), json!({"limit": 50}), json!({"limit": 20})] {
                let mut arguments = json!({"query": query, "collections": ["parts"], "mode": mode});
                arguments.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
                assert_eq!(hits(&node.call("search", arguments.clone())), hits(&plain.call("search", arguments)));
                asked += 1;
            }
        }
    }
    let answered = node.metric("cairn_gpu_questions_total") - before;
    let late = fallbacks(&node, "late");
    assert!(answered + late >= asked && answered > late, "{asked} asked, {answered} answered, {late} late");
    let told = node.cairn(&["status"]);
    assert_says(&stdout(&told), &["llvmpipe", "parts: searched by the GPU; a question takes the GPU"]);
    let ready = node.get(&format!("{}/ready", node.admin)).json();
    assert_eq!(ready["gpu"]["collections"][0]["searched_by"], "gpu", "{ready}");
    assert_eq!(gpu(&plain), json!({"state": "off"}));
}

#[test]
fn filters_writes_and_removals_are_seen_at_once() {
    // Filters that leave anything go to the GPU.
    let node = with_gpu(&[("CAIRN_INDEX_SCAN_MAX", "10")]);
    let third = json!({"query": "a relay that hums", "collections": ["parts"], "filter": {"third": 1}, "mode": "dense", "limit": 50, "detail": "ids", "max_tokens": 6000});
    let found = node.call("search", third);
    assert_eq!(list(&found["results"]).len(), 50);
    let number = |id: &str| id.rsplit_once('d').and_then(|(_, number)| number.split('#').next()?.parse::<usize>().ok());
    assert!(hits(&found).iter().all(|(id, _)| number(id).is_some_and(|number| number % 3 == 1)), "{found}");
    node.add("parts", json!([{"id": "zebra", "text": "A zebra stands in the boiler house."}]));
    let first = |answer: &Value| documents(answer)[0].clone();
    assert_eq!(first(&ask(&node, "zebra in the boiler house")), "zebra");
    node.call("delete_documents", json!({"ids": ["parts/zebra"]}));
    assert_ne!(first(&ask(&node, "zebra in the boiler house ")), "zebra");
    // More than a few, so that the device is told.
    let ids: Vec<String> = (0..400).map(|number| format!("parts/d{}", number * 8)).collect();
    node.call("delete_documents", json!({"ids": ids}));
    let left = ask(&node, "the valve sticks");
    assert_eq!(list(&left["results"]).len(), 20);
    assert!(documents(&left).iter().all(|document| !ids.contains(&format!("parts/{document}"))));
    assert_eq!(fallbacks(&node, "failed"), 0);
}

#[test]
fn questions_that_come_together_are_answered_together() {
    let node = with_gpu(&[]);
    for number in 0..20 {
        ask(&node, &format!("lone {number}"));
    }
    let batches =
        |node: &TestNode| (node.metric("cairn_gpu_batch_questions_count"), node.metric("cairn_gpu_questions_total"));
    let (lone, lone_questions) = batches(&node);
    assert_eq!(lone, lone_questions, "a question that comes alone goes alone");
    std::thread::scope(|scope| {
        for client in 0..16 {
            let node = &node;
            scope.spawn(move || (0..20).for_each(|number| drop(ask(node, &format!("valve {client} {number}")))));
        }
    });
    let (batches, questions) = batches(&node);
    let (batches, questions) = (batches - lone, questions - lone_questions);
    assert!(batches * 2 <= questions, "{questions} questions in {batches} batches");
}

#[test]
fn a_helper_that_is_killed_under_load_costs_no_answer() {
    let node = with_gpu(&[]);
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (node, is_over, answered) = (&node, &is_over, &answered);
            scope.spawn(move || {
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    number += 1;
                    let found = ask(node, &format!("pump {client} {number}"));
                    assert_eq!(list(&found["results"]).len(), 20);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for = |more: usize| {
            let goal = answered.load(Ordering::Relaxed) + more;
            wait_until("searches are answered", || answered.load(Ordering::Relaxed) >= goal);
        };
        for _ in 0..3 {
            wait_for(20);
            let helper = helper_of(node.pid());
            signal("-9", helper);
            wait_for(20);
            wait_until("another helper serves", || {
                let next = helper_of(node.pid());
                next != helper && is_open(next) && searched_by(&node, "parts").0 == "gpu"
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(fallbacks(&node, "failed") + fallbacks(&node, "late") > 0, "some question was with a helper that died");
    assert!(node.metric("cairn_gpu_helper_starts_total") >= 4);
    assert_says(&node.log(), &["the GPU failed; the CPU searches", "the GPU helper ended"]);
}

#[test]
fn a_helper_that_hangs_delays_a_question_and_is_replaced() {
    let node = with_gpu(&[]);
    let helper = helper_of(node.pid());
    signal("-STOP", helper);
    assert_eq!(list(&ask(&node, "the gauge rattles")["results"]).len(), 20);
    assert_eq!(fallbacks(&node, "late"), 1);
    // Nobody else waits for it.
    let answered = (0..50)
        .map(|number| ask(&node, &format!("the hose leaks {number}")))
        .filter(|found| list(&found["results"]).len() == 20);
    assert_eq!(answered.count(), 50);
    // A second later somebody may try again, once each second.
    assert!(fallbacks(&node, "late") <= 5, "{}", fallbacks(&node, "late"));
    wait_until("it is given up", || node.log().contains("the GPU helper did not answer in time"));
    assert!(!fs::exists(format!("/proc/{helper}")).expect("/proc is there"), "nothing is left behind");
    wait_until("another one serves", || node.metric("cairn_gpu_helper_starts_total") == 2);
    by_gpu(&node, "parts");
}

#[test]
fn a_driver_that_is_replaced_is_taken_up_again() {
    let scratch = tempfile::tempdir().expect("temporary directory");
    let drivers = fs::read_dir("/usr/share/vulkan/icd.d").expect("Mesa is there");
    let rasteriser =
        drivers.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("lvp_icd")).expect("llvmpipe");
    let driver = scratch.path().join("icd.json");
    let (aside, path) = (scratch.path().join("aside"), driver.to_str().expect("UTF-8").to_owned());
    fs::copy(rasteriser.path(), &driver).expect("copied");
    let node = with_gpu(&[("VK_DRIVER_FILES", &path), ("VK_ICD_FILENAMES", &path)]);
    fs::rename(&driver, &aside).expect("moved");
    signal("-9", helper_of(node.pid()));
    assert_eq!(list(&ask(&node, "the relay is new")["results"]).len(), 20);
    wait_until("no driver is found", || {
        gpu(&node)["reason"].as_str().is_some_and(|why| why.contains("Vulkan finds no GPU here"))
    });
    assert_eq!(gpu(&node)["state"], "failed");
    assert_eq!(list(&ask(&node, "the relay was replaced")["results"]).len(), 20);
    assert_eq!(node.metric("cairn_gpu_up"), 0);
    fs::rename(&aside, &driver).expect("moved back");
    by_gpu(&node, "parts");
    assert_eq!(node.metric("cairn_gpu_up"), 1);
}

#[test]
fn a_device_without_memory_leaves_a_collection_to_the_cpu() {
    let node = TestNode::with(&[SOFTWARE]);
    wait_until("the device is open", || gpu(&node)["state"] == "ready");
    let helper = helper_of(node.pid());
    // What it has may stay, and nothing comes to it.
    let limit = Command::new("prlimit").args(["--as=1", "--pid", &helper.to_string()]).status();
    assert!(limit.expect("prlimit is there").success());
    fill(&node, "parts");
    wait_until("it cannot be loaded", || {
        let (by, why) = searched_by(&node, "parts");
        by == "cpu" && (why.contains("finds no room") || why.contains("the GPU failed"))
            || gpu(&node)["state"] == "failed"
            || helper_of(node.pid()) != helper
    });
    assert_eq!(list(&ask(&node, "the motor runs hot")["results"]).len(), 20);
}

#[test]
fn a_collection_that_finds_no_room_gets_what_another_leaves() {
    // Room for one of them as halves: 4,200 × 512 bytes.
    let node = with_gpu(&[("CAIRN_INDEX_GPU_MEMORY_BYTES_MAX", "2500KiB")]);
    fill(&node, "others");
    wait_until("the second finds no room", || {
        ask(&node, "the pump hums");
        searched_by(&node, "others").1.contains("finds no room")
    });
    assert_eq!(searched_by(&node, "parts").0, "gpu");
    // It is searched, so it gets room as soon as there is some.
    node.call("search", json!({"query": "the pump", "collections": ["others"]}));
    node.call("delete_collection", json!({"name": "parts", "confirm": "parts"}));
    by_gpu(&node, "others");
}

#[test]
fn a_node_without_a_gpu_says_so_and_serves() {
    let nowhere = [("VK_DRIVER_FILES", "/nowhere.json"), ("VK_ICD_FILENAMES", "/nowhere.json")];
    let node = TestNode::with(&nowhere);
    wait_until("it knows", || gpu(&node)["state"] == "absent");
    assert!(gpu(&node)["reason"].as_str().is_some_and(|why| why.contains("GPU")), "{}", gpu(&node));
    assert_says(&stdout(&node.cairn(&["status"])), &["gpu         none: "]);
    // Who asks for one is told, and it is looked for again.
    let node = TestNode::with(&[&nowhere[..], &[("CAIRN_INDEX_GPU", "on")]].concat());
    wait_until("it knows", || gpu(&node)["state"] == "failed");
    assert_says(&node.log(), &["the GPU failed; the CPU searches", "Vulkan finds no GPU here"]);
    assert_says(&stdout(&node.cairn(&["status"])), &["failed, the CPU searches", "tried again after"]);
}

/// Helpers that do not speak the protocol, in a folder that lies over the machine's, where nothing is executed from memory.
#[test]
fn a_helper_that_talks_nonsense_costs_no_answer() {
    if !rustix::process::geteuid().is_root() {
        left_out("it takes root to put another helper in the place of ours");
        return;
    }
    let scratch = tempfile::tempdir().expect("temporary directory");
    for (number, (nonsense, said)) in [
        ("head -c 4096 /dev/urandom >&0; sleep 100", "does not speak the protocol"),
        ("printf 'CGPU' >&0; head -c 24 /dev/zero >&0; sleep 100", "does not speak the protocol"),
        ("exit 3", "the GPU helper ended"),
    ]
    .into_iter()
    .enumerate()
    {
        let script = "mount -t tmpfs none /usr/libexec && echo 2 >/proc/sys/vm/memfd_noexec || exit 99
                      printf '#!/bin/sh\\n%s\\n' \"$1\" >/usr/libexec/cairn-gpu && chmod +x /usr/libexec/cairn-gpu
                      exec \"$2\" --json serve --data-dir \"$3\" --listen 127.0.0.1:0 --admin 127.0.0.1:0";
        let data = scratch.path().join(number.to_string());
        let log = scratch.path().join("log");
        let mut command = clean(Command::new("unshare"));
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            script,
            "sh",
            nonsense,
            CAIRN,
        ]);
        command.arg(&data).env("CAIRN_INDEX_GPU", "on").stdout(Stdio::piped());
        let mut node = command.stderr(fs::File::create(&log).expect("a log")).spawn().expect("unshare is there");
        let mut line = String::new();
        BufReader::new(node.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        if line.is_empty() && node.wait().expect("it ends").code() == Some(99) {
            left_out("this kernel has no vm.memfd_noexec");
            return;
        }
        let addresses: Value = serde_json::from_str(&line).expect("JSON");
        let url = addresses["mcp"].as_str().expect("an address").trim_end_matches("/mcp");
        wait_until("the helper was tried", || fs::read_to_string(&log).is_ok_and(|log| log.contains("the GPU failed")));
        let document = scratch.path().join("note.md");
        fs::write(&document, "The boiler of hall seven hums.").expect("written");
        let document = document.to_str().expect("UTF-8");
        let added = run(&["--url", url, "add", document, "-c", "notes"]);
        assert!(added.status.success(), "{}", stderr(&added));
        let found = run(&["--url", url, "search", "boiler hums", "--mode", "dense"]);
        assert_says(&stdout(&found), &["hall seven"]);
        assert_says(&stdout(&run(&["--url", url, "status"])), &["failed, the CPU searches", said]);
        node.kill().expect("it runs");
        node.wait().expect("it ends");
    }
}

fn run(arguments: &[&str]) -> Output {
    cairn().args(arguments).output().expect("starts")
}
