//! How the data of each volume of a stack gets to the cluster, as seen from one of the swarm's machines.
//!
//! A volume whose folder is here is used where it is: a `PersistentVolume` of kind `local`, reserved for the claim and bound to this node. Invariants:
//! nothing is changed but the two files that are written; neither Docker nor the cluster is contacted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolume;
use rustix::fs::CWD;
use serde::{Deserialize, Serialize};

use super::claim::{claim_folder, persistent_volume};
use super::docker::{Location, locate};
use super::facts::{open_folder, open_handle};
use super::walk::{Measure, Walk, measure};
use super::{DataError, bytes_of, name_of};
use crate::deploy::{manifest, write_file};
use crate::migrate::folder::REPORT;

/// Largest report that is read.
const REPORT_MAX: u64 = 256 << 20;
/// Bytes of a gibibyte.
pub(super) const GIB: u64 = 1 << 30;

/// A volume of the swarm, and what needs its data: an item of `volumes` in `report.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNeed {
    /// Docker's name: `STACK_KEY`, or the `name` that the file gives it.
    pub volume: String,
    /// Claims that need it. Several: each machine has a volume of this name, and one of them goes to each claim.
    #[serde(default)]
    pub claims: Vec<String>,
    /// The folder that pods use directly; then there is no claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// Where the claims are.
    pub namespace: String,
    /// Class of the claims; none: that of K3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Access modes of the claims; empty: `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// Bytes that the claims ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// Where containers have it.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// Docker's names of the services that use it: `STACK_SERVICE`.
    #[serde(default)]
    pub users: Vec<String>,
}

/// What is planned.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The folder of a conversion.
    pub folder: PathBuf,
    /// Docker's root on this machine: `/var/lib/docker`.
    pub docker_root: PathBuf,
    /// Folders of volumes that are elsewhere, by Docker's name.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The claim that gets this machine's volume, by Docker's name, where several need one.
    pub claims: BTreeMap<String, String>,
    /// This machine's name in the cluster.
    pub node: String,
    /// Where the cluster has the data of claims: `/var/lib/rancher/k3s/storage`.
    pub storage: PathBuf,
    /// Whether data is copied also where it could be used where it is.
    pub copies: bool,
}

/// How data gets to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A `PersistentVolume` at the folder that is there.
    ZeroCopy,
    /// A copy to the folder of the claim, or to the one that pods use.
    Copy,
    /// Pods use the folder that is there.
    InPlace,
    /// It is on a server: the claim uses that.
    Network,
    /// It is not on this machine.
    OtherNode,
    /// The user has to choose a claim.
    ChooseClaim,
}

impl Way {
    /// In words, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::InPlace => "in-place",
            Self::Network => "network",
            Self::OtherNode => "other-node",
            Self::ChooseClaim => "choose-claim",
        }
    }
}

/// A volume with its way.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedVolume {
    /// What it is, and who needs it.
    #[serde(flatten)]
    pub need: VolumeNeed,
    /// How its data gets to the cluster.
    pub way: Way,
    /// Why, and what to do where that is open.
    pub reason: String,
    /// The claim that gets it.
    pub claim: Option<String>,
    /// Its folder on this machine.
    pub source: Option<String>,
    /// Regular files in it.
    pub files: u64,
    /// Bytes that it occupies.
    pub bytes: u64,
    /// Files that may not be changed (`chattr +i`, `+a`), which is not copied.
    pub locked: u64,
    /// What the claim should ask for, in GiB: half as much again as the data, at least 1.
    pub size_gib: u64,
    /// Bytes that are free where a copy goes.
    pub free: Option<u64>,
    /// What to run, in this order.
    pub commands: Vec<String>,
}

/// The plan of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The machine's name in the cluster.
    pub node: String,
    /// Every volume of the stack.
    pub volumes: Vec<PlannedVolume>,
    /// For the volumes that are used where they are.
    #[serde(skip)]
    pub persistent_volumes: Vec<PersistentVolume>,
}

/// This machine's name, as K3s names a node: in lower case.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// The volumes that a conversion found.
///
/// # Errors
/// When the folder has no report, or one without them.
pub fn needs(folder: &Path) -> Result<Vec<VolumeNeed>, DataError> {
    #[derive(Deserialize)]
    struct Report {
        volumes: Option<Vec<VolumeNeed>>,
    }
    let path = folder.join(REPORT);
    let failure = |error: io::Error| DataError::read(bytes_of(&path), error);
    let not = |message: &str| {
        let hint = "run cairn migrate swarm again, with this folder as its output";
        DataError::Plan(format!("{}: {message}; {hint}", name_of(&path)))
    };
    let opened = crate::base::regular_file::open(&path).map_err(failure)?;
    let (file, length) = opened.ok_or_else(|| not("it is not a file"))?;
    if length > REPORT_MAX {
        return Err(not("it is too large for a report"));
    }
    let report: Report = serde_json::from_reader(io::BufReader::new(file))
        .map_err(|error| not(&format!("it is not the report of a conversion: {error}")))?;
    let volumes = report.volumes.ok_or_else(|| not("it lists no volumes"))?;
    for need in &volumes {
        // Docker's own rule for names: nothing that leads out of its folder.
        let is_name = need.volume.starts_with(|first: char| first.is_ascii_alphanumeric())
            && need.volume.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter));
        if !is_name {
            return Err(not(&format!("{:?} is not the name of a volume", need.volume)));
        }
    }
    Ok(volumes)
}

/// Plans each volume.
///
/// # Errors
/// When a folder that is there cannot be read, or a choice names nothing.
pub fn plan(request: &PlanRequest, needs: &[VolumeNeed]) -> Result<Plan, DataError> {
    for name in request.volumes.keys().chain(request.claims.keys()) {
        if !needs.iter().any(|need| need.volume == *name) {
            let names: Vec<&str> = needs.iter().map(|need| need.volume.as_str()).collect();
            return Err(DataError::Plan(format!(
                "{name:?} is not a volume of the stack, expected one of: {}",
                names.join(", ")
            )));
        }
    }
    let mut plan = Plan { node: request.node.clone(), volumes: Vec::new(), persistent_volumes: Vec::new() };
    for need in needs {
        let (volume, object) = planned(request, need)?;
        plan.volumes.push(volume);
        plan.persistent_volumes.extend(object);
    }
    Ok(plan)
}

fn planned(request: &PlanRequest, need: &VolumeNeed) -> Result<(PlannedVolume, Option<PersistentVolume>), DataError> {
    let mut volume = PlannedVolume {
        need: need.clone(),
        way: Way::OtherNode,
        reason: format!("it is not on {}: run this on the machine that has it", request.node),
        claim: None,
        source: None,
        files: 0,
        bytes: 0,
        locked: 0,
        size_gib: 1,
        free: None,
        commands: Vec::new(),
    };
    let folder = match locate(request, &need.volume)? {
        Location::Elsewhere => return Ok((volume, None)),
        Location::Network(mount) => {
            volume.way = Way::Network;
            volume.reason = format!("its data is on a server ({mount}), where it stays");
            return Ok((volume, None));
        }
        Location::Here(folder) => folder,
    };
    let text = folder.to_str().filter(|text| !text.chars().any(char::is_control));
    let source = text.ok_or_else(|| {
        DataError::Plan(format!("{}: a path that is not plain text cannot be named in an object", name_of(&folder)))
    })?;
    let sum = measured(&folder)?;
    volume.source = Some(source.to_owned());
    (volume.files, volume.bytes, volume.locked) = (sum.files, sum.allocated, sum.locked);
    volume.size_gib = size_gib(sum.allocated);
    let stop = need.users.iter().map(|user| format!("docker service scale {}=0", quoted(user)));
    volume.commands = stop.collect();
    if let Some(path) = &need.host_path {
        return Ok((in_folder(volume, &folder, source, path), None));
    }
    volume.claim = match (request.claims.get(&need.volume), need.claims.as_slice()) {
        (Some(chosen), claims) if claims.contains(chosen) => Some(chosen.clone()),
        (Some(chosen), claims) => {
            let claims = claims.join(", ");
            return Err(DataError::Plan(format!(
                "{chosen:?} is not a claim for {}, expected one of: {claims}",
                need.volume
            )));
        }
        (None, [one]) => Some(one.clone()),
        (None, _) => None,
    };
    let Some(claim) = volume.claim.clone() else {
        volume.way = Way::ChooseClaim;
        volume.reason = match need.claims.first() {
            None => "no claim needs it: the stack declares it and does not use it".to_owned(),
            Some(first) => format!(
                "each machine has a volume of this name, and each claim gets one of them ({}): choose with --claim {}={first}",
                need.claims.join(", "),
                need.volume
            ),
        };
        volume.commands.clear();
        return Ok((volume, None));
    };
    if request.copies {
        volume.way = Way::Copy;
        volume.reason = "--copy".to_owned();
        volume.free = free(&request.storage);
        match claim_folder(&request.storage, &need.namespace, &claim)? {
            Some(target) => volume.commands.extend(copy_commands(source, &target)),
            None => {
                volume.reason = format!(
                    "--copy; claim {claim} has no folder below {} yet: run this again once a pod was started with it, and stopped",
                    name_of(&request.storage)
                );
            }
        }
        return Ok((volume, None));
    }
    volume.way = Way::ZeroCopy;
    volume.reason = format!("its folder is on {}, and the claim uses it where it is", request.node);
    volume.commands.push("kubectl apply -f data/persistent-volumes.yaml".to_owned());
    let object = persistent_volume(request, &volume, &claim, source);
    Ok((volume, Some(object)))
}

/// A volume whose data pods use in a folder of the machine.
fn in_folder(mut volume: PlannedVolume, folder: &Path, source: &str, path: &str) -> PlannedVolume {
    if Path::new(path).canonicalize().is_ok_and(|path| path == folder) {
        volume.way = Way::InPlace;
        volume.reason = "pods use its folder where it is".to_owned();
        return volume;
    }
    volume.way = Way::Copy;
    volume.reason = format!("pods use {path}");
    volume.free = free(Path::new(path));
    volume.commands.extend(copy_commands(source, path));
    volume
}

fn copy_commands(source: &str, target: &str) -> [String; 2] {
    let (source, target) = (quoted(source), quoted(target));
    [format!("cairn migrate data copy {source} {target}"), format!("cairn migrate data verify {source} {target}")]
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn measured(folder: &Path) -> Result<Measure, DataError> {
    let opened = open_handle(CWD, bytes_of(folder)).and_then(open_folder).and_then(Walk::new);
    measure(opened.map_err(|error| DataError::read(bytes_of(folder), error))?, |_, _| Ok(()))
}

/// Half as much again, in whole gibibytes.
fn size_gib(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 2).div_ceil(GIB).max(1)
}

/// Bytes that are free in a folder, or where it will be.
fn free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Writes `data/plan.json` and, where there are any, `data/persistent-volumes.yaml` into the folder of the conversion; with their paths.
///
/// # Errors
/// When the system refuses.
pub fn write(folder: &Path, plan: &Plan) -> Result<Vec<PathBuf>, DataError> {
    let data = folder.join("data");
    fs::create_dir_all(&data).map_err(|error| DataError::write(bytes_of(&data), error))?;
    let (json, yaml) = (data.join("plan.json"), data.join("persistent-volumes.yaml"));
    let text = serde_json::to_string_pretty(plan).expect("plain data is JSON");
    write_file(&json, 0o644, format!("{text}\n").as_bytes())?;
    if plan.persistent_volumes.is_empty() {
        match fs::remove_file(&yaml) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DataError::write(bytes_of(&yaml), error));
            }
            _ => return Ok(vec![json]),
        }
    }
    let objects: Vec<String> = plan.persistent_volumes.iter().map(manifest::to_yaml).collect();
    write_file(&yaml, 0o644, objects.join("---\n").as_bytes())?;
    Ok(vec![json, yaml])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(root: &Path) -> PlanRequest {
        PlanRequest {
            folder: root.join("out"),
            docker_root: root.join("docker"),
            volumes: BTreeMap::new(),
            claims: BTreeMap::new(),
            node: "node-1".to_owned(),
            storage: root.join("storage"),
            copies: false,
        }
    }

    fn volume(root: &Path, name: &str, options: Option<&str>) -> PathBuf {
        let folder = root.join("docker/volumes").join(name);
        fs::create_dir_all(folder.join("_data")).expect("made");
        fs::write(folder.join("_data/file"), "content").expect("written");
        if let Some(options) = options {
            fs::write(folder.join("opts.json"), options).expect("written");
        }
        folder.join("_data")
    }

    fn need(volume: &str, claims: &[&str]) -> VolumeNeed {
        VolumeNeed {
            volume: volume.to_owned(),
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
            namespace: "shop".to_owned(),
            users: vec!["shop_db".to_owned()],
            ..VolumeNeed::default()
        }
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("there");
        (folder, root)
    }

    #[test]
    fn a_claim_is_half_as_large_again_as_its_data_in_whole_gibibytes() {
        for (bytes, gib) in
            [(0, 1), (GIB / 2, 1), (GIB * 2 / 3, 1), (GIB, 2), (2 * GIB, 3), (2 * GIB + 1, 4), (100 * GIB, 150)]
        {
            assert_eq!(size_gib(bytes), gib, "{bytes}");
        }
        assert!(size_gib(u64::MAX) > 1);
    }

    /// The fields that a static `local` volume needs: Kubernetes, Concepts, Storage, Volumes, `local`, and Persistent Volumes, "Reserving".
    #[test]
    fn a_volume_of_this_machine_is_used_where_it_is() {
        let (_folder, root) = root();
        let data = volume(&root, "shop_db", None);
        let mut need = need("shop_db", &["db"]);
        need.request = Some(7 * GIB);
        let plan = plan(&request(&root), &[need]).expect("planned");
        let [one] = plan.volumes.as_slice() else { panic!("{plan:?}") };
        assert_eq!((one.way, one.files, one.size_gib, one.claim.as_deref()), (Way::ZeroCopy, 1, 1, Some("db")));
        assert_eq!(one.commands, ["docker service scale shop_db=0", "kubectl apply -f data/persistent-volumes.yaml"]);
        let object = serde_json::to_value(&plan.persistent_volumes[0]).expect("JSON");
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "shop-db", "labels": {"app.kubernetes.io/managed-by": "cairn"}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "7Gi"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "db", "namespace": "shop"},
                "local": {"path": data.to_str()},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}]}},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local-path",
                "volumeMode": "Filesystem",
            },
        });
        assert_eq!(object, expected);
        let files = write(&root.join("out"), &plan).expect("written");
        let yaml = fs::read_to_string(&files[1]).expect("read");
        assert_eq!(serde_yaml::from_str::<serde_json::Value>(&yaml).expect("YAML"), expected);
    }

    #[test]
    fn each_volume_has_its_way() {
        let (_folder, root) = root();
        let other = root.join("elsewhere/it's here");
        fs::create_dir_all(&other).expect("made");
        volume(&root, "shop_slots", None);
        volume(&root, "shop_copy", None);
        let in_place = volume(&root, "shop_place", None);
        volume(
            &root,
            "shop_nfs",
            Some(r#"{"MountType":"nfs","MountOpts":"addr=10.0.0.1,rw","MountDevice":":/export","Quota":{"Size":0}}"#),
        );
        let bind = format!(r#"{{"MountType":"none","MountOpts":"o,bind","MountDevice":{other:?}}}"#);
        volume(&root, "shop_bind", Some(&bind));
        let mut host = need("shop_copy", &[]);
        host.host_path = Some(root.join("storage/at").to_str().expect("text").to_owned());
        let mut place = need("shop_place", &[]);
        place.host_path = in_place.to_str().map(str::to_owned);
        let needs = [
            need("shop_far", &["far"]),
            need("shop_slots", &["data-db-1", "data-db-2"]),
            need("shop_nfs", &["nfs"]),
            need("shop_bind", &["bind"]),
            host,
            place,
            need("shop_named", &["named"]),
        ];
        let mut request = request(&root);
        request.volumes.insert("shop_named".to_owned(), other.clone());
        let ways = |request: &PlanRequest| -> Vec<Way> {
            plan(request, &needs).expect("planned").volumes.iter().map(|one| one.way).collect()
        };
        let open =
            [Way::OtherNode, Way::ChooseClaim, Way::Network, Way::ZeroCopy, Way::Copy, Way::InPlace, Way::ZeroCopy];
        assert_eq!(ways(&request), open);
        request.claims.insert("shop_slots".to_owned(), "data-db-2".to_owned());
        request.copies = true;
        let made = plan(&request, &needs).expect("planned");
        assert_eq!((made.volumes[1].way, made.volumes[1].claim.as_deref()), (Way::Copy, Some("data-db-2")));
        assert!(made.persistent_volumes.is_empty());
        assert_eq!(made.volumes[6].commands, ["docker service scale shop_db=0"], "its claim has no folder yet");
        assert!(made.volumes[6].reason.contains("run this again"), "{}", made.volumes[6].reason);
        for name in ["pvc-1_shop_named", "pvc-2_shop_named-2", "pvc-3_other_shop_named", "pvc-4_workshop_named"] {
            fs::create_dir_all(root.join("storage").join(name)).expect("made");
        }
        let made = plan(&request, &needs).expect("planned");
        let command = &made.volumes[6].commands[1];
        assert!(command.contains(r"it'\''s here' "), "{command}");
        assert!(command.ends_with("/storage/pvc-1_shop_named"), "{command}");
        assert!(made.volumes[4].free.is_some_and(|free| free > 0));
        request.claims.insert("shop_slots".to_owned(), "data-db-9".to_owned());
        assert!(plan(&request, &needs).expect_err("refused").to_string().contains("data-db-1, data-db-2"));
        request.claims = BTreeMap::from([("typo".to_owned(), "x".to_owned())]);
        assert!(plan(&request, &needs).expect_err("refused").to_string().contains("shop_slots"));
    }

    #[test]
    fn a_report_without_volumes_or_with_a_path_for_a_name_is_refused() {
        let (_folder, root) = root();
        let read = |text: &str| {
            fs::write(root.join(REPORT), text).expect("written");
            super::needs(&root)
        };
        assert_eq!(read(r#"{"volumes": []}"#).expect("none"), []);
        let one = r#"{"volumes": [{"volume": "shop_db", "claims": ["db"], "namespace": "shop"}]}"#;
        assert_eq!(read(one).expect("one")[0].claims, ["db"]);
        for text in [
            "",
            "{}",
            "[]",
            &one.replace("shop_db", "../../etc"),
            &one.replace("shop_db", "a/b"),
            &one.replace("shop_db", ""),
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
