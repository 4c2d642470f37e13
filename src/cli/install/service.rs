//! Cairn as a service of this machine's systemd.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use super::arguments::Arguments;
use super::choices::Choices;
use super::lasting::{settings_file, token_file};
use super::machine::{CONFIG, TOKEN};
use super::prepared::{Before, PreparedInstallation, own_program, root_finding};
use crate::api;
use crate::auth::Token;
use crate::cli::Failure;
use crate::cli::k3s::memory;
use crate::config::{self, Config};
use crate::deploy::shape::{DATA_DIR, MCP_PORT};
use crate::deploy::{
    self, Action, Finding, FormatOf, HostNode, ManagedFile, Platform, Program, Release, Systemd, Tree,
};
use crate::store;

/// Where the service listens when nobody says: everywhere, with TLS and a token.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), MCP_PORT);

/// Works out the installation of a service; also how clients reach it.
pub(super) fn prepare(tree: &Tree, arguments: &Arguments) -> Result<(PreparedInstallation, api::Settings), Failure> {
    let program = Program::at(&own_program()?)?;
    let mut before = Before::read(tree)?;
    let mut choices = Choices::of(before.record.as_ref())?;
    let first_settings = first_settings(arguments.listen.unwrap_or(LISTEN));
    let config = match settings(tree)? {
        Some(config) => config,
        None => Config::read(&first_settings, CONFIG)?,
    };
    let listen = config.server.listen;
    if arguments.listen.is_some_and(|wanted| wanted != listen) {
        let message = format!("the node listens on {listen}; change server.listen in {CONFIG}");
        before.findings.push(Finding::obstacle("listen", message));
    }
    choices.listen = Some(listen);
    choices.gpu |= arguments.gpu;
    let lasting = lasting(tree, &mut before, first_settings)?;
    let current = deploy::current(tree);
    let machine = deploy::systemd::Machine { current: &current, memory: memory(), gpu: choices.gpu };
    let files = deploy::systemd::files(machine);
    let version = env!("CARGO_PKG_VERSION");
    let release = Release::new(&program, version, Platform::Systemd, store::FORMAT, files, None);
    let mut plan = before.plan(tree, &release, &program, &lasting, Path::new(DATA_DIR))?;
    plan.actions.push(Action::Run { what: listens(&config) });
    before.note_prefix(tree);
    if tree.is_machine() {
        let steps =
            ["make the user cairn and its folders", "systemctl enable, restart cairn", "ask the node a question"];
        plan.actions.extend(steps.map(|what| Action::Run { what: what.to_owned() }));
        before.findings.extend(machine_findings(listen, config.admin_listen));
    }
    before.note_record(Platform::Systemd);
    plan.findings.splice(0..0, before.findings);
    Ok((PreparedInstallation { release, program, lasting, choices, plan }, config.server))
}

/// The settings and the token that the machine gets where it has none.
fn lasting(tree: &Tree, before: &mut Before, first_settings: String) -> Result<Vec<ManagedFile>, Failure> {
    let mut lasting = vec![settings_file(first_settings)];
    if tree.is_machine() {
        lasting.push(token_file(Token::random()?.reveal()));
    } else {
        // One that many machines share would be no secret.
        let message = format!("each machine makes its own token at its first start: {TOKEN}");
        before.findings.push(Finding::warning("token", message));
    }
    Ok(lasting)
}

/// Where the service listens, and what clients need for it.
fn listens(config: &Config) -> String {
    let (listen, admin) = (config.server.listen, config.admin_listen);
    let protection = match (config.server.tls.covers(listen), config.server.guards(listen)) {
        (true, true) => ", with TLS and a token",
        (true, false) => ", with TLS",
        (false, true) => ", with a token",
        (false, false) => "",
    };
    format!("the service listens on {listen} for MCP and REST{protection}, and on {admin} for health and metrics")
}

/// The settings of the node that is installed, or will be from what lies there; `None` when there is no file.
fn settings(tree: &Tree) -> Result<Option<Config>, Failure> {
    if !tree.exists(CONFIG)? {
        return Ok(None);
    }
    let path = tree.locate(CONFIG)?;
    let config = Config::load(Some(&path), [], &config::Overrides::default());
    config.map(Some).map_err(Failure::usage)
}

fn first_settings(listen: SocketAddr) -> String {
    format!(
        "# What differs from the defaults, which `cairn serve --print-config` shows. Restart the service after a change.\n\n\
         [node]\ndata_dir = \"{DATA_DIR}\"\n\n[server]\nlisten = \"{listen}\"\n"
    )
}

/// What prevents an installation on this machine, apart from its files.
fn machine_findings(listen: SocketAddr, admin: SocketAddr) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        root_finding("it writes below /usr/local, /etc and /var/lib, makes a user and starts a service")
            .into_iter()
            .collect();
    match Systemd::version() {
        Some(version) if version < deploy::VERSION_MIN => findings.push(Finding::obstacle(
            "systemd",
            format!("systemd {version} is older than {}, which the unit needs", deploy::VERSION_MIN),
        )),
        Some(_) => {}
        None => findings.push(Finding::obstacle(
            "systemd",
            "systemd does not run on this machine now; --root / puts the files in place without starting anything",
        )),
    }
    // One that an interrupted installation left running, too.
    if !Systemd::is_up() {
        for (address, setting) in [(listen, "server.listen"), (admin, "admin.listen")] {
            if let Err(error) = TcpListener::bind(address) {
                let message = format!(
                    "cannot listen on {address} ({error}); stop what uses it, or set another {setting} in {CONFIG}"
                );
                findings.push(Finding::obstacle("port", message));
            }
        }
    }
    findings
}

/// The node of the service, as a change sees it.
///
/// * `patience`: how long it may take to be ready.
pub(super) fn node(tree: &Tree, patience: Duration) -> HostNode<'_> {
    let format_of: FormatOf<'static> = Box::new(|data_dir| Ok(store::data_format(data_dir)?));
    HostNode::new(tree, DATA_DIR.into(), CONFIG.into(), patience, format_of)
}
