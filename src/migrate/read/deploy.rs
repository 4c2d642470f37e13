//! How many containers, where, how they are replaced and started again: `deploy`, `restart` and `scale`.

use super::super::leaf::{At, Item, ItemValue};
use super::super::report::Outcome;
use super::super::stack::{
    EndpointMode, Mode, ModeKind, Placement, RestartCondition, RestartPolicy, UpdateConfig, UpdateOrder,
};
use super::{Reader, excerpt, hint};

const MODES: [(&str, ModeKind); 4] = [
    ("replicated", ModeKind::Replicated),
    ("global", ModeKind::Global),
    ("replicated-job", ModeKind::ReplicatedJob),
    ("global-job", ModeKind::GlobalJob),
];

const CONDITIONS: [(&str, RestartCondition); 3] =
    [("none", RestartCondition::None), ("on-failure", RestartCondition::OnFailure), ("any", RestartCondition::Any)];

/// Those that docker compose knows in addition.
const COMPOSE_CONDITIONS: [(&str, RestartCondition); 6] = [
    CONDITIONS[0],
    CONDITIONS[1],
    CONDITIONS[2],
    ("no", RestartCondition::None),
    ("always", RestartCondition::Any),
    ("unless-stopped", RestartCondition::Any),
];

impl Reader<'_> {
    pub(super) fn endpoint_mode(&mut self, item: &Item) -> Option<At<EndpointMode>> {
        self.choice(item, &[("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)])
    }

    /// `deploy.mode`, `deploy.replicas` and compose's `scale`.
    pub(super) fn mode(&mut self, service: &Item, deploy: Option<&Item>) -> Mode {
        let kind = deploy.and_then(|deploy| self.field(deploy, "mode", |reader, item| reader.choice(item, &MODES)));
        let mut replicas = deploy.and_then(|deploy| self.field(deploy, "replicas", Self::number::<u64>));
        let scale = service.get("scale").filter(|_| self.is_compose()).and_then(|item| self.number::<u64>(item));
        replicas = self.same("scale", scale, "deploy.replicas", replicas);
        if let (Some(kind), Some(replicas)) = (kind, replicas)
            && matches!(kind.value, ModeKind::Global | ModeKind::GlobalJob)
            && !self.is_compose()
        {
            self.mistake_at(replicas.leaf, "a service that is on every node has no 'replicas'; remove it, or 'mode'");
        }
        Mode { kind, replicas, max_concurrent: None }
    }

    /// A value that has an old key and one in `deploy`: both may be written when they say the same.
    pub(super) fn same<T: PartialEq>(
        &mut self,
        old_key: &str,
        old: Option<At<T>>,
        key: &str,
        new: Option<At<T>>,
    ) -> Option<At<T>> {
        match (old, new) {
            (Some(old), Some(new)) => {
                if old.value == new.value {
                    self.remark(old.leaf, Outcome::Converted, format!("{key} says the same"));
                } else {
                    self.mistake_at(old.leaf, format!("'{old_key}' and '{key}' differ; remove one of them"));
                }
                Some(new)
            }
            (old, new) => new.or(old),
        }
    }

    pub(super) fn placement(&mut self, item: &Item) -> Placement {
        if !self.is_map(item) {
            return Placement::default();
        }
        let mut spread = Vec::new();
        for preference in item.get("preferences").map(|item| self.list(item)).unwrap_or_default() {
            if self.is_map(preference) {
                spread.extend(self.field(preference, "spread", Self::text));
            }
        }
        Placement {
            constraints: item.get("constraints").map(|item| self.texts(item)).unwrap_or_default(),
            spread,
            max_replicas: self.field(item, "max_replicas_per_node", Self::number),
            platforms: Vec::new(),
        }
    }

    pub(super) fn update_config(&mut self, item: &Item) -> Option<UpdateConfig> {
        const ORDERS: [(&str, UpdateOrder); 2] =
            [("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)];
        self.is_map(item).then(|| UpdateConfig {
            parallelism: self.field(item, "parallelism", Self::number),
            delay: self.field(item, "delay", Self::duration),
            failure_action: self.field(item, "failure_action", Self::text),
            monitor: self.field(item, "monitor", Self::duration),
            max_failure_ratio: self.field(item, "max_failure_ratio", Self::float),
            order: self.field(item, "order", |reader, item| reader.choice(item, &ORDERS)),
        })
    }

    /// `deploy.restart_policy`, or else `restart`.
    pub(super) fn restart(&mut self, service: &Item, deploy: Option<&Item>) -> RestartPolicy {
        let policy = deploy.and_then(|deploy| deploy.get("restart_policy"));
        let conditions: &[_] = if self.is_compose() { &COMPOSE_CONDITIONS } else { &CONDITIONS };
        let policy = policy.and_then(|item| {
            // A map without keys is a policy with the defaults.
            let is_written = matches!(item.value, ItemValue::NoKeys(_));
            (self.is_map(item) || is_written).then(|| RestartPolicy {
                condition: self.field(item, "condition", |reader, item| reader.choice(item, conditions)),
                delay: self.field(item, "delay", Self::duration),
                max_attempts: self.field(item, "max_attempts", Self::number),
                window: self.field(item, "window", Self::duration),
            })
        });
        let restart = service.get("restart");
        if let (Some(policy), Some(restart)) = (&policy, restart) {
            self.remark_all(restart, Outcome::Dropped, "deploy.restart_policy counts");
            return policy.clone();
        }
        policy.or_else(|| restart.and_then(|restart| self.short_restart(restart))).unwrap_or_default()
    }

    /// `always`, `unless-stopped`, `on-failure[:TIMES]` or `no`.
    fn short_restart(&mut self, item: &Item) -> Option<RestartPolicy> {
        const NAMES: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];
        let text = self.text(item)?;
        let (name, times) = text.value.split_once(':').unwrap_or((&text.value, ""));
        let condition = match name {
            "no" if self.is_compose() => RestartCondition::None,
            "no" | "" if !text.value.starts_with(':') => {
                let (outcome, reason) = match (name, self.is_compose()) {
                    ("no", false) => (
                        Outcome::Dropped,
                        "docker stack deploy takes this as if nothing were written, and starts containers again; \
                         it is restart_policy with 'condition: none' that it follows",
                    ),
                    _ => (Outcome::Converted, "nothing is written here"),
                };
                self.remark(text.leaf, outcome, reason);
                return None;
            }
            "always" | "unless-stopped" => RestartCondition::Any,
            "on-failure" => RestartCondition::OnFailure,
            _ => {
                let (found, expected, hint) = (excerpt(name), NAMES.join(", "), hint(name, NAMES));
                self.mistake(item, format!("{}: found '{found}', expected one of {expected}{hint}", item.path));
                return None;
            }
        };
        let max_attempts = match times {
            "" => None,
            times => match times.parse::<u64>() {
                Ok(0) => None,
                Ok(times) => Some(At::new(times, text.leaf)),
                Err(_) => {
                    self.mistake(item, format!("{}: '{}' is not a number of times", item.path, excerpt(times)));
                    None
                }
            },
        };
        Some(RestartPolicy { condition: Some(At::new(condition, text.leaf)), max_attempts, ..RestartPolicy::default() })
    }
}
