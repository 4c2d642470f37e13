//! Searching.

use axum::http::Method;
use serde_json::{Map, Value};

use super::endpoint::{Endpoint, EndpointRequest, NoBody, Nothing, Payload, RawJson, Reply, object};
use super::problem::Failure;
use crate::mcp::answers::SearchAnswer;
use crate::mcp::{Arguments, arguments};

/// A tool's arguments as they came; the tool reads them.
pub(crate) struct ArgumentsOf<T> {
    given: Arguments,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: schemars::JsonSchema> Payload for ArgumentsOf<T> {
    async fn read(headers: &axum::http::HeaderMap, bytes: axum::body::Bytes) -> Result<Self, Failure> {
        Ok(Self { given: object(headers, &bytes)?, of: std::marker::PhantomData })
    }

    fn describe(schemas: &mut schemars::SchemaGenerator) -> Option<(bool, Vec<(&'static str, schemars::Schema)>)> {
        Some((false, vec![("application/json", schemas.subschema_for::<T>())]))
    }
}

/// `POST /v1/search`
pub(crate) struct Search;

impl Endpoint for Search {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/search";
    const ID: &'static str = "search";
    const TAG: &'static str = "Search";
    const SUMMARY: &'static str = "Find passages that answer a question";
    type Path = Nothing;
    type Query = Nothing;
    type Body = ArgumentsOf<arguments::Search>;
    type Answer = RawJson<SearchAnswer<'static>>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let text = asked.shared.tools.search_as_text(asked.body.given, &asked.caller).await?;
        Ok(Reply::ok(text.into()))
    }
}

/// What a search for a link or a shell takes.
#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchQuery {
    /// A question or keywords.
    query: String,
    /// A collection; repeat it for several. All when it is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    collections: Vec<String>,
    /// Results wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    limit: Option<usize>,
}

/// `GET /v1/search`
pub(crate) struct SearchByLink;

impl Endpoint for SearchByLink {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/search";
    const ID: &'static str = "searchByLink";
    const TAG: &'static str = "Search";
    const SUMMARY: &'static str = "The same for a link, with what is asked most";
    type Path = Nothing;
    type Query = SearchQuery;
    type Body = NoBody;
    type Answer = RawJson<SearchAnswer<'static>>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let given = match serde_json::to_value(&asked.query) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let text = asked.shared.tools.search_as_text(given, &asked.caller).await?;
        Ok(Reply::ok(text.into()))
    }
}

/// `POST /v1/similar`
pub(crate) struct FindSimilar;

impl Endpoint for FindSimilar {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/similar";
    const ID: &'static str = "findSimilar";
    const TAG: &'static str = "Search";
    const SUMMARY: &'static str = "Find passages that mean the same as one";
    type Path = Nothing;
    type Query = Nothing;
    type Body = ArgumentsOf<arguments::FindSimilar>;
    type Answer = RawJson<SearchAnswer<'static>>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let given = Value::Object(asked.body.given.clone());
        Ok(Reply::ok(asked.tool("find_similar", given).await?))
    }
}
