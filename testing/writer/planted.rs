//! Sees that the tests find bugs: each planted bug, in a process of its own, must turn its tests red.
//!
//! What was planned and is not here concerns what does not exist yet: that verification passes an
//! unsigned log under a signing policy, an old record covered by a newer key, a cursor that is ahead of
//! its sink, a sink that emits, and a key that is erased too early.

use std::{
    collections::BTreeSet,
    env,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::planted::{Bug, VARIABLE};

/// Seeds among which some must find the bug, and so many that must hold without it.
const SEEDS: &str = "2000";
const SEEDS_WITHOUT: &str = "100";

/// A test that takes this long hangs, and so has found the bug too.
const PATIENCE: Duration = Duration::from_secs(20);

const CRASHES: &str = "writer::tests::crashes::ten_thousand_crashes_lose_nothing_that_was_acknowledged";

/// The tests that find a bug, each by itself.
fn found_by(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AcknowledgedBeforeSync
        | Bug::MarkAheadOfSync
        | Bug::NewNameNotSynced
        | Bug::HolesKept
        | Bug::TornTailIsDamage
        | Bug::UnsyncedCloseWitnessed => &[CRASHES],
        Bug::FailedSyncBelieved | Bug::PoisonNotWritten => {
            &[CRASHES, "writer::tests::trouble::a_failed_sync_is_poison_until_a_new_segment_is_durable"]
        }
        Bug::PoisonNotCleared => {
            &["writer::tests::trouble::a_failed_sync_is_poison_until_a_new_segment_is_durable"]
        }
        Bug::PoisonIgnored => &[
            "writer::tests::trouble::a_poisoned_chain_goes_on_after_its_last_durable_record_under_the_same_boot",
        ],
        Bug::FullDiskUnsynced | Bug::DraftsNotRetained | Bug::ShortWriteNotContinued => {
            &[CRASHES, "writer::tests::outage::a_full_disk_only_ends_the_segment"]
        }
        Bug::OpenFileNotWatched | Bug::NameNotWatched => {
            &["writer::tests::trouble::a_live_segment_that_somebody_changes_is_left_for_a_new_one"]
        }
        Bug::DraftsLeftInChain | Bug::LostDirectoryNotFollowed => {
            &["writer::tests::trouble::a_directory_that_was_removed_or_moved_is_made_again_without_a_restart"]
        }
        Bug::IdleNamesNotSynced => {
            &["writer::tests::trouble::a_chain_is_not_let_go_of_while_a_name_of_its_own_is_in_doubt"]
        }
        Bug::TailNotSynced => &[
            "writer::tests::trouble::a_segment_that_cannot_be_synced_at_open_decides_nothing_until_the_next_boot",
        ],
        Bug::DamageIsTorn => &["writer::tests::trouble::damage_below_the_mark_stays_within_what_counts"],
        Bug::EmptyFileNotUsed => &["writer::tests::outage::crash_looping_on_a_full_disk_uses_one_empty_file"],
        Bug::RemovedNameNotSynced | Bug::PrunedBeforeRecord => {
            &["writer::tests::retention::the_oldest_segments_go_after_a_durable_prune_record"]
        }
        Bug::OwnRecordsHoldRoom => &["writer::tests::smoke::numbers_of_the_log_are_right"],
        Bug::GapAfterNextEvent => &["writer::tests::smoke::a_gap_stands_exactly_before_the_next_event"],
        Bug::ReservedShareIgnored => {
            &["writer::tests::smoke::a_quarter_of_the_queue_is_kept_for_critical_events"]
        }
        Bug::LockFileRemoved => {
            &[CRASHES, "writer::tests::smoke::a_log_is_opened_written_closed_and_continued"]
        }
        Bug::LockReleasedLate => {
            &["writer::tests::smoke::whoever_hears_that_the_log_is_closed_can_continue_its_chain"]
        }
        Bug::GapNotAtomic => &["writer::tests::threads::a_tiny_queue_blocks_or_drops_and_never_hangs"],
        Bug::PauseWithoutLook => &["queue::tests::nothing_urgent_is_slept_through"],
        Bug::SleepersNotWoken => {
            &["queue::tests::a_thread_that_sleeps_is_woken_when_its_event_is_durable_and_when_the_log_ends"]
        }
        Bug::LateSleepersApart => &[
            "queue::sleepers::tests::who_is_late_is_served_by_the_sync_that_runs",
            "queue::tests::threads_that_came_during_a_sync_sleep_through_it",
        ],
        Bug::InterruptedCallFails => &["storage::disk::tests::an_interrupted_call_is_made_again"],
        Bug::VerifierIgnoresMark => &["verify::tests::clauses::what_happens_to_a_line_has_a_name"],
        Bug::HexWithoutCase => &["chain::tests::only_lower_case_hex_is_a_digest"],
        Bug::FieldsAtTopLevel => &["capture::tests::payload::nothing_of_an_event_reaches_the_top_level"],
        Bug::OwnThreadQueued => &["capture::tests::lifecycle::events_from_our_own_threads_are_counted"],
    }
}

/// These tests, in a process of their own.
fn start(tests: &[&str], bug: Option<Bug>) -> Child {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.arg("--exact").args(tests).env("RUST_BACKTRACE", "0");
    match bug {
        Some(bug) => command.env(VARIABLE, format!("{bug:?}")).env("AUDIT_SEEDS", SEEDS),
        None => command.env_remove(VARIABLE).env("AUDIT_SEEDS", SEEDS_WITHOUT),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn")
}

/// Whether a test fails with the bug, or hangs. A test that does not exist is green.
fn goes_red(test: &str, bug: Bug) -> bool {
    let mut child = start(&[test], Some(bug));
    let begun = Instant::now();
    loop {
        match child.try_wait().expect("wait") {
            Some(status) => return !status.success(),
            None if begun.elapsed() > PATIENCE => {
                child.kill().expect("kill");
                child.wait().expect("wait");
                return true;
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    let pairs: Vec<(Bug, &str)> =
        Bug::ALL.into_iter().flat_map(|bug| found_by(bug).iter().map(move |test| (bug, *test))).collect();
    let next = AtomicUsize::new(0);
    let walk = || {
        let mut missed = Vec::new();
        while let Some((bug, test)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !goes_red(test, *bug) {
                missed.push(format!("{bug:?} is not found by {test}"));
            }
        }
        missed
    };
    let missed: Vec<String> = thread::scope(|scope| {
        let walks = [scope.spawn(walk), scope.spawn(walk)];
        walks.into_iter().flat_map(|walk| walk.join().expect("join")).collect()
    });
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    // Without a bug the same tests are green, and there are as many as the table names.
    let tests: BTreeSet<&str> = pairs.iter().map(|(_, test)| *test).collect();
    let tests: Vec<&str> = tests.into_iter().collect();
    let output = start(&tests, None).wait_with_output().expect("wait");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains(&format!("test result: ok. {} passed; 0 failed", tests.len())), "{output}");
}
