//! `cairn status`: how the node is.

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::mcp::Tool;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 3 means that the node is not ready, exit code 4 that it serves but its snapshots are missing or failed.")]
pub(super) struct Arguments {}

pub(super) fn run(common: &Common, _: &Arguments) -> Result<(), Failure> {
    let backend = common.backend()?;
    let mut answer = backend.call(Tool::GetStatus, json!({}))?;
    answer["address"] = backend.address().map_or(Value::Null, Value::from);
    if common.json {
        output::json(&answer)?;
    } else {
        print_result(&answer)?;
    }
    match answer["ready"].as_bool() {
        Some(true) => match answer["snapshots"]["problem"].as_str() {
            // Said in its line already, and what to do about it.
            Some(_) => Err(Failure::backups(anyhow!("the node serves; its snapshots are missing or failed"))),
            None => Ok(()),
        },
        _ => Err(Failure::unreachable(anyhow!("the node is not ready"))),
    }
}

fn print_result(answer: &Value) -> Result<(), Failure> {
    let line = |label: &str, value: String| output::line(&format!("{label:<12}{value}"));
    let text = |name| output::text(answer, name).to_owned();
    line("version", text("version"))?;
    line("node", text("node"))?;
    match answer["address"].as_str() {
        Some(address) => line("running at", address.to_owned())?,
        None => line("running", "no; the data directory was opened for this command".to_owned())?,
    }
    line("data", text("data_dir"))?;
    let reasons = answer["not_ready"].as_object().into_iter().flatten();
    let reasons: Vec<&str> = reasons.filter_map(|(_, reason)| reason.as_str()).collect();
    line("ready", if reasons.is_empty() { "yes".to_owned() } else { format!("no: {}", reasons.join("; ")) })?;
    match answer["writes_reason"].as_str() {
        None => line("writes", "accepted".to_owned())?,
        Some(reason) => line("writes", format!("refused: {reason}"))?,
    }
    line("collections", output::count(answer, "collections"))?;
    line("documents", output::count(answer, "documents"))?;
    line("passages", output::count(answer, "passages"))?;
    line("log", format!("{}, {} records", output::size(answer, "log_bytes"), output::count(answer, "lsn")))?;
    for model in answer["models"].as_array().into_iter().flatten() {
        line("model", format!("{} ({} dimensions)", output::text(model, "name"), model["dimensions"]))?;
    }
    let gpu = &answer["gpu"];
    match output::text(gpu, "state") {
        "ready" => line("gpu", format!("{}, driver {}", output::text(gpu, "device"), output::text(gpu, "driver")))?,
        "off" => {}
        "starting" => line("gpu", "is being opened".to_owned())?,
        "failed" => line("gpu", format!("failed, the CPU searches: {}", output::text(gpu, "reason")))?,
        _ => line("gpu", format!("none: {}", output::text(gpu, "reason")))?,
    }
    for collection in gpu["collections"].as_array().into_iter().flatten() {
        let (name, by) = (output::text(collection, "name"), output::text(collection, "searched_by"));
        line("", format!("{name}: searched by the {}; {}", by.to_uppercase(), output::text(collection, "reason")))?;
    }
    let snapshots = &answer["snapshots"];
    let age = |name: &str| snapshots[name].as_u64().map(super::snapshot::ago);
    let newest = age("age_seconds").map(|age| format!("newest {age}"));
    let proved = age("verified_age_seconds").map_or_else(|| "none proved".to_owned(), |age| format!("proved {age}"));
    let target = output::text(snapshots, "target");
    let known = newest.map(|newest| format!("{newest}, {proved}, in {target}"));
    match (snapshots["problem"].as_str(), known) {
        (Some(problem), Some(known)) => {
            line("snapshots", format!("PROBLEM: {problem}"))?;
            line("", known)?;
        }
        (Some(problem), None) => line("snapshots", format!("PROBLEM: {problem}"))?,
        (None, Some(known)) => line("snapshots", known)?,
        (None, None) if snapshots["state"] == "unknown" => {
            line("snapshots", format!("not looked for yet in {target}"))?
        }
        (None, None) => line("snapshots", format!("none yet, in {target}"))?,
    }
    for work in snapshots["under_way"].as_array().into_iter().flatten() {
        line("", super::snapshot::under_way(work))?;
    }
    for warning in snapshots["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line("", warning.to_owned())?;
    }
    let settings = |name: &str| -> Vec<&str> {
        answer["settings"][name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    for problem in settings("problems") {
        line("settings", format!("PROBLEM: the change is not used: {problem}"))?;
    }
    if !settings("restart").is_empty() {
        line("settings", format!("changed and need a restart: {}", settings("restart").join(", ")))?;
    }
    if let Some(seconds) = answer["erasure_overdue_seconds"].as_u64() {
        let holder = &answer["log_held_by"];
        let reason = match holder["name"].as_str() {
            Some(name) => format!("{name} has not passed record {} of the log yet", holder["after_lsn"]),
            None => "see docs/durability.md".to_owned(),
        };
        line("erasure", format!("overdue for {}: {reason}", super::snapshot::span(seconds)))?;
    }
    for damage in answer["damage"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line("damage", damage.to_owned())?;
    }
    Ok(())
}
