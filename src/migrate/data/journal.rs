//! The list of a copy while it is written, over what an interrupted run has written of it.
//!
//! Invariant: up to where the walk is, the list is that of the source as it is now. Lines of an earlier run count as long as they are the same
//! as those that would be written; with the first other one the rest of them is cut off.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::content::Hash;
use super::manifest::{Entry, FORMAT, Footer, Header, Manifest, line};
use super::{DataError, RawText, bytes_of};

pub(super) struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    before: Option<Before>,
}

/// What is left of an earlier run.
struct Before {
    manifest: Manifest,
    /// Its next entry.
    next: Entry,
    /// Where the line of it begins.
    start: u64,
}

impl Before {
    fn read(mut manifest: Manifest) -> (u64, Option<Self>) {
        let start = manifest.offset();
        match manifest.next_entry() {
            Ok(Some(next)) => (start, Some(Self { manifest, next, start })),
            // The end, or a line that was not finished.
            Ok(None) | Err(_) => (start, None),
        }
    }
}

impl Journal {
    /// Opens the list.
    ///
    /// * `source`: without links on its path.
    pub(super) fn open(path: &Path, source: &Path) -> Result<Self, DataError> {
        let failure = |error: std::io::Error| DataError::write(bytes_of(path), error);
        let header = Header { cairn_manifest: FORMAT, source: RawText::new(bytes_of(source)) };
        let earlier = Manifest::open(path).ok().filter(|manifest| *manifest.header() == header);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(earlier.is_none()).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).map_err(failure)?;
        let is_new = earlier.is_none();
        let (start, before) = earlier.map_or((0, None), Before::read);
        let mut this = Self { path: path.to_owned(), file: BufWriter::with_capacity(256 << 10, file), before };
        if this.before.is_none() {
            this.cut(start)?;
        }
        if is_new {
            this.write(&line(&header))?;
        }
        Ok(this)
    }

    fn cut(&mut self, at: u64) -> Result<(), DataError> {
        self.before = None;
        let file = self.file.get_mut();
        let cut = file.set_len(at).and_then(|()| file.seek(SeekFrom::Start(at)));
        cut.map(drop).map_err(|error| DataError::write(bytes_of(&self.path), error))
    }

    fn write(&mut self, line: &[u8]) -> Result<(), DataError> {
        self.file.write_all(line).map_err(|error| DataError::write(bytes_of(&self.path), error))
    }

    /// The hash that an earlier run found for an entry which is the same now.
    pub(super) fn hash_before(&self, entry: &Entry) -> Option<Hash> {
        self.before.as_ref().filter(|before| before.next.is_as(entry)).and_then(|before| before.next.hash)
    }

    /// Writes the next line, unless it is there.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), DataError> {
        match self.before.take() {
            Some(before) if before.next.is_as(entry) && before.next.hash == entry.hash => {
                let (start, before) = Before::read(before.manifest);
                self.before = before;
                if self.before.is_none() { self.cut(start) } else { Ok(()) }
            }
            Some(before) => {
                self.cut(before.start)?;
                self.write(&entry.to_line())
            }
            None => self.write(&entry.to_line()),
        }
    }

    /// Writes the last line.
    pub(super) fn finish(mut self, footer: Footer) -> Result<(), DataError> {
        if let Some(before) = self.before.take() {
            self.cut(before.start)?;
        }
        self.write(&line(&footer))?;
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| DataError::write(bytes_of(&self.path), error))
    }
}
