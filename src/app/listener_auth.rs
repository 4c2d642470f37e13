//! From settings to the authentication and TLS of a node's listeners.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{self, Authenticator, Authority, Identity, Name, Source, Token};
use crate::base::{Clock as _, SystemClock};
use crate::config::Config;
use crate::task::Drain;

/// Interval between two lookups of a service's name.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);
/// The same until the first success: a pod starts before its network is ready.
const LOOKUP_RETRY: Duration = Duration::from_secs(3);

/// The tokens that a node's listeners accept, and the certificate that they present.
pub(super) struct ListenerAuth {
    pub(super) server: Authenticator,
    pub(super) admin: Authenticator,
    /// The certificate of TLS listeners; `None` when there are none.
    pub(super) identity: Option<Arc<Identity>>,
    /// The configured names in the certificate.
    names: Vec<Name>,
    /// For the command line of the same user.
    pub(super) local: Option<Token>,
    /// The node's token, if it was just created.
    pub(super) new: Option<Token>,
}

impl ListenerAuth {
    /// Requires no token and uses no TLS.
    pub(super) fn open() -> Self {
        Self {
            server: Authenticator::open(),
            admin: Authenticator::open(),
            identity: None,
            names: Vec::new(),
            local: None,
            new: None,
        }
    }

    pub(super) fn make(config: &Config, renew: bool) -> anyhow::Result<Self> {
        let mut listener_auth = Self::open();
        let (data_dir, server) = (&config.data_dir, &config.server);
        let guarded = |address| server.guards(address);
        let token_file = server.token_file.as_deref();
        let asks = guarded(server.listen) || guarded(config.admin_listen);
        // An operator who provides a token needs no other.
        let is_given = asks && token_file.map_or(Ok(false), auth::gives_token)?;
        if renew || (asks && !is_given) {
            listener_auth.new = auth::token_of_node(data_dir, renew, SystemClock.now())?;
        }
        if asks {
            let local = Token::random()?;
            let authenticator = Authenticator::with_tokens(data_dir, token_file, &local)?;
            let at = |address| if guarded(address) { authenticator.clone() } else { Authenticator::open() };
            (listener_auth.server, listener_auth.admin) = (at(server.listen), at(config.admin_listen));
            listener_auth.local = guarded(server.listen).then_some(local);
        }
        let listens = [server.listen, config.admin_listen].into_iter().filter(|address| server.tls.covers(*address));
        let addresses: Vec<SocketAddr> = listens.collect();
        if !addresses.is_empty() {
            let of_service = server.service.iter().flat_map(|service| service.names.clone());
            listener_auth.names =
                server.tls_names.iter().cloned().chain(of_service).chain(Name::of_this_machine()).collect();
            let concrete = addresses.iter().map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
            let source = match server.certificate() {
                Some(files) => Source::Files(files),
                None => Source::Own(listener_auth.names.iter().cloned().chain(concrete.map(Name::Ip)).collect()),
            };
            let identity = Identity::open(data_dir, source, SystemClock.now())?;
            listener_auth.identity = Some(Arc::new(identity));
        }
        Ok(listener_auth)
    }

    /// The authority that clients have to trust, if it is the node's own.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.identity.as_ref()?.authority()
    }

    /// The certificate of the listener at this address.
    pub(super) fn identity_at(&self, config: &Config, address: SocketAddr) -> Option<Arc<Identity>> {
        self.identity.clone().filter(|_| config.server.tls.covers(address))
    }

    /// Names allowed in `Host` and `Origin`. Clients were told to use the names in the certificate; with another name
    /// the handshake would have failed.
    pub(super) fn allowed_hosts(&self, config: &Config) -> Vec<String> {
        let of_service = config.server.service.iter().flat_map(|service| &service.names);
        let names = of_service.chain(&self.names).map(ToString::to_string);
        config.server.allowed_hosts.iter().map(ToString::to_string).chain(names).collect()
    }
}

/// Adds the addresses of a name to the node's certificate, until the shutdown starts.
pub(super) async fn watch_service_addresses(identity: Arc<Identity>, name: String, drain: Drain) {
    loop {
        let (identity, name) = (Arc::clone(&identity), name.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let addresses = addresses_of(&name);
            addresses.iter().for_each(|address| identity.add_address(*address));
            !addresses.is_empty()
        });
        let pause = tokio::select! {
            // A lookup that hangs ends at its own deadline.
            () = drain.ordered() => return,
            looked = looked => if looked.unwrap_or(false) { LOOKUP_INTERVAL } else { LOOKUP_RETRY },
        };
        tokio::select! {
            () = drain.ordered() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The addresses of a name; none if it is unknown or no resolver answers.
fn addresses_of(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip()).collect()
}
