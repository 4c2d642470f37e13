//! The forms of texts: names, addresses, TOML.

use std::net::IpAddr;

/// A value as TOML: numbers, truth values, lists and quoted texts as they are, everything else as a text.
pub(super) fn toml_value(text: &str) -> String {
    let is_quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    let is_bare = matches!(text, "true" | "false")
        || text.parse::<i64>().is_ok()
        || (text.starts_with('[') && text.ends_with(']'));
    if is_quoted || is_bare { text.to_owned() } else { toml_text(text) }
}

/// A text as TOML writes it.
pub(in super::super) fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What YAML 1.1 reads as something else than a text, and Kubernetes with it, though newer YAML does not and nobody would quote it.
pub(super) fn is_misread(text: &str) -> bool {
    let is_truth = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    is_truth || (text.contains('_') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_'))
}

/// A DNS subdomain, which names of objects, classes and hosts are.
pub(super) fn is_object_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// What a device plugin calls what it offers: a name below a domain.
pub(super) fn is_resource(text: &str) -> bool {
    let is_name = |name: &str| {
        let is_edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
        let is_inner = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        (1..=63).contains(&name.len())
            && is_edge(name.chars().next())
            && is_edge(name.chars().next_back())
            && name.chars().all(is_inner)
    };
    text.split_once('/').is_some_and(|(domain, name)| domain.contains('.') && is_object_name(domain) && is_name(name))
}

/// The key of a label or an annotation: a name, or one below a domain.
pub(super) fn is_key(text: &str) -> bool {
    let is_name = |name: &str| {
        let is_edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
        (1..=63).contains(&name.len())
            && is_edge(name.chars().next())
            && is_edge(name.chars().next_back())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    match text.split_once('/') {
        Some((domain, name)) => is_object_name(domain) && is_name(name),
        None => is_name(text),
    }
}

/// The value of a label.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || (!text.contains('/') && is_key(text))
}

/// The name of a variable.
pub(super) fn is_variable(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A schedule of cron: five fields of digits and `*`, `/`, `,`, `-`, or `@hourly` and the like.
pub(super) fn is_schedule(text: &str) -> bool {
    let is_field = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit() || b"*/,-".contains(&byte));
    let fields: Vec<&str> = text.split(' ').collect();
    (fields.len() == 5 && fields.iter().all(|field| !field.is_empty() && is_field(field)))
        || ["@hourly", "@daily", "@weekly", "@monthly", "@yearly"].contains(&text)
}

/// A name or an address.
pub(super) fn is_host(text: &str) -> bool {
    is_object_name(text) || text.parse::<IpAddr>().is_ok()
}

/// An address and how many of its bits count.
pub(super) fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    })
}
