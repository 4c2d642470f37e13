//! From keys and texts to settings, with every problem noted on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use jiff::SignedDuration;

use super::super::keys::{CONFIG, KEYS, Key, Variant};
use super::super::sizes::NodeSize;
use super::forms::{
    is_cidr, is_host, is_key, is_label_value, is_misread, is_object_name, is_resource, is_schedule, is_settled_image,
    is_variable, toml_value,
};
use super::{
    Assignment, Certificate, DECIDED, DocumentSource, Documents, ExternalSecret, Gpu, Ingress, LoadBalancer,
    Monitoring, Options, Problem, Resources, Settings, Token, Tolerated,
};
use crate::base::ByteSize;
use crate::base::tree::nearest;
use crate::deploy::executable::Architecture;
use crate::deploy::oci::Reference;
use crate::deploy::shape::MCP_PORT;

const LABEL: &str = "labels such as disk=ssd";
const ANNOTATION: &str = "annotations such as example.com/team=ops";

fn is_label(key: &str, value: &str) -> bool {
    is_key(key) && is_label_value(value)
}

/// A folder within another one.
fn is_inside(text: &str) -> Option<String> {
    let path = text.trim_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./ ".contains(&byte);
    let is_good = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (is_good && path.bytes().all(is_plain)).then(|| path.to_owned())
}

/// What was given, while it is read.
pub(super) struct Reader {
    given: BTreeMap<&'static str, String>,
    own: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    /// Sorts the keys; unknown ones and those of other variants are problems.
    pub(super) fn new(options: &Options) -> Self {
        let mut reader = Self { given: BTreeMap::new(), own: BTreeMap::new(), problems: Vec::new() };
        for Assignment { key, value } in &options.set {
            if value.chars().any(char::is_control) {
                reader.refuse(key, value, "text on one line");
                continue;
            }
            if let Some(own) = key.strip_prefix(CONFIG) {
                reader.assign_own(own, value);
                continue;
            }
            match KEYS.iter().find(|known| known.name == key) {
                Some(Key { name, variant: Some(variant), .. }) if !options.with.contains(variant) => {
                    reader.problems.push(Problem::WithoutVariant { key: name, variant: *variant });
                }
                Some(known) if is_misread(value) => {
                    reader.refuse(
                        known.name,
                        value,
                        "another word: readers of YAML take this one for a number or a truth value",
                    );
                }
                Some(known) => {
                    reader.given.insert(known.name, value.clone());
                }
                None => {
                    let nearest = nearest(key, KEYS.iter().map(|known| known.name)).map(str::to_owned);
                    reader.problems.push(Problem::UnknownKey { key: key.clone(), nearest });
                }
            }
        }
        reader
    }

    /// The form only: whether there is such a setting is known to those who may read Cairn's configuration.
    fn assign_own(&mut self, key: &str, value: &str) {
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let is_index = |step: &str| step.parse::<u16>().is_ok();
        let steps: Vec<&str> = key.split('.').collect();
        let is_good = match &steps[..] {
            // A whole list of tables, and a key of one of them; the same in a section.
            [list] => is_word(list) && value.starts_with('['),
            [section, name] => is_word(section) && is_word(name),
            [list, index, name] => is_word(list) && is_index(index) && is_word(name),
            [section, list, index, name] => is_word(section) && is_word(list) && is_index(index) && is_word(name),
            _ => false,
        };
        if !is_good {
            self.refuse(&format!("{CONFIG}{key}"), value, "a setting such as config.search.limit=10");
        } else if let Some((_, instead)) = DECIDED.iter().find(|(decided, _)| *decided == key) {
            self.problems.push(Problem::Decided { key: key.to_owned(), instead });
        } else {
            self.own.insert(key.to_owned(), toml_value(value));
        }
    }

    fn refuse(&mut self, key: &str, found: &str, expected: &str) {
        let (key, found, expected) = (key.to_owned(), found.to_owned(), expected.to_owned());
        self.problems.push(Problem::Value { key, found, expected });
    }

    fn key(name: &str) -> &'static Key {
        KEYS.iter().find(|key| key.name == name).expect("the key is in the table: a test renders everything")
    }

    /// What was given, if it is anything.
    fn text(&self, name: &str) -> Option<String> {
        self.given.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn parsed<T>(&mut self, name: &str, fallback: T, expected: &str, read: impl Fn(&str) -> Option<T>) -> T {
        let Some(text) = self.text(name) else { return fallback };
        read(&text).unwrap_or_else(|| {
            self.refuse(name, &text, expected);
            fallback
        })
    }

    /// A name of a Kubernetes object, or the table's default.
    fn name(&mut self, name: &str) -> Option<String> {
        let text =
            self.text(name).or_else(|| Some(Self::key(name).default.to_owned()).filter(|text| !text.is_empty()))?;
        if !is_object_name(&text) {
            self.refuse(name, &text, "a name of lower-case letters, digits, '-' and '.'");
        }
        Some(text)
    }

    fn required(&mut self, name: &str) -> String {
        let key = Self::key(name);
        match (self.name(name), key.variant) {
            (Some(text), _) => text,
            (None, Some(variant)) => {
                self.problems.push(Problem::Missing { key: key.name, variant, about: key.about });
                String::new()
            }
            (None, None) => String::new(),
        }
    }

    fn one_of(&mut self, name: &str, words: [&str; 2]) -> String {
        let text = self.text(name).unwrap_or_else(|| Self::key(name).default.to_owned());
        if !words.contains(&text.as_str()) {
            self.refuse(name, &text, &format!("{} or {}", words[0], words[1]));
        }
        text
    }

    /// Items between commas that `is_item` takes.
    fn list(&mut self, name: &str, expected: &str, is_item: impl Fn(&str) -> bool) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if let Some(wrong) = items.iter().find(|item| !is_item(item)) {
            self.refuse(name, wrong, expected);
        }
        items.into_iter().map(str::to_owned).collect()
    }

    fn size(&mut self, name: &str, fallback: ByteSize, least: ByteSize) -> ByteSize {
        let expected = format!("a size of at least {least}");
        self.parsed(name, fallback, &expected, |text| text.parse().ok().filter(|size| *size >= least))
    }

    /// A request and its limit. A request that is not given is never above a limit that is.
    fn pair<T: Copy + Ord + fmt::Display>(&mut self, name: &str, request: T, limit: T, given: bool) -> (T, T) {
        if request <= limit {
            return (request, limit);
        }
        if given {
            self.refuse(
                &format!("resources.{name}-request"),
                &request.to_string(),
                &format!("at most the limit, {limit}"),
            );
        }
        (limit, limit)
    }

    fn node_size(&mut self, options: &Options) -> NodeSize {
        let by_memory = self.parsed("node.memory", None, "the node's memory such as 4GiB", |text| {
            text.parse::<ByteSize>()
                .ok()
                .filter(|memory| memory.0 >= 256 << 20)
                .map(|memory| Some(NodeSize::for_memory(memory)))
        });
        match (options.size, by_memory) {
            (Some(size), Some(other)) if size != other => {
                let found = self.text("node.memory").unwrap_or_default();
                self.refuse("node.memory", &found, &format!("nothing together with `--node-size {size}`"));
                size
            }
            (size, other) => size.or(other).unwrap_or_default(),
        }
    }

    fn resources(&mut self, size: NodeSize) -> Resources {
        let defaults = size.defaults();
        let expected = "processor time such as 2 or 500m";
        let cpu =
            |reader: &mut Self, name: &str, fallback| reader.parsed(name, fallback, expected, |text| text.parse().ok());
        let cpu_limit = cpu(self, "resources.cpu", defaults.cpu);
        let cpu_request = cpu(self, "resources.cpu-request", defaults.cpu_request);
        let memory = self.size("resources.memory", defaults.memory, ByteSize::mib(128));
        let memory_request = self.size("resources.memory-request", defaults.memory_request, ByteSize::mib(16));
        // The container's log and /tmp have to fit in.
        let ephemeral = self.size("resources.ephemeral", defaults.ephemeral, ByteSize::mib(96));
        let ephemeral_request = self.size("resources.ephemeral-request", defaults.ephemeral_request, ByteSize::mib(1));
        let given = |reader: &Self, name: &str| reader.text(name).is_some();
        let (cpu_given, memory_given, ephemeral_given) = (
            given(self, "resources.cpu-request"),
            given(self, "resources.memory-request"),
            given(self, "resources.ephemeral-request"),
        );
        Resources {
            cpu: self.pair("cpu", cpu_request, cpu_limit, cpu_given),
            memory: self.pair("memory", memory_request, memory, memory_given),
            ephemeral: self.pair("ephemeral", ephemeral_request, ephemeral, ephemeral_given),
        }
    }

    fn namespace(&mut self) -> String {
        let text = self.name("namespace").unwrap_or_default();
        let is_shared = text == "default" || text.starts_with("kube-");
        if text.len() > 63 || text.contains('.') || is_shared {
            self.refuse("namespace", &text, "a namespace of its own, not one that the cluster shares");
        }
        text
    }

    fn gpu(&mut self) -> Gpu {
        let resource = Self::key("gpu.resource").default.to_owned();
        let expected = "a name with its domain such as nvidia.com/gpu";
        let mut gpu = Gpu {
            count: self.parsed("gpu.count", 1, "a number from 1 to 16", |text| {
                text.parse().ok().filter(|count| (1..=16).contains(count))
            }),
            resource: self
                .parsed("gpu.resource", resource, expected, |text| is_resource(text).then(|| text.to_owned())),
            group: self.parsed(
                "gpu.group",
                None,
                "a number above 0, as `stat -c %g /dev/dri/renderD128` prints it",
                |text| text.parse().ok().filter(|group| *group > 0).map(Some),
            ),
            runtime_class: self.text("gpu.runtime-class"),
            own_runtime_class: self.one_of("gpu.own-runtime-class", ["true", "false"]) == "true",
        };
        if let Some(class) = gpu.runtime_class.clone().filter(|class| !is_object_name(class)) {
            self.refuse("gpu.runtime-class", &class, "a name of lower-case letters, digits, '-' and '.'");
        }
        if gpu.runtime_class.is_none() && gpu.is_nvidia() {
            gpu.runtime_class = Some(Self::key("gpu.runtime-class").default.to_owned());
        }
        if gpu.own_runtime_class && gpu.runtime_class.is_none() {
            self.refuse("gpu.own-runtime-class", "true", "false, or a gpu.runtime-class");
        }
        gpu
    }

    fn image(&mut self, options: &Options) -> String {
        let own = if options.with.contains(&Variant::Gpu) { Reference::own_for_gpus() } else { Reference::own() };
        let Some(image) = options.image.as_deref() else { return self.pinned(options.image_digest.as_deref(), own) };
        let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
        let digest = options.image_digest.as_deref().or(digest);
        let reference = name.parse::<Reference>().unwrap_or_else(|error| {
            self.refuse("--image", image, &format!("HOST/NAME:TAG, since {error}"));
            own
        });
        if reference.tag() == "latest" && digest.is_none() {
            self.refuse("--image", image, "a tag that does not move, or a digest");
        }
        self.pinned(digest, reference)
    }

    /// By the digest where one is given, else by the tag.
    fn pinned(&mut self, digest: Option<&str>, reference: Reference) -> String {
        let Some(text) = digest else { return reference.to_string() };
        match text.strip_prefix("sha256:").map(str::parse) {
            Some(Ok(digest)) => reference.pinned(digest),
            _ => {
                self.refuse("--image-digest", text, "sha256: and 64 hex digits, as `cairn image inspect` prints it");
                reference.to_string()
            }
        }
    }

    /// Reads everything. Where something is wrong its place holds anything, since the problem is told instead.
    pub(super) fn settings(&mut self, options: &Options) -> Settings {
        let has = |variant| options.with.contains(&variant);
        let namespace = self.namespace();
        let size = self.node_size(options);
        let storage_least = ByteSize::mib(1 << 10);
        let expected_cidr = "addresses such as 10.0.0.0/8";
        let domain = self.name("cluster.domain").unwrap_or_default();
        let mut hosts = Vec::new();
        hosts.extend(self.list("hosts", "names such as cairn.example.com", is_host));
        let certificate = has(Variant::CertManager).then(|| {
            let kind = self.one_of("cert-manager.issuer-kind", ["ClusterIssuer", "Issuer"]);
            Certificate { issuer: self.name("cert-manager.issuer").map(|name| (name, kind)) }
        });
        let external_secret = has(Variant::ExternalSecrets).then(|| ExternalSecret {
            store: self.required("external-secrets.store"),
            store_kind: self.one_of("external-secrets.store-kind", ["ClusterSecretStore", "SecretStore"]),
            key: self
                .text("external-secrets.key")
                .unwrap_or_else(|| Self::key("external-secrets.key").default.to_owned()),
            property: match self.given.get("external-secrets.property") {
                Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
                None => Some(Self::key("external-secrets.property").default.to_owned()),
            },
        });
        let gpu = has(Variant::Gpu).then(|| self.gpu());
        let ingress = has(Variant::Ingress).then(|| Ingress {
            host: self.required("ingress.host"),
            class: self.name("ingress.class").unwrap_or_default(),
            secret: self.name("ingress.secret"),
            path: self.parsed("ingress.path", "/".to_owned(), "a path such as /mcp", |text| {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
                (text.starts_with('/') && text.bytes().all(is_plain)).then(|| text.to_owned())
            }),
            annotations: self.pairs("ingress.annotations", ANNOTATION, |key, _| is_key(key)),
        });
        // One that is missing was told as that.
        let host = ingress.iter().map(|ingress| ingress.host.clone());
        hosts.extend(host.filter(|host| !host.is_empty()));
        let load_balancer = has(Variant::LoadBalancer).then(|| LoadBalancer {
            port: self.parsed("loadbalancer.port", MCP_PORT, "a port from 1024 to 65535 other than 6443", |text| {
                text.parse().ok().filter(|port| *port >= 1024 && *port != 6443)
            }),
            cidrs: self.list("loadbalancer.cidr", expected_cidr, is_cidr),
        });
        let monitoring = has(Variant::Monitoring).then(|| Monitoring {
            namespace: self.name("monitoring.namespace").unwrap_or_default(),
            interval: self.parsed(
                "monitoring.interval",
                Self::key("monitoring.interval").default.to_owned(),
                "seconds or minutes such as 60s",
                |text| {
                    let number = text.strip_suffix(['s', 'm'])?;
                    (number.parse::<u32>().ok()? > 0).then(|| text.to_owned())
                },
            ),
            release: self.name("monitoring.release"),
        });
        let backup_claim = self.name("backup.claim");
        if backup_claim.is_some() && self.own.contains_key("snapshot.target") {
            let found = self.text("backup.claim").unwrap_or_default();
            self.refuse("backup.claim", &found, "nothing together with config.snapshot.target: it is the target");
        }
        let drain_timeout = self.drain_timeout();
        self.snapshot_target();
        let mut seen = BTreeSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        Settings {
            size,
            image: self.image(options),
            token: self.token(options),
            namespace,
            address: self.parsed("address", IpAddr::V4(Ipv4Addr::UNSPECIFIED), "0.0.0.0 or ::", |text| {
                text.parse().ok().filter(IpAddr::is_unspecified)
            }),
            hosts,
            domain,
            node_selector: self.node_selector(options),
            node_prefer: self.pairs("node.prefer", LABEL, is_label),
            tolerations: self.tolerations(),
            priority_class: self.name("priority-class"),
            pull_secrets: self.list("image.pull-secrets", "names of Secrets", is_object_name),
            environment: self.pairs(
                "env",
                "NAME=VALUE, of names that are not Cairn's: those are set by config.SECTION.KEY",
                |name, _| is_variable(name) && !name.starts_with("CAIRN_"),
            ),
            pod_annotations: self.pairs("pod.annotations", ANNOTATION, |key, _| is_key(key)),
            service_annotations: self.pairs("service.annotations", ANNOTATION, |key, _| is_key(key)),
            documents: has(Variant::Documents).then(|| self.documents()),
            storage: self.size("storage.size", size.defaults().storage, storage_least),
            storage_class: self.name("storage.class"),
            resources: self.resources(size),
            backup_claim,
            backup_secret: self.name("backup.secret"),
            backup_cidrs: self.list("backup.cidr", expected_cidr, is_cidr),
            certificate,
            external_secret,
            gpu,
            ingress,
            load_balancer,
            monitoring,
            own: self.own.clone(),
            drain_timeout,
            command: command(options),
        }
    }

    /// `KEY=VALUE` between commas.
    fn pairs(&mut self, name: &str, expected: &str, is_pair: impl Fn(&str, &str) -> bool) -> BTreeMap<String, String> {
        let text = self.text(name).unwrap_or_default();
        let mut pairs = BTreeMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.split_once('=') {
                Some((key, value)) if is_pair(key, value) => {
                    pairs.insert(key.to_owned(), value.to_owned());
                }
                _ => self.refuse(name, item, expected),
            }
        }
        pairs
    }

    /// On which nodes the pod runs: those whose processor runs the image, and of them those that are asked for.
    fn node_selector(&mut self, options: &Options) -> BTreeMap<String, String> {
        let mut labels = self.pairs("node.selector", LABEL, is_label);
        labels.extend(self.name("node.name").map(|name| ("kubernetes.io/hostname".to_owned(), name)));
        let arch = match self.text("node.arch") {
            Some(arch) if arch == "any" && options.image.is_some() => None,
            Some(arch) if arch == "any" => {
                self.refuse("node.arch", &arch, "a processor such as amd64 or arm64: Cairn's own image runs on one");
                None
            }
            Some(arch) if is_object_name(&arch) => Some(arch),
            Some(arch) => {
                self.refuse("node.arch", &arch, "amd64, arm64 or any");
                None
            }
            None => Some(Architecture::of_this_machine().map_or("amd64", Architecture::oci).to_owned()),
        };
        labels.extend(arch.map(|arch| ("kubernetes.io/arch".to_owned(), arch)));
        labels
    }

    fn tolerations(&mut self) -> Vec<Tolerated> {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let text = self.text("tolerations").unwrap_or_default();
        let mut tolerated = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item == "*" {
                tolerated.push(Tolerated { key: None, value: None, effect: None });
                continue;
            }
            let (taint, effect) = item.split_once(':').map_or((item, None), |(taint, effect)| (taint, Some(effect)));
            let (key, value) = taint.split_once('=').map_or((taint, None), |(key, value)| (key, Some(value)));
            let is_good = is_key(key)
                && value.is_none_or(is_label_value)
                && effect.is_none_or(|effect| EFFECTS.contains(&effect));
            if is_good {
                let own = str::to_owned;
                tolerated.push(Tolerated { key: Some(own(key)), value: value.map(own), effect: effect.map(own) });
            } else {
                let expected =
                    "KEY, KEY=VALUE or KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute; or *";
                self.refuse("tolerations", item, expected);
            }
        }
        tolerated
    }

    fn documents(&mut self) -> Documents {
        let (git, claim, map) =
            (self.text("documents.git"), self.name("documents.claim"), self.name("documents.config-map"));
        let given = [git.is_some(), claim.is_some(), map.is_some()].into_iter().filter(|is| *is).count();
        let sources = "one of documents.git, documents.claim and documents.config-map";
        if given > 1 {
            self.refuse("documents", "several sources", sources);
        }
        let from = match (git, claim, map) {
            (None, Some(claim), _) => DocumentSource::Claim(claim),
            (None, None, Some(map)) => DocumentSource::ConfigMap(map),
            (Some(url), ..) => self.git(url),
            (None, None, None) => {
                self.problems.push(Problem::Missing {
                    key: "documents.git",
                    variant: Variant::Documents,
                    about: sources,
                });
                DocumentSource::Claim(String::new())
            }
        };
        if !matches!(from, DocumentSource::Git { .. }) {
            for key in ["image", "branch", "secret", "cidr", "size"].map(|name| format!("documents.git.{name}")) {
                if let Some(found) = self.text(&key) {
                    self.refuse(&key, &found, "nothing without documents.git");
                }
            }
        }
        let default = |key: &str| Self::key(key).default.to_owned();
        Documents {
            from,
            collection: self.parsed(
                "documents.collection",
                default("documents.collection"),
                "a name of letters, digits, '-', '_' and '.'",
                |text| {
                    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                    let is_good = text.len() <= 64 && text.starts_with(|first: char| first.is_ascii_alphanumeric());
                    (is_good && text.bytes().all(is_inner)).then(|| text.to_owned())
                },
            ),
            schedule: self.parsed(
                "documents.schedule",
                default("documents.schedule"),
                "minute, hour, day of the month, month and day of the week (0 to 6) such as */15 * * * *",
                |text| is_schedule(text).then(|| text.to_owned()),
            ),
            path: self.parsed("documents.path", String::new(), "a folder such as docs/manual", is_inside),
        }
    }

    fn git(&mut self, url: String) -> DocumentSource {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"'\"\\`$".contains(&byte);
        if !(url.starts_with("https://") || url.starts_with("http://")) || !url.bytes().all(is_plain) {
            self.refuse("documents.git", &url, "https:// and a repository");
        }
        let branch = self.parsed("documents.git.branch", None, "the name of a branch", |text| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            (!text.starts_with('-') && text.bytes().all(is_inner)).then(|| Some(text.to_owned()))
        });
        let image = self.text("documents.git.image").unwrap_or_default();
        if image.is_empty() {
            let about = Self::key("documents.git.image").about;
            self.problems.push(Problem::Missing { key: "documents.git.image", variant: Variant::Documents, about });
        } else if !is_settled_image(&image) {
            let expected =
                "an image by its digest (NAME@sha256:HEX), or by a tag that does not move (NAME:TAG, not latest)";
            self.refuse("documents.git.image", &image, expected);
        }
        let size = self.size("documents.git.size", ByteSize::mib(1 << 10), ByteSize::mib(16));
        let secret = self.name("documents.git.secret");
        let cidrs = self.list("documents.git.cidr", "addresses such as 10.0.0.0/8", is_cidr);
        DocumentSource::Git { url, image, branch, secret, cidrs, size }
    }

    fn token(&mut self, options: &Options) -> Option<Token> {
        let token = options.token.clone()?;
        // The value itself goes into no message.
        if !token.0.bytes().all(|byte| byte.is_ascii_graphic()) || token.0.len() < 16 {
            self.problems.push(Problem::Token { expected: "at least 16 printable characters without spaces" });
        }
        if options.with.contains(&Variant::ExternalSecrets) {
            self.problems.push(Problem::Token { expected: "none, for `--with external-secrets` brings it" });
        }
        Some(token)
    }

    fn drain_timeout(&mut self) -> SignedDuration {
        let default = SignedDuration::from_secs(20);
        let Some(text) = self.own.get("server.drain_timeout").map(|value| value.trim_matches('"').to_owned()) else {
            return default;
        };
        match text.parse::<SignedDuration>() {
            Ok(duration) if duration >= SignedDuration::ZERO && duration <= SignedDuration::from_hours(1) => duration,
            _ => {
                self.refuse("config.server.drain_timeout", &text, "a duration up to 1h such as 20s");
                default
            }
        }
    }

    /// A folder that nothing is mounted at would be on the read-only root.
    fn snapshot_target(&mut self) {
        let Some(target) = self.own.get("snapshot.target").map(|value| value.trim_matches('"').to_owned()) else {
            return;
        };
        if !target.is_empty() && !target.starts_with("s3://") {
            self.refuse("config.snapshot.target", &target, "s3://bucket/prefix; `backup.claim` ships to a volume");
        }
    }
}

/// What would render the same: options in one order, whatever the order they came in.
fn command(options: &Options) -> String {
    let mut words = vec!["cairn k3s render".to_owned()];
    words.extend(options.size.map(|size| format!("--node-size {size}")));
    if !options.with.is_empty() {
        let names: Vec<&str> = options.with.iter().map(|variant| variant.name()).collect();
        words.push(format!("--with {}", names.join(",")));
    }
    words.extend(options.image.as_deref().map(|image| format!("--image {}", quoted(image))));
    words.extend(options.image_digest.as_deref().map(|digest| format!("--image-digest {}", quoted(digest))));
    let last: BTreeMap<&str, &str> = options.set.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect();
    words.extend(last.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
    words.join(" ")
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/:=@,%+".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
