//! The protocol between the node and its GPU helper: messages over a stream socket, all numbers little-endian.
//!
//! ```text
//! header   magic "CGPU", version u16, kind u16, request u64, length u32
//! payload  `length` bytes, by kind
//! ```
//!
//! The node sends requests, the helper answers each once and in order, with the request's number. A file descriptor is
//! sent with [`Request::Load`]. Both sides check everything that they read: a length that does not fit, a count beyond
//! its bound or an extra word is a [`ProtocolError`], after which the connection is unusable.
//!
//! This file is part of both programs.

use std::io::{self, Read};

/// Incremented when a message changes its meaning. The helper is part of the node's file, so the versions differ only
/// if another file was put in its place.
pub const VERSION: u16 = 2;
const MAGIC: [u8; 4] = *b"CGPU";
/// Bytes of a header.
pub const HEADER_BYTES: usize = 20;
/// Largest payload: fifty filters over ten million rows.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Maximum queries of a request.
pub const QUERIES_MAX: usize = 256;
/// Maximum rows for a query.
pub const LIMIT_MAX: u32 = 1_000;
/// Maximum numbers of a vector.
pub const DIMENSIONS_MAX: u32 = 4_096;

/// Why a message is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The connection was closed.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// It is not a message.
    #[error("received something that is not a message of the helper's protocol")]
    Magic,
    /// It is from another release.
    #[error("the helper's protocol has version {found}, expected {VERSION}")]
    Version {
        /// Its version.
        found: u16,
    },
    /// Its content is invalid.
    #[error("a message of kind {kind} is invalid: {what}")]
    Malformed {
        /// Its kind.
        kind: u16,
        /// The problem.
        what: &'static str,
    },
}

/// The number format on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Four bytes.
    F32,
    /// Two.
    F16,
    /// One, with a scale for all: found rows must be rescored.
    I8,
}

/// The score by which rows are ordered; the nearer a row, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Inner product.
    Dot,
    /// Inner product divided by the row's length.
    Cosine,
    /// Squared distance, negated.
    L2,
}

/// The kind of device of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// With dedicated memory.
    Discrete,
    /// That of a virtual machine.
    Virtual,
    /// It shares the memory of the CPU.
    Integrated,
    /// Not reported by the driver.
    Other,
    /// A rasteriser that runs on the CPU.
    Software,
}

/// An available device.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Its name, for people.
    pub name: String,
    /// Its driver with the version, for people.
    pub driver: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// Maximum bytes of one buffer, and of one shader binding.
    pub buffer_bytes_max: u64,
    /// Bytes of shared memory of a workgroup.
    pub workgroup_bytes_max: u32,
    /// Whether shaders can compute with halves.
    pub has_f16: bool,
    /// Whether workgroups have subgroups.
    pub has_subgroups: bool,
}

/// A request of the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Lists the available devices, best first.
    List,
    /// Opens the best device.
    Open {
        /// Whether a rasteriser on the CPU is acceptable: for tests.
        software: bool,
    },
    /// Loads the first rows of a file of f16 vectors, whose descriptor is attached. A matrix with the same number is
    /// dropped.
    Load {
        /// The node's number of the matrix.
        matrix: u32,
        format: Format,
        metric: Metric,
        dimensions: u32,
        rows: u32,
    },
    /// Loads further rows of the file, up to `rows`.
    Append { matrix: u32, rows: u32 },
    /// Removes rows from all later searches: start and one past the end.
    Remove { matrix: u32, ranges: Vec<[u32; 2]> },
    /// The nearest rows of each query.
    Search {
        matrix: u32,
        /// Rows for each query, 1 to [`LIMIT_MAX`].
        limit: u32,
        /// All queries one after another, as bits of f16.
        queries: Vec<u16>,
        dimensions: u32,
        /// Bits of the rows that may be found, 32 in each word, as many words for each filter as the matrix has room
        /// for rows.
        filters: Vec<Vec<u32>>,
        /// For each query its filter from 1, or 0.
        filter_of: Vec<u32>,
    },
    /// Releases a matrix's memory.
    Drop { matrix: u32 },
    /// A health check.
    Ping,
}

/// A response of the helper.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// The available devices.
    Adapters { adapters: Vec<Adapter> },
    /// The device is open.
    Opened { adapter: Adapter },
    /// Done; the matrix uses this much device memory, in bytes.
    Done { bytes: u64 },
    /// The results: for each query rows with their scores, best first.
    Found {
        results: Vec<Vec<(u32, f32)>>,
        /// Microseconds from the first command to the last byte read back.
        micros: u32,
        /// Nanoseconds of device time in it; 0 if not reported.
        device_nanos: u64,
        /// How many times the matrix was read.
        passes: u32,
    },
    /// The request failed.
    Failed { failure: Failure, message: String },
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No device is available.
    NoDevice,
    /// It is out of memory: a smaller matrix may still fit.
    OutOfMemory,
    /// The device is no longer usable.
    Lost,
    /// The request is invalid.
    BadRequest,
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn words(&mut self, words: &[u32]) -> &mut Self {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

struct Reader<'a> {
    kind: u16,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> ProtocolError {
        ProtocolError::Malformed { kind: self.kind, what }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(|| self.malformed("it ends too soon"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    /// A count of items of `bytes` each: at most what the remaining bytes can hold.
    fn count(&mut self, bytes: usize, most: usize) -> Result<usize, ProtocolError> {
        let count = self.u32()? as usize;
        if count > most || count.saturating_mul(bytes) > self.rest.len() {
            return Err(self.malformed("a count is beyond its bound"));
        }
        Ok(count)
    }

    fn words(&mut self, count: usize) -> Result<Vec<u32>, ProtocolError> {
        let bytes = self.take(count.checked_mul(4).ok_or_else(|| self.malformed("a count is beyond its bound"))?)?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
    }

    fn text(&mut self) -> Result<String, ProtocolError> {
        let length = self.count(1, 1 << 16)?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> Result<T, ProtocolError> {
        let chosen = usize::from(self.u8()?);
        choices.get(chosen).copied().ok_or_else(|| self.malformed("a choice that there is not"))
    }

    fn end(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("it has bytes too many")) }
    }
}

const FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::I8];
const METRICS: [Metric; 3] = [Metric::Dot, Metric::Cosine, Metric::L2];
const FAILURES: [Failure; 4] = [Failure::NoDevice, Failure::OutOfMemory, Failure::Lost, Failure::BadRequest];

const KINDS: [AdapterKind; 5] =
    [AdapterKind::Discrete, AdapterKind::Virtual, AdapterKind::Integrated, AdapterKind::Other, AdapterKind::Software];

impl Adapter {
    fn write(&self, to: &mut Writer) {
        to.text(&self.name).text(&self.driver).u8(self.kind as u8).u64(self.buffer_bytes_max);
        to.u32(self.workgroup_bytes_max).u8(u8::from(self.has_f16)).u8(u8::from(self.has_subgroups));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            name: from.text()?,
            driver: from.text()?,
            kind: from.one_of(&KINDS)?,
            buffer_bytes_max: from.u64()?,
            workgroup_bytes_max: from.u32()?,
            has_f16: from.one_of(&[false, true])?,
            has_subgroups: from.one_of(&[false, true])?,
        })
    }
}

/// A message on the wire.
pub trait Message: Sized {
    /// Its kind and payload.
    fn encode(&self) -> (u16, Vec<u8>);

    /// The message of that kind and payload.
    ///
    /// # Errors
    /// When it is invalid.
    fn decode(kind: u16, payload: &[u8]) -> Result<Self, ProtocolError>;
}

impl Message for Request {
    fn encode(&self) -> (u16, Vec<u8>) {
        let mut to = Writer(Vec::new());
        let kind = match self {
            Self::Open { software } => {
                to.u8(u8::from(*software));
                1
            }
            Self::Load { matrix, format, metric, dimensions, rows } => {
                to.u32(*matrix).u8(*format as u8).u8(*metric as u8).u32(*dimensions).u32(*rows);
                2
            }
            Self::Append { matrix, rows } => {
                to.u32(*matrix).u32(*rows);
                3
            }
            Self::Remove { matrix, ranges } => {
                to.u32(*matrix).u32(ranges.len() as u32);
                to.words(ranges.as_flattened());
                4
            }
            Self::Search { matrix, limit, queries, dimensions, filters, filter_of } => {
                to.u32(*matrix).u32(*limit).u32(*dimensions).u32(filter_of.len() as u32);
                to.words(filter_of);
                queries.iter().for_each(|number| to.0.extend_from_slice(&number.to_le_bytes()));
                to.u32(filters.len() as u32);
                for filter in filters {
                    to.u32(filter.len() as u32).words(filter);
                }
                5
            }
            Self::Drop { matrix } => {
                to.u32(*matrix);
                6
            }
            Self::Ping => 7,
            Self::List => 8,
        };
        (kind, to.0)
    }

    fn decode(kind: u16, payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader { kind, rest: payload };
        let request = match kind {
            1 => Self::Open { software: from.one_of(&[false, true])? },
            2 => {
                let (matrix, format, metric) = (from.u32()?, from.one_of(&FORMATS)?, from.one_of(&METRICS)?);
                let (dimensions, rows) = (from.u32()?, from.u32()?);
                if dimensions == 0 || dimensions > DIMENSIONS_MAX {
                    return Err(from.malformed("its dimensions are out of range"));
                }
                Self::Load { matrix, format, metric, dimensions, rows }
            }
            3 => Self::Append { matrix: from.u32()?, rows: from.u32()? },
            4 => {
                let matrix = from.u32()?;
                let count = from.count(8, PAYLOAD_BYTES_MAX)?;
                let words = from.words(count * 2)?;
                Self::Remove { matrix, ranges: words.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect() }
            }
            5 => {
                let (matrix, limit, dimensions) = (from.u32()?, from.u32()?, from.u32()?);
                if limit == 0 || limit > LIMIT_MAX || dimensions == 0 || dimensions > DIMENSIONS_MAX {
                    return Err(from.malformed("its limit or dimensions are out of range"));
                }
                let count = from.count(4 + dimensions as usize * 2, QUERIES_MAX)?;
                let filter_of = from.words(count)?;
                let numbers = from.take(count * dimensions as usize * 2)?;
                let queries = numbers.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
                let filters = (0..from.count(4, QUERIES_MAX)?)
                    .map(|_| {
                        let words = from.count(4, PAYLOAD_BYTES_MAX)?;
                        from.words(words)
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                if filter_of.iter().any(|filter| *filter as usize > filters.len()) {
                    return Err(from.malformed("it names a filter that there is not"));
                }
                Self::Search { matrix, limit, queries, dimensions, filters, filter_of }
            }
            6 => Self::Drop { matrix: from.u32()? },
            7 => Self::Ping,
            8 => Self::List,
            _ => return Err(from.malformed("there is no such kind")),
        };
        from.end().map(|()| request)
    }
}

impl Message for Response {
    fn encode(&self) -> (u16, Vec<u8>) {
        let mut to = Writer(Vec::new());
        let kind = match self {
            Self::Opened { adapter } => {
                adapter.write(&mut to);
                101
            }
            Self::Adapters { adapters } => {
                to.u32(adapters.len() as u32);
                adapters.iter().for_each(|adapter| adapter.write(&mut to));
                105
            }
            Self::Done { bytes } => {
                to.u64(*bytes);
                102
            }
            Self::Found { results, micros, device_nanos, passes } => {
                to.u32(*micros).u64(*device_nanos).u32(*passes).u32(results.len() as u32);
                for result in results {
                    to.u32(result.len() as u32);
                    for (row, score) in result {
                        to.u32(*row).u32(score.to_bits());
                    }
                }
                103
            }
            Self::Failed { failure, message } => {
                to.u8(*failure as u8).text(message);
                104
            }
        };
        (kind, to.0)
    }

    fn decode(kind: u16, payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader { kind, rest: payload };
        let response = match kind {
            101 => Self::Opened { adapter: Adapter::read(&mut from)? },
            102 => Self::Done { bytes: from.u64()? },
            103 => {
                let (micros, device_nanos, passes) = (from.u32()?, from.u64()?, from.u32()?);
                let results = (0..from.count(4, QUERIES_MAX)?)
                    .map(|_| {
                        let count = from.count(8, LIMIT_MAX as usize)?;
                        let words = from.words(count * 2)?;
                        Ok(words.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect())
                    })
                    .collect::<Result<Vec<_>, ProtocolError>>()?;
                Self::Found { results, micros, device_nanos, passes }
            }
            105 => {
                let count = from.count(8, 256)?;
                Self::Adapters { adapters: (0..count).map(|_| Adapter::read(&mut from)).collect::<Result<_, _>>()? }
            }
            104 => Self::Failed { failure: from.one_of(&FAILURES)?, message: from.text()? },
            _ => return Err(from.malformed("there is no such kind")),
        };
        from.end().map(|()| response)
    }
}

/// A message with its header.
pub fn to_bytes(request: u64, message: &impl Message) -> Vec<u8> {
    let (kind, payload) = message.encode();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&request.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The next message, with the number of its request.
///
/// # Errors
/// When there is none, or it is invalid.
pub fn receive<M: Message>(from: &mut impl Read) -> Result<(u64, M), ProtocolError> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)?;
    let (magic, rest) = header.split_at(4);
    if magic != MAGIC {
        return Err(ProtocolError::Magic);
    }
    let number = |from: usize, bytes: usize| {
        rest[from..from + bytes].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (version, kind) = (number(0, 2) as u16, number(2, 2) as u16);
    if version != VERSION {
        return Err(ProtocolError::Version { found: version });
    }
    let length = number(12, 4) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(ProtocolError::Malformed { kind, what: "it is too long" });
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok((number(4, 8), M::decode(kind, &payload)?))
}
