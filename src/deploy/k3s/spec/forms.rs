//! The forms of texts: names, addresses, schedules, images.

use std::net::IpAddr;

/// What YAML 1.1 reads as something else than a text, and Kubernetes with it, though newer YAML does not and nobody would quote it.
pub(in crate::deploy::k3s) fn is_misread(text: &str) -> bool {
    let is_truth = ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word));
    is_truth || (text.contains('_') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_'))
}

/// Kubernetes' names of the processors that Cairn runs on, with commas between them, or `any`.
pub(super) fn is_list_of_architectures(text: &str) -> bool {
    text == "any" || text.split(',').all(|name| matches!(name, "amd64" | "arm64"))
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

/// A schedule of cron as Kubernetes takes it: five fields of numbers and `*`, `/`, `,`, `-`, each number one that there is, or
/// `@hourly` and the like.
pub(super) fn is_schedule(text: &str) -> bool {
    // Minute, hour, day of the month, month, day of the week.
    const RANGES: [(u8, u8); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u8>().ok())?;
    let is_part = |part: &str, (least, most): (u8, u8)| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let is_in = |value: u8| (least..=most).contains(&value);
        let is_range = range == "*"
            || match range.split_once('-') {
                None => number(range).is_some_and(is_in),
                Some((start, end)) => {
                    matches!((number(start), number(end)), (Some(start), Some(end)) if is_in(start) && is_in(end) && start <= end)
                }
            };
        is_range && step.is_none_or(|step| number(step).is_some_and(|step| step > 0))
    };
    let fields: Vec<&str> = text.split(' ').collect();
    (fields.len() == RANGES.len()
        && fields.iter().zip(RANGES).all(|(field, range)| field.split(',').all(|part| is_part(part, range))))
        || ["@hourly", "@daily", "@weekly", "@monthly", "@yearly"].contains(&text)
}

/// An image that is the same tomorrow: by its digest, or by a tag other than `latest`.
pub(super) fn is_pinned_image(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte));
    is_plain
        && match text.split_once('@') {
            Some((name, digest)) => {
                let hex = digest.strip_prefix("sha256:").unwrap_or_default();
                !name.is_empty() && hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            // A port has a path behind it.
            None => text.rsplit_once(':').is_some_and(|(name, tag)| {
                !name.is_empty() && !tag.is_empty() && !tag.contains('/') && tag != "latest"
            }),
        }
}

/// A folder within another one, without slashes around it.
pub(super) fn inside(text: &str) -> Option<String> {
    let path = text.trim_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./ ".contains(&byte);
    let is_good = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (is_good && path.bytes().all(is_plain)).then(|| path.to_owned())
}

/// What of a node an Ingress serves.
pub(super) fn is_ingress_path(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    text.starts_with('/') && text.bytes().all(is_plain)
}

/// Seconds or minutes as Prometheus writes them.
pub(super) fn is_interval(text: &str) -> bool {
    text.strip_suffix(['s', 'm']).is_some_and(|number| {
        let digits = number.trim_start_matches('0');
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The name of a collection, as a node takes it.
pub(super) fn is_collection(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_inner = |byte: u8| is_first(byte) || b"-_.".contains(&byte);
    text.len() <= 63 && text.bytes().next().is_some_and(is_first) && text.bytes().all(is_inner)
}

/// The name of a branch.
pub(super) fn is_branch(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    !text.starts_with('-') && text.bytes().all(is_inner)
}

/// A git repository over HTTP.
pub(super) fn is_git_url(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"'\"\\`$".contains(&byte);
    (text.starts_with("https://") || text.starts_with("http://")) && text.bytes().all(is_plain)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_that_a_cluster_takes() {
        for good in ["*/15 * * * *", "0 3 * * 0", "0,30 8-18/2 1 12 1-5", "5/10 * * * *", "@daily"] {
            assert!(is_schedule(good), "{good}");
        }
        for wrong in [
            "99 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "1,, * * * *",
            "- * * * *",
            "*/ * * * *",
            "* * * *",
            "* * * * * *",
            "@often",
            "300 * * * *",
            "",
        ] {
            assert!(!is_schedule(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_image_without_digest_or_tag_is_another_one_tomorrow() {
        let digest = format!("a.example/git@sha256:{}", "0f".repeat(32));
        for good in [digest.as_str(), "registry.example/git:2.50.1", "a.example:5000/git:1"] {
            assert!(is_pinned_image(good), "{good}");
        }
        for wrong in
            ["x", "a/git", "a.example:5000/git", "git:latest", "git@sha256:00", "git:", ":1", "git @1", &digest[..70]]
        {
            assert!(!is_pinned_image(wrong), "{wrong}");
        }
    }
}
