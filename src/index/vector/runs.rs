//! The pieces of each row: a run of sixteen-bit numbers of any length, which only its owner interprets.
//!
//! Two columns: the numbers of all rows one after another, and the end of each row's numbers. Invariant: ends ascend,
//! and a row's numbers never change; a damaged end gives wrong numbers or none, never those outside the file.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::column::{Column, Rows};
use super::disk::{DiskError, Sealed, VectorManifest};
use crate::base::Digest;

/// The runs of the first rows, at a point in time.
#[derive(Clone)]
pub(super) struct RunsView {
    ends: Rows<u64>,
    numbers: Rows<u16>,
}

impl RunsView {
    /// The numbers of one row; empty where there are none.
    pub(super) fn of(&self, row: usize) -> &[u16] {
        let end = |row: usize| self.ends.all().get(row).map_or(0, |end| *end as usize);
        let start = row.checked_sub(1).map_or(0, end);
        self.numbers.all().get(start..end(row)).unwrap_or_default()
    }

    /// Prefetches the position of a row's numbers.
    pub(super) fn prefetch(&self, row: usize) {
        let start = row.checked_sub(1).and_then(|before| self.ends.all().get(before)).map_or(0, |end| *end as usize);
        self.numbers.prefetch(start);
    }

    /// Removes the pages of the mapping from the process.
    pub(super) fn release(&self) {
        self.numbers.release();
    }

    /// Bytes of the mapped files.
    pub(super) fn bytes(&self) -> usize {
        self.numbers.count() * size_of::<u16>() + self.ends.count() * size_of::<u64>()
    }
}

/// The writing end of a [`RunsView`].
pub(super) struct Runs {
    ends: Column<u64>,
    numbers: Column<u16>,
}

impl Runs {
    /// Makes empty files.
    pub(super) fn create(dir: &Path, generation: u64) -> Result<Self, DiskError> {
        let path = |kind| VectorManifest::path(dir, kind, generation);
        Ok(Self { ends: Column::create(&path("ends"), 1)?, numbers: Column::create(&path("pieces"), 1)? })
    }

    /// Opens the files with `rows` rows; `None` when they have fewer, or ends that do not ascend.
    pub(super) fn open(dir: &Path, generation: u64, rows: usize) -> Result<Option<Self>, DiskError> {
        let path = |kind| VectorManifest::path(dir, kind, generation);
        let Some(ends) = Column::open(&path("ends"), 1, rows)? else { return Ok(None) };
        if !ends.rows(rows).all().is_sorted() {
            return Ok(None);
        }
        let Some(numbers) = Column::open(&path("pieces"), 1, total(&ends, rows))? else { return Ok(None) };
        Ok(Some(Self { ends, numbers }))
    }

    /// Writes the numbers of rows behind the first `rows`.
    pub(super) fn append<'a>(&mut self, rows: usize, runs: impl Iterator<Item = &'a [u16]>) -> Result<(), DiskError> {
        let start = total(&self.ends, rows);
        let (mut numbers, mut ends) = (Vec::new(), Vec::new());
        for run in runs {
            numbers.extend_from_slice(run);
            ends.push((start + numbers.len()) as u64);
        }
        self.numbers.append(start, &numbers)?;
        self.ends.append(rows, &ends)
    }

    pub(super) fn view(&self, rows: usize) -> RunsView {
        RunsView { ends: self.ends.rows(rows), numbers: self.numbers.rows(total(&self.ends, rows)) }
    }

    /// Records the expected digests of the first `rows` rows. Returns whether they match, if they are read now.
    pub(super) fn verify(&mut self, rows: usize, (ends, numbers): (Digest, Digest), read: bool) -> bool {
        let total = total(&self.ends, rows);
        self.ends.trust(rows, ends);
        self.numbers.trust(total, numbers);
        self.ends.digest(rows) == Some(ends) && (!read || self.numbers.digest(total) == Some(numbers))
    }

    /// Digests of ends and numbers; `None` when trusted rows do not match.
    pub(super) fn digests(&mut self, rows: usize) -> Option<(Sealed, Sealed)> {
        let total = total(&self.ends, rows);
        Some((Sealed::new(self.ends.digest(rows)?), Sealed::new(self.numbers.digest(total)?)))
    }

    /// Returns once all rows are on stable storage.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.ends.sync()?;
        self.numbers.sync()
    }

    /// Handles to sync the files without holding the runs.
    pub(super) fn handles(&self) -> Result<[(File, PathBuf); 2], DiskError> {
        Ok([self.ends.handle()?, self.numbers.handle()?])
    }
}

/// Numbers of the first `rows` rows.
fn total(ends: &Column<u64>, rows: usize) -> usize {
    ends.rows(rows).all().last().map_or(0, |end| *end as usize)
}
