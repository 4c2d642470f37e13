//! Changes on a tree of their own, with a machine that counts and can be cut off at any step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::*;
use crate::deploy::plan::{Need, Plan};
use crate::deploy::release::{ManagedFile, current};

/// What the machine's supervisor knows, which a power cut does not change.
#[derive(Default)]
struct Machine {
    /// The release that runs.
    running: RefCell<Option<String>>,
    /// Steps taken.
    steps: Cell<usize>,
    /// The step before which the power goes.
    cut_before: Cell<Option<usize>>,
    /// Releases that fail their checks.
    broken: RefCell<Vec<String>>,
    /// Format of the data.
    format: Cell<Option<u16>>,
    /// Format that the node writes once it runs, by release.
    writes: RefCell<BTreeMap<String, u16>>,
    restored: RefCell<Vec<String>>,
    /// Whether snapshots cannot be restored.
    has_lost_snapshots: Cell<bool>,
}

impl Machine {
    fn step(&self) {
        assert_ne!(self.cut_before.get(), Some(self.steps.get()), "the power goes");
        self.steps.set(self.steps.get() + 1);
    }
}

struct Fake(Rc<Machine>, Tree);

impl Runner for Fake {
    fn stage(&mut self, release: &Release) -> Result<(), Cause> {
        self.0.step();
        assert!(Release::load(&self.1, &release.name)?.as_ref() == Some(release));
        Ok(())
    }

    fn retire(&mut self, release: &Release) -> Result<(), Cause> {
        self.stop(release)
    }

    fn prepare(&mut self, _: &Release) -> Result<(), Cause> {
        self.0.step();
        Ok(())
    }

    fn start(&mut self, release: &Release) -> Result<(), Cause> {
        self.0.step();
        let linked = self.1.link_target(current(&self.1))?;
        assert_eq!(linked.as_deref(), Some(Path::new(&release.name)), "what starts is what is in place");
        if let Some(format) = self.0.writes.borrow().get(&release.name) {
            self.0.format.set(Some(*format));
        }
        if self.0.broken.borrow().contains(&release.name) {
            *self.0.running.borrow_mut() = None;
            return Err("exited with code 1".into());
        }
        if self.0.format.get().is_some_and(|format| format > release.store_format) {
            return Err("the data is newer".into());
        }
        *self.0.running.borrow_mut() = Some(release.name.clone());
        Ok(())
    }

    fn stop(&mut self, _: &Release) -> Result<(), Cause> {
        self.0.step();
        *self.0.running.borrow_mut() = None;
        Ok(())
    }

    fn forget(&mut self, _: &Release) -> Result<(), Cause> {
        self.0.step();
        Ok(())
    }
}

impl Node for Fake {
    fn secure(&mut self) -> Result<Option<String>, Cause> {
        self.0.step();
        // The release in place opens the data, and writes it in its format.
        let in_place = self.1.link_target(current(&self.1))?;
        let name = in_place.map(|path| path.display().to_string()).unwrap_or_default();
        if let Some(format) = self.0.writes.borrow().get(&name) {
            self.0.format.set(Some(*format));
        }
        Ok(self.0.format.get().map(|format| format!("snapshot-in-format-{format}")))
    }

    fn self_test(&mut self) -> Result<(), Cause> {
        self.0.step();
        if self.0.running.borrow().is_some() { Ok(()) } else { Err("nobody answers".into()) }
    }

    fn data_format(&mut self) -> Result<Option<u16>, Cause> {
        Ok(self.0.format.get())
    }

    fn restore(&mut self, release: &Release, snapshot: &str) -> Result<(), Cause> {
        self.0.step();
        assert!(self.0.running.borrow().is_none(), "nothing holds the data");
        if self.0.has_lost_snapshots.get() {
            return Err("there is no such snapshot".into());
        }
        self.0.restored.borrow_mut().push(snapshot.to_owned());
        self.0.format.set(Some(release.store_format));
        Ok(())
    }
}

impl Report for Fake {
    fn step(&self, _: &str) {
        self.0.step();
    }
}

/// A machine with the means to change it.
struct Site {
    directory: tempfile::TempDir,
    machine: Rc<Machine>,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("temporary directory"), machine: Rc::default() }
    }

    fn tree(&self) -> Tree {
        Tree::below(self.directory.path().join("root"))
    }

    /// A release that reads the store up to a format, and puts a unit and a file of its own in place.
    fn release(&self, version: &str, store_format: u16) -> (Release, Program) {
        let path = self.directory.path().join(format!("cairn-{version}"));
        fs::write(&path, format!("executable {version}")).expect("written");
        let executable = Program::at(&path).expect("readable");
        let file = |path: String, text: String| ManagedFile { path: path.into(), mode: 0o644, bytes: text.into() };
        let files = vec![
            file("/etc/systemd/system/cairn.service".to_owned(), format!("unit of {version}")),
            file(format!("/etc/cairn.d/{version}.conf"), "x".to_owned()),
        ];
        (Release::new(&executable, version, Platform::Systemd, store_format, files, None), executable)
    }

    fn change<T>(&self, work: impl FnOnce(&mut Change<'_>) -> T) -> T {
        let tree = self.tree();
        fs::create_dir_all(self.directory.path().join("root")).expect("made");
        let fake = || Fake(Rc::clone(&self.machine), tree.clone());
        let (mut runner, mut node, report) = (fake(), fake(), fake());
        work(&mut Change { tree: &tree, runner: &mut runner, node: &mut node, report: &report })
    }

    fn install(&self, version: &str) -> Result<Changed, ChangeError> {
        let (release, executable) = self.release(version, 1);
        self.change(|change| change.install(&release, &executable, Map::new()))
    }

    /// Does `work` with the power going before its `step`th step; whether it went.
    fn cut(&self, step: usize, work: impl FnOnce(&Self)) -> bool {
        self.machine.cut_before.set(Some(self.machine.steps.get() + step));
        let ended = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.machine.cut_before.set(None);
        ended.is_err()
    }

    /// Every file outside the folder of releases with its content, and the links.
    fn placed(&self) -> BTreeMap<PathBuf, String> {
        let root = self.directory.path().join("root");
        let mut placed = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                let inside = path.strip_prefix(&root).expect("below").to_owned();
                if let Ok(target) = fs::read_link(&path) {
                    placed.insert(inside, format!("-> {}", target.display()));
                } else if path.is_dir() && !inside.starts_with("usr/local/lib/cairn") {
                    folders.push(path);
                } else if path.is_dir() {
                    folders.extend(inside.ends_with("usr/local/lib/cairn").then_some(path));
                } else if !inside.ends_with("installation.json") {
                    placed.insert(inside, fs::read_to_string(&path).expect("readable"));
                }
            }
        }
        placed
    }
}

#[test]
fn the_first_release_runs_and_the_next_one_takes_its_place() {
    let site = Site::new();
    let first = site.install("1.0.0").expect("installed");
    assert_eq!((first.previous, first.snapshot), (None, None));
    site.machine.format.set(Some(1));
    let second = site.install("2.0.0").expect("upgraded");
    assert_eq!(
        (second.previous.as_ref(), second.snapshot.as_deref()),
        (Some(&first.current), Some("snapshot-in-format-1"))
    );
    let placed = site.placed();
    assert_eq!(placed[Path::new("usr/local/lib/cairn/current")], format!("-> {}", second.current));
    assert_eq!(placed[Path::new("etc/systemd/system/cairn.service")], "unit of 2.0.0");
    assert!(!placed.contains_key(Path::new("etc/cairn.d/1.0.0.conf")), "what only the old one had is gone");
    let back = site.change(|change| change.rollback(false)).expect("rolled back").expect("a release runs");
    assert_eq!((&back.current, back.previous.as_ref()), (&first.current, Some(&second.current)));
    assert_eq!(site.placed()[Path::new("etc/systemd/system/cairn.service")], "unit of 1.0.0");
    site.install("3.0.0").expect("upgraded");
    let stored = site.tree().list("/usr/local/lib/cairn").expect("readable");
    assert!(
        !stored.contains(&second.current) && stored.contains(&first.current),
        "two releases are stored: {stored:?}"
    );
}

#[test]
fn the_power_may_go_between_any_two_steps_of_an_upgrade() {
    for step in 0.. {
        let site = Site::new();
        let first = site.install("1.0.0").expect("installed").current;
        site.machine.format.set(Some(1));
        let before = site.placed();
        let was_cut = site.cut(step, |site| drop(site.install("2.0.0")));
        // Taken back, it is as it was; done again, it is complete.
        if step % 2 == 0 && Installation::read(&site.tree()).expect("whole").expect("there").pending.is_some() {
            let back = site.change(|change| change.rollback(false)).expect("rolled back").expect("the first runs");
            assert_eq!((back.current, site.placed()), (first.clone(), before), "step {step}");
        }
        let second = site.install("2.0.0").expect("upgraded");
        assert_eq!(second.previous.as_ref(), Some(&first), "step {step}");
        assert_eq!(site.machine.running.borrow().as_ref(), Some(&second.current));
        let record = Installation::read(&site.tree()).expect("whole").expect("there");
        assert_eq!((record.pending, record.current), (None, Some(second.current)));
        if !was_cut {
            assert!(step > 5, "there are steps");
            break;
        }
    }
}

#[test]
fn the_power_may_go_between_any_two_steps_of_the_first_installation_and_of_the_removal() {
    for step in 0.. {
        let site = Site::new();
        let was_cut = site.cut(step, |site| drop(site.install("1.0.0")));
        if step % 2 == 0
            && Installation::read(&site.tree()).expect("whole").is_some_and(|record| record.pending.is_some())
        {
            assert_eq!(site.change(|change| change.rollback(false)).expect("rolled back"), None, "nothing ran before");
            assert_eq!(site.placed(), BTreeMap::new(), "step {step}");
        }
        site.install("1.0.0").expect("installed");
        let removed_at_once = !site.cut(step, |site| drop(site.change(|change| change.uninstall())));
        if !removed_at_once && Installation::read(&site.tree()).expect("whole").is_some() {
            site.change(|change| change.uninstall()).expect("removed");
        }
        assert_eq!(site.placed(), BTreeMap::new(), "step {step}");
        assert!(site.machine.running.borrow().is_none());
        if !was_cut && removed_at_once {
            break;
        }
    }
}

#[test]
fn a_release_that_does_not_come_up_is_taken_back_with_its_data() {
    let site = Site::new();
    let first = site.install("1.0.0").expect("installed").current;
    site.machine.format.set(Some(1));
    let before = site.placed();
    let (second, executable) = site.release("2.0.0", 2);
    site.machine.broken.borrow_mut().push(second.name.clone());
    site.machine.writes.borrow_mut().insert(second.name.clone(), 2);
    let error = site.change(|change| change.install(&second, &executable, Map::new())).expect_err("broken");
    assert!(matches!(&error, ChangeError::RolledBack { .. }), "{error}");
    assert_eq!(site.placed(), before);
    assert_eq!(*site.machine.restored.borrow(), ["snapshot-in-format-1"], "the data was written in a newer format");
    assert_eq!(site.machine.running.borrow().as_ref(), Some(&first));
    assert_eq!(Installation::read(&site.tree()).expect("whole").expect("there").pending, None);
}

#[test]
fn the_first_release_that_does_not_come_up_leaves_nothing() {
    let site = Site::new();
    let (first, executable) = site.release("1.0.0", 1);
    site.machine.broken.borrow_mut().push(first.name.clone());
    let error = site.change(|change| change.install(&first, &executable, Map::new())).expect_err("broken");
    assert!(error.to_string().contains("nothing is installed now"), "{error}");
    assert_eq!(site.placed(), BTreeMap::new());
}

#[test]
fn a_release_that_cannot_read_the_data_is_refused_before_anything_is_touched() {
    let site = Site::new();
    let (new, executable) = site.release("2.0.0", 2);
    site.change(|change| change.install(&new, &executable, Map::new())).expect("installed");
    site.machine.format.set(Some(2));
    let (before, steps) = (site.placed(), site.machine.steps.get());
    let error = site.install("1.0.0").expect_err("it reads format 1");
    assert!(matches!(error, ChangeError::DataTooNew { found: 2, supported: 1, .. }), "{error}");
    assert_eq!((site.placed(), site.machine.steps.get()), (before, steps));
}

#[test]
fn going_back_over_a_change_of_format_needs_a_word_and_brings_the_snapshot_back() {
    let site = Site::new();
    let first = site.install("1.0.0").expect("installed").current;
    site.machine.format.set(Some(1));
    let (second, executable) = site.release("2.0.0", 2);
    site.machine.writes.borrow_mut().insert(second.name.clone(), 2);
    site.change(|change| change.install(&second, &executable, Map::new())).expect("upgraded");
    let error = site.change(|change| change.rollback(false)).expect_err("the data is newer");
    assert!(error.to_string().contains("--restore-data"), "{error}");
    assert_eq!(site.machine.running.borrow().as_ref(), Some(&second.name), "nothing was changed");
    let back = site.change(|change| change.rollback(true)).expect("rolled back").expect("a release runs");
    assert_eq!((back.current, site.machine.format.get()), (first, Some(1)));
    assert_eq!(back.snapshot.as_deref(), Some("snapshot-in-format-1"), "what was restored is what the data is at");
}

#[test]
fn what_ran_runs_again_where_a_snapshot_cannot_be_restored() {
    let site = Site::new();
    site.install("1.0.0").expect("installed");
    site.machine.format.set(Some(1));
    let (second, executable) = site.release("2.0.0", 2);
    site.machine.writes.borrow_mut().insert(second.name.clone(), 2);
    site.change(|change| change.install(&second, &executable, Map::new())).expect("upgraded");
    site.machine.has_lost_snapshots.set(true);
    let error = site.change(|change| change.rollback(true)).expect_err("nothing to restore");
    assert!(matches!(error, ChangeError::NotRestored { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Environment);
    assert!(error.to_string().ends_with(&format!("{} runs as before", second.name)), "{error}");
    assert_eq!(site.machine.running.borrow().as_ref(), Some(&second.name));
    // One that does not come up again is told from one that does.
    site.machine.broken.borrow_mut().push(second.name.clone());
    let error = site.change(|change| change.rollback(true)).expect_err("nothing to restore");
    assert!(error.to_string().contains("does not run (exited with code 1)"), "{error}");
    let record = Installation::read(&site.tree()).expect("whole").expect("there");
    assert_eq!((record.current, record.pending), (Some(second.name), None));
}

#[test]
fn files_that_others_changed_or_made_are_told_before() {
    let site = Site::new();
    let (first, executable) = site.release("1.0.0", 1);
    site.change(|change| change.install(&first, &executable, Map::new())).expect("installed");
    let (second, executable) = site.release("2.0.0", 1);
    let tree = site.tree();
    tree.write("/etc/systemd/system/cairn.service", b"mine", 0o644).expect("written");
    tree.write("/etc/cairn.d/2.0.0.conf", b"mine", 0o644).expect("written");
    let plan = Plan::make(&tree, &second, Some(&first), &[], &executable, &[]).expect("made");
    let found: Vec<(&str, bool)> = plan.findings.iter().map(|finding| (&*finding.about, finding.is_obstacle)).collect();
    assert_eq!(found, [("changed", false), ("foreign", true)]);
    assert!(!plan.is_possible());
}

#[test]
fn room_is_asked_for_before_the_first_write() {
    let site = Site::new();
    let (first, executable) = site.release("1.0.0", 1);
    let needs = [Need { path: "/var/lib/cairn".into(), bytes: u64::MAX / 2, what: "data" }];
    fs::create_dir_all(site.directory.path().join("root")).expect("made");
    let plan = Plan::make(&site.tree(), &first, None, &[], &executable, &needs).expect("made");
    let finding = &plan.findings[0];
    assert!(finding.is_obstacle && finding.message.contains("nothing was written"), "{}", finding.message);
    assert_eq!(site.placed(), BTreeMap::new());
}

#[test]
fn a_damaged_release_is_named_and_written_anew() {
    let site = Site::new();
    let name = site.install("1.0.0").expect("installed").current;
    let file = site.directory.path().join("root/usr/local/lib/cairn").join(&name).join("files/0");
    fs::write(&file, "other").expect("written");
    let error = Release::load(&site.tree(), &name).expect_err("damaged");
    assert!(error.to_string().contains("files/0 is damaged"), "{error}");
    assert_eq!(site.install("1.0.0").expect("installed").current, name);
    Release::load(&site.tree(), &name).expect("whole again");
    fs::write(&file, "other").expect("written");
    site.install("2.0.0").expect("a damaged one is no reason to keep it");
}

#[test]
fn an_executable_that_is_missing_or_damaged_is_written_anew() {
    let site = Site::new();
    let (release, executable) = site.release("1.0.0", 1);
    let name = site.install("1.0.0").expect("installed").current;
    let stored = site.directory.path().join("root/usr/local/lib/cairn").join(&name).join("cairn");
    let damages: [fn(&Path) -> std::io::Result<()>; 3] =
        [|path| fs::remove_file(path), |path| fs::write(path, ""), |path| fs::write(path, "executable 9.9.9")];
    for damage in damages {
        damage(&stored).expect("damaged");
        let plan = Plan::make(&site.tree(), &release, Some(&release), &[], &executable, &[]).expect("made");
        assert!(plan.changes_files(), "the plan says what is written");
        site.install("1.0.0").expect("installed");
        assert_eq!(fs::read_to_string(&stored).expect("there"), "executable 1.0.0");
    }
}

#[test]
fn an_executable_that_changes_after_it_was_planned_is_not_stored() {
    let site = Site::new();
    let (release, executable) = site.release("1.0.0", 1);
    fs::write(&executable.path, "executable 9.9.9").expect("written");
    let error = site.change(|change| change.install(&release, &executable, Map::new())).expect_err("another one");
    assert!(error.to_string().contains("changed while"), "{error}");
    assert_eq!(site.placed(), BTreeMap::new());
}
