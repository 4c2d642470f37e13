//! The records of the log and their encoding. `FORMAT.md` describes the layouts.
//!
//! Decoding trusts nothing: a payload with a valid checksum may still come from a faulty build, so every length is
//! checked against the available bytes before anything is allocated for it.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use crate::base::{Digest, Lsn, UnixMillis};

/// A collection: the LSN of its creation record, so never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub Lsn);

/// The definition of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCollection {
    /// Unique among the existing collections.
    pub name: String,
    /// Its content, for people and agents.
    pub description: String,
    /// Embedding model of every chunk in it.
    pub model: String,
    /// Components of an embedding.
    pub dimensions: u32,
}

/// The text of a passage with its embedding. Stored once for each collection and digest.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkBody {
    /// Digest of headings, text and model, computed by the caller; equal digests mean equal bodies.
    pub digest: Digest,
    /// Headings above the passage, outermost first.
    pub headings: Vec<String>,
    /// The passage.
    pub text: String,
    /// ISO 639-1 code, or empty when unknown.
    pub language: String,
    /// One component per dimension of the collection, or empty when the passage has no embedding.
    pub embedding: Vec<f16>,
}

/// A passage without its embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkText {
    /// As in [`ChunkBody::digest`].
    pub digest: Digest,
    /// As in [`ChunkBody::headings`].
    pub headings: Vec<String>,
    /// As in [`ChunkBody::text`].
    pub text: String,
    /// As in [`ChunkBody::language`].
    pub language: String,
}

/// A chunk of a document: the record of its body and its position in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// LSN of the chunk record; other documents of the collection may refer to the same one.
    pub lsn: Lsn,
    /// As in [`ChunkBody::digest`].
    pub digest: Digest,
    /// Bytes of the source.
    pub range: Range<u64>,
    /// Page of the source, from 1, if it has pages.
    pub page: Option<u32>,
}

/// The version of a document that a record replaced or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// LSN of its record.
    pub lsn: Lsn,
    /// How many chunks it had.
    pub chunks: u32,
}

/// A version of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRecord {
    /// Its position in the log.
    pub lsn: Lsn,
    /// The collection it is in.
    pub collection: CollectionId,
    /// Unique in the collection.
    pub id: String,
    /// Title for people.
    pub title: String,
    /// Where the original is.
    pub url: Option<String>,
    /// A JSON object as provided.
    pub metadata: Vec<u8>,
    /// The declared source that it belongs to.
    pub source: Option<String>,
    /// Digest of the original bytes.
    pub source_digest: Option<Digest>,
    /// Digest of everything the caller provided.
    pub content_digest: Digest,
    /// Media type of the original.
    pub media_type: String,
    /// When the document was created: the time of its first version since it was last absent.
    pub created: UnixMillis,
    /// When this version was written.
    pub updated: UnixMillis,
    /// When it may be deleted.
    pub expires_at: Option<UnixMillis>,
    /// 1, 2, 3, …; continues after a delete, so that a version number is never reused for an id.
    pub version: u64,
    /// Bytes of text in all chunks.
    pub text_bytes: u64,
    /// In the order of the document.
    pub chunks: Vec<ChunkRef>,
    /// The previous version, if it still existed.
    pub replaced: Option<Replaced>,
}

/// A decoded record. Chunks are decoded separately, by [`decode_chunk`], because most readers skip them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    CollectionCreated(NewCollection),
    CollectionDeleted(CollectionId),
    DocumentPut(Arc<DocumentRecord>),
    DocumentDeleted {
        collection: CollectionId,
        id: String,
        version: u64,
        replaced: Replaced,
    },
    Answer {
        key: String,
        answer: Vec<u8>,
    },
    /// An empty value deletes the note.
    Note {
        collection: CollectionId,
        key: String,
        value: Vec<u8>,
    },
}

/// The numbers of the record kinds.
pub(crate) mod kind {
    pub(crate) const COLLECTION_CREATED: u8 = 1;
    pub(crate) const COLLECTION_DELETED: u8 = 2;
    pub(crate) const CHUNK: u8 = 3;
    pub(crate) const DOCUMENT_PUT: u8 = 4;
    pub(crate) const DOCUMENT_DELETED: u8 = 5;
    pub(crate) const ANSWER: u8 = 6;
    pub(crate) const NOTE: u8 = 7;
    /// All kinds that this build knows.
    pub(crate) const KNOWN: std::ops::RangeInclusive<u8> = COLLECTION_CREATED..=NOTE;
    /// The kinds that views follow; see [`crate::store::ChangeKind`].
    pub(crate) const CHANGES: [u8; 4] = [COLLECTION_CREATED, COLLECTION_DELETED, DOCUMENT_PUT, DOCUMENT_DELETED];
}

/// The payload is not a valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record's {0}")]
pub(crate) struct RecordError(pub(crate) &'static str);

impl Record {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::CollectionCreated(_) => kind::COLLECTION_CREATED,
            Self::CollectionDeleted(_) => kind::COLLECTION_DELETED,
            Self::DocumentPut(_) => kind::DOCUMENT_PUT,
            Self::DocumentDeleted { .. } => kind::DOCUMENT_DELETED,
            Self::Answer { .. } => kind::ANSWER,
            Self::Note { .. } => kind::NOTE,
        }
    }

    /// Appends the payload to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::CollectionCreated(new) => {
                out.str(&new.name);
                out.str(&new.description);
                out.str(&new.model);
                out.u32(new.dimensions);
            }
            Self::CollectionDeleted(collection) => out.u64(collection.0.0),
            Self::DocumentPut(document) => encode_document(document, out),
            Self::DocumentDeleted { collection, id, version, replaced } => {
                out.u64(collection.0.0);
                out.str(id);
                out.u64(*version);
                out.u64(replaced.lsn.0);
                out.u32(replaced.chunks);
            }
            Self::Answer { key, answer } => {
                out.str(key);
                out.bytes(answer);
            }
            Self::Note { collection, key, value } => {
                out.u64(collection.0.0);
                out.str(key);
                out.bytes(value);
            }
        }
    }

    /// Reads the payload of a record that is not a chunk.
    pub(crate) fn decode(kind: u8, lsn: Lsn, time: UnixMillis, payload: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder(payload);
        let record = match kind {
            kind::COLLECTION_CREATED => Self::CollectionCreated(NewCollection {
                name: from.str()?,
                description: from.str()?,
                model: from.str()?,
                dimensions: from.u32()?,
            }),
            kind::COLLECTION_DELETED => Self::CollectionDeleted(from.collection()?),
            kind::DOCUMENT_PUT => Self::DocumentPut(Arc::new(decode_document(lsn, time, &mut from)?)),
            kind::DOCUMENT_DELETED => Self::DocumentDeleted {
                collection: from.collection()?,
                id: from.str()?,
                version: from.u64()?,
                replaced: Replaced { lsn: Lsn(from.u64()?), chunks: from.u32()? },
            },
            kind::ANSWER => Self::Answer { key: from.str()?, answer: from.bytes()?.to_vec() },
            kind::NOTE => {
                Self::Note { collection: from.collection()?, key: from.str()?, value: from.bytes()?.to_vec() }
            }
            _ => return Err(RecordError("kind is not the expected one")),
        };
        from.end()?;
        Ok(record)
    }
}

fn encode_document(document: &DocumentRecord, out: &mut Vec<u8>) {
    out.u64(document.collection.0.0);
    out.str(&document.id);
    out.str(&document.title);
    out.option(document.url.as_deref(), Encode::str);
    out.bytes(&document.metadata);
    out.option(document.source.as_deref(), Encode::str);
    out.option(document.source_digest.as_ref(), Encode::digest);
    out.digest(&document.content_digest);
    out.str(&document.media_type);
    out.i64(document.created.0);
    out.option(document.expires_at, |out, time| out.i64(time.0));
    out.u64(document.version);
    out.u64(document.text_bytes);
    out.option(document.replaced, |out, replaced| {
        out.u64(replaced.lsn.0);
        out.u32(replaced.chunks);
    });
    out.u32(document.chunks.len() as u32);
    for chunk in &document.chunks {
        out.u64(chunk.lsn.0);
        out.digest(&chunk.digest);
        out.u64(chunk.range.start);
        out.u64(chunk.range.end);
        out.option(chunk.page, Encode::u32);
    }
}

fn decode_document(lsn: Lsn, time: UnixMillis, from: &mut Decoder<'_>) -> Result<DocumentRecord, RecordError> {
    Ok(DocumentRecord {
        lsn,
        updated: time,
        collection: from.collection()?,
        id: from.str()?,
        title: from.str()?,
        url: from.option(Decoder::str)?,
        metadata: from.bytes()?.to_vec(),
        source: from.option(Decoder::str)?,
        source_digest: from.option(Decoder::digest)?,
        content_digest: from.digest()?,
        media_type: from.str()?,
        created: UnixMillis(from.i64()?),
        expires_at: from.option(Decoder::i64)?.map(UnixMillis),
        version: from.u64()?,
        text_bytes: from.u64()?,
        replaced: from.option(|from| Ok(Replaced { lsn: Lsn(from.u64()?), chunks: from.u32()? }))?,
        chunks: from.list(8 + 32 + 8 + 8 + 1, |from| {
            Ok(ChunkRef {
                lsn: Lsn(from.u64()?),
                digest: from.digest()?,
                range: from.u64()?..from.u64()?,
                page: from.option(Decoder::u32)?,
            })
        })?,
    })
}

/// Appends the payload of a chunk record to `out`.
pub(crate) fn encode_chunk(collection: CollectionId, body: &ChunkBody, out: &mut Vec<u8>) {
    out.u64(collection.0.0);
    out.digest(&body.digest);
    out.u32(body.headings.len() as u32);
    body.headings.iter().for_each(|heading| out.str(heading));
    out.str(&body.language);
    out.str(&body.text);
    out.u32(body.embedding.len() as u32);
    out.extend(body.embedding.iter().flat_map(|component| component.to_le_bytes()));
}

/// Reads the payload of a chunk record.
pub(crate) fn decode_chunk(payload: &[u8]) -> Result<ChunkBody, RecordError> {
    let mut from = Decoder(payload);
    let ChunkText { digest, headings, text, language } = decode_passage(&mut from)?;
    let count = from.u32()? as usize;
    let components = from.take(count.checked_mul(2).ok_or(RecordError("embedding is too long"))?)?;
    let (pairs, _) = components.as_chunks::<2>();
    let embedding = pairs.iter().map(|pair| f16::from_le_bytes(*pair)).collect();
    from.end()?;
    Ok(ChunkBody { digest, headings, text, language, embedding })
}

/// Reads the payload of a chunk record up to the embedding.
pub(crate) fn decode_chunk_text(payload: &[u8]) -> Result<ChunkText, RecordError> {
    decode_passage(&mut Decoder(payload))
}

fn decode_passage(from: &mut Decoder<'_>) -> Result<ChunkText, RecordError> {
    from.collection()?;
    let digest = from.digest()?;
    let headings = from.list(4, Decoder::str)?;
    let language = from.str()?;
    Ok(ChunkText { digest, headings, text: from.str()?, language })
}

/// Writes the format's types; lengths fit because [`super::commit`] bounds what it accepts.
pub(crate) trait Encode {
    fn raw(&mut self, bytes: &[u8]);

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }
    fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }
    fn digest(&mut self, value: &Digest) {
        self.raw(&value.0);
    }
    fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.raw(value);
    }
    fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }
    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.raw(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }
}

impl Encode for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The bytes that have not been read yet.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordError("bytes end early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError("bytes end early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, RecordError> {
        self.array().map(Digest)
    }

    pub(crate) fn collection(&mut self) -> Result<CollectionId, RecordError> {
        self.u64().map(|lsn| CollectionId(Lsn(lsn)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub(crate) fn str(&mut self) -> Result<String, RecordError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| RecordError("text is not UTF-8"))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        match self.array()? {
            [0] => Ok(None),
            [1] => read(self).map(Some),
            _ => Err(RecordError("option is neither 0 nor 1")),
        }
    }

    /// A list whose items take at least `item_min` bytes each, which bounds the count before anything is allocated.
    fn list<T>(
        &mut self,
        item_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        let count = self.u32()? as usize;
        if count > self.0.len() / item_min {
            return Err(RecordError("list is longer than its bytes"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError("bytes after the last field")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn any_digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest)
    }

    fn any_chunk_ref() -> impl Strategy<Value = ChunkRef> {
        (any::<u64>(), any_digest(), any::<u64>(), any::<u64>(), any::<Option<u32>>())
            .prop_map(|(lsn, digest, start, end, page)| ChunkRef { lsn: Lsn(lsn), digest, range: start..end, page })
    }

    prop_compose! {
        fn any_document()(
            (lsn, collection, version, text_bytes) in any::<(u64, u64, u64, u64)>(),
            (id, title, media_type) in any::<(String, String, String)>(),
            (url, source) in any::<(Option<String>, Option<String>)>(),
            metadata in any::<Vec<u8>>(),
            source_digest in option::of(any_digest()),
            content_digest in any_digest(),
            (created, updated, expires) in any::<(i64, i64, Option<i64>)>(),
            chunks in vec(any_chunk_ref(), 0..4),
            replaced in any::<Option<(u64, u32)>>(),
        ) -> DocumentRecord {
            DocumentRecord {
                lsn: Lsn(lsn), collection: CollectionId(Lsn(collection)), id, title, url, metadata, source, source_digest,
                content_digest, media_type, created: UnixMillis(created), updated: UnixMillis(updated),
                expires_at: expires.map(UnixMillis), version, text_bytes, chunks,
                replaced: replaced.map(|(lsn, chunks)| Replaced { lsn: Lsn(lsn), chunks }),
            }
        }
    }

    proptest! {
        #[test]
        fn a_document_survives_its_bytes(document in any_document()) {
            let mut bytes = Vec::new();
            let record = Record::DocumentPut(Arc::new(document.clone()));
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(record.kind(), document.lsn, document.updated, &bytes), Ok(record));
            for end in 0..bytes.len() {
                prop_assert!(Record::decode(kind::DOCUMENT_PUT, Lsn(1), UnixMillis(0), &bytes[..end]).is_err());
            }
        }

        #[test]
        fn a_chunk_survives_its_bytes(
            digest in any_digest(),
            headings in any::<Vec<String>>(),
            text: String,
            language: String,
            components in vec(-9.0_f32..9.0, 0..40),
        ) {
            let embedding: Vec<f16> = components.into_iter().map(f16::from_f32).collect();
            let body = ChunkBody { digest, headings, text, language, embedding };
            let mut bytes = Vec::new();
            encode_chunk(CollectionId(Lsn(3)), &body, &mut bytes);
            prop_assert_eq!(decode_chunk_text(&bytes).map(|passage| passage.text), Ok(body.text.clone()));
            prop_assert_eq!(decode_chunk(&bytes), Ok(body));
            bytes.push(0);
            prop_assert!(decode_chunk(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0_u8..9, bytes: Vec<u8>) {
            let _ = Record::decode(kind, Lsn(1), UnixMillis(0), &bytes);
            let _ = decode_chunk(&bytes);
        }
    }
}
