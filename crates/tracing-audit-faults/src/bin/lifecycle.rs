//! What a log guarantees in a program built with `panic = "abort"`, where no panic is caught:
//! neither by the library nor by a test harness. `ci/abort` builds and runs it.
//!
//! ```text
//! lifecycle                 runs each scenario in its own process, and checks the log afterwards
//! lifecycle SCENARIO DIR    is that process: prints the receipt of what was confirmed
//! ```

use std::{
    error::Error,
    fmt,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitCode, Output},
};

use tracing_audit::{AuditLog, Builder, Receipt, Verdict, audit, audit_critical, read, verify};
use tracing_subscriber::prelude::*;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const SIGABRT: i32 = 6;

/// How a scenario ends, and the verdict on the log that it leaves.
struct Scenario {
    name: &'static str,
    signal: Option<i32>,
    verdict: Verdict,
    /// The actions of the events that must be there, in order.
    actions: &'static [&'static str],
    play: fn(&Path) -> Outcome,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "close",
        signal: None,
        verdict: Verdict::Intact,
        actions: &["before", "routine", "critical", "after"],
        play: |dir| {
            let log = begun(AuditLog::builder(dir))?;
            audit!(action = "routine", actor = "b");
            audit_critical!(action = "critical", actor = "b");
            log.rotate()?;
            audit!(action = "after", actor = "b");
            log.close()?;
            Ok(())
        },
    },
    Scenario {
        name: "drop",
        signal: None,
        verdict: Verdict::Intact,
        actions: &["before", "routine"],
        play: |dir| {
            let log = begun(AuditLog::builder(dir))?;
            audit!(action = "routine", actor = "b");
            drop(log);
            Ok(())
        },
    },
    Scenario {
        name: "panic",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before", "critical"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            audit_critical!(action = "critical", actor = "b");
            fail()
        },
    },
    Scenario {
        name: "panic-on-a-thread",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before", "critical"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            audit_critical!(action = "critical", actor = "b");
            std::thread::spawn(fail).join().map_err(|_| "it was caught")?
        },
    },
    // In the macro, while the event is captured. That event is not recorded, the durable ones are.
    Scenario {
        name: "panic-in-debug",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            audit_critical!(action = "critical", actor = "b", value = ?Panics);
            Ok(())
        },
    },
    Scenario {
        name: "panic-in-a-classifier",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &[],
        play: |dir| {
            let classify = |_: &tracing_audit::Candidate<'_>| {
                drop(fail());
                None
            };
            begun(AuditLog::builder(dir).classify(classify)).map(drop)
        },
    },
    Scenario {
        name: "panic-in-confirm",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before"],
        play: |dir| {
            let log = begun(AuditLog::builder(dir))?;
            log.confirm(|| drop(fail()))?;
            Ok(())
        },
    },
    Scenario {
        name: "panic-in-a-notice",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before"],
        play: |dir| {
            let log = begun(AuditLog::builder(dir).low_space(u64::MAX).on_notice(|_| drop(fail())))?;
            loop {
                log.confirm(|| audit!(action = "again", actor = "b"))?;
            }
        },
    },
    // As services do: the hook records that the program ends, and why.
    Scenario {
        name: "hook",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before", "panic"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            record_panics();
            fail()
        },
    },
    // The same for a panic out of the macro. The hook then runs inside of the macro, so its event
    // is not waited for and not recorded.
    Scenario {
        name: "hook-in-debug",
        signal: Some(SIGABRT),
        verdict: Verdict::Unclean,
        actions: &["before"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            record_panics();
            audit_critical!(action = "critical", actor = "b", value = ?Panics);
            Ok(())
        },
    },
    Scenario {
        name: "exit",
        signal: None,
        verdict: Verdict::Unclean,
        actions: &["before", "critical"],
        play: |dir| {
            let _log = begun(AuditLog::builder(dir))?;
            audit_critical!(action = "critical", actor = "b");
            std::process::exit(0)
        },
    },
    Scenario {
        name: "fork",
        signal: None,
        verdict: Verdict::Intact,
        actions: &["before", "parent"],
        play: |dir| {
            let log = begun(AuditLog::builder(dir))?;
            match fork::fork()? {
                fork::Fork::Child => {
                    audit_critical!(action = "child", actor = "b");
                    // Ends without a panic, because that would end in an abort.
                    std::process::exit(i32::from(log.ensure_attached().is_ok()))
                }
                fork::Fork::Parent(child) => {
                    if fork::waitpid(child)? != 0 {
                        return Err("the child found something wrong".into());
                    }
                }
            }
            audit!(action = "parent", actor = "b");
            log.close()?;
            Ok(())
        },
    },
];

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("so far")?;
        drop(fail());
        Ok(())
    }
}

#[expect(clippy::panic, reason = "what is tested is what it leaves")]
fn fail() -> Outcome {
    panic!("of the application")
}

/// Opens a log, installs the global subscriber, and confirms an event.
#[expect(clippy::print_stdout, reason = "standard output is the ledger")]
fn begun(builder: Builder) -> Outcome<AuditLog> {
    let log = builder.open()?;
    tracing_subscriber::registry().with(log.layer()).init();
    log.ensure_attached()?;
    println!("{}", log.confirm(|| audit!(action = "before", actor = "b"))?);
    Ok(log)
}

fn record_panics() {
    std::panic::set_hook(Box::new(|panic| audit_critical!(action = "panic", actor = "b", reason = %panic)));
}

/// Runs a scenario, and compares the log with what it must contain.
fn check(scenario: &Scenario) -> Outcome {
    let dir = std::env::temp_dir().join(format!("audit-abort-{}-{}", std::process::id(), scenario.name));
    std::fs::create_dir(&dir)?;
    let dir = Place(dir);
    let log = dir.0.join("log");
    let program = std::env::current_exe()?;
    // A process that hangs is an error, too.
    let output =
        Command::new("timeout").args(["-k", "1", "20"]).arg(program).arg(scenario.name).arg(&log).output()?;
    let receipts = check_end(scenario, &output)?;
    let verdict = verify(&log)?.verdict();
    if verdict != scenario.verdict {
        return Err(format!("the log is {verdict}").into());
    }
    let records = read(&log)?.collect::<Result<Vec<_>, _>>()?;
    let lost = receipts.iter().filter(|receipt| records.iter().all(|record| record.head() != receipt.head()));
    if lost.count() > 0 {
        return Err("a confirmed record is gone".into());
    }
    let actions = records.iter().filter(|record| record.is_event()).filter_map(|record| record.action());
    let actions: Vec<&str> = actions.filter(|action| *action != "again").collect();
    if actions != scenario.actions {
        return Err(format!("it has {actions:?} and not {:?}", scenario.actions).into());
    }
    // The next run continues the log.
    AuditLog::open(&log)?.close()?;
    verify(&log)?.ensure_intact()?;
    Ok(())
}

/// Checks how the process ended. `timeout` ends as its child did.
fn check_end(scenario: &Scenario, output: &Output) -> Outcome<Vec<Receipt>> {
    let status = output.status;
    let signal =
        status.signal().or_else(|| status.code().and_then(|code| code.checked_sub(128)).filter(|at| *at > 0));
    if signal != scenario.signal || signal.is_none() && !status.success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let receipts = String::from_utf8_lossy(&output.stdout);
    Ok(receipts.lines().map(str::parse).collect::<Result<Vec<Receipt>, _>>()?)
}

/// A directory that is removed when this is dropped.
struct Place(std::path::PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    if !cfg!(panic = "abort") {
        eprintln!("lifecycle: this build unwinds panics; ci/abort builds it with panic = \"abort\"");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, dir] = arguments.as_slice() {
        let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
            return ExitCode::FAILURE;
        };
        return match (scenario.play)(Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let failed: Vec<String> = SCENARIOS
        .iter()
        .filter_map(|scenario| check(scenario).err().map(|error| format!("{}: {error}", scenario.name)))
        .collect();
    for failure in &failed {
        eprintln!("{failure}");
    }
    println!("panic = \"abort\": {} scenarios, {} failed", SCENARIOS.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
