//! Names of images: `host/path:tag`.

use std::fmt;
use std::str::FromStr;

use super::super::sha256::Sha256;
use super::REPOSITORY;

/// The name of an image with its host and its tag, such as `cairn.local/cairn:0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    repository: String,
    tag: String,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no host, so that another program would put a public registry's before it.
    #[error(
        "'{0}' has no host; begin it with a name that has a dot or a port, for example {REPOSITORY}: \
         container programs take other names for those of a public registry"
    )]
    Host(String),
    /// A digest cannot be chosen.
    #[error("'{0}' has a digest, which follows from the image; leave it out")]
    Digest(String),
    /// A character or a length that names do not have.
    #[error("'{0}' is not an image name; expected host/path:tag in lower case, for example {REPOSITORY}:1.0")]
    Form(String),
}

impl Reference {
    /// The name of this release's own image.
    #[must_use]
    pub fn this_release() -> Self {
        Self { repository: REPOSITORY.to_owned(), tag: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// The name of this release's own image for GPUs, which may exist next to the other one.
    #[must_use]
    pub fn this_release_for_gpus() -> Self {
        Self { tag: format!("{}-gpu", env!("CARGO_PKG_VERSION")), ..Self::this_release() }
    }

    /// Host and path.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What follows the colon.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The same repository with a digest in place of the tag.
    #[must_use]
    pub fn pinned(&self, digest: Sha256) -> String {
        format!("{}@sha256:{digest}", self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads `host/path:tag`; without a tag it is this release's version.
    ///
    /// Source: the grammar of distribution/reference.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let form = || ReferenceError::Form(text.to_owned());
        if text.contains('@') {
            return Err(ReferenceError::Digest(text.to_owned()));
        }
        let (repository, tag) = match text.rsplit_once(':') {
            // A colon before a slash is that of a port.
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, env!("CARGO_PKG_VERSION")),
        };
        let Some((host, path)) = repository.split_once('/') else {
            return Err(ReferenceError::Host(text.to_owned()));
        };
        let (name, port) = match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        };
        if port.is_none() && !name.contains('.') && name != "localhost" {
            return Err(ReferenceError::Host(text.to_owned()));
        }
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if is_port && is_host(name) && is_path(path) && is_tag(tag) && repository.len() <= 255 {
            return Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() });
        }
        Err(form())
    }
}

/// Whether a text is a host of a registry, in lower case and without its port.
pub(crate) fn is_host(text: &str) -> bool {
    text.split('.').all(|label| is_part(label, "-"))
}

/// Whether a text is what follows the host: names with `/` between them.
pub(crate) fn is_path(text: &str) -> bool {
    text.split('/').all(|part| is_part(part, "._-"))
}

/// Whether a text is a tag: at most 128 letters, digits, `_`, `.` and `-`, of which the last two do not begin it.
pub(crate) fn is_tag(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
        && text.len() <= 128
}

/// Lower-case letters and digits, with single separators (dashes: any number, underscores: one or two) between them.
fn is_part(part: &str, separators: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    part.starts_with(is_letter)
        && part.ends_with(is_letter)
        && part.chars().all(|letter| is_letter(letter) || separators.contains(letter))
        && part
            .split(is_letter)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (text, repository, tag) in [
            ("cairn.local/cairn", "cairn.local/cairn", env!("CARGO_PKG_VERSION")),
            ("registry.example:5000/edge/cairn:1.0-rc_1", "registry.example:5000/edge/cairn", "1.0-rc_1"),
            ("localhost/cairn:latest", "localhost/cairn", "latest"),
            ("a.b/c--d/e__f/g.h:V2", "a.b/c--d/e__f/g.h", "V2"),
        ] {
            let name: Reference = text.parse().expect(text);
            assert_eq!((name.repository(), name.tag()), (repository, tag));
        }
    }

    #[test]
    fn names_that_others_read_otherwise_are_refused() {
        for text in ["cairn", "cairn:1.0", "library/cairn:1.0"] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Host(_))), "{text}");
        }
        assert!(matches!("a.b/c@sha256:00".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        let long = format!("a.b/{}", "x".repeat(300));
        for text in
            ["a.b/", "a.b/C", "a.b/c:", "a.b/c:-x", "a.b/c d", "a.b/c...d", "a.b/c___d", "a..b/c", "a.b:x/c", &long]
        {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Form(_))), "{text}");
        }
    }
}
