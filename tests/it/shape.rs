//! The systemd units, which are not rendered, and the manifests say of a node what `deploy::shape` says; `image.rs` holds the image to it.

use std::fs;
use std::path::Path;

use cairn::deploy::shape::{
    self, ADMIN_PORT, CONFIG_DIR, DATA_DIR, DOCUMENTS_DIR, MCP_PORT, SNAPSHOTS_DIR, USER, USER_NAME,
};
use serde::Deserialize as _;
use serde_json::{Value, json};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn units_say_what_the_shape_says() {
    for (file, lines) in [
        ("systemd/cairn.service", vec![format!("Environment=CAIRN_DATA_DIR={DATA_DIR}"), format!("User={USER_NAME}")]),
        ("systemd/cairn-documents.service", vec![format!("ConditionPathExists={DOCUMENTS_DIR}")]),
        (
            "systemd/cairn.tmpfiles",
            vec![
                format!("d {DATA_DIR} 0700 {USER_NAME} {USER_NAME}"),
                format!("d {SNAPSHOTS_DIR} 0700 {USER_NAME} {USER_NAME}"),
            ],
        ),
    ] {
        let text = text(file);
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{file} has no line {line:?}");
        }
    }
    assert!(text("systemd/cairn.service").contains(&format!("{CONFIG_DIR}/cairn.toml")));
}

#[test]
fn manifests_say_what_the_shape_says() {
    let manifests = text("k3s/cairn.yaml");
    let mut objects = serde_yaml::Deserializer::from_str(&manifests).map(|one| Value::deserialize(one).expect("YAML"));
    let set = objects.find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for (found, expected) in [
        (&pod["securityContext"]["runAsUser"], json!(USER)),
        (&pod["securityContext"]["fsGroup"], json!(USER)),
        (&container["ports"][0]["containerPort"], json!(MCP_PORT)),
        (&container["ports"][1]["containerPort"], json!(ADMIN_PORT)),
        (&container["volumeMounts"][0]["mountPath"], json!(DATA_DIR)),
        (&container["volumeMounts"][1]["mountPath"], json!(CONFIG_DIR)),
    ] {
        assert_eq!(*found, expected, "{pod:#}");
    }
    for (name, probe) in
        [("startupProbe", shape::STARTED), ("livenessProbe", shape::ALIVE), ("readinessProbe", shape::READY)]
    {
        let found = &container[name];
        assert_eq!(found["httpGet"]["path"], probe.path, "{name}");
        assert_eq!(found["periodSeconds"], probe.period.as_secs(), "{name}");
        assert_eq!(found["timeoutSeconds"], probe.timeout.as_secs(), "{name}");
        assert_eq!(found["failureThreshold"], probe.failures, "{name}");
    }
}
