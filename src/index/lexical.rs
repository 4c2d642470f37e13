//! The lexical half: a tantivy index per collection, ranked by BM25, with the metadata to filter by.
//!
//! Owns: the schema, the writer, the published [`LexicalSearcher`]. Derived data only; see [`super::derived`] for when
//! the files are believed. One writer at a time; searchers are immutable and never wait.
//!
//! An entry is a passage of a document. It has one text field of everything that can be found by (title, heading
//! path, text), its key as a column, its document's LSN as a term to delete by, and the document's metadata as JSON.
//! Texts are not stored here: they are read from the log.

mod directory;
mod filtering;
mod impacts;
mod matching;
mod ranking;
mod spelling;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tantivy::columnar::Column;
use tantivy::indexer::UserOperation;
use tantivy::merge_policy::{LogMergePolicy, MergePolicy, NoMergePolicy};
use tantivy::query::EnableScoring;
use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{DocAddress, Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use self::directory::UnsyncedDirectory;
use self::impacts::Average;
pub use self::impacts::WordCache;
pub use self::matching::Passages;
use self::matching::Remembered;
use self::ranking::Word;
use super::analysis::{self, DocumentTokenizer, Language, QueryWord};
use super::derived::{self, Trust};
use super::filter::Filter;
use super::vector::KeySet;
use crate::base::{Fault, Lsn};

/// What the writer may hold in memory before it writes a segment.
const WRITER_BYTES: usize = 48 << 20;
/// A language counts for queries when at least one in this many entries is written in it.
const LANGUAGE_SHARE: u64 = 50;
const TOKENIZER: &str = "cairn";

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
    /// tantivy refuses.
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
    /// Always the machine's: what the index holds can be rebuilt.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// A passage to be indexed.
#[derive(Debug, Clone, Copy)]
pub struct LexicalEntry<'a> {
    /// The passage's key, unique in the collection.
    pub key: u64,
    /// LSN of its document's record; [`LexicalIndex::remove`] takes it.
    pub document: Lsn,
    /// Decides the stemmer.
    pub language: Language,
    /// What is found besides the text: title and headings.
    pub context: &'a str,
    /// The passage without markup.
    pub text: &'a str,
    /// The document's metadata: what filters ask for.
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
        (builder.build(), Self { text, key, document, metadata })
    }
}

/// What a commit remembers beside its segments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Payload {
    lsn: u64,
    /// Entries ever indexed, per language code.
    languages: BTreeMap<String, u64>,
}

/// The lexical index of one collection.
pub struct LexicalIndex {
    path: PathBuf,
    words: Arc<WordCache>,
    index: Index,
    fields: Fields,
    reader: IndexReader,
    writer: Mutex<Writing>,
    searcher: ArcSwap<LexicalSearcher>,
}

struct Writing {
    writer: Option<IndexWriter>,
    /// Threads of a bulk load, while there is one.
    bulk: Option<usize>,
    payload: Payload,
    uncommitted: bool,
    dirty: bool,
}

impl LexicalIndex {
    /// Opens the index in `path`, or starts an empty one where there is none that can be believed.
    ///
    /// Returns the LSN up to which it has applied the log; [`Lsn::ZERO`] means that everything is to be fed again.
    ///
    /// * `words`: where words that are searched for are remembered.
    ///
    /// # Errors
    /// When the directory cannot be used at all.
    pub fn open(path: &Path, words: &Arc<WordCache>) -> Result<(Self, Lsn), LexicalError> {
        let files = |source| LexicalError::Files { path: path.to_owned(), source };
        let trust = derived::examine(path).map_err(files)?;
        let opened = match trust {
            Trust::Nothing => None,
            Trust::Verified(_) => Self::open_files(path, words, true).ok(),
            // tantivy ends each file with a checksum; after a crash of the process it is compared.
            Trust::SameBoot => Self::open_files(path, words, true)
                .ok()
                .filter(|opened| opened.index.validate_checksum().is_ok_and(|damaged| damaged.is_empty())),
        };
        let opened = match opened {
            Some(opened) => opened,
            None => {
                derived::clear(path).map_err(files)?;
                Self::open_files(path, words, false)
                    .map_err(|source| LexicalError::Engine { path: path.to_owned(), source: Box::new(source) })?
            }
        };
        opened.writer.lock().dirty = trust == Trust::SameBoot;
        let applied = Lsn(opened.writer.lock().payload.lsn);
        Ok((opened, applied))
    }

    fn open_files(path: &Path, words: &Arc<WordCache>, existing: bool) -> Result<Self, TantivyError> {
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
        let payload = match index.load_metas()?.payload {
            Some(text) => {
                serde_json::from_str(&text).map_err(|error| TantivyError::SchemaError(format!("payload: {error}")))?
            }
            None => Payload::default(),
        };
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher = LexicalSearcher::new(&reader, fields, &payload, words)?;
        Ok(Self {
            path: path.to_owned(),
            words: Arc::clone(words),
            index,
            fields,
            reader,
            writer: Mutex::new(Writing { writer: None, bulk: None, payload, uncommitted: false, dirty: false }),
            searcher: ArcSwap::from_pointee(searcher),
        })
    }

    /// Says that much is coming which nobody can search before it is all there, or, with `None`, that it has come. Until then
    /// several threads take texts apart and nothing is merged; as usual it is one, which leaves the other cores to
    /// searches. Does nothing while changes wait for their commit.
    ///
    /// * `threads`: at least 1; each may hold 48 MiB before it writes.
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
    /// When the files cannot be written; the index is to be reopened then.
    pub fn add<'a>(&self, entries: impl IntoIterator<Item = LexicalEntry<'a>>) -> Result<(), LexicalError> {
        let mut writing = self.writer.lock();
        for entry in entries {
            let mut text = String::with_capacity(entry.context.len() + entry.text.len() + 8);
            text.push(analysis::language_mark(entry.language));
            text.push_str(entry.context);
            text.push_str(". ");
            text.push_str(entry.text);
            let mut document = TantivyDocument::default();
            document.add_text(self.fields.text, text);
            document.add_u64(self.fields.key, entry.key);
            document.add_u64(self.fields.document, entry.document.0);
            if !entry.metadata.is_empty() {
                document.add_object(self.fields.metadata, filtering::indexable(entry.metadata));
            }
            *writing.payload.languages.entry(entry.language.code().to_owned()).or_default() += 1;
            writing.uncommitted = true;
            self.writer(&mut writing)?.add_document(document).map_err(|source| self.engine(source))?;
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

    /// Merges the segments into one where there are several, so that a search reads each term's postings once, and
    /// gives the writer's memory back. For quiet moments: cost is proportional to the index. Does nothing while changes
    /// wait for their commit: they are in the writer alone.
    ///
    /// # Errors
    /// As for [`LexicalIndex::add`]; the old segments stay in use.
    pub fn settle(&self) -> Result<(), LexicalError> {
        let mut writing = self.writer.lock();
        if writing.uncommitted {
            return Ok(());
        }
        // Merges that the policy began come to their end first: a segment cannot be merged twice.
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
        self.searcher.load().searcher.segment_readers().len()
    }

    /// Syncs and hashes the files, so that the next start can believe them after any kind of stop. Does nothing while
    /// changes wait for their commit, and answers `false` then.
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
        // again, or the next start would read those records once more.
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
            // Merging has its own time.
            writer.set_merge_policy(Box::new(NoMergePolicy));
            commit(writer).map_err(|source| self.engine(source))?;
            self.rest(&mut writing)?;
        }
        derived::checkpoint(&self.path, lsn)
            .map_err(|source| LexicalError::Files { path: self.path.clone(), source })?;
        writing.dirty = false;
        Ok(true)
    }

    /// An error of tantivy with the index it happened in.
    #[must_use]
    pub fn failure(&self, source: TantivyError) -> LexicalError {
        self.engine(source)
    }

    /// Names and types of the metadata in the index: string, integer, number or boolean. By name; those of our own
    /// making begin with an underscore.
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
                .memory_budget_per_thread(WRITER_BYTES)
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
            // A new writer gives its first operation the number of the last commit. A removal with that number passes for part of
            // the commit, and a merge that begins before the next one skips it in segments that the commit had removed from:
            // what was removed came back. With no operation nothing happens, and the number is spent.
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

/// A term of a query that the collection knows.
struct Weighed {
    term: String,
    /// Its inverse document frequency, times what a misspelling leaves of it.
    weight: f32,
}

/// An immutable read view of the lexical index.
pub struct LexicalSearcher {
    lsn: Lsn,
    fields: Fields,
    searcher: tantivy::Searcher,
    /// The key column of each segment, by segment ordinal.
    keys: Vec<Column<u64>>,
    languages: Vec<Language>,
    words: Arc<WordCache>,
    /// The length of its passages, as scores take it.
    average: Average,
    /// Passages that the segments hold, removed ones included: what scores are computed with.
    passages: u64,
    remembered: Arc<Remembered>,
}

impl LexicalSearcher {
    fn new(
        reader: &IndexReader,
        fields: Fields,
        payload: &Payload,
        words: &Arc<WordCache>,
    ) -> Result<Self, TantivyError> {
        let searcher = reader.searcher();
        let keys = searcher
            .segment_readers()
            .iter()
            .map(|segment| segment.fast_fields().u64("key"))
            .collect::<Result<Vec<_>, _>>()?;
        let total: u64 = payload.languages.values().sum();
        let mut languages: Vec<(u64, Language)> = payload
            .languages
            .iter()
            .filter(|&(_, &count)| count * LANGUAGE_SHARE >= total)
            .map(|(code, &count)| (count, code.parse().unwrap_or_default()))
            .collect();
        languages.sort_by(|left, right| right.cmp(left));
        let languages = languages.into_iter().map(|(_, language)| language).collect();
        let (mut tokens, mut passages) = (0, 0);
        for segment in searcher.segment_readers() {
            tokens += segment.inverted_index(fields.text)?.total_num_tokens();
            passages += u64::from(segment.max_doc());
        }
        Ok(Self {
            lsn: Lsn(payload.lsn),
            fields,
            searcher,
            keys,
            languages,
            words: Arc::clone(words),
            average: Average::of(tokens, passages),
            passages,
            remembered: Arc::default(),
        })
    }

    fn at(&self, lsn: Lsn) -> Self {
        Self {
            lsn,
            fields: self.fields,
            searcher: self.searcher.clone(),
            keys: self.keys.clone(),
            languages: self.languages.clone(),
            words: Arc::clone(&self.words),
            average: self.average,
            passages: self.passages,
            remembered: Arc::clone(&self.remembered),
        }
    }

    /// The state of the log that this view shows.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The language most passages are written in; [`Language::Other`] for an empty index.
    #[must_use]
    pub fn main_language(&self) -> Language {
        self.languages.first().copied().unwrap_or_default()
    }

    /// Number of passages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.searcher.num_docs()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The passages that score best for `query`, best first, equal scores by ascending key, at most `limit`; with
    /// `among`, only those. None when the query has no word; of more than 64 terms the rarest count. Scores are BM25's to
    /// about one per cent of the best that the query could reach (see [`impacts`]).
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn search(&self, query: &str, limit: usize, among: Option<&Passages>) -> Result<Vec<LexicalHit>, TantivyError> {
        if limit == 0 || self.is_empty() {
            return Ok(Vec::new());
        }
        let mut terms = Vec::new();
        for word in analysis::query_words(query, &self.languages) {
            self.known_terms(&word, &mut terms)?;
        }
        terms.sort_by(|left, right| right.weight.total_cmp(&left.weight));
        terms.truncate(ranking::WORDS_MAX);
        let words: Vec<Word> = terms.iter().map(|term| self.word(term)).collect::<Result<_, _>>()?;
        let key = |address| self.key(address);
        let best = ranking::best(self.searcher.segment_readers(), &words, limit, among, key);
        Ok(best.into_iter().map(|(score, key)| LexicalHit { key, score }).collect())
    }

    /// The terms of a word that the collection knows; of one that it does not, the nearest that it does.
    fn known_terms(&self, word: &QueryWord, terms: &mut Vec<Weighed>) -> Result<(), TantivyError> {
        let known = terms.len();
        for term in &word.terms {
            terms.extend(self.known_term(term, 1.0)?);
        }
        if terms.len() == known
            && let Some(text) = word.terms.first()
        {
            for (nearest, share) in spelling::nearest(&self.searcher, self.fields.text, text)? {
                terms.extend(self.known_term(&nearest, share)?);
            }
        }
        Ok(())
    }

    /// A term with its inverse document frequency, as BM25 has it; `None` when no passage has it.
    fn known_term(&self, term: &str, share: f32) -> Result<Option<Weighed>, TantivyError> {
        let mut with = 0;
        for segment in self.searcher.segment_readers() {
            with += u64::from(self.words.doc_freq(segment, self.fields.text, term, self.average)?);
        }
        let without = self.passages.saturating_sub(with);
        let weight = share * ((without as f64 + 0.5) / (with as f64 + 0.5)).ln_1p() as f32;
        Ok((with > 0).then(|| Weighed { term: term.to_owned(), weight }))
    }

    fn word(&self, term: &Weighed) -> Result<Word, TantivyError> {
        let segments = self.searcher.segment_readers().iter();
        let impacts = segments.map(|segment| self.words.impacts(segment, self.fields.text, &term.term, self.average));
        Ok(Word { weight: term.weight, impacts: impacts.collect::<Result<_, _>>()? })
    }

    /// The passages that match `filter`. Those of the filters asked for lately are remembered.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn matching(&self, filter: &Filter) -> Result<Arc<Passages>, TantivyError> {
        self.remembered.get(filter, || {
            let query = filtering::query(filter, self.fields.metadata);
            let weight = query.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
            let (mut segments, mut keys) = (Vec::new(), Vec::new());
            for (segment, column) in self.searcher.segment_readers().iter().zip(&self.keys) {
                let mut words = vec![0u64; (segment.max_doc() as usize).div_ceil(64)];
                weight.for_each_no_score(segment, &mut |passages| {
                    for &passage in passages.iter().filter(|passage| !segment.is_deleted(**passage)) {
                        words[passage as usize / 64] |= 1 << (passage % 64);
                        keys.push(column.first(passage).unwrap_or_default());
                    }
                })?;
                segments.push(words.into());
            }
            Ok(Passages::new(segments, KeySet::from_sorted(keys)))
        })
    }

    fn key(&self, address: DocAddress) -> u64 {
        self.keys[address.segment_ord as usize].first(address.doc_id).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn words() -> Arc<WordCache> {
        Arc::new(WordCache::new(1 << 20))
    }

    struct Sample {
        text: &'static str,
        metadata: Value,
    }

    fn index(samples: &[Sample]) -> (tempfile::TempDir, LexicalIndex) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (index, applied) = LexicalIndex::open(directory.path(), &words()).expect("open");
        assert_eq!(applied, Lsn::ZERO);
        for (position, sample) in samples.iter().enumerate() {
            add(&index, position as u64 + 1, sample);
        }
        index.commit(Lsn(samples.len() as u64)).expect("commit");
        (directory, index)
    }

    fn add(index: &LexicalIndex, key: u64, sample: &Sample) {
        let metadata: Map<String, Value> = sample.metadata.as_object().cloned().unwrap_or_default();
        let entry = LexicalEntry {
            key,
            document: Lsn(key),
            language: Language::English,
            context: "",
            text: sample.text,
            metadata: &metadata,
        };
        index.add([entry]).expect("add");
    }

    fn found(index: &LexicalIndex, query: &str) -> Vec<u64> {
        index.searcher().search(query, 10, None).expect("search").into_iter().map(|hit| hit.key).collect()
    }

    fn matching(index: &LexicalIndex, filter: Value) -> Vec<u64> {
        let filter = Filter::from_json(&filter).expect("valid filter");
        index.searcher().matching(&filter).expect("search").keys().keys().to_vec()
    }

    fn texts<const N: usize>(texts: [&'static str; N]) -> [Sample; N] {
        texts.map(|text| Sample { text, metadata: json!({}) })
    }

    #[test]
    fn filters_match_what_they_say() {
        let (_directory, index) = index(&[
            Sample {
                text: "one",
                metadata: json!({"team": "storage", "year": 2024, "tags": ["a", "b"], "score": 1.5}),
            },
            Sample { text: "two", metadata: json!({"team": "network", "year": 2025, "draft": true, "score": 2}) },
            Sample {
                text: "three",
                metadata: json!({"owner": {"name": "ada", "since": "2025-05-01"}, "date": "2026-02-01", "e.mail": "x"}),
            },
        ]);
        for (filter, expected) in [
            (json!({"team": "storage"}), vec![1]),
            (json!({"team": {"ne": "storage"}}), vec![2, 3]),
            (json!({"team": {"in": ["storage", "network"]}}), vec![1, 2]),
            (json!({"tags": "b"}), vec![1]),
            (json!({"year": 2025}), vec![2]),
            (json!({"year": {"gt": 2024}}), vec![2]),
            (json!({"year": {"gte": 2024, "lt": 2025}}), vec![1]),
            (json!({"score": {"gte": 1.5, "lte": 2}}), vec![1, 2]),
            (json!({"draft": true}), vec![2]),
            (json!({"draft": {"exists": false}}), vec![1, 3]),
            (json!({"owner.name": "ada"}), vec![3]),
            (json!({"e.mail": {"exists": true}}), vec![3]),
            (json!({"owner.since": {"gte": "2025-01-01"}}), vec![3]),
            (json!({"owner.since": {"exists": true}}), vec![3]),
            (json!({"date": {"gte": "2026-01-01", "lt": "2026-03-01"}}), vec![3]),
            (json!({"or": [{"team": "storage"}, {"draft": true}]}), vec![1, 2]),
            (json!({"not": {"or": [{"team": "storage"}, {"draft": true}]}}), vec![3]),
            (json!({"team": "storage", "year": 2025}), vec![]),
            (json!({}), vec![1, 2, 3]),
            (json!({"nothing": 1}), vec![]),
        ] {
            assert_eq!(matching(&index, filter.clone()), expected, "{filter}");
        }
    }

    #[test]
    fn a_filtered_search_ranks_only_what_matches() {
        let (_directory, index) = index(&[
            Sample { text: "snapshot snapshot", metadata: json!({"v": 1}) },
            Sample { text: "snapshot of a disk", metadata: json!({"v": 2}) },
        ]);
        let filter = Filter::from_json(&json!({"v": 2})).expect("valid");
        let searcher = index.searcher();
        let among = searcher.matching(&filter).expect("search");
        let hits = searcher.search("snapshot", 10, Some(&among)).expect("search");
        assert_eq!(hits.iter().map(|hit| hit.key).collect::<Vec<_>>(), [2]);
        assert!(hits[0].score > 0.0);
    }

    /// A new writer's first removal hits a segment that the last commit had removed from, while enough segments are there for a
    /// merge to begin before the next commit.
    #[test]
    fn what_a_new_writer_removes_first_does_not_come_back_by_a_merge() {
        let plain = |text| Sample { text, metadata: json!({}) };
        for _ in 0..20 {
            // The largest segment leads a merge, and is not the one with the removals. A bulk load leaves more than a merge waits for.
            let (_directory, index) = index(&[const { Sample { text: "stays", metadata: Value::Null } }; 6]);
            index.set_bulk(Some(1));
            for (key, text) in [(11, "gone first"), (12, "gone last"), (13, "stays")] {
                add(&index, key, &plain(text));
            }
            index.commit(Lsn(13)).expect("commit");
            for key in 14..20 {
                add(&index, key, &plain("stays"));
                if key == 19 {
                    index.remove(Lsn(11)).expect("remove");
                }
                index.commit(Lsn(key)).expect("commit");
            }
            index.set_bulk(None);
            index.remove(Lsn(12)).expect("remove");
            add(&index, 20, &plain("stays"));
            index.commit(Lsn(20)).expect("commit");
            index.settle().expect("merged");
            assert_eq!(found(&index, "gone"), Vec::<u64>::new());
        }
    }

    #[test]
    fn removed_and_replaced_passages_are_not_found() {
        let (_directory, index) = index(&texts(["old words", "other words"]));
        index.remove(Lsn(1)).expect("remove");
        add(&index, 3, &Sample { text: "new words", metadata: json!({}) });
        assert_eq!(found(&index, "old"), [1], "not before the commit");
        index.commit(Lsn(9)).expect("commit");
        assert_eq!((found(&index, "old"), found(&index, "new")), (vec![], vec![3]));
        assert_eq!(index.searcher().lsn(), Lsn(9));
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let (_directory, index) = index(&texts(["the kubelet restarts", "a certificate expires"]));
        assert_eq!(found(&index, "kubelt"), [1]);
        assert_eq!(found(&index, "certifciate"), [2]);
        assert_eq!(found(&index, "zzzzzzzz"), Vec::<u64>::new());
    }

    #[test]
    fn reopening_after_any_stop_of_the_process_continues() {
        let (directory, index) = index(&texts(["first", "second"]));
        drop(index);
        let (index, applied) = LexicalIndex::open(directory.path(), &words()).expect("open after a crash");
        assert_eq!((applied, found(&index, "second")), (Lsn(2), vec![2]));
        add(&index, 3, &Sample { text: "third", metadata: json!({}) });
        index.commit(Lsn(3)).expect("commit");
        index.commit(Lsn(5)).expect("nothing to commit, but the log went on");
        index.settle().expect("merged");
        index.checkpoint().expect("checkpoint");
        drop(index);
        let (index, applied) = LexicalIndex::open(directory.path(), &words()).expect("open after a clean stop");
        assert_eq!((applied, found(&index, "third"), index.segments()), (Lsn(5), vec![3], 1));
    }

    #[test]
    fn a_checkpoint_between_a_change_and_its_commit_loses_nothing() {
        let (directory, index) = index(&texts(["first", "second"]));
        add(&index, 3, &Sample { text: "third", metadata: json!({}) });
        index.remove(Lsn(1)).expect("remove");
        assert!(!index.checkpoint().expect("nothing to do yet"));
        index.commit(Lsn(4)).expect("commit");
        assert_eq!((found(&index, "first"), found(&index, "third")), (vec![], vec![3]));
        index.checkpoint().expect("checkpoint");
        drop(index);
        let (index, applied) = LexicalIndex::open(directory.path(), &words()).expect("open after a clean stop");
        assert_eq!((applied, found(&index, "third")), (Lsn(4), vec![3]));
    }

    #[test]
    fn what_a_killed_process_left_of_a_commit_is_in_nobodys_way() {
        let (directory, index) = index(&texts(["first", "second"]));
        drop(index);
        let copy = tempfile::tempdir().expect("temporary directory");
        for file in std::fs::read_dir(directory.path()).expect("list") {
            let file = file.expect("entry");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copy");
        }
        // The commit writes its files, and the process ends before the last one names them.
        let (killed, _) = LexicalIndex::open(copy.path(), &words()).expect("open");
        killed.remove(Lsn(1)).expect("remove");
        killed.commit(Lsn(3)).expect("commit");
        drop(killed);
        let left: Vec<_> = std::fs::read_dir(copy.path())
            .expect("list")
            .map(|file| file.expect("entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "del"))
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
        std::fs::write(directory.path().join(left[0].file_name().expect("named")), b"half").expect("write");
        let (index, applied) = LexicalIndex::open(directory.path(), &words()).expect("open after a crash");
        assert_eq!(applied, Lsn(2));
        index.remove(Lsn(1)).expect("remove");
        index.commit(Lsn(3)).expect("commit");
        assert_eq!((found(&index, "first"), found(&index, "second")), (vec![], vec![2]));
    }

    #[test]
    fn a_flipped_byte_in_any_file_discards_the_index() {
        let (directory, index) = index(&texts(["first", "second"]));
        index.checkpoint().expect("checkpoint");
        drop(index);
        for entry in std::fs::read_dir(directory.path()).expect("list") {
            let path = entry.expect("entry").path();
            let mut bytes = std::fs::read(&path).expect("read");
            if bytes.is_empty() || path.extension().is_some_and(|extension| extension == "lock") {
                continue;
            }
            let copy = tempfile::tempdir().expect("temporary directory");
            for file in std::fs::read_dir(directory.path()).expect("list") {
                let file = file.expect("entry");
                std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copy");
            }
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(copy.path().join(path.file_name().expect("named")), &bytes).expect("write");
            let (index, applied) = LexicalIndex::open(copy.path(), &words()).expect("open");
            assert_eq!((applied, found(&index, "first")), (Lsn::ZERO, vec![]), "{}", path.display());
        }
    }

    /// Passages of words `w0`, `w1`, …, each half as frequent as the one before, in several segments, some removed.
    fn generated(seed: u64, passages: u64, words: &Arc<WordCache>) -> (tempfile::TempDir, LexicalIndex) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (index, _) = LexicalIndex::open(directory.path(), words).expect("open");
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let commits = [passages / 2, passages / 2 + 1, passages];
        for key in 1..=passages {
            let length = 3 + next() % 60;
            let text: Vec<String> = (0..length).map(|_| format!("w{}", next().trailing_zeros())).collect();
            let entry = LexicalEntry {
                key,
                document: Lsn(key),
                language: Language::Other,
                context: "",
                text: &text.join(" "),
                metadata: &Map::new(),
            };
            index.add([entry]).expect("add");
            if next() % 11 == 0 {
                index.remove(Lsn(1 + next() % key)).expect("remove");
            }
            if commits.contains(&key) {
                index.commit(Lsn(key)).expect("commit");
            }
        }
        (directory, index)
    }

    /// What tantivy itself finds, all of it: score by key.
    fn reference(searcher: &LexicalSearcher, words: &[&str]) -> BTreeMap<u64, f32> {
        use tantivy::query::{BooleanQuery, Query, TermQuery};
        let terms = words.iter().map(|word| Term::from_field_text(searcher.fields.text, word));
        let clauses: Vec<Box<dyn Query>> =
            terms.map(|term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>).collect();
        let all = tantivy::collector::TopDocs::with_limit(1_000_000).order_by_score();
        let found = searcher.searcher.search(&BooleanQuery::union(clauses), &all).expect("search");
        found.into_iter().map(|(score, address)| (searcher.key(address), score)).collect()
    }

    #[test]
    fn scores_are_those_of_bm25() {
        let words = words();
        // 40,000 passages are three ranges; `w0` to `w4` are dense, `w9` is rare enough to be followed.
        for (seed, passages) in [(7, 40_000), (11, 300)] {
            let (_directory, index) = generated(seed, passages, &words);
            let searcher = index.searcher();
            assert!(searcher.searcher.segment_readers().len() > 1);
            for query in
                [&["w0"][..], &["w9"], &["w1", "w6"], &["w0", "w12"], &["w2", "w5", "w8", "w11"], &["w9", "w10", "w12"]]
            {
                let expected = reference(&searcher, query);
                let text = query.join(" ");
                for limit in [1, 10, 100, 100_000] {
                    let hits = searcher.search(&text, limit, None).expect("search");
                    assert_eq!(hits.len(), limit.min(expected.len()), "{text}");
                    let mut scores: Vec<f32> = expected.values().copied().collect();
                    scores.sort_by(|left, right| right.total_cmp(left));
                    let most = scores[0];
                    for (hit, best) in hits.iter().zip(scores) {
                        // A byte for each impact, and a sixteen-bit sum.
                        let exact = expected[&hit.key];
                        // A word that counts for next to nothing counts a little more, or it would not be found.
                        let off = exact * 0.01 + most * 0.005;
                        assert!((hit.score - exact).abs() < off, "{text} {hit:?} {exact}");
                        assert!(exact > best - 2.0 * off, "{text}: {hit:?} is not among the best: {exact} {best}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_a_long_query_the_rarest_words_count() {
        let texts: Vec<String> = (0..200).map(|number| format!("unique{number} common")).collect();
        let samples: Vec<Sample> =
            texts.into_iter().map(|text| Sample { text: text.leak(), metadata: json!({}) }).collect();
        let (_directory, index) = index(&samples);
        let query: Vec<String> =
            std::iter::once("common".to_owned()).chain((0..200).map(|number| format!("unique{number}"))).collect();
        let hits = index.searcher().search(&query.join(" "), 1_000, None).expect("search");
        assert_eq!(hits.len(), ranking::WORDS_MAX, "one for each of the rarest words, and none for the common one");
        assert!(hits.is_sorted_by(|left, right| left.score > right.score || left.key < right.key));
    }

    #[test]
    fn what_a_filter_admits_is_ranked_as_without_it() {
        let (_directory, index) = generated(5, 3_000, &words());
        let searcher = index.searcher();
        let all = searcher.search("w3 w6 w7", 10_000, None).expect("search");
        let keys: Vec<u64> = all.iter().map(|hit| hit.key).filter(|key| key % 7 == 0).collect();
        let segments = searcher.searcher.segment_readers().iter().enumerate().map(|(ordinal, segment)| {
            let mut bits = vec![0u64; (segment.max_doc() as usize).div_ceil(64)];
            for passage in 0..segment.max_doc() {
                let key = searcher.key(DocAddress::new(ordinal as u32, passage));
                bits[passage as usize / 64] |= u64::from(key % 7 == 0) << (passage % 64);
            }
            bits.into()
        });
        let among = Passages::new(segments.collect(), KeySet::from_sorted(keys.clone()));
        let hits = searcher.search("w3 w6 w7", 10_000, Some(&among)).expect("search");
        assert_eq!(hits.iter().map(|hit| hit.key).collect::<Vec<_>>(), keys);
    }

    #[test]
    fn what_is_remembered_gives_the_same_answers_and_stays_small() {
        let (small, large) = (Arc::new(WordCache::new(0)), words());
        let (_directory, index) = generated(3, 2_000, &small);
        let (_directory, remembering) = generated(3, 2_000, &large);
        for _ in 0..3 {
            for query in ["w1 w8", "w4", "w0 w2 w3 w5"] {
                let hits = |index: &LexicalIndex| index.searcher().search(query, 20, None).expect("search");
                assert_eq!(hits(&index), hits(&remembering), "{query}");
            }
        }
        assert_eq!(small.bytes(), 0);
        let (hits, misses) = large.hits_and_misses();
        assert_eq!(hits, misses * 2, "each word is decoded once and then found");
        assert!(large.bytes() > 0);
    }
}
