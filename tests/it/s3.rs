//! A bucket under test: a real S3 server on a folder, behind a line that breaks, or that answers what is not so.

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
use parking_lot::Mutex;
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

/// What a service says that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: it is honest.
    None,
    /// A web page, whatever is asked.
    WebPage,
    /// An error, with status 200.
    ErrorPage,
    /// One name on the page of a listing, and that there is more, without a way to ask for it.
    NoToken,
    /// The same page again and again.
    Circles,
    /// An endless row of empty pages.
    EmptyPages,
    /// A listing without the newest snapshot.
    Forgets,
    /// That it stored what it threw away.
    Swallows,
    /// The first half of a segment, as if that were all.
    Halves,
    /// That there is no such bucket.
    NoBucket,
}

/// What goes wrong on the way.
struct Line {
    lie: Mutex<Lie>,
    pages: AtomicUsize,
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
            lie: Mutex::new(Lie::None),
            pages: AtomicUsize::new(0),
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

    /// From now on the service says this.
    pub fn lie(&self, lie: Lie) {
        *self.line.lie.lock() = lie;
    }

    /// Pages of listings that were made up.
    pub fn pages(&self) -> usize {
        self.line.pages.load(Ordering::SeqCst)
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
            let lie = *self.lie.lock();
            return self.tell(lie, service, request).await;
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

impl Line {
    /// Answers as the lie wants it.
    async fn tell(&self, lie: Lie, service: &S3Service, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_listing = query.contains("list-type=2");
        let is_of_snapshots = is_listing && query.contains("snapshots");
        let is_put = request.method() == hyper::Method::PUT;
        match lie {
            Lie::WebPage => Ok(page(200, "<html><body><h1>Console</h1></body></html>")),
            Lie::ErrorPage => Ok(page(200, "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>")),
            Lie::NoBucket => Ok(page(404, "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code></Error>")),
            Lie::Swallows if is_put => {
                request.into_body().collect().await.map_err(io::Error::other)?;
                Ok(page(200, ""))
            }
            Lie::Halves if request.method() == hyper::Method::GET && request.uri().path().contains("/segments/") => {
                let (mut head, body) = forward(service, request).await?.into_parts();
                let whole = body.collect().await?.to_bytes();
                let half = whole.slice(..whole.len() / 2);
                head.headers.insert(hyper::header::CONTENT_LENGTH, half.len().into());
                Ok(Response::from_parts(head, full(half)))
            }
            Lie::Forgets | Lie::NoToken if is_of_snapshots => {
                let body = forward(service, request).await?.into_body().collect().await?.to_bytes();
                let text = String::from_utf8(body.to_vec()).expect("XML");
                Ok(page(200, &shortened(&text, lie)))
            }
            Lie::Circles | Lie::EmptyPages if is_listing => {
                let number = self.pages.fetch_add(1, Ordering::SeqCst);
                let token = if lie == Lie::Circles { 0 } else { number };
                Ok(page(
                    200,
                    &format!(
                        "<ListBucketResult><IsTruncated>true</IsTruncated>\
                         <NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
                    ),
                ))
            }
            _ => forward(service, request).await,
        }
    }
}

/// A listing in ascending order with only the first object, or without the last.
fn shortened(listing: &str, lie: Lie) -> String {
    let mut objects: Vec<&str> =
        listing.split("<Contents>").skip(1).filter_map(|one| one.split("</Contents>").next()).collect();
    objects.sort_unstable_by_key(|object| object.split("<Key>").nth(1).expect("a key").to_owned());
    let (kept, is_truncated) = match lie {
        Lie::NoToken => (objects.iter().take(1).collect::<Vec<_>>(), true),
        _ => (objects.iter().take(objects.len().saturating_sub(1)).collect(), false),
    };
    let kept: String = kept.into_iter().map(|object| format!("<Contents>{object}</Contents>")).collect();
    format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{kept}</ListBucketResult>")
}

fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(never).boxed_unsync()
}

fn page(status: u16, text: &str) -> Response<Body> {
    let answer = Response::builder().status(status).header("etag", "\"1\"");
    answer.body(full(Bytes::copy_from_slice(text.as_bytes()))).expect("an answer")
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
