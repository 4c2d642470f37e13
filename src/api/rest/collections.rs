//! Collections.

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::endpoint::{Endpoint, EndpointRequest, Json, NoBody, Nothing, RawJson, Reply};
use super::problem::Failure;
use crate::mcp::answers::{CollectionAnswer, DescribeCollectionAnswer, ListCollectionsAnswer};
use crate::mcp::arguments;

/// A collection's name in a path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfCollection {
    /// The collection's name.
    pub(crate) collection: String,
}

/// `GET /v1/collections`
pub(crate) struct ListCollections;

impl Endpoint for ListCollections {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections";
    const ID: &'static str = "listCollections";
    const TAG: &'static str = "Collections";
    const SUMMARY: &'static str = "List the collections";
    type Path = Nothing;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = RawJson<ListCollectionsAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        Ok(Reply::ok(asked.tool("list_collections", json!({})).await?))
    }
}

/// `POST /v1/collections`
pub(crate) struct CreateCollection;

impl Endpoint for CreateCollection {
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/v1/collections";
    const ID: &'static str = "createCollection";
    const TAG: &'static str = "Collections";
    const SUMMARY: &'static str = "Create a collection";
    const SUCCESS: &'static [(u16, &'static str)] = &[(201, "Created; `Location` is its address.")];
    type Path = Nothing;
    type Query = Nothing;
    type Body = Json<arguments::CreateCollection>;
    type Answer = CollectionAnswer;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let given = &asked.body.0;
        let arguments = json!({"name": given.name, "description": given.description, "model": given.model});
        let answer: CollectionAnswer = asked.tool_read("create_collection", arguments).await?;
        let location = DescribeCollection::url("", &OfCollection { collection: answer.name.clone() }, &Nothing {});
        Ok(Reply::created(answer, &location))
    }
}

/// `GET /v1/collections/{collection}`
pub(crate) struct DescribeCollection;

impl Endpoint for DescribeCollection {
    const METHOD: Method = Method::GET;
    const PATH: &'static str = "/v1/collections/{collection}";
    const ID: &'static str = "describeCollection";
    const TAG: &'static str = "Collections";
    const SUMMARY: &'static str = "Size, model and filterable fields of a collection";
    type Path = OfCollection;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = RawJson<DescribeCollectionAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let collection = asked.path.collection.clone();
        Ok(Reply::ok(asked.tool("describe_collection", json!({ "collection": collection })).await?))
    }
}

/// `DELETE /v1/collections/{collection}`
pub(crate) struct DeleteCollection;

impl Endpoint for DeleteCollection {
    const METHOD: Method = Method::DELETE;
    const PATH: &'static str = "/v1/collections/{collection}";
    const ID: &'static str = "deleteCollection";
    const TAG: &'static str = "Collections";
    const SUMMARY: &'static str = "Delete a collection with all its documents";
    type Path = OfCollection;
    type Query = Nothing;
    type Body = NoBody;
    type Answer = RawJson<CollectionAnswer>;

    async fn answer(asked: EndpointRequest<Self>) -> Result<Reply<Self::Answer>, Failure> {
        let name = asked.path.collection.clone();
        // Naming it in the URL is the confirmation.
        Ok(Reply::ok(asked.tool("delete_collection", json!({"name": name, "confirm": name})).await?))
    }
}
