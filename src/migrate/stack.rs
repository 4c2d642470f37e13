//! A stack as Docker understands it: what files in any of their forms and the JSON of a running stack both come to.
//!
//! Invariants: names are those of the file, without the name of the stack before them; amounts are in one unit; nothing is filled in that
//! was not written, so that a default of Docker's is known as such. Text is as it was written, with placeholders (`{{.Task.Slot}}`) in it.
//! Every value knows its leaf.

use std::net::IpAddr;
use std::time::Duration;

use super::leaf::{At, Leaf};
use super::{Dialect, Position};

/// A stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Its name: services of other stacks know `NAME_SERVICE`.
    pub name: String,
    /// The program that its files are for. A running stack is [`Dialect::Stack`].
    pub dialect: Dialect,
    /// In the order of the alphabet, as everything below.
    pub services: Vec<Service>,
    /// Networks that are described; `default` may be missing.
    pub networks: Vec<Network>,
    /// Named volumes.
    pub volumes: Vec<Volume>,
    /// Files that are not secret.
    pub configs: Vec<Payload>,
    /// Files that are.
    pub secrets: Vec<Payload>,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The key in the file.
    pub name: String,
    /// Where it begins.
    pub at: Position,
    /// Name, tag and digest, as written.
    pub image: Option<At<String>>,
    /// In place of the image's; split into words. `Some` and empty: the image's is cleared.
    pub entrypoint: Option<Words>,
    /// Arguments of the entry point.
    pub command: Option<Words>,
    /// Variables by name, those of `env_file` among them; each name once.
    pub environment: Vec<Variable>,
    /// Where the program starts.
    pub working_dir: Option<At<String>>,
    /// `USER` or `USER:GROUP`, by name or by number.
    pub user: Option<At<String>>,
    /// Further groups, by name or by number.
    pub groups: Vec<At<String>>,
    /// The name that the container has, and is found by on its networks.
    pub hostname: Option<At<String>>,
    /// A process that reaps children.
    pub init: Option<At<bool>>,
    /// A terminal.
    pub tty: Option<At<bool>>,
    /// An open standard input.
    pub stdin_open: Option<At<bool>>,
    /// The container's root cannot be written.
    pub read_only: Option<At<bool>>,
    /// Such as `SIGQUIT`.
    pub stop_signal: Option<At<String>>,
    /// Between the signal and the kill. Docker's default is 10 seconds.
    pub stop_grace_period: Option<At<Duration>>,
    /// How the container is asked whether it works.
    pub health_check: Option<HealthCheck>,
    /// Names with addresses, for `/etc/hosts`.
    pub extra_hosts: Vec<At<ExtraHost>>,
    /// Name servers.
    pub dns_servers: Vec<At<String>>,
    /// Domains that names are searched in.
    pub dns_search: Vec<At<String>>,
    /// Options of the resolver, such as `ndots:2`.
    pub dns_options: Vec<At<String>>,
    /// Linux capabilities that are added, as written.
    pub capabilities_added: Vec<At<String>>,
    /// Those that are dropped.
    pub capabilities_dropped: Vec<At<String>>,
    /// Kernel parameters of the container.
    pub sysctls: Vec<(String, At<String>)>,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Labels of the containers.
    pub labels: Vec<(String, At<String>)>,
    /// Labels of the service, which Traefik and others read.
    pub service_labels: Vec<(String, At<String>)>,
    /// How many there are, and whether they end.
    pub mode: Mode,
    /// What they may and do use.
    pub resources: Resources,
    /// Where they run.
    pub placement: Placement,
    /// How they are replaced.
    pub update: Option<UpdateConfig>,
    /// How a replacement is undone.
    pub rollback: Option<UpdateConfig>,
    /// What becomes of those that end.
    pub restart: RestartPolicy,
    /// How the service's name is answered: `vip` or `dnsrr`.
    pub endpoint_mode: Option<At<EndpointMode>>,
    /// Ports that are reached from outside.
    pub ports: Vec<Port>,
    /// Networks by their keys. None: `default`.
    pub networks: Vec<Attachment>,
    /// Volumes and folders.
    pub mounts: Vec<Mount>,
    /// Files that are not secret.
    pub configs: Vec<FileMount>,
    /// Files that are.
    pub secrets: Vec<FileMount>,
    /// Where output goes.
    pub logging: Option<Logging>,
    /// What `docker compose` reads and `docker stack deploy` does not. Empty in [`Dialect::Stack`].
    pub compose: ComposeOnly,
}

/// The words of a command. A single string is split as a shell splits words, without a shell being run.
#[derive(Debug, Clone, PartialEq)]
pub struct Words {
    /// Each word; several may come from one leaf.
    pub words: Vec<At<String>>,
    /// The leaf of a command without words, which is a leaf itself.
    pub empty: Option<Leaf>,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value. `None`: it is that of the shell that deploys, which has to be asked for.
    pub value: Option<String>,
    /// Where it was written; for one of an `env_file` the leaf of the file's name.
    pub leaf: Leaf,
}

/// A health check. What is not written is the image's, or Docker's: 30 s, 30 s, 3 times, none at the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthCheck {
    /// The test; `None` is the image's.
    pub test: Option<Test>,
    /// Between two tests.
    pub interval: Option<At<Duration>>,
    /// How long one may take.
    pub timeout: Option<At<Duration>>,
    /// Failures in a row before it is unhealthy.
    pub retries: Option<At<u64>>,
    /// Failures that do not count, from the start on.
    pub start_period: Option<At<Duration>>,
    /// Between two tests in that time.
    pub start_interval: Option<At<Duration>>,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `NONE`, or `disable: true`: not even the image's.
    Disabled(Leaf),
    /// `CMD`: a program with arguments. The leaf is that of `CMD`.
    Program(Leaf, Vec<At<String>>),
    /// `CMD-SHELL`, or a string: a line for the image's shell. The first leaf is that of `CMD-SHELL`, where it is written.
    Shell(Option<Leaf>, At<String>),
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address, or `host-gateway`.
    pub address: String,
}

/// A limit of processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// What processes begin with; -1: none.
    pub soft: At<i64>,
    /// What they may raise it to.
    pub hard: At<i64>,
}

/// How many containers a service has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mode {
    /// `mode`, where it is written.
    pub kind: Option<At<ModeKind>>,
    /// `replicas`, which for a job is how many have to end well. Docker's default is 1.
    pub replicas: Option<At<u64>>,
    /// How many of a job run at once; files cannot say it, and it is `replicas` then.
    pub max_concurrent: Option<At<u64>>,
}

/// `deploy.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeKind {
    /// So many, anywhere.
    Replicated,
    /// One on each node.
    Global,
    /// So many that end.
    ReplicatedJob,
    /// One on each node that ends.
    GlobalJob,
}

/// What the containers of a service may and do use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resources {
    /// The most processors, in billionths of one.
    pub cpu_limit: Option<At<u64>>,
    /// Processors that are reserved, in billionths of one.
    pub cpu_reservation: Option<At<u64>>,
    /// The most memory, in bytes.
    pub memory_limit: Option<At<u64>>,
    /// Memory that is reserved, in bytes.
    pub memory_reservation: Option<At<u64>>,
    /// The most processes.
    pub pids: Option<At<i64>>,
    /// Things that nodes have a number of, such as GPUs.
    pub generic: Vec<GenericResource>,
    /// Devices (`reservations.devices`, `gpus`); `docker stack deploy` refuses them.
    pub devices: Vec<DeviceRequest>,
    /// Memory and swap together, in bytes; -1: no limit.
    pub swap: Option<At<i64>>,
    /// How gladly memory is swapped, 0 to 100.
    pub swappiness: Option<At<i64>>,
}

/// `generic_resources`
#[derive(Debug, Clone, PartialEq)]
pub struct GenericResource {
    /// Such as `NVIDIA-GPU`.
    pub kind: At<String>,
    /// How many.
    pub amount: At<ResourceAmount>,
}

/// How much of a generic resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceAmount {
    /// So many.
    Count(i64),
    /// This one, by name. Only the JSON of a running service has it.
    Named(String),
}

/// A request for devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceRequest {
    /// Such as `nvidia`.
    pub driver: Option<At<String>>,
    /// How many; -1: all.
    pub count: Option<At<i64>>,
    /// Which ones.
    pub ids: Vec<At<String>>,
    /// Such as `gpu`.
    pub capabilities: Vec<At<String>>,
    /// For the driver.
    pub options: Vec<(String, At<String>)>,
}

/// Where the containers of a service run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// Such as `node.role == manager`, as written. All of them hold.
    pub constraints: Vec<At<String>>,
    /// What they are spread over, such as `node.labels.zone`; the first counts most.
    pub spread: Vec<At<String>>,
    /// The most on one node; 0: any number.
    pub max_replicas: Option<At<u64>>,
    /// Processors and systems that the image is for; only the JSON of a running service has it.
    pub platforms: Vec<Platform>,
}

/// A processor and a system.
#[derive(Debug, Clone, PartialEq)]
pub struct Platform {
    /// Such as `amd64` or `x86_64`.
    pub architecture: Option<At<String>>,
    /// Such as `linux`.
    pub os: Option<At<String>>,
}

/// `update_config` and `rollback_config`. Docker's defaults: 1 at once, no delay, pause, 5 s, 0, stop first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateConfig {
    /// How many at once; 0: all.
    pub parallelism: Option<At<u64>>,
    /// Between two.
    pub delay: Option<At<Duration>>,
    /// `continue`, `rollback` or `pause`.
    pub failure_action: Option<At<String>>,
    /// How long one is watched.
    pub monitor: Option<At<Duration>>,
    /// Failures that are borne, 0 to 1.
    pub max_failure_ratio: Option<At<f64>>,
    /// `stop-first` or `start-first`.
    pub order: Option<At<UpdateOrder>>,
}

/// Which of two containers is there at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOrder {
    /// The old one ends, then the new one starts.
    StopFirst,
    /// The new one starts, then the old one ends.
    StartFirst,
}

/// `restart_policy`. Docker's defaults: any, 5 s, no limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RestartPolicy {
    /// When.
    pub condition: Option<At<RestartCondition>>,
    /// Before each start.
    pub delay: Option<At<Duration>>,
    /// How often.
    pub max_attempts: Option<At<u64>>,
    /// In how long.
    pub window: Option<At<Duration>>,
}

/// When a container starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartCondition {
    /// Never.
    None,
    /// When its exit code is not 0.
    OnFailure,
    /// Always.
    Any,
}

/// How a service's name is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointMode {
    /// By one address for all containers.
    Vip,
    /// By the addresses of the containers.
    Dnsrr,
}

/// A port that is reached from outside. A range in a file is several.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// In the container.
    pub target: At<u16>,
    /// Outside; `None`: any that is free.
    pub published: Option<At<u16>>,
    /// `tcp` where nothing is written.
    pub protocol: Option<At<Protocol>>,
    /// `ingress` where nothing is written.
    pub mode: Option<At<PortMode>>,
    /// The address of the host that it is bound to.
    pub host_ip: Option<At<IpAddr>>,
    /// What people call it.
    pub name: Option<At<String>>,
    /// Such as `http`.
    pub app_protocol: Option<At<String>>,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// Which nodes answer on a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortMode {
    /// All.
    Ingress,
    /// Those that have a container.
    Host,
}

/// A network that a service is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The network's key.
    pub network: String,
    /// Where it was written, unless the leaves below it say so.
    pub leaf: Option<Leaf>,
    /// Further names of the service on the network.
    pub aliases: Vec<At<String>>,
    /// A fixed address; `docker stack deploy` ignores it.
    pub addresses: Vec<At<IpAddr>>,
    /// For the driver.
    pub driver_options: Vec<(String, At<String>)>,
}

/// A volume or folder in a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    /// What it is.
    pub kind: At<MountKind>,
    /// The key of a volume, the absolute path of a folder, or nothing for a volume without a name.
    pub source: Option<At<String>>,
    /// Where it is in the container.
    pub target: At<String>,
    /// Nothing is written to it.
    pub read_only: Option<At<bool>>,
    /// Of a bind: such as `rslave`.
    pub propagation: Option<At<String>>,
    /// Of a bind: whether a missing folder is made.
    pub create_host_path: Option<At<bool>>,
    /// Of a volume: whether it begins empty, and not with what the image has there.
    pub no_copy: Option<At<bool>>,
    /// Of a volume: the folder of it.
    pub subpath: Option<At<String>>,
    /// Of a `tmpfs`: bytes.
    pub tmpfs_size: Option<At<u64>>,
    /// Of a `tmpfs`: permissions.
    pub tmpfs_mode: Option<At<u32>>,
    /// The rest, by name (`consistency`, `selinux`, `labels.…`, `recursive`): nothing of it reaches Kubernetes.
    pub other: Vec<(String, Leaf)>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A folder or file of the node.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// A pipe of Windows.
    NamedPipe,
    /// The files of an image.
    Image,
    /// A volume of a CSI driver.
    Cluster,
}

/// A config or a secret in a container.
#[derive(Debug, Clone, PartialEq)]
pub struct FileMount {
    /// Its key.
    pub source: At<String>,
    /// The path, or the name below `/run/secrets`. `None`: `/KEY` for a config, `/run/secrets/KEY` for a secret.
    pub target: Option<At<String>>,
    /// Its owner; Docker's default is 0.
    pub uid: Option<At<String>>,
    /// Its group; Docker's default is 0.
    pub gid: Option<At<String>>,
    /// Permissions; Docker's default is 0444.
    pub mode: Option<At<u32>>,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logging {
    /// Such as `json-file`.
    pub driver: Option<At<String>>,
    /// For the driver.
    pub options: Vec<(String, At<String>)>,
}

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The key in the file.
    pub key: String,
    /// The leaf of a network that nothing is written of.
    pub empty: Option<Leaf>,
    /// Its name, where it is not `STACK_KEY`.
    pub name: Option<At<String>>,
    /// It is not the stack's.
    pub external: Option<At<bool>>,
    /// Such as `overlay`.
    pub driver: Option<At<String>>,
    /// For the driver; `encrypted` is one.
    pub driver_options: Vec<(String, At<String>)>,
    /// No way out of it.
    pub internal: Option<At<bool>>,
    /// Containers outside of services may join.
    pub attachable: Option<At<bool>>,
    /// Its labels.
    pub labels: Vec<(String, At<String>)>,
    /// Address ranges and what belongs to them (`ipam`, `enable_ipv6`, `enable_ipv4`), which mean nothing in a cluster, by name.
    pub addressing: Vec<(String, Leaf)>,
    /// Its address ranges, `10.20.0.0/16`, and the addresses in them that are named.
    pub subnets: Vec<String>,
}

/// A named volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// The key in the file.
    pub key: String,
    /// The leaf of a volume that nothing is written of.
    pub empty: Option<Leaf>,
    /// Its name, where it is not `STACK_KEY`; it may hold placeholders.
    pub name: Option<At<String>>,
    /// It is not the stack's.
    pub external: Option<At<bool>>,
    /// Such as `local`.
    pub driver: Option<At<String>>,
    /// For the driver: `type`, `o` and `device` are those of `mount`.
    pub driver_options: Vec<(String, At<String>)>,
    /// Its labels.
    pub labels: Vec<(String, At<String>)>,
    /// `x-cluster-spec`, by name.
    pub cluster: Vec<(String, Leaf)>,
}

/// A config or a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// The key in the file.
    pub key: String,
    /// The leaf of one that nothing is written of.
    pub empty: Option<Leaf>,
    /// Its name, where it is not `STACK_KEY`.
    pub name: Option<At<String>>,
    /// It is not the stack's.
    pub external: Option<At<bool>>,
    /// Its bytes, where they are known.
    pub content: Option<At<Vec<u8>>>,
    /// `golang`: placeholders in it are expanded.
    pub template_driver: Option<At<String>>,
    /// What holds it in place of the swarm; secrets only.
    pub driver: Option<At<String>>,
    /// For that.
    pub driver_options: Vec<(String, At<String>)>,
    /// Its labels.
    pub labels: Vec<(String, At<String>)>,
}

/// What only `docker compose` reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ComposeOnly {
    /// All rights on the node.
    pub privileged: Option<At<bool>>,
    /// Such as `no-new-privileges:true`.
    pub security_options: Vec<At<String>>,
    /// Devices of the node: `/dev/ttyUSB0:/dev/ttyUSB0:rwm`, as written.
    pub devices: Vec<At<String>>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<At<u64>>,
    /// `host`, `service:NAME` or `container:NAME`.
    pub network_mode: Option<At<String>>,
    /// The same of processes.
    pub pid: Option<At<String>>,
    /// The same of shared memory.
    pub ipc: Option<At<String>>,
    /// The container's name, which is found on its networks.
    pub container_name: Option<At<String>>,
    /// The domain of the container's name.
    pub domain_name: Option<At<String>>,
    /// Ports that others reach on the networks; they reach all of them anyway.
    pub expose: Vec<At<String>>,
    /// Other services by further names: `db:database`.
    pub links: Vec<At<String>>,
    /// Services that have to be there before.
    pub depends_on: Vec<Dependency>,
    /// Such as `linux/arm64`.
    pub platform: Option<At<String>>,
    /// When an image is pulled: `always`, `never`, `missing`.
    pub pull_policy: Option<At<String>>,
    /// Such as `nvidia`.
    pub runtime: Option<At<String>>,
    /// How soon the kernel ends its processes when memory runs out, -1000 to 1000.
    pub oom_score_adj: Option<At<i64>>,
    /// Labels for services by file: `label_file`. The labels are in `labels` already.
    pub label_files: Vec<At<String>>,
    /// Commands in the running container, `post_start` and `pre_stop`.
    pub hooks: Vec<Hook>,
}

/// A command in a running container.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Whether it is run before the stop, or else after the start.
    pub is_pre_stop: bool,
    /// What is run.
    pub command: Words,
    /// The leaves of what Kubernetes cannot say of it (`user`, `privileged`, `environment`, `working_dir`), by name.
    pub other: Vec<(String, Leaf)>,
}

/// A service that has to be there before.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// Its name.
    pub service: String,
    /// `service_started`, `service_healthy` or `service_completed_successfully`, where it is written.
    pub condition: Option<At<String>>,
    /// Where the service is named, or the leaves of the rest (`required`, `restart`).
    pub leaves: Vec<Leaf>,
}
