//! The JSON of an OCI image layout, and of what Docker writes in its form: indexes, manifests and their descriptors.
//!
//! Source: the OCI Image Format Specification 1.1, `image-index.md`, `manifest.md` and `descriptor.md`.

use std::collections::HashMap;

use serde::Deserialize;

use super::{TYPE_INDEX, TYPE_MANIFEST};

/// The blobs of a layout, by the digits of their digest.
pub(crate) const BLOBS: &str = "blobs/sha256/";
/// Docker's name of an index.
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name of a manifest.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The annotation with a full name, which containerd and Docker write.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation with a name, or with a tag alone.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `index.json`, or an index among the blobs.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    /// What it names.
    pub(crate) manifests: Vec<Descriptor>,
}

/// What names a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// `sha256:` and 64 digits, where it is by SHA-256.
    pub(crate) digest: String,
    /// Empty where it is not written.
    #[serde(default)]
    pub(crate) media_type: String,
    /// Where an index says it.
    pub(crate) platform: Option<Platform>,
    /// Further facts by name.
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    /// As Go names it: `amd64`.
    pub(crate) architecture: String,
    /// As Go names it: `linux`.
    pub(crate) os: String,
    /// Such as `v7`, of `arm`.
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// A manifest: one image for one platform.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    /// What the image says of itself.
    pub(crate) config: Descriptor,
    /// From the lowest.
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

impl Descriptor {
    /// The texts that may name the image, the full name of containerd and Docker first: the other one is a tag alone in some archives.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| self.annotations.get(key)).map(String::as_str)
    }

    /// Whether it names an index.
    pub(crate) fn is_index(&self) -> bool {
        [TYPE_INDEX, DOCKER_INDEX].contains(&self.media_type.as_str())
    }

    /// Whether it may name a manifest. The type may be left out.
    pub(crate) fn is_manifest(&self) -> bool {
        [TYPE_MANIFEST, DOCKER_MANIFEST, ""].contains(&self.media_type.as_str())
    }
}

/// The digits of a digest that is one by SHA-256.
pub(crate) fn digits(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:")
}
