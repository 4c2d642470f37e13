//! Relative names in files of another folder, rewritten so that they are below the stack's: compose-go, `paths`.
//!
//! Names are joined as texts, without a look at the disk: `a/../b` is `b`.

use std::path::{Component, Path as FilePath, PathBuf};

use super::super::yaml::{Entry, Node, Value};
use super::shape::get_mut;
use super::short;

/// A path below a folder, without `.` and with `..` only in front.
pub(super) fn joined(folder: &FilePath, name: &FilePath) -> PathBuf {
    let mut result = PathBuf::new();
    for part in folder.join(name).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match result.components().next_back() {
                Some(Component::Normal(_)) => {
                    result.pop();
                }
                Some(Component::RootDir) => {}
                _ => result.push(".."),
            },
            other => result.push(other),
        }
    }
    result
}

/// Rewrites the names of files and folders in a document.
///
/// * `folder`: that the document's names are relative to, as it is below the stack's.
pub(super) fn rebase(document: &mut Node, folder: &FilePath) {
    if folder.as_os_str().is_empty() {
        return;
    }
    for section in ["services", "jobs"] {
        for service in values(document, section) {
            container(service, folder);
            if let Some(build) = get_mut(service, "build") {
                match &build.value {
                    Value::Text(_) => context(build, folder),
                    _ => values(build, "additional_contexts").for_each(|node| context(node, folder)),
                }
                if let Some(node) = get_mut(build, "context") {
                    context(node, folder);
                }
            }
            if let Some(Value::List(hooks)) = get_mut(service, "pre_start").map(|node| &mut node.value) {
                hooks.iter_mut().for_each(|hook| container(hook, folder));
            }
        }
    }
    for section in ["configs", "secrets"] {
        for object in values(document, section) {
            if let Some(file) = get_mut(object, "file") {
                name(file, folder);
            }
        }
    }
    for volume in values(document, "volumes") {
        let is_local =
            matches!(volume.get("driver").map(|node| &node.value), Some(Value::Text(driver)) if driver == "local");
        let Some(options) = get_mut(volume, "driver_opts").filter(|_| is_local) else { continue };
        let is_bind = matches!(options.get("o").map(|node| &node.value), Some(Value::Text(kind)) if kind == "bind");
        if let Some(device) = get_mut(options, "device").filter(|_| is_bind) {
            name(device, folder);
        }
    }
}

fn container(container: &mut Node, folder: &FilePath) {
    for key in ["env_file", "label_file"] {
        match get_mut(container, key) {
            Some(Node { value: Value::List(items), .. }) => {
                items.iter_mut().for_each(|item| match get_mut(item, "path") {
                    Some(path) => name(path, folder),
                    None => name(item, folder),
                })
            }
            Some(node) => name(node, folder),
            None => {}
        }
    }
    let Some(Value::List(volumes)) = get_mut(container, "volumes").map(|node| &mut node.value) else { return };
    for volume in volumes {
        if let Value::Text(item) = &mut volume.value {
            let (source, _) = short::volume(item);
            if let Some(source) = source.filter(|source| source.starts_with('.')) {
                *item = format!("{}{}", moved(source, folder), &item[source.len()..]);
            }
            continue;
        }
        let is_bind = matches!(volume.get("type").map(|node| &node.value), Some(Value::Text(kind)) if kind == "bind");
        if let Some(source) = get_mut(volume, "source").filter(|_| is_bind) {
            name(source, folder);
        }
    }
}

/// A context may be in a repository, or a service.
fn context(node: &mut Node, folder: &FilePath) {
    let Value::Text(text) = &node.value else { return };
    let remote = ["service:", "github.com/", "git@"];
    if !text.contains("://") && !remote.iter().any(|prefix| text.starts_with(prefix)) {
        name(node, folder);
    }
}

fn name(node: &mut Node, folder: &FilePath) {
    if let Value::Text(text) = &mut node.value {
        let is_drive = text.as_bytes().get(1) == Some(&b':');
        if !(text.is_empty() || text.starts_with(['/', '~', '\\']) || is_drive) {
            *text = moved(text, folder);
        }
    }
}

/// Relative names begin with a dot, for without one the short form of a volume has a name.
fn moved(name: &str, folder: &FilePath) -> String {
    let path = joined(folder, FilePath::new(name));
    let text = path.to_string_lossy();
    match path.is_absolute() || text.starts_with("..") {
        true => text.into_owned(),
        false => format!("./{text}"),
    }
}

fn values<'n>(node: &'n mut Node, name: &str) -> impl Iterator<Item = &'n mut Node> {
    let entries: &mut [Entry] = match get_mut(node, name).map(|node| &mut node.value) {
        Some(Value::Map(entries)) => entries,
        _ => &mut [],
    };
    entries.iter_mut().map(|entry| &mut entry.node)
}
