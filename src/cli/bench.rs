//! `cairn bench`: the performance of a node on this hardware, with queries from its own documents.
//!
//! Invariants: nothing is written to the node. Queries are words of its documents in a random order, so that they find
//! something; a number makes each unique, so that no answer comes from the cache, unless that is measured.

mod load;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use self::load::{Answer, Load, Outcome, quantile};
use super::backend::Backend;
use super::{Common, Failure, output, quiet_logs};
use crate::app::RunningNode;
use crate::mcp::{ErrorCode, Tool, ToolError};
use crate::retrieval::LIST_TOKENS_MAX;

/// Documents whose words are asked for.
const DOCUMENTS: usize = 200;
/// Words of a question.
const WORDS: usize = 7;
/// Part of the highest rate at which a node should still answer quickly.
const STEADY: f64 = 0.7;
/// How much more than it can answer a node is asked under overload.
const OVERLOAD: f64 = 4.0;
/// Clients under overload: more than a node answers at once (`server.in_flight_max`), or nothing would have to be refused.
const OVERLOAD_CLIENTS: usize = 640;
/// Ticks a second of the times in `/proc`.
const TICKS: f64 = 100.0;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn bench                          the node on this machine, 10 seconds each round
  cairn bench -c manual --seconds 3    one collection, quickly
  cairn bench --questions asked.txt    your own questions instead of words of the documents
  cairn bench --url https://node:7171  another machine: includes the network, without the node's CPU time

Rounds: one client at a time; as much as the node answers; 70 % of that at a constant rate; four times as much as it can \
answer, from 640 clients. At a constant rate a call's time counts from when it was due, so waiting is included; calls that \
were due while every client waited, until the time was over, are reported as unsent.

Nothing is written to the node. Its other users wait meanwhile.")]
pub(super) struct Arguments {
    /// Collection to search; may be repeated [default: all]
    #[arg(short, long = "collection", env = "CAIRN_COLLECTION")]
    collections: Vec<String>,
    /// Length of each round, in seconds
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = output::whole::<u64>(1..=600))]
    seconds: u64,
    /// Concurrent clients [default: 32]
    #[arg(long, default_value_t = 32, value_name = "N", hide_default_value = true,
          value_parser = output::whole::<u16>(1..=512))]
    clients: u16,
    /// File with one question per line
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
}

/// A round with what came of it.
struct Round {
    what: &'static str,
    outcome: Outcome,
    /// Calls a second that were asked for.
    asked: Option<f64>,
    /// Seconds of processor that the node used, where that can be seen.
    cpu: Option<f64>,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let config = common.load()?;
    quiet_logs(&config);
    let connect = || {
        let node = Backend::running(common.address(), config.clone())?;
        node.ok_or_else(|| Failure::unreachable(anyhow!("no node runs here; start one with `cairn serve`")))
    };
    let node = connect()?;
    let questions = match &arguments.questions {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        }
        None => questions(&node, &arguments.collections)?,
    };
    if questions.is_empty() {
        return Err(Failure::usage(anyhow!("there is nothing to ask for; add documents with `cairn add PATH`")));
    }
    let status = node.call(Tool::GetStatus, json!({}))?;
    let names = super::backend::names(&arguments.collections);
    // An error in the query is reported before anything is measured.
    node.call(Tool::Search, json!({"query": questions[0], "collections": names}))?;
    // Each client has a connection of its own.
    let all = usize::from(arguments.clients);
    let nodes: Vec<Backend> = (0..all.max(OVERLOAD_CLIENTS)).map(|_| connect()).collect::<Result<_, _>>()?;
    let process =
        if common.url.is_some() { None } else { RunningNode::read(&config.data_dir).map(|running| running.pid) };
    let time = Duration::from_secs(arguments.seconds);
    let mut asked = 0;
    let mut round = |what, clients: usize, rate: Option<f64>, is_new: bool| {
        eprintln!("… {what}, {} s", time.as_secs());
        let before = process.and_then(cpu);
        let mut clients: Vec<_> = nodes[..clients]
            .iter()
            .map(|node| {
                let (questions, names) = (&questions, &names);
                move |number: u64| {
                    let question = &questions[number as usize % questions.len()];
                    let question = if is_new { format!("{question} {number}") } else { question.clone() };
                    answer_of(node.call_unread(Tool::Search, json!({"query": question, "collections": names})))
                }
            })
            .collect();
        // Numbers continue, so that a later round does not repeat earlier queries.
        let outcome = load::run(Load { rate, time }, asked, &mut clients);
        if is_new {
            asked += (outcome.answered.len() + outcome.refused.len() + outcome.failed + outcome.unsent) as u64;
        }
        let cpu = process.and_then(cpu).zip(before).map(|(after, before)| after - before);
        Round { what, outcome, asked: rate, cpu }
    };
    let mut rounds = vec![round("one at a time", 1, None, true), round("one at a time, repeated", 1, None, false)];
    let most = round("as many as it answers", all, None, true);
    let rate = most.outcome.rate();
    if rate <= 0.0 {
        return Err(anyhow!(
            "no call was answered within {} s; `cairn status` shows the node's status",
            time.as_secs()
        )
        .into());
    }
    rounds.push(most);
    rounds.push(round("70 % of that, constantly", all, Some(rate * STEADY), true));
    rounds.push(round("four times as many as it answers", nodes.len(), Some(rate * OVERLOAD), true));
    report(common, &status, questions.len(), &rounds)
}

/// The outcome of a call.
fn answer_of(outcome: Result<(), Failure>) -> Answer {
    match outcome {
        Ok(()) => Answer::Answered,
        Err(failure) => match failure.error.downcast_ref::<ToolError>() {
            Some(error) if error.code == ErrorCode::Overloaded => Answer::Refused,
            _ => Answer::Failed,
        },
    }
}

/// Questions that the node can answer: words from the middle of its documents.
fn questions(node: &Backend, collections: &[String]) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = if collections.is_empty() {
        let listed = node.call(Tool::ListCollections, json!({}))?;
        let listed = listed["collections"].as_array().cloned().unwrap_or_default();
        listed.iter().map(|collection| output::text(collection, "name").to_owned()).collect()
    } else {
        collections.to_vec()
    };
    let mut questions = Vec::new();
    for name in &names {
        let page = node.call(
            Tool::ListDocuments,
            json!({"collection": name, "limit": DOCUMENTS, "max_tokens": LIST_TOKENS_MAX}),
        )?;
        for document in page["documents"].as_array().into_iter().flatten() {
            let id = output::text(document, "id");
            let document = node.call(Tool::Fetch, json!({"id": id}))?;
            let words: Vec<&str> = output::text(&document, "text").split_whitespace().collect();
            let words = words.iter().map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()));
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            // Not from the start, where documents of a kind are alike.
            let start = (words.len() / 2).min(words.len().saturating_sub(WORDS));
            questions.extend(
                (!words.is_empty()).then(|| words[start..].iter().take(WORDS).copied().collect::<Vec<_>>().join(" ")),
            );
        }
    }
    Ok(questions)
}

/// Seconds of processor that a process has used.
fn cpu(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything but ends with the last parenthesis; user and system time are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / TICKS)
}

fn report(common: &Common, status: &Value, questions: usize, rounds: &[Round]) -> Result<(), Failure> {
    let cores = crate::task::cores();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    if common.json {
        let rounds: Vec<Value> = rounds
            .iter()
            .map(|Round { what, outcome, asked, cpu }| {
                let calls = outcome.answered.len() + outcome.refused.len();
                json!({
                    "what": what, "asked_per_second": asked, "answered_per_second": outcome.rate(),
                    "p50_ms": millis(quantile(&outcome.answered, 0.5)), "p99_ms": millis(quantile(&outcome.answered, 0.99)),
                    "p999_ms": millis(quantile(&outcome.answered, 0.999)),
                    "refused": outcome.refused.len(), "refused_p99_ms": millis(quantile(&outcome.refused, 0.99)),
                    "failed": outcome.failed, "unsent": outcome.unsent, "cpu_us_per_call": cpu.map(|cpu| cpu * 1e6 / calls.max(1) as f64),
                })
            })
            .collect();
        return output::json(&json!({
            "version": status["version"], "passages": status["passages"], "questions": questions, "cores": cores,
            "rounds": rounds,
        }));
    }
    output::line(&format!(
        "{} passages, {cores} cores, {} in their own order",
        output::count(status, "passages"),
        output::counted(questions as u64, "question")
    ))?;
    output::line("")?;
    let time = |time: Duration| format!("{:.2} ms", millis(time));
    let rows = rounds.iter().map(|Round { what, outcome, cpu, .. }| {
        let calls = outcome.answered.len() + outcome.refused.len();
        vec![
            (*what).to_owned(),
            output::thousands(outcome.rate() as u64),
            time(quantile(&outcome.answered, 0.5)),
            time(quantile(&outcome.answered, 0.99)),
            cpu.map_or_else(String::new, |cpu| format!("{:.0} µs", cpu * 1e6 / calls.max(1) as f64)),
            output::thousands(outcome.refused.len() as u64),
            output::thousands(outcome.failed as u64),
            output::thousands(outcome.unsent as u64),
        ]
    });
    let header = ["round", "answers a second", "p50", "p99", "cpu a call", "refused", "failed", "unsent"];
    output::table(&header, &header[1..], rows.collect())?;
    let steady = rounds.iter().find(|round| round.asked.is_some());
    if let Some(Round { outcome, .. }) = steady {
        output::line(&format!(
            "\nAt {} searches a second this node answers 99 of 100 within {}.",
            output::thousands(outcome.rate() as u64),
            time(quantile(&outcome.answered, 0.99))
        ))?;
    }
    let failed: usize = rounds.iter().map(|round| round.outcome.failed).sum();
    if failed > 0 { Err(anyhow!("{} failed", output::counted(failed as u64, "call")).into()) } else { Ok(()) }
}
