//! The certificate that a TLS listener presents: signed by the node's own authority, or from files; and how it changes
//! while connections are open.
//!
//! Nothing here waits for a timer. Before a handshake, the listener asks whether a refresh is due, at most once a
//! second, and refreshes: it reads files that changed and renews the node's own certificate when needed. Open
//! connections keep their certificate. A new pair that does not match is reported once, and the previous one stays in
//! use.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authenticator::{CheckedFile, is_check_due};
use super::authority::{self, Authority, Facts, LOCAL_NAME};
use super::files::{self, FileError, Stamp};
use super::names::Name;
use crate::base::{Clock as _, Fault, SystemClock, UnixMillis, with_causes};
use crate::fetch::provider;

/// Why a node cannot present an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node's authority is damaged.
    #[error("{path} is not this node's authority: {what}")]
    Authority {
        /// Its certificate.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A certificate and its key cannot be used.
    #[error("{path} cannot be used: {reason}")]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot create a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library rejects its configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl IdentityError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Authority { .. } => Fault::Damage,
            Self::Certificate { .. } => Fault::Caller,
            Self::Make(_) | Self::Tls(_) => Fault::Environment,
        }
    }
}

/// A certificate from another issuer: PEM, with the chain in one file and the key in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the node's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where the certificate that clients see comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Signed by the node's own authority, for these names and the machine's own.
    Own(Vec<Name>),
    /// Files, read again when they change.
    Files(CertificateFiles),
}

/// The node's side of every handshake. Both listeners share one.
pub struct Identity {
    data_dir: PathBuf,
    source: Source,
    authority: Authority,
    resolver: Arc<CertificateResolver>,
    config: Arc<ServerConfig>,
    started: Instant,
    /// When the files were last checked, in milliseconds since `started`.
    last_check: AtomicU64,
    /// Addresses that this run added to the certificate. Bounded, so that clients cannot cause endless renewals.
    addresses_added: AtomicUsize,
    /// Whether the last renewal failed and was reported.
    renewal_failed: AtomicBool,
    /// The files as they were last read. Locked during a refresh.
    checked: Mutex<CheckedFile<[Stamp; 2]>>,
}

struct Certificates {
    /// Signed by the node's own authority.
    own: Arc<CertifiedKey>,
    facts: Facts,
    /// Read from files.
    from_files: Option<Arc<CertifiedKey>>,
}

struct CertificateResolver(ArcSwap<Certificates>);

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateResolver")
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        match &certificates.from_files {
            Some(from_files) if hello.server_name() != Some(LOCAL_NAME) => Some(Arc::clone(from_files)),
            _ => Some(Arc::clone(&certificates.own)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads or creates the certificates. The node's own authority always exists: this machine's command line trusts
    /// it.
    ///
    /// # Errors
    /// When something cannot be read or created, or a pair does not match.
    pub fn open(data_dir: &Path, source: Source, now: UnixMillis) -> Result<Self, IdentityError> {
        let (authority, own) = authority::ensure(data_dir, source.names(), None, now)?;
        let stamps = source.stamps();
        let from_files = source.read()?;
        let certificates = Certificates { own: own.key, facts: own.facts, from_files };
        let resolver = Arc::new(CertificateResolver(ArcSwap::from_pointee(certificates)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<CertificateResolver>::clone(&resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            data_dir: data_dir.to_owned(),
            source,
            authority,
            resolver,
            config: Arc::new(config),
            started: Instant::now(),
            last_check: AtomicU64::new(0),
            addresses_added: AtomicUsize::new(0),
            renewal_failed: AtomicBool::new(false),
            checked: Mutex::new(CheckedFile::new(stamps)),
        })
    }

    /// The configuration for handshakes; it stays the same when the certificate changes.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The authority that clients have to trust; `None` when the certificate comes from files.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        match self.source {
            Source::Own(_) => Some(&self.authority),
            Source::Files(_) => None,
        }
    }

    /// Whether [`Self::refresh`] is due before the handshake of a client that connected to this address. A caller that
    /// gets `true` must refresh.
    #[must_use]
    pub fn is_refresh_due(&self, address: IpAddr) -> bool {
        is_check_due(self.started, &self.last_check)
            || (self.lacks(address) && !self.renewal_failed.load(Ordering::Relaxed))
    }

    /// Whether the certificate lacks this address of the machine.
    fn lacks(&self, address: IpAddr) -> bool {
        matches!(self.source, Source::Own(_))
            && self.addresses_added.load(Ordering::Relaxed) < authority::ADDRESSES_MAX
            && self.resolver.0.load().facts.lacks(address)
    }

    /// Adds an address at which clients reach the node to its own certificate. Blocks on the disk.
    pub fn add_address(&self, address: IpAddr) {
        if self.lacks(address) {
            self.refresh(address);
        }
    }

    /// Reads files that changed, and renews the node's own certificate when needed. Blocks on the disk.
    pub fn refresh(&self, address: IpAddr) {
        self.refresh_at(address, SystemClock.now());
    }

    fn refresh_at(&self, address: IpAddr, now: UnixMillis) {
        let mut checked = self.checked.lock();
        let current = self.resolver.0.load_full();
        let lacking = Some(address).filter(|address| self.lacks(*address));
        if lacking.is_some() || !current.facts.are_good(self.source.names(), now) {
            match authority::ensure(&self.data_dir, self.source.names(), lacking, now) {
                Ok((_, own)) => {
                    let from_files = current.from_files.clone();
                    self.resolver.0.store(Arc::new(Certificates { own: own.key, facts: own.facts, from_files }));
                    self.renewal_failed.store(false, Ordering::Relaxed);
                    self.addresses_added.fetch_add(usize::from(lacking.is_some()), Ordering::Relaxed);
                }
                Err(error) if !self.renewal_failed.swap(true, Ordering::Relaxed) => {
                    let error = with_causes(&error);
                    tracing::error!(%error, "cannot renew the node's certificate; still using the old one");
                }
                Err(_) => {}
            }
        }
        let now = self.source.stamps();
        if !checked.is_changed(now) {
            return;
        }
        let is_unread = |error: &IdentityError| matches!(error, IdentityError::File(_));
        let report = |error: &IdentityError| {
            let error = with_causes(error);
            tracing::error!(%error, "cannot use the changed certificate; still using the previous one");
        };
        if let Some(from_files) = checked.record(now, self.source.read(), is_unread, report) {
            let current = self.resolver.0.load_full();
            let certificates = Certificates { own: Arc::clone(&current.own), facts: current.facts.clone(), from_files };
            self.resolver.0.store(Arc::new(certificates));
            tracing::info!("the certificate was read again");
        }
    }
}

impl Source {
    /// Names in the node's own certificate, in addition to the machine's.
    fn names(&self) -> &[Name] {
        match self {
            Self::Own(names) => names,
            Self::Files(_) => &[],
        }
    }

    fn stamps(&self) -> [Stamp; 2] {
        match self {
            Self::Own(_) => [Stamp::NONE; 2],
            Self::Files(files) => [Stamp::of(&files.certificate), Stamp::of(&files.key)],
        }
    }

    /// The certificate and key from files.
    fn read(&self) -> Result<Option<Arc<CertifiedKey>>, IdentityError> {
        let Self::Files(paths) = self else { return Ok(None) };
        let bytes = |path: &Path| {
            let absent = || FileError::at(path)(std::io::ErrorKind::NotFound.into());
            files::read(path)?.ok_or_else(absent)
        };
        let (pem, key) = (bytes(&paths.certificate)?, bytes(&paths.key)?);
        let path = paths.certificate.clone();
        let pair = authority::certified(&pem, &key);
        Ok(Some(Arc::new(pair.map_err(|reason| IdentityError::Certificate { path, reason })?)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn from_files(identity: &Identity) -> Vec<u8> {
        identity.resolver.0.load().from_files.as_ref().expect("out of files").cert[0].to_vec()
    }

    #[test]
    fn a_pair_that_does_not_fit_changes_nothing() {
        let (data, one, two) = (
            tempfile::tempdir().expect("temporary directory"),
            tempfile::tempdir().expect("temporary directory"),
            tempfile::tempdir().expect("temporary directory"),
        );
        let now = SystemClock.now();
        for directory in [&one, &two] {
            authority::make_authority(directory.path(), &[], now).expect("made");
        }
        let (certificate, key) = (data.path().join("tls.crt"), data.path().join("tls.key"));
        let copy = |from: &tempfile::TempDir, name: &str, to: &Path| {
            fs::copy(from.path().join("tls").join(name), to).expect("copied");
        };
        copy(&one, "node.pem", &certificate);
        copy(&two, "node.key", &key);
        let files = CertificateFiles { certificate: certificate.clone(), key: key.clone() };
        let open = || Identity::open(&data.path().join("data"), Source::Files(files.clone()), now);
        assert!(matches!(open(), Err(IdentityError::Certificate { .. })));
        copy(&one, "node.key", &key);
        let identity = open().expect("they fit");
        let first = from_files(&identity);
        for broken in [&b"no certificate"[..], b""] {
            fs::write(&certificate, broken).expect("written");
            identity.refresh(HERE);
            assert_eq!(from_files(&identity), first);
        }
        fs::remove_file(&certificate).expect("removed");
        identity.refresh(HERE);
        assert_eq!(from_files(&identity), first);
        copy(&two, "node.pem", &certificate);
        identity.refresh(HERE);
        assert_eq!(from_files(&identity), first, "half of the new pair");
        copy(&two, "node.key", &key);
        identity.refresh(HERE);
        assert_ne!(from_files(&identity), first);
    }

    #[test]
    fn the_own_certificate_is_renewed_while_running() {
        let data = tempfile::tempdir().expect("temporary directory");
        let now = SystemClock.now();
        let identity = Identity::open(data.path(), Source::Own(Vec::new()), now).expect("made");
        let resolver = || identity.resolver.0.load().own.cert[0].to_vec();
        let first = resolver();
        identity.refresh_at(HERE, now);
        assert_eq!(resolver(), first);
        identity.refresh_at(HERE, UnixMillis(now.0 + 700 * 24 * 3_600 * 1_000));
        let second = resolver();
        assert_ne!(first, second);
        let other = IpAddr::from([192, 0, 2, 7]);
        assert!(identity.is_refresh_due(other), "a client came to an address that is not in the certificate");
        identity.refresh_at(other, UnixMillis(now.0 + 700 * 24 * 3_600 * 1_000));
        assert!(resolver() != second && !identity.lacks(other));
    }
}
