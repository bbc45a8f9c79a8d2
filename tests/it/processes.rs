//! Several processes on one log.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use tracing_audit::{AuditLog, Error, FindingKind, Receipt, Verdict, verify};

use crate::support::{
    Confirming, assert_all_present, child, events, fresh, independent_verdict, lines_of, segments, with_layer,
};

#[test]
fn four_processes_with_random_kills_lose_nothing_confirmed() {
    let (_dir, log) = fresh();
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let running: Vec<_> = (0..4).map(|_| Confirming::start(&log, 2)).collect();
    let mut running: Vec<_> = running.into_iter().map(Confirming::begun).collect();
    let mut all: Vec<Receipt> = Vec::new();
    for _ in 0..24 {
        std::thread::sleep(Duration::from_millis(20 + next(60)));
        let victim = usize::try_from(next(4)).unwrap();
        all.extend(std::mem::replace(&mut running[victim], Confirming::start(&log, 2)).kill());
    }
    // Verifying while they still write gives no false alarm.
    let report = verify(&log).unwrap();
    assert_ne!(report.verdict(), Verdict::Damaged, "{report}");
    all.extend(running.into_iter().flat_map(Confirming::kill));
    assert_all_present(&log, &all);
    let chains: std::collections::BTreeSet<u16> = all.iter().map(Receipt::chain).collect();
    assert!(chains.len() >= 4, "{chains:?}");
    // One opener recovers every chain.
    AuditLog::open(&log).unwrap().close().unwrap();
    let report = verify(&log).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert_eq!(independent_verdict(&log), 0);
    assert_all_present(&log, &all);
}

#[test]
fn a_second_exclusive_opener_learns_which_process_holds_the_log() {
    let (_dir, log) = fresh();
    let mut holder = child("hold", &log, &[]).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    while !line.contains("@holding") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
    }
    let error = AuditLog::builder(&log).exclusive(true).open().unwrap_err();
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == holder.id()), "{error}");
    // An opener without `exclusive` gets its own chain.
    let other = AuditLog::open(&log).unwrap();
    assert_eq!(other.head().chain(), 1);
    other.close().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let again = AuditLog::builder(&log).exclusive(true).open().unwrap();
    assert_eq!(again.head().chain(), 0);
    again.close().unwrap();
    verify(&log).unwrap().ensure_intact().unwrap();
}

#[test]
fn a_stopped_process_does_not_delay_the_others() {
    let (_dir, log) = fresh();
    let stopped = Confirming::start(&log, 2).begun();
    assert!(crate::support::run("kill", &["-STOP", &stopped.process.id().to_string()]));
    let own = AuditLog::open(&log).unwrap();
    let receipt = with_layer(&own, || {
        own.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap()
    });
    assert_eq!(receipt.chain(), 1);
    let report = verify(&log).unwrap();
    assert_ne!(report.verdict(), Verdict::Damaged, "{report}");
    own.close().unwrap();
    assert_all_present(&log, &stopped.kill());
}

#[test]
fn logs_of_one_process_have_separate_chains_and_witness_each_other() {
    let (_dir, path) = fresh();
    let first = AuditLog::open(&path).unwrap();
    let second = AuditLog::open(&path).unwrap();
    assert_eq!((first.head().chain(), second.head().chain()), (0, 1));
    for log in [&first, &second] {
        with_layer(log, || tracing::info!(target: "audit", action = "a", actor = "b"));
    }
    second.close().unwrap();
    first.close().unwrap();
    verify(&path).unwrap().ensure_intact().unwrap();
    assert_eq!(events(&path).len(), 2);

    // Each chain is continued by the next opener, lowest number first.
    let again = AuditLog::open(&path).unwrap();
    assert_eq!(again.head().chain(), 0);
    again.close().unwrap();
    assert_eq!(lines_of(&path, "open").len(), 3);

    // Removing a whole chain is detected.
    let gone: Vec<_> =
        segments(&path).into_iter().filter(|path| path.to_str().unwrap().contains("audit-001")).collect();
    assert_eq!(gone.len(), 1);
    std::fs::remove_file(&gone[0]).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
    // Both the other chain and its own lock file name it.
    assert_eq!(report.count(FindingKind::MissingChain), 2);
    assert_eq!(independent_verdict(&path), 1);
}

#[test]
fn a_process_that_exits_without_close_is_recovered() {
    let (_dir, log) = fresh();
    let output = child("exit", &log, &[]).stdout(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    // The critical event was durable when its macro returned.
    assert_eq!(events(&log)[0].action(), Some("auth.failure"));
    assert_eq!(verify(&log).unwrap().verdict(), Verdict::Unclean);
    let reopened = AuditLog::open(&log).unwrap();
    assert_eq!(reopened.recovery().chains.len(), 1);
    assert_eq!(lines_of(&log, "recovery").len(), 1);
    reopened.close().unwrap();
    verify(&log).unwrap().ensure_intact().unwrap();
}
