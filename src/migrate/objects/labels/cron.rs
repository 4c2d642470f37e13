//! Jobs with a schedule, as swarm-cronjob runs them: a service with no replicas and labels that begin with `swarm.cronjob.`.

use crate::migrate::leaf::{At, Leaf};
use crate::migrate::objects::Holder;
use crate::migrate::report::Ledger;

const PREFIX: &str = "swarm.cronjob.";
/// Schedules by name that Kubernetes has, too.
const NAMED: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// As a CronJob has it; `None`: Kubernetes has none like it.
    pub schedule: Option<String>,
    /// Whether one is left out while the last one runs.
    pub skips_running: bool,
    /// How many pods run at once.
    pub replicas: u64,
}

/// Reads the labels.
pub fn schedule(labels: &[(String, At<String>)]) -> Option<Schedule> {
    let value = |name: &str| {
        labels.iter().find(|(key, _)| key.strip_prefix(PREFIX) == Some(name)).map(|(_, value)| value.value.as_str())
    };
    if value("enable") != Some("true") {
        return None;
    }
    let written = value("schedule")?.trim();
    let is_five = written.split_whitespace().count() == 5 && !written.starts_with('@');
    let is_legal = is_five || NAMED.contains(&written);
    Some(Schedule {
        schedule: is_legal.then(|| written.to_owned()),
        skips_running: value("skip-running") == Some("true"),
        replicas: value("replicas").and_then(|count| count.parse().ok()).unwrap_or(1),
    })
}

impl Schedule {
    /// Marks the labels that say so.
    pub fn mark(&self, labels: &[(String, At<String>)], holder: &Holder, ledger: &mut Ledger) {
        for (key, value) in labels {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            self.mark_one(name, value.leaf, holder, ledger);
        }
    }

    fn mark_one(&self, name: &str, leaf: Leaf, holder: &Holder, ledger: &mut Ledger) {
        match name {
            "enable" => ledger.agrees(leaf, "a CronJob"),
            "schedule" if self.schedule.is_some() => ledger.converted(leaf, holder.field("spec.schedule")),
            "schedule" => ledger.needs_input(
                leaf,
                "a CronJob has five fields, minutes first, or a name such as @daily; choose such a schedule, and convert again",
            ),
            "skip-running" => ledger.converted(leaf, holder.field("spec.concurrencyPolicy")),
            "replicas" => ledger.converted(leaf, holder.field("spec.jobTemplate.spec.parallelism")),
            _ => ledger.agrees(leaf, "how swarm-cronjob asks a registry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{Leaves, Path, Position, Written};

    fn of(pairs: &[(&str, &str)]) -> Option<Schedule> {
        let mut leaves = Leaves::default();
        let at = Position { file: "stack.yml".into(), line: 1, column: 1 };
        let leaf = leaves.push(Written { path: Path::default(), at });
        let label = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), At::new((*value).to_owned(), leaf));
        schedule(&pairs.iter().map(label).collect::<Vec<_>>())
    }

    #[test]
    fn schedules_that_kubernetes_lacks_are_none() {
        let enabled = |text| of(&[("enable", "true"), ("schedule", text)]).expect("a schedule").schedule;
        assert_eq!(enabled("*/5 * * * *").as_deref(), Some("*/5 * * * *"));
        assert_eq!(enabled("@daily").as_deref(), Some("@daily"));
        assert_eq!([enabled("0 */5 * * * *"), enabled("@every 5m")], [None, None]);
        assert_eq!(of(&[("enable", "false"), ("schedule", "* * * * *")]), None);
        assert!(
            of(&[("enable", "true"), ("schedule", "* * * * *"), ("skip-running", "true")]).expect("one").skips_running
        );
    }
}
