//! `tracing-audit verify`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use tracing_audit::{Head, Verdict, Verifier};
use tracing_audit_forward::{Position, copy_checker, verify_file};

use crate::{print, store::Store};

/// Checks that nothing in a log was changed, removed or put in.
///
/// Exits 0 when the log is intact, 1 when it is damaged, 3 when it is unclean (a run ended without close, or the last write
/// was torn), and 2 when it could not be checked.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The directory of the log; or a copy that was forwarded: `file:PATH` or `postgres://USER@HOST/DATABASE`.
    log: String,

    /// For a copy: the log that was forwarded. It knows where forwarding began, and which records the store refused.
    #[arg(long, value_name = "DIR")]
    of: Option<PathBuf>,

    /// For a copy: the name of the forwarder, by default that of the kind of store.
    #[arg(long)]
    name: Option<String>,

    /// A head that was kept elsewhere, as `close`, `confirm` and `on_head` hand it out: the log must have it.
    #[arg(long = "head", value_name = "HEAD")]
    heads: Vec<Head>,

    /// Prints nothing but the verdict.
    #[arg(long, short)]
    quiet: bool,
}

impl Verify {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let store = if PathBuf::from(&self.log).is_dir() { None } else { Store::parse(&self.log)? };
        if let Some(store) = store {
            return self.run_on_copy(store);
        }
        let verifier =
            self.heads.iter().fold(Verifier::new(&self.log), |verifier, head| verifier.expect_head(*head));
        let report = verifier.run().with_context(|| format!("cannot verify {}", self.log))?;
        if self.quiet {
            print(report.verdict().as_str());
        } else {
            print(report.to_string().trim_end());
        }
        Ok(exit_code(report.verdict()))
    }

    fn run_on_copy(&self, store: Store<'_>) -> anyhow::Result<ExitCode> {
        let name = self.name.as_deref().unwrap_or_else(|| store.name());
        let checker = self.of.as_ref().map(|log| copy_checker(log, name)).transpose()?.unwrap_or_default();
        let report = match store {
            Store::File(path) => verify_file(path, checker)?,
            #[cfg(feature = "postgres")]
            Store::Postgres(url) => tracing_audit_forward::Postgres::new(url)?.verify_with(checker)?,
            #[cfg(feature = "otlp")]
            Store::Otlp(_) => anyhow::bail!("an OTLP receiver cannot be asked what it has"),
        };
        // The records of a chain end somewhere, and only a head that was kept elsewhere says where they should.
        let missing = self.heads.iter().find(|head| {
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

fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Intact => 0,
        Verdict::Unclean => 3,
        _ => 1,
    })
}
