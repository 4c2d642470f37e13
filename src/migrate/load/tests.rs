//! Cases whose results Docker's own programs gave, properties of what is accounted for, and input that means harm.

mod docker;
mod hostile;
mod leaves;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;

/// Files, and what docker/cli 29.9.3 or compose-go 2.16.2 make of them: the merged project as the program prints it, with the folder as `DIR`,
/// and null where it refuses them. Written by a program that calls both.
const CASES: &str = include_str!("../../../tests/data/swarm/loaded.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    dialect: String,
    files: BTreeMap<String, String>,
    load: Vec<String>,
    env_file: Option<String>,
    #[serde(default)]
    profiles: Vec<String>,
    expected: Json,
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }
    folder
}

fn request(folder: &FilePath, names: &[&str], dialect: Option<Dialect>) -> Request {
    Request { files: names.iter().map(|name| folder.join(name)).collect(), dialect, ..Request::default() }
}

/// Loads files, with the folder as `DIR` in messages.
fn loaded(files: &[(&str, &str)], names: &[&str], dialect: Dialect) -> Result<Loaded, String> {
    let folder = folder(files);
    loaded_in(folder.path(), names, dialect)
}

fn loaded_in(folder: &FilePath, names: &[&str], dialect: Dialect) -> Result<Loaded, String> {
    load(&request(folder, names, Some(dialect)))
        .map_err(|error| error.to_string().replace(&*folder.to_string_lossy(), "DIR"))
}

fn refusal(files: &[(&str, &str)], names: &[&str], dialect: Dialect) -> String {
    loaded(files, names, dialect).expect_err("refused")
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(i64::try_from(*value).expect("small")),
        Value::Float(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.node))).collect())
        }
    }
}

#[test]
fn a_leaf_that_is_replaced_says_by_what() {
    let files = [
        (
            "a.yml",
            "services:\n  web:\n    image: x\n    ports: ['80:80']\n    user: u\n  debug: {image: d, profiles: [debug]}\n",
        ),
        ("b.yml", "services:\n  web:\n    image: y\n    ports: !reset []\n"),
    ];
    let folder = folder(&files);
    let found = loaded_in(folder.path(), &["a.yml", "b.yml"], Dialect::Compose).expect("loaded");
    let show = |replaced: &Replaced| {
        let Replaced { written, reason, outcome } = replaced;
        format!("{} {}:{} {outcome:?}: {reason}", written.path, written.at.line, written.at.column)
    };
    let shown: Vec<String> =
        found.replaced.iter().map(show).map(|text| text.replace(&*folder.path().to_string_lossy(), "DIR")).collect();
    assert_eq!(
        shown,
        [
            "services.web.ports 4:19 Converted: !reset removes what earlier files say here, and has no value of its own",
            "services.web.ports[0] 4:13 Converted: !reset at DIR/b.yml:4:19 removes it",
            "services.web.image 3:12 Converted: DIR/b.yml:3:12 replaces it",
            "services.debug.image 6:18 Dropped: the profile `debug` is not chosen; --profile debug does",
            "services.debug.profiles[0] 6:32 Dropped: the profile `debug` is not chosen; --profile debug does",
        ]
    );
    let only_first = "services: {web: {image: x}}\n---\nservices: {two: {image: y}}\n";
    let found = loaded(&[("a.yml", only_first)], &["a.yml"], Dialect::Stack).expect("loaded");
    let reasons: Vec<&str> = found.replaced.iter().map(|replaced| replaced.reason.as_str()).collect();
    assert_eq!(reasons, ["docker stack deploy reads the first document of a file only"]);
}

#[test]
fn what_docker_stack_deploy_loses_is_dropped_with_a_warning() {
    let files = [
        ("a.yml", "services:\n  web:\n    image: x\n    ports: ['53:53/tcp', '53:53/udp']\n    environment: {A: a}\n"),
        ("b.yml", "services:\n  web:\n    environment: {A: ''}\n"),
    ];
    let found = loaded(&files, &["a.yml", "b.yml"], Dialect::Stack).expect("loaded");
    let dropped: Vec<String> = found
        .replaced
        .iter()
        .filter(|one| one.outcome != crate::migrate::Outcome::Converted)
        .map(|one| one.written.path.to_string())
        .collect();
    assert_eq!(dropped, ["services.web.environment.A", "services.web.ports[0]"]);
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
}

#[test]
fn every_variable_without_a_value_is_named_at_each_place() {
    let text = "services:\n  web:\n    image: x:$TAG\n    user: ${TAG}${UID:?a-b}\n    environment: [\"A=$TAG\"]\n";
    let found = loaded(&[("a.yml", text)], &["a.yml"], Dialect::Stack).expect("loaded");
    let folder = FilePath::new(&*found.warnings[0].at.file).parent().expect("a folder").to_string_lossy().into_owned();
    let shown: Vec<String> = found.warnings.iter().map(|mistake| mistake.to_string().replace(&folder, "DIR")).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    let message = "the variable TAG has no value and is replaced by nothing; set it in the file of --env-file";
    assert_eq!(shown[0], format!("DIR/a.yml:3:12: services.web.image: {message}"));
    assert!(
        shown[2].starts_with("DIR/a.yml:4:11: services.web.user: docker stack deploy looks for '-'"),
        "{}",
        shown[2]
    );
    assert_eq!(shown[3], format!("DIR/a.yml:5:19: services.web.environment[0]: {message}"));
    // An unset variable in a constraint: docker/cli#735.
    let text = "services: {web: {image: x, deploy: {replicas: \"$N\"}}}\n";
    let message = refusal(&[("a.yml", text)], &["a.yml"], Dialect::Stack);
    assert_eq!(
        message,
        "DIR/a.yml:1:47: services.web.deploy.replicas: found \"\", expected a whole number; the variable N has no value, set it in the file of \
         --env-file"
    );
}

/// docker/cli casts what interpolation changed, compose-go every text at the path.
#[test]
fn texts_become_numbers_where_the_program_makes_them_numbers() {
    let text = "services:\n  web:\n    image: x\n    tty: 'yes'\n    read_only: \"${A:-true}\"\n    user: \"${A:-3}\"\n    deploy: {replicas: '3', \
                update_config: {parallelism: \"${A:-2}\", max_failure_ratio: \"${A:-0.5}\"}}\n";
    let web = |dialect| {
        json_of(&loaded(&[("a.yml", text)], &["a.yml"], dialect).expect("loaded").tree)["services"]["web"].clone()
    };
    let compose = web(Dialect::Compose);
    assert_eq!((&compose["tty"], &compose["deploy"]["replicas"]), (&json!(true), &json!(3)));
    let message = refusal(&[("a.yml", text)], &["a.yml"], Dialect::Stack);
    assert!(message.contains("services.web.tty: found text") && message.contains("replicas: found text"), "{message}");
    let text = text.replace("tty: 'yes'", "tty: true").replace("'3'", "3");
    let found = loaded(&[("a.yml", &text)], &["a.yml"], Dialect::Stack).expect("loaded").tree;
    let stack = json_of(&found)["services"]["web"].clone();
    for web in [stack, compose] {
        assert_eq!((&web["read_only"], &web["user"]), (&json!(true), &json!("3")));
        assert_eq!(web["deploy"]["update_config"], json!({"parallelism": 2, "max_failure_ratio": 0.5}));
    }
}

#[test]
fn variables_of_this_process_are_not_read() {
    let found = loaded(&[("a.yml", "services: {web: {image: \"x$PATH$HOME\"}}\n")], &["a.yml"], Dialect::Compose);
    let found = found.expect("loaded");
    let image = found.tree.get("services").and_then(|services| services.get("web")).and_then(|web| web.get("image"));
    assert_eq!(image.map(|image| image.value.to_string()), Some("x".to_owned()));
}

#[test]
fn names_of_files_in_other_folders_are_below_the_stacks() {
    let files = [
        ("a.yml", "include: [inc/b.yml]\nservices:\n  web:\n    extends: {file: ext/c.yml, service: c}\n"),
        (
            "inc/b.yml",
            "services:\n  b:\n    image: b\n    env_file: e.env\n    volumes: ['./d:/d:ro', 'named:/n', '/abs:/a', '~/h:/h']\n\
             configs: {k: {file: k.conf}}\nsecrets: {s: {file: ../s.txt}}\n",
        ),
        (
            "ext/c.yml",
            "services:\n  c:\n    image: c\n    env_file: [{path: e.env}, ../up.env]\n    build: {context: .}\n    volumes:\n      - {type: \
             bind, source: ./d, target: /d}\n      - {type: volume, source: d, target: /e}\n",
        ),
    ];
    let found = loaded(&files, &["a.yml"], Dialect::Compose).expect("loaded");
    let tree = json_of(&found.tree);
    assert_eq!(tree["services"]["b"]["env_file"], json!("./inc/e.env"));
    assert_eq!(tree["services"]["b"]["volumes"], json!(["./inc/d:/d:ro", "named:/n", "/abs:/a", "~/h:/h"]));
    assert_eq!(tree["configs"]["k"]["file"], json!("./inc/k.conf"));
    assert_eq!(tree["secrets"]["s"]["file"], json!("./s.txt"));
    assert_eq!(tree["services"]["web"]["env_file"], json!([{"path": "./ext/e.env"}, "./up.env"]));
    assert_eq!(tree["services"]["web"]["build"]["context"], json!("./ext"));
    assert_eq!(tree["services"]["web"]["volumes"][0]["source"], json!("./ext/d"));
    assert_eq!(tree["services"]["web"]["volumes"][1]["source"], json!("d"));
    assert!(tree["services"]["web"].get("extends").is_none() && tree.get("include").is_none());
    let resolved: Vec<String> = found.replaced.iter().map(|one| one.written.path.to_string()).collect();
    assert_eq!(resolved, ["include[0]", "services.web.extends.file", "services.web.extends.service"]);
}

#[test]
fn standard_input_is_a_file_too() {
    let request = |files: &[&str]| Request { files: files.iter().map(PathBuf::from).collect(), ..Request::default() };
    let found = load_from(&request(&["-"]), &mut &b"services: {web: {image: x, deploy: {placement: {}}}}\n"[..])
        .expect("loaded");
    assert_eq!(found.dialect, Dialect::Stack);
    let error = load_from(&request(&["-"]), &mut &b"services: {a: \"$\"}\n"[..]).expect_err("refused");
    assert!(error.to_string().starts_with("standard input:1:15: services.a: '$' is not a variable"), "{error}");
    let error = load_from(&request(&["-"]), &mut std::io::repeat(b'#')).expect_err("refused");
    assert!(error.to_string().contains("expected at most 4194304"), "{error}");
    assert!(matches!(load_from(&request(&["-", "-"]), &mut &b""[..]), Err(LoadError::InputTwice)));
    assert!(matches!(load_from(&request(&[]), &mut &b""[..]), Err(LoadError::Nothing)));
}

#[test]
fn the_dialect_is_what_the_files_are_written_in() {
    for (text, dialect, reason) in [
        (
            "services: {web: {image: x}}\n",
            Dialect::Stack,
            "nothing in the files decides, and docker stack deploy is the default",
        ),
        ("services: {web: {image: x, deploy: {placement: {}}}}\n", Dialect::Stack, "`deploy.placement` (weight 4)"),
        ("services: {web: {build: .}}\n", Dialect::Compose, "`build` without `image`, `build` (weight 6)"),
        ("name: a\nservices: {web: {image: x}}\n", Dialect::Compose, "`name` at the top (weight 10)"),
        (
            "services: {web: {image: x, container_name: y, deploy: {placement: {}, update_config: {}}}}\n",
            Dialect::Stack,
            "`deploy.placement`, `deploy.update_config` (weight 7), against `container_name` (weight 2)",
        ),
        (
            "services: {web: {image: x, profiles: [a], deploy: {update_config: {}}}}\n",
            Dialect::Compose,
            "`profiles` (weight 10), against `deploy.update_config` (weight 3)",
        ),
        (
            "services: {web: {image: x, hostname: 'a-{{.Task.Slot}}'}}\n",
            Dialect::Stack,
            "a template such as `{{.Task.Slot}}` (weight 6)",
        ),
        ("services:\n  web: {image: x, ports: !reset []}\n", Dialect::Compose, "`!reset` or `!override` (weight 10)"),
        (
            "services: {web: {image: x, mem_limit: 1g}}\n",
            Dialect::Compose,
            "a key of services that only docker compose has (weight 10)",
        ),
    ] {
        let folder = folder(&[("a.yml", text)]);
        let found = load(&request(folder.path(), &["a.yml"], None)).expect("loaded");
        assert_eq!((found.dialect, found.dialect_reason.as_str()), (dialect, reason), "{text}");
    }
    let found = loaded(&[("a.yml", "name: n\nservices: {}\n")], &["a.yml"], Dialect::Compose).expect("loaded");
    assert_eq!((found.dialect_reason.as_str(), found.name.as_deref()), ("--dialect", Some("n")));
}
