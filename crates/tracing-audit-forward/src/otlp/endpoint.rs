//! The URL of a receiver, split into what is requested, what may be shown, and what is secret.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ureq::http::Uri;

use super::{percent, setup};
use crate::{SinkError, address::is_this_machine};

/// The path of logs in OTLP over HTTP (OTLP specification, "OTLP/HTTP Request").
const LOGS: &str = "/v1/logs";

/// The address of a receiver.
pub(super) struct Endpoint {
    /// The whole URL, without user and password.
    pub(super) url: String,
    /// Scheme, host and port. Nothing else of the URL is ever shown, because some vendors put a token into
    /// the path.
    pub(super) shown: String,
    /// Whether requests cross a network without TLS.
    pub(super) is_in_the_clear: bool,
    /// The value of the header `authorization`, if the URL has a user.
    pub(super) authorization: Option<String>,
    /// What must not appear in an error: the password, the path and the query, unless they are trivial.
    pub(super) secrets: Vec<String>,
}

impl Endpoint {
    /// Parses a URL. A path that does not end in `/v1/logs` is a base, to which that is appended.
    pub(super) fn parse(url: &str) -> Result<Self, SinkError> {
        // The error contains nothing of the input, which may be a password in the wrong place.
        let no_url = || {
            setup(
                "the endpoint is not a URL such as http://127.0.0.1:4318 or https://host/v1/logs".to_owned(),
            )
        };
        let uri: Uri = url.trim().parse().map_err(|_| no_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(no_url());
        };
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        // Anything after the host must be a colon and the port.
        let has_bad_port = host.len() != authority.host().len() && authority.port_u16().is_none();
        if !matches!(scheme, "http" | "https") || authority.host().is_empty() || has_bad_port {
            return Err(no_url());
        }
        let base = uri.path().trim_end_matches('/');
        let path = if base.ends_with(LOGS) { base.to_owned() } else { format!("{base}{LOGS}") };
        let mut secrets = Vec::new();
        if path != LOGS {
            secrets.push(path.clone());
        }
        let query = uri.query().map(|query| {
            secrets.push(query.to_owned());
            format!("?{query}")
        });
        let shown = format!("{scheme}://{host}");
        let url = format!("{shown}{path}{}", query.unwrap_or_default());
        let authorization = user.map(|user| {
            // RFC 7617 requires the colon even without a password.
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let (name, password) = (percent::decode(name), percent::decode(password));
            let credentials = BASE64_STANDARD.encode([name.as_slice(), b":", password.as_slice()].concat());
            secrets.push(user.to_owned());
            secrets.extend(String::from_utf8(password));
            format!("Basic {credentials}")
        });
        let is_in_the_clear = scheme == "http" && !is_this_machine(authority.host());
        Ok(Self { url, shown, is_in_the_clear, authorization, secrets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &str, url: &str, shown: &str) {
        let endpoint = Endpoint::parse(given).unwrap();
        assert_eq!((endpoint.url.as_str(), endpoint.shown.as_str()), (url, shown));
    }

    #[test]
    fn a_base_url_gets_the_path_of_logs_and_a_complete_one_is_kept() {
        check("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs", "http://127.0.0.1:4318");
        check("http://[::1]:4318/", "http://[::1]:4318/v1/logs", "http://[::1]:4318");
        check("https://host/v1/logs", "https://host/v1/logs", "https://host");
        check("https://host/v1/logs/", "https://host/v1/logs", "https://host");
        check("https://host/otlp", "https://host/otlp/v1/logs", "https://host");
        check("https://host/otlp/?key=secret", "https://host/otlp/v1/logs?key=secret", "https://host");
    }

    #[test]
    fn only_http_to_another_machine_is_unencrypted() {
        for (given, expected) in [
            ("http://127.0.0.1:4318", false),
            ("http://[::1]:4318", false),
            ("http://LOCALHOST", false),
            ("https://collector", false),
            ("http://collector:4318", true),
            ("http://mia:x@10.0.0.1", true),
        ] {
            assert_eq!(Endpoint::parse(given).unwrap().is_in_the_clear, expected, "{given}");
        }
    }

    #[test]
    fn a_user_in_the_url_becomes_a_header() {
        let endpoint = Endpoint::parse("https://mia:s%40crXt@host:1/").unwrap();
        assert_eq!(endpoint.url, "https://host:1/v1/logs");
        assert_eq!(endpoint.shown, "https://host:1");
        assert_eq!(
            endpoint.authorization.unwrap(),
            format!("Basic {}", BASE64_STANDARD.encode("mia:s@crXt"))
        );
        let endpoint = Endpoint::parse("https://token@host").unwrap();
        assert_eq!(endpoint.authorization.unwrap(), format!("Basic {}", BASE64_STANDARD.encode("token:")));
    }

    #[test]
    fn an_invalid_url_is_refused_without_being_quoted() {
        for given in [
            "",
            "host",
            "host:4318",
            "ftp://hunter2@host",
            "http://hunter2 @host",
            "//hunter2@host",
            "/hunter2",
            "http://hunter2@",
            "http://host:",
            "http://host:99999",
            "http://hunter2:x",
            "http://[::1]:x",
        ] {
            let error = Endpoint::parse(given).err().unwrap();
            assert!(matches!(error, SinkError::Setup { .. }));
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
