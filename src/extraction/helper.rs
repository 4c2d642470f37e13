//! The child: reads one source after another, until its parent closes the socket.

use std::io::{self, BufRead as _, BufReader, Read, Stdin, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use super::wire::{self, END, End, FRAME_BYTES, HELLO, Hello, ITEMS, Order, REFUSED, Refused};
use super::{Usage, allocator, read, sandbox};

/// The verb that makes the program such a child. Its argument is the memory limit of a document, in bytes.
pub const VERB: &str = "parse-helper";

/// Longest order: names and ids are a few hundred bytes, titles may be longer.
const ORDER_BYTES_MAX: u32 = 80 << 20;
/// Size of one read, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads documents for its parent process, from standard input, until that closes.
///
/// * `arguments`: those after [`VERB`].
#[must_use]
pub fn serve(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let memory = arguments.next().and_then(|bytes| bytes.parse().ok());
    let input = io::stdin();
    let (Some(memory), Ok(_)) = (memory, rustix::net::sockopt::socket_type(&input)) else {
        eprintln!("cairn: {VERB} is what a node starts to read documents in; it is of no use otherwise");
        return ExitCode::from(2);
    };
    let protections = sandbox::confine(memory);
    // Nobody reads its messages: the parent sees its exit status.
    std::panic::set_hook(Box::new(|_| ()));
    match answer_all(Socket(&input), protections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Standard input, which is a socket: the only descriptor.
#[derive(Clone, Copy)]
struct Socket<'a>(&'a Stdin);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0.as_fd(), into)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0.as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer_all(socket: Socket<'_>, protections: sandbox::Protections) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut input = BufReader::with_capacity(BUFFER_BYTES, socket);
    let mut output = socket;
    output.write_all(&wire::frame(HELLO, &Hello { version, protections }))?;
    while !input.fill_buf()?.is_empty() {
        answer(&mut input, &mut output)?;
    }
    Ok(())
}

/// Reads one order with its source, and answers it.
fn answer(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > ORDER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut order = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut order)?;
    let order: Order = postcard::from_bytes(&order).map_err(io::Error::other)?;
    // From here on all memory and time counts towards this document.
    allocator::set_limit(order.memory_bytes);
    sandbox::arm(order.time);
    let before = sandbox::processor_time();
    let length = usize::try_from(order.length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    answer_with(&order, bytes, output, || Usage {
        cpu_us: microseconds(sandbox::processor_time().saturating_sub(before)),
        memory_bytes: allocator::peak(),
    })
}

/// Reads a source and writes the frames of the answer.
///
/// * `usage`: called at the end.
pub(super) fn answer_with(
    order: &Order,
    bytes: Vec<u8>,
    output: &mut impl Write,
    usage: impl FnOnce() -> Usage,
) -> io::Result<()> {
    let mut frame = wire::start_message(ITEMS);
    let mut written = Ok(());
    let read = read::read(order, bytes, |item| {
        wire::append(&mut frame, item);
        if frame.len() >= FRAME_BYTES && written.is_ok() {
            wire::finish(&mut frame);
            written = output.write_all(&frame);
            frame = wire::start_message(ITEMS);
        }
    });
    written?;
    wire::finish(&mut frame);
    let last = match read {
        Ok(warnings) => wire::frame(END, &End { warnings, usage: usage() }),
        Err(error) => wire::frame(REFUSED, &Refused { reason: error.to_string(), usage: usage() }),
    };
    frame.extend(last);
    output.write_all(&frame)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
