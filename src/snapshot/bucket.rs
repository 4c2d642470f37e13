//! A bucket of an S3-compatible service.
//!
//! Invariants: every request and every pause within an answer has a deadline; refusals for overload, lost connections
//! and time-outs are retried with growing pauses. An object is visible only when complete: large files are uploaded in
//! parts that the service joins at the end, and the parts of a failed upload are aborted. The service's confirmation is
//! not trusted: every object is read back. Nothing counts as present or absent by a listing before [`super::listing`]
//! has checked the page. No answer is held in memory beyond a limit.

mod transport;

use std::collections::HashSet;
use std::env;
use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStoreExt as _, PutPayload, RetryConfig};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::listing::{EMPTY_PAGES_MAX, ListingError, NAMES_MAX, PAGES_MAX};
use super::repository::Stored;
use crate::base::{Digest, Fault, UnixMillis, small_file};
use crate::fetch::{Client, FetchError};

pub(super) use transport::Http;

/// Files up to here go up in one request, larger ones in parts of this size. At least 5 MiB, the service's own minimum.
const PART_BYTES: usize = 8 << 20;
/// Times that a whole file is tried, and that what was stored is asked for, besides the repetitions of each request.
const ATTEMPTS: u32 = 3;
/// For a whole listing: 2 million names by a slow service.
const LISTING_TIMEOUT: Duration = Duration::from_secs(300);
/// Which bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Whether it may go better in a moment.
        is_passing: bool,
    },
    /// A local file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The settings of outgoing HTTP cannot be used.
    #[error(transparent)]
    Http(#[from] FetchError),
    /// There is nothing to sign requests with.
    #[error(
        "there is no access key: expected snapshot.s3_access_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    )]
    NoAccessKey,
    /// The access key's file holds something else.
    #[error("{path} is not an access key: expected the id on the first line and the secret on the second")]
    AccessKey {
        /// Which file.
        path: PathBuf,
    },
    /// The listing cannot be believed.
    #[error(transparent)]
    Listing {
        /// Why.
        source: ListingError,
    },
    /// A stored object is missing.
    #[error("the service said that it stored {name}, and {found}")]
    NotKept {
        /// The object.
        name: String,
        /// The received digest.
        found: String,
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
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound | Self::TooLarge { .. } => Fault::Damage,
            Self::Service { .. } | Self::File { .. } | Self::Listing { .. } | Self::NotKept { .. } => {
                Fault::Environment
            }
            Self::Http(error) => error.fault(),
            Self::NoAccessKey | Self::AccessKey { .. } => Fault::Caller,
        }
    }
}

impl From<object_store::Error> for BucketError {
    fn from(source: object_store::Error) -> Self {
        // The page is checked below the library, which passes our own error through.
        let mut cause = source.source();
        while let Some(error) = cause {
            if let Some(listing) = error.downcast_ref::<ListingError>() {
                return Self::Listing { source: listing.clone() };
            }
            cause = error.source();
        }
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound,
            // Under a title of the library's that says nothing.
            object_store::Error::Generic { source, .. } => Self::Service { source, is_passing: true },
            source => Self::Service { source: source.into(), is_passing: false },
        }
    }
}

/// An open bucket. Calls block until the runtime has carried them out.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
    runtime: Handle,
}

impl Bucket {
    pub(super) fn open(config: &BucketConfig, http: &Client, runtime: Handle) -> Result<Self, BucketError> {
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
            .with_http_connector(transport::Connector(http.clone()));
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        Ok(Self { store: builder.build()?, prefix: config.prefix.clone(), runtime })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) })
    }

    /// The objects directly below a folder.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<Stored>, BucketError> {
        let path = self.path(folder);
        self.runtime.block_on(async {
            let listing = timeout(LISTING_TIMEOUT, self.pages(&path)).await;
            let seconds = LISTING_TIMEOUT.as_secs();
            listing.map_err(|_| BucketError::Listing { source: ListingError::TooSlow { seconds } })?
        })
    }

    async fn pages(&self, folder: &Path) -> Result<Vec<Stored>, BucketError> {
        let failed = |source| BucketError::Listing { source };
        let prefix = format!("{folder}/");
        let (mut stored, mut names, mut tokens) = (Vec::new(), HashSet::new(), HashSet::new());
        let (mut page_token, mut empty_pages) = (None, 0);
        for _ in 0..PAGES_MAX {
            let options = PaginatedListOptions { page_token: page_token.take(), ..PaginatedListOptions::default() };
            let page = self.store.list_paginated(Some(&prefix), options).await?;
            let page_is_empty = page.result.objects.is_empty();
            for object in page.result.objects {
                // A folder below this one, or the mark of the folder itself that some consoles make.
                let Some(name) = object.location.as_ref().strip_prefix(&prefix).filter(|name| !name.contains('/'))
                else {
                    continue;
                };
                if !names.insert(name.to_owned()) {
                    return Err(failed(ListingError::Repeats));
                }
                let since = UnixMillis(object.last_modified.timestamp_millis());
                stored.push(Stored { name: name.to_owned(), bytes: object.size, since });
            }
            empty_pages = if page_is_empty { empty_pages + 1 } else { 0 };
            if stored.len() > NAMES_MAX || empty_pages > EMPTY_PAGES_MAX {
                break;
            }
            match page.page_token.filter(|token| !token.is_empty()) {
                None => return Ok(stored),
                Some(token) if !tokens.insert(token.clone()) => return Err(failed(ListingError::Repeats)),
                token => page_token = token,
            }
        }
        Err(failed(ListingError::Endless { pages: tokens.len(), names: stored.len() }))
    }

    pub(super) fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, BucketError> {
        let path = self.path(name);
        self.runtime.block_on(async {
            let mut bytes = Vec::new();
            self.read(&path, most, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .await?;
            Ok(bytes)
        })
    }

    /// Passes an object's bytes to `take` as they arrive, at most `most` of them.
    async fn read(
        &self,
        path: &Path,
        most: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), BucketError>,
    ) -> Result<(), BucketError> {
        let found = self.store.get(path).await?;
        let mut length = 0;
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            length += piece.len() as u64;
            if length > most {
                return Err(BucketError::TooLarge { found: length, most });
            }
            take(&piece)?;
        }
        Ok(())
    }

    /// Stores a small object and reads it back.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let (path, sent) = (self.path(name), Sent { bytes: bytes.len() as u64, digest: Digest::of(&bytes) });
        self.runtime.block_on(async {
            self.store.put(&path, PutPayload::from(bytes)).await?;
            self.read_back(&path, sent).await
        })
    }

    /// Asks for what was stored. Some services show an object, or its new content, only a moment after they took it.
    async fn read_back(&self, path: &Path, sent: Sent) -> Result<(), BucketError> {
        let mut attempt = 1;
        loop {
            let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
            let read = self.read(path, sent.bytes, |piece| {
                bytes += piece.len() as u64;
                hasher.update(piece);
                Ok(())
            });
            let found = match read.await {
                Ok(()) if bytes == sent.bytes && Digest(*hasher.finalize().as_bytes()) == sent.digest => return Ok(()),
                Ok(()) if bytes == sent.bytes => "gives back other bytes".to_owned(),
                Ok(()) => format!("gives back {bytes} bytes of {}", sent.bytes),
                Err(BucketError::TooLarge { .. }) => format!("gives back more than the {} bytes", sent.bytes),
                Err(BucketError::NotFound) => "does not have it".to_owned(),
                Err(error) => return Err(error),
            };
            if attempt == ATTEMPTS {
                return Err(BucketError::NotKept { name: path.to_string(), found });
            }
            sleep(Duration::from_millis(250 << attempt)).await;
            attempt += 1;
        }
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), BucketError> {
        let path = self.path(name);
        match self.runtime.block_on(self.store.delete(&path)).map_err(BucketError::from) {
            Err(BucketError::NotFound) => Ok(()),
            result => result,
        }
    }

    /// Uploads a file and reads it back. Memory: one part.
    pub(super) fn upload(&self, name: &str, from: &FilePath) -> Result<(), BucketError> {
        let path = self.path(name);
        self.runtime.block_on(repeated(async || {
            let sent = self.try_upload(&path, from).await?;
            self.read_back(&path, sent).await
        }))
    }

    async fn try_upload(&self, path: &Path, from: &FilePath) -> Result<Sent, BucketError> {
        let failed = |source| BucketError::File { path: from.to_owned(), source };
        let mut file = File::open(from).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        // Reading a part from disk is fast compared with sending it over the network.
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let mut part = || -> Result<Bytes, BucketError> {
            let mut part = Vec::new();
            (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).map_err(failed)?;
            hasher.update(&part);
            bytes += part.len() as u64;
            Ok(part.into())
        };
        if length <= PART_BYTES as u64 {
            self.store.put(path, PutPayload::from(part()?)).await?;
            return Ok(Sent { bytes, digest: Digest(*hasher.finalize().as_bytes()) });
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
        done?;
        Ok(Sent { bytes, digest: Digest(*hasher.finalize().as_bytes()) })
    }

    /// Downloads an object of at most `most` bytes into a file, which is replaced. Not synced.
    pub(super) fn download(&self, name: &str, to: &FilePath, most: u64) -> Result<(), BucketError> {
        let path = self.path(name);
        self.runtime.block_on(repeated(async || {
            let failed = |source| BucketError::File { path: to.to_owned(), source };
            let _ = fs::remove_file(to);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
            self.read(&path, most, |piece| file.write_all(piece).map_err(failed)).await
        }))
    }
}

/// The data that was sent to the service.
#[derive(Debug, Clone, Copy)]
struct Sent {
    bytes: u64,
    digest: Digest,
}

async fn repeated(work: impl AsyncFn() -> Result<(), BucketError>) -> Result<(), BucketError> {
    let mut attempt = 1;
    loop {
        match work().await {
            Err(BucketError::Service { source, is_passing: true }) if attempt < ATTEMPTS => {
                tracing::warn!(error = %source, attempt, "the bucket failed; trying again");
                sleep(Duration::from_secs(1 << attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn access_key(config: &BucketConfig) -> Result<(String, String), BucketError> {
    let Some(path) = &config.access_key_file else {
        let named = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        return named("AWS_ACCESS_KEY_ID").zip(named("AWS_SECRET_ACCESS_KEY")).ok_or(BucketError::NoAccessKey);
    };
    let text = small_file::read_to_string(path).map_err(|source| BucketError::File { path: path.clone(), source })?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) => Ok((id.to_owned(), secret.to_owned())),
        _ => Err(BucketError::AccessKey { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::with_causes;

    #[test]
    fn what_the_service_said_is_told_without_the_librarys_title() {
        let error = object_store::Error::Generic { store: "S3", source: "connection refused".into() };
        assert_eq!(with_causes(&BucketError::from(error)), "the service failed: connection refused");
    }
}
