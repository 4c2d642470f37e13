//! How big a node is, and what Cairn asks for on it.

use std::fmt;
use std::str::FromStr;

use crate::base::ByteSize;

const GIB: u64 = 1 << 30;

/// A class of nodes by their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NodeSize {
    /// A 1 GB board. K3s itself takes half of it.
    Pi,
    /// 2 to 4 GB.
    #[default]
    Small,
    /// 8 to 16 GB.
    Medium,
    /// 32 GB and more.
    Large,
}

/// What a node of a size is asked for, unless a setting says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Reserved processor time. Cairn idles at nothing, so this only decides who goes first under load.
    pub cpu_request: Cpu,
    /// Most processor time. Adding documents uses whatever it gets.
    pub cpu: Cpu,
    /// Reserved memory: an empty node takes 21 MiB, 100,000 passages take 87 MiB.
    pub memory_request: ByteSize,
    /// Most memory. Also bounds the log, see `log_bytes_max`.
    pub memory: ByteSize,
    /// Reserved space outside the volume: the container's log (the kubelet retains 50 MiB of it) and `/tmp`.
    pub ephemeral_request: ByteSize,
    /// Most space outside the volume.
    pub ephemeral: ByteSize,
    /// The volume: eight times the log's limit, see `log_bytes_max`.
    pub storage: ByteSize,
    /// Passages that it is for: so many take the whole of the log's limit, and their vector graphs leave room to add more files.
    pub passages: u64,
    /// `search.cache_bytes`
    pub cache: ByteSize,
    /// `server.request_bytes_max` where it differs from the default: what one call can make the node hold.
    pub request: Option<ByteSize>,
    /// `server.in_flight_max` where it differs from the default.
    pub in_flight: Option<u32>,
}

/// Largest `/tmp`. Cairn leaves nothing there; the space is for those who debug in the pod.
pub(super) const TMP: ByteSize = ByteSize::mib(32);

impl NodeSize {
    /// All, smallest first.
    pub const ALL: [Self; 4] = [Self::Pi, Self::Small, Self::Medium, Self::Large];

    /// The class of a machine with this much memory. Machines report a little less than they were sold with, so the
    /// borders lie between the usual sizes.
    #[must_use]
    pub fn for_memory(memory: ByteSize) -> Self {
        match memory.0 {
            bytes if bytes < GIB * 3 / 2 => Self::Pi,
            bytes if bytes < 6 * GIB => Self::Small,
            bytes if bytes < 24 * GIB => Self::Medium,
            _ => Self::Large,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pi => "pi",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// What Cairn asks for on it. Limits leave room for K3s (0.5 GB idle) and for what else the smallest machine of the class
    /// runs; requests are a fraction of the limits, so that a node is not full of promises.
    #[must_use]
    pub fn defaults(self) -> Defaults {
        let mib = ByteSize::mib;
        match self {
            Self::Pi => Defaults {
                cpu_request: Cpu(50),
                cpu: Cpu(2_000),
                memory_request: mib(64),
                memory: mib(320),
                ephemeral_request: mib(32),
                ephemeral: mib(128),
                storage: mib(4 << 10),
                passages: 260_000,
                cache: mib(4),
                request: Some(mib(16)),
                // 16 requests of 16 MiB each fit below the limit.
                in_flight: Some(16),
            },
            Self::Small => Defaults {
                cpu_request: Cpu(100),
                cpu: Cpu(2_000),
                memory_request: mib(128),
                memory: mib(1 << 10),
                ephemeral_request: mib(64),
                ephemeral: mib(256),
                storage: mib(8 << 10),
                passages: 850_000,
                cache: mib(16),
                request: None,
                in_flight: None,
            },
            Self::Medium => Defaults {
                cpu_request: Cpu(250),
                cpu: Cpu(4_000),
                memory_request: mib(512),
                memory: mib(4 << 10),
                ephemeral_request: mib(64),
                ephemeral: mib(512),
                storage: mib(32 << 10),
                passages: 3_400_000,
                cache: mib(64),
                request: None,
                in_flight: None,
            },
            Self::Large => Defaults {
                cpu_request: Cpu(500),
                cpu: Cpu(8_000),
                memory_request: mib(2 << 10),
                memory: mib(16 << 10),
                ephemeral_request: mib(128),
                ephemeral: mib(1 << 10),
                storage: mib(128 << 10),
                passages: 13_600_000,
                cache: mib(256),
                request: None,
                in_flight: None,
            },
        }
    }
}

/// The log's limit for a volume and a memory limit: whichever is tighter of
///
/// * an eighth of the volume, because K3s' own volumes enforce no size, and a full one is a full disk of the node. Of the eight
///   parts the log takes one and its indexes half of one; the same again is next to them during a proof or a restore, and once
///   more in what a restore put aside; the rest holds what snapshots retain of records that were replaced since.
/// * the memory limit, because passages that make up 1 GiB of log (870,000) take about 0.8 GiB of memory.
#[must_use]
pub(super) fn log_bytes_max(storage: ByteSize, memory: ByteSize) -> ByteSize {
    ByteSize((storage.0 / 8).min(memory.0))
}

/// What snapshots that lie in the volume itself may take of it: the parts that `log_bytes_max` leaves.
#[must_use]
pub(super) fn snapshot_bytes_max(storage: ByteSize) -> ByteSize {
    ByteSize(storage.0 / 8 * 3)
}

impl fmt::Display for NodeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NodeSize {
    type Err = NodeSizeError;

    /// A name, or the node's memory such as `4GiB`.
    fn from_str(text: &str) -> Result<Self, NodeSizeError> {
        if let Some(size) = Self::ALL.into_iter().find(|size| size.name() == text) {
            return Ok(size);
        }
        match text.parse::<ByteSize>() {
            // A bare number would be bytes, and somebody who writes 4 means gigabytes.
            Ok(memory) if memory.0 >= 256 << 20 => Ok(Self::for_memory(memory)),
            _ => Err(NodeSizeError(text.to_owned())),
        }
    }
}

/// A text that names no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a node size: expected pi, small, medium, large or the node's memory such as 4GiB")]
pub struct NodeSizeError(String);

/// Processor time in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u32);

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) { write!(f, "{}", self.0 / 1_000) } else { write!(f, "{}m", self.0) }
    }
}

impl FromStr for Cpu {
    type Err = CpuError;

    fn from_str(text: &str) -> Result<Self, CpuError> {
        let error = || CpuError(text.to_owned());
        let milli = match text.strip_suffix('m') {
            Some(milli) => milli.parse::<u32>().map_err(|_| error())?,
            None => {
                let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
                if part.is_empty() || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(error());
                }
                let part: u32 = format!("{part:0<3}").parse().map_err(|_| error())?;
                let whole: u32 = whole.parse().map_err(|_| error())?;
                whole.checked_mul(1_000).and_then(|milli| milli.checked_add(part)).ok_or_else(error)?
            }
        };
        if (1..=1_024_000).contains(&milli) { Ok(Self(milli)) } else { Err(error()) }
    }
}

/// A text that is not a processor time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a CPU quantity: expected cores such as 2 or 0.5, or thousandths such as 500m")]
pub struct CpuError(String);

/// A size as Kubernetes writes it, exact: the largest binary unit that divides it.
pub(super) fn quantity(size: ByteSize) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.into_iter().find(|(shift, _)| size.0 > 0 && size.0.is_multiple_of(1 << shift));
    unit.map_or_else(|| size.0.to_string(), |(shift, name)| format!("{}{name}", size.0 >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gets_the_class_it_was_sold_as() {
        for (memory, size) in [
            ("905MiB", NodeSize::Pi),
            ("1.8GiB", NodeSize::Small),
            ("3.8GiB", NodeSize::Small),
            ("7.6GiB", NodeSize::Medium),
            ("15.5GiB", NodeSize::Medium),
            ("31GiB", NodeSize::Large),
            ("64GiB", NodeSize::Large),
        ] {
            assert_eq!(memory.parse(), Ok(size), "{memory}");
        }
        assert!("4".parse::<NodeSize>().is_err());
        assert!("huge".parse::<NodeSize>().is_err());
    }

    #[test]
    fn defaults_grow_with_the_node_and_fit_together() {
        for size in NodeSize::ALL {
            let defaults = size.defaults();
            assert!(defaults.cpu_request <= defaults.cpu, "{size}");
            assert!(defaults.memory_request <= defaults.memory, "{size}");
            assert!(defaults.ephemeral_request <= defaults.ephemeral, "{size}");
            // 50 MiB: what the kubelet retains of a container's log.
            assert!(TMP.0 + (50 << 20) <= defaults.ephemeral.0, "{size}");
            let log = log_bytes_max(defaults.storage, defaults.memory).0;
            assert!(log >= 256 << 20, "{size}");
            // 1 GiB of log holds 870,000 passages. A million of them take 520 MiB of memory, and no node takes more than 300 MiB
            // in addition, or half of what it may.
            assert!(log / 1_000 * 870 >= defaults.passages << 10, "{size}");
            let graphs = defaults.passages * 545;
            assert!(graphs + (300 << 20).min(defaults.memory.0 / 2) <= defaults.memory.0, "{size}");
        }
        for pair in NodeSize::ALL.windows(2) {
            let (less, more) = (pair[0].defaults(), pair[1].defaults());
            assert!(less.memory < more.memory && less.storage < more.storage && less.cpu <= more.cpu, "{pair:?}");
        }
    }

    #[test]
    fn quantities_are_exact() {
        for (bytes, text) in [(1 << 30, "1Gi"), (3 << 29, "1536Mi"), (1_000, "1000"), (0, "0"), (4 << 40, "4Ti")] {
            assert_eq!(quantity(ByteSize(bytes)), text);
        }
        for (text, milli, shown) in
            [("500m", 500, "500m"), ("0.5", 500, "500m"), ("2", 2_000, "2"), ("1.25", 1_250, "1250m")]
        {
            assert_eq!(text.parse(), Ok(Cpu(milli)));
            assert_eq!(Cpu(milli).to_string(), shown);
        }
        for text in ["", "0", "-1", "m", "1.", "1.2345", "99999999999", "two", "1e3"] {
            assert!(text.parse::<Cpu>().is_err(), "{text}");
        }
    }
}
