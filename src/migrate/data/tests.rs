mod trees;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use self::trees::{Tree, deep, everything, is_root, random, remove_deep, snapshot};
use super::*;

fn quiet(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn request<'a>(source: &'a Path, target: &'a Path) -> CopyRequest<'a> {
    CopyRequest { source, target, manifest: None }
}

fn copied(source: &Path, target: &Path) -> Copied {
    copy(&request(source, target), &mut quiet).expect("copied")
}

fn refusal(source: &Path, target: &Path) -> DataError {
    copy(&request(source, target), &mut quiet).expect_err("refused")
}

fn differences(expected: &Expected, target: &Path) -> Vec<Difference> {
    let mut found = Vec::new();
    let verified = verify(expected, target, &mut quiet, &mut |difference| found.push(difference)).expect("compared");
    assert_eq!(verified.differences, found.len() as u64);
    found
}

/// The differences to the list and to the tree itself, which have to be the same.
fn all_differences(source: &Path, copied: &Copied, target: &Path) -> Vec<(String, Aspect)> {
    let short = |found: Vec<Difference>| -> Vec<(String, Aspect)> {
        found.into_iter().map(|difference| (difference.path, difference.aspect)).collect()
    };
    let by_list = short(differences(&Expected::Manifest(copied.manifest.clone()), target));
    assert_eq!(short(differences(&Expected::Source(source.to_owned()), target)), by_list);
    by_list
}

#[test]
fn a_copy_has_everything_that_its_source_has() {
    let tree = Tree::new();
    everything(&tree.source);
    let before = trees::untouchable(&tree.source);
    let copied = copied(&tree.source, &tree.target);
    assert_eq!(trees::untouchable(&tree.source), before, "the source is only read");
    let expected: BTreeMap<_, _> =
        snapshot(&tree.source).into_iter().filter(|(_, facts)| !facts.starts_with("socket")).collect();
    assert_eq!(snapshot(&tree.target), expected);
    assert_eq!(copied.sockets, ["run/socket"]);
    assert_eq!(all_differences(&tree.source, &copied, &tree.target), []);
    // Names for one file are names for one file, and it is not the source's.
    let inode = |path: &str| fs::symlink_metadata(tree.target.join(path)).expect("there").ino();
    assert_eq!(inode("one"), inode("sub/two"));
    assert_eq!(fs::metadata(tree.target.join("one")).expect("there").nlink(), 2);
    assert_ne!(inode("one"), fs::metadata(tree.source.join("one")).expect("there").ino());
    // A hole is a hole.
    let blocks = |root: &Path| fs::metadata(root.join("sparse")).expect("there").blocks();
    assert!(blocks(&tree.target) <= blocks(&tree.source) + 8, "{} {}", blocks(&tree.target), blocks(&tree.source));
    assert!(!tree.target.join(".cairn-migrate.partial").exists());
}

/// Where the system is asked to leave them alone, which a file's owner and root may.
#[test]
fn times_of_access_stay_as_they_are() {
    let tree = Tree::new();
    fs::create_dir(tree.source.join("folder")).expect("made");
    fs::write(tree.source.join("folder/file"), "content").expect("written");
    let paths = ["", "folder", "folder/file"].map(|path| tree.source.join(path));
    for path in &paths {
        // Otherwise most mounts update the time once a day only.
        trees::set_mtime(path, 1_000_000_000, 5);
    }
    let done = copied(&tree.source, &tree.target);
    assert_eq!(differences(&Expected::Source(tree.source.clone()), &tree.target), []);
    assert_eq!(differences(&Expected::Manifest(done.manifest), &tree.target), []);
    for path in &paths {
        let facts = fs::metadata(path).expect("there");
        assert_eq!((facts.atime(), facts.atime_nsec()), (1_000_000_000, 5), "{}", path.display());
    }
}

/// Stops at every point at which the copy asks, and resumes; each time also with a list that lost its end.
#[test]
fn a_copy_that_is_interrupted_anywhere_is_resumed() {
    let mut stops = 0;
    loop {
        let tree = Tree::new();
        everything(&tree.source);
        let before = trees::untouchable(&tree.source);
        let mut left = stops;
        let stopped = copy(&request(&tree.source, &tree.target), &mut |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let manifest = tree.folder.path().join(".target.cairn-manifest.jsonl");
        if let Err(error) = &stopped {
            assert!(matches!(error, DataError::Stopped), "{error}");
            let error = verify(&Expected::Manifest(manifest.clone()), &tree.target, &mut quiet, &mut |_| {});
            assert!(matches!(error, Err(DataError::Manifest { .. })), "half a list proves nothing");
            // As after a power cut, which loses what was written last.
            let length = fs::metadata(&manifest).expect("there").len();
            let lost = length * (stops as u64 % 4) / 4;
            fs::File::options().write(true).open(&manifest).expect("opened").set_len(length - lost).expect("cut");
        }
        let resumed = copied(&tree.source, &tree.target);
        let expected: BTreeMap<_, _> =
            snapshot(&tree.source).into_iter().filter(|(_, facts)| !facts.starts_with("socket")).collect();
        assert_eq!(snapshot(&tree.target), expected, "stopped at {stops}");
        assert_eq!(trees::untouchable(&tree.source), before);
        assert_eq!(all_differences(&tree.source, &resumed, &tree.target), []);
        if stopped.is_ok() {
            assert!(resumed.files == 0 && resumed.files_before > 5, "nothing is written twice: {resumed:?}");
            break;
        }
        stops += 1;
    }
    assert!(stops > 40, "{stops}");
}

#[test]
fn what_an_interrupted_copy_wrote_wrongly_is_written_again() {
    let tree = Tree::new();
    everything(&tree.source);
    copied(&tree.source, &tree.target);
    // The same size and time, other content: as a file whose bytes never reached the disk.
    let text = tree.target.join("sub/text");
    let mtime = fs::metadata(&text).expect("there").modified().expect("a time");
    fs::write(&text, "jello").expect("written");
    fs::File::options().write(true).open(&text).expect("opened").set_modified(mtime).expect("set");
    fs::write(tree.target.join("sub/extra"), "x").expect("written");
    fs::create_dir_all(tree.target.join("more/and/more")).expect("made");
    fs::remove_file(tree.target.join("one")).expect("removed");
    fs::create_dir(tree.target.join("one")).expect("made");
    fs::remove_dir_all(tree.target.join("empty")).expect("removed");
    fs::write(tree.target.join("empty"), "a file").expect("written");
    let resumed = copied(&tree.source, &tree.target);
    assert_eq!(all_differences(&tree.source, &resumed, &tree.target), []);
    assert_eq!(fs::read_to_string(&text).expect("there"), "hello");
}

#[test]
fn each_difference_is_found() {
    type Change = (&'static str, Aspect, fn(&Path));
    let changes: &[Change] = &[
        ("sub/text", Aspect::Content, |path| trees::rewrite(path, "hallo")),
        ("sub/text", Aspect::Content, |path| trees::rewrite(path, "hello!")),
        ("sparse", Aspect::Content, |path| trees::rewrite_at(path, (3 << 30) - 1, b"x")),
        ("sub/text", Aspect::Mtime, |path| trees::set_mtime(path, 1, 1)),
        ("sub/text", Aspect::Mode, |path| trees::chmod(path, 0o600)),
        ("sub/setuid", Aspect::Mode, |path| trees::chmod(path, 0o755)),
        ("sticky", Aspect::Mode, |path| trees::chmod(path, 0o777)),
        ("sub/text", Aspect::Xattr, |path| trees::set_xattr(path, "user.note", b"other")),
        ("sub/text", Aspect::Xattr, |path| trees::set_xattr(path, "user.new", b"")),
        ("sub/text", Aspect::Xattr, |path| trees::remove_xattr(path, "user.note")),
        ("sub/outside", Aspect::Link, |path| trees::relink(path, "elsewhere")),
        ("sub/two", Aspect::Link, trees::unshare),
        ("empty", Aspect::Missing, |path| trees::unchanged_parent(path, |path| fs::remove_dir(path).expect("removed"))),
        ("sub/more", Aspect::Extra, |path| {
            trees::unchanged_parent(path, |path| fs::write(path, "x").expect("written"));
        }),
        ("run/pipe", Aspect::Kind, |path| {
            trees::unchanged_parent(path, |path| {
                fs::remove_file(path).expect("removed");
                fs::write(path, "").expect("written");
            });
        }),
    ];
    let as_root: &[Change] = &[
        ("sub/text", Aspect::Owner, |path| trees::chown(path, 7, 1001)),
        ("sub/text", Aspect::Owner, |path| trees::chown(path, 1000, 7)),
        ("link", Aspect::Owner, |path| trees::chown(path, 7, 7)),
        ("run/null", Aspect::Device, trees::other_device),
        ("sub/capable", Aspect::Xattr, |path| trees::remove_xattr(path, "security.capability")),
        ("shared", Aspect::Xattr, |path| trees::remove_xattr(path, "system.posix_acl_default")),
    ];
    let tree = Tree::new();
    everything(&tree.source);
    let copied_once = copied(&tree.source, &tree.target);
    for (path, aspect, change) in changes.iter().chain(as_root.iter().filter(|_| is_root())) {
        change(&tree.target.join(path));
        let found = all_differences(&tree.source, &copied_once, &tree.target);
        assert_eq!(found, [((*path).to_owned(), *aspect)], "{path}");
        // Repaired by another run.
        copied(&tree.source, &tree.target);
        assert_eq!(all_differences(&tree.source, &copied_once, &tree.target), [], "{path} {aspect:?}");
    }
}

#[test]
fn a_list_shows_what_changed_in_the_source_since() {
    let tree = Tree::new();
    everything(&tree.source);
    let done = copied(&tree.source, &tree.target);
    trees::rewrite(&tree.source.join("sub/text"), "later");
    fs::write(tree.source.join("zz"), "new").expect("written");
    fs::remove_dir(tree.source.join("empty")).expect("removed");
    let found = differences(&Expected::Manifest(done.manifest), &tree.target);
    let found: Vec<(&str, Aspect)> = found.iter().map(|one| (one.path.as_str(), one.aspect)).collect();
    assert_eq!(found, [".", "empty", "sub/text", "zz"].map(|path| (path, Aspect::Source)));
    let text =
        Difference { path: "zz".to_owned(), aspect: Aspect::Source, expected: String::new(), found: String::new() };
    assert_eq!(text.to_string(), "zz: source: changed since it was copied; copy it again");
}

/// The source changes at some point of the copy: what is read later, now or was read before.
#[test]
fn a_source_that_is_in_use_is_refused() {
    for path in ["aa", "mm", "zz", "new"] {
        let tree = Tree::new();
        for name in ["aa", "mm", "zz"] {
            fs::write(tree.source.join(name), vec![1; 3 << 20]).expect("written");
        }
        let mut is_done = false;
        let result = copy(&request(&tree.source, &tree.target), &mut |progress| {
            // In the middle of the second file.
            if progress.bytes >= 4 << 20 && !is_done {
                is_done = true;
                fs::write(tree.source.join(path), "changed").expect("written");
            }
            ControlFlow::Continue(())
        });
        // What changed before it was read is copied as it is now.
        assert_eq!(matches!(result, Err(DataError::InUse { .. })), path != "zz", "{path}: {result:?}");
        if let Err(error) = result {
            assert!(error.to_string().contains("stop the service first"), "{error}");
        }
        let done = copied(&tree.source, &tree.target);
        assert_eq!(all_differences(&tree.source, &done, &tree.target), [], "{path}");
    }
}

#[test]
fn what_cannot_be_right_is_refused_before_anything_is_written() {
    let tree = Tree::new();
    fs::create_dir_all(tree.source.join("in")).expect("made");
    fs::write(tree.source.join("in/file"), "x").expect("written");
    let before = snapshot(tree.folder.path());
    let folder = tree.folder.path();
    symlink(&tree.source, folder.join("alias")).expect("linked");
    fs::create_dir(folder.join("full")).expect("made");
    fs::write(folder.join("full/mine"), "x").expect("written");
    assert!(matches!(refusal(&tree.source, &tree.source.join("in/copy")), DataError::Inside { .. }));
    assert!(matches!(refusal(&tree.source, &folder.join("alias/in")), DataError::Inside { .. }));
    assert!(matches!(refusal(&tree.source, &tree.source), DataError::Inside { .. }));
    assert!(matches!(refusal(&tree.source, folder), DataError::Inside { .. }));
    assert!(matches!(refusal(&tree.source, &folder.join("full")), DataError::NotEmpty { .. }));
    assert!(matches!(refusal(&tree.source, &folder.join("full/mine")), DataError::Kind { .. }));
    assert!(matches!(refusal(&folder.join("full/mine"), &tree.target), DataError::Kind { .. }));
    assert!(matches!(refusal(&folder.join("none"), &tree.target), DataError::Read { .. }));
    for manifest in [tree.source.join("in/list"), tree.target.join("list"), folder.join("alias/list")] {
        let request = CopyRequest { source: &tree.source, target: &tree.target, manifest: Some(&manifest) };
        let error = copy(&request, &mut quiet).expect_err("refused");
        assert!(matches!(error, DataError::ManifestInside { .. } | DataError::Read { .. }), "{error}");
    }
    fs::remove_file(folder.join("alias")).expect("removed");
    fs::remove_dir_all(folder.join("full")).expect("removed");
    let text = |path: &Path| snapshot(path).into_keys().collect::<Vec<PathBuf>>();
    assert_eq!(text(folder), before.into_keys().collect::<Vec<_>>());
    // The target of one source is not that of another one.
    copied(&tree.source, &tree.target);
    fs::create_dir(folder.join("other")).expect("made");
    assert!(matches!(refusal(&folder.join("other"), &tree.target), DataError::OtherSource { .. }));
    let manifest = folder.join("list");
    let other = CopyRequest { source: &tree.source, target: &tree.target, manifest: Some(&manifest) };
    assert!(matches!(copy(&other, &mut quiet), Err(DataError::OtherManifest { .. })));
}

#[test]
fn two_copies_to_one_target_do_not_run_at_once() {
    let tree = Tree::new();
    fs::write(tree.source.join("file"), "x").expect("written");
    let mut second = None;
    copy(&request(&tree.source, &tree.target), &mut |_| {
        second.get_or_insert_with(|| refusal(&tree.source, &tree.target));
        ControlFlow::Continue(())
    })
    .expect("copied");
    // Until there is a file in it the target is as good as new.
    assert!(matches!(second, Some(DataError::Locked { .. })), "{second:?}");
}

#[test]
fn a_link_in_the_target_leads_nowhere() {
    let tree = Tree::new();
    everything(&tree.source);
    let outside = tree.folder.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("text"), "mine").expect("written");
    copied(&tree.source, &tree.target);
    fs::remove_dir_all(tree.target.join("sub")).expect("removed");
    symlink(&outside, tree.target.join("sub")).expect("linked");
    fs::remove_file(tree.target.join("sparse")).expect("removed");
    symlink(outside.join("text"), tree.target.join("sparse")).expect("linked");
    symlink(outside.join("text"), tree.target.join(".cairn-migrate.partial")).expect("linked");
    let resumed = copied(&tree.source, &tree.target);
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 1);
    assert_eq!(fs::read_to_string(outside.join("text")).expect("there"), "mine");
    assert_eq!(all_differences(&tree.source, &resumed, &tree.target), []);
}

#[test]
fn ten_thousand_folders_in_each_other_are_copied() {
    let tree = Tree::new();
    deep(&tree.source, 10_000);
    let done = copied(&tree.source, &tree.target);
    assert_eq!((done.entries, done.files), (10_003, 1));
    assert_eq!(all_differences(&tree.source, &done, &tree.target), []);
    let list = fs::metadata(&done.manifest).expect("there").len();
    assert!(list < 20 << 20, "the list has {list} bytes: it grows with the square of the depth");
    assert_eq!(copied(&tree.source, &tree.target).files_before, 1);
    remove_deep(&tree.source);
    remove_deep(&tree.target);
}

#[test]
fn a_file_of_terabytes_without_content_takes_no_time() {
    let tree = Tree::new();
    let file = fs::File::create(tree.source.join("disk.img")).expect("made");
    if file.set_len(4 << 40).is_err() {
        crate::base::left_out::left_out("a file of 4 TiB takes a file system that holds one");
        return;
    }
    trees::rewrite_at(&tree.source.join("disk.img"), 3 << 40, b"content");
    let start = std::time::Instant::now();
    let done = copied(&tree.source, &tree.target);
    assert_eq!(all_differences(&tree.source, &done, &tree.target), []);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    trees::rewrite_at(&tree.target.join("disk.img"), 1 << 40, b"x");
    let found = all_differences(&tree.source, &done, &tree.target);
    assert_eq!(found, [("disk.img".to_owned(), Aspect::Content)]);
}

#[test]
fn names_that_steer_a_terminal_are_copied_and_escaped() {
    use std::os::unix::ffi::OsStrExt as _;
    let tree = Tree::new();
    let names: [&[u8]; 5] = [b"a\nb", b"\x1b[2J", b"\xff\xfe", b" ", "\u{202e}x".as_bytes()];
    for name in names {
        fs::write(tree.source.join(std::ffi::OsStr::from_bytes(name)), name).expect("written");
    }
    let done = copied(&tree.source, &tree.target);
    assert_eq!(snapshot(&tree.target), snapshot(&tree.source));
    fs::remove_dir_all(&tree.target).expect("removed");
    fs::create_dir(&tree.target).expect("made");
    for difference in differences(&Expected::Manifest(done.manifest), &tree.target) {
        let text = difference.to_string();
        assert!(!text.chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{text:?}");
    }
}

/// A list that somebody changed is an error and no panic, and never proof.
#[test]
fn a_damaged_list_is_an_error() {
    let tree = Tree::new();
    everything(&tree.source);
    let done = copied(&tree.source, &tree.target);
    let text = fs::read_to_string(&done.manifest).expect("read");
    let lines: Vec<&str> = text.lines().collect();
    let path = tree.folder.path().join("list");
    let verified = |text: &str| {
        fs::write(&path, text).expect("written");
        verify(&Expected::Manifest(path.clone()), &tree.target, &mut quiet, &mut |_| {})
    };
    assert_eq!(verified(&text).expect("whole").differences, 0);
    for at in 0..lines.len() {
        let without: Vec<&str> =
            lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect();
        assert!(verified(&(without.join("\n") + "\n")).is_err(), "without line {at}: {}", lines[at]);
    }
    for other in
        ["", "{}", "null\n", "[1]\n", "\u{0}\n", &text[..text.len() - 1], &text.replace("\"mode\":", "\"mod\":")]
    {
        assert!(verified(other).is_err(), "{other:.40}");
    }
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert!(verified(&(swapped.join("\n") + "\n")).is_err());
}

/// The same test as another user, who sees the files of a third one.
#[test]
fn without_root_other_peoples_files_are_refused() {
    if let Some(root) = std::env::var_os("CAIRN_TEST_TREE").map(PathBuf::from) {
        assert!(matches!(refusal(&root.join("source"), &root.join("target")), DataError::Owner { uid: 4242, .. }));
        assert!(!root.join("target").exists(), "nothing is written");
        let own = root.join("own");
        fs::create_dir(&own).expect("made");
        fs::write(own.join("file"), "mine").expect("written");
        let done = copied(&own, &root.join("target"));
        assert_eq!(all_differences(&own, &done, &root.join("target")), []);
        return;
    }
    if !is_root() {
        crate::base::left_out::left_out("giving a file to another user takes root");
        return;
    }
    let tree = Tree::new();
    let user = 65_534;
    fs::write(tree.source.join("file"), "theirs").expect("written");
    trees::chown(&tree.source.join("file"), 4242, 4242);
    trees::chown(&tree.source, user, user);
    trees::chown(tree.folder.path(), user, user);
    let program = tree.folder.path().join("program");
    fs::copy(std::env::current_exe().expect("a program"), &program).expect("copied");
    let name = std::thread::current().name().expect("a test").to_owned();
    let mut command = std::process::Command::new(program);
    command.uid(user).gid(user).args(["--exact", &name]).env("CAIRN_TEST_TREE", tree.folder.path());
    let output = command.current_dir(tree.folder.path()).output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    // Root copies it.
    fs::remove_dir_all(&tree.target).expect("removed");
    copied(&tree.source, &tree.target);
    assert_eq!(fs::metadata(tree.target.join("file")).expect("there").uid(), 4242);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_is_copied_and_its_copy_is_right(plan in random(), stop in 0_usize..60) {
        let tree = Tree::new();
        trees::build(&tree.source, &plan);
        let mut left = stop;
        let _ = copy(&request(&tree.source, &tree.target), &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let done = copied(&tree.source, &tree.target);
        prop_assert_eq!(snapshot(&tree.target), snapshot(&tree.source));
        prop_assert_eq!(all_differences(&tree.source, &done, &tree.target), []);
    }
}
