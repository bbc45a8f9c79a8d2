//! What a shell and `man` want to know of this command.

use std::{io, process::ExitCode};

use clap::{Args, CommandFactory as _};

use crate::Arguments;

/// Prints completions for a shell.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "tracing-audit", &mut text);
        io::Write::write_all(&mut io::stdout(), &text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints the manual page, for `man -l -`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The page of this command alone, as in `man verify`.
    command: Option<String>,
}

impl Man {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut command = Arguments::command();
        if let Some(name) = &self.command {
            let found = command.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| anyhow::anyhow!("there is no command `{name}`"))?;
            command = found.display_name(format!("tracing-audit-{name}"));
        }
        clap_mangen::Man::new(command).render(&mut io::stdout())?;
        Ok(ExitCode::SUCCESS)
    }
}
