//! A node on a real systemd host, a guest of [`crate::host_guest`]: it is supervised, it logs to the journal, and it keeps what it
//! acknowledged through power cuts.
//!
//! The first journey is for every run. The others start a guest each and take minutes: `make test-host` sets
//! `CAIRN_TEST_HOST=all` for them.

use std::path::Path;

use cairn::base::ByteSize;
use cairn::deploy::systemd::{self, Machine};
use serde_json::Value;

use crate::host_guest::{self, Guest, MEMORY};
use crate::left_out::on_request;

/// Where the tests put the release.
const RELEASE: &str = "/usr/local/lib/cairn/0.0.0-00000000";
const CURRENT: &str = "/usr/local/lib/cairn/current";
const COMMAND: &str = "/usr/local/bin/cairn";

/// A guest with the program and the units in place and nothing started.
fn installed() -> Option<Guest> {
    let mut guest = Guest::start(&[])?;
    for file in systemd::files(Machine { current: Path::new(CURRENT), memory: ByteSize(MEMORY), gpu: false }) {
        let text = String::from_utf8(file.bytes).expect("text");
        guest.write(file.path.to_str().expect("UTF-8"), file.mode, &text);
    }
    guest.put(&host_guest::program(), &format!("{RELEASE}/cairn"));
    guest.must(&format!("ln -sfn {RELEASE} {CURRENT} && ln -sfn {CURRENT}/cairn {COMMAND}"));
    guest.must("systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && sync");
    Some(guest)
}

/// Whether the long journeys are asked for; says so when they are not.
pub fn is_long_run() -> bool {
    let is_asked = std::env::var("CAIRN_TEST_HOST").is_ok_and(|value| value == "all");
    if !is_asked {
        on_request("takes minutes; `make test-host` runs it");
    }
    is_asked
}

/// A property of the unit.
fn show(guest: &mut Guest, property: &str) -> String {
    guest.must(&format!("systemctl show --value -p {property} cairn")).trim().to_owned()
}

/// The node's entries of the journal since the boot.
fn journal(guest: &mut Guest) -> Vec<Value> {
    let text = guest.must("journalctl --sync; journalctl -b -u cairn -o json --no-pager");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

fn entry<'a>(journal: &'a [Value], start: &str) -> &'a Value {
    let says = |entry: &&Value| entry["MESSAGE"].as_str().is_some_and(|message| message.starts_with(start));
    journal.iter().find(says).unwrap_or_else(|| panic!("nothing says {start:?}: {journal:#?}"))
}

/// Runs a script and waits until the node says in the journal what the pattern matches. Nothing is polled: `journalctl -f` blocks.
fn until_logged(guest: &mut Guest, pattern: &str, script: &str) {
    guest.must(&format!(
        "cursor=$(journalctl -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p')\n\
         exec 5< <(exec timeout 150 journalctl -f -o cat -u cairn --after-cursor=\"$cursor\")\n\
         {script}\n\
         grep -m 1 -E '{pattern}' <&5"
    ));
}

const ADD: &str = "export CAIRN_DATA_DIR=/var/lib/cairn; mkdir -p /srv/notes; add() { echo \"Note $1 of the host: word$1.\" \
                   >/srv/notes/$1.md && cairn add --prefix notes/ /srv/notes/$1.md -c notes >/dev/null; }\n";

/// Writes notes until the power is cut, and demands each acknowledged one afterwards.
pub fn cut_the_power_while_writing(guest: &mut Guest, round: u32) {
    guest.begin(&format!(
        "{ADD} for i in $(seq {first} {last}); do add $i && echo \"ACKNOWLEDGED $i\" >/dev/console; done",
        first = round * 1000,
        last = round * 1000 + 999
    ));
    guest.console_lines("ACKNOWLEDGED ", 5);
    guest.power_cut();
    // What was acknowledged between the fifth and the cut counts as well; earlier rounds had their turn.
    let console = guest.console();
    let notes = console.lines().filter_map(|line| line.strip_prefix("ACKNOWLEDGED ")?.parse::<u32>().ok());
    let acknowledged: Vec<u32> = notes.filter(|note| note / 1000 == round).collect();
    assert!(acknowledged.len() >= 5, "{console}");
    let took = guest.boot();
    eprintln!("{} writes acknowledged, power cut, booted again in {:.1} s", acknowledged.len(), took.as_secs_f64());
    assert_eq!(show(guest, "ActiveState"), "active", "enabled, so it is up after a boot");
    for note in acknowledged {
        let found =
            guest.must(&format!("cairn --data-dir /var/lib/cairn search word{note} -c notes --mode lexical -n 1"));
        assert!(found.contains(&format!("word{note}")), "note {note} was acknowledged: {found}");
    }
}

#[test]
fn a_node_lives_on_a_systemd_host() {
    let Some(mut guest) = installed() else { return };
    assert_eq!(guest.must("ls /sys/class/net").trim(), "lo", "the guest has no network");

    guest.must("systemctl enable --now cairn");
    // Active means serving: no wait stands between the start and this request.
    guest.must("exec 6<>/dev/tcp/127.0.0.1/7171");
    assert_eq!(show(&mut guest, "ActiveState"), "active");
    assert_eq!(show(&mut guest, "User"), "cairn");
    assert_eq!(show(&mut guest, "StatusText"), "Answers MCP at http://127.0.0.1:7171/mcp");
    assert_eq!(guest.must("stat -c '%a %U' /var/lib/cairn /var/lib/cairn-snapshots").trim(), "700 cairn\n700 cairn");
    let seen = guest.must("tr '\\0' '\\n' </proc/$(systemctl show --value -p MainPID cairn)/environ");
    assert!(seen.contains("CAIRN_CONFIG=-/etc/cairn/cairn.toml"), "{seen}");

    let entries = journal(&mut guest);
    let open = entry(&entries, "the log is open node=");
    for (field, value) in [
        ("SYSLOG_IDENTIFIER", "cairn"),
        ("PRIORITY", "5"),
        ("TARGET", "cairn::app"),
        ("CAIRN_COLLECTIONS", "0"),
        ("CAIRN_VERSION", env!("CARGO_PKG_VERSION")),
        ("_SYSTEMD_UNIT", "cairn.service"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(open[field], value, "{field} in {open}");
    }
    assert!(open["CAIRN_NODE"].as_str().is_some_and(|node| node.len() == 32), "{open}");
    let at = |text: &Value| text.as_str().and_then(|text| text.parse::<u64>().ok()).expect("microseconds");
    let active: u64 = show(&mut guest, "ActiveEnterTimestampMonotonic").parse().expect("microseconds");
    assert!(at(&open["__MONOTONIC_TIMESTAMP"]) <= active, "active only when the log was open");

    // Nothing that it needs is forbidden: it writes, searches, takes a snapshot and goes back to it.
    guest.must(&format!("{ADD} add 1; add 2"));
    let found = guest.must("cairn --data-dir /var/lib/cairn search word1 -c notes -n 1");
    assert!(found.contains("notes/1.md"), "{found}");
    guest.must("cairn --data-dir /var/lib/cairn snapshot create");
    guest.must("ls /var/lib/cairn-snapshots/* >/dev/null");
    let warnings = guest.must("journalctl -b -u cairn -p warning -o cat --no-pager");
    assert_eq!(warnings, "", "what the unit forbids is missed");

    cut_the_power_while_writing(&mut guest, 1);

    until_logged(&mut guest, "^ready ", "systemctl kill -s KILL --kill-who=main cairn");
    assert_eq!(show(&mut guest, "NRestarts"), "1");
    guest.must("systemctl stop cairn");
    assert_eq!(show(&mut guest, "Result"), "success");
    assert_eq!(show(&mut guest, "ExecMainStatus"), "0");
    entry(&journal(&mut guest), "stopped log=");
    guest.shutdown();
}

#[test]
fn a_process_that_hangs_is_ended_and_started_again() {
    if !is_long_run() {
        return;
    }
    let Some(mut guest) = installed() else { return };
    guest.must("systemctl start cairn");
    let pid = show(&mut guest, "MainPID");
    until_logged(&mut guest, "^ready ", &format!("kill -STOP {pid}"));
    assert_ne!(show(&mut guest, "MainPID"), pid);
    assert_eq!(show(&mut guest, "NRestarts"), "1");
    let told = guest.must("journalctl -b -u cairn --no-pager");
    assert!(told.contains("Watchdog timeout"), "{told}");
    guest.shutdown();
}

#[test]
fn ten_power_cuts_lose_nothing_acknowledged() {
    if !is_long_run() {
        return;
    }
    let Some(mut guest) = installed() else { return };
    guest.must("systemctl enable --now cairn");
    for round in 1..=10 {
        cut_the_power_while_writing(&mut guest, round);
    }
    guest.shutdown();
}

#[test]
fn what_the_host_lacks_or_has_is_met() {
    if !is_long_run() {
        return;
    }
    let Some(mut guest) = installed() else { return };
    // Settings are read when they are there, and wrong ones are not tried again and again.
    guest.write("/etc/cairn/cairn.toml", 0o644, "[server]\nin_flight_max = 0\n");
    let output = guest.run("systemctl start cairn");
    assert_ne!(output.status, 0);
    assert_eq!((show(&mut guest, "ExecMainStatus"), show(&mut guest, "NRestarts")), ("2".to_owned(), "0".to_owned()));
    let told = guest.must("journalctl -b -u cairn --no-pager");
    assert!(told.contains("server.in_flight_max (/etc/cairn/cairn.toml:"), "{told}");
    guest.write("/etc/cairn/cairn.toml", 0o644, "[server]\nin_flight_max = 5\n");

    // The token is handed in although the node's user cannot read the file.
    guest.write("/etc/cairn/token", 0o600, "a-token-of-the-installer\n");
    guest.must("systemctl start cairn");
    let given = guest.must("cat /run/credentials/cairn.service/token");
    assert_eq!(given, "a-token-of-the-installer\n");

    // A taken port: never active, and up by itself once the port is free.
    guest.must("systemctl stop cairn");
    let thief = "-E CAIRN_DATA_DIR=/root/thief /usr/local/bin/cairn serve --admin 127.0.0.1:1";
    guest.must(&format!("systemd-run --unit=thief -p Type=notify {thief}"));
    let output = guest.run("systemctl start cairn");
    assert_ne!(output.status, 0, "active although the port belongs to another");
    until_logged(&mut guest, "^ready ", "systemctl stop thief");
    assert_eq!(show(&mut guest, "ActiveState"), "active");

    // The drop-in for a GPU does no harm on a machine without one.
    guest.must("systemctl stop cairn");
    guest.write("/etc/systemd/system/cairn.service.d/gpu.conf", 0o644, systemd::GPU);
    guest.must("systemctl daemon-reload && systemctl start cairn");
    assert_eq!(show(&mut guest, "PrivateDevices"), "no");
    // Inside it the helper starts, from memory and with its own filter of system calls, and looks for Vulkan.
    let look = "[Service]\nExecStartPre=-/usr/local/bin/cairn gpu list\n";
    guest.write("/etc/systemd/system/cairn.service.d/look.conf", 0o644, look);
    guest.must("systemctl daemon-reload && systemctl restart cairn");
    let told = guest.must("journalctl --sync; journalctl -b -u cairn --no-pager");
    assert!(told.contains("Vulkan finds no GPU here"), "{told}");
    // The drop-in's line for that is needed.
    guest.write("/etc/systemd/system/cairn.service.d/look.conf", 0o644, &format!("{look}SystemCallFilter=~seccomp\n"));
    guest.must("systemctl daemon-reload && systemctl restart cairn");
    let told = guest.must("journalctl --sync; journalctl -b -u cairn --no-pager");
    assert!(told.contains("the GPU helper ended"), "{told}");
    guest.shutdown();
}
