//! What is wrong with a machine, for `cairn doctor`: read from its files and its containerd, without changing anything.
//!
//! Invariants: each check examines one thing and says what to do about it; what a machine does not have (a battery-backed clock, an
//! SD card, a GPU) is not reported. A file that cannot be read is not a finding: checks run as any user.

mod images;
mod ports;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::host::{ClusterNode, Host, Role};
use super::plan::Finding;
use super::release::{Installation, Platform, Release, ReleaseError};
use super::tree::Tree;
use crate::base::{ByteSize, UnixMillis};

/// Below this much a volume is nearly full, whatever its size.
const FREE_BYTES: u64 = 512 << 20;
/// Below this many a volume is nearly out of files.
const FREE_FILES: u64 = 10_000;
/// Writes a day that wear a memory card out within years: about 10,000 times its size is what a card takes.
const WEAR_BYTES_A_DAY: u64 = 10 << 30;
/// How long a machine has to be up before its writes say anything.
const WEAR_UPTIME_SECONDS: f64 = 3_600.0;
/// Files of the data directory whose owner is checked.
const OWNED_FILES: usize = 20_000;
const SECTOR_BYTES: u64 = 512;
const DAY_SECONDS: f64 = 86_400.0;

/// What is checked.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Where the node is to listen, when it does not run.
    pub listens: Vec<SocketAddr>,
    /// What the clock says.
    pub now: UnixMillis,
    /// When this release was made: no clock that is right shows less.
    pub released: UnixMillis,
}

/// Everything that is found on a machine, most urgent first.
#[must_use]
pub fn examine(tree: &Tree, subject: &Subject) -> Vec<Finding> {
    // Of the cluster only where Cairn was installed into it: an ordinary node next to K3s has nothing to do with that.
    let is_in_cluster = Installation::read(tree).ok().flatten().is_some_and(|record| record.platform == Platform::K3s);
    let host = if is_in_cluster { Host::detect(tree).ok() } else { None };
    let cluster = host.as_ref().and_then(|host| host.cluster.as_ref());
    let mut findings = Vec::new();
    findings.extend(clock(tree, subject));
    findings.extend(route(tree, cluster));
    findings.extend(volumes(tree, subject, cluster));
    findings.extend(wear(tree, subject));
    findings.extend(owner(tree, subject));
    findings.extend(ports::check(tree, &subject.listens));
    findings.extend(installation(tree));
    if let Some(node) = cluster {
        findings.extend(kubeconfig(tree, node));
        findings.extend(images::check(tree, node));
    }
    findings.extend(nvidia(tree, cluster));
    findings.sort_by_key(|finding| !finding.is_obstacle);
    findings
}

fn text(tree: &Tree, path: impl AsRef<Path>) -> Option<String> {
    tree.read(path).ok().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn exists(tree: &Tree, path: impl AsRef<Path>) -> bool {
    tree.exists(path).unwrap_or(false)
}

fn clock(tree: &Tree, subject: &Subject) -> Option<Finding> {
    if subject.now < subject.released {
        let message = format!(
            "the clock says {}, which is before this release was made; set it (timedatectl set-time), or certificates and the \
             age of snapshots are wrong",
            subject.now
        );
        return Some(Finding::obstacle("clock", message));
    }
    // systemd-timesyncd leaves the first, chrony's and ntpd's wait units the second.
    let keeps_time = exists(tree, "/run/systemd/timesync") || exists(tree, "/run/chrony");
    let is_synchronized = exists(tree, "/run/systemd/timesync/synchronized") || exists(tree, "/run/chrony");
    (keeps_time && !is_synchronized).then(|| {
        let message = "the clock has not been synchronised since the machine started; without a time server on the site that \
                       is as it should be, otherwise see `timedatectl timesync-status`";
        Finding::warning("clock", message)
    })
}

/// K3s and RKE2 do not start without a default route, though nothing has to be behind it.
fn route(tree: &Tree, cluster: Option<&ClusterNode>) -> Option<Finding> {
    let node = cluster?;
    let routes = text(tree, "/proc/net/route")?;
    // Interface, destination, gateway, flags, …: eight digits of zero are the default.
    let has_default = routes.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    let six = text(tree, "/proc/net/ipv6_route").unwrap_or_default();
    let has_default = has_default
        || six.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 9 && fields[0].bytes().all(|digit| digit == b'0') && fields[1] == "00" && fields[9] != "lo"
        });
    (!has_default).then(|| {
        let message = format!(
            "there is no default route, and {} does not start without one; a dummy interface is enough: ip link add dummy0 type \
             dummy; ip addr add 203.0.113.254/31 dev dummy0; ip link set dummy0 up; ip route add default via 203.0.113.255 dev \
             dummy0 metric 1000",
            node.distribution
        );
        Finding::obstacle("route", message)
    })
}

fn volumes(tree: &Tree, subject: &Subject, cluster: Option<&ClusterNode>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let folders = [Some(subject.data_dir.as_path()), cluster.map(|node| node.data_dir.as_path())];
    for folder in folders.into_iter().flatten() {
        let Ok(volume) = tree.volume(folder) else { continue };
        if !seen.insert(volume.device) {
            continue;
        }
        let shown = folder.display();
        if volume.is_read_only {
            let message = format!(
                "the file system of {shown} is mounted read-only; after an error of the disk the kernel does that: see `dmesg`"
            );
            findings.push(Finding::obstacle("read-only", message));
        } else if volume.free_bytes < FREE_BYTES {
            let free = ByteSize(volume.free_bytes);
            let message =
                format!("only {free} are free on the file system of {shown}; make room, or lower store.max_bytes");
            findings.push(Finding::warning("disk", message));
        }
        if let Some(files) = volume.free_files.filter(|files| *files < FREE_FILES) {
            let message = format!(
                "the file system of {shown} can hold {files} more files; `df -i` shows them, many small files use them up"
            );
            findings.push(Finding::warning("inodes", message));
        }
    }
    findings
}

/// Memory cards wear out by what is written; eMMC chips say how far they are.
fn wear(tree: &Tree, subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tree.list("/sys/block").unwrap_or_default() {
        let Some(life_time) = text(tree, format!("/sys/block/{name}/device/life_time")) else { continue };
        // Two numbers, one for each kind of cell: 0x01 is up to 10 % used, 0x0b is beyond what was promised.
        let used =
            life_time.split_whitespace().filter_map(|word| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        match used.max().unwrap_or_default() {
            0..=7 => {}
            tenths @ 8..=10 => findings.push(Finding::warning(
                "wear",
                format!("the memory chip {name} has used {} % of its life; plan to replace it", tenths * 10),
            )),
            _ => findings.push(Finding::obstacle(
                "wear",
                format!("the memory chip {name} has exceeded its rated life; replace it, and keep snapshots elsewhere"),
            )),
        }
    }
    findings.extend(card_writes(tree, subject));
    findings
}

/// How fast the card under the data is being written.
fn card_writes(tree: &Tree, subject: &Subject) -> Option<Finding> {
    let device = tree.volume(&subject.data_dir).ok()?.device;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let uptime: f64 = text(tree, "/proc/uptime")?.split_whitespace().next()?.parse().ok()?;
    let stats = text(tree, "/proc/diskstats")?;
    let line = stats
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.len() > 9 && fields[0].parse() == Ok(major) && fields[1].parse() == Ok(minor))?;
    let (name, sectors) = (line[2], line[9].parse::<u64>().ok()?);
    if !name.starts_with("mmcblk") || uptime < WEAR_UPTIME_SECONDS {
        return None;
    }
    let a_day = (sectors.saturating_mul(SECTOR_BYTES) as f64 * DAY_SECONDS / uptime) as u64;
    (a_day > WEAR_BYTES_A_DAY).then(|| {
        let message = format!(
            "{} a day are written to the card {name}, on average since the machine started; cards last a few years at most at \
             that rate. An idle Cairn writes nothing: `pidstat -d` or `iotop` shows who does",
            ByteSize(a_day)
        );
        Finding::warning("wear", message)
    })
}

/// Files that the node's user cannot write, as a command leaves them that root ran on the data.
fn owner(tree: &Tree, subject: &Subject) -> Option<Finding> {
    let root = tree.locate(&subject.data_dir).ok()?;
    let owner = fs::symlink_metadata(&root).ok()?.uid();
    let mut folders = vec![root];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            seen += 1;
            if seen > OWNED_FILES {
                return None;
            }
            if found.uid() != owner {
                let message = format!(
                    "{} belongs to another user than {}, so the node may not be able to use it: chown -R --reference={1} {1}",
                    entry.path().display(),
                    subject.data_dir.display()
                );
                return Some(Finding::obstacle("owner", message));
            }
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    None
}

fn installation(tree: &Tree) -> Vec<Finding> {
    let record = match Installation::read(tree) {
        Ok(Some(record)) => record,
        Ok(None) => return Vec::new(),
        Err(error) => return unusable(&error).into_iter().collect(),
    };
    let mut findings = Vec::new();
    if let Some(pending) = &record.pending {
        let message = format!(
            "the change to release {} did not finish: `cairn install` completes it, `cairn rollback` undoes it",
            pending.to
        );
        findings.push(Finding::obstacle("installation", message));
    }
    for (name, is_current) in [(&record.current, true), (&record.previous, false)]
        .into_iter()
        .filter_map(|(name, is)| Some((name.as_ref()?, is)))
    {
        match Release::load(tree, name) {
            Ok(Some(release)) if is_current => findings.extend(drift(tree, &release)),
            Ok(Some(_)) => {}
            Ok(None) => {
                let message =
                    format!("the folder of release {name} is missing; `cairn install` with that release restores it");
                findings.push(Finding::obstacle("installation", message));
            }
            Err(error) => findings.extend(unusable(&error)),
        }
    }
    findings
}

/// A release that cannot be used. One that this user may not read is none: it is root who examines releases.
fn unusable(error: &ReleaseError) -> Option<Finding> {
    let is_denied =
        matches!(error, ReleaseError::Tree(error) if error.source.kind() == io::ErrorKind::PermissionDenied);
    (!is_denied).then(|| Finding::obstacle("installation", error.to_string()))
}

/// Files of the release that runs, as they are by now.
fn drift(tree: &Tree, release: &Release) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &release.files {
        let message = match tree.read(&file.path) {
            Ok(Some(bytes)) if bytes == file.bytes => continue,
            Ok(Some(_)) => {
                "was changed after Cairn wrote it; an upgrade replaces it. Drop-ins and /etc/cairn/cairn.toml are kept"
            }
            Ok(None) => "is missing; `cairn install` restores it",
            Err(_) => continue,
        };
        findings.push(Finding::warning("changed", format!("{} {message}", file.path.display())));
    }
    findings
}

fn kubeconfig(tree: &Tree, node: &ClusterNode) -> Option<Finding> {
    let mode = fs::metadata(tree.locate(&node.kubeconfig).ok()?).ok()?.permissions().mode();
    (node.role == Role::Server && mode & 0o077 != 0).then(|| {
        let path = node.kubeconfig.display();
        let message = format!(
            "{path} can be read by others (mode {:o}), and everyone who can read it administers the cluster: chmod 600 {path}, and remove \
             write-kubeconfig-mode from the configuration of {}",
            mode & 0o777,
            node.distribution
        );
        Finding::warning("kubeconfig", message)
    })
}

/// The first link that is missing between an NVIDIA card and a pod or service that wants to use it.
fn nvidia(tree: &Tree, cluster: Option<&ClusterNode>) -> Option<Finding> {
    let devices = tree.list("/sys/bus/pci/devices").ok()?;
    let read =
        |device: &str, name: &str| text(tree, format!("/sys/bus/pci/devices/{device}/{name}")).unwrap_or_default();
    // Vendor 0x10de; classes 0x0300 and 0x0302 are display controllers.
    let has_card = devices
        .iter()
        .any(|device| read(device, "vendor").trim() == "0x10de" && read(device, "class").trim().starts_with("0x03"));
    if !has_card {
        return None;
    }
    if !exists(tree, "/proc/driver/nvidia/version") {
        let message =
            "there is an NVIDIA card and no driver for it; install the driver of your distribution and restart";
        return Some(Finding::warning("nvidia", message));
    }
    if !exists(tree, "/dev/nvidiactl") {
        let message = "the NVIDIA driver is loaded and /dev/nvidiactl is missing; `nvidia-modprobe` makes it, `nvidia-persistenced` keeps it";
        return Some(Finding::warning("nvidia", message));
    }
    let node = cluster?;
    let toolkit = ["/usr/local/nvidia/toolkit", "/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| exists(tree, format!("{folder}/nvidia-container-runtime")));
    if !toolkit {
        let message = "the NVIDIA container toolkit is missing; install nvidia-container-toolkit, then restart the cluster's service";
        return Some(Finding::warning("nvidia", message));
    }
    let runtime = text(tree, node.data_dir.join("agent/etc/containerd/config.toml")).unwrap_or_default();
    (!runtime.contains("nvidia")).then(|| {
        let message = format!(
            "{} has not seen the NVIDIA runtime, which it looks for when it starts: restart it",
            node.distribution
        );
        Finding::warning("nvidia", message)
    })
}

#[cfg(test)]
mod tests;
