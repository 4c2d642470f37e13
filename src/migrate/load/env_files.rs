//! `env_file` and `environment` of several files for `docker stack deploy`, which reads the first before it merges the second.

use std::collections::HashMap;

use super::super::Dialect;
use super::super::env_file::variables as read_variables;
use super::super::leaf::Path;
use super::super::source::{Position, Source};
use super::super::yaml::{Node, Value};
use super::{Loader, shape};

impl Loader {
    /// docker/cli reads `env_file` before it merges, so that a file of variables that a later file names counts more than `environment` in an
    /// earlier one, and one that an earlier file names counts more than an empty value in a later one.
    pub(super) fn count_env_files(&mut self, before: &mut Node, later: &mut Node, variables: &HashMap<String, String>) {
        let Some(Value::Map(services)) = shape::get_mut(before, "services").map(|node| &mut node.value) else { return };
        for service in services {
            let over = shape::get_mut(later, "services").and_then(|services| shape::get_mut(services, &service.key));
            let Some(over) = over else { continue };
            let path = shape::key(&shape::key(&Path::default(), "services"), &service.key);
            let path = shape::key(&path, "environment");
            let mut set = self.env_files(over, variables);
            let own = over.get("environment").map(environment_names).unwrap_or_default();
            set.retain(|name, _| !own.contains_key(name));
            if let Some(environment) = variables_of(&mut service.node).filter(|_| !set.is_empty()) {
                let notes = &mut self.notes;
                retain_variables(environment, |name, node, _| match set.get(name) {
                    Some(by) => {
                        notes.resolve(
                            node,
                            &shape::key(&path, name),
                            &format!("the file at {by}, which is later, sets it"),
                        );
                        false
                    }
                    None => true,
                });
                shape::without_bare(&mut service.node, "environment");
            }
            let mut set = self.env_files(&service.node, variables);
            let own = service.node.get("environment").map(environment_names).unwrap_or_default();
            set.retain(|name, _| !own.contains_key(name));
            if let Some(environment) = variables_of(over).filter(|_| !set.is_empty()) {
                let notes = &mut self.notes;
                retain_variables(environment, |name, node, is_empty| match set.get(name).filter(|_| is_empty) {
                    Some(by) => {
                        let reason =
                            format!("docker stack deploy does not let an empty value replace that of the file at {by}");
                        let path = shape::key(&path, name);
                        notes.warn(&node.at, format!("{path}: {reason}"));
                        notes.drop(node, &path, &reason);
                        false
                    }
                    None => true,
                });
                shape::without_bare(over, "environment");
            }
        }
    }

    /// The variables that the files of `env_file` give a value, and where each file is named.
    fn env_files(&self, service: &Node, variables: &HashMap<String, String>) -> HashMap<String, Position> {
        let mut set = HashMap::new();
        let Some(named) = service.get("env_file") else { return set };
        for file in shape::sequence(named.clone(), ':') {
            // A file that cannot be read is reported by the reader of the service.
            let Some(name) = shape::as_text(&file) else { continue };
            let Ok(bytes) = self.files.read(self.files.root(), name) else { continue };
            let Ok(source) = Source::of(name, &bytes) else { continue };
            let Ok(found) = read_variables(&source, Dialect::Stack, &|_| None) else { continue };
            for variable in found {
                let value = variable.value.filter(|value| !value.is_empty());
                if value.is_some() || variables.get(&variable.name).is_some_and(|value| !value.is_empty()) {
                    set.insert(variable.name, file.at.clone());
                } else {
                    set.remove(&variable.name);
                }
            }
        }
        set
    }
}

/// The variables of a service, where it has any.
fn variables_of(service: &mut Node) -> Option<&mut Node> {
    shape::get_mut(service, "environment").filter(|environment| !shape::is_bare(environment))
}

/// The names in a map or list of variables, and whether the value of each is empty.
fn environment_names(environment: &Node) -> HashMap<String, bool> {
    let mut names = HashMap::new();
    retain_variables(&mut environment.clone(), |name, _, is_empty| {
        names.insert(name.to_owned(), is_empty);
        true
    });
    names
}

/// Removes variables from a map or a list of them.
///
/// * `stays`: of a name, its value, and whether that is empty.
fn retain_variables(environment: &mut Node, mut stays: impl FnMut(&str, &Node, bool) -> bool) {
    match &mut environment.value {
        Value::Map(entries) => entries.retain(|entry| {
            let is_empty = matches!(&entry.node.value, Value::Null) || shape::as_text(&entry.node) == Some("");
            stays(&entry.key, &entry.node, is_empty)
        }),
        Value::List(items) => items.retain(|item| {
            let Some(text) = shape::as_text(item) else { return true };
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            stays(name, item, value.is_empty())
        }),
        _ => {}
    }
}
