//! Where a folder came from: another one with the same name would treat its documents as missing.

use std::path::Path;

use anyhow::anyhow;

use super::super::backend::Backend;
use super::walk::{Folder, WalkResult};
use super::{Arguments, Failure};
use crate::collection::{self, FolderOrigin};
use crate::mcp::ErrorCode;

/// The name used for a host whose own name changes with each start.
const CONTAINER: &str = "a container";

/// Where a folder is.
fn origin(path: &Path) -> FolderOrigin {
    FolderOrigin { host: host(), path: path.to_string_lossy().into_owned() }
}

fn host() -> String {
    let is_container = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || ["/.dockerenv", "/run/.containerenv"].into_iter().any(|path| Path::new(path).exists());
    if is_container {
        return CONTAINER.to_owned();
    }
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The folders of a collection as they were added before. Refuses one that is another than the one before of its prefix, and
/// remembers where those are that are new or moved.
///
/// # Errors
/// When a folder is another one, or the node does not answer.
pub(super) fn check(
    backend: &Backend,
    arguments: &Arguments,
    walked: &WalkResult,
) -> Result<Vec<collection::Folder>, Failure> {
    let known = backend.folders(&arguments.collection)?;
    for folder in &walked.complete {
        // Below an empty prefix are all folders: nothing is deleted there. A folder without files has nothing to be known by.
        let below = format!("{}/", folder.prefix);
        if folder.prefix.is_empty() || !walked.found.iter().any(|file| file.source.starts_with(&below)) {
            continue;
        }
        let here = origin(&folder.path);
        let before = known.iter().find(|known| known.prefix == folder.prefix).map(|known| &known.origin);
        match before {
            Some(before) if *before == here => continue,
            // Where nothing is left of the other one, nothing is lost.
            Some(before) if !arguments.moved && !backend.sources(&arguments.collection, &below)?.is_empty() => {
                return Err(refused(&arguments.collection, folder, before, &here));
            }
            Some(_) | None => {}
        }
        let noted = collection::Folder { prefix: folder.prefix.clone(), origin: here };
        match backend.note_folder(&arguments.collection, &noted) {
            // Nothing else is written either, and that is reported for the files.
            Err(failure) if failure.code_of_tool() == Some(ErrorCode::ReadOnly) => {}
            noted => noted?,
        }
    }
    Ok(known)
}

fn refused(collection: &str, folder: &Folder, before: &FolderOrigin, here: &FolderOrigin) -> Failure {
    let Folder { prefix, path } = folder;
    let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let other = parent
        .filter(|name| !name.is_empty())
        .map_or_else(|| format!("{prefix}-2"), |parent| format!("{parent}/{prefix}"));
    let on =
        |origin: &FolderOrigin| if before.host == here.host { String::new() } else { format!(" on {}", origin.host) };
    anyhow!(
        "'{prefix}/' of the collection '{collection}' came from {}{}, and this is {}{}: their files would take each other's place\n  \
         another folder: give it a name of its own, such as --prefix {other}\n  \
         the same folder, which has moved: --moved",
        before.path,
        on(before),
        here.path,
        on(here),
    )
    .into()
}

/// Prefixes below `folder` whose files came from elsewhere: files missing from the folder are not deleted for them.
pub(super) fn foreign(folder: &Folder, known: &[collection::Folder]) -> Vec<String> {
    let below = format!("{}/", folder.prefix);
    known
        .iter()
        .filter(|other| {
            other.prefix.strip_prefix(&below).is_some_and(|rest| other.origin != origin(&folder.path.join(rest)))
        })
        .map(|other| format!("{}/", other.prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_folder_added_below_another_is_its_own_unless_it_is_there() {
        let folder = Folder { prefix: "site".to_owned(), path: PathBuf::from("/srv/site") };
        let known = |prefix: &str, path: &str| collection::Folder {
            prefix: prefix.to_owned(),
            origin: origin(Path::new(path)),
        };
        let others = [
            known("site", "/srv/site"),
            known("site/own", "/srv/site/own"),
            known("site/guides", "/home/ann/guides"),
            known("sites/x", "/else"),
        ];
        assert_eq!(foreign(&folder, &others), ["site/guides/"]);
    }
}
