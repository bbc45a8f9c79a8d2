//! The URL of an archive.

use std::{path::PathBuf, time::Duration};

use super::{
    lock::{Lock, Retention},
    setup,
};
use crate::{address::percent_decoded, sink::SinkError};

/// An archive, as its URL names it. It contains no credentials.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) location: Location,
    pub(super) service: Option<String>,
    pub(super) host: Option<String>,
    pub(super) interval: Option<Duration>,
    pub(super) lock: Lock,
    pub(super) is_compressed: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Location {
    S3(Bucket),
    Directory(PathBuf),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) allows_http: bool,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, SinkError> {
        let (address, query) = url.rsplit_once('?').unwrap_or((url, ""));
        let location = if let Some(rest) = address.strip_prefix("s3://") {
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if rest.contains('@') {
                return Err(bad("credentials belong in the environment, not in the URL"));
            }
            if name.is_empty() {
                return Err(bad("it names no bucket"));
            }
            Location::S3(Bucket { name: name.to_owned(), prefix: prefix.to_owned(), ..Bucket::default() })
        } else if let Some(path) = address.strip_prefix("archive:") {
            if path.is_empty() {
                return Err(bad("it names no directory"));
            }
            Location::Directory(PathBuf::from(path))
        } else {
            return Err(bad("it begins neither with s3:// nor with archive:"));
        };
        let mut target = Self {
            location,
            service: None,
            host: None,
            interval: None,
            lock: Lock::default(),
            is_compressed: true,
        };
        let (mut mode, mut days) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decoded(value).ok_or_else(|| bad("its percent-encoding is invalid"))?;
            match (name, &mut target.location) {
                ("service", _) => target.service = Some(value),
                ("host", _) => target.host = Some(value),
                ("interval", _) => target.interval = Some(Duration::from_secs(number(&value)?)),
                ("compress", _) => target.is_compressed = is_on(&value)?,
                ("endpoint", Location::S3(_)) if value.contains('@') => {
                    return Err(bad(
                        "an endpoint takes no user and password: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                    ));
                }
                ("endpoint", Location::S3(bucket)) => bucket.endpoint = Some(value),
                ("region", Location::S3(bucket)) => bucket.region = Some(value),
                ("allow-http", Location::S3(bucket)) => bucket.allows_http = is_on(&value)?,
                ("retention", Location::S3(_)) => mode = Some(retention(&value)?),
                ("retain-days", Location::S3(_)) => days = Some(number(&value)?),
                ("legal-hold", Location::S3(_)) => target.lock.has_legal_hold = is_on(&value)?,
                _ => return Err(bad("a parameter in it is not known")),
            }
        }
        target.lock.retention = match (mode, days) {
            (Some(mode), Some(days)) => Some((mode, days)),
            (None, None) => None,
            _ => return Err(bad("only one of retention and retain-days is given")),
        };
        Ok(target)
    }
}

fn retention(value: &str) -> Result<Retention, SinkError> {
    match value {
        "governance" => Ok(Retention::Governance),
        "compliance" => Ok(Retention::Compliance),
        _ => Err(bad("retention is governance or compliance")),
    }
}

fn is_on(value: &str) -> Result<bool, SinkError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(bad("a switch in it is neither on nor off")),
    }
}

fn number<T: std::str::FromStr + PartialOrd + From<u8>>(value: &str) -> Result<T, SinkError> {
    let number = value.parse().ok().filter(|number| *number >= T::from(1));
    number.ok_or_else(|| bad("a number in it is not a whole number above 0"))
}

fn bad(why: &str) -> SinkError {
    setup(format!(
        "the URL of the archive cannot be used: {why}; it is s3://BUCKET/PREFIX?service=NAME&host=NAME or \
         archive:DIRECTORY?service=NAME&host=NAME, with special characters of values percent-encoded"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_can_contain_every_setting() {
        let url = "s3://b/p/q?service=web%20shop&host=n1&endpoint=http://127.0.0.1:8333&region=r&interval=5\
                   &retention=compliance&retain-days=30&legal-hold=on&allow-http=on&compress=off";
        let target = Target::parse(url).unwrap();
        let Location::S3(bucket) = &target.location else { panic!("{target:?}") };
        assert_eq!((&*bucket.name, &*bucket.prefix, bucket.allows_http), ("b", "p/q", true));
        assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:8333"));
        assert_eq!((target.service.as_deref(), target.host.as_deref()), (Some("web shop"), Some("n1")));
        assert_eq!(target.lock.retention, Some((Retention::Compliance, 30)));
        assert!(target.lock.has_legal_hold && !target.is_compressed);
        assert_eq!(target.interval, Some(Duration::from_secs(5)));
        let target = Target::parse("archive:/mnt/a?service=web").unwrap();
        assert!(matches!(&target.location, Location::Directory(path) if path.to_str() == Some("/mnt/a")));
    }

    #[test]
    fn an_unusable_url_is_not_quoted() {
        for url in [
            "",
            "s3://",
            "s3:///p",
            "http://b",
            "archive:",
            "s3://Secr3t:Secr3t@b",
            "s3://b?secret=Secr3t",
            "s3://b?retention=compliance",
            "s3://b?retain-days=0&retention=governance",
            "s3://b?interval=0",
            "s3://b?legal-hold=Secr3t",
            "archive:d?retention=governance&retain-days=1",
            "s3://b?service=%",
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(!error.contains("Secr3t") && error.contains("cannot be used"), "{url}: {error}");
        }
    }
}
