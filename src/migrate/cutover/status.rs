//! How the services of a folder are doing.

use serde::Serialize;

use super::CutoverError;
use super::apply::{evidence, newest_ready, pods_of};
use super::input::Input;
use super::mcp::{self, Gate, McpServer};
use super::plan::is_workload;
use super::ready::{Readiness, counts, readiness};
use super::record::{Records, Run};
use crate::deploy::cluster::ObjectApi;

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// Name of the workload.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Pods, or runs of a Job, that are asked for; `None` where that means nothing.
    pub wanted: Option<u64>,
    /// Pods that are ready, or runs that have ended well.
    pub ready: Option<u64>,
    /// Whether all of it is as it should be.
    pub is_ready: bool,
    /// What its MCP server answered; `None` where it has none, or was not asked.
    pub mcp: Option<McpServer>,
    /// Why it is not ready, or what there is to know.
    pub reason: String,
}

/// The services of a folder, and the runs that are stored.
///
/// # Errors
/// When the cluster does not answer.
pub fn status(api: &ObjectApi, input: &Input) -> Result<(Vec<ServiceStatus>, Vec<Run>), CutoverError> {
    let mut result = Vec::new();
    for object in input.objects.iter().filter(|object| is_workload(object)) {
        let key = &object.key;
        let mut service = ServiceStatus {
            name: key.name.clone(),
            kind: key.kind.clone(),
            wanted: None,
            ready: None,
            is_ready: false,
            mcp: None,
            reason: "not applied".to_owned(),
        };
        let Some(live) = api.get(key)? else {
            result.push(service);
            continue;
        };
        (service.wanted, service.ready) = counts(&live).unzip();
        match readiness(&live) {
            Readiness::Ready(words) => {
                service.is_ready = true;
                service.reason = if service.wanted.is_some() { String::new() } else { words };
                if let Some(pod) = newest_ready(pods_of(api, key, &live)?) {
                    match mcp::gate(api, input, &live, &pod.name) {
                        Gate::Other => {}
                        Gate::Unasked(words) => service.reason = words,
                        Gate::Answers(server) => service.mcp = Some(server),
                        Gate::Silent(words) => {
                            service.is_ready = false;
                            service.reason = words;
                        }
                    }
                }
            }
            Readiness::Waiting(words) | Readiness::Failed(words) => {
                let (details, _) = evidence(api, key);
                service.reason = [vec![words], details].concat().join("; ");
            }
        }
        result.push(service);
    }
    Ok((result, Records::of(input, api).runs()?))
}
