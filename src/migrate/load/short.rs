//! The short forms of ports and volumes, as far as merging has to know them: which ports an item is, and where a volume is mounted.
//!
//! Invariant: an item is at most 65,536 ports.

use super::super::source::Position;
use super::super::yaml::Node;
use super::shape::text;

/// A port of an item such as `127.0.0.1:8000-8001:80-81/udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// Nothing where none is written.
    pub(super) address: String,
    /// Nothing where Docker chooses; a range where Docker chooses one of it.
    pub(super) published: String,
    pub(super) target: u16,
    pub(super) protocol: String,
}

impl Port {
    /// The short form of this port alone.
    pub(super) fn item(&self, at: &Position) -> Node {
        let address = match self.address.contains(':') {
            true => format!("[{}]:", self.address),
            false if self.address.is_empty() => String::new(),
            false => format!("{}:", self.address),
        };
        let published = match self.published.is_empty() && self.address.is_empty() {
            true => String::new(),
            false => format!("{}:", self.published),
        };
        text(format!("{address}{published}{}/{}", self.target, self.protocol), at)
    }
}

/// The ports of an item `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]` (github.com/docker/go-connections, `nat.ParsePortSpec`); nothing where it
/// is not one.
///
/// * `spread`: whether `8000-8001:80` is two ports, as for docker/cli, or one with a range to choose from.
pub(super) fn ports(item: &str, spread: bool) -> Option<Vec<Port>> {
    let (numbers, protocol) = item.split_once('/').unwrap_or((item, "tcp"));
    let (front, target) = numbers.rsplit_once(':').map_or((None, numbers), |(front, target)| (Some(front), target));
    let (address, published) = match front {
        None => ("", ""),
        Some(front) => front.rsplit_once(':').unwrap_or(("", front)),
    };
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let (first, last) = range(target)?;
    let port = |published: String, target| Port {
        address: address.to_owned(),
        published,
        target,
        protocol: protocol.to_ascii_lowercase(),
    };
    if published.is_empty() {
        return Some((first..=last).map(|target| port(String::new(), target)).collect());
    }
    let (from, to) = range(published)?;
    if to - from == last - first {
        return Some((first..=last).map(|target| port((from + (target - first)).to_string(), target)).collect());
    }
    if first != last {
        return None;
    }
    match spread {
        true => Some((from..=to).map(|published| port(published.to_string(), first)).collect()),
        false => Some(vec![port(published.to_owned(), first)]),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// The parts of `[SOURCE:]TARGET[:OPTIONS]`: its source, where it has one, and its target. A drive such as `C:` is part of what follows it.
pub(super) fn volume(item: &str) -> (Option<&str>, &str) {
    if item.len() <= 2 {
        return (None, item);
    }
    let Some(end) = section(item) else { return (None, item) };
    let rest = &item[end + 1..];
    let target = &rest[..section(rest).unwrap_or(rest.len())];
    (Some(&item[..end]), target)
}

/// Where the first section ends, if another follows.
fn section(item: &str) -> Option<usize> {
    let mut colons = item.match_indices(':').map(|(at, _)| at);
    let first = colons.next()?;
    let is_drive = first == 1 && item.as_bytes()[0].is_ascii_alphabetic();
    if is_drive { colons.next() } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(item: &str, spread: bool) -> Option<Vec<String>> {
        let show = |port: &Port| format!("{}|{}|{}|{}", port.address, port.published, port.target, port.protocol);
        ports(item, spread).map(|ports| ports.iter().map(show).collect())
    }

    #[test]
    fn ports_are_read_from_each_short_form() {
        for (item, expected) in [
            ("80", vec!["||80|tcp"]),
            ("8080:80/UDP", vec!["|8080|80|udp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1|8080|80|tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1||80|tcp"]),
            ("[::1]:8080:80", vec!["::1|8080|80|tcp"]),
            ("8000-8001:80-81", vec!["|8000|80|tcp", "|8001|81|tcp"]),
            ("80-81", vec!["||80|tcp", "||81|tcp"]),
        ] {
            assert_eq!(
                shown(item, true).as_deref(),
                Some(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            );
        }
        assert_eq!(shown("8000-8001:80", true).map(|ports| ports.len()), Some(2));
        assert_eq!(shown("8000-8001:80", false), Some(vec!["|8000-8001|80|tcp".to_owned()]));
        for wrong in ["", "x", "80:", "9-8:9-8", "1-3:1-2", "70000", "+80"] {
            assert_eq!(shown(wrong, true), None, "{wrong}");
        }
        assert_eq!(shown("1-65535:1-65535", true).map(|ports| ports.len()), Some(65_535));
    }

    #[test]
    fn an_item_of_one_port_is_read_as_that_port() {
        let at = Position { file: "a".into(), line: 1, column: 1 };
        for item in ["80", "8080:80/udp", "127.0.0.1:8080:80", "127.0.0.1::80", "[::1]:8080:80"] {
            let port = ports(item, true).expect(item).remove(0);
            let again = super::super::shape::as_text(&port.item(&at)).map(str::to_owned).expect("text");
            assert_eq!(ports(&again, true), Some(vec![port]), "{again}");
        }
    }

    #[test]
    fn targets_of_volumes_are_read_from_each_short_form() {
        for (item, source, target) in [
            ("/data", None, "/data"),
            ("data:/data", Some("data"), "/data"),
            // One letter is a drive, on every system.
            ("a:/data", None, "a:/data"),
            ("./a:/data:ro", Some("./a"), "/data"),
            (r"C:\a:/data", Some(r"C:\a"), "/data"),
            (r"C:\a:D:\b:ro", Some(r"C:\a"), r"D:\b"),
            ("é", None, "é"),
        ] {
            assert_eq!(volume(item), (source, target));
        }
    }
}
