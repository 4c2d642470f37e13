//! Taking a snapshot.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::manifest::{Canary, CollectionCount, EpochEntry, FORMAT, Kind, SegmentEntry, SnapshotManifest};
use super::repository::{Repository, RepositoryError, Stored, digest_of};
use super::target_check::Survey;
use super::{Probe, Progress};
use std::sync::Arc;

use crate::base::{Fault, Lsn, UnixMillis};
use crate::collection::{Access, Library, WriteError};
use crate::store::{SealedSegment, check_segment};

/// How often to wait for a quiet moment in which counts, answers and the end of the log are consistent.
const ATTEMPTS: usize = 5;
/// Canaries of a snapshot.
const CANARIES: usize = 16;

/// Why no snapshot was taken. Existing ones are unaffected.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The log could not be sealed.
    #[error("cannot seal the log")]
    Seal(#[from] WriteError),
    /// A segment cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Segments were rewritten again and again while they were copied.
    #[error("the log was compacted while it was copied; try again")]
    Moving,
    /// There is nothing in the log.
    #[error("the log is empty, there is nothing to keep yet")]
    Empty,
}

impl CreateError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Repository(error) => error.fault(),
            Self::Seal(error) => error.fault(),
            Self::Read { .. } | Self::Moving => Fault::Environment,
            Self::Empty => Fault::Caller,
        }
    }
}

/// A snapshot that was taken.
#[derive(Debug)]
pub struct Created {
    /// Its manifest.
    pub manifest: SnapshotManifest,
    /// Segments that the repository did not have.
    pub new_segments: usize,
    /// Their bytes, before encryption.
    pub new_bytes: u64,
}

/// The end of the log, and the facts that belong to exactly that state.
struct Moment {
    last: Lsn,
    counts: Option<Vec<CollectionCount>>,
    canaries: Vec<Canary>,
}

/// The parts of a manifest other than the log.
pub(super) struct About {
    pub(super) kind: Kind,
    pub(super) now: UnixMillis,
    pub(super) configuration: String,
}

/// * `found`: what is in the repository.
pub(super) fn create(
    repository: &Repository,
    found: &Survey,
    node: &dyn Probe,
    about: About,
    runtime: &Handle,
    progress: &dyn Progress,
) -> Result<Created, CreateError> {
    let library = node.library();
    let node_id = library.log().node().to_string();
    let mut attempt = 1;
    // Read each time: compaction may have merged the sealed segments with later ones.
    let (moment, (segments, new_segments, new_bytes)) = loop {
        let moment = moment(library, node, about.kind, runtime)?;
        match store_segments(repository, library, moment.last, found, progress) {
            Err(CreateError::Moving) if attempt < ATTEMPTS => attempt += 1,
            result => break (moment, result?),
        }
    };
    let log = library.log();
    let permit = node.permit();
    let collections = library.access(&permit).collections();
    let mut models: Vec<String> = collections.iter().map(|info| info.model.clone()).collect();
    models.sort();
    models.dedup();
    let history = log.history().into_iter().filter(|epoch| epoch.first <= moment.last);
    // Also those that were lost: a new one under the name of one of them would hide that.
    let taken = found.names.iter().map(|other| other.id.as_str()).chain(found.missing.iter().map(String::as_str));
    let named = free_second(about.now, &taken.collect::<Vec<_>>());
    let manifest = SnapshotManifest {
        format: FORMAT,
        id: id(named, moment.last),
        created: about.now,
        cairn: env!("CARGO_PKG_VERSION").to_owned(),
        node: node_id,
        kind: about.kind,
        last: moment.last,
        last_time: segments.last().map_or(about.now, |segment| segment.last_time),
        history: history.map(EpochEntry::from).collect(),
        segments,
        counts: moment.counts,
        models,
        configuration: about.configuration,
        files: [],
        damage: log.damage().iter().map(ToString::to_string).collect(),
        canaries: moment.canaries,
    };
    repository.put_manifest(&manifest)?;
    Ok(Created { manifest, new_segments, new_bytes })
}

/// Seals the log and says what it held then. Under constant writing the counts and canaries are left out.
fn moment(library: &Arc<Library>, node: &dyn Probe, kind: Kind, runtime: &Handle) -> Result<Moment, CreateError> {
    let permit = node.permit();
    let access = library.access(&permit);
    let attempts = if kind == Kind::Shipped { 1 } else { ATTEMPTS };
    for _ in 0..attempts {
        let visible = runtime.block_on(access.flush())?;
        let counts = counts(access);
        let canaries = if kind == Kind::Shipped { Vec::new() } else { node.canaries(CANARIES) };
        if library.log().last() != visible {
            continue;
        }
        if runtime.block_on(access.seal())? == visible {
            return Ok(Moment { last: visible, counts: Some(counts), canaries });
        }
    }
    Ok(Moment { last: runtime.block_on(access.seal())?, counts: None, canaries: Vec::new() })
}

/// The counts of the collections.
pub(super) fn counts(access: Access<'_>) -> Vec<CollectionCount> {
    let collections = access.collections();
    let counts = collections.iter().map(|info| CollectionCount {
        name: info.name.clone(),
        documents: info.documents,
        passages: info.chunks,
        model: info.model.clone(),
    });
    counts.collect()
}

fn store_segments(
    repository: &Repository,
    library: &Library,
    last: Lsn,
    found: &Survey,
    progress: &dyn Progress,
) -> Result<(Vec<SegmentEntry>, usize, u64), CreateError> {
    let mut sealed = library.log().sealed_segments();
    sealed.retain(|segment| segment.end <= last.next());
    let there: HashMap<&str, &Stored> = found.segments.iter().map(|stored| (stored.name.as_str(), stored)).collect();
    // Only the newest was read: there may be many, and each costs a request.
    let known: HashMap<Lsn, &SegmentEntry> = found
        .newest
        .iter()
        .flat_map(|manifest| &manifest.segments)
        .filter(|entry| there.get(entry.file.as_str()).is_some_and(|stored| stored.fits(entry.bytes)))
        .map(|entry| (entry.first, entry))
        .collect();
    let is_known = |segment: &SealedSegment| {
        known.get(&segment.first).copied().filter(|entry| {
            let name = repository.segment_name(entry.first.0, entry.end.0, &entry.digest().unwrap_or(NO_DIGEST));
            entry.file == name
                && entry.end == segment.end
                && entry.as_of == segment.as_of
                && entry.bytes == segment.bytes
                && entry.epoch == format!("{:016x}", segment.epoch)
        })
    };
    let total = sealed.iter().filter(|segment| is_known(segment).is_none()).map(|segment| segment.bytes).sum();
    let (mut entries, mut new_segments, mut new_bytes, mut done) = (Vec::with_capacity(sealed.len()), 0, 0, 0);
    for segment in &sealed {
        if let Some(entry) = is_known(segment) {
            entries.push(entry.clone());
            continue;
        }
        let (entry, is_new) = store_segment(repository, segment, &there)?;
        if is_new {
            new_segments += 1;
            new_bytes += entry.bytes;
        }
        done += segment.bytes;
        progress.report("copying", done, total);
        entries.push(entry);
    }
    if entries.last().is_none_or(|entry| entry.end != last.next()) {
        return Err(CreateError::Moving);
    }
    Ok((entries, new_segments, new_bytes))
}

const NO_DIGEST: crate::base::Digest = crate::base::Digest([0; 32]);

/// Hashes and stores one segment; the flag is true if the repository lacked it.
fn store_segment(
    repository: &Repository,
    segment: &SealedSegment,
    there: &HashMap<&str, &Stored>,
) -> Result<(SegmentEntry, bool), CreateError> {
    let path = &segment.path;
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CreateError::Moving,
        _ => CreateError::Read { path: path.clone(), source },
    };
    let file = inode(path).map_err(read)?;
    let digest = digest_of(path, &mut |_| {}).map_err(read)?;
    let report = check_segment(path).map_err(read)?;
    let name = repository.segment_name(segment.first.0, segment.end.0, &digest);
    // One that was cut is written again.
    let is_new = there.get(name.as_str()).is_none_or(|stored| !stored.fits(segment.bytes));
    if is_new {
        repository.put_segment(&name, path, &digest)?;
    }
    if inode(path).map_err(read)? != file || report.as_of != segment.as_of || report.bytes != segment.bytes {
        if is_new {
            repository.remove_segment(&name)?;
        }
        return Err(CreateError::Moving);
    }
    let entry = SegmentEntry {
        file: name,
        first: segment.first,
        end: segment.end,
        as_of: segment.as_of,
        epoch: format!("{:016x}", segment.epoch),
        bytes: segment.bytes,
        blake3: digest.to_string(),
        records: report.records,
        first_time: report.first_time,
        last_time: report.last_time,
        damage: report.damage.len() as u64,
    };
    Ok((entry, is_new))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// `20260728T093000Z-<last>`
pub(super) fn id(created: UnixMillis, last: Lsn) -> String {
    format!("{}-{last}", stamp(created))
}

/// How far a snapshot may be dated ahead to follow those of the seconds before it.
const AHEAD_MILLIS: i64 = 60_000;

/// The first second from `now` on that no id uses and that follows every id of the next minute. Ids sort by time, so it
/// distinguishes two snapshots within a second, and the later one is the newer one. Ids beyond that minute are from a
/// wrong clock.
fn free_second(now: UnixMillis, taken: &[&str]) -> UnixMillis {
    let horizon = stamp(UnixMillis(now.0 + AHEAD_MILLIS));
    let mut named = now;
    loop {
        let second = stamp(named);
        let is_taken = |id: &&str| id.starts_with(&second) || (*id > second.as_str() && *id < horizon.as_str());
        if !taken.iter().any(is_taken) {
            return named;
        }
        named = UnixMillis(named.0 + 1_000);
    }
}

/// `20260728T093000Z`
pub(super) fn stamp(time: UnixMillis) -> String {
    time.to_string().chars().filter(|letter| !matches!(letter, '-' | ':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_snapshots_is_the_newer_one() {
        let now: UnixMillis = "2026-07-28T09:30:00Z".parse().expect("a time");
        let next = |taken: &[&str]| stamp(free_second(now, taken));
        assert_eq!(next(&[]), "20260728T093000Z");
        assert_eq!(next(&["20260728T093000Z-7"]), "20260728T093001Z");
        // The one of this second was removed, but not a later one.
        assert_eq!(next(&["20260728T093001Z-7"]), "20260728T093002Z");
        assert_eq!(next(&["20260728T092959Z-7", "20260728T093003Z-9"]), "20260728T093004Z");
        // A clock that ran a day ahead is not followed.
        assert_eq!(next(&["20260729T093000Z-7"]), "20260728T093000Z");
    }
}
