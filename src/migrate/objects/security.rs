//! The rights of a container: those that Swarm gave it, and with `--harden` fewer.
//!
//! Docker and containerd give a container the same capabilities. What differs without being written: Docker's profile of system calls is
//! `RuntimeDefault`, which Kubernetes has to be asked for; a container of Swarm has no token for an API; and Docker lets every user open
//! ports below 1024.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext, Sysctl,
};

use super::{Context, Holder};
use crate::migrate::leaf::At;
use crate::migrate::report::Ledger;
use crate::migrate::stack::Service;

/// Kernel parameters that a kubelet lets pods set unasked (Kubernetes, "Safe and Unsafe Sysctls").
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// Docker sets it to 0 (moby, `daemon/oci_linux.go`).
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
/// Capabilities of Docker's that hardly any server needs, also as root.
const RARELY_NEEDED: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// What users and groups of an image are called, by number.
pub trait Accounts {
    /// The number of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn group(&self, name: &str) -> Option<u32>;
    /// The user that the image names, `USER` or `USER:GROUP`.
    fn default_user(&self) -> Option<&str>;
}

/// The rights of a pod and of its container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rights {
    /// Of the pod.
    pub pod: PodSecurityContext,
    /// Of the container.
    pub container: SecurityContext,
}

/// Makes the rights.
///
/// * `accounts`: those of the image, where it is known.
/// * `host_network`: whether the pod is on the network of its node, whose kernel parameters are not its own.
pub fn rights(
    service: &Service,
    context: &Context<'_>,
    holder: &Holder,
    accounts: Option<&dyn Accounts>,
    host_network: bool,
    ledger: &mut Ledger,
) -> Rights {
    let mut result = Rights::default();
    user(service, holder, accounts, &mut result, ledger);
    capabilities(service, holder, &mut result, ledger);
    if let Some(read_only) = service.read_only {
        ledger.converted(read_only.leaf, holder.container("securityContext.readOnlyRootFilesystem"));
        // `false` is what Kubernetes does where nothing is written.
        result.container.read_only_root_filesystem = read_only.value.then_some(true);
    }
    let is_privileged = compose(service, holder, &mut result, ledger);
    sysctls(service, holder, host_network, &mut result, ledger);
    if result.pod.seccomp_profile.is_none() && !is_privileged {
        result.pod.seccomp_profile = Some(seccomp("RuntimeDefault"));
        ledger.added(
            holder.pod("securityContext.seccompProfile"),
            "Docker filters system calls, Kubernetes does when asked",
        );
    }
    if context.options.harden && !is_privileged {
        if let Some(id) = accounts.and_then(user_of_image).filter(|_| result.container.run_as_user.is_none()) {
            result.container.run_as_user = Some(i64::from(id));
            let reason =
                "--harden: the image's own user by its number, which is how Kubernetes knows that it is not root";
            ledger.added(holder.container("securityContext.runAsUser"), reason);
        }
        harden(service, holder, &mut result, ledger);
    }
    result
}

/// The number of the user that an image names, unless it is root.
fn user_of_image(accounts: &dyn Accounts) -> Option<u32> {
    let user = accounts.default_user()?;
    let name = user.split(':').next().unwrap_or(user);
    name.parse().ok().or_else(|| accounts.user(name)).filter(|id| *id != 0)
}

fn seccomp(kind: &str) -> SeccompProfile {
    SeccompProfile { type_: kind.to_owned(), ..SeccompProfile::default() }
}

fn user(service: &Service, holder: &Holder, accounts: Option<&dyn Accounts>, result: &mut Rights, ledger: &mut Ledger) {
    if let Some(user) = &service.user {
        let (name, group) = match user.value.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (user.value.as_str(), None),
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let by_name = |text: &str| accounts.and_then(|accounts| accounts.user(text));
        match number(name).or_else(|| by_name(name)) {
            Some(id) => {
                result.container.run_as_user = Some(i64::from(id));
                ledger.converted(user.leaf, holder.container("securityContext.runAsUser"));
            }
            None if name.is_empty() => {}
            None => ledger.needs_input(
                user.leaf,
                format!(
                    "Kubernetes takes users by number: write that of {name}, or name the image's archive with --images"
                ),
            ),
        }
        if let Some(name) = group {
            let by_name = accounts.and_then(|accounts| accounts.group(name));
            match number(name).or(by_name) {
                Some(id) => {
                    result.container.run_as_group = Some(i64::from(id));
                    ledger.converted(user.leaf, holder.container("securityContext.runAsGroup"));
                }
                None => ledger.needs_input(user.leaf, format!("write the number of the group {name}")),
            }
        }
    }
    for group in &service.groups {
        let by_name = accounts.and_then(|accounts| accounts.group(&group.value));
        match group.value.parse::<u32>().ok().or(by_name) {
            Some(id) => {
                ledger.converted(group.leaf, holder.pod("securityContext.supplementalGroups"));
                result.pod.supplemental_groups.get_or_insert_default().push(i64::from(id));
            }
            None => ledger.needs_input(group.leaf, format!("write the number of the group {}", group.value)),
        }
    }
}

fn capabilities(service: &Service, holder: &Holder, result: &mut Rights, ledger: &mut Ledger) {
    let mut list = |all: &[At<String>], field: &str| {
        let field = format!("securityContext.capabilities.{field}");
        all.iter().for_each(|capability| ledger.converted(capability.leaf, holder.container(&field)));
        let name = |capability: &At<String>| {
            let upper = capability.value.to_ascii_uppercase();
            upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
        };
        let mut names: Vec<String> = all.iter().map(name).collect();
        names.sort();
        names.dedup();
        (!names.is_empty()).then_some(names)
    };
    let add = list(&service.capabilities_added, "add");
    let drop = list(&service.capabilities_dropped, "drop");
    if add.is_some() || drop.is_some() {
        result.container.capabilities = Some(Capabilities { add, drop });
    }
}

/// What only Compose gives. Returns whether the container has all rights.
fn compose(service: &Service, holder: &Holder, result: &mut Rights, ledger: &mut Ledger) -> bool {
    let compose = &service.compose;
    if let Some(privileged) = compose.privileged {
        ledger.converted(privileged.leaf, holder.container("securityContext.privileged"));
        result.container.privileged = Some(privileged.value);
    }
    for option in &compose.security_options {
        let (name, value) = option.value.split_once([':', '=']).unwrap_or((&option.value, "true"));
        match (name, value) {
            ("no-new-privileges", value) => {
                result.container.allow_privilege_escalation = Some(value == "false");
                ledger.converted(option.leaf, holder.container("securityContext.allowPrivilegeEscalation"));
            }
            ("seccomp", "unconfined") => {
                result.pod.seccomp_profile = Some(seccomp("Unconfined"));
                ledger.converted(option.leaf, holder.pod("securityContext.seccompProfile"));
            }
            ("apparmor", value) => {
                let (kind, profile) = match value {
                    "unconfined" => ("Unconfined", None),
                    "docker-default" => ("RuntimeDefault", None),
                    other => ("Localhost", Some(other.to_owned())),
                };
                let target = holder.container("securityContext.appArmorProfile");
                match profile {
                    Some(_) => ledger.approximated(option.leaf, target, "the profile has to be loaded on each node"),
                    None => ledger.converted(option.leaf, target),
                }
                result.container.app_armor_profile =
                    Some(AppArmorProfile { type_: kind.to_owned(), localhost_profile: profile });
            }
            ("label", value) => {
                let options = result.container.se_linux_options.get_or_insert_with(SELinuxOptions::default);
                match value.split_once(':') {
                    Some(("user", user)) => options.user = Some(user.to_owned()),
                    Some(("role", role)) => options.role = Some(role.to_owned()),
                    Some(("type", kind)) => options.type_ = Some(kind.to_owned()),
                    Some(("level", level)) => options.level = Some(level.to_owned()),
                    _ => {
                        ledger.needs_input(
                            option.leaf,
                            "SELinux labels cannot be switched off for one pod; choose a type",
                        );
                        continue;
                    }
                }
                ledger.converted(option.leaf, holder.container("securityContext.seLinuxOptions"));
            }
            _ => ledger.needs_input(option.leaf, format!("decide what replaces the security option {name}")),
        }
    }
    if result.container.se_linux_options.as_ref().is_some_and(|options| *options == SELinuxOptions::default()) {
        result.container.se_linux_options = None;
    }
    compose.privileged.is_some_and(|privileged| privileged.value)
}

fn sysctls(service: &Service, holder: &Holder, host_network: bool, result: &mut Rights, ledger: &mut Ledger) {
    let mut all = Vec::new();
    for (place, (name, value)) in service.sysctls.iter().enumerate() {
        let target = holder.pod(&format!("securityContext.sysctls[{place}]"));
        if host_network && name.starts_with("net.") {
            ledger.dropped(value.leaf, "the pod is on the network of its node, whose parameters are the node's");
            continue;
        }
        if SAFE_SYSCTLS.contains(&name.as_str()) {
            ledger.converted(value.leaf, target);
        } else {
            let reason = format!("the kubelet has to allow it: --kubelet-arg=allowed-unsafe-sysctls={name}");
            ledger.approximated(value.leaf, target, reason);
        }
        all.push(Sysctl { name: name.clone(), value: value.value.clone() });
    }
    let is_user = result.container.run_as_user.is_some_and(|id| id != 0);
    let has_low_port = service.ports.iter().any(|port| port.target.value < 1024);
    if is_user && has_low_port && !host_network && !all.iter().any(|one| one.name == UNPRIVILEGED_PORTS) {
        ledger.added(
            holder.pod("securityContext.sysctls"),
            "Docker lets every user open ports below 1024, and this user opens one",
        );
        all.push(Sysctl { name: UNPRIVILEGED_PORTS.to_owned(), value: "0".to_owned() });
    }
    result.pod.sysctls = Some(all).filter(|all| !all.is_empty());
}

/// Takes rights away that most programs do not need; each with its reason.
fn harden(service: &Service, holder: &Holder, result: &mut Rights, ledger: &mut Ledger) {
    let container = &mut result.container;
    let is_user = container.run_as_user.is_some_and(|id| id != 0);
    if is_user {
        container.run_as_non_root = Some(true);
        ledger.added(holder.container("securityContext.runAsNonRoot"), "--harden: the user is not root, and stays so");
    }
    if container.allow_privilege_escalation.is_none() && service.capabilities_added.is_empty() {
        container.allow_privilege_escalation = Some(false);
        ledger.added(
            holder.container("securityContext.allowPrivilegeEscalation"),
            "--harden: no program gets more rights than the one that starts it",
        );
    }
    let is_chosen = container.capabilities.as_ref().is_some_and(|chosen| chosen.drop.is_some());
    if !is_chosen {
        let add = container.capabilities.take().and_then(|chosen| chosen.add);
        let (drop, reason) = match is_user {
            true => (vec!["ALL".to_owned()], "--harden: a user that is not root has no use for Docker's capabilities"),
            false => {
                let names = RARELY_NEEDED.iter().map(|name| (*name).to_owned());
                let is_added = |name: &String| add.as_ref().is_some_and(|added| added.contains(name));
                (names.filter(|name| !is_added(name)).collect(), "--harden: servers do not make devices or raw packets")
            }
        };
        container.capabilities = Some(Capabilities { add, drop: Some(drop) });
        ledger.added(holder.container("securityContext.capabilities.drop"), reason);
    }
    if container.read_only_root_filesystem.is_none() {
        let reason = "--harden leaves the root writable: which folders the program writes to is not known; set \
                      readOnlyRootFilesystem, and mount what it needs";
        ledger.added(holder.container("securityContext"), reason);
    }
}
