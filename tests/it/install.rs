//! `cairn install` and what follows it: staged into a folder, and on a real systemd host, where it is upgraded, taken back, cut off
//! and removed.
//!
//! The first journey on a host is for every run. The others take minutes: `make test-host` sets `CAIRN_TEST_HOST=all` for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::host::is_long_run;
use crate::host_guest::{self, Guest, Output};
use crate::node::{CAIRN, assert_says, cairn, json_of, list, stderr, stdout};

/// Every file and link below a folder; of the executable its size.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let inside = path.strip_prefix(root).expect("below").to_owned();
            if let Ok(target) = fs::read_link(&path) {
                found.insert(inside, format!("-> {}", target.display()));
            } else if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("readable");
                found.insert(
                    inside,
                    String::from_utf8(bytes).unwrap_or_else(|error| format!("{}", error.as_bytes().len())),
                );
            }
        }
    }
    found
}

fn stage(root: &Path, arguments: &[&str]) -> std::process::Output {
    cairn().args(["install", "--root"]).arg(root).args(arguments).output().expect("the binary runs")
}

#[test]
fn a_release_is_staged_into_an_image_that_is_being_built() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let planned = json_of(&stage(directory.path(), &["--dry-run", "--json"]));
    assert_eq!((&planned["possible"], &planned["platform"]), (&Value::Bool(true), &"systemd".into()));
    assert_eq!(tree(directory.path()), BTreeMap::new(), "a plan writes nothing");
    let installed = json_of(&stage(directory.path(), &["--yes", "--json"]));
    let release = installed["current"].as_str().expect("a name");
    assert_eq!(planned["release"], release, "what was shown is what was done");
    let there = tree(directory.path());
    let text =
        |path: &str| there.get(Path::new(path)).unwrap_or_else(|| panic!("no {path} in {:?}", there.keys())).as_str();
    assert_eq!(text("usr/local/lib/cairn/current"), format!("-> {release}"));
    assert_eq!(text("usr/local/bin/cairn"), "-> /usr/local/lib/cairn/current/cairn");
    assert_eq!(
        text("etc/systemd/system/multi-user.target.wants/cairn.service"),
        "-> /etc/systemd/system/cairn.service"
    );
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for (name, path) in [
        ("cairn.service", "etc/systemd/system/cairn.service"),
        ("cairn.sysusers", "etc/sysusers.d/cairn.conf"),
        ("cairn.tmpfiles", "etc/tmpfiles.d/cairn.conf"),
    ] {
        assert_eq!(text(path), fs::read_to_string(shipped.join(name)).expect("shipped"));
    }
    let size = fs::metadata(CAIRN).expect("there").len().to_string();
    assert_eq!(text(&format!("usr/local/lib/cairn/{release}/cairn")), size);
    assert!(!there.contains_key(Path::new("etc/cairn/token")), "one that many machines share would be no secret");
    assert_says(text("etc/systemd/system/cairn-token.service"), &["cairn token file /etc/cairn/token"]);
    assert_says(text("etc/cairn/cairn.toml"), &["0.0.0.0:7171"]);
    assert_says(&planned.to_string(), &["listens on 0.0.0.0:7171", "makes its own token"]);
    let actions = list(&planned["actions"]).iter().filter(|action| action["action"] == "create");
    for action in actions {
        let path = action["what"].as_str().expect("a path").trim_start_matches('/');
        assert!(there.contains_key(Path::new(path)), "{path} was announced");
    }
    json_of(&stage(directory.path(), &["--yes", "--json"]));
    assert_eq!(tree(directory.path()), there, "a second time changes nothing");
}

#[test]
fn an_image_tells_what_happens_to_it_and_is_emptied_again() {
    let directory = tempfile::tempdir().expect("temporary directory");
    // A folder that is not there, named from where the command runs.
    let here = |program: &Path, arguments: &[&str]| {
        let mut command = crate::node::clean(std::process::Command::new(program));
        command.current_dir(directory.path()).args(arguments).stdin(std::process::Stdio::null());
        command.output().expect("the binary runs")
    };
    let image = directory.path().join("image");
    let installed = here(Path::new(CAIRN), &["install", "--yes", "--root", "image"]);
    assert!(installed.status.success(), "{}", stderr(&installed));
    for wrong in ["starting the node", "asking the node", "taking a snapshot", "making users"] {
        assert!(!stderr(&installed).contains(wrong), "{}", stderr(&installed));
    }
    let first = tree(&image);
    let newer = directory.path().join("cairn-2");
    fs::write(&newer, [fs::read(CAIRN).expect("readable"), b"2".to_vec()].concat()).expect("written");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&newer, fs::Permissions::from_mode(0o755)).expect("set");
    let upgraded = here(&newer, &["install", "--yes", "--root", "image"]);
    assert!(upgraded.status.success() && !stderr(&upgraded).contains("snapshot"), "{}", stderr(&upgraded));
    let back = here(Path::new(CAIRN), &["rollback", "--yes", "--root", "image"]);
    assert!(back.status.success(), "{}", stderr(&back));
    let link = Path::new("usr/local/lib/cairn/current");
    assert_eq!(tree(&image)[link], first[link]);
    let removed = here(Path::new(CAIRN), &["uninstall", "--yes", "--root", "image"]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert_eq!(tree(&image).into_keys().collect::<Vec<_>>(), [Path::new("etc/cairn/cairn.toml")], "settings stay");
    // A folder that is mistyped, and a file.
    for verb in ["rollback", "uninstall"] {
        let wrong = here(Path::new(CAIRN), &[verb, "--yes", "--root", "imaeg"]);
        assert_says(&stderr(&wrong), &["not installed below", "imaeg", "no such folder"]);
    }
    for verb in ["install", "rollback", "uninstall"] {
        let wrong = here(Path::new(CAIRN), &[verb, "--yes", "--root", "cairn-2"]);
        assert_eq!((wrong.status.code(), stdout(&wrong)), (Some(2), String::new()));
        assert_says(&stderr(&wrong), &["cairn-2 is a file"]);
    }
}

#[test]
fn what_a_bundle_brings_arrives_in_an_image() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let here = |arguments: &[&str]| {
        let output = cairn().current_dir(directory.path()).args(arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        output
    };
    fs::create_dir(directory.path().join("manuals")).expect("made");
    fs::write(directory.path().join("manuals/relay.md"), "The relay trips.").expect("written");
    here(&["bundle", "keygen", "-o", "site.key"]);
    here(&["bundle", "create", "-o", "site.bundle", "--key", "site.key", "--documents", "manuals"]);
    let output = here(&["install", "--yes", "--root", "image", "--bundle", "site.bundle", "--public-key", "site.pub"]);
    assert_says(&stderr(&output), &["1 documents are in", "each machine adds them at its first start"]);
    let there = tree(&directory.path().join("image"));
    let text = |path: &str| there.get(Path::new(path)).unwrap_or_else(|| panic!("no {path} in {:?}", there.keys()));
    assert_eq!(text("var/lib/cairn-documents/manuals/relay.md"), "The relay trips.");
    assert_says(text("etc/cairn/bundle.pub"), &["RW"]);
    let unit = text("etc/systemd/system/multi-user.target.wants/cairn-documents.service");
    assert_eq!(unit, "-> /etc/systemd/system/cairn-documents.service");
    // The next bundle is believed by the key that the first one left.
    here(&["install", "--yes", "--root", "image", "--bundle", "site.bundle"]);
}

#[test]
fn a_bundle_that_is_declined_leaves_no_settings() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let here = |arguments: &[&str]| {
        let stdin = std::process::Stdio::null();
        cairn().current_dir(directory.path()).args(arguments).stdin(stdin).output().expect("the binary runs")
    };
    fs::write(directory.path().join("node.toml"), "[search]\nlimit = 7\n").expect("written");
    assert!(here(&["bundle", "keygen", "-o", "site.key"]).status.success());
    let created = here(&["bundle", "create", "-o", "site.bundle", "--key", "site.key", "--config", "node.toml"]);
    assert!(created.status.success(), "{}", stderr(&created));
    let install = ["install", "--root", "image", "--bundle", "site.bundle", "--public-key", "site.pub"];
    let image = directory.path().join("image");
    // Nobody is there to agree.
    let declined = here(&install);
    assert_says(&stderr(&declined), &["pass --yes to confirm", "the release was not installed"]);
    assert_eq!((declined.status.code(), tree(&image)), (Some(2), std::collections::BTreeMap::new()));
    assert!(!image.join("etc/cairn").exists());
    let installed = here(&[&install[..], &["--yes"]].concat());
    assert!(installed.status.success(), "{}", stderr(&installed));
    assert_says(&tree(&image)[Path::new("etc/cairn/cairn.toml")], &["limit = 7"]);
    // What is installed is not touched by another one.
    here(&install);
    assert_says(&tree(&image)[Path::new("etc/cairn/cairn.toml")], &["limit = 7"]);
}

#[test]
fn documents_of_an_image_are_added_once() {
    let node = crate::node::TestNode::start();
    let waiting = tempfile::tempdir().expect("temporary directory");
    let folder = waiting.path().join("documents");
    fs::create_dir_all(folder.join("manuals")).expect("made");
    fs::write(folder.join("manuals/relay.md"), "The relay trips.").expect("written");
    let path = folder.to_string_lossy().into_owned();
    // The verb that it runs finds the node as every verb does.
    let mut command = cairn();
    command.args(["add-waiting", &path]).env("CAIRN_URL", node.base());
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!folder.exists(), "what was added is not added again");
    assert_eq!(node.found("manuals", "relay", "lexical"), ["manuals/relay.md"]);
}

#[test]
fn a_program_may_go_elsewhere_and_is_found_there() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let installed = json_of(&stage(directory.path(), &["--yes", "--json", "--prefix", "/srv/cairn"]));
    let release = installed["current"].as_str().expect("a name");
    let there = tree(directory.path());
    assert_eq!(there[Path::new("srv/cairn/lib/cairn/current")], format!("-> {release}"));
    assert_eq!(there[Path::new("srv/cairn/bin/cairn")], "-> /srv/cairn/lib/cairn/current/cairn");
    let unit = &there[Path::new("etc/systemd/system/cairn.service")];
    assert_says(unit, &["ExecStart=/srv/cairn/lib/cairn/current/cairn serve"]);
    assert!(there.keys().all(|path| !path.starts_with("usr")), "{:?}", there.keys());
    // Nobody has to say it again.
    assert_eq!(json_of(&stage(directory.path(), &["--yes", "--json"]))["current"], release);
    assert_eq!(tree(directory.path()), there);
    let other = stage(directory.path(), &["--yes", "--prefix", "/srv/other"]);
    assert_eq!(other.status.code(), Some(2));
    assert_says(&stderr(&other), &["below /srv/cairn"]);
    let mut remove = cairn();
    remove.args(["uninstall", "--yes", "--root"]).arg(directory.path());
    assert!(remove.output().expect("the binary runs").status.success());
    assert_eq!(tree(directory.path()).into_keys().collect::<Vec<_>>(), [Path::new("etc/cairn/cairn.toml")]);
}

#[test]
fn what_others_put_there_is_not_replaced() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let unit = directory.path().join("etc/systemd/system/cairn.service");
    fs::create_dir_all(unit.parent().expect("a folder")).expect("made");
    fs::write(&unit, "[Service]\nExecStart=/opt/mine\n").expect("written");
    let before = tree(directory.path());
    let output = stage(directory.path(), &["--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["nothing was changed"]);
    assert_eq!(tree(directory.path()), before);
}

#[test]
fn nobody_is_asked_where_nobody_is() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = stage(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(&stderr(&output), &["--yes"]);
    assert_eq!(tree(directory.path()), BTreeMap::new());
}

#[test]
fn an_agent_of_a_cluster_is_told_what_to_do_instead() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let unit = directory.path().join("etc/systemd/system/k3s-agent.service");
    fs::create_dir_all(unit.parent().expect("a folder")).expect("made");
    fs::write(&unit, "[Service]\nExecStart=/usr/local/bin/k3s agent --data-dir /mnt/k3s\n").expect("written");
    let output = stage(directory.path(), &["--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["agent of K3s", "/mnt/k3s/agent/images", "--for systemd"]);
}

/// A guest with the binary where a technician copies it to.
fn site() -> Option<Guest> {
    Guest::start(&[(&host_guest::program(), "/root/cairn")])
}

/// What a command of the guest printed as JSON.
fn json(output: &Output) -> Value {
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in {}", output.stdout))
}

fn install(guest: &mut Guest, executable: &str) -> Value {
    json(&guest.run(&format!("{executable} install --yes --json")))
}

/// Everything that an installation puts in place, with digests; the folder of releases and the record aside.
fn placed(guest: &mut Guest) -> String {
    guest.must(
        "find /etc/systemd/system /etc/sysusers.d /etc/tmpfiles.d /usr/local/bin -type f | sort | xargs -r sha256sum; \
         find /etc/systemd/system /usr/local/bin /usr/local/lib/cairn -maxdepth 2 -type l -printf '%p %l\\n' | sort",
    )
}

/// Asks over TLS with the token, as a client does that has only what `install` printed.
fn search(guest: &mut Guest, installed: &Value, words: &str) -> Value {
    let (token, authority) =
        (installed["token"].as_str().expect("a token"), installed["authority"].as_str().expect("a path"));
    json(&guest.run(&format!(
        "CAIRN_TOKEN={token} /usr/local/bin/cairn search '{words}' --url https://127.0.0.1:7171 --ca {authority} --json"
    )))
}

/// The commands of the README's journey onto a machine without a network, each with what it prints there.
fn readme_journey() -> Vec<(String, Vec<String>)> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("readable");
    let (_, section) = readme.split_once("## Onto a machine without a network").expect("a section");
    let (_, block) = section.split_once("```console\n").expect("a transcript");
    let (block, _) = block.split_once("```").expect("its end");
    let block = if host_guest::is_board() { block.replace("on x86_64", "on aarch64") } else { block.to_owned() };
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => panic!("{line} belongs to no command"),
        }
    }
    commands
}

/// Whether a line is as it is told, where `…` stands for anything.
fn is_told(told: &str, line: &str) -> bool {
    let mut rest = line;
    let mut parts = told.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let mut ends_open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        ends_open = part.is_empty();
    }
    rest.is_empty() || ends_open
}

/// Does what the README does, and compares what it says with what is printed.
fn replay_readme(guest: &mut Guest) {
    let (mut is_same, mut transcript) = (true, String::new());
    for (command, told) in readme_journey() {
        let output = guest.run(&format!("cd /root && {command}"));
        assert_eq!(output.status, 0, "{command}: {}{}", output.stdout, output.stderr);
        let printed: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
        is_same &= printed.len() == told.len() && printed.iter().zip(&told).all(|(line, told)| is_told(told, line));
        transcript.push_str(&format!("$ {command}\n{}\n", printed.join("\n")));
    }
    assert!(is_same, "the README tells the journey otherwise than it goes:\n{transcript}");
}

#[test]
fn a_node_is_installed_without_a_network_upgraded_taken_back_and_removed() {
    let Some(mut guest) = site() else { return };
    assert_eq!(guest.must("ip -o link | grep -v ' lo:' || true"), "", "there is no network");
    guest.must(
        "mkdir /root/manuals && echo 'The relay in cabinet four trips when the pump starts.' > /root/manuals/relay.md",
    );
    guest.must(
        "cd /root && ./cairn bundle keygen -o other.key && ./cairn bundle create -o other.bundle --key other.key",
    );
    let start = Instant::now();
    replay_readme(&mut guest);
    eprintln!("the README's journey took {:.1} s in the guest", start.elapsed().as_secs_f64());

    // Whatever is not exactly what was signed is refused, and nothing happens.
    let clean = placed(&mut guest);
    guest.must("cd /root && cp site.bundle bad.bundle && printf X | dd of=bad.bundle bs=1 seek=5000000 conv=notrunc status=none");
    for bundle in ["bad.bundle", "other.bundle", "cairn"] {
        let refused = guest.run(&format!("/root/cairn install --yes --bundle /root/{bundle}"));
        assert_eq!(refused.status, 1, "{bundle}: {}", refused.stderr);
    }
    assert_eq!(placed(&mut guest), clean);

    let first = install(&mut guest, "/root/cairn");
    let found = search(&mut guest, &first, "why does the relay trip");
    assert_eq!(found["results"][0]["source"]["document"], "manuals/relay.md");
    assert_eq!(guest.must("systemctl is-active cairn; systemctl is-enabled cairn").trim(), "active\nenabled");
    assert_says(&guest.must("ps -o user= -C cairn"), &["cairn"]);
    assert_says(&guest.must("cairn doctor --json"), &["\"running\":true", "\"problems\":[]"]);
    // Root examines what only root may read, also where the data is the node's user's.
    guest.must("systemctl stop cairn && echo '# by hand' >>/etc/systemd/system/cairn.service");
    let examined = guest.must("cairn --data-dir /var/lib/cairn doctor");
    assert_says(&examined, &["/etc/systemd/system/cairn.service was changed after Cairn wrote it", "the log is whole"]);
    guest.must("sed -i '$d' /etc/systemd/system/cairn.service && systemctl daemon-reload && systemctl start cairn");

    // A newer build: the same program with another digest.
    guest.must("cp /root/cairn /root/cairn-2 && printf 2 >> /root/cairn-2");
    let old = placed(&mut guest);
    let second = install(&mut guest, "/root/cairn-2");
    assert_eq!(second["previous"], first["current"]);
    assert!(second["snapshot"].is_string(), "the data was secured first: {second}");
    assert_eq!(second["token"], first["token"]);
    search(&mut guest, &second, "relay");

    // A build that cannot start: its model is damaged.
    guest.must(
        "cp /root/cairn /root/cairn-3 && at=$(grep -obUa 'embeddings' /root/cairn-3 | head -1 | cut -d: -f1) && test -n \"$at\" && \
         for at in $(grep -obUa '\"dtype\"' /root/cairn-3 | cut -d: -f1); do printf '\\xff\\xff\\xff' | dd of=/root/cairn-3 bs=1 seek=$at conv=notrunc status=none; done",
    );
    let before = placed(&mut guest);
    let broken = guest.run("/root/cairn-3 install --yes --timeout 60");
    assert_eq!(broken.status, 1, "{}{}", broken.stdout, broken.stderr);
    assert_says(&broken.stderr, &["failed its checks and was rolled back", "runs as before"]);
    assert_eq!(placed(&mut guest), before, "byte for byte");
    search(&mut guest, &second, "relay");

    let back = json(&guest.run("cairn rollback --yes --json"));
    assert_eq!((&back["current"], &back["previous"]), (&first["current"], &second["current"]));
    assert_eq!(placed(&mut guest), old, "byte for byte");
    search(&mut guest, &first, "relay");

    let refused = guest.run("flock /run/cairn-install.lock /root/cairn-2 install --yes");
    assert_eq!(refused.status, 3, "two at once: {}", refused.stderr);

    guest.must("cairn uninstall --yes");
    assert_eq!(
        placed(&mut guest).lines().filter(|line| line.contains("cairn")).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    assert_eq!(guest.run("systemctl cat cairn").status, 1);
    let again = install(&mut guest, "/root/cairn");
    let found = search(&mut guest, &again, "relay");
    assert_eq!(found["results"][0]["source"]["document"], "manuals/relay.md", "the data outlived the program");
    guest.must("cairn uninstall --yes; printf '/var/lib/cairn\\n/var/lib/cairn-snapshots\\n/etc/cairn\\n' | /root/cairn uninstall --purge");
    assert_eq!(guest.must("ls -d /var/lib/cairn* /etc/cairn 2>/dev/null; true"), "");
    guest.shutdown();
}

#[test]
fn what_stands_in_the_way_is_told_before_the_first_write() {
    if !is_long_run() {
        return;
    }
    let Some(mut guest) = site() else { return };
    let clean = placed(&mut guest);
    for (what, prepare, undo, words) in [
        ("no root", "cp /root/cairn /tmp/cairn && chmod 755 /tmp/cairn", "", "needs root"),
        (
            "no room",
            "mkdir -p /usr/local/lib/cairn && mount -t tmpfs -o size=1m none /usr/local/lib/cairn",
            "umount /usr/local/lib/cairn",
            "is needed for",
        ),
        (
            "read-only /var",
            "mount --bind /var /var && mount -o remount,ro,bind /var",
            "umount /var",
            "mounted read-only",
        ),
        (
            "a taken port",
            "systemd-run --quiet --unit other --service-type notify \
             /root/cairn serve --data-dir /tmp/other --listen 0.0.0.0:7171 --admin 127.0.0.1:0",
            "systemctl stop other",
            "cannot listen on 0.0.0.0:7171",
        ),
    ] {
        guest.must(prepare);
        let by = if what == "no root" {
            "setpriv --reuid 65534 --regid 65534 --clear-groups /tmp/cairn"
        } else {
            "/root/cairn"
        };
        let output = guest.run(&format!("{by} install --yes"));
        assert_eq!(output.status, 1, "{what}: {}{}", output.stdout, output.stderr);
        assert_says(&output.stdout, &[words]);
        guest.must(if undo.is_empty() { "true" } else { undo });
        assert_eq!(placed(&mut guest), clean, "{what}");
    }
}

#[test]
fn the_power_may_go_at_any_step_on_a_host() {
    if !is_long_run() {
        return;
    }
    let Some(mut guest) = site() else { return };
    guest.must("cp /root/cairn /root/cairn-2 && printf 2 >> /root/cairn-2 && sync");
    let steps = [
        "writing release",
        "putting files in place",
        "making users and folders",
        "starting the node",
        "asking the node",
    ];
    for step in steps {
        guest.begin("/root/cairn install --yes >/dev/null 2>/dev/console");
        guest.console_lines(&format!("… {step}"), 1);
        guest.power_cut();
        guest.boot();
        let first = install(&mut guest, "/root/cairn");
        guest.must("echo 'The pump is on the second floor.' > /root/pump.md; cairn add /root/pump.md -c site");
        guest.begin("/root/cairn-2 install --yes >/dev/null 2>/dev/console");
        guest.console_lines(&format!("… {step}"), 1);
        guest.power_cut();
        guest.boot();
        // Either direction has to work.
        let outcome =
            if step.len() % 2 == 0 { guest.run("/root/cairn rollback --yes --json") } else { guest.run("true") };
        let second = install(&mut guest, "/root/cairn-2");
        assert_eq!(second["previous"], first["current"], "{step}: {outcome:?}");
        assert_eq!(search(&mut guest, &second, "pump")["results"][0]["source"]["document"], "pump.md", "{step}");
        guest.begin("cairn uninstall --yes >/dev/null 2>/dev/console");
        guest.console_lines("… stopping the node", 1);
        guest.power_cut();
        guest.boot();
        let removed = guest.run("/root/cairn uninstall --yes");
        assert!(removed.status == 0 || removed.stderr.contains("not installed"), "{step}: {}", removed.stderr);
        assert!(!placed(&mut guest).contains("cairn"), "{step}");
    }
    guest.shutdown();
}
