//! Every call of the file system that can fail fails once.
//!
//! A fixed scenario (writes, an update, deletions, a full segment, compaction, a clean stop, a second start) runs on a disk
//! whose call number N fails: with EIO, with ENOSPC, as a short write, or as a sync after which the kernel forgets what it
//! could not write. A run without a fault tells how many calls there are. Whatever the node makes of the fault, it does not
//! panic and does not hang, it goes on answering reads, and once the disk is healthy it starts and has all that it
//! acknowledged.
//!
//! The test suite tries one call in so many. `CAIRN_FAULT_STRIDE=1` tries all, which takes an hour; several processes share
//! the work with the same stride and another `CAIRN_FAULT_FROM` each, the place of the first call to try.

use std::collections::BTreeMap;

use serde_json::json;

use crate::ledger::{COLLECTIONS, Document, Op, Writer, check};
use crate::power_disk::{Call, Fault};
use crate::power_machine::{Client, Machine, Node, Trouble, tells_of_a_panic};
use crate::power_tree::{Random, Tree};

/// The test suite tries one call in so many: a run takes a second, most of which compaction lets pass by itself.
const STRIDE: usize = 61;
/// Of the syncs of files, which are few, it tries more.
const STRIDE_OF_SYNCS: usize = 6;

/// What became of the runs with one kind of fault in one kind of call.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    acknowledged: u64,
    refused_writes: u64,
    refused_starts: u64,
}

/// A scenario's own account.
#[derive(Debug, Default)]
struct Run {
    refused_writes: u64,
    refused_starts: u64,
}

/// Documents of one collection, with ids that begin with `prefix`.
fn batch(writer: &mut Writer, collection: &'static str, prefix: &str, count: u64, ballast: u64) -> Op {
    let documents: Vec<(String, Document)> = (0..count)
        .map(|number| {
            let document = writer.document(5 + 40 * (number % 3), ballast);
            (format!("{collection}/w0-{prefix}{number}"), document)
        })
        .collect();
    Op::Put(collection, documents)
}

/// The writes of the first life. One fills a segment, and what is deleted last makes it worth compacting.
fn script(writer: &mut Writer) -> Vec<Op> {
    vec![
        batch(writer, COLLECTIONS[0], "a", 3, 0),
        batch(writer, COLLECTIONS[1], "b", 2, 3_000),
        Op::Update(format!("{}/w0-a1", COLLECTIONS[0]), writer.document(30, 0)),
        Op::Delete(vec![format!("{}/w0-a0", COLLECTIONS[0]), format!("{}/w0-a2", COLLECTIONS[0])]),
        batch(writer, COLLECTIONS[1], "c", 24, 55_000),
        batch(writer, COLLECTIONS[0], "d", 3, 0),
        Op::Delete((0..16).map(|number| format!("{}/w0-c{number}", COLLECTIONS[1])).collect()),
    ]
}

/// Reads answer, whatever became of writing.
fn reads_answer(client: &Client) -> Result<(), String> {
    client.ask("get_status", &json!({}))?;
    let collections = client.ask("list_collections", &json!({}))?;
    if collections["collections"].as_array().is_some_and(|found| !found.is_empty()) {
        client.ask("search", &json!({"query": "the report"}))?;
    }
    Ok(())
}

/// Sends writes; those that are refused are the scenario's account, those without an answer an error.
fn send(writer: &mut Writer, node: &Node, ops: Vec<Op>, run: &mut Run) -> Result<(), String> {
    for op in ops {
        match writer.perform(&node.client, op) {
            Ok(()) => {}
            Err(Trouble::Refused(_)) => run.refused_writes += 1,
            Err(trouble @ Trouble::Broken(_)) => return Err(format!("a write: {}", trouble.words())),
        }
        reads_answer(&node.client)?;
    }
    Ok(())
}

fn no_panic(machine: &Machine) -> Result<(), String> {
    let log = machine.log();
    if tells_of_a_panic(&log) { Err(format!("PANIC\n{log}")) } else { Ok(()) }
}

/// Two lives of a node. A start may be refused, as the fault may have hit it.
fn scenario(machine: &mut Machine, writer: &mut Writer) -> Result<Run, String> {
    let mut run = Run::default();
    let first = script(writer);
    let second = vec![batch(writer, COLLECTIONS[0], "e", 2, 0), batch(writer, COLLECTIONS[1], "f", 3, 20_000)];
    for (life, ops) in [first, second].into_iter().enumerate() {
        let started = machine.start();
        no_panic(machine)?;
        match started {
            Ok(node) => {
                reads_answer(&node.client)?;
                send(writer, &node, ops, &mut run)?;
                if life == 0
                    && let Err(trouble @ Trouble::Broken(_)) = node.client.compact()
                {
                    return Err(format!("compaction: {}", trouble.words()));
                }
                reads_answer(&node.client)?;
                node.stop()?;
                no_panic(machine)?;
            }
            Err(words) if words.contains("ended before") => run.refused_starts += 1,
            Err(words) => return Err(words),
        }
    }
    Ok(run)
}

/// One run with one fault: the call that failed, and what was acknowledged; `None` when the run had fewer such calls.
fn one_case(machine: &mut Machine, at: u64, fault: Fault) -> Result<Option<(Call, Run, u64)>, String> {
    machine.change_disk(Tree::new());
    let mut writer = Writer::new(0, at);
    machine.disk().fail_at(at, fault);
    let run = scenario(machine, &mut writer)?;
    let Some(call) = machine.disk().failed() else { return Ok(None) };
    // A healthy disk: the same machine, or one that lost its power, which takes what no sync made durable.
    if at.is_multiple_of(2) {
        machine.repair()
    } else {
        machine.lose_power(&mut Random::new(at))
    }
    let node = machine.start().map_err(|words| format!("FAILED START on a healthy disk: {words}"))?;
    check(&node.client, std::slice::from_mut(&mut writer), true)?;
    node.stop()?;
    no_panic(machine)?;
    Ok(Some((call, run, writer.acknowledged)))
}

/// Runs the scenario with one fault after the other.
fn try_all(fault: Fault) {
    let Some(mut machine) = Machine::new() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let usual = if fault == Fault::LostSync { STRIDE_OF_SYNCS } else { STRIDE };
    let (stride, from) = (number("CAIRN_FAULT_STRIDE").unwrap_or(usual), number("CAIRN_FAULT_FROM").unwrap_or(0));
    machine.disk().count();
    let dry = scenario(&mut machine, &mut Writer::new(0, 0)).expect("a healthy disk");
    assert_eq!((dry.refused_writes, dry.refused_starts), (0, 0));
    let calls = machine.disk().calls();
    assert!(calls.len() > 100, "{calls:?}");
    let fitting = calls.iter().filter(|call| fault.fits(**call)).count() as u64;
    let mut tallies: BTreeMap<Call, Tally> = BTreeMap::new();
    let mut unmet = 0;
    let mut found = Vec::new();
    for at in (1..=fitting).skip(from).step_by(stride) {
        match one_case(&mut machine, at, fault) {
            Ok(Some((call, run, acknowledged))) => {
                let tally = tallies.entry(call).or_default();
                tally.runs += 1;
                tally.acknowledged += acknowledged;
                tally.refused_writes += run.refused_writes;
                tally.refused_starts += run.refused_starts;
            }
            Ok(None) => unmet += 1,
            Err(words) => {
                let call = machine.disk().failed();
                let words = format!("{fault:?} at call {at} ({call:?}): {words}\n{}", machine.log());
                // At once, as all of them take long.
                eprintln!("{words}");
                found.push(words);
            }
        }
    }
    eprintln!("{fault:?}: {} calls, {fitting} can fail so; {unmet} runs ended before theirs", calls.len());
    for (call, tally) in &tallies {
        eprintln!("{:24} {tally:?}", format!("{fault:?} {call:?}"));
    }
    assert!(found.is_empty(), "{} of the runs went wrong:\n{}", found.len(), found.join("\n---\n"));
    // Background work differs from run to run, so the last calls of the dry run may not come again; the others have to.
    let met: u64 = tallies.values().map(|tally| tally.runs).sum();
    assert!(met > unmet, "{fault:?}: {met} runs met their fault, {unmet} ended before theirs");
    assert!(tallies.values().any(|tally| tally.acknowledged > 0), "no run acknowledged anything: {tallies:?}");
}

#[test]
fn a_call_that_fails_costs_nothing_acknowledged() {
    try_all(Fault::Io);
}

#[test]
fn a_call_that_finds_no_space_costs_nothing_acknowledged() {
    try_all(Fault::NoSpace);
}

#[test]
fn a_short_write_costs_nothing_acknowledged() {
    try_all(Fault::ShortWrite);
}

#[test]
fn a_sync_whose_data_is_lost_costs_nothing_acknowledged() {
    try_all(Fault::LostSync);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(mut machine) = Machine::new() else { return };
    let mut writer = Writer::new(0, 1);
    let node = machine.start().expect("a healthy disk");
    let op = batch(&mut writer, COLLECTIONS[0], "a", 3, 0);
    writer.perform(&node.client, op).expect("there is room");
    machine.disk().set_free_bytes(1 << 20);
    let op = batch(&mut writer, COLLECTIONS[0], "b", 3, 0);
    assert!(matches!(writer.perform(&node.client, op), Err(Trouble::Refused(_))));
    reads_answer(&node.client).expect("reads answer");
    assert_eq!(node.client.ask("get_status", &json!({})).expect("an answer")["writes"], "disk_full");
    machine.disk().set_free_bytes(1 << 30);
    let op = batch(&mut writer, COLLECTIONS[0], "c", 3, 0);
    writer.perform(&node.client, op).expect("there is room again");
    check(&node.client, std::slice::from_mut(&mut writer), true).expect("what was acknowledged");
}
