//! Outgoing HTTP: trust, proxies, limits, repetitions, and which hosts may be reached.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn::base::{Fault, with_causes};
use cairn::fetch::{
    Authorities, Body, BreakerConfig, Client, ClientCertificate, Config, FetchError, HostList, Limits, Phase, Proxy,
    Reach, Request, Resolve, Resolving, Retries, TestHooks, Timing, Trust,
};
use cairn::fetch::{FetchLabels, Metrics};
use http::{Method, StatusCode};

use crate::fetch_server::{ProxyServer, Server, TestAuthority, Then, answer};
use crate::node::{TestNode, cairn, stderr, stdout};
use crate::s3::Bucket;

const LIMITS: Limits = Limits {
    answer: Duration::from_secs(20),
    idle: Duration::from_secs(20),
    total: Some(Duration::from_secs(30)),
    body_bytes: 1 << 20,
};

/// One that repeats nothing and never gives a host up.
fn plain() -> Config {
    Config { limits: LIMITS, retries: Retries::OFF, breaker: BreakerConfig::OFF, ..Config::default() }
}

fn client(config: Config, reach: Reach) -> Client {
    Client::new(config, reach, "test", Metrics::default()).expect("a client")
}

fn anywhere(config: Config) -> Client {
    client(config, Reach::Anywhere)
}

async fn get(client: &Client, url: &str) -> Result<String, FetchError> {
    client.send(Request::get(url)?).await?.text().await
}

/// Names with answers of their own, one after another; the last stays.
struct Names {
    answers: Vec<Vec<&'static str>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[&[&'static str]]) -> Arc<Self> {
        Arc::new(Self { answers: answers.iter().map(|answer| answer.to_vec()).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let found = self.answers[number].iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// A clock that is where a test puts it, and that pauses move.
struct TestTiming {
    start: Instant,
    state: Mutex<(Duration, Vec<Duration>)>,
}

impl TestTiming {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), state: Mutex::default() })
    }

    fn advance(&self, length: Duration) {
        self.state.lock().expect("no poison").0 += length;
    }

    fn pauses(&self) -> Vec<Duration> {
        self.state.lock().expect("no poison").1.clone()
    }
}

impl Timing for TestTiming {
    fn now(&self) -> Instant {
        self.start + self.state.lock().expect("no poison").0
    }

    fn pause<'a>(&'a self, length: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let mut state = self.state.lock().expect("no poison");
        state.0 += length;
        state.1.push(length);
        Box::pin(std::future::ready(()))
    }
}

fn seamed(config: Config, reach: Reach, names: Option<Arc<Names>>, timing: Option<Arc<TestTiming>>) -> Client {
    let hooks = TestHooks { names: names.map(|names| names as _), timing: timing.map(|timing| timing as _) };
    Client::with(config, reach, "test", Metrics::default(), hooks).expect("a client")
}

fn hosts(entries: &[&str]) -> Reach {
    Reach::Hosts(HostList::parse(entries.iter().copied()).expect("hosts"))
}

#[tokio::test]
async fn a_request_is_sent_as_it_was_put_together() {
    let server = Server::start(|_, _| answer("201 Created", &["X-Kind: note"], "{\"a\":[1,2]}"));
    let client = anywhere(plain());
    let request = Request::post(&server.url("/v1/x?q=1")).expect("a URL").query("né", "a b&c").bearer("secret");
    let found = client.send(request.json(&serde_json::json!({"b": 1})).expect("JSON")).await.expect("an answer");
    assert_eq!((found.status, &found.headers["x-kind"]), (StatusCode::CREATED, &"note".parse().expect("a value")));
    assert_eq!(found.json::<serde_json::Value>().await.expect("JSON"), serde_json::json!({"a": [1, 2]}));
    let piece = |text: &'static str| Ok::<_, io::Error>(http_body::Frame::data(Bytes::from(text)));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter([piece("one "), piece("two")]));
    let request = Request::new(Method::PUT, &server.url("/y")).expect("a URL").body(Body::stream(body));
    client.send(request).await.expect("an answer").discard().await.expect("read");
    let requests = server.requests();
    assert!(requests[0].starts_with("POST /v1/x?q=1&n%C3%A9=a+b%26c HTTP/1.1\r\n"), "{}", requests[0]);
    for header in ["authorization: Bearer secret", "content-type: application/json", "content-length: 7"] {
        assert!(requests[0].contains(&format!("\r\n{header}\r\n")), "{header}: {}", requests[0]);
    }
    assert!(requests[0].contains("\r\nuser-agent: cairn/"), "{}", requests[0]);
    assert!(requests[0].ends_with("\r\n\r\n{\"b\":1}"), "{}", requests[0]);
    assert!(requests[1].contains("transfer-encoding: chunked") && requests[1].contains("one "), "{}", requests[1]);
}

#[tokio::test]
async fn what_is_not_an_address_is_refused_before_anything_is_sent() {
    for (url, reason) in [
        ("ftp://a.test/", "expected http:// or https://"),
        ("a.test", "relative URL without a base"),
        ("http://", "empty host"),
        ("file:///etc/passwd", "expected http:// or https://"),
    ] {
        let error = Request::get(url).expect_err(url);
        assert_eq!((error.fault(), error.kind()), (Fault::Caller, "url"));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_host_is_trusted_by_the_authorities_of_the_settings() {
    let (own, other) = (TestAuthority::new("one"), TestAuthority::new("other"));
    let server = Server::with_tls(own.server("127.0.0.1", false), |_, _| answer("200 OK", &[], "safe"));
    let url = format!("https://{}/", server.address);
    let only = |authority: &TestAuthority| {
        Trust::Only(Authorities::from_pem(authority.pem().as_bytes()).expect("a certificate"))
    };
    let trusting = |trust| anywhere(Config { trust, ..plain() });
    assert_eq!(get(&trusting(only(&own)), &url).await.expect("trusted"), "safe");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, own.pem()).expect("written");
    assert_eq!(get(&trusting(Trust::SystemAnd(file.clone())), &url).await.expect("trusted"), "safe");
    for trust in [only(&other), Trust::System] {
        let error = get(&trusting(trust), &url).await.expect_err("not trusted");
        let expected = format!(
            "the certificate of {} is not trusted: the authority that signed it is not known to this machine",
            server.address
        );
        assert_eq!((error.to_string(), error.kind()), (expected, "tls"));
    }
    // The name counts, too, and can be another than that in the address.
    let named = Server::with_tls(own.server("node.test", false), |_, _| answer("200 OK", &[], "named"));
    let url = format!("https://{}/", named.address);
    let error = get(&trusting(only(&own)), &url).await.expect_err("another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let config = Config { trust: only(&own), server_name: Some("node.test".to_owned()), ..plain() };
    assert_eq!(get(&anywhere(config), &url).await.expect("trusted"), "named");
    // What answers to the first bytes of TLS in HTTP.
    let plain_http = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = plain_http.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = plain_http.accept().expect("a client");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = get(&trusting(only(&own)), &format!("https://{address}/")).await.expect_err("no TLS");
    assert_eq!(error.to_string(), format!("{address} speaks plain HTTP, not TLS: use http://"));
    for (bytes, words) in
        [("nothing", "there is no certificate in it"), ("-----BEGIN CERTIFICATE-----\nx", "it is not a PEM file")]
    {
        std::fs::write(&file, bytes).expect("written");
        let config = Config { trust: Trust::SystemAnd(file.clone()), ..plain() };
        let error = Client::new(config, Reach::Anywhere, "test", Metrics::default()).expect_err("no authority");
        let text = with_causes(&error);
        assert!(text.contains("ca.pem") && text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let own = TestAuthority::new("one");
    let server = Server::with_tls(own.server("127.0.0.1", true), |_, _| answer("200 OK", &[], "known"));
    let url = format!("https://{}/", server.address);
    let trust = Trust::Only(Authorities::from_pem(own.pem().as_bytes()).expect("a certificate"));
    get(&anywhere(Config { trust: trust.clone(), ..plain() }), &url).await.expect_err("it is asked for");
    let signed = own.sign("client");
    let certificate = ClientCertificate::from_pem(signed.certificate.as_bytes(), signed.key.as_bytes()).expect("valid");
    let config = Config { trust, certificate: Some(certificate), ..plain() };
    assert_eq!(get(&anywhere(config), &url).await.expect("let in"), "known");
    let missing = ClientCertificate::from_pem(signed.certificate.as_bytes(), b"").expect_err("no key");
    assert_eq!(missing.to_string(), "there is no private key in it");
}

#[tokio::test]
async fn a_proxy_is_used_for_what_it_is_meant_for() {
    let own = TestAuthority::new("one");
    let secure = Server::with_tls(own.server("host.test", false), |_, _| answer("200 OK", &[], "secure"));
    let plain_server = Server::start(|_, _| answer("200 OK", &[], "plain"));
    let trust = Trust::Only(Authorities::from_pem(own.pem().as_bytes()).expect("a certificate"));
    // No resolver of this machine knows host.test: the proxy does.
    let tunnel = ProxyServer::start(secure.address, Some("Basic dXNlcjpwYSBzcw=="));
    let relay = ProxyServer::start(plain_server.address, None);
    let proxies = [
        ("HTTPS_PROXY", format!("http://user:pa%20ss@{}", tunnel.address)),
        ("HTTP_PROXY", relay.address.to_string()),
        ("NO_PROXY", "direct.test".to_owned()),
    ];
    let proxy =
        Proxy::from_variables(|name| proxies.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()));
    let client = anywhere(Config { trust: trust.clone(), proxy, ..plain() });
    assert_eq!(get(&client, "https://host.test/").await.expect("through the tunnel"), "secure");
    assert!(tunnel.heads()[0].starts_with("CONNECT host.test:443 HTTP/1.1\r\n"), "{:?}", tunnel.heads());
    assert_eq!(get(&client, "http://host.test/a?b").await.expect("through the relay"), "plain");
    assert!(relay.heads()[0].starts_with("GET http://host.test/a?b HTTP/1.1\r\n"), "{:?}", relay.heads());
    // This machine is reached directly.
    assert_eq!(get(&client, &plain_server.url("/")).await.expect("directly"), "plain");
    assert_eq!(relay.heads().len(), 1);
    let error = get(&client, "http://direct.test/").await.expect_err("nobody knows it");
    assert_eq!(error.kind(), "unknown_host", "{error}");
    // Without what it asks for the proxy refuses.
    let proxy = Proxy::new(&format!("http://{}", tunnel.address), "").expect("a proxy");
    let error = get(&anywhere(Config { trust, proxy, ..plain() }), "https://host.test/").await.expect_err("refused");
    let expected = format!(
        "the proxy {} did not connect to host.test:443: it asks for a name and a password (http://USER:PASSWORD@HOST:PORT)",
        tunnel.address
    );
    assert_eq!((error.to_string(), error.kind()), (expected, "proxy"));
}

#[tokio::test]
async fn hosts_that_are_not_public_are_not_reached() {
    let server = Server::start(|_, _| answer("200 OK", &[], "private"));
    let port = server.address.port();
    for names in [&["127.0.0.1"][..], &["::1"], &["169.254.169.254", "10.0.0.1"], &["::ffff:127.0.0.1"]] {
        let client = seamed(plain(), Reach::Public, Some(Names::new(&[names])), None);
        let error = get(&client, &format!("http://rebind.test:{port}/")).await.expect_err("refused");
        let expected = format!("rebind.test:{port} may not be reached: it is not a host of the public Internet");
        assert_eq!((error.to_string(), error.fault()), (expected, Fault::Caller), "{names:?}");
    }
    // Other spellings of the same.
    for host in
        ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST.", "0"]
    {
        let client = client(plain(), Reach::Public);
        let error = get(&client, &format!("http://{host}:{port}/")).await.expect_err(host);
        assert_eq!(error.kind(), "refused", "{host}: {error}");
    }
    assert_eq!(server.requests().len(), 0);
    // Of several addresses those that are allowed are used.
    let names = Names::new(&[&["10.0.0.1", "127.0.0.1"]]);
    let client = seamed(plain(), hosts(&["127.0.0.0/8"]), Some(names), None);
    assert_eq!(get(&client, &format!("http://some.test:{port}/")).await.expect("reached"), "private");
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let server = Server::start(|_, _| (answer("200 OK", &["Connection: close"], "first").0, Then::Closes));
    let url = format!("http://rebind.test:{}/", server.address.port());
    let names = Names::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = seamed(plain(), hosts(&["127.0.0.1"]), Some(Arc::clone(&names)), None);
    assert_eq!(get(&client, &url).await.expect("reached"), "first");
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "one lookup for a connection");
    // The next connection has a lookup of its own, and is judged by it.
    let error = get(&client, &url).await.expect_err("refused");
    assert_eq!(error.kind(), "refused", "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redirects_are_followed_within_the_rules() {
    let last = Server::start(|_, _| answer("200 OK", &[], "there"));
    let target = last.url("/end");
    let first = Server::start(move |_, request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/elsewhere" => answer("302 Found", &[&format!("Location: {target}")], ""),
            "/here" => answer("307 Temporary Redirect", &["Location: done?x=1"], ""),
            "/done?x=1" => answer("200 OK", &[], "done"),
            "/loop" => answer("301 Moved Permanently", &["Location: /loop"], ""),
            "/private" => answer("302 Found", &["Location: http://127.0.0.2:1/"], ""),
            "/metadata" => answer("302 Found", &["Location: http://169.254.169.254/latest/"], ""),
            "/file" => answer("302 Found", &["Location: file:///etc/passwd"], ""),
            _ => answer("200 OK", &[], "no redirect"),
        }
    });
    let client = client(plain(), hosts(&["127.0.0.1"]));
    // Credentials stay with the host that they are for.
    let request = Request::post(&first.url("/elsewhere")).expect("a URL").bearer("secret").body("sent");
    assert_eq!(client.send(request).await.expect("followed").text().await.expect("text"), "there");
    let seen = &last.requests()[0];
    assert!(seen.starts_with("GET /end HTTP/1.1") && !seen.contains("secret") && !seen.contains("sent"), "{seen}");
    let request = Request::post(&first.url("/here")).expect("a URL").bearer("secret").body("sent");
    let found = client.send(request).await.expect("followed");
    assert_eq!(found.url.as_str(), first.url("/done?x=1"));
    let seen = &first.requests()[2];
    assert!(seen.starts_with("POST /done?x=1") && seen.contains("secret") && seen.ends_with("sent"), "{seen}");
    for (path, kind, words) in [
        ("/loop", "redirect", "it leads elsewhere too often"),
        ("/private", "refused", "it is not in the list of allowed hosts"),
        ("/metadata", "refused", "it is not in the list of allowed hosts"),
        ("/file", "redirect", "that is not an http or https address"),
    ] {
        let error = get(&client, &first.url(path)).await.expect_err(path);
        assert!(error.kind() == kind && error.to_string().contains(words), "{path}: {error}");
    }
    let body = Body::stream(http_body_util::Full::new(Bytes::from("once")));
    let request = Request::post(&first.url("/here")).expect("a URL").body(body);
    let error = client.send(request).await.expect_err("it cannot be sent again");
    assert!(error.to_string().contains("what was sent cannot be sent again"), "{error}");
    let config = Config { redirects: 0, ..plain() };
    let found = anywhere(config).send(Request::get(&first.url("/loop")).expect("a URL")).await.expect("as it is");
    assert_eq!(found.status, StatusCode::MOVED_PERMANENTLY);
}

#[tokio::test]
async fn tls_is_not_given_up_on_the_way() {
    let last = Server::start(|_, _| answer("200 OK", &[], "there"));
    let target = last.url("/");
    let own = TestAuthority::new("one");
    let first = Server::with_tls(own.server("127.0.0.1", false), move |_, _| {
        answer("302 Found", &[&format!("Location: {target}")], "")
    });
    let trust = Trust::Only(Authorities::from_pem(own.pem().as_bytes()).expect("a certificate"));
    let error = get(&anywhere(Config { trust, ..plain() }), &format!("https://{}/", first.address)).await;
    let error = error.expect_err("refused");
    let expected = format!("{} redirects to {}: that would be without TLS", first.address, last.address);
    assert_eq!(error.to_string(), expected);
    assert!(last.requests().is_empty());
}

#[tokio::test]
async fn answers_have_limits() {
    let server = Server::start(|_, request| match request.split(' ').nth(1).unwrap_or_default() {
        "/large" => answer("200 OK", &[], &"x".repeat(2_000)),
        "/endless" => (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n"
                .iter()
                .copied()
                .chain([b'x'; 0x400])
                .chain(*b"\r\n400\r\n")
                .chain([b'x'; 0x400])
                .collect(),
            Then::Hangs,
        ),
        "/head" => (format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(300_000)).into_bytes(), Then::Hangs),
        "/slow" => (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab".to_vec(), Then::Hangs),
        "/silent" => (Vec::new(), Then::Hangs),
        "/short" => (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab".to_vec(), Then::Closes),
        "/other" => (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), Then::Closes),
        _ => answer("404 Not Found", &[], ""),
    });
    let client = anywhere(plain());
    let moment = Duration::from_millis(50);
    let failed = async |path: &str, limits: Limits| {
        let answer = client.send(Request::get(&server.url(path)).expect("a URL").limits(limits)).await;
        match answer {
            Ok(answer) => answer.bytes().await.expect_err(path),
            Err(error) => error,
        }
    };
    let address = server.address;
    for path in ["/large", "/endless"] {
        let error = failed(path, Limits { body_bytes: 1_500, ..LIMITS }).await;
        assert_eq!(error.to_string(), format!("the answer of {address} is larger than 1500 bytes"), "{path}");
    }
    let error = failed("/head", LIMITS).await;
    assert_eq!(error.to_string(), format!("the answer of {address} is larger than 65536 bytes"));
    let error = failed("/slow", Limits { idle: moment, ..LIMITS }).await;
    assert!(matches!(error, FetchError::Timeout { phase: Phase::Body, .. }), "{error}");
    assert_eq!(error.to_string(), format!("the answer of {address} stopped for 0.05 seconds"));
    let error = failed("/slow", Limits { total: Some(moment), ..LIMITS }).await;
    assert!(matches!(error, FetchError::Timeout { phase: Phase::Whole, .. }), "{error}");
    let error = failed("/silent", Limits { answer: moment, ..LIMITS }).await;
    assert_eq!(error.to_string(), format!("no answer from {address} within 0.05 seconds"));
    let error = failed("/silent", Limits { total: Some(moment), ..LIMITS }).await;
    assert!(matches!(error, FetchError::Timeout { phase: Phase::Whole, .. }), "{error}");
    assert_eq!(failed("/short", LIMITS).await.kind(), "interrupted");
    let error = failed("/other", LIMITS).await;
    assert_eq!(error.to_string(), format!("what answers at {address} does not speak HTTP"));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = get(&anywhere(plain()), &format!("http://{closed}/")).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("cannot connect to {closed}: connection refused; nothing listens there"));
    assert_eq!((error.kind(), error.fault()), ("connect", Fault::Environment));
    let client = seamed(plain(), Reach::Anywhere, Some(Names::new(&[&[]])), None);
    let error = get(&client, "http://gone.test/").await.expect_err("nobody knows it");
    assert!(error.to_string().starts_with("no machine of the name gone.test is known here"), "{error}");
    // A listener whose queue is full, as a firewall that drops what comes: no connection is made.
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&listener, &"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address")).expect("bound");
    rustix::net::listen(&listener, 0).expect("listening");
    let address: std::net::SocketAddr =
        rustix::net::getsockname(&listener).expect("bound").try_into().expect("an address");
    let _first = std::net::TcpStream::connect(address).expect("the queue has one place");
    let config = Config { connect_timeout: Duration::from_millis(100), ..plain() };
    let error = get(&anywhere(config), &format!("http://{address}/")).await.expect_err("no connection");
    let is_late = matches!(error, FetchError::Timeout { phase: Phase::Connect, .. })
        || error.to_string().ends_with("it did not answer in time");
    assert!(is_late && error.is_before_sending(), "{error}");
}

#[tokio::test]
async fn what_can_be_repeated_is_and_retry_after_is_kept_to() {
    let server = Server::start(|number, _| match number {
        0 => answer("503 Service Unavailable", &["Retry-After: 7"], ""),
        1 => answer("429 Too Many Requests", &[], ""),
        _ => answer("200 OK", &[], "at last"),
    });
    let timing = TestTiming::new();
    let retries = Retries { most: 3, first_pause: Duration::from_millis(100), pause_max: Duration::from_secs(10) };
    let config = Config { retries, limits: Limits { total: None, ..LIMITS }, ..plain() };
    let client = seamed(config.clone(), Reach::Anywhere, None, Some(Arc::clone(&timing)));
    assert_eq!(get(&client, &server.url("/")).await.expect("an answer"), "at last");
    let pauses = timing.pauses();
    assert_eq!((pauses.len(), pauses[0]), (2, Duration::from_secs(7)));
    assert!((100..=200).contains(&pauses[1].as_millis()), "{pauses:?}");
    // More than is waited for: the answer is returned, not the host bothered too early.
    let patient = Server::start(|_, _| answer("503 Service Unavailable", &["Retry-After: 3600"], "later"));
    assert_eq!(get(&client, &patient.url("/")).await.expect("as it is"), "later");
    assert_eq!(patient.requests().len(), 1);
    // A POST is sent once, unless its host makes sure that twice does no harm.
    let down = Server::start(|_, _| answer("503 Service Unavailable", &[], "down"));
    let post = || Request::post(&down.url("/")).expect("a URL").body("x");
    assert_eq!(client.send(post()).await.expect("as it is").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(down.requests().len(), 1);
    client.send(post().repeatable()).await.expect("as it is");
    assert_eq!(down.requests().len(), 1 + 4);
    // A connection that breaks: a GET is repeated.
    let broken =
        Server::start(|number, _| if number < 2 { (Vec::new(), Then::Closes) } else { answer("200 OK", &[], "whole") });
    assert_eq!(get(&client, &broken.url("/")).await.expect("an answer"), "whole");
    let error = client.send(Request::post(&broken.url("/")).expect("a URL").body("x")).await;
    assert!(error.is_ok(), "{error:?}");
    let failed = seamed(Config { retries: Retries::OFF, ..config }, Reach::Anywhere, None, None);
    let once = Server::start(|_, _| (Vec::new(), Then::Closes));
    assert_eq!(get(&failed, &once.url("/")).await.expect_err("broken").kind(), "interrupted");
}

#[tokio::test]
async fn a_host_that_keeps_failing_is_left_alone_and_tried_again() {
    let is_up = Arc::new(AtomicUsize::new(0));
    let up = Arc::clone(&is_up);
    let server = Server::start(move |_, _| match up.load(Ordering::SeqCst) {
        0 => answer("502 Bad Gateway", &[], ""),
        _ => answer("200 OK", &[], "up"),
    });
    let timing = TestTiming::new();
    let breaker = BreakerConfig { failures: 2, pause: Duration::from_secs(30) };
    let client = seamed(Config { breaker, ..plain() }, Reach::Anywhere, None, Some(Arc::clone(&timing)));
    let url = server.url("/");
    for _ in 0..2 {
        get(&client, &url).await.expect("as it is");
    }
    timing.advance(Duration::from_secs(10));
    let error = get(&client, &url).await.expect_err("left alone");
    assert_eq!(
        error.to_string(),
        format!("{} failed 2 times in a row; it is asked again in 20 seconds", server.address)
    );
    assert_eq!(server.requests().len(), 2, "it was not asked");
    // The probe fails: another pause.
    timing.advance(Duration::from_secs(20));
    get(&client, &url).await.expect("the probe");
    assert_eq!(get(&client, &url).await.expect_err("left alone").kind(), "breaker_open");
    timing.advance(Duration::from_secs(30));
    is_up.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(get(&client, &url).await.expect("closed again"), "up");
    }
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn requests_are_counted_by_who_asks_and_how_they_end() {
    let server = Server::start(|_, request| match request.contains("/wrong") {
        true => answer("404 Not Found", &[], ""),
        false => answer("200 OK", &[], ""),
    });
    let metrics = Metrics::default();
    let client = Client::new(plain(), hosts(&["127.0.0.1"]), "test", metrics.clone()).expect("a client");
    for path in ["/", "/", "/wrong"] {
        get(&client, &server.url(path)).await.expect("an answer");
    }
    get(&client, "http://10.0.0.1/").await.expect_err("refused");
    for (outcome, count) in [("ok", 2), ("client_error", 1), ("refused", 1), ("connect", 0)] {
        let counted = metrics.requests.get_or_create(&FetchLabels { part: "test", outcome }).get();
        assert_eq!(counted, count, "{outcome}");
    }
}

#[test]
fn a_node_reaches_its_bucket_through_the_proxy_and_counts_it() {
    let bucket = Bucket::start();
    let address = bucket.settings()[1].1.strip_prefix("http://").expect("plain HTTP").parse().expect("an address");
    // This machine itself would be reached directly; this name is known to the proxy alone.
    let endpoint = "http://bucket.test:9000";
    for by_setting in [true, false] {
        let proxy = ProxyServer::start(address, None);
        let url = format!("http://{}", proxy.address);
        let mut settings = bucket.settings();
        settings[1].1 = endpoint.to_owned();
        settings.push((if by_setting { "CAIRN_FETCH_PROXY" } else { "HTTP_PROXY" }, url));
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let node = TestNode::with(&settings);
        node.add("notes", serde_json::json!([{"id": "a", "text": "The pump is worn."}]));
        let created = node.call("create_snapshot", serde_json::json!({}));
        assert!(created["id"].is_string(), "{created}");
        let heads = proxy.heads();
        assert!(heads.iter().any(|head| head.contains(" http://bucket.test:9000/backup")), "{heads:?}");
        assert!(node.metric("cairn_outgoing_requests_total{part=\"snapshot\",outcome=\"ok\"}") > 3);
    }
}

#[test]
fn settings_of_outgoing_http_are_checked() {
    for (key, value, words) in [
        ("CAIRN_FETCH_PROXY", "socks5://a:1", "expected http://HOST:PORT"),
        ("CAIRN_FETCH_PROXY", "http://user:hidden@a:1", "say them in HTTPS_PROXY"),
        ("CAIRN_FETCH_CONNECT_TIMEOUT", "0s", "expected a duration of at least 1ms"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = cairn();
        command.args(["serve", "--data-dir"]).arg(directory.path()).env(key, value);
        let output = command.output().expect("it runs");
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(!output.status.success() && said.contains(words) && !said.contains("hidden"), "{said}");
    }
}
