//! Sound segments for damaged ones, from the snapshots.

use std::path::Path;

use super::Snapshots;
use super::manifest::{EpochEntry, SegmentEntry};
use super::restore::RestoreError;
use crate::base::Lsn;
use crate::store::{Epoch, Replacement, cover};

/// The segments that the snapshots had for one damaged range of the log.
#[derive(Debug)]
pub struct Mended {
    /// First record of the stretch and one past its last.
    pub range: (Lsn, Lsn),
    /// Sound segments that cover it, in order; `None` when no snapshot has them.
    pub row: Option<Vec<Replacement>>,
}

impl Snapshots {
    /// Fetches sound segments for ranges of the log into `into`, an existing directory. A segment is only used when it
    /// was written in the same epoch as the range and every checksum in it is valid.
    ///
    /// * `history`: that of the damaged log.
    ///
    /// # Errors
    /// When the snapshots cannot be listed.
    pub fn sound_segments(
        &self,
        history: &[Epoch],
        ranges: &[(Lsn, Lsn)],
        into: &Path,
    ) -> Result<Vec<Mended>, RestoreError> {
        let repository = self.repository()?;
        let mut entries: Vec<SegmentEntry> = Vec::new();
        for listed in repository.snapshots()? {
            // An unreadable one has nothing to offer; verification reports it.
            let Ok(manifest) = listed.manifest else { continue };
            entries.extend(manifest.segments.into_iter().filter(|entry| entry.damage == 0 && belongs(entry, history)));
        }
        entries.sort_by(|left, right| (left.first, left.end, &left.file).cmp(&(right.first, right.end, &right.file)));
        entries.dedup_by(|left, right| left.file == right.file);
        let mut mended = Vec::new();
        for range in ranges {
            // A segment of the repository may be damaged too: then another row is searched without it.
            let mut left = entries.clone();
            let row = loop {
                let places: Vec<(Lsn, Lsn)> = left.iter().map(|entry| (entry.first, entry.end)).collect();
                let Some(chosen) = cover(&places, *range) else { break None };
                let mut row = Vec::new();
                let mut bad = None;
                for at in chosen {
                    let to = into.join(&left[at].blake3);
                    let fetched = repository.fetch_segment(&left[at], &to, &mut |_| {});
                    match fetched.ok().and_then(|()| Replacement::check(&to).ok()) {
                        Some(replacement) => row.push(replacement),
                        None => {
                            bad = Some(at);
                            break;
                        }
                    }
                }
                match bad {
                    None => break Some(row),
                    Some(at) => drop(left.remove(at)),
                }
            };
            mended.push(Mended { range: *range, row });
        }
        Ok(mended)
    }
}

/// Whether a segment is of the history that the log has at its place.
fn belongs(entry: &SegmentEntry, history: &[Epoch]) -> bool {
    let ends = history.iter().skip(1).map(|epoch| epoch.first).chain([Lsn(u64::MAX)]);
    history.iter().zip(ends).any(|(epoch, end)| {
        EpochEntry::from(*epoch).id == entry.epoch && epoch.first <= entry.first && entry.end <= end
    })
}
