//! A bucket of an S3-compatible service.
//!
//! Invariants: every request and every pause within an answer has a deadline; refusals for overload, lost connections and
//! time-outs are repeated with growing pauses. An object is visible when it is whole: large files go up in parts that the
//! service puts together at the end, and the parts of a failed upload are given up.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::future::Future as _;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body::{Body, Frame};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::repository::Stored;
use crate::base::{Fault, UnixMillis};

/// Until the head of an answer, besides the time that the request's own bytes may take, …
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// … at this many bytes a second.
const UPLOAD_RATE_MIN: u64 = 64 << 10;
/// Between two pieces of an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Files up to here go up in one request, larger ones in parts of this size. At least 5 MiB, the service's own minimum.
const PART_BYTES: usize = 8 << 20;
/// Times that a whole file is tried, besides the repetitions of each request.
const ATTEMPTS: u32 = 3;

/// Which bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name.
    pub bucket: String,
    /// What names in it begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// Address of the service; `None` for Amazon's.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// A file with the access key's id on its first line and the secret on its second; `None` for the environment's
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    pub access_key_file: Option<PathBuf>,
}

/// Why a bucket did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No such object.
    #[error("there is no such object")]
    NotFound,
    /// The service refused or did not answer.
    #[error("the service failed")]
    Service {
        /// What happened.
        source: object_store::Error,
    },
    /// A local file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to sign requests with.
    #[error(
        "there is no access key: expected snapshot.s3_access_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    )]
    NoAccessKey,
    /// The access key's file holds something else.
    #[error("{path} is no access key: expected the id on the first line and the secret on the second")]
    AccessKey {
        /// Which file.
        path: PathBuf,
    },
    /// The object is larger than anything of ours.
    #[error("the object has {found} bytes, expected at most {most}")]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        most: u64,
    },
}

impl BucketError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound | Self::TooLarge { .. } => Fault::Damage,
            Self::Service { .. } | Self::File { .. } => Fault::Environment,
            Self::NoAccessKey | Self::AccessKey { .. } => Fault::Caller,
        }
    }
}

impl From<object_store::Error> for BucketError {
    fn from(source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound,
            source => Self::Service { source },
        }
    }
}

/// An open bucket. Calls block until the runtime has carried them out.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    runtime: Handle,
}

impl Bucket {
    pub(super) fn open(config: &BucketConfig, runtime: Handle) -> Result<Self, BucketError> {
        let (id, secret) = access_key(config)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            // Some compatible services know neither tags nor virtual hosts.
            .with_disable_tagging(true)
            .with_virtual_hosted_style_request(config.endpoint.is_none())
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(200),
                    max_backoff: Duration::from_secs(15),
                    base: 2.0,
                },
                max_retries: 8,
                retry_timeout: Duration::from_secs(180),
            })
            .with_http_connector(Connector);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        Ok(Self { store: Arc::new(builder.build()?), prefix: config.prefix.clone(), runtime })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) })
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<Stored>, BucketError> {
        let path = self.path(folder);
        let listed = self.runtime.block_on(self.store.list(Some(&path)).try_collect::<Vec<_>>());
        let listed = match listed.map_err(BucketError::from) {
            Err(BucketError::NotFound) => Vec::new(),
            listed => listed?,
        };
        let stored = listed.into_iter().filter_map(|object| {
            let since = UnixMillis(object.last_modified.timestamp_millis());
            Some(Stored { name: object.location.filename()?.to_owned(), bytes: object.size, since })
        });
        Ok(stored.collect())
    }

    pub(super) fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, BucketError> {
        let path = self.path(name);
        self.runtime.block_on(async {
            let found = self.store.get(&path).await?;
            if found.meta.size > most {
                return Err(BucketError::TooLarge { found: found.meta.size, most });
            }
            Ok(found.bytes().await?.to_vec())
        })
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let path = self.path(name);
        Ok(self.runtime.block_on(self.store.put(&path, PutPayload::from(bytes))).map(drop)?)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), BucketError> {
        let path = self.path(name);
        match self.runtime.block_on(self.store.delete(&path)).map_err(BucketError::from) {
            Err(BucketError::NotFound) => Ok(()),
            result => result,
        }
    }

    /// Uploads a file. Memory: one part.
    pub(super) fn upload(&self, name: &str, from: &FilePath) -> Result<(), BucketError> {
        let path = self.path(name);
        self.runtime.block_on(repeated(async || self.try_upload(&path, from).await))
    }

    async fn try_upload(&self, path: &Path, from: &FilePath) -> Result<(), BucketError> {
        let failed = |source| BucketError::File { path: from.to_owned(), source };
        let mut file = File::open(from).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        // Local reads of a part are short beside its way over the network.
        let mut part = || -> Result<Bytes, BucketError> {
            let mut part = Vec::new();
            (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).map_err(failed)?;
            Ok(part.into())
        };
        if length <= PART_BYTES as u64 {
            self.store.put(path, PutPayload::from(part()?)).await?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(path).await?;
        let mut sent = async || -> Result<(), BucketError> {
            loop {
                let bytes = part()?;
                if bytes.is_empty() {
                    return Ok(());
                }
                upload.put_part(PutPayload::from(bytes)).await?;
            }
        };
        let sent = sent().await;
        let done = match sent {
            Ok(()) => upload.complete().await.map(drop).map_err(BucketError::from),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // The service forgets what is left of it by its own rules.
            let _ = upload.abort().await;
        }
        done
    }

    /// Downloads an object into a file, which is replaced. Not synced.
    pub(super) fn download(&self, name: &str, to: &FilePath) -> Result<(), BucketError> {
        let path = self.path(name);
        self.runtime.block_on(repeated(async || {
            let failed = |source| BucketError::File { path: to.to_owned(), source };
            let found = self.store.get(&path).await?;
            let _ = fs::remove_file(to);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.next().await {
                file.write_all(&piece?).map_err(failed)?;
            }
            Ok(())
        }))
    }
}

async fn repeated(work: impl AsyncFn() -> Result<(), BucketError>) -> Result<(), BucketError> {
    let mut attempt = 1;
    loop {
        match work().await {
            Err(BucketError::Service { source }) if attempt < ATTEMPTS && is_passing(&source) => {
                tracing::warn!(error = %source, attempt, "the bucket failed; trying again");
                sleep(Duration::from_secs(1 << attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn is_passing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. })
}

fn access_key(config: &BucketConfig) -> Result<(String, String), BucketError> {
    let Some(path) = &config.access_key_file else {
        let named = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        return named("AWS_ACCESS_KEY_ID").zip(named("AWS_SECRET_ACCESS_KEY")).ok_or(BucketError::NoAccessKey);
    };
    let text = fs::read_to_string(path).map_err(|source| BucketError::File { path: path.clone(), source })?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) => Ok((id.to_owned(), secret.to_owned())),
        _ => Err(BucketError::AccessKey { path: path.clone() }),
    }
}

/// Makes HTTP clients for object_store: hyper with rustls and ring, as everywhere in Cairn.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new();
        // The machine's certificates know the operator's own authority; a bare container has none.
        let https = match builder.with_native_roots() {
            Ok(builder) => builder.https_or_http().enable_http1().wrap_connector(tcp),
            Err(_) => {
                HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp)
            }
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(https);
        Ok(HttpClient::new(Service { client }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let upload = Duration::from_secs(request.body().content_length() as u64 / UPLOAD_RATE_MIN);
        let answered = timeout(ANSWER_TIMEOUT + upload, self.client.request(request)).await;
        let answer = answered.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, error)
        })?;
        Ok(answer.map(|body| HttpResponseBody::new(Watched { body, pause: Box::pin(sleep(STALL_TIMEOUT)) })))
    }
}

/// A body that fails when nothing comes for too long.
struct Watched<B> {
    body: B,
    pause: Pin<Box<Sleep>>,
}

impl<B> Body for Watched<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.pause.as_mut().reset(Instant::now() + STALL_TIMEOUT);
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))),
            );
        }
        match self.pause.as_mut().poll(context) {
            Poll::Ready(()) => {
                let stalled = io::Error::new(io::ErrorKind::TimedOut, "the answer stopped coming");
                Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, stalled))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
