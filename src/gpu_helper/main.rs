//! The program that talks to the GPU. The node starts it with one end of a socket pair as standard input.
//!
//! A separate program because drivers crash, hang, leak and require a C library, and none of that must affect the node.

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
    match server::serve_stdin(sandbox::enter()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-gpu: {error}");
            ExitCode::FAILURE
        }
    }
}
