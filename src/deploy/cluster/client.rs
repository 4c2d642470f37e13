//! The requests of Kubernetes' library, sent by the client of all of Cairn.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use tower_service::Service;

use crate::base::small_file;
use crate::deploy::change::Cause;
use crate::fetch::{
    self, AnswerBody, Authorities, BreakerConfig, Client, ClientCertificate, FetchError, Limits, Proxy, Reach, Request,
    Retries, Trust,
};

/// Largest answer that is read: a list of all the pods of a large cluster has some megabytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// A server that starts, or is too busy, is asked again for some seconds.
const RETRIES: Retries =
    Retries { most: 6, first_pause: Duration::from_millis(100), pause_max: Duration::from_secs(5) };

/// A client of the API by what a kubeconfig says.
///
/// * `patience`: for a connection, for the head of an answer, and between two pieces of it.
///
/// # Errors
/// When the kubeconfig asks for what cannot be done, or what it names cannot be used.
pub(super) fn client(config: &kube::Config, patience: Duration) -> Result<kube::Client, Cause> {
    if config.accept_invalid_certs {
        return Err("insecure-skip-tls-verify is not supported: name the authority in certificate-authority".into());
    }
    let trust = match &config.root_cert {
        Some(certificates) => Trust::Only(Authorities::from_der(certificates.iter().cloned())),
        None => Trust::System,
    };
    let proxy = config.proxy_url.as_ref().map(|url| Proxy::new(&url.to_string(), "")).transpose()?;
    let settings = fetch::Config {
        trust,
        certificate: certificate(&config.auth_info)?,
        server_name: config.tls_server_name.clone(),
        proxy: proxy.unwrap_or_default(),
        connect_timeout: patience,
        limits: Limits { answer: patience, idle: patience, total: None, body_bytes: ANSWER_BYTES_MAX },
        retries: RETRIES,
        breaker: BreakerConfig::OFF,
        redirects: 0,
    };
    let client = Client::new(settings, Reach::Anywhere, "cluster", crate::fetch::Metrics::default())?;
    let builder = ClientBuilder::new(Requests(client), config.default_namespace.clone());
    Ok(match config.auth_layer()? {
        None => builder.with_layer(&config.base_uri_layer()).build(),
        Some(credentials) => builder.with_layer(&credentials).with_layer(&config.base_uri_layer()).build(),
    })
}

/// The certificate of the administrator; `None` where there is none.
fn certificate(user: &AuthInfo) -> Result<Option<ClientCertificate>, Cause> {
    let one = |data: Option<&str>, file: Option<&str>| match (data, file) {
        (Some(data), _) => STANDARD.decode(data.trim()).map(Some).map_err(Cause::from),
        (None, Some(file)) => {
            small_file::read(Path::new(file)).map(Some).map_err(|error| format!("{file}: {error}").into())
        }
        (None, None) => Ok(None),
    };
    let chain = one(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key = user.client_key_data.as_ref().map(|key| key.expose_secret());
    let key = one(key, user.client_key.as_deref())?;
    let (Some(chain), Some(key)) = (chain, key) else { return Ok(None) };
    Ok(Some(ClientCertificate::from_pem(&chain, &key)?))
}

/// The client as the library wants it.
#[derive(Clone)]
struct Requests(Client);

impl Service<http::Request<Body>> for Requests {
    type Response = http::Response<AnswerBody>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // All of it is in memory already, and can so be sent again.
            let body = body.collect_bytes().await?;
            let mut request = Request::new(head.method.clone(), &head.uri.to_string())?.body(body);
            for (name, value) in &head.headers {
                request = request.header(name.clone(), value.clone());
            }
            // What is applied or patched here says what shall be there, not what is to be added.
            if head.method == http::Method::PATCH {
                request = request.repeatable();
            }
            let answer = client.send(request).await.map_err(|error: FetchError| Cause::from(error))?;
            Ok(answer.into_http())
        })
    }
}
