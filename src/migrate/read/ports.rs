//! Published ports: `8080:80`, `127.0.0.1:53:53/udp`, `[::1]:8000-8010:8000-8010`, or a map.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::super::stack::{EndpointMode, Port, PortMode, Protocol};
use super::{Reader, excerpt};

const PROTOCOLS: [(&str, Protocol); 3] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const MODES: [(&str, PortMode); 2] = [("ingress", PortMode::Ingress), ("host", PortMode::Host)];

/// A short form.
#[derive(Debug)]
struct Short {
    address: Option<IpAddr>,
    published: Option<RangeInclusive<u16>>,
    target: RangeInclusive<u16>,
    protocol: Option<Protocol>,
}

impl Reader<'_> {
    /// `ports`, in the order of the file.
    ///
    /// * `endpoint_mode`: with `dnsrr` there is nothing that could answer on the ports of the swarm.
    pub(super) fn ports(&mut self, item: &Item, endpoint_mode: Option<EndpointMode>) -> Vec<Port> {
        let mut ports = Vec::new();
        for item in self.list(item) {
            let first = ports.len();
            match &item.value {
                ItemValue::Map(_) | ItemValue::NoKeys(_) => ports.extend(self.long_port(item)),
                ItemValue::Scalar(At { value: Value::Int(_) | Value::Text(_), leaf }) => {
                    self.short_port(item, *leaf, &mut ports);
                }
                _ => self.wrong(item, "a port such as 8080:80, or a map with 'target'"),
            }
            let is_ingress = |port: &Port| port.mode.is_none_or(|mode| mode.value == PortMode::Ingress);
            if !self.is_compose() && endpoint_mode == Some(EndpointMode::Dnsrr) && ports[first..].iter().any(is_ingress)
            {
                self.mistake(
                    item,
                    format!(
                        "{}: Swarm refuses a port in mode ingress with endpoint_mode dnsrr; write the port as a map with \
                         'mode: host', or remove endpoint_mode",
                        item.path
                    ),
                );
            }
        }
        ports
    }

    fn short_port(&mut self, item: &Item, leaf: Leaf, ports: &mut Vec<Port>) {
        let Some(text) = self.text(item) else { return };
        let short = match short(&text.value) {
            Ok(short) => short,
            Err(expected) => {
                self.mistake(item, format!("{}: '{}' is not a port: {expected}", item.path, excerpt(&text.value)));
                return;
            }
        };
        let at = |value| At::new(value, leaf);
        let port = |target: u16, published: Option<u16>| Port {
            target: at(target),
            published: published.filter(|port| *port != 0).map(at),
            protocol: short.protocol.map(|protocol| At::new(protocol, leaf)),
            mode: None,
            host_ip: short.address.filter(|_| self.is_compose()).map(|address| At::new(address, leaf)),
            name: None,
            app_protocol: None,
        };
        let single = short.target.start() == short.target.end();
        let found: Vec<Port> = match short.published.clone() {
            None => short.target.clone().map(|target| port(target, None)).collect(),
            // Swarm publishes the whole range on the one port; compose has any one of it.
            Some(range) if single && !self.is_compose() => {
                range.map(|published| port(*short.target.start(), Some(published))).collect()
            }
            Some(range) if single => vec![port(*short.target.start(), Some(*range.start()))],
            Some(range) => range.zip(short.target.clone()).map(|(out, target)| port(target, Some(out))).collect(),
        };
        if self.is_compose() && single && short.published.as_ref().is_some_and(|range| range.start() != range.end()) {
            self.any_of(leaf);
        }
        if !self.is_compose() && short.address.is_some_and(|address| !address.is_unspecified()) {
            self.remark(
                leaf,
                Outcome::Approximated,
                "docker stack deploy ignores the address in front of a port; it is published on all addresses, as before",
            );
        }
        if found.iter().any(|port| port.target.value == 0) {
            self.mistake(item, format!("{}: the port in the container is 0, expected 1 to 65535", item.path));
        } else if self.spend(item, found.len()) {
            ports.extend(found);
        }
    }

    /// One port of a range is chosen.
    fn any_of(&mut self, leaf: Leaf) {
        let reason = "docker compose chooses a free port of the range; the first one is published";
        self.remark(leaf, Outcome::Approximated, reason);
    }

    fn long_port(&mut self, item: &Item) -> Option<Port> {
        let port = Port {
            target: self.field(item, "target", Self::number::<u16>).unwrap_or(At::new(0, *item.leaves().first()?)),
            published: self.field(item, "published", Self::published),
            protocol: self.field(item, "protocol", |reader, item| reader.choice(item, &PROTOCOLS)),
            mode: self.field(item, "mode", |reader, item| reader.choice(item, &MODES)),
            host_ip: self.field(item, "host_ip", Self::address),
            name: self.field(item, "name", Self::text),
            app_protocol: self.field(item, "app_protocol", Self::text),
        };
        if port.target.value == 0 {
            self.mistake(
                item,
                format!("{}: a port needs 'target', its number in the container, 1 to 65535", item.path),
            );
        }
        self.spend(item, 1).then_some(port)
    }

    /// The port outside; 0 and nothing are any.
    fn published(&mut self, item: &Item) -> Option<At<u16>> {
        let port = match item.scalar() {
            Some(At { value: Value::Text(text), leaf }) if text.contains('-') && self.is_compose() => match range(text)
            {
                Some(range) => {
                    self.any_of(leaf);
                    Some(At::new(*range.start(), leaf))
                }
                None => {
                    self.mistake(
                        item,
                        format!("{}: '{}' is not a range of ports such as 8000-8010", item.path, excerpt(text)),
                    );
                    None
                }
            },
            Some(At { value: Value::Text(text), .. }) if text.is_empty() => {
                self.nothing(item);
                None
            }
            _ => self.number(item),
        }?;
        if port.value == 0 {
            self.remark(port.leaf, Outcome::Converted, "0 is any port that is free, as if none were written");
            return None;
        }
        Some(port)
    }

    /// An address.
    pub(super) fn address(&mut self, item: &Item) -> Option<At<IpAddr>> {
        let text = self.text(item)?;
        match text.value.parse() {
            Ok(address) => Some(At::new(address, text.leaf)),
            Err(_) => {
                self.mistake(item, format!("{}: '{}' is not an IP address", item.path, excerpt(&text.value)));
                None
            }
        }
    }
}

/// `[ADDRESS:][PUBLISHED:]TARGET[/PROTOCOL]` (docker/go-connections, `nat.ParsePortSpec`).
///
/// # Errors
/// What was expected.
fn short(text: &str) -> Result<Short, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let published = parts.next().unwrap_or_default();
    let address = match parts.next().unwrap_or_default() {
        "" => None,
        address => Some(parse_address(address).ok_or_else(|| format!("'{}' is not an IP address", excerpt(address)))?),
    };
    let (target, protocol) = container.split_once('/').unwrap_or((container, ""));
    if target.is_empty() {
        return Err("it has no port of the container".to_owned());
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => None,
        name => match PROTOCOLS.iter().find(|(known, _)| *known == name) {
            Some((_, protocol)) => Some(*protocol),
            None => return Err(format!("'{}' is not one of tcp, udp, sctp", excerpt(name))),
        },
    };
    let not_range =
        |text: &str| format!("'{}' is not a port from 0 to 65535, or a range such as 8000-8010", excerpt(text));
    let target = range(target).ok_or_else(|| not_range(target))?;
    let published = match published {
        "" => None,
        text => Some(range(text).ok_or_else(|| not_range(text))?),
    };
    if let Some(published) = &published
        && target.len() != 1
        && published.len() != target.len()
    {
        return Err(format!("the ranges differ in length, {} and {}", published.len(), target.len()));
    }
    Ok(Short { address, published, target, protocol })
}

/// An address, one of version 6 in brackets or not.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok(),
        None => text.parse().ok(),
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok();
    let range = number(start)?..=number(end)?;
    (!range.is_empty()).then_some(range)
}
