//! Settings that may change while the node runs.

use super::Config;

/// The keys that are applied while the node runs. All others take effect at the next start.
pub const LIVE: &[&str] = &[
    "log.level",
    "search.candidates",
    "search.limit",
    "search.tokens_max",
    "server.allowed_hosts",
    "server.in_flight_max",
    "snapshot.daily",
    "snapshot.interval",
    "snapshot.max_bytes",
    "snapshot.monthly",
    "snapshot.point_in_time",
    "snapshot.verify_interval",
    "snapshot.weekly",
];

/// Differences between the settings of a running node and newer ones, as keys in alphabetical order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Applied.
    pub taken: Vec<String>,
    /// Require a restart.
    pub restart: Vec<String>,
}

impl Config {
    /// Applies what may change while the node runs, and returns what else differs.
    pub fn take_live(&mut self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        let (Ok(mut effective), Ok(wanted)) = (self.effective.parse::<toml::Table>(), newer.effective.parse()) else {
            unreachable!("the settings were printed by this program");
        };
        for key in differing(&effective, &wanted) {
            if LIVE.contains(&key.as_str()) {
                copy(&mut effective, &wanted, &key);
                changes.taken.push(key);
            } else {
                changes.restart.push(key);
            }
        }
        self.log.filter.clone_from(&newer.log.filter);
        (self.search.candidates, self.search.limit) = (newer.search.candidates, newer.search.limit);
        self.search.tokens_max = newer.search.tokens_max;
        self.server.allowed_hosts.clone_from(&newer.server.allowed_hosts);
        self.server.in_flight_max = newer.server.in_flight_max;
        self.snapshot.schedule = newer.snapshot.schedule;
        self.snapshot.retention.clone_from(&newer.snapshot.retention);
        self.effective = effective.to_string();
        changes
    }
}

/// The keys whose values differ: of sections each key, a list of tables as a whole.
fn differing(one: &toml::Table, other: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for name in names {
        match (one.get(name), other.get(name)) {
            (Some(toml::Value::Table(one)), Some(toml::Value::Table(other))) => {
                let inner: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
                let differs = |key: &&String| one.get(*key) != other.get(*key);
                keys.extend(inner.into_iter().filter(differs).map(|key| format!("{name}.{key}")));
            }
            (one, other) if one != other => keys.push(name.clone()),
            _ => {}
        }
    }
    keys
}

/// Copies the value of `section.key`.
fn copy(to: &mut toml::Table, from: &toml::Table, key: &str) {
    let Some((section, key)) = key.split_once('.') else { return };
    if let (Some(toml::Value::Table(to)), Some(value)) =
        (to.get_mut(section), from.get(section).and_then(|keys| keys.get(key)))
    {
        to.insert(key.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn with(key: &str, value: &str) -> Config {
        let overrides = Overrides { set: vec![(key.to_owned(), value.to_owned())], ..Overrides::default() };
        Config::load(None, [], &overrides).expect("valid")
    }

    #[test]
    fn each_live_key_is_taken_over_whole() {
        for key in LIVE {
            let value = match *key {
                "log.level" => "debug",
                "server.allowed_hosts" => "a.example",
                "snapshot.interval" | "snapshot.point_in_time" | "snapshot.verify_interval" => "77s",
                "search.tokens_max" => "777",
                _ => "33",
            };
            let (mut running, newer) = (Config::read("", "").expect("valid"), with(key, value));
            let changes = running.take_live(&newer);
            assert_eq!(changes, Changes { taken: vec![(*key).to_owned()], restart: Vec::new() });
            assert_eq!(running, newer, "{key}");
            assert_eq!(running.take_live(&newer), Changes::default(), "{key} twice");
        }
    }

    #[test]
    fn other_keys_stay_as_they_run_and_are_named() {
        let (mut running, newer) = (Config::read("", "").expect("valid"), with("store.segment_bytes", "2MiB"));
        let before = running.clone();
        let changes = running.take_live(&newer);
        assert_eq!(changes, Changes { taken: Vec::new(), restart: vec!["store.segment_bytes".to_owned()] });
        assert_eq!(running, before);
        assert_eq!(running.take_live(&before), Changes::default(), "changed back");
    }
}
