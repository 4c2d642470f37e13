//! Settings of a node, and lists of tables through the same machinery.

use std::time::Duration;

use super::*;

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("cairn.toml");
    std::fs::write(&path, file).expect("write");
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(Some(&path), environment, &Overrides::default())
}

#[test]
fn the_defaults_are_valid() {
    let config = Config::load(None, [], &Overrides::default()).expect("valid");
    assert_eq!(config.server.listen, "127.0.0.1:7171".parse().expect("address"));
    assert_eq!(config.admin_listen, "127.0.0.1:9464".parse().expect("address"));
    assert_eq!(config.server.drain_timeout, Duration::from_secs(20));
}

#[test]
fn later_layers_win() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nin_flight_max = 5\n[node]\ndata_dir = \"/from/file\"";
    let config =
        load(file, &[("CAIRN_SERVER_LISTEN", "127.0.0.1:2"), ("CAIRN_SERVER_ALLOWED_HOSTS", "a, b")]).expect("valid");
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.in_flight_max, 5);
    let hosts: Vec<String> = config.server.allowed_hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a", "b"]);
    assert_eq!(config.data_dir, PathBuf::from("/from/file"));
    let overrides = Overrides { listen: Some("127.0.0.1:3".parse().expect("address")), ..Overrides::default() };
    let environment = [("CAIRN_SERVER_LISTEN".to_owned(), "127.0.0.1:2".to_owned())];
    assert_eq!(Config::load(None, environment, &overrides).expect("valid").server.listen.port(), 3);
}

#[test]
fn what_flags_set_is_in_the_settings_that_are_kept() {
    let address = |text: &str| Some(text.parse().expect("an address"));
    let overrides = Overrides {
        data_dir: Some("/elsewhere".into()),
        listen: address("10.0.0.1:7171"),
        admin: address("10.0.0.1:9464"),
        allow_unauthenticated: true,
        set: vec![("search.limit".to_owned(), "9".to_owned())],
    };
    let config = Config::load(None, [], &overrides).expect("valid");
    let kept = Config::read(&config.effective, "kept").expect("valid");
    assert_eq!(kept, Config { effective: kept.effective.clone(), ..config });
}

#[test]
fn a_file_behind_a_dash_need_not_exist_but_is_read_when_it_does() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("cairn.toml");
    let optional = PathBuf::from(format!("-{}", path.display()));
    let load = |file: &Path| Config::load(Some(file), [], &Overrides::default());
    assert!(load(&path).is_err(), "one that is named must exist");
    assert_eq!(load(&optional).expect("valid").server.in_flight_max, 512);
    std::fs::write(&path, "[server]\nin_flight_max = 5").expect("written");
    assert_eq!(load(&optional).expect("valid").server.in_flight_max, 5);
    std::fs::write(&path, "[server]\nin_flight_max = 0").expect("written");
    let error = load(&optional).expect_err("invalid");
    assert_eq!(error.problems[0].origin, format!("{}:2", path.display()), "without the dash");
}

#[test]
fn every_problem_is_named_at_once() {
    let file =
        "[server]\nlisten = \"here\"\nlissen = 1\n[search]\nlimit = 1000\n[store]\nsegment_bytes = \"1 elephant\"";
    let error = load(file, &[("CAIRN_LOG_FORMAT", "xml")]).expect_err("invalid");
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["server.lissen", "server.listen", "store.segment_bytes", "search.limit", "log.format"]);
    assert!(error.problems[4].origin.contains("CAIRN_LOG_FORMAT"));
}

#[test]
fn a_level_that_does_not_exist_is_refused_wherever_it_comes_from() {
    for level in ["loud", "verbose,info", "cairn::store"] {
        let by_file = load(&format!("[log]\nlevel = \"{level}\""), &[]).expect_err("invalid");
        let by_variable = load("", &[("CAIRN_LOG_LEVEL", level)]).expect_err("invalid");
        for (error, origin) in [(by_file, "cairn.toml"), (by_variable, "CAIRN_LOG_LEVEL")] {
            let [problem] = &error.problems[..] else { panic!("{error}") };
            assert!(problem.key == "log.level" && problem.origin.contains(origin), "{error}");
            assert!(problem.message.contains("expected error, warn, info"), "{error}");
        }
    }
    assert_eq!(load("[log]\nlevel = \"Warning\"", &[]).expect("valid").log.filter, "warn");
}

#[test]
fn a_certificate_needs_its_key_and_names_are_names() {
    let file =
        "[server]\ntls = \"yes\"\ntls_key_file = \"/key\"\ntls_names = [\"ok.example\", \"*.example\", \"10.0.0.1\"]";
    let error = load(file, &[]).expect_err("invalid");
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["server.tls", "server.tls_names"]);
    let config = load("", &[("CAIRN_SERVER_TLS_NAMES", "Site-Box, 10.0.0.1")]).expect("valid");
    let names: Vec<String> = config.server.tls_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["site-box", "10.0.0.1"]);
}

#[test]
fn a_certificate_and_its_key_go_together() {
    let error = load("[server]\ntls_key_file = \"/key\"", &[]).expect_err("invalid");
    assert_eq!(error.problems[0].key, "server.tls_certificate_file");
    let error = load("", &[("CAIRN_SERVER_TLS_CERTIFICATE_FILE", "/certificate")]).expect_err("invalid");
    assert_eq!((&*error.problems[0].key, &*error.problems[0].origin), ("server.tls_key_file", "default"));
}

#[test]
fn a_problem_has_the_line_of_its_key_and_says_what_was_found() {
    let file = "[search]\n# Few.\nlimit = 1000\n\n[server]\nallow_unauthenticated = \"yes\"\nallowed_hosts = [\n  \"ok.example\",\n  \
                \"*.a.example\",\n  \"https://b.example\",\n]\nin_flight = 3\n";
    let error = load(file, &[]).expect_err("invalid");
    let shown: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    let line = |number: usize| format!("cairn.toml:{number})");
    for (text, number, words) in [
        (&shown[0], 12, "there is no such key; did you mean 'in_flight_max'?"),
        (&shown[1], 6, "found \"yes\", expected true or false"),
        (&shown[2], 9, "found '*.a.example', expected names"),
        (&shown[3], 10, "found 'https://b.example', expected a name alone"),
        (&shown[4], 3, "found 1000, expected a whole number from 1 to 50"),
    ] {
        assert!(text.contains(&line(number)) && text.contains(words), "{text}");
    }
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert!(shown[2].starts_with("server.allowed_hosts ("), "{}", shown[2]);
}

#[test]
fn a_file_that_is_not_toml_is_reported_line_by_line() {
    let error = load("[server]\nlisten = 127.0.0.1:1\n[search]\nlimit = \ncandidates = 5\n[search]\n", &[])
        .expect_err("invalid");
    let lines: Vec<&str> = error.problems.iter().map(|problem| problem.origin.as_str()).collect();
    let ends: Vec<&str> = lines.iter().map(|origin| &origin[origin.len().saturating_sub(12)..]).collect();
    assert_eq!(ends, ["cairn.toml:2", "cairn.toml:4", "cairn.toml:6"], "{error}");
    assert!(error.problems.iter().all(|problem| problem.key == "syntax"), "{error}");
}

#[test]
fn a_file_that_is_not_there_says_how_to_get_one() {
    let missing = tempfile::tempdir().expect("temporary directory").path().join("nope.toml");
    let error = Config::load(Some(&missing), [], &Overrides::default()).expect_err("missing").to_string();
    for words in ["nope.toml (configuration file): there is no such file", "--print-config"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_requests_need_is_checked_where_the_node_runs() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("text.pem"), "text").expect("written");
    for (name, words) in [("nope.pem", "No such file"), ("text.pem", "there is no certificate in it")] {
        let file = format!("[fetch]\nca_file = \"{}\"\n", at(name));
        let error = load(&file, &[]).expect_err(name);
        let [problem] = &error.problems[..] else { panic!("{error}") };
        assert!(problem.key == "fetch.ca_file" && problem.origin.ends_with(":2"), "{error}");
        assert!(problem.message.contains(words), "{error}");
        assert!(Config::read(&file, "elsewhere").is_ok(), "it is read on another machine");
    }
    let error = load("[fetch]\nno_proxy = \"a.example\"\n", &[]).expect_err("it would do nothing").to_string();
    assert!(error.contains("fetch.no_proxy") && error.contains("NO_PROXY"), "{error}");
    assert!(load("[fetch]\nproxy = \"http://p:1\"\nno_proxy = \"a.example\"\n", &[]).is_ok());
}

#[test]
fn sections_and_lists_are_what_they_are() {
    for (file, key, words) in [
        ("server = 5", "server", "found 5, expected a table"),
        ("[sever]\nlisten = \"a\"", "sever.listen", "did you mean 'server'?"),
        ("[[search]]\nlimit = 1", "search", "expected a table"),
        ("[search]\nlimit = [1]", "search.limit", "found [1], expected a whole number"),
        ("[search.limit]\na = 1", "search.limit", "found a table, expected a whole number"),
        ("listen = 1", "listen", "there is no such key"),
        ("[store]\nmax_bytes = 99999999999999999999", "max_bytes", "the number is too large"),
    ] {
        let error = load(file, &[]).expect_err(file);
        let [problem] = &error.problems[..] else { panic!("{file}: {error}") };
        assert!(problem.key == key && problem.message.contains(words), "{file}: {error}");
    }
}

#[test]
fn options_set_every_key_and_win() {
    let set = |pairs: &[(&str, &str)]| Overrides {
        set: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Overrides::default()
    };
    let environment = || [("CAIRN_SEARCH_LIMIT".to_owned(), "3".to_owned())];
    let overrides = set(&[("search.limit", "4"), ("search.limit", "5"), ("server.allowed_hosts", "[\"a\", \"b\"]")]);
    let config = Config::load(None, environment(), &overrides).expect("valid");
    assert_eq!((config.search.limit, config.server.allowed_hosts.len()), (5, 2));
    assert_eq!(Config::read(&config.effective, "kept").expect("valid").search.limit, 5);
    let error = Config::load(None, [], &set(&[("search.limmit", "4"), ("search", "1")])).expect_err("invalid");
    assert!(error.problems.iter().all(|problem| problem.origin == "--set"), "{error}");
}

#[test]
fn unknown_variables_are_refused_but_those_of_kubernetes() {
    let injected = [("CAIRN_SERVER_SERVICE_HOST", "10.0.0.1"), ("CAIRN_SERVER_PORT_7171_TCP", "tcp://10.0.0.1:7171")];
    load("", &injected).expect("valid");
    let error = load("", &[("CAIRN_SERVER_LISSEN", "1")]).expect_err("invalid");
    let [problem] = &error.problems[..] else { panic!("{error}") };
    assert!(problem.message.contains("did you mean 'CAIRN_SERVER_LISTEN'?"), "{error}");
}

/// What a list of tables would be among the settings of a part.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Model {
    name: String,
    #[serde(deserialize_with = "setting::count::<_, 64, 4_096>")]
    dimensions: usize,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Gate {
    limits: Vec<Limit>,
    #[serde(deserialize_with = "setting::text")]
    mode: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Limit {
    group: String,
    #[serde(deserialize_with = "setting::size::<_, 1>")]
    rate: ByteSize,
}

#[derive(Debug, Clone, PartialEq)]
struct Lists {
    models: Vec<Model>,
    gate: Gate,
}

/// Reads lists through the machinery of the node's settings.
///
/// * `set`: options `--set KEY=VALUE`.
fn lists(file: &str, environment: &[(&str, &str)], set: &[(&str, &str)]) -> Result<(Lists, String), ConfigError> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let overrides = Overrides { set: own(set), ..Overrides::default() };
    let compose = |reader: &mut Reader<'_>| Lists { models: reader.list("models"), gate: reader.section("gate") };
    let file = Some(("lists.toml".to_owned(), Ok(file.to_owned())));
    let defaults = "[gate]\nlimits = []\nmode = \"open\"";
    let (lists, table) = read_layers(defaults, file, own(environment), &overrides, compose, |_, _| {})?;
    Ok((lists, table.to_string()))
}

fn model(name: &str, dimensions: usize) -> Model {
    Model { name: name.to_owned(), dimensions, key_file: None, labels: Vec::new() }
}

const MODELS: &str =
    "[[models]]\nname = \"small\"\ndimensions = 256\n[[models]]\nname = \"large\"\ndimensions = 1024\n";

#[test]
fn a_list_of_tables_comes_from_every_layer() {
    let both = [model("small", 256), model("large", 1_024)];
    assert_eq!(lists("", &[], &[]).expect("valid").0.models, []);
    assert_eq!(lists(MODELS, &[], &[]).expect("valid").0.models, both);
    let inline = "[{name = \"small\", dimensions = 256}, {name = \"large\", dimensions = 1024}]";
    assert_eq!(lists("", &[("CAIRN_MODELS", inline)], &[]).expect("valid").0.models, both);
    assert_eq!(lists("", &[], &[("models", inline)]).expect("valid").0.models, both);
    let one_by_one = [
        ("CAIRN_MODELS_1_DIMENSIONS", "1024"),
        ("CAIRN_MODELS_1_NAME", "large"),
        ("CAIRN_MODELS_0_NAME", "small"),
        ("CAIRN_MODELS_0_DIMENSIONS", "256"),
    ];
    assert_eq!(lists("", &one_by_one, &[]).expect("valid").0.models, both);
    let options = [("models.0.name", "small"), ("models.0.dimensions", "256")];
    assert_eq!(lists("", &[], &options).expect("valid").0.models, both[..1]);
}

#[test]
fn a_later_layer_replaces_a_list_or_changes_one_record() {
    let file_and_variable = lists(MODELS, &[("CAIRN_MODELS_1_KEY_FILE", "/key")], &[("models.0.labels", "[\"a\"]")]);
    let (found, effective) = file_and_variable.expect("valid");
    assert_eq!(found.models[0], Model { labels: vec!["a".to_owned()], ..model("small", 256) });
    assert_eq!(found.models[1], Model { key_file: Some("/key".into()), ..model("large", 1_024) });
    assert_eq!(lists(&effective, &[], &[]).expect("valid"), (found, effective), "what is printed can be fed back");
    let replaced = lists(MODELS, &[("CAIRN_MODELS", "[{name = \"other\", dimensions = 64}]")], &[]).expect("valid");
    assert_eq!(replaced.0.models, [model("other", 64)]);
    assert_eq!(lists(MODELS, &[("CAIRN_MODELS", "[]")], &[]).expect("valid").0.models, []);
    let appended = [("CAIRN_MODELS_2_NAME", "third"), ("CAIRN_MODELS_2_DIMENSIONS", "64")];
    assert_eq!(lists(MODELS, &appended, &[]).expect("valid").0.models.len(), 3);
}

#[test]
fn a_list_within_a_section_is_one_too() {
    let limit = |group: &str, rate: u64| Limit { group: group.to_owned(), rate: ByteSize(rate) };
    let file = "[gate]\nmode = \"closed\"\n[[gate.limits]]\ngroup = \"a\"\nrate = \"1KiB\"\n";
    let variables = [("CAIRN_GATE_LIMITS_1_GROUP", "b"), ("CAIRN_GATE_LIMITS_1_RATE", "2")];
    let (found, effective) = lists(file, &variables, &[("gate.limits.0.rate", "3")]).expect("valid");
    assert_eq!(found.gate.limits, [limit("a", 3), limit("b", 2)]);
    assert_eq!(lists(&effective, &[], &[]).expect("valid").0, found);
}

#[test]
fn every_problem_of_a_list_is_named_at_once() {
    let file = "[[models]]\nname = \"small\"\ndimension = 256\n\n[[models]]\nname = 5\ndimensions = 1\n\n[[models]]\n\
                dimensions = 64\nlabels = [1, \"b\"]\nkey_file = \"/k\"\n[gate]\nlimits = [{group = \"a\", rate = \"fast\"}]\n";
    let error = lists(file, &[], &[]).expect_err("invalid");
    let shown: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "models.0.dimension (lists.toml:3): there is no such key; did you mean 'dimensions'?",
            "models.0.dimensions (lists.toml:1): is missing",
            "models.1.name (lists.toml:6): found 5, expected a text",
            "models.1.dimensions (lists.toml:7): found 1, expected a whole number from 64 to 4096",
            "models.2.labels (lists.toml:11): found 1, expected a text",
            "models.2.name (lists.toml:9): is missing",
            "gate.limits.0.rate (lists.toml:14): found \"fast\", expected a size of at least 1 B",
        ]
    );
}

#[test]
fn what_is_no_record_of_a_list_is_a_problem() {
    for (variable, value, words) in [
        ("CAIRN_MODELS", "small", "found \"small\", expected a table"),
        ("CAIRN_MODELS", "[{name = }]", "expected a value as TOML writes it"),
        ("CAIRN_MODELS_3_NAME", "x", "the list has 0 items, so the next one is number 0, not 3"),
        ("CAIRN_MODELS_0_NAMES", "x", "did you mean 'name'?"),
        ("CAIRN_MODELS_X", "x", "there is no such setting"),
        ("CAIRN_GATE_MODE_0_NAME", "x", "there is no such setting"),
    ] {
        let error = lists("", &[(variable, value)], &[]).expect_err(variable);
        assert!(error.problems.iter().any(|problem| problem.message.contains(words)), "{variable}={value}: {error}");
    }
    let error = lists("[models]\nname = \"a\"", &[], &[]).expect_err("a table");
    assert!(error.problems[0].message.contains("found a table, expected a list"), "{error}");
}
