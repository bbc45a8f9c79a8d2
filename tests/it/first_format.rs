//! Logs written by an earlier version: they verify as they did then, and can be continued.
//! `tests/fixtures/first-format/README.md` describes how each was created.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Head, Verdict, read, verify};

use crate::support::with_layer;

/// A log, the verdict of the version that wrote it, and the result of continuing it.
struct Fixture {
    name: &'static str,
    verdict: Verdict,
    records: u64,
    events: u64,
    heads: &'static [&'static str],
    /// The chain and number of the first record of the next run, which may be an earlier record that is written again.
    continues_at: (u16, u64),
    /// The verdict after that run.
    after: Verdict,
}

const FIXTURES: &[Fixture] = &[
    Fixture {
        name: "chain-gone",
        verdict: Verdict::Damaged,
        records: 8,
        events: 5,
        heads: &["000/8:b28cd071389b11acb047c3c1741e038e78002a46d44d32ef9c931a5224d71c75"],
        continues_at: (0, 9),
        after: Verdict::Damaged,
    },
    Fixture {
        name: "chains",
        verdict: Verdict::Intact,
        records: 47,
        events: 30,
        heads: &[
            "000/23:bef14627ed7305df02631a82af01614c7201431f9d777f018d007d40b386ac3b",
            "001/16:cf478dc2a643f6d9d20e348105bd83fbce508f5c1b3668f59c4979e5f11d3623",
            "002/8:38267ee69b3adea6386a242c0dc99ee427a7fba9699e5c6a46f58a9501d8de7b",
        ],
        continues_at: (0, 24),
        after: Verdict::Intact,
    },
    Fixture {
        name: "chains-unclosed",
        verdict: Verdict::Unclean,
        records: 22,
        events: 15,
        heads: &[
            "000/8:0225f1ba5cb2bb51da30bdd8ca2e13e61b6e6038fb8fcbe0fa55e1607ece5f61",
            "001/5:59e3bd36a7642f56c754c8c0b3cd2355a455fe7dded4c0c04f5e5d14115da7fd",
            "002/5:f99269f58480d6d9b3a600f2256520918fc1d75ee3e5091c89fdf0734e5b68fb",
        ],
        continues_at: (0, 9),
        after: Verdict::Intact,
    },
    Fixture {
        name: "closed",
        verdict: Verdict::Intact,
        records: 15,
        events: 10,
        heads: &["000/15:a99cb2157b1c62fbfd23b1f07246d2eb5c3831a92ff2a00bebd5a4fbe69d1f51"],
        continues_at: (0, 16),
        after: Verdict::Intact,
    },
    Fixture {
        name: "crashed",
        verdict: Verdict::Unclean,
        records: 7,
        events: 5,
        heads: &["000/5:e36fa07050bf95bedfe01880830bc822d192c57f93e1516bd67221ffe762f520"],
        continues_at: (0, 8),
        after: Verdict::Intact,
    },
    Fixture {
        name: "damaged",
        verdict: Verdict::Damaged,
        records: 14,
        events: 9,
        heads: &["000/15:be24e514b6731f1ab34b84ec2d594567f465c9759d207e695f3205abf5072af3"],
        continues_at: (0, 16),
        after: Verdict::Damaged,
    },
    Fixture {
        name: "damaged-continued",
        verdict: Verdict::Damaged,
        records: 17,
        events: 9,
        heads: &["000/18:d30b8ea8ca87b3d610f4efa02ec29e981f380f7602445dbed2b977fc5e18b5ff"],
        continues_at: (0, 19),
        after: Verdict::Damaged,
    },
    Fixture {
        name: "out-of-room",
        verdict: Verdict::Intact,
        records: 18,
        events: 13,
        heads: &["000/18:cf62319bfd71ceb42026749d7bc9963d8b80fc17c91047b4e36faae930ffdd69"],
        continues_at: (0, 19),
        after: Verdict::Intact,
    },
    Fixture {
        name: "pruned",
        verdict: Verdict::Intact,
        records: 17,
        events: 10,
        heads: &["000/44:58d973fd6485bac4c87416679a9556ac46ec31b3a57bb66d48d604cd5ecc61cb"],
        continues_at: (0, 45),
        after: Verdict::Intact,
    },
    Fixture {
        name: "stillborn",
        verdict: Verdict::Intact,
        records: 15,
        events: 10,
        heads: &["000/15:e07a3efc97a2a8999e695fd4ceab5769fb2e749f132cd90225b640333131c238"],
        continues_at: (0, 16),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-at-birth",
        verdict: Verdict::Unclean,
        records: 1,
        events: 0,
        heads: &[],
        continues_at: (0, 2),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-at-birth-in-first-line",
        verdict: Verdict::Unclean,
        records: 0,
        events: 0,
        heads: &[],
        continues_at: (0, 1),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-first-write",
        verdict: Verdict::Unclean,
        records: 6,
        events: 2,
        heads: &["000/4:1780ffce7258113bdb822b090bd31f4a4f0c44e1e59beb2f3be9c2b21726e301"],
        continues_at: (0, 7),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-first-write-continued",
        verdict: Verdict::Intact,
        records: 14,
        events: 7,
        heads: &["000/14:a11018e9a256ec3980cb458c8428f7fdfb13e684e1e94d6039174056d26bd09b"],
        continues_at: (0, 15),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-first-write-in-first-line",
        verdict: Verdict::Unclean,
        records: 11,
        events: 9,
        heads: &["000/4:1780ffce7258113bdb822b090bd31f4a4f0c44e1e59beb2f3be9c2b21726e301"],
        continues_at: (0, 12),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-first-write-lines-behind",
        verdict: Verdict::Unclean,
        records: 8,
        events: 6,
        heads: &["000/4:342ac91bba3ff30d4defda2f59b3ebbf4a91365c3bf0c5764b5867dd97f71665"],
        continues_at: (0, 9),
        after: Verdict::Intact,
    },
    Fixture {
        name: "torn-first-write-reordered",
        verdict: Verdict::Unclean,
        records: 11,
        events: 9,
        heads: &["000/4:1780ffce7258113bdb822b090bd31f4a4f0c44e1e59beb2f3be9c2b21726e301"],
        continues_at: (0, 12),
        after: Verdict::Intact,
    },
    Fixture {
        name: "unclosed",
        verdict: Verdict::Unclean,
        records: 7,
        events: 5,
        heads: &["000/5:1dc2ba9c16a158c8b6e26c9170ea55096ab4cab2a3a8e8b12afbd595f4654fce"],
        continues_at: (0, 8),
        after: Verdict::Intact,
    },
    Fixture {
        name: "void-sync-failed",
        verdict: Verdict::Intact,
        records: 16,
        events: 10,
        heads: &["000/16:11b9a9b50e5b7a2384b5180b9b2549302f49a8c9cae104a9df61afb15dba0cdd"],
        continues_at: (0, 17),
        after: Verdict::Intact,
    },
    Fixture {
        name: "void-write-failed",
        verdict: Verdict::Intact,
        records: 16,
        events: 10,
        heads: &["000/16:a49eb6b2d17731341705204addb0c360e8badfc7c2eea77974f032cfa255a773"],
        continues_at: (0, 17),
        after: Verdict::Intact,
    },
];

/// Copies a fixture, with the permissions of a log, which git does not keep.
fn copy_of(name: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("log");
    let from = fixtures().join(name);
    for place in ["", "control"] {
        fs::create_dir(to.join(place)).unwrap();
        fs::set_permissions(to.join(place), fs::Permissions::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(from.join(place)).unwrap().map(Result::unwrap) {
            let copied = to.join(place).join(entry.file_name());
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), &copied).unwrap();
                fs::set_permissions(&copied, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
    (dir, to)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first-format")
}

/// Returns what can be read of a log, damaged or not: the durable records, and all heads.
fn durable_of(log: &Path) -> (BTreeMap<(u16, u64), Head>, Vec<Head>) {
    let records: Vec<_> = read(log).unwrap().filter_map(Result::ok).collect();
    let durable = records.iter().filter(|record| !record.is_provisional());
    let durable = durable.map(|record| ((record.chain(), record.seq()), record.head())).collect();
    (durable, records.iter().map(tracing_audit::Record::head).collect())
}

#[test]
fn logs_of_the_first_format_verify_as_before_and_are_continued() {
    let mut offences = Vec::new();
    for fixture in FIXTURES {
        let name = fixture.name;
        let (_dir, path) = copy_of(name);
        let report = verify(&path).unwrap();
        let heads: Vec<String> = report.heads().iter().map(ToString::to_string).collect();
        let found = (report.verdict(), report.records(), report.events());
        let expected = (fixture.verdict, fixture.records, fixture.events);
        if found != expected || heads != fixture.heads {
            offences.push(format!("{name}: {found:?} {heads:?} instead of {expected:?} {:?}", fixture.heads));
        }

        let (before, all_before) = durable_of(&path);
        let log = AuditLog::builder(&path).service("later").open().unwrap();
        let receipt = with_layer(&log, || {
            log.confirm(|| tracing::info!(target: "audit", action = "later", actor = "mia")).unwrap()
        });
        let head = log.close().unwrap();
        let (after, all_after) = durable_of(&path);
        assert!(
            after.contains_key(&(receipt.chain(), receipt.seq())) && head.seq() > receipt.seq(),
            "{name}"
        );
        for (place, head) in &before {
            assert_eq!(after.get(place), Some(head), "{name}: {place:?} was durable");
        }
        let first =
            all_after.iter().find(|head| head.chain() == receipt.chain() && !all_before.contains(head));
        let continues_at = first.map(|head| (head.chain(), head.seq()));
        if continues_at != Some(fixture.continues_at) {
            offences
                .push(format!("{name}: continues at {continues_at:?} instead of {:?}", fixture.continues_at));
        }
        let report = verify(&path).unwrap();
        if report.verdict() != fixture.after {
            offences.push(format!("{name}: {report} instead of {}", fixture.after));
        }
        // The bytes of the files stay unchanged, void or not.
        for file in fs::read_dir(fixtures().join(name)).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_file() {
                let now = fs::read(path.join(file.file_name().unwrap())).unwrap();
                assert!(now.starts_with(&fs::read(&file).unwrap()), "{} was changed", file.display());
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// A fixture without an entry in the table would test nothing.
#[test]
fn every_fixture_is_in_the_table() {
    let mut names: Vec<String> = fs::read_dir(fixtures())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected: Vec<_> = FIXTURES.iter().map(|fixture| fixture.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}
