//! The patterns and formats of text that the schemas have, and what messages call them.
//!
//! Invariants: each pattern and each format of both schemas is here, which a test demands; an unknown one lets any text through.

use std::net::IpAddr;

/// What a text has to be.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// Whether a text is so.
    pub accepts: fn(&str) -> bool,
    /// For "expected …".
    pub expected: &'static str,
}

/// A `pattern` of a value, or one of keys (`patternProperties`). A regular expression of Go's; without `^` it may match anywhere.
pub(super) fn pattern(pattern: &str) -> Option<Format> {
    let format = |accepts, expected| Some(Format { accepts, expected });
    match pattern {
        "^x-" => format(|text| text.starts_with("x-"), "a name that begins with `x-`"),
        "^[a-zA-Z0-9._-]+$" => format(
            |text| !text.is_empty() && text.bytes().all(|byte| is_word(byte) || byte == b'.'),
            "a name of letters, digits, `.`, `_` and `-`",
        ),
        "^[a-z]+$" => format(
            |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase()),
            "a name of small letters",
        ),
        "^.+$" => format(|text| !text.is_empty() && !text.contains('\n'), "a name on one line"),
        ".+" => format(|text| text.chars().any(|letter| letter != '\n'), "a name"),
        "[a-zA-Z0-9][a-zA-Z0-9_.-]+" => format(
            |text| {
                let pairs = text.as_bytes().windows(2);
                pairs.into_iter().any(|pair| pair[0].is_ascii_alphanumeric() && (is_word(pair[1]) || pair[1] == b'.'))
            },
            "at least two letters or digits",
        ),
        "^(always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+)$" => format(
            is_pull_policy,
            "`always`, `never`, `missing`, `build`, `daily`, `weekly` or a time such as `every_12h`",
        ),
        _ => None,
    }
}

/// A `format`, as docker/cli checks it. `expose` has a name there, and nothing checks it.
pub(super) fn format(name: &str) -> Option<Format> {
    match name {
        "duration" => Some(Format { accepts: is_duration, expected: "a time such as `90s` or `1m30s`" }),
        "ports" => Some(Format {
            accepts: is_port,
            expected: "ports such as `80`, `8080:80`, `127.0.0.1:8080:80/udp` or `8000-8010:80-90`",
        }),
        "expose" => Some(Format { accepts: |_| true, expected: "a port" }),
        _ => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_pull_policy(text: &str) -> bool {
    let fixed = ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let Some(mut times) = text.strip_prefix("every_") else { return fixed.contains(&text) };
    if times.is_empty() {
        return false;
    }
    while !times.is_empty() {
        let rest = times.trim_start_matches(|letter: char| letter.is_ascii_digit());
        if rest.len() == times.len() || !rest.starts_with(['w', 'd', 'h', 'm', 's']) {
            return false;
        }
        times = &rest[1..];
    }
    true
}

/// Go's `time.ParseDuration`: a sign, then numbers with units, or a zero alone; at most 2^63 nanoseconds.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut total = 0.0;
    loop {
        let unit = rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let number = &rest[..rest.len() - unit.len()];
        // A number may lack its whole part or its fraction, but not both.
        let has_digit = number.bytes().any(|byte| byte.is_ascii_digit());
        if !has_digit || number.matches('.').count() > 1 {
            return false;
        }
        rest = unit.trim_start_matches(|letter: char| letter != '.' && !letter.is_ascii_digit());
        let nanoseconds = match &unit[..unit.len() - rest.len()] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return false,
        };
        total += number.parse::<f64>().unwrap_or(f64::INFINITY) * nanoseconds;
        if rest.is_empty() {
            return total <= 9_223_372_036_854_775_807.0;
        }
    }
}

/// `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`, where both ports may be ranges (go-connections 0.8, `nat.ParsePortSpec`).
fn is_port(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split(':').collect();
    let container = parts.pop().unwrap_or_default();
    let host = parts.pop().unwrap_or_default();
    let address = parts.join(":");
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if !["", "tcp", "udp", "sctp"].contains(&protocol.to_lowercase().as_str()) {
        return false;
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return false;
    }
    let Some((first, last)) = range(container) else { return false };
    match range(host) {
        Some((host_first, host_last)) => first == last || last - first == host_last - host_first,
        None => host.is_empty(),
    }
}

/// A port, or two with a dash.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted<'a>(format: Format, texts: &[&'a str]) -> Vec<&'a str> {
        texts.iter().copied().filter(|text| (format.accepts)(text)).collect()
    }

    /// By the documentation of Go's `time.ParseDuration`.
    #[test]
    fn durations_are_those_of_go() {
        let good = ["0", "+0", "10s", "-1.5h", "1h45m", "300ms", ".5s", "5.s", "1us", "1µs", "2562047h47m16s"];
        let bad = ["", "10", "10 s", "s", ".s", "1.2.3s", "1d", "10S", "1h30", "2562048h", "--1s"];
        let format = format("duration").expect("known");
        assert_eq!(accepted(format, &good), good);
        assert!(accepted(format, &bad).is_empty());
    }

    /// By the tests of go-connections, `nat/nat_test.go`.
    #[test]
    fn ports_are_those_of_docker() {
        let good = [
            "80",
            "8080:80",
            "80/udp",
            "80/TCP",
            "127.0.0.1:8080:80",
            "127.0.0.1::80",
            "[::1]:8080:80",
            "::1:8080:80",
            "8000-8010:9000-9010",
            "8000-9000:80",
            "3000-3005",
            ":80",
            "0",
        ];
        let bad = [
            "",
            "/tcp",
            "80/http",
            "a",
            "80:a",
            "65536",
            "80-70",
            "1-2:1-3",
            "localhost:80:80",
            "1.2.3:80:80",
            "-80",
            "80:",
        ];
        let format = format("ports").expect("known");
        assert_eq!(accepted(format, &good), good);
        assert!(accepted(format, &bad).is_empty(), "{:?}", accepted(format, &bad));
    }
}
