//! Detects that a file was replaced or written, without polling (inotify).
//!
//! Watches every directory in which a link or a name on the path to the file may be replaced: a Kubernetes ConfigMap is
//! a link into a folder whose name is a link too, and only the latter is ever exchanged.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Maximum links on the way to a file, as in the kernel.
const LINKS_MAX: usize = 40;

/// Watches one file.
pub(super) struct FileWatch {
    path: PathBuf,
    /// `None` where the kernel has no watches left.
    events: Option<Events>,
}

struct Events {
    inotify: AsyncFd<OwnedFd>,
    steps: Vec<Step>,
}

/// A name in a folder on the path to the file.
struct Step {
    watch: i32,
    folder: PathBuf,
    name: OsString,
}

impl FileWatch {
    /// Starts watching; must be called within a runtime.
    ///
    /// * `path`: does not have to exist.
    pub(super) fn new(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let events = Events::of(&path)
            .inspect_err(|error| {
                let file = path.display();
                tracing::warn!(%error, "changes of {file} are noticed at SIGHUP only: it cannot be watched");
            })
            .ok();
        Self { path, events }
    }

    /// Waits until the file may have changed. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(events) = &self.events else { return std::future::pending().await };
            match events.next().await {
                Ok(false) => {}
                // An exchanged link leads to other folders that must be watched; the new watch sees all changes from
                // here on.
                Ok(true) | Err(_) => {
                    *self = Self::new(&self.path);
                    return;
                }
            }
        }
    }
}

impl Events {
    fn of(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // Not `MODIFY`: a half-written file must not be read.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        let mut steps = Vec::new();
        for (folder, name) in steps_to(path) {
            steps.push(Step { watch: inotify::add_watch(&inotify, &folder, flags)?, folder, name });
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
                    let is_new = event.events().contains(ReadFlags::CREATE);
                    let concerns = |step: &Step| {
                        step.watch == event.wd()
                            && name == Some(&step.name)
                            // A file that was just created is empty: it is read once it was written and closed.
                            && !(is_new && is_file(&step.folder.join(&step.name)))
                    };
                    is_ours |= event.events().contains(ReadFlags::QUEUE_OVERFLOW) || self.steps.iter().any(concerns);
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
