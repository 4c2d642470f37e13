//! Integration tests: the real binary on real ports and data directories, driven as its users drive it.
//!
//! Each module is a behaviour. Expected answers come from the documents that a test writes and from the
//! specifications, never from what the implementation happens to say.

mod add;
mod add_again;
mod backups;
mod bundle;
mod cli;
mod clients;
mod command_line;
mod config_files;
mod containerd;
mod damage;
mod doctor;
mod documents;
mod door;
mod door_tokens;
mod durability;
mod eval;
mod extraction;
mod faults;
mod first_run;
mod formats;
mod gpu;
mod gpu_searches;
mod host;
mod host_guest;
mod image;
mod install;
mod install_k3s;
mod k3s_manifests;
mod k3s_own_rules;
mod k3s_rules;
mod kube_api;
mod kube_controllers;
mod kube_server;
mod languages;
mod layers;
mod ledger;
#[path = "../left_out.rs"]
mod left_out;
mod listener;
mod liveness;
mod mcp_http;
mod mcp_stdio;
mod memory;
mod no_node;
mod node;
mod notify;
mod overload;
mod parser_costs;
mod pdf;
mod power;
mod power_disk;
mod power_machine;
mod power_tree;
mod private_files;
mod reading;
mod s3;
mod serve;
mod snapshots;
mod space;
mod static_binary;
mod systemd_units;
mod tiny_executable;
mod unreadable;
