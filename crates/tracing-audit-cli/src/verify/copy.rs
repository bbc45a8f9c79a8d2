//! `verify` of a forwarded copy.

use std::process::ExitCode;

use anyhow::bail;
use tracing_audit_forward::{copy_checker, verify_file};

use super::Verify;
use crate::{output::escape, print, store::Store};

impl Verify {
    pub(super) fn run_on_copy(&self, store: Store<'_>) -> anyhow::Result<ExitCode> {
        if self.json || self.append_heads.is_some() || self.against.is_some() {
            bail!(
                "--json, --append-heads and --against are for the directory of a log, not for a forwarded copy"
            );
        }
        let (heads, _) = self.kept(None)?;
        // The position of the forwarder in the log is kept under this name.
        let name = self.name.as_deref().unwrap_or_else(|| store.name());
        let mut checker =
            self.of.as_ref().map(|log| copy_checker(log, name)).transpose()?.unwrap_or_default();
        // A truncated copy looks like a complete one. Only a head kept elsewhere shows where a chain should end.
        for head in heads {
            checker.expect_head(head);
        }
        let report = match store {
            Store::File(path) => verify_file(path, checker)?,
            #[cfg(feature = "postgres")]
            Store::Postgres(url) => tracing_audit_forward::Postgres::new(url)?.verify_with(checker)?,
            #[cfg(feature = "nats")]
            Store::Nats(url) => tracing_audit_forward::Nats::new(url)?.verify_with(checker)?,
            #[cfg(feature = "otlp")]
            Store::Otlp(_) => bail!("an OTLP receiver cannot be asked what it has"),
            #[cfg(feature = "objects")]
            Store::Objects(url) => tracing_audit_forward::Archive::new(url)?.verify_with(checker)?,
        };
        if self.quiet {
            print(if report.is_intact() { "intact" } else { "damaged" });
        } else {
            // The report has ids of chains as they are in the copy, which may be hostile.
            report.to_string().lines().for_each(|line| print(&escape(line)));
        }
        Ok(ExitCode::from(u8::from(!report.is_intact())))
    }
}
