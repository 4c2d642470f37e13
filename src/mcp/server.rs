//! The protocol: rmcp's handler over a [`Catalog`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rmcp::ServerHandler;
use rmcp::model::{
    Annotations, CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams,
    CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, CustomRequest, CustomResult, DiscoverResult,
    ErrorCode, ErrorData, Extensions, GetPromptRequestParams, GetPromptResponse, GetSkillRequestParams, GetSkillResult,
    GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListSkillsResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ReadResourceDirectoryRequestParams,
    ReadResourceDirectoryResult, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    Resource, ResourceContents, ResourceTemplate, ServerCapabilities, SubscribeRequestParams, SubscriptionFilter,
    Tool as ToolDefinition, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, RoleServer, SubscriptionContext};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::ended;
use super::listening::Session;
use super::{
    Arguments, Catalog, Context, DocumentRef, Link, Progress, Tool, ToolAnswer, ToolError, listening, prompts,
};
use crate::auth::{Authenticator, Caller, Transport};
use crate::base::{Fault, Lsn};
use crate::calls::{Operation, Permit, Scope};
use crate::retrieval::LIST_TOKENS_MAX;
use crate::task;

/// How long clients may keep lists that only a new version of the software changes.
const LIST_TTL_MS: u64 = 300_000;
/// How long they may keep the tools, which name the collections.
const TOOLS_TTL_MS: u64 = 60_000;
/// How long clients may keep what a write can change.
const CONTENT_TTL_MS: u64 = 0;
/// Resources on one page.
const PAGE: usize = 100;
/// Progress messages that may wait for a slow client; more are dropped, the next one says it all.
const PROGRESS_WAITING: usize = 8;

const INSTRUCTIONS: &str = "Documents kept on this node, searchable by words and meaning. Start with `search` (a question or \
keywords); each result is a passage with its `id`. Use `fetch` with that id for the section around it, \
`list_collections` to see what there is, and a metadata `filter` to narrow a search. Cite the ids of what you use.";

/// An MCP server. Cloning is cheap: one per session or request.
#[derive(Clone)]
pub struct Server {
    catalog: Catalog,
    info: Arc<InitializeResult>,
    asked_at: AskedAt,
    session: SessionOf,
}

/// Where the log was when notifications were asked for: what is written before they begin is a change, too. Each request has its own.
#[derive(Default)]
pub(super) struct AskedAt(AtomicU64);

impl Clone for AskedAt {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The session that this server answers, where it has one: over standard input and output, and begun as earlier versions begin it.
#[derive(Default)]
struct SessionOf(OnceLock<Arc<Session>>);

impl Clone for SessionOf {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Drop for SessionOf {
    fn drop(&mut self) {
        if let Some(session) = self.0.get() {
            session.end();
        }
    }
}

impl Server {
    /// A server of these tools, and of the node's documents as resources.
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_completions()
            .build();
        let implementation = Implementation::new("cairn", env!("CARGO_PKG_VERSION"))
            .with_title("Cairn")
            .with_description("Context server: searches documents kept on this node");
        let info = InitializeResult::new(capabilities).with_server_info(implementation).with_instructions(INSTRUCTIONS);
        Self { catalog, info: Arc::new(info), asked_at: AskedAt::default(), session: SessionOf::default() }
    }

    /// Where the log was when notifications were asked for.
    pub(super) fn asked_at(&self) -> Lsn {
        Lsn(self.asked_at.0.load(Ordering::Relaxed))
    }

    /// The tools.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Begins a call that is not a tool's.
    pub(super) fn enter(
        &self,
        operation: Operation,
        caller: &Caller,
        scope: &Scope<'_>,
    ) -> Result<Option<Permit>, ErrorData> {
        self.catalog.node().enter(operation, caller, scope).map_err(|error| protocol_error(&error))
    }

    /// Calls a tool of the node as a part of another call.
    pub(super) async fn ask(&self, tool: Tool, arguments: Value, context: Context<'_>) -> Result<Value, ToolError> {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        Ok(self.catalog.node().call(tool.name(), arguments, context).await?.structured)
    }

    /// The documents of all collections after `cursor`, a page of them.
    async fn page_of_resources(
        &self,
        cursor: Option<&str>,
        context: Context<'_>,
    ) -> Result<(Vec<Resource>, Option<String>), ToolError> {
        let position: (String, String) = match cursor.filter(|cursor| !cursor.is_empty()) {
            None => (String::new(), String::new()),
            Some(cursor) => serde_json::from_str(cursor).map_err(|_| ToolError::bad_argument(super::UNKNOWN_CURSOR))?,
        };
        let listed = self.ask(Tool::ListCollections, json!({}), context).await?;
        let mut names: Vec<&str> =
            listed["collections"].as_array().into_iter().flatten().filter_map(|info| info["name"].as_str()).collect();
        names.sort_unstable();
        let mut resources = Vec::new();
        for name in names.into_iter().filter(|name| *name >= position.0.as_str()) {
            let after = if name == position.0 { position.1.as_str() } else { "" };
            let arguments = json!({
                "collection": name, "cursor": after, "limit": PAGE - resources.len(), "include": ["dates"],
                "max_tokens": LIST_TOKENS_MAX,
            });
            let page = self.ask(Tool::ListDocuments, arguments, context).await?;
            let mut last = String::new();
            // The list's own cursor: its last documents may all be hidden.
            let next = page["next_cursor"].as_str();
            for document in page["documents"].as_array().into_iter().flatten() {
                let Some(place) = document["id"].as_str().and_then(DocumentRef::parse) else { continue };
                let whole = DocumentRef { document: place.whole(), passage: None, ..place };
                let mut resource = Resource::new(whole.uri(self.catalog.node().node()), whole.to_string());
                resource.title = document["title"].as_str().map(str::to_owned);
                resource.mime_type = Some("text/plain".to_owned());
                let mut annotations = Annotations::default();
                annotations.last_modified = document["updated_at"].as_str().map(str::to_owned);
                resource.annotations = Some(annotations);
                last = whole.document;
                resources.push(resource);
            }
            if next.is_some() || resources.len() >= PAGE {
                let last = next.unwrap_or(&last);
                return Ok((resources, Some(json!([name, last]).to_string())));
            }
        }
        Ok((resources, None))
    }

    /// The text of a document, or of the section around a passage.
    async fn text_of(&self, uri: &str, context: Context<'_>) -> Result<String, ToolError> {
        let mut text = String::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut arguments = json!({"id": uri, "max_tokens": crate::retrieval::TOKENS_MAX});
            if let Some(cursor) = &cursor {
                arguments["cursor"] = cursor.as_str().into();
            }
            let page = self.ask(Tool::Fetch, arguments, context).await?;
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(page["text"].as_str().unwrap_or_default());
            // A passage's address means the passage with what surrounds it: one page. A document's means all of it.
            let passage = DocumentRef::parse(uri).is_some_and(|place| place.passage.is_some());
            match page["next_cursor"].as_str() {
                Some(next) if !passage => cursor = Some(next.to_owned()),
                _ => break,
            }
        }
        Ok(text)
    }

    /// Checks that a resource may be of this node: addresses of another node, and of nothing, are equally unknown.
    fn check_address(&self, uri: &str) -> Result<(), ErrorData> {
        let known = format!("ctx://{}/", self.catalog.node().node().short());
        if uri.starts_with(&known) {
            return Ok(());
        }
        let message = format!("there is no resource '{uri}'; addresses here begin with {known}");
        Err(ErrorData::invalid_params(message, Some(json!({"uri": uri}))))
    }

    /// Completions of an argument.
    async fn completions(
        &self,
        request: &CompleteRequestParams,
        context: Context<'_>,
    ) -> Result<Vec<String>, ToolError> {
        let given = &request.argument.value;
        let collection = request.context.as_ref().and_then(|context| context.get_argument("collection")).cloned();
        let values: Vec<String> = match (&request.r#ref, request.argument.name.as_str(), collection) {
            (Reference::Prompt(_) | Reference::Resource(_), "collection", _) => {
                let listed = self.ask(Tool::ListCollections, json!({}), context).await?;
                let names = listed["collections"].as_array().into_iter().flatten();
                names
                    .filter_map(|info| info["name"].as_str())
                    .filter(|name| name.starts_with(given))
                    .map(str::to_owned)
                    .collect()
            }
            (Reference::Resource(_), "document", Some(collection)) => {
                let limit = CompletionInfo::MAX_VALUES + 1;
                let arguments =
                    json!({"collection": collection, "prefix": given, "limit": limit, "max_tokens": LIST_TOKENS_MAX});
                let page = self.ask(Tool::ListDocuments, arguments, context).await?;
                let documents = page["documents"].as_array().into_iter().flatten();
                documents.filter_map(|document| Some(DocumentRef::parse(document["id"].as_str()?)?.whole())).collect()
            }
            _ => Vec::new(),
        };
        Ok(values)
    }
}

/// How a session begins, in the versions that have sessions.
const INITIALIZE: &str = "initialize";
/// The requests of MCP that are answered here.
const METHODS: [&str; 12] = [
    INITIALIZE,
    "server/discover",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "subscriptions/listen",
];

/// Methods that the library knows and nothing here answers: it would say no more than their names.
macro_rules! no_methods {
    ($($name:ident($params:ty) -> $answer:ty, $method:literal;)*) => {$(
        async fn $name(&self, _: $params, _: RequestContext<RoleServer>) -> Result<$answer, ErrorData> {
            Err(no_method($method))
        }
    )*};
}

impl ServerHandler for Server {
    #[expect(deprecated, reason = "earlier versions of the protocol have it")]
    async fn set_level(
        &self,
        _: rmcp::model::SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Err(no_method("logging/setLevel"))
    }

    no_methods! {
        get_task(GetTaskParams) -> GetTaskResult, "tasks/get";
        update_task(UpdateTaskParams) -> (), "tasks/update";
        cancel_task(CancelTaskParams) -> (), "tasks/cancel";
        list_skills(Option<PaginatedRequestParams>) -> ListSkillsResult, "skills/list";
        get_skill(GetSkillRequestParams) -> GetSkillResult, "skills/get";
        read_resource_directory(ReadResourceDirectoryRequestParams) -> ReadResourceDirectoryResult, "resources/directory/read";
    }

    fn get_info(&self) -> InitializeResult {
        InitializeResult::clone(&self.info)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let mut result = self.negotiate_initialize(&request)?;
        if is_stdio(&context.extensions) {
            let _ = self.session.0.set(Arc::default());
            return Ok(result);
        }
        // Without a session there is no stream to notify these clients of changes.
        if let Some(tools) = &mut result.capabilities.tools {
            tools.list_changed = None;
        }
        if let Some(resources) = &mut result.capabilities.resources {
            (resources.list_changed, resources.subscribe) = (None, None);
        }
        Ok(result)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if let Some(session) = self.session.0.get() {
            self.notify_session(session, context.peer, Caller::local(Transport::Stdio));
        }
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let session = self.session.0.get().ok_or_else(|| no_method("resources/subscribe"))?;
        self.check_address(&request.uri)?;
        let caller = caller(&context);
        let permit = self.enter(Operation::LISTEN, &caller, &scope_of(&request.uri))?;
        let within = Context::within(&caller, permit.as_ref());
        let subscribed = self.subscribe_session(session, request.uri, within).await;
        concluded(permit, subscribed)
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let session = self.session.0.get().ok_or_else(|| no_method("resources/unsubscribe"))?;
        session.unsubscribe(&request.uri);
        Ok(())
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    /// An invalid MCP request: its method is unknown, or its `params` are invalid for the method.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        if method == INITIALIZE {
            // Later versions have none, and report that; an invalid one from an earlier client is rejected too.
            let message = "there is no method 'initialize' since version 2026-07-28; earlier versions expect protocolVersion, \
                           capabilities and clientInfo in its params";
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None));
        }
        if !METHODS.contains(&method.as_str()) {
            return Err(no_method(&method));
        }
        let members = params.as_ref().and_then(Value::as_object);
        let lacks = |name: &str| !members.and_then(|members| members.get(name)).is_some_and(Value::is_object);
        let wrong = |name: &str, is_right: fn(&Value) -> bool| {
            members.and_then(|members| members.get(name)).is_some_and(|value| !is_right(value))
        };
        let message = match method.as_str() {
            _ if wrong("_meta", Value::is_object) => "_meta is not an object".to_owned(),
            "tools/call" | "prompts/get" if wrong("arguments", Value::is_object) => {
                "arguments is not an object; expected arguments by name, such as {\"query\": \"pump\"}"
                    .to_owned()
            }
            "tools/call" | "prompts/get" => "name is missing or not a string".to_owned(),
            "resources/read" => "uri is missing or not a string".to_owned(),
            "completion/complete" if lacks("ref") => {
                "ref is missing or not an object; expected one with a type, ref/prompt or ref/resource, and a name or uri"
                    .to_owned()
            }
            "completion/complete" => "argument is missing, or not an object with a name and a value".to_owned(),
            "server/discover" if lacks("_meta") => {
                "_meta is missing; expected an object with io.modelcontextprotocol/protocolVersion".to_owned()
            }
            _ => format!("they are not such as MCP describes for {method}"),
        };
        Err(ErrorData::invalid_params(format!("params of {method}: {message}"), None))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let changes = self.catalog.node().changes()?;
        self.asked_at.0.store(changes.borrow().0, Ordering::Relaxed);
        Some(listening::accepted(requested))
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let caller = caller(subscription.request_context());
        let permit = self.enter(Operation::LISTEN, &caller, &Scope::Every)?;
        self.notify(&subscription, &caller, permit).await
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let caller = caller(&context);
        let permit = self.enter(Operation::LIST_TOOLS, &caller, &Scope::Every)?;
        let tools = self.catalog.tools(Context::within(&caller, permit.as_ref())).await;
        if let Some(session) = self.session.0.get() {
            session.sees_tools(&tools);
        }
        done(permit);
        Ok(ListToolsResult::with_all_items(tools).with_ttl_ms(TOOLS_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    fn get_tool(&self, name: &str) -> Option<ToolDefinition> {
        self.catalog.definition(name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = caller(&context);
        let Some(definition) = self.catalog.definition(&request.name) else {
            return Err(protocol_error(&self.catalog.unknown(&request.name, &caller)));
        };
        let arguments: Arguments = request.arguments.unwrap_or_default();
        let in_text = definition.output_schema.is_none() && !super::arguments::ask_structured(&arguments);
        let called = async {
            match context.meta.get_progress_token().filter(|_| takes_stream(&context)) {
                None => self.catalog.call(&request.name, arguments, Context::of(&caller)).await,
                Some(token) => {
                    let (progress, reporter) = PeerProgress::start(token, context.peer.clone());
                    let reported = Context { progress: &progress, ..Context::of(&caller) };
                    let answer = self.catalog.call(&request.name, arguments, reported).await;
                    drop(progress);
                    // Every message is sent before the answer, which ends the stream.
                    let _ = reporter.await;
                    answer
                }
            }
        };
        let answer = tokio::select! {
            biased;
            answer = called => answer,
            () = client_left(&context) => return Err(ErrorData::internal_error("the client has left", None)),
        };
        Ok(match answer {
            Ok(answer) => success(answer, !in_text),
            Err(error) => failure(&error),
        }
        .into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let caller = caller(&context);
        let permit = self.enter(Operation::LIST_RESOURCES, &caller, &Scope::Every)?;
        let within = Context::within(&caller, permit.as_ref());
        if let Some(session) = self.session.0.get() {
            self.session_sees_resources(session, within).await;
        }
        let page = self.page_of_resources(cursor.as_deref(), within).await;
        let (resources, next) = concluded(permit, page)?;
        let mut result = ListResourcesResult::with_all_items(resources)
            .with_ttl_ms(CONTENT_TTL_MS)
            .with_cache_scope(CacheScope::Private);
        result.next_cursor = next;
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let node = self.catalog.node().node().short();
        let document = ResourceTemplate::new(format!("ctx://{node}/{{collection}}/{{+document}}"), "document")
            .with_title("Document")
            .with_description("A document's text")
            .with_mime_type("text/plain");
        Ok(ListResourceTemplatesResult::with_all_items(vec![document])
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller(&context);
        self.check_address(&request.uri)?;
        let permit = self.enter(Operation::READ_RESOURCE, &caller, &scope_of(&request.uri))?;
        let text = self.text_of(&request.uri, Context::within(&caller, permit.as_ref())).await;
        let text = concluded(permit, text)?;
        let contents = ResourceContents::text(text, request.uri);
        Ok(ReadResourceResult::new(vec![contents])
            .with_ttl_ms(CONTENT_TTL_MS)
            .with_cache_scope(CacheScope::Private)
            .into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        done(self.enter(Operation::LIST_PROMPTS, &caller(&context), &Scope::Node)?);
        Ok(ListPromptsResult::with_all_items(prompts::list())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let permit = self.enter(Operation::GET_PROMPT, &caller(&context), &Scope::Node)?;
        let arguments = request.arguments.unwrap_or_default();
        Ok(concluded(permit, prompts::get(&request.name, &arguments))?.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let caller = caller(&context);
        let permit = self.enter(Operation::COMPLETE, &caller, &Scope::Every)?;
        let values = self.completions(&request, Context::within(&caller, permit.as_ref())).await;
        let mut values = concluded(permit, values)?;
        values.sort_unstable();
        let has_more = values.len() > CompletionInfo::MAX_VALUES;
        values.truncate(CompletionInfo::MAX_VALUES);
        let mut info = CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error, None))?;
        info.has_more = Some(has_more);
        Ok(CompleteResult::new(info))
    }
}

/// The collections that a resource's address names.
fn scope_of(uri: &str) -> Scope<'static> {
    DocumentRef::parse(uri).map_or(Scope::Every, |place| Scope::One(place.collection.into()))
}

/// Whether a request came over standard input: the listener writes the head of one that came over HTTP.
fn is_stdio(extensions: &Extensions) -> bool {
    extensions.get::<http::request::Parts>().is_none()
}

fn no_method(method: &str) -> ErrorData {
    let message = format!("there is no method '{method}'; there are {}", METHODS.join(", "));
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None)
}

fn success(answer: ToolAnswer, structured: bool) -> CallToolResult {
    let mut content = Vec::with_capacity(1 + answer.links.len());
    content.push(ContentBlock::text(answer.text));
    content.extend(answer.links.into_iter().map(resource_link));
    let mut result = CallToolResult::success(content);
    result.structured_content = structured.then_some(answer.structured);
    result
}

fn resource_link(link: Link) -> ContentBlock {
    let resource = Resource::new(link.uri, link.name).with_title(link.title).with_mime_type("text/plain");
    ContentBlock::resource_link(resource)
}

/// The words for the model, the code for programs. Not as structured content: clients check that against the schema of
/// answers even when the call failed.
pub(super) fn failure(error: &ToolError) -> CallToolResult {
    let mut result = CallToolResult::error(vec![ContentBlock::text(error.shortened_message())]);
    let mut meta = MetaObject::default();
    meta.insert("cairn/error".to_owned(), error.to_json()["error"].take());
    result.meta = Some(meta);
    result
}

/// Whether the client still waits for the answer of a request: the listener stores it in the request's head.
#[derive(Debug, Clone)]
pub struct Presence(CancellationToken);

impl Presence {
    /// * `left`: cancelled when the client no longer waits.
    #[must_use]
    pub fn new(left: CancellationToken) -> Self {
        Self(left)
    }
}

/// Waits until the client has left or cancels its request.
pub(super) async fn client_left(context: &RequestContext<RoleServer>) {
    let head = context.extensions.get::<http::request::Parts>();
    match head.and_then(|head| head.extensions.get::<Presence>()) {
        Some(Presence(left)) => tokio::select! {
            () = left.cancelled() => {}
            () = context.ct.cancelled() => {}
        },
        None => context.ct.cancelled().await,
    }
}

/// Ends a call that did what was asked.
fn done(permit: Option<Permit>) {
    if let Some(permit) = permit {
        let _ = ended(permit, Ok(()));
    }
}

/// Ends a call with its result, as the protocol answers it.
fn concluded<T>(permit: Option<Permit>, result: Result<T, ToolError>) -> Result<T, ErrorData> {
    let result = match permit {
        Some(permit) => ended(permit, result),
        None => result,
    };
    result.map_err(|error| protocol_error(&error))
}

/// The caller of a request: the listener has stored it in the request's head. Over stdio there is only this machine.
fn caller(context: &RequestContext<RoleServer>) -> Caller {
    let head = context.extensions.get::<http::request::Parts>();
    let caller = head.and_then(|head| head.extensions.get::<Caller>().cloned());
    caller.unwrap_or_else(|| Caller::local(Transport::Stdio))
}

/// The caller of a request that is open for long, authenticated again where its listener asks for tokens; `None` when the token was
/// revoked or has expired. The listener has stored what authenticates in the request's head.
pub(super) fn caller_now(context: &RequestContext<RoleServer>) -> Option<Caller> {
    let known = caller(context);
    let Some(head) = context.extensions.get::<http::request::Parts>() else { return Some(known) };
    let Some(authenticator) = head.extensions.get::<Authenticator>() else { return Some(known) };
    let authorization = head.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let subject = authenticator.authenticate(authorization).ok()?;
    Some(Caller::new(subject, known.remote(), known.transport()))
}

/// In a request's head: the client accepts only a single answer, so no messages may precede it.
#[derive(Debug, Clone, Copy)]
pub struct WithoutStream;

fn takes_stream(context: &RequestContext<RoleServer>) -> bool {
    let head = context.extensions.get::<http::request::Parts>();
    head.is_none_or(|head| head.extensions.get::<WithoutStream>().is_none())
}

fn protocol_error(error: &ToolError) -> ErrorData {
    match error.fault {
        Fault::Caller => ErrorData::invalid_params(error.shortened_message().into_owned(), None),
        Fault::Environment | Fault::Damage => ErrorData::internal_error(error.shortened_message().into_owned(), None),
    }
}

/// Progress as notifications to the client that asked for it.
struct PeerProgress {
    messages: mpsc::Sender<ProgressNotificationParam>,
    token: ProgressToken,
    sum: Mutex<Sum>,
}

/// The progress of several steps as one: the protocol wants it to grow with every message, and a step begins at 0.
#[derive(Debug, Default)]
struct Sum {
    /// The total of the previous steps.
    before: u64,
    /// How far this step is.
    done: u64,
    /// The last reported value.
    told: Option<u64>,
}

impl Sum {
    /// The value to report when a step is at `done`, and the increase of its total; `None` for nothing new.
    fn add(&mut self, done: u64) -> Option<(u64, u64)> {
        if done < self.done {
            self.before += self.done;
        }
        self.done = done;
        let all = self.before + done;
        (self.told < Some(all)).then(|| {
            self.told = Some(all);
            (all, self.before)
        })
    }
}

impl PeerProgress {
    fn start(token: ProgressToken, peer: Peer<RoleServer>) -> (Self, tokio::task::JoinHandle<()>) {
        let (messages, mut waiting) = mpsc::channel(PROGRESS_WAITING);
        let reporter = task::spawn("progress", async move {
            while let Some(message) = waiting.recv().await {
                if peer.notify_progress(message).await.is_err() {
                    break;
                }
            }
        });
        (Self { messages, token, sum: Mutex::default() }, reporter)
    }
}

impl Progress for PeerProgress {
    fn report(&self, done: u64, total: u64, message: &str) {
        let Some((done, before)) = self.sum.lock().add(done) else { return };
        let mut message = ProgressNotificationParam::new(self.token.clone(), done as f64).with_message(message);
        if total > 0 {
            message = message.with_total((before + total) as f64);
        }
        // A full queue drops the message: the next one says it all.
        let _ = self.messages.try_send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_grows_over_steps() {
        let mut sum = Sum::default();
        let told: Vec<_> =
            [0, 0, 40, 100, 100, 0, 5, 0, 0, 3].map(|done| sum.add(done)).into_iter().flatten().collect();
        assert_eq!(told, [(0, 0), (40, 0), (100, 0), (105, 100), (108, 105)]);
    }
}
