//! Cairn's own container image, written by Cairn from its own executable: no Docker, no registry, no network.
//!
//! One tar that is an OCI image layout and a `docker save` archive at once, so that containerd, K3s, skopeo, podman and
//! `docker load` all read it. It has one layer, uncompressed, with the executable and what `images/` holds, no shell and no
//! library; an image for GPUs has a second one with libraries of the machine that builds it ([`gpu`]). The same files give the same bytes on every machine: owners and times are fixed, members are sorted, JSON
//! has a fixed order. The index names the one manifest twice, by tag and by digest, because Kubernetes finds an image by the
//! name that it was imported under and no other.
//!
//! [`Image::of`] reads the executable once and knows every digest and size, that of the program itself among them; [`Image::write_to`]
//! reads it a second time. The
//! memory in use does not depend on the executable's size.

pub mod gpu;
mod reference;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use self::reference::{Reference, ReferenceError};
use super::executable::{Architecture, Executable, ExecutableError, FileContent};
use super::loader::Library;
use super::output::{OutputError, check_space, write_whole};
use super::release::Program;
use super::sha256::{Sha256, Sha256Hasher};
use super::shape::{ENVIRONMENT, PORTS, STOP_SIGNAL, USER};
use super::tarball::{self, Entry, header, padded, padding};
use crate::base::{Digest, Fault};

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

const PASSWD: &[u8] = include_bytes!("../../images/passwd");
const GROUP: &[u8] = include_bytes!("../../images/group");

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

/// What is in a layer, under one path.
#[derive(Debug)]
struct Member {
    path: String,
    mode: u32,
    owner: u32,
    content: MemberContent,
}

#[derive(Debug)]
enum MemberContent {
    /// A file of this machine, as long as it was when it was opened.
    File {
        path: PathBuf,
        file: File,
        bytes: u64,
    },
    Bytes(Vec<u8>),
    Nothing,
}

impl Member {
    fn library(path: String, Library { path: from, file, bytes, .. }: Library) -> Self {
        Self { path, mode: 0o755, owner: 0, content: MemberContent::File { path: from, file, bytes } }
    }

    fn bytes(path: String, bytes: Vec<u8>) -> Self {
        Self { path, mode: 0o644, owner: 0, content: MemberContent::Bytes(bytes) }
    }

    fn folder(path: String) -> Self {
        Self { path, mode: 0o755, owner: 0, content: MemberContent::Nothing }
    }

    fn len(&self) -> u64 {
        match &self.content {
            MemberContent::File { bytes, .. } => *bytes,
            MemberContent::Bytes(bytes) => bytes.len() as u64,
            MemberContent::Nothing => 0,
        }
    }
}

/// Members of an archive that is a layer of the image, sorted, with its digest.
#[derive(Debug)]
struct Layer {
    members: Vec<Member>,
    blob: Blob,
}

impl Layer {
    /// Reads every member once.
    fn of(members: Vec<Member>) -> Result<Self, ImageError> {
        Self::with_files(members, &mut io::sink())
    }

    /// The same; what is in its files goes to `files` too.
    fn with_files(members: Vec<Member>, files: &mut impl Write) -> Result<Self, ImageError> {
        let mut layer = Self { members, blob: Blob::of(b"") };
        let mut hasher = Sha256Hasher::new();
        let bytes = layer.write_unchecked(&mut hasher, files)?;
        layer.blob = Blob { digest: hasher.finish(), bytes };
        Ok(layer)
    }

    /// The layer of every image, and the program in it.
    fn of_program(executable: Executable) -> Result<(Self, Program), ImageError> {
        let Executable { path, file, bytes, .. } = executable;
        let folder = |path: &str| Member::folder(path.to_owned());
        let mut hasher = blake3::Hasher::new();
        let mut program = Program { path: path.clone(), bytes, digest: Digest([0; 32]) };
        let members = vec![
            Member {
                path: "cairn".to_owned(),
                mode: 0o755,
                owner: 0,
                content: MemberContent::File { path, file, bytes },
            },
            folder("etc/"),
            Member::bytes("etc/group".to_owned(), GROUP.to_vec()),
            Member::bytes("etc/passwd".to_owned(), PASSWD.to_vec()),
            Member { mode: 0o1777, ..folder("tmp/") },
            folder("var/"),
            folder("var/lib/"),
            Member { mode: 0o700, owner: USER, ..folder("var/lib/cairn/") },
        ];
        let layer = Self::with_files(members, &mut hasher)?;
        program.digest = Digest(*hasher.finalize().as_bytes());
        Ok((layer, program))
    }

    /// Writes it, and fails when it is not what was read before.
    fn write(&self, to: &mut impl Write) -> Result<(), ImageError> {
        let mut hasher = Sha256Hasher::new();
        self.write_unchecked(&mut Both(&mut hasher, to), &mut io::sink())?;
        if hasher.finish() == self.blob.digest {
            return Ok(());
        }
        let files = self.members.iter().filter_map(|member| match &member.content {
            MemberContent::File { path, .. } => Some(path.display().to_string()),
            MemberContent::Bytes(_) | MemberContent::Nothing => None,
        });
        // Of several it is not known which.
        Err(ImageError::Changed { what: files.reduce(|_, _| "a library for GPUs".to_owned()).unwrap_or_default() })
    }

    /// Writes it, and what is in its files to `files`; returns its length.
    fn write_unchecked(&self, to: &mut impl Write, files: &mut impl Write) -> Result<u64, ImageError> {
        let mut written = 0;
        for member in &self.members {
            let entry =
                Entry { path: &member.path, mode: member.mode, owner: u64::from(member.owner), bytes: member.len() };
            let header = header(entry).map_err(ImageError::Write)?;
            to.write_all(&header).map_err(ImageError::Write)?;
            match &member.content {
                MemberContent::File { path, file, bytes } => copy(path, file, *bytes, &mut Both(to, files))?,
                MemberContent::Bytes(bytes) => to.write_all(bytes).map_err(ImageError::Write)?,
                MemberContent::Nothing => {}
            }
            write_zeros(to, padding(member.len())).map_err(ImageError::Write)?;
            written += header.len() as u64 + padded(member.len());
        }
        to.write_all(&tarball::END).map_err(ImageError::Write)?;
        Ok(written + tarball::END.len() as u64)
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
    architecture: Architecture,
    reference: Reference,
    program: Program,
    layers: Vec<Layer>,
    manifest: Blob,
    /// Members of the archive, sorted by path.
    members: Vec<(String, Content)>,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// Which one, and its length.
    Layer(usize, u64),
    Nothing,
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Layer(_, bytes) => *bytes,
            Self::Nothing => 0,
        }
    }
}

impl Image {
    /// The image of an executable, under Cairn's own name and version. Reads the executable once.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn of(executable: &Path) -> Result<Self, ImageError> {
        Self::named(executable, Reference::this_release())
    }

    /// The image of an executable under another name.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn named(executable: &Path, reference: Reference) -> Result<Self, ImageError> {
        let executable = Executable::open(executable)?;
        let architecture = executable.architecture;
        let environment = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let (layer, program) = Layer::of_program(executable)?;
        Ok(Self::assemble(architecture, reference, program, vec![layer], environment))
    }

    /// The image of an executable with a second layer, for GPUs.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn with_gpu(executable: &Path, reference: Reference, layer: gpu::Collected) -> Result<Self, ImageError> {
        let executable = Executable::open(executable)?;
        let architecture = executable.architecture;
        let environment = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let environment = environment.chain(gpu::environment(architecture)).collect();
        let (of_program, program) = Layer::of_program(executable)?;
        let layers = vec![of_program, layer.layer(architecture)?];
        Ok(Self::assemble(architecture, reference, program, layers, environment))
    }

    fn assemble(
        architecture: Architecture,
        reference: Reference,
        program: Program,
        layers: Vec<Layer>,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let config = config(architecture, &layers, &environment).to_string().into_bytes();
        let config_blob = Blob::of(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": TYPE_MANIFEST,
            "config": config_blob.descriptor(TYPE_CONFIG),
            "layers": layers.iter().map(|layer| layer.blob.descriptor(TYPE_LAYER)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let manifest_blob = Blob::of(&manifest);
        let index = index(&reference, manifest_blob, architecture).to_string().into_bytes();
        let docker = json!([{
            "Config": config_blob.path(),
            "RepoTags": [reference.to_string()],
            "Layers": layers.iter().map(|layer| layer.blob.path()).collect::<Vec<_>>(),
        }]);

        let mut members = vec![
            ("blobs/".to_owned(), Content::Nothing),
            ("blobs/sha256/".to_owned(), Content::Nothing),
            (config_blob.path(), Content::Bytes(config)),
            (manifest_blob.path(), Content::Bytes(manifest)),
            ("index.json".to_owned(), Content::Bytes(index)),
            ("manifest.json".to_owned(), Content::Bytes(docker.to_string().into_bytes())),
            ("oci-layout".to_owned(), Content::Bytes(json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes())),
        ];
        let blobs = layers.iter().enumerate();
        members.extend(blobs.map(|(at, layer)| (layer.blob.path(), Content::Layer(at, layer.blob.bytes))));
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { architecture, reference, program, layers, manifest: manifest_blob, members }
    }

    /// The program in it.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The name with its tag.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The name with the digest: what a manifest for Kubernetes says, so that it gets these bytes and no others.
    #[must_use]
    pub fn pinned(&self) -> String {
        self.reference.pinned(self.manifest.digest)
    }

    /// Digest of the image's manifest, which covers everything in it: `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.manifest.digest)
    }

    /// Its layers, which are not compressed: the program's, and one for GPUs where it has that.
    pub fn layers(&self) -> impl Iterator<Item = Blob> {
        self.layers.iter().map(|layer| layer.blob)
    }

    /// What the executable runs on.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.architecture
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
                Content::Layer(at, _) => self.layers[*at].write(&mut to)?,
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

fn copy(path: &Path, file: &File, bytes: u64, to: &mut impl Write) -> Result<(), ImageError> {
    let mut content = FileContent { file, position: 0, end: bytes };
    let mut left = bytes;
    let mut buffer = vec![0; 1 << 18];
    while left > 0 {
        let count =
            content.read(&mut buffer).map_err(|source| ExecutableError::Read { path: path.to_owned(), source })?;
        if count == 0 {
            return Err(ImageError::Changed { what: path.display().to_string() });
        }
        to.write_all(&buffer[..count]).map_err(ImageError::Write)?;
        left -= count as u64;
    }
    Ok(())
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

/// The manifest under both names. containerd takes the name from the first annotation, others from the second.
fn index(reference: &Reference, manifest: Blob, architecture: Architecture) -> Value {
    let descriptor = |name: String, short: String| {
        let mut descriptor = manifest.descriptor(TYPE_MANIFEST);
        descriptor["platform"] = json!({"architecture": architecture.oci(), "os": "linux"});
        descriptor["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": short,
        });
        descriptor
    };
    let pinned = reference.pinned(manifest.digest);
    json!({
        "schemaVersion": 2,
        "mediaType": TYPE_INDEX,
        "manifests": [
            descriptor(reference.to_string(), reference.tag().to_owned()),
            descriptor(pinned.clone(), pinned),
        ],
    })
}

/// Writes to two places.
struct Both<'a, A, B>(&'a mut A, &'a mut B);

impl<A: Write, B: Write> Write for Both<'_, A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.1.flush()
    }
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
