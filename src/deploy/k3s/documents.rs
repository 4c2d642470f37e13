//! The job that keeps documents in sync: out of a git repository, a volume or a ConfigMap, by Cairn's own command line.
//!
//! Its pods have the limits of the node's: `restricted`, no rights in the cluster, and a policy that lets them reach the node, names,
//! and the git server, and nothing else. What clones a repository is an image of the operator's, because Cairn's has nothing but Cairn.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource, PodSpec,
    PodTemplateSpec, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::network::{MCP, blocks, dns, port_of};
use super::settings::Settings;
use super::sizes::{TMP, quantity};
use super::spec::{DocumentSource, Documents, Git};
use super::workload::{
    mount, mounted, node_affinity, node_selector, pod_security, pull_secrets, required_nodes, secret, security,
    tolerations,
};
use super::{AUTHORITY_KEY, TOKEN_KEY, metadata, program_labels, selector};

/// Where the documents are in the pod.
const DIR: &str = "/documents";
/// Where the copy of a repository is; it has to be a folder that git makes.
const COPY: &str = "/documents/repository";
const TOKEN_DIR: &str = "/run/secrets/cairn";
const AUTHORITY_DIR: &str = "/run/cairn-authority";
const GIT_DIR: &str = "/run/secrets/git";
/// How long a job may take: a first copy of a large repository, and embedding what is in it.
const DEADLINE_SECONDS: i64 = 4 * 3_600;

/// The program of the job's pods, which no selector of the node's pod may find.
const PROGRAM: &str = "cairn-documents";

/// What the job's pods reach.
pub(super) fn policy(settings: &Settings, source: DocumentSource<'_>) -> NetworkPolicy {
    let node = NetworkPolicyPeer { pod_selector: Some(selector(settings)), ..NetworkPolicyPeer::default() };
    let mut egress =
        vec![dns(), NetworkPolicyEgressRule { to: Some(vec![node]), ports: Some(vec![port_of("TCP", MCP)]) }];
    if let DocumentSource::Git(Git { url, cidr, .. }) = source {
        let ports = Some(vec![port_of("TCP", super::network::endpoint_port(url))]);
        egress.push(NetworkPolicyEgressRule { to: blocks(cidr), ports });
    }
    NetworkPolicy {
        metadata: labelled(settings),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(settings.names().labels_of_pods(PROGRAM)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: None,
            egress: Some(egress),
        }),
    }
}

fn labelled(settings: &Settings) -> ObjectMeta {
    ObjectMeta { labels: Some(labels(settings)), ..metadata(settings, settings.names().documents(), "documents") }
}

fn labels(settings: &Settings) -> BTreeMap<String, String> {
    program_labels(&settings.names(), PROGRAM, "documents")
}

/// The job, as often as its schedule says.
pub(super) fn job(settings: &Settings, documents: &Documents, source: DocumentSource<'_>) -> CronJob {
    let labels = Some(labels(settings));
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: labels.clone(), ..ObjectMeta::default() }),
        spec: Some(pod(settings, documents, source)),
    };
    let job = JobSpec {
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        // The next one comes by the schedule.
        backoff_limit: Some(1),
        template,
        ..JobSpec::default()
    };
    CronJob {
        metadata: labelled(settings),
        spec: Some(CronJobSpec {
            schedule: documents.schedule.to_string(),
            // Two at once would each undo what the other did.
            concurrency_policy: Some("Forbid".to_owned()),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(2),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta { labels, ..ObjectMeta::default() }),
                spec: Some(job),
            },
            ..CronJobSpec::default()
        }),
        ..CronJob::default()
    }
}

fn pod(settings: &Settings, documents: &Documents, source: DocumentSource<'_>) -> PodSpec {
    let names = settings.names();
    let mut volumes = vec![source_volume(source), scratch(), secret("token", TOKEN_DIR, &names.token_secret(), false)];
    // What to trust the node by: its own authority is known to the cluster's API only, so somebody put it there.
    let authority = match (settings.is_tls(), settings.spec.cert_manager.is_some()) {
        (false, _) => None,
        (true, true) => Some((secret("authority", AUTHORITY_DIR, &names.tls_secret(), false), "ca.crt")),
        (true, false) => Some((
            mounted("authority", AUTHORITY_DIR, |volume| {
                let name = names.authority();
                volume.config_map = Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() });
            }),
            AUTHORITY_KEY,
        )),
    };
    let ca = authority.as_ref().map(|(_, key)| format!("{AUTHORITY_DIR}/{key}"));
    volumes.extend(authority.map(|(volume, _)| volume));
    let mut init = Vec::new();
    if let DocumentSource::Git(repository) = source {
        let (mut clone, mut all) = (git(repository), Vec::new());
        if let Some(name) = &repository.secret {
            let (volume, mount) = secret("git", GIT_DIR, name, false);
            all.push(mount);
            volumes.push((volume, all[0].clone()));
        }
        all.extend([mount("documents", DIR, false), mount("tmp", "/tmp", false)]);
        clone.volume_mounts = Some(all);
        init.push(clone);
    }
    let mounts = volumes.iter().filter(|(volume, _)| volume.name != "git").map(|(_, mount)| mount.clone()).collect();
    PodSpec {
        service_account_name: Some(names.node().to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        node_selector: node_selector(settings),
        affinity: node_affinity(required_nodes(settings), None),
        tolerations: Some(tolerations(settings)).filter(|all| !all.is_empty()),
        priority_class_name: settings.spec.priority_class.as_deref().cloned(),
        image_pull_secrets: pull_secrets(settings),
        security_context: Some(pod_security(None)),
        init_containers: Some(init).filter(|init| !init.is_empty()),
        containers: vec![add(settings, documents, source, ca, mounts)],
        volumes: Some(volumes.into_iter().map(|(volume, _)| volume).collect()),
        ..PodSpec::default()
    }
}

fn source_volume(source: DocumentSource<'_>) -> (Volume, VolumeMount) {
    let is_copy = matches!(source, DocumentSource::Git(_));
    let (volume, mut mount) = mounted("documents", DIR, |volume| match source {
        DocumentSource::Claim(name) => {
            let (claim_name, read_only) = (name.to_owned(), Some(true));
            volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource { claim_name, read_only });
        }
        DocumentSource::ConfigMap(name) => {
            let name = name.to_owned();
            volume.config_map = Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() });
        }
        DocumentSource::Git(repository) => {
            let size_limit = Some(Quantity(quantity(repository.size.get())));
            volume.empty_dir = Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() });
        }
    });
    mount.read_only = (!is_copy).then_some(true);
    (volume, mount)
}

fn scratch() -> (Volume, VolumeMount) {
    mounted("tmp", "/tmp", |volume| {
        let size_limit = Some(Quantity(quantity(TMP)));
        volume.empty_dir = Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() });
    })
}

/// Copies the repository, without a shell: what is in a setting is an argument, whatever it says.
fn git(repository: &Git) -> Container {
    let mut arguments: Vec<String> = Vec::new();
    if repository.secret.is_some() {
        arguments.extend(["-c".to_owned(), format!("credential.helper=store --file={GIT_DIR}/credentials")]);
    }
    arguments.extend(["clone", "--depth=1", "--single-branch"].map(str::to_owned));
    arguments.extend(repository.branch.iter().map(|branch| format!("--branch={}", **branch)));
    arguments.extend(["--".to_owned(), repository.url.to_string(), COPY.to_owned()]);
    let variable =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() };
    Container {
        name: "clone".to_owned(),
        image: Some(repository.image.to_string()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["git".to_owned()]),
        args: Some(arguments),
        // Nobody is there who could enter a password.
        env: Some(vec![variable("HOME", "/tmp"), variable("GIT_TERMINAL_PROMPT", "0")]),
        resources: Some(resources(("50m", "1"), ("64Mi", "512Mi"), ("64Mi", "2Gi"))),
        security_context: Some(security()),
        ..Container::default()
    }
}

/// Syncs the collection with the folder.
fn add(
    settings: &Settings,
    documents: &Documents,
    source: DocumentSource<'_>,
    ca: Option<String>,
    mounts: Vec<VolumeMount>,
) -> Container {
    let base = if matches!(source, DocumentSource::Git(_)) { COPY } else { DIR };
    let folder = documents.path.as_ref().map_or_else(|| base.to_owned(), |path| format!("{base}/{}", **path));
    let variable =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let scheme = if settings.is_tls() { "https" } else { "http" };
    let url = format!("{scheme}://{}.{}.svc:{MCP}", settings.name(), settings.namespace());
    let mut variables = vec![variable("CAIRN_URL", url)];
    variables.extend(ca.map(|path| variable("CAIRN_CA", path)));
    variables.push(variable("CAIRN_TOKEN_FILE", format!("{TOKEN_DIR}/{TOKEN_KEY}")));
    let arguments = ["add", "--yes", "--collection", &documents.collection, &folder].map(str::to_owned);
    Container {
        name: "add".to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments.into()),
        env: Some(variables),
        resources: Some(resources(("50m", "1"), ("64Mi", "256Mi"), ("32Mi", "128Mi"))),
        security_context: Some(security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn resources(cpu: (&str, &str), memory: (&str, &str), ephemeral: (&str, &str)) -> ResourceRequirements {
    let of = |cpu: &str, memory: &str, ephemeral: &str| {
        let all = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", ephemeral)];
        BTreeMap::from(all.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))))
    };
    ResourceRequirements {
        requests: Some(of(cpu.0, memory.0, ephemeral.0)),
        limits: Some(of(cpu.1, memory.1, ephemeral.1)),
        ..ResourceRequirements::default()
    }
}
