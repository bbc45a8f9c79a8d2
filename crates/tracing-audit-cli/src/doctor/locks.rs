//! Checks which programs write to the log.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use tracing_audit::Segment;

use super::Findings;

const CHECK: &str = "writers";

/// Size of a block of a lock file in bytes; the second block names the holder.
const BLOCK: u64 = 512;

/// The chains that a process has locked, and those of which that is unknown.
#[derive(Debug, Default)]
pub(super) struct Writers {
    pub(super) held: BTreeSet<u16>,
    pub(super) unknown: BTreeSet<u16>,
}

/// Finds the processes that have the chains locked.
///
/// Lock files are never locked here, only looked up in `/proc/locks`: even a short lock could keep a program from its chain.
pub(super) fn look(log: &Path, all: &[Segment], findings: &mut Findings) -> Writers {
    let locks = fs::read_to_string("/proc/locks");
    if locks.is_err() {
        findings.warn(CHECK, "not known: /proc/locks cannot be read", "look on Linux, with /proc mounted");
    }
    let chains: BTreeSet<u16> = all.iter().map(Segment::chain).collect();
    let mut writers = Writers::default();
    let mut denied = None;
    for chain in chains {
        let path = log.join(format!("control/chain-{chain:03}.lock"));
        let holder = match (&locks, fs::metadata(&path)) {
            // A copy of a log has no lock files, so nobody has its chains.
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            (Ok(locks), Ok(data)) => holder_in(locks, &data),
            (_, data) => {
                denied = denied.or(data.err());
                writers.unknown.insert(chain);
                continue;
            }
        };
        let Some(pid) = holder else { continue };
        writers.held.insert(chain);
        findings.ok(CHECK, format!("chain {chain:03} is written by {}{}", named(pid), noted_in(&path, pid)));
    }
    if let Some(error) = denied {
        let found = format!("not known: cannot look at the lock files: {error}");
        findings.warn(CHECK, found, "look again as the owner");
    }
    if writers.held.is_empty() && writers.unknown.is_empty() {
        findings.ok(CHECK, "no program of this machine or container has the log open");
    }
    writers
}

/// Returns the process that has an exclusive lock on a file, from the text of `/proc/locks` (see `proc_locks(5)`).
fn holder_in(locks: &str, data: &fs::Metadata) -> Option<i64> {
    let (major, minor) = (rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()));
    // The kernel prints the device as two hexadecimal numbers and the inode as a decimal one.
    let sought = format!("{major:02x}:{minor:02x}:{}", data.ino());
    // A line: `1: FLOCK  ADVISORY  WRITE 4711 08:01:12345 0 EOF`.
    locks.lines().find_map(|line| {
        // Skip the ordinal. A process that waits for the lock has `->` next, so it does not match.
        let words: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
        match words.as_slice() {
            ["FLOCK", _, "WRITE", pid, file, ..] if *file == sought => pid.parse().ok(),
            _ => None,
        }
    })
}

fn named(pid: i64) -> String {
    // The kernel shows no process id from another PID namespace.
    if pid <= 0 {
        return "a process of another container".to_owned();
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| format!("process {pid}"), |name| format!("process {pid} ({})", name.trim_end()))
}

/// Returns what the lock file has about its holder: since when, and the process id in its own namespace if that differs.
fn noted_in(path: &Path, pid: i64) -> String {
    let block = || {
        let mut file = fs::File::open(path).ok()?;
        file.seek(SeekFrom::Start(BLOCK)).ok()?;
        let mut text = String::new();
        file.take(BLOCK).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let text = block().unwrap_or_default();
    let mut words = text.trim_end().split(' ').skip(1);
    let (own_pid, since) = (words.next().unwrap_or_default(), words.next());
    let mut noted = String::new();
    if let Some(since) = since {
        write!(noted, ", since {}", crate::time::short(since)).unwrap_or_default();
    }
    if !own_pid.is_empty() && own_pid != pid.to_string() {
        write!(noted, ", which is {own_pid} in its own namespace").unwrap_or_default();
    }
    noted
}
