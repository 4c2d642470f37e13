//! A stand-in for a K3s server: what acts on the objects of [`crate::kube_api`].
//!
//! Controllers, as they are on a real one. The first applies the manifests of a folder: hidden files and unknown endings are passed
//! over; each object of a file is applied, also when another one fails; what a changed file no longer names is deleted, of the kinds that
//! the file has or the last success had; an Addon keeps the checksum and the kinds of the last success, and a file with that checksum
//! is not applied again before a restart; a file that goes deletes nothing. The second imports image archives and pins them; a restart
//! loses the pins where K3s does. The third places the pod on a node that its selector, its volume and its devices allow, the emptiest
//! one, binds its volume there, and runs it: it starts the real executable out of the image of that node, as the user of
//! the image, with the settings, the token and the volume that the objects say, asks its probes, and never replaces a pod that does
//! not get ready. What is not real: containers, the network between pods, time (it looks ten times a second, not every 15 seconds).
//!
//! All of it is in a network and a mount namespace of its own, so that `/` is the tree that is installed to.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kube_api::{Api, Key};
use crate::kube_controllers::Controllers;
use crate::left_out::left_out;

/// Where things are in the namespace of a test.
pub const API: &str = "127.0.0.1:6443";
pub const POD_IP: &str = "10.42.0.5";
pub const SERVICE_IP: &str = "10.43.0.7";
/// The address of this machine, on which load balancers answer.
pub const NODE_IP: &str = "192.0.2.10";
pub const NAMESPACE: &str = "cairn";
/// A node without the image, on which nothing runs yet.
pub const EMPTIER: &str = "emptier";
const PAUSE: Duration = Duration::from_millis(100);

/// A machine with a K3s server. Everything ends with it.
pub struct Server {
    directory: TempDir,
    pub api: Arc<Api>,
    running: Option<Running>,
    version: String,
    /// Whether image archives are imported.
    pub imports: Arc<AtomicBool>,
}

struct Running {
    _runtime: tokio::runtime::Runtime,
    end: Arc<AtomicBool>,
    controllers: Option<JoinHandle<Controllers>>,
    /// What should never be seen.
    problems: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A machine on which this version of K3s is installed and does not run; `None` where this is not root.
    pub fn machine(version: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out("a machine of its own takes root");
            return None;
        }
        // SAFETY: only this thread and those that it starts get other namespaces; no memory is touched.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "{}", io::Error::last_os_error());
        let directory = tempfile::tempdir().expect("temporary directory");
        // The pod's user has to come in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let place = |path: &str| directory.path().join(path);
        for path in [
            "etc/rancher/k3s",
            "etc/systemd/system",
            "usr-local",
            "var-lib",
            "opt",
            "run",
            "k3s/server/manifests",
            "k3s/agent",
            "storage",
            "store",
        ] {
            fs::create_dir_all(place(path)).expect("made");
        }
        // containerd's command, as far as somebody asks which images are pinned.
        fs::create_dir_all(place("k3s/data/current/bin")).expect("made");
        let script = format!(
            "#!/bin/sh\necho 'REF TYPE DIGEST SIZE PLATFORMS LABELS'\ncat {}\n",
            place("store/images.txt").display()
        );
        write_executable(&place("k3s/data/current/bin/ctr"), &script);
        // It is plain HTTP; the file has one, as a server's has.
        let authority = rcgen::generate_simple_self_signed(vec!["k3s".to_owned()]).expect("made").cert.pem();
        let authority = base64::prelude::BASE64_STANDARD.encode(authority);
        let write = |path: &str, text: &str| fs::write(place(path), text).expect("written");
        // What DNS says in a cluster.
        write(
            "etc/hosts",
            &format!(
                "127.0.0.1 localhost\n{SERVICE_IP} cairn.cairn.svc.cluster.local cairn.cairn.svc second.cairn.svc.cluster.local \
                 second.cairn.svc\n"
            ),
        );
        write("etc/machine-id", "00000000000000000000000000000001\n");
        write("etc/systemd/system/k3s.service", "[Service]\nExecStart=/usr/local/bin/k3s server\n");
        write("etc/rancher/k3s/config.yaml", &format!("data-dir: {}\n", place("k3s").display()));
        write(
            "etc/rancher/k3s/k3s.yaml",
            &format!(
                "apiVersion: v1\nkind: Config\nclusters:\n- name: default\n  cluster:\n    server: http://{API}\n    \
                 certificate-authority-data: {authority}\n\
                 contexts:\n- name: default\n  context:\n    cluster: default\n    user: default\n\
                 current-context: default\nusers:\n- name: default\n  user: {{}}\n"
            ),
        );
        run("mount", &["--make-rprivate", "/"]);
        for (from, to) in
            [("etc", "/etc"), ("usr-local", "/usr/local"), ("run", "/run"), ("var-lib", "/var/lib"), ("opt", "/opt")]
        {
            run("mount", &["--bind", &place(from).to_string_lossy(), to]);
        }
        run("ip", &["link", "set", "lo", "up"]);
        for address in [POD_IP, SERVICE_IP, NODE_IP] {
            run("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        let pod = SocketAddr::new(ip(POD_IP), 7171);
        let api = Api::new(version, pod, place("pod.log"));
        let put = |plural: &str, name: &str, object: Value| {
            api.objects.lock().put(Key::new(plural, "", name), object);
        };
        put("nodes", &this_node(), node(&this_node(), NODE_IP, "00000000000000000000000000000001"));
        let default = json!({"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}});
        put(
            "storageclasses",
            "local-path",
            json!({"metadata": default, "provisioner": "rancher.io/local-path", "reclaimPolicy": "Delete"}),
        );
        put("runtimeclasses", "nvidia", json!({"metadata": {}, "handler": "nvidia"}));
        put(
            "ingressclasses",
            "traefik",
            json!({"metadata": {}, "spec": {"controller": "traefik.io/ingress-controller"}}),
        );
        Some(Self {
            directory,
            api,
            running: None,
            version: version.to_owned(),
            imports: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The same, and K3s runs.
    pub fn start(version: &str) -> Option<Self> {
        let mut server = Self::machine(version)?;
        server.run();
        Some(server)
    }

    /// Starts K3s.
    pub fn run(&mut self) {
        let runtime = self.api.serve(API.parse().expect("an address"));
        let (end, problems) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (told, seen) = (Arc::clone(&end), Arc::clone(&problems));
        let mut controllers = Controllers {
            api: Arc::clone(&self.api),
            root: self.directory.path().to_owned(),
            problems: seen,
            manifests: HashMap::new(),
            archives: HashMap::new(),
            images: BTreeMap::new(),
            imports: Arc::clone(&self.imports),
            pinned: BTreeSet::new(),
            is_forced: true,
            process: None,
            pause: None,
        };
        let node = SocketAddr::new(ip(NODE_IP), 7171);
        let balancer = TcpListener::bind(node).expect("bound");
        std::thread::spawn(move || forward(&balancer, SocketAddr::new(ip(POD_IP), 7171)));
        let service = TcpListener::bind(SocketAddr::new(ip(SERVICE_IP), 7171)).expect("bound");
        std::thread::spawn(move || forward(&service, SocketAddr::new(ip(POD_IP), 7171)));
        controllers.begin();
        let controllers = work(told, controllers);
        self.running = Some(Running { _runtime: runtime, end, controllers: Some(controllers), problems });
    }

    /// Restarts K3s; the pod goes on meanwhile, as it does. It has looked at everything once by the time this is over.
    pub fn restart(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        running.end.store(true, Ordering::SeqCst);
        let mut controllers = running.controllers.take().expect("they work").join().expect("no panic");
        controllers.begin();
        controllers.look();
        running.end = Arc::default();
        running.controllers = Some(work(Arc::clone(&running.end), controllers));
    }

    /// Another node joins, on which less runs.
    pub fn add_node(&self) {
        let node = node(EMPTIER, "192.0.2.11", "00000000000000000000000000000002");
        self.api.objects.lock().put(Key::new("nodes", "", EMPTIER), node);
    }

    /// A device plugin offers GPUs of this machine.
    pub fn add_gpu(&self) {
        self.api.objects.lock().change(&Key::new("nodes", "", &this_node()), |node| {
            node["status"]["allocatable"]["nvidia.com/gpu"] = "1".into();
        });
    }

    /// An object as it is.
    pub fn object(&self, plural: &str, name: &str) -> Option<Value> {
        let namespace = if plural == "addons" { "kube-system" } else { NAMESPACE };
        let objects = self.api.objects.lock();
        objects.get(&Key::new(plural, namespace, name)).or_else(|| objects.get(&Key::new(plural, "", name))).cloned()
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// A file of the machine, as the test sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The manifests as they are now.
    pub fn manifests(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path("k3s/server/manifests")).expect("readable");
        let files = entries.map(|entry| entry.expect("readable").path());
        files
            .map(|path| {
                (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("readable"))
            })
            .collect()
    }

    /// Folders of volumes.
    pub fn volumes(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("storage")).expect("readable").map(|entry| entry.expect("readable").path()).collect()
    }

    pub fn has(&self, plural: &str, name: &str) -> bool {
        let namespace = match plural {
            "namespaces" => "",
            "addons" => "kube-system",
            _ => NAMESPACE,
        };
        self.api.objects.lock().get(&Key::new(plural, namespace, name)).is_some()
    }

    pub fn has_of_cluster(&self, plural: &str, name: &str) -> bool {
        self.api.objects.lock().get(&Key::new(plural, "", name)).is_some()
    }

    /// Fails when the server ever saw what it must not see.
    pub fn assert_sound(&self) {
        if let Some(running) = &self.running {
            assert_eq!(*running.problems.lock(), Vec::<String>::new());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.end.store(true, Ordering::SeqCst);
        if let Some(Ok(mut controllers)) = running.controllers.take().map(JoinHandle::join) {
            controllers.kill();
        }
        if std::thread::panicking() {
            eprintln!("the pod's log:\n{}", fs::read_to_string(self.path("pod.log")).unwrap_or_default());
            for (key, object) in
                self.api.objects.lock().iter().filter(|(key, _)| key.plural == "events" || key.plural == "pods")
            {
                eprintln!("{key:?}: {object}");
            }
        }
    }
}

fn write_executable(path: &std::path::Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

/// What K3s calls this machine.
pub fn this_node() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

fn node(name: &str, address: &str, machine: &str) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64"}},
        "status": {
            "allocatable": {"cpu": "4"},
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {
                "machineID": machine, "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "containerRuntimeVersion": "",
                "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "osImage": "", "systemUUID": "",
            },
        },
    })
}

/// Has controllers look until they are told to end.
fn work(end: Arc<AtomicBool>, mut controllers: Controllers) -> JoinHandle<Controllers> {
    std::thread::spawn(move || {
        while !end.load(Ordering::SeqCst) {
            controllers.look();
            std::thread::sleep(PAUSE);
        }
        controllers
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What kube-proxy does: connections to the service go on to the pod.
fn forward(listener: &TcpListener, pod: SocketAddr) {
    for client in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let Ok(server) = TcpStream::connect(pod) else { return };
            let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
            let up = std::thread::spawn(move || {
                // An end of either side is the end of this direction.
                let _ = io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Write);
            });
            let (mut from_server, mut to_client) = (server, client);
            let _ = io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(std::net::Shutdown::Both);
            let _ = up.join();
        });
    }
}
