//! Whose log a log is.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};
use tracing_audit::{Reader, Segment, segments};

/// The service and the host of a log: as options say, else as the log does.
#[derive(Debug, Clone, Copy)]
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
    /// What options or the log say of the service and the host that this URL does not name.
    pub(crate) fn unless_in(&self, url: &str) -> Result<(Option<String>, Option<String>)> {
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
        let is_named = |name: &str| {
            parameters.split('&').any(|one| one.split_once('=').is_some_and(|(key, _)| key == name))
        };
        let say = |name, option: Option<&str>| match option {
            Some(option) => Ok(Some(option.to_owned())),
            None if is_named(name) => Ok(None),
            None => self.opened(name),
        };
        Ok((say("service", self.service)?, say("host", self.host)?))
    }

    /// What the newest record `open` of each chain says. A chain that cannot be read, or that has no such record any more, says
    /// nothing. Whose a log is must not change with who opened it last: what it is called by is part of where it is stored.
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
                "{} is written by several: {}; say under which {member} it is stored, with --{member}, and keep to it",
                self.log.display(),
                names.join(", ")
            );
        }
        Ok(names.into_iter().next())
    }
}
