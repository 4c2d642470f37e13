//! Exact search on the GPU, by a helper program: drivers crash, hang and require a C library, and none of that must
//! affect the node.
//!
//! The helper is part of this file, compressed (`program`); it is started on demand with one end of a socket pair
//! (`process`), and communicates in messages (`protocol`). Vectors are transferred as the descriptor of their file.
//!
//! # Invariants
//! * A call returns within its deadline, whatever the helper does. After a failed call the helper is unusable: it is
//!   killed, and another one may be started.
//! * Its answers are checked: rows are in range, and lists are no longer than requested.

pub mod measure;
mod metrics;
mod process;
mod program;
#[path = "../gpu_helper/protocol.rs"]
mod protocol;
mod resident;
pub mod selftest;
pub mod service;
#[cfg(test)]
mod tests;
mod worker;

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use half::f16;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

pub use self::metrics::{FallbackLabels, Metrics};
use self::process::Helper;
pub use self::process::{HELPER_ON_DISK, StartError};
pub use self::protocol::{Adapter, AdapterKind, Failure, Format, LIMIT_MAX, Metric, ProtocolError, QUERIES_MAX};
use self::protocol::{Request, Response};

/// How long the helper may take to find adapters and open one: loading a driver for the first time is slow.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
/// Time limit of all other requests except searches.
const PATIENCE: Duration = Duration::from_secs(5);
/// Minimum rate of loading vectors, in bytes each second; a twentieth of a slow machine's.
const HANDED_OVER_PER_SECOND: u64 = 50 << 20;

/// The helper's program, for machines that forbid executing programs from memory.
///
/// # Errors
/// [`StartError::NotBuilt`] if this build has none.
pub fn helper_program() -> Result<Vec<u8>, StartError> {
    if program::is_there() { program::bytes().map_err(StartError::Exec) } else { Err(StartError::NotBuilt) }
}

/// Why the GPU failed.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The helper cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It ended, does not answer, or gives invalid answers.
    #[error("the GPU helper {what}")]
    Helper {
        /// What happened.
        what: &'static str,
        /// What was received in place of an answer.
        #[source]
        source: ProtocolError,
    },
    /// There is no memory for the vectors.
    #[error("cannot create an in-memory file")]
    Memory(#[source] io::Error),
    /// It reports a failure.
    #[error("{message}")]
    Failed {
        /// The kind of failure.
        failure: Failure,
        /// Its message.
        message: String,
    },
}

impl GpuError {
    fn unexpected(response: &Response) -> Self {
        match response {
            Response::Failed { failure, message } => Self::Failed { failure: *failure, message: message.clone() },
            _ => Self::Helper {
                what: "answers something else than it was asked",
                source: ProtocolError::Malformed { kind: 0, what: "another answer was due" },
            },
        }
    }
}

/// A row in the results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Its number, from 0.
    pub row: u32,
    /// See [`Metric`]; for [`Format::I8`] in a separate scale.
    pub score: f32,
}

/// A loaded matrix on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMatrix {
    number: u32,
    dimensions: u32,
    rows: u32,
    bytes: u64,
}

impl DeviceMatrix {
    /// Device memory of its vectors in bytes, including room for more. Searches need some in addition.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The results of a search, and its timing.
#[derive(Debug)]
pub struct Answer {
    /// For each query, best first, equal scores by row.
    pub results: Vec<Vec<Scored>>,
    /// From the first command to the last byte that was read back.
    pub took: Duration,
    /// The part of it that the device computed, if it reports that.
    pub on_device: Option<Duration>,
    /// How many times the matrix was read.
    pub passes: u32,
}

/// The helper with its device. Dropping it ends the helper.
pub struct Gpu {
    helper: Helper,
    /// Number of the last request.
    number: u64,
    matrices: u32,
}

impl Gpu {
    /// Starts the helper.
    ///
    /// # Errors
    /// When there is none, or it cannot be started.
    pub fn start() -> Result<Self, GpuError> {
        Ok(Self { helper: process::start()?, number: 0, matrices: 0 })
    }

    /// The available adapters, best first; software rasterisers last.
    ///
    /// # Errors
    /// When the helper fails.
    pub fn adapters(&mut self) -> Result<Vec<Adapter>, GpuError> {
        match self.call(&Request::List, None, OPEN_PATIENCE)? {
            Response::Adapters { adapters } => Ok(adapters),
            other => Err(GpuError::unexpected(&other)),
        }
    }

    /// Opens the best adapter.
    ///
    /// * `software`: a rasteriser on the CPU is acceptable. It is slower than the node's own scan, and only for tests.
    ///
    /// # Errors
    /// When there is none, or its device cannot be opened.
    pub fn open(&mut self, software: bool) -> Result<Adapter, GpuError> {
        match self.call(&Request::Open { software }, None, OPEN_PATIENCE)? {
            Response::Opened { adapter } => Ok(adapter),
            other => Err(GpuError::unexpected(&other)),
        }
    }

    /// Loads the first `rows` of a file of f16 vectors.
    ///
    /// # Errors
    /// When the device has no memory for them, or fails.
    pub fn load(
        &mut self,
        file: BorrowedFd<'_>,
        (format, metric): (Format, Metric),
        dimensions: u32,
        rows: u32,
    ) -> Result<DeviceMatrix, GpuError> {
        self.matrices += 1;
        let matrix = self.matrices;
        let request = Request::Load { matrix, format, metric, dimensions, rows };
        let bytes = self.done(&request, Some(file), handing_over(dimensions, rows))?;
        Ok(DeviceMatrix { number: matrix, dimensions, rows, bytes })
    }

    /// Loads the file's further rows, up to `rows`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn append(&mut self, matrix: &mut DeviceMatrix, rows: u32) -> Result<(), GpuError> {
        let patience = handing_over(matrix.dimensions, rows.saturating_sub(matrix.rows));
        matrix.bytes = self.done(&Request::Append { matrix: matrix.number, rows }, None, patience)?;
        matrix.rows = rows.max(matrix.rows);
        Ok(())
    }

    /// Removes rows from all later searches: start and one past the end.
    ///
    /// # Errors
    /// When the device fails.
    pub fn remove(&mut self, matrix: &DeviceMatrix, ranges: Vec<[u32; 2]>) -> Result<(), GpuError> {
        self.done(&Request::Remove { matrix: matrix.number, ranges }, None, PATIENCE).map(drop)
    }

    /// Releases the memory of a matrix.
    ///
    /// # Errors
    /// When the device fails.
    pub fn unload(&mut self, matrix: DeviceMatrix) -> Result<(), GpuError> {
        self.done(&Request::Drop { matrix: matrix.number }, None, PATIENCE).map(drop)
    }

    /// The nearest rows of each query.
    ///
    /// * `queries`: at most [`QUERIES_MAX`], each of the matrix's dimensions.
    /// * `limit`: 1 to [`LIMIT_MAX`] rows of each.
    /// * `filters`: bits of the rows that may be found, 32 in each word; `filter_of` names the filter of each query,
    ///   from 1, or 0 for none.
    /// * `patience`: how long it may take.
    ///
    /// # Errors
    /// When the device fails or takes longer; the helper is unusable then.
    pub fn search(
        &mut self,
        matrix: &DeviceMatrix,
        queries: &[&[f16]],
        limit: u32,
        (filters, filter_of): (Vec<Vec<u32>>, Vec<u32>),
        patience: Duration,
    ) -> Result<Answer, GpuError> {
        let request = Request::Search {
            matrix: matrix.number,
            limit,
            queries: queries.iter().flat_map(|query| query.iter().map(|number| number.to_bits())).collect(),
            dimensions: matrix.dimensions,
            filters,
            filter_of,
        };
        match self.call(&request, None, patience)? {
            Response::Found { results, micros, device_nanos, passes } => {
                let fits = results.len() == queries.len()
                    && results.iter().flatten().all(|(row, _)| *row < matrix.rows)
                    && results.iter().all(|result| result.len() <= limit as usize);
                if !fits {
                    let what = "rows were found that there are not";
                    return Err(self.broken("answers nonsense", ProtocolError::Malformed { kind: 0, what }));
                }
                let scored =
                    |result: Vec<(u32, f32)>| result.into_iter().map(|(row, score)| Scored { row, score }).collect();
                Ok(Answer {
                    results: results.into_iter().map(scored).collect(),
                    took: Duration::from_micros(u64::from(micros)),
                    passes,
                    on_device: (device_nanos > 0).then(|| Duration::from_nanos(device_nanos)),
                })
            }
            other => Err(GpuError::unexpected(&other)),
        }
    }

    /// A handle to interrupt the helper, now or later, from another thread: as if it had ended.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(super) fn breaker(&self) -> io::Result<UnixStream> {
        self.helper.socket().try_clone()
    }

    /// The process id of the helper.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    fn done(&mut self, request: &Request, file: Option<BorrowedFd<'_>>, patience: Duration) -> Result<u64, GpuError> {
        match self.call(request, file, patience)? {
            Response::Done { bytes } => Ok(bytes),
            other => Err(GpuError::unexpected(&other)),
        }
    }

    fn call(
        &mut self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
        patience: Duration,
    ) -> Result<Response, GpuError> {
        self.number += 1;
        let number = self.number;
        let deadline = Instant::now() + patience;
        let bytes = protocol::to_bytes(number, request);
        let mut socket = Timed { helper: &self.helper, deadline, file };
        let received =
            socket.write_all(&bytes).map_err(ProtocolError::from).and_then(|()| protocol::receive(&mut socket));
        match received {
            Ok((of, response)) if of == number => Ok(response),
            Ok(_) => {
                Err(self
                    .broken("answers another request", ProtocolError::Malformed { kind: 0, what: "a wrong number" }))
            }
            Err(ProtocolError::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                Err(self.broken("ended", ProtocolError::Io(error)))
            }
            Err(ProtocolError::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                Err(self.broken("did not answer in time", ProtocolError::Io(error)))
            }
            Err(error) => Err(self.broken("does not speak the protocol", error)),
        }
    }

    /// Ends an unusable helper.
    fn broken(&mut self, what: &'static str, source: ProtocolError) -> GpuError {
        self.helper.kill();
        GpuError::Helper { what, source }
    }
}

/// How long loading rows may take.
fn handing_over(dimensions: u32, rows: u32) -> Duration {
    let bytes = u64::from(dimensions) * u64::from(rows) * size_of::<f16>() as u64;
    PATIENCE + Duration::from_secs(bytes / HANDED_OVER_PER_SECOND)
}

/// The socket until a deadline.
struct Timed<'a> {
    helper: &'a Helper,
    deadline: Instant,
    /// Goes with the first byte that is written.
    file: Option<BorrowedFd<'a>>,
}

impl Timed<'_> {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.helper.socket();
        socket.set_read_timeout(self.time_left()?)?;
        socket.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.helper.socket();
        socket.set_write_timeout(self.time_left()?)?;
        let Some(file) = self.file.take() else { return socket.write(bytes) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        let files = [file];
        with.push(SendAncillaryMessage::ScmRights(&files));
        Ok(rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
