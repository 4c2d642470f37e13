//! REST under `/v1`: one table of routes, from which the router, the OpenAPI document and the client of the command line are made.
//!
//! Invariants: every route is in the table; every error is a problem (RFC 9457).

pub(crate) mod collections;
mod conditions;
pub(crate) mod documents;
pub(crate) mod endpoint;
pub(crate) mod jobs;
pub(crate) mod node;
mod openapi;
mod problem;
mod searches;
pub(crate) mod snapshots;
pub(crate) mod sources;
pub(crate) mod tools;

use axum::Router;
use serde_json::Value;

use self::endpoint::{Endpoint, Schemas, mount, operation};
use super::Shared;

pub(crate) use self::problem::{Problem, error_response, error_response_as};

macro_rules! routes {
    ($($endpoint:ty,)*) => {
        /// Adds every route.
        pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
            $(let router = mount::<$endpoint>(router);)*
            openapi::mount(router)
        }

        /// Method, path and OpenAPI operation of every route.
        fn operations(schemas: &mut Schemas) -> Vec<(String, &'static str, Value)> {
            vec![$((
                <$endpoint>::METHOD.as_str().to_ascii_lowercase(), <$endpoint>::PATH, operation::<$endpoint>(schemas),
            ),)*]
        }
    };
}

routes! {
    searches::Search,
    searches::SearchByLink,
    searches::FindSimilar,
    collections::ListCollections,
    collections::CreateCollection,
    collections::DescribeCollection,
    collections::DeleteCollection,
    documents::ListDocuments,
    documents::AddDocuments,
    documents::GetDocument,
    documents::PutDocument,
    documents::PatchDocument,
    documents::DeleteDocument,
    sources::ListSources,
    sources::SyncSource,
    sources::DeleteSource,
    sources::ListFolders,
    sources::NoteFolder,
    snapshots::ListSnapshots,
    snapshots::CreateSnapshot,
    snapshots::RestoreSnapshot,
    snapshots::VerifySnapshot,
    snapshots::SnapshotSchedule,
    snapshots::PruneSnapshots,
    node::GetStatus,
    node::GetChanges,
    node::Flush,
    node::Compact,
    jobs::ListJobs,
    jobs::GetJob,
    tools::ListTools,
    tools::CallTool,
}
