//! Parses the command line, does what it says, maps the error to an exit code.

use std::process::ExitCode;

use cairn::cli::Cli;
use clap::Parser as _;

/// 25 % less CPU per search than the C library's allocator, measured over MCP.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cairn: {failure}");
            failure.exit_code()
        }
    }
}
