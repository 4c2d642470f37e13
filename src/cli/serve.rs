//! `cairn serve`: runs the node.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::json;

use super::{Common, Failure, output};
use crate::app;
use crate::auth::Token;
use crate::base::{Clock as _, SystemClock};
use crate::config::{DEFAULTS, Overrides};
use crate::telemetry::{self, LogFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn serve
  cairn serve --data-dir /srv/cairn --listen 127.0.0.1:8000
  cairn serve --set search.limit=10 --set log.level=debug
  cairn serve --print-config > cairn.toml

Point an MCP client at http://127.0.0.1:7171/mcp. Stop it with Ctrl-C or SIGTERM.")]
pub(super) struct Arguments {
    /// Address of MCP and REST [default: 127.0.0.1:7171]
    #[arg(long, env = "CAIRN_LISTEN", value_name = "ADDR", value_parser = output::address)]
    listen: Option<SocketAddr>,
    /// Address of /health, /ready and /metrics [default: 127.0.0.1:9464]
    #[arg(long, env = "CAIRN_ADMIN", value_name = "ADDR", value_parser = output::address)]
    admin: Option<SocketAddr>,
    /// Accept requests without a token on an address that other machines can reach
    #[arg(long)]
    allow_unauthenticated: bool,
    /// Set a setting, as SECTION.KEY=VALUE; may be repeated. LIST.0.KEY=VALUE sets a key of a list's first table
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Create a new token named `node` and print it; the previous one is revoked. Other tokens stay valid; see `cairn token`
    #[arg(long)]
    new_token: bool,
    /// Print every setting with its default and what it does, as a file for --config
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.print_config {
        return output::bytes(DEFAULTS.as_bytes());
    }
    let overrides = Overrides {
        set: arguments.set.clone(),
        listen: arguments.listen,
        admin: arguments.admin,
        allow_unauthenticated: arguments.allow_unauthenticated,
        ..common.overrides()
    };
    let source = common.source(overrides);
    let config = source.load().map_err(Failure::usage)?;
    telemetry::init(&config.log)?;
    let file = common
        .config
        .as_ref()
        .map_or_else(|| "none, defaults and variables".to_owned(), |path| path.display().to_string());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, data_dir = %config.data_dir.display(), configuration = %file, "Cairn starts");
    let as_json = common.json;
    // A log of one form: where lines of JSON were asked for, as in a container, whose output is one log.
    let in_log = config.log.format == LogFormat::Json && !as_json;
    app::serve(&config, source, arguments.new_token, |ready| {
        let (mcp, admin, token) = (ready.node.mcp(), ready.admin, ready.token.map(Token::reveal));
        if as_json {
            let mut line = json!({"mcp": mcp, "admin": admin, "pid": ready.node.pid});
            if let Some(authority) = ready.authority {
                line["authority"] = authority.file.display().to_string().into();
                line["authority_sha256"] = authority.fingerprint.clone().into();
            }
            if let Some(token) = token {
                line["token"] = token.into();
            }
            // Nobody may be reading.
            let _ = output::json(&line);
        } else if in_log {
            let message = format!("Cairn answers MCP at {mcp} and /health, /ready, /metrics at {admin}");
            let mut line = json!({"timestamp": SystemClock.now().to_string(), "level": "INFO", "message": message, "mcp": mcp, "admin": admin});
            if let Some(authority) = ready.authority {
                line["authority"] = authority.file.display().to_string().into();
                line["authority_sha256"] = authority.fingerprint.clone().into();
            }
            match token {
                Some(token) if arguments.new_token => line["token"] = token.into(),
                // Logs are collected, kept and read by others.
                Some(_) => {
                    line["token"] = "not shown in a log; `cairn token create NAME` makes one and prints it".into()
                }
                None => {}
            }
            println!("{line}");
        } else {
            println!("Cairn answers MCP at {mcp} and /health, /ready, /metrics at {admin}");
            if let Some(authority) = ready.authority {
                println!("Clients have to trust {}", authority.file.display());
                println!("SHA-256 fingerprint {}", authority.fingerprint);
            }
            match token {
                Some(token) if arguments.new_token || !is_kept() => {
                    println!("The node's token, shown this once: {token}");
                }
                // The file remains for everyone who may read it.
                Some(_) => {
                    println!(
                        "The node's token is not shown in a file; `cairn token create NAME` makes one and prints it"
                    );
                }
                None => {}
            }
        }
        // The reader of the line may be behind a pipe.
        let _ = std::io::stdout().flush();
    })?;
    Ok(())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE such as search.limit=10".to_owned()),
    }
}

/// Whether standard output is a file, which outlives this process.
fn is_kept() -> bool {
    let found = rustix::fs::fstat(std::io::stdout());
    found.is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::RegularFile)
}
