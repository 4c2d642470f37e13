//! What is in a bundle: the list that the signature covers.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::executable::Architecture;
use super::super::sha256::Sha256;
use crate::base::{Digest, UnixMillis};

/// The newest version of the format that this release reads. It writes the oldest that can say what is in the bundle.
pub const FORMAT: u32 = 2;
/// The version with one executable.
const FORMAT_OF_ONE: u32 = 1;
/// The only path of the settings.
pub(super) const CONFIGURATION: &str = "configuration/cairn.toml";
const PATH_BYTES_MAX: usize = 1_024;
const NAME_BYTES_MAX: usize = 255;
/// Endings of image archives that K3s imports.
pub(super) const IMAGE_ENDINGS: &[&str] =
    &[".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// The settings of the node.
    Configuration,
    /// Documents that the node gets, a folder each collection.
    Documents,
    /// The program.
    Executable,
    /// Images of other servers.
    Image,
    /// Models in addition to the built-in one.
    Model,
}

impl MemberRole {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Configuration, Self::Documents, Self::Executable, Self::Image, Self::Model];

    /// The folder of its members.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Documents => "documents",
            Self::Executable => "executable",
            Self::Image => "images",
            Self::Model => "models",
        }
    }

    /// Permissions of its members.
    pub(super) fn mode(self) -> u32 {
        match self {
            Self::Executable => 0o755,
            Self::Configuration | Self::Documents | Self::Image | Self::Model => 0o644,
        }
    }
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Documents => "documents",
            Self::Executable => "executable",
            Self::Image => "image",
            Self::Model => "model",
        })
    }
}

/// The list of a bundle's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// Version of the format.
    pub format: u32,
    /// Version of the release that wrote it.
    pub cairn: String,
    /// In version 1: what the executable runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<Architecture>,
    /// In version 2: what the executables run on, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<Architecture>,
    /// When it was written.
    #[serde(with = "as_text")]
    pub created: UnixMillis,
    /// The members, sorted by path.
    pub members: Vec<Member>,
}

/// A file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path in the bundle.
    pub path: String,
    /// What it is for.
    pub role: MemberRole,
    /// Its length.
    pub bytes: u64,
    /// Digest of its content.
    #[serde(with = "as_text")]
    pub blake3: Digest,
    /// The digest that other people's tools know.
    #[serde(with = "as_text")]
    pub sha256: Sha256,
}

impl Member {
    /// Its path below the folder of its role.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&self.path, |(_, name)| name)
    }
}

/// Why a list is none of this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// It is of a version that this release does not know.
    #[error(
        "its format is {found} and this release reads 1 to {FORMAT}; use the release that wrote it, or a newer one"
    )]
    Format {
        /// The version found.
        found: u64,
    },
    /// It is not JSON of this format.
    #[error("bundle.json is invalid: {0}")]
    Json(String),
    /// A member must not be there, or not like this.
    #[error("member {path:?} {what}")]
    Member {
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The processors that it names are not those of its version.
    #[error("its processors are not listed as format {format} lists them")]
    Architectures {
        /// The version.
        format: u32,
    },
    /// A program is not in it.
    #[error("{path} is missing")]
    Executable {
        /// Its path.
        path: String,
    },
}

/// Only the version, which is read before the rest.
#[derive(Deserialize)]
struct Version {
    format: u64,
}

impl Contents {
    /// A list with executables for these processors, in ascending order, in the oldest version that can name them. Unchecked.
    pub(super) fn new(
        architectures: Vec<Architecture>,
        cairn: String,
        created: UnixMillis,
        members: Vec<Member>,
    ) -> Self {
        match architectures[..] {
            [one] => Self {
                format: FORMAT_OF_ONE,
                cairn,
                architecture: Some(one),
                architectures: Vec::new(),
                created,
                members,
            },
            _ => Self { format: FORMAT, cairn, architecture: None, architectures, created, members },
        }
    }

    /// What its executables run on, in ascending order.
    #[must_use]
    pub fn architectures(&self) -> &[Architecture] {
        self.architecture.as_ref().map_or(&self.architectures, std::slice::from_ref)
    }

    /// The executable for a processor.
    #[must_use]
    pub fn executable(&self, architecture: Architecture) -> Option<&Member> {
        let all = self.architectures();
        let path = all.contains(&architecture).then(|| executable_path(all, architecture))?;
        self.of(MemberRole::Executable).find(|member| member.path == path)
    }

    /// Reads and checks a list.
    ///
    /// # Errors
    /// See [`ContentsError`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ContentsError> {
        let json = |error: serde_json::Error| ContentsError::Json(error.to_string());
        let version: Version = serde_json::from_slice(bytes).map_err(json)?;
        if !(u64::from(FORMAT_OF_ONE)..=u64::from(FORMAT)).contains(&version.format) {
            return Err(ContentsError::Format { found: version.format });
        }
        let contents: Self = serde_json::from_slice(bytes).map_err(json)?;
        contents.check()?;
        Ok(contents)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a list of plain values");
        bytes.push(b'\n');
        bytes
    }

    /// Bytes of all members.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.bytes))
    }

    /// The members of one role.
    pub fn of(&self, role: MemberRole) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    pub(super) fn check(&self) -> Result<(), ContentsError> {
        let member = |path: &str, what| ContentsError::Member { path: path.to_owned(), what };
        for one in &self.members {
            check_path(&one.path, one.role).map_err(|what| member(&one.path, what))?;
        }
        for pair in self.members.windows(2) {
            match pair[0].path.cmp(&pair[1].path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(member(&pair[1].path, "is there twice")),
                std::cmp::Ordering::Greater => {
                    return Err(member(&pair[1].path, "is not in its place: paths are sorted"));
                }
            }
        }
        let paths: HashSet<&str> = self.members.iter().map(|member| member.path.as_str()).collect();
        for one in &self.members {
            let folders = one.path.match_indices('/').map(|(end, _)| &one.path[..end]);
            if folders.into_iter().any(|folder| paths.contains(folder)) {
                return Err(member(&one.path, "is below another member"));
            }
        }
        // Offsets are sums of these, so that no sum can overflow.
        if self.bytes() >= 1 << 62 {
            return Err(member("*", "its sizes are impossibly large"));
        }
        self.check_executables()
    }

    fn check_executables(&self) -> Result<(), ContentsError> {
        let is_listed = match (self.format, self.architecture, &self.architectures[..]) {
            (FORMAT_OF_ONE, Some(_), []) => true,
            (FORMAT, None, list) => list.len() > 1 && list.is_sorted_by(|one, other| one < other),
            _ => false,
        };
        if !is_listed {
            return Err(ContentsError::Architectures { format: self.format });
        }
        let architectures = self.architectures();
        let paths: Vec<String> =
            architectures.iter().map(|architecture| executable_path(architectures, *architecture)).collect();
        if let Some(path) = paths.iter().find(|path| !self.of(MemberRole::Executable).any(|one| one.path == **path)) {
            return Err(ContentsError::Executable { path: path.clone() });
        }
        match self.of(MemberRole::Executable).find(|one| !paths.contains(&one.path)) {
            Some(one) => {
                Err(ContentsError::Member { path: one.path.clone(), what: "is for a processor that is not listed" })
            }
            None => Ok(()),
        }
    }
}

/// The path of the executable for one of a bundle's processors.
pub(super) fn executable_path(all: &[Architecture], architecture: Architecture) -> String {
    let folder = MemberRole::Executable.folder();
    if all.len() == 1 { format!("{folder}/cairn") } else { format!("{folder}/{architecture}/cairn") }
}

fn check_path(path: &str, role: MemberRole) -> Result<(), &'static str> {
    if path.len() > PATH_BYTES_MAX {
        return Err("has a path that is too long");
    }
    if path.chars().any(|letter| letter.is_control() || letter == '\\') {
        return Err("has a control character or a backslash in its path");
    }
    if path.starts_with('/') {
        return Err("has an absolute path");
    }
    let names: Vec<&str> = path.split('/').collect();
    if names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        return Err("has an empty name, . or .. in its path");
    }
    if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err("has a name that is too long");
    }
    if names[0] != role.folder() {
        return Err("is not in the folder of its role");
    }
    let fits = match role {
        // Which of them belong into this bundle is known by its list of processors.
        MemberRole::Executable => names.len() <= 3 && names.ends_with(&["cairn"]),
        MemberRole::Configuration => path == CONFIGURATION,
        MemberRole::Image => names.len() == 2 && IMAGE_ENDINGS.iter().any(|ending| path.ends_with(ending)),
        MemberRole::Documents | MemberRole::Model => names.len() > 2,
    };
    if fits { Ok(()) } else { Err("has a path that members of its role do not have") }
}

/// Values that JSON has as the text they are shown as.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, role: MemberRole) -> Member {
        Member { path: path.to_owned(), role, bytes: 1, blake3: Digest::of(b"x"), sha256: Sha256::of(b"x") }
    }

    fn contents(members: Vec<Member>) -> Contents {
        Contents::new(vec![Architecture::X86_64], "0.1.0".to_owned(), UnixMillis(0), members)
    }

    fn for_both(members: Vec<Member>) -> Contents {
        let both = vec![Architecture::X86_64, Architecture::Aarch64];
        Contents::new(both, "0.1.0".to_owned(), UnixMillis(0), members)
    }

    #[test]
    fn a_list_survives_json() {
        let whole = contents(vec![
            member("configuration/cairn.toml", MemberRole::Configuration),
            member("documents/manual/a/b.md", MemberRole::Documents),
            member("executable/cairn", MemberRole::Executable),
            member("images/nats.tar.gz", MemberRole::Image),
            member("models/big/model.safetensors", MemberRole::Model),
        ]);
        assert_eq!(Contents::decode(&whole.encode()), Ok(whole));
    }

    #[test]
    fn a_list_for_several_processors_has_an_executable_for_each() {
        let program = |path| member(path, MemberRole::Executable);
        let arm = || program("executable/aarch64/cairn");
        let intel = || program("executable/x86_64/cairn");
        let whole = for_both(vec![arm(), intel()]);
        assert_eq!(Contents::decode(&whole.encode()).as_ref(), Ok(&whole));
        assert_eq!((whole.format, contents(vec![]).format), (2, 1), "one executable needs no newer reader");
        assert_eq!(whole.executable(Architecture::Aarch64), Some(&arm()));
        let one = contents(vec![program("executable/cairn")]);
        assert_eq!(one.executable(Architecture::X86_64).map(|member| &*member.path), Some("executable/cairn"));
        assert_eq!(one.architectures(), [Architecture::X86_64]);
        assert_eq!(one.executable(Architecture::Aarch64), None);
        for (members, words) in [
            (vec![arm()], "executable/x86_64/cairn is missing"),
            (vec![program("executable/cairn")], "executable/x86_64/cairn is missing"),
            (vec![arm(), program("executable/riscv64/cairn"), intel()], "processor that is not listed"),
            (vec![arm(), program("executable/x86_64/b/cairn")], "members of its role"),
        ] {
            let error = Contents::decode(&for_both(members).encode()).expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let text = String::from_utf8(whole.encode()).expect("UTF-8");
        for (from, to) in [
            ("\"format\": 2", "\"format\": 1"),
            ("\"x86_64\",", ""),
            ("\"architectures\"", "\"architecture\": \"aarch64\", \"architectures\""),
        ] {
            assert!(text.contains(from), "{text}");
            let error = Contents::decode(text.replacen(from, to, 1).as_bytes()).expect_err(to);
            assert!(matches!(error, ContentsError::Architectures { .. }), "{to}: {error}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for (path, words) in [
            ("/documents/a/b", "absolute"),
            ("documents/../executable/cairn", ".."),
            ("documents/a/./b", "."),
            ("documents//b", "empty"),
            ("documents/a/", "empty"),
            ("documents/b", "members of its role"),
            ("executable/cairn", "folder of its role"),
            ("documents/a/b\n", "control"),
            ("documents/a\\b/c", "backslash"),
        ] {
            let list =
                contents(vec![member(path, MemberRole::Documents), member("executable/cairn", MemberRole::Executable)]);
            let error = Contents::decode(&list.encode()).expect_err(path).to_string();
            assert!(error.contains(words), "{path}: {error}");
        }
    }

    #[test]
    fn order_and_folders_are_checked() {
        let program = || member("executable/cairn", MemberRole::Executable);
        let documents = |path| member(path, MemberRole::Documents);
        for (members, words) in [
            (vec![documents("documents/a/b"), documents("documents/a/b"), program()], "twice"),
            (vec![program(), documents("documents/a/b")], "sorted"),
            (
                vec![documents("documents/a/b"), documents("documents/a/b-c"), documents("documents/a/b/c"), program()],
                "below",
            ),
            (vec![documents("documents/a/b")], "executable/cairn is missing"),
        ] {
            let error = Contents::decode(&contents(members).encode()).expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn another_version_is_said_before_anything_else_is_read() {
        let error = Contents::decode(br#"{"format": 7, "whatever": true}"#).expect_err("newer");
        assert_eq!(error, ContentsError::Format { found: 7 });
        let error = Contents::decode(br#"{"format": 1, "whatever": true}"#).expect_err("unknown field");
        assert!(matches!(error, ContentsError::Json(_)));
    }
}
