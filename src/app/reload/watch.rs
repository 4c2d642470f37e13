//! Detects that a file was replaced or written, without polling (inotify).
//!
//! Watches every directory in which a link or a name on the path to the file may be replaced: a Kubernetes ConfigMap is
//! a link into a folder whose name is a link too, and only the latter is ever exchanged. The folders on the way are
//! watched for being moved or removed. Invariant: what cannot be watched now is tried again, so one failure does not end
//! watching.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Maximum links on the way to a file, as in the kernel.
const LINKS_MAX: usize = 40;

/// How long to wait before a file that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Watches one file.
pub(super) struct FileWatch {
    path: PathBuf,
    /// Or when to try again, where the kernel has no watches left.
    events: Result<Events, Instant>,
}

struct Events {
    inotify: AsyncFd<OwnedFd>,
    steps: Vec<Step>,
}

/// A name in a folder on the path to the file.
struct Step {
    watch: i32,
    folder: PathBuf,
    /// `None` for a folder that the path only passes through.
    name: Option<OsString>,
}

impl FileWatch {
    /// Starts watching; must be called within a runtime.
    ///
    /// * `path`: does not have to exist.
    pub(super) fn new(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let events = Events::of(&path).map_err(|error| {
            let file = path.display();
            tracing::warn!(%error, "changes of {file} are noticed at SIGHUP only: it cannot be watched; tried again");
            Instant::now() + RETRY
        });
        Self { path, events }
    }

    /// Waits until the file may have changed. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            match &mut self.events {
                Ok(events) => match events.next().await {
                    Ok(false) => {}
                    // An exchanged link leads to other folders that must be watched; the new watch sees all changes
                    // from here on.
                    Ok(true) | Err(_) => {
                        *self = Self::new(&self.path);
                        return;
                    }
                },
                Err(again) => {
                    tokio::time::sleep_until((*again).into()).await;
                    *again = Instant::now() + RETRY;
                    if let Ok(events) = Events::of(&self.path) {
                        tracing::info!("{} is watched again", self.path.display());
                        self.events = Ok(events);
                        // It may have changed meanwhile.
                        return;
                    }
                }
            }
        }
    }
}

impl Events {
    fn of(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        // Not `MODIFY`: a half-written file must not be read.
        let written = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        let mut steps = Vec::new();
        for (folder, name) in steps_to(path) {
            for above in folder.ancestors() {
                // One that may not be read is not watched; it can hardly be moved by anyone who writes the file.
                if let Ok(watch) = inotify::add_watch(&inotify, above, gone) {
                    steps.push(Step { watch, folder: above.to_owned(), name: None });
                }
            }
            let watch = inotify::add_watch(&inotify, &folder, gone | written)?;
            steps.push(Step { watch, folder, name: Some(name) });
        }
        #[expect(deprecated, reason = "sound for a descriptor that is owned; what takes its place is `unsafe`")]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self { inotify, steps })
    }

    /// Waits for events; returns whether one of them affects the file.
    async fn next(&self) -> io::Result<bool> {
        let mut ready = self.inotify.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut is_ours = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let (kind, watch) = (event.events(), event.wd());
                    let concerns = |step: &Step| match (&step.name, name) {
                        _ if step.watch != watch => false,
                        // A file that was just created is empty: it is read once it was written and closed.
                        (Some(own), Some(name)) => {
                            own == name && !(kind.contains(ReadFlags::CREATE) && is_file(&step.folder.join(own)))
                        }
                        (_, None) => kind.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF),
                        (None, Some(_)) => false,
                    };
                    is_ours |= kind.contains(ReadFlags::QUEUE_OVERFLOW) || self.steps.iter().any(concerns);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(is_ours)
    }
}

/// Whether this is a file and not a link to one.
fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// The folders on the path to a file, each with the name in it that may be replaced: those of links, and the last one.
/// If something is missing, the path ends there.
fn steps_to(path: &Path) -> Vec<(PathBuf, OsString)> {
    let own = |path: &Path| -> VecDeque<OsString> {
        path.components()
            .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
            .map(|part| part.as_os_str().to_owned())
            .collect()
    };
    let (mut rest, mut folder, mut steps, mut links) = (own(path), PathBuf::from("/"), Vec::new(), 0);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        let next = folder.join(&name);
        if let Ok(target) = std::fs::read_link(&next) {
            steps.push((folder.clone(), name));
            links += 1;
            if links > LINKS_MAX {
                return steps;
            }
            if target.is_absolute() {
                folder = PathBuf::from("/");
            }
            let mut ahead = own(&target);
            ahead.append(&mut rest);
            rest = ahead;
        } else if rest.is_empty() || !next.is_dir() {
            steps.push((folder, name));
            return steps;
        } else {
            folder = next;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether the next events are seen as a change; it waits for them.
    async fn is_seen(watch: &mut FileWatch, change: impl FnOnce()) -> bool {
        change();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_a_change() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        let make = |name: &str| {
            fs::create_dir_all(at(name).join("inner")).expect("made");
            fs::write(at(name).join("inner/cairn.toml"), "").expect("written");
        };
        make("conf");
        let mut watch = FileWatch::new(&at("conf/inner/cairn.toml"));
        assert!(
            is_seen(&mut watch, || fs::rename(at("conf"), at("old")).expect("moved")).await,
            "one above it is moved"
        );
        make("next");
        assert!(
            is_seen(&mut watch, || fs::rename(at("next"), at("conf")).expect("moved")).await,
            "one takes its place"
        );
        let written = || fs::write(at("conf/inner/cairn.toml"), "x").expect("written");
        assert!(is_seen(&mut watch, written).await, "it is watched where it is now");
        assert!(is_seen(&mut watch, || fs::remove_dir_all(at("conf")).expect("removed")).await);
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_tried_again() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let mut watch = FileWatch { path: file.path().to_owned(), events: Err(Instant::now()) };
        watch.changed().await;
        assert!(watch.events.is_ok());
    }
}
