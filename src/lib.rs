//! Cairn
pub mod base;
pub mod config;
pub mod embed;
pub mod index;
pub mod task;
pub mod telemetry;
