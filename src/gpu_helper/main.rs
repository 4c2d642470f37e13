//! The part of Cairn that talks to the GPU. The node starts it with one end of a socket pair as standard input; nobody else needs it.
//!
//! A program of its own since drivers are: they crash, hang, leak and bring a C library along, and none of that may reach the node.

mod device;
mod kernels;
mod matrix;
mod protocol;
mod sandbox;
mod search;
mod server;
mod unchecked;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = sandbox::enter() {
        eprintln!("cairn-gpu: {error}");
        return ExitCode::FAILURE;
    }
    match server::serve_stdin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-gpu: {error}");
            ExitCode::FAILURE
        }
    }
}
