//! The node that was installed into this machine's cluster, for verbs without another target.
//!
//! The pod has its data directory, a volume, open, so the node is reached over the network: by its service's address,
//! and with the token and the authority that the installation stored in `/etc/cairn`.

use std::path::Path;

use anyhow::{Context as _, anyhow};

use super::{Common, Failure, install};
use crate::base::small_file;
use crate::config::{Config, default_data_dir};
use crate::deploy::{Installation, Platform, Tree};

/// Names the node of this machine's cluster where one was installed and the user named none, and says so. Whether it did.
pub(super) fn name_it(common: &mut Common, config: &Config) -> Result<bool, Failure> {
    if common.url.is_some() || !is_unnamed(common, config) {
        return Ok(false);
    }
    let Some(access) = install::connection::node_access()? else { return Ok(false) };
    let install::connection::NodeAccess { url, resolve, shown, ca, token } = access;
    eprintln!("(the node in this machine's cluster, {shown}; --url or --data-dir names another one)");
    common.url = Some(url);
    common.resolve = common.resolve.or(resolve);
    common.ca = common.ca.take().or(ca);
    common.token = common.token.take().or(token);
    Ok(true)
}

/// Whether Cairn was installed into the cluster of this machine, and the user named no other node.
pub(super) fn is_meant(common: &Common, config: &Config) -> bool {
    common.url.is_none() && is_unnamed(common, config)
}

/// Whether neither a data directory nor settings with one were named, and no other node of this user's is here.
fn is_unnamed(common: &Common, config: &Config) -> bool {
    if common.data_dir.is_some() || config.data_dir != default_data_dir() {
        return false;
    }
    let record = Installation::read(&Tree::machine()).ok().flatten();
    if record.is_none_or(|record| record.platform != Platform::K3s || record.current.is_none()) {
        return false;
    }
    // Processes started here belong to a user; users other than root have their own data.
    let is_root = rustix::process::geteuid().is_root();
    let has = |name: &str| config.data_dir.join(name).exists();
    !has("running.json") && (is_root || !has("log"))
}

/// A file's text without what surrounds it; `None` where it cannot be read.
pub(super) fn line_of(path: &Path) -> Option<String> {
    small_file::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The token in a file that was named.
pub(super) fn token_in(path: &Path) -> Result<String, Failure> {
    let text = small_file::read_to_string(path);
    let text = text.with_context(|| format!("cannot read the token in {}", path.display())).map_err(Failure::usage)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(anyhow!("there is no token in {}", path.display())));
    }
    Ok(token.to_owned())
}
