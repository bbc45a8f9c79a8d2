//! The service and host that a log belongs to.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};
use tracing_audit::{Reader, Segment, segments};

/// Service and host of a log: from the options, else from the log itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OriginOptions<'a> {
    pub(crate) log: &'a Path,
    pub(crate) service: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
}

#[cfg_attr(
    not(any(feature = "nats", feature = "objects")),
    expect(dead_code, reason = "no store in this build keeps the service and host")
)]
impl OriginOptions<'_> {
    /// Returns the service and the host from the options or the log; `None` for one that the URL names.
    pub(crate) fn unless_in(&self, url: &str) -> Result<(Option<String>, Option<String>)> {
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
        let is_named = |name: &str| {
            parameters.split('&').any(|one| one.split_once('=').is_some_and(|(key, _)| key == name))
        };
        let named = |name, option: Option<&str>| match option {
            Some(option) => Ok(Some(option.to_owned())),
            // A sink prefers its URL to the option, and the log is only asked if neither has the name.
            None if is_named(name) => Ok(None),
            None => self.opened(name),
        };
        Ok((named("service", self.service)?, named("host", self.host)?))
    }

    /// Returns the member that the newest `open` record of each chain has, if all of them agree.
    ///
    /// Chains that cannot be read, or have no `open` record any more, are ignored. The newest record of the whole log must
    /// not decide. The service and host are part of where the log is stored, so they must not depend on who opened it last.
    fn opened(&self, member: &str) -> Result<Option<String>> {
        let chains: BTreeSet<u16> = match segments(self.log) {
            Ok(segments) => segments.iter().map(Segment::chain).collect(),
            Err(_) => return Ok(None),
        };
        let newest = |chain: u16| {
            let records = Reader::new(self.log).chain(chain).reverse(true).records().ok()?;
            let mut opens = records.filter_map(|record| record.ok()?.get("open").cloned());
            Some(opens.next()?.get(member)?.as_str()?.to_owned())
        };
        let names: BTreeSet<String> = chains.into_iter().filter_map(newest).collect();
        if names.len() > 1 {
            let names: Vec<String> = names.into_iter().collect();
            bail!(
                "{} is written by several: {}; choose the {member} that it is stored under with --{member}, and keep to it",
                self.log.display(),
                names.join(", ")
            );
        }
        Ok(names.into_iter().next())
    }
}
