//! Names of images as Docker reads them: `nginx` is `docker.io/library/nginx:latest`.
//!
//! Source: the Go module `github.com/distribution/reference`, version 0.6: its grammar, and the rules of `ParseNormalizedNamed` and
//! `TagNameOnly`.

use std::fmt;

use crate::deploy::oci::{is_host, is_path, is_tag};

/// The registry of names without a host.
const HUB: &str = "docker.io";
/// Its name in old files.
const OLD_HUB: &str = "index.docker.io";
/// The folder of names without one, on that registry.
const LIBRARY: &str = "library/";
/// Most bytes of the host and the path together.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Fewest hex digits of a digest.
const DIGITS_MIN: usize = 32;

/// The whole name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ImageName {
    /// Host and path.
    pub(super) repository: String,
    /// There is one, or a digest, or both.
    pub(super) tag: Option<String>,
    /// With the algorithm before it.
    pub(super) digest: Option<String>,
}

impl ImageName {
    /// `None` when the text is not a name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (repository, tag) = match named.rsplit_once(':') {
            // A colon before a slash is that of a port.
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (named, None),
        };
        let (host, path) = match repository.split_once('/') {
            Some((first, rest))
                if first == "localhost" || first.contains(['.', ':']) || first.contains(char::is_uppercase) =>
            {
                (first, rest)
            }
            _ => (HUB, repository),
        };
        let host = if host == OLD_HUB { HUB } else { host };
        let folder = if host == HUB && !path.contains('/') { LIBRARY } else { "" };
        let repository = format!("{host}/{folder}{path}");
        let is_valid = is_host_with_port(host)
            && is_path(path)
            && repository.len() <= REPOSITORY_BYTES_MAX
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
        is_valid.then(|| Self { repository, tag, digest: digest.map(str::to_owned) })
    }

    /// The name without its digest, where it has a tag.
    pub(super) fn tagged(&self) -> Option<Self> {
        self.tag.as_ref()?;
        Some(Self { digest: None, ..self.clone() })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

fn is_host_with_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_address = || {
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
    };
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()))
        && (is_host(&host.to_ascii_lowercase()) || is_address())
}

/// Whether a text is a digest: an algorithm, a colon, and hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    let is_digit = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        let length = match algorithm {
            "sha256" => digits.len() == 64,
            "sha512" => digits.len() == 128,
            _ => digits.len() >= DIGITS_MIN,
        };
        let mut parts = algorithm.split(['+', '.', '_', '-']);
        length
            && digits.bytes().all(is_digit)
            && parts.all(|part| {
                part.starts_with(|letter: char| letter.is_ascii_alphabetic())
                    && part.bytes().all(|letter| letter.is_ascii_alphanumeric())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// Expected values from `reference.ParseNormalizedNamed` and `reference.TagNameOnly` of distribution/reference 0.6.0.
    #[test]
    fn a_name_is_completed_as_docker_does() {
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.25", "docker.io/library/nginx:1.25".to_owned()),
            ("grafana/loki", "docker.io/grafana/loki:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("localhost:5000/x", "localhost:5000/x:latest".to_owned()),
            ("ghcr.io/a/b/c:V_1", "ghcr.io/a/b/c:V_1".to_owned()),
            ("registry/x:2", "docker.io/registry/x:2".to_owned()),
            ("a__b", "docker.io/library/a__b:latest".to_owned()),
            ("a:5000", "docker.io/library/a:5000".to_owned()),
            ("127.0.0.1/x", "127.0.0.1/x:latest".to_owned()),
            ("UPPER.io/a:1", "UPPER.io/a:1".to_owned()),
            ("REGISTRY/x:2", "REGISTRY/x:2".to_owned()),
            ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest".to_owned()),
            (&format!("nginx@{DIGEST}"), format!("docker.io/library/nginx@{DIGEST}")),
            (&format!("nginx:1.25@{DIGEST}"), format!("docker.io/library/nginx:1.25@{DIGEST}")),
        ] {
            assert_eq!(ImageName::parse(text).expect(text).to_string(), whole, "{text}");
        }
    }

    #[test]
    fn what_docker_refuses_is_not_a_name() {
        for text in [
            "",
            "Nginx",
            "a/B",
            "nginx:",
            "nginx:-1",
            "a b",
            "a//b",
            "nginx@sha256:12",
            "nginx@",
            "nginx@x",
            "/a",
            "a/",
            "a:b:c",
            "a.b:x/c",
            "a.b:/c",
            "a./b",
            "-a/b",
            "a\n",
            "../a",
        ] {
            assert_eq!(ImageName::parse(text), None, "{text}");
        }
        assert_eq!(ImageName::parse(&format!("a/{}", "x".repeat(300))), None);
    }
}
