//! The node's own authority and the certificate that it signs for the node, in `<data_dir>/tls/`.
//!
//! | file | is |
//! |---|---|
//! | `authority.pem`, `authority.key` | the authority: created once, trusted by the node's clients |
//! | `node.pem`, `node.key` | the certificate that listeners present: recreated when its names change or it expires |
//! | `node.json` | the content of `node.pem`, with its digest |
//!
//! Invariants: each file is written whole, keys first. `node.pem` is trusted when `node.json` describes it and this authority, and
//! the key matches; a power cut between any two files leaves something that is not trusted, and the next start recreates it. An
//! authority that clients may already trust is never replaced: when one of its files is missing or damaged, a person decides.
//!
//! Times: machines without a battery for their clock start in the past, sometimes in 1970. A certificate created then would have
//! expired before a client sees it, so no time before this release counts as the present. Certificates are valid from a month
//! before their creation for clients whose clock is behind the node's. The node's certificate lasts 825 days, the most that
//! Apple's systems accept even from an authority that their owner trusts. The authority lasts 25 years, longer than the machine,
//! because replacing it means visiting every client.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::files::{self, FileLock};
use super::identity::IdentityError;
use super::names::Name;
use crate::base::{Digest, RELEASED, UnixMillis};
use crate::fetch::provider;

/// The name under which the command line of this machine reaches the node, regardless of the certificate that others
/// see. Names below `localhost` belong to nobody else (RFC 6761).
pub const LOCAL_NAME: &str = "cairn.localhost";

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// How far before its creation a certificate becomes valid.
const BACKDATE_MS: i64 = 30 * DAY_MS;
const AUTHORITY_MS: i64 = 25 * 365 * DAY_MS;
/// The whole validity of a certificate, including the backdating.
const NODE_MS: i64 = 825 * DAY_MS;
/// Client-facing addresses that a certificate holds at most, and that one run of the node adds at most. A machine whose
/// address changes adds one now and then; the oldest are dropped.
pub(super) const ADDRESSES_MAX: usize = 16;

/// An authority, as its clients need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The path of its certificate.
    pub file: PathBuf,
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
}

impl Authority {
    /// The path of the certificate of a data directory's authority.
    #[must_use]
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("tls").join("authority.pem")
    }
}

/// Creates the authority of a data directory and a certificate for the node, or returns the existing ones. An installer
/// uses this to show the authority before the first start. If the data directory is to belong to another user, it must
/// exist: files that root creates are given to the directory's owner.
///
/// * `names`: names in the certificate in addition to those of this machine: `server.tls_names` and the listening
///   addresses.
///
/// # Errors
/// When a file cannot be read or written, or the existing files are not an authority.
pub fn make_authority(data_dir: &Path, names: &[Name], now: UnixMillis) -> Result<Authority, IdentityError> {
    ensure(data_dir, names, None, now).map(|(authority, _)| authority)
}

/// What the node's certificate holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    names: BTreeSet<Name>,
    /// Addresses that clients connected to, oldest first, without those in `names`.
    seen: Vec<IpAddr>,
    not_before_ms: i64,
    not_after_ms: i64,
    /// BLAKE3 of `node.pem` and of `authority.pem`.
    certificate: String,
    authority: String,
}

impl Facts {
    /// Whether the certificate can be used for a while longer.
    pub(super) fn are_good(&self, names: &[Name], now: UnixMillis) -> bool {
        let now = sound(now).0;
        let third = (self.not_after_ms - self.not_before_ms) / 3;
        let in_time = self.not_before_ms <= now && now < self.not_after_ms - third;
        in_time && self.names == wanted(names, &self.seen)
    }

    /// Whether the certificate lacks this address and would serve more clients with it.
    pub(super) fn lacks(&self, address: IpAddr) -> bool {
        !self.names.contains(&Name::Ip(address.to_canonical()))
    }
}

/// The node's certificate with its key.
pub(super) struct NodeCertificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

/// The time that is used as the present.
fn sound(now: UnixMillis) -> UnixMillis {
    now.max(RELEASED)
}

fn wanted(names: &[Name], seen: &[IpAddr]) -> BTreeSet<Name> {
    let own = ["localhost", LOCAL_NAME, "127.0.0.1", "::1"].map(|name| name.parse().expect("a name: a test makes it"));
    let all = own.into_iter().chain(Name::of_this_machine()).chain(names.iter().cloned());
    all.chain(seen.iter().copied().map(Name::Ip)).collect()
}

/// The authority and the node's certificate; creates what is missing or no longer valid.
///
/// * `seen`: an address of this machine that a client connected to.
pub(super) fn ensure(
    data_dir: &Path,
    names: &[Name],
    seen: Option<IpAddr>,
    now: UnixMillis,
) -> Result<(Authority, NodeCertificate), IdentityError> {
    let directory = data_dir.join("tls");
    files::make_directory(data_dir)?;
    files::make_directory(&directory)?;
    let _lock = FileLock::acquire(&directory, "lock")?;
    let (authority, key) = authority(data_dir, &directory, now)?;
    let known = read(&directory, &authority)?;
    let mut addresses = known.as_ref().map_or_else(Vec::new, |known| known.facts.seen.clone());
    let new = seen.map(|address| address.to_canonical()).filter(|address| !addresses.contains(address));
    addresses.extend(new);
    addresses.drain(..addresses.len().saturating_sub(ADDRESSES_MAX));
    if let Some(known) = known
        && known.facts.are_good(names, now)
        && known.facts.seen == addresses
        && trusted(&authority, &known.key, now).is_ok()
    {
        return Ok((authority, known));
    }
    let made = make(&directory, &authority, key, wanted(names, &addresses), addresses, now)?;
    match trusted(&authority, &made.key, now) {
        Ok(()) => Ok((authority, made)),
        Err(what) => Err(IdentityError::Authority { path: authority.file, what }),
    }
}

/// The authority; the first call creates it.
fn authority(data_dir: &Path, directory: &Path, now: UnixMillis) -> Result<(Authority, KeyPair), IdentityError> {
    let (file, key_file) = (Authority::file(data_dir), directory.join("authority.key"));
    let (pem, key) = match (files::read(&file)?, files::read(&key_file)?) {
        (Some(pem), Some(key)) => (pem, key),
        (Some(_), None) => {
            let what = "its key is missing; put authority.key back, or remove the folder to make a new authority, \
                        which every client has to trust again";
            return Err(IdentityError::Authority { path: file, what: what.to_owned() });
        }
        // There is no certificate, so no client can trust a key that an interrupted creation may have left.
        (None, _) => {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name = authority_name(&key);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            // Valid from the release date, not from now: a clock that is ahead at the first start is corrected later.
            set_life(&mut parameters, RELEASED.0 - BACKDATE_MS, sound(now).0 + AUTHORITY_MS);
            let certificate = parameters.self_signed(&key)?;
            let (pem, key) = (certificate.pem().into_bytes(), key.serialize_pem().into_bytes());
            files::write(&key_file, &key)?;
            files::write(&file, &pem)?;
            tracing::info!(path = %file.display(), "created an authority for this node");
            (pem, key)
        }
    };
    let broken = |what: String| IdentityError::Authority { path: file.clone(), what };
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| broken(error.to_string()))?;
    certified(&pem, &key).map_err(broken)?;
    let key = std::str::from_utf8(&key).ok().and_then(|key| KeyPair::from_pem(key).ok());
    let key = key.ok_or_else(|| broken("its key cannot be read".to_owned()))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let fingerprint = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let pem = String::from_utf8(pem).map_err(|error| broken(error.to_string()))?;
    Ok((Authority { file, pem, fingerprint }, key))
}

/// Derived from the key, so that it does not have to be read from the certificate.
fn authority_name(key: &KeyPair) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(
        DnType::CommonName,
        format!("Cairn node authority {}", &Digest::of(key.public_key_raw()).to_string()[..8]),
    );
    name
}

/// A certificate with its key, if they match.
pub(super) fn certified(pem: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key cannot be read: {error}"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| format!("certificate and key do not fit: {error}"))
}

/// Checks that a client that trusts the authority accepts the certificate. Finds damage that reading the two does not.
fn trusted(authority: &Authority, key: &CertifiedKey, now: UnixMillis) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let words = |error: rustls::Error| error.to_string();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).map_err(|error| error.to_string())?;
    roots.add(root).map_err(words)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(LOCAL_NAME).expect("a name: a test makes it");
    let now = UnixTime::since_unix_epoch(Duration::from_millis(sound(now).0.unsigned_abs()));
    let certificate = key.end_entity_cert().map_err(words)?;
    verifier.verify_server_cert(certificate, &[], &name, &[], now).map(drop).map_err(words)
}

/// The node's certificate, if it is complete and signed by this authority.
fn read(directory: &Path, authority: &Authority) -> Result<Option<NodeCertificate>, IdentityError> {
    let part = |name: &str| files::read(&directory.join(name));
    let (Some(facts), Some(pem), Some(key)) = (part("node.json")?, part("node.pem")?, part("node.key")?) else {
        return Ok(None);
    };
    let Ok(facts) = serde_json::from_slice::<Facts>(&facts) else { return Ok(None) };
    let is_about = |digest: &str, bytes: &[u8]| digest == Digest::of(bytes).to_string();
    if !is_about(&facts.certificate, &pem) || !is_about(&facts.authority, authority.pem.as_bytes()) {
        return Ok(None);
    }
    Ok(certified(&pem, &key).ok().map(|key| NodeCertificate { key: Arc::new(key), facts }))
}

fn make(
    directory: &Path,
    authority: &Authority,
    authority_key: KeyPair,
    names: BTreeSet<Name>,
    seen: Vec<IpAddr>,
    now: UnixMillis,
) -> Result<NodeCertificate, IdentityError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "Cairn node");
    parameters.distinguished_name = subject;
    let not_before = sound(now).0 - BACKDATE_MS;
    let not_after = not_before + NODE_MS;
    set_life(&mut parameters, not_before, not_after);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let alternatives: Result<Vec<SanType>, rcgen::Error> = names
        .iter()
        .map(|name| match name {
            Name::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
            Name::Ip(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect();
    parameters.subject_alt_names = alternatives?;
    // A signature needs only the authority's name and key.
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = authority_name(&authority_key);
    let pem = parameters.signed_by(&key, &Issuer::new(issuer, authority_key))?.pem().into_bytes();
    let key = key.serialize_pem().into_bytes();
    let facts = Facts {
        names,
        seen,
        not_before_ms: not_before,
        not_after_ms: not_after,
        certificate: Digest::of(&pem).to_string(),
        authority: Digest::of(authority.pem.as_bytes()).to_string(),
    };
    let path = directory.join("node.pem");
    let certified =
        certified(&pem, &key).map_err(|reason| IdentityError::Certificate { path: path.clone(), reason })?;
    files::write(&directory.join("node.key"), &key)?;
    files::write(&path, &pem)?;
    files::write(&directory.join("node.json"), &serde_json::to_vec_pretty(&facts).expect("plain data serialises"))?;
    tracing::info!(
        names = %facts.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        until = %UnixMillis(not_after), "the node has a new certificate of its own authority",
    );
    Ok(NodeCertificate { key: Arc::new(certified), facts })
}

/// Sets from when until when a certificate is valid, in milliseconds since 1970.
fn set_life(parameters: &mut CertificateParams, from: i64, until: i64) {
    let begin = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = begin + Duration::from_millis(from.unsigned_abs());
    parameters.not_after = begin + Duration::from_millis(until.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(RELEASED.0 + 400 * DAY_MS);

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| text.parse().expect("a name")).collect()
    }

    fn shown(made: &NodeCertificate) -> &[u8] {
        made.key.cert[0].as_ref()
    }

    fn good(data_dir: &Path, names: &[Name], now: UnixMillis) -> (Authority, NodeCertificate) {
        ensure(data_dir, names, None, now).expect("made or kept")
    }

    #[test]
    fn what_was_made_is_kept_until_its_names_or_a_third_of_its_life_are_gone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let some = names(&["box.example"]);
        let (authority, first) = good(directory.path(), &some, NOW);
        let (same, kept) = good(directory.path(), &some, NOW);
        assert_eq!((&authority, shown(&first)), (&same, shown(&kept)));
        let later = |days: i64| UnixMillis(NOW.0 + days * DAY_MS);
        assert_eq!(shown(&first), shown(&good(directory.path(), &some, later(519)).1));
        let (same, renewed) = good(directory.path(), &some, later(521));
        assert_ne!(shown(&first), shown(&renewed));
        let (_, other) = good(directory.path(), &names(&["192.0.2.1"]), later(521));
        assert_ne!(shown(&renewed), shown(&other));
        assert!(other.facts.names.contains(&"192.0.2.1".parse().expect("a name")));
        // A clock that was far ahead is corrected.
        assert_ne!(shown(&other), shown(&good(directory.path(), &names(&["192.0.2.1"]), NOW).1));
        assert_eq!(authority, same);
    }

    #[test]
    fn a_clock_that_starts_in_1970_makes_no_certificate_of_1970() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (_, made) = good(directory.path(), &[], UnixMillis(0));
        assert_eq!(made.facts.not_before_ms, RELEASED.0 - BACKDATE_MS);
        assert!(made.facts.are_good(&[], UnixMillis(0)) && made.facts.are_good(&[], RELEASED));
        assert_eq!(RELEASED.to_string(), "2026-11-01T00:00:00Z");
    }

    #[test]
    fn the_last_addresses_that_clients_used_are_in_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let address = |last| IpAddr::from([192, 0, 2, last]);
        for last in 1..=20 {
            ensure(directory.path(), &[], Some(address(last)), NOW).expect("made");
        }
        let (_, known) = ensure(directory.path(), &[], Some(address(20)), NOW).expect("kept");
        let there: Vec<u8> = (1..=20).filter(|&last| !known.facts.lacks(address(last))).collect();
        assert_eq!(there, (5..=20).collect::<Vec<u8>>());
    }

    /// Whatever an interrupted creation left missing or half-written, the next start has a matching pair.
    #[test]
    fn an_interrupted_making_is_repeated() {
        let files = ["authority.key", "authority.pem", "node.key", "node.pem", "node.json"];
        for (older, lost) in [(None, 1), (None, 2), (None, 3), (None, 4), (Some(()), 2), (Some(()), 3), (Some(()), 4)] {
            let directory = tempfile::tempdir().expect("temporary directory");
            let tls = directory.path().join("tls");
            let (authority, _) = good(directory.path(), &[], NOW);
            let old: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(tls.join(file)).expect("there")).collect();
            if older.is_some() {
                good(directory.path(), &names(&["new.example"]), NOW);
            }
            // Files that this step and later ones write are missing or still the previous ones.
            for (file, old) in files.iter().zip(&old).skip(lost) {
                match older {
                    Some(()) => std::fs::write(tls.join(file), old).expect("written"),
                    None => std::fs::remove_file(tls.join(file)).expect("removed"),
                }
            }
            let (again, made) = good(directory.path(), &names(&["new.example"]), NOW);
            assert_eq!(again == authority, lost > 1, "{older:?} {lost}");
            assert!(made.facts.names.contains(&"new.example".parse().expect("a name")));
            made.key.keys_match().expect("they fit");
        }
    }

    #[test]
    fn an_authority_that_clients_may_trust_is_never_replaced() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tls = directory.path().join("tls");
        good(directory.path(), &[], NOW);
        let other = tempfile::tempdir().expect("temporary directory");
        good(other.path(), &[], NOW);
        std::fs::copy(other.path().join("tls/authority.key"), tls.join("authority.key")).expect("copied");
        assert!(matches!(ensure(directory.path(), &[], None, NOW), Err(IdentityError::Authority { .. })));
        std::fs::remove_file(tls.join("authority.key")).expect("removed");
        assert!(matches!(ensure(directory.path(), &[], None, NOW), Err(IdentityError::Authority { .. })));
    }
}
