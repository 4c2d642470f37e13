//! Documents: one by one with versions, and many at once.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::collections::OfCollection;
use super::conditions::{Conditions, Expected, IF_CHANGED, IF_MATCH, IF_NONE_MATCH, REPEATABLE};
use super::endpoint::{
    Answer, Endpoint, EndpointRequest, Json, NoBody, Nothing, Payload, RawJson, Reply, media_type, object,
};
use super::problem::Failure;
use crate::collection::{Body, MediaType};
use crate::mcp::answers::{DocumentResult, ListDocumentsAnswer};
use crate::mcp::arguments::{self, NewDocument};
use crate::mcp::{DocumentChange, ErrorCode, IncomingDocument, Precondition, RepeatKey, StoredDocument, ToolError};

/// Documents that are written in one batch; more are written in several.
const BATCH: usize = 1_000;

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
        let stored = asked.shared.tools.document(&asked.caller, collection, document).await?;
        let version = stored.version;
        let known = match asked.conditions.if_none_match {
            Some(Expected::Any) => true,
            Some(Expected::Version(known)) => known == version,
            None => false,
        };
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
        let written = tools.put_document(&asked.caller, collection, given, content, expected).await;
        let written = written.map_err(|error| conditional(error, expected))?;
        let version = written.version.unwrap_or_default();
        let location = GetDocument::url("", &asked.path, &Nothing {});
        let reply = if written.status == "created" { Reply::created(written, &location) } else { Reply::ok(written) };
        Ok(reply.tagged(version))
    }
}

fn precondition(conditions: &Conditions) -> Result<Precondition, Failure> {
    Ok(match (conditions.if_match, conditions.if_none_match) {
        (None, None) => Precondition::None,
        (Some(Expected::Any), None) => Precondition::Present,
        (Some(Expected::Version(version)), None) => Precondition::Version(version),
        (None, Some(Expected::Any)) => Precondition::Absent,
        (None, Some(Expected::Version(_))) => {
            return Err(ToolError::bad_argument("If-None-Match of a write takes * only").into());
        }
        (Some(_), Some(_)) => {
            return Err(ToolError::bad_argument("expected at most one of If-Match and If-None-Match").into());
        }
    })
}

/// What failed for its condition says so.
fn conditional(error: ToolError, expected: Precondition) -> Failure {
    let is_missing =
        error.code == ErrorCode::NotFound && matches!(expected, Precondition::Present | Precondition::Version(_));
    if expected != Precondition::None && (error.code == ErrorCode::Conflict || is_missing) {
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
        let if_version = match expected {
            Precondition::Version(version) => Some(version),
            Precondition::None | Precondition::Absent | Precondition::Present => None,
        };
        let change = DocumentChange { text, media_type, title, url, metadata_patch: metadata, if_version };
        let changed = asked.shared.tools.patch_document(&asked.caller, collection, document, change).await;
        let written = changed.map_err(|error| conditional(error, expected))?;
        let version = written.version.unwrap_or_default();
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
        let version = match expected {
            Precondition::Version(version) => Some(version),
            _ => None,
        };
        let OfDocument { collection, document } = &asked.path;
        let deleted = asked.shared.tools.delete_document(&asked.caller, collection, document, version).await;
        deleted.map_err(|error| conditional(error, expected))?;
        Ok(Reply::no_content(Unless(None)))
    }
}

/// Many documents: JSON lines, each a document; or a form with files.
pub(crate) struct Many(Vec<Result<IncomingDocument, String>>);

impl Payload for Many {
    async fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Failure> {
        match media_type(headers).as_str() {
            "application/x-ndjson" | "application/jsonl" => {
                let documents = lines(&bytes).into_iter().map(|line| line.map(|document| (document, None)));
                Ok(Self(documents.collect()))
            }
            "application/json" => {
                let document = arguments::read(object(headers, &bytes)?)?;
                Ok(Self(vec![Ok((document, None))]))
            }
            "multipart/form-data" => Ok(Self(files(headers, bytes).await?)),
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

/// The documents of JSON lines; blank ones are none.
fn lines(bytes: &[u8]) -> Vec<Result<NewDocument, String>> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    lines
        .map(|(number, line)| {
            let number = number + 1;
            match serde_json::from_slice(line) {
                Ok(Value::Object(fields)) => arguments::read(fields).map_err(|error| format!("line {number}: {error}")),
                Ok(_) => Err(format!("line {number} is not an object; expected a document")),
                Err(error) => Err(format!("line {number} is not JSON: {error}")),
            }
        })
        .collect()
}

/// The files of a form; the name of each is its id.
async fn files(headers: &HeaderMap, bytes: Bytes) -> Result<Vec<Result<IncomingDocument, String>>, Failure> {
    let broken = |error: multer::Error| ToolError::bad_argument(format!("the form cannot be read: {error}"));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(broken)?;
    let whole = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(bytes)]);
    let mut form = multer::Multipart::new(whole, boundary);
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.file_name().or(field.name()).unwrap_or_default().to_owned();
        let content = field.bytes().await.map_err(broken)?;
        files.push(if name.is_empty() {
            Err("a part of the form has no file name".to_owned())
        } else {
            Ok((NewDocument::named(&name), Some(Body::File { name, bytes: content.into() })))
        });
    }
    Ok(files)
}

/// What became of each document, a line each, in their order.
pub(crate) struct Results(Vec<DocumentResult>);

impl Answer for Results {
    fn write(self) -> Option<(&'static str, Vec<u8>)> {
        let mut content = Vec::new();
        for result in &self.0 {
            content.extend(serde_json::to_vec(result).expect("answers are plain data"));
            content.push(b'\n');
        }
        Some(("application/x-ndjson", content))
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
        let mut documents = asked.body.0;
        if documents.is_empty() {
            return Err(ToolError::bad_argument("there is no document in the body").into());
        }
        let (mut results, mut batch) = (Vec::with_capacity(documents.len()), 0usize);
        while !documents.is_empty() {
            let rest = documents.split_off(documents.len().min(BATCH));
            // Each batch is one atomic write, so each has a key of its own.
            let key = asked.conditions.idempotency_key.as_deref().map(|key| RepeatKey { key, part: batch });
            let written = asked.shared.tools.add_bulk(&asked.caller, collection, documents, key).await;
            results.extend(written?);
            (documents, batch) = (rest, batch + 1);
        }
        Ok(Reply::ok(Results(results)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_document_or_says_why_not() {
        let read = lines(b"{\"id\": \"a\", \"text\": \"x\"}\n\n[1]\n{\"txt\": 1}\nnot JSON\n");
        let told: Vec<_> = read.iter().map(|read| read.as_ref().map(|document| document.id.as_deref())).collect();
        assert_eq!(told[0], Ok(Some("a")));
        for (place, beginning) in
            [(1, "line 3 is not an object"), (2, "line 4: unknown argument 'txt'"), (3, "line 5 is not JSON")]
        {
            assert!(told[place].as_ref().is_err_and(|error| error.starts_with(beginning)), "{told:?}");
        }
    }
}
