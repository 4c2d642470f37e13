//! Which values of a file are interpolated, and what the results become.
//!
//! Every text is, wherever it is in the file; keys are not. At some paths a text becomes a number or a boolean: for docker/cli where
//! interpolation changed it, for compose-go always.

use super::super::Dialect;
use super::super::interpolation::Interpolator;
use super::super::leaf::Path;
use super::super::source::Mistake;
use super::super::yaml::{Node, Value};
use super::notes::Notes;
use super::shape;

/// Most mistakes that are reported of one file.
const MISTAKES_MAX: usize = 100;

/// What a text becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cast {
    Int,
    /// With the bases of Go's literals.
    Umask,
    Float,
    Bool,
}

/// docker/cli, `cli/compose/loader/interpolate.go`: below `services.*`.
const STACK_SERVICE: &[(&str, Cast)] = &[
    ("configs.[].mode", Cast::Int),
    ("secrets.[].mode", Cast::Int),
    ("healthcheck.retries", Cast::Int),
    ("healthcheck.disable", Cast::Bool),
    ("deploy.replicas", Cast::Int),
    ("deploy.update_config.parallelism", Cast::Int),
    ("deploy.update_config.max_failure_ratio", Cast::Float),
    ("deploy.rollback_config.parallelism", Cast::Int),
    ("deploy.rollback_config.max_failure_ratio", Cast::Float),
    ("deploy.restart_policy.max_attempts", Cast::Int),
    ("deploy.placement.max_replicas_per_node", Cast::Int),
    ("ports.[].target", Cast::Int),
    ("ports.[].published", Cast::Int),
    ("ulimits.*", Cast::Int),
    ("ulimits.*.hard", Cast::Int),
    ("ulimits.*.soft", Cast::Int),
    ("privileged", Cast::Bool),
    ("oom_score_adj", Cast::Int),
    ("read_only", Cast::Bool),
    ("stdin_open", Cast::Bool),
    ("tty", Cast::Bool),
    ("volumes.[].read_only", Cast::Bool),
    ("volumes.[].volume.nocopy", Cast::Bool),
];

/// The same file: from the root.
const STACK_ROOT: &[(&str, Cast)] = &[
    ("networks.*.external", Cast::Bool),
    ("networks.*.internal", Cast::Bool),
    ("networks.*.attachable", Cast::Bool),
    ("volumes.*.external", Cast::Bool),
    ("secrets.*.external", Cast::Bool),
    ("configs.*.external", Cast::Bool),
];

/// compose-go, `loader/interpolate.go`: wherever a container is described, in services, jobs and `pre_start` of services.
const COMPOSE_CONTAINER: &[(&str, Cast)] = &[
    ("cpu_count", Cast::Int),
    ("cpu_percent", Cast::Float),
    ("cpu_period", Cast::Int),
    ("cpu_quota", Cast::Int),
    ("cpu_rt_period", Cast::Int),
    ("cpu_rt_runtime", Cast::Int),
    ("cpus", Cast::Float),
    ("cpu_shares", Cast::Int),
    ("init", Cast::Bool),
    ("networks.*.use_service_name_alias", Cast::Bool),
    ("oom_kill_disable", Cast::Bool),
    ("oom_score_adj", Cast::Int),
    ("pids_limit", Cast::Int),
    ("privileged", Cast::Bool),
    ("read_only", Cast::Bool),
    ("umask", Cast::Umask),
    ("ulimits.*", Cast::Int),
    ("ulimits.*.hard", Cast::Int),
    ("ulimits.*.soft", Cast::Int),
    ("volumes.[].read_only", Cast::Bool),
    ("volumes.[].volume.nocopy", Cast::Bool),
];

/// The same file: in services and jobs.
const COMPOSE_WORKLOAD: &[(&str, Cast)] = &[
    ("depends_on.*.required", Cast::Bool),
    ("depends_on.*.restart", Cast::Bool),
    ("healthcheck.retries", Cast::Int),
    ("healthcheck.disable", Cast::Bool),
    ("ports.[].target", Cast::Int),
    ("stdin_open", Cast::Bool),
    ("tty", Cast::Bool),
];

/// The same file: in services.
const COMPOSE_SERVICE: &[(&str, Cast)] = &[
    ("deploy.replicas", Cast::Int),
    ("deploy.update_config.parallelism", Cast::Int),
    ("deploy.update_config.max_failure_ratio", Cast::Float),
    ("deploy.rollback_config.parallelism", Cast::Int),
    ("deploy.rollback_config.max_failure_ratio", Cast::Float),
    ("deploy.restart_policy.max_attempts", Cast::Int),
    ("deploy.placement.max_replicas_per_node", Cast::Int),
    ("scale", Cast::Int),
];

/// The same file: from the root.
const COMPOSE_ROOT: &[(&str, Cast)] = &[
    ("networks.*.external", Cast::Bool),
    ("networks.*.internal", Cast::Bool),
    ("networks.*.attachable", Cast::Bool),
    ("networks.*.enable_ipv4", Cast::Bool),
    ("networks.*.enable_ipv6", Cast::Bool),
    ("volumes.*.external", Cast::Bool),
    ("secrets.*.external", Cast::Bool),
    ("configs.*.external", Cast::Bool),
];

/// Interpolates and casts the values of a document.
///
/// # Errors
/// Every value that the program would refuse, up to [`MISTAKES_MAX`].
pub(super) fn interpolate(
    document: &mut Node,
    dialect: Dialect,
    interpolator: &Interpolator<'_, '_>,
    notes: &mut Notes,
) -> Result<(), Vec<Mistake>> {
    let mut walk = Walk { dialect, interpolator, notes, mistakes: Vec::new() };
    walk.node(document, &Path::default());
    if walk.mistakes.is_empty() { Ok(()) } else { Err(walk.mistakes) }
}

struct Walk<'w, 'l, 'a> {
    dialect: Dialect,
    interpolator: &'w Interpolator<'l, 'a>,
    notes: &'w mut Notes,
    mistakes: Vec<Mistake>,
}

impl Walk<'_, '_, '_> {
    fn node(&mut self, node: &mut Node, path: &Path) {
        if self.mistakes.len() >= MISTAKES_MAX {
            return;
        }
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &shape::index(path, index));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.node(&mut entry.node, &shape::key(path, &entry.key));
                }
            }
            Value::Text(_) => match self.text(node, path) {
                Ok(value) => node.value = value,
                Err(message) => {
                    self.mistakes.push(Mistake { at: node.at.clone(), message: format!("{path}: {message}") });
                }
            },
            _ => {}
        }
    }

    fn text(&mut self, node: &Node, path: &Path) -> Result<Value, String> {
        let Value::Text(text) = &node.value else { return Ok(node.value.clone()) };
        let found = match text.contains('$') {
            true => self.interpolator.interpolate(text).map_err(|error| error.to_string())?,
            false => super::super::Interpolated { text: text.clone(), ..Default::default() },
        };
        for name in &found.unset {
            let message = format!(
                "{path}: the variable {name} has no value and is replaced by nothing; set it in the file of --env-file"
            );
            self.notes.warn(&node.at, message);
        }
        for name in &found.misread {
            let message = format!(
                "{path}: docker stack deploy looks for '-' before '?' and takes what the file requires of {name} for a default; write a message \
                 without '-'"
            );
            self.notes.warn(&node.at, message);
        }
        let is_cast = self.dialect == Dialect::Compose || found.text != *text;
        match cast_at(path, self.dialect).filter(|_| is_cast) {
            None => Ok(Value::Text(found.text)),
            Some(cast) => cast_text(&found.text, cast).map_err(|message| match found.unset.first() {
                Some(name) => format!("{message}; the variable {name} has no value, set it in the file of --env-file"),
                None => message,
            }),
        }
    }
}

/// The cast of a path.
fn cast_at(path: &Path, dialect: Dialect) -> Option<Cast> {
    let steps = match dialect {
        // docker/cli writes paths with dots and splits them there, so that a dot in a key is a step.
        Dialect::Stack => shape::steps(path).into_iter().flat_map(|step| step.split('.')).collect(),
        Dialect::Compose => shape::steps(path),
    };
    let find = |steps: &[&str], table: &[(&str, Cast)]| {
        table.iter().find(|(pattern, _)| is_match(steps, pattern)).map(|(_, cast)| *cast)
    };
    match (dialect, &steps[..]) {
        (Dialect::Stack, ["services", _, rest @ ..]) => find(rest, STACK_SERVICE),
        (Dialect::Stack, all) => find(all, STACK_ROOT),
        (Dialect::Compose, ["services", _, "pre_start", _, rest @ ..]) => find(rest, COMPOSE_CONTAINER),
        (Dialect::Compose, ["services", _, rest @ ..]) => {
            [COMPOSE_CONTAINER, COMPOSE_WORKLOAD, COMPOSE_SERVICE].iter().find_map(|table| find(rest, table))
        }
        (Dialect::Compose, ["jobs", _, rest @ ..]) => {
            [COMPOSE_CONTAINER, COMPOSE_WORKLOAD].iter().find_map(|table| find(rest, table))
        }
        (Dialect::Compose, all) => find(all, COMPOSE_ROOT),
    }
}

fn is_match(steps: &[&str], pattern: &str) -> bool {
    let mut parts = pattern.split('.');
    steps.iter().all(|step| parts.next().is_some_and(|part| part == "*" || part == *step)) && parts.next().is_none()
}

/// Go's `strconv.Atoi`, `ParseUint` with base 0, and `ParseFloat`; booleans as YAML 1.1 has them.
fn cast_text(text: &str, cast: Cast) -> Result<Value, String> {
    let expected = match cast {
        Cast::Int => match text.parse::<i64>() {
            Ok(value) => return Ok(Value::Int(value.into())),
            Err(_) => "a whole number",
        },
        Cast::Umask => match umask(text) {
            Some(value) => return Ok(Value::Int(value.into())),
            None => "a number such as 077",
        },
        Cast::Float => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => return Ok(Value::Float(value)),
            _ => "a number",
        },
        Cast::Bool => match text.to_lowercase().as_str() {
            "y" | "yes" | "true" | "on" => return Ok(Value::Bool(true)),
            "n" | "no" | "false" | "off" => return Ok(Value::Bool(false)),
            _ => "true or false",
        },
    };
    Err(format!("found {text:?}, expected {expected}"))
}

fn umask(text: &str) -> Option<u32> {
    let (base, digits) = match text.get(..2) {
        Some("0x" | "0X") => (16, &text[2..]),
        Some("0o" | "0O") => (8, &text[2..]),
        Some("0b" | "0B") => (2, &text[2..]),
        _ if text.len() > 1 && text.starts_with('0') => (8, &text[1..]),
        _ => (10, text),
    };
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| u32::from_str_radix(digits, base).ok()).flatten()
}
