//! Whom clients talk to: TLS at listeners that other machines reach, and certificates that change while connections go on. The
//! clients are curl and OpenSSL, which know nothing of the node's own library, and the one that the command line uses.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::{LEGACY, TestNode, agent_trusting, assert_says, authority, cairn, json_of, run_on, stderr, stdout};

/// Addresses that other machines reach.
pub const OPEN: [&str; 4] = ["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"];
/// The name in certificates out of files.
const BOX: &str = "box.example";

/// Asks until it is so: a change is taken up by a request that comes after it, not at once. How long that takes depends on what else
/// the machine does, so the only limit is that of the test runner, whose report ends with what was waited for.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    eprintln!("waiting: {what}");
    while !is_so() {
        std::thread::yield_now();
    }
    eprintln!("it is so: {what}");
}

pub fn open_node() -> TestNode {
    TestNode::with_arguments(&OPEN, &[])
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn openssl(arguments: &[&str]) -> String {
    let output = run("openssl", arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", stderr(&output));
    stdout(&output)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// curl, trusting one authority: exit code and answer.
fn curl(trusted: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run("curl", &[&["-sS", "--noproxy", "*", "--cacert", text(trusted)], arguments].concat());
    (output.status.code().expect("an exit code"), stdout(&output) + &stderr(&output))
}

fn port(url: &str) -> u16 {
    url.trim_end_matches("/mcp").rsplit_once(':').expect("a port").1.parse().expect("a number")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Status of a call with a token.
pub fn status(node: &TestNode, token: &str) -> u16 {
    let headers = [("content-type", "application/json"), ("authorization", &format!("Bearer {token}"))];
    node.request("POST", &format!("{}/v1/tools/get_status", node.base()), &headers, Some(b"{}")).status
}

/// The certificate that is shown at a port, PEM.
fn shown(port: u16, name: &str) -> String {
    let text = openssl(&["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name]);
    let begin = text.find("-----BEGIN").expect("a certificate");
    let end = text.find("-----END CERTIFICATE-----").expect("all of it");
    text[begin..end].to_owned()
}

/// A certificate authority of somebody else's, and what it issued.
struct Issuer {
    directory: TempDir,
}

impl Issuer {
    fn new() -> Self {
        let issuer = Self { directory: tempfile::tempdir().expect("temporary directory") };
        let (certificate, key) = (issuer.path("ca.pem"), issuer.path("ca.key"));
        let key_kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let subject = ["-subj", "/CN=A company", "-days", "30", "-keyout", text(&key), "-out", text(&certificate)];
        openssl(&[&["req", "-x509"], &key_kind[..], &subject].concat());
        issuer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts `tls.crt` and `tls.key` for [`BOX`] into a folder.
    fn issue(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("created");
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let names = format!("subjectAltName=DNS:{BOX}");
        openssl(&[
            "req",
            "-x509",
            "-CA",
            text(&ca),
            "-CAkey",
            text(&ca_key),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=box",
            "-days",
            "30",
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            text(&key),
            "-out",
            text(&certificate),
        ]);
    }

    /// A folder as Kubernetes mounts a Secret: files behind a link to the folder of a version.
    fn mount(&self) -> Mount {
        let mount = Mount { folder: self.path("mounted") };
        fs::create_dir(&mount.folder).expect("created");
        self.issue(&mount.folder.join("..1"));
        symlink("..1", mount.folder.join("..data")).expect("linked");
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mount.folder.join(name)).expect("linked");
        }
        mount
    }
}

struct Mount {
    folder: PathBuf,
}

impl Mount {
    /// Swaps the content for that of another folder beside it, in one rename.
    fn swap(&self, version: &str) {
        symlink(version, self.folder.join("..new")).expect("linked");
        fs::rename(self.folder.join("..new"), self.folder.join("..data")).expect("swapped");
    }

    fn certificate(&self) -> String {
        let pem = fs::read_to_string(self.folder.join("tls.crt")).expect("readable");
        pem.split("-----END").next().expect("its content").to_owned()
    }

    fn start(&self) -> TestNode {
        let (certificate, key) = (self.folder.join("tls.crt"), self.folder.join("tls.key"));
        TestNode::with_arguments(
            &OPEN,
            &[
                ("CAIRN_SERVER_TLS_CERTIFICATE_FILE", text(&certificate)),
                ("CAIRN_SERVER_TLS_KEY_FILE", text(&key)),
                ("CAIRN_SERVER_ALLOWED_HOSTS", BOX),
            ],
        )
    }
}

#[test]
fn curl_that_trusts_the_authority_speaks_tls_1_3_with_a_node() {
    let node = open_node();
    let trusted = node.authority.clone().expect("named in the line");
    assert_eq!(trusted, node.data_dir().join("tls/authority.pem"));
    let token = bearer(node.token.as_deref().expect("shown at the first start"));
    let url = format!("{}/v1/tools/get_status", node.base());
    let call = ["-H", &token, "-H", "Content-Type: application/json", "-d", "{}", &url];
    let (code, answer) = curl(&trusted, &call);
    assert_eq!(code, 0, "{answer}");
    assert_says(&answer, &["\"documents\":0"]);
    let (code, answer) =
        curl(&trusted, &["--http2", "-w", "%{http_version} %{ssl_verify_result}", "-o", "/dev/null", &url]);
    assert_eq!((code, answer.as_str()), (0, "1.1 0"));
    let metrics = format!("{}/metrics", node.admin);
    assert!(metrics.starts_with("https://"), "the admin listener, too: {metrics}");
    let (code, answer) = curl(&trusted, &["-H", &token, &metrics]);
    assert_eq!(code, 0, "{answer}");
    assert_says(&answer, &["cairn_log_lsn"]);

    for url in [node.base(), &node.admin] {
        let (code, words) = curl(&trusted, &["--tls-max", "1.2", url]);
        assert_eq!(code, 35, "no older protocol: {words}");
        assert_says(&words, &["protocol version"]);
    }
    let (code, words) = curl(Path::new("/etc/ssl/certs/ca-certificates.crt"), &[node.base()]);
    assert!([60, 77].contains(&code), "nobody else vouches for it: {code} {words}");
}

#[test]
fn the_authority_is_handed_out_and_its_fingerprint_told() {
    let node = open_node();
    let trusted = node.authority.clone().expect("named in the line");
    let handed = node.get(&format!("{}/authority.pem", node.base()));
    assert_eq!((handed.status, handed.text.as_str()), (200, fs::read_to_string(&trusted).expect("readable").as_str()));
    let fingerprint = openssl(&["x509", "-in", text(&trusted), "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim().rsplit_once('=').expect("a fingerprint").1;
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut process = cairn()
        .args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(node.data_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    assert!(!process.wait().expect("it ends").success(), "the data directory is taken");
    fs::rename(node.data_dir().join("tls"), directory.path().join("tls")).expect("moved");
    let mut process = cairn()
        .args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let lines: Vec<String> = BufReader::new(process.stdout.take().expect("a pipe"))
        .lines()
        .take(4)
        .map(|line| line.expect("a line"))
        .collect();
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    assert_says(&lines[0], &["https://0.0.0.0:", "http://127.0.0.1:"]);
    assert_says(&lines[1], &[text(&directory.path().join("tls/authority.pem"))]);
    assert_says(&lines[2], &[fingerprint]);
    assert_says(&lines[3], &["token", "cairn_"]);
}

#[test]
fn the_certificate_has_the_names_by_which_a_node_is_reached() {
    let node = TestNode::with_arguments(&OPEN, &[("CAIRN_SERVER_TLS_NAMES", "Box.example, 192.0.2.7")]);
    let (trusted, port) = (node.authority.clone().expect("named in the line"), port(&node.mcp));
    let certificate = shown(port, BOX);
    let file = node.scratch().join("shown.pem");
    fs::write(&file, certificate + "-----END CERTIFICATE-----\n").expect("written");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("readable");
    for name in ["localhost", "cairn.localhost", BOX, host.trim()] {
        assert_says(&openssl(&["x509", "-in", text(&file), "-noout", "-checkhost", name]), &["does match"]);
    }
    for address in ["127.0.0.1", "::1", "192.0.2.7"] {
        assert_says(&openssl(&["x509", "-in", text(&file), "-noout", "-checkip", address]), &["does match"]);
    }
    let lives = |days: u64| {
        let seconds = (days * 24 * 3_600).to_string();
        run("openssl", &["x509", "-in", text(&file), "-noout", "-checkend", &seconds]).status.success()
    };
    assert!(lives(700) && !lives(825), "as long as every system takes");
    openssl(&["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", text(&trusted), text(&file)]);
    // A name that was set may be used.
    let named = format!("https://{BOX}:{port}/authority.pem");
    let (code, words) = curl(&trusted, &["--connect-to", &format!("{BOX}:{port}:127.0.0.1:{port}"), &named]);
    assert!(code == 0 && words.starts_with("-----BEGIN"), "{code} {words}");
    // An address of the machine that a client comes to is in it from then on, though nobody set it.
    let (code, words) = curl(&trusted, &[&format!("https://127.0.0.9:{port}/authority.pem")]);
    assert!(code == 0 && words.starts_with("-----BEGIN"), "{code} {words}");
    let private = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(node.data_dir().join("tls").join(name)).expect("there").permissions().mode() & 0o777
    };
    assert_eq!((private("authority.key"), private("node.key"), private("")), (0o600, 0o600, 0o700));
}

#[test]
fn an_authority_and_its_certificate_outlive_a_restart_and_other_names_only_renew_the_certificate() {
    let mut node = open_node();
    let tls = node.data_dir().join("tls");
    let read = |name: &str| fs::read(tls.join(name)).expect("readable");
    let (authority, certificate) = (read("authority.pem"), read("node.pem"));
    node.stop();
    node.restart();
    assert_eq!((read("authority.pem"), read("node.pem")), (authority.clone(), certificate.clone()));
    node.stop();
    // What an interrupted renewal leaves.
    fs::remove_file(tls.join("node.json")).expect("removed");
    fs::write(tls.join("node.key"), "half of a k").expect("written");
    node.restart();
    assert_eq!(read("authority.pem"), authority);
    assert_ne!(read("node.pem"), certificate);
    assert_eq!(node.get(&format!("{}/health", node.admin)).status, 200, "clients notice nothing");
}

#[test]
fn clients_refuse_a_node_that_another_authority_vouches_for() {
    let (node, other) = (open_node(), open_node());
    let trusted = other.authority.clone().expect("named in the line");
    assert_eq!(curl(&trusted, &[node.base()]).0, 60);
    let refused = agent_trusting(authority(&trusted)).get(node.base()).call().expect_err("another authority");
    assert_says(&refused.to_string(), &["certificate"]);
    let output = run_on(other.scratch(), &["status", "--url", node.base(), "--ca", text(&trusted)]);
    assert_eq!(output.status.code(), Some(3));
    assert_says(&stderr(&output), &[node.base(), "certificate", "--ca"]);
}

#[test]
fn the_command_line_trusts_the_node_on_its_data_directory_and_others_by_their_authority() {
    let node = open_node();
    let (trusted, token) = (node.authority.clone().expect("named"), node.token.clone().expect("shown"));
    let here = node.cairn_json(&["status", "--json"]);
    assert_eq!(here["address"], node.base());
    let elsewhere = tempfile::tempdir().expect("temporary directory");
    let named = ["status", "--json", "--url", node.base(), "--token", &token, "--ca", text(&trusted)];
    assert_eq!(json_of(&run_on(elsewhere.path(), &named))["node"], here["node"]);
    let mut by_variables = cairn();
    by_variables.args(["status", "--json"]).envs([
        ("CAIRN_URL", node.base()),
        ("CAIRN_TOKEN", &token),
        ("CAIRN_CA", text(&trusted)),
    ]);
    assert_eq!(json_of(&by_variables.output().expect("the binary runs"))["node"], here["node"]);
    let by_the_system = cairn()
        .args(["status", "--json", "--url", node.base(), "--token", &token])
        .env("SSL_CERT_FILE", &trusted)
        .output();
    assert_eq!(json_of(&by_the_system.expect("the binary runs"))["node"], here["node"]);
    let output = run_on(elsewhere.path(), &named[..6]);
    assert_eq!(output.status.code(), Some(3), "nobody vouches for it");
    assert_says(&stderr(&output), &["--ca", "CAIRN_CA"]);
    let output = run_on(elsewhere.path(), &["status", "--url", node.base(), "--ca", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2));
    assert_says(&stderr(&output), &["/nonexistent"]);
}

#[test]
fn a_desktop_client_reaches_a_node_over_tls() {
    let node = open_node();
    let mut process = cairn()
        .args(["mcp", "--url", node.base()])
        .env("CAIRN_TOKEN", node.token.as_deref().expect("shown"))
        .env("CAIRN_CA", node.authority.as_deref().expect("named"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let (mut input, output) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
    let mut output = BufReader::new(output);
    let mut ask = |message: Value| -> Value {
        writeln!(input, "{message}").expect("sent");
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    };
    let info = json!({"name": "it", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info});
    ask(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
    let call = json!({"name": "get_status", "arguments": {}});
    let answer = ask(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}));
    assert_eq!(answer["result"]["structuredContent"]["documents"], 0, "{answer}");
    process.kill().expect("it runs");
    process.wait().expect("it ends");
}

#[test]
fn whoever_speaks_plain_http_is_told() {
    let node = open_node();
    for url in [node.base(), &node.admin] {
        let plain = url.replace("https://", "http://");
        let large = vec![b' '; 200_000];
        for (method, body) in [("GET", None), ("POST", Some(&large[..]))] {
            let answer = node.request(method, &plain, &[], body);
            assert_eq!((answer.status, answer.header("content-type")), (400, "text/plain; charset=utf-8"));
            assert_says(&answer.text, &["TLS", "https://"]);
        }
    }
    let plain = node.base().replace("https://", "http://");
    let output = cairn().args(["status", "--url", &plain]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(3));
    assert_says(&stderr(&output), &["https://"]);
    // Anything else is no reason to say anything.
    let mut stream = TcpStream::connect(("127.0.0.1", port(&node.mcp))).expect("connects");
    stream.write_all(&[0; 64]).expect("sent");
    let mut answer = Vec::new();
    // Closed, or closed on what it had not read.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn tls_goes_on_and_off_by_its_setting() {
    let on = TestNode::with(&[("CAIRN_SERVER_TLS", "on")]);
    assert!(on.mcp.starts_with("https://127.0.0.1:") && on.admin.starts_with("https://127.0.0.1:"));
    assert_eq!(on.call("get_status", json!({}))["documents"], 0, "loopback still asks for no token");
    assert_eq!(on.cairn_json(&["status", "--json"])["address"], on.base());
    let off = TestNode::with_arguments(&OPEN, &[("CAIRN_SERVER_TLS", "off")]);
    assert!(off.mcp.starts_with("http://") && off.authority.is_none());
    assert_eq!(status(&off, off.token.as_deref().expect("shown")), 200);
    assert!(!off.data_dir().join("tls").exists(), "nothing is made that nobody is shown");
    let own = off.get(&format!("{}/authority.pem", off.base()));
    assert_eq!(own.status, 404);
}

/// A connection that OpenSSL keeps open.
struct Kept {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Kept {
    fn open(port: u16, trusted: &Path) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-servername", BOX, "-CAfile", text(trusted)])
            .args(["-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let (input, output) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        Self { process, input, output: BufReader::new(output) }
    }

    /// Status line of an answer.
    fn ask(&mut self) -> String {
        write!(self.input, "GET /health HTTP/1.1\r\nHost: {BOX}\r\n\r\n").expect("sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.output.read_line(&mut head).expect("readable"), 0, "the connection ended after {head:?}");
        }
        self.output.read_line(&mut String::new()).expect("the body");
        head.lines().next().expect("a line").to_owned()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // It may have ended; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_swapped_certificate_is_shown_and_connections_go_on() {
    let issuer = Issuer::new();
    let mount = issuer.mount();
    let node = mount.start();
    let (admin, trusted) = (port(&node.admin), issuer.path("ca.pem"));
    let first = mount.certificate();
    assert_eq!(shown(admin, BOX), first);
    assert_eq!(node.get(&node.base().replace("https", "http")).status, 400);
    let mut kept = Kept::open(admin, &trusted);
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");

    issuer.issue(&mount.folder.join("..2"));
    mount.swap("..2");
    let second = mount.certificate();
    assert_ne!(first, second);
    wait_until("the new certificate", || shown(admin, BOX) == second);
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK", "kept from before");

    // A pair that does not fit: this one's certificate, that one's key.
    issuer.issue(&mount.folder.join("..3"));
    fs::copy(mount.folder.join("..1/tls.key"), mount.folder.join("..3/tls.key")).expect("copied");
    mount.swap("..3");
    let complaint = "cannot use the changed certificate";
    wait_until("a complaint", || {
        assert_eq!(shown(admin, BOX), second, "the old pair goes on");
        node.log().contains(complaint)
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(shown(admin, BOX), second);
    }
    assert_eq!(node.log().matches(complaint).count(), 1, "told once");
    issuer.issue(&mount.folder.join("..4"));
    mount.swap("..4");
    let fourth = mount.certificate();
    wait_until("the pair that fits", || shown(admin, BOX) == fourth);
    assert_eq!(kept.ask(), "HTTP/1.1 200 OK");
    assert!(node.authority.is_none(), "its clients trust somebody else");
    assert_eq!(
        node.cairn_json(&["status", "--json"])["documents"],
        0,
        "and this machine's command line the node's own"
    );
    let own = format!("https://{BOX}:{}/authority.pem", port(&node.mcp));
    let to = format!("{BOX}:{0}:127.0.0.1:{0}", port(&node.mcp));
    let (code, answer) = curl(&trusted, &["--connect-to", &to, "-w", "%{http_code}", "-o", "/dev/null", &own]);
    assert_eq!((code, answer.as_str()), (0, "404"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_before_the_start() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let issuer = Issuer::new();
    issuer.issue(&issuer.path("one"));
    issuer.issue(&issuer.path("two"));
    let (certificate, key, other) =
        (issuer.path("one/tls.crt"), issuer.path("one/tls.key"), issuer.path("two/tls.key"));
    let serve = |variables: &[(&str, &str)]| {
        let mut command = cairn();
        command.args(["serve", "--data-dir"]).arg(directory.path()).args(OPEN).envs(variables.iter().copied());
        command.output().expect("the binary runs")
    };
    let alone = serve(&[("CAIRN_SERVER_TLS_CERTIFICATE_FILE", text(&certificate))]);
    assert_eq!(alone.status.code(), Some(2));
    assert_says(&stderr(&alone), &["server.tls_key_file"]);
    for (wrong, words) in [(&other, "do not fit"), (&certificate, "key"), (&issuer.path("none"), "none")] {
        let output = serve(&[
            ("CAIRN_SERVER_TLS_CERTIFICATE_FILE", text(&certificate)),
            ("CAIRN_SERVER_TLS_KEY_FILE", text(wrong)),
        ]);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&stderr(&output), &[words]);
    }
    assert!(key.exists());
}

#[test]
fn thousands_who_never_finish_their_handshake_keep_nobody_out() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("raised");
    let mut node = open_node();
    let (trusted, address) = (node.authority.clone().expect("named"), ("127.0.0.1", port(&node.mcp)));
    // Some say nothing at all, some begin and go no further.
    let stuck: Vec<TcpStream> = (0..3_000)
        .map(|number| {
            let mut stream = TcpStream::connect(address).expect("connects");
            if number % 2 == 0 {
                stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).expect("sent");
            }
            stream
        })
        .collect();
    let start = Instant::now();
    let (code, words) = curl(&trusted, &["--max-time", "5", &format!("{}/authority.pem", node.base())]);
    assert_eq!(code, 0, "after {:?} beside {} others: {words}", start.elapsed(), stuck.len());
    // Nor do they hold up a stop.
    let start = Instant::now();
    node.stop();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(stuck);
}

#[test]
fn a_handshake_has_a_deadline() {
    let node = open_node();
    let mut silent = TcpStream::connect(("127.0.0.1", port(&node.mcp))).expect("connects");
    silent.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    assert_eq!(silent.read(&mut [0; 16]).expect("closed by the node"), 0);
}
