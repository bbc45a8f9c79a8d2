//! Random changes of honest logs, each compared with what section 6 of docs/format.md states about it. That section
//! says what is damage, what may only look torn, what cannot be detected, and what a head kept elsewhere changes.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    edits::{CHANGES, Edited, Editor},
    honest::Machine,
    log::{Chain, Log, name},
    model::{Effect, Expected, Honest, Shape},
};
use crate::{
    NoteKind, Report, Retention, Verdict,
    chain::{Digest, Head},
    format::After,
    harness::times,
    segment_name::ChainNumber,
    storage::sim::{Errno, Fault, Op, Prng},
};

fn after(segment: u32, bytes: usize) -> After {
    After::counted(segment, bytes as u64, None)
}

/// Returns a log with bytes that were never durable and a segment that says so, a file that counts nothing, and a torn
/// end.
fn voids_and_a_torn_end() -> Log {
    let base = Chain::new(0).events(2).roll().events(2).event_marked("last", None);
    let (bytes, numbers) = (base.segments[&2].len(), base.segments.clone());
    let lost = base.clone().event_marked("lost", None).event_marked("lost", None);
    let mut in_vain = Chain { segments: lost.segments, segment: 2, ..base };
    in_vain.segments.insert(3, numbers[&1].clone());
    let next = Chain { segment: 3, ..in_vain }.segment(vec![after(2, bytes), after(3, 0)]);
    let next = next.recovery().events(4).roll().events(2).event_marked("a", None).event_marked("b", None);
    let mut log = Log::of(&[&next]);
    log.file(0, 5).extend_from_slice(b"{\"seq\":19,\"ts\":\"2026");
    log
}

/// Returns a log of one closed chain, of which retention has removed the first two files, in two steps.
fn pruned(with_leftovers: bool) -> Log {
    let chain = Chain::new(0).events(3).roll().events(3);
    let (one, two) = (6, chain.seq);
    let chain = chain.roll().events(2).prune(one - 1, (1, 1)).roll().events(1).prune(two, (2, 2)).events(3);
    let chain = chain.roll().mark().close();
    let mut log = Log::of(&[&chain]);
    if !with_leftovers {
        log.files.remove(&name(0, 1));
        log.files.remove(&name(0, 2));
    }
    log
}

/// Returns a log of three chains, each of which witnesses the others as they were then.
fn three_chains() -> Log {
    let one = Chain::new(0).events(3);
    let two = Chain::new(1).sees(&one).mark().events(2).gap(1, 3);
    let one = one.sees(&two).mark().roll().events(2).close();
    let three = Chain::new(2).sees(&one).sees(&two).mark().event_marked("x", None).event_marked("y", None);
    Log::of(&[&one, &two.events(2).close(), &three])
}

/// Returns a log by the real writer: killed runs, a power cut, a failed sync, a rotation.
fn crashed() -> Log {
    let mut machine = Machine::new(5);
    let mut process = machine.open();
    process.emit(&mut machine, 4);
    process.rest(&mut machine, 2);
    process.kill();
    let mut process = machine.open();
    process.emit(&mut machine, 3);
    machine.disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
    process.emit(&mut machine, 5);
    process.rest(&mut machine, 5);
    machine.disk.clear_faults();
    process.rotate(&machine);
    process.emit(&mut machine, 4);
    machine.disk.power_cut();
    let mut process = machine.open();
    process.emit(&mut machine, 2);
    process.close(&mut machine);
    machine.log()
}

/// Returns a log by the real writer: retention, several runs, two at the same time.
fn kept_for_a_while() -> Log {
    let mut machine = Machine::new(6);
    machine.settings.retention = Retention::keep_all().max_segments(2);
    for run in 0..3 {
        let (mut one, mut two) = (machine.open(), machine.open());
        for _ in 0..2 {
            one.emit(&mut machine, 3);
            one.rotate(&machine);
            two.emit(&mut machine, 2);
            one.rest(&mut machine, 70);
        }
        two.close(&mut machine);
        if run < 2 {
            one.close(&mut machine);
        } else {
            one.kill();
        }
        machine.wait(Duration::from_secs(5000));
    }
    machine.log()
}

pub(super) fn honest_logs() -> Vec<Honest> {
    let rolled = Chain::new(0).events(3).roll().events(4).gap(0, 1).roll().events(3).close();
    let runs = Chain::new(0).events(2).close().open().events(2).close().roll().open().event("x").close();
    let batches = Chain::new(0).events(2).roll().event_marked("a", None).event_marked("b", None);
    let batches = batches.event("c").event_marked("d", None).event_marked("e", None);
    vec![
        Honest::new("three segments", Log::of(&[&rolled])),
        Honest::new("several runs", Log::of(&[&runs])),
        Honest::new("batches, not closed", Log::of(&[&batches])),
        Honest::new("void bytes and a torn end", voids_and_a_torn_end()),
        Honest::new("pruned", pruned(false)),
        Honest::new("pruned, with leftovers", pruned(true)),
        Honest::new("three chains", three_chains()),
        Honest::new("crashed", crashed()),
        Honest::new("kept for a while", kept_for_a_while()),
    ]
}

/// Returns the head of each chain that the writer of the honest log would have reported.
pub(super) fn kept_heads(honest: &Honest) -> BTreeMap<u16, Head> {
    let heads = honest.chains.iter().filter_map(|(chain, written)| {
        let row = written.rows.iter().find(|row| row.seq == honest.durable(*chain))?;
        let hash = Digest::from_hex(row.hash.as_bytes()).unwrap();
        Some((*chain, Head { chain: ChainNumber::new(*chain).unwrap(), seq: row.seq, hash }))
    });
    heads.collect()
}

/// Returns what is wrong with a report, if anything is.
fn check(report: &Report, expected: Expected) -> Result<(), String> {
    let verdict = report.verdict();
    let is_right = verdict == expected.verdict || expected.or_worse && verdict > expected.verdict;
    if is_right { Ok(()) } else { Err(format!("expected {expected:?}\n{report}")) }
}

/// Returns the expected result of one change, with these heads.
fn expected(honest: &Honest, effects: &[Effect], heads: &BTreeMap<u16, Head>) -> Expected {
    let kept = |chain| heads.get(&chain).map(|head| head.seq);
    match effects {
        [effect] => honest.expected(effect, kept(effect.chain)),
        effects => honest.all_cut(effects, kept),
    }
}

/// The outcome of one change: its name, and the verdicts without and with kept heads.
type Outcome = (&'static str, Verdict, Verdict);

/// Makes one change and verifies, without and with kept heads.
fn one_case(logs: &[Honest], heads: &[BTreeMap<u16, Head>], number: u64) -> Result<Outcome, String> {
    let mut random = Prng::new(number);
    loop {
        let (at, other) = (random.below(logs.len()), random.below(logs.len()));
        let (honest, heads) = (&logs[at], &heads[at]);
        let chain = *honest.chains.keys().nth(random.below(honest.chains.len())).unwrap();
        let kind = random.below(CHANGES.len());
        let mut editor = Editor { honest, other: &logs[other], random: &mut random };
        let Some(Edited { what, log, effects }) = CHANGES[kind].1(&mut editor, chain) else { continue };
        let name = CHANGES[kind].0;
        let what = format!("case {number}: {name} ({what}) in chain {chain} of {:?}", honest.name);
        let report = log.verify();
        let told = |error| format!("{what}\n{error}");
        check(&report, expected(honest, &effects, &BTreeMap::new())).map_err(told)?;
        let is_noted = |kind| report.notes().iter().any(|note| note.kind() == kind);
        if effects[0].shape == Shape::Void && !is_noted(NoteKind::Void) && !is_noted(NoteKind::Undeclared) {
            return Err(told(format!("nothing is said of the bytes\n{report}")));
        }
        let is_rewritten = effects[0].shape == Shape::Rewritten;
        if is_rewritten && !report.not_checked().iter().any(|what| what.message().contains("was rewritten")) {
            return Err(told(format!("it does not say what it could not check\n{report}")));
        }
        let verifier = heads.values().fold(log.verifier(), |verifier, head| verifier.expect_head(*head));
        let with_heads = verifier.run_on(&log).unwrap();
        let told = |error| format!("{what}, with a kept head\n{error}");
        check(&with_heads, expected(honest, &effects, heads)).map_err(told)?;
        return Ok((name, report.verdict(), with_heads.verdict()));
    }
}

/// `AUDIT_EDITS` sets a different number of edits.
#[test]
fn random_edits_are_found_as_documented() {
    let edits = times("AUDIT_EDITS", 5_000);
    let logs = honest_logs();
    let heads: Vec<_> = logs.iter().map(kept_heads).collect();
    let next = AtomicU64::new(0);
    let counts: Mutex<BTreeMap<Outcome, u64>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= edits {
                return;
            }
            match one_case(&logs, &heads, number) {
                Ok(outcome) => *counts.lock().unwrap().entry(outcome).or_default() += 1,
                Err(error) => wrong.lock().unwrap().push(error),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(work);
        }
    });
    let (counts, wrong) = (counts.into_inner().unwrap(), wrong.into_inner().unwrap());
    assert!(
        wrong.is_empty(),
        "{} of {edits}, the first of them:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
    assert_eq!(counts.values().sum::<u64>(), edits);
    for (change, _) in CHANGES {
        assert!(counts.keys().any(|(name, ..)| *name == change), "{change}: never made");
    }
    for ((change, without, with), count) in counts {
        println!("{change}: {without} without and {with} with a kept head: {count}");
    }
}
