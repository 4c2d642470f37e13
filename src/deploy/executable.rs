//! An executable file that is to run elsewhere: what its ELF header says about where it runs, and whether it needs nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::elf::{Elf, ElfError};
use crate::base::{Fault, regular_file};

/// The program that runs, also once its file was replaced or removed.
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Largest file that is taken for a program; Cairn has a twentieth of it.
const BYTES_MAX: u64 = 1 << 30;

/// What every cairn has in its file, so that the release of one for another processor is known without running it. Two control
/// characters delimit the version.
pub const RELEASE_MARK: &str = concat!("\u{1}cairn-release:", env!("CARGO_PKG_VERSION"), "\u{2}");

/// A kind of processor that Cairn is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// The machine that this program runs on.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The one that an ELF header names.
    pub(super) fn of_elf(machine: u16) -> Option<Self> {
        [Self::X86_64, Self::Aarch64].into_iter().find(|one| one.elf() == machine)
    }

    /// `e_machine` of its ELF files.
    pub(super) fn elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// Debian's name for what is built for it, which its folders of libraries have.
    pub(super) fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// Its name in container images.
    #[must_use]
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    /// As `uname -m` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// Why a file is not an executable that runs on its own.
#[derive(Debug, thiserror::Error)]
pub enum ExecutableError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is not a program for 64-bit Linux ({what}); name the cairn program itself")]
    Kind {
        /// Which one.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// Its end is missing.
    #[error(
        "{path} is incomplete: it has {bytes} bytes and should have at least {expected}; copy it again from where it was made"
    )]
    Cut {
        /// Which one.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The end of what its header names.
        expected: u64,
    },
    /// It is for a processor that Cairn is not built for.
    #[error("{path} is for another processor (ELF machine {machine}); Cairn runs on x86_64 (62) and aarch64 (183)")]
    Machine {
        /// Which one.
        path: PathBuf,
        /// `e_machine` of its header.
        machine: u16,
    },
    /// There is one for its processor already.
    #[error("{path} is for {architecture}, as another of the executables is; name the one for the other processor")]
    Twice {
        /// Which one.
        path: PathBuf,
        /// Its processor.
        architecture: Architecture,
    },
    /// It is of another release, or no cairn at all.
    #[error("{path} is not cairn {}; name the executable of the same release", env!("CARGO_PKG_VERSION"))]
    Release {
        /// Which one.
        path: PathBuf,
    },
    /// It needs files that would not be there.
    #[error(
        "{path} is linked dynamically ({what}) and would not start on its own; build a static one: \
         plain `cargo build --release` in Cairn's source does"
    )]
    Dynamic {
        /// Which one.
        path: PathBuf,
        /// What it asks for.
        what: &'static str,
    },
}

impl ExecutableError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::Cut { .. } => Fault::Damage,
            Self::Kind { .. }
            | Self::Machine { .. }
            | Self::Twice { .. }
            | Self::Release { .. }
            | Self::Dynamic { .. } => Fault::Caller,
        }
    }
}

/// A static executable, held open: what is read later is the file that was examined, whatever its name means by then.
#[derive(Debug)]
pub(super) struct Executable {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) architecture: Architecture,
}

impl Executable {
    /// Opens a file that has to be a static executable for Linux.
    pub(super) fn open(path: &Path) -> Result<Self, ExecutableError> {
        let read = |source| ExecutableError::Read { path: path.to_owned(), source };
        let kind = |what| ExecutableError::Kind { path: path.to_owned(), what };
        let dynamic = |what| ExecutableError::Dynamic { path: path.to_owned(), what };
        let (file, bytes) = regular_file::open(path).map_err(read)?.ok_or_else(|| kind("not a regular file"))?;
        if bytes > BYTES_MAX {
            return Err(kind("larger than 1 GiB"));
        }
        let elf = Elf::read(&file).map_err(|error| match error {
            ElfError::Read(source) => read(source),
            ElfError::Kind(what) => kind(what),
            ElfError::Cut(expected) => ExecutableError::Cut { path: path.to_owned(), bytes, expected },
        })?;
        let machine = elf.machine;
        let architecture =
            Architecture::of_elf(machine).ok_or_else(|| ExecutableError::Machine { path: path.to_owned(), machine })?;
        if !elf.has_entry {
            return Err(kind("a library, it has no entry point"));
        }
        if elf.interpreter.is_some() {
            return Err(dynamic("it asks for an interpreter"));
        }
        if !elf.needed.is_empty() {
            return Err(dynamic("it asks for libraries"));
        }
        Ok(Self { path: path.to_owned(), bytes, file, architecture })
    }

    /// Opens an executable and those of the same release for other processors; sorted, so that the order in which they are named makes
    /// no difference.
    pub(super) fn open_all(first: &Path, others: &[PathBuf]) -> Result<Vec<Self>, ExecutableError> {
        let mut all = vec![Self::open_of_this_release(first)?];
        for path in others {
            let other = Self::open_of_this_release(path)?;
            let architecture = other.architecture;
            if all.iter().any(|one| one.architecture == architecture) {
                return Err(ExecutableError::Twice { path: path.clone(), architecture });
            }
            all.push(other);
        }
        all.sort_by_key(|one| one.architecture);
        Ok(all)
    }

    /// Opens an executable that has to be a cairn of this release: images and bundles carry its version in their names.
    pub(super) fn open_of_this_release(path: &Path) -> Result<Self, ExecutableError> {
        let executable = Self::open(path)?;
        if path != Path::new(OWN_EXECUTABLE) && !executable.is_of_this_release()? {
            return Err(ExecutableError::Release { path: path.to_owned() });
        }
        Ok(executable)
    }

    fn is_of_this_release(&self) -> Result<bool, ExecutableError> {
        let read = |source| ExecutableError::Read { path: self.path.clone(), source };
        let finder = memchr::memmem::Finder::new(RELEASE_MARK);
        let mut content = self.content();
        let mut buffer = vec![0; 1 << 20];
        // What the last read ended with: the mark may begin there.
        let mut kept = 0;
        loop {
            let count = content.read(&mut buffer[kept..]).map_err(read)?;
            if count == 0 {
                return Ok(false);
            }
            let filled = kept + count;
            if finder.find(&buffer[..filled]).is_some() {
                return Ok(true);
            }
            kept = filled.min(RELEASE_MARK.len());
            buffer.copy_within(filled - kept..filled, 0);
        }
    }

    /// Its content from the beginning, as long as it was when it was opened.
    pub(super) fn content(&self) -> FileContent<'_> {
        FileContent { file: &self.file, position: 0, end: self.bytes }
    }
}

/// Part of an open file, read without its cursor, so that any number of readers can share it.
pub(super) struct FileContent<'a> {
    pub(super) file: &'a File,
    pub(super) position: u64,
    pub(super) end: u64,
}

impl io::Read for FileContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<Executable, ExecutableError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Executable::open(file.path())
    }

    #[test]
    fn this_test_is_a_static_executable() {
        let executable = Executable::open(Path::new(OWN_EXECUTABLE)).expect("static");
        assert_eq!(Some(executable.architecture), Architecture::of_this_machine());
    }

    #[test]
    fn the_release_of_an_executable_is_found_wherever_it_says_it() {
        let own = Executable::open(Path::new(OWN_EXECUTABLE)).unwrap();
        assert!(own.is_of_this_release().unwrap());
        for before in [0, 1, (1 << 20) - 7, (1 << 20) - 1, 1 << 20, 3 << 20] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&vec![b'x'; before]).unwrap();
            file.write_all(RELEASE_MARK.as_bytes()).unwrap();
            let bytes = file.as_file().metadata().unwrap().len();
            let opened = |bytes| Executable {
                path: file.path().to_owned(),
                file: file.reopen().unwrap(),
                bytes,
                architecture: Architecture::Aarch64,
            };
            assert!(opened(bytes).is_of_this_release().unwrap(), "after {before} bytes");
            assert!(!opened(bytes - 1).is_of_this_release().unwrap(), "cut after {before} bytes");
        }
    }

    proptest! {
        /// Whatever is in a file, it is answered.
        #[test]
        fn nothing_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = open(&bytes);
            let start = b"\x7fELF\x02\x01\x01\x00";
            if bytes.len() >= 64 {
                bytes[..8].copy_from_slice(start);
                bytes[16..20].copy_from_slice(&[3, 0, 62, 0]);
                bytes[54..58].copy_from_slice(&[56, 0, 3, 0]);
                let _ = open(&bytes);
            }
        }
    }
}
