//! Whose log a log is.

use std::path::Path;

use tracing_audit::Reader;

/// The service and the host of a log: as options say, else as the newest record `open` of the log does.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "nats", feature = "objects")),
    expect(dead_code, reason = "no store says whose log it is")
)]
pub(crate) struct Whose<'a> {
    pub(crate) log: &'a Path,
    pub(crate) service: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
}

#[cfg_attr(
    not(any(feature = "nats", feature = "objects")),
    expect(dead_code, reason = "no store says whose log it is")
)]
impl Whose<'_> {
    pub(crate) fn service(&self) -> Option<String> {
        self.service.map(str::to_owned).or_else(|| self.opened("service"))
    }

    pub(crate) fn host(&self) -> Option<String> {
        self.host.map(str::to_owned).or_else(|| self.opened("host"))
    }

    /// A log that cannot be read, or that has no such record any more, does not say it.
    fn opened(&self, member: &str) -> Option<String> {
        let records = Reader::new(self.log).reverse(true).records().ok()?;
        let mut opens = records.filter_map(|record| record.ok()?.get("open").cloned());
        Some(opens.next()?.get(member)?.as_str()?.to_owned())
    }
}
