//! Bundles: what is packed comes out again, and nothing that was altered is taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn::base::UnixMillis;
use cairn::deploy::OWN_EXECUTABLE;
use cairn::deploy::bundle::{self, KeyPair, LockedKey, MemberRole, Plan, PublicKey, SecretKey};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign_executable::{AARCH64, foreign_executable};
use crate::image::SmallDisk;
use crate::node::{CAIRN, assert_says, cairn, json_of, list, stderr, stdout, texts};
use crate::tiny_executable::tiny_executable;

/// Where bundles are made: a key, and things to pack.
struct BundleFixture {
    folder: TempDir,
}

impl BundleFixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = Self { folder };
        for (path, text) in [
            ("manual/start.md", "# Start\nTurn the key."),
            ("manual/deep/er.md", "# Deeper"),
            ("manual/.git/config", "hidden"),
            ("manual/.gitignore", "drafts/\n"),
            ("manual/drafts/no.md", "not yet"),
            ("tiny/model.safetensors", "weights"),
            ("node.toml", "[server]\nlisten = \"0.0.0.0:7171\"\n"),
            ("nats.tar.gz", "an image"),
        ] {
            let path = fixture.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        json_of(&fixture.bundle(&["keygen", "-o", "site.key"]));
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("readable")
    }

    fn bundle(&self, arguments: &[&str]) -> Output {
        let mut command = cairn();
        command.current_dir(self.folder.path()).args(["--json", "bundle"]).args(arguments);
        command.output().expect("the binary runs")
    }

    /// A bundle with one of everything.
    fn full(&self) -> Value {
        json_of(&self.bundle(&[
            "create",
            "-o",
            "site.bundle",
            "--key",
            "site.key",
            "--documents",
            "manual",
            "--model",
            "tiny",
            "--config",
            "node.toml",
            "--image",
            "nats.tar.gz",
        ]))
    }

    /// Why a bundle is refused.
    fn refusal(&self, file: &str) -> String {
        let output = self.bundle(&["verify", file, "--public-key", "site.pub"]);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        stderr(&output)
    }

    /// Runs another program here; what it printed.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(arguments);
        command.output().unwrap_or_else(|error| panic!("{program} is missing, run make setup-test: {error}"))
    }

    fn must_run(&self, program: &str, arguments: &[&str]) {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}{}", stdout(&output), stderr(&output));
    }
}

const MEMBERS: [&str; 6] = [
    "configuration/cairn.toml",
    "documents/manual/deep/er.md",
    "documents/manual/start.md",
    "executable/cairn",
    "images/nats.tar.gz",
    "models/tiny/model.safetensors",
];

#[test]
fn what_is_packed_comes_out_again() {
    let fixture = BundleFixture::new();
    let written = fixture.full();
    assert_eq!(texts(&written["members"], "path"), MEMBERS);
    assert_eq!(written["file_bytes"], fixture.read("site.bundle").len());
    let verified = json_of(&fixture.bundle(&["verify", "site.bundle", "--public-key", "site.pub"]));
    assert_eq!(verified["members"], written["members"]);
    assert_eq!(verified["key"], written["key"]);
    let listed = json_of(&fixture.bundle(&["list", "site.bundle"]));
    assert_eq!(listed["members"], written["members"]);

    let key = PublicKey::from_text_or_file(written["public_key"].as_str().expect("a key")).expect("a key");
    let bundle = bundle::open(&fixture.path("site.bundle"), &key).expect("good");
    for (role, packed) in [
        (MemberRole::Configuration, vec![("cairn.toml", "node.toml")]),
        (
            MemberRole::Documents,
            vec![("manual/deep/er.md", "manual/deep/er.md"), ("manual/start.md", "manual/start.md")],
        ),
        (MemberRole::Image, vec![("nats.tar.gz", "nats.tar.gz")]),
        (MemberRole::Model, vec![("tiny/model.safetensors", "tiny/model.safetensors")]),
    ] {
        let to = fixture.path("out").join(role.to_string());
        let files = bundle.extract(role, &to).expect("room");
        assert_eq!(files, packed.iter().map(|(name, _)| to.join(name)).collect::<Vec<_>>());
        for (name, source) in packed {
            assert_eq!(fs::read(to.join(name)).expect("written"), fixture.read(source));
        }
    }
    let program = bundle.extract(MemberRole::Executable, &fixture.path("out")).expect("room");
    assert!(fs::read(&program[0]).expect("written") == fs::read(CAIRN).expect("readable"), "another program came out");
    let version = Command::new(&program[0]).arg("--version").output().expect("it runs");
    assert_eq!(stdout(&version), format!("cairn {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_bundle_for_both_processors_installs_on_each() {
    let fixture = BundleFixture::new();
    let other = foreign_executable(fixture.folder.path(), AARCH64);
    let other = other.to_string_lossy();
    let create = |arguments: &[&str]| {
        json_of(&fixture.bundle(&[&["create", "-o", "site.bundle", "--key", "site.key"], arguments].concat()))
    };
    let written = create(&["--with-platform", &other]);
    assert_eq!((&written["format"], &written["architectures"]), (&json!(2), &json!(["x86_64", "aarch64"])));
    let paths = texts(&written["members"], "path");
    assert_eq!(paths, ["executable/aarch64/cairn", "executable/x86_64/cairn"]);
    let verified = stdout(
        &cairn()
            .current_dir(fixture.folder.path())
            .args(["bundle", "verify", "site.bundle", "--public-key", "site.pub"])
            .output()
            .expect("it runs"),
    );
    assert_says(&verified, &["for x86_64 and aarch64"]);
    let install = |root: &str| {
        let arguments = ["install", "--yes", "--root", root, "--bundle", "site.bundle", "--public-key", "site.pub"];
        cairn().current_dir(fixture.folder.path()).args(arguments).output().expect("it runs")
    };
    let installed = install("image");
    assert!(installed.status.success(), "{}", stderr(&installed));
    let program = fixture.read("image/usr/local/lib/cairn/current/cairn");
    assert!(program == fs::read(CAIRN).expect("readable"), "the program of this processor is taken");

    create(&["--executable", &other]);
    let refused = install("other");
    assert_eq!(refused.status.code(), Some(1));
    assert_says(&stderr(&refused), &["is for aarch64", "what it installs for x86_64", "use a bundle for x86_64"]);
}

#[test]
fn tar_and_minisign_check_it_without_cairn() {
    let fixture = BundleFixture::new();
    let written = fixture.full();
    fixture.must_run("tar", &["xf", "site.bundle"]);
    fixture.must_run("minisign", &["-Vm", "bundle.json", "-p", "site.pub"]);
    let key = written["public_key"].as_str().expect("a key");
    fixture.must_run("minisign", &["-Vm", "bundle.json", "-P", key]);
    let sums = list(&written["members"]).iter().map(|member| {
        format!("{}  {}\n", member["sha256"].as_str().expect("a digest"), member["path"].as_str().expect("a path"))
    });
    fs::write(fixture.path("sums"), sums.collect::<String>()).expect("written");
    fixture.must_run("sha256sum", &["--check", "--strict", "sums"]);
    // And says no to something else.
    fs::write(fixture.path("bundle.json"), "{}").expect("written");
    assert!(!fixture.run("minisign", &["-Vm", "bundle.json", "-p", "site.pub"]).status.success());
}

#[test]
fn keys_and_signatures_of_minisign_are_taken() {
    let fixture = BundleFixture::new();
    fixture.must_run("minisign", &["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"]);
    json_of(&fixture.bundle(&["create", "-o", "a.bundle", "--key", "theirs.key", "--documents", "manual"]));
    json_of(&fixture.bundle(&["verify", "a.bundle", "--public-key", "theirs.pub"]));

    // Signed again by minisign itself, and put together anew by tar.
    fixture.must_run("tar", &["xf", "a.bundle"]);
    fixture.must_run("minisign", &["-S", "-W", "-s", "theirs.key", "-m", "bundle.json", "-t", "by hand"]);
    let mut builder = tar::Builder::new(Vec::new());
    let list_of: Value = serde_json::from_slice(&fixture.read("bundle.json")).expect("JSON");
    let mut paths = vec!["bundle.json".to_owned(), "bundle.json.minisig".to_owned()];
    paths.extend(texts(&list_of["members"], "path"));
    for path in paths {
        let content = fixture.read(&path);
        let mut header = tar::Header::new_ustar();
        header.set_mode(if path == "executable/cairn" { 0o755 } else { 0o644 });
        header.set_entry_type(tar::EntryType::Regular);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, &path, &content[..]).expect("written");
    }
    fs::write(fixture.path("b.bundle"), builder.into_inner().expect("written")).expect("written");
    let verified = json_of(&fixture.bundle(&["verify", "b.bundle", "--public-key", "theirs.pub"]));
    assert_eq!(verified["comment"], "by hand");
}

#[test]
fn a_password_protects_a_key() {
    let fixture = BundleFixture::new();
    fs::write(fixture.path("password"), "correct horse\n").expect("written");
    fs::write(fixture.path("wrong"), "battery staple\n").expect("written");
    json_of(&fixture.bundle(&["keygen", "-o", "safe.key", "--password-file", "password"]));
    let create = |extra: &[&str]| fixture.bundle(&[&["create", "-o", "a.bundle", "--key", "safe.key"], extra].concat());
    let output = create(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["safe.key", "--password-file"]);
    assert_says(&stderr(&create(&["--password-file", "wrong"])), &["password is wrong"]);
    json_of(&create(&["--password-file", "password"]));
    json_of(&fixture.bundle(&["verify", "a.bundle", "--public-key", "safe.pub"]));
}

#[test]
fn a_key_is_never_written_over() {
    let fixture = BundleFixture::new();
    let before = fixture.read("site.key");
    assert_says(&stderr(&fixture.bundle(&["keygen", "-o", "site.key"])), &["site.key exists", "another name"]);
    assert_says(&stderr(&fixture.bundle(&["keygen", "-o", "new.pub"])), &["new.pub"]);
    assert_eq!(fixture.read("site.key"), before);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(fixture.path("site.key")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn each_damage_is_named() {
    let fixture = BundleFixture::new();
    fixture.full();
    let whole = fixture.read("site.bundle");
    let write = |bytes: &[u8]| fs::write(fixture.path("bad.bundle"), bytes).expect("written");
    let program = fs::read(CAIRN).expect("readable");

    write(&whole[..whole.len() - 1]);
    assert_says(&fixture.refusal("bad.bundle"), &["bytes and should have", "copy it again"]);
    write(&[&whole[..], b"x"].concat());
    assert_says(&fixture.refusal("bad.bundle"), &["bytes and should have"]);
    write(&whole[..100]);
    assert_says(&fixture.refusal("bad.bundle"), &["not a Cairn bundle", "too short"]);
    write(b"");
    assert_says(&fixture.refusal("bad.bundle"), &["not a Cairn bundle"]);
    write(&program);
    assert_says(&fixture.refusal("bad.bundle"), &["not a Cairn bundle"]);

    let place = |needle: &[u8]| whole.windows(needle.len()).position(|part| part == needle).expect("in it");
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        write(&bytes);
        fixture.refusal("bad.bundle")
    };
    assert_says(
        &flip(place(b"Turn the key")),
        &["documents/manual/start.md", "is not what was signed", "copy the bundle again"],
    );
    assert_says(&flip(place(b"\"created\"") + 2), &["signature does not match", "altered"]);

    // Without its signature: the list alone, then what it lists.
    let signature = place(b"bundle.json.minisig");
    let after = signature + 2 * 512;
    write(&[&whole[..signature], &whole[after..]].concat());
    assert_says(&fixture.refusal("bad.bundle"), &["is not signed", "--key"]);

    json_of(&fixture.bundle(&["keygen", "-o", "other.key"]));
    let output = fixture.bundle(&["verify", "site.bundle", "--public-key", "other.pub"]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["signed by key", "the public key given is"]);
    let output = fixture.bundle(&["verify", "site.bundle", "--public-key", "nothing.pub"]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(&stderr(&output), &["there is no file nothing.pub"]);
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let fixture = BundleFixture::new();
    let refusal = |arguments: &[&str]| {
        let output = fixture.bundle(&[&["create", "-o", "a.bundle", "--key", "site.key"], arguments].concat());
        assert!(!output.status.success());
        assert!(!fixture.path("a.bundle").exists() && !fixture.path("a.bundle.partial").exists());
        stderr(&output)
    };
    assert_says(&refusal(&["--executable", "/bin/ls"]), &["dynamically"]);
    assert_says(&refusal(&["--image", "node.toml"]), &["node.toml", "no ending that K3s imports"]);
    assert_says(&refusal(&["--documents", "node.toml"]), &["node.toml", "name the folder"]);
    assert_says(&refusal(&["--documents", "nowhere"]), &["cannot read", "nowhere"]);
    fs::create_dir(fixture.path("empty")).expect("made");
    assert_says(&refusal(&["--model", "empty"]), &["no files in it"]);
    fs::create_dir_all(fixture.path("other/manual")).expect("made");
    fs::write(fixture.path("other/manual/start.md"), "x").expect("written");
    assert_says(
        &refusal(&["--documents", "manual", "--documents", "other/manual"]),
        &["documents/manual/start.md", "twice"],
    );
    fs::write(fixture.path("wrong.toml"), "[server]\nlisten = 7\n").expect("written");
    assert_says(&refusal(&["--config", "wrong.toml"]), &["server.listen"]);
    assert_says(&refusal(&["--key", "node.toml"]), &[]);
    let output = fixture.bundle(&["create", "-o", "a.bundle", "--key", "node.toml"]);
    assert_says(&stderr(&output), &["node.toml is not a secret key", "keygen"]);
    // Nothing is replaced by what is made of it, and no bundle packs an earlier one.
    let key = fs::read(fixture.path("site.key")).expect("readable");
    for (file, expected) in [("site.key", "would be replaced"), ("manual/a.bundle", "is inside manual")] {
        let output = fixture.bundle(&["create", "-o", file, "--key", "site.key", "--documents", "manual"]);
        assert_eq!(output.status.code(), Some(2));
        assert_says(&stderr(&output), &[expected]);
    }
    assert_eq!(fs::read(fixture.path("site.key")).expect("readable"), key);
    if let Some(disk) = SmallDisk::mount() {
        let file = disk.path().join("a.bundle");
        let output = fixture.bundle(&["create", "-o", &file.to_string_lossy(), "--key", "site.key"]);
        assert_says(&stderr(&output), &["needs", "are free"]);
        assert_eq!(fs::read_dir(disk.path()).expect("readable").count(), 0);
    }
}

/// A small bundle, with every kind of header in it.
fn small(folder: &Path) -> (PathBuf, SecretKey) {
    let pair = KeyPair::generate(None).expect("made");
    pair.write(&folder.join("site.key")).expect("written");
    let key = LockedKey::read(&folder.join("site.key")).and_then(|key| key.unlock(None)).expect("a key");
    fs::write(folder.join("cairn"), tiny_executable()).expect("written");
    let deep = folder.join("manual").join("x".repeat(120)).join("y".repeat(150));
    fs::create_dir_all(&deep).expect("made");
    fs::write(deep.join("page.md"), "a path that needs a header of its own").expect("written");
    fs::write(folder.join("manual/empty.md"), "").expect("written");
    let mut plan = Plan::new(&folder.join("cairn"), &[]).expect("static");
    plan.add_documents(&folder.join("manual")).expect("packed");
    let file = folder.join("small.bundle");
    plan.write(&file, &key, UnixMillis(1_785_230_000_000)).expect("written");
    (file, key)
}

/// Whether somebody who installs a bundle would get anything out of it.
fn is_taken(file: &Path, key: &PublicKey) -> bool {
    bundle::open(file, key).is_ok_and(|bundle| bundle.check().is_ok())
}

#[test]
fn no_byte_of_a_bundle_can_be_altered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = small(folder.path());
    assert!(is_taken(&file, key.public()));
    let whole = fs::read(&file).expect("readable");
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(&file, &altered).expect("written");
        assert!(!is_taken(&file, key.public()), "byte {at} of {}", whole.len());
    }
}

#[test]
fn nothing_but_what_was_signed_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = small(folder.path());
    let whole = fs::read(&file).expect("readable");
    let at = whole.windows(6).rposition(|part| part == b"a path").expect("in it");
    let mut altered = whole.clone();
    altered[at] ^= 1;
    fs::write(&file, &altered).expect("written");
    let bundle = bundle::open(&file, key.public()).expect("the list is good");
    let to = folder.path().join("out");
    let error = bundle.extract(MemberRole::Documents, &to).expect_err("altered").to_string();
    assert_says(&error, &["page.md", "not what was signed"]);
    let mut folders = vec![to];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let entry = entry.expect("readable");
            match entry.file_type().expect("known").is_dir() {
                true => folders.push(entry.path()),
                false => assert_eq!(entry.file_name(), "empty.md"),
            }
        }
    }
}

#[test]
fn another_format_is_refused_by_its_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, _) = small(folder.path());
    let whole = fs::read(&file).expect("readable");
    let at = whole.windows(11).position(|part| part == b"\"format\": 1").expect("in it");
    let mut altered = whole;
    altered[at + 10] = b'7';
    fs::write(&file, &altered).expect("written");
    let error = bundle::list_unverified(&file).expect_err("unknown").to_string();
    assert_says(&error, &["format is 7", "reads 1 to 2"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut, lengthened or overwritten in any place: refused, without a panic.
    #[test]
    fn mangled_bundles_are_refused(
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        other in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, key) = small(folder.path());
        let whole = fs::read(&file).expect("readable");
        let mut mangled = whole.clone();
        let at = at.index(mangled.len());
        mangled.splice(at..at, other.iter().copied());
        fs::write(&file, &mangled).expect("written");
        prop_assert_eq!(is_taken(&file, key.public()), other.is_empty());
        fs::write(&file, &whole[..cut.index(whole.len())]).expect("written");
        prop_assert!(!is_taken(&file, key.public()));
    }
}

#[test]
fn the_running_program_can_be_packed_while_it_runs() {
    assert!(Plan::new(Path::new(OWN_EXECUTABLE), &[]).is_ok());
}
