//! The lexical half: a tantivy index for each collection, ranked by BM25, with the metadata for filters.
//!
//! Owns: the schema, the writer, the published [`LexicalSearcher`]. Derived data only; see [`super::derived`] for when
//! the files are trusted. There is one writer at a time; searchers are immutable and never wait.
//!
//! An entry is a passage of a document. It has one text field with everything it can be found by (title, heading path,
//! text), the terms that it only has because it repeats the header of a table, its key as a column, its document's LSN
//! as a term for deletion, and the document's metadata as JSON. Texts are not stored here: they are read from the log.

mod directory;
mod filtering;
mod impacts;
mod matching;
mod ranking;
mod searcher;
mod spelling;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tantivy::indexer::UserOperation;
use tantivy::merge_policy::{LogMergePolicy, MergePolicy, NoMergePolicy};
use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use self::directory::UnsyncedDirectory;
pub use self::filtering::admits;
pub use self::impacts::WordCache;
pub use self::matching::Passages;
pub use self::searcher::{LexicalSearcher, Lookup, look_up};
use super::analysis::{self, DocumentTokenizer, Language, Stems};
use super::derived::{self, Trust};
use crate::base::{Fault, Lsn};

/// The minimum memory in bytes in which a writer thread can gather a segment: the engine's own bound.
pub const WRITER_BYTES_MIN: usize = 15 << 20;
/// A language counts for queries when at least one in this many entries is written in it.
const LANGUAGE_SHARE: u64 = 50;
const TOKENIZER: &str = "cairn";
/// The indexing format. An index with another number is rebuilt.
const FORMAT: u32 = 4;

/// Why a lexical index could not be opened, written or searched.
#[derive(Debug, thiserror::Error)]
pub enum LexicalError {
    /// The files cannot be read or written.
    #[error("lexical index {path}")]
    Files {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// tantivy failed.
    #[error("lexical index {path}")]
    Engine {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<TantivyError>,
    },
}

impl LexicalError {
    /// Always the environment's: the index can be rebuilt.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// A passage to be indexed.
#[derive(Debug, Clone, Copy)]
pub struct LexicalEntry<'a> {
    /// Its key, unique in the collection.
    pub key: u64,
    /// LSN of its document's record; [`LexicalIndex::remove`] takes it.
    pub document: Lsn,
    /// Selects the stemmer.
    pub language: Language,
    /// Additional text to find it by: title and headings.
    pub context: &'a str,
    /// The passage without markup, and without repeated text.
    pub text: &'a str,
    /// Text shown above the passage that an earlier one contains too: the header row of a table that continues. Its
    /// words find the passage, but do not count as more common for it.
    pub repeated: &'a str,
    /// The document's metadata, for filters.
    pub metadata: &'a serde_json::Map<String, serde_json::Value>,
}

/// A passage found, with its BM25 score (k1 1.2, b 0.75).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LexicalHit {
    /// Key of the passage.
    pub key: u64,
    /// BM25 score, above 0; comparable within one search only.
    pub score: f32,
}

#[derive(Debug, Clone, Copy)]
struct Fields {
    text: Field,
    /// Terms that a passage only has through repeated text.
    repeated: Field,
    key: Field,
    document: Field,
    metadata: Field,
}

impl Fields {
    fn schema() -> (Schema, Self) {
        let mut builder = Schema::builder();
        let text = builder.add_text_field(
            "text",
            TextOptions::default().set_indexing_options(
                TextFieldIndexing::default().set_tokenizer(TOKENIZER).set_index_option(IndexRecordOption::WithFreqs),
            ),
        );
        let repeated = builder.add_text_field(
            "repeated",
            TextOptions::default().set_indexing_options(
                TextFieldIndexing::default()
                    .set_tokenizer("raw")
                    .set_index_option(IndexRecordOption::Basic)
                    .set_fieldnorms(false),
            ),
        );
        let key = builder.add_u64_field("key", NumericOptions::default().set_fast());
        let document = builder.add_u64_field("document", NumericOptions::default().set_indexed());
        let metadata = builder.add_json_field(
            "metadata",
            JsonObjectOptions::default().set_fast("raw").set_expand_dots_enabled().set_indexing_options(
                TextFieldIndexing::default()
                    .set_tokenizer("raw")
                    .set_index_option(IndexRecordOption::Basic)
                    .set_fieldnorms(false),
            ),
        );
        (builder.build(), Self { text, repeated, key, document, metadata })
    }
}

/// The data that a commit stores with its segments.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    /// The indexing format; see [`FORMAT`].
    #[serde(default)]
    format: u32,
    lsn: u64,
    /// Entries ever indexed, by language code.
    languages: BTreeMap<String, u64>,
}

impl Payload {
    fn new() -> Self {
        Self { format: FORMAT, lsn: 0, languages: BTreeMap::new() }
    }
}

/// The lexical index of one collection.
pub struct LexicalIndex {
    path: PathBuf,
    words: Arc<WordCache>,
    index: Index,
    fields: Fields,
    reader: IndexReader,
    writer_bytes: usize,
    writer: Mutex<Writing>,
    searcher: ArcSwap<LexicalSearcher>,
}

struct Writing {
    writer: Option<IndexWriter>,
    /// Threads of a bulk load, during one.
    bulk: Option<usize>,
    payload: Payload,
    /// For repeated text.
    stems: Stems,
    uncommitted: bool,
    dirty: bool,
}

impl LexicalIndex {
    /// Opens the index in `path`, or starts an empty one if there is none that can be trusted.
    ///
    /// Returns the LSN up to which it has applied the log; [`Lsn::ZERO`] means that everything must be indexed again.
    ///
    /// * `words`: the cache of searched words.
    /// * `writer_bytes`: memory in which a writer thread gathers a segment; at least [`WRITER_BYTES_MIN`].
    ///
    /// # Errors
    /// When the directory cannot be used at all.
    pub fn open(path: &Path, words: &Arc<WordCache>, writer_bytes: usize) -> Result<(Self, Lsn), LexicalError> {
        let files = |source| LexicalError::Files { path: path.to_owned(), source };
        let trust = derived::examine(path).map_err(files)?;
        let opened = match trust {
            Trust::Nothing => None,
            Trust::Verified(_) => Self::open_files(path, words, writer_bytes, true).ok(),
            // tantivy ends each file with a checksum, which is verified after a crash of the process.
            Trust::SameBoot => Self::open_files(path, words, writer_bytes, true)
                .ok()
                .filter(|opened| opened.index.validate_checksum().is_ok_and(|damaged| damaged.is_empty())),
        };
        let opened = match opened {
            Some(opened) => opened,
            None => {
                derived::clear(path).map_err(files)?;
                Self::open_files(path, words, writer_bytes, false)
                    .map_err(|source| LexicalError::Engine { path: path.to_owned(), source: Box::new(source) })?
            }
        };
        opened.writer.lock().dirty = trust == Trust::SameBoot;
        let applied = Lsn(opened.writer.lock().payload.lsn);
        Ok((opened, applied))
    }

    fn open_files(
        path: &Path,
        words: &Arc<WordCache>,
        writer_bytes: usize,
        existing: bool,
    ) -> Result<Self, TantivyError> {
        let directory = UnsyncedDirectory::open(path)?;
        let (schema, fields) = Fields::schema();
        let index = if existing {
            let index = Index::open(directory)?;
            if index.schema() != schema {
                return Err(TantivyError::SchemaError("the index was written by another version".to_owned()));
            }
            index
        } else {
            Index::create(directory, schema, tantivy::IndexSettings::default())?
        };
        index.tokenizers().register(TOKENIZER, TextAnalyzer::from(DocumentTokenizer::default()));
        let payload = read_payload(&index)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher = LexicalSearcher::new(&reader, fields, &payload, words)?;
        Ok(Self {
            path: path.to_owned(),
            words: Arc::clone(words),
            index,
            fields,
            reader,
            writer_bytes: writer_bytes.max(WRITER_BYTES_MIN),
            writer: Mutex::new(Writing {
                writer: None,
                bulk: None,
                payload,
                stems: Stems::default(),
                uncommitted: false,
                dirty: false,
            }),
            searcher: ArcSwap::from_pointee(searcher),
        })
    }

    /// Returns to the last commit after a failure: later changes must be applied again. Returns the LSN of that commit.
    ///
    /// # Errors
    /// When its files cannot be read; the index accepts nothing then.
    pub fn recover(&self) -> Result<Lsn, LexicalError> {
        let mut writing = self.writer.lock();
        // Its uncommitted content is dropped with it.
        writing.writer = None;
        let recover = || -> Result<Payload, TantivyError> {
            let payload = read_payload(&self.index)?;
            self.reader.reload()?;
            Ok(payload)
        };
        writing.payload = recover().map_err(|source| self.engine(source))?;
        writing.uncommitted = false;
        self.publish(&writing.payload)?;
        Ok(Lsn(writing.payload.lsn))
    }

    /// Announces a bulk load, whose content is not searched before all of it is there, or, with `None`, its end. During
    /// it several threads analyse texts and nothing is merged; otherwise there is one, which leaves the other cores to
    /// searches. Does nothing while changes are uncommitted.
    ///
    /// * `threads`: at least 1; each gathers as much as one otherwise does.
    pub fn set_bulk(&self, threads: Option<usize>) {
        let mut writing = self.writer.lock();
        if !writing.uncommitted && writing.bulk != threads {
            writing.writer = None;
            writing.bulk = threads;
        }
    }

    /// Adds passages. Visible after the next [`LexicalIndex::commit`].
    ///
    /// # Errors
    /// When the files cannot be written; the index must be reopened then.
    pub fn add<'a>(&self, entries: impl IntoIterator<Item = LexicalEntry<'a>>) -> Result<(), LexicalError> {
        let mut guard = self.writer.lock();
        let writing = &mut *guard;
        for entry in entries {
            let mut text = String::with_capacity(entry.context.len() + entry.text.len() + entry.repeated.len() + 8);
            text.push(analysis::language_mark(entry.language));
            text.push_str(entry.context);
            text.push_str(". ");
            text.push_str(entry.text);
            let mut document = TantivyDocument::default();
            if !entry.repeated.is_empty() {
                for term in added_terms(entry.repeated, &text, entry.language, &mut writing.stems) {
                    document.add_text(self.fields.repeated, term);
                }
                text.push('\n');
                text.push_str(entry.repeated);
            }
            document.add_text(self.fields.text, text);
            document.add_u64(self.fields.key, entry.key);
            document.add_u64(self.fields.document, entry.document.0);
            if !entry.metadata.is_empty() {
                document.add_object(self.fields.metadata, filtering::indexable(entry.metadata));
            }
            *writing.payload.languages.entry(entry.language.code().to_owned()).or_default() += 1;
            writing.uncommitted = true;
            self.writer(writing)?.add_document(document).map_err(|source| self.engine(source))?;
        }
        Ok(())
    }

    /// Removes every passage of a document. Visible after the next [`LexicalIndex::commit`].
    ///
    /// # Errors
    /// As for [`LexicalIndex::add`].
    pub fn remove(&self, document: Lsn) -> Result<(), LexicalError> {
        let term = Term::from_field_u64(self.fields.document, document.0);
        let mut writing = self.writer.lock();
        writing.uncommitted = true;
        self.writer(&mut writing)?.delete_term(term);
        Ok(())
    }

    /// Makes everything added and removed visible, as the state of the log at `lsn`.
    ///
    /// # Errors
    /// As for [`LexicalIndex::add`].
    pub fn commit(&self, lsn: Lsn) -> Result<(), LexicalError> {
        let mut writing = self.writer.lock();
        writing.payload.lsn = lsn.0;
        if !writing.uncommitted {
            let searcher = self.searcher.load().at(lsn);
            self.searcher.store(Arc::new(searcher));
            return Ok(());
        }
        let payload = serde_json::to_string(&writing.payload).expect("numbers and strings serialise");
        let commit = |writer: &mut IndexWriter| -> Result<(), TantivyError> {
            let mut prepared = writer.prepare_commit()?;
            prepared.set_payload(&payload);
            prepared.commit()?;
            self.reader.reload()
        };
        commit(self.writer(&mut writing)?).map_err(|source| self.engine(source))?;
        writing.uncommitted = false;
        self.publish(&writing.payload)
    }

    fn publish(&self, payload: &Payload) -> Result<(), LexicalError> {
        let searcher = LexicalSearcher::new(&self.reader, self.fields, payload, &self.words)
            .map_err(|source| self.engine(source))?;
        self.searcher.store(Arc::new(searcher));
        Ok(())
    }

    /// The current read view.
    #[must_use]
    pub fn searcher(&self) -> Arc<LexicalSearcher> {
        self.searcher.load_full()
    }

    /// Merges all segments into one, so that a search reads each term's postings once, and releases the writer's
    /// memory. For idle times: the cost is proportional to the index. Does nothing while changes are uncommitted: they
    /// are only in the writer.
    ///
    /// # Errors
    /// As for [`LexicalIndex::add`]; the old segments stay in use.
    pub fn merge_segments(&self) -> Result<(), LexicalError> {
        let mut writing = self.writer.lock();
        if writing.uncommitted {
            return Ok(());
        }
        // Merges that the policy started finish first: a segment cannot be merged twice.
        let mut worked = self.rest(&mut writing)?;
        let segments = self.index.searchable_segment_ids().map_err(|source| self.engine(source))?;
        if segments.len() > 1 {
            let merge = |writer: &mut IndexWriter| -> Result<(), TantivyError> {
                writer.merge(&segments).wait()?;
                writer.garbage_collect_files().wait().map(drop)
            };
            merge(self.writer(&mut writing)?).map_err(|source| self.engine(source))?;
            worked |= self.rest(&mut writing)?;
        }
        if worked {
            self.reader.reload().map_err(|source| self.engine(source))?;
            self.publish(&writing.payload)?;
        }
        Ok(())
    }

    /// Ends the writer, once its merges are done. Returns whether there was one.
    fn rest(&self, writing: &mut Writing) -> Result<bool, LexicalError> {
        let Some(writer) = writing.writer.take() else { return Ok(false) };
        writer.wait_merging_threads().map_err(|source| self.engine(source))?;
        Ok(true)
    }

    /// How many segments a search reads.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.searcher.load().segments()
    }

    /// Syncs and hashes the files, so that the next start can trust them after any kind of stop. Does nothing while
    /// changes are uncommitted, and returns `false` then.
    ///
    /// # Errors
    /// When a file cannot be synced; the next start rebuilds the index then.
    pub fn checkpoint(&self) -> Result<bool, LexicalError> {
        let mut writing = self.writer.lock();
        if writing.uncommitted {
            return Ok(false);
        }
        if self.rest(&mut writing)? {
            self.reader.reload().map_err(|source| self.engine(source))?;
            self.publish(&writing.payload)?;
        }
        if !writing.dirty {
            return Ok(true);
        }
        // The last LSNs may have changed nothing here: the commit's payload is older than the searcher. It is written
        // again, otherwise the next start would read those records once more.
        let lsn = Lsn(writing.payload.lsn);
        let committed: Option<Payload> = self
            .index
            .load_metas()
            .map_err(|source| self.engine(source))?
            .payload
            .and_then(|text| serde_json::from_str(&text).ok());
        if committed.is_none_or(|payload| payload.lsn != lsn.0) {
            let payload = serde_json::to_string(&writing.payload).expect("numbers and strings serialise");
            let commit = |writer: &mut IndexWriter| -> Result<(), TantivyError> {
                let mut prepared = writer.prepare_commit()?;
                prepared.set_payload(&payload);
                prepared.commit().map(drop)
            };
            let writer = self.writer(&mut writing)?;
            // Merging is scheduled separately.
            writer.set_merge_policy(Box::new(NoMergePolicy));
            commit(writer).map_err(|source| self.engine(source))?;
            self.rest(&mut writing)?;
        }
        derived::checkpoint(&self.path, lsn)
            .map_err(|source| LexicalError::Files { path: self.path.clone(), source })?;
        writing.dirty = false;
        Ok(true)
    }

    /// An error of tantivy with its index.
    #[must_use]
    pub fn failure(&self, source: TantivyError) -> LexicalError {
        self.engine(source)
    }

    /// Names and types of the metadata in the index: string, integer, number or boolean. By name; internal ones start
    /// with an underscore.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn fields(&self) -> Result<Vec<(String, &'static str)>, LexicalError> {
        filtering::fields(&self.index).map_err(|source| self.engine(source))
    }

    fn writer<'w>(&self, writing: &'w mut Writing) -> Result<&'w mut IndexWriter, LexicalError> {
        if !writing.dirty {
            derived::mark_dirty(&self.path)
                .map_err(|source| LexicalError::Files { path: self.path.clone(), source })?;
            writing.dirty = true;
        }
        if writing.writer.is_none() {
            let options = tantivy::indexer::IndexWriterOptions::builder()
                .memory_budget_per_thread(self.writer_bytes)
                .num_worker_threads(writing.bulk.unwrap_or(1))
                .num_merge_threads(1)
                .build();
            let writer = self.index.writer_with_options(options).map_err(|source| self.engine(source))?;
            let policy: Box<dyn MergePolicy> = if writing.bulk.is_some() {
                Box::new(NoMergePolicy)
            } else {
                let mut policy = LogMergePolicy::default();
                policy.set_min_num_segments(6);
                policy.set_del_docs_ratio_before_merge(0.3);
                Box::new(policy)
            };
            writer.set_merge_policy(policy);
            // A new writer gives its first operation the number of the last commit. A removal with that number counts
            // as part of the commit, and a merge that starts before the next one skips it in segments that the commit
            // had removed from: removed entries came back. An operation without effect uses up the number.
            let nothing: [UserOperation; 0] = [];
            writer.run(nothing).map_err(|source| self.engine(source))?;
            writing.writer = Some(writer);
        }
        Ok(writing.writer.as_mut().expect("set just above"))
    }

    fn engine(&self, source: TantivyError) -> LexicalError {
        LexicalError::Engine { path: self.path.clone(), source: Box::new(source) }
    }
}

/// The terms of `repeated` that `text` lacks, each once.
fn added_terms(repeated: &str, text: &str, language: Language, stems: &mut Stems) -> BTreeSet<String> {
    let mut terms = BTreeSet::new();
    analysis::document_terms(repeated, language, stems, |term| {
        terms.insert(term.to_owned());
    });
    analysis::document_terms(text, language, stems, |term| {
        terms.remove(term);
    });
    terms
}

fn read_payload(index: &Index) -> Result<Payload, TantivyError> {
    let Some(text) = index.load_metas()?.payload else { return Ok(Payload::new()) };
    let payload: Payload =
        serde_json::from_str(&text).map_err(|error| TantivyError::SchemaError(format!("payload: {error}")))?;
    if payload.format != FORMAT {
        return Err(TantivyError::SchemaError("the index was written by another version".to_owned()));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests;
