//! The settings of snapshots, section `[snapshot]`: where they go, when, and what is kept ([`Retention`]).

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use super::bucket::BucketConfig;
use super::repository::Target;
use crate::base::setting;

/// Where snapshots go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Destination {
    #[serde(deserialize_with = "location")]
    target: Option<Location>,
    #[serde(deserialize_with = "endpoint")]
    s3_endpoint: Option<String>,
    #[serde(deserialize_with = "setting::text")]
    s3_region: String,
    #[serde(deserialize_with = "setting::path")]
    s3_access_key_file: Option<PathBuf>,
    /// Key of an encrypted repository.
    #[serde(deserialize_with = "setting::path")]
    pub encryption_key_file: Option<PathBuf>,
}

/// What `target` names.
#[derive(Debug, Clone, PartialEq)]
enum Location {
    Directory(PathBuf),
    Bucket { name: String, prefix: String },
}

impl Destination {
    /// Where the log is shipped; `None`: nowhere automatically.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        Some(match self.target.clone()? {
            Location::Directory(path) => Target::Directory(path),
            Location::Bucket { name, prefix } => Target::Bucket(BucketConfig {
                bucket: name,
                prefix,
                endpoint: self.s3_endpoint.clone(),
                region: self.s3_region.clone(),
                access_key_file: self.s3_access_key_file.clone(),
            }),
        })
    }
}

fn location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Location>, D::Error> {
    let target = setting::text(deserializer)?;
    let refused = |expected: &str| D::Error::invalid_value(Unexpected::Str(&target), &expected);
    match target.split_once("://") {
        _ if target.is_empty() => Ok(None),
        None => Ok(Some(Location::Directory(PathBuf::from(&target)))),
        Some(("s3", rest)) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refused("s3://bucket/prefix"));
            }
            Ok(Some(Location::Bucket { name: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() }))
        }
        Some(_) => Err(refused("a directory or s3://bucket/prefix")),
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let endpoint = setting::text(deserializer)?;
    if endpoint.is_empty() {
        return Ok(None);
    }
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(D::Error::invalid_value(Unexpected::Str(&endpoint), &"http:// or https:// and a host"));
    }
    Ok(Some(endpoint))
}

/// When the log is shipped and proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Schedule {
    /// How often a log that changed is shipped.
    #[serde(deserialize_with = "setting::duration::<_, 1_000, { setting::ANY }>")]
    pub interval: Duration,
    /// How often the newest snapshot is proved; zero: never automatically.
    #[serde(deserialize_with = "setting::duration::<_, 0, { setting::ANY }>")]
    pub verify_interval: Duration,
}
