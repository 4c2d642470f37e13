//! One archive: its members, and the images that it names.
//!
//! An archive is an OCI image layout, what `docker save` writes, or both at once, as Docker 25 and containerd write it; packed with gzip
//! or zstd, or not. The first pass lists the members and stores those with JSON.
//!
//! Invariants: JSON that has a digest is used only where it has that digest. One member of JSON has at most [`JSON_BYTES_MAX`] bytes; what
//! is stored of all, and what is read of it, is at most [`STORED_BYTES_MAX`].
//!
//! Source: the OCI Image Format Specification 1.1, `image-layout.md`; the Docker Image Specification 1.2, "Combined Image JSON + Filesystem
//! Changeset Format"; for attestations, BuildKit's `docs/attestations/attestation-storage.md`.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::{self, Config};
use super::members::{CHECKSUM, Kind, Members, MembersError, printable};
use super::name::{ImageName, is_digest};
use super::stream::{Packing, Unpacked};
use super::{ImagePlatform, ImagesError};
use crate::base::regular_file;
use crate::deploy::Sha256;
use crate::deploy::oci::layout::{BLOBS, Descriptor, Index, Manifest, Platform, digits};

/// One file of JSON. The largest configurations, with the whole history of an image, have some hundred kilobytes.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// All files of JSON that may be of use; and all that are used, each as often as it is.
const STORED_BYTES_MAX: u64 = 32 << 20;
/// Members of an archive. One with a hundred images has a few thousand.
const MEMBERS_MAX: usize = 1 << 16;
/// Longest name of a member that is of use.
const NAME_BYTES_MAX: usize = 512;
/// Indexes within indexes.
const DEPTH_MAX: usize = 8;
/// Descriptors that are followed in one archive.
const DESCRIPTORS_MAX: usize = 1 << 13;
/// Images of one archive.
const IMAGES_MAX: usize = 1 << 10;
/// Names of one image.
const NAMES_MAX: usize = 1 << 8;
/// Layers of one image. Docker's own limit is 128.
const LAYERS_MAX: usize = 1 << 10;
/// Symbolic links from one layer to another.
const LINKS_MAX: usize = 8;
const INDEX: &str = "index.json";
const DOCKER_MANIFEST: &str = "manifest.json";
const CONFIG_TYPES: [&str; 3] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json", ""];

/// A member of the archive.
#[derive(Debug)]
struct Stored {
    /// Where its content begins, in unpacked bytes.
    offset: u64,
    bytes: u64,
    json: Option<Vec<u8>>,
    /// The member that has its content.
    link: Option<String>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub(super) struct LayerRef {
    /// The member that has it.
    pub(super) member: String,
    /// Where its content begins, in unpacked bytes.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Of its bytes as they are in the archive, where the archive says it.
    pub(super) digest: Option<String>,
    /// Of its bytes unpacked.
    pub(super) unpacked_digest: String,
}

/// An image of the archive.
#[derive(Debug)]
pub(super) struct ArchivedImage {
    pub(super) names: Vec<ImageName>,
    /// What the names refer to, and the manifest; the same where there is no index of platforms. None by `docker save` without a layout.
    pub(super) digests: Option<[String; 2]>,
    /// Digest of the configuration, which Docker calls the image's ID.
    pub(super) id: String,
    pub(super) config: Config,
    pub(super) layers: Vec<LayerRef>,
}

/// An image for other platforms than the wanted one.
#[derive(Debug)]
pub(super) struct OtherPlatforms {
    pub(super) names: Vec<ImageName>,
    pub(super) platforms: Vec<String>,
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// A manifest for one platform, below a name.
struct Candidate {
    target: String,
    digest: String,
    manifest: Manifest,
    config: Config,
}

/// The members of an archive.
pub(super) struct Archive {
    path: PathBuf,
    members: HashMap<String, Stored>,
    /// Whether JSON was left out, for want of room.
    is_full: bool,
    /// Bytes of JSON that may be read yet.
    left: Cell<u64>,
}

impl Archive {
    /// The bytes of the archive, from the start.
    pub(super) fn open<'a>(path: &Path, report: &'a dyn Fn(u64)) -> Result<(Unpacked<'a>, u64), ImagesError> {
        let read = |source| ImagesError::Read { path: path.to_owned(), source };
        let (file, length): (File, u64) = regular_file::open(path)
            .map_err(read)?
            .ok_or_else(|| ImagesError::Kind { path: path.to_owned(), what: "not a regular file".to_owned() })?;
        let unpacked = Unpacked::of_file(file, length, report).map_err(read)?;
        match unpacked.packing() {
            Packing::Other(packing) => Err(ImagesError::Packing { path: path.to_owned(), member: None, packing }),
            _ => Ok((unpacked, length)),
        }
    }

    /// Lists the members.
    pub(super) fn list(path: &Path, report: &dyn Fn(u64)) -> Result<Self, ImagesError> {
        let (mut from, _) = Self::open(path, report)?;
        let mut archive =
            Self { path: path.to_owned(), members: HashMap::new(), is_full: false, left: Cell::new(STORED_BYTES_MAX) };
        let mut stored = 0;
        let mut members = Members::new(&mut from);
        let wrong = |error| match error {
            MembersError::Header { at: 0, what: CHECKSUM } => archive_kind(path, "not a tar file"),
            other => members_error(path, other),
        };
        while let Some(member) = members.next().map_err(wrong)? {
            if archive.members.len() >= MEMBERS_MAX {
                return Err(archive_kind(path, &format!("it has more than {MEMBERS_MAX} members")));
            }
            let Some(name) = std::str::from_utf8(&member.name).ok().filter(|name| name.len() <= NAME_BYTES_MAX) else {
                continue;
            };
            let name = name.trim_start_matches("./").to_owned();
            let link = match &member.kind {
                Kind::File => None,
                Kind::Symlink(to) => linked(&name, to),
                Kind::HardLink(to) => linked("", to),
                Kind::Folder | Kind::Special => continue,
            };
            let offset = members.position();
            let may_be_json = name.ends_with(".json") || name.starts_with(BLOBS);
            let mut json = None;
            if may_be_json && member.bytes <= JSON_BYTES_MAX && stored + member.bytes <= STORED_BYTES_MAX {
                let content = members.read_all(JSON_BYTES_MAX).map_err(|error| members_error(path, error))?;
                json = content.filter(|content| name.ends_with(".json") || is_of_use(content));
                stored += json.as_ref().map_or(0, |_| member.bytes);
            } else {
                archive.is_full |= may_be_json && member.bytes <= JSON_BYTES_MAX;
            }
            archive.members.insert(name, Stored { offset, bytes: member.bytes, json, link });
        }
        Ok(archive)
    }

    /// The images: those for the platform, and those that are for others only.
    ///
    /// * `wanted`: `None` is linux/amd64 where an image has that, or else the only one that it has.
    pub(super) fn images(
        &self,
        wanted: Option<&ImagePlatform>,
    ) -> Result<(Vec<ArchivedImage>, Vec<OtherPlatforms>), ImagesError> {
        if !self.members.contains_key(INDEX) && !self.members.contains_key(DOCKER_MANIFEST) {
            let what = "it has neither index.json nor manifest.json, or was cut off before them";
            return Err(archive_kind(&self.path, what));
        }
        let (mut images, mut others) = (Vec::new(), Vec::new());
        if self.members.contains_key(INDEX) {
            self.of_layout(wanted, &mut images, &mut others)?;
        }
        if self.members.contains_key(DOCKER_MANIFEST) {
            self.of_docker(wanted, &mut images, &mut others)?;
        }
        if images.is_empty() && others.is_empty() {
            return Err(archive_kind(&self.path, "it holds no image"));
        }
        Ok((images, others))
    }

    fn of_layout(
        &self,
        wanted: Option<&ImagePlatform>,
        images: &mut Vec<ArchivedImage>,
        others: &mut Vec<OtherPlatforms>,
    ) -> Result<(), ImagesError> {
        let index: Index = self.parse(self.json(INDEX)?, INDEX)?;
        let mut left = DESCRIPTORS_MAX;
        // A name may have one descriptor for each platform.
        let mut groups: Vec<(Option<ImageName>, Vec<Candidate>, Option<String>)> = Vec::new();
        for descriptor in &index.manifests {
            let name = name(descriptor);
            let (mut candidates, mut absent) = (Vec::new(), None);
            self.collect(descriptor, &descriptor.digest, DEPTH_MAX, &mut left, &mut candidates, &mut absent)?;
            match groups.iter_mut().find(|(other, ..)| name.is_some() && *other == name) {
                Some((_, all, missing)) => {
                    all.extend(candidates);
                    *missing = missing.take().or(absent);
                }
                None => groups.push((name, candidates, absent)),
            }
        }
        for (name, candidates, absent) in groups {
            let names: Vec<_> = name.into_iter().collect();
            if candidates.is_empty() {
                if let (Some(absent), [name]) = (absent, &names[..]) {
                    return Err(
                        self.content(format!("{} is named as {name}, and is missing", printable(absent.as_bytes())))
                    );
                }
                continue;
            }
            match self.choose(&names, candidates, wanted)? {
                Ok(chosen) => {
                    let same = images.iter_mut().find(|image| {
                        image
                            .digests
                            .as_ref()
                            .is_some_and(|[target, own]| *target == chosen.target && *own == chosen.digest)
                    });
                    match same {
                        Some(image) => image.names.extend(names),
                        None => {
                            let image = self.image(names, chosen)?;
                            self.push(images, image)?;
                        }
                    }
                }
                Err(platforms) => others.push(OtherPlatforms { names, platforms }),
            }
        }
        Ok(())
    }

    /// The manifests at and below a descriptor that are in the archive and are those of images.
    ///
    /// * `target`: what the name refers to.
    /// * `absent`: gets a digest that is named and is not there.
    fn collect(
        &self,
        descriptor: &Descriptor,
        target: &str,
        depth: usize,
        left: &mut usize,
        found: &mut Vec<Candidate>,
        absent: &mut Option<String>,
    ) -> Result<(), ImagesError> {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| self.content(format!("its indexes name more than {DESCRIPTORS_MAX} manifests")))?;
        let is_of_no_platform = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
        if descriptor.platform.as_ref().is_some_and(is_of_no_platform)
            || descriptor.annotations.contains_key("vnd.docker.reference.type")
            || !(descriptor.is_index() || descriptor.is_manifest())
        {
            return Ok(());
        }
        let member = self.member_of(&descriptor.digest)?;
        if !self.members.contains_key(&member) {
            *absent = Some(descriptor.digest.clone());
            return Ok(());
        }
        let json = self.verified(&member, &descriptor.digest)?;
        let is_index = descriptor.is_index()
            || (descriptor.media_type.is_empty() && serde_json::from_slice::<Index>(json).is_ok());
        if is_index {
            let index: Index = self.parse(json, &member)?;
            let depth = depth
                .checked_sub(1)
                .ok_or_else(|| self.content(format!("its indexes are nested more than {DEPTH_MAX} deep")))?;
            return index
                .manifests
                .iter()
                .try_for_each(|descriptor| self.collect(descriptor, target, depth, left, found, absent));
        }
        let manifest: Manifest = self.parse(json, &member)?;
        // Charts, signatures and other things that are not images.
        if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
            return Ok(());
        }
        let of_config = self.member_of(&manifest.config.digest)?;
        let config = self.config(&of_config, self.verified(&of_config, &manifest.config.digest)?)?;
        if found.iter().all(|other| other.digest != descriptor.digest) {
            found.push(Candidate { target: target.to_owned(), digest: descriptor.digest.clone(), manifest, config });
        }
        Ok(())
    }

    /// The candidate for the platform, or else the platforms that there are.
    fn choose(
        &self,
        names: &[ImageName],
        mut candidates: Vec<Candidate>,
        wanted: Option<&ImagePlatform>,
    ) -> Result<Result<Candidate, Vec<String>>, ImagesError> {
        let usual = ImagePlatform::default();
        let find = |platform: &ImagePlatform| candidates.iter().position(|one| platform.fits(&one.config));
        let place = match wanted {
            Some(wanted) => find(wanted),
            None => find(&usual).or_else(|| (candidates.len() == 1).then_some(0)),
        };
        if let Some(place) = place {
            return Ok(Ok(candidates.swap_remove(place)));
        }
        let platforms: Vec<_> = candidates.iter().map(|one| ImagePlatform::of(&one.config).to_string()).collect();
        match wanted {
            Some(_) => Ok(Err(platforms)),
            None => {
                let name = names.first().map_or_else(|| candidates[0].target.clone(), ToString::to_string);
                Err(ImagesError::Platform { path: self.path.clone(), name, platforms: platforms.join(", ") })
            }
        }
    }

    fn image(&self, names: Vec<ImageName>, chosen: Candidate) -> Result<ArchivedImage, ImagesError> {
        let Candidate { target, digest, manifest, config } = chosen;
        let layers =
            manifest.layers.iter().map(|layer| Ok((self.member_of(&layer.digest)?, Some(layer.digest.clone()))));
        let layers = self.layers(layers.collect::<Result<_, ImagesError>>()?, &config)?;
        Ok(ArchivedImage { names, digests: Some([target, digest]), id: manifest.config.digest, config, layers })
    }

    fn of_docker(
        &self,
        wanted: Option<&ImagePlatform>,
        images: &mut Vec<ArchivedImage>,
        others: &mut Vec<OtherPlatforms>,
    ) -> Result<(), ImagesError> {
        let saved: Vec<Saved> = self.parse(self.json(DOCKER_MANIFEST)?, DOCKER_MANIFEST)?;
        if saved.len() > IMAGES_MAX {
            return Err(self.too_many_images());
        }
        for one in saved {
            let tags = one.repo_tags.unwrap_or_default();
            if tags.len() > NAMES_MAX {
                return Err(self.content(format!("an image has {} names, expected at most {NAMES_MAX}", tags.len())));
            }
            let mut names = Vec::new();
            for tag in &tags {
                let name = ImageName::parse(tag);
                names.push(name.ok_or_else(|| {
                    self.content(format!("its manifest.json names an image '{}'", printable(tag.as_bytes())))
                })?);
            }
            let json = self.json(&one.config)?;
            let id = format!("sha256:{}", Sha256::of(json));
            // The name of the file is the digest, with or without an ending.
            let stem = one.config.strip_prefix(BLOBS).unwrap_or(&one.config);
            let stem = format!("sha256:{}", stem.strip_suffix(".json").unwrap_or(stem));
            if is_digest(&stem) && stem != id {
                return Err(self.digest(&one.config, stem, id));
            }
            if let Some(image) = images.iter_mut().find(|image| image.id == id) {
                names.retain(|name| !image.names.contains(name));
                image.names.extend(names);
                continue;
            }
            // Next to an index of several platforms, this is one of them.
            let has_names = !names.is_empty();
            names.retain(|name| {
                let is_new = |other: &Vec<ImageName>| !other.contains(name);
                images.iter().all(|image| is_new(&image.names)) && others.iter().all(|other| is_new(&other.names))
            });
            if has_names && names.is_empty() {
                continue;
            }
            let config = self.config(&one.config, json)?;
            if wanted.is_some_and(|wanted| !wanted.fits(&config)) {
                others.push(OtherPlatforms { names, platforms: vec![ImagePlatform::of(&config).to_string()] });
                continue;
            }
            let layers = one.layers.unwrap_or_default().into_iter().map(|layer| (layer, None)).collect();
            let layers = self.layers(layers, &config)?;
            self.push(images, ArchivedImage { names, digests: None, id, config, layers })?;
        }
        Ok(())
    }

    fn push(&self, images: &mut Vec<ArchivedImage>, image: ArchivedImage) -> Result<(), ImagesError> {
        if images.len() >= IMAGES_MAX {
            return Err(self.too_many_images());
        }
        images.push(image);
        Ok(())
    }

    fn too_many_images(&self) -> ImagesError {
        self.content(format!("it holds more than {IMAGES_MAX} images"))
    }

    /// The layers of an image where they are in the archive.
    fn layers(&self, layers: Vec<(String, Option<String>)>, config: &Config) -> Result<Vec<LayerRef>, ImagesError> {
        if layers.len() != config.layers.len() {
            let (found, expected) = (layers.len(), config.layers.len());
            return Err(self.content(format!("an image has {found} layers, and {expected} by its configuration")));
        }
        if layers.len() > LAYERS_MAX {
            return Err(self.content(format!("an image has {} layers, expected at most {LAYERS_MAX}", layers.len())));
        }
        let layers = layers.into_iter().zip(&config.layers);
        let layers = layers.map(|((member, digest), unpacked_digest)| {
            let mut real = member.trim_start_matches("./");
            for _ in 0..LINKS_MAX {
                match self.members.get(real).and_then(|stored| stored.link.as_deref()) {
                    Some(link) => real = link,
                    None => break,
                }
            }
            let stored = self.members.get(real).filter(|stored| stored.link.is_none());
            let stored = stored.ok_or_else(|| self.missing(&member))?;
            Ok(LayerRef {
                member: real.to_owned(),
                offset: stored.offset,
                bytes: stored.bytes,
                digest,
                unpacked_digest: unpacked_digest.clone(),
            })
        });
        layers.collect()
    }

    fn member_of(&self, digest: &str) -> Result<String, ImagesError> {
        match digits(digest).filter(|_| is_digest(digest)) {
            Some(digits) => Ok(format!("{BLOBS}{digits}")),
            None => {
                let digest = printable(digest.as_bytes());
                Err(self.content(format!("it has the digest '{digest}', expected sha256: and 64 digits")))
            }
        }
    }

    fn json(&self, member: &str) -> Result<&[u8], ImagesError> {
        let stored = self.members.get(member.trim_start_matches("./")).ok_or_else(|| self.missing(member))?;
        if let Some(json) = stored.json.as_deref() {
            let left = self.left.get().checked_sub(stored.bytes);
            self.left.set(left.ok_or_else(|| self.too_much_json())?);
            return Ok(json);
        }
        Err({
            let name = printable(member.as_bytes());
            match (stored.bytes > JSON_BYTES_MAX, self.is_full) {
                (true, _) => self
                    .content(format!("{name} has {} bytes, expected at most {JSON_BYTES_MAX} of JSON", stored.bytes)),
                (false, true) => self.too_much_json(),
                (false, false) => self.content(format!("{name} is not JSON of an image")),
            }
        })
    }

    fn too_much_json(&self) -> ImagesError {
        self.content(format!("its JSON has more than {STORED_BYTES_MAX} bytes"))
    }

    fn verified(&self, member: &str, digest: &str) -> Result<&[u8], ImagesError> {
        let json = self.json(member)?;
        let found = format!("sha256:{}", Sha256::of(json));
        match found == digest {
            true => Ok(json),
            false => Err(self.digest(member, digest.to_owned(), found)),
        }
    }

    fn config(&self, member: &str, json: &[u8]) -> Result<Config, ImagesError> {
        let invalid =
            |what| self.content(format!("the configuration {} is invalid: {what}", printable(member.as_bytes())));
        Config::parse(json).map_err(invalid)
    }

    fn parse<T: DeserializeOwned>(&self, json: &[u8], member: &str) -> Result<T, ImagesError> {
        serde_json::from_slice(json).map_err(|error| {
            self.content(format!("{} is invalid: {}", printable(member.as_bytes()), config::place(&error)))
        })
    }

    fn missing(&self, member: &str) -> ImagesError {
        self.content(format!("{} is missing", printable(member.as_bytes())))
    }

    fn content(&self, what: String) -> ImagesError {
        ImagesError::Content { path: self.path.clone(), what }
    }

    fn digest(&self, member: &str, expected: String, found: String) -> ImagesError {
        ImagesError::Digest { path: self.path.clone(), member: printable(member.as_bytes()), expected, found }
    }
}

/// Whether a blob is JSON, and not that of an attestation: lists of an image's packages have megabytes.
fn is_of_use(content: &[u8]) -> bool {
    /// A statement of in-toto has its type at the top.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Statement {
        #[expect(dead_code, reason = "only whether it is there counts")]
        predicate_type: serde::de::IgnoredAny,
    }
    let first = content.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'[')) && serde_json::from_slice::<Statement>(content).is_err()
}

/// The name of an image in an index. A tag alone is not one.
fn name(descriptor: &Descriptor) -> Option<ImageName> {
    let mut names = descriptor.names().filter(|name| name.contains(['/', ':']));
    names.find_map(ImageName::parse)
}

/// The member that a link leads to; `None` when it is out of the archive.
///
/// * `from`: the link's own path, or nothing for paths from the root of the archive.
fn linked(from: &str, to: &[u8]) -> Option<String> {
    let to = std::str::from_utf8(to).ok().filter(|to| to.len() <= NAME_BYTES_MAX && !to.starts_with('/'))?;
    let mut names: Vec<&str> = from.split('/').collect();
    names.pop();
    for name in to.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn archive_kind(path: &Path, what: &str) -> ImagesError {
    ImagesError::Kind { path: path.to_owned(), what: what.to_owned() }
}

/// An error of an archive's own tar.
fn members_error(path: &Path, error: MembersError) -> ImagesError {
    match error {
        MembersError::Read(source) => ImagesError::of_read(path, source),
        MembersError::CutShort(member) => {
            ImagesError::CutShort { path: path.to_owned(), what: format!("it ends within {member}") }
        }
        header @ MembersError::Header { .. } => {
            ImagesError::Content { path: path.to_owned(), what: header.to_string() }
        }
    }
}
