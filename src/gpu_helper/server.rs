//! Answers the node's requests, one after another.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use half::f16;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use crate::device::{self, DeviceError, Gpu};
use crate::kernels::Kernels;
use crate::matrix::{DeviceMatrix, Layout};
use crate::protocol::{self, AdapterKind, Failure, ProtocolError, Request, Response};
use crate::sandbox;
use crate::search::{self, SearchError, SearchRequest};

/// Bytes of a file that are read at a time.
const READ_BYTES: usize = 8 << 20;

/// The socket to the node.
struct Socket<'a> {
    socket: BorrowedFd<'a>,
    /// Descriptors that were received with the data.
    files: VecDeque<OwnedFd>,
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = rustix::net::recvmsg(self.socket, &mut into, &mut with, RecvFlags::CMSG_CLOEXEC)?;
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("more descriptors came than one"));
        }
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        Ok(received.bytes)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.socket, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The device and its matrices.
#[derive(Default)]
struct State {
    gpu: Option<(Gpu, Kernels)>,
    matrices: HashMap<u32, (File, DeviceMatrix)>,
    /// Why this process is not restricted. It then opens no driver.
    unrestricted: Option<io::Error>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("{0}")]
    Bad(&'static str),
    #[error("the vectors' file cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(
        "the GPU helper opens no driver, because it cannot restrict its own system calls: {0}. Kernels without seccomp and emulators of \
         other processors refuse that"
    )]
    Unrestricted(String),
}

impl RequestError {
    fn failure(&self) -> Failure {
        match self {
            Self::Device(error) | Self::Search(SearchError::Device(error)) => match error {
                DeviceError::NoAdapter(_) | DeviceError::Open(_) => Failure::NoDevice,
                DeviceError::OutOfMemory(_) => Failure::OutOfMemory,
                DeviceError::Refused(_) | DeviceError::Lost(_) | DeviceError::Hangs(_) => Failure::Lost,
                DeviceError::TooMany { .. } => Failure::BadRequest,
            },
            Self::Unrestricted(_) => Failure::NoDevice,
            Self::Search(SearchError::Filters { .. }) | Self::Bad(_) | Self::Read(_) => Failure::BadRequest,
        }
    }
}

/// Answers until the node closes its end.
///
/// * `restricted`: what became of this process's first restrictions. Without them every request fails with the reason.
///
/// # Errors
/// When the input violates the protocol.
pub fn serve(socket: BorrowedFd<'_>, restricted: io::Result<()>) -> Result<(), ProtocolError> {
    let mut socket = Socket { socket, files: VecDeque::new() };
    let mut state = State { unrestricted: restricted.err(), ..State::default() };
    loop {
        let (number, request) = match protocol::receive::<Request>(&mut socket) {
            Ok(received) => received,
            Err(ProtocolError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let file = socket.files.pop_front();
        socket.files.clear();
        let response = state
            .answer(request, file)
            .unwrap_or_else(|error| Response::Failed { failure: error.failure(), message: error.to_string() });
        socket.write_all(&protocol::to_bytes(number, &response))?;
    }
}

impl State {
    fn answer(&mut self, request: Request, file: Option<OwnedFd>) -> Result<Response, RequestError> {
        if let Some(error) = &self.unrestricted {
            return Err(RequestError::Unrestricted(error.to_string()));
        }
        match request {
            Request::List => {
                let adapters = device::adapters().iter().map(device::describe).collect();
                Ok(Response::Adapters { adapters })
            }
            Request::Open { software } => self.open(software),
            Request::Load { matrix, format, metric, dimensions, rows } => {
                let (gpu, _) = self.gpu.as_ref().ok_or(RequestError::Bad("no device is open"))?;
                let file = File::from(file.ok_or(RequestError::Bad("no descriptor came with it"))?);
                self.matrices.remove(&matrix);
                let mut on_device = DeviceMatrix::new(gpu, Layout { format, metric, dimensions });
                append_rows(gpu, &file, &mut on_device, rows)?;
                let bytes = on_device.bytes();
                self.matrices.insert(matrix, (file, on_device));
                Ok(Response::Done { bytes })
            }
            Request::Append { matrix, rows } => {
                let (gpu, _) = self.gpu.as_ref().ok_or(RequestError::Bad("no device is open"))?;
                let (file, on_device) = self.matrices.get_mut(&matrix).ok_or(RequestError::Bad("no such matrix"))?;
                append_rows(gpu, file, on_device, rows)?;
                Ok(Response::Done { bytes: on_device.bytes() })
            }
            Request::Remove { matrix, ranges } => {
                let (_, on_device) = self.matrices.get_mut(&matrix).ok_or(RequestError::Bad("no such matrix"))?;
                ranges.iter().for_each(|[start, end]| on_device.remove(*start..*end));
                Ok(Response::Done { bytes: on_device.bytes() })
            }
            Request::Search { matrix, limit, queries, dimensions, filters, filter_of } => {
                let (gpu, kernels) = self.gpu.as_mut().ok_or(RequestError::Bad("no device is open"))?;
                let (_, on_device) = self.matrices.get_mut(&matrix).ok_or(RequestError::Bad("no such matrix"))?;
                if dimensions != on_device.layout.dimensions {
                    return Err(RequestError::Bad("the queries have other dimensions than the matrix"));
                }
                let start = Instant::now();
                let numbers: Vec<f16> = queries.into_iter().map(f16::from_bits).collect();
                let queries: Vec<&[f16]> = numbers.chunks_exact(dimensions as usize).collect();
                let filter_of: Vec<Option<usize>> =
                    filter_of.into_iter().map(|filter| (filter as usize).checked_sub(1)).collect();
                let question = SearchRequest { queries: &queries, limit, filters: &filters, filter_of: &filter_of };
                let found = search::search(gpu, kernels, on_device, &question)?;
                Ok(Response::Found {
                    results: found.results,
                    micros: start.elapsed().as_micros().try_into().unwrap_or(u32::MAX),
                    device_nanos: found.on_device.map_or(0, |took| took.as_nanos().try_into().unwrap_or(u64::MAX)),
                    passes: found.passes,
                })
            }
            Request::Drop { matrix } => {
                self.matrices.remove(&matrix);
                Ok(Response::Done { bytes: 0 })
            }
            Request::Ping => Ok(Response::Done { bytes: 0 }),
        }
    }

    fn open(&mut self, software: bool) -> Result<Response, RequestError> {
        let adapters = device::adapters();
        let adapter = adapters.first().ok_or_else(|| DeviceError::NoAdapter("Vulkan finds no GPU here".to_owned()))?;
        let told = device::describe(adapter);
        if told.kind == AdapterKind::Software && !software {
            let name = told.name;
            return Err(DeviceError::NoAdapter(format!(
                "Vulkan finds no GPU here but a rasteriser on the CPU ({name}), which is slower than the node's own scan"
            ))
            .into());
        }
        let gpu = Gpu::open(adapter)?;
        let kernels = Kernels::new(&gpu)?;
        sandbox::close().map_err(|error| RequestError::Unrestricted(error.to_string()))?;
        self.gpu = Some((gpu, kernels));
        Ok(Response::Opened { adapter: told })
    }
}

/// Appends the rows of `file` from the end of the matrix up to `rows`.
fn append_rows(gpu: &Gpu, file: &File, matrix: &mut DeviceMatrix, rows: u32) -> Result<(), RequestError> {
    let row_bytes = matrix.layout.dimensions as usize * 2;
    let batch = (READ_BYTES / row_bytes).max(1);
    let mut bytes = Vec::new();
    while matrix.rows() < rows {
        let count = batch.min((rows - matrix.rows()) as usize);
        bytes.resize(count * row_bytes, 0u8);
        file.read_exact_at(&mut bytes, u64::from(matrix.rows()) * row_bytes as u64)?;
        let vectors: Vec<f16> = bytes.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]])).collect();
        matrix.append(gpu, &vectors)?;
    }
    Ok(())
}

/// Serves on standard input, which is one end of a socket pair created by the node.
///
/// # Errors
/// See [`serve`].
pub fn serve_stdin(restricted: io::Result<()>) -> Result<(), ProtocolError> {
    serve(io::stdin().as_fd(), restricted)
}
