//! `cairn install --bundle`: everything that a site gets, from one signed file.
//!
//! Invariants: nothing of a bundle is used before its signature holds and every byte was compared; the release that it brings
//! installs itself, so that its own plan, units and checks count. What was unpacked is removed again, however that ends.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use rustix::process::Signal;
use serde_json::Value;

use super::arguments::Arguments;
use super::connection;
use super::lasting::{FirstFiles, settings_file};
use super::machine::{CONFIG, lock_bundle, need_root, tree_of};
use super::staged::enable;
use crate::base::small_file;
use crate::cli::{Common, Failure};
use crate::deploy::bundle::{self, MemberRole, PublicKey, Verified};
use crate::deploy::shape::{CONFIG_DIR, DOCUMENTS_DIR};
use crate::deploy::{self, Architecture, Host, Installation, Tree};

/// The key that bundles for this machine are signed with, left by the first one.
const KEY: &str = "/etc/cairn/bundle.pub";
/// Where a bundle is unpacked: on the volume that the release goes to, readable by the node's user.
const UNPACKED: &str = ".bundle.partial";

/// Installs from a bundle.
pub(super) fn run(common: &Common, arguments: &Arguments, file: &Path) -> Result<(), Failure> {
    let tree = tree_of(arguments)?;
    if tree.is_machine() && !arguments.dry_run {
        need_root("install from a bundle")?;
    }
    let key = key(&tree, arguments.public_key.as_deref())?;
    // The release that it brings takes the lock of a change itself.
    let _lock = if arguments.dry_run { None } else { lock_bundle(&tree)? };
    let bundle = bundle::open(file, &key)?;
    let architecture = own_architecture(&bundle)?;
    eprintln!("… verifying every byte of {}", file.display());
    bundle.check()?;
    // A plan needs no more than a place of its own.
    let unpacked = if arguments.dry_run {
        Unpacked::elsewhere()?
    } else {
        tree.make_folder(deploy::folder(&tree), 0o755)?;
        Unpacked::at(tree.locate(deploy::folder(&tree).join(UNPACKED))?)?
    };
    let folder = &unpacked.0;
    bundle.extract_executable(architecture, folder)?;
    let settings = [settings_file(String::new())];
    let first_files = FirstFiles::before(&tree, if arguments.dry_run { &[] } else { &settings })?;
    let installed = || {
        if !arguments.dry_run {
            place_settings(&tree, &bundle, folder)?;
        }
        run_installer(common, arguments, folder)
    };
    // Declined or failed, a first installation leaves no settings behind.
    first_files.after(installed())?;
    if arguments.dry_run {
        return Ok(());
    }
    if Installation::read(&tree)?.is_none_or(|record| record.current.is_none()) {
        return Err(anyhow!(
            "the program in the bundle ended well and installed nothing; is it cairn? Get another bundle"
        )
        .into());
    }
    store_key(&tree, &key)?;
    place_images(&tree, &bundle).map_err(|failure| Failure {
        error: failure.error.context("the node is installed, but images of the bundle were not placed"),
        ..failure
    })?;
    if !tree.is_machine() {
        return stage_documents(&tree, &bundle);
    }
    let variables = connection::variables(&tree)?;
    if variables.is_some() && bundle.contents().of(MemberRole::Configuration).next().is_some() {
        eprintln!(
            "  the settings of the bundle are those of a service; in a cluster give them with --set config.SECTION.KEY=VALUE"
        );
    }
    add_documents(&tree, &bundle, folder, variables)
}

/// The key to believe: that of `--public-key`, else the one of the first bundle.
fn key(tree: &Tree, argument: Option<&str>) -> Result<PublicKey, Failure> {
    let stored = tree.locate(KEY)?;
    match argument {
        Some(argument) => Ok(PublicKey::from_text_or_file(argument).map_err(Failure::usage)?),
        None if stored.exists() => Ok(PublicKey::from_text_or_file(&stored.to_string_lossy())?),
        None => Err(Failure::usage(anyhow!(
            "there is no public key to verify the bundle with; give its author's with --public-key, and {KEY} stores it for the next bundle"
        ))),
    }
}

fn store_key(tree: &Tree, key: &PublicKey) -> Result<(), Failure> {
    if !tree.exists(KEY)? {
        tree.make_folder(CONFIG_DIR, 0o755)?;
        tree.write(KEY, format!("untrusted comment: key of the bundles for this machine\n{key}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// This machine's processor, where the bundle has a program for it.
fn own_architecture(bundle: &Verified) -> Result<Architecture, Failure> {
    let own = Architecture::of_this_machine().filter(|own| bundle.contents().executable(*own).is_some());
    own.ok_or_else(|| {
        let (found, own) = (crate::cli::bundle::architectures(bundle.contents()), std::env::consts::ARCH);
        anyhow!("the bundle is for {found}, and this program and what it installs for {own}; use a bundle for {own}")
            .into()
    })
}

/// A folder that goes with this value.
struct Unpacked(PathBuf);

impl Unpacked {
    fn at(folder: PathBuf) -> Result<Self, Failure> {
        // Of a bundle whose unpacking was interrupted.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// A new folder among the temporary ones.
    fn elsewhere() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("cairn-bundle-{}", std::process::id()));
        // Somebody else's folder of that name is none to run a program from.
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // A leftover takes room only; the next installation removes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The settings that come along, where the machine has none.
fn place_settings(tree: &Tree, bundle: &Verified, folder: &Path) -> Result<(), Failure> {
    if tree.exists(CONFIG)? {
        return Ok(());
    }
    if let Some(file) = bundle.extract(MemberRole::Configuration, folder)?.first() {
        let bytes = small_file::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        tree.make_folder(CONFIG_DIR, 0o755)?;
        tree.write(CONFIG, &bytes, 0o644)?;
    }
    Ok(())
}

/// Has the release install itself.
fn run_installer(common: &Common, arguments: &Arguments, folder: &Path) -> Result<(), Failure> {
    let mut command = Command::new(folder.join("cairn"));
    command.arg("install").args(arguments.passed_on());
    if common.json {
        command.arg("--json");
    }
    let status = command.status().context("cannot run the program of the bundle")?;
    let of_faults = [Signal::ILL, Signal::TRAP, Signal::ABORT, Signal::BUS, Signal::FPE, Signal::SEGV, Signal::SYS];
    match status.code() {
        Some(0) => Ok(()),
        // It has said why.
        Some(code) => {
            Err(Failure { code: u8::try_from(code).unwrap_or(1), error: anyhow!("the release was not installed") })
        }
        None => Err(match status.signal() {
            Some(signal) if of_faults.iter().any(|one| one.as_raw() == signal) => {
                anyhow!("the program in the bundle does not run on this machine: signal {signal} ended it; get another bundle")
            }
            _ => anyhow!("a signal ended the installation; run this again, it resumes where it stopped"),
        }
        .into()),
    }
}

/// Puts the images of other servers where this machine's cluster imports them from.
fn place_images(tree: &Tree, bundle: &Verified) -> Result<(), Failure> {
    if bundle.contents().of(MemberRole::Image).next().is_none() {
        return Ok(());
    }
    let Some(node) = Host::detect(tree)?.cluster else {
        eprintln!("  the images of the bundle are for a cluster, and this machine is in none; they stay in the bundle");
        return Ok(());
    };
    tree.make_folder(node.images(), 0o755)?;
    // Each appears under its name when it is whole: until then it has an ending that no server imports.
    for path in bundle.extract(MemberRole::Image, &tree.locate(node.images())?)? {
        eprintln!("… placing {}", path.display());
    }
    Ok(())
}

/// Leaves the documents that come along in an image, for its machines to add at their first start. A node that was made here would be
/// the same one on each of them.
fn stage_documents(tree: &Tree, bundle: &Verified) -> Result<(), Failure> {
    if bundle.contents().of(MemberRole::Documents).next().is_none() {
        return Ok(());
    }
    tree.make_folder(Path::new(DOCUMENTS_DIR).parent().unwrap_or(Path::new("/")), 0o755)?;
    let folder = tree.locate(DOCUMENTS_DIR)?;
    let left = bundle.extract(MemberRole::Documents, &folder)?;
    enable(tree, deploy::systemd::DOCUMENTS_UNIT).map_err(|error| anyhow!(error))?;
    eprintln!("  {} documents are in {}; each machine adds them at its first start", left.len(), folder.display());
    Ok(())
}

/// Puts the documents that come along into the node, each folder into the collection of its name.
///
/// * `variables`: by which the node is reached; `None` for the service of this machine.
fn add_documents(
    tree: &Tree,
    bundle: &Verified,
    folder: &Path,
    variables: Option<Vec<(&'static str, OsString)>>,
) -> Result<(), Failure> {
    let variables = variables.unwrap_or_else(|| vec![("CAIRN_CONFIG", format!("-{CONFIG}").into())]);
    if bundle.contents().of(MemberRole::Documents).next().is_none() {
        return Ok(());
    }
    let folder = folder.join(MemberRole::Documents.folder());
    bundle.extract(MemberRole::Documents, &folder)?;
    for path in collections(&folder)? {
        add_folder(&deploy::command(tree), &path, &variables)?;
    }
    Ok(())
}

/// Adds the documents that an image left, and removes what was added. Nothing to do where there are none.
pub(in crate::cli) fn add_waiting(folder: &Path) -> Result<(), Failure> {
    let program = std::env::current_exe().context("cannot find the file that is running")?;
    let variables = [("CAIRN_CONFIG", OsString::from(format!("-{CONFIG}")))];
    for path in collections(folder)? {
        add_folder(&program, &path, &variables)?;
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(())
}

/// The folders in a folder, each the content of a collection.
fn collections(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut collections: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    collections.retain(|path| path.is_dir());
    collections.sort();
    Ok(collections)
}

/// Has a program add a folder to the collection of its name.
fn add_folder(program: &Path, path: &Path, variables: &[(&'static str, OsString)]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default();
    eprintln!("… adding documents to {}", name.to_string_lossy());
    let mut command = Command::new(program);
    command.args(["add", "--json", "--yes", "-c"]).arg(name).arg(path).stdin(Stdio::null());
    command.envs(variables.iter().cloned());
    let output = command.output().context("cannot run the installed program")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(
            anyhow!("the node runs, but documents of {} were not added: {message}", name.to_string_lossy()).into()
        );
    }
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if let Some(count) = answer["created"].as_u64() {
        eprintln!("  {count} created");
    }
    Ok(())
}
