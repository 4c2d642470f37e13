//! A real API server of Kubernetes: etcd and kube-apiserver, which `make setup-kube` builds, and kubectl to speak with it.
//!
//! What is real: validation, defaults, field ownership, warnings, and admission, with Pod Security among it. What is missing: every
//! controller and every kubelet, so a StatefulSet makes no pod, and a namespace that is deleted stays. A test makes what a controller
//! would make.
//!
//! All of it is in a network namespace of its own, so that its ports are free. It ends with the value.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kube_api::get_unverified;
use crate::left_out::left_out;
use crate::node::{clean, stderr, stdout};
use crate::tls::wait_until;

const STORE: &str = "http://127.0.0.1:2379";
const STORE_PEERS: &str = "http://127.0.0.1:2380";
const PORT: &str = "6443";
/// What the server says its address is: one that is not loopback, which it refuses.
const ADVERTISED: &str = "192.0.2.10";
/// Everything is allowed to the group of this token.
const TOKEN: &str = "an-administrators-token";

/// A program that `make setup-kube` brings; `None` where it is not there.
pub fn program(name: &str) -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kube/bin").join(name);
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    // Only etcd comes from the machine: another kubectl may be of any age.
    std::iter::once(built).chain(found.filter(|_| name == "etcd")).find(|path| path.exists())
}

/// A running API server.
pub struct ApiServer {
    folder: TempDir,
    kubectl: PathBuf,
    // In this order: the server waits for its store when it ends.
    processes: Vec<Child>,
}

impl ApiServer {
    /// Starts one and waits until it is ready; `None` where this is not root, or where it was not built.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out("an API server of Kubernetes takes root, for a network of its own");
            return None;
        }
        let programs = ["etcd", "kube-apiserver", "kubectl"].map(program);
        let [Some(etcd), Some(server), Some(kubectl)] = programs else {
            left_out("an API server of Kubernetes is missing: install Go and run `make setup-kube`");
            return None;
        };
        own_network();
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().expect("a key");
        fs::write(path("accounts.key"), key.serialize_pem()).expect("written");
        fs::write(path("accounts.pub"), key.public_key_pem()).expect("written");
        fs::write(path("tokens.csv"), format!("{TOKEN},administrator,administrator,system:masters\n"))
            .expect("written");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("https://127.0.0.1:{PORT}"), "certificate-authority": path("apiserver.crt")}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        fs::write(path("kubeconfig"), kubeconfig.to_string()).expect("written");
        let mut this = Self { folder, kubectl, processes: Vec::new() };
        let store = [
            format!("--data-dir={}", this.path("store").display()),
            format!("--listen-client-urls={STORE}"),
            format!("--advertise-client-urls={STORE}"),
            format!("--listen-peer-urls={STORE_PEERS}"),
            format!("--initial-advertise-peer-urls={STORE_PEERS}"),
            format!("--initial-cluster=default={STORE_PEERS}"),
        ];
        this.spawn(&etcd, &store);
        let options = [
            format!("--etcd-servers={STORE}"),
            format!("--secure-port={PORT}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--advertise-address={ADVERTISED}"),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--cert-dir={}", this.folder.path().display()),
            format!("--token-auth-file={}", this.path("tokens.csv").display()),
            "--authorization-mode=RBAC".to_owned(),
            // As K3s does; otherwise such a pod is refused before Pod Security looks at it.
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", this.path("accounts.pub").display()),
            format!("--service-account-signing-key-file={}", this.path("accounts.key").display()),
            "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
        ];
        this.spawn(&server, &options);
        wait_until("the API server is ready", || {
            for process in &mut this.processes {
                if let Some(status) = process.try_wait().expect("it is ours") {
                    panic!("the API server or its store ended with {status}: {}", logs(this.folder.path()));
                }
            }
            get_unverified(&format!("https://127.0.0.1:{PORT}/readyz")).is_some_and(|(status, _)| status == 200)
        });
        Some(this)
    }

    fn spawn(&mut self, program: &Path, arguments: &[String]) {
        let name = program.file_name().expect("a name").to_string_lossy();
        let log = File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut command = clean(Command::new(program));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        self.processes.insert(0, command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")));
    }

    /// A file in the server's folder, where tests may put theirs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that finds the server as its administrator.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = clean(Command::new(program));
        command.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs kubectl.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command(&self.kubectl).args(arguments).output().expect("kubectl runs")
    }

    /// Runs kubectl, which has to succeed, and without a warning of the server; what it printed.
    #[track_caller]
    pub fn must<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let output = self.kubectl(arguments);
        let told = stderr(&output);
        assert!(output.status.success() && !told.contains("Warning"), "kubectl {arguments:?}: {told}");
        stdout(&output)
    }

    /// Applies a file or a folder on the server's side, as Cairn's manual says; what the server holds then.
    #[track_caller]
    pub fn apply(&self, path: &Path, more: &[&str]) -> Vec<Value> {
        let path = path.to_string_lossy();
        let arguments = [&["apply", "--server-side", "--warnings-as-errors", "-o", "json", "-f", &path], more].concat();
        let told: Value = serde_json::from_str(&self.must(&arguments)).expect("JSON");
        match told["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![told],
        }
    }

    /// Creates objects as they are.
    #[track_caller]
    pub fn create(&self, objects: &[Value]) {
        let file = self.path("created.json");
        fs::write(&file, list_of(objects).to_string()).expect("written");
        self.must(&["create", "-f", &file.to_string_lossy()]);
    }

    /// Has the server look at objects that would be created, and at nothing else.
    pub fn would_create(&self, objects: &[Value]) -> Output {
        let file = self.path("tried.json");
        fs::write(&file, list_of(objects).to_string()).expect("written");
        self.kubectl(&["create", "--dry-run=server", "--warnings-as-errors", "-f", &file.to_string_lossy()])
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // The error is "it has ended": what was wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", logs(self.folder.path()));
        }
    }
}

/// Objects as one that kubectl reads.
fn list_of(objects: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}

/// The end of what the programs logged.
fn logs(folder: &Path) -> String {
    const LINES: usize = 20;
    let of = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{name}:\n{}\n", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    };
    ["kube-apiserver.log", "etcd.log"].map(of).concat()
}

/// Gives this thread, and what it starts, a network in which nothing else is.
#[allow(unsafe_code)]
fn own_network() {
    // SAFETY: only this thread and those that it starts get another namespace; no memory is touched.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(unshared, 0, "{}", std::io::Error::last_os_error());
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip runs");
    assert!(up.success(), "{up}");
}
