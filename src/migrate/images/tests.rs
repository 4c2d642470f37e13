//! Archives in each form that programs write, made here byte by byte after the specifications, and what is wrong with others.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::deploy::{Sha256, Sha256Hasher};

const OCI: &str = "application/vnd.oci.image";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::of(bytes))
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", Sha256::of(bytes)), bytes.to_vec())
}

/// A tar of folders (`a/`), links (`a -> b`, `a => b` for another name of `b`) and files.
fn tar_of<N: AsRef<str>, C: AsRef<[u8]>>(members: &[(N, C)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let (name, content) = (name.as_ref(), content.as_ref());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o750);
        header.set_uid(70);
        header.set_gid(71);
        if let Some((name, to)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, to).expect("appended");
        } else if let Some((name, to)) = name.split_once(" => ") {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, name, to).expect("appended");
        } else {
            let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            // The library refuses absolute names and `..`.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, content).expect("appended");
        }
    }
    builder.into_inner().expect("written")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("packed")
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn file_of(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), bytes).expect("written");
    file
}

fn read_with(bytes: &[u8], query: &ImageQuery) -> Result<Images, ImagesError> {
    Images::read(&[file_of(bytes).path().to_owned()], query, &|_| {})
}

fn read(bytes: &[u8]) -> Result<Images, ImagesError> {
    read_with(bytes, &ImageQuery::default())
}

fn for_platform(platform: &str) -> ImageQuery {
    ImageQuery { platform: Some(ImagePlatform::parse(platform).expect("a platform")), folders: Vec::new() }
}

fn folders(folders: &[&str]) -> ImageQuery {
    ImageQuery { platform: None, folders: folders.iter().map(|folder| (*folder).to_owned()).collect() }
}

/// An image of an OCI layout.
struct OciImage {
    members: Vec<(String, Vec<u8>)>,
    config: String,
    descriptor: Value,
}

impl OciImage {
    fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().expect("a text")
    }

    fn named(&self, key: &str, name: &str) -> Value {
        let mut descriptor = self.descriptor.clone();
        descriptor["annotations"] = json!({ key: name });
        descriptor
    }
}

/// * `run`: the configuration's `config`.
fn oci(platform: &str, run: Value, layers: &[Vec<u8>], pack: fn(&[u8]) -> Vec<u8>) -> OciImage {
    oci_of(platform, run, layers.iter().map(|layer| (digest(layer), pack(layer))).collect())
}

/// * `layers`: the digest of each before it is packed, and its packed bytes.
fn oci_of(platform: &str, run: Value, layers: Vec<(String, Vec<u8>)>) -> OciImage {
    let (os, architecture) = platform.split_once('/').expect("a platform");
    let (diff_ids, layers): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let config = json!({"os": os, "architecture": architecture, "config": run, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let descriptors: Vec<_> =
        layers.iter().map(|layer| json!({"digest": digest(layer), "size": layer.len()})).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": format!("{OCI}.config.v1+json"), "digest": digest(&config)},
        "layers": descriptors,
    });
    let manifest = manifest.to_string().into_bytes();
    let descriptor = json!({
        "mediaType": format!("{OCI}.manifest.v1+json"),
        "digest": digest(&manifest),
        "platform": {"os": os, "architecture": architecture},
    });
    let mut members: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    members.extend([blob(&config), blob(&manifest)]);
    OciImage { members, config: digest(&config), descriptor }
}

/// An archive with an `index.json` of these descriptors.
fn layout(descriptors: &[Value], images: &[&OciImage]) -> Vec<(String, Vec<u8>)> {
    let mut members: Vec<_> = images.iter().flat_map(|image| image.members.clone()).collect();
    members.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()));
    members.push((
        "index.json".to_owned(),
        json!({"schemaVersion": 2, "manifests": descriptors}).to_string().into_bytes(),
    ));
    members
}

/// What `docker save` wrote until Docker 25: the second name of a layer is a link.
fn saved(name: &str, run: Value, layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    let config =
        json!({"os": "linux", "architecture": "amd64", "config": run, "rootfs": {"diff_ids": diff_ids}}).to_string();
    let config_name = format!("{}.json", Sha256::of(config.as_bytes()));
    let mut members = vec![(config_name.clone(), config.into_bytes())];
    let mut names = Vec::new();
    for (place, layer) in layers.iter().enumerate() {
        members.push((format!("{place}real/layer.tar"), layer.clone()));
        members.push((format!("{place}/layer.tar -> ../{place}real/layer.tar"), Vec::new()));
        names.push(format!("{place}/layer.tar"));
    }
    let tags = if name.is_empty() { Value::Null } else { json!([name]) };
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    members.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    members
}

fn passwd(text: &str) -> Vec<u8> {
    tar_of(&[("etc/passwd", text)])
}

#[test]
fn an_image_is_the_same_out_of_each_form_of_archive() {
    let run = json!({"User": "postgres", "Env": ["A=1"], "ExposedPorts": {"5432/tcp": {}}, "Volumes": {"/data": {}}});
    let below =
        tar_of(&[("etc/passwd", "root:x:0:0\n"), ("etc/group", "mail:x:8:\n"), ("data/", ""), ("data/a", "abc")]);
    let layers = [below, passwd("postgres:x:70:71\n")];
    for pack in [plain, gzip, zstd] {
        let image = oci("linux/amd64", run.clone(), &layers, pack);
        let of_layout = layout(&[image.named(CONTAINERD_NAME, "docker.io/library/pg:16")], &[&image]);
        // Docker 25 and newer: the layout, and its own manifest.
        let mut of_both = layout(&[image.named(REF_NAME, "16")], &[&image]);
        let names: Vec<_> = image.members[..2].iter().map(|(name, _)| name.clone()).collect();
        let config = image.config.replace(':', "/");
        let manifest = json!([{"Config": format!("blobs/{config}"), "RepoTags": ["pg:16"], "Layers": names}]);
        of_both.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        for (members, has_digest) in [(of_layout, true), (of_both, true), (saved("pg:16", run.clone(), &layers), false)]
        {
            for outer in [plain, gzip, zstd] {
                let images = read(&outer(&tar_of(&members))).expect("read");
                assert_eq!(images.iter().len(), 1);
                let facts = images.find("pg:16").expect("there");
                assert_eq!(facts.names, ["docker.io/library/pg:16"]);
                assert_eq!(facts.digest.as_deref(), has_digest.then_some(image.digest()));
                assert_eq!(
                    (facts.user.as_deref(), &facts.exposed[..]),
                    (Some("postgres"), &[(5432, Protocol::Tcp)][..])
                );
                assert_eq!(facts.user_id("postgres"), Some(70), "the upper layer's file counts");
                assert_eq!(facts.user_id("root"), None, "it hides the lower one");
                assert_eq!(facts.primary_group_id("postgres"), Some(71));
                assert_eq!(facts.group_id("mail"), Some(8));
                let owner = Some(FolderOwner { user: 70, group: 71, mode: 0o750 });
                let content = FolderContent { files: 1, folders: 0, bytes: 3, owner, is_complete: true };
                assert_eq!(facts.folder("/data/"), Some(&content));
                assert!(facts.has_files_below("/data") && !facts.has_files_below("/nothing"));
            }
        }
    }
}

#[test]
fn images_are_found_as_docker_reads_their_names() {
    let one = oci("linux/amd64", json!({}), &[passwd("a:x:1:1\n")], gzip);
    let two = oci("linux/amd64", json!({}), &[passwd("b:x:2:2\n")], gzip);
    let descriptors = [
        one.named(REF_NAME, "r.example/x/one:1"),
        one.named(CONTAINERD_NAME, "alpine:latest"),
        two.named(REF_NAME, "latest"),
    ];
    let images = read(&tar_of(&layout(&descriptors, &[&one, &two]))).expect("read");
    assert_eq!(images.iter().len(), 2, "two names of one image are one");
    let of = |reference: &str| images.find(reference).and_then(|facts| facts.digest.as_deref());
    let digest = one.digest();
    for reference in [
        "r.example/x/one:1",
        "alpine",
        "docker.io/library/alpine:latest",
        &format!("alpine@{digest}"),
        &format!("other:3@{digest}"),
        digest,
        &one.config,
    ] {
        assert_eq!(of(reference), Some(digest), "{reference}");
        assert!(images.find(reference).expect("found").confirms(reference));
    }
    assert_eq!(of(two.digest()), Some(two.digest()), "a tag alone is not a name");
    let pinned = format!("alpine:latest@{}", two.digest().replace(['0', '1', '2', '3'], "4"));
    assert_eq!(of(&pinned), Some(digest), "the tag counts where nothing has the digest");
    assert!(!images.find(&pinned).expect("found").confirms(&pinned));
    let absent = format!("alpine@{}", pinned.split_once('@').expect("two parts").1);
    let references = ["alpine", "redis:7", "latest", "Not A Name", "redis:7", "r.example/x/one", &absent];
    let missing = images.missing(references.into_iter());
    assert_eq!(missing, ["redis:7", "latest", "Not A Name", "r.example/x/one", &absent]);
}

#[test]
fn of_several_platforms_the_wanted_one_counts() {
    let of = |platform: &str| oci(platform, json!({"User": platform}), &[], plain);
    let (intel, arm, risc) = (of("linux/amd64"), of("linux/arm64"), of("linux/riscv64"));
    let mut attestation = of("unknown/unknown");
    attestation.descriptor["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index_of = |images: &[&OciImage]| {
        let manifests: Vec<_> = images.iter().map(|image| image.descriptor.clone()).collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
        let descriptor = json!({"mediaType": format!("{OCI}.index.v1+json"), "digest": digest(&index)});
        OciImage { members: vec![blob(&index)], config: String::new(), descriptor }
    };
    let archive = |named: &[&OciImage], there: &[&OciImage]| {
        let inner = index_of(named);
        // Indexes may be nested.
        let outer = index_of(&[&inner]);
        let all: Vec<_> = [&inner, &outer].into_iter().chain(there.iter().copied()).collect();
        (tar_of(&layout(&[outer.named(CONTAINERD_NAME, "a.example/x:1")], &all)), outer.digest().to_owned())
    };
    let all = [&arm, &intel, &attestation, &risc];
    let (bytes, target) = archive(&all, &all);
    for (query, expected) in [(ImageQuery::default(), &intel), (for_platform("linux/arm64"), &arm)] {
        let images = read_with(&bytes, &query).expect("read");
        let facts = images.find("a.example/x:1").expect("there");
        assert_eq!(
            (facts.digest.as_deref(), facts.manifest_digest.as_deref()),
            (Some(&target[..]), Some(expected.digest()))
        );
        assert_eq!(
            facts.user.as_deref().and_then(|user| user.split_once('/')),
            Some(("linux", &facts.architecture[..]))
        );
        for digest in [&target[..], expected.digest()] {
            assert!(facts.confirms(&format!("a.example/x@{digest}")));
        }
    }
    let images = read_with(&bytes, &for_platform("linux/s390x")).expect("read");
    assert_eq!(images.missing(["a.example/x:1"].into_iter()), ["a.example/x:1"]);
    let (_, platforms) = images.other_platforms("a.example/x:1").expect("named");
    assert_eq!(platforms, ["linux/arm64", "linux/amd64", "linux/riscv64"]);
    // Docker saves the index of all platforms, and the blobs of one.
    let (bytes, _) = archive(&all, &[&arm]);
    assert_eq!(read(&bytes).expect("read").find("a.example/x:1").expect("there").architecture, "arm64");
    let (bytes, _) = archive(&all, &[&arm, &risc]);
    let error = read(&bytes).expect_err("not clear").to_string();
    assert!(error.contains("has a.example/x:1 for linux/arm64, linux/riscv64; choose one with --platform"), "{error}");
    let (bytes, _) = archive(&all, &[]);
    assert!(read(&bytes).expect_err("nothing there").to_string().contains("is missing"));
}

#[test]
fn layers_hide_what_is_below_them() {
    let facts = |layers: &[&[(&str, &str)]], folder: &str| {
        let layers: Vec<_> = layers.iter().map(|members| tar_of(members)).collect();
        let images = read_with(&tar_of(&saved("x", json!({}), &layers)), &folders(&[folder])).expect("read");
        let facts = images.find("x").expect("there").clone();
        let content = facts.folder(folder).map(|content| (content.files, content.folders, content.bytes));
        (content, facts.user_id("a"))
    };
    let below: &[(&str, &str)] =
        &[("d/", ""), ("d/a", "1"), ("d/s/", ""), ("d/s/b", "22"), ("e", ""), ("etc/passwd", "a:x:7:7")];
    type Case = (&'static [(&'static str, &'static str)], Option<(u64, u64, u64)>, Option<u32>);
    let cases: &[Case] = &[
        (&[("e", "")], Some((2, 1, 3)), Some(7)),
        (&[("d/a", "4444")], Some((2, 1, 6)), Some(7)),
        (&[("./d/.wh.a", "")], Some((1, 1, 2)), Some(7)),
        (&[("d/.wh.s", "")], Some((1, 0, 1)), Some(7)),
        (&[(".wh.d", "")], None, Some(7)),
        // What is hidden is that of lower layers, wherever the whiteout is among the members.
        (&[("d/new", "333"), ("d/.wh..wh..opq", "")], Some((1, 0, 3)), Some(7)),
        (&[("d/s/.wh..wh..opq", "")], Some((1, 1, 1)), Some(7)),
        (&[("d/.wh..wh.plnk", ""), ("d/.wh..wh.aufs", "")], Some((2, 1, 3)), Some(7)),
        (&[("d/s", "a file")], Some((2, 0, 7)), Some(7)),
        (&[("d", "a file")], None, Some(7)),
        (&[(".wh.etc", "")], Some((2, 1, 3)), None),
        (&[("etc/.wh.passwd", "")], Some((2, 1, 3)), None),
        (&[("etc/.wh..wh..opq", "")], Some((2, 1, 3)), None),
        (&[("etc/passwd", "a:x:8:8")], Some((2, 1, 3)), Some(8)),
        (&[("d/l -> a", ""), ("d/h => d/a", "")], Some((4, 1, 3)), Some(7)),
        (&[("dd/x", ""), ("../../d/up", "55555"), ("/d/absolute", "1")], Some((4, 1, 9)), Some(7)),
    ];
    for (above, content, user) in cases {
        assert_eq!(facts(&[below, above], "/d"), (*content, *user), "{above:?}");
    }
}

#[test]
fn links_are_followed_within_the_image() {
    let below = tar_of(&[
        ("var/run -> /run", ""),
        ("run/x/one", "1"),
        ("opt -> ../../usr/./lib/../local", ""),
        ("usr/local/y/two", "22"),
        ("loop -> loop", ""),
        ("etc/passwd -> ../nix/accounts", ""),
        ("nix/accounts => nix/store", ""),
        ("nix/store", "a:x:5:5\n"),
    ]);
    // Through a link of a lower layer.
    let above = tar_of(&[("opt/y/three", "333")]);
    let query = folders(&["/var/run/x", "/opt/y", "/loop/x"]);
    let images = read_with(&tar_of(&saved("x", json!({}), &[below, above])), &query).expect("read");
    let facts = images.find("x").expect("there");
    let content =
        |folder: &str| facts.folder(folder).map(|content| (content.files, content.bytes, content.is_complete));
    assert_eq!(content("/var/run/x"), Some((1, 1, true)));
    assert_eq!(content("/opt/y"), Some((2, 5, true)));
    assert_eq!(content("/loop/x"), None);
    assert_eq!(facts.user_id("a"), Some(5));
}

/// The text of the error, and who can fix it.
fn refused(bytes: &[u8]) -> (String, Fault) {
    let error = read(bytes).expect_err("refused");
    (error.to_string(), error.fault())
}

#[test]
fn what_is_not_an_archive_of_images_is_named() {
    for (bytes, expected) in [
        (b"services: {}\n".repeat(100), "not a tar file"),
        (Vec::new(), "neither index.json nor manifest.json"),
        (tar_of(&[("etc/passwd", "")]), "neither index.json nor manifest.json"),
        (tar_of(&[("index.json", r#"{"manifests": []}"#)]), "it holds no image"),
        (b"\xfd7zXZ\0and so on".to_vec(), "is packed with xz, expected gzip, zstd or nothing"),
        (b"BZh9and so on".to_vec(), "is packed with bzip2"),
        (
            tar_of(&saved("x", json!({}), &[b"\xfd7zXZ\0and so on".to_vec()])),
            "the layer 0real/layer.tar is packed with xz",
        ),
        (tar_of(&saved("x", json!({}), &[b"no tar".repeat(200)])), "the header at byte 0 is invalid"),
        (tar_of(&[("manifest.json", "{")]), "manifest.json is invalid: a value of another type"),
        (tar_of(&[("manifest.json", r#"[{"Config": "c.json", "Layers": []}]"#)]), "c.json is missing"),
        (
            tar_of(&[("manifest.json", r#"[{"Config": "c.json", "RepoTags": ["A\u001b[2J"]}]"#)]),
            r"an image 'A\u{1b}[2J'",
        ),
        (
            tar_of(&[("manifest.json", vec![b' '; 5 << 20])]),
            "manifest.json has 5242880 bytes, expected at most 4194304",
        ),
        (
            tar_of(&[("index.json", r#"{"manifests": [{"digest": "sha256:../../etc/passwd"}]}"#)]),
            "expected sha256: and 64 digits",
        ),
    ] {
        let (error, fault) = refused(&bytes);
        assert!(error.contains(expected), "{error}");
        assert_eq!(fault, Fault::Caller, "{error}");
    }
    for path in ["/dev/zero", "/", "/nonexistent.tar"] {
        Images::read(&[PathBuf::from(path)], &ImageQuery::default(), &|_| {}).expect_err(path);
    }
}

#[test]
fn what_is_damaged_is_named() {
    let image = oci("linux/amd64", json!({"Env": ["PASSWORD=hunter2"]}), &[passwd("a:x:1:1\n")], gzip);
    let members = layout(&[image.named(REF_NAME, "a/b")], &[&image]);
    for place in 0..3 {
        let mut members = members.clone();
        // Of one letter; the JSON stays valid.
        let content = &mut members[place].1;
        let at = content.iter().rposition(|byte| byte.is_ascii_digit()).expect("a digit");
        content[at] ^= 1;
        let (error, fault) = refused(&tar_of(&members));
        assert!(
            error.contains("is damaged") && error.contains(&members[place].0) && !error.contains("hunter2"),
            "{error}"
        );
        assert_eq!(fault, Fault::Damage);
    }
    let mut saved = saved("x", json!({}), &[passwd("a:x:1:1\n")]);
    saved[1].1[600] ^= 1;
    assert!(refused(&tar_of(&saved)).0.contains("0real/layer.tar has the digest"));
    saved[0].1.push(b' ');
    assert!(refused(&tar_of(&saved)).0.contains("has the digest"), "the configuration's");
    // The layer that is packed is right, and what is in it is not what the image names.
    let other = oci("linux/amd64", json!({}), &[passwd("b:x:1:1\n")], plain);
    let mut mixed = oci("linux/amd64", json!({}), &[passwd("a:x:1:1\n")], plain);
    let manifest = json!({
        "config": {"digest": mixed.config},
        "layers": [{"digest": other.members[0].0.replace("blobs/sha256/", "sha256:")}],
    });
    let manifest = manifest.to_string().into_bytes();
    mixed.descriptor = json!({"digest": digest(&manifest)});
    mixed.members.push(blob(&manifest));
    assert!(refused(&tar_of(&layout(&[mixed.descriptor.clone()], &[&mixed, &other]))).0.contains("is damaged"));
}

#[test]
fn two_images_of_one_name_are_a_conflict_unless_they_are_the_same() {
    let layers = [passwd("a:x:1:1\n")];
    let image = oci("linux/amd64", json!({}), &layers, gzip);
    let of_layout = file_of(&tar_of(&layout(&[image.named(REF_NAME, "docker.io/library/x:latest")], &[&image])));
    let other = file_of(&tar_of(&saved("x", json!({"User": "1"}), &layers)));
    let read = |files: [&NamedTempFile; 2]| {
        Images::read(&files.map(|file| file.path().to_owned()), &ImageQuery::default(), &|_| {})
    };
    let error = read([&of_layout, &other]).expect_err("a conflict").to_string();
    assert!(error.contains("both have an image docker.io/library/x:latest, and not the same one"), "{error}");
    // The same configuration out of both forms; the one with the digest counts.
    let config = image.members[1].1.clone();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["x"], "Layers": ["l.tar"]}]).to_string().into_bytes();
    let same = [("c.json", config), ("l.tar", layers[0].clone()), ("manifest.json", manifest)];
    let same = file_of(&tar_of(&same));
    for files in [[&of_layout, &same], [&same, &of_layout]] {
        let images = read(files).expect("read");
        assert_eq!(images.find("x").expect("there").digest.as_deref(), Some(image.digest()));
    }
}

/// A header of a tar with this size in it, as GNU writes sizes beyond octal.
fn header(name: &str, kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).expect("short");
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn sizes_that_are_not_there_are_refused() {
    for size in [1 << 20, 1 << 60, u64::MAX >> 1, u64::MAX] {
        for kind in [tar::EntryType::Regular, tar::EntryType::XHeader, tar::EntryType::GNULongName] {
            for pack in [plain, gzip, zstd] {
                let (error, _) = refused(&pack(&header("index.json", kind, size)));
                assert!(
                    error.contains("cut short") || error.contains("more than a megabyte"),
                    "{kind:?} {size} {error}"
                );
                let layer = header("etc/passwd", kind, size);
                let image = oci("linux/amd64", json!({}), &[layer], pack);
                let (error, _) = refused(&tar_of(&layout(std::slice::from_ref(&image.descriptor), &[&image])));
                assert!(error.contains("it ends within") || error.contains("more than a megabyte"), "{error}");
            }
        }
    }
    let pax = |records: &[u8]| {
        let mut bytes = header("pax", tar::EntryType::XHeader, records.len() as u64);
        bytes.extend_from_slice(records);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(header("index.json", tar::EntryType::Regular, 0));
        refused(&bytes).0
    };
    assert!(pax(b"28 size=1152921504606846976\n").contains("cut short"));
    for records in [&b"99 size=1\n"[..], b"0 \n", b"x", b"10 size=-1\n", b"18446744073709551616 a=b\n", b"4 a\n\n"] {
        assert!(pax(records).contains("its extended header"), "{records:?}");
    }
}

#[test]
fn a_layer_with_a_million_entries_is_counted() {
    let mut packed = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    let mut hasher = Sha256Hasher::new();
    for number in 0..1_000_000 {
        let block = header(&format!("data/{number}"), tar::EntryType::Regular, 0);
        hasher.update(&block);
        packed.write_all(&block).expect("packed");
    }
    let layer = (format!("sha256:{}", hasher.finish()), packed.finish().expect("packed"));
    let image = oci_of("linux/amd64", json!({"Volumes": {"/data": {}}}), vec![layer]);
    let images = read(&tar_of(&layout(std::slice::from_ref(&image.descriptor), &[&image]))).expect("read");
    let content = images.iter().next().expect("one").folder("/data").expect("there");
    assert!(!content.is_complete && content.files > 300_000, "{content:?}");
}

#[test]
fn an_archive_with_too_much_in_it_is_refused() {
    let many: Vec<_> = (0..=1 << 16).map(|number| (format!("{number}"), "")).collect();
    assert!(refused(&tar_of(&many)).0.contains("more than 65536 members"));
    let image = oci("linux/amd64", json!({}), &[], plain);
    let many = vec![image.descriptor.clone(); 9_000];
    assert!(refused(&tar_of(&layout(&many, &[&image]))).0.contains("name more than 8192 manifests"));
    let mut nested = oci("linux/amd64", json!({}), &[], plain);
    for _ in 0..10 {
        let index = json!({"manifests": [nested.descriptor]}).to_string().into_bytes();
        nested.members.push(blob(&index));
        nested.descriptor = json!({"mediaType": format!("{OCI}.index.v1+json"), "digest": digest(&index)});
    }
    assert!(refused(&tar_of(&layout(&[nested.descriptor.clone()], &[&nested]))).0.contains("nested more than 8 deep"));
    let volumes: serde_json::Map<String, Value> =
        (0..1_000).map(|number| (format!("/{number}{}", "/a".repeat(1_000)), json!({}))).collect();
    let image = oci("linux/amd64", json!({"Volumes": volumes}), &[], plain);
    assert!(
        refused(&tar_of(&layout(std::slice::from_ref(&image.descriptor), &[&image]))).0.contains("than can be counted")
    );
}

#[test]
fn lists_of_packages_leave_room_for_the_images() {
    let image = oci("linux/amd64", json!({}), &[], plain);
    let mut members = Vec::new();
    for number in 0..12 {
        let text = "p".repeat(3 << 20);
        members.push(blob(
            json!({"predicateType": "https://spdx.dev/Document", "n": number, "t": text}).to_string().as_bytes(),
        ));
    }
    members.extend(layout(&[image.named(REF_NAME, "a/b")], &[&image]));
    assert!(read(&tar_of(&members)).expect("read").find("a/b").is_some());
}

#[test]
fn progress_ends_with_all_bytes() {
    let image = oci("linux/amd64", json!({}), &[vec![0; 1 << 20], vec![0; 3 << 20]], plain);
    let file = file_of(&tar_of(&layout(std::slice::from_ref(&image.descriptor), &[&image])));
    let last = Cell::new((0, 0));
    let progress = |progress: ImageProgress<'_>| {
        assert!(
            progress.step == ImageStep::Layers && progress.bytes >= last.get().0 && progress.archive == file.path()
        );
        last.set((progress.bytes, progress.of));
    };
    Images::read(&[file.path().to_owned()], &ImageQuery::default(), &progress).expect("read");
    assert_eq!(last.get(), (4 << 20, 4 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An archive that is cut anywhere before its last image's bytes is an error, and so is one with other bytes; nothing panics.
    #[test]
    fn damaged_archives_never_panic(
        place in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        is_cut in any::<bool>(),
        packing in 0..3usize,
    ) {
        let image = oci("linux/amd64", json!({"Volumes": {"/d": {}}}), &[passwd("a:x:1:1\n")], gzip);
        let mut archive = [plain, gzip, zstd][packing](&tar_of(&layout(&[image.named(REF_NAME, "a/b")], &[&image])));
        let at = place.index(archive.len());
        if is_cut {
            archive.truncate(at);
        } else {
            let end = archive.len().min(at + bytes.len());
            archive.splice(at..end, bytes);
        }
        if let Ok(images) = read(&archive) {
            prop_assert!(images.iter().all(|facts| facts.user_id("a") == Some(1)));
        }
    }
}
