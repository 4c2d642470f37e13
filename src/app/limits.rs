//! The machine's resources that listeners may use: descriptors and memory.
//!
//! The store must be able to open files at any moment, so some descriptors are never given to connections. Connections
//! without a valid token need memory too, up to the head of a request, so fewer of them are accepted where memory is
//! scarce.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::memory;
use crate::api::{BodyLimits, Limits};
use crate::config::Config;

/// Descriptors reserved for the store, at most and at least; in between it is a quarter of all.
const SPARE_MAX: u64 = 1_024;
const SPARE_MIN: u64 = 64;
/// Memory of a connection before its client is authenticated: the head of a request, and TLS buffers.
const CONNECTION_BYTES: u64 = 64 << 10;
/// The share of the node's memory for such connections, and the share for the bodies of requests.
const CONNECTIONS_PART: u64 = 16;
const BODIES_PART: u64 = 12;
/// A body may have this size on any node.
const BODY_LEAST: u64 = 8 << 20;
/// How long a request waits for memory for its body. Files that `cairn add` sends in parallel are then received one
/// after another.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);

/// Raises this process's limit of open files to the hard limit. Where that is low, connections wait.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Limits of the MCP and REST listener, and of the admin listener: that one still gets a descriptor when the other does
/// not.
pub(super) fn of_listeners(config: &Config) -> (Limits, Limits) {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let spare = spare(descriptors);
    let limits = Limits {
        connections_max: connections(config),
        descriptors_max: descriptors - spare,
        head_timeout: config.server.head_timeout,
        handshake_timeout: config.server.handshake_timeout,
    };
    (limits, Limits { descriptors_max: descriptors - spare / 2, ..limits })
}

fn connections(config: &Config) -> usize {
    let by_memory = memory::budget(config) / CONNECTIONS_PART / CONNECTION_BYTES;
    let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX).max(16);
    config.server.connections_max.min(by_memory)
}

/// Memory of connections before their clients are authenticated, in bytes.
pub(super) fn connections_bytes(config: &Config) -> u64 {
    connections(config) as u64 * CONNECTION_BYTES
}

/// Bytes of all bodies that are being received and answered. One of the maximum size always fits.
pub(super) fn bodies_together(config: &Config) -> u64 {
    config.server.bodies_bytes_max.0.min(bodies_part(config)).max(body(config))
}

/// Bytes of one body.
fn body(config: &Config) -> u64 {
    config.server.request_bytes_max.0.min(bodies_part(config))
}

fn bodies_part(config: &Config) -> u64 {
    (memory::budget(config) / BODIES_PART).max(BODY_LEAST)
}

/// How bodies of requests are received.
pub(super) fn of_bodies(config: &Config) -> BodyLimits {
    BodyLimits {
        bytes_max: usize::try_from(body(config)).unwrap_or(usize::MAX),
        together_max: usize::try_from(bodies_together(config)).unwrap_or(usize::MAX),
        room_timeout: ROOM_TIMEOUT,
        timeout: config.server.body_timeout,
        rate_min: config.server.body_rate_min.0,
    }
}

/// How many of this many descriptors are never given to connections.
fn spare(descriptors: u64) -> u64 {
    (descriptors / 4).clamp(SPARE_MIN, SPARE_MAX).min(descriptors / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_left_descriptors_and_so_are_connections() {
        assert_eq!([64, 256, 1_024, 1_048_576].map(spare), [32, 64, 256, 1_024]);
    }
}
