//! The container of a service: `ContainerSpec` of the Engine API.

use super::document::Kind;
use super::fields::{Fields, Reader};
use super::mounts;
use super::objects::labels;
use super::service::{BOOKKEEPING, Context};
use crate::migrate::stack::{ExtraHost, FileMount, HealthCheck, Service, Test, Ulimit, Variable, Words};
use crate::migrate::{At, Item, Outcome};

/// Reads it into a service.
pub(super) fn read(item: &Item, service: &mut Service, context: &mut Context<'_>) {
    let reader = &mut *context.reader;
    let mut fields = reader.open(item);
    service.image = fields.text("Image", reader);
    service.labels = labels(&mut fields, reader);
    service.entrypoint = words(&mut fields, "Command", reader);
    service.command = words(&mut fields, "Args", reader);
    service.hostname = fields.text("Hostname", reader);
    service.environment = read_environment(&mut fields, reader);
    service.working_dir = fields.text("Dir", reader);
    service.user = fields.text("User", reader);
    service.groups = fields.texts("Groups", reader);
    service.init = fields.bool("Init", reader);
    service.tty = fields.bool("TTY", reader);
    service.stdin_open = fields.bool("OpenStdin", reader);
    service.read_only = fields.bool("ReadOnly", reader);
    service.stop_signal = fields.text("StopSignal", reader);
    service.stop_grace_period = fields.duration("StopGracePeriod", reader);
    service.health_check = fields.item("Healthcheck").and_then(|item| read_health_check(item, reader));
    service.extra_hosts = read_hosts(&mut fields, reader);
    if let Some(mut dns) = fields.map("DNSConfig", reader) {
        service.dns_servers = dns.texts("Nameservers", reader);
        service.dns_search = dns.texts("Search", reader);
        service.dns_options = dns.texts("Options", reader);
        dns.end(reader);
    }
    service.capabilities_added = fields.texts("CapabilityAdd", reader);
    service.capabilities_dropped = fields.texts("CapabilityDrop", reader);
    service.sysctls = fields.named_texts("Sysctls", reader);
    service.ulimits = read_ulimits(&mut fields, reader);
    service.compose.oom_score_adj = fields.integer("OomScoreAdj", reader);
    if let Some(privileges) = fields.map("Privileges", reader) {
        service.compose.security_options = read_privileges(privileges, reader);
    }
    if let Some(isolation) = fields.text("Isolation", reader) {
        match isolation.value.as_str() {
            "default" => reader.mark_leaf(isolation.leaf, Outcome::Converted, "Docker's default"),
            _ => reader.mark_leaf(isolation.leaf, Outcome::Dropped, "only Windows has kinds of isolation"),
        }
    }
    for item in fields.list("Mounts", context.reader) {
        service.mounts.extend(mounts::read(item, context));
    }
    for item in fields.list("Configs", context.reader) {
        service.configs.extend(read_file(item, Kind::Config, context));
    }
    for item in fields.list("Secrets", context.reader) {
        service.secrets.extend(read_file(item, Kind::Secret, context));
    }
    fields.end(context.reader);
}

fn words(fields: &mut Fields<'_>, key: &str, reader: &mut Reader) -> Option<Words> {
    let words = fields.texts(key, reader);
    (!words.is_empty()).then_some(Words { words, empty: None })
}

/// `NAME=VALUE`, or `NAME` where the image's variable is removed. Of several with one name the last counts.
fn read_environment(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<Variable> {
    let texts = fields.texts("Env", reader);
    let mut variables: Vec<_> = texts
        .into_iter()
        .map(|text| match text.value.split_once('=') {
            Some((name, value)) => Variable { name: name.to_owned(), value: Some(value.to_owned()), leaf: text.leaf },
            None => Variable { name: text.value, value: None, leaf: text.leaf },
        })
        .collect();
    variables.sort_by(|a, b| a.name.cmp(&b.name).then(b.leaf.cmp(&a.leaf)));
    variables.dedup_by(|later, first| {
        let is_again = later.name == first.name;
        if is_again {
            reader.mark_leaf(later.leaf, Outcome::Converted, "a later item has the same variable, and counts");
        }
        is_again
    });
    variables
}

/// `health.go` of moby: `NONE`, `CMD` with words, `CMD-SHELL` with a line; after anything else nothing is run.
fn read_health_check(item: &Item, reader: &mut Reader) -> Option<HealthCheck> {
    let mut fields = reader.open(item);
    let mut words = fields.texts("Test", reader).into_iter();
    let test = match words.next() {
        None => None,
        Some(first) => Some(match (first.value.as_str(), words.len()) {
            ("CMD", 1..) => Test::Program(first.leaf, words.by_ref().collect()),
            ("CMD-SHELL", 1..) => {
                let line = words.next().expect("there is at least one");
                Test::Shell(Some(first.leaf), line)
            }
            _ => Test::Disabled(first.leaf),
        }),
    };
    for word in words {
        reader.mark_leaf(word.leaf, Outcome::Dropped, "Docker does not run it: it follows NONE or the line of a shell");
    }
    let check = HealthCheck {
        test,
        interval: fields.duration("Interval", reader),
        timeout: fields.duration("Timeout", reader),
        retries: fields.integer("Retries", reader),
        start_period: fields.duration("StartPeriod", reader),
        start_interval: fields.duration("StartInterval", reader),
    };
    fields.end(reader);
    (check != HealthCheck::default()).then_some(check)
}

/// `ADDRESS NAME…`, as in `/etc/hosts`.
fn read_hosts(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<At<ExtraHost>> {
    let mut hosts = Vec::new();
    for line in fields.texts("Hosts", reader) {
        let mut words = line.value.split_whitespace();
        let address = words.next().unwrap_or_default();
        let before = hosts.len();
        hosts.extend(
            words.map(|name| At::new(ExtraHost { name: name.to_owned(), address: address.to_owned() }, line.leaf)),
        );
        if hosts.len() == before {
            reader.mark_leaf(line.leaf, Outcome::Dropped, "it has an address and no names");
        }
    }
    hosts
}

fn read_ulimits(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<Ulimit> {
    let mut ulimits = Vec::new();
    for item in fields.list("Ulimits", reader) {
        let mut fields = reader.open(item);
        let name = fields.text("Name", reader);
        let (soft, hard) = (fields.integer("Soft", reader), fields.integer("Hard", reader));
        fields.end(reader);
        match (name, soft, hard) {
            (Some(name), Some(soft), Some(hard)) => {
                reader.mark_leaf(name.leaf, Outcome::Dropped, "Kubernetes has no limits of this kind");
                ulimits.push(Ulimit { name: name.value, soft, hard });
            }
            _ => reader.refuse(item, "a limit with Name, Soft and Hard"),
        }
    }
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    ulimits
}

/// As options of `docker run --security-opt`. No stack file can say them; `docker service create` cannot either, but the API can.
fn read_privileges(mut fields: Fields<'_>, reader: &mut Reader) -> Vec<At<String>> {
    let mut options = Vec::new();
    if let Some(item) = fields.item("CredentialSpec") {
        reader.mark_set(item, "only Windows has credential specifications");
    }
    let no_new = fields.bool("NoNewPrivileges", reader);
    match no_new {
        Some(At { value: true, leaf }) => options.push(At::new("no-new-privileges:true".to_owned(), leaf)),
        Some(At { leaf, .. }) => reader.mark_leaf(leaf, Outcome::Converted, "Docker's default"),
        None => {}
    }
    if let Some(mut seccomp) = fields.map("Seccomp", reader) {
        if let Some(mode) = seccomp.text("Mode", reader) {
            match mode.value.as_str() {
                "unconfined" => options.push(mode.map(|_| "seccomp:unconfined".to_owned())),
                "default" => reader.mark_leaf(mode.leaf, Outcome::Converted, "Docker's default"),
                _ => reader.mark_leaf(mode.leaf, Outcome::Dropped, "a profile of seccomp has to be a file on the node"),
            }
        }
        if let Some(profile) = seccomp.item("Profile") {
            reader.mark_set(profile, "a profile of seccomp has to be a file on the node");
        }
        seccomp.end(reader);
    }
    if let Some(mut app_armor) = fields.map("AppArmor", reader) {
        if let Some(mode) = app_armor.text("Mode", reader) {
            match mode.value.as_str() {
                "disabled" => options.push(mode.map(|_| "apparmor:unconfined".to_owned())),
                _ => reader.mark_leaf(mode.leaf, Outcome::Converted, "Docker's default"),
            }
        }
        app_armor.end(reader);
    }
    if let Some(mut context) = fields.map("SELinuxContext", reader) {
        match context.bool("Disable", reader) {
            Some(At { value: true, leaf }) => options.push(At::new("label:disable".to_owned(), leaf)),
            Some(At { leaf, .. }) => reader.mark_leaf(leaf, Outcome::Converted, "Docker's default"),
            None => {}
        }
        for (key, word) in [("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")] {
            let text = context.text(key, reader);
            options.extend(text.map(|text| text.map(|text| format!("label:{word}:{text}"))));
        }
        context.end(reader);
    }
    fields.end(reader);
    options
}

/// A config or a secret in the container.
fn read_file(item: &Item, kind: Kind, context: &mut Context<'_>) -> Option<FileMount> {
    let (name_key, id_key) = match kind {
        Kind::Config => ("ConfigName", "ConfigID"),
        _ => ("SecretName", "SecretID"),
    };
    let reader = &mut *context.reader;
    let mut fields = reader.open(item);
    fields.mark(&[id_key], Outcome::Converted, BOOKKEEPING, reader);
    if item.get("Runtime").is_some() {
        let reason = "it is for Docker itself, as a credential specification, and is not in the container";
        fields.mark(&[name_key, "Runtime", "File"], Outcome::Dropped, reason, reader);
        fields.end(reader);
        return None;
    }
    let name = fields.text(name_key, reader);
    let mut mount = None;
    match (fields.map("File", reader), name) {
        (Some(mut file), Some(name)) => {
            let (target, uid, gid) = (file.text("Name", reader), file.text("UID", reader), file.text("GID", reader));
            let mode = file.integer("Mode", reader);
            file.end(reader);
            let key = context.names.identify(kind, &name.value, None).key;
            let used = if kind == Kind::Config { &mut context.files.configs } else { &mut context.files.secrets };
            used.entry(name.value.clone()).or_insert(name.leaf);
            mount = Some(FileMount { source: name.map(|_| key), target, uid, gid, mode });
        }
        _ => reader.refuse(item, &format!("a file with {name_key} and File")),
    }
    fields.end(reader);
    mount
}
