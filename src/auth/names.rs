//! Names that a certificate is valid for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::DnsName;
use serde::{Deserialize, Serialize};

/// A DNS name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Name {
    /// Such as `site-box` or `context.site.example`; no wildcard.
    Dns(String),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
}

/// A text that is not a valid name for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found '{0}', expected a DNS name such as site-box.example or an IP address; wildcards are not taken")]
pub struct NameError(String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(address.to_canonical()));
        }
        match DnsName::try_from(text) {
            Ok(name) if !text.ends_with('.') => Ok(Self::Dns(name.to_lowercase_owned().as_ref().to_owned())),
            _ => Err(NameError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl Name {
    /// The name of this machine, when a certificate can contain it.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let machine = rustix::system::uname();
        machine.nodename().to_str().ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, name) in [
            ("site-box", "site-box"),
            ("Context.Site.Example", "context.site.example"),
            ("192.0.2.10", "192.0.2.10"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:192.0.2.10", "192.0.2.10"),
        ] {
            assert_eq!(text.parse::<Name>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for text in ["", "*.example", "two words", "a/b", "example.", "https://a", "a:7171", "ü.example"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
