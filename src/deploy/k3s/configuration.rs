//! Cairn's own configuration for the pod: what the manifests decide, what follows from the node's size, and what was asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::settings::Settings;
use super::sizes::{log_bytes_max, quantity, snapshot_bytes_max};
use super::workload::{BACKUP_KEY_DIR, TLS_DIR};
use crate::base::ByteSize;
use crate::deploy::shape::{ADMIN_PORT, DATA_DIR, MCP_PORT, SNAPSHOTS_DIR};

/// The key of the ConfigMap, and the name of the file.
pub(super) const FILE: &str = "cairn.toml";

/// The text of `cairn.toml`: sections and keys in the order of the alphabet, so that equal settings are equal bytes.
#[must_use]
pub fn configuration(settings: &Settings) -> String {
    let mut values = decided(settings);
    // What was asked for holds; nothing that the manifests depend on is among it.
    values.extend(settings.own.clone());
    let mut text =
        String::from("# Settings of the pod. Set others with `cairn k3s render --set config.SECTION.KEY=VALUE`.\n");
    let (lists, values): (Vec<_>, Vec<_>) = values.iter().partition(|(key, _)| is_in_list(key));
    // What is in no section comes first, as TOML wants it.
    for (key, value) in values.iter().filter(|(key, _)| !key.contains('.')) {
        let _ = writeln!(text, "\n{key} = {value}");
    }
    let mut current = "";
    for (key, value) in &values {
        let Some((section, name)) = key.split_once('.') else { continue };
        if section != current {
            let _ = write!(text, "\n[{section}]\n");
            current = section;
        }
        let _ = writeln!(text, "{name} = {value}");
    }
    records(&lists).for_each(|record| text.push_str(&record));
    text
}

/// Whether a key is one of a record of a list: `LIST.0.KEY` or `SECTION.LIST.0.KEY`.
fn is_in_list(key: &str) -> bool {
    key.split('.').any(|step| step.parse::<u16>().is_ok())
}

/// The records of lists as tables, in the order of their numbers.
fn records(lists: &[(&String, &String)]) -> impl Iterator<Item = String> {
    let mut records: BTreeMap<(String, u16), String> = BTreeMap::new();
    for (key, value) in lists {
        let steps: Vec<&str> = key.split('.').collect();
        let [list @ .., index, name] = &steps[..] else { continue };
        let record = (list.join("."), index.parse().unwrap_or_default());
        let text = records.entry(record).or_insert_with_key(|(list, _)| format!("\n[[{list}]]\n"));
        let _ = writeln!(text, "{name} = {value}");
    }
    records.into_values()
}

fn decided(settings: &Settings) -> BTreeMap<String, String> {
    let defaults = settings.size.defaults();
    let mut values = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        values.insert(key.to_owned(), value);
    };
    let listen = |port| toml_text(&SocketAddr::new(*settings.spec.address, port).to_string());
    put("node.data_dir", toml_text(DATA_DIR));
    put("server.listen", listen(MCP_PORT));
    put("admin.listen", listen(ADMIN_PORT));
    // The names of the service follow from the pod's, which a variable holds.
    put("server.allowed_hosts", texts(&settings.hosts));
    if settings.spec.cert_manager.is_some() {
        put("server.tls_certificate_file", toml_text(&format!("{TLS_DIR}/tls.crt")));
        put("server.tls_key_file", toml_text(&format!("{TLS_DIR}/tls.key")));
    } else {
        put("server.tls_names", texts(&settings.hosts));
    }
    // The container's output is one log.
    put("log.format", toml_text("json"));
    if let Some(request) = defaults.request {
        put("server.request_bytes_max", size(request));
        // A document travels with what the protocol puts around it.
        put("ingest.source_bytes_max", size(ByteSize(request.0 - (2 << 20))));
    }
    if let Some(in_flight) = defaults.in_flight {
        put("server.in_flight_max", in_flight.to_string());
    }
    put("search.cache_bytes", size(defaults.cache));
    put("search.word_cache_bytes", size(ByteSize(defaults.cache.0 * 4)));
    put("store.max_bytes", size(log_bytes_max(settings.storage, settings.resources.memory.1)));
    if settings.spec.backup.claim.is_some() {
        put("snapshot.target", toml_text(SNAPSHOTS_DIR));
    } else if settings.configured("snapshot.target").is_none_or(str::is_empty) {
        put("snapshot.max_bytes", size(snapshot_bytes_max(settings.storage)));
    }
    if settings.spec.backup.secret.is_some() {
        put("snapshot.s3_access_key_file", toml_text(&format!("{BACKUP_KEY_DIR}/access-key")));
    }
    values
}

/// A value as TOML: numbers, truth values, lists and quoted texts as they are, everything else as a text.
pub(super) fn toml_value(text: &str) -> String {
    let is_quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    let is_bare = matches!(text, "true" | "false")
        || text.parse::<i64>().is_ok()
        || (text.starts_with('[') && text.ends_with(']'));
    if is_quoted || is_bare { text.to_owned() } else { toml_text(text) }
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value of a tree as TOML.
pub(super) fn toml_of(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => toml_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{} = {}", toml_text(key), toml_of(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Null => toml_text(""),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn size(size: ByteSize) -> String {
    toml_text(&format!("{}B", quantity(size)))
}

fn texts(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| toml_text(item)).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::k3s::{Assignment, Options};

    #[test]
    fn records_of_lists_are_tables_in_the_order_of_their_numbers() {
        let set = [
            "config.search.limit=9",
            "config.models.10.name=k",
            "config.models.1.name=b",
            "config.models.0.name=a",
            "config.models.0.dimensions=5",
            "config.gate.limits.0.rate=2",
            "config.issuers=[{url = \"https://a.example\"}]",
        ];
        let set = set.map(|text| text.parse::<Assignment>().expect("an assignment")).to_vec();
        let text = configuration(&Settings::new(&Options { set, ..Options::default() }).expect("valid"));
        assert!(text.contains("\nissuers = [{url = \"https://a.example\"}]\n"), "{text}");
        assert!(text.find("\nissuers = ") < text.find("\n["), "before every section: {text}");
        assert!(text.contains("\nlimit = 9\n"), "{text}");
        let records = "\n[[gate.limits]]\nrate = 2\n\n[[models]]\ndimensions = 5\nname = \"a\"\n\n[[models]]\nname = \"b\"\n\n[[models]]\nname = \"k\"\n";
        assert!(text.ends_with(records), "{text}");
    }
}
