//! A converted stack on a real API server: in phases, undone where one fails, rolled back; and everything that is refused before.
//!
//! There are no controllers and no kubelets, so the test is both: it makes a pod for each workload, and says how it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kube_apiserver::ApiServer;
use crate::node::{CAIRN, assert_says, stderr, stdout};

/// The address of every pod. The API server forwards to none that is loopback.
const POD_IP: &str = "10.42.0.7";
const MCP_PORT: u16 = 7171;

/// A folder as a conversion writes it.
struct Folder {
    dir: tempfile::TempDir,
    files: BTreeMap<String, Vec<Value>>,
}

fn labels(name: &str) -> Value {
    json!({"app.kubernetes.io/instance": name, "app.kubernetes.io/part-of": "shop"})
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "shop", "labels": labels(name)})
}

fn service(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name), "spec": {"selector": labels(name), "ports": [{"port": port}]}})
}

fn workload(kind: &str, name: &str, env: Value) -> Value {
    let container = json!({"name": name, "image": format!("acme/{name}:1"), "env": env});
    let template = json!({"metadata": {"labels": labels(name)}, "spec": {"containers": [container]}});
    let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let spec = match kind {
        "Job" => json!({"template": template}),
        _ => json!({"replicas": 1, "selector": {"matchLabels": labels(name)}, "template": template}),
    };
    let mut object = json!({"apiVersion": group, "kind": kind, "metadata": metadata(name), "spec": spec});
    match kind {
        "Job" => object["spec"]["template"]["spec"]["restartPolicy"] = "Never".into(),
        "StatefulSet" => object["spec"]["serviceName"] = name.into(),
        _ => {}
    }
    object
}

impl Folder {
    /// A database, a job that prepares it, an MCP server that uses it, and a site that uses that.
    fn shop() -> Self {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata("data"),
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}},
        });
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("pw"), "stringData": {"pw": "hunter2"}});
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("conf"), "data": {"mode": "one"}});
        let password = json!({"name": "PW", "valueFrom": {"secretKeyRef": {"name": "pw", "key": "pw"}}});
        let mut search =
            workload("Deployment", "search", json!([{"name": "DB", "value": "postgres://db:5432/x"}, password]));
        search["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "mcp-server".into();
        let site = workload("Deployment", "site", json!([{"name": "SEARCH", "value": "http://search:7171/mcp"}]));
        let job = workload("Job", "prepare", json!([{"name": "DB", "value": "db:5432"}]));
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "site"});
        let scaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata("site"),
            "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
        });
        let files = [
            ("services/scaler.yaml", vec![scaler]),
            ("namespace.yaml", vec![namespace]),
            ("volumes.yaml", vec![claim]),
            ("configs.yaml", vec![config]),
            ("secrets.yaml", vec![secret]),
            ("services/db.yaml", vec![service("db", 5432), workload("StatefulSet", "db", json!([]))]),
            ("services/prepare.yaml", vec![job]),
            ("services/search.yaml", vec![service("search", MCP_PORT), search]),
            ("services/site.yaml", vec![service("site", 80), site]),
        ];
        let files = files.into_iter().map(|(name, objects)| (name.to_owned(), objects)).collect();
        let this = Self { dir: tempfile::tempdir().expect("temporary directory"), files };
        this.write(&[]);
        this
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the files, with these entries of the report.
    fn write(&self, entries: &[Value]) {
        fs::create_dir_all(self.path().join("services")).expect("made");
        for (name, objects) in &self.files {
            let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
            fs::write(self.path().join(name), documents.join("\n---\n")).expect("written");
        }
        fs::write(self.path().join("kustomization.yaml"), "resources: []\n").expect("written");
        let files: Vec<&str> = self.files.keys().map(String::as_str).chain(["kustomization.yaml"]).collect();
        let report = json!({"stack": "shop", "namespace": "shop", "files": files, "entries": entries});
        fs::write(self.path().join("report.json"), report.to_string()).expect("written");
    }

    /// Changes something of the last object of a file.
    fn edit(&mut self, file: &str, pointer: &str, value: Value) {
        let object = self.files.get_mut(file).and_then(|objects| objects.last_mut()).expect("a file");
        *object.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        self.write(&[]);
    }
}

const IMAGE: &str = "/spec/template/spec/containers/0/image";

fn migrate(server: &ApiServer, folder: &Folder, verb: &str, more: &[&str]) -> Output {
    let mut command: Command = server.command(Path::new(CAIRN));
    command.args(["migrate", verb]).arg(folder.path()).args(more);
    command.output().expect("cairn runs")
}

/// What a verb prints as JSON, with its exit code.
fn answer(server: &ApiServer, folder: &Folder, verb: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = migrate(server, folder, verb, &[more, &["--json"]].concat());
    let text = stdout(&output);
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {}", stderr(&output)));
    (output.status.code(), value)
}

fn get(server: &ApiServer, what: &str) -> Option<Value> {
    let output = server.kubectl(&["-n", "shop", "get", what, "-o", "json"]);
    output.status.success().then(|| serde_json::from_str(&stdout(&output)).expect("JSON"))
}

/// Plays the controllers and the kubelet until the test ends: pods of an image with the tag `bad` do not get it.
fn play(server: &ApiServer, ends: &AtomicBool) {
    while !ends.load(Ordering::SeqCst) {
        let list = server.kubectl(&["-n", "shop", "get", "deployments,statefulsets,jobs", "-o", "json"]);
        let list: Value = serde_json::from_str(&stdout(&list)).unwrap_or_default();
        for object in list["items"].as_array().into_iter().flatten() {
            play_one(server, object);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn play_one(server: &ApiServer, object: &Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name, image) = (text("/kind"), text("/metadata/name"), text(IMAGE));
    let (generation, is_good) = (&object["metadata"]["generation"], !image.ends_with(":bad"));
    let is_seen = object["status"]["observedGeneration"] == *generation || object["status"]["succeeded"] == 1;
    if is_seen {
        return;
    }
    // Fails where it is there.
    server.kubectl(&["-n", "shop", "create", "serviceaccount", "default"]);
    let mut pod = object["spec"]["template"].clone();
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    pod["metadata"]["name"] = format!("{name}-{generation}").into();
    pod["metadata"]["namespace"] = "shop".into();
    pod["metadata"]["labels"]["job-name"] = name.as_str().into();
    pod["spec"]["automountServiceAccountToken"] = false.into();
    let of_name = format!("app.kubernetes.io/instance={name}");
    server.kubectl(&["-n", "shop", "delete", "pods", "-l", &of_name, "--force", "--wait=true"]);
    let file = server.path("pod.json");
    fs::write(&file, pod.to_string()).expect("written");
    let made = server.kubectl(&["create", "--validate=false", "-f", &file.to_string_lossy()]);
    assert!(made.status.success(), "{}", stderr(&made));
    let state = match is_good {
        true => json!({"running": {}}),
        false => {
            json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image {image}")}})
        }
    };
    let container =
        json!({"name": name, "image": image, "imageID": "", "ready": is_good, "restartCount": 0, "state": state});
    let ready = if is_good { "True" } else { "False" };
    let status = json!({
        "phase": if is_good { "Running" } else { "Pending" }, "podIP": POD_IP, "podIPs": [{"ip": POD_IP}],
        "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [container],
    });
    patch_status(server, &format!("pod/{name}-{generation}"), &status);
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let available = if is_good { wanted } else { 0 };
    let time = "2026-01-01T00:00:00Z";
    let status = match kind.as_str() {
        "Job" => json!({
            "succeeded": 1, "startTime": time, "completionTime": time,
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
        }),
        "StatefulSet" => json!({
            "observedGeneration": generation, "replicas": 1, "readyReplicas": available, "availableReplicas": available,
            "currentRevision": "a", "updateRevision": "a",
        }),
        _ => json!({
            "observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": available,
            "availableReplicas": available,
        }),
    };
    patch_status(server, &format!("{}/{name}", kind.to_lowercase()), &status);
}

fn patch_status(server: &ApiServer, what: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    let output = server.kubectl(&["-n", "shop", "patch", what, "--subresource=status", "--type=merge", "-p", &patch]);
    // An object that was deleted meanwhile has no status to patch.
    assert!(output.status.success() || stderr(&output).contains("not found"), "{what}: {}", stderr(&output));
}

/// An MCP server with two tools, whose answers are streams.
fn serve_mcp(listener: &TcpListener, answers: &AtomicBool) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let Some(body) = read_request(&mut stream) else { continue };
        if body == "END" {
            return;
        }
        let request: Value = serde_json::from_str(&body).unwrap_or_default();
        let result = match request["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "search", "version": "3"},
            }),
            Some("tools/list") if answers.load(Ordering::SeqCst) => json!({"tools": [{"name": "a"}, {"name": "b"}]}),
            Some("tools/list") => Value::Null,
            _ => json!({}),
        };
        let message = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        let text = format!("event: message\ndata: {message}\n\n");
        let (status, text) = if result.is_null() { ("500 broken", "no".to_owned()) } else { ("200 OK", text) };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// The body of a request.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(body.to_owned());
        }
    }
}

/// Runs a test with everything that a cluster has.
fn with_cluster(test: impl FnOnce(&ApiServer, &AtomicBool)) {
    let Some(server) = ApiServer::start() else { return };
    let added = Command::new("ip").args(["address", "add", &format!("{POD_IP}/32"), "dev", "lo"]).status();
    assert!(added.expect("ip runs").success());
    // As K3s has it.
    server.create(&[json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path"},
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
    })]);
    let listener = TcpListener::bind((POD_IP, MCP_PORT)).expect("free");
    let (ends, answers) = (AtomicBool::new(false), AtomicBool::new(true));
    thread::scope(|scope| {
        scope.spawn(|| play(&server, &ends));
        scope.spawn(|| serve_mcp(&listener, &answers));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&server, &answers)));
        ends.store(true, Ordering::SeqCst);
        let mut last = TcpStream::connect((POD_IP, MCP_PORT)).expect("it listens");
        last.write_all(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nEND").expect("sent");
        drop(last);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_stack_is_applied_phase_by_phase_undone_where_one_fails_and_rolled_back() {
    with_cluster(|server, answers| {
        let mut folder = Folder::shop();
        // Nothing is changed unasked.
        let output = migrate(server, &folder, "apply", &["--dry-run"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_says(&stdout(&output), &["Phase 1", "create    StatefulSet/db", "Nothing was changed"]);
        let output = migrate(server, &folder, "apply", &[]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert_says(&stderr(&output), &["--yes"]);
        assert!(get(server, "namespace/shop").is_none());

        let (code, applied) = answer(server, &folder, "apply", &["--yes", "--timeout", "60s"]);
        assert_eq!(code, Some(0), "{applied:#}");
        let titles: Vec<&str> = applied["phases"]
            .as_array()
            .expect("phases")
            .iter()
            .skip(1)
            .filter_map(|phase| phase["title"].as_str())
            .collect();
        assert_eq!(titles, ["StatefulSet/db", "Job/prepare", "Deployment/search", "Deployment/site"]);
        assert_says(&applied.to_string(), &["2 tools of search 3 at 7171/mcp"]);
        assert!(!applied.to_string().contains("hunter2"));
        let (code, status) = answer(server, &folder, "status", &[]);
        assert_eq!((code, &status["runs"][0]["state"]), (Some(0), &json!("applied")), "{status:#}");
        let search = status["services"].as_array().expect("services").iter().find(|one| one["name"] == "search");
        assert_eq!(search.map(|search| &search["mcp"]["tools"]), Some(&json!(2)));

        // The same once more changes nothing, not even what the autoscaler decided.
        server.must(&["-n", "shop", "scale", "deployment/site", "--replicas=2"]);
        let version = |what: &str| get(server, what).map(|object| object["metadata"]["resourceVersion"].clone());
        let before = (version("configmap/conf"), version("service/search"));
        let (code, applied) = answer(server, &folder, "apply", &["--yes"]);
        assert_eq!((code, &applied["revision"]), (Some(0), &json!(2)), "{applied:#}");
        assert_eq!((version("configmap/conf"), version("service/search")), before);
        assert_eq!(get(server, "deployment/site").expect("there")["spec"]["replicas"], 2);

        // An image that is not there: its phase is as it was before, and the one before it stays.
        folder.edit("configs.yaml", "/data/mode", "two".into());
        folder.edit("services/search.yaml", IMAGE, "acme/search:bad".into());
        let (code, applied) = answer(server, &folder, "apply", &["--yes", "--timeout", "5s"]);
        assert_eq!(code, Some(1), "{applied:#}");
        assert_says(&applied["troubles"].to_string(), &["Deployment/search", "ImagePullBackOff", "acme/search:bad"]);
        assert_eq!(
            applied["undone"],
            json!([{"object": "Deployment/search", "outcome": "restored", "is_failure": false}])
        );
        let image = |what: &str| get(server, what).and_then(|object| object.pointer(IMAGE).cloned());
        assert_eq!(image("deployment/search"), Some("acme/search:1".into()));
        let mode = |expected: &str| assert_eq!(get(server, "configmap/conf").expect("there")["data"]["mode"], expected);
        mode("two");
        let (code, rolled) = answer(server, &folder, "rollback", &["--yes"]);
        assert_eq!((code, &rolled["runs"]), (Some(0), &json!([3])), "{rolled:#}");
        mode("one");

        // A server that is there and does not list its tools.
        folder.edit("services/search.yaml", IMAGE, "acme/search:3".into());
        answers.store(false, Ordering::SeqCst);
        let (code, applied) = answer(server, &folder, "apply", &["--yes", "--timeout", "8s"]);
        assert_eq!(code, Some(1), "{applied:#}");
        assert_says(
            &applied["troubles"].to_string(),
            &["an MCP server by its label", "not tools/list", "--skip-mcp search"],
        );
        assert_eq!(image("deployment/search"), Some("acme/search:1".into()));
        let (code, _) = answer(server, &folder, "apply", &["--yes", "--timeout", "60s", "--skip-mcp", "search"]);
        assert_eq!(code, Some(0));

        let (code, rolled) = answer(server, &folder, "rollback", &["--yes", "--to", "0"]);
        assert_eq!(code, Some(0), "{rolled:#}");
        for what in ["deployment/search", "statefulset/db", "job/prepare", "service/db", "secret/pw", "configmap/conf"]
        {
            assert!(get(server, what).is_none(), "{what}");
        }
        for what in ["namespace/shop", "persistentvolumeclaim/data"] {
            assert!(get(server, what).is_some(), "{what}");
        }
        let output = migrate(server, &folder, "rollback", &["--yes"]);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&stderr(&output), &["no run of the stack shop"]);
    });
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_changed() {
    with_cluster(|server, _| {
        let is_refused = |folder: &Folder, more: &[&str], code: i32, words: &[&str]| {
            let output = migrate(server, folder, "apply", &[&["--yes", "--timeout", "20s"], more].concat());
            assert_eq!(output.status.code(), Some(code), "{} {}", stdout(&output), stderr(&output));
            assert_says(&stderr(&output), words);
        };
        let mut folder = Folder::shop();
        let open = json!({"outcome": "needs_input", "file": "stack.yml", "line": 7, "path": ["services", "db"], "reason": "choose one"});
        folder.write(&[open]);
        is_refused(&folder, &[], 2, &["services.db (stack.yml:7): choose one", "--accept-open"]);
        let secrets = folder.files.remove("secrets.yaml").expect("secrets");
        folder.write(&[]);
        is_refused(&folder, &[], 2, &["Secret/pw, which Deployment/search refers to"]);
        folder.files.insert("secrets.yaml".to_owned(), secrets);
        folder.edit("services/site.yaml", "/spec/replicas", json!(-1));
        is_refused(&folder, &[], 1, &["nothing was changed", "Deployment/site", "spec.replicas"]);
        folder.edit("services/site.yaml", "/spec/replicas", json!(1));
        let unknown = json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": metadata("g")});
        folder.files.insert("networks.yaml".to_owned(), vec![unknown]);
        folder.write(&[]);
        is_refused(&folder, &[], 1, &["Gadget/g", "example.com/v1"]);
        folder.files.remove("networks.yaml");
        folder.write(&[]);
        assert!(get(server, "namespace/shop").is_none(), "nothing was changed");

        let nothing = tempfile::tempdir().expect("temporary directory");
        let output = server.command(Path::new(CAIRN)).args(["migrate", "apply"]).arg(nothing.path()).output();
        let output = output.expect("cairn runs");
        assert_eq!(output.status.code(), Some(2));
        assert_says(&stderr(&output), &["not a folder of `cairn migrate swarm`"]);
        let kubeconfig = fs::read_to_string(server.path("kubeconfig")).expect("readable");
        let elsewhere = server.path("elsewhere");
        fs::write(&elsewhere, kubeconfig.replace(":6443", ":6444")).expect("written");
        is_refused(&folder, &["--kubeconfig", &elsewhere.to_string_lossy()], 3, &["127.0.0.1:6444", "does not answer"]);
        let nobody = server.path("nobody");
        fs::write(&nobody, kubeconfig.replace("an-administrators-token", "wrong")).expect("written");
        is_refused(&folder, &["--kubeconfig", &nobody.to_string_lossy()], 1, &["may not", "--context"]);
        is_refused(&folder, &["--context", "other"], 2, &["kubeconfig", "other"]);

        // Fields of another manager are taken only when that is asked for, and given back.
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("conf"), "data": {"mode": "by hand"}});
        server.create(&[namespace, config]);
        is_refused(&folder, &[], 1, &["ConfigMap/conf: .data.mode is managed by kubectl", "--force-conflicts"]);
        let output = migrate(server, &folder, "apply", &["--yes", "--force-conflicts", "--timeout", "60s"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(get(server, "configmap/conf").expect("there")["data"]["mode"], "one");
        let output = migrate(server, &folder, "rollback", &["--yes"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(get(server, "configmap/conf").expect("there")["data"]["mode"], "by hand");
    });
}
