//! The hosts that a text names: `http://web:80`, `postgres://u:p@db/x`, `cache:6379,cache2:6379`, or a text that is a name and nothing
//! else.
//!
//! A text is only evidence of an order, so a word too many costs nothing but time. Time is linear in the text.

use std::collections::BTreeSet;

/// Adds the hosts of a text, in lower case.
pub(super) fn gather(text: &str, hosts: &mut BTreeSet<String>) {
    let is_in_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let is_whole = text.split([',', ';', ' ']).all(|word| word.bytes().all(is_in_host));
    let mut at = 0;
    while at < bytes.len() {
        if !is_in_host(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_in_host(bytes[at]) {
            at += 1;
        }
        // What a name and a password of a user follow: `//user:password@host`.
        let is_user = || {
            let authority = text[at..].split(|letter: char| letter == '/' || letter.is_whitespace()).next();
            authority.is_some_and(|rest| rest.contains('@'))
        };
        let is_after_scheme = text[..start].ends_with('@') || text[..start].ends_with("//") && !is_user();
        let has_port = bytes.get(at) == Some(&b':') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if is_whole || is_after_scheme || has_port {
            hosts.insert(text[start..at].trim_matches('.').to_ascii_lowercase());
        }
    }
}

/// Whether a host is a Service of this name, or a pod behind it.
pub(super) fn is_named(host: &str, name: &str) -> bool {
    let mut parts = host.split('.');
    let first = parts.next() == Some(name);
    first || parts.next() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_where_a_host_can_be() {
        for (text, expected) in [
            ("http://web:80/x", &["web"][..]),
            ("postgres://user:secret@db/app", &["db"]),
            ("cache:6379,cache2:6379", &["cache", "cache2"]),
            ("db", &["db"]),
            ("a b", &["a", "b"]),
            ("proxy_pass http://App.shop.svc;", &["app.shop.svc"]),
            ("see web for more: it is (there)", &[]),
            ("", &[]),
            ("ü//é@x", &["x"]),
        ] {
            let mut hosts = BTreeSet::new();
            gather(text, &mut hosts);
            assert_eq!(hosts.into_iter().collect::<Vec<_>>(), expected, "{text}");
        }
        assert!(is_named("web", "web") && is_named("web.shop.svc", "web") && is_named("web-1.web", "web"));
        assert!(!is_named("web2", "web") && !is_named("a.b.web", "web"));
    }
}
