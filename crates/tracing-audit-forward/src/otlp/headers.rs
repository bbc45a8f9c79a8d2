//! The headers of a request. Their values are credentials: they are sent, and never shown.

use ureq::http::{HeaderName, HeaderValue};

use super::{percent, setup};
use crate::SinkError;

/// Headers that this sink or the HTTP client sets itself.
const RESERVED: &[&str] = &[
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "host",
    "connection",
    "expect",
    "te",
];

/// The headers that are sent with each request, each name once.
#[derive(Default)]
pub(super) struct Headers(Vec<(HeaderName, HeaderValue)>);

/// A header line in a request, with the line ends before and after it. Mask and value have the same length.
pub(super) struct Line {
    pub(super) masked: Vec<u8>,
    pub(super) real: Vec<u8>,
}

impl Headers {
    /// Sets a header. A value given before under this name is replaced.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) -> Result<(), SinkError> {
        let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else {
            // The name is not shown either: somebody may have put the value in its place.
            return Err(setup("the name of a header has invalid characters".to_owned()));
        };
        if RESERVED.contains(&name.as_str()) {
            return Err(setup(format!("the header {name} cannot be set: it is the sink's own")));
        }
        let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) else {
            return Err(setup(format!("the value of the header {name} has invalid characters")));
        };
        self.0.retain(|(existing, _)| *existing != name);
        self.0.push((name, value));
        Ok(())
    }

    /// Sets the headers of a variable such as `OTEL_EXPORTER_OTLP_HEADERS`: `name=value` pairs separated by
    /// commas, values percent-encoded.
    pub(super) fn set_from_variable(&mut self, variable: &str, content: &str) -> Result<(), SinkError> {
        for (index, pair) in content.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(setup(format!("pair {} of {variable} has no `=`", index + 1)));
            };
            self.set(name, &percent::decode(value))?;
        }
        Ok(())
    }

    /// Returns each header as the HTTP client gets it: with a mask as long as its value.
    pub(super) fn masked(&self) -> impl Iterator<Item = (&HeaderName, String)> {
        self.0.iter().map(|(name, value)| (name, "*".repeat(value.len())))
    }

    /// Returns each header line, with its mask and with its value.
    pub(super) fn lines(&self) -> Vec<Line> {
        let line = |name: &HeaderName, value: &[u8]| {
            [b"\r\n".as_slice(), name.as_str().as_bytes(), b": ", value, b"\r\n"].concat()
        };
        let lines = self.masked().zip(&self.0).map(|((name, mask), (_, value))| Line {
            masked: line(name, mask.as_bytes()),
            real: line(name, value.as_bytes()),
        });
        lines.collect()
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names, which may be shown.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Returns what must not appear in a text: each value, and its last word, which is the secret of `Bearer
    /// secret`.
    pub(super) fn secrets(&self) -> impl Iterator<Item = String> {
        let values = self.0.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.flat_map(|value| {
            let last_word = value.rsplit(' ').next().unwrap_or_default().to_owned();
            [value, last_word]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: &Headers) -> Vec<(String, String)> {
        headers.0.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_variable_has_pairs_with_encoded_values() {
        let mut headers = Headers::default();
        headers.set_from_variable("V", "api-key=a%2Cb%3D, Authorization = Bearer%20x=y ,,").unwrap();
        let expected = [("api-key", "a,b="), ("authorization", "Bearer x=y")];
        assert_eq!(shown(&headers), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let mut headers = Headers::default();
        headers.set("X-Key", b"first").unwrap();
        headers.set("x-key", b"second").unwrap();
        assert_eq!(shown(&headers), [("x-key".to_owned(), "second".to_owned())]);
    }

    #[test]
    fn an_invalid_header_is_refused_without_being_quoted() {
        let mut headers = Headers::default();
        for (name, value) in [
            ("x-key", "hunter2\nx: y"),
            ("Bearer hunter2", "a b"),
            ("", "hunter2"),
            ("content-type", "hunter2"),
        ] {
            let error = headers.set(name, format!("{value}\r\n!").as_bytes()).unwrap_err();
            assert!(matches!(error, SinkError::Setup { .. }));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = headers.set_from_variable("V", "a=b,hunter2").unwrap_err();
        assert_eq!(error.to_string(), "pair 2 of V has no `=`");
    }
}
