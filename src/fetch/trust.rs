//! The authorities that a client trusts, and its own certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::FetchError;
use crate::base::small_file;

/// The cryptography of all of Cairn's TLS.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates of authorities.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// Why a file is not a list of authorities.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read as PEM.
    #[error("it is not a PEM file")]
    Syntax(#[source] rustls::pki_types::pem::Error),
    /// It contains something else.
    #[error("there is no {what} in it")]
    Missing {
        /// What was expected.
        what: &'static str,
    },
}

impl Authorities {
    /// The certificates of a PEM text, at least one.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, PemError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(PemError::Syntax)?;
        if found.is_empty() {
            return Err(PemError::Missing { what: "certificate" });
        }
        Ok(Self(found))
    }

    /// The certificates of a PEM file.
    ///
    /// # Errors
    /// [`FetchError::File`].
    pub fn read(path: &Path) -> Result<Self, FetchError> {
        let failed = |source| FetchError::File { path: path.to_owned(), source };
        let pem = small_file::read(path).map_err(|error| failed(error.into()))?;
        Self::from_pem(&pem).map_err(|error| failed(error.into()))
    }

    /// Certificates in their binary form.
    pub fn from_der(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(certificates.into_iter().map(CertificateDer::from).collect())
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} certificates", self.0.len())
    }
}

/// The authorities that a client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The system's authorities (or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`), Mozilla's if it has none.
    System,
    /// The same, and those of a PEM file, which is read when the client is created.
    SystemAnd(PathBuf),
    /// Only these.
    Only(Authorities),
}

/// A client certificate with its key.
#[derive(PartialEq, Eq)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientCertificate {
    /// From PEM texts: the certificate, with intermediate ones, and its key.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PemError> {
        let Authorities(chain) = Authorities::from_pem(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => PemError::Missing { what: "private key" },
            error => PemError::Syntax(error),
        })?;
        Ok(Self { chain, key })
    }
}

impl Clone for ClientCertificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientCertificate")
    }
}

/// The TLS configuration for this trust and certificate.
pub(super) fn tls(trust: &Trust, certificate: Option<ClientCertificate>) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    if !matches!(trust, Trust::Only(_)) {
        // The system's list contains certificates that can no longer be parsed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // A container with only the program has none.
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    let own = match trust {
        Trust::System => None,
        Trust::SystemAnd(path) => Some(Authorities::read(path)?),
        Trust::Only(own) => Some(own.clone()),
    };
    let unusable =
        |error: rustls::Error| FetchError::Setting { what: format!("a certificate cannot be used: {error}") };
    for certificate in own.iter().flat_map(|own| &own.0) {
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    match certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCertificate { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(unusable),
    }
}
