//! Opening a bundle: the signature first, then everything else, byte for byte.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::super::executable::{Architecture, FileContent};
use super::super::output::{OutputError, check_space_in, write_whole};
use super::super::sha256::Sha256Hasher;
use super::super::tarball::{self, BLOCK, END, Entry, header, padded, padding};
use super::contents::{Contents, ContentsError, Member, MemberRole};
use super::key::{PublicKey, SignatureError};
use super::{BUFFER_BYTES, CONTENTS, CONTENTS_BYTES_MAX, SIGNATURE, SIGNATURE_BYTES_MAX};
use crate::base::{Digest, Fault, regular_file};

/// Why a bundle is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is something else, or its beginning is damaged.
    #[error("{path} is not a Cairn bundle, or its beginning is damaged: {what}; copy it again from its source")]
    Kind {
        /// Which one.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// It has no signature.
    #[error("{path} is not signed; make it with `cairn bundle create --key KEY`")]
    Unsigned {
        /// Which one.
        path: PathBuf,
    },
    /// Its signature does not hold.
    #[error("{path}: {source}; get the bundle and the public key from its author again, over two separate channels")]
    Signature {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: SignatureError,
    },
    /// It is signed, and still not what this release takes.
    #[error("{path}: {source}")]
    Contents {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: ContentsError,
    },
    /// It was cut, or something was put behind its end.
    #[error("{path} has {found} bytes and should have {expected}; copy it again from where it was made")]
    Length {
        /// Which one.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// What its list adds up to.
        expected: u64,
    },
    /// A member is not what was signed.
    #[error("{path}: {member} {what}; copy the bundle again from where it was made")]
    Member {
        /// The bundle.
        path: PathBuf,
        /// Path of the member.
        member: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A member cannot be written to where it was to go.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl OpenError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::Output(error) => error.fault(),
            Self::Kind { .. } | Self::Unsigned { .. } => Fault::Caller,
            Self::Contents { source, .. } => match source {
                ContentsError::Format { .. } => Fault::Caller,
                ContentsError::Json(_)
                | ContentsError::Architectures { .. }
                | ContentsError::Member { .. }
                | ContentsError::Executable { .. } => Fault::Damage,
            },
            Self::Signature { source, .. } => match source {
                SignatureError::Key { .. } => Fault::Caller,
                SignatureError::Form(_) | SignatureError::Wrong => Fault::Damage,
            },
            Self::Length { .. } | Self::Member { .. } => Fault::Damage,
        }
    }
}

/// A bundle whose list is signed by the expected key, and as long as the list says. Its members are checked as they
/// are read.
#[derive(Debug)]
pub struct Verified {
    path: PathBuf,
    file: File,
    contents: Contents,
    comment: String,
    /// Where the header of the first member begins.
    start: u64,
}

/// Opens a bundle and checks its signature and length; reads its list and no member.
///
/// # Errors
/// See [`OpenError`].
pub fn open(path: &Path, key: &PublicKey) -> Result<Verified, OpenError> {
    let head = Head::read(path)?;
    let comment = key
        .verify(&head.contents, &head.signature)
        .map_err(|source| OpenError::Signature { path: path.to_owned(), source })?;
    let (contents, expected) = head.list(path)?;
    let verified = Verified { path: path.to_owned(), file: head.file, contents, comment, start: head.end };
    if head.length != expected {
        return Err(OpenError::Length { path: path.to_owned(), found: head.length, expected });
    }
    Ok(verified)
}

/// What a bundle says of itself, believed by nobody: for showing it to somebody who has no key at hand.
///
/// # Errors
/// See [`OpenError`]; the signature is not checked.
pub fn list_unverified(path: &Path) -> Result<Contents, OpenError> {
    Ok(Head::read(path)?.list(path)?.0)
}

/// The list and its signature, as they stand in the file.
struct Head {
    file: File,
    length: u64,
    contents: Vec<u8>,
    signature: Vec<u8>,
    end: u64,
}

impl Head {
    fn read(path: &Path) -> Result<Self, OpenError> {
        let read = |source| OpenError::Read { path: path.to_owned(), source };
        let kind = |what| OpenError::Kind { path: path.to_owned(), what };
        let (file, length) = regular_file::open(path).map_err(read)?.ok_or_else(|| kind("it is not a regular file"))?;
        let mut end = 0;
        let mut member = |name: &str, bytes_max: u64| -> Result<Option<Vec<u8>>, OpenError> {
            let part = |length: usize, at: u64| {
                let mut bytes = vec![0; length];
                match file.read_exact_at(&mut bytes, at) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(kind("it is too short")),
                    result => result.map(|()| bytes).map_err(read),
                }
            };
            let found = part(BLOCK, end)?;
            let Some(bytes) = size_in(&found).filter(|bytes| *bytes <= bytes_max) else { return Ok(None) };
            let expected = header(Entry { path: name, mode: 0o644, owner: 0, bytes }).expect("a short path");
            if found != expected {
                return Ok(None);
            }
            let mut content = part(padded(bytes) as usize, end + BLOCK as u64)?;
            if content[bytes as usize..].iter().any(|byte| *byte != 0) {
                return Err(kind("there is something between its members"));
            }
            content.truncate(bytes as usize);
            end += BLOCK as u64 + padded(bytes);
            Ok(Some(content))
        };
        let contents =
            member(CONTENTS, CONTENTS_BYTES_MAX)?.ok_or_else(|| kind("it does not begin with bundle.json"))?;
        let signature =
            member(SIGNATURE, SIGNATURE_BYTES_MAX)?.ok_or_else(|| OpenError::Unsigned { path: path.to_owned() })?;
        Ok(Self { length, file, contents, signature, end })
    }

    /// The list, and how long the whole file has to be.
    fn list(&self, path: &Path) -> Result<(Contents, u64), OpenError> {
        let contents =
            Contents::decode(&self.contents).map_err(|source| OpenError::Contents { path: path.to_owned(), source })?;
        let members = contents.members.iter().map(|member| header_of(member).len() as u64 + padded(member.bytes));
        let length = self.end + members.sum::<u64>() + END.len() as u64;
        Ok((contents, length))
    }
}

/// Octal digits of a header's size field.
fn size_in(header: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(&header[124..135]).ok()?;
    u64::from_str_radix(digits, 8).ok()
}

/// The header that a member has to have.
pub(super) fn header_of(member: &Member) -> Vec<u8> {
    let entry = Entry { path: &member.path, mode: member.role.mode(), owner: 0, bytes: member.bytes };
    header(entry).expect("paths are checked before this")
}

impl Verified {
    /// What is in it.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The comment that is signed with it.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Reads every byte, and writes nothing.
    ///
    /// # Errors
    /// [`OpenError::Member`] for the first member that is not what was signed.
    pub fn check(&self) -> Result<(), OpenError> {
        for (member, at) in self.positions() {
            self.copy(member, at, &mut io::sink(), Path::new(""))?;
        }
        let mut end = [0; END.len()];
        self.read(&mut end, self.positions().last().map_or(self.start, |(member, at)| at + archived_bytes(member)))?;
        if end == END { Ok(()) } else { Err(self.wrong("the end of the archive", "was altered")) }
    }

    /// Writes the members of one role to a folder, with their paths below the role's. Each appears under its name once it is
    /// whole, on the disk, and what was signed. Refused before the first byte when there is no room. Returns the files.
    ///
    /// # Errors
    /// See [`OpenError`]. Files that were written before it stay: they are right.
    pub fn extract(&self, role: MemberRole, to: &Path) -> Result<Vec<PathBuf>, OpenError> {
        self.extract_those(|member| (member.role == role).then(|| member.name()), to)
    }

    /// Writes the executable for a processor to a folder, as `cairn`; returns its path, or `None` where the bundle has none.
    ///
    /// # Errors
    /// As of [`Self::extract`].
    pub fn extract_executable(&self, architecture: Architecture, to: &Path) -> Result<Option<PathBuf>, OpenError> {
        let wanted = self.contents.executable(architecture);
        let files = self.extract_those(|member| (Some(member) == wanted).then_some("cairn"), to)?;
        Ok(files.into_iter().next())
    }

    /// Writes the members that have a name there to a folder.
    fn extract_those<'a>(
        &'a self,
        name: impl Fn(&'a Member) -> Option<&'a str>,
        to: &Path,
    ) -> Result<Vec<PathBuf>, OpenError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| OutputError::Write { path, source }
        };
        fs::create_dir_all(to).map_err(write(to))?;
        let members: Vec<_> =
            self.positions().filter_map(|(member, at)| name(member).map(|name| (member, at, name))).collect();
        check_space_in(to, to, members.iter().map(|(member, ..)| member.bytes).sum())?;
        let mut files = Vec::new();
        for (member, at, name) in members {
            let path = to.join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(write(folder))?;
            }
            write_whole(&path, member.role.mode(), |out| self.copy(member, at, out, &path))?;
            files.push(path);
        }
        Ok(files)
    }

    /// Each member with the place of its header.
    fn positions(&self) -> impl Iterator<Item = (&Member, u64)> {
        let mut next = self.start;
        self.contents.members.iter().map(move |member| {
            let at = next;
            next += archived_bytes(member);
            (member, at)
        })
    }

    /// Copies a member's content to a file of this name, and fails when anything of it is not as it was signed. The last
    /// bytes may have been written by then.
    fn copy(&self, member: &Member, at: u64, to: &mut impl Write, name: &Path) -> Result<(), OpenError> {
        let expected = header_of(member);
        let mut found = vec![0; expected.len()];
        self.read(&mut found, at)?;
        if found != expected {
            return Err(self.wrong(&member.path, "has another header than it should have"));
        }
        let start = at + expected.len() as u64;
        let mut content = FileContent { file: &self.file, position: start, end: start + member.bytes };
        let (mut blake3, mut sha256) = (blake3::Hasher::new(), Sha256Hasher::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = member.bytes;
        while left > 0 {
            let count = content.read(&mut buffer).map_err(|source| self.unreadable(source))?;
            if count == 0 {
                return Err(self.wrong(&member.path, "ends too soon"));
            }
            blake3.update(&buffer[..count]);
            sha256.update(&buffer[..count]);
            let write = |source| OutputError::Write { path: name.to_owned(), source };
            to.write_all(&buffer[..count]).map_err(write)?;
            left -= count as u64;
        }
        let mut gap = vec![0; padding(member.bytes)];
        self.read(&mut gap, start + member.bytes)?;
        if gap.iter().any(|byte| *byte != 0) {
            return Err(self.wrong(&member.path, "is followed by something that was not signed"));
        }
        if Digest(*blake3.finalize().as_bytes()) == member.blake3 && sha256.finish() == member.sha256 {
            return Ok(());
        }
        Err(self.wrong(&member.path, "is not what was signed: its digest differs"))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), OpenError> {
        self.file.read_exact_at(buffer, at).map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: io::Error) -> OpenError {
        OpenError::Read { path: self.path.clone(), source }
    }

    fn wrong(&self, member: &str, what: &'static str) -> OpenError {
        OpenError::Member { path: self.path.clone(), member: member.to_owned(), what }
    }
}

/// Bytes that a member takes with its header.
fn archived_bytes(member: &Member) -> u64 {
    header_of(member).len() as u64 + tarball::padded(member.bytes)
}
