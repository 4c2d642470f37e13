//! Append-only files of fixed-size rows, read through a shared mapping. The only module of the part with `unsafe`.
//!
//! A row is written with `pwrite` and becomes readable when its writer publishes a [`Rows`] that covers it. The mapping
//! is longer than the file (it reserves addresses, not memory) and doubled when it is full, so an append moves nothing
//! and readers keep their mapping. On Linux `pwrite` and a shared mapping see the same page cache.
//!
//! Invariants:
//! * Bytes of a published row never change; a file is never shortened below its published rows while it is mapped.
//! * Only the process that holds the data directory's lock touches these files. If someone else truncates one while the
//!   node runs, the process ends with SIGBUS, as with every mapped file.
//! * Numbers are little endian, like the supported machines; no conversion takes place.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hasher;
use half::f16;
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

use super::disk::DiskError;
use crate::base::{Digest, prefetch};

const _: () = assert!(cfg!(target_endian = "little"), "files hold little-endian numbers and are used in place");

/// Minimum capacity of a mapping in bytes; below it doubling would only cost system calls.
const CAPACITY_MIN: usize = 1 << 20;
/// How many bytes are hashed at a time.
const HASH_STEP: usize = 1 << 22;

/// A number without padding for which every bit pattern is a value.
///
/// # Safety
/// The type has no padding, no invalid bit pattern and no interior mutability, and its alignment divides a page.
pub(super) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: a primitive integer.
unsafe impl Plain for u64 {}
// SAFETY: a primitive integer.
unsafe impl Plain for u16 {}
// SAFETY: `repr(transparent)` over u16; every pattern is a (perhaps not finite) number.
unsafe impl Plain for f16 {}

/// The bytes of a slice of numbers.
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so each of the `size_of_val` bytes is initialised; u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }
}

/// The same numbers as the type of the scan's kernels.
pub(super) fn as_kernel(values: &[f16]) -> &[numkong::f16] {
    // SAFETY: both types are `repr(transparent)` over u16.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<numkong::f16>(), values.len()) }
}

/// A whole file, mapped for reading.
pub(super) struct MappedFile(Option<MmapRaw>);

impl MappedFile {
    /// Maps `path` at its present length.
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        let file = File::open(path).map_err(DiskError::of("open", path))?;
        let length = file.metadata().map_err(DiskError::of("inspect", path))?.len();
        if length == 0 {
            return Ok(Self(None));
        }
        MmapOptions::new().map_raw_read_only(&file).map(|map| Self(Some(map))).map_err(DiskError::of("map", path))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: the mapping has the length that the file had; by the module's invariants it is not shortened.
            Some(map) => unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) },
            None => &[],
        }
    }
}

struct Mapping {
    map: MmapRaw,
    capacity_rows: usize,
}

/// The first `count` rows of a column, at a point in time. Cheap to clone; stays valid while the column grows.
#[derive(Clone)]
pub(super) struct Rows<T> {
    mapping: Arc<Mapping>,
    stride: usize,
    count: usize,
    _numbers: PhantomData<T>,
}

impl<T: Plain> Rows<T> {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All numbers, row after row.
    pub(super) fn all(&self) -> &[T] {
        // SAFETY: `Column::rows` covers only rows that were written completely, so this range is inside the file and
        // the mapping and never changes; the mapping is page-aligned, and every bit pattern is a valid `T`.
        unsafe { std::slice::from_raw_parts(self.mapping.map.as_ptr().cast::<T>(), self.count * self.stride) }
    }

    /// Removes the pages of the mapping from the process.
    pub(super) fn release(&self) {
        // SAFETY: the mapping is shared and backed by a file, and nothing writes through it: its pages are read again
        // with the same bytes. An error leaves them in place.
        let _ = unsafe { self.mapping.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// Prefetches a row that is needed soon.
    #[inline]
    pub(super) fn prefetch(&self, row: usize) {
        prefetch(bytes_of(self.row(row)));
    }

    /// The numbers of one row; empty if the row does not exist.
    pub(super) fn row(&self, row: usize) -> &[T] {
        let start = row.saturating_mul(self.stride);
        self.all().get(start..start.saturating_add(self.stride)).unwrap_or_default()
    }
}

/// One append-only file of rows of `stride` numbers, and its writing end.
pub(super) struct Column<T> {
    file: Arc<File>,
    path: PathBuf,
    stride: usize,
    /// Rows that the file holds in full; no view reaches further.
    written: usize,
    mapping: Arc<Mapping>,
    /// Running digest over the first `hashed` rows; `None` when they were trusted at open and not read.
    digest: Option<(Hasher, usize)>,
    /// The manifest's entry for a prefix that has been trusted: rows and digest.
    trusted: Option<(usize, Digest)>,
    _numbers: PhantomData<T>,
}

impl<T: Plain> Column<T> {
    /// Creates an empty file; an existing one is truncated.
    pub(super) fn create(path: &Path, stride: usize) -> Result<Self, DiskError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(DiskError::of("create", path))?;
        Self::over(file, path, stride, 0)
    }

    /// Opens a file of at least `count` rows and truncates it to these; `None` when it is shorter or absent.
    pub(super) fn open(path: &Path, stride: usize, count: usize) -> Result<Option<Self>, DiskError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::of("open", path)(error)),
        };
        let Some(length) = count.checked_mul(stride * size_of::<T>()).map(|length| length as u64) else {
            return Ok(None);
        };
        if file.metadata().map_err(DiskError::of("inspect", path))?.len() < length {
            return Ok(None);
        }
        file.set_len(length).map_err(DiskError::of("truncate", path))?;
        Self::over(file, path, stride, count).map(Some)
    }

    fn over(file: File, path: &Path, stride: usize, count: usize) -> Result<Self, DiskError> {
        let capacity_rows = (CAPACITY_MIN / (stride * size_of::<T>())).max(1).max(count);
        let mapping = Self::map(&file, path, stride, capacity_rows)?;
        let digest = (count == 0).then(|| (Hasher::new(), 0));
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            stride,
            written: count,
            mapping,
            digest,
            trusted: None,
            _numbers: PhantomData,
        })
    }

    fn map(file: &File, path: &Path, stride: usize, capacity_rows: usize) -> Result<Arc<Mapping>, DiskError> {
        let map = MmapOptions::new().len(capacity_rows * stride * size_of::<T>()).map_raw_read_only(file);
        map.map(|map| Arc::new(Mapping { map, capacity_rows })).map_err(DiskError::of("map", path))
    }

    /// Records that the first `count` rows are trusted, and their expected digest.
    pub(super) fn trust(&mut self, count: usize, digest: Digest) {
        self.trusted = Some((count, digest));
        self.digest = None;
    }

    /// Writes rows after the first `count`; existing ones there are overwritten. They are invisible before
    /// [`Self::rows`].
    pub(super) fn append(&mut self, count: usize, values: &[T]) -> Result<(), DiskError> {
        debug_assert_eq!(values.len() % self.stride, 0, "whole rows");
        let needed = count + values.len() / self.stride;
        if needed > self.mapping.capacity_rows {
            let capacity = needed.max(self.mapping.capacity_rows * 2);
            self.mapping = Self::map(&self.file, &self.path, self.stride, capacity)?;
        }
        let offset = (count * self.stride * size_of::<T>()) as u64;
        self.file.write_all_at(bytes_of(values), offset).map_err(DiskError::of("append to", &self.path))?;
        self.written = needed;
        Ok(())
    }

    /// A view of the first `count` rows, all of which must have been appended.
    pub(super) fn rows(&self, count: usize) -> Rows<T> {
        assert!(count <= self.written, "rows are appended before they are published");
        Rows { mapping: Arc::clone(&self.mapping), stride: self.stride, count, _numbers: PhantomData }
    }

    /// Digest of the first `count` rows. Reads only rows that it has not read before. `None` when rows that were
    /// trusted at open do not match the manifest.
    pub(super) fn digest(&mut self, count: usize) -> Option<Digest> {
        let rows = self.rows(count);
        let (mut hasher, mut hashed) = match self.digest.take() {
            Some((hasher, hashed)) if hashed <= count => (hasher, hashed),
            _ => (Hasher::new(), 0),
        };
        if let Some((trusted, expected)) = self.trusted.filter(|(trusted, _)| *trusted <= count) {
            feed(&mut hasher, bytes_of(&rows.all()[hashed * self.stride..trusted * self.stride]));
            hashed = trusted;
            if hasher.finalize().as_bytes() != &expected.0 {
                return None;
            }
            self.trusted = None;
        }
        feed(&mut hasher, bytes_of(&rows.all()[hashed * self.stride..]));
        let digest = Digest(*hasher.finalize().as_bytes());
        self.digest = Some((hasher, count));
        Some(digest)
    }

    /// Returns once every row is on stable storage.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(DiskError::of("sync", &self.path))
    }

    /// The file, for callers that read published rows directly.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// A second handle, to sync without holding the column.
    pub(super) fn handle(&self) -> Result<(File, PathBuf), DiskError> {
        Ok((self.file.try_clone().map_err(DiskError::of("open", &self.path))?, self.path.clone()))
    }
}

fn feed(hasher: &mut Hasher, bytes: &[u8]) {
    bytes.chunks(HASH_STEP).for_each(|step| {
        hasher.update(step);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_its_rows_while_the_column_outgrows_its_mapping() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        let mut column = Column::<u64>::create(&path, 1).expect("created");
        let first: Vec<u64> = (0..1000).collect();
        column.append(0, &first).expect("appended");
        let early = column.rows(1000);
        let rest: Vec<u64> = (1000..400_000).collect();
        column.append(1000, &rest).expect("appended");
        assert_eq!(early.all(), first);
        assert!(column.rows(400_000).all().iter().copied().eq(0..400_000));
        assert_eq!(column.rows(400_000).row(399_999), [399_999]);
        assert!(column.rows(1000).row(1000).is_empty());
    }

    #[test]
    fn the_running_digest_equals_the_digest_of_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        let mut column = Column::<u64>::create(&path, 2).expect("created");
        column.append(0, &[1, 2, 3, 4]).expect("appended");
        let half = column.digest(2).expect("untrusted");
        column.append(2, &[5, 6]).expect("appended");
        let whole = column.digest(3).expect("untrusted");
        assert_eq!(half, Digest::of(bytes_of(&[1_u64, 2, 3, 4])));
        assert_eq!(whole, Digest::of(&std::fs::read(&path).expect("readable")));

        let mut reopened = Column::<u64>::open(&path, 2, 3).expect("opened").expect("long enough");
        reopened.trust(2, half);
        assert_eq!(reopened.digest(3), Some(whole));
        reopened.trust(2, whole);
        assert_eq!(reopened.digest(3), None);
        assert!(Column::<u64>::open(&path, 2, 4).expect("opened").is_none());
    }
}
