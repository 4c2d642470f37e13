//! Names of services in texts: `http://a_b:80`, `tasks.web:9000`, `redis://:secret@STACK_redis`.
//!
//! Invariants: only the host part of a reference is changed; a mere value that happens to be a service's name is not.

use std::collections::BTreeMap;

/// Words at the end of a variable's name that say that its value is one host or several.
const HOST_WORDS: &[&str] = &[
    "ADDR",
    "ADDRESS",
    "ADDRESSES",
    "BROKER",
    "BROKERS",
    "ENDPOINT",
    "ENDPOINTS",
    "HOST",
    "HOSTNAME",
    "HOSTS",
    "MASTER",
    "NODE",
    "NODES",
    "PEER",
    "PEERS",
    "SEEDS",
    "SERVER",
    "SERVERS",
    "UPSTREAM",
    "URI",
    "URL",
];

/// Names that Docker's DNS answers and the cluster's does not, with those that it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNames(BTreeMap<String, String>);

impl HostNames {
    /// Adds a name; the first of the same name stays.
    ///
    /// * `name`: in Docker's DNS, which does not mind the case.
    /// * `resolved`: in the cluster's.
    pub fn add(&mut self, name: &str, resolved: &str) {
        if !name.eq_ignore_ascii_case(resolved) {
            self.0.entry(name.to_ascii_lowercase()).or_insert_with(|| resolved.to_owned());
        }
    }

    /// Whether every name resolves as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names that do not resolve as they are, with those that do.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, resolved)| (name.as_str(), resolved.as_str()))
    }

    fn resolved(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// Replaces the names in the host parts of a text; `None` where there are none.
    ///
    /// * `variable`: the name of the variable that has the text, where one has it: that of `DB_HOST` is a host without a port, too.
    ///
    /// Returns the text, and each replacement as `a_b → a-b`.
    #[must_use]
    pub fn rewrite(&self, text: &str, variable: Option<&str>) -> Option<(String, Vec<String>)> {
        if self.0.is_empty() {
            return None;
        }
        let is_host_list =
            variable.is_some_and(is_host_variable) && !text.contains("://") && text.bytes().all(is_in_list);
        let (mut result, mut changes) = (String::with_capacity(text.len()), Vec::new());
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = at + bytes[at..].iter().take_while(|byte| is_in_host(**byte)).count();
            if end == at {
                // Not part of a name: copied with what follows of the same letter.
                let width = text[at..].chars().next().map_or(1, char::len_utf8);
                result.push_str(&text[at..at + width]);
                at += width;
                continue;
            }
            let name = &text[at..end];
            let (bare, dot) = name.strip_suffix('.').map_or((name, ""), |bare| (bare, "."));
            match self.resolved(bare) {
                Some(resolved) if is_host_list || is_host(text, at, end) => {
                    result.push_str(resolved);
                    result.push_str(dot);
                    let change = format!("{bare} → {resolved}");
                    if !changes.contains(&change) {
                        changes.push(change);
                    }
                }
                _ => result.push_str(name),
            }
            at = end;
        }
        (!changes.is_empty()).then_some((result, changes))
    }
}

/// The hosts with ports in a text, as in `http://web:80` and `db:5432`.
pub fn hosts_with_ports(text: &str) -> Vec<(&str, u16)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(':') {
        let host = &text[..at];
        let start = host.bytes().rev().take_while(|byte| is_in_host(*byte)).count();
        let digits = text.as_bytes()[at + 1..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        let port = text[at + 1..at + 1 + digits].parse::<u16>();
        if let (1.., Ok(port @ 1..)) = (start, port)
            && is_host(text, at - start, at)
        {
            found.push((&host[at - start..], port));
        }
    }
    found
}

fn is_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// What a list of hosts consists of, such as `a_1:80, a_2:80`.
fn is_in_list(byte: u8) -> bool {
    is_in_host(byte) || matches!(byte, b':' | b',' | b';' | b' ')
}

/// The hosts of the references in a text.
pub fn hosts(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| is_in_host(**byte)).count();
        if length > 0 && is_host(text, at, at + length) {
            found.push(&text[at..at + length]);
        }
        at += length.max(1);
    }
    found
}

/// Whether the name of a variable says that its value is a host.
pub fn is_host_variable(variable: &str) -> bool {
    let last = variable.rsplit(['_', '-', '.']).next().unwrap_or(variable);
    HOST_WORDS.iter().any(|word| last.eq_ignore_ascii_case(word))
}

/// Whether a name is the host of a reference: after `://` or `@`, or before `:` and digits that are a port's.
fn is_host(text: &str, start: usize, end: usize) -> bool {
    let (before, after) = (&text[..start], &text[end..]);
    if before.ends_with("://") {
        // What is before an `@` is the name of a user.
        return !after.split(['/', '?', '#', ' ', ',']).next().is_some_and(|authority| authority.contains('@'));
    }
    if before.ends_with('@') {
        return true;
    }
    let Some(port) = after.strip_prefix(':') else { return false };
    let digits = port.bytes().take_while(u8::is_ascii_digit).count();
    let is_port =
        (1..=5).contains(&digits) && port.as_bytes().get(digits).is_none_or(|next| !is_in_host(*next) && *next != b'@');
    // A path before the name makes it the tag of an image or part of a file's name.
    is_port && !before.ends_with(['/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, variable: Option<&str>) -> String {
        let mut names = HostNames::default();
        for (name, resolved) in [
            ("a_b", "a-b"),
            ("shop_db", "db"),
            ("tasks.web", "web-tasks"),
            ("db", "db"),
            ("traefik.internal", "traefik"),
        ] {
            names.add(name, resolved);
        }
        names.rewrite(text, variable).map_or_else(|| text.to_owned(), |(text, _)| text)
    }

    #[test]
    fn hosts_of_references_are_replaced() {
        for (text, expected) in [
            ("http://a_b/x", "http://a-b/x"),
            ("http://A_B:80/x?to=a_b", "http://a-b:80/x?to=a_b"),
            ("a_b:5432", "a-b:5432"),
            ("redis://:pa_ss@a_b/0", "redis://:pa_ss@a-b/0"),
            ("postgres://a_b:pw@shop_db:5432/a_b", "postgres://a_b:pw@db:5432/a_b"),
            ("tcp://tasks.web:80,tcp://shop_db:80", "tcp://web-tasks:80,tcp://db:80"),
            ("--upstream=a_b:80 --name a_b", "--upstream=a-b:80 --name a_b"),
            ("http://traefik.internal./", "http://traefik./"),
            ("größe a_b:80", "größe a-b:80"),
        ] {
            assert_eq!(rewritten(text, None), expected);
        }
    }

    #[test]
    fn ports_are_found_with_their_hosts() {
        assert_eq!(
            hosts_with_ports("http://web:80/a:b,db:5432 u:1@x y:99999 z:080: é:1 r/i:5"),
            [("web", 80), ("db", 5432), ("z", 80)]
        );
        assert!(hosts_with_ports(&":a".repeat(1 << 18)).is_empty());
    }

    #[test]
    fn mere_values_stay() {
        for text in
            ["a_b", "SERVICE=a_b", "my_a_b:80", "a_b:latest", "r/a_b:80", "a_b:80x", "a_b: 80", "db:80", "a_b_c:80"]
        {
            assert_eq!(rewritten(text, Some("SERVICE_NAME")), text);
        }
    }

    #[test]
    fn variables_for_hosts_have_hosts() {
        assert_eq!(rewritten("a_b", Some("DB_HOST")), "a-b");
        assert_eq!(rewritten("a_b, shop_db:80", Some("peers")), "a-b, db:80");
        assert_eq!(rewritten("a_b is up", Some("MESSAGE_HOST")), "a-b is up");
        assert_eq!(rewritten("a_b", Some("GHOST")), "a_b");
    }
}
