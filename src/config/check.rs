//! Rules that more than one key is needed for. Types, ranges and unknown keys are found where a key is read.

use super::Config;
use super::problem::Problem;
use crate::base::tree::{Node, Value};
use crate::base::with_causes;
use crate::fetch;

/// Notes which rules the settings break.
pub(super) struct Checker<'a> {
    settings: &'a Node,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// * `settings`: where the values came from.
    pub(super) fn new(settings: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self { settings, problems }
    }

    /// Notes a problem with the value of a key.
    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let origin = self.settings.at(&path).map_or_else(|| "default".to_owned(), |node| node.origin.to_string());
        self.problems.push(Problem { key: key.to_owned(), origin, message: message.into() });
    }

    /// Checks settings whose values are valid one by one.
    pub(super) fn check(&mut self, config: &Config) {
        if config.server.listen == config.admin_listen && config.server.listen.port() != 0 {
            self.refuse("admin.listen", format!("{} is the address of server.listen too", config.admin_listen));
        }
        if config.ingest.passage_tokens > config.ingest.passage_tokens_max {
            let most = config.ingest.passage_tokens_max;
            self.refuse("ingest.passage_tokens", format!("more than ingest.passage_tokens_max ({most})"));
        }
        let (certificate, key) = ("server.tls_certificate_file", "server.tls_key_file");
        match (&config.server.tls_certificate_file, &config.server.tls_key_file) {
            (Some(_), None) => {
                self.refuse(key, format!("is empty, and {certificate} is not: a certificate needs its key"));
            }
            (None, Some(_)) => {
                self.refuse(certificate, format!("is empty, and {key} is not: a key needs its certificate"));
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        if !self.text("fetch", "no_proxy").is_empty() && self.text("fetch", "proxy").is_empty() {
            let message = "has no effect, because fetch.proxy is empty; with the proxy of HTTPS_PROXY and the like, name the hosts in NO_PROXY";
            self.refuse("fetch.no_proxy", message);
        }
    }

    /// Checks what settings need of the machine that they are for, if that is this one.
    pub(super) fn check_here(&mut self, config: &Config) {
        if let fetch::Trust::SystemAnd(path) = &config.fetch.trust
            && let Err(error) = fetch::Authorities::read(path)
        {
            self.refuse("fetch.ca_file", with_causes(&error));
        }
    }

    /// The text of a key; empty where it is none.
    fn text(&self, section: &str, key: &str) -> &str {
        let node = self.settings.at(&[section.to_owned(), key.to_owned()]);
        match node.map(|node| &node.value) {
            Some(Value::Scalar(toml::Value::String(text))) => text,
            _ => "",
        }
    }
}
