//! Stores that records are forwarded to, named by URLs.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, bail};
use tracing_audit_forward::{Entry, FileSink, Gap, Pace, Position, Sink, SinkError};

use crate::origin::OriginOptions;

/// The URLs of the stores in this build, for messages.
const KNOWN: &[&str] = &[
    "`file:PATH`",
    #[cfg(feature = "postgres")]
    "`postgres://USER@HOST/DATABASE`",
    #[cfg(feature = "nats")]
    "`nats://HOST/STREAM` or `tls://HOST/STREAM`",
    #[cfg(feature = "otlp")]
    "`otlp+https://HOST` or `otlp+http://HOST`",
    #[cfg(feature = "objects")]
    "`s3://BUCKET/PREFIX` or `archive:DIR`",
];

/// Lists the URLs of the stores in this build.
pub(crate) fn known() -> String {
    KNOWN.join(", ")
}

/// The store that a URL names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'a> {
    File(&'a str),
    #[cfg(feature = "postgres")]
    Postgres(&'a str),
    #[cfg(feature = "nats")]
    Nats(&'a str),
    #[cfg(feature = "otlp")]
    Otlp(&'a str),
    #[cfg(feature = "objects")]
    Objects(&'a str),
}

impl<'a> Store<'a> {
    /// Parses a URL. Returns `None` if it has no scheme.
    pub(crate) fn parse(url: &'a str) -> Result<Option<Self>> {
        // Schemes of stores that this build lacks are errors, too. A directory is never mistaken for a store, or the
        // other way round.
        let Some((scheme, rest)) = url.split_once(':') else { return Ok(None) };
        match scheme {
            "file" if rest.is_empty() => {
                bail!("`file:` needs a path after it, as in file:/var/backup/audit.jsonl")
            }
            "file" => Ok(Some(Self::File(rest))),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Ok(Some(Self::Postgres(url))),
            #[cfg(feature = "nats")]
            "nats" | "tls" => Ok(Some(Self::Nats(url))),
            #[cfg(feature = "otlp")]
            // The prefix only distinguishes OTLP from other protocols over HTTP.
            "otlp+http" | "otlp+https" => Ok(Some(Self::Otlp(url.strip_prefix("otlp+").unwrap_or(url)))),
            #[cfg(feature = "objects")]
            "s3" | "archive" => Ok(Some(Self::Objects(url))),
            // Only the scheme is printed: the rest may contain a password.
            _ => bail!("no store is known for `{scheme}:`; there are {}", known()),
        }
    }

    /// Returns the default name of a forwarder to this store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "otlp")]
            Self::Otlp(_) => "otlp",
            #[cfg(feature = "objects")]
            Self::Objects(_) => "archive",
        }
    }

    /// Makes a sink for a log. Only NATS and archives keep its service and host.
    #[cfg_attr(
        not(any(feature = "nats", feature = "objects")),
        expect(unused_variables, reason = "no store in this build keeps the service and host")
    )]
    #[cfg_attr(
        not(any(feature = "postgres", feature = "nats", feature = "otlp", feature = "objects")),
        expect(clippy::unnecessary_wraps, reason = "a file is refused when it is opened")
    )]
    pub(crate) fn sink(self, origin: &OriginOptions<'_>) -> Result<AnySink> {
        Ok(match self {
            Self::File(path) => AnySink(Box::new(FileSink::new(path))),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => AnySink(Box::new(tracing_audit_forward::Postgres::new(url)?)),
            #[cfg(feature = "nats")]
            Self::Nats(url) => {
                let mut builder = tracing_audit_forward::Nats::builder(url);
                let (service, host) = origin.unless_in(url)?;
                if let Some(service) = service {
                    builder = builder.service(service);
                }
                if let Some(host) = host {
                    builder = builder.host(host);
                }
                AnySink(Box::new(builder.build()?))
            }
            #[cfg(feature = "otlp")]
            Self::Otlp(url) => {
                let builder = tracing_audit_forward::Otlp::builder(url).headers_from_environment();
                let builder = builder.resource_from_environment().ca_file_from_environment();
                let builder =
                    builder.on_warning(|warning| crate::print_stderr(&format!("tracing-audit: {warning}")));
                AnySink(Box::new(builder.build()?))
            }
            #[cfg(feature = "objects")]
            Self::Objects(url) => {
                let mut builder = tracing_audit_forward::Objects::builder(url);
                let (service, host) = origin.unless_in(url)?;
                if let Some(service) = service {
                    builder = builder.service(service);
                }
                if let Some(host) = host {
                    builder = builder.host(host);
                }
                AnySink(Box::new(builder.build()?))
            }
        })
    }
}

/// Returns the store that a URL names; a text without a scheme is an error.
pub(crate) fn of(url: &str) -> Result<Store<'_>> {
    match Store::parse(url)? {
        Some(store) => Ok(store),
        None => bail!("{url:?} names no store; there are {}", known()),
    }
}

/// A sink to any kind of store.
pub(crate) struct AnySink(pub(crate) Box<dyn Sink>);

impl Sink for AnySink {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        self.0.positions(chain_ids)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        self.0.offer(batch)
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        self.0.gap(gap)
    }

    fn left_out(&mut self, chains: &BTreeMap<Arc<str>, String>) {
        self.0.left_out(chains);
    }

    fn healed(&mut self) {
        self.0.healed();
    }

    fn pace(&self) -> Pace {
        self.0.pace()
    }

    fn close(&mut self) {
        self.0.close();
    }
}
