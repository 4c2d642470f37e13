//! `cairn token`: the tokens of a node's clients. Works on the data directory only: tokens cannot be created over the
//! network.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use jiff::{Span, SpanRelativeTo};
use serde_json::{Value, json};

use super::backend::expect_node;
use super::{Common, Failure, PLACE, output, unlisted};
use crate::auth::{self, NamedToken, Token, TokenError};
use crate::base::{Clock as _, Fault, SystemClock, UnixMillis};
use crate::deploy::Tree;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn token create laptop --expires 90d
  cairn token list
  cairn token revoke laptop

A running node accepts a new token, and refuses a revoked one, within a second. A token is shown once; the node stores its digest.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a token and print it once
    #[command(after_help = "\
Examples:
  cairn token create laptop
  cairn token create visitor --expires 90d
  CAIRN_TOKEN=$(cairn token create ci --json | jq -r .token)")]
    Create {
        /// Name of the token: letters, digits, '.', '_', '-' and '@'
        name: String,
        /// How long it is valid, such as 12h, 90d or 1y [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires: Option<Span>,
    },
    /// Show all tokens, without the secrets
    #[command(after_help = "Example:\n  cairn token list --json")]
    List,
    /// Create a token in a file of its own, unless it exists: for images, whose machines must not share one
    #[command(args(unlisted(PLACE)), after_help = "Example:\n  cairn token file /etc/cairn/token")]
    File {
        /// The file, which `server.token_file` names
        path: PathBuf,
    },
    /// Revoke a token
    #[command(after_help = "Example:\n  cairn token revoke laptop")]
    Revoke {
        /// Its name
        name: String,
    },
}

impl Arguments {
    /// Whether it is about the tokens of a data directory.
    pub(super) fn is_about_data(&self) -> bool {
        !matches!(self.action, Action::File { .. })
    }
}

/// Makes a token in a file that only its owner reads, unless there is one.
fn make_file(path: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
    let tree = Tree::machine();
    if !tree.exists(&path)? {
        tree.make_folder(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        tree.write(&path, format!("{}\n", Token::random()?.reveal()).as_bytes(), 0o600)?;
    }
    Ok(())
}

/// A time from now on; an error shows an example.
fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|_| "expected a time from now on, such as 12h, 90d or 1y".to_owned())
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    if let Action::File { path } = &arguments.action {
        return make_file(path);
    }
    let config = common.load()?;
    // A token for a node that does not exist would be useless, and nobody would notice.
    expect_node(&config)?;
    let data_dir = config.data_dir;
    let now = SystemClock.now();
    match &arguments.action {
        Action::Create { name, expires } => {
            let expires = expires.map(|span| after(now, span)).transpose()?;
            let (token, named) = auth::create(&data_dir, name, now, expires).map_err(failure)?;
            if common.json {
                let mut answer = described(&named, now);
                answer["token"] = token.reveal().into();
                return output::json(&answer);
            }
            output::line(token.reveal())?;
            let until = named.expires.map_or_else(String::new, |time| format!(", valid until {time}"));
            eprintln!("the token '{name}'{until}; it is not shown again");
            Ok(())
        }
        Action::List => {
            let tokens = auth::list(&data_dir).map_err(failure)?;
            if common.json {
                let tokens: Vec<Value> = tokens.iter().map(|token| described(token, now)).collect();
                return output::json(&json!({"tokens": tokens}));
            }
            if tokens.is_empty() {
                eprintln!("there are no tokens; `cairn token create NAME` makes one");
                return Ok(());
            }
            let rows = tokens.iter().map(|token| {
                let expires = match token.expires {
                    None => "never".to_owned(),
                    Some(time) if token.is_expired(now) => format!("{time} (over)"),
                    Some(time) => time.to_string(),
                };
                vec![token.name.clone(), token.created.to_string(), expires]
            });
            output::table(&["name", "created", "expires"], &[], rows.collect())
        }
        Action::File { .. } => Ok(()),
        Action::Revoke { name } => {
            let revoked = auth::revoke(&data_dir, name).map_err(failure)?;
            if common.json {
                let mut answer = described(&revoked, now);
                answer["status"] = "revoked".into();
                return output::json(&answer);
            }
            output::line(&format!("revoked '{name}'"))
        }
    }
}

/// The moment this long from now.
fn after(now: UnixMillis, span: Span) -> Result<UnixMillis, Failure> {
    let wrong = || Failure::usage(anyhow!("--expires takes a time from now on, such as 12h, 90d or 1y"));
    let now = jiff::Timestamp::from_millisecond(now.0).map_err(|_| wrong())?;
    // Months and years are those of the calendar.
    let start = now.to_zoned(jiff::tz::TimeZone::UTC);
    let length = span.to_duration(SpanRelativeTo::from(&start)).map_err(|_| wrong())?;
    match now.checked_add(length) {
        Ok(end) if length.is_positive() => Ok(UnixMillis(end.as_millisecond())),
        _ => Err(wrong()),
    }
}

fn described(token: &NamedToken, now: UnixMillis) -> Value {
    json!({
        "name": token.name,
        "created": token.created.to_string(),
        "expires": token.expires.map(|time| time.to_string()),
        "expired": token.is_expired(now),
    })
}

/// A mistake of the caller's in the name is one in the command line.
fn failure(error: TokenError) -> Failure {
    match (&error, error.fault()) {
        (TokenError::Name { .. }, _) => Failure::usage(error),
        (_, Fault::Caller | Fault::Environment | Fault::Damage) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let end = |text: &str| after(UnixMillis(0), text.parse().expect("a span")).map(|time| time.to_string());
        assert_eq!(end("90d").ok().as_deref(), Some("1970-04-01T00:00:00Z"));
        assert_eq!(end("1y").ok().as_deref(), Some("1971-01-01T00:00:00Z"));
        assert_eq!(end("12h").ok().as_deref(), Some("1970-01-01T12:00:00Z"));
        assert!(end("0s").is_err() && end("-1d").is_err() && end("9999y").is_err());
    }
}
