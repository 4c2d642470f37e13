//! Where Docker has the data of its volumes.
//!
//! The `local` driver has a volume at `volumes/NAME/_data` below Docker's root, and its options in `volumes/NAME/opts.json`. With a device among
//! them that folder is where Docker mounts it while a container uses it, and empty otherwise.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::plan::PlanRequest;
use super::{DataError, bytes_of, name_of, real_folder};
use crate::base::small_file;

/// Where the data of a volume is.
pub(super) enum Location {
    Here(PathBuf),
    /// On a server: type and device of the mount.
    Network(String),
    Elsewhere,
}

/// * `name`: Docker's, of which nothing leads out of its folder.
pub(super) fn locate(request: &PlanRequest, name: &str) -> Result<Location, DataError> {
    if let Some(path) = request.volumes.get(name) {
        return real_folder(path).map(Location::Here);
    }
    let folder = request.docker_root.join("volumes").join(name);
    match mount_options(&folder.join("opts.json"))? {
        Some(options) if options.is_bind() => {
            let path = PathBuf::from(&options.device);
            return Ok(if path.is_dir() { Location::Here(real_folder(&path)?) } else { Location::Elsewhere });
        }
        Some(options) if !options.device.is_empty() => {
            return Ok(Location::Network(format!("{} {}", options.kind, options.device)));
        }
        _ => {}
    }
    let data = folder.join("_data");
    match data.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Location::Elsewhere),
        Err(error) => Err(DataError::read(bytes_of(&data), error)),
        Ok(_) => real_folder(&data).map(Location::Here),
    }
}

/// Options of the `local` driver, as Docker stores them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MountOptions {
    #[serde(rename = "MountType")]
    kind: String,
    #[serde(rename = "MountOpts")]
    options: String,
    #[serde(rename = "MountDevice")]
    device: String,
}

impl MountOptions {
    /// Whether the volume is another folder of this machine.
    fn is_bind(&self) -> bool {
        self.device.starts_with('/') && self.options.split(',').any(|option| matches!(option, "bind" | "rbind"))
    }
}

fn mount_options(path: &Path) -> Result<Option<MountOptions>, DataError> {
    match small_file::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::read(bytes_of(path), error)),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| DataError::Plan(format!("{}: not the options of a volume: {error}", name_of(path)))),
    }
}
