//! Documents: one by one with versions, and many at once.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::collections::OfCollection;
use super::conditions::{Conditions, IF_CHANGED, IF_MATCH, IF_NONE_MATCH, REPEATABLE, Tags};
use super::endpoint::{
    Answer, Endpoint, EndpointRequest, Json, NoBody, Nothing, Payload, RawJson, Reply, media_type, object, without_mark,
};
use super::problem::Failure;
use crate::collection::{Body, MediaType};
use crate::mcp::answers::{DocumentResult, ListDocumentsAnswer};
use crate::mcp::arguments::{self, NewDocument};
use crate::mcp::{
    DocumentChange, ErrorCode, IncomingDocument, Precondition, RepeatKey, StoredDocument, ToolError, values,
};

/// Documents that are written in one batch; more are written in several.
const BATCH: usize = 1_000;
/// Documents of one request.
const DOCUMENTS_MAX: usize = 100_000;
/// Characters of the reason why a line is not a document.
const LINE_ERROR_CHARS: usize = 200;

/// A document in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfDocument {
    /// The collection's name.
    pub(crate) collection: String,
    /// The document's id; slashes may be unescaped.
    pub(crate) document: String,
}

/// What documents are listed.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only ids that begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    /// Only documents whose metadata matches; a filter as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// `id` or `updated`: the last changed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    /// Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// `next_cursor` of the previous page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `GET /v1/collections/{collection}/documents`
pub(crate) struct ListDocuments;

impl Endpoint for ListDocuments {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections/{collection}/documents";
    const ID: &'static str = "listDocuments";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "List the documents of a collection, a page at a time";
    type Path = OfCollection;
    type Query = ListQuery;
    type Body = NoBody;
    type Answer = RawJson<ListDocumentsAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let query = &asked.query;
        let arguments = json!({
            "collection": asked.path.collection, "prefix": query.prefix.clone().unwrap_or_default(), "filter": query.filter,
            "order": query.order.as_deref().unwrap_or("id"), "limit": query.limit, "cursor": query.cursor,
            "max_tokens": crate::retrieval::LIST_TOKENS_MAX, "include": ["source", "dates", "metadata"],
        });
        Ok(Reply::ok(asked.tool("list_documents", arguments).await?))
    }
}

/// `GET /v1/collections/{collection}/documents/{document}`
pub(crate) struct GetDocument;

impl Endpoint for GetDocument {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections/{collection}/documents/{*document}";
    const ID: &'static str = "getDocument";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "A document with its whole text";
    const SUCCESS: &'static [(u16, &'static str)] =
        &[(200, "The document; its ETag is its version."), (304, "It is still at the version that the client has.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[IF_CHANGED];
    type Path = OfDocument;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Unless<StoredDocument>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let OfDocument { collection, document } = &asked.path;
        let (stored, version) = asked.shared.tools.document(&asked.caller, collection, document).await?;
        let known = asked.conditions.if_none_match.is_some_and(|tags| tags.has(version));
        let reply = if known { Reply::not_modified(Unless(None)) } else { Reply::ok(Unless(Some(stored))) };
        Ok(reply.tagged(version))
    }
}

/// An answer that may be left out.
pub(crate) struct Unless<T>(Option<T>);

impl<T: Serialize + JsonSchema + Send> Answer for Unless<T> {
    fn write(self) -> Option<(&'static str, Vec<u8>)> {
        self.0.and_then(Answer::write)
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        T::describe(schemas)
    }
}

/// A document as it comes: described in JSON, or as the file that it is.
pub(crate) enum DocumentBody {
    Described(Box<NewDocument>),
    Content(Body),
}

/// The formats of documents that come as they are. JSON describes a document, so text of it is not among them.
fn formats() -> impl Iterator<Item = MediaType> {
    MediaType::ALL.into_iter().filter(|format| *format != MediaType::Json)
}

impl Payload for DocumentBody {
    async fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Failure> {
        let kind = media_type(headers);
        match MediaType::from_mime(&kind) {
            Some(MediaType::Json) => Ok(Self::Described(Box::new(arguments::read(object(headers, &bytes)?)?))),
            Some(format) => Ok(Self::Content(Body::Typed(format, bytes.into()))),
            None => {
                let known: Vec<&str> = [MediaType::Json].into_iter().chain(formats()).map(MediaType::as_str).collect();
                Err(Failure::unsupported_of(&known.join(", ")))
            }
        }
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)> {
        let mut kinds = vec![("application/json", schemas.subschema_for::<NewDocument>())];
        kinds.extend(formats().map(|format| {
            let schema = match format {
                MediaType::Markdown | MediaType::Text => json_schema!({"type": "string"}),
                _ => json_schema!({"type": "string", "format": "binary"}),
            };
            (format.as_str(), schema)
        }));
        Some((false, kinds))
    }
}

/// `PUT /v1/collections/{collection}/documents/{document}`
pub(crate) struct PutDocument;

impl Endpoint for PutDocument {
    const METHOD: Method = Method::PUT;
    const PATH: &'static str = "/v1/collections/{collection}/documents/{*document}";
    const ID: &'static str = "putDocument";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "Create or replace a document, in a collection that is created when it is missing";
    const SUCCESS: &'static [(u16, &'static str)] =
        &[(200, "Replaced, or unchanged; the ETag is its version."), (201, "Created.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[IF_MATCH, IF_NONE_MATCH];
    type Path = OfDocument;
    type Query = Nothing;
    type Body = DocumentBody;
    type Answer = DocumentResult;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let OfDocument { collection, document } = &asked.path;
        let (given, content) = match asked.body {
            DocumentBody::Described(given) => match &given.id {
                Some(id) if id != document => {
                    let message =
                        format!("id is '{id}' in the body and '{document}' in the address; leave it out of the body");
                    return Err(ToolError::bad_argument(message).into());
                }
                _ => (NewDocument { id: Some(document.clone()), ..*given }, None),
            },
            DocumentBody::Content(body) => (NewDocument::named(document), Some(body)),
        };
        let expected = precondition(&asked.conditions)?;
        let tools = &asked.shared.tools;
        let written = tools.put_document(&asked.caller, collection, given, content, &expected).await;
        let (written, version) = written.map_err(|error| conditional(error, &expected))?;
        let location = GetDocument::url("", &asked.path, &Nothing {});
        let reply = if written.status == "created" { Reply::created(written, &location) } else { Reply::ok(written) };
        Ok(reply.tagged(version))
    }
}

fn precondition(conditions: &Conditions) -> Result<Precondition, Failure> {
    Ok(match (&conditions.if_match, &conditions.if_none_match) {
        (None, None) => Precondition::None,
        (Some(Tags::Any), None) => Precondition::Present,
        (Some(tags), None) => Precondition::OneOf(tags.strong()),
        (None, Some(Tags::Any)) => Precondition::Absent,
        (None, Some(Tags::List(_))) => {
            return Err(ToolError::bad_argument("If-None-Match of a write takes * only").into());
        }
        (Some(_), Some(_)) => {
            return Err(ToolError::bad_argument("expected at most one of If-Match and If-None-Match").into());
        }
    })
}

/// What failed for its condition says so.
fn conditional(error: ToolError, expected: &Precondition) -> Failure {
    let is_missing =
        error.code == ErrorCode::NotFound && matches!(expected, Precondition::Present | Precondition::OneOf(_));
    if *expected != Precondition::None && (error.code == ErrorCode::Conflict || is_missing) {
        return Failure::precondition(ToolError { code: ErrorCode::Conflict, ..error });
    }
    error.into()
}

/// What changes in a document; what is left out stays.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentPatch {
    /// The whole new text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Of the new text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Fields to set; null removes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
}

/// `PATCH /v1/collections/{collection}/documents/{document}`
pub(crate) struct PatchDocument;

impl Endpoint for PatchDocument {
    const METHOD: Method = Method::PATCH;
    const PATH: &'static str = "/v1/collections/{collection}/documents/{*document}";
    const ID: &'static str = "patchDocument";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "Change text, title, url or metadata of a document";
    const SUCCESS: &'static [(u16, &'static str)] = &[(200, "Changed, or unchanged; the ETag is its version.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[IF_MATCH];
    type Path = OfDocument;
    type Query = Nothing;
    type Body = Json<DocumentPatch>;
    type Answer = DocumentResult;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let expected = precondition(&asked.conditions)?;
        let OfDocument { collection, document } = &asked.path;
        let DocumentPatch { text, media_type, title, url, metadata } = asked.body.0;
        let change = DocumentChange { text, media_type, title, url, metadata_patch: metadata, if_version: None };
        let changed = asked.shared.tools.patch_document(&asked.caller, collection, document, change, &expected).await;
        let (written, version) = changed.map_err(|error| conditional(error, &expected))?;
        Ok(Reply::ok(written).tagged(version))
    }
}

/// `DELETE /v1/collections/{collection}/documents/{document}`
pub(crate) struct DeleteDocument;

impl Endpoint for DeleteDocument {
    const METHOD: Method = Method::DELETE;
    const PATH: &'static str = "/v1/collections/{collection}/documents/{*document}";
    const ID: &'static str = "deleteDocument";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "Delete a document";
    const SUCCESS: &'static [(u16, &'static str)] = &[(204, "Deleted.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[IF_MATCH];
    type Path = OfDocument;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = Unless<Nothing>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let expected = precondition(&asked.conditions)?;
        let OfDocument { collection, document } = &asked.path;
        let deleted = asked.shared.tools.delete_document(&asked.caller, collection, document, &expected).await;
        deleted.map_err(|error| conditional(error, &expected))?;
        Ok(Reply::no_content(Unless(None)))
    }
}

/// Many documents: JSON lines, each a document; or a form with files. They are read a batch at a time, because a
/// document takes many times the memory of its line.
pub(crate) enum Many {
    One(Box<NewDocument>),
    Lines(Lines),
    Files(std::vec::IntoIter<FormFile>),
}

impl Payload for Many {
    async fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Failure> {
        match media_type(headers).as_str() {
            "application/x-ndjson" | "application/jsonl" => Ok(Self::Lines(Lines::new(bytes)?)),
            "application/json" => Ok(Self::One(Box::new(arguments::read(object(headers, &bytes)?)?))),
            "multipart/form-data" => Ok(Self::Files(files(headers, bytes).await?.into_iter())),
            _ => Err(Failure::unsupported_of("application/x-ndjson, application/json, multipart/form-data")),
        }
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)> {
        let document = schemas.subschema_for::<NewDocument>();
        let form = json_schema!({
            "type": "object",
            "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            "required": ["file"],
        });
        Some((
            false,
            vec![
                ("application/json", document),
                ("application/x-ndjson", json_schema!({"type": "string", "description": "One document per line."})),
                ("multipart/form-data", form),
            ],
        ))
    }
}

impl Many {
    /// The documents of the next batch; none at the end.
    fn next_batch(&mut self) -> Vec<Result<IncomingDocument, String>> {
        match self {
            Self::One(given) => {
                let given = std::mem::take(&mut **given);
                *self = Self::Files(Vec::new().into_iter());
                vec![Ok((given, None))]
            }
            Self::Lines(lines) => {
                lines.next_batch().into_iter().map(|line| line.map(|document| (document, None))).collect()
            }
            Self::Files(files) => files.by_ref().take(BATCH).map(FormFile::document).collect(),
        }
    }
}

/// That a body has more documents than one request may have.
fn too_many(what: &str) -> Failure {
    let message = format!("the body has more than {DOCUMENTS_MAX} {what}; send them in several requests");
    ToolError::bad_argument(message).into()
}

/// JSON lines, each a document; blank ones are none.
pub(crate) struct Lines {
    bytes: Bytes,
    /// Where the next line begins, and the number of the one before.
    at: usize,
    number: usize,
}

impl Lines {
    fn new(bytes: Bytes) -> Result<Self, Failure> {
        let bytes = without_mark(bytes);
        let mut lines = Self { bytes, at: 0, number: 0 };
        for _ in 0..=DOCUMENTS_MAX {
            if lines.next_line().is_none() {
                return Ok(Self { at: 0, number: 0, ..lines });
            }
        }
        Err(too_many("lines"))
    }

    /// The next line that is not blank, with its number.
    fn next_line(&mut self) -> Option<(usize, Bytes)> {
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let is_blank = rest[..length].iter().all(u8::is_ascii_whitespace);
            let line = self.bytes.slice(self.at..self.at + length);
            self.at += length + 1;
            self.number += 1;
            if !is_blank {
                return Some((self.number, line));
            }
        }
        None
    }

    /// As many documents as are written at once; fewer where they have many values.
    fn next_batch(&mut self) -> Vec<Result<NewDocument, String>> {
        let (mut batch, mut values) = (Vec::new(), 0);
        while batch.len() < BATCH {
            let before = (self.at, self.number);
            let Some((number, line)) = self.next_line() else { break };
            let count = values::count(&line);
            if !batch.is_empty() && values + count > values::VALUES_MAX {
                (self.at, self.number) = before;
                break;
            }
            values += count;
            batch.push(document_of(number, &line));
        }
        batch
    }
}

/// The document of a line, or what is wrong with it.
fn document_of(number: usize, line: &[u8]) -> Result<NewDocument, String> {
    if values::are_too_many(line) {
        return Err(format!("line {number}: {}", values::too_many()));
    }
    match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => arguments::read(fields).map_err(|error| {
            let shown: String = error.to_string().chars().take(LINE_ERROR_CHARS).collect();
            format!("line {number}: {shown}")
        }),
        Ok(_) => Err(format!("line {number} is not an object; expected a document")),
        Err(error) => {
            // Its own place says line 1.
            let (words, column) = (error.to_string(), error.column());
            let words = words.split(" at line ").next().unwrap_or_default();
            Err(format!("line {number} is not JSON: {words} at column {column}"))
        }
    }
}

/// A file of a form; its name is the document's id.
pub(crate) struct FormFile {
    name: Result<String, String>,
    content: Bytes,
}

impl FormFile {
    fn document(self) -> Result<IncomingDocument, String> {
        let Self { name, content } = self;
        let name = name?;
        Ok((NewDocument::named(&name), Some(Body::File { name, bytes: content.into() })))
    }
}

/// The name of a part's file; the extended form (RFC 5987) wins, as RFC 6266 says.
fn file_name(field: &multer::Field<'_>) -> Option<String> {
    let disposition = field.headers().get(header::CONTENT_DISPOSITION).and_then(|value| value.to_str().ok());
    let extended = disposition.into_iter().flat_map(|value| value.split(';')).find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        let (charset, value) = value.trim().trim_matches('"').split_once('\'')?;
        let (_language, encoded) = value.split_once('\'')?;
        (name.trim_end().eq_ignore_ascii_case("filename*") && charset.eq_ignore_ascii_case("utf-8")).then_some(encoded)
    });
    let name = match extended {
        Some(encoded) => {
            // Percent-encoded as a form's values are, in which three more characters have a meaning.
            let value = encoded.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
            form_urlencoded::parse(value.as_bytes()).next().map(|(name, _)| name.into_owned())
        }
        None => field.file_name().map(str::to_owned),
    };
    name.filter(|name| !name.is_empty() && !name.contains('\u{fffd}'))
}

/// The files of a form.
async fn files(headers: &HeaderMap, bytes: Bytes) -> Result<Vec<FormFile>, Failure> {
    let broken = |error: multer::Error| ToolError::bad_argument(format!("the form cannot be read: {error}"));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(broken)?;
    let whole = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(bytes)]);
    let mut form = multer::Multipart::new(whole, boundary);
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if files.len() == DOCUMENTS_MAX {
            return Err(too_many("files"));
        }
        let name = file_name(&field).ok_or_else(|| {
            let part: String = field.name().unwrap_or_default().chars().take(80).collect();
            format!("the part '{part}' of the form is not a file, or its file name is not UTF-8")
        });
        files.push(FormFile { name, content: field.bytes().await.map_err(broken)? });
    }
    Ok(files)
}

/// The results of a batch that failed as a whole, after others were written.
fn not_written(collection: &str, ids: Vec<Option<String>>, error: &ToolError) -> Vec<DocumentResult> {
    let failed = |(at, id): (usize, Option<String>)| DocumentResult {
        id: id.map_or_else(|| format!("documents[{at}]"), |id| format!("{collection}/{id}")),
        status: "failed".to_owned(),
        version: None,
        passages: 0,
        error: Some(error.message.clone()),
        code: Some(error.code.as_str().to_owned()),
        warning: None,
    };
    ids.into_iter().enumerate().map(failed).collect()
}

/// What became of each document, a line of JSON each, in their order.
#[derive(Default)]
pub(crate) struct Results(Vec<u8>);

impl Results {
    /// * `place`: of the first one among all of the request.
    fn add(&mut self, batch: Vec<DocumentResult>, place: usize) {
        for (at, mut result) in batch.into_iter().enumerate() {
            // One without an id is named by its place in its batch.
            if place > 0 && result.id == format!("documents[{at}]") {
                result.id = format!("documents[{}]", place + at);
            }
            serde_json::to_writer(&mut self.0, &result).expect("answers are plain data");
            self.0.push(b'\n');
        }
    }
}

impl Answer for Results {
    fn write(self) -> Option<(&'static str, Vec<u8>)> {
        Some(("application/x-ndjson", self.0))
    }

    fn describe(_: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        let description = "The result of each document as a line of JSON, in their order.";
        Some(("application/x-ndjson", json_schema!({"type": "string", "description": description})))
    }
}

/// `POST /v1/collections/{collection}/documents`
pub(crate) struct AddDocuments;

impl Endpoint for AddDocuments {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/collections/{collection}/documents";
    const ID: &'static str = "addDocuments";
    const TAG: &'static str = "Documents";
    const SUMMARY: &'static str = "Add or replace many documents, with a result for each";
    const SUCCESS: &'static [(u16, &'static str)] =
        &[(200, "A line of JSON for each document, in their order; `status` is `failed` where one was not taken.")];
    const HEADERS: &'static [(&'static str, &'static str)] = &[REPEATABLE];
    type Path = OfCollection;
    type Query = Nothing;
    type Body = Many;
    type Answer = Results;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let collection = &asked.path.collection;
        let mut many = asked.body;
        let (mut results, mut batch, mut place) = (Results::default(), 0usize, 0usize);
        loop {
            let documents = many.next_batch();
            if documents.is_empty() {
                break;
            }
            // Each batch is one atomic write, so each has a key of its own.
            let key = asked.conditions.idempotency_key.as_deref().map(|key| RepeatKey { key, part: batch });
            let ids: Vec<_> =
                documents.iter().map(|read| read.as_ref().ok().and_then(|(given, _)| given.id.clone())).collect();
            let count = documents.len();
            match asked.shared.tools.add_bulk(&asked.caller, collection, documents, key).await {
                Ok(written) => results.add(written, place),
                // Nothing was written so far.
                Err(error) if batch == 0 => return Err(error.into()),
                Err(error) => results.add(not_written(collection, ids, &error), place),
            }
            (batch, place) = (batch + 1, place + count);
        }
        if batch == 0 {
            return Err(ToolError::bad_argument("there is no document in the body").into());
        }
        Ok(Reply::ok(results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Vec<Vec<Result<NewDocument, String>>> {
        let mut lines = Lines::new(Bytes::copy_from_slice(lines.as_bytes())).expect("not too many");
        std::iter::from_fn(|| Some(lines.next_batch()).filter(|batch| !batch.is_empty())).collect()
    }

    #[test]
    fn each_line_is_a_document_or_says_why_not() {
        let batches =
            read(&format!("{{\"id\": \"a\", \"text\": \"x\"}}\n\n[1]\n{{\"{}\": 1}}\nnot JSON\n", "t".repeat(9_999)));
        let told: Vec<_> = batches[0].iter().map(|read| read.as_ref().map(|document| document.id.as_deref())).collect();
        assert_eq!(told[0], Ok(Some("a")));
        assert_eq!(told[3], Err(&"line 5 is not JSON: expected ident at column 2".to_owned()));
        for (place, beginning) in [(1, "line 3 is not an object"), (2, "line 4: unknown argument 'ttt")] {
            assert!(
                told[place].as_ref().is_err_and(|error| error.starts_with(beginning) && error.len() < 300),
                "{told:?}"
            );
        }
    }

    #[test]
    fn lines_come_in_batches_of_bounded_size() {
        let sizes = |lines: &str| read(lines).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&"{}\n".repeat(2_300)), [1_000, 1_000, 300]);
        // Each has 40,001 values.
        let wide = format!("{{\"metadata\": {{\"a\": [{}1]}}}}\n", "1,".repeat(39_998));
        assert_eq!(sizes(&wide.repeat(5)), [2, 2, 1]);
        let too_wide = format!("{{\"metadata\": [{}]}}\n{{}}\n", "[],".repeat(values::VALUES_MAX));
        let batches = read(&too_wide);
        assert!(batches[0][0].as_ref().is_err_and(|error| error.starts_with("line 1: the message has more than")));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 2);
        assert!(Lines::new("x\n".repeat(DOCUMENTS_MAX).into()).is_ok());
        assert!(Lines::new("x\n".repeat(DOCUMENTS_MAX + 1).into()).is_err());
    }
}
