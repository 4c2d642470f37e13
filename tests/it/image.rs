//! The container image: what other programs make of it, and how it runs under containerd and runc.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn::base::UnixMillis;
use cairn::deploy::{RELEASE_MARK, Tree, checkup, oci, shape};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::containerd::{Container, Containerd};
use crate::foreign_executable::{AARCH64, foreign_executable};
use crate::left_out::left_out;
use crate::node::{CAIRN, assert_says, cairn, hits, json_of, list, stderr, stdout};
use crate::tls::wait_until;

const NAME: &str = concat!("cairn.local/cairn:", env!("CARGO_PKG_VERSION"));

/// Runs `cairn image` with arguments.
fn image(arguments: &[&str]) -> std::process::Output {
    cairn().arg("--json").arg("image").args(arguments).output().expect("the binary runs")
}

/// Builds the image into a folder; its file and what the verb said.
fn build(folder: &Path) -> (PathBuf, Value) {
    let file = folder.join("cairn.tar");
    let answer = json_of(&image(&["build", "-o", &file.to_string_lossy()]));
    (file, answer)
}

/// A program that has to be installed; what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is missing, run make setup-test: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Members of an archive: `mode owner size path`.
fn listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("an archive");
    let lines = entries.map(|entry| {
        let entry = entry.expect("a member");
        let header = entry.header();
        assert_eq!(header.mtime().expect("a time"), 0);
        assert_eq!(header.uid().expect("an owner"), header.gid().expect("a group"));
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let (mode, owner) = (header.mode().expect("a mode"), header.uid().expect("an owner"));
        format!("{mode:04o} {owner} {} {path}", entry.size())
    });
    lines.collect()
}

/// The content of one member.
fn member(archive: &[u8], path: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("a member");
        if entry.path_bytes() == path.as_bytes() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("readable");
            return content;
        }
    }
    panic!("no {path}");
}

fn parsed(archive: &[u8], path: &str) -> Value {
    serde_json::from_slice(&member(archive, path)).expect("JSON")
}

fn blob(digest: &Value) -> String {
    format!("blobs/sha256/{}", digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest"))
}

#[test]
fn the_archive_holds_what_it_should_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, answer) = build(folder.path());
    let archive = fs::read(file).expect("readable");
    assert_eq!(answer["bytes"], archive.len());

    let index = parsed(&archive, "index.json");
    let manifest_path = blob(&answer["digest"]);
    let manifest = parsed(&archive, &manifest_path);
    let (config_path, layer_path) = (blob(&manifest["config"]["digest"]), blob(&manifest["layers"][0]["digest"]));
    let layer = member(&archive, &layer_path);

    let executable = fs::metadata(CAIRN).expect("the binary").len();
    let size_of = |path: &str| fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file").len();
    assert_eq!(
        listing(&layer),
        [
            format!("0755 0 {executable} cairn"),
            "0755 0 0 etc/".to_owned(),
            format!("0644 0 {} etc/group", size_of("images/group")),
            format!("0644 0 {} etc/passwd", size_of("images/passwd")),
            "1777 0 0 tmp/".to_owned(),
            "0755 0 0 var/".to_owned(),
            "0755 0 0 var/lib/".to_owned(),
            "0700 65532 0 var/lib/cairn/".to_owned(),
        ]
    );
    assert!(member(&layer, "cairn") == fs::read(CAIRN).expect("readable"), "the program is another one");

    assert_eq!(member(&layer, "etc/passwd"), include_bytes!("../../images/passwd"));
    assert_eq!(member(&layer, "etc/group"), include_bytes!("../../images/group"));

    let mut blobs = [&config_path, &layer_path, &manifest_path].map(|path| {
        let bytes = member(&archive, path).len();
        format!("0644 0 {bytes} {path}")
    });
    blobs.sort_by(|one, other| one.rsplit(' ').next().cmp(&other.rsplit(' ').next()));
    let of = |path: &str| format!("0644 0 {} {path}", member(&archive, path).len());
    let mut expected = vec!["0755 0 0 blobs/".to_owned(), "0755 0 0 blobs/sha256/".to_owned()];
    expected.extend(blobs);
    expected.extend(["index.json", "manifest.json", "oci-layout"].map(of));
    assert_eq!(listing(&archive), expected);

    // Both names are of the one manifest.
    let digest = answer["digest"].as_str().expect("a digest");
    let names = list(&index["manifests"]).iter().map(|one| {
        assert_eq!(one["digest"], digest);
        one["annotations"]["io.containerd.image.name"].as_str().expect("a name").to_owned()
    });
    assert_eq!(names.collect::<Vec<_>>(), [NAME.to_owned(), format!("cairn.local/cairn@{digest}")]);

    let config = parsed(&archive, &config_path);
    assert_eq!(
        config["config"],
        json!({
            "User": "65532:65532",
            "ExposedPorts": {"7171/tcp": {}, "9464/tcp": {}},
            "Env": ["CAIRN_DATA_DIR=/var/lib/cairn", "CAIRN_LOG_FORMAT=json"],
            "Entrypoint": ["/cairn"],
            "Cmd": ["serve"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.title": "cairn",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
            "StopSignal": "SIGTERM",
        })
    );
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
}

#[test]
fn the_same_program_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, answer) = build(folder.path());
    // Elsewhere, under another name, with other times, and to a pipe.
    let copy = folder.path().join("other");
    fs::copy(CAIRN, &copy).expect("copied");
    let again = image(&["build", "-o", "-", "--executable", &copy.to_string_lossy()]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(fs::read(file).expect("readable") == again.stdout, "the bytes differ");
    let told = json_of(&image(&["inspect"]));
    for field in ["name", "pinned", "digest", "bytes", "layers"] {
        assert_eq!(told[field], answer[field]);
    }
}

#[test]
fn skopeo_reads_it_as_both_kinds_of_archive() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, answer) = build(folder.path());
    let version = env!("CARGO_PKG_VERSION");
    let [oci, docker] =
        [format!("oci-archive:{}:{version}", file.display()), format!("docker-archive:{}:{NAME}", file.display())];
    let inspect = |arguments: &[&str]| -> Value {
        let text = run("skopeo", &[&["inspect"], arguments].concat());
        serde_json::from_str(&text).expect("JSON")
    };
    let (from_oci, from_docker) = (inspect(&[&oci]), inspect(&[&docker]));
    assert_eq!(from_oci["Digest"], answer["digest"]);
    for field in ["Architecture", "Os", "Labels", "Env", "Layers"] {
        assert_eq!(from_oci[field], from_docker[field], "{field}");
    }
    assert_eq!(inspect(&["--config", &oci]), inspect(&["--config", &docker]));
}

#[test]
fn files_that_would_not_start_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = |executable: &Path| {
        let file = folder.path().join("cairn.tar");
        let output = image(&["build", "-o", &file.to_string_lossy(), "--executable", &executable.to_string_lossy()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!file.exists());
        stderr(&output)
    };
    assert_says(
        &refusal(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").as_path()),
        &["not a program for 64-bit Linux", "name the cairn program"],
    );
    assert_says(&refusal(Path::new("/bin/ls")), &["dynamically", "static"]);
    assert_says(&refusal(folder.path()), &["not a regular file"]);
    assert_says(&refusal(&folder.path().join("missing")), &["cannot read", "missing"]);
    // A pipe would be waited for.
    let pipe = folder.path().join("pipe");
    run("mkfifo", &[&pipe.to_string_lossy()]);
    assert_says(&refusal(&pipe), &["not a regular file"]);

    // A copy that was interrupted close to its end: what is missing is not in its header.
    let own = fs::read(CAIRN).expect("readable");
    let changed = folder.path().join("changed");
    for missing in [1, 20_000, own.len() / 2] {
        fs::write(&changed, &own[..own.len() - missing]).expect("written");
        assert_says(&refusal(&changed), &["is incomplete", &format!("should have at least {}", own.len())]);
    }
    let mark = memchr::memmem::find(&own, RELEASE_MARK.as_bytes()).expect("it says of which release it is");
    let mut older = own;
    older[mark + RELEASE_MARK.len() - 2] = b'~';
    fs::write(&changed, older).expect("written");
    assert_says(&refusal(&changed), &["is not cairn", env!("CARGO_PKG_VERSION"), "of the same release"]);

    // RISC-V.
    assert_says(&refusal(&foreign_executable(folder.path(), 243)), &["another processor", "243", "x86_64", "aarch64"]);
    let other = foreign_executable(folder.path(), AARCH64);
    let described = json_of(&image(&["inspect", "--executable", &other.to_string_lossy()]));
    assert_eq!(described["architectures"], json!(["arm64"]));
}

#[test]
fn an_image_replaces_nothing_that_it_is_made_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = foreign_executable(folder.path(), AARCH64);
    let before = fs::metadata(&other).expect("there").len();
    let output = image(&["build", "-o", &other.to_string_lossy(), "--with-platform", &other.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(&stderr(&output), &["is read for this and would be replaced"]);
    assert_eq!(fs::metadata(&other).expect("there").len(), before);
}

/// Names of files have any bytes on Linux, and JSON has not.
#[test]
fn a_file_whose_name_is_not_utf_8_is_written_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(OsStr::from_bytes(b"image-\xff.tar"));
    for verb in [["build", "-o"].as_slice(), &["inspect"]] {
        let output = cairn().args(["--json", "image"]).args(verb).arg(&file).output().expect("it runs");
        assert!(json_of(&output)["file"].as_str().is_some_and(|name| name.ends_with("image-\u{fffd}.tar")));
    }
}

/// The image of this program and of the one for the other processor.
fn build_for_both(folder: &Path) -> (PathBuf, Value) {
    let (file, other) = (folder.join("both.tar"), foreign_executable(folder, AARCH64));
    let answer = image(&["build", "-o", &file.to_string_lossy(), "--with-platform", &other.to_string_lossy()]);
    (file, json_of(&answer))
}

#[test]
fn an_image_for_both_processors_has_each_as_its_own_image_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, both) = build_for_both(folder.path());
    let other = foreign_executable(folder.path(), AARCH64);
    let archive = fs::read(&file).expect("readable");
    assert_eq!(both["bytes"], archive.len());
    assert_eq!(both["architectures"], json!(["amd64", "arm64"]));

    // The names are those of an index, and that lists the two images as they are built alone.
    let index = parsed(&archive, "index.json");
    assert!(list(&index["manifests"]).iter().all(|one| one["digest"] == both["digest"]), "{index}");
    let platforms = parsed(&archive, &blob(&both["digest"]));
    let listed: Vec<_> = list(&platforms["manifests"])
        .iter()
        .map(|one| (one["platform"]["architecture"].clone(), one["digest"].clone()))
        .collect();
    let alone = |executable: &Path| json_of(&image(&["inspect", "--executable", &executable.to_string_lossy()]));
    let (own, foreign) = (alone(Path::new(CAIRN)), alone(&other));
    assert_eq!(listed, [(json!("amd64"), own["digest"].clone()), (json!("arm64"), foreign["digest"].clone())]);
    assert_eq!(layers(&both), [layers(&own), layers(&foreign)].concat());

    // From the other's side, the bytes are the same.
    let own = folder.path().join("own");
    fs::copy(CAIRN, &own).expect("copied");
    let [own, other] = [&own, &other].map(|path| path.to_string_lossy().into_owned());
    let again = image(&["build", "-o", "-", "--executable", &other, "--with-platform", &own]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(archive == again.stdout, "the order in which they are named makes a difference");
    let shown = stdout(&cairn().args(["image", "inspect", "--with-platform", &other]).output().expect("it runs"));
    assert_says(&shown, &["amd64, arm64", "bytes, amd64)", "bytes, arm64)"]);
}

#[test]
fn skopeo_finds_each_platform_of_an_image_for_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, _) = build_for_both(folder.path());
    let archive = format!("oci-archive:{}:{}", file.display(), env!("CARGO_PKG_VERSION"));
    for architecture in ["amd64", "arm64"] {
        let text = run("skopeo", &["inspect", "--override-arch", architecture, &archive]);
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(found["Architecture"], architecture);
    }
    let copies = format!("dir:{}", folder.path().join("copies").display());
    run("skopeo", &["copy", "--quiet", "--all", &archive, &copies]);
}

#[test]
fn manifests_follow_what_an_archive_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (both, built) = build_for_both(folder.path());
    let (one, _) = build(folder.path());
    let render = |file: &Path, more: &[&str]| {
        cairn().args(["k3s", "render", "--image-archive"]).arg(file).args(more).output().expect("it runs")
    };
    let manifests = stdout(&render(&both, &[]));
    let pinned = built["pinned"].as_str().expect("a name");
    let again = format!("--image {NAME} --image-digest {}", built["digest"].as_str().expect("a digest"));
    assert_says(
        &manifests,
        &[&format!("image: {pinned}"), "- amd64", "- arm64", &again, "--set node.arch=amd64,arm64"],
    );
    assert_says(&stdout(&render(&both, &["--set", "node.arch=arm64"])), &["kubernetes.io/arch: arm64"]);
    let wrong = render(&one, &["--set", "node.arch=arm64"]);
    assert_eq!((wrong.status.code(), stdout(&wrong)), (Some(2), String::new()));
    assert_says(&stderr(&wrong), &["node.arch is 'arm64'", "what the image is for: amd64"]);
    for value in ["aarch64", "foo", "s390x"] {
        let wrong = render(&one, &["--set", &format!("node.arch={value}")]);
        assert_eq!(wrong.status.code(), Some(2));
        assert_says(&stderr(&wrong), &[&format!("node.arch is '{value}'"), "amd64, arm64, both with a comma, or any"]);
    }
    let wrong = render(&one, &["--set", "node.selector=kubernetes.io/arch=arm64"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_says(&stderr(&wrong), &["node.selector", "kubernetes.io/arch=arm64", "the image is for: amd64"]);
    let wrong = render(&both, &["--with", "gpu"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_says(&stderr(&wrong), &["node.arch is 'amd64,arm64'", "one processor with --with gpu"]);
    let wrong = render(Path::new(CAIRN), &[]);
    assert_eq!((wrong.status.code(), stdout(&wrong)), (Some(2), String::new()));
    assert_says(&stderr(&wrong), &["is not an image archive", "cairn image build"]);

    // What another program wrote: under another name, and the platform is in the image's configuration alone.
    let copy = folder.path().join("copy.tar");
    let archive = |file: &Path, name: &str| format!("oci-archive:{}:{name}", file.display());
    let from = archive(&one, env!("CARGO_PKG_VERSION"));
    run("skopeo", &["copy", "--quiet", &from, &archive(&copy, "registry.example/edge/cairn:7")]);
    let found = json_of(&image(&["inspect", &copy.to_string_lossy()]));
    assert_eq!((&found["name"], &found["architectures"]), (&json!("registry.example/edge/cairn:7"), &json!(["amd64"])));
}

#[test]
fn what_makes_no_image_for_both_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = foreign_executable(folder.path(), AARCH64);
    let file = folder.path().join("both.tar");
    let refusal = |other: &Path, more: &[&str]| {
        let arguments = ["build", "-o", &file.to_string_lossy(), "--with-platform", &other.to_string_lossy()];
        let output = image(&[&arguments[..], more].concat());
        assert!(!output.status.success() && !file.exists());
        stderr(&output)
    };
    assert_says(&refusal(Path::new(CAIRN), &[]), &["is for x86_64", "the other processor"]);
    assert_says(&refusal(&other, &["--gpu"]), &["cannot be used with", "--with-platform"]);
    let mut bytes = fs::read(&other).expect("readable");
    let mark = concat!("cairn-release:", env!("CARGO_PKG_VERSION")).as_bytes();
    while let Some(at) = memchr::memmem::find(&bytes, mark) {
        bytes[at + mark.len() - 1] ^= 1;
    }
    fs::write(&other, bytes).expect("written");
    assert_says(&refusal(&other, &[]), &["is not cairn", env!("CARGO_PKG_VERSION"), "the same release"]);
}

#[test]
fn names_and_places_are_checked_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = image(&["inspect", "--name", "cairn:1.0"]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(&stderr(&output), &["has no host", "cairn.local/cairn"]);
    let output = image(&["build", "-o", &folder.path().join("none/cairn.tar").to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["there is no folder", "none"]);
    let told = json_of(&image(&["inspect", "--name", "registry.example:5000/edge/cairn:1.0"]));
    assert_eq!(told["name"], "registry.example:5000/edge/cairn:1.0");
    assert!(
        told["pinned"].as_str().is_some_and(|pinned| pinned.starts_with("registry.example:5000/edge/cairn@sha256:"))
    );
    // A folder gets the name that K3s' folder of images has.
    json_of(&image(&["build", "-o", &folder.path().to_string_lossy()]));
    assert!(folder.path().join(concat!("cairn-", env!("CARGO_PKG_VERSION"), ".tar")).is_file());
}

#[test]
fn a_full_disk_is_told_before_the_first_write() {
    let Some(disk) = SmallDisk::mount() else { return };
    let file = disk.path().join("cairn.tar");
    fs::write(&file, "what was there").expect("written");
    let output = image(&["build", "-o", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&stderr(&output), &["needs", "are free", "make room"]);
    assert_eq!(fs::read(&file).expect("readable"), b"what was there");
    assert_eq!(fs::read_dir(disk.path()).expect("readable").count(), 1);
}

/// A file system of 8 MiB.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where nobody may mount.
    pub fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out("a small disk is mounted, which takes root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        run("mount", &["-t", "tmpfs", "-o", "size=8m", "cairn-test", &folder.path().to_string_lossy()]);
        Some(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_container_answers_keeps_its_data_and_stops_when_asked() {
    let Some(containerd) = Containerd::start() else { return };
    let (file, answer) = build(containerd.folder());
    containerd.ctr(&["images", "import", &file.to_string_lossy()]);

    // Kubernetes looks for exactly one of these names.
    let pinned = answer["pinned"].as_str().expect("a name");
    let names = containerd.ctr(&["images", "ls", "-q"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), [NAME, pinned]);

    let data = containerd.folder().join("data");
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("changed");
    std::os::unix::fs::chown(&data, Some(shape::USER), Some(shape::USER)).expect("root gives it away");

    let mut first = Container::run(&containerd, NAME, "first", &data);
    // Work in the background may make it not ready for a moment, as it may under Kubernetes.
    for route in ["/health", "/ready"] {
        wait_until(route, || first.get(route).status == 200);
    }
    let process = first.status();
    assert_eq!(process("Uid"), "65532\t65532\t65532\t65532");
    assert_eq!(process("Gid"), "65532\t65532\t65532\t65532");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(process(set), "0000000000000000", "{set}");
    }
    assert_eq!(process("NoNewPrivs"), "1");
    assert!(first.root_is_read_only());

    let documents = json!([{"id": "tides", "text": "The tide turns twice a day at the northern pier."}]);
    first.call("add_documents", json!({"collection": "harbour", "documents": documents}));
    assert_eq!(first.stop(), Some(0));
    let log = first.log();
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "a line of the log is no JSON: {line}");
    }
    assert_says(&log, &["stopped"]);

    // One for both processors takes the name over, and what runs is this processor's.
    let (both, answer) = build_for_both(containerd.folder());
    containerd.ctr(&["images", "import", &both.to_string_lossy()]);
    let pinned = answer["pinned"].as_str().expect("a name");
    let mut second = Container::run(&containerd, pinned, "second", &data);
    let found = second.call("search", json!({"query": "when does the tide turn", "collections": ["harbour"]}));
    assert_eq!(hits(&found), ["tides"]);
    assert_eq!(second.stop(), Some(0));
}

/// Layers of an image, as its digest names them.
fn layers(answer: &Value) -> Vec<Value> {
    list(&answer["layers"]).to_vec()
}

#[test]
fn an_image_for_gpus_has_the_same_program_and_a_layer_that_follows_from_the_machine() {
    let told = |arguments: &[&str]| json_of(&image(&[&["inspect"], arguments].concat()));
    let (plain, gpu) = (told(&[]), told(&["--gpu", "--gpu-drivers", "none"]));
    assert_eq!(gpu["name"], format!("{NAME}-gpu"));
    assert_eq!((layers(&gpu).len(), &layers(&gpu)[0]), (2, &layers(&plain)[0]));
    assert_eq!(told(&["--gpu", "--gpu-drivers", "none"]), gpu, "the same bytes");
    let drivers = |told: &Value| -> Vec<String> {
        list(&told["gpu"]["drivers"]).iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(drivers(&gpu), [""; 0]);
    let all = told(&["--gpu"]);
    assert!(drivers(&all).contains(&"radeon".to_owned()) && !drivers(&all).contains(&"lvp".to_owned()), "{all}");

    let folder = tempfile::tempdir().expect("a folder");
    json_of(&image(&["build", "-o", &folder.path().to_string_lossy(), "--gpu", "--gpu-drivers", "none"]));
    let file = folder.path().join(concat!("cairn-", env!("CARGO_PKG_VERSION"), "-gpu.tar"));
    let archive = fs::read(file).expect("under a name of its own");
    let manifest = parsed(&archive, &blob(&gpu["digest"]));
    let config = parsed(&archive, &blob(&manifest["config"]["digest"]));
    let variables: Vec<&str> = list(&config["config"]["Env"]).iter().filter_map(Value::as_str).collect();
    for variable in ["CAIRN_DATA_DIR=/var/lib/cairn", "NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility"] {
        assert!(variables.contains(&variable), "{variables:?}");
    }
    assert_eq!(config["rootfs"]["diff_ids"][1], layers(&gpu)[1]["digest"]);
    let listed = listing(&member(&archive, &blob(&manifest["layers"][1]["digest"])));
    assert!(listed.iter().all(|line| line.split(' ').nth(1) == Some("0")), "all of it is root's: {listed:#?}");
    for name in
        ["/libvulkan.so.1", "/libc.so.6", "/libgcc_s.so.1", "usr/libexec/cairn-gpu", "lib64/ld-linux-x86-64.so.2"]
    {
        assert!(listed.iter().any(|line| line.ends_with(name)), "{name}: {listed:#?}");
    }
}

#[test]
fn what_an_image_for_gpus_lacks_is_told() {
    let empty = tempfile::tempdir().expect("a folder");
    let root = empty.path().to_string_lossy().into_owned();
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = image(&[&["inspect"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        assert_says(&stderr(&output), words);
    };
    refused(&["--gpu", "--gpu-root", &root], &["ld-linux", "glibc", "--gpu-root"]);
    refused(&["--gpu", "--gpu-drivers", "intl"], &["no Vulkan driver 'intl'", "intel"]);
    refused(&["--gpu-drivers", "none"], &["--gpu"]);
    let mut bytes = fs::read(CAIRN).expect("readable");
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    let other = empty.path().join("cairn-aarch64");
    fs::write(&other, bytes).expect("written");
    refused(
        &["--gpu", "--executable", &other.to_string_lossy()],
        &["aarch64", "x86_64", "build the image on a machine with aarch64"],
    );
}

/// Mesa's rasteriser stands in for a GPU: what it takes to start the helper and to load a driver is the same.
#[test]
fn the_helper_starts_in_a_container_of_an_image_for_gpus_and_in_no_other() {
    let Some(containerd) = Containerd::start() else { return };
    let (plain, _) = build(containerd.folder());
    let file = containerd.folder().join("gpu.tar");
    json_of(&image(&["build", "-o", &file.to_string_lossy(), "--gpu", "--gpu-drivers", "lvp"]));
    for file in [plain, file] {
        containerd.ctr(&["images", "import", &file.to_string_lossy()]);
    }
    let name = format!("{NAME}-gpu");
    let proved = containerd.once(&name, "proved", &["gpu", "selftest", "--software", "--cases", "300", "--json"]);
    let told: Value = json_of(&proved);
    assert_says(&told["gpu"]["name"].to_string(), &["llvmpipe"]);
    assert_eq!(told["wrong"], json!([]));

    let without = containerd.once(NAME, "without", &["doctor"]);
    assert_says(
        &String::from_utf8_lossy(&without.stdout),
        &["gpu      none: the GPU helper cannot be started", "`cairn image build --gpu`"],
    );
    let listed = containerd.once(NAME, "listed", &["gpu", "list"]);
    assert_eq!(listed.status.code(), Some(1));
    assert_says(&stderr(&listed), &["the GPU helper cannot be started"]);
}

#[test]
fn doctor_tells_an_image_that_the_kubelet_may_remove() {
    let Some(containerd) = Containerd::start() else { return };
    // The machine of a K3s server, whose containerd is the one of this test.
    let root = containerd.folder();
    let put = |path: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        path
    };
    fs::write(put("etc/systemd/system/k3s.service"), "ExecStart=/usr/local/bin/k3s server\n").expect("written");
    fs::write(put("proc/net/route"), "Iface\tDestination\neth0\t00000000\n").expect("written");
    let found = Command::new("sh").args(["-c", "command -v ctr"]).output().expect("a shell");
    let ctr = PathBuf::from(String::from_utf8(found.stdout).expect("UTF-8").trim());
    fs::copy(ctr, put("var/lib/rancher/k3s/data/current/bin/ctr")).expect("copied");
    std::os::unix::fs::symlink("/socket", put("run/k3s/containerd/containerd.sock")).expect("linked");
    let staged = json_of(&cairn().args(["--json", "install", "--yes", "--root"]).arg(root).output().expect("it runs"));
    let tree = Tree::below(root);
    let findings = || -> Vec<(bool, String)> {
        let subject = checkup::Subject {
            data_dir: "/var/lib/cairn".into(),
            listens: Vec::new(),
            now: UnixMillis(1),
            released: UnixMillis(0),
        };
        let found = checkup::examine(&tree, &subject).into_iter().filter(|finding| finding.about == "image");
        found.map(|finding| (finding.is_obstacle, finding.message)).collect()
    };
    let [(true, message)] = &findings()[..] else { panic!("{:?}", findings()) };
    assert_says(message, &["does not have the image"]);
    let name = staged["current"].as_str().expect("a name");
    let archive = root.join(format!("var/lib/rancher/k3s/agent/images/cairn-{name}.tar"));
    containerd.ctr(&["images", "import", &archive.to_string_lossy()]);
    let [(false, message)] = &findings()[..] else { panic!("{:?}", findings()) };
    assert_says(message, &["not pinned", &format!("touch /var/lib/rancher/k3s/agent/images/cairn-{name}.tar")]);
    // What K3s does after an import.
    for image in containerd.ctr(&["images", "ls", "-q"]).lines() {
        containerd.ctr(&["images", "label", image, "io.cattle.k3s.pinned=pinned", "io.cri-containerd.pinned=pinned"]);
    }
    assert_eq!(findings(), []);
}

/// Instructions of the Containerfile, `NAME REST`.
fn instructions() -> Vec<(String, String)> {
    let text = include_str!("../../images/Containerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').expect("an instruction");
            (name.to_owned(), rest.to_owned())
        })
        .collect()
}

#[test]
fn the_containerfile_says_what_the_program_writes() {
    let instructions = instructions();
    let all = |name: &str| -> Vec<String> {
        instructions.iter().filter(|(one, _)| one == name).map(|(_, rest)| rest.clone()).collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<String> {
        pairs.iter().map(|(name, value)| format!("{name}={value:?}")).collect()
    };
    assert_eq!(all("FROM"), ["scratch"]);
    assert_eq!(all("USER"), [format!("{0}:{0}", shape::USER)]);
    assert_eq!(all("ENTRYPOINT"), [json!([oci::ENTRYPOINT]).to_string()]);
    assert_eq!(all("CMD"), [json!(oci::ARGUMENTS).to_string()]);
    assert_eq!(all("WORKDIR"), ["/"]);
    assert_eq!(all("STOPSIGNAL"), [shape::STOP_SIGNAL]);
    assert_eq!(all("LABEL"), pairs(oci::LABELS));
    assert_eq!(all("ENV"), pairs(shape::ENVIRONMENT));
    assert_eq!(all("EXPOSE"), shape::PORTS.iter().map(|port| format!("{port}/tcp")).collect::<Vec<_>>());
    assert_eq!(all("COPY"), ["--chmod=0755 cairn /cairn", "--chmod=0644 passwd group /etc/"]);
    let known = ["FROM", "USER", "ENTRYPOINT", "CMD", "WORKDIR", "STOPSIGNAL", "LABEL", "ENV", "EXPOSE", "COPY"];
    for (name, _) in &instructions {
        assert!(known.contains(&name.as_str()), "{name} is not compared with anything");
    }
}

#[test]
fn every_file_of_the_images_folder_is_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    // passwd and group are in the layer, whose listing another test compares; the Containerfile is compared above.
    assert_eq!(names, ["Containerfile", "README.md", "group", "images.txt", "passwd"]);
    let airgap = fs::read_to_string(folder.join("images.txt")).expect("readable");
    assert_eq!(airgap, format!("{NAME}\n"));
    let readme = fs::read_to_string(folder.join("README.md")).expect("readable");
    for name in names.iter().filter(|name| *name != "README.md") {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not say what {name} is for");
    }
    let layer_user = format!("cairn:x:{0}:{0}:cairn:{1}:/sbin/nologin", shape::USER, shape::DATA_DIR);
    assert!(fs::read_to_string(folder.join("passwd")).expect("readable").lines().any(|line| line == layer_user));
}
