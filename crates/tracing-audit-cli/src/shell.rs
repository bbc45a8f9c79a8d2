//! Shell completions, manual pages, and quoting for shells.

use std::{fmt::Write as _, io, os::unix::ffi::OsStrExt as _, path::Path, process::ExitCode};

use clap::{Args, CommandFactory as _};

use crate::{Arguments, output::is_unsafe};

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

/// Prints a manual page, for `man -l -`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page to print, as in `man verify`. Default: an overview.
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

/// Quotes a path as one word for a shell, which no command takes for an option.
///
/// Characters that a terminal must not get, and bytes that are not UTF-8, are escaped in `$'…'`. This is understood by bash,
/// zsh and POSIX.1-2024 shells.
pub(crate) fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    // A leading hyphen would be taken for an option, also inside quotes.
    let front = if bytes.starts_with(b"-") { "./" } else { "" };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./-+,:@%".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_plain) => format!("{front}{text}"),
        Ok(text) if !text.contains(is_unsafe) => format!("'{front}{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut word = format!("$'{front}");
            for byte in bytes {
                match byte {
                    b'\'' | b'\\' => write!(word, "\\{}", char::from(*byte)),
                    0x20..=0x7E => write!(word, "{}", char::from(*byte)),
                    _ => write!(word, "\\x{byte:02x}"),
                }
                .unwrap_or_default();
            }
            word.push('\'');
            word
        }
    }
}
