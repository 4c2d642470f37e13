//! What is shown of snapshots: the list, the schedule, work that is under way.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::ByteSize;
use crate::cli::{Failure, output};

pub(super) fn show_list(answer: &Value) -> Result<(), Failure> {
    let others = answer["others"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tell_others = || {
        others.iter().try_for_each(|other| {
            let host = other["host"].as_str().map_or_else(String::new, |host| format!(" on {host}"));
            output::line(&format!(
                "node {}{host} has {} there too, the newest {}; --node or --any lists them",
                output::text(other, "node"),
                output::counted(other["snapshots"].as_u64().unwrap_or_default(), "snapshot"),
                output::text(other, "newest"),
            ))
        })
    };
    let listed = answer["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.is_empty() {
        // Where they should be, what follows says so.
        if answer["problem"].is_null() {
            let whose = if others.is_empty() { "" } else { " of this node" };
            let target = output::text(answer, "target");
            let next = match &answer["elsewhere"] {
                Value::Null => "`cairn snapshot create` makes one".to_owned(),
                other => {
                    format!("its newest, {}, went to {}", output::text(other, "newest"), output::text(other, "target"))
                }
            };
            output::line(&format!("no snapshots{whose} in {target}; {next}"))?;
        }
        return tell_others();
    }
    let nodes: BTreeSet<&str> = listed.iter().filter_map(|snapshot| snapshot["node"].as_str()).collect();
    let shows_node = nodes.len() > 1;
    let rows = listed.iter().map(|snapshot| {
        let id = output::text(snapshot, "id").to_owned();
        let node = snapshot["node"].as_str().and_then(|node| node.get(..8)).unwrap_or_default();
        let node = shows_node.then(|| node.to_owned());
        if snapshot["problem"].is_string() {
            return [id].into_iter().chain(node).chain(["unreadable".to_owned()]).collect();
        }
        [id].into_iter()
            .chain(node)
            .chain([
                output::text(snapshot, "kind").to_owned(),
                output::text(snapshot, "created").to_owned(),
                output::count(snapshot, "lsn"),
                output::size(snapshot, "bytes"),
                output::size(snapshot, "new_bytes"),
                output::text(snapshot, "verified_at").to_owned(),
            ])
            .collect()
    });
    let titles = ["id"]
        .into_iter()
        .chain(shows_node.then_some("node"))
        .chain(["kind", "time", "lsn", "size", "new", "verified"]);
    output::table(&titles.collect::<Vec<_>>(), &["lsn", "size", "new"], rows.collect())?;
    // A column would be as wide as the longest of them. Those with the same reason are grouped.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for snapshot in listed {
        let Some(problem) = snapshot["problem"].as_str() else { continue };
        let id = output::text(snapshot, "id");
        match reasons.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, ids)) => ids.push(id),
            None => reasons.push((problem, vec![id])),
        }
    }
    for (problem, ids) in reasons {
        let which = if ids.len() == listed.len() && ids.len() > 1 { "all".to_owned() } else { ids.join(", ") };
        output::line(&format!("\nunreadable, {which}: {problem}"))?;
    }
    tell_others()
}

pub(super) fn show_schedule(schedule: &Value) -> Result<(), Failure> {
    let line = |label: &str, value: String| output::line(&format!("{label:<12}{value}"));
    let number = |name: &str| schedule[name].as_u64();
    line("target", output::text(schedule, "target").to_owned())?;
    if schedule["scheduled"] == true {
        let every = output::count(schedule, "interval_seconds");
        line("ships", format!("every {every} s, if the log changed"))?;
        line("snapshot", "the first one of each day, in UTC".to_owned())?;
    } else {
        line("ships", "off; set snapshot.target".to_owned())?;
    }
    match number("verify_interval_seconds").unwrap_or_default() {
        0 => line("proof", "off".to_owned())?,
        seconds => line("proof", format!("every {} h", seconds.div_ceil(3_600)))?,
    }
    let cap = number("max_bytes").map_or_else(String::new, |most| format!(", within {}", ByteSize(most)));
    line(
        "keeps",
        format!(
            "{} daily, {} weekly, {} monthly, all of the last {} h{cap}",
            output::count(schedule, "daily"),
            output::count(schedule, "weekly"),
            output::count(schedule, "monthly"),
            number("point_in_time_seconds").unwrap_or_default() / 3_600
        ),
    )?;
    let is_known = matches!(output::text(schedule, "state"), "ok" | "new" | "failing" | "unproved");
    let none = if is_known { "none yet" } else { "unknown" };
    for (label, id, age) in [("newest", "newest", "age_seconds"), ("proved", "verified", "verified_age_seconds")] {
        let known = schedule[id].as_str().zip(number(age));
        line(label, known.map_or_else(|| none.to_owned(), |(id, age)| format!("{id}, {}", ago(age))))?;
    }
    let warnings = schedule["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.map(str::to_owned).try_for_each(|warning| line("warning", warning))
}

/// `5 minutes ago`
pub(in crate::cli) fn ago(seconds: u64) -> String {
    format!("{} ago", span(seconds))
}

/// `5 minutes`
pub(in crate::cli) fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    output::counted(count, unit)
}

/// `create: copying, 40 %`
pub(in crate::cli) fn under_way(work: &Value) -> String {
    let (name, step) = (output::text(work, "work"), output::text(work, "step"));
    let share = work["done"].as_u64().unwrap_or_default() * 100;
    match share.checked_div(work["total"].as_u64().unwrap_or_default()) {
        Some(percent) => format!("{name}: {step}, {percent} %"),
        None => format!("{name}: {step}"),
    }
}
