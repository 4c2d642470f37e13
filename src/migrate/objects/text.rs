//! Texts of a stack as Kubernetes has to be given them: what it would expand is protected, what Swarm expands is expanded, and names that
//! Docker's DNS answers are those that the cluster's answers.
//!
//! Invariants: a text comes to the program as it did in Swarm, letter by letter, but for what is reported. Time is linear in the text.

mod placeholders;
mod references;

pub(super) use self::placeholders::{Downward, Identity, Scope, has_slot};
pub use self::references::HostNames;
pub(super) use self::references::{hosts, hosts_with_ports, is_host_variable};

/// Writes a text so that Kubernetes' expansion of `$(NAME)` in `command`, `args` and `env` gives the text back.
///
/// Kubernetes reads `$$` as `$`, and `$(`, with a `)` anywhere behind it, as a variable; any other `$` stays
/// (`third_party/forked/golang/expansion`).
#[must_use]
pub fn protected(text: &str) -> String {
    let last_closed = text.rfind(')').unwrap_or(0);
    let mut result = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        result.push(letter);
        if letter != '$' {
            continue;
        }
        match text.as_bytes().get(at + 1) {
            Some(b'$') => result.push('$'),
            Some(b'(') if last_closed > at => result.push('$'),
            _ => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kubelet makes of a text, with every variable replaced by `<NAME>`.
    fn expanded_by_kubernetes(text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(behind) = after.strip_prefix('$') {
                result.push('$');
                rest = behind;
            } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                result.push_str(&format!("<{name}>"));
                rest = behind;
            } else {
                result.push('$');
                rest = after;
            }
        }
        result + rest
    }

    #[test]
    fn only_what_kubernetes_expands_is_protected() {
        assert_eq!(protected("echo '$v' ${Z:+y}"), "echo '$v' ${Z:+y}");
        assert_eq!(protected("echo $(HOSTNAME) $(x"), "echo $$(HOSTNAME) $(x");
        assert_eq!(protected("kill $$ $"), "kill $$$ $");
        assert_eq!(expanded_by_kubernetes("$(A) $$(A)"), "<A> $(A)");
    }

    proptest! {
        #[test]
        fn kubernetes_gives_every_text_back(text in "[$()a{}\n ]{0,40}") {
            prop_assert_eq!(expanded_by_kubernetes(&protected(&text)), text);
        }
    }
}
