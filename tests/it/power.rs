//! Power cuts under the real binary.
//!
//! Each round starts `cairn serve` on what the last power cut left, compares it with every acknowledgement that clients
//! ever got, and lets several of them write until the power goes at a call of the file system that the seed chooses: while
//! they write, while the node stops, or while it starts. In some rounds the log is compacted meanwhile. Some rounds kill the
//! process only, so that what was written before a kill can be lost to a later power cut. Every few dozen rounds begin with
//! an empty disk.
//!
//! `CAIRN_POWER_ROUNDS` sets how many rounds there are (120), `CAIRN_POWER_SEED` the seed. The same seed asks for the same
//! writes and cuts at the same call; which thread of the node gets there first is the machine's business. For long runs
//! take `cargo test --release --test it power::`, which knows no time limit.

use std::time::{Duration, Instant};

use crate::ledger::{Writer, check};
use crate::power_machine::{Machine, Node};
use crate::power_tree::{Random, Tree};

/// Clients that write at the same time.
const WRITERS: usize = 3;
/// Rounds with one data directory: the log grows, and with it the time of a start.
const ROUNDS_A_DISK: u64 = 24;
/// How long a load may take to reach the call that its power cut is planned for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a number of rounds did.
#[derive(Debug, Default)]
struct Report {
    rounds: u64,
    acknowledged: u64,
    /// Power cuts while clients wrote, while the node stopped, while it started; kills of the process.
    kinds: [u64; 4],
    /// Starts that a power cut ended.
    interrupted_starts: u64,
    /// Segments that the last rounds of the disks found sealed.
    sealed: u64,
    /// Compactions of the log that came to their end.
    compactions: u64,
}

/// What ends a round.
#[derive(Debug, Clone, Copy)]
enum End {
    CutWhileWriting,
    CutWhileStopping,
    CutWhileStarting,
    Kill,
}

impl End {
    fn draw(random: &mut Random) -> Self {
        match random.below(100) {
            0..68 => Self::CutWhileWriting,
            68..78 => Self::CutWhileStopping,
            78..90 => Self::CutWhileStarting,
            _ => Self::Kill,
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, expected a number")),
        Err(_) => default,
    }
}

/// A number of calls, small or large with equal chances: a write takes about a hundred.
fn some_calls(random: &mut Random) -> u64 {
    let scale = random.below(10);
    1 + random.below(16 << scale)
}

/// Lets all writers write until somebody tells, then kills the node. With `compacts` the log is compacted meanwhile.
fn write_until(
    told: &std::sync::mpsc::Receiver<()>,
    node: Node,
    writers: &mut [Writer],
    compacts: bool,
) -> Result<(), String> {
    std::thread::scope(|scope| {
        if compacts {
            let client = node.client.clone();
            // What it answers is of no interest here, and there is none once the node is gone.
            scope.spawn(move || (0..4).all(|_| client.compact().is_ok()));
        }
        let writing: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                let client = node.client.clone();
                scope.spawn(move || writer.write(&client, u64::MAX))
            })
            .collect();
        let reached = told.recv_timeout(PATIENCE);
        node.kill();
        let troubles: Vec<_> = writing.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        reached.map_err(|_| format!("HANG: the planned call was never reached; the writers saw {troubles:?}"))
    })
}

/// The rounds. `plant` makes syncs of such files do nothing.
///
/// Errors say what was found wrong, in which round.
fn rounds(machine: &mut Machine, count: u64, seed: u64, plant: Option<&'static str>) -> Result<Report, (u64, String)> {
    let mut report = Report::default();
    let mut random = Random::new(seed);
    let mut writers = Vec::new();
    for round in 0..count {
        if round % ROUNDS_A_DISK == 0 {
            report.sealed += sealed(machine);
            machine.change_disk(Tree::new());
            let acknowledged: u64 = writers.iter().map(|writer: &Writer| writer.acknowledged).sum();
            report.acknowledged += acknowledged;
            writers = (0..WRITERS).map(|number| Writer::new(number, random.next())).collect();
        }
        // The last round of a disk reads every text.
        let every_text = round % ROUNDS_A_DISK == ROUNDS_A_DISK - 1 || round == count - 1;
        one_round(machine, &mut random, &mut writers, plant, every_text, &mut report)
            .map_err(|found| (round, format!("round {round} of seed {seed}: {found}\n{}", machine.log())))?;
        report.rounds += 1;
        report.compactions += machine.log().matches("segments of the log were compacted").count() as u64;
    }
    // What the last round left is looked at too.
    report.sealed += sealed(machine);
    verified(machine, &mut writers, true).map_err(|found| (count, format!("after all rounds: {found}")))?;
    report.acknowledged += writers.iter().map(|writer| writer.acknowledged).sum::<u64>();
    Ok(report)
}

/// How many segments the disk holds that were filled.
fn sealed(machine: &Machine) -> u64 {
    let files = std::fs::read_dir(machine.data_dir().join("log")).into_iter().flatten().flatten();
    let segments = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "seg")).count();
    segments.saturating_sub(1) as u64
}

/// Starts a node on a healthy disk and compares it with what was acknowledged.
fn verified(machine: &mut Machine, writers: &mut [Writer], every_text: bool) -> Result<Node, String> {
    let node = machine.start().map_err(|words| format!("FAILED START: {words}"))?;
    check(&node.client, writers, every_text)?;
    Ok(node)
}

fn one_round(
    machine: &mut Machine,
    random: &mut Random,
    writers: &mut [Writer],
    plant: Option<&'static str>,
    every_text: bool,
    report: &mut Report,
) -> Result<(), String> {
    let end = End::draw(random);
    report.kinds[end as usize] += 1;
    let compacts = random.percent(20);
    machine.disk().ignore_syncs_of(plant);
    match end {
        End::CutWhileStarting => {
            let told = machine.disk().cut_power_at(1 + random.below(150));
            match machine.start() {
                Ok(node) => write_until(&told, node, writers, compacts)?,
                Err(words) => {
                    // It may fail only for want of power.
                    told.try_recv().map_err(|_| format!("FAILED START: {words}"))?;
                    report.interrupted_starts += 1;
                }
            }
        }
        End::CutWhileWriting => {
            let node = verified(machine, writers, every_text)?;
            let told = machine.disk().cut_power_at(some_calls(random));
            write_until(&told, node, writers, compacts)?;
        }
        End::CutWhileStopping => {
            let node = verified(machine, writers, every_text)?;
            let writes = random.below(4);
            for writer in &mut *writers {
                if let Some(trouble) = writer.write(&node.client, writes) {
                    return Err(format!("REFUSED on a healthy disk: {}", trouble.words()));
                }
            }
            let _told = machine.disk().cut_power_at(1 + random.below(80));
            node.stop().map_err(|words| format!("HANG: {words}"))?;
            machine.disk().cut_power();
        }
        End::Kill => {
            let node = verified(machine, writers, every_text)?;
            let told = machine.disk().tell_at(some_calls(random));
            write_until(&told, node, writers, compacts)?;
            machine.repair();
            return Ok(());
        }
    }
    machine.lose_power(random);
    Ok(())
}

#[test]
fn power_cuts_lose_nothing_acknowledged_and_leave_nothing_half() {
    let Some(mut machine) = Machine::new() else { return };
    let (count, seed) = (setting("CAIRN_POWER_ROUNDS", 120), setting("CAIRN_POWER_SEED", 20_260_301));
    let start = Instant::now();
    let report = rounds(&mut machine, count, seed, None).unwrap_or_else(|(_, found)| panic!("{found}"));
    let seconds = start.elapsed().as_secs_f64();
    let [writing, stopping, starting, kills] = report.kinds;
    eprintln!(
        "{count} rounds, {:.2} s each: {writing} cuts while writing, {stopping} while stopping, {starting} while starting \
         ({} ended the start), {kills} kills; {} segments sealed, {} compactions; {} writes acknowledged, none lost",
        seconds / count as f64,
        report.interrupted_starts,
        report.sealed,
        report.compactions,
        report.acknowledged,
    );
    assert!(report.acknowledged > report.rounds, "the load is real: {report:?}");
}

#[test]
fn a_log_whose_syncs_do_nothing_is_caught() {
    let Some(mut machine) = Machine::new() else { return };
    let seed = setting("CAIRN_POWER_SEED", 20_260_301);
    match rounds(&mut machine, 50, seed, Some(".seg")) {
        Ok(report) => panic!("the planted bug went unnoticed: {report:?}"),
        Err((round, found)) => {
            let found: String = found.lines().take(3).collect::<Vec<_>>().join("\n");
            // The loss of the first segment's header ends every later start.
            let losses = ["LOST", "INVENTED", "DAMAGE", "FAILED START"];
            assert!(losses.iter().any(|word| found.contains(word)), "{found}");
            eprintln!("caught in round {round}: {found}");
        }
    }
}
