//! The standard variables of OpenTelemetry for the resource and for certificates.
//!
//! According to its specification, an empty variable counts as not set, and one for logs replaces the general
//! one.

use std::path::PathBuf;

use super::{percent, setup};
use crate::SinkError;

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// Returns the attributes of the resource: `name=value` pairs separated by commas, percent-encoded, and the
/// name of the service. The last of several with one name counts.
pub(super) fn resource(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, SinkError> {
    let content = variable(ATTRIBUTES).unwrap_or_default();
    let mut attributes = Vec::new();
    for (index, pair) in content.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        let bad = |what: &str| setup(format!("pair {} of {ATTRIBUTES} {what}", index + 1));
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("has no `=`"))?;
        let decoded = |text: &str| {
            String::from_utf8(percent::decode(text.trim()))
                .map_err(|_| bad("is not UTF-8 when it is decoded"))
        };
        let (name, value) = (decoded(name)?, decoded(value)?);
        if name.is_empty() {
            return Err(bad("has no name"));
        }
        attributes.push((name, value));
    }
    let service = variable(SERVICE_NAME).filter(|service| !service.is_empty());
    attributes.extend(service.map(|service| ("service.name".to_owned(), service)));
    Ok(attributes)
}

/// Returns the PEM file of the authorities to trust, if one is named.
pub(super) fn ca_file(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let mut named = CERTIFICATES.into_iter().filter_map(variable).filter(|path| !path.is_empty());
    named.next().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[track_caller]
    fn check(set: &[(&str, &str)], expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(resource(variable(set)).unwrap(), expected);
    }

    #[test]
    fn attributes_are_decoded_and_the_name_of_the_service_is_last() {
        check(&[], &[]);
        check(&[(SERVICE_NAME, ""), (ATTRIBUTES, "")], &[]);
        check(&[(SERVICE_NAME, "a=b,c")], &[("service.name", "a=b,c")]);
        check(
            &[(SERVICE_NAME, "shop"), (ATTRIBUTES, "service.name=other, team = a%2Cb%3D ,,empty=")],
            &[("service.name", "other"), ("team", "a,b="), ("empty", ""), ("service.name", "shop")],
        );
    }

    #[test]
    fn an_invalid_attribute_is_named_by_its_position() {
        for (content, expected) in [
            ("a=b,c", "pair 2 of OTEL_RESOURCE_ATTRIBUTES has no `=`"),
            ("=b", "pair 1 of OTEL_RESOURCE_ATTRIBUTES has no name"),
            ("a=%ff", "pair 1 of OTEL_RESOURCE_ATTRIBUTES is not UTF-8 when it is decoded"),
        ] {
            assert_eq!(resource(variable(&[(ATTRIBUTES, content)])).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_certificate_for_logs_replaces_the_general_one() {
        let [logs, general] = CERTIFICATES;
        assert_eq!(ca_file(variable(&[])), None);
        assert_eq!(ca_file(variable(&[(general, "a.pem"), (logs, "")])), Some("a.pem".into()));
        assert_eq!(ca_file(variable(&[(general, "a.pem"), (logs, "b.pem")])), Some("b.pem".into()));
    }
}
