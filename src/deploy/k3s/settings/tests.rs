use std::path::Path;

use super::*;
use crate::deploy::k3s::{keys, render, schema, spec};

fn of_file(name: &str, text: &str) -> Options {
    let values = ValuesFile::parse(Path::new(name), text).expect("a file of settings");
    Options { values: Some(values), ..Options::default() }
}

fn problems(options: &Options) -> Vec<String> {
    Settings::draft(options).1.iter().map(ToString::to_string).collect()
}

fn set(texts: &[&str]) -> Vec<Assignment> {
    texts.iter().map(|text| text.parse().expect("an assignment")).collect()
}

/// What is rendered but for the line that says how.
fn rendered(options: &Options) -> String {
    let rendered = render(&Settings::new(options).expect("valid settings"));
    let lines = rendered.main.lines().filter(|line| !line.starts_with("#   cairn"));
    lines.collect::<Vec<_>>().join("\n")
}

const YAML: &str = "\
namespace: site
node:
  size: medium
  selector: {disk: ssd}
  prefer: [zone=a]
tolerations: ['edge=true:NoSchedule', '*']
resources:
  cpu: 3
storage: {size: 64GiB}
image:
  digest: sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730
  pull-secrets: [registry]
env: {HTTPS_PROXY: http://proxy:3128}
ingress:
  host: cairn.example.com
gpu: {own-runtime-class: true, group: 105}
documents:
  git: {url: https://git.example/a.git, image: registry.example/git:2.50.1}
config:
  search: {limit: 12, languages: [en, de]}
  models:
  - {name: a, dimensions: 5}
";

const TOML: &str = "\
namespace = \"site\"
tolerations = [\"edge=true:NoSchedule\", \"*\"]
env.HTTPS_PROXY = \"http://proxy:3128\"
[node]
size = \"medium\"
selector = {disk = \"ssd\"}
prefer = {zone = \"a\"}
[resources]
cpu = \"3\"
[storage]
size = \"64GiB\"
[image]
digest = \"sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730\"
pull-secrets = [\"registry\"]
[ingress]
host = \"cairn.example.com\"
[gpu]
own-runtime-class = true
group = 105
[documents.git]
url = \"https://git.example/a.git\"
image = \"registry.example/git:2.50.1\"
[config.search]
limit = 12
languages = [\"en\", \"de\"]
[[config.models]]
name = \"a\"
dimensions = 5
";

#[test]
fn a_file_says_what_options_say() {
    let options = Options {
        size: Some(NodeSize::Medium),
        with: [Variant::Ingress, Variant::Gpu, Variant::Documents].into(),
        image_digest: Some("sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730".to_owned()),
        set: set(&[
            "namespace=site",
            "node.selector=disk=ssd",
            "node.prefer=zone=a",
            "tolerations=edge=true:NoSchedule, *",
            "resources.cpu=3",
            "storage.size=64GiB",
            "image.pull-secrets=registry",
            "env=HTTPS_PROXY=http://proxy:3128",
            "ingress.host=cairn.example.com",
            "gpu.own-runtime-class=true",
            "gpu.group=105",
            "documents.git=https://git.example/a.git",
            "documents.git.image=registry.example/git:2.50.1",
            "config.search.limit=12",
            "config.search.languages=[\"en\", \"de\"]",
            "config.models.0.name=a",
            "config.models.0.dimensions=5",
        ]),
        ..Options::default()
    };
    let expected = rendered(&options);
    assert_eq!(rendered(&of_file("values.yaml", YAML)), expected);
    assert_eq!(rendered(&of_file("values.toml", TOML)), expected);
}

#[test]
fn options_win_over_a_file_and_an_empty_value_is_the_default() {
    let mut options = of_file("values.yaml", YAML);
    options.size = Some(NodeSize::Large);
    options.set = set(&["namespace=other", "storage.size=", "ingress.class=nginx"]);
    let settings = Settings::new(&options).expect("valid");
    assert_eq!((settings.namespace(), settings.size()), ("other", NodeSize::Large));
    assert_eq!(settings.storage(), NodeSize::Large.defaults().storage);
    assert_eq!(settings.ingress_class(), Some("nginx"));
    assert!(render(&settings).main.contains("cairn k3s render --values values.yaml --node-size large"));
}

#[test]
fn every_problem_of_a_file_has_its_line() {
    let yaml = "\
namespace: kube-system
node:
  size: huge
  selectr: {a: b}
hosts:
- good.example
- not good
storage:
  size: 10
  class: null
resources: {cpu: lots, memory: 1MiB}
env:
  CAIRN_LOG_FILTER: debug
ingress:
  path: mcp
priority-class: 'on'
config:
  server: {listen: '0.0.0.0:80'}
  search: 5
backup: nas
documents:
  git: {image: x,
    branch: a}
";
    let found = problems(&of_file("site.yaml", yaml));
    for expected in [
        "site.yaml:1: namespace is 'kube-system', expected a namespace of its own",
        "site.yaml:3: node.size is 'huge', expected pi, small, medium, large or",
        "site.yaml:4: there is no key 'node.selectr' (did you mean 'node.selector'?)",
        "site.yaml:7: hosts is 'not good', expected names such as",
        "site.yaml:9: storage.size is '10', expected a size of at least",
        "site.yaml:11: resources.cpu is 'lots', expected processor time",
        "site.yaml:11: resources.memory is '1MiB', expected a size of at least 128 MiB",
        "site.yaml:13: env.CAIRN_LOG_FILTER is 'debug', expected NAME=VALUE",
        "site.yaml:14: `--with ingress` needs `--set ingress.host=…`: the name that clients use",
        "site.yaml:15: ingress.path is 'mcp', expected a path",
        "site.yaml:16: priority-class is 'on', expected another word",
        "site.yaml:18: config.server.listen is decided by the manifests: set `address`",
        "site.yaml:19: config.search is '5', expected a setting such as",
        "site.yaml:20: backup is 'nas', expected a table",
        "site.yaml:22: documents.git.image is 'x', expected an image by its digest",
        "site.yaml:23: documents.git.branch is 'a', expected nothing without documents.git",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected} in {found:#?}");
    }
    assert_eq!(found.len(), 16, "{found:#?}");
    let after_empty = problems(&of_file("site.yaml", "hosts:\n- a.example\n-\n- not good\n"));
    assert_eq!(after_empty.len(), 1, "{after_empty:?}");
    assert!(after_empty[0].starts_with("site.yaml:4: hosts is 'not good'"), "{after_empty:?}");
    let toml = problems(&of_file("site.toml", "[storage]\nsize = 10\nclas = \"a\"\n"));
    assert_eq!(toml.len(), 2, "{toml:#?}");
    assert!(toml.iter().any(|problem| problem.starts_with("site.toml:2: storage.size is '10'")), "{toml:#?}");
    assert!(toml.iter().any(|problem| problem.starts_with("site.toml:3: there is no key 'storage.clas'")), "{toml:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_place() {
    for (name, text, expected) in [
        ("a.yaml", "a: [1\n", "a.yaml"),
        ("a.yaml", "a: 1\na: 2\n", "'a' is set twice"),
        ("a.yaml", "- 1\n", "KEY: VALUE"),
        ("a.yaml", "a: 99999999999999999999\n", "a.yaml:1"),
        ("a.toml", "a = [1\n", "a.toml:"),
    ] {
        let error = ValuesFile::parse(Path::new(name), text).expect_err(text).to_string();
        assert!(error.contains(expected), "{expected} in {error}");
    }
    let long = format!("a: {}", "x".repeat(300 << 10));
    assert!(ValuesFile::parse(Path::new("a.yaml"), &long).is_err());
    // Every repetition of a repetition.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    assert!(ValuesFile::parse(Path::new("a.yaml"), &bomb).is_err());
    assert_eq!(rendered(&of_file("empty.yaml", "")), rendered(&Options::default()));
}

#[test]
fn code_fills_the_structs_and_the_same_rules_hold() {
    let ingress = serde_json::json!({"host": "cairn.example.com"});
    let spec = Spec {
        namespace: "site".parse().expect("a name"),
        ingress: Some(serde_json::from_value(ingress).expect("a spec")),
        ..Spec::default()
    };
    let written = serde_json::to_value(&spec).expect("a spec is JSON");
    assert_eq!(serde_json::from_value::<Spec>(written).expect("a spec"), spec);
    let settings = Settings::of(spec, None).expect("valid");
    let options = Options {
        with: [Variant::Ingress].into(),
        set: set(&["namespace=site", "ingress.host=cairn.example.com"]),
        ..Options::default()
    };
    let of = |settings: &Settings| render(settings).main.lines().skip(3).collect::<Vec<_>>().join("\n");
    assert_eq!(of(&settings), of(&Settings::new(&options).expect("valid")));
    let gpu = spec::Gpu {
        resource: "amd.com/gpu".parse().expect("a resource"),
        own_runtime_class: "true".parse().expect("a flag"),
        ..spec::Gpu::default()
    };
    let error = Settings::of(Spec { gpu: Some(gpu), ..Spec::default() }, None).expect_err("no class to render");
    assert!(error.to_string().contains("gpu.own-runtime-class"), "{error}");
    assert!(serde_json::from_str::<Spec>("{\"storage\": {\"sise\": \"1GiB\"}}").is_err());
}

#[test]
fn defaults_are_those_of_the_manual() {
    let of = |name: &str| keys().into_iter().find(|key| key.name == name).map(|key| (key.default, key.variant));
    for (name, default, variant) in [
        ("name", "cairn", None),
        ("namespace", "cairn", None),
        ("address", "0.0.0.0", None),
        ("hosts", "", None),
        ("cluster.domain", "cluster.local", None),
        ("node.arch", "that of this program", None),
        ("storage.size", "by node size", None),
        ("documents.git.size", "1GiB", Some(Variant::Documents)),
        ("documents.schedule", "*/15 * * * *", Some(Variant::Documents)),
        ("external-secrets.store-kind", "ClusterSecretStore", Some(Variant::ExternalSecrets)),
        ("external-secrets.property", "token", Some(Variant::ExternalSecrets)),
        ("gpu.count", "1", Some(Variant::Gpu)),
        ("gpu.runtime-class", "nvidia", Some(Variant::Gpu)),
        ("gpu.own-runtime-class", "false", Some(Variant::Gpu)),
        ("ingress.class", "traefik", Some(Variant::Ingress)),
        ("ingress.path", "/", Some(Variant::Ingress)),
        ("loadbalancer.port", "7171", Some(Variant::LoadBalancer)),
        ("monitoring.interval", "60s", Some(Variant::Monitoring)),
    ] {
        assert_eq!(of(name), Some((default.to_owned(), variant)), "{name}");
    }
    for key in ["image.name", "image.digest", "node.size"] {
        assert_eq!(of(key), None, "{key} has an option");
        assert!(schema().pointer(&format!("/properties/{}", key.replace('.', "/properties/"))).is_some(), "{key}");
    }
}

#[test]
fn a_property_that_is_empty_is_the_whole_entry() {
    let options = |more: &[&str]| Options {
        with: [Variant::ExternalSecrets].into(),
        set: set(&[&["external-secrets.store=vault"], more].concat()),
        ..Options::default()
    };
    assert!(rendered(&options(&[])).contains("property: token"));
    assert!(!rendered(&options(&["external-secrets.property="])).contains("property:"));
}

#[test]
fn what_an_installation_finds_out_is_rendered_as_if_it_had_been_asked_for() {
    let digest = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730";
    let requested = |more: &[&str], digest: Option<&str>| Options {
        with: [Variant::Ingress, Variant::LoadBalancer].into(),
        set: set(&[&["ingress.host=cairn.example.com", "hosts=a.example"], more].concat()),
        image_digest: digest.map(str::to_owned),
        ..Options::default()
    };
    let mut settings = Settings::new(&requested(&[], None)).expect("valid");
    let token = ClientToken::new("a-token-of-some-length");
    let hosts = ["10.0.0.1".to_owned(), "a.example".to_owned()].to_vec();
    let facts = Facts {
        image_digest: Some(digest.to_owned()),
        node_name: Some("edge-1".to_owned()),
        hosts,
        token: Some(token.clone()),
    };
    settings.complete(facts).expect("facts");
    let mut options = requested(&["hosts=a.example,10.0.0.1,a.example", "node.name=edge-1"], Some(digest));
    options.token = Some(token);
    assert_eq!(render(&settings), render(&Settings::new(&options).expect("valid")));
    let short = Facts { token: Some(ClientToken::new("short")), ..Facts::default() };
    assert!(settings.complete(short).is_err());
}

#[test]
fn of_very_many_problems_the_first_ones_are_shown() {
    use std::fmt::Write as _;
    let of = |line: fn(usize) -> String| {
        let text = (0..2_000).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{}", line(number));
            text
        });
        problems(&of_file("many.yaml", &text))
    };
    let prefixed = |first: &str, line: fn(usize) -> String| {
        let lines = (0..2_000).map(line).collect::<Vec<_>>().join("\n");
        problems(&of_file("many.yaml", &format!("{first}\n{lines}\n")))
    };
    let all = [
        of(|number| format!("key-{number}: 1")),
        prefixed("config:\n  Search:", |number| format!("    key_{number}: 1")),
        prefixed("hosts:", |number| format!("- 'a b {number}'")),
        prefixed("hosts:", |_| "- 'on'".to_owned()),
    ];
    for found in all {
        assert_eq!(found.len(), PROBLEMS_MAX + 1, "{:#?}", &found[..3]);
        assert!(found[0].starts_with("many.yaml:"), "{}", found[0]);
        assert!(found[PROBLEMS_MAX].contains("there are more problems"), "{}", found[PROBLEMS_MAX]);
    }
}

#[test]
fn control_characters_of_a_file_are_shown_and_not_sent() {
    let found = problems(&of_file("a.yaml", "namespace: \"a\\e[31mb\"\n\"k\\e]0;\\a\": 1\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|problem| !problem.contains(char::is_control)), "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("a\\u{1b}[31mb")), "{found:?}");
}
