//! The message if no node is found, or one that this user may not open: where was searched, whose data is elsewhere,
//! how to reach it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::anyhow;

use super::Failure;
use crate::config::{self, Config};

/// Where the service of a machine keeps its data.
const SERVICE: &str = crate::deploy::shape::DATA_DIR;
/// Names of users.
const USERS: &str = "/etc/passwd";

/// Whether a directory contains a node's data.
///
/// # Errors
/// When this user has no access.
pub(in crate::cli) fn holds_node(data_dir: &Path) -> io::Result<bool> {
    // A restore that is not finished has no log yet.
    for name in ["log", "swap.json"] {
        match fs::symlink_metadata(data_dir.join(name)) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Fails where there is no node's data, or this user may not open it: for verbs that make none.
pub(in crate::cli) fn expect_node(config: &Config) -> Result<(), Failure> {
    match holds_node(&config.data_dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(no_node(&config.data_dir)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(not_ours(&config.data_dir)),
        Err(error) => Err(anyhow!(error).context(format!("cannot look into {}", config.data_dir.display())).into()),
    }
}

/// There is no node in the directory.
pub(super) fn no_node(data_dir: &Path) -> Failure {
    let found = match fs::symlink_metadata(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "there is no such directory",
        Ok(kind) if !kind.is_dir() => "it is not a directory",
        _ => "no node's data is in it",
    };
    let mut lines = vec![format!("there is no node in {}: {found}", data_dir.display())];
    let is_root = rustix::process::geteuid().is_root();
    match service(data_dir, Path::new(SERVICE)) {
        // The default for root.
        Some(_) if is_root => lines.push(format!("the node of this machine has its data in {SERVICE}; leave --data-dir out")),
        Some(owner) => lines.push(format!(
            "the node of this machine has its data in {SERVICE}, which belongs to {owner}: use sudo, or --url https://ADDRESS:7171 with --token"
        )),
        None => {}
    }
    lines.push("--data-dir (CAIRN_DATA_DIR) names another place, --url a node elsewhere; `cairn add PATH` and `cairn serve` make a node".to_owned());
    Failure::unreachable(anyhow!(lines.join("\n  ")))
}

/// The directory belongs to another user.
pub(super) fn not_ours(data_dir: &Path) -> Failure {
    // The nearest folder that can be seen: its owner is whose the rest is.
    let nearest = data_dir.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?.uid())));
    let (nearest, owner) = nearest.map_or((Path::new("/"), None), |(path, owner)| (path, Some(owner)));
    let owner = owner.map_or_else(|| "another user".to_owned(), user);
    let own = user(rustix::process::geteuid().as_raw());
    // Some names are words: "nobody may not".
    let own = if own.starts_with("user ") { own } else { format!("user '{own}'") };
    let folder = data_dir.display();
    let is_missing = fs::metadata(data_dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    Failure::unreachable(if is_missing {
        let nearest = nearest.display();
        anyhow!(
            "there is no {folder}, and {own} may not make it in {nearest}: --data-dir (CAIRN_DATA_DIR) names another place, \
             --url a node elsewhere"
        )
    } else {
        anyhow!(
            "{folder} belongs to {owner}, and {own} may not use it: use sudo, or reach its node with --url and --token \
             (`sudo cairn token create NAME` makes one)"
        )
    })
}

/// What `cairn add` prints when it continues with a store of this user, next to that of the machine's service.
pub(in crate::cli) fn beside_service(data_dir: &Path) -> Option<String> {
    let is_default = config::default_data_dir() == data_dir;
    let owner = service(data_dir, Path::new(SERVICE)).filter(|_| is_default)?;
    let own = data_dir.display();
    Some(format!(
        "this goes into {own}, which only your own commands read; the node of this machine has its data in {SERVICE}, which belongs to {owner}: use sudo, or --url"
    ))
}

/// The owner of the data of this machine's service; `None` if there is none, or it is the requested directory.
fn service(data_dir: &Path, folder: &Path) -> Option<String> {
    let found = fs::metadata(folder).ok()?;
    let is_node = match holds_node(folder) {
        Ok(is_node) => is_node,
        // Made for the service alone, so it is in use.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let is_same = fs::metadata(data_dir).is_ok_and(|other| (other.dev(), other.ino()) == (found.dev(), found.ino()));
    (is_node && !is_same).then(|| user(found.uid()))
}

/// A user's name, or number where it has none here.
fn user(uid: u32) -> String {
    let users = fs::read_to_string(USERS).unwrap_or_default();
    named(&users, uid).unwrap_or_else(|| format!("user {uid}"))
}

/// * `users`: lines of `passwd`(5).
fn named(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_data_is_told_from_ones_own() {
        let directory = tempfile::tempdir().expect("created");
        let (own, service_dir) = (directory.path().join("own"), directory.path().join("service"));
        assert_eq!(service(&own, &service_dir), None, "there is no service");
        fs::create_dir(&service_dir).expect("created");
        assert_eq!(service(&own, &service_dir), None, "an empty folder is no node");
        fs::create_dir(service_dir.join("log")).expect("created");
        assert_eq!(service(&own, &service_dir), Some(user(rustix::process::geteuid().as_raw())));
        assert_eq!(service(&service_dir, &service_dir), None, "it is the one that was asked for");
        std::os::unix::fs::symlink(&service_dir, &own).expect("linked");
        assert_eq!(service(&own, &service_dir), None, "by another name too");
    }

    #[test]
    fn users_have_their_names() {
        let users = "root:x:0:0:root:/root:/bin/bash\ncairn:x:987:987::/var/lib/cairn:/usr/sbin/nologin\nbroken\n";
        assert_eq!(named(users, 987).as_deref(), Some("cairn"));
        assert_eq!(named(users, 0).as_deref(), Some("root"));
        assert_eq!(named(users, 98), None);
    }
}
