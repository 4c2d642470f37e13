//! Making a bundle: files are gathered and hashed, the list is signed, then everything is written in one go.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::super::executable::{Architecture, Executable, ExecutableError};
use super::super::output::{OutputError, check_space, write_whole};
use super::super::sha256::Sha256Hasher;
use super::super::tarball::{BLOCK, END, Entry, header, padded, padding};
use super::contents::{CONFIGURATION, Contents, ContentsError, IMAGE_ENDINGS, Member, MemberRole, executable_path};
use super::key::{KeyError, SecretKey};
use super::reader::header_of;
use super::{BUFFER_BYTES, CONTENTS, CONTENTS_BYTES_MAX, SIGNATURE};
use crate::base::{Digest, Fault, UnixMillis};

/// Why a bundle was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The program cannot be packed.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A folder cannot be gone through.
    #[error("cannot list {path}")]
    Walk {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: ignore::Error,
    },
    /// A name cannot be packed.
    #[error("{path} {what}")]
    Name {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What was gathered makes no bundle.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// There are too many files.
    #[error("there are too many files for one bundle ({files}); pack them as an archive, or make several bundles")]
    Many {
        /// How many.
        files: usize,
    },
    /// A file changed while the bundle was made.
    #[error("{path} changed while the bundle was made; try again once nobody writes it")]
    Changed {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl CreateError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Executable(error) => error.fault(),
            Self::Key(error) => error.fault(),
            Self::Output(error) => error.fault(),
            Self::Read { .. } | Self::Walk { .. } | Self::Changed { .. } => Fault::Environment,
            Self::Name { .. } | Self::Contents(_) | Self::Many { .. } => Fault::Caller,
        }
    }
}

/// What is to go into a bundle.
#[derive(Debug)]
pub struct Plan {
    architectures: Vec<Architecture>,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    path: String,
    role: MemberRole,
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    /// Held open: the name may mean another file by the time it is read.
    Executable(Executable),
    File(PathBuf),
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The list in it.
    pub contents: Contents,
    /// Its length.
    pub bytes: u64,
}

impl Plan {
    /// A bundle with a program, which every bundle has, and those of the same release for other processors.
    ///
    /// # Errors
    /// When a file is not a static executable for Linux, or not one for another processor and of this release.
    pub fn new(executable: &Path, others: &[PathBuf]) -> Result<Self, CreateError> {
        let executables = Executable::open_all(executable, others)?;
        let architectures: Vec<_> = executables.iter().map(|executable| executable.architecture).collect();
        let source = |executable: Executable| Source {
            path: executable_path(&architectures, executable.architecture),
            role: MemberRole::Executable,
            from: Origin::Executable(executable),
        };
        let sources = executables.into_iter().map(source).collect();
        Ok(Self { architectures, sources })
    }

    /// Adds the node's settings.
    pub fn set_configuration(&mut self, file: &Path) {
        self.add(CONFIGURATION.to_owned(), MemberRole::Configuration, file);
    }

    /// Adds an image of another server, as K3s imports it.
    ///
    /// # Errors
    /// When its name is none that K3s imports.
    pub fn add_image(&mut self, file: &Path) -> Result<(), CreateError> {
        let name = name_of(file)?;
        if !IMAGE_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            let what = "has no ending that K3s imports (.tar, .tar.gz, .tgz, .tar.zst, .tzst, .tar.lz4, .tar.bz2, .tbz); name it so";
            return Err(CreateError::Name { path: file.to_owned(), what });
        }
        self.add(format!("{}/{name}", MemberRole::Image.folder()), MemberRole::Image, file);
        Ok(())
    }

    /// Adds a folder of documents. Hidden files, and files that .gitignore lists, are left out, as `cairn add` does.
    ///
    /// # Errors
    /// When it cannot be read or has nothing in it.
    pub fn add_documents(&mut self, folder: &Path) -> Result<(), CreateError> {
        self.add_folder(folder, MemberRole::Documents, true)
    }

    /// Adds a model's folder. Hidden files are left out.
    ///
    /// # Errors
    /// When it cannot be read or has nothing in it.
    pub fn add_model(&mut self, folder: &Path) -> Result<(), CreateError> {
        self.add_folder(folder, MemberRole::Model, false)
    }

    fn add_folder(&mut self, folder: &Path, role: MemberRole, heeds_gitignore: bool) -> Result<(), CreateError> {
        let name = |path: &Path, what| CreateError::Name { path: path.to_owned(), what };
        let root = folder.canonicalize().map_err(|source| CreateError::Read { path: folder.to_owned(), source })?;
        let below = format!("{}/{}", role.folder(), name_of(&root)?);
        let before = self.sources.len();
        let mut walk = WalkBuilder::new(&root);
        walk.standard_filters(heeds_gitignore).hidden(true).require_git(false).follow_links(true);
        for entry in walk.sort_by_file_path(Ord::cmp).build() {
            let entry = entry.map_err(|source| CreateError::Walk { path: folder.to_owned(), source })?;
            let path = entry.path();
            let kind = entry.file_type();
            if kind.is_some_and(|kind| kind.is_dir()) {
                continue;
            }
            if !kind.is_some_and(|kind| kind.is_file()) {
                return Err(name(path, "is not a file; leave it out"));
            }
            let relative = path.strip_prefix(&root).ok().filter(|relative| !relative.as_os_str().is_empty());
            let relative = relative.ok_or_else(|| name(path, "is a file; name the folder that it is in"))?;
            let relative = relative.to_str().ok_or_else(|| name(path, "has a name that is not UTF-8; rename it"))?;
            self.add(format!("{below}/{relative}"), role, path);
        }
        if self.sources.len() == before { Err(name(folder, "has no files in it")) } else { Ok(()) }
    }

    fn add(&mut self, path: String, role: MemberRole, from: &Path) {
        self.sources.push(Source { path, role, from: Origin::File(from.to_owned()) });
    }

    /// Reads everything once, signs the list, and writes the bundle. It appears under its name once it is whole. Refused before
    /// the first byte when there is no room.
    ///
    /// # Errors
    /// See [`CreateError`]; a file that had the name before is as it was.
    pub fn write(mut self, to: &Path, key: &SecretKey, created: UnixMillis) -> Result<Written, CreateError> {
        self.sources.sort_by(|one, other| one.path.cmp(&other.path));
        let members = self.sources.iter().map(Source::member).collect::<Result<Vec<Member>, _>>()?;
        let contents = Contents::new(self.architectures, env!("CARGO_PKG_VERSION").to_owned(), created, members);
        contents.check()?;
        let list = contents.encode();
        if list.len() as u64 > CONTENTS_BYTES_MAX {
            return Err(CreateError::Many { files: self.sources.len() });
        }
        let architectures: Vec<_> = contents.architectures().iter().map(Architecture::to_string).collect();
        let comment = format!("cairn {} {} {created}", contents.cairn, architectures.join(","));
        let signature = key.sign(&list, &comment)?;
        let head = [(CONTENTS, &list[..]), (SIGNATURE, signature.as_bytes())];
        let sizes = head.iter().map(|(_, bytes)| BLOCK as u64 + padded(bytes.len() as u64));
        let members = contents.members.iter().map(|member| header_of(member).len() as u64 + padded(member.bytes));
        let bytes = sizes.chain(members).sum::<u64>() + END.len() as u64;
        check_space(to, bytes)?;
        write_whole(to, 0o644, |out| {
            let write = |source| OutputError::Write { path: to.to_owned(), source };
            for (path, content) in head {
                let bytes = content.len() as u64;
                let header = header(Entry { path, mode: 0o644, owner: 0, bytes }).map_err(write)?;
                out.write_all(&header).map_err(write)?;
                out.write_all(content).map_err(write)?;
                out.write_all(&END[..padding(bytes)]).map_err(write)?;
            }
            for (source, member) in self.sources.iter().zip(&contents.members) {
                out.write_all(&header_of(member)).map_err(write)?;
                let (bytes, blake3) = source.copy(|part| out.write_all(part).map_err(|error| write(error).into()))?;
                if (bytes, blake3) != (member.bytes, member.blake3) {
                    return Err(CreateError::Changed { path: source.path().to_owned() });
                }
                out.write_all(&END[..padding(bytes)]).map_err(write)?;
            }
            Ok(out.write_all(&END).map_err(write)?)
        })?;
        Ok(Written { contents, bytes })
    }
}

impl Source {
    fn path(&self) -> &Path {
        match &self.from {
            Origin::Executable(executable) => &executable.path,
            Origin::File(path) => path,
        }
    }

    fn member(&self) -> Result<Member, CreateError> {
        let mut sha256 = Sha256Hasher::new();
        let (bytes, blake3) = self.copy(|part| {
            sha256.update(part);
            Ok(())
        })?;
        Ok(Member { path: self.path.clone(), role: self.role, bytes, blake3, sha256: sha256.finish() })
    }

    /// Reads the file from its beginning to its end; its length and its digest.
    fn copy(&self, mut to: impl FnMut(&[u8]) -> Result<(), CreateError>) -> Result<(u64, Digest), CreateError> {
        let read = |source| CreateError::Read { path: self.path().to_owned(), source };
        let file;
        let mut content: Box<dyn Read> = match &self.from {
            Origin::Executable(executable) => Box::new(executable.content()),
            Origin::File(path) => {
                // Before it is opened: a pipe would wait for somebody to write.
                if !fs::metadata(path).map_err(read)?.is_file() {
                    return Err(CreateError::Name { path: path.clone(), what: "is not a file; leave it out" });
                }
                file = File::open(path).map_err(read)?;
                Box::new(file)
            }
        };
        let (mut bytes, mut blake3) = (0, blake3::Hasher::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = content.read(&mut buffer).map_err(read)?;
            if count == 0 {
                return Ok((bytes, Digest(*blake3.finalize().as_bytes())));
            }
            blake3.update(&buffer[..count]);
            to(&buffer[..count])?;
            bytes += count as u64;
        }
    }
}

fn name_of(path: &Path) -> Result<String, CreateError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| CreateError::Name { path: path.to_owned(), what: "has no name, or one that is not UTF-8" })
}
