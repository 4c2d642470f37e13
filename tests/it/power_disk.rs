//! A disk whose power can be cut under the real binary: a [`Tree`] in memory, mounted with FUSE.
//!
//! Every modifying call has a number, counted from 1 since the disk was armed. A power cut or a fault strikes at a number,
//! so a test that knows its seed can repeat it. Reads have no number: nothing is lost between two of them.
//!
//! The kernel caches pages and attributes, because it is the only user of the mounted tree, but writes reach this code
//! at once (no write-back cache). `mmap` works on that page cache; `flock` is the kernel's own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::power_tree::{Content, Tree};

/// How long the kernel may believe what it was told: nobody else changes the tree while it is mounted.
const TTL: Duration = Duration::from_secs(3600);
/// Bytes that a disk has at the start.
const FREE_BYTES: u64 = 4 << 30;

/// What a modifying call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Write,
    Sync,
    SyncDirectory,
    Create,
    Link,
    Rename,
    Remove,
    Allocate,
    Truncate,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With EIO; nothing is done.
    Io,
    /// With ENOSPC; nothing is done.
    NoSpace,
    /// A write takes the first half of its bytes and says so.
    ShortWrite,
    /// A sync fails, and the kernel drops what it could not write: readers still see it, no later sync makes it durable.
    LostSync,
}

impl Fault {
    /// Whether such a call can fail like this.
    pub fn fits(self, call: Call) -> bool {
        match self {
            Self::Io | Self::NoSpace => true,
            Self::ShortWrite => call == Call::Write,
            Self::LostSync => call == Call::Sync,
        }
    }
}

/// What is going to happen to the calls.
#[derive(Debug, Default)]
struct Plan {
    /// Somebody waits for the call of this number.
    alarm: Option<Alarm>,
    /// Strikes at the call of this number among those that it fits.
    fault: Option<(u64, Fault)>,
    /// Syncs of files whose name ends in this do nothing: a bug to be found.
    ignored_syncs: Option<&'static str>,
}

#[derive(Debug)]
struct Alarm {
    at: u64,
    told: mpsc::Sender<()>,
    /// Whether the power goes with that call.
    cuts_power: bool,
}

/// The state of the disk.
struct State {
    tree: Tree,
    plan: Plan,
    /// Modifying calls since the disk was armed.
    calls: Vec<Call>,
    /// The call that the fault has struck.
    struck: Option<Call>,
    dead: bool,
    free_bytes: u64,
}

/// What is to become of one modifying call.
enum Step {
    Go,
    Fail(Errno),
    Short,
    LostSync,
    /// It is done, but the caller never hears of it.
    Last,
}

impl State {
    fn step(&mut self, call: Call) -> Step {
        if self.dead {
            return Step::Fail(Errno::EIO);
        }
        self.calls.push(call);
        let number = self.calls.len() as u64;
        if let Some(alarm) = self.plan.alarm.take_if(|alarm| number >= alarm.at) {
            // Nobody waits when the node ended before.
            let _ = alarm.told.send(());
            if alarm.cuts_power {
                self.dead = true;
                return Step::Last;
            }
        }
        match &mut self.plan.fault {
            Some((left, fault)) if fault.fits(call) && self.struck.is_none() => {
                *left -= 1;
                if *left > 0 {
                    return Step::Go;
                }
                self.struck = Some(call);
                match fault {
                    Fault::Io => Step::Fail(Errno::EIO),
                    Fault::NoSpace => Step::Fail(Errno::ENOSPC),
                    Fault::ShortWrite => Step::Short,
                    Fault::LostSync => Step::LostSync,
                }
            }
            _ => Step::Go,
        }
    }

    /// Does a modifying call that has no way to be half done.
    fn whole<T>(&mut self, call: Call, act: impl FnOnce(&mut Tree) -> Result<T, Errno>) -> Result<T, Errno> {
        match self.step(call) {
            Step::Go | Step::Short => act(&mut self.tree),
            Step::Fail(error) => Err(error),
            Step::LostSync => Err(Errno::EIO),
            Step::Last => {
                // Its result does not matter: the power is gone.
                let _ = act(&mut self.tree);
                Err(Errno::EIO)
            }
        }
    }

    fn read<'a, T>(&'a self, act: impl FnOnce(&'a Tree) -> Result<T, Errno>) -> Result<T, Errno> {
        if self.dead { Err(Errno::EIO) } else { act(&self.tree) }
    }
}
/// A mounted disk.
pub struct Disk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts a tree.
    ///
    /// # Errors
    /// When the kernel has no FUSE, or the caller may not mount.
    pub fn mount(tree: Tree, at: &Path) -> io::Result<Self> {
        let state =
            State { tree, plan: Plan::default(), calls: Vec::new(), struck: None, dead: false, free_bytes: FREE_BYTES };
        let state = Arc::new(Mutex::new(state));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("cairn-test".to_owned())];
        let session = fuser::spawn_mount(Mounted { state: Arc::clone(&state) }, at, &config)?;
        Ok(Self { state, session: Some(session) })
    }

    /// Unmounts it and gives back what it holds. Nobody may have a file of it open.
    pub fn unmount(mut self) -> Tree {
        self.detach();
        std::mem::replace(&mut self.state.lock().tree, Tree::new())
    }

    fn detach(&mut self) {
        if let Some(session) = self.session.take() {
            match session.umount_and_join() {
                // How the kernel tells the thread that serves the disk that it is unmounted, if it was just about to ask.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                result => result.expect("nobody uses the disk any more"),
            }
        }
    }

    /// From now on calls are counted from 1, and the power goes with call number `at`. The receiver is told.
    pub fn cut_power_at(&self, at: u64) -> mpsc::Receiver<()> {
        self.set_alarm(at, true)
    }

    /// From now on calls are counted from 1, and the receiver is told of call number `at`.
    pub fn tell_at(&self, at: u64) -> mpsc::Receiver<()> {
        self.set_alarm(at, false)
    }

    fn set_alarm(&self, at: u64, cuts_power: bool) -> mpsc::Receiver<()> {
        let (told, receiver) = mpsc::channel();
        let mut state = self.state.lock();
        state.calls.clear();
        state.plan.alarm = Some(Alarm { at, told, cuts_power });
        receiver
    }

    /// The power goes at this moment.
    pub fn cut_power(&self) {
        self.state.lock().dead = true;
    }

    /// From now on the calls that a fault fits are counted from 1, and one of them fails.
    pub fn fail_at(&self, at: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.struck = None;
        state.plan.fault = Some((at, fault));
    }

    /// The call that failed, if there was one.
    pub fn failed(&self) -> Option<Call> {
        self.state.lock().struck
    }

    /// From now on calls are counted from 1 and kept.
    pub fn count(&self) {
        self.state.lock().calls.clear();
    }

    /// The modifying calls since they are counted.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// Sets what a process may still write, as `statfs` tells it; writes are not bounded by it.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state.lock().free_bytes = bytes;
    }

    /// Syncs of files whose names end so do nothing from now on, and say that they did.
    pub fn ignore_syncs_of(&self, ending: Option<&'static str>) {
        self.state.lock().plan.ignored_syncs = ending;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A failure here would hide the test's own.
            let _ = session.umount_and_join();
        }
    }
}

struct Mounted {
    state: Arc<Mutex<State>>,
}

impl Mounted {
    fn entry(reply: ReplyEntry, attributes: Result<FileAttr, Errno>) {
        match attributes {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state.lock();
        Self::entry(reply, state.read(|tree| tree.attributes(tree.lookup(parent.0, name)?)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state.lock().read(|tree| tree.attributes(inode.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state.lock();
        let result = match size {
            Some(size) => state.whole(Call::Truncate, |tree| {
                tree.content_mut(inode.0)?.set_length(size);
                Ok(())
            }),
            None => state.read(|_| Ok(())),
        };
        let result = result.and_then(|()| {
            if let Some(mode) = mode {
                state.tree.set_mode(inode.0, mode);
            }
            state.tree.attributes(inode.0)
        });
        match result {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let perm = (mode & !umask & 0o7777) as u16;
        let made = state.whole(Call::Create, |tree| {
            let inode = tree.create(parent.0, name, perm, true)?;
            tree.attributes(inode)
        });
        Self::entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(reply, self.state.lock().whole(Call::Remove, |tree| tree.remove(parent.0, name, false)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(reply, self.state.lock().whole(Call::Remove, |tree| tree.remove(parent.0, name, true)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let mut state = self.state.lock();
        let renamed =
            state.whole(Call::Rename, |tree| tree.rename((parent.0, name), (new_parent.0, new_name), may_replace));
        Self::empty(reply, renamed);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let linked = state.whole(Call::Link, |tree| {
            tree.link(inode.0, parent.0, name)?;
            tree.attributes(inode.0)
        });
        Self::entry(reply, linked);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.state.lock().dead {
            return reply.error(Errno::EIO);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state.lock();
        match state.read(|tree| tree.content(inode.0)) {
            Ok(content) => {
                let start = content.live.len().min(offset as usize);
                let end = content.live.len().min(start + size as usize);
                reply.data(&content.live[start..end]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state.lock();
        let step = state.step(Call::Write);
        let taken = match step {
            Step::Go | Step::Last | Step::LostSync => data,
            Step::Short => &data[..data.len() / 2],
            Step::Fail(error) => return reply.error(error),
        };
        match state.tree.content_mut(inode.0) {
            Ok(content) => content.write(offset, taken),
            Err(error) => return reply.error(error),
        }
        if matches!(step, Step::Last) { reply.error(Errno::EIO) } else { reply.written(taken.len() as u32) }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state.lock();
        let result = match state.step(Call::Sync) {
            Step::Fail(error) => Err(error),
            // The power went before anything was durable.
            Step::Last => Err(Errno::EIO),
            Step::LostSync => state.tree.content_to_sync(inode.0).and_then(|content| {
                content.lose_pending();
                Err(Errno::EIO)
            }),
            Step::Go | Step::Short => match state.plan.ignored_syncs {
                Some(ending) if state.tree.ends_with(inode.0, ending) => Ok(()),
                _ => state.tree.content_to_sync(inode.0).map(Content::sync),
            },
        };
        Self::empty(reply, result);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state.lock();
        match state.read(|tree| tree.directory(inode.0)) {
            Ok(directory) => {
                let mut entries: Vec<(u64, u64, &OsString)> =
                    directory.live.iter().map(|(name, (inode, place))| (*place, *inode, name)).collect();
                entries.sort_unstable();
                for (place, inode, name) in entries.into_iter().filter(|(place, ..)| *place > offset) {
                    let kind = state.tree.attributes(inode).map_or(FileType::RegularFile, |found| found.kind);
                    if reply.add(INodeNo(inode), place, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state.lock();
        let result = match state.step(Call::SyncDirectory) {
            Step::Fail(error) => Err(error),
            Step::Last => Err(Errno::EIO),
            Step::Go | Step::Short | Step::LostSync => {
                state.tree.sync_directory(inode.0);
                Ok(())
            }
        };
        Self::empty(reply, result);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = self.state.lock().free_bytes / 4096;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.state.lock();
        let perm = (mode & !umask & 0o7777) as u16;
        let made = state.whole(Call::Create, |tree| {
            let inode = tree.create(parent.0, name, perm, false)?;
            tree.attributes(inode)
        });
        match made {
            Ok(attributes) => {
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let allocated = self.state.lock().whole(Call::Allocate, |tree| {
            let content = tree.content_mut(inode.0)?;
            let end = offset + length;
            if end > content.live.len() as u64 {
                content.set_length(end);
            }
            Ok(())
        });
        Self::empty(reply, allocated);
    }
}
