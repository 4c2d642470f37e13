//! Facts about a collection's sources other than their documents: where a folder was added from, and which files could
//! not be read. Both are notes in the log, so they survive a restart and a restore, and every client sees them.

use serde::{Deserialize, Serialize};

use super::access::{Access, Reached, Whole};
use super::writer::WaitFor;
use super::{Library, PrepareError, WriteError};
use crate::base::{Digest, Fault};
use crate::store::{self, CollectionId, CollectionInfo, NAME_BYTES_MAX, Operation, Outcome};

/// Keys of notes on folders begin with this.
const FOLDER: &str = "folder/";
/// Keys of notes on files that could not be read begin with this.
const UNREAD: &str = "unread/";

/// Where a folder is that was added to a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderOrigin {
    /// The machine, as it calls itself.
    pub host: String,
    /// Its absolute path there.
    pub path: String,
}

/// A folder that was added to a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// What the names of its sources begin with, without the slash after it.
    pub prefix: String,
    /// Where it was when it was added last.
    pub origin: FolderOrigin,
}

impl Access<'_> {
    /// The folders that were added to a collection, by prefix in byte order: all of them where the permit reaches all documents, else
    /// those with sources that it shows.
    ///
    /// * `reached`: of this collection.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn folders(&self, collection: CollectionId, reached: &Reached) -> Result<Vec<Folder>, store::ReadError> {
        let notes = self.library.reader.notes(collection, FOLDER)?;
        let folder = |(key, value): (String, Vec<u8>)| {
            let prefix = key.strip_prefix(FOLDER)?.to_owned();
            Some(Folder { prefix, origin: serde_json::from_slice(&value).ok()? })
        };
        let mut folders: Vec<Folder> = notes.into_iter().filter_map(folder).collect();
        if reached.documents().is_some() {
            let mut shown = Vec::with_capacity(folders.len());
            for folder in folders {
                let below = if folder.prefix.is_empty() { String::new() } else { format!("{}/", folder.prefix) };
                if !self.sources(collection, reached, &below, None, 1)?.is_empty() {
                    shown.push(folder);
                }
            }
            folders = shown;
        }
        Ok(folders)
    }

    /// Remembers where a folder is, in place of what was known of its prefix.
    ///
    /// # Errors
    /// When the collection does not exist, the permit does not reach all of it, the texts are too long or the log refuses.
    pub async fn note_folder(&self, collection: &str, prefix: &str, origin: &FolderOrigin) -> Result<(), WriteError> {
        let info = self.existing(collection)?;
        self.check_whole(&info, Whole::Collection).await?;
        let collection = info.id;
        let value = serde_json::to_vec(origin).expect("two texts serialise");
        let note = Operation::Note { collection, key: format!("{FOLDER}{prefix}"), value };
        let written = self.library.commit(vec![note], WaitFor::Durable).await?;
        match written.outcomes.first() {
            Some(&Outcome::TooLarge { what, bytes, limit }) => {
                Err(PrepareError::TooLarge { what, found: bytes, limit }.into())
            }
            _ => Ok(()),
        }
    }
}

impl Library {
    /// Remembers that a source could not be read. Returns the error to answer: another one when the same bytes failed in the
    /// same way before.
    pub(super) async fn note_unread(
        &self,
        info: &CollectionInfo,
        source: &str,
        digest: Digest,
        error: WriteError,
    ) -> WriteError {
        let WriteError::Prepare(reason) = error else { return error };
        let key = format!("{UNREAD}{source}");
        if reason.fault() != Fault::Caller || key.len() > NAME_BYTES_MAX {
            return reason.into();
        }
        // With the reason: what another release says of the same bytes is news.
        let mark = Digest::of_parts([&digest.0[..], reason.to_string().as_bytes()]);
        match self.reader.note(info.id, &key) {
            Ok(Some(known)) if known == mark.0 => WriteError::StillUnread(reason),
            Ok(_) => {
                let note = Operation::Note { collection: info.id, key, value: mark.0.to_vec() };
                // On a full disk it is reported again.
                if let Err(error) = self.commit(vec![note], WaitFor::Durable).await {
                    tracing::debug!(%error, "a file that could not be read is not remembered");
                }
                reason.into()
            }
            Err(error) => error.into(),
        }
    }

    /// What forgets that a source could not be read; nothing where nothing was remembered.
    pub(super) fn forget_unread(
        &self,
        collection: CollectionId,
        source: &str,
    ) -> Result<Option<Operation>, store::ReadError> {
        let key = format!("{UNREAD}{source}");
        let known = self.reader.note(collection, &key)?;
        Ok(known.map(|_| Operation::Note { collection, key, value: Vec::new() }))
    }
}
