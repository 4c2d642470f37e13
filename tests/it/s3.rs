//! A bucket under test: a real S3 server on a folder, behind a line that breaks.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A server with one bucket, `backup`.
pub struct Bucket {
    directory: TempDir,
    line: Arc<Line>,
    /// Its address.
    pub url: String,
    // Ends the server when dropped.
    _runtime: Runtime,
}

/// What goes wrong on the way.
struct Line {
    breaks: AtomicBool,
    requests: AtomicUsize,
    refused: AtomicUsize,
    lost: AtomicUsize,
    cut: AtomicUsize,
    stalled: AtomicUsize,
}

/// How many requests met what.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    pub refused: usize,
    pub lost: usize,
    pub cut: usize,
    pub stalled: usize,
}

impl Bucket {
    /// Starts the server; the line holds until [`Self::break_line`].
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(directory.path().join("backup")).expect("the bucket");
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).expect("a folder"));
        builder.set_auth(SimpleAuth::from_single("id", "secret"));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("made");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let line = Arc::new(Line {
            breaks: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&line);
        let handle = runtime.handle().clone();
        runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (service, line) = (service.clone(), Arc::clone(&shared));
                handle.spawn(async move {
                    let answer = hyper::service::service_fn(move |request| {
                        let (service, line) = (service.clone(), Arc::clone(&line));
                        async move { line.carry(&service, request).await }
                    });
                    // Lost connections are what this is for.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { directory, line, url, _runtime: runtime }
    }

    /// From now on requests are refused, lost on either way, cut in the middle of the answer, and once not answered at all.
    pub fn break_line(&self) {
        self.line.breaks.store(true, Ordering::SeqCst);
    }

    /// What has gone wrong so far.
    pub fn met(&self) -> Met {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        let Line { refused, lost, cut, stalled, .. } = &*self.line;
        Met { refused: count(refused), lost: count(lost), cut: count(cut), stalled: count(stalled) }
    }

    /// The folder of the bucket.
    pub fn folder(&self) -> PathBuf {
        self.directory.path().join("backup")
    }

    /// Settings of a node that ships to it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CAIRN_SNAPSHOT_TARGET", "s3://backup/site/one".to_owned()),
            ("CAIRN_SNAPSHOT_S3_ENDPOINT", self.url.clone()),
            ("AWS_ACCESS_KEY_ID", "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }
}

impl Line {
    async fn carry(&self, service: &S3Service, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let is_get = request.method() == hyper::Method::GET;
        if !self.breaks.load(Ordering::SeqCst) {
            return forward(service, request).await;
        }
        let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
        match number % 9 {
            1 => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                let mut busy = Response::new(http_body_util::Empty::new().map_err(never).boxed_unsync());
                *busy.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok(busy)
            }
            // On its way there …
            3 => {
                self.lost.fetch_add(1, Ordering::SeqCst);
                Err(gone())
            }
            // … and on the way back, when it is done.
            5 => {
                self.lost.fetch_add(1, Ordering::SeqCst);
                forward(service, request).await?;
                Err(gone())
            }
            7 if is_get => {
                self.cut.fetch_add(1, Ordering::SeqCst);
                let (head, body) = forward(service, request).await?.into_parts();
                let whole = body.collect().await?.to_bytes();
                let half = whole.slice(..whole.len() / 2);
                let pieces = [Ok(Frame::data(half)), Err(gone())];
                let mut answer = Response::from_parts(
                    head,
                    http_body_util::StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync(),
                );
                let length = hyper::header::HeaderValue::from(whole.len());
                answer.headers_mut().insert(hyper::header::CONTENT_LENGTH, length);
                Ok(answer)
            }
            8 if self.stalled.fetch_max(1, Ordering::SeqCst) == 0 => {
                // Longer than any test: the client has to give up by itself.
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                Err(gone())
            }
            _ => forward(service, request).await,
        }
    }
}

async fn forward(service: &S3Service, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let answer =
        service.call(request.map(s3s::Body::from)).await.map_err(|error| io::Error::other(format!("{error:?}")))?;
    Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}

fn never(error: Infallible) -> io::Error {
    match error {}
}

/// Names of the objects below a folder of the bucket, in order.
pub fn objects(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
