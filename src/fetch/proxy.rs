//! Proxies: which requests use one.
//!
//! Invariant: this machine itself is never reached through a proxy, regardless of the settings.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::FetchError;
use super::reach::plain_address;

/// Which requests use which proxy.
#[derive(Clone, Default)]
pub struct Proxy(Option<Arc<Rules>>);

/// The settings, and the library's matcher for them.
struct Rules {
    source: Source,
    matcher: Matcher,
}

/// Proxy addresses by scheme; empty for none.
#[derive(Clone, Default, PartialEq, Eq)]
struct Source {
    all: String,
    https: String,
    http: String,
    no: String,
}

impl Proxy {
    /// No proxy.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One proxy for all requests.
    ///
    /// * `url`: `http://[USER:PASSWORD@]HOST:PORT`.
    /// * `no_proxy`: the hosts that are reached directly, separated by commas: names, which include their subdomains,
    ///   addresses, and networks such as `10.0.0.0/8`.
    ///
    /// # Errors
    /// When the URL is not the address of an HTTP proxy.
    pub fn new(url: &str, no_proxy: &str) -> Result<Self, FetchError> {
        let parsed: Option<Uri> = url.parse().ok().filter(|url: &Uri| url.authority().is_some());
        if !parsed.is_some_and(|url| matches!(url.scheme_str(), None | Some("http"))) {
            let what = format!("the proxy is '{}', expected http://HOST:PORT", without_password(url));
            return Err(FetchError::Setting { what });
        }
        Ok(Self::of_source(Source { all: url.to_owned(), no: no_proxy.to_owned(), ..Source::default() }))
    }

    /// Proxies from the usual variables: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower
    /// case.
    ///
    /// * `variable`: looks one up.
    #[must_use]
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let any = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.unwrap_or_default()
        };
        let (all, https, no) = (any("ALL_PROXY"), any("HTTPS_PROXY"), any("NO_PROXY"));
        // A CGI program receives its client's header `Proxy` under this name.
        let http = if variable("REQUEST_METHOD").is_some() { String::new() } else { any("HTTP_PROXY") };
        if all.is_empty() && https.is_empty() && http.is_empty() {
            return Self::none();
        }
        Self::of_source(Source { all, https, http, no })
    }

    fn of_source(source: Source) -> Self {
        let Source { all, https, http, no } = source.clone();
        let matcher = Matcher::builder().all(all).https(https).http(http).no(no).build();
        Self(Some(Arc::new(Rules { source, matcher })))
    }

    /// Proxies from the variables of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The proxy for a request; `None` for a direct connection.
    pub(super) fn of(&self, target: &Uri) -> Option<Intercept> {
        let matcher = &self.0.as_ref()?.matcher;
        let host = target.host()?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_here =
            host == "localhost" || host.parse().is_ok_and(|address: IpAddr| plain_address(address).is_loopback());
        if is_here { None } else { matcher.intercept(target) }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library drops credentials.
        self.0.as_ref().map(|rules| &rules.matcher).fmt(formatter)
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let source = |proxy: &Self| proxy.0.as_ref().map(|rules| rules.source.clone());
        source(self) == source(other)
    }
}

/// A URL for messages.
pub(super) fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://")).unwrap_or_default();
            format!("{scheme}…@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(variables: &'static [(&str, &str)]) -> Proxy {
        Proxy::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn through(proxy: &Proxy, target: &str) -> Option<String> {
        proxy.of(&target.parse().expect("a URL")).map(|found| found.uri().authority().expect("a host").to_string())
    }

    #[test]
    fn the_usual_variables_say_what_goes_through_a_proxy() {
        let proxy = by(&[
            ("HTTPS_PROXY", "http://user:secret@secure.test:3128"),
            ("http_proxy", "plain.test:8080"),
            ("NO_PROXY", "example.org, 10.0.0.0/8,192.0.2.7,fd00::/8"),
        ]);
        assert_eq!(through(&proxy, "https://a.test/").as_deref(), Some("secure.test:3128"));
        assert_eq!(through(&proxy, "http://a.test/").as_deref(), Some("plain.test:8080"));
        for direct in [
            "https://example.org/",
            "http://a.example.org/",
            "http://10.1.2.3/",
            "http://192.0.2.7:9/",
            "https://[fd00::1]/",
            "http://localhost:7171/",
            "http://127.0.0.1:7171/",
            "http://[::1]:7171/",
        ] {
            assert_eq!(through(&proxy, direct), None, "{direct}");
        }
        assert_eq!(through(&proxy, "http://notexample.org/").as_deref(), Some("plain.test:8080"));
        let sent = proxy.of(&"https://a.test/".parse().expect("a URL")).expect("a proxy");
        assert_eq!(sent.basic_auth().expect("credentials"), "Basic dXNlcjpzZWNyZXQ=");
        assert!(!format!("{proxy:?}").contains("secret"));
        let all = by(&[("ALL_PROXY", "http://all.test:1"), ("HTTPS_PROXY", "http://secure.test:2")]);
        assert_eq!(through(&all, "https://a.test/").as_deref(), Some("secure.test:2"));
        assert_eq!(through(&all, "http://a.test/").as_deref(), Some("all.test:1"));
        let cgi = by(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil.test:1")]);
        assert_eq!(through(&cgi, "http://a.test/"), None);
        assert_eq!(through(&by(&[]), "http://a.test/"), None);
    }

    #[test]
    fn a_proxy_that_is_set_speaks_http() {
        let proxy = Proxy::new("http://proxy.test:3128", "*.skip.test,.direct.test").expect("valid");
        assert_eq!(through(&proxy, "https://a.test/").as_deref(), Some("proxy.test:3128"));
        assert_eq!(through(&proxy, "https://a.direct.test/"), None);
        for wrong in ["socks5://user:secret@a:1", "https://user:secret@a:1", "/path", "http://", "http://a b"] {
            let error = Proxy::new(wrong, "").expect_err(wrong).to_string();
            assert!(error.contains("expected http://HOST:PORT") && !error.contains("secret"), "{error}");
        }
    }
}
