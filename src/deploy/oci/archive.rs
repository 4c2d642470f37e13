//! What an image archive on a disk holds: its name, its digest and the processors that it is for.
//!
//! Invariants: only the small members of an archive are read, at most [`KEPT_BYTES_MAX`] of them, and each that is used has the digest by
//! which it is named. A processor counts when the archive has all of its image: some programs write the index of a whole image and the
//! blobs of one processor. What is in layers is not checked: whatever imports the image does that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::elf::ReadAt as _;
use super::super::sha256::Sha256;
use super::layout::{BLOBS, Descriptor, Index, Manifest, Platform, digits};
use crate::base::{Fault, regular_file};
use crate::deploy::executable::Architecture;

/// Index, manifests and configurations have a few kilobytes.
const MEMBER_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are kept of all members.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Of a digest.
const DIGITS: usize = 64;

/// Why an archive says nothing about its image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error, or what is wrong with the archive.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{path} is not an image archive ({what}); expected the tar file of `cairn image build`, or another OCI image layout as a tar"
    )]
    Kind {
        /// Which one.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// More than one image, or none with a name.
    #[error("{path} holds {} images ({}); expected one with a name", .names.len(), .names.join(", "))]
    Names {
        /// Which one.
        path: PathBuf,
        /// The images in it.
        names: Vec<String>,
    },
    /// None of its processors runs Cairn.
    #[error("the image in {path} is for {}; Cairn runs on amd64 and arm64", .found.join(", "))]
    Platform {
        /// Which one.
        path: PathBuf,
        /// Its processors.
        found: Vec<String>,
    },
}

impl ArchiveError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::Kind { .. } | Self::Names { .. } | Self::Platform { .. } => Fault::Caller,
        }
    }
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedImage {
    /// `host/path:tag`
    pub name: String,
    digest: Sha256,
    /// The processors that it is for, of those that Cairn runs on, in ascending order; at least one.
    pub architectures: Vec<Architecture>,
    /// Length of the archive.
    pub bytes: u64,
}

/// The name of the image: of its annotations the first that is one.
fn name(descriptor: &Descriptor) -> Option<&str> {
    let is_name =
        |name: &&str| name.contains('/') && !name.contains(|letter: char| letter == '@' || letter.is_control());
    descriptor.names().find(is_name)
}

impl ArchivedImage {
    /// Reads what an archive says about its image.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read { path: path.to_owned(), source };
        let kind = |what: &str| ArchiveError::Kind { path: path.to_owned(), what: what.to_owned() };
        let (file, bytes) = regular_file::open(path).map_err(read)?.ok_or_else(|| kind("not a regular file"))?;
        Members::read(path, file)?.image(bytes)
    }

    /// Digest of what the name stands for: `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.digest)
    }
}

/// The small members of an archive.
struct Members<'a> {
    path: &'a Path,
    index: Vec<u8>,
    /// By digest, as in the path.
    blobs: HashMap<String, Vec<u8>>,
    /// The digests of all blobs, also of those that were not kept.
    names: HashSet<String>,
}

impl<'a> Members<'a> {
    fn read(path: &'a Path, file: File) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read { path: path.to_owned(), source };
        let kind = |what: String| ArchiveError::Kind { path: path.to_owned(), what };
        let wrong = match &file.part(0, 6).map_err(read)?[..] {
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | b"\xfd7zXZ\0" | [b'B', b'Z', b'h', ..] => {
                "it is compressed; unpack it first"
            }
            _ => "not a tar file, or damaged",
        };
        let mut archive = tar::Archive::new(file);
        let (mut index, mut blobs, mut names, mut kept) = (None, HashMap::new(), HashSet::new(), 0);
        for entry in archive.entries_with_seek().map_err(read)? {
            let mut entry = entry.map_err(|_| kind(wrong.to_owned()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./");
            let digits = name.strip_prefix(BLOBS).filter(|digits| !digits.is_empty());
            names.extend(digits.filter(|digits| digits.len() == DIGITS).map(str::to_owned));
            if entry.size() > MEMBER_BYTES_MAX || (digits.is_none() && name != "index.json") {
                continue;
            }
            kept += entry.size();
            if kept > KEPT_BYTES_MAX {
                return Err(kind(format!("more than {KEPT_BYTES_MAX} bytes in small files")));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(read)?;
            match digits {
                Some(digits) => drop(blobs.insert(digits.to_owned(), bytes)),
                None => index = Some(bytes),
            }
        }
        let index = index.ok_or_else(|| kind("it has no index.json, or was cut off before it".to_owned()))?;
        Ok(Self { path, index, blobs, names })
    }

    fn kind(&self, what: String) -> ArchiveError {
        ArchiveError::Kind { path: self.path.to_owned(), what }
    }

    /// * `bytes`: length of the archive.
    fn image(&self, bytes: u64) -> Result<ArchivedImage, ArchiveError> {
        let index: Index = self.json(&self.index, "index.json")?;
        let names: BTreeSet<&str> = index.manifests.iter().filter_map(name).collect();
        let one = match names.iter().collect::<Vec<_>>()[..] {
            [name] => index.manifests.iter().find(|descriptor| self::name(descriptor) == Some(name)),
            _ => None,
        };
        let Some((descriptor, name)) = one.and_then(|one| Some((one, name(one)?))) else {
            let names = names.into_iter().map(str::to_owned).collect();
            return Err(ArchiveError::Names { path: self.path.to_owned(), names });
        };
        if index.manifests.iter().filter(|other| self::name(other) == Some(name)).nth(1).is_some() {
            return Err(self.kind(format!("{name} stands in it several times, not once for all processors")));
        }
        let platforms = match descriptor.is_index() {
            true => {
                let index = self.index(descriptor)?;
                index.manifests.iter().map(|one| self.platform(one, false)).collect::<Result<Vec<_>, _>>()?
            }
            false => vec![self.platform(descriptor, true)?],
        };
        let architectures: BTreeSet<Architecture> = platforms.iter().flatten().filter_map(architecture).collect();
        if architectures.is_empty() && platforms.iter().any(Option::is_none) {
            return Err(self.kind("its index names images that are not in it".to_owned()));
        }
        if architectures.is_empty() {
            let found = platforms
                .iter()
                .flatten()
                .map(|found| format!("{}/{}", found.os.escape_debug(), found.architecture.escape_debug()));
            return Err(ArchiveError::Platform { path: self.path.to_owned(), found: found.collect() });
        }
        let digest = digits(&descriptor.digest).and_then(|digits| digits.parse().ok());
        Ok(ArchivedImage {
            name: name.to_owned(),
            digest: digest.ok_or_else(|| self.kind(format!("its digest is '{}'", descriptor.digest)))?,
            architectures: architectures.into_iter().collect(),
            bytes,
        })
    }

    fn index(&self, descriptor: &Descriptor) -> Result<Index, ArchiveError> {
        self.json(self.blob(descriptor)?, "its index")
    }

    /// What the configuration of an image says that it is for; `None` when the archive has not this image. Of one for other programs, such
    /// as an attestation, what the index says.
    ///
    /// * `is_needed`: whether it is an error when the archive has it not.
    fn platform(&self, descriptor: &Descriptor, is_needed: bool) -> Result<Option<Platform>, ArchiveError> {
        if let Some(platform) = descriptor.platform.as_ref().filter(|platform| architecture(platform).is_none()) {
            return Ok(Some(platform.clone()));
        }
        if !is_needed && digits(&descriptor.digest).is_some_and(|digits| !self.names.contains(digits)) {
            return Ok(None);
        }
        let manifest: Manifest = self.json(self.blob(descriptor)?, "its manifest")?;
        let absent = manifest
            .layers
            .iter()
            .find(|layer| digits(&layer.digest).is_some_and(|digits| !self.names.contains(digits)));
        if let Some(layer) = absent {
            return Err(self.kind(format!("its layer {} is missing", layer.digest)));
        }
        self.json(self.blob(&manifest.config)?, "its configuration").map(Some)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<&[u8], ArchiveError> {
        let name = &descriptor.digest;
        let bytes = digits(name).and_then(|digits| self.blobs.get(digits));
        let bytes = bytes.ok_or_else(|| self.kind(format!("{name} is missing")))?;
        match digits(name) == Some(Sha256::of(bytes).to_string().as_str()) {
            true => Ok(bytes),
            false => Err(self.kind(format!("{name} is damaged"))),
        }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, bytes: &[u8], what: &str) -> Result<T, ArchiveError> {
        serde_json::from_slice(bytes).map_err(|error| self.kind(format!("{what} is invalid: {error}")))
    }
}

fn architecture(platform: &Platform) -> Option<Architecture> {
    let known = [Architecture::X86_64, Architecture::Aarch64];
    known.into_iter().find(|one| platform.os == "linux" && platform.architecture == one.oci())
}

#[cfg(test)]
mod tests {
    use super::super::layout::DOCKER_INDEX;
    use super::super::{Image, Reference, TYPE_INDEX};
    use super::*;
    use crate::deploy::OWN_EXECUTABLE;

    /// An archive of these members.
    fn archive(members: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut builder = tar::Builder::new(file.as_file());
        for (name, text) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).expect("appended");
        }
        builder.finish().expect("written");
        drop(builder);
        file
    }

    fn refused(members: &[(&str, &str)]) -> String {
        ArchivedImage::open(archive(members).path()).expect_err("no image").to_string()
    }

    #[test]
    fn what_is_built_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cairn.tar");
        let image = Image::named(Path::new(OWN_EXECUTABLE), &[], Reference::this_release()).expect("an image");
        image.write_file(&file).expect("written");
        let read = ArchivedImage::open(&file).expect("read");
        assert_eq!(read.name, image.reference().to_string());
        assert_eq!(read.digest(), image.digest());
        assert_eq!(read.architectures, image.architectures().collect::<Vec<_>>());
        assert_eq!(read.bytes, image.bytes());
    }

    #[test]
    fn platforms_come_from_an_index_or_a_configuration() {
        let config = r#"{"architecture": "arm64", "os": "linux"}"#;
        let named = |what: &str, more: &str| {
            let digest = Sha256::of(what.as_bytes());
            let name = r#""annotations": {"org.opencontainers.image.ref.name": "a.example/b:1"}"#;
            format!(r#"{{"manifests": [{{"digest": "sha256:{digest}", {name}{more}}}]}}"#)
        };
        let blob = |what: &str| format!("{BLOBS}{}", Sha256::of(what.as_bytes()));
        let manifest = format!(r#"{{"config": {{"digest": "sha256:{}"}}}}"#, Sha256::of(config.as_bytes()));
        let (of_config, of_manifest) = (blob(config), blob(&manifest));
        let index = named(&manifest, "");
        let members = [("./index.json", index.as_str()), (&of_manifest, &manifest), (&of_config, config)];
        let image = ArchivedImage::open(archive(&members).path()).expect("read");
        assert_eq!((image.name.as_str(), &image.architectures[..]), ("a.example/b:1", &[Architecture::Aarch64][..]));
        assert!(refused(&members[..2]).contains("is missing"));
        assert!(refused(&[members[0], members[1], (&of_config, "{}")]).contains("is damaged"));

        let of = |architecture: &str| {
            let config = format!(r#"{{"architecture": "{architecture}", "os": "linux"}}"#);
            let manifest = format!(r#"{{"config": {{"digest": "sha256:{}"}}}}"#, Sha256::of(config.as_bytes()));
            [(blob(&config), config), (blob(&manifest), manifest)]
        };
        let platform = |architecture: &str| {
            let digest = Sha256::of(of(architecture)[1].1.as_bytes());
            format!(
                r#"{{"digest": "sha256:{digest}", "platform": {{"architecture": "{architecture}", "os": "linux"}}}}"#
            )
        };
        // The attestations of other programs are for no processor.
        let list = ["unknown", "arm64", "amd64"].map(platform).join(", ");
        let list = format!(r#"{{"manifests": [{list}]}}"#);
        let (of_list, index) = (blob(&list), named(&list, &format!(r#", "mediaType": "{TYPE_INDEX}""#)));
        let [intel, arm] = ["amd64", "arm64"].map(of);
        let mut members = vec![(of_list.as_str(), list.as_str()), ("index.json", &index)];
        members.extend(intel.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let image = ArchivedImage::open(archive(&members).path()).expect("read");
        assert_eq!(image.architectures, [Architecture::X86_64], "the other one is named and not there");
        members.extend(arm.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let image = ArchivedImage::open(archive(&members).path()).expect("read");
        assert_eq!(image.architectures, [Architecture::X86_64, Architecture::Aarch64]);
        members.retain(|(name, _)| *name != arm[0].0);
        assert!(refused(&members).contains("is missing"), "a manifest without its configuration");
        assert!(refused(&members[..2]).contains("names images that are not in it"));
        let list = format!(r#"{{"manifests": [{}]}}"#, platform("riscv64"));
        let (of_list, index) = (blob(&list), named(&list, &format!(r#", "mediaType": "{DOCKER_INDEX}""#)));
        let refused = refused(&[(&of_list, &list), ("index.json", &index)]);
        assert!(refused.contains("is for linux/riscv64; Cairn runs on amd64 and arm64"), "{refused}");
    }

    #[test]
    fn what_holds_no_one_image_is_refused_by_name() {
        assert!(refused(&[("manifest.json", "[]")]).contains("it has no index.json"));
        assert!(refused(&[("index.json", "[")]).contains("index.json is invalid"));
        assert!(refused(&[("index.json", r#"{"manifests": []}"#)]).contains("holds 0 images"));
        let one = |name: &str| {
            format!(r#"{{"digest": "sha256:0", "annotations": {{"org.opencontainers.image.ref.name": "{name}"}}}}"#)
        };
        let two = format!(r#"{{"manifests": [{}, {}]}}"#, one("a.example/a:1"), one("a.example/b:1"));
        assert!(refused(&[("index.json", &two)]).contains("holds 2 images (a.example/a:1, a.example/b:1)"));
        let large = " ".repeat(MEMBER_BYTES_MAX as usize);
        let names: Vec<String> = (0..=KEPT_BYTES_MAX / MEMBER_BYTES_MAX).map(|at| format!("{BLOBS}{at}")).collect();
        let members: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), large.as_str())).collect();
        assert!(refused(&members).contains("in small files"));
        for path in ["/dev/zero", "/nonexistent.tar", "/"] {
            ArchivedImage::open(Path::new(path)).expect_err("no archive");
        }
        let text = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(text.path(), "no archive".repeat(100)).expect("written");
        assert!(ArchivedImage::open(text.path()).expect_err("text").to_string().contains("is not an image archive"));
    }
}
