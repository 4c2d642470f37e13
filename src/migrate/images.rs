//! What a conversion has to know of container images, out of their archives: no registry and no Docker is asked.
//!
//! Owns the reading of what `docker save`, `skopeo copy`, `podman save`, `ctr image export` and `cairn image build` write: an OCI image
//! layout as a tar, a `docker save` archive, or both at once, packed with gzip or zstd or not.
//!
//! Invariants: nothing of an archive is believed that a digest in it contradicts. Time grows with the archive's unpacked bytes, and memory
//! does not. No message has text out of an image's configuration, apart from names of its images and ports.

mod accounts;
mod archive;
mod config;
mod layers;
mod members;
mod name;
mod rootfs;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::accounts::Accounts;
use self::archive::{Archive, ArchivedImage};
use self::config::Config;
use self::name::{ImageName, is_digest};
pub use self::rootfs::{FolderContent, FolderOwner};
use super::stack::Protocol;
use crate::base::Fault;
use crate::deploy::oci::layout::digits;

/// Why archives of images were not read.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The system refused.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{path} is not an archive of images ({what}); expected what `docker save` writes, or an OCI image layout as a tar"
    )]
    Kind {
        /// Which one.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It is packed in a form that is not read.
    #[error(
        "{path}{} is packed with {packing}, expected gzip, zstd or nothing; unpack it, or export the image again",
        .member.as_ref().map(|member| format!(": the layer {member}")).unwrap_or_default()
    )]
    Packing {
        /// Which one.
        path: PathBuf,
        /// The layer in it; `None` is the archive itself.
        member: Option<String>,
        /// The name of the form.
        packing: &'static str,
    },
    /// Its end is missing.
    #[error("{path} is cut short: {what}; copy it again")]
    CutShort {
        /// Which one.
        path: PathBuf,
        /// Where it ends.
        what: String,
    },
    /// Its packed bytes are not what gzip or zstd writes.
    #[error("{path} is damaged: {source}; copy it again")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What the unpacking said.
        source: io::Error,
    },
    /// Something in it is damaged.
    #[error("{path} is damaged: {member} has the digest {found}, expected {expected}; copy it again")]
    Digest {
        /// Which one.
        path: PathBuf,
        /// What is damaged.
        member: String,
        /// What the archive says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Something in it is invalid, missing, or too large.
    #[error("{path}: {what}; export the image again")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Which image is meant is not clear.
    #[error("{path} has {name} for {platforms}; choose one with --platform")]
    Platform {
        /// Which one.
        path: PathBuf,
        /// The image.
        name: String,
        /// What there is.
        platforms: String,
    },
    /// Two images have one name.
    #[error("{first} and {second} both have an image {name}, and not the same one; leave one of them out")]
    Conflict {
        /// The image.
        name: String,
        /// An archive.
        first: PathBuf,
        /// Another one, or the same.
        second: PathBuf,
    },
}

impl ImagesError {
    /// What a failed read means.
    fn of_read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // An error of the system has its number.
            _ if source.raw_os_error().is_some() => Self::Read { path, source },
            io::ErrorKind::UnexpectedEof => Self::CutShort { path, what: "its packed bytes have no end".to_owned() },
            _ => Self::Damaged { path, source },
        }
    }

    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::CutShort { .. } | Self::Damaged { .. } | Self::Digest { .. } => Fault::Damage,
            Self::Kind { .. }
            | Self::Packing { .. }
            | Self::Content { .. }
            | Self::Platform { .. }
            | Self::Conflict { .. } => Fault::Caller,
        }
    }
}

/// What an image runs on: `linux/arm64`, or `linux/arm/v7`. The default is `linux/amd64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlatform {
    os: String,
    architecture: String,
    /// Any where it is not written.
    variant: Option<String>,
}

impl Default for ImagePlatform {
    fn default() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }
}

impl ImagePlatform {
    /// Reads `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`, in the words of Go; `None` when it is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let is_word = |word: &String| !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_alphanumeric());
        let is_valid = [Some(&os), Some(&architecture), variant.as_ref()].into_iter().flatten().all(is_word);
        (is_valid && parts.next().is_none()).then_some(Self { os, architecture, variant })
    }

    fn of(config: &Config) -> Self {
        let word = |word: &str| members::printable(word.as_bytes());
        let Config { os, architecture, variant, .. } = config;
        Self { os: word(os), architecture: word(architecture), variant: variant.as_deref().map(word) }
    }

    fn fits(&self, config: &Config) -> bool {
        self.os == config.os
            && self.architecture == config.architecture
            && (self.variant.is_none() || self.variant == config.variant)
    }
}

impl fmt::Display for ImagePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// What is asked of images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageQuery {
    /// Of an image for several platforms, this one counts. `None`: linux/amd64 where there is one, or else the only one.
    pub platform: Option<ImagePlatform>,
    /// Absolute paths of folders of which the number of files is wanted: the targets of volumes. Those that an image itself declares as
    /// volumes need not be here.
    pub folders: Vec<String>,
}

/// How far the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageProgress<'a> {
    /// The archive that is read.
    pub archive: &'a Path,
    /// What is done with it.
    pub step: ImageStep,
    /// Bytes that have been read in this step.
    pub bytes: u64,
    /// Bytes of the whole step.
    pub of: u64,
}

/// What is done with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStep {
    /// Its members are listed. This takes time only where the archive is packed.
    Members,
    /// The layers of its images are read; a second time where links lead to other folders.
    Layers,
}

/// The images of some archives.
#[derive(Debug, Clone, Default)]
pub struct Images {
    images: Vec<ImageFacts>,
    /// Numbers of images by whole names, and by digests.
    by_name: HashMap<String, usize>,
    by_digest: HashMap<String, usize>,
    /// Images for other platforms: whole names, with the archive and the platforms.
    others: BTreeMap<String, (PathBuf, Vec<String>)>,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its first whole name, such as `docker.io/library/nginx:1.25`; its ID where the archive gives it no name.
    pub reference: String,
    /// All of its whole names, in the order of the archive.
    pub names: Vec<String>,
    /// What the name refers to, `sha256:…`: the manifest, or the index of several platforms. What `docker save` writes without an OCI
    /// layout has none. Docker packs layers again when it saves them, so that this may not be the digest that a registry has.
    pub digest: Option<String>,
    /// The manifest for the platform; the same as `digest` where there is no index.
    pub manifest_digest: Option<String>,
    /// Digest of the configuration, `sha256:…`. It is the same however the layers are packed.
    pub id: String,
    /// The archive that has it.
    pub archive: PathBuf,
    /// As Go names it: `amd64`.
    pub architecture: String,
    /// As Go names it: `linux`.
    pub os: String,
    /// `ENTRYPOINT`
    pub entrypoint: Vec<String>,
    /// `CMD`
    pub command: Vec<String>,
    /// `SHELL`, which runs health checks in the shell form. Empty: `/bin/sh -c`.
    pub shell: Vec<String>,
    /// `ENV`, in the order of the image. May hold secrets.
    pub environment: Vec<(String, String)>,
    /// `USER`: a user, or `USER:GROUP`, by name or by number. `None`: root.
    pub user: Option<String>,
    /// `WORKDIR`. `None`: the root.
    pub working_dir: Option<String>,
    /// `EXPOSE`, in ascending order.
    pub exposed: Vec<(u16, Protocol)>,
    /// `VOLUME`, in the order of the alphabet, as written.
    pub volumes: Vec<String>,
    /// `STOPSIGNAL`
    pub stop_signal: Option<String>,
    /// `HEALTHCHECK`. `None` as well where that is `NONE`.
    pub health_check: Option<ImageHealthCheck>,
    /// `LABEL`, in the order of the alphabet.
    pub labels: Vec<(String, String)>,
    accounts: Accounts,
    /// By paths without the first slash.
    folders: BTreeMap<Vec<u8>, FolderContent>,
}

/// How an image is asked whether it works. What is not written is Docker's default: 30 s, 30 s, none, 5 s, 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHealthCheck {
    /// `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between two tests.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// Failures that do not count, from the start on.
    pub start_period: Option<Duration>,
    /// Between two tests in that time.
    pub start_interval: Option<Duration>,
    /// Failures in a row before it is unhealthy; at least 1.
    pub retries: Option<u64>,
}

impl Images {
    /// Reads archives. Each is read once, and a second time where it is packed as a whole.
    ///
    /// * `progress`: called often, at most once for some hundred kilobytes.
    ///
    /// # Errors
    /// See [`ImagesError`]. One archive that cannot be read is an error of all.
    pub fn read(
        paths: &[PathBuf],
        query: &ImageQuery,
        progress: &dyn Fn(ImageProgress<'_>),
    ) -> Result<Self, ImagesError> {
        let mut images = Self::default();
        for path in paths {
            let of = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            let listed = |bytes| progress(ImageProgress { archive: path, step: ImageStep::Members, bytes, of });
            let (found, others) = Archive::list(path, &listed)?.images(query.platform.as_ref())?;
            for facts in layers::facts(path, found, &query.folders, progress)? {
                images.add(facts)?;
            }
            for other in others {
                let names = other.names.into_iter().map(|name| name.to_string());
                images.others.extend(names.map(|name| (name, (path.clone(), other.platforms.clone()))));
            }
        }
        Ok(images)
    }

    fn add(&mut self, facts: ImageFacts) -> Result<(), ImagesError> {
        let number = self.images.len();
        for name in &facts.names {
            let Some(other) = self.by_name.get(name).map(|other| &self.images[*other]) else {
                self.by_name.insert(name.clone(), number);
                continue;
            };
            if other.id != facts.id {
                return Err(ImagesError::Conflict {
                    name: name.clone(),
                    first: other.archive.clone(),
                    second: facts.archive.clone(),
                });
            }
            // The same image; one of the two may be without a digest.
            if other.digest.is_none() {
                self.by_name.insert(name.clone(), number);
            }
        }
        for digest in [&facts.digest, &facts.manifest_digest].into_iter().flatten().chain([&facts.id]) {
            self.by_digest.entry(digest.clone()).or_insert(number);
        }
        self.images.push(facts);
        Ok(())
    }

    /// All images, in the order of the archives.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ImageFacts> {
        self.images.iter()
    }

    /// The image that a reference names as Docker reads it: `nginx`, `nginx:1.25`, `nginx@sha256:…`, `nginx:1.25@sha256:…`, `sha256:…`.
    ///
    /// Where no image has the digest of a reference with a tag and a digest, it is the one with the tag: [`ImageFacts::confirms`] says
    /// whether that is certain.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<&ImageFacts> {
        let by_digest = |digest: &str| self.by_digest.get(digest).map(|number| &self.images[*number]);
        if digits(reference).is_some() && is_digest(reference) {
            return by_digest(reference);
        }
        let name = ImageName::parse(reference)?;
        let exact = name.digest.as_deref().and_then(by_digest);
        exact.or_else(|| self.by_name.get(&name.tagged()?.to_string()).map(|number| &self.images[*number]))
    }

    /// The references that no image has, as they are written, each once.
    pub fn missing<'a>(&self, references: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for reference in references {
            if self.find(reference).is_none() && missing.iter().all(|other| other != reference) {
                missing.push(reference.to_owned());
            }
        }
        missing
    }

    /// Why a missing image is not there, where an archive has it for other platforms than the one that was asked for: the archive, and the
    /// platforms.
    #[must_use]
    pub fn other_platforms(&self, reference: &str) -> Option<(&Path, &[String])> {
        let name = ImageName::parse(reference)?.tagged()?;
        self.others.get(&name.to_string()).map(|(path, platforms)| (path.as_path(), &platforms[..]))
    }
}

impl ImageFacts {
    fn of(image: ArchivedImage, path: &Path, accounts: Accounts, folders: BTreeMap<Vec<u8>, FolderContent>) -> Self {
        let ArchivedImage { names, digests, id, config, .. } = image;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let [digest, manifest_digest] = digests.map_or([None, None], |digests| digests.map(Some));
        Self {
            reference: names.first().unwrap_or(&id).clone(),
            names,
            digest,
            manifest_digest,
            id,
            archive: path.to_owned(),
            architecture: config.architecture,
            os: config.os,
            entrypoint: config.entrypoint,
            command: config.command,
            shell: config.shell,
            environment: config.environment,
            user: config.user,
            working_dir: config.working_dir,
            exposed: config.exposed,
            volumes: config.volumes,
            stop_signal: config.stop_signal,
            health_check: config.health_check,
            labels: config.labels,
            accounts,
            folders,
        }
    }

    /// Whether this is the image of a reference beyond doubt: its digest is the reference's, or the reference has none.
    #[must_use]
    pub fn confirms(&self, reference: &str) -> bool {
        let digest = reference.split_once('@').map(|(_, digest)| digest);
        digest.is_none_or(|digest| [&self.digest, &self.manifest_digest].into_iter().flatten().any(|own| own == digest))
    }

    /// The number of a user, by the image's `/etc/passwd`. A number is itself. `None` where the name has none.
    #[must_use]
    pub fn user_id(&self, name: &str) -> Option<u32> {
        self.accounts.user(name)
    }

    /// The number of a group, by the image's `/etc/group`. A number is itself. `None` where the name has none.
    #[must_use]
    pub fn group_id(&self, name: &str) -> Option<u32> {
        self.accounts.group(name)
    }

    /// The number of the group that a user has where none is named, by the image's `/etc/passwd`. `None` where the file has no such user:
    /// Docker's is 0 then.
    ///
    /// * `user`: a name or a number.
    #[must_use]
    pub fn primary_group_id(&self, user: &str) -> Option<u32> {
        self.accounts.group_of(user)
    }

    /// What the image has in a folder of [`ImageQuery::folders`], or in one of its own volumes. `None` where it has no such folder, or was
    /// not asked for it.
    #[must_use]
    pub fn folder(&self, path: &str) -> Option<&FolderContent> {
        self.folders.get(&rootfs::clean(path.as_bytes()))
    }

    /// Whether the image has anything below such a folder, which Docker copies into a new volume.
    #[must_use]
    pub fn has_files_below(&self, path: &str) -> bool {
        self.folder(path).is_some_and(|folder| folder.files > 0 || folder.folders > 0)
    }
}
