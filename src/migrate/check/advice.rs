//! What to do about a key that is not known where it is.
//!
//! Invariants: of several pieces of advice the surest is shown: what Docker has in place of the key, then where the key belongs, then which
//! other program knows it, then what it is like.

use crate::base::tree::nearest;
use crate::migrate::Dialect;
use crate::migrate::keys::{Fate, is_known, keys};
use crate::migrate::leaf::{Path, Segment};
use crate::migrate::yaml::{Entry, Value};

/// Keys of a service that neither schema has any more, or that `docker stack deploy` forbids with a hint (docker/cli 29.9.3,
/// `cli/compose/types/types.go`), and what there is in place of them.
const REPLACED: [(&str, &str); 13] = [
    ("cpu_quota", "`deploy.resources.limits.cpus`"),
    ("cpu_shares", "`deploy.resources.reservations.cpus`"),
    ("cpus", "`deploy.resources.limits.cpus`"),
    ("cpuset", "`deploy.resources`"),
    ("dockerfile", "`build.dockerfile`"),
    ("extends", "an anchor and `<<`, or `docker compose config` to write the file out"),
    ("log_driver", "`logging.driver`"),
    ("log_opt", "`logging.options`"),
    ("mem_limit", "`deploy.resources.limits.memory`"),
    ("mem_reservation", "`deploy.resources.reservations.memory`"),
    ("memswap_limit", "`deploy.resources.limits.memory`"),
    ("net", "`networks` or `network_mode`"),
    ("pids_limit", "`deploy.resources.limits.pids`"),
];

/// The rest of [`REPLACED`], about volumes.
const VOLUMES: [&str; 2] = ["volume_driver", "volumes_from"];

/// The message of a key that is not known where it is.
///
/// * `known`: the keys that are.
/// * `path`: the map that has it.
pub(super) fn unknown_key(known: &[&str], entry: &Entry, path: &Path, dialect: Dialect) -> String {
    let key = &entry.key;
    let (program, other, other_program, option) = match dialect {
        Dialect::Stack => ("docker stack deploy", Dialect::Compose, "docker compose", "compose"),
        Dialect::Compose => ("docker compose", Dialect::Stack, "docker stack deploy", "stack"),
    };
    if let Some(advice) = replaced(key, path) {
        return format!("`{program}` refuses `{key}`; use {advice}");
    }
    let elsewhere = belongs(key, path, dialect);
    let unknown = format!("unknown key `{}`", super::excerpt(key));
    if !elsewhere.is_empty() {
        return format!("{unknown}; it belongs {}", elsewhere.join(" or "));
    }
    if is_known(&path.with(Segment::Key(key.clone())), other) {
        return format!(
            "{unknown}: `{other_program}` knows it, `{program}` refuses the file; remove it, or convert the file with --dialect {option}"
        );
    }
    if path.0.is_empty() && is_service(entry) {
        return format!("{unknown}; if it is a service, write it below `services`");
    }
    let hint = did_you_mean(key, known);
    match hint.is_empty() {
        true if known.len() <= 12 => format!("{unknown}, expected {}", super::either(known)),
        true => format!("{unknown}; remove it, or name it `x-{}` if it is your own", super::excerpt(key)),
        false => format!("{unknown}{hint}"),
    }
}

/// The question after a word that is like another.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    if word.len() > super::EXCERPT_MAX {
        return String::new();
    }
    nearest(word, known.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn replaced(key: &str, path: &Path) -> Option<&'static str> {
    let is_of_service = path.0.len() == 2 && path.key(0) == Some("services");
    if !is_of_service {
        return None;
    }
    if VOLUMES.contains(&key) {
        return Some("`volumes` at the top of the file, and name them in the service");
    }
    REPLACED.iter().find(|(name, _)| *name == key).map(|(_, advice)| *advice)
}

fn is_service(entry: &Entry) -> bool {
    matches!(entry.node.value, Value::Map(_)) && ["image", "build"].iter().any(|key| entry.node.get(key).is_some())
}

/// Where a key belongs: further down by keys that the schema names, or further up.
fn belongs(key: &str, path: &Path, dialect: Dialect) -> Vec<String> {
    let mut places: Vec<String> = Vec::new();
    for row in keys().iter().filter(|row| row.fate(dialect) != Fate::Refused) {
        let steps: Vec<&str> = row.steps().collect();
        let fits = |(segment, step): (&Segment, &&str)| match segment {
            Segment::Index(_) => *step == "[]",
            Segment::Key(key) => *step == "*" || key == step,
        };
        for (parent, _) in steps.iter().enumerate().filter(|(_, step)| **step == key) {
            let common = path.0.len().min(parent);
            if common == 0 || !path.0.iter().zip(&steps[..common]).all(fits) {
                continue;
            }
            let between = &steps[common..parent];
            // Further down, but not in a list and not in what the user names.
            let place = if parent > path.0.len() && between.iter().all(|step| !["*", "[]"].contains(step)) {
                format!("below `{}`", between.join("."))
            } else if parent < path.0.len() && parent > 1 {
                format!("further up, to `{}`", Path(path.0[..parent].to_vec()))
            } else {
                continue;
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    // More of them would not help.
    if places.len() > 2 { Vec::new() } else { places }
}
