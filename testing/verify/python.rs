//! Compares the library with docs/verify.py, which shares no code with it. They must agree on every log.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    edits::{CHANGES, Editor},
    log::{Chain, Log, name},
    model::Honest,
    skip, tampering,
};
use crate::{FindingKind, Head, Report, Verdict, format::After, storage::sim::Prng};

/// Runs the checker on many logs in one process, and prints one line for each: the exit code and what it
/// printed.
const DRIVER: &str = r#"
import contextlib, importlib.util, io, sys
spec = importlib.util.spec_from_file_location("verify", sys.argv[1])
verify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)
verify.workers = lambda directory: None
piece = verify.PIECE

def ask(line):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = verify.main(line.split())
    return code, printed.getvalue()

for line in sys.stdin:
    said = ask(line)
    # The same in pieces that are smaller than a line.
    verify.PIECE = 199
    in_pieces = ask(line)
    verify.PIECE = piece
    if in_pieces != said:
        said = "in pieces", said[1] + in_pieces[1]
    print(said[0], said[1].replace("\n", "\\"), sep="\t", flush=True)
"#;

/// Returns whether there is a Python to run; reports the test as skipped otherwise.
pub(super) fn is_there(test: &str) -> bool {
    let is_there =
        Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        skip(test, "there is no python3");
    }
    is_there
}

/// A log, the heads that are given with it, and its origin.
pub(super) type Case = (Log, Vec<Head>, String);

/// Checks that both verdicts on each log are the same, and so are the heads of logs that are not damaged.
#[track_caller]
pub(super) fn agree_on(cases: &[Case]) {
    for (line, (log, heads, what)) in ask(cases).iter().zip(cases) {
        let verifier = heads.iter().fold(log.verifier(), |verifier, head| verifier.expect_head(*head));
        agrees(line, &verifier.run_on(log).unwrap(), what);
    }
}

/// Returns the output of the checker for each log, one line each.
#[track_caller]
fn ask(cases: &[Case]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut asked = Vec::new();
    for (number, (log, heads, _)) in cases.iter().enumerate() {
        let path = dir.path().join(number.to_string());
        std::fs::create_dir(&path).unwrap();
        for (name, bytes) in &log.files {
            std::fs::write(path.join(name), bytes).unwrap();
        }
        let heads: Vec<String> = heads.iter().map(Head::to_string).collect();
        writeln!(asked, "{} {}", path.display(), heads.join(" ")).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py");
    let mut python = Command::new("python3");
    let python = python.args(["-c", DRIVER]).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&asked));
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.lines().count(),
        cases.len(),
        "it died of {:?}",
        cases.get(text.lines().count()).map(|case| &case.2)
    );
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn agrees(line: &str, report: &Report, what: &str) {
    let (code, printed) = line.split_once('\t').unwrap();
    let printed = printed.replace('\\', "\n");
    let expected = match report.verdict() {
        Verdict::Intact => "0",
        Verdict::Damaged => "1",
        Verdict::Unclean => "3",
    };
    assert_eq!(code, expected, "{what}\n{report}\n{printed}");
    let verdict = report.verdict().to_string().to_uppercase();
    assert!(printed.starts_with(&format!("{verdict}: ")), "{what}\n{report}\n{printed}");
    if report.verdict() < Verdict::Damaged {
        let heads = report.heads().iter().map(Head::to_string);
        for head in heads {
            assert!(printed.contains(&head), "{what}\n{report}\n{printed}");
        }
    }
    // What counts, and how much, is the same whatever the verdict.
    let report = report.to_string();
    for line in report.lines().filter(|line| line.starts_with("  records ") || line.starts_with("  chain ")) {
        assert!(printed.lines().any(|other| other == line), "{what}\n{report}\n{printed}");
    }
}

#[track_caller]
pub(super) fn agree(log: &Log, heads: &[Head]) {
    agree_on(&[(log.clone(), heads.to_vec(), String::new())]);
}

#[test]
fn the_independent_checker_agrees() {
    if !is_there("the_independent_checker_agrees") {
        return;
    }
    let chain = Chain::new(0).events(3).roll().events(3).gap(1, 2).close();
    let witness = Chain::new(1).sees(&chain).mark().close();
    let log = Log::of(&[&chain, &witness]);
    agree(&log, &[]);
    agree(&log, &[chain.head(), chain.head_at(4), witness.head()]);
    agree(&Log::of(&[&witness]), &[]);
    let mut kept = chain.head();
    kept.seq += 5;
    agree(&log, &[kept]);
}

/// Checks the exit code when it is run as a program, as users run it.
#[test]
fn the_independent_checker_runs_by_itself() {
    if !is_there("the_independent_checker_runs_by_itself") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py");
    let log = Log::of(&[&Chain::new(0).events(2).event_marked("not known to be durable", None)]);
    for (name, bytes) in &log.files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let output = Command::new("python3").arg(&script).arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("000/3:") && text.contains("after  2 not known to be durable"), "{text}");
    let nowhere = Command::new("python3").arg(&script).arg(dir.path().join("x")).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
}

/// A generator that always returns the same random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Returns a log with everything that makes judging hard: void bytes, retention, a witness, a torn end.
fn eventful(random: &mut Random) -> Log {
    let base = Chain::new(0).events(2).roll().events(2).event_marked("last", None);
    let bytes = base.segments[&2].len() as u64;
    let lost = base.clone().event_marked("lost", None).event_marked("lost", None);
    let next = Chain { segments: lost.segments, ..base };
    let next = next.segment(vec![After::counted(2, bytes, None)]).recovery().events(3);
    let next = if random.below(2) == 0 { next.prune(4, (1, 1)).event("pruned") } else { next };
    let next = next.roll().events(1).event_marked("a", None).event_marked("b", None);
    let next = if random.below(2) == 0 { next.close() } else { next };
    let other = Chain::new(1).sees(&next).mark();
    if random.below(2) == 0 { Log::of(&[&next, &other]) } else { Log::of(&[&next]) }
}

/// Makes several changes at a time, whose joint meaning is not known.
#[test]
fn the_independent_checker_agrees_on_random_damage() {
    if !is_there("the_independent_checker_agrees_on_random_damage") {
        return;
    }
    let mut random = Random(1);
    let cases = (0..400).map(|number| {
        let mut log = eventful(&mut random);
        for _ in 0..=random.below(3) {
            let segment = u32::try_from(random.below(4)).unwrap() + 1;
            let change = random.below(6);
            if change == 5 && log.files.len() > 1 {
                log.files.remove(&name(0, segment));
            }
            if !log.files.contains_key(&name(0, segment)) {
                continue;
            }
            log.edit(0, segment, |lines| {
                let (line, to) = (random.below(lines.len().max(1)), random.below(lines.len().max(1)));
                match change {
                    _ if lines.is_empty() => {}
                    0 => drop(lines.remove(line)),
                    1 => lines.insert(to, lines[line].clone()),
                    2 => lines[line][3] ^= 1,
                    3 => lines.insert(line, b"no record\n".to_vec()),
                    _ => lines.truncate(line),
                }
            });
        }
        (log, Vec::new(), format!("random damage {number}"))
    });
    agree_on(&cases.collect::<Vec<_>>());
}

/// A line that was inserted too early makes all lines behind it come too late, up to the one that continues the chain
/// from before it. Then nothing is missing, and one line is too many.
#[test]
fn a_line_inserted_too_early_is_one_too_many_for_both() {
    if !is_there("a_line_inserted_too_early_is_one_too_many_for_both") {
        return;
    }
    let honest = Log::of(&[&Chain::new(0).events(7).close()]);
    let other = Log::of(&[&Chain::new(1).events(9).close()]);
    let line_of = |log: &Log, at: usize| {
        let lines = log.files.values().flat_map(|file| file.split_inclusive(|byte| *byte == b'\n'));
        lines.skip(at).map(<[u8]>::to_vec).next().unwrap()
    };
    let mut cases: Vec<Case> = Vec::new();
    for from in 2..8 {
        for to in 1..from {
            for (source, whose) in [(&honest, "its own"), (&other, "another chain's")] {
                let mut log = honest.clone();
                log.edit(0, 1, |lines| lines.insert(to, line_of(source, from)));
                let what = format!("line {from} of {whose} before line {to}");
                cases.push((log.clone(), Vec::new(), what.clone()));
                // In addition, the line behind it was changed, or a second one inserted.
                let mut changed = log.clone();
                changed.edit(0, 1, |lines| lines[to + 1][3] ^= 1);
                cases.push((changed, Vec::new(), format!("{what}, which was changed")));
                log.edit(0, 1, |lines| lines.insert(to, line_of(&other, 8)));
                cases.push((log, Vec::new(), format!("{what}, and another one")));
            }
        }
    }
    agree_on(&cases);
    for (said, (log, _, what)) in ask(&cases).iter().zip(&cases) {
        let report = log.verify();
        let of = |kind: FindingKind| said.matches(&format!("\\  - {}: ", kind.as_str())).count() as u64;
        // Only the library looks up whether a line out of place is a copy of another.
        let copies = |count: &dyn Fn(FindingKind) -> u64, kind: FindingKind| match kind {
            FindingKind::Inserted => count(kind) + count(FindingKind::Duplicate),
            FindingKind::Duplicate => 0,
            kind => count(kind),
        };
        for kind in FindingKind::ALL {
            let (theirs, ours) = (copies(&of, *kind), copies(&|kind| report.count(kind), *kind));
            assert_eq!(theirs, ours, "{what}: {kind}\n{report}\n{}", said.replace('\\', "\n"));
        }
    }
    let inserted = cases[0].0.verify();
    assert_eq!((inserted.count(FindingKind::Inserted), inserted.count(FindingKind::Deleted)), (1, 0));
}

/// Makes the changes whose meaning docs/format.md defines, on every kind of honest log.
#[test]
fn the_independent_checker_agrees_on_every_kind_of_edit() {
    if !is_there("the_independent_checker_agrees_on_every_kind_of_edit") {
        return;
    }
    let logs: Vec<Honest> = tampering::honest_logs();
    let mut cases = Vec::new();
    for number in 0.. {
        let mut random = Prng::new(1_000_000 + number);
        let (at, other) = (random.below(logs.len()), random.below(logs.len()));
        let (honest, heads) = (&logs[at], tampering::kept_heads(&logs[at]));
        let chain = *honest.chains.keys().nth(random.below(honest.chains.len())).unwrap();
        let (what, change) = CHANGES[random.below(CHANGES.len())];
        let mut editor = Editor { honest, other: &logs[other], random: &mut random };
        let Some(edited) = change(&mut editor, chain) else { continue };
        let what = format!("{what} ({}) of {:?}", edited.what, honest.name);
        let heads = if number % 2 == 0 { Vec::new() } else { heads.into_values().collect() };
        cases.push((edited.log, heads, what));
        if cases.len() == 600 {
            break;
        }
    }
    agree_on(&cases);
}

/// Returns lines with matching hashes and links that the format does not allow, or that only look odd. Each comes with
/// the verdict on a log that has it in the middle.
#[expect(clippy::too_many_lines, reason = "a table")]
fn odd_lines() -> Vec<(String, Option<Verdict>)> {
    let deep = |depth: usize| format!(",\"kind\":\"event\",\"a\":{}{}", "[".repeat(depth), "]".repeat(depth));
    let hash = "0".repeat(64);
    let id = "0".repeat(32);
    let segment = |members: &str| format!(",\"kind\":\"segment\",\"segment\":{{{members}}}");
    let whole = format!("\"id\":\"{id}\",\"chain\":\"000\",\"segment\":2,\"after\":[],\"chains\":{{}}");
    let (damaged, fine) = (Some(Verdict::Damaged), Some(Verdict::Intact));
    vec![
        (",\"kind\":\"event\"".into(), fine),
        (",\"kind\":\"new\",\"new\":{\"a\":1}".into(), fine),
        (",\"kind\":\"event\",\"event\":5,\"a\":[],\"b\":{},\"c\":-0.5e+3,\"d\":null".into(), fine),
        (",\"kind\":7".into(), fine),
        (",\"kind\":{\"a\":1}".into(), fine),
        (deep(31), fine),
        (deep(32), damaged),
        (", \"kind\":\"event\"".into(), damaged),
        (",\"kind\": \"event\"".into(), damaged),
        (",\"a\":[1, 2]".into(), damaged),
        (",\"a\":\"x y\"".into(), fine),
        (",\"a\":\"\t\"".into(), damaged),
        (",\"a\":\"\u{85}\"".into(), damaged),
        (",\"a\":\"\u{7f}\"".into(), damaged),
        (",\"a\u{2028}\":1".into(), damaged),
        (",\"a\":\"\u{e0041}\"".into(), damaged),
        (",\"a\":\"\\ud83d\\ude00\"".into(), fine),
        (",\"a\":\"\\ud83d\"".into(), damaged),
        (",\"\\udc00\":1".into(), damaged),
        (",\"a\":01".into(), damaged),
        (",\"a\":NaN".into(), damaged),
        (",\"a\":-Infinity".into(), damaged),
        (",\"a\":1.".into(), damaged),
        (",\"a\":1,\"\\u0061\":2".into(), damaged),
        (",\"\\u005fhash\":\"x\"".into(), damaged),
        (",\"durable\":1.0".into(), damaged),
        (",\"durable\":-1".into(), damaged),
        (",\"durable\":\"3\"".into(), damaged),
        (",\"durable\":true".into(), damaged),
        (",\"durable\":null".into(), damaged),
        (",\"durable\":18446744073709551616".into(), damaged),
        (",\"durable\":4".into(), fine),
        (",\"\\u0064urable\":4000".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":{\"chains\":5}".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":{\"chains\":[]}".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":{\"chains\":{\"001\":5}}".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":{}".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":[]".into(), damaged),
        (",\"kind\":\"mark\"".into(), damaged),
        (",\"mark\":{\"chains\":{}},\"kind\":\"mark\"".into(), damaged),
        (",\"kind\":\"mark\",\"mark\":{\"chains\":{}}".into(), fine),
        (",\"\\u006bind\":\"m\\u0061rk\",\"mark\":{\"chains\":{}}".into(), fine),
        (",\"kind\":\"open\",\"open\":7".into(), damaged),
        (",\"kind\":\"open\",\"open\":{\"chains\":{\"1\":{}}}".into(), damaged),
        (
            format!(
                ",\"kind\":\"open\",\"open\":{{\"chains\":{{\"001\":{{\"id\":\"{id}\",\"seq\":-1,\"hash\":\"{hash}\"}}}}}}"
            ),
            damaged,
        ),
        (
            format!(
                ",\"kind\":\"open\",\"open\":{{\"chains\":{{\"001\":{{\"id\":\"{id}\",\"seq\":0,\"hash\":\"{hash}\"}}}}}}"
            ),
            damaged,
        ),
        (",\"kind\":\"gap\",\"gap\":{\"reason\":\"x\",\"critical\":0}".into(), damaged),
        (",\"kind\":\"gap\",\"gap\":{\"reason\":\"x\",\"critical\":0,\"routine\":1}".into(), fine),
        (",\"kind\":\"recovery\",\"recovery\":{}".into(), damaged),
        (",\"kind\":\"prune\",\"prune\":{\"through\":1}".into(), damaged),
        (
            format!(
                ",\"kind\":\"prune\",\"prune\":{{\"through\":999,\"hash\":\"{hash}\",\"files\":[1,1],\"reason\":\"x\"}}"
            ),
            damaged,
        ),
        (segment(&format!("\"format\":0,{whole}")), damaged),
        (segment(&format!("\"format\":\"1\",{whole}")), damaged),
        (segment(&format!("\"format\":1.0,{whole}")), damaged),
        (segment(&format!("\"format\":1,{whole}")), damaged),
        (segment(&format!("\"format\":2,{whole}")), damaged),
        (segment("\"format\":2"), damaged),
        (segment("\"format\":99999999999999999999999999999999999999999"), damaged),
        (segment(&whole), damaged),
        (",\"kind\":\"segment\",\"segment\":1".into(), damaged),
    ]
}

#[test]
fn the_independent_checker_is_as_strict_as_the_format() {
    if !is_there("the_independent_checker_is_as_strict_as_the_format") {
        return;
    }
    let mut cases = Vec::new();
    for (line, verdict) in &odd_lines() {
        let chain = Chain::new(0).events(2).put(line.as_bytes(), None).events(2).close();
        let mut log = Log::of(&[&chain]);
        if let Some(verdict) = verdict {
            assert_eq!(log.verify().verdict(), *verdict, "{line}\n{}", log.verify());
        }
        cases.push((log.clone(), vec![chain.head_at(3)], line.clone()));
        // As the first line of a file.
        let chain = Chain::new(0).events(2);
        let chain = Chain { segment: 2, ..chain }.put(line.as_bytes(), None).events(2).close();
        cases.push((Log::of(&[&chain]), Vec::new(), format!("{line} in front")));
        // Where it does not count.
        log.file(0, 1).extend_from_slice(b"torn");
        cases.push((log, Vec::new(), format!("{line} and a torn end")));
    }
    agree_on(&cases);
}
