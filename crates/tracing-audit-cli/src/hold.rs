//! `tracing-audit hold`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tracing_audit::{AuditLog, Head, segments};
use tracing_subscriber::{Registry, prelude::*};

use crate::{
    directory::explain,
    output::{escape, failed_write},
    print, print_stderr,
};

/// Limit of the reason in bytes, which fits into a record in any case.
const MAX_REASON: usize = 4096;

/// How long to wait for another hold or release.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Places or releases a legal hold, which keeps retention from removing anything.
///
/// Places the file `hold` in the directory of the log. Until it is released, no program removes a segment. The log itself
/// records who placed the hold and why; the head of that record is printed, to be kept elsewhere. A hold is placed before it
/// is recorded, and a release is recorded before the hold is lifted.
///
/// All cases share one hold: the first release lifts it for all of them. Release it when the last case is closed.
///
/// Run it as the owner of the log. Under sudo, the record names the user who called sudo.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo -u shop tracing-audit hold /var/lib/shop/audit-log --reason 'Smith v. Shop, order of 2026-11-21'
  sudo -u shop tracing-audit hold /var/lib/shop/audit-log --release --reason 'case closed, order of 2027-02-01'

Exit codes: 0 done and recorded, 1 there is no hold to release, 2 not done, or not recorded (see the message).
If a hold was placed but not recorded, run the same command again to record it.")]
pub(crate) struct Hold {
    /// The directory of the log.
    log: PathBuf,

    /// Release the hold instead of placing it.
    #[arg(long)]
    release: bool,

    /// The reason, which is recorded. At most 4096 bytes.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Hold {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.reason.trim().is_empty() {
            bail!("a hold needs a reason: --reason 'Smith v. Shop'");
        }
        if self.reason.len() > MAX_REASON {
            bail!(
                "the reason has {} bytes, of at most {MAX_REASON}: name the case, and keep the rest elsewhere",
                self.reason.len()
            );
        }
        // A directory without a log must not get a hold, which would look as if it protected something.
        segments(&self.log).map_err(|error| explain(&self.log, error))?;
        let _lock = self.lock()?;
        if self.release { self.release() } else { self.place() }
    }

    /// Locks the log against other holds and releases, for as long as the returned file is open.
    ///
    /// Placing or releasing takes two steps; another process between them could make the record wrong. The lock is a
    /// flock(2) on the directory `control`, so nothing is written for it. Only the owner can open that directory: whoever
    /// could open it could block all holds.
    fn lock(&self) -> Result<File> {
        let dir = File::open(self.log.join("control"));
        let dir = match dir {
            // A user who cannot open `control` cannot place a hold either, and gets the error of that.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                File::open(&self.log)
            }
            dir => dir,
        };
        let dir = dir.with_context(|| format!("cannot open {}", self.log.display()))?;
        let begin = Instant::now();
        loop {
            match dir.try_lock() {
                Ok(()) => return Ok(dir),
                Err(fs::TryLockError::WouldBlock) if begin.elapsed() < LOCK_TIMEOUT => {
                    // flock(2) has no timeout, so the lock is polled.
                    thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => bail!(
                    "nothing was done: another process has {} locked, such as another `hold`; wait for it, or end it",
                    self.log.display()
                ),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", self.log.display()));
                }
            }
        }
    }

    fn place(&self) -> Result<ExitCode> {
        let file = self.log.join("hold");
        let is_new = place(&file, &self.reason).map_err(|(may_be_placed, error)| {
            let what = if may_be_placed {
                "but it may be in place, and was not recorded; fix the cause, and run the same command again"
            } else {
                "so there is no hold; run as the owner of the log"
            };
            anyhow::Error::new(error).context(format!("cannot place {}, {what}", file.display()))
        })?;
        let outcome = if is_new { "placed" } else { "in place already" };
        // The hold is placed first: if the record fails, removal is stopped all the same, and the command can be
        // repeated.
        let head = self.record("log.hold", outcome).with_context(|| {
            format!(
                "the hold is placed: nothing is removed from {}. But it could not be recorded; fix the cause, and run the \
                 same command again, as the owner of the log",
                self.log.display()
            )
        })?;
        // Something other than `hold`, which waits for the lock, may have removed the file since.
        if let Err(error) = fs::symlink_metadata(&file) {
            return Err(anyhow::Error::new(error).context(format!(
                "there is no hold, despite record {head}: something removed {} meanwhile; run the same command again",
                file.display()
            )));
        }
        print_done(&format!("the hold is {outcome}; its record is {head}"));
        Ok(ExitCode::SUCCESS)
    }

    fn release(&self) -> Result<ExitCode> {
        let file = self.log.join("hold");
        if fs::symlink_metadata(&file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            print_stderr(&format!("tracing-audit: there is no hold in {}", self.log.display()));
            return Ok(ExitCode::FAILURE);
        }
        // The release is recorded first: if the removal of the file fails, the hold still protects the log.
        let head = self.record("log.hold.release", "released").with_context(|| {
            format!(
                "the hold stays in place, since its release could not be recorded; fix the cause, or run as the owner of {}",
                self.log.display()
            )
        })?;
        let lift = || {
            fs::remove_file(&file)?;
            sync(&self.log)
        };
        lift().with_context(|| {
            format!(
                "the release was recorded as {head}, but the hold may still be in place: cannot remove {} durably",
                file.display()
            )
        })?;
        print_done(&format!("the hold is released; its record is {head}"));
        Ok(ExitCode::SUCCESS)
    }

    /// Writes a record of who does this and why. While another program has the log open, it goes to another chain.
    fn record(&self, action: &str, outcome: &str) -> Result<Head> {
        // The setting must be that of the program. Otherwise this run could close the log to its group, or open it to
        // one.
        let may_group_read = fs::metadata(&self.log)?.mode() & 0o040 != 0;
        let log = AuditLog::builder(&self.log)
            .service("tracing-audit hold")
            .group_readable(may_group_read)
            .stderr(false)
            .open()?;
        let who = Who::now();
        let (reason, actor, via) = (self.reason.as_str(), who.actor.as_str(), who.sudo.as_deref());
        let (uid, login_uid) = (who.uid, who.login_uid);
        let done = tracing::subscriber::with_default(Registry::default().with(log.layer()), || {
            log.confirm(|| {
                tracing::warn!(
                    target: "audit", severity = "critical", action, actor, outcome, reason, resource = "hold", uid,
                    sudo_user = via, login_uid,
                );
            })
        });
        let receipt = done.map(|receipt| receipt.head());
        // Close in any case, also after a failed record, so that the chain is not left unclosed.
        let closed = log.close();
        let head = receipt?;
        // The record is durable, so a failed close loses nothing; `verify` reports how the run ended.
        drop(closed);
        Ok(head)
    }
}

/// Prints what was done, to standard error if standard output fails: the head is the evidence and must not be lost.
fn print_done(text: &str) {
    print(text);
    if failed_write().is_some() {
        print_stderr(&format!("tracing-audit: {text}"));
    }
}

/// Creates the file, durably. Returns whether it is new; an error comes with whether the file may exist.
fn place(file: &Path, reason: &str) -> Result<bool, (bool, io::Error)> {
    // `create_new` follows no symlink (`O_EXCL`, see open(2)), so no file outside the log can be overwritten.
    let is_new = match OpenOptions::new().write(true).create_new(true).mode(0o640).open(file) {
        Ok(mut hold) => {
            // The text only helps whoever finds the file: an empty one holds too, and the evidence is the record. So it is
            // no error if the disk is full.
            let line = format!("{}: {}", escape(&Who::now().actor), escape(reason));
            drop(writeln!(hold, "{line}").and_then(|()| hold.sync_all()));
            true
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err((false, error)),
    };
    sync(file.parent().unwrap_or(file)).map_err(|error| (true, error))?;
    Ok(is_new)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The user who runs this command.
struct Who {
    actor: String,
    uid: u32,
    /// The user who called sudo, from `SUDO_USER`.
    sudo: Option<String>,
    /// The user who logged in, from the kernel's `loginuid`, which an unprivileged process cannot change.
    login_uid: Option<u32>,
}

impl Who {
    fn now() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let login_uid = fs::read_to_string("/proc/self/loginuid").ok();
        // The kernel shows -1 if nobody logged in, as for a service.
        let login_uid = login_uid.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != u32::MAX);
        let sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        Self { actor: name_of(uid).unwrap_or_else(|| format!("uid {uid}")), uid, sudo, login_uid }
    }
}

/// Returns the name of a local user, from `/etc/passwd`.
fn name_of(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let is_it = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
    users.lines().find(is_it)?.split(':').next().map(str::to_owned)
}
