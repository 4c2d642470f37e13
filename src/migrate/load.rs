//! stub
use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
pub struct Request {
    pub files: Vec<PathBuf>,
    pub dialect: Option<Dialect>,
    pub env_file: Option<PathBuf>,
    pub profiles: Vec<String>,
    pub allow_outside: bool,
}
pub struct Replaced {
    pub written: Written,
    pub outcome: Outcome,
    pub reason: String,
}
pub struct Loaded {
    pub dialect: Dialect,
    pub dialect_reason: String,
    pub name: Option<String>,
    pub tree: Node,
    pub replaced: Vec<Replaced>,
    pub warnings: Vec<Mistake>,
    pub files: Files,
    pub variables: BTreeMap<String, String>,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct LoadError;
impl LoadError {
    pub fn fault(&self) -> crate::base::Fault {
        crate::base::Fault::Caller
    }
}
pub fn load(_r: &Request) -> Result<Loaded, LoadError> {
    Err(LoadError)
}
