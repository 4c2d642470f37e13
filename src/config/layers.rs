//! Layers above the defaults and the file: variables and options.

use std::path::PathBuf;
use std::sync::Arc;

use std::net::SocketAddr;

use super::problem::Problem;
use super::reader::{LazyKeys, unknown};
use crate::base::tree::{Node, Origin, Value};

/// The prefix of all variables of settings.
const PREFIX: &str = "CAIRN_";

/// Options and their environment variables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<(String, String)>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--admin`
    pub admin: Option<SocketAddr>,
    /// `--allow-unauthenticated`
    pub allow_unauthenticated: bool,
}

/// Applies layers to settings.
pub(super) struct Layers<'a, 'k> {
    pub(super) settings: &'a mut Node,
    pub(super) defaults: &'a Node,
    pub(super) keys: &'a LazyKeys<'k>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Layers<'_, '_> {
    /// Applies variables to the settings, lists before their items.
    ///
    /// * `environment`: name and value pairs; only names of sections and lists are considered.
    pub(super) fn variables(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut known = Vec::new();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            match self.path_of(&rest) {
                Some(path) => known.push((path, name, value)),
                None => self.refuse_variable(&name, &rest),
            }
        }
        known.sort_by(|(one, ..), (other, ..)| by_number(one).cmp(&by_number(other)));
        for (path, name, value) in known {
            let origin = Origin::Named(name.as_str().into());
            self.assign(&path, &path.join("."), &value, origin);
        }
    }

    /// The target of a variable: `server_listen`, or in a list, `models_0_name`.
    fn path_of(&self, rest: &str) -> Option<Vec<String>> {
        let into = |name: &str, path: &[&str]| -> Option<Vec<String>> {
            let start = path.iter().map(|step| (*step).to_owned());
            if rest == name {
                return Some(start.collect());
            }
            let (index, field) = rest.strip_prefix(name)?.strip_prefix('_')?.split_once('_')?;
            index.parse::<usize>().ok()?;
            let path: Vec<String> = start.chain([index.to_owned(), field.to_owned()]).collect();
            self.is_list(&path[..path.len() - 2]).then_some(path)
        };
        self.keys.iter().find_map(|(section, keys)| match keys {
            None => into(section, &[section]),
            Some(keys) => keys.iter().find_map(|key| into(&format!("{section}_{key}"), &[section, key])),
        })
    }

    fn is_list(&self, path: &[String]) -> bool {
        match path {
            [name] => self.keys.get(name).is_some_and(Option::is_none),
            path => matches!(self.defaults.at(path).map(|node| &node.value), Some(Value::List(_))),
        }
    }

    fn refuse_variable(&mut self, name: &str, rest: &str) {
        // Kubernetes sets CAIRN_SERVER_SERVICE_HOST, CAIRN_SERVER_PORT and more next to a service called cairn-server.
        let is_injected = name.contains("_SERVICE_") || name.contains("_PORT");
        let is_ours = self
            .keys
            .keys()
            .any(|section| rest.strip_prefix(section.as_str()).is_some_and(|rest| rest.starts_with('_')));
        if is_injected || !is_ours {
            return;
        }
        let all = self.keys.iter().flat_map(|(section, keys)| match keys {
            None => vec![variable(section)],
            Some(keys) => keys.iter().map(|key| variable(&format!("{section}_{key}"))).collect(),
        });
        let all: Vec<String> = all.collect();
        let message = unknown(name, all.iter().map(String::as_str)).replacen("such key", "such setting", 1);
        self.problems.push(Problem {
            key: name.to_owned(),
            origin: "environment".to_owned(),
            message: format!("{message}; {SHOWN}"),
        });
    }

    /// Applies options to the settings.
    pub(super) fn options(&mut self, overrides: &Overrides) {
        let Overrides { set, data_dir, listen, admin, allow_unauthenticated } = overrides;
        for (key, value) in set {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            self.assign(&path, key, value, Origin::Named("--set".into()));
        }
        let named: [(&str, &str, Option<toml::Value>); 4] = [
            ("node.data_dir", "--data-dir", data_dir.as_ref().map(|path| path.display().to_string().into())),
            ("server.listen", "--listen", listen.map(|address| address.to_string().into())),
            ("admin.listen", "--admin", admin.map(|address| address.to_string().into())),
            ("server.allow_unauthenticated", "--allow-unauthenticated", allow_unauthenticated.then(|| true.into())),
        ];
        for (key, option, value) in named {
            if let Some(value) = value {
                let origin = Origin::Named(Arc::from(option));
                self.insert(&key.split('.').collect::<Vec<_>>(), key, Node::of(value, &origin));
            }
        }
    }

    fn assign(&mut self, path: &[String], key: &str, text: &str, origin: Origin) {
        let default = if self.is_list(path) { None } else { self.defaults.at(path) };
        match from_text(default.map(|node| &node.value), self.is_list(path), text) {
            Ok(value) => {
                let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                self.insert(&steps, key, Node::of(value, &origin));
            }
            Err(message) => self.problems.push(Problem { key: key.to_owned(), origin: origin.to_string(), message }),
        }
    }

    fn insert(&mut self, path: &[&str], key: &str, value: Node) {
        let origin = value.origin.to_string();
        if let Err(message) = self.settings.set(path, value) {
            self.problems.push(Problem { key: key.to_owned(), origin, message });
        }
    }
}

/// The path of all settings.
pub(super) const SHOWN: &str = "`cairn serve --print-config` shows all of them";

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

/// Orders items of a list by their numbers, after the list.
fn by_number(path: &[String]) -> Vec<(usize, &str)> {
    path.iter().map(|step| (step.parse().unwrap_or_default(), step.as_str())).collect()
}

/// Converts a text to the type of the default. A list is TOML if it starts with a bracket, otherwise texts separated by
/// commas. A field of a record has no default: anything that looks like a TOML value other than a bare word is parsed
/// as one.
///
/// # Errors
/// In words, for invalid TOML.
fn from_text(default: Option<&Value>, is_list: bool, text: &str) -> Result<toml::Value, String> {
    let written = || {
        let parsed: toml::Table = format!("value = {text}").parse().map_err(|error: toml::de::Error| {
            format!("found '{text}', expected a value as TOML writes it: {}", error.message())
        })?;
        parsed.get("value").cloned().ok_or_else(|| "expected a value".to_owned())
    };
    let trimmed = text.trim();
    let is_begun = trimmed.starts_with(['[', '{', '"', '\'']);
    Ok(match default {
        _ if is_list && trimmed.starts_with('[') => written()?,
        _ if is_list => texts(text),
        Some(Value::Scalar(toml::Value::Integer(_))) => text.parse().map_or_else(|_| text.into(), toml::Value::Integer),
        Some(Value::Scalar(toml::Value::Float(_))) => text.parse().map_or_else(|_| text.into(), toml::Value::Float),
        Some(Value::Scalar(toml::Value::Boolean(_))) => text.parse().map_or_else(|_| text.into(), toml::Value::Boolean),
        Some(_) => text.into(),
        None if is_begun => written()?,
        None => match text.parse() {
            Ok(flag) => toml::Value::Boolean(flag),
            Err(_) => text
                .parse()
                .map(toml::Value::Integer)
                .or_else(|_| text.parse().map(toml::Value::Float))
                .unwrap_or_else(|_| text.into()),
        },
    })
}

fn texts(text: &str) -> toml::Value {
    toml::Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(toml::Value::from).collect())
}
