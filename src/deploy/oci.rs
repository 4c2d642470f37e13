//! Cairn's own container image, written by Cairn from its own executable: no Docker, no registry, no network.
//!
//! One tar that is an OCI image layout and a `docker save` archive at once, so that containerd, K3s, skopeo, podman and
//! `docker load` all read it. It has one layer, uncompressed, with the executable and what `images/` holds, no shell and no
//! library; an image for GPUs has a second one with libraries of the machine that builds it ([`gpu`]). The same files give the same bytes on every machine: owners and times are fixed, members are sorted, JSON
//! has a fixed order. The index names the one manifest twice, by tag and by digest, because Kubernetes finds an image by the
//! name that it was imported under and no other. With executables for several processors the names are those of a second index, which
//! has a manifest for each of them.
//!
//! [`Image::of`] reads the executable once and knows every digest and size, that of the program itself among them; [`Image::write_to`]
//! reads it a second time. The
//! memory in use does not depend on the executable's size.

mod archive;
pub mod gpu;
mod layer;
pub(crate) mod layout;
mod reference;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use self::archive::{ArchiveError, ArchivedImage};
use self::layer::Layer;
pub use self::reference::{Reference, ReferenceError};
pub(crate) use self::reference::{is_host, is_path, is_tag};
use super::executable::{Architecture, Executable, ExecutableError};
use super::output::{OutputError, check_space, write_whole};
use super::release::Program;
use super::sha256::Sha256;
use super::shape::{ENVIRONMENT, PORTS, STOP_SIGNAL, USER};
use super::tarball::{self, Entry, header, padded, padding};
use crate::base::Fault;

/// Repository of the image that Cairn names on its own. The dot in its first part keeps others from looking for it in a
/// public registry.
pub const REPOSITORY: &str = "cairn.local/cairn";
/// What starts when a container does.
pub const ENTRYPOINT: &str = "/cairn";
/// Arguments where none are given.
pub const ARGUMENTS: &[&str] = &["serve"];
/// Labels that say what the image is, by the names of the OCI's annotations.
pub const LABELS: &[(&str, &str)] = &[
    ("org.opencontainers.image.description", env!("CARGO_PKG_DESCRIPTION")),
    ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
    ("org.opencontainers.image.title", env!("CARGO_PKG_NAME")),
    ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
];

/// The time of everything in the image: a true one would differ from build to build.
const CREATED: &str = "1970-01-01T00:00:00Z";

const TYPE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TYPE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is not an executable for an image.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// A file changed while the image was written.
    #[error("{what} changed while the image was written; try again once nobody writes it")]
    Changed {
        /// Which one, or which kind.
        what: String,
    },
    /// There is no layer for GPUs.
    #[error(transparent)]
    Gpu(#[from] gpu::GpuLayerError),
    /// The image cannot be written to its file.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The image cannot be written to where its bytes were to go.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
}

impl ImageError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Executable(error) => error.fault(),
            Self::Gpu(error) => error.fault(),
            Self::Output(error) => error.fault(),
            Self::Changed { .. } | Self::Write(_) => Fault::Environment,
        }
    }
}

/// A blob of the image: its digest and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Sha256,
    /// How many they are.
    pub bytes: u64,
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        Self { digest: Sha256::of(bytes), bytes: bytes.len() as u64 }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes})
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }
}

/// An image that can be written: everything about it is known, and only the bytes of its files are not in memory.
#[derive(Debug)]
pub struct Image {
    reference: Reference,
    /// Sorted by processor.
    platforms: Vec<PlatformImage>,
    /// What the name stands for: the manifest of the one platform, or the index of several.
    target: Blob,
    /// Members of the archive, sorted by path.
    members: Vec<(String, Content)>,
}

/// The image for one kind of processor.
#[derive(Debug)]
struct PlatformImage {
    architecture: Architecture,
    program: Program,
    layers: Vec<Layer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// Which platform, which of its layers, and its length.
    Layer(usize, usize, u64),
    Nothing,
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Layer(_, _, bytes) => *bytes,
            Self::Nothing => 0,
        }
    }
}

impl PlatformImage {
    /// The image of an executable; with a second layer for GPUs where one was collected.
    fn of(executable: Executable, gpu: Option<gpu::Collected>) -> Result<Self, ImageError> {
        let architecture = executable.architecture;
        let mut environment: Vec<_> = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let (layer, program) = Layer::of_program(executable)?;
        let mut layers = vec![layer];
        if let Some(gpu) = gpu {
            environment.extend(gpu::environment(architecture));
            layers.push(gpu.layer(architecture)?);
        }
        let config = config(architecture, &layers, &environment).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": TYPE_MANIFEST,
            "config": Blob::of(&config).descriptor(TYPE_CONFIG),
            "layers": layers.iter().map(|layer| layer.blob.descriptor(TYPE_LAYER)).collect::<Vec<_>>(),
        });
        Ok(Self { architecture, program, layers, config, manifest: manifest.to_string().into_bytes() })
    }

    /// Its manifest with the platform.
    fn descriptor(&self) -> Value {
        let mut descriptor = Blob::of(&self.manifest).descriptor(TYPE_MANIFEST);
        descriptor["platform"] = json!({"architecture": self.architecture.oci(), "os": "linux"});
        descriptor
    }
}

impl Image {
    /// The image of an executable, under Cairn's own name and version. Reads the executable once.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn of(executable: &Path) -> Result<Self, ImageError> {
        Self::named(executable, &[], Reference::this_release())
    }

    /// The image of an executable, and of those of the same release for other processors, under another name. Whichever is named
    /// first, the bytes are the same.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn named(executable: &Path, others: &[PathBuf], reference: Reference) -> Result<Self, ImageError> {
        let executables = Executable::open_all(executable, others)?;
        let platforms = executables.into_iter().map(|executable| PlatformImage::of(executable, None));
        Ok(Self::assemble(reference, platforms.collect::<Result<_, _>>()?))
    }

    /// The image of an executable with a second layer, for GPUs.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn with_gpu(executable: &Path, reference: Reference, layer: gpu::Collected) -> Result<Self, ImageError> {
        let executable = Executable::open_of_this_release(executable)?;
        Ok(Self::assemble(reference, vec![PlatformImage::of(executable, Some(layer))?]))
    }

    fn assemble(reference: Reference, platforms: Vec<PlatformImage>) -> Self {
        let mut members = vec![
            ("blobs/".to_owned(), Content::Nothing),
            ("blobs/sha256/".to_owned(), Content::Nothing),
            ("oci-layout".to_owned(), Content::Bytes(json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes())),
        ];
        for (at, platform) in platforms.iter().enumerate() {
            for bytes in [&platform.config, &platform.manifest] {
                members.push((Blob::of(bytes).path(), Content::Bytes(bytes.clone())));
            }
            let layers = platform.layers.iter().enumerate();
            members.extend(layers.map(|(layer, one)| (one.blob.path(), Content::Layer(at, layer, one.blob.bytes))));
        }
        let (target, descriptor) = match &platforms[..] {
            [one] => (Blob::of(&one.manifest), one.descriptor()),
            several => {
                let list = index(several.iter().map(PlatformImage::descriptor).collect()).to_string().into_bytes();
                let blob = Blob::of(&list);
                members.push((blob.path(), Content::Bytes(list)));
                (blob, blob.descriptor(TYPE_INDEX))
            }
        };
        let names = index(named(&reference, target, &descriptor)).to_string().into_bytes();
        members.push(("index.json".to_owned(), Content::Bytes(names)));
        members.push(("manifest.json".to_owned(), Content::Bytes(docker(&reference, &platforms[0]))));
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { reference, platforms, target, members }
    }

    /// The program in it; of several, that of the first platform.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.platforms[0].program
    }

    /// The name with its tag.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The name with the digest: what a manifest for Kubernetes says, so that it gets these bytes and no others.
    #[must_use]
    pub fn pinned(&self) -> String {
        self.reference.pinned(self.target.digest)
    }

    /// Digest of the image's manifest, or of the index of several platforms, which covers everything in it: `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.target.digest)
    }

    /// Its layers by platform, which are not compressed: the program's, and one for GPUs where it has that.
    pub fn layers(&self) -> impl Iterator<Item = (Architecture, Blob)> {
        let of =
            |one: &PlatformImage| (one.architecture, one.layers.iter().map(|layer| layer.blob).collect::<Vec<_>>());
        self.platforms.iter().map(of).flat_map(|(of, blobs)| blobs.into_iter().map(move |blob| (of, blob)))
    }

    /// What the executables run on, in ascending order.
    pub fn architectures(&self) -> impl Iterator<Item = Architecture> {
        self.platforms.iter().map(|platform| platform.architecture)
    }

    /// Length of the archive.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let members = self.members.iter().map(|(path, content)| {
            let header = header(outer(path, content)).expect("digests make short paths");
            header.len() as u64 + padded(content.bytes())
        });
        members.sum::<u64>() + tarball::END.len() as u64
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// [`ImageError::Changed`] when a file is not what it was any more; what was written until then is of no use.
    pub fn write_to(&self, mut to: impl Write) -> Result<(), ImageError> {
        for (path, content) in &self.members {
            let header = header(outer(path, content)).expect("digests make short paths");
            to.write_all(&header).map_err(ImageError::Write)?;
            match content {
                Content::Bytes(bytes) => to.write_all(bytes).map_err(ImageError::Write)?,
                Content::Layer(at, layer, _) => self.platforms[*at].layers[*layer].write(&mut to)?,
                Content::Nothing => {}
            }
            write_zeros(&mut to, padding(content.bytes())).map_err(ImageError::Write)?;
        }
        to.write_all(&tarball::END).map_err(ImageError::Write)?;
        to.flush().map_err(ImageError::Write)
    }

    /// Writes the archive to a file, which appears under its name once it is whole and on the disk. Refused before the first
    /// byte when there is no room for it.
    ///
    /// # Errors
    /// See [`ImageError`]; a file that had the name before is as it was.
    pub fn write_file(&self, path: &Path) -> Result<(), ImageError> {
        check_space(path, self.bytes())?;
        write_whole(path, 0o644, |out| {
            self.write_to(out).map_err(|error| match error {
                ImageError::Write(source) => OutputError::Write { path: path.to_owned(), source }.into(),
                other => other,
            })
        })
    }
}

fn outer<'a>(path: &'a str, content: &Content) -> Entry<'a> {
    let mode = if path.ends_with('/') { 0o755 } else { 0o644 };
    Entry { path, mode, owner: 0, bytes: content.bytes() }
}

fn write_zeros(to: &mut impl Write, count: usize) -> io::Result<()> {
    to.write_all(&[0; tarball::BLOCK][..count])
}

fn config(architecture: Architecture, layers: &[Layer], environment: &[(&'static str, String)]) -> Value {
    let environment: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ports: Map<String, Value> = PORTS.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let labels: Map<String, Value> =
        LABELS.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({
        "created": CREATED,
        "architecture": architecture.oci(),
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": ports,
            "Env": environment,
            "Entrypoint": [ENTRYPOINT],
            "Cmd": ARGUMENTS,
            "WorkingDir": "/",
            "Labels": labels,
            "StopSignal": STOP_SIGNAL,
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| format!("sha256:{}", layer.blob.digest)).collect::<Vec<_>>(),
        },
        "history": layers.iter().map(|_| json!({"created": CREATED, "created_by": "cairn image build"})).collect::<Vec<_>>(),
    })
}

fn index(manifests: Vec<Value>) -> Value {
    json!({"schemaVersion": 2, "mediaType": TYPE_INDEX, "manifests": manifests})
}

/// What the image's name stands for, under both names. containerd takes the name from the first annotation, others from the second.
fn named(reference: &Reference, target: Blob, descriptor: &Value) -> Vec<Value> {
    let under = |name: String, short: String| {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": short,
        });
        descriptor
    };
    let pinned = reference.pinned(target.digest);
    vec![under(reference.to_string(), reference.tag().to_owned()), under(pinned.clone(), pinned)]
}

/// The list that `docker load` reads, which knows one platform for a name.
fn docker(reference: &Reference, platform: &PlatformImage) -> Vec<u8> {
    let list = json!([{
        "Config": Blob::of(&platform.config).path(),
        "RepoTags": [reference.to_string()],
        "Layers": platform.layers.iter().map(|layer| layer.blob.path()).collect::<Vec<_>>(),
    }]);
    list.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::executable::OWN_EXECUTABLE;
    use super::*;

    #[test]
    fn the_length_is_known_before_anything_is_written() {
        let image = Image::of(Path::new(OWN_EXECUTABLE)).unwrap();
        let mut count = Count(0);
        image.write_to(&mut count).unwrap();
        assert_eq!(image.bytes(), count.0);
    }

    struct Count(u64);

    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_executable_that_changes_in_between_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cairn");
        fs::copy(OWN_EXECUTABLE, &path).unwrap();
        let image = Image::of(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(image.write_to(io::sink()), Err(ImageError::Changed { .. })));
        fs::write(&path, &bytes[..last]).unwrap();
        assert!(matches!(image.write_to(io::sink()), Err(ImageError::Changed { .. })));
    }

    #[test]
    fn a_full_pipe_is_said() {
        let image = Image::of(Path::new(OWN_EXECUTABLE)).unwrap();
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        assert!(matches!(image.write_to(full), Err(ImageError::Write(_))));
    }
}
