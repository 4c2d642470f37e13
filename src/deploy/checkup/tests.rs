//! Machines as trees of files, each with one thing wrong.

use std::borrow::Cow;

use super::*;
use crate::base::left_out::left_out;
use crate::deploy::tree::TreeError;

struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn with(files: &[(&str, &str)]) -> Self {
        let machine = Self { directory: tempfile::tempdir().expect("temporary directory") };
        for (path, text) in files {
            let tree = machine.tree();
            tree.make_folder(Path::new(path).parent().expect("absolute"), 0o755).expect("made");
            tree.write(path, text.as_bytes(), 0o600).expect("written");
        }
        machine
    }

    fn tree(&self) -> Tree {
        Tree::below(self.directory.path())
    }

    fn found(&self) -> Vec<(&'static str, bool, String)> {
        let subject = Subject {
            data_dir: "/var/lib/cairn".into(),
            listens: vec![SocketAddr::from(([127, 0, 0, 1], 7171)), SocketAddr::from(([127, 0, 0, 1], 9464))],
            now: UnixMillis(2_000_000_000_000),
            released: UnixMillis(1_700_000_000_000),
        };
        // What the test machine's own disks are like is not the subject.
        let findings = examine(&self.tree(), &subject).into_iter();
        findings
            .filter(|finding| !["disk", "inodes", "read-only"].contains(&&*finding.about))
            .map(|finding| (short(finding.about), finding.is_obstacle, finding.message))
            .collect()
    }
}

fn short(about: Cow<'static, str>) -> &'static str {
    match about {
        Cow::Borrowed(about) => about,
        Cow::Owned(about) => panic!("{about} is not from here"),
    }
}

/// Asserts that a machine has this one finding and no other.
#[track_caller]
fn assert_finds(files: &[(&str, &str)], about: &str, is_obstacle: bool, words: &str) {
    let found = Machine::with(files).found();
    let [(found_about, found_obstacle, message)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*found_about, *found_obstacle), (about, is_obstacle), "{message}");
    assert!(message.contains(words), "{message}");
}

const K3S: (&str, &str) = ("/etc/systemd/system/k3s.service", "ExecStart=/usr/local/bin/k3s server\n");
const INSTALLED: (&str, &str) = ("/usr/local/lib/cairn/installation.json", r#"{"format": 1, "platform": "k3s"}"#);
const ROUTE: (&str, &str) = (
    "/proc/net/route",
    "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0102A8C0\t0003\neth0\t0002A8C0\t00000000\t0001\n",
);
const CARD: [(&str, &str); 2] = [
    ("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
    ("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
];
const DRIVER: [(&str, &str); 2] = [("/proc/driver/nvidia/version", "570"), ("/dev/nvidiactl", "")];

#[test]
fn a_machine_with_nothing_wrong_has_no_findings() {
    assert_eq!(Machine::with(&[]).found(), []);
    assert_eq!(Machine::with(&[K3S, INSTALLED, ROUTE]).found(), []);
}

#[test]
fn a_clock_before_the_release_is_wrong() {
    let machine = Machine::with(&[]);
    let subject = Subject { data_dir: "/".into(), listens: Vec::new(), now: UnixMillis(0), released: UnixMillis(1) };
    let found = clock(&machine.tree(), &subject).expect("found");
    assert!(found.is_obstacle && found.message.contains("1970-01-01"), "{}", found.message);
    assert_finds(&[("/run/systemd/timesync/clock", "")], "clock", false, "not been synchronised");
}

#[test]
fn a_cluster_without_a_default_route_is_named() {
    let local = ("/proc/net/route", "Iface\tDestination\tGateway\tFlags\neth0\t0002A8C0\t00000000\t0001\n");
    assert_finds(&[K3S, INSTALLED, local], "route", true, "dummy0");
    let six = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 \
               00000400 00000001 00000000 00000003 eth0\n";
    assert_eq!(Machine::with(&[K3S, INSTALLED, local, ("/proc/net/ipv6_route", six)]).found(), []);
    assert_eq!(Machine::with(&[local]).found(), [], "a service needs none");
    assert_eq!(Machine::with(&[K3S, local]).found(), [], "nor does a node that is not in the cluster next to it");
}

#[test]
fn a_worn_chip_is_named() {
    let life = |text| [("/sys/block/mmcblk0/device/life_time", text)];
    assert_finds(&life("0x02 0x09\n"), "wear", false, "mmcblk0 has used 90 %");
    assert_finds(&life("0x0b 0x01\n"), "wear", true, "replace it");
    assert_eq!(Machine::with(&life("0x01 0x01\n")).found(), []);
}

#[test]
fn a_readable_kubeconfig_is_named() {
    let machine = Machine::with(&[K3S, INSTALLED, ROUTE, ("/etc/rancher/k3s/k3s.yaml", "")]);
    assert_eq!(machine.found(), []);
    machine.tree().write("/etc/rancher/k3s/k3s.yaml", b"", 0o644).expect("written");
    let found = machine.found();
    assert!(found.len() == 1 && found[0].2.contains("chmod 600 /etc/rancher/k3s/k3s.yaml"), "{found:?}");
}

#[test]
fn the_first_missing_link_to_a_gpu_is_named() {
    let mut files = CARD.to_vec();
    assert_finds(&files, "nvidia", false, "no driver");
    files.push(DRIVER[0]);
    assert_finds(&files, "nvidia", false, "/dev/nvidiactl is missing");
    files.push(DRIVER[1]);
    assert_eq!(Machine::with(&files).found(), [], "a service needs no more");
    files.extend([K3S, INSTALLED, ROUTE]);
    assert_finds(&files, "nvidia", false, "container toolkit");
    files.push(("/usr/bin/nvidia-container-runtime", ""));
    assert_finds(&files, "nvidia", false, "restart it");
    files.push(("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "[plugins.runtimes.nvidia]\n"));
    assert_eq!(Machine::with(&files).found(), []);
}

#[test]
fn files_of_another_user_are_named() {
    let machine = Machine::with(&[("/var/lib/cairn/log/1.seg", "")]);
    assert_eq!(machine.found(), []);
    if !rustix::process::geteuid().is_root() {
        left_out("giving a file to another user takes root");
        return;
    }
    let path = machine.directory.path().join("var/lib/cairn/log/1.seg");
    std::os::unix::fs::chown(path, Some(65_534), None).expect("given away");
    let found = machine.found();
    assert!(found.len() == 1 && found[0].0 == "owner" && found[0].2.contains("chown -R"), "{found:?}");
}

#[test]
fn an_interrupted_change_is_named() {
    let record = r#"{"format": 1, "platform": "systemd", "pending": {"to": "1.0.0-01234567"}}"#;
    assert_finds(&[("/usr/local/lib/cairn/installation.json", record)], "installation", true, "cairn rollback");
    let newer = r#"{"format": 9, "platform": "systemd"}"#;
    assert_finds(&[("/usr/local/lib/cairn/installation.json", newer)], "installation", true, "newer than 1");
}

#[test]
fn what_listens_where_the_node_is_to_is_named() {
    // A socket of this test, as the kernel lists it, on a machine whose node wants the same port on every address.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let wanted = [SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([127, 0, 0, 2], port))];
    let [finding] = &ports::check(&Tree::machine(), &wanted)[..] else { panic!("one of both is taken") };
    let process = format!("(process {})", std::process::id());
    assert!(finding.is_obstacle && finding.message.contains(&process), "{}", finding.message);
    drop(listener);
    assert!(ports::check(&Tree::machine(), &wanted).is_empty());
    let six = "sl local\n 0: 00000000000000000000000000000000:1C03 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 77 1\n";
    assert_finds(&[("/proc/net/tcp6", six)], "port", true, "another program listens on [::]:7171");
}

#[test]
fn a_release_that_this_user_may_not_read_is_no_finding() {
    let found = |kind: io::ErrorKind| {
        let path = PathBuf::from("/usr/local/lib/cairn/1.0.0-abcdef01/files/0");
        unusable(&ReleaseError::Tree(TreeError { action: "read", path, source: kind.into() }))
    };
    assert!(found(io::ErrorKind::PermissionDenied).is_none());
    assert!(found(io::ErrorKind::InvalidData).is_some());
}
