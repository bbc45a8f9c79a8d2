//! The machine of a run, the memory of a process, and the size of a log.

use std::{fs, path::Path, process::Command};

use crate::Result;

/// Describes the machine as names and values, for the head of the document.
pub(crate) fn describe(dir: &Path) -> Vec<(&'static str, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let has = |flag: &str| of_cpu("flags").unwrap_or_default().split_whitespace().any(|known| known == flag);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let model = of_cpu("model name").unwrap_or_default();
    let sha = if has("sha_ni") { "with SHA-NI" } else { "without SHA-NI" };
    vec![
        ("processor", format!("{model}, {} cores, {sha}", cores())),
        ("memory", format!("{} GiB", memory.unwrap_or_default() >> 20)),
        ("kernel", said_by("uname", &["-sr"]).split('-').next().unwrap_or_default().to_owned()),
        ("file system", said_by("findmnt", &["-n", "-o", "FSTYPE", "-T", &dir.display().to_string()])),
        ("compiler", said_by("rustc", &["--version"])),
        ("commit", commit()),
    ]
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn commit() -> String {
    let dirty = if said_by("git", &["status", "--porcelain", "src", "crates"]).is_empty() {
        ""
    } else {
        ", with uncommitted changes"
    };
    format!("{}{dirty}", said_by("git", &["rev-parse", "--short", "HEAD"]))
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Returns the peak resident memory of this process, in KiB.
pub(crate) fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Returns the total size of the segments of a log.
pub(crate) fn bytes_in(log: &Path) -> Result<u64> {
    segments(log)
        .map(|entries| entries.iter().map(|entry| entry.metadata().map_or(0, |data| data.len())).sum())
}

pub(crate) fn files_in(log: &Path) -> Result<u64> {
    Ok(segments(log)?.len() as u64)
}

fn segments(log: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(log)?.collect::<std::io::Result<Vec<_>>>()?;
    let is_segment = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|name| name == "jsonl");
    Ok(entries.into_iter().filter(is_segment).collect())
}
