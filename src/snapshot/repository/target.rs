//! Where a repository is.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::bucket::BucketConfig;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A prefix of a bucket.
    Bucket(BucketConfig),
}

impl Target {
    /// Whether it is reached over the network by requests that cost something.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// The same for every directory that a command is run in.
    #[must_use]
    pub fn absolute(self) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(std::path::absolute(&path).unwrap_or(path)),
            Self::Bucket(mut bucket) => {
                let file = bucket.access_key_file.take();
                bucket.access_key_file = file.map(|path| std::path::absolute(&path).unwrap_or(path));
                Self::Bucket(bucket)
            }
        }
    }

    /// How the node remembers it: the same for every directory that a command is run in.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Directory(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
            Self::Bucket(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket(bucket) => write!(f, "s3://{}/{}", bucket.bucket, bucket.prefix),
        }
    }
}
