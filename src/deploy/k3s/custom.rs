//! Objects of operators that may run in the cluster. No library has their types, so what is used of them is written down here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;

use super::super::external_secret::StoreEntry;
use super::settings::Settings;
use super::spec::{CertManager, ExternalSecrets, Monitoring};
use super::{TOKEN_KEY, metadata};

pub use super::super::external_secret::ExternalSecret;

/// An object whose type is an operator's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Custom<S> {
    api_version: &'static str,
    kind: &'static str,
    pub(super) metadata: ObjectMeta,
    spec: S,
}

impl<S> Custom<S> {
    /// Its group and version.
    pub(super) fn version(&self) -> &'static str {
        self.api_version
    }
}

/// cert-manager's Certificate.
pub type Certificate = Custom<CertificateSpec>;
/// cert-manager's Issuer.
pub type Issuer = Custom<IssuerSpec>;
/// The Prometheus Operator's ServiceMonitor.
pub type ServiceMonitor = Custom<ServiceMonitorSpec>;
/// Traefik's ServersTransport: how it talks to what is behind it.
pub type ServersTransport = Custom<ServersTransportSpec>;

const CERT_MANAGER: &str = "cert-manager.io/v1";

/// What a certificate is for and who makes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    secret_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_name: Option<&'static str>,
    #[serde(rename = "isCA", skip_serializing_if = "Option::is_none")]
    is_ca: Option<bool>,
    duration: &'static str,
    renew_before: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_addresses: Vec<String>,
    usages: Vec<&'static str>,
    private_key: PrivateKey,
    issuer_ref: Reference,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PrivateKey {
    algorithm: &'static str,
    size: u16,
    rotation_policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Reference {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
}

/// What an issuer signs with: one of the two. No enum, because YAML would tag it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerSpec {
    /// Each certificate with its own key.
    #[serde(skip_serializing_if = "Option::is_none")]
    self_signed: Option<BTreeMap<String, String>>,
    /// With the key of an authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<Authority>,
}

/// Where an authority's certificate and key are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    secret_name: String,
}

/// An authority that lives in the namespace, where no issuer is given: a certificate that signs itself, and an issuer that signs
/// with it.
pub(super) fn authority(settings: &Settings) -> (Issuer, Certificate, Issuer) {
    let names = settings.names();
    let (root_issuer, authority) = (names.self_signed_issuer(), names.authority());
    let issuer = |name: &str, spec| Custom {
        api_version: CERT_MANAGER,
        kind: "Issuer",
        metadata: metadata(settings, name, "certificate"),
        spec,
    };
    let root = Custom {
        api_version: CERT_MANAGER,
        kind: "Certificate",
        metadata: metadata(settings, authority.as_str(), "certificate"),
        spec: CertificateSpec {
            common_name: Some("Cairn"),
            is_ca: Some(true),
            // Clients are configured to trust it once, so it has to last.
            duration: "87600h",
            renew_before: "720h",
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: vec!["cert sign", "crl sign"],
            ..certificate_spec(authority.clone(), (root_issuer.clone(), "Issuer".to_owned()), "Never")
        },
    };
    let by_itself = IssuerSpec { self_signed: Some(BTreeMap::new()), ca: None };
    let by_authority = IssuerSpec { self_signed: None, ca: Some(Authority { secret_name: authority }) };
    (issuer(&root_issuer, by_itself), root, issuer(names.node(), by_authority))
}

pub(super) fn certificate(settings: &Settings, certificate: &CertManager) -> Certificate {
    let named = certificate.issuer.as_ref().map(|name| (name.to_string(), certificate.issuer_kind.name().to_owned()));
    let issuer = named.unwrap_or_else(|| (settings.name().to_owned(), "Issuer".to_owned()));
    let hosts = settings.service_names().into_iter().chain(settings.hosts.iter().cloned());
    let (addresses, names) = hosts.partition(|host| host.parse::<std::net::IpAddr>().is_ok());
    Custom {
        api_version: CERT_MANAGER,
        kind: "Certificate",
        metadata: metadata(settings, settings.name(), "certificate"),
        spec: CertificateSpec {
            dns_names: names,
            ip_addresses: addresses,
            ..certificate_spec(settings.names().tls_secret(), issuer, "Always")
        },
    }
}

fn certificate_spec(
    secret_name: String,
    (name, kind): (String, String),
    rotation_policy: &'static str,
) -> CertificateSpec {
    CertificateSpec {
        secret_name,
        common_name: None,
        is_ca: None,
        duration: "2160h",
        renew_before: "720h",
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        usages: vec!["digital signature", "server auth"],
        private_key: PrivateKey { algorithm: "ECDSA", size: 256, rotation_policy },
        issuer_ref: Reference { name, kind, group: Some("cert-manager.io") },
    }
}

pub(super) fn external_secret(settings: &Settings, secret: &ExternalSecrets) -> ExternalSecret {
    let entry = StoreEntry {
        secret_key: TOKEN_KEY.to_owned(),
        key: secret.key.clone(),
        property: Some(secret.property.to_string()).filter(|property| !property.is_empty()),
    };
    let store = secret.store.to_string();
    let metadata = metadata(settings, settings.names().token_secret(), "token");
    ExternalSecret::new(metadata, (&store, secret.store_kind.name()), vec![entry])
}

/// What is scraped.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    selector: LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    port: &'static str,
    path: &'static str,
    interval: String,
    scheme: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_config: Option<TlsConfig>,
    authorization: Authorization,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<SecretOrConfigMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    insecure_skip_verify: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct SecretOrConfigMap {
    secret: SecretKey,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct SecretKey {
    name: String,
    key: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Authorization {
    #[serde(rename = "type")]
    kind: &'static str,
    credentials: SecretKey,
}

pub(super) fn service_monitor(settings: &Settings, monitoring: &Monitoring) -> ServiceMonitor {
    let mut metadata = metadata(settings, settings.name(), "monitoring");
    if let (Some(labels), Some(release)) = (&mut metadata.labels, &monitoring.release) {
        labels.insert("release".to_owned(), release.to_string());
    }
    let tls = if settings.spec.cert_manager.is_some() {
        TlsConfig {
            server_name: Some(server_name(settings)),
            ca: Some(SecretOrConfigMap { secret: SecretKey { name: settings.names().tls_secret(), key: "ca.crt" } }),
            insecure_skip_verify: None,
        }
    } else {
        // The node's own authority is in no Secret that Prometheus could read.
        TlsConfig { server_name: None, ca: None, insecure_skip_verify: Some(true) }
    };
    // The headless Service: the other one has no port for it.
    let mut labels = settings.names().selector_labels();
    labels.insert("app.kubernetes.io/component".to_owned(), "headless".to_owned());
    Custom {
        api_version: "monitoring.coreos.com/v1",
        kind: "ServiceMonitor",
        metadata,
        spec: ServiceMonitorSpec {
            selector: LabelSelector { match_labels: Some(labels), ..LabelSelector::default() },
            endpoints: vec![Endpoint {
                port: "admin",
                path: "/metrics",
                interval: monitoring.interval.to_string(),
                scheme: if settings.is_tls() { "https" } else { "http" },
                tls_config: settings.is_tls().then_some(tls),
                authorization: Authorization {
                    kind: "Bearer",
                    credentials: SecretKey { name: settings.names().token_secret(), key: TOKEN_KEY },
                },
            }],
        },
    }
}

/// The Prometheus Operator's PrometheusRule.
pub type PrometheusRule = Custom<PrometheusRuleSpec>;

/// What is alerted on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrometheusRuleSpec {
    groups: Vec<RuleGroup>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Rule {
    alert: &'static str,
    expr: String,
    #[serde(rename = "for")]
    for_: &'static str,
    labels: BTreeMap<&'static str, &'static str>,
    annotations: BTreeMap<&'static str, &'static str>,
}

/// The alerts that the manual names.
pub(super) fn rules(settings: &Settings, monitoring: &Monitoring) -> PrometheusRule {
    let mut metadata = metadata(settings, settings.name(), "monitoring");
    if let (Some(labels), Some(release)) = (&mut metadata.labels, &monitoring.release) {
        labels.insert("release".to_owned(), release.to_string());
    }
    let rule = |alert, expr: String, for_, severity, summary| Rule {
        alert,
        expr,
        for_,
        labels: BTreeMap::from([("severity", severity)]),
        annotations: BTreeMap::from([("summary", summary)]),
    };
    let (namespace, service) = (settings.namespace(), settings.names().headless());
    // Of all nodes of the namespace: what two rules say of one node is one alert.
    let here = format!("{{namespace=\"{namespace}\"}}");
    let rules = vec![
        rule(
            "CairnDown",
            format!("absent(up{{namespace=\"{namespace}\",service=\"{service}\"}} == 1)"),
            "5m",
            "critical",
            "Cairn does not answer its scrapes",
        ),
        rule(
            "CairnReadOnly",
            format!("cairn_read_only{here} == 1"),
            "5m",
            "critical",
            "Cairn refuses writes; `cairn status` says why",
        ),
        rule(
            "CairnSheds",
            format!("increase(cairn_requests_shed_total{here}[10m]) > 0"),
            "10m",
            "warning",
            "Cairn refuses requests because too many are in flight",
        ),
        rule(
            "CairnRecall",
            format!("cairn_vector_recall{here} < 0.8"),
            "15m",
            "warning",
            "The vector graph of a collection finds too little",
        ),
        rule(
            "CairnSnapshotOld",
            format!("cairn_snapshot_age_seconds{here} > 172800"),
            "1h",
            "warning",
            "There is no snapshot of the last two days",
        ),
    ];
    Custom {
        api_version: "monitoring.coreos.com/v1",
        kind: "PrometheusRule",
        metadata,
        spec: PrometheusRuleSpec { groups: vec![RuleGroup { name: settings.name().to_owned(), rules }] },
    }
}

/// How Traefik talks to the pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServersTransportSpec {
    server_name: String,
    #[serde(rename = "rootCAsSecrets", skip_serializing_if = "Vec::is_empty")]
    root_cas_secrets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    insecure_skip_verify: Option<bool>,
}

pub(super) fn servers_transport(settings: &Settings) -> ServersTransport {
    let has_authority = settings.spec.cert_manager.is_some();
    Custom {
        api_version: "traefik.io/v1alpha1",
        kind: "ServersTransport",
        metadata: metadata(settings, settings.name(), "ingress"),
        spec: ServersTransportSpec {
            server_name: server_name(settings),
            root_cas_secrets: if has_authority { vec![settings.names().tls_secret()] } else { Vec::new() },
            // The node's own authority is in no Secret; between Traefik and the pod only the cluster listens.
            insecure_skip_verify: (!has_authority).then_some(true),
        },
    }
}

/// The name that the certificate has in every variant.
fn server_name(settings: &Settings) -> String {
    format!("{}.{}.svc", settings.name(), settings.namespace())
}
