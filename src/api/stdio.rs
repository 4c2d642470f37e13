//! MCP on standard input and output, for clients that start their servers themselves: one message on each line.
//!
//! Invariants: every line that expects an answer gets one, even if it is too large, invalid JSON, or the last without a
//! line feed. Memory is bounded: a line by the maximum size of a request, requests in flight by their number, and
//! nothing is read while the client leaves its answers unread.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ServiceExt as _;
use rmcp::model::{GetExtensions as _, JsonRpcMessage};
use rmcp::service::{RoleServer, RxJsonRpcMessage, ServerInitializeError, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::rpc::{self, IdFinder};
use crate::base::Fault;
use crate::mcp::{Catalog, Server, values};
use crate::task;

/// Requests answered at once; more wait to be read.
const REQUESTS_MAX: u32 = 64;
/// Answers that wait for the client to read them.
const ANSWERS_WAITING: usize = 8;
/// A line's memory that is kept for the next one.
const LINE_KEPT: usize = 1 << 20;
/// How long the client may take to read the last answers.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a conversation over standard input and output did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// What came first was not MCP.
    #[error("the client did not start with an MCP initialize request")]
    Begin(#[source] Box<ServerInitializeError>),
    /// The task that answers panicked.
    #[error("the connection failed")]
    End(#[source] tokio::task::JoinError),
}

impl StdioError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Begin(_) => Fault::Caller,
            Self::End(_) => Fault::Damage,
        }
    }
}

/// Answers the client until it closes its end, and all that it asked.
///
/// * `request_bytes_max`: largest message.
///
/// # Errors
/// See [`StdioError`].
pub async fn answer_stdio(provider: Catalog, request_bytes_max: usize) -> Result<(), StdioError> {
    let input = BufReader::with_capacity(64 << 10, tokio::io::stdin());
    let pipe = Pipe::new(input, tokio::io::stdout(), request_bytes_max);
    let serving = Server::new(provider).serve(pipe).await;
    let service = serving.map_err(|error| StdioError::Begin(Box::new(error)))?;
    service.waiting().await.map_err(StdioError::End)?;
    Ok(())
}

/// Messages in lines, both ways.
struct Pipe<R> {
    input: R,
    bytes_max: usize,
    /// The line that is being read.
    line: Vec<u8>,
    /// Scans a line that is too large while it is skipped.
    oversized: Option<IdFinder>,
    has_ended: bool,
    /// A request that was read and waits for its place.
    request: Option<RxJsonRpcMessage<RoleServer>>,
    places: Arc<Semaphore>,
    /// An answer of our own that waits to be written.
    owed: Option<String>,
    answers: Option<mpsc::Sender<Vec<u8>>>,
    writing: JoinHandle<()>,
}

/// What came of reading.
enum Line {
    /// A whole line, or the last one without its end, is in [`Pipe::line`].
    Whole,
    /// It was too large; its id, where it has one.
    Oversized(Option<Value>),
    /// The client has closed its end.
    End,
}

impl<R: AsyncBufRead + Unpin + Send> Pipe<R> {
    fn new(input: R, output: impl AsyncWrite + Unpin + Send + 'static, bytes_max: usize) -> Self {
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        Self {
            input,
            bytes_max,
            line: Vec::new(),
            oversized: None,
            has_ended: false,
            request: None,
            places: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
            owed: None,
            answers: Some(answers),
            writing: task::spawn("answers", write(waiting, output)),
        }
    }

    /// Reads a line. Cancel-safe: it resumes where it was.
    async fn read_line(&mut self) -> io::Result<Line> {
        loop {
            let read = self.input.fill_buf().await?;
            if read.is_empty() {
                self.has_ended = true;
                return Ok(match self.oversized.take() {
                    Some(finder) => Line::Oversized(finder.id()),
                    None if self.line.is_empty() => Line::End,
                    None => Line::Whole,
                });
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            let (length, is_end) = (part.len() + usize::from(end.is_some()), end.is_some());
            match &mut self.oversized {
                Some(finder) => finder.scan(part),
                None if self.line.len() + part.len() > self.bytes_max => {
                    let mut finder = IdFinder::default();
                    finder.scan(&self.line);
                    finder.scan(part);
                    self.oversized = Some(finder);
                    self.line = Vec::new();
                }
                None => self.line.extend_from_slice(part),
            }
            self.input.consume(length);
            if is_end {
                return Ok(match self.oversized.take() {
                    Some(finder) => Line::Oversized(finder.id()),
                    None => Line::Whole,
                });
            }
        }
    }

    /// Parses the line as a message. `None` when there is nothing to pass on: an answer of our own may be due.
    fn take_message(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let line = self.line.trim_ascii();
        let message = if rpc::without_mark(line).is_empty() {
            None
        } else if values::are_too_many(line) {
            self.owed = (!rpc::wants_no_answer(line)).then(|| rpc::too_many_values(line).to_string());
            None
        } else {
            match serde_json::from_slice(rpc::without_mark(line)) {
                // What has an id that cannot be one passes for a notification.
                Ok(JsonRpcMessage::Notification(_)) if rpc::has_id(line) => {
                    self.owed = Some(rpc::malformed(line).to_string());
                    None
                }
                Ok(message) => Some(message),
                Err(_) => {
                    self.owed = (!rpc::wants_no_answer(line)).then(|| rpc::malformed(line).to_string());
                    None
                }
            }
        };
        if self.line.capacity() > LINE_KEPT {
            self.line = Vec::new();
        }
        self.line.clear();
        message
    }
}

impl<R: AsyncBufRead + Unpin + Send> Transport<RoleServer> for Pipe<R> {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (line, answers) = (serde_json::to_vec(&message), self.answers.clone());
        async move {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            answers.ok_or_else(gone)?.send(line?).await.map_err(|_| gone())
        }
    }

    /// The next message. It is dropped and called again at any time, so whatever it has got so far is in `self`.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            // Nothing is read while the answers are not.
            let answer = self.answers.as_ref()?.reserve().await.ok()?;
            if let Some(owed) = self.owed.take() {
                answer.send(owed.into_bytes());
                continue;
            }
            drop(answer);
            if self.request.is_some() {
                // Held until the request is answered, whatever becomes of the answer.
                let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
                let mut message = self.request.take();
                if let Some(JsonRpcMessage::Request(request)) = &mut message {
                    request.request.extensions_mut().insert(Arc::new(place));
                }
                return message;
            }
            if self.has_ended {
                // Pending requests are answered before the end.
                drop(self.places.acquire_many(REQUESTS_MAX).await);
                return None;
            }
            match self.read_line().await {
                Ok(Line::Whole) => match self.take_message() {
                    Some(message @ JsonRpcMessage::Request(_)) => self.request = Some(message),
                    Some(message) => return Some(message),
                    None => {}
                },
                Ok(Line::Oversized(id)) => self.owed = Some(rpc::too_large(id, self.bytes_max).to_string()),
                Ok(Line::End) => {}
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be read");
                    self.has_ended = true;
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.answers = None;
        if tokio::time::timeout(CLOSING, &mut self.writing).await.is_err() {
            self.writing.abort();
        }
        Ok(())
    }
}

/// Writes answers, each on a line, until there are no more or nobody reads them.
async fn write(mut answers: mpsc::Receiver<Vec<u8>>, mut output: impl AsyncWrite + Unpin) {
    while let Some(mut line) = answers.recv().await {
        line.push(b'\n');
        let written = async {
            output.write_all(&line).await?;
            output.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the client reads no answers");
            return;
        }
    }
}
