//! The time in which a store gets everything after an outage, and the memory of a process that does nothing
//! else.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{Result, services::Urls, spread::Spread, stores, throughput};

/// Marks the process that forwards.
pub(crate) const CHILD: &str = "replay";

const REPLAYS: usize = 3;

pub(crate) fn measure(store: &str, log: &Path, records: u64, urls: &Urls) -> Result<()> {
    let (mut seconds, mut before, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPLAYS {
        let mut child = Command::new(std::env::current_exe()?);
        child.args([CHILD, store]).arg(log).stderr(Stdio::inherit());
        child.envs(urls.postgres.as_ref().map(|url| ("AUDIT_POSTGRES", url)));
        child.envs(urls.nats.as_ref().map(|url| ("AUDIT_NATS", url)));
        child.envs(urls.otlp.as_ref().map(|url| ("AUDIT_OTLP", url)));
        let said = String::from_utf8(child.output()?.stdout)?;
        let numbers: Vec<f64> =
            said.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [took, small, large] = numbers.as_slice() else {
            return Err(format!("the process for {store} said {said:?}").into());
        };
        seconds.push(*took);
        before.push(*small);
        peak.push(*large);
    }
    let speeds = seconds.iter().map(|took| records as f64 / took).collect();
    println!(
        "  {store}: {:.1} s, {:.0} records/s; peak memory {:.1} MiB, {:.1} MiB before it began",
        Spread::of(seconds),
        Spread::of(speeds),
        Spread::of(peak),
        Spread::of(before)
    );
    Ok(())
}

/// Prints the seconds, and the peak memory before and after in MiB.
pub(crate) fn child(store: &str, log: &Path) -> Result<()> {
    let stores = stores::all(log.parent().ok_or("a log is in a directory")?, &Urls::of_environment())?;
    let store = stores.iter().find(|known| known.name() == store).ok_or("no such store")?;
    let before = peak_memory()?;
    let took = throughput::forward(store.as_ref(), log)?;
    println!("{} {before} {}", took.as_secs_f64(), peak_memory()?);
    Ok(())
}

fn peak_memory() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
