//! The hosts that a client may reach.
//!
//! Invariants: an address is checked after the name was resolved, and the checked address is the one that is connected
//! to; every redirect is checked like a first request. Addresses that are not known to be public count as private.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The hosts that a client may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Any host: for addresses configured by the operator.
    Anywhere,
    /// Hosts on the public Internet: for addresses from outside. Private networks, this machine, the metadata services
    /// of clouds, and other notations of their addresses are refused.
    Public,
    /// The hosts of a list.
    Hosts(HostList),
}

/// Names and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostList {
    /// In lower case; one that starts with a dot includes all names below it.
    names: Vec<String>,
    networks: Vec<IpNet>,
}

/// An invalid entry of a list of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{entry}' is not a host: expected a name, `*.example.org` for the names below one, an address, or a network such as 10.0.0.0/8"
)]
pub struct BadHost {
    entry: String,
}

/// Names of this machine and of metadata services, which a proxy would resolve.
const NEVER_PUBLIC: [&str; 2] = ["localhost", "metadata.google.internal"];

impl HostList {
    /// A list of names (`api.example.org`, `*.example.org`), addresses, and networks (`10.1.0.0/16`).
    ///
    /// # Errors
    /// [`BadHost`] for the first entry that is none of these.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, BadHost> {
        let mut list = Self::default();
        for entry in entries {
            let entry = entry.trim();
            if let Ok(network) = entry.parse::<IpNet>() {
                list.networks.push(network.trunc());
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                list.networks.push(address.into());
            } else {
                let name = entry.strip_prefix('*').filter(|below| below.starts_with('.')).unwrap_or(entry);
                let is_name = name.strip_prefix('.').unwrap_or(name).split('.').all(is_label);
                if !is_name {
                    return Err(BadHost { entry: entry.to_owned() });
                }
                list.names.push(name.to_ascii_lowercase());
            }
        }
        Ok(list)
    }

    fn has_name(&self, host: &str) -> bool {
        self.names.iter().any(|name| if name.starts_with('.') { host.ends_with(name.as_str()) } else { host == name })
    }

    fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address) || network.contains(&plain_address(address)))
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Reach {
    /// Checks whether a host may be requested at all, before its name is resolved.
    ///
    /// * `host`: as in a URL, an IPv6 address with or without brackets.
    /// * `is_proxied`: a proxy resolves the name, so that no address can be checked here.
    pub(super) fn check_host(&self, host: &str, is_proxied: bool) -> Result<(), &'static str> {
        let host = plain(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.check_address(&host, address);
        }
        match self {
            Self::Anywhere => Ok(()),
            Self::Public => {
                let is_own = NEVER_PUBLIC
                    .iter()
                    .any(|name| host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
                // A proxy would complete a name without a dot by its own domain.
                let is_near = is_proxied && !host.contains('.');
                if is_own || is_near { Err("it is not a host of the public Internet") } else { Ok(()) }
            }
            // A host that is not listed by name may resolve to a listed network.
            Self::Hosts(list) if list.has_name(&host) || (!is_proxied && !list.networks.is_empty()) => Ok(()),
            Self::Hosts(_) => Err("it is not in the list of allowed hosts"),
        }
    }

    /// Checks whether an address may be connected to for a host.
    pub(super) fn check_address(&self, host: &str, address: IpAddr) -> Result<(), &'static str> {
        match self {
            Self::Anywhere => Ok(()),
            Self::Public if is_public(address) => Ok(()),
            Self::Public => Err("it is not a host of the public Internet"),
            Self::Hosts(list) if list.has_address(address) => Ok(()),
            Self::Hosts(list) if list.has_name(&plain(host)) => {
                let address = plain_address(address);
                let is_own = address.is_loopback() && plain(host) != "localhost";
                match is_own || is_never_meant(address) {
                    true => Err(
                        "its name leads to this machine or to a link-local address, which are allowed by address only",
                    ),
                    false => Ok(()),
                }
            }
            Self::Hosts(_) => Err("it is not in the list of allowed hosts"),
        }
    }
}

/// A host in the form used for comparisons.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The address that is reached: an IPv4 address within an IPv6 one (mapped, or translated by NAT64, RFC 6052) is the
/// former.
pub(super) fn plain_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                let [.., a, b, c, d] = v6.octets();
                Ipv4Addr::new(a, b, c, d).into()
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Addresses that no host name has for a legitimate reason: metadata services are at link-local addresses.
fn is_never_meant(address: IpAddr) -> bool {
    address.is_unspecified()
        || address.is_multicast()
        || match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
}

/// IPv4 blocks that are not public, according to the registry of special addresses (RFC 6890), plus the address at
/// which Azure machines reach their host.
const NOT_PUBLIC_V4: [([u8; 4], u8); 17] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// The same within 2000::/3, outside of which nothing is public: special purposes including Teredo, documentation,
/// 6to4.
const NOT_PUBLIC_V6: [([u16; 8], u8); 4] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Whether an address belongs to the public Internet.
fn is_public(address: IpAddr) -> bool {
    match plain_address(address) {
        IpAddr::V4(address) => {
            let is_in = |(block, length): &([u8; 4], u8)| {
                Ipv4Net::new(Ipv4Addr::from(*block), *length).is_ok_and(|block| block.contains(&address))
            };
            !NOT_PUBLIC_V4.iter().any(is_in)
        }
        IpAddr::V6(address) => {
            let is_in = |(block, length): &([u16; 8], u8)| {
                Ipv6Net::new(Ipv6Addr::from(*block), *length).is_ok_and(|block| block.contains(&address))
            };
            address.segments()[0] & 0xe000 == 0x2000 && !NOT_PUBLIC_V6.iter().any(is_in)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_what_is_public_is_public() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address(public)), "{public}");
        }
        for other in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:7f00:1::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(!is_public(address(other)), "{other}");
        }
    }

    #[test]
    fn literal_addresses_are_judged_before_anything_is_asked() {
        for host in
            ["127.0.0.1", "[::1]", "::1", "[::ffff:10.0.0.1]", "localhost", "a.localhost.", "metadata.google.internal"]
        {
            assert!(Reach::Public.check_host(host, false).is_err(), "{host}");
            assert!(Reach::Public.check_host(host, true).is_err(), "{host}");
            assert!(Reach::Anywhere.check_host(host, false).is_ok(), "{host}");
        }
        assert!(Reach::Public.check_host("example.org", false).is_ok());
        assert!(Reach::Public.check_host("example.org", true).is_ok());
        assert!(Reach::Public.check_host("intranet.", false).is_ok(), "its address decides");
        assert!(Reach::Public.check_host("intranet.", true).is_err(), "a proxy chooses the address");
        assert!(Reach::Public.check_host("notlocalhost", false).is_ok(), "its address decides");
    }

    #[test]
    fn a_list_has_names_and_networks() {
        let list = HostList::parse(["api.example.org", "*.Example.net", "10.1.0.0/16", "192.0.2.7", "fd00::/8"]);
        let reach = Reach::Hosts(list.expect("valid"));
        let allows = |host: &str, at: &str| {
            reach.check_host(host, false).is_ok() && reach.check_address(host, address(at)).is_ok()
        };
        assert!(allows("api.example.org", "8.8.8.8") && allows("API.example.org.", "10.9.9.9"));
        assert!(allows("a.example.net", "8.8.8.8") && !allows("example.net", "8.8.8.8"));
        assert!(!allows("api.example.org.evil.test", "8.8.8.8") && !allows("notapi.example.org", "8.8.8.8"));
        assert!(allows("other.test", "10.1.2.3") && !allows("other.test", "10.2.2.3"), "by its network");
        assert!(
            allows("192.0.2.7", "192.0.2.7") && allows("[fd00::1]", "fd00::1") && allows("x.test", "::ffff:10.1.2.3")
        );
        // A name that is listed still must not reach this machine or a metadata service.
        for own in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!allows("api.example.org", own), "{own}");
        }
        assert!(reach.check_host("other.test", true).is_err(), "a proxy would choose the address");
        for wrong in ["", "http://a", "a b", "*", "a..b", "10.0.0.0/33", "*a.example"] {
            assert!(HostList::parse([wrong]).is_err(), "{wrong}");
        }
    }
}
