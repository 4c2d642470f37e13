//! What an image says of itself: the JSON of its configuration.
//!
//! Invariant: a message about it names places, never its text, because variables in it may be secrets.
//!
//! Source: the OCI Image Format Specification 1.1, `config.md`; for the health check and the shell, which are Docker's own, the Docker Image
//! Specification 1.2 and moby's `api/types/container/config.go`. Durations are in nanoseconds, and 0 is what was not written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::stack::Protocol;
use super::ImageHealthCheck;
use super::members::printable;

/// The configuration, in the types of the converter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Config {
    pub(super) architecture: String,
    pub(super) os: String,
    pub(super) variant: Option<String>,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) shell: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) user: Option<String>,
    pub(super) working_dir: Option<String>,
    pub(super) exposed: Vec<(u16, Protocol)>,
    pub(super) volumes: Vec<String>,
    pub(super) stop_signal: Option<String>,
    pub(super) health_check: Option<ImageHealthCheck>,
    pub(super) labels: Vec<(String, String)>,
    /// Digests of the layers before they are packed, from the lowest.
    pub(super) layers: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
    config: Option<Run>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

/// Go writes `null` for a list or a map that is not there.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Option<Nothing>>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    shell: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, Option<Nothing>>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Check>,
}

#[derive(Deserialize)]
struct Nothing {}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// The place of an error in JSON, without the text there.
pub(super) fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Syntax | Category::Io => "not JSON",
        Category::Eof => "cut short",
        Category::Data => "a value of another type, or one that is missing",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

impl Config {
    /// Reads it. The error says what is wrong.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(json).map_err(|error| place(&error))?;
        let run = document.config.unwrap_or_default();
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let variable = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        let mut exposed = BTreeSet::new();
        for port in run.exposed_ports.unwrap_or_default().into_keys() {
            let valid = exposed_port(&port);
            exposed.insert(valid.ok_or_else(|| format!("the exposed port '{}'", printable(port.as_bytes())))?);
        }
        Ok(Self {
            architecture: document.architecture,
            os: document.os,
            variant: text(document.variant),
            entrypoint: run.entrypoint.unwrap_or_default(),
            command: run.cmd.unwrap_or_default(),
            shell: run.shell.unwrap_or_default(),
            environment: run.env.unwrap_or_default().into_iter().map(variable).collect(),
            user: text(run.user),
            working_dir: text(run.working_dir),
            exposed: exposed.into_iter().collect(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: text(run.stop_signal),
            health_check: run.healthcheck.map(health_check).transpose()?.flatten(),
            labels: run.labels.unwrap_or_default().into_iter().collect(),
            layers: document.rootfs.and_then(|layers| layers.diff_ids).unwrap_or_default(),
        })
    }
}

/// `80` or `80/udp`. Without a protocol it is TCP.
fn exposed_port(text: &str) -> Option<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    number.parse().ok().filter(|number| is_number && *number > 0).map(|number| (number, protocol))
}

fn health_check(check: Check) -> Result<Option<ImageHealthCheck>, String> {
    let test = check.test.unwrap_or_default();
    // An empty one is that of the image below, which had none.
    if test.first().is_none_or(|kind| kind == "NONE") {
        return Ok(None);
    }
    let duration = |name: &str, nanoseconds: i64| match u64::try_from(nanoseconds) {
        Ok(0) => Ok(None),
        Ok(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
        Err(_) => Err(format!("the health check's {name} is {nanoseconds}, expected 0 or more nanoseconds")),
    };
    let retries = u64::try_from(check.retries)
        .map_err(|_| format!("the health check's Retries is {}, expected 0 or more", check.retries))?;
    Ok(Some(ImageHealthCheck {
        test,
        interval: duration("Interval", check.interval)?,
        timeout: duration("Timeout", check.timeout)?,
        start_period: duration("StartPeriod", check.start_period)?,
        start_interval: duration("StartInterval", check.start_interval)?,
        retries: (retries > 0).then_some(retries),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration that `docker build` writes of each instruction of a Dockerfile, after the Docker Image Specification 1.2.
    const WHOLE: &str = r#"{"architecture": "arm64", "variant": "v8", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": {
        "User": "postgres:staff", "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "9": {}, "7000/sctp": {}},
        "Env": ["PATH=/bin:/usr/bin", "A=b=c", "EMPTY="], "Entrypoint": ["/entry", "-x"], "Cmd": ["serve"], "Volumes": {"/data": {}, "/a b": {}},
        "WorkingDir": "/srv", "Labels": {"b": "2", "a": "1"}, "StopSignal": "SIGQUIT", "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 30000000000, "Timeout": 1500000000, "StartPeriod": 60000000000,
            "StartInterval": 5000000000, "Retries": 4}, "OnBuild": null},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:aa"]}, "history": []}"#;

    #[test]
    fn each_instruction_of_a_dockerfile_is_read() {
        let config = Config::parse(WHOLE.as_bytes()).expect("valid");
        let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        let expected = Config {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            variant: Some("v8".to_owned()),
            entrypoint: text(&["/entry", "-x"]),
            command: text(&["serve"]),
            shell: text(&["/bin/bash", "-c"]),
            environment: pairs(&[("PATH", "/bin:/usr/bin"), ("A", "b=c"), ("EMPTY", "")]),
            user: Some("postgres:staff".to_owned()),
            working_dir: Some("/srv".to_owned()),
            exposed: vec![(9, Protocol::Tcp), (53, Protocol::Udp), (7000, Protocol::Sctp), (8080, Protocol::Tcp)],
            volumes: text(&["/a b", "/data"]),
            stop_signal: Some("SIGQUIT".to_owned()),
            health_check: Some(ImageHealthCheck {
                test: text(&["CMD-SHELL", "curl -f localhost"]),
                interval: Some(Duration::from_secs(30)),
                timeout: Some(Duration::from_millis(1500)),
                start_period: Some(Duration::from_secs(60)),
                start_interval: Some(Duration::from_secs(5)),
                retries: Some(4),
            }),
            labels: pairs(&[("a", "1"), ("b", "2")]),
            layers: text(&["sha256:aa"]),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_not_written_is_nothing() {
        let nothing = Config::default();
        for json in [
            "{}",
            r#"{"config": null, "rootfs": null}"#,
            r#"{"config": {"Env": null, "Cmd": null, "ExposedPorts": null, "Volumes": null, "Labels": null, "User": "", "WorkingDir": "",
                "Healthcheck": null}}"#,
            r#"{"config": {"Healthcheck": {"Test": ["NONE"]}}}"#,
            r#"{"config": {"Healthcheck": {"Interval": 5}}}"#,
        ] {
            assert_eq!(Config::parse(json.as_bytes()).expect(json), nothing, "{json}");
        }
        let check =
            Config::parse(br#"{"config": {"Healthcheck": {"Test": ["CMD", "x"], "Retries": 0}}}"#).expect("valid");
        let check = check.health_check.expect("one");
        assert_eq!((check.interval, check.retries), (None, None), "0 is Docker's default");
    }

    #[test]
    fn an_invalid_configuration_is_named_without_its_text() {
        for (json, expected) in [
            (r#"{"config": {"Env": "PASSWORD=hunter2"}}"#, "a value of another type"),
            (r#"{"config": {"Env": ["PASSWORD=hunter2", 3]}}"#, "line 1, column 41"),
            (r#"{"config": {"Env": ["PASSWORD=hunter2"#, "cut short"),
            ("hunter2", "not JSON"),
            (r#"{"config": {"ExposedPorts": {"http": {}}}}"#, "the exposed port 'http'"),
            (r#"{"config": {"ExposedPorts": {"8-9/tcp": {}}}}"#, "'8-9/tcp'"),
            (r#"{"config": {"ExposedPorts": {"0/tcp": {}}}}"#, "'0/tcp'"),
            (r#"{"config": {"ExposedPorts": {"65536/tcp": {}}}}"#, "'65536/tcp'"),
            (r#"{"config": {"ExposedPorts": {"1/\u0007": {}}}}"#, r"'1/\u{7}'"),
            (r#"{"config": {"Healthcheck": {"Test": ["CMD", "x"], "Timeout": -1}}}"#, "Timeout is -1"),
            (r#"{"config": {"Healthcheck": {"Test": ["CMD", "x"], "Retries": -1}}}"#, "Retries is -1"),
        ] {
            let error = Config::parse(json.as_bytes()).expect_err(json);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{json}: {error}");
        }
    }
}
