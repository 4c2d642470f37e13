//! Cairn: a context server for AI agents in one static binary.
//!
//! The parts, in reading order; each may use those above it as `tests/it/layers.rs` allows. ARCHITECTURE.md explains
//! how they work together.

#![warn(missing_docs)]

pub mod base;
pub mod telemetry;

pub mod task;

pub mod fetch;

pub mod auth;

pub mod embed;
pub mod index;
pub mod ingest;
pub mod store;

pub mod calls;

pub mod extraction;

pub mod collection;

pub mod retrieval;

pub mod snapshot;

pub mod mcp;

pub mod deploy;

pub mod migrate;

pub mod api;

pub mod config;

pub mod app;
pub mod cli;
