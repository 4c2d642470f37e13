//! From settings to the doors of a node's listeners: what they ask for, and what they show.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::{self, Authority, Door, Identity, Name, Source, Token};
use crate::base::{Clock as _, SystemClock};
use crate::config::Config;

/// The doors of a node's listeners: the tokens that open them, and what is shown to those who come.
pub(super) struct Doors {
    pub(super) server: Door,
    pub(super) admin: Door,
    /// What listeners that speak TLS show; `None` when none does.
    pub(super) identity: Option<Arc<Identity>>,
    /// Names in the certificate that were set.
    names: Vec<Name>,
    /// For the command line of the same user.
    pub(super) local: Option<Token>,
    /// The node's token, when it was made just now.
    pub(super) new: Option<Token>,
}

impl Doors {
    /// Doors that ask for nothing and show nothing.
    pub(super) fn open() -> Self {
        Self { server: Door::open(), admin: Door::open(), identity: None, names: Vec::new(), local: None, new: None }
    }

    pub(super) fn make(config: &Config, renew: bool) -> anyhow::Result<Self> {
        let mut doors = Self::open();
        let (data_dir, server) = (&config.data_dir, &config.server);
        let guarded = |address| server.guards(address);
        let token_file = server.token_file.as_deref();
        let asks = guarded(server.listen) || guarded(config.admin_listen);
        // Whoever gave a token needs no other.
        let is_given = asks && token_file.map_or(Ok(false), auth::gives_token)?;
        if renew || (asks && !is_given) {
            doors.new = auth::token_of_node(data_dir, renew, SystemClock.now())?;
        }
        if asks {
            let local = Token::random()?;
            let door = Door::guarded(data_dir, token_file, &local)?;
            let at = |address| if guarded(address) { door.clone() } else { Door::open() };
            (doors.server, doors.admin) = (at(server.listen), at(config.admin_listen));
            doors.local = guarded(server.listen).then_some(local);
        }
        let listens = [server.listen, config.admin_listen].into_iter().filter(|address| server.tls.covers(*address));
        let addresses: Vec<SocketAddr> = listens.collect();
        if !addresses.is_empty() {
            doors.names = server.tls_names.iter().cloned().chain(Name::of_this_machine()).collect();
            let concrete = addresses.iter().map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
            let source = match &server.certificate {
                Some(files) => Source::Files(files.clone()),
                None => Source::Own(doors.names.iter().cloned().chain(concrete.map(Name::Ip)).collect()),
            };
            let identity = Identity::open(data_dir, source, SystemClock.now())?;
            doors.identity = Some(Arc::new(identity));
        }
        Ok(doors)
    }

    /// What clients have to trust, when it is the node's own.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.identity.as_ref()?.authority()
    }

    /// What the listener at this address shows.
    pub(super) fn identity_at(&self, config: &Config, address: SocketAddr) -> Option<Arc<Identity>> {
        self.identity.clone().filter(|_| config.server.tls.covers(address))
    }

    /// Names in `Host` and `Origin`. A name that the certificate has is one that clients were told to use; with another one they
    /// would not have come this far.
    pub(super) fn allowed_hosts(&self, config: &Config) -> Vec<String> {
        config.server.allowed_hosts.iter().cloned().chain(self.names.iter().map(ToString::to_string)).collect()
    }
}
