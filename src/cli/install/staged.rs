//! A tree that is staged into an image: files appear in it, and nothing runs.

use std::path::Path;

use super::lasting::write_missing;
use crate::deploy::{self, Cause, ManagedFile, Node, Platform, Release, Runner, Tree};

/// Where systemd finds what starts with the machine.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// What puts releases into it.
pub(super) struct Staged<'a> {
    pub(super) tree: &'a Tree,
    /// Files that outlive releases.
    pub(super) lasting: &'a [ManagedFile],
}

impl Runner for Staged<'_> {
    fn stage(&mut self, release: &Release) -> Result<(), Cause> {
        if release.image.is_some() { deploy::cluster::bring_image(self.tree, release) } else { Ok(()) }
    }

    fn retire(&mut self, _: &Release) -> Result<(), Cause> {
        // What `systemctl disable` removes.
        for unit in [deploy::UNIT, deploy::systemd::DOCUMENTS_UNIT] {
            self.tree.remove(Path::new(WANTS).join(unit))?;
        }
        Ok(())
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        write_missing(self.tree, self.lasting)
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        if release.platform == Platform::K3s {
            // The server applies what it finds when it starts.
            return Ok(());
        }
        enable(self.tree, deploy::UNIT)
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }

    fn forget(&mut self, _: &Release) -> Result<(), Cause> {
        Ok(())
    }
}

/// What `systemctl enable` does.
pub(super) fn enable(tree: &Tree, unit: &str) -> Result<(), Cause> {
    tree.make_folder(WANTS, 0o755)?;
    Ok(tree.link(Path::new(WANTS).join(unit), Path::new("/etc/systemd/system").join(unit))?)
}

/// The node of a staged tree: there is none yet.
pub(super) struct NoNode;

impl Node for NoNode {
    fn secure(&mut self) -> Result<Option<String>, Cause> {
        Ok(None)
    }

    fn self_test(&mut self) -> Result<(), Cause> {
        Ok(())
    }

    fn data_format(&mut self) -> Result<Option<u16>, Cause> {
        Ok(None)
    }

    fn restore(&mut self, _: &Release, _: &str) -> Result<(), Cause> {
        Ok(())
    }
}
