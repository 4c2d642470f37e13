//! The HTTP service of a connection: each request is admitted by its head, received, given a place in flight, and then
//! answered: simple searches here, everything else by the router.
//!
//! Invariants: every request takes these steps once and in this order, however it is answered. A client that sends its
//! body slowly only occupies a connection until its body is complete.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::access_control::AccessControl;
use super::body::{Bodies, BodyError, SMALL};
use super::connections::Connection;
use super::holding::holding;
use super::listener::Answers;
use super::rest::node::CHANGES;
use super::{cors, error_response, error_response_as, rpc, unread};
use crate::auth::{Caller, Transport};
use crate::base::Fault;
use crate::mcp::{ErrorCode, NodeTools, ToolError, Wire, WithoutStream, values};

/// Where MCP is spoken.
const MCP: &str = "/mcp";
/// Where a client gets what it has to trust before it can send a token in confidence.
pub(super) const AUTHORITY: &str = "/authority.pem";
/// The types that the protocol library requires every client to accept.
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The method that listens for notifications.
const LISTEN: &str = "subscriptions/listen";

/// The HTTP service of the MCP and REST listener.
#[derive(Clone)]
pub struct HttpService {
    shared: Arc<Shared>,
}

struct Shared {
    access: Arc<AccessControl>,
    bodies: Bodies,
    tools: Arc<NodeTools>,
    router: TowerToHyperService<Router>,
}

impl HttpService {
    pub(super) fn new(access: AccessControl, bodies: Bodies, tools: Arc<NodeTools>, router: Router) -> Self {
        let router = TowerToHyperService::new(router);
        Self { shared: Arc::new(Shared { access: Arc::new(access), bodies, tools, router }) }
    }
}

impl Answers for HttpService {
    fn answer(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Option<Response>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move { shared.answer(request, connection).await }
    }
}

impl Shared {
    /// The answer; for a page of an allowed origin with what its browser asks for, also when it is a refusal.
    async fn answer(&self, request: Request<Incoming>, connection: Arc<Connection>) -> Option<Response> {
        let Some((cors, asks)) = self.access.cors().and_then(|cors| Some((cors, cors.asks(&request)?))) else {
            return self.admit(request, connection).await;
        };
        if !cors::is_preflight(&asks) {
            let response = self.admit(request, connection).await?;
            return Some(cors.dressed(asks, response).await);
        }
        let (head, body) = request.into_parts();
        let response = match self.access.check_names(&head) {
            Ok(()) => cors.dressed(asks, Response::default()).await,
            Err(refused) => refused.into_response(),
        };
        Some(if body.is_end_stream() { response } else { unread::close_connection(response, &connection) })
    }

    async fn admit(&self, request: Request<Incoming>, connection: Arc<Connection>) -> Option<Response> {
        let (mut head, body) = request.into_parts();
        let is_empty = body.is_end_stream();
        let refuse =
            |refused: Response| Some(if is_empty { refused } else { unread::close_connection(refused, &connection) });
        // Clients may add or omit the slash.
        if head.uri.path().strip_suffix('/') == Some(MCP) {
            head.uri = without_slash(&head.uri);
        }
        let subject = if head.uri.path() == AUTHORITY {
            self.access.check_names(&head).map(|()| None)
        } else {
            self.access.check(&head).map(Some)
        };
        let subject = match subject {
            Ok(subject) => subject,
            Err(refused) => return refuse(refused.into_response()),
        };
        let Some(subject) = subject else {
            // Its body is ignored.
            let router = self.router.call(Request::from_parts(head, Body::empty()));
            return refuse(match router.await {
                Ok(response) => response,
                Err(never) => match never {},
            });
        };
        connection.is_let_in();
        let received = match self.bodies.receive(body).await {
            Ok(received) => received,
            Err(error) => return Some(unread::close_connection(refusal(&error), &connection)),
        };
        if !connection.start_answering() {
            return None;
        }
        let place =
            match if listens(&head, &received.bytes) { self.access.listening() } else { self.access.in_flight() } {
                Ok(place) => place,
                Err(refused) => return Some(refused.into_response()),
            };
        let caller = Caller::new(subject, Some(connection.remote()), Transport::Http);
        let response = self.answer_received(head, &received.bytes, caller).await;
        Some(holding(response, place))
    }

    async fn answer_received(&self, mut head: Parts, bytes: &Bytes, caller: Caller) -> Response {
        let is_call = head.uri.path() == MCP && head.method == Method::POST;
        if !is_call {
            return self.route(head, bytes, caller).await;
        }
        if values::are_too_many(bytes) {
            return rpc_response(&rpc::too_many_values(bytes));
        }
        let bytes = &bytes.slice_ref(rpc::without_mark(bytes));
        let accepts = Accepts::of(&head.headers);
        if bytes.len() <= SMALL
            && accepts == Accepts::Both
            && let Some(response) = self.answer_plain(&head.headers, bytes, &caller).await
        {
            return response;
        }
        match accepts {
            Accepts::Both => {}
            Accepts::Json => {
                head.extensions.insert(WithoutStream);
            }
            Accepts::Neither => return not_acceptable(),
        }
        head.headers.insert(header::ACCEPT, BOTH);
        // A request that listens is open for hours, longer than its token may be valid.
        head.extensions.insert(self.access.authenticator().clone());
        let is_json = head.headers.get(header::CONTENT_TYPE).is_some_and(is_json);
        let response = self.route(head, bytes, caller).await;
        match response.status() {
            // The protocol library's word for a body that it cannot read.
            StatusCode::UNSUPPORTED_MEDIA_TYPE if is_json => rpc_response(&rpc::malformed(bytes)),
            // What has an id that cannot be one passes for a notification there.
            StatusCode::ACCEPTED if rpc::has_id(bytes) => rpc_response(&rpc::malformed(bytes)),
            _ => response,
        }
    }

    async fn route(&self, mut head: Parts, bytes: &Bytes, caller: Caller) -> Response {
        // The handler finds the caller there.
        head.extensions.insert(caller);
        match self.router.call(Request::from_parts(head, Body::from(bytes.clone()))).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The answer to a plain search; `None` when it is none.
    async fn answer_plain(&self, headers: &HeaderMap, bytes: &[u8], caller: &Caller) -> Option<Response> {
        let wire = wire(headers)?;
        Some(match self.tools.search_directly(wire, bytes, caller).await? {
            Ok(answer) => super::json_response(StatusCode::OK, answer),
            Err(refused) => error_response(&refused),
        })
    }
}

/// Whether a request only waits for notifications. The header alone does not decide: a request that claims to listen
/// and does something else is one in flight.
fn listens(head: &Parts, bytes: &[u8]) -> bool {
    match (&head.method, head.uri.path()) {
        (&Method::GET, CHANGES) => true,
        // The protocol requires the header, so a message without it needs no second look.
        (&Method::POST, MCP) => {
            one(&head.headers, &METHOD) == Some(LISTEN) && rpc::method(bytes).is_some_and(|method| method == LISTEN)
        }
        _ => false,
    }
}

fn without_slash(uri: &Uri) -> Uri {
    let path = uri.query().map_or_else(|| MCP.to_owned(), |query| format!("{MCP}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    // The query was part of an address before.
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static(MCP))
}

fn refusal(error: &BodyError) -> Response {
    let message = error.to_string();
    let (status, code, fault) = match error {
        BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadArgument, Fault::Caller),
        BodyError::NoRoom(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Overloaded, Fault::Environment),
        BodyError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BadArgument, Fault::Caller),
        BodyError::Broken(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadArgument, Fault::Caller),
    };
    error_response_as(&ToolError::new(code, message, fault), status)
}

fn rpc_response(error: &rpc::Malformed) -> Response {
    super::json_response(StatusCode::BAD_REQUEST, error.to_string())
}

fn not_acceptable() -> Response {
    let message = "answers are application/json, which the request's Accept header leaves out";
    error_response_as(&ToolError::bad_argument(message), StatusCode::NOT_ACCEPTABLE)
}

/// The types that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// An answer in one piece, and one with messages before it.
    Both,
    /// An answer in one piece.
    Json,
    Neither,
}

impl Accepts {
    fn of(headers: &HeaderMap) -> Self {
        let kinds = [("application/json", "application"), ("text/event-stream", "text")];
        let mut best = [None; 2];
        let mut is_empty = true;
        for range in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in range.split(',').map(str::trim).filter(|range| !range.is_empty()) {
                is_empty = false;
                let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
                let name = name.trim();
                for (best, (kind, group)) in best.iter_mut().zip(kinds) {
                    // The more exactly it names the kind, the more it says.
                    let exactness = if name.eq_ignore_ascii_case(kind) {
                        3
                    } else if name.strip_suffix("/*").is_some_and(|named| named.eq_ignore_ascii_case(group)) {
                        2
                    } else if name == "*/*" || name == "*" {
                        1
                    } else {
                        continue;
                    };
                    *best = (*best).max(Some((exactness, !is_excluded(parameters))));
                }
            }
        }
        match best.map(|best| is_empty || best.is_some_and(|(_, takes)| takes)) {
            [true, true] => Self::Both,
            [true, false] => Self::Json,
            [false, _] => Self::Neither,
        }
    }
}

/// Whether a range's parameters exclude it: `q=0`.
fn is_excluded(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|quality| quality == 0.0)
    })
}

fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().map(|value| value.split(';').next().unwrap_or(value).trim());
    essence.is_ok_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

/// The protocol's headers of a message in JSON; `None` when one of them is repeated or not text, or when there is one that has to be
/// checked. One pass, because a lookup for each costs a remembered answer more than its own.
fn wire(headers: &HeaderMap) -> Option<Wire<'_>> {
    let (mut content_type, mut version, mut method, mut name) = (None, None, None, None);
    for (header, value) in headers {
        let known = match header.as_str() {
            "content-type" => &mut content_type,
            "mcp-protocol-version" => &mut version,
            "mcp-method" => &mut method,
            "mcp-name" => &mut name,
            other if other.starts_with("mcp-param-") || other == "mcp-session-id" => return None,
            _ => continue,
        };
        if known.replace(value.to_str().ok()?).is_some() {
            return None;
        }
    }
    (content_type == Some("application/json")).then_some(Wire { version: version?, method, name })
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(values: &[&'static str]) -> Accepts {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        Accepts::of(&headers)
    }

    #[test]
    fn what_a_client_takes_is_read_as_the_standard_says() {
        for values in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json, text/event-stream"],
            &["text/event-stream;q=0.5", "Application/JSON"],
            &["application/*, text/*"],
            &["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"],
        ] {
            assert_eq!(accepts(values), Accepts::Both, "{values:?}");
        }
        for values in [&["application/json"][..], &["application/*"], &["*/*, text/event-stream;q=0"]] {
            assert_eq!(accepts(values), Accepts::Json, "{values:?}");
        }
        for values in [&["text/event-stream"][..], &["text/html"], &["*/*, application/json;q=0"], &["*/*;q=0.0"]] {
            assert_eq!(accepts(values), Accepts::Neither, "{values:?}");
        }
    }

    #[test]
    fn what_listens_says_so_in_its_path_or_its_body() {
        let listens = |method: &str, path: &str, named: Option<&str>, body: &str| {
            let request = Request::builder().method(method).uri(path);
            let request = named.into_iter().fold(request, |request, named| request.header(METHOD, named));
            listens(&request.body(()).expect("a request").into_parts().0, body.as_bytes())
        };
        let (listen, search) = (r#"{"method":"subscriptions/listen"}"#, r#"{"method":"tools/call"}"#);
        assert!(listens("GET", "/v1/changes?known=1", None, ""));
        assert!(listens("POST", "/mcp", Some(LISTEN), listen));
        for (path, body) in [("/mcp", search), ("/mcp", ""), ("/v1/tools/search", listen), ("/v1/changes", listen)] {
            assert!(!listens("POST", path, Some(LISTEN), body), "{path} {body}");
        }
        assert!(!listens("POST", "/mcp", None, listen) && !listens("POST", "/mcp", Some("tools/call"), listen));
    }

    #[test]
    fn the_slash_goes_and_the_rest_stays() {
        let without = |uri: &'static str| without_slash(&Uri::from_static(uri)).to_string();
        assert_eq!(without("/mcp/"), "/mcp");
        assert_eq!(without("/mcp/?a=1&b=%20"), "/mcp?a=1&b=%20");
        assert_eq!(without("http://10.0.0.1:7171/mcp/?x"), "http://10.0.0.1:7171/mcp?x");
    }
}
