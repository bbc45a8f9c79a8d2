//! The origin of a chain: service and host, as written in subjects, keys and paths.

use std::fmt;

#[cfg(any(test, feature = "nats", feature = "objects"))]
use crate::address::percent_decoded;
use crate::sink::SinkError;

/// The service that writes a log, and the host that it runs on.
///
/// One log has one origin: two logs of the same service on one host need two names. In subjects, keys and
/// paths, letters, digits, `-`, `_` and `.` are written as they are. Every other byte is written as `%` and
/// two upper-case hexadecimal digits, and so is a `.` where it would have another meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    service: String,
    host: String,
}

/// The longest service or host, in bytes after encoding.
const MAX_LEN: usize = 200;

impl Origin {
    /// Creates the origin of this service on this host.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if one of them is empty, has a control character, or has more than 200 bytes
    /// after encoding.
    pub fn new(service: impl Into<String>, host: impl Into<String>) -> Result<Self, SinkError> {
        let origin = Self { service: service.into(), host: host.into() };
        for (what, name) in [("service", &origin.service), ("host", &origin.host)] {
            if name.is_empty() || name.chars().any(char::is_control) || encoded(name, true).len() > MAX_LEN {
                let reason = format!(
                    "the {what} of a log is 1 to {MAX_LEN} bytes without control characters, and not {name:?}"
                );
                return Err(SinkError::Setup { reason });
            }
        }
        Ok(origin)
    }

    /// Creates the origin of this service on this machine, by its host name.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn here(service: impl Into<String>) -> Result<Self, SinkError> {
        let name = rustix::system::uname();
        Self::new(service, name.nodename().to_string_lossy())
    }

    /// Takes the origin from a URL, else from the settings; without a host, from this machine. `None` if
    /// nothing names a service.
    #[cfg(any(feature = "nats", feature = "objects"))]
    pub(crate) fn of(
        (service, host): (Option<&str>, Option<&str>),
        or_else: (Option<&str>, Option<&str>),
    ) -> Result<Option<Self>, SinkError> {
        let Some(service) = service.or(or_else.0) else { return Ok(None) };
        match host.or(or_else.1) {
            Some(host) => Self::new(service, host).map(Some),
            None => Self::here(service).map(Some),
        }
    }

    /// Returns the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns both as parts of a path or key.
    pub(crate) fn path_parts(&self) -> (String, String) {
        (encoded(&self.service, false), encoded(&self.host, false))
    }

    /// Returns both as tokens of a subject.
    #[cfg(any(test, feature = "nats", feature = "objects"))]
    pub(crate) fn tokens(&self) -> (String, String) {
        (encoded(&self.service, true), encoded(&self.host, true))
    }

    /// Parses both as written in a subject, key or path. `None` if they are not written as this version
    /// writes them, so that one origin never has two names.
    #[cfg(any(test, feature = "nats", feature = "objects"))]
    pub(crate) fn parse(service: &str, host: &str) -> Option<Self> {
        let origin = Self::new(percent_decoded(service)?, percent_decoded(host)?).ok()?;
        let written = (service.to_owned(), host.to_owned());
        (origin.path_parts() == written || origin.tokens() == written).then_some(origin)
    }
}

/// `service/host`, as in paths.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, host) = self.path_parts();
        write!(f, "{service}/{host}")
    }
}

fn encoded(name: &str, in_subject: bool) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(byte.into()),
            // A leading dot would hide a file, or mean this or the parent directory.
            b'.' if at > 0 && !in_subject => text.push('.'),
            _ => text.extend(["%", &format!("{byte:02X}")]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_to_subjects_and_paths_and_parsed_back() {
        let origin = Origin::new("web shop", "n1.example").unwrap();
        assert_eq!(origin.path_parts(), ("web%20shop".into(), "n1.example".into()));
        assert_eq!(origin.tokens(), ("web%20shop".into(), "n1%2Eexample".into()));
        assert_eq!(origin.to_string(), "web%20shop/n1.example");
        for names in [("web%20shop", "n1.example"), ("web%20shop", "n1%2Eexample")] {
            assert_eq!(Origin::parse(names.0, names.1), Some(origin.clone()));
        }
        for odd in ["*", ">", "..", ".", "/", "a/b", "%", "é", "日本", "a\u{202e}b"] {
            let origin = Origin::new(odd, odd).unwrap();
            let (path, token) = (origin.path_parts().0, origin.tokens().0);
            assert!(!path.starts_with('.') && !path.contains('/'), "{path}");
            assert!(!token.contains(['.', '*', '>', ' ', '/']) && token.is_ascii(), "{token}");
            assert_eq!(Origin::parse(&path, &path), Some(origin.clone()));
            assert_eq!(Origin::parse(&token, &token), Some(origin));
        }
    }

    #[test]
    fn one_origin_has_one_name() {
        for (service, host) in [
            ("web%20shop", "%6E1"),
            ("a%2eb", "n"),
            ("%", "n"),
            ("%4", "n"),
            ("a b", "n"),
            ("", "n"),
            ("..", "n"),
        ] {
            assert_eq!(Origin::parse(service, host), None, "{service} {host}");
        }
        for name in ["", "a\nb", "\u{85}", &"x".repeat(201)] {
            let error = Origin::new(name, "n").unwrap_err().to_string();
            assert!(error.contains("service"), "{error}");
        }
    }
}
