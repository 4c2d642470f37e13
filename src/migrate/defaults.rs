//! Docker's defaults that are written out: the JSON of a running stack has all of them, and files have some.
//!
//! A default that the objects have anyway is taken out of the stack, and its leaf agrees. One that Kubernetes has no equal for stays: who
//! wrote it has to know.

use std::time::Duration;

use super::leaf::At;
use super::report::Ledger;
use super::stack::{
    EndpointMode, FileMount, HealthCheck, PortMode, Protocol, RestartCondition, RestartPolicy, Service, Stack,
    UpdateConfig, UpdateOrder,
};

/// How long a new container is watched (swarmkit, `api/defaults`).
const MONITOR: Duration = Duration::from_secs(5);
/// Permissions of a config and of a secret.
const FILE_MODE: u32 = 0o444;

/// Takes the defaults out of a stack.
pub fn strip(stack: &mut Stack, ledger: &mut Ledger) {
    stack.services.iter_mut().for_each(|service| of_service(service, ledger));
}

fn of_service(service: &mut Service, ledger: &mut Ledger) {
    if let Some(config) = &mut service.update {
        let UpdateConfig { parallelism, delay, max_failure_ratio, order, .. } = config;
        drop_if(parallelism, |count| *count == 1, ledger);
        drop_if(delay, Duration::is_zero, ledger);
        drop_if(max_failure_ratio, |ratio| *ratio == 0.0, ledger);
        drop_if(order, |order| *order == UpdateOrder::StopFirst, ledger);
    }
    let RestartPolicy { condition, max_attempts, window, .. } = &mut service.restart;
    drop_if(condition, |condition| *condition == RestartCondition::Any, ledger);
    drop_if(max_attempts, |attempts| *attempts == 0, ledger);
    drop_if(window, Duration::is_zero, ledger);
    drop_if(&mut service.placement.max_replicas, |most| *most == 0, ledger);
    drop_if(&mut service.endpoint_mode, |mode| *mode == EndpointMode::Vip, ledger);
    for port in &mut service.ports {
        drop_if(&mut port.protocol, |protocol| *protocol == Protocol::Tcp, ledger);
        drop_if(&mut port.mode, |mode| *mode == PortMode::Ingress, ledger);
    }
    for FileMount { uid, gid, mode, .. } in service.configs.iter_mut().chain(&mut service.secrets) {
        drop_if(uid, |uid| uid == "0", ledger);
        drop_if(gid, |gid| gid == "0", ledger);
        drop_if(mode, |mode| *mode == FILE_MODE, ledger);
    }
    if let Some(check) = &mut service.health_check {
        let HealthCheck { interval, timeout, start_period, start_interval, retries, .. } = check;
        // 0 means the image's value, or else Docker's default.
        for time in [interval, timeout, start_period, start_interval] {
            drop_if(time, Duration::is_zero, ledger);
        }
        drop_if(retries, |retries| *retries == 0, ledger);
    }
    if service.health_check.as_ref().is_some_and(|check| *check == HealthCheck::default()) {
        service.health_check = None;
    }
}

/// Whether a way to update says what is so without it, but for how failures are treated.
#[must_use]
pub fn is_default(config: &UpdateConfig) -> bool {
    let UpdateConfig { parallelism, delay, failure_action, monitor, max_failure_ratio, order } = config;
    parallelism.is_none_or(|count| count.value == 1)
        && delay.is_none_or(|time| time.value.is_zero())
        && failure_action.as_ref().is_none_or(|action| action.value == "pause")
        && monitor.is_none_or(|time| time.value == MONITOR || time.value.is_zero())
        && max_failure_ratio.is_none_or(|ratio| ratio.value == 0.0)
        && order.is_none_or(|order| order.value == UpdateOrder::StopFirst)
}

fn drop_if<T>(value: &mut Option<At<T>>, is_default: impl Fn(&T) -> bool, ledger: &mut Ledger) {
    if let Some(found) = value.take_if(|value| is_default(&value.value)) {
        ledger.agrees(found.leaf, "Docker's default");
    }
}
