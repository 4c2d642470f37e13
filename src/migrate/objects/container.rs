//! What runs in a container: its command, its variables, and what the file says of its terminal.
//!
//! Invariants: a command or a value comes to the program letter by letter, but for names that have to change, which are reported. No value
//! of a variable is in the report.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};

use super::text::{Downward, HostNames, Identity, Scope, protected};
use super::{Context, Holder};
use crate::migrate::leaf::Leaf;
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{Service, Words};

/// Words in the names of variables whose values are secrets.
const SECRET_WORDS: &[&str] = &[
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "PASS",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PRIVATE",
    "PWD",
    "SECRET",
    "TOKEN",
];
/// Words before `KEY` that make it one that is not secret.
const PLAIN_KEYS: &[&str] = &["PUBLIC", "PRIMARY", "PARTITION", "SORT", "CACHE", "HOST"];

/// The variables and the command of a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Program {
    /// In place of the image's entry point.
    pub command: Option<Vec<String>>,
    /// Its arguments.
    pub args: Option<Vec<String>>,
    /// Variables; those that others refer to come first.
    pub env: Vec<EnvVar>,
    /// Values that belong into a Secret of the service, by the name of the variable.
    pub secret: BTreeMap<String, Vec<u8>>,
}

/// What the texts of one service need.
pub struct Texts<'a> {
    /// What placeholders come to.
    pub scope: Scope<'a>,
    /// Names that have to change.
    pub host_names: &'a HostNames,
    /// The pod, for the report.
    pub holder: &'a Holder,
    /// The name of the Secret for values of variables.
    pub secret: &'a str,
}

impl Texts<'_> {
    /// The command and the variables of a service.
    ///
    /// * `needed`: variables of the pod that something else refers to.
    pub fn program(
        &self,
        service: &Service,
        context: &Context<'_>,
        needed: BTreeSet<Downward>,
        ledger: &mut Ledger,
    ) -> Program {
        let mut result = Program {
            command: self.words(service.entrypoint.as_ref(), "command", ledger),
            args: self.words(service.command.as_ref(), "args", ledger),
            ..Program::default()
        };
        self.environment(service, context, needed, &mut result, ledger);
        result
    }

    /// Words of a command. Swarm expands no placeholders in them.
    fn words(&self, words: Option<&Words>, field: &str, ledger: &mut Ledger) -> Option<Vec<String>> {
        let words = words?;
        if let Some(leaf) = words.empty {
            ledger.agrees(leaf, "nothing in place of the image's own");
        }
        let mut result = Vec::new();
        for (place, word) in words.words.iter().enumerate() {
            let target = self.holder.container(&format!("{field}[{place}]"));
            result.push(protected(&self.renamed(&word.value, None, word.leaf, target, ledger)));
        }
        (!result.is_empty()).then_some(result)
    }

    /// A text with the names that resolve in the cluster.
    pub fn renamed(
        &self,
        text: &str,
        variable: Option<&str>,
        leaf: Leaf,
        target: Target,
        ledger: &mut Ledger,
    ) -> String {
        match self.host_names.rewrite(text, variable) {
            Some((text, changes)) => {
                let reason = format!("names that the cluster resolves: {}", changes.join(", "));
                ledger.approximated(leaf, target, reason);
                text
            }
            None => {
                ledger.converted(leaf, target);
                text.to_owned()
            }
        }
    }

    fn environment(
        &self,
        service: &Service,
        context: &Context<'_>,
        mut needed: BTreeSet<Downward>,
        result: &mut Program,
        ledger: &mut Ledger,
    ) {
        let mut variables = Vec::new();
        for variable in &service.environment {
            let target = self.holder.container(&format!("env[name={}].value", variable.name));
            let Some(value) = &variable.value else {
                let reason = format!(
                    "{} has the value of the shell that deploys; write it into the file of --env-file",
                    variable.name
                );
                ledger.needs_input(variable.leaf, reason);
                continue;
            };
            if !is_variable_name(&variable.name) {
                let reason = format!("Kubernetes takes no variable of the name {:?}", variable.name);
                ledger.dropped(variable.leaf, reason);
                continue;
            }
            let names_network = network_in(value, context);
            let is_secret = looks_secret(&variable.name, value);
            let value = self.renamed(value, Some(&variable.name), variable.leaf, target.clone(), ledger);
            if let Some(reason) = names_network {
                ledger.mark(variable.leaf, Outcome::NeedsInput, reason, None);
            }
            let expanded = self.scope.expand(&value);
            for (outcome, note) in &expanded.notes {
                ledger.mark(variable.leaf, *outcome, note.clone(), Some(target.clone()));
            }
            let mut object = EnvVar { name: variable.name.clone(), ..EnvVar::default() };
            if is_secret
                && context.options.moves_passwords
                && expanded.is_static()
                && value.contains("{{") == expanded.text.contains("{{")
            {
                // A Secret is not expanded, so the value is as it was.
                result.secret.insert(variable.name.clone(), value.into_bytes());
                let selector =
                    SecretKeySelector { name: self.secret.to_owned(), key: variable.name.clone(), optional: None };
                object.value_from = Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() });
                let field = format!("data.{}", variable.name);
                ledger.converted(variable.leaf, Target::new(format!("Secret/{}", self.secret), field));
            } else {
                if is_secret {
                    let reason = format!(
                        "{} looks like a password in a plain variable; --move-passwords puts it into a Secret",
                        variable.name
                    );
                    ledger.mark(variable.leaf, Outcome::Converted, reason, None);
                }
                object.value = Some(expanded.text);
                needed.extend(expanded.needs);
            }
            variables.push(object);
        }
        for downward in &needed {
            let target = self.holder.container(&format!("env[name={}]", downward.name()));
            ledger.added(target, "what only the pod knows, for the placeholders that refer to it");
        }
        result.env = needed.into_iter().map(Downward::variable).chain(variables).collect();
    }
}

/// Why a value that names a network card or an address of a network means something else in a cluster.
fn network_in(value: &str, context: &Context<'_>) -> Option<String> {
    let mut words = value.split(|letter: char| !letter.is_ascii_alphanumeric());
    let card = words.find(|word| {
        word.strip_prefix("eth").is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number > 0))
    });
    if let Some(card) = card {
        return Some(format!("a pod has one network card, eth0: decide what replaces {card}"));
    }
    let mut subnets = context.stack.networks.iter().flat_map(|network| &network.subnets);
    let subnet = subnets.find(|subnet| subnet.len() > 2 && value.contains(subnet.as_str()))?;
    Some(format!("{subnet} is an address of the stack's network; a cluster chooses its own, and they change"))
}

/// How the pods of a service differ, by the kind of its workload.
pub fn identity(is_numbered: bool, is_per_node: bool, is_job: bool, replicas: u64) -> Identity {
    match (is_numbered, is_per_node, replicas) {
        (true, _, _) => Identity::Numbered,
        (_, true, _) => Identity::Node,
        (_, _, 0 | 1) if !is_job => Identity::Single,
        (_, _, 1) => Identity::Single,
        _ => Identity::None,
    }
}

/// Whether Kubernetes takes it: printable ASCII but `=` (since 1.34; before, letters, digits, `_`, `-` and `.`, not a digit first).
fn is_variable_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.bytes().all(is_inner) && !name.as_bytes()[0].is_ascii_digit()
}

/// Whether the value of a variable looks like a secret, by the name of the variable or by a password in it.
#[must_use]
pub fn looks_secret(name: &str, value: &str) -> bool {
    !value.is_empty() && (is_secret_name(name) || has_password(value))
}

/// Whether the name of a variable says that its value is a secret, and not the name of a file that has it.
fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['_', '-', '.']).collect();
    if matches!(words.last(), Some(&("FILE" | "PATH" | "NAME" | "ID" | "URL" | "LENGTH" | "TTL" | "EXPIRY"))) {
        return false;
    }
    words.iter().enumerate().any(|(place, word)| {
        let is_plain_key = *word == "KEY" && (words.len() == 1 || place > 0 && PLAIN_KEYS.contains(&words[place - 1]));
        SECRET_WORDS.contains(word) && !is_plain_key
    })
}

/// Whether a value is a URL with a password in it.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_from_what_is_like_them() {
        for name in ["POSTGRES_PASSWORD", "api_key", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PWD", "MYSQL_PASS"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["POSTGRES_PASSWORD_FILE", "PUBLIC_KEY", "KEY", "PASSIVE", "TOKENIZER", "KEYBOARD", "SECRET_NAME", "PATH"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(has_password("postgres://u:p@db/x") && has_password("redis://:p@r:1"));
        for value in ["postgres://u@db/x", "http://a:80/x@y:z", "u:p@db", "http://a/?to=u:p@b"] {
            assert!(!has_password(value), "{value}");
        }
    }
}
