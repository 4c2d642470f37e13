//! The script, run with a program `docker` of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::source;
use crate::migrate::live::{SCRIPT, read};

/// Runs the script with a program `docker` of its own.
fn collect(docker: Option<&str>, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a folder");
    let script = directory.path().join("collect.sh");
    fs::write(&script, SCRIPT).expect("written");
    for program in ["sort", "date", "grep"] {
        let found = ["/usr/bin", "/bin"].map(|folder| PathBuf::from(folder).join(program));
        let real = found.iter().find(|path| path.exists()).expect("installed");
        std::os::unix::fs::symlink(real, directory.path().join(program)).expect("linked");
    }
    if let Some(docker) = docker {
        let path = directory.path().join("docker");
        fs::write(&path, docker).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
    }
    let shell = ["/bin/dash", "/bin/sh"].into_iter().find(|shell| PathBuf::from(shell).exists()).expect("a shell");
    Command::new(shell)
        .arg(&script)
        .args(arguments)
        .env_clear()
        .env("PATH", directory.path())
        .output()
        .expect("started")
}

/// Answers as Docker does, and refuses everything that does not only read.
const DOCKER: &str = r#"#!/bin/sh
case "$*" in
    'info --format {{.Swarm.ControlAvailable}}') echo true ;;
    'version --format {{.Server.APIVersion}}') echo 1.51 ;;
    'service ls --quiet') echo s1 ;;
    'service ls --quiet --filter label=com.docker.stack.namespace=a') echo s1 ;;
    'service ls --quiet --filter '*) ;;
    'network ls --quiet --no-trunc --filter scope=swarm'*) echo n1 ;;
    'volume ls --quiet') printf 'a_v\nshared\nelse\n' ;;
    'volume ls --quiet --filter '*) echo a_v ;;
    'config ls --quiet'* | 'secret ls --quiet'*) ;;
    'node ls --quiet') echo h1 ;;
    'service inspect --format '*Mounts*) printf 'a_v\nshared\n\n' ;;
    'service inspect --format '*Networks*) printf 'n1\nhost1\n\n' ;;
    'service inspect --format '*ConfigID*) printf 'c1\n\n' ;;
    'service inspect --format '*SecretID*) printf '\n' ;;
    'service inspect s1') echo '[{"ID": "s1", "Spec": {"Name": "a_x", "Labels": {"com.docker.stack.namespace": "a"}, "TaskTemplate": {"ContainerSpec": {}}}}]' ;;
    'network inspect host1 n1') echo '[{"Name": "host", "Id": "host1", "IPAM": {}}, {"Name": "a_n", "Id": "n1", "IPAM": {}}]' ;;
    'volume inspect a_v shared') echo '[{"Name": "a_v", "Mountpoint": "/v"}, {"Name": "shared", "Mountpoint": "/s"}]' ;;
    'volume inspect a_v else shared') echo '[{"Name": "shared", "Mountpoint": "/s"}]' ;;
    'config inspect c1') echo '[{"ID": "c1", "Spec": {"Name": "a_c", "Data": "YQ=="}}]' ;;
    'node inspect h1') echo '[{"ID": "h1", "Spec": {"Role": "manager"}, "Description": {"Hostname": "alpha"}}]' ;;
    *) echo "unexpected: docker $*" >&2; exit 9 ;;
esac
"#;

#[test]
fn the_script_prints_one_document_that_is_read() {
    for arguments in [&["a"][..], &[]] {
        let output = collect(Some(DOCKER), arguments);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(0), "{errors}");
        assert_eq!(
            errors,
            "collect.sh: volumes: only those of this node are described; those of other nodes are known from the mounts \
             of the services\n"
        );
        let text = String::from_utf8(output.stdout).expect("text");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((json["cairn_swarm"].as_i64(), json["api_version"].as_str()), (Some(1), Some("1.51")));
        let length = |list: &str| json[list].as_array().map(Vec::len);
        let configs = usize::from(!arguments.is_empty());
        let lengths = ["services", "networks", "configs", "secrets", "nodes"].map(length);
        assert_eq!(lengths, [1, 2, configs, 0, 1].map(Some), "{arguments:?}");
        let live = read(&[source("swarm.json", &text)], None).expect("a stack");
        assert_eq!((live.stack.name.as_str(), live.nodes.len()), ("a", 1));
    }
}

#[test]
fn the_script_says_what_to_do() {
    let worker = DOCKER.replace("echo true", "echo false");
    let no_daemon = DOCKER.replace("echo true", "exit 1");
    let removed = DOCKER.replace("'config inspect c1') echo", "'config inspect c1') exit 1; echo");
    for (docker, arguments, code, expected) in [
        (None, &[][..], 3, "docker is not in PATH"),
        (Some(worker.as_str()), &[], 3, "this node is not a manager of a swarm"),
        (Some(no_daemon.as_str()), &[], 3, "docker info failed"),
        (Some(DOCKER), &["b"], 2, "there is no service of a stack 'b'"),
        (Some(DOCKER), &["a b"], 2, "'a b' is not the name of a stack"),
        (Some(DOCKER), &["a", "b"], 2, "expected at most one stack"),
        (Some(removed.as_str()), &["a"], 1, "docker config inspect failed, see above"),
    ] {
        let output = collect(docker, arguments);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}
