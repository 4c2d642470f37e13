//! Mounts and volumes of stack files as objects. Expected values are those of Docker's and Kubernetes' documentation.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use super::super::{Context, KubeObject, Names, Options, build};
use super::driver_options::{LocalVolume, NfsExport};
use crate::migrate::images::{ImageQuery, Images};
use crate::migrate::leaf::At;
use crate::migrate::report::{Entry, Ledger, Outcome};
use crate::migrate::{Dialect, Files, Item, Leaves, Node, Path, Source, read};

/// A stack that was converted.
pub struct Case {
    /// All objects.
    pub objects: Vec<KubeObject>,
    /// The report.
    pub entries: Vec<Entry>,
    /// What cannot run.
    pub cannot_move: Vec<String>,
}

impl Case {
    /// Converts a stack file in a folder.
    pub fn of(folder: &TempDir, text: &str, dialect: Dialect, options: Options, images: &Images) -> Self {
        let file = folder.path().join("stack.yml");
        fs::write(&file, text).expect("written");
        let source = Source::of(&file.to_string_lossy(), text.as_bytes()).expect("text");
        let mut leaves = Leaves::default();
        let tree = Item::number(&Node::documents(&source).expect("YAML")[0], Path::default(), &mut leaves);
        let files = Files::new(folder.path(), false).expect("a folder");
        let found = read::read(&tree, "shop", dialect, &files, &leaves).expect("a stack");
        let mut ledger = Ledger::new(leaves);
        let options = Options { namespace: "shop".to_owned(), ..options };
        let names = Names::of(&found.stack);
        let context = Context { stack: &found.stack, options: &options, names: &names, images };
        let built = build(&context, &mut ledger);
        for leaf in read::leaves_of(&found.stack) {
            let path = ledger.leaves().written(leaf).path.clone();
            assert!(ledger.is_marked(leaf), "{path} is not marked");
        }
        let report = ledger.finish();
        let objects = built.objects.into_iter().map(|(_, object)| object).collect();
        Self { objects, entries: report.entries, cannot_move: report.cannot_move }
    }

    /// An object as JSON; null where there is none.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        let is_it = |object: &&KubeObject| object.kind() == kind && object.metadata().name.as_deref() == Some(name);
        self.objects.iter().find(is_it).map_or(Value::Null, |object| serde_json::to_value(object).expect("JSON"))
    }

    /// The pod of a workload.
    pub fn pod(&self, kind: &str, name: &str) -> Value {
        self.object(kind, name)["spec"]["template"]["spec"].clone()
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: &str) -> usize {
        self.objects.iter().filter(|object| object.kind() == kind).count()
    }

    /// Outcome and reason of a leaf.
    pub fn fate(&self, path: &str) -> (Outcome, &str) {
        let entry = self.entries.iter().find(|entry| entry.path.to_string() == path).expect("a leaf");
        (entry.outcome, &entry.reason)
    }

    /// The fields that Cairn added.
    pub fn added(&self) -> Vec<String> {
        let added = self.entries.iter().filter(|entry| entry.outcome == Outcome::Added);
        added.map(|entry| format!("{} {}", entry.object, entry.field)).collect()
    }
}

/// Converts a stack file of a swarm.
pub fn case(text: &str) -> Case {
    let folder = TempDir::new().expect("a folder");
    Case::of(&folder, text, Dialect::Stack, Options::default(), &Images::default())
}

/// A service `a` with volumes.
fn with_volumes(mounts: &str, volumes: &str) -> Case {
    case(&format!("services: {{a: {{image: x, volumes: {mounts}}}}}\nvolumes: {volumes}\n"))
}

fn tar_of(members: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, owner) in members {
        let mut header = tar::Header::new_gnu();
        let is_folder = name.ends_with('/');
        header.set_entry_type(if is_folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if is_folder { 0o750 } else { 0o640 });
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).expect("appended");
    }
    builder.into_inner().expect("written")
}

/// The archive of an image `x:latest` with `/data`, which has a file, `/empty`, which is root's, and `/own`, which is of 70.
///
/// * `config`: what the image's configuration has below `config`.
pub fn images(config: Value, folders: &[&str]) -> Images {
    let passwd: &[u8] = b"root:x:0:0::/:\napp:x:70:71::/:\n";
    let layer = tar_of(&[
        ("data/", b"", 0),
        ("data/seed", b"1", 0),
        ("empty/", b"", 0),
        ("own/", b"", 70),
        ("etc/passwd", passwd, 0),
    ]);
    let diff = format!("sha256:{}", crate::deploy::Sha256::of(&layer));
    let rootfs = json!({"type": "layers", "diff_ids": [diff]});
    let config = json!({"os": "linux", "architecture": "amd64", "config": config, "rootfs": rootfs}).to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["x:latest"], "Layers": ["l.tar"]}]).to_string();
    let archive =
        tar_of(&[("c.json", config.as_bytes(), 0), ("manifest.json", manifest.as_bytes(), 0), ("l.tar", &layer, 0)]);
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), archive).expect("written");
    let folders = folders.iter().map(|folder| (*folder).to_owned()).collect();
    Images::read(&[file.path().to_owned()], &ImageQuery { platform: None, folders }, &|_| {}).expect("images")
}

fn with_images(text: &str, config: Value) -> Case {
    let folder = TempDir::new().expect("a folder");
    let images = images(config, &["/data", "/empty", "/own"]);
    Case::of(&folder, text, Dialect::Stack, Options::default(), &images)
}

#[test]
fn a_named_volume_of_one_task_is_a_claim() {
    let case = with_volumes("[db_data:/var/lib/db]", "{db_data: }");
    let claim = case.object("PersistentVolumeClaim", "db-data");
    assert_eq!(claim["metadata"]["namespace"], "shop");
    assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}));
    let deployment = case.object("Deployment", "a");
    // kompose#264: two pods must not write it at a time.
    assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
    let pod = case.pod("Deployment", "a");
    assert_eq!(pod["volumes"], json!([{"name": "db-data", "persistentVolumeClaim": {"claimName": "db-data"}}]));
    assert_eq!(pod["containers"][0]["volumeMounts"], json!([{"name": "db-data", "mountPath": "/var/lib/db"}]));
    assert_eq!(case.fate("volumes.db_data").0, Outcome::Approximated);
    let (outcome, reason) = case.fate("services.a.volumes[0]");
    assert_eq!(outcome, Outcome::Approximated);
    assert!(reason.contains("--images"), "{reason}");
    assert!(case.added().contains(&"PersistentVolumeClaim/db-data spec.resources.requests.storage".to_owned()));
}

#[test]
fn options_of_a_mount_have_their_fields() {
    let case = with_volumes(
        "[{type: volume, source: vd, target: /d, read_only: true, consistency: cached, volume: {nocopy: true, subpath: /a/b}}]",
        "{vd: {driver: local, labels: {com.example.team: x, '@bad': y}}}",
    );
    let pod = case.pod("Deployment", "a");
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([{"name": "vd", "mountPath": "/d", "readOnly": true, "subPath": "a/b"}])
    );
    let mount = |key: &str| case.fate(&format!("services.a.volumes[0].{key}")).0;
    assert_eq!(mount("read_only"), Outcome::Converted);
    assert_eq!(mount("target"), Outcome::Converted);
    assert_eq!(mount("volume.nocopy"), Outcome::Converted);
    assert_eq!(mount("volume.subpath"), Outcome::Converted);
    assert_eq!(case.fate("services.a.volumes[0].consistency"), (Outcome::Dropped, "it is for Docker on macOS"));
    assert_eq!(case.fate("volumes.vd.driver").0, Outcome::Converted);
    assert_eq!(case.fate(r#"volumes.vd.labels["com.example.team"]"#).0, Outcome::Converted);
    assert_eq!(case.fate("volumes.vd.labels.@bad").0, Outcome::Dropped);
    let claim = case.object("PersistentVolumeClaim", "vd");
    assert_eq!(claim["metadata"]["annotations"], json!({"com.example.team": "x"}));
    // What is only read is not written by two.
    assert_eq!(case.object("Deployment", "a")["spec"]["strategy"]["type"], "RollingUpdate");
}

#[test]
fn services_that_share_a_volume_share_one_claim_on_one_node() {
    let text =
        "services: {a: {image: x, volumes: ['vd:/d']}, b: {image: x, volumes: ['vd:/e:ro']}}\nvolumes: {vd: {}}\n";
    let case = case(text);
    assert_eq!(case.count("PersistentVolumeClaim"), 1);
    let expected = json!([{
        "labelSelector": {"matchLabels": {"volume.cairn.local/vd": "shared"}},
        "topologyKey": "kubernetes.io/hostname",
    }]);
    for name in ["a", "b"] {
        let pod = case.pod("Deployment", name);
        let affinity = &pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(affinity, &expected);
        // The first pod meets its own term only with the label.
        let labels = &case.object("Deployment", name)["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["volume.cairn.local/vd"], "shared");
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "vd");
    }
    let (outcome, reason) = case.fate("services.b.volumes[0]");
    assert_eq!(outcome, Outcome::Approximated);
    assert!(reason.contains("ReadWriteMany"), "{reason}");
}

#[test]
fn a_volume_of_several_tasks_is_a_claim_for_each() {
    let text = "services: {a: {image: x, deploy: {replicas: 3}, volumes: ['vd:/d']}}\nvolumes: {vd: {}}\n";
    let case = case(text);
    assert_eq!(case.count("PersistentVolumeClaim"), 0);
    let set = case.object("StatefulSet", "a");
    let templates = &set["spec"]["volumeClaimTemplates"];
    assert_eq!(templates[0]["metadata"], json!({"name": "vd"}));
    assert_eq!(templates[0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let pod = case.pod("StatefulSet", "a");
    assert_eq!(pod["volumes"], Value::Null);
    assert_eq!(pod["containers"][0]["volumeMounts"], json!([{"name": "vd", "mountPath": "/d"}]));
    let (outcome, reason) = case.fate("services.a.volumes[0]");
    assert_eq!(outcome, Outcome::Approximated);
    assert!(reason.contains("each node has a volume"), "{reason}");
}

#[test]
fn a_templated_name_is_a_claim_for_each_slot() {
    let text = "services: {a: {image: x, deploy: {replicas: 2}, volumes: [{type: volume, source: vd, target: /d, volume: \
                {nocopy: true}}]}}\nvolumes: {vd: {name: 'd_{{.Task.Slot}}'}}\n";
    let case = case(text);
    let set = case.object("StatefulSet", "a");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "d");
    assert_eq!(set["spec"]["ordinals"]["start"], 1);
    assert_eq!(case.fate("volumes.vd.name").0, Outcome::Approximated, "a claim has a size");
    assert_eq!(case.fate("services.a.volumes[0].source").0, Outcome::Converted);
}

#[test]
fn a_volume_of_a_global_service_is_a_folder_of_each_node() {
    let text = "services:\n  a: {image: x, deploy: {mode: global}, volumes: ['vd:/d']}\n  b: {image: x, volumes: ['vd:/d']}\n\
                volumes: {vd: {}}\n";
    let case = case(text);
    assert_eq!(case.count("PersistentVolumeClaim"), 0);
    let expected =
        json!([{"name": "vd", "hostPath": {"path": "/var/lib/shop-volumes/vd", "type": "DirectoryOrCreate"}}]);
    assert_eq!(case.pod("DaemonSet", "a")["volumes"], expected);
    assert_eq!(case.pod("Deployment", "b")["volumes"], expected);
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Approximated);
}

#[test]
fn a_name_with_the_service_in_it_is_a_claim_for_each_service() {
    let text = "services: {a: {image: x, volumes: ['vd:/d']}, b: {image: x, volumes: ['vd:/d']}}\n\
                volumes: {vd: {name: '{{.Service.Name}}_d', labels: {of: '{{.Service.Name}}'}}}\n";
    let case = case(text);
    for name in ["a", "b"] {
        let claim = format!("d-{name}");
        assert_eq!(case.pod("Deployment", name)["volumes"][0]["persistentVolumeClaim"]["claimName"], claim.as_str());
        let annotations = &case.object("PersistentVolumeClaim", &claim)["metadata"]["annotations"];
        assert_eq!(annotations["of"], format!("shop_{name}"));
    }
    assert_eq!(case.count("PersistentVolumeClaim"), 2);
}

#[test]
fn a_name_with_the_task_in_it_is_a_new_folder() {
    let text = "services: {a: {image: x, volumes: ['vd:/d']}}\nvolumes: {vd: {name: 'd_{{.Task.ID}}'}}\n";
    let case = case(text);
    assert_eq!(case.pod("Deployment", "a")["volumes"], json!([{"name": "d", "emptyDir": {}}]));
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Approximated);
}

#[test]
fn jobs_and_compose_share_one_claim() {
    let text = "services: {a: {image: x, deploy: {mode: replicated-job, replicas: 3}, volumes: ['vd:/d']}}\nvolumes: {vd: {}}\n";
    let of_job = case(text);
    assert_eq!(of_job.count("PersistentVolumeClaim"), 1);
    assert!(of_job.pod("Job", "a")["affinity"]["podAffinity"].is_object());
    let text = "services: {a: {image: x, deploy: {replicas: 3}, volumes: ['vd:/d']}}\nvolumes: {vd: {}}\n";
    let folder = TempDir::new().expect("a folder");
    let of_compose = Case::of(&folder, text, Dialect::Compose, Options::default(), &Images::default());
    assert_eq!(of_compose.count("PersistentVolumeClaim"), 1);
    assert!(of_compose.pod("Deployment", "a")["affinity"]["podAffinity"].is_object());
}

#[test]
fn a_folder_of_an_nfs_server_is_a_persistent_volume() {
    let options = "{type: nfs, o: 'addr=10.0.0.9,rw,nfsvers=4.1,soft', device: ':/exports/d'}";
    let case = with_volumes("['vd:/d:nocopy']", &format!("{{vd: {{driver_opts: {options}}}}}"));
    let volume = case.object("PersistentVolume", "shop-vd");
    assert_eq!(volume["metadata"].get("namespace"), None);
    assert_eq!(
        volume["spec"],
        json!({
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "vd"},
            "mountOptions": ["nfsvers=4.1", "soft"],
            "nfs": {"server": "10.0.0.9", "path": "/exports/d"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
        })
    );
    let claim = case.object("PersistentVolumeClaim", "vd");
    assert_eq!(claim["spec"]["volumeName"], "shop-vd");
    assert_eq!(claim["spec"]["storageClassName"], "");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    for option in ["type", "o", "device"] {
        assert_eq!(case.fate(&format!("volumes.vd.driver_opts.{option}")).0, Outcome::Converted, "{option}");
    }
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Converted);
}

fn local(options: &[(&str, &str)]) -> LocalVolume {
    let leaf = crate::migrate::Leaves::default().push(crate::migrate::Written {
        path: Path::default(),
        at: crate::migrate::Position { file: "stack.yml".into(), line: 1, column: 1 },
    });
    let options: Vec<_> =
        options.iter().map(|(key, value)| ((*key).to_owned(), At::new((*value).to_owned(), leaf))).collect();
    LocalVolume::of(&options)
}

#[test]
fn options_of_the_local_driver_are_those_of_mount() {
    let nfs = |server: &str, path: &str, is_read_only, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        LocalVolume::Export(NfsExport { server: server.to_owned(), path: path.to_owned(), is_read_only, options })
    };
    let of = |kind: &str, o: &str, device: &str| local(&[("type", kind), ("o", o), ("device", device)]);
    assert_eq!(of("nfs4", "addr=nas,ro", ":/x"), nfs("nas", "/x", true, &["nfsvers=4"]));
    assert_eq!(of("nfs4", "addr=nas,vers=4.2", "nas:/x"), nfs("nas", "/x", false, &["vers=4.2"]));
    assert_eq!(of("nfs", "addr=fd00::1", "[fd00::1]:/x"), nfs("fd00::1", "/x", false, &[]));
    assert_eq!(of("nfs", "", "nas:/x/y"), nfs("nas", "/x/y", false, &[]));
    assert!(matches!(of("nfs", "rw", ":/x"), LocalVolume::Other { .. }));
    assert_eq!(of("none", "bind,ro", "/x"), LocalVolume::Folder { path: "/x".to_owned(), is_read_only: true });
    assert_eq!(
        of("tmpfs", "size=100m,uid=1000", "tmpfs"),
        LocalVolume::Memory { size: Some(100 << 20), has_owner: true }
    );
    assert_eq!(local(&[]), LocalVolume::Plain { size: None });
    assert_eq!(local(&[("size", "10g")]), LocalVolume::Plain { size: Some(10 << 30) });
    let LocalVolume::Other { reason } = of("cifs", "username=u,password=hunter2", "//nas/x") else {
        panic!("a share is another volume")
    };
    assert!(reason.contains("csi-driver-smb") && !reason.contains("hunter2"), "{reason}");
    assert!(matches!(of("ext4", "", "/dev/sdb1"), LocalVolume::Other { .. }));
    assert!(matches!(of("nfs", "addr=nas", ":/x/{{.Task.Slot}}"), LocalVolume::Other { .. }));
}

#[test]
fn other_options_of_the_local_driver_are_folders_and_memory() {
    let case = with_volumes(
        "['vd:/d:nocopy', 'vm:/m:nocopy']",
        "{vd: {driver_opts: {type: none, o: bind, device: /srv/d}}, vm: {driver_opts: {type: tmpfs, o: size=64m, device: tmpfs}}}",
    );
    let pod = case.pod("Deployment", "a");
    assert_eq!(
        pod["volumes"],
        json!([
            {"name": "vd", "hostPath": {"path": "/srv/d", "type": "Directory"}},
            {"name": "vm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ])
    );
    assert_eq!(case.count("PersistentVolumeClaim"), 0);
    assert_eq!(case.fate("volumes.vd.driver_opts.device").0, Outcome::Converted);
    assert_eq!(case.fate("volumes.vm.driver_opts.o").0, Outcome::Converted);
}

#[test]
fn nothing_is_made_for_volumes_of_others_and_of_other_drivers() {
    let case = with_volumes(
        "['vd:/d', 'vr:/r', 'vs:/s']",
        "{vd: {external: true, name: real_d}, vr: {driver: rexray/ebs, driver_opts: {size: '20'}}, vs: {driver_opts: {type: \
         cifs, o: 'password=hunter2', device: //nas/s}}}",
    );
    assert_eq!(case.count("PersistentVolumeClaim") + case.count("PersistentVolume"), 0);
    let pod = case.pod("Deployment", "a");
    let claims: Vec<&Value> =
        (0..3).map(|number| &pod["volumes"][number]["persistentVolumeClaim"]["claimName"]).collect();
    assert_eq!(claims, ["real-d", "vr", "vs"]);
    for path in [
        "volumes.vd.external",
        "volumes.vd.name",
        "volumes.vr.driver",
        "volumes.vr.driver_opts.size",
        "volumes.vs.driver_opts.o",
    ] {
        assert_eq!(case.fate(path).0, Outcome::NeedsInput, "{path}");
    }
    assert!(case.entries.iter().all(|entry| !entry.reason.contains("hunter2")));
}

#[test]
fn folders_of_the_node_are_what_they_are_in_swarm() {
    let case = with_volumes(
        "['/srv/d:/d', '/etc/localtime:/etc/localtime:ro', '/proc:/host/proc:ro', '/:/rootfs:ro,rslave', \
         {type: bind, source: /mnt, target: /mnt, bind: {propagation: rshared}}]",
        "{}",
    );
    let pod = case.pod("Deployment", "a");
    assert_eq!(
        pod["volumes"],
        json!([
            {"name": "host-d", "hostPath": {"path": "/srv/d", "type": ""}},
            {"name": "host-localtime", "hostPath": {"path": "/etc/localtime", "type": "File"}},
            {"name": "host-proc", "hostPath": {"path": "/proc", "type": "Directory"}},
            {"name": "host-root", "hostPath": {"path": "/", "type": "Directory"}},
            {"name": "host-mnt", "hostPath": {"path": "/mnt", "type": ""}},
        ])
    );
    let mounts = &pod["containers"][0]["volumeMounts"];
    assert_eq!(mounts[3]["mountPropagation"], "HostToContainer");
    // Only privileged containers may have `Bidirectional`, and a stack has none.
    assert_eq!(mounts[4]["mountPropagation"], "HostToContainer");
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Approximated);
    assert_eq!(case.fate("services.a.volumes[1]").0, Outcome::Converted);
    assert_eq!(case.fate("services.a.volumes[2]").0, Outcome::Converted);
    assert_eq!(case.fate("services.a.volumes[4].bind.propagation").0, Outcome::Approximated);
}

#[test]
fn a_folder_on_a_named_node_is_converted() {
    let text =
        "services: {a: {image: x, volumes: ['/srv/d:/d'], deploy: {placement: {constraints: [node.hostname==n1]}}}}\n";
    assert_eq!(case(text).fate("services.a.volumes[0]").0, Outcome::Converted);
}

#[test]
fn what_is_in_the_folder_of_the_stack_is_asked_for() {
    let case = with_volumes("['./conf/x.conf:/x.conf:ro']", "{}");
    let (outcome, reason) = case.fate("services.a.volumes[0]");
    assert_eq!(outcome, Outcome::NeedsInput);
    assert!(reason.contains("config"), "{reason}");
}

#[test]
fn the_socket_and_the_folders_of_docker_are_not_mounted() {
    for path in ["/var/run/docker.sock", "/run/docker.sock", "/var/run/../run/docker.sock"] {
        let case = with_volumes(&format!("['{path}:/var/run/docker.sock:ro']"), "{}");
        assert_eq!(case.pod("Deployment", "a")["volumes"], Value::Null);
        assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Dropped);
        assert_eq!(case.cannot_move.len(), 1, "{:?}", case.cannot_move);
    }
    let bound = "{vd: {driver_opts: {type: none, o: bind, device: /run/docker.sock}}}";
    let case = with_volumes("['vd:/var/run/docker.sock', '/var/run:/r']", bound);
    assert_eq!(case.cannot_move.len(), 1, "{:?}", case.cannot_move);
    assert_eq!(case.fate("volumes.vd.driver_opts.device").0, Outcome::NeedsInput);
    assert_eq!(case.fate("services.a.volumes[1]").0, Outcome::Approximated);
    assert_eq!(case.pod("Deployment", "a")["volumes"].as_array().map(Vec::len), Some(1));
    let case = with_volumes("['/var/lib/docker/containers:/logs:ro', '/var/lib/dockerish:/x']", "{}");
    let (outcome, reason) = case.fate("services.a.volumes[0]");
    assert_eq!(outcome, Outcome::NeedsInput);
    assert!(reason.contains("/var/log/pods"), "{reason}");
    let volumes = &case.pod("Deployment", "a")["volumes"];
    assert_eq!(volumes.as_array().map(Vec::len), Some(1));
    assert_eq!(volumes[0]["hostPath"]["path"], "/var/lib/dockerish");
}

#[test]
fn windows_and_homes_are_refused() {
    let case =
        with_volumes(r"['C:\data:/d', {type: npipe, source: '\\.\pipe\x', target: '\\.\pipe\x'}, '~/x:/x']", "{}");
    assert_eq!(case.pod("Deployment", "a")["volumes"], Value::Null);
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Dropped);
    assert_eq!(case.fate("services.a.volumes[1].source").0, Outcome::Dropped);
    assert_eq!(case.fate("services.a.volumes[2]").0, Outcome::NeedsInput);
    assert!(case.cannot_move[0].contains("Windows"));
}

#[test]
fn placeholders_of_folders_are_expanded_by_the_pod() {
    let text = "services: {a: {image: x, volumes: ['/srv/{{.Service.Name}}:/d', '/srv/x-{{.Node.Hostname}}/y:/e', \
                '/srv:/f/{{.Task.ID}}']}}\n";
    let case = case(text);
    let pod = case.pod("Deployment", "a");
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/srv/shop_a");
    assert_eq!(pod["volumes"][1]["hostPath"]["path"], "/srv");
    let container = &pod["containers"][0];
    assert_eq!(container["volumeMounts"][1]["subPathExpr"], "x-$(CAIRN_NODE_NAME)/y");
    assert_eq!(container["env"][0]["name"], "CAIRN_NODE_NAME");
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    assert_eq!(container["volumeMounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(case.fate("services.a.volumes[2]").0, Outcome::NeedsInput);
}

#[test]
fn memory_counts_against_the_limit() {
    let text = "services:\n  a:\n    image: x\n    volumes:\n    - {type: tmpfs, target: /a, tmpfs: {size: 67108864, mode: 0700}}\n    \
                - {type: tmpfs, target: /b, tmpfs: {size: 33554432}}\n    deploy: {resources: {limits: {memory: 256M}}}\n";
    let limited = case(text);
    let volumes = &limited.pod("Deployment", "a")["volumes"];
    assert_eq!(volumes[0]["emptyDir"], json!({"medium": "Memory", "sizeLimit": "64Mi"}));
    let (outcome, reason) = limited.fate("services.a.volumes[0].tmpfs.size");
    assert_eq!(outcome, Outcome::Approximated);
    assert!(reason.contains("256Mi") && reason.contains("96Mi"), "{reason}");
    assert_eq!(limited.fate("services.a.volumes[0].tmpfs.mode").0, Outcome::Approximated);
    let free = with_volumes("[{type: tmpfs, target: /a, tmpfs: {mode: 01777}}]", "{}");
    assert_eq!(free.pod("Deployment", "a")["volumes"][0]["emptyDir"], json!({"medium": "Memory"}));
    assert_eq!(free.fate("services.a.volumes[0].tmpfs.mode").0, Outcome::Converted);
}

#[test]
fn volumes_without_a_name_end_with_the_pod() {
    let case = with_volumes("[/cache]", "{}");
    assert_eq!(case.pod("Deployment", "a")["volumes"], json!([{"name": "anonymous-cache", "emptyDir": {}}]));
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Approximated);
}

#[test]
fn empty_volumes_are_filled_from_the_image() {
    let text = "services: {a: {image: x, volumes: ['vd:/data', 've:/empty', 'vo:/own', 'vn:/data2']}}\nvolumes: {vd: {}, ve: {}, vo: {}, vn: {}}\n";
    let case = with_images(text, json!({"User": "app", "Volumes": {"/data": {}, "/empty/v": {}}}));
    let pod = case.pod("Deployment", "a");
    let fillers = pod["initContainers"].as_array().expect("fillers");
    // Docker copies owner and mode of a folder as well, so the one of another user counts.
    let found: Vec<(&Value, &Value)> =
        fillers.iter().map(|filler| (&filler["args"][0], &filler["volumeMounts"][0]["name"])).collect();
    assert_eq!(found, [(&json!("/data"), &json!("vd")), (&json!("/own"), &json!("vo"))]);
    assert_eq!(fillers[0]["image"], "x");
    assert_eq!(fillers[0]["securityContext"]["runAsUser"], 0);
    // The image's own volume that nothing is mounted at.
    assert!(pod["volumes"].as_array().expect("volumes").contains(&json!({"name": "image-v", "emptyDir": {}})));
    assert!(case.added().contains(&"Deployment/a spec.template.spec.volumes[name=image-v].emptyDir".to_owned()));
    assert_eq!(case.fate("services.a.volumes[0]").0, Outcome::Converted);
}

#[test]
fn a_volume_is_filled_once_and_only_when_it_is_empty() {
    let text = "services: {a: {image: x, volumes: ['vd:/data']}}\nvolumes: {vd: {}}\n";
    let case = with_images(text, json!({}));
    let pod = case.pod("Deployment", "a");
    let command = &pod["initContainers"][0]["command"];
    assert_eq!((&command[0], &command[1]), (&json!("/bin/sh"), &json!("-c")));
    let script = command[2].as_str().expect("a script");
    let folder = TempDir::new().expect("a folder");
    let (from, to) = (folder.path().join("the image"), folder.path().join("volume"));
    fs::create_dir_all(from.join("sub")).expect("made");
    fs::write(from.join("sub/.file"), "1").expect("written");
    let fill = || {
        let status =
            Command::new("/bin/sh").args(["-c", script, "fill"]).args([&from, &to]).status().expect("a shell runs");
        assert!(status.success());
        let mut names: Vec<String> = fs::read_dir(&to)
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    // What mkfs leaves behind does not count.
    fs::create_dir_all(to.join("lost+found")).expect("made");
    assert_eq!(fill(), ["lost+found", "sub"]);
    assert_eq!(fs::read_to_string(to.join("sub/.file")).expect("copied"), "1");
    fs::remove_dir_all(to.join("sub")).expect("removed");
    fs::write(to.join(".hidden"), "").expect("written");
    assert_eq!(fill(), [".hidden", "lost+found"]);
    // A copy that was cut off is done again.
    fs::write(to.join(".cairn-filling"), "").expect("written");
    assert_eq!(fill(), [".hidden", "lost+found", "sub"]);
}

#[test]
fn images_and_cluster_volumes_are_asked_for() {
    let text = "services: {a: {image: x, volumes: [{type: cluster, source: vc, target: /c}]}}\n\
                volumes: {vc: {x-cluster-spec: {group: g}}}\n";
    let of_cluster = case(text);
    assert_eq!(of_cluster.fate("services.a.volumes[0].source").0, Outcome::NeedsInput);
    assert_eq!(of_cluster.count("PersistentVolumeClaim"), 0);
}

#[test]
fn unused_volumes_make_nothing() {
    let case = case("services: {a: {image: x}}\nvolumes: {vd: {labels: {x: y}}}\n");
    assert_eq!(case.count("PersistentVolumeClaim"), 0);
    assert_eq!(case.fate("volumes.vd.labels.x").0, Outcome::Dropped);
}

#[test]
fn a_volume_of_many_services_has_short_reasons() {
    let services: Vec<String> =
        (0..300).map(|number| format!("s{number}: {{image: x, volumes: ['vd:/d:nocopy']}}")).collect();
    let case = case(&format!("services: {{{}}}\nvolumes: {{vd: }}\n", services.join(", ")));
    let longest = case.entries.iter().map(|entry| entry.reason.len()).max();
    assert!(longest.is_some_and(|longest| longest < 1_000), "{longest:?}");
}

#[test]
fn many_volumes_are_planned_in_linear_time() {
    use std::fmt::Write as _;
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for number in 0..4_000 {
        write!(mounts, "'v{number}:/m{number}', ").expect("text");
        write!(volumes, "v{number}: {{}}, ").expect("text");
    }
    let text = format!(
        "services: {{a: {{image: x, deploy: {{replicas: 2}}, volumes: [{mounts}]}}}}\nvolumes: {{{volumes}}}\n"
    );
    let start = std::time::Instant::now();
    let case = case(&text);
    let claims = case.object("StatefulSet", "a")["spec"]["volumeClaimTemplates"].as_array().map(Vec::len);
    assert_eq!(claims, Some(4_000));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
