//! A layer of the image: a tar of members, known by its digest before it is written.
//!
//! Invariant: what is written has the digest that was found when it was read, or it is an error.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::super::executable::{Executable, ExecutableError, FileContent};
use super::super::loader::Library;
use super::super::release::Program;
use super::super::sha256::Sha256Hasher;
use super::super::shape::USER;
use super::super::tarball::{self, Entry, header, padded, padding};
use super::{Blob, ImageError, write_zeros};
use crate::base::Digest;

const PASSWD: &[u8] = include_bytes!("../../../images/passwd");
const GROUP: &[u8] = include_bytes!("../../../images/group");

/// What is in a layer, under one path.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) content: MemberContent,
}

#[derive(Debug)]
pub(super) enum MemberContent {
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
    pub(super) fn library(path: String, Library { path: from, file, bytes, .. }: Library) -> Self {
        Self { path, mode: 0o755, owner: 0, content: MemberContent::File { path: from, file, bytes } }
    }

    pub(super) fn bytes(path: String, bytes: Vec<u8>) -> Self {
        Self { path, mode: 0o644, owner: 0, content: MemberContent::Bytes(bytes) }
    }

    pub(super) fn folder(path: String) -> Self {
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
pub(super) struct Layer {
    members: Vec<Member>,
    pub(super) blob: Blob,
}

impl Layer {
    /// Reads every member once.
    pub(super) fn of(members: Vec<Member>) -> Result<Self, ImageError> {
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
    pub(super) fn of_program(executable: Executable) -> Result<(Self, Program), ImageError> {
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
    pub(super) fn write(&self, to: &mut impl Write) -> Result<(), ImageError> {
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
