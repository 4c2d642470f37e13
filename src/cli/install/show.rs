//! What an installation is going to do, and what came of it, as text and JSON.

use std::env::consts::ARCH;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine::TOKEN;
use super::pod::PodAccess;
use super::prepared::PreparedInstallation;
use crate::api;
use crate::base::ByteSize;
use crate::cli::{Failure, output};
use crate::deploy::shape::DATA_DIR;
use crate::deploy::{Action, Changed, Finding, Plan, Release};

/// Shows what is going to be done; whether it can be. As JSON only where nothing else is shown in the end.
pub(super) fn proposed(as_json: bool, is_dry_run: bool, prepared: &PreparedInstallation) -> Result<bool, Failure> {
    let PreparedInstallation { plan, release, .. } = prepared;
    let is_possible = plan.is_possible();
    if !as_json {
        show_plan(plan, release)?;
    } else if is_dry_run || !is_possible {
        output::json(&plan_json(plan, release))?;
    }
    Ok(is_possible)
}

/// The plan in words.
fn show_plan(plan: &Plan, release: &Release) -> Result<(), Failure> {
    let name = output::bold(&format!("Cairn {}", release.name));
    output::line(&format!("{name} for {} on {ARCH}", release.platform))?;
    output::line("")?;
    for action in &plan.actions {
        let (verb, what, size) = words(action);
        let size = size.map(|bytes| format!("  {}", ByteSize(bytes))).unwrap_or_default();
        output::line(&format!("  {verb:<8} {what}{}", output::dim(&size)))?;
    }
    if !plan.findings.is_empty() {
        output::line("")?;
    }
    for finding in &plan.findings {
        let level = if finding.is_obstacle { "problem" } else { "note" };
        output::line(&format!("{level:<8} {}", finding.message))?;
    }
    Ok(())
}

fn words(action: &Action) -> (&'static str, String, Option<u64>) {
    match action {
        Action::Create { path, bytes } => ("create", path.display().to_string(), Some(*bytes)),
        Action::Replace { path, bytes, was_changed: _ } => ("replace", path.display().to_string(), Some(*bytes)),
        Action::Keep { path } => ("keep", path.display().to_string(), None),
        Action::Remove { path } => ("remove", path.display().to_string(), None),
        Action::Link { path, target } => ("link", format!("{} to {}", path.display(), target.display()), None),
        Action::Run { what } => ("run", what.clone(), None),
    }
}

/// The plan as JSON.
fn plan_json(plan: &Plan, release: &Release) -> Value {
    let actions: Vec<Value> = plan
        .actions
        .iter()
        .map(|action| {
            let (verb, what, bytes) = words(action);
            let mut entry = json!({"action": verb, "what": what});
            if let Some(bytes) = bytes {
                entry["bytes"] = bytes.into();
            }
            entry
        })
        .collect();
    let findings: Vec<Value> = plan.findings.iter().map(finding_json).collect();
    json!({
        "release": release.name, "version": release.version, "platform": release.platform,
        "architecture": ARCH, "possible": plan.is_possible(), "actions": actions, "findings": findings,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({"about": finding.about, "obstacle": finding.is_obstacle, "message": finding.message})
}

fn changed_json(changed: &Changed) -> Value {
    json!({"current": changed.current, "previous": changed.previous, "snapshot": changed.snapshot})
}

/// What the installation of a service came to, with what a client needs.
pub(super) fn service(as_json: bool, changed: &Changed, server: &api::Settings) -> Result<(), Failure> {
    let listen = server.listen;
    let scheme = if server.tls.covers(listen) { "https" } else { "http" };
    let url = format!("{scheme}://{}/mcp", SocketAddr::new(reachable(listen.ip()), listen.port()));
    let token = server
        .guards(listen)
        .then(|| fs::read_to_string(TOKEN).map(|token| token.trim().to_owned()).unwrap_or_default());
    let authority = PathBuf::from(DATA_DIR).join("tls/authority.pem");
    // A certificate of the operator's own is trusted by its own authority.
    let is_own = scheme == "https" && server.certificate().is_none();
    let authority = (is_own && authority.exists()).then_some(authority);
    let client = client(&url, token.as_deref());
    if as_json {
        let mut answer = changed_json(changed);
        answer["url"] = url.into();
        answer["token"] = token.into();
        answer["authority"] = authority.map_or(Value::Null, |path| path.display().to_string().into());
        answer["client"] = client;
        return output::json(&answer);
    }
    let mut lines = vec![("address", url)];
    lines.extend(token.map(|token| ("token", token)));
    lines.extend(authority.map(|path| ("authority", to_trust(&path))));
    runs(changed, &lines, &client)
}

/// The entry of a client's configuration.
fn client(url: &str, token: Option<&str>) -> Value {
    let mut server = json!({"type": "http", "url": url});
    if let Some(token) = token {
        server["headers"] = json!({"Authorization": format!("Bearer {token}")});
    }
    json!({"mcpServers": {"cairn": server}})
}

fn to_trust(authority: &Path) -> String {
    format!("{}, which clients have to trust", authority.display())
}

/// Says that a release runs, and how it is reached.
fn runs(changed: &Changed, lines: &[(&str, String)], client: &Value) -> Result<(), Failure> {
    output::line(&format!("\n{} runs.", output::bold(&format!("Cairn {}", changed.current))))?;
    if let Some(previous) = &changed.previous {
        output::line(&format!("`cairn rollback` runs {previous} again."))?;
    }
    output::line("")?;
    lines.iter().try_for_each(|(label, text)| output::line(&format!("  {label:<11}{text}")))?;
    output::line("\nFor an MCP client:")?;
    output::line(&format!("  {client}"))
}

/// What a staged tree came to.
pub(super) fn staged(as_json: bool, changed: &Changed) -> Result<(), Failure> {
    if as_json {
        return output::json(&changed_json(changed));
    }
    output::line(&format!("{} is in place; it starts with the machine", changed.current))
}

/// What an installation into a cluster came to, with what a client needs.
pub(super) fn pod(as_json: bool, changed: &Changed, access: &PodAccess) -> Result<(), Failure> {
    let PodAccess { url, service, authority, token, port_forward, notes } = access;
    let client = client(url, token.as_deref());
    if as_json {
        let mut answer = changed_json(changed);
        for (name, value) in [
            ("url", json!(url)),
            ("service", json!(service)),
            ("token", json!(token)),
            ("authority", json!(authority)),
            ("port_forward", json!(port_forward)),
            ("client", client),
            ("notes", json!(notes)),
        ] {
            answer[name] = value;
        }
        return output::json(&answer);
    }
    let mut lines = vec![("address", url.clone())];
    lines.extend(service.as_ref().map(|service| ("here", format!("{service}, or {port_forward}"))));
    lines.extend(token.clone().map(|token| ("token", token)));
    lines.extend(authority.as_deref().map(|path| ("authority", to_trust(path))));
    runs(changed, &lines, &client)?;
    notes.iter().try_for_each(|note| output::line(&format!("\nnote     {note}")))
}

/// What a rollback came to.
pub(super) fn rolled_back(as_json: bool, changed: Option<&Changed>) -> Result<(), Failure> {
    if as_json {
        return output::json(&changed.map_or(json!({"current": null}), changed_json));
    }
    match changed {
        Some(changed) => output::line(&format!("{} runs", changed.current)),
        None => output::line("nothing is installed now; data and settings are kept"),
    }
}

/// What is gone and what is left.
pub(super) fn uninstalled(as_json: bool, purged: &[PathBuf], left: &[PathBuf]) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!({"removed": purged, "left": left}));
    }
    purged.iter().try_for_each(|path| output::line(&format!("removed  {}", path.display())))?;
    left.iter().try_for_each(|path| output::line(&format!("left     {}", path.display())))?;
    output::line("Cairn is not installed any more")
}

/// An address at which others reach a listener: this machine's own, where it listens on all of them.
fn reachable(listen: IpAddr) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // Nothing is sent: connecting a datagram socket only looks the route up. The address is one kept for documentation.
    let own = UdpSocket::bind((listen, 0))
        .and_then(|socket| socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr()));
    own.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}
