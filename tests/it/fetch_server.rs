//! Servers that say what a test wants them to say, and a proxy: real sockets, one thread a connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// What a server does with a connection after it has sent its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Reads the next request.
    Goes,
    /// Closes it.
    Closes,
    /// Says nothing more until the client goes away.
    Hangs,
}

/// A server that answers by a script.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

type Script = Arc<dyn Fn(usize, &str) -> (Vec<u8>, Then) + Send + Sync>;

impl Server {
    /// * `script`: from the number of the request, from 0, and its head and body, to what is sent.
    pub fn start(script: impl Fn(usize, &str) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Self {
        Self::over(None, Arc::new(script))
    }

    /// The same, over TLS.
    pub fn with_tls(
        config: ServerConfig,
        script: impl Fn(usize, &str) -> (Vec<u8>, Then) + Send + Sync + 'static,
    ) -> Self {
        Self::over(Some(Arc::new(config)), Arc::new(script))
    }

    fn over(tls: Option<Arc<ServerConfig>>, script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, script, seen) = (tls.clone(), Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || match tls {
                    None => serve(stream, &script, &seen),
                    Some(tls) => {
                        serve(StreamOwned::new(ServerConnection::new(tls).expect("valid"), stream), &script, &seen)
                    }
                });
            }
        });
        Self { address, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads and bodies that came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no poison").clone()
    }
}

fn serve(mut stream: impl Read + Write, script: &Script, seen: &Mutex<Vec<String>>) {
    while let Some(request) = read_request(&mut stream) {
        let number = {
            let mut seen = seen.lock().expect("no poison");
            seen.push(request.clone());
            seen.len() - 1
        };
        let (bytes, then) = script(number, &request);
        if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() {
            return;
        }
        match then {
            Then::Goes => {}
            Then::Closes => return,
            Then::Hangs => {
                let _ = stream.read(&mut [0]);
                return;
            }
        }
    }
}

/// A request with its body; `None` where the client goes away.
fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            let is_whole = match head.contains("transfer-encoding: chunked") {
                true => body.ends_with("0\r\n\r\n"),
                false => body.len() >= length.unwrap_or(0),
            };
            if is_whole {
                return Some(text);
            }
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// An answer with a body of this length.
pub fn answer(status: &str, headers: &[&str], body: &str) -> (Vec<u8>, Then) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    (format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), Then::Goes)
}

/// A proxy for CONNECT and for plain requests, which leads every name to one server.
pub struct ProxyServer {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ProxyServer {
    /// * `credentials`: what it asks for, as the value of the header; `None` for nothing.
    pub fn start(target: SocketAddr, credentials: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                thread::spawn(move || proxy(stream, target, credentials, &seen));
            }
        });
        Self { address, heads }
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no poison").clone()
    }
}

fn proxy(mut client: TcpStream, target: SocketAddr, credentials: Option<&str>, seen: &Mutex<Vec<String>>) {
    let Some(head) = read_request(&mut client) else { return };
    seen.lock().expect("no poison").push(head.clone());
    let is_let_in = credentials.is_none_or(|value| {
        head.lines().any(|line| line.to_ascii_lowercase().starts_with("proxy-authorization:") && line.ends_with(value))
    });
    if !is_let_in {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let mut server = TcpStream::connect(target).expect("the target listens");
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").expect("sent");
    } else {
        server.write_all(head.as_bytes()).expect("sent");
    }
    let (mut from, mut to) = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Write);
}

/// An authority of a test, which signs certificates.
pub struct TestAuthority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// A certificate with its key, both in PEM.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl TestAuthority {
    pub fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("valid");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("signed");
        Self { certificate, issuer: rcgen::Issuer::new(parameters, key) }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn sign(&self, name: &str) -> Signed {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed").pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// How a server of this name speaks TLS.
    ///
    /// * `asks`: whether clients must show a certificate of this authority.
    pub fn server(&self, name: &str, asks: bool) -> ServerConfig {
        use rustls::pki_types::pem::PemObject as _;
        let signed = self.sign(name);
        let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("a key");
        let provider = cairn::fetch::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("supported");
        let builder = match asks {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.certificate.der().clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("valid"))
            }
        };
        builder.with_single_cert(chain, key).expect("they fit")
    }
}
