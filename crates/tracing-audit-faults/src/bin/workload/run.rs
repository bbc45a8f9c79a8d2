//! Opens the log and obeys the commands on standard input.
//!
//! There is one command per line. Each is answered by `done COMMAND …` when it is complete:
//!
//! ```text
//! load                   the load of the settings, to its end
//! burst N | critical N   events as fast as possible
//! confirm THREADS        one confirmed event from each of some threads at once
//! ages SAMPLES           how old unsynced events become
//! flush | rotate | stats | health
//! fork MS                a child that emits, and ends after some time
//! close                  closes the log; may be repeated after it failed
//! ```
//!
//! At the end of standard input the log is closed, and the process ends.

use std::{io::BufRead as _, panic, path::Path, sync::Arc, thread, time::Duration};

use tracing_audit::{AuditLog, Severity};
use tracing_subscriber::prelude::*;

use crate::{Outcome, ledger::Ledger, load::Load, settings::Settings};

/// How often the health is polled.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn run(dir: &Path, settings: &Settings) -> Outcome {
    let ledger = Arc::new(Ledger::open()?);
    let panics = Arc::clone(&ledger);
    panic::set_hook(Box::new(move |info| panics.say(&format!("panic {info}").replace('\n', " "))));
    let notices = Arc::clone(&ledger);
    let builder = settings.builder(dir)?;
    let log = builder.on_notice(move |notice| notices.say_when("notice", &notice.to_string())).open()?;
    tracing_subscriber::registry().with(log.layer()).init();
    log.ensure_attached()?;
    watch_health(&log, &ledger);
    ledger.say(&format!("open {} recovered={}", log.head(), log.recovery().chains.len()));

    let load = Load::new(&log, &ledger, settings);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').unwrap_or((&line, "1"));
        let answer = obey(&load, command, argument.parse()?)?;
        ledger.say_when("done", &format!("{command} {answer}"));
    }
    let answer = close(&load);
    ledger.say_when("done", &format!("close {answer}"));
    Ok(())
}

fn obey(load: &Load<'_>, command: &str, argument: u64) -> Outcome<String> {
    let told = |result: Result<(), tracing_audit::Error>| {
        result.map_or_else(|error| format!("failed: {error}"), |()| "ok".to_owned())
    };
    Ok(match command {
        "load" => {
            load.run();
            String::new()
        }
        "burst" => load.burst(Severity::Routine, argument),
        "critical" => load.burst(Severity::Critical, argument),
        "confirm" => load.confirm_at_once(argument),
        "ages" => load.ages(argument),
        "flush" => told(load.log.flush()),
        "rotate" => told(load.log.rotate()),
        "stats" => stats(load.log),
        "health" => load.log.health().to_string(),
        "fork" => fork_and_emit(load, Duration::from_millis(argument))?,
        "close" => close(load),
        _ => return Err(format!("no such command: {command}").into()),
    })
}

/// Reports each change of health, with its time.
fn watch_health(log: &AuditLog, ledger: &Arc<Ledger>) {
    let (log, ledger) = (log.clone(), Arc::clone(ledger));
    // Ends with the process.
    drop(thread::spawn(move || {
        let mut before = None;
        loop {
            let health = log.health();
            if before.replace(health) != Some(health) {
                ledger.say_when("health", &health.to_string());
            }
            thread::sleep(LOOK);
        }
    }));
}

fn stats(log: &AuditLog) -> String {
    let stats = log.stats();
    let lost = |severity| {
        stats.lost.iter().filter(|loss| loss.severity == severity).map(|loss| loss.events).sum::<u64>()
    };
    format!(
        "routine={} critical={} durable={} lost_routine={} lost_critical={} unconfirmed={} queued_bytes={} \
         syncs={} segments={} notices_dropped={}",
        stats.accepted_routine,
        stats.accepted_critical,
        stats.durable,
        lost(Severity::Routine),
        lost(Severity::Critical),
        stats.unconfirmed_waits,
        stats.queued_bytes,
        stats.syncs,
        stats.segments,
        stats.notices_dropped,
    )
}

/// Closes the log, and returns the outcome and how many events were emitted.
fn close(load: &Load<'_>) -> String {
    let begun = std::time::Instant::now();
    let closed =
        load.log.close().map_or_else(|error| format!("failed: {error}"), |head| format!("ok {head}"));
    let (routine, critical) = load.emitted();
    format!("ms={} emitted={routine}/{critical} {} {closed}", begun.elapsed().as_millis(), stats(load.log))
}

/// Starts a child, which inherits the lock. It emits an event, which must be counted and not
/// written, and ends.
fn fork_and_emit(load: &Load<'_>, life: Duration) -> Outcome<String> {
    match fork::fork()? {
        fork::Fork::Parent(child) => Ok(format!("child={child}")),
        fork::Fork::Child => {
            for _ in 0..3 {
                tracing::info!(target: "audit", action = "child", actor = "child");
            }
            let refused =
                load.log.confirm(|| tracing::info!(target: "audit", action = "child", actor = "child"));
            load.ledger.say(&format!(
                "forked lost={} refused={}",
                load.log.stats().lost_total(),
                refused.is_err()
            ));
            thread::sleep(life);
            std::process::exit(0);
        }
    }
}
