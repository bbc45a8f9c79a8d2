//! The URL of a stream, and credentials from the environment.

use std::{env, fmt, net::IpAddr, path::PathBuf, str::FromStr};

use async_nats::ServerAddr;

use super::{config::NatsAllow, failure::setup};
use crate::{address::percent_decoded, sink::SinkError};

/// The parts of a URL.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) stream: String,
    pub(super) tls: Tls,
    pub(super) credentials: Credentials,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) inbox: Option<String>,
    /// `$JS.API`, or the API prefix of a domain.
    pub(super) api: String,
    pub(super) service: Option<String>,
    pub(super) host: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) allow: Vec<NatsAllow>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    /// Only if the server requires it.
    AsTheServer,
    Required,
    /// From the first byte, before the server's first message.
    First,
}

/// The credentials of a client. Without `Debug`, which would print them.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Password(String, String),
    Token(String),
    File(PathBuf),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("servers", &self.shown())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Returns the servers, for messages.
    pub(super) fn shown(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        hosts.join(",")
    }

    /// Returns the credentials of the URL, else those of the environment.
    pub(super) fn credentials(&self) -> Credentials {
        let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
        if self.credentials != Credentials::None {
            return self.credentials.clone();
        }
        if let Some(file) = variable("NATS_CREDS") {
            return Credentials::File(file.into());
        }
        match (variable("NATS_USER"), variable("NATS_PASSWORD"), variable("NATS_TOKEN")) {
            (Some(user), Some(password), _) => Credentials::Password(user, password),
            (_, _, Some(token)) => Credentials::Token(token),
            _ => Credentials::None,
        }
    }
}

impl FromStr for Target {
    type Err = SinkError;

    fn from_str(url: &str) -> Result<Self, SinkError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        let is_tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(bad("its scheme is neither nats nor tls")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, stream) = rest.split_once('/').ok_or_else(|| bad("it names no stream"))?;
        let (user, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
        let stream = percent_decoded(stream).ok_or_else(|| bad(BAD_PERCENT))?;
        if stream.is_empty() || stream.contains(|c: char| " .*>/\\".contains(c) || c.is_control()) {
            return Err(bad("the name of the stream is empty, or has a character that is not allowed in it"));
        }
        let servers = hosts.split(',').map(|host| server(scheme, host)).collect::<Result<Vec<_>, _>>()?;
        let credentials = match user.map(|user| user.split_once(':').ok_or(user)) {
            None => Credentials::None,
            Some(Ok((user, password))) => {
                let (user, password) =
                    percent_decoded(user).zip(percent_decoded(password)).ok_or_else(|| bad(BAD_PERCENT))?;
                Credentials::Password(user, password)
            }
            Some(Err(token)) => Credentials::Token(percent_decoded(token).ok_or_else(|| bad(BAD_PERCENT))?),
        };
        let mut target = Self {
            servers,
            stream,
            tls: if is_tls { Tls::Required } else { Tls::AsTheServer },
            credentials,
            root_certificates: None,
            client_certificate: None,
            inbox: None,
            api: "$JS.API".to_owned(),
            service: None,
            host: None,
            prefix: None,
            allow: Vec::new(),
        };
        let mut others = Others::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decoded(value).ok_or_else(|| bad(BAD_PERCENT))?;
            target.take(name, value, &mut others)?;
        }
        target.client_certificate = match (others.certificate, others.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(bad("only one of cert and key is given")),
        };
        if target.tls == Tls::AsTheServer && !others.is_tls_off && !target.servers.iter().all(is_here) {
            return Err(bad(
                "the connection to another machine would not be encrypted; use tls:// instead of nats://, or add tls=off \
                 to allow that",
            ));
        }
        Ok(target)
    }
}

/// Parameters that only make sense together.
#[derive(Default)]
struct Others {
    is_tls_off: bool,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Target {
    fn take(&mut self, name: &str, value: String, others: &mut Others) -> Result<(), SinkError> {
        match name {
            "service" => self.service = Some(value),
            "host" => self.host = Some(value),
            "prefix" => self.prefix = Some(value),
            "creds" => self.credentials = Credentials::File(value.into()),
            "ca" => self.root_certificates = Some(value.into()),
            "cert" => others.certificate = Some(value.into()),
            "key" => others.key = Some(value.into()),
            "inbox" if is_subject(&value) => self.inbox = Some(value),
            "domain" if is_subject(&value) => self.api = format!("$JS.{value}.API"),
            "allow" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    self.allow.push(name.parse()?);
                }
            }
            "tls" if value == "off" && self.tls == Tls::AsTheServer => others.is_tls_off = true,
            "tls" if value == "first" => self.tls = Tls::First,
            _ => return Err(bad("it has a parameter, or a value of one, that is not known")),
        }
        Ok(())
    }
}

/// Returns whether a text can be part of a subject.
fn is_subject(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| "*>".contains(c) || c.is_whitespace() || c.is_control())
}

fn server(scheme: &str, host: &str) -> Result<ServerAddr, SinkError> {
    if host.is_empty() || host.contains(|c: char| c == '@' || c.is_whitespace()) {
        return Err(bad("a host is missing"));
    }
    format!("{scheme}://{host}").parse().map_err(|_| bad("a host or port cannot be read"))
}

/// Returns whether a server is on this machine.
fn is_here(server: &ServerAddr) -> bool {
    let host = server.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

const BAD_PERCENT: &str = "its percent-encoding is invalid";

/// Returns an error without the URL, which may contain a password.
fn bad(why: &str) -> SinkError {
    setup(format!(
        "the URL of the stream cannot be used: {why}; it is nats://host:port/STREAM?service=NAME&parameter=value, with \
         special characters percent-encoded"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_servers_a_stream_and_credentials() {
        let url = "nats://u%3Ax:p%40@127.0.0.1:4222,localhost/AUDIT?service=web%20shop&host=n1&prefix=a.b&allow=memory,delete";
        let target: Target = url.parse().unwrap();
        assert_eq!(target.shown(), "127.0.0.1:4222,localhost:4222");
        assert!(target.credentials == Credentials::Password("u:x".into(), "p@".into()));
        assert_eq!((target.stream.as_str(), target.service.as_deref()), ("AUDIT", Some("web shop")));
        assert_eq!((target.host.as_deref(), target.prefix.as_deref()), (Some("n1"), Some("a.b")));
        assert_eq!(target.allow, [NatsAllow::Memory, NatsAllow::Delete]);
        let target: Target = "tls://tok@nats.example/AUDIT?ca=/ca.pem&domain=leaf".parse().unwrap();
        assert!(target.credentials == Credentials::Token("tok".into()) && target.tls == Tls::Required);
        assert_eq!(target.api, "$JS.leaf.API");
        let target: Target = "tls://nats.example/AUDIT?creds=/a%20b&tls=first".parse().unwrap();
        assert!(target.credentials == Credentials::File("/a b".into()) && target.tls == Tls::First);
    }

    #[test]
    fn only_this_machine_is_contacted_without_tls() {
        for here in ["localhost", "127.0.0.1:1", "[::1]:4222", "localhost,127.1.2.3"] {
            assert!(format!("nats://{here}/A").parse::<Target>().is_ok(), "{here}");
        }
        for there in
            ["nats.example", "10.0.0.1", "localhost,nats.example", "localhost.example", "[2001:db8::1]"]
        {
            let error = format!("nats://{there}/A").parse::<Target>().unwrap_err();
            assert!(error.to_string().contains("tls://"), "{error}");
            assert!(format!("nats://{there}/A?tls=off").parse::<Target>().is_ok(), "{there}");
            assert!(format!("tls://{there}/A").parse::<Target>().is_ok(), "{there}");
        }
        assert!("tls://nats.example/A?tls=off".parse::<Target>().is_err());
    }

    #[test]
    fn no_error_contains_a_password() {
        for bad in [
            "nats://u:Secr3t@h:port/A",
            "nats://u:Secr3t@127.0.0.1",
            "nats://u:Secr3t@127.0.0.1/A?Secr3t=1",
            "nats://u:Secr3t@127.0.0.1/A?allow=Secr3t",
            "nats://u:Secr3t%@127.0.0.1/A",
            "nats://u:Secr3t@h/A",
            "http://u:Secr3t@127.0.0.1/A",
            "nats://u:Secr3t/x@127.0.0.1/A",
            "nats://u:Secr3t@127.0.0.1/A.B",
            "Secr3t",
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("Secr3t"), "{error}");
        }
        let target: Target = "nats://u:Secr3t@127.0.0.1/A".parse().unwrap();
        assert!(!format!("{target:?}").contains("Secr3t"));
    }
}
