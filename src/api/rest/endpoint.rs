//! A route as one type: its path, its input, its answer and its handler. The router, the OpenAPI document and the
//! client of the command line are generated from it.
//!
//! Invariants: paths and queries are parsed by the names and types of their structs, bodies by their media type; an
//! error is a problem that names the argument.

use std::borrow::Cow;
use std::future::Future;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts as _, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::MethodFilter;
use axum::{Extension, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conditions::{Conditions, ETag};
use super::problem::{Failure, problem};
use crate::api::Shared;
use crate::auth::Caller;
use crate::base::Fault;
use crate::mcp::{Arguments, Context, DocumentVersion, ErrorCode, ToolAnswer, ToolError, arguments, values};

/// A method with a path.
pub(crate) trait Endpoint: Sized + Send + Sync + 'static {
    /// Its method.
    const METHOD: Method;
    /// Its path, with names in braces; `{*name}` matches the rest, including slashes.
    const PATH: &'static str;
    /// Its name in the OpenAPI document.
    const ID: &'static str;
    /// The group that it belongs to.
    const TAG: &'static str;
    /// A one-line summary.
    const SUMMARY: &'static str;
    /// Statuses of answers that are not problems, with their descriptions.
    const SUCCESS: &'static [(u16, &'static str)] = &[(200, "Done.")];
    /// Request headers that count, each with what it does.
    const HEADERS: &'static [(&'static str, &'static str)] = &[];
    /// The names in its path.
    type Path: Serialize + DeserializeOwned + JsonSchema + Send;
    /// The query parameters.
    type Query: Serialize + DeserializeOwned + JsonSchema + Send;
    /// The body of the request.
    type Body: Payload;
    /// The body of the answer.
    type Answer: Answer;

    /// Answers a request.
    fn answer(asked: EndpointRequest<Self>) -> impl Future<Output = Result<Reply<Self::Answer>, Failure>> + Send;

    /// Its address at a node.
    ///
    /// * `base`: of the node, without a slash at the end.
    fn url(base: &str, path: &Self::Path, query: &Self::Query) -> String {
        let (path, query) = (named(path), named(query));
        let mut url = base.to_owned();
        for part in Self::PATH.split_inclusive('/') {
            let (part, slash) = part.strip_suffix('/').map_or((part, ""), |part| (part, "/"));
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                None => url.push_str(part),
                Some(name) => {
                    let (name, keeps_slashes) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
                    url.push_str(&encoded(&text(path.get(name)), keeps_slashes));
                }
            }
            url.push_str(slash);
        }
        for (at, (name, value)) in query.iter().filter(|(_, value)| !value.is_null()).enumerate() {
            let sign = if at == 0 { '?' } else { '&' };
            url.push_str(&format!("{sign}{}={}", encoded(name, false), encoded(&text(Some(value)), false)));
        }
        url
    }
}

fn named(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Whether clients would resolve a segment of a path: `.` and `..` lead elsewhere (RFC 3986, 5.2.4), escaped or not.
fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Percent-encodes a part of an address (RFC 3986). Slashes stay only where no client resolves what is between them.
fn encoded(part: &str, keeps_slashes: bool) -> String {
    let keeps_slashes = keeps_slashes && !part.split('/').any(is_dots);
    let mut encoded = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte == b'/' && keeps_slashes) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// No names in a path, or nothing behind the `?`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A request that was read.
pub(crate) struct EndpointRequest<E: Endpoint> {
    pub(super) shared: Shared,
    pub(super) caller: Caller,
    pub(super) path: E::Path,
    pub(super) query: E::Query,
    pub(super) body: E::Body,
    pub(super) conditions: Conditions,
}

impl<E: Endpoint> EndpointRequest<E> {
    /// The answer of a tool, as text.
    ///
    /// # Errors
    /// Whatever the tool answers.
    pub(super) async fn tool<T>(&self, tool: &str, arguments: Value) -> Result<RawJson<T>, ToolError> {
        Ok(self.call(tool, arguments).await?.text.into())
    }

    /// The answer of a tool.
    ///
    /// # Errors
    /// See [`Self::tool`].
    pub(super) async fn tool_value(&self, tool: &str, arguments: Value) -> Result<Value, ToolError> {
        Ok(self.call(tool, arguments).await?.structured)
    }

    /// The same, read.
    ///
    /// # Errors
    /// See [`Self::tool`].
    pub(super) async fn tool_read<T: DeserializeOwned>(&self, tool: &str, arguments: Value) -> Result<T, ToolError> {
        serde_json::from_value(self.tool_value(tool, arguments).await?).map_err(|error| {
            let message = format!("the answer of {tool} cannot be read: {error}");
            ToolError::new(ErrorCode::Internal, message, Fault::Damage)
        })
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<ToolAnswer, ToolError> {
        // Null means that it was left out: the tool's default applies.
        let arguments = match arguments {
            Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Arguments::new(),
        };
        self.shared.catalog.call(tool, arguments, Context::of(&self.caller)).await
    }
}

/// The body of a request.
pub(crate) trait Payload: Sized + Send {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not what is expected.
    fn read(headers: &HeaderMap, bytes: Bytes) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Its media types with their schemas, and whether it may be missing; `None` for no body.
    fn describe(schemas: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)>;
}

/// Without a body; any content is ignored.
pub(crate) struct NoBody;

impl Payload for NoBody {
    async fn read(_: &HeaderMap, _: Bytes) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn describe(_: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)> {
        None
    }
}

/// A file as it is.
pub(crate) struct File(pub(super) Bytes);

impl Payload for File {
    async fn read(_: &HeaderMap, bytes: Bytes) -> Result<Self, Failure> {
        Ok(Self(bytes))
    }

    fn describe(_: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)> {
        Some((false, vec![("application/octet-stream", json_schema!({"type": "string", "format": "binary"}))]))
    }
}

/// A JSON object; empty if there is no body and nothing in it is required.
pub(crate) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema + Send> Payload for Json<T> {
    async fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Failure> {
        Ok(Self(arguments::read(object(headers, &bytes)?)?))
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(bool, Vec<(&'static str, Schema)>)> {
        Some((true, vec![("application/json", schemas.subschema_for::<T>())]))
    }
}

/// The media type of a body, without parameters, in lower case; empty when there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body that is a JSON object.
///
/// # Errors
/// When it is of another media type, not JSON, or not an object.
pub(super) fn object(headers: &HeaderMap, bytes: &Bytes) -> Result<Arguments, Failure> {
    let bytes = &without_mark(bytes.clone());
    let kind = media_type(headers);
    if !(bytes.is_empty() || kind.is_empty()) && kind != "application/json" && !kind.ends_with("+json") {
        return Err(Failure::unsupported("application/json"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    if values::are_too_many(bytes) {
        return Err(ToolError::bad_argument(values::too_many()).into());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ToolError::bad_argument(
            "the body is JSON but not an object; expected arguments by name, such as {\"query\": \"pump\"}",
        )
        .into()),
        Err(error) => Err(ToolError::bad_argument(format!("the body is not JSON: {error}")).into()),
    }
}

/// A body without the byte order mark that some programs write.
pub(super) fn without_mark(bytes: Bytes) -> Bytes {
    match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => bytes.slice_ref(rest),
        None => bytes,
    }
}

/// The body of an answer.
pub(crate) trait Answer: Send {
    /// Its media type and content.
    fn write(self) -> Option<(&'static str, Vec<u8>)>;

    /// Its media type and schema; `None` for no body.
    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Schema)>;
}

impl<T: Serialize + JsonSchema + Send> Answer for T {
    fn write(self) -> Option<(&'static str, Vec<u8>)> {
        let content = serde_json::to_vec(&self).expect("answers are plain data");
        Some(("application/json", content))
    }

    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        Some(("application/json", schemas.subschema_for::<T>()))
    }
}

/// JSON text that was written elsewhere and is described by `T`.
pub(crate) struct RawJson<T> {
    text: String,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T> From<String> for RawJson<T> {
    fn from(text: String) -> Self {
        Self { text, of: std::marker::PhantomData }
    }
}

impl<T> Serialize for RawJson<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let raw = serde_json::value::RawValue::from_string(self.text.clone()).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for RawJson<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        T::json_schema(schemas)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}

/// An answer with its status and headers.
pub(crate) struct Reply<T> {
    status: StatusCode,
    headers: HeaderMap,
    answer: T,
}

impl<T> Reply<T> {
    /// An answer to what was done.
    pub(super) fn ok(answer: T) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), answer }
    }

    /// An answer to what was created, and where it is.
    pub(super) fn created(answer: T, location: &str) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(answer) }.with(header::LOCATION, location)
    }

    /// An answer to what is going to be done.
    pub(super) fn accepted(answer: T, location: &str) -> Self {
        Self { status: StatusCode::ACCEPTED, ..Self::ok(answer) }.with(header::LOCATION, location)
    }

    /// The client already has the current version.
    pub(super) fn not_modified(answer: T) -> Self {
        Self { status: StatusCode::NOT_MODIFIED, ..Self::ok(answer) }
    }

    /// It was done, and there is nothing to say.
    pub(super) fn no_content(answer: T) -> Self {
        Self { status: StatusCode::NO_CONTENT, ..Self::ok(answer) }
    }

    /// With the version of what it shows.
    pub(super) fn tagged(self, version: DocumentVersion) -> Self {
        self.with(header::ETAG, &ETag(version).to_string())
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl<T: Answer> Reply<T> {
    fn into_response(self) -> Response {
        let (kind, content) = self.answer.write().unwrap_or_default();
        let mut response = Response::new(content.into());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if !kind.is_empty() {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response
    }
}

/// The query parameters with their values; repeated ones have a list.
fn query(text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = Value::String(value.into_owned());
        match fields.get_mut(&*name) {
            None => {
                fields.insert(name.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    fields
}

/// Adds an endpoint to a router.
pub(super) fn mount<E: Endpoint>(router: Router<Shared>) -> Router<Shared> {
    let filter = MethodFilter::try_from(E::METHOD).expect("a method that routers know");
    router.route(E::PATH, axum::routing::on(filter, handle::<E>))
}

async fn handle<E: Endpoint>(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let answered = async {
        let (mut head, body) = request.into_parts();
        let path = Path::<E::Path>::from_request_parts(&mut head, &shared).await.map_err(|rejection| {
            let message = match rejection {
                PathRejection::FailedToDeserializePathParams(_) => {
                    "a name in the path is not UTF-8; percent-encode every byte that is not ASCII".to_owned()
                }
                other => other.body_text(),
            };
            Failure::from(ToolError::bad_argument(message))
        })?;
        // A client that resolves them, as most do, has asked for something else already; and one that does not must not
        // make what the others cannot reach.
        for (name, value) in named(&path.0) {
            if value.as_str().is_some_and(is_dots) {
                let message = format!("{name} is {value} in the path, which clients resolve; expected another name");
                return Err(ToolError::bad_argument(message).into());
            }
        }
        let query = arguments::read(query(head.uri.query().unwrap_or_default()))?;
        let conditions = Conditions::read(&head.headers, E::HEADERS)?;
        // It came whole, and within its limit.
        let bytes = axum::body::to_bytes(body, usize::MAX)
            .await
            .map_err(|error| Failure::from(ToolError::bad_argument(format!("the body cannot be read: {error}"))))?;
        let body = E::Body::read(&head.headers, bytes).await?;
        E::answer(EndpointRequest { shared, caller, path: path.0, query, body, conditions }).await
    };
    answered.await.map_or_else(|failure| problem(&failure), Reply::into_response)
}

/// What describes requests, and what describes answers: a field that may be left out of the one is always there in the other.
pub(super) struct Schemas {
    pub(super) requests: SchemaGenerator,
    pub(super) answers: SchemaGenerator,
}

/// The OpenAPI operation of an endpoint.
pub(super) fn operation<E: Endpoint>(Schemas { requests, answers }: &mut Schemas) -> Value {
    let mut parameters = Vec::new();
    parameters.extend(described("path", &schema_of::<E::Path>()));
    parameters.extend(described("query", &schema_of::<E::Query>()));
    parameters.extend(E::HEADERS.iter().map(|(name, description)| {
        json!({"in": "header", "name": name, "description": description, "schema": {"type": "string"}})
    }));
    let mut responses = Map::new();
    for (status, description) in E::SUCCESS {
        let mut response = json!({ "description": description });
        if !matches!(status, 204 | 304)
            && let Some((kind, schema)) = E::Answer::describe(answers)
        {
            response["content"] = json!({ kind: { "schema": schema } });
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
    let mut operation = json!({
        "operationId": E::ID, "tags": [E::TAG], "summary": E::SUMMARY, "parameters": parameters, "responses": responses,
    });
    if let Some((is_optional, kinds)) = E::Body::describe(requests) {
        let content: Map<String, Value> =
            kinds.into_iter().map(|(kind, schema)| (kind.to_owned(), json!({ "schema": schema }))).collect();
        operation["requestBody"] = json!({"required": !is_optional, "content": content});
    }
    operation
}

fn schema_of<T: JsonSchema>() -> Value {
    Value::Object(crate::mcp::plain_schema::<T>())
}

/// The fields of a struct as parameters.
fn described(place: &str, schema: &Value) -> Vec<Value> {
    let required = |name: &str| {
        place == "path" || schema["required"].as_array().into_iter().flatten().any(|required| required == name)
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| {
            let mut property = property.clone();
            let description = property.as_object_mut().and_then(|fields| fields.remove("description"));
            let mut parameter = json!({"in": place, "name": name, "required": required(name), "schema": property});
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_by_its_names() {
        let read = query("a=1&b=x%20y&a=2&c");
        assert_eq!(Value::Object(read), json!({"a": ["1", "2"], "b": "x y", "c": ""}));
    }

    #[test]
    fn addresses_are_encoded_where_they_have_to_be() {
        assert_eq!(encoded("a b/ü", false), "a%20b%2F%C3%BC");
        assert_eq!(encoded("a b/ü", true), "a%20b/%C3%BC");
        // What a client would resolve is one segment.
        assert_eq!(encoded("dir/../victim.md", true), "dir%2F..%2Fvictim.md");
        assert_eq!(encoded("./a", true), ".%2Fa");
        assert_eq!(encoded("a/..b/...", true), "a/..b/...");
    }

    #[test]
    fn an_address_stays_within_its_collection() {
        use super::super::sources::{DeleteSource, OfSource};
        for source in ["dir/../../victim/sources/x", "a/.", "../a", "a/./b"] {
            let path = OfSource { collection: "notes".to_owned(), source: source.to_owned() };
            let address = DeleteSource::url("", &path, &Nothing {});
            assert!(!address.split('/').any(is_dots), "{address}");
            let last = address.strip_prefix("/v1/collections/notes/sources/").expect("of the collection");
            let decoded = form_urlencoded::parse(last.as_bytes()).next().expect("a segment").0;
            assert_eq!(decoded, source);
        }
    }
}
