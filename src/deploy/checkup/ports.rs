//! Whether something else listens where a node that does not run would, and what.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::text;
use crate::deploy::plan::Finding;
use crate::deploy::tree::Tree;

/// The state of a socket that takes connections, as the kernel writes it.
const LISTENING: &str = "0A";

/// A socket that takes connections.
struct Listener {
    address: SocketAddr,
    inode: String,
}

/// A finding for each address that is taken.
pub(super) fn check(tree: &Tree, wanted: &[SocketAddr]) -> Vec<Finding> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| text(tree, path));
    let listeners: Vec<Listener> =
        tables.flat_map(|table| table.lines().skip(1).filter_map(listener).collect::<Vec<_>>()).collect();
    let clash = |wanted: &SocketAddr| {
        let taken = listeners.iter().find(|listener| is_same(listener.address, *wanted))?;
        let by = holder(tree, &taken.inode).unwrap_or_else(|| "another program".to_owned());
        let message = format!(
            "{by} listens on {}, where the node is to listen ({wanted}); stop it, or set another address in server.listen or \
             admin.listen",
            taken.address
        );
        Some(Finding::obstacle("port", message))
    };
    wanted.iter().filter_map(clash).collect()
}

/// A line of `/proc/net/tcp`: number, local address, remote address, state, …, the inode as the tenth.
fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENING {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    Some(Listener {
        address: SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?),
        inode: (*inode).to_owned(),
    })
}

/// An address as the kernel writes it: words of 32 bits in the byte order of the machine, each as eight hexadecimal digits.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words: Vec<[u8; 4]> = (0..4).map(word).collect::<Option<_>>()?;
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// Whether nobody can listen on one while somebody listens on the other.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let both = if one.is_ipv4() == other.is_ipv4() {
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified()
    } else {
        // All of IPv6 are all of IPv4, too, unless the listener says otherwise.
        [one, other].iter().any(|address| address.is_ipv6() && address.ip().is_unspecified())
    };
    both && one.port() == other.port()
}

/// The process that has a socket open, where that may be seen.
fn holder(tree: &Tree, inode: &str) -> Option<String> {
    let link = format!("socket:[{inode}]");
    let processes = tree.list("/proc").ok()?.into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    for process in processes {
        let folder = format!("/proc/{process}");
        let Ok(descriptors) = tree.locate(format!("{folder}/fd")) else { continue };
        let Ok(mut open) = fs::read_dir(descriptors) else { continue };
        if open.any(|entry| {
            entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
        }) {
            let name = text(tree, format!("{folder}/comm"))?;
            return Some(format!("{} (process {process})", name.trim()));
        }
    }
    None
}
