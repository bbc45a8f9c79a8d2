//! Copies that were forwarded.

use std::process::ExitCode;

use anyhow::bail;
use tracing_audit_forward::{Position, copy_checker, verify_file};

use super::Verify;
use crate::{print, store::Store};

impl Verify {
    pub(super) fn run_on_copy(&self, store: Store<'_>) -> anyhow::Result<ExitCode> {
        if self.json || self.append_heads.is_some() || self.against.is_some() {
            bail!(
                "--json, --append-heads and --against are for the directory of a log, not for a forwarded copy"
            );
        }
        let (heads, _) = self.kept(None)?;
        let name = self.name.as_deref().unwrap_or_else(|| store.name());
        let checker = self.of.as_ref().map(|log| copy_checker(log, name)).transpose()?.unwrap_or_default();
        let report = match store {
            Store::File(path) => verify_file(path, checker)?,
            #[cfg(feature = "postgres")]
            Store::Postgres(url) => tracing_audit_forward::Postgres::new(url)?.verify_with(checker)?,
            #[cfg(feature = "otlp")]
            Store::Otlp(_) => bail!("an OTLP receiver cannot be asked what it has"),
        };
        // The records of a chain end somewhere, and only a head that was kept elsewhere says where they should.
        let missing = heads.iter().find(|head| {
            let number = Some(head.chain());
            let is_it =
                |last: &Position| last.seq > head.seq() || (last.seq, last.hash) == (head.seq(), head.hash());
            !report
                .chains()
                .iter()
                .any(|chain| chain.chain == number && chain.last.as_ref().is_some_and(is_it))
        });
        if self.quiet {
            print(if report.is_intact() && missing.is_none() { "intact" } else { "damaged" });
        } else {
            print(report.to_string().trim_end());
            if let Some(head) = missing {
                print(&format!("the copy does not have {head}"));
            }
        }
        Ok(ExitCode::from(u8::from(!report.is_intact() || missing.is_some())))
    }
}
