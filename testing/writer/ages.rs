//! The ages of segments under a wrong clock: it removes nothing that is fresh, and keeps nothing
//! that is old.

use std::time::Duration;

use super::{
    oracle::{self, Strictness},
    world::{Node, SECOND, Settings, World},
};
use crate::{NoticeKind, Retention, Rotation, Verdict, format::RecordKind, segment_name::SegmentName};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn aged(days: u32) -> Settings {
    Settings::default().rotation(Rotation::daily()).retention(Retention::keep_all().max_age(DAY * days))
}

/// Returns the existing segments of a chain.
fn files(world: &World, chain: u16) -> Vec<u32> {
    let names = world.disk.snapshot().into_keys();
    let names = names.filter_map(|name| SegmentName::parse(&name));
    names.filter(|name| name.chain.get() == chain).map(|name| name.segment).collect()
}

/// Starts a program that records an event and ends.
fn run_once(world: &mut World, settings: &Settings) {
    let mut node = world.opened(settings);
    node.critical(world);
    node.run_for(world, SECOND);
    node.close(world);
}

/// Runs for this many days, with one event a day.
fn run_days(world: &mut World, node: &mut Node, days: u32) {
    for _ in 0..days {
        node.critical(world);
        node.run_for(world, DAY);
    }
}

/// Creates a log of four segments, the last of them a day old.
fn four_days(settings: &Settings) -> World {
    let mut world = World::new(1);
    let mut node = world.opened(settings);
    run_days(&mut world, &mut node, 4);
    node.close(&mut world);
    assert_eq!(files(&world, 0), [1, 2, 3, 4]);
    world
}

#[track_caller]
fn checked(world: &World) -> oracle::Chain {
    let chains = oracle::check(world, Strictness::Once).unwrap();
    let (verdict, report) = oracle::verify(world).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{report}");
    chains[&0].clone()
}

fn jumps_reported(chain: &oracle::Chain) -> usize {
    let notices = chain.of_kind(RecordKind::Notice);
    notices.iter().filter(|line| line.text.contains(NoticeKind::TimeJumped.as_str())).count()
}

/// Such a start once removed all but the newest segment, and verification called the rest intact.
#[test]
fn one_start_with_the_clock_two_years_ahead_removes_nothing_and_is_reported_at_once() {
    let settings = aged(400);
    let mut world = four_days(&settings);
    world.step_wall_clock(DAY * 730);
    run_once(&mut world, &settings);
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]));
    let chain = checked(&world);
    assert_eq!(jumps_reported(&chain), 1, "{}", chain.kinds());
    // With the right clock, nothing is old either, and there is nothing to report.
    world.step_wall_clock_back(DAY * 730);
    run_once(&mut world, &settings);
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]));
    assert_eq!(jumps_reported(&checked(&world)), 1);
}

/// Times more than 584 years apart were once taken for equal.
#[test]
fn a_clock_that_is_millennia_ahead_is_not_trusted_either() {
    let settings = aged(400);
    let mut world = four_days(&settings);
    world.step_wall_clock(DAY * 365 * 2000);
    run_once(&mut world, &settings);
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]));
    assert_eq!(jumps_reported(&checked(&world)), 1);
}

#[test]
fn a_clock_that_jumps_under_a_running_program_removes_nothing_either() {
    let settings = aged(400);
    let mut world = four_days(&settings);
    let mut node = world.opened(&settings);
    node.run_for(&mut world, SECOND);
    world.step_wall_clock(DAY * 730);
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    let reported = node.queue.notifier.counts().iter().map(|notice| notice.kind).collect::<Vec<_>>();
    assert!(reported.contains(&NoticeKind::TimeJumped), "at once: {reported:?}");
    node.run_for(&mut world, HOUR * 20);
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]));
    // A clock that is kept for a day is trusted. The fourth segment ended when the next one began.
    node.run_for(&mut world, HOUR * 6);
    assert_eq!(files(&world, 0).first(), Some(&4));
    node.close(&mut world);
    checked(&world);
}

#[test]
fn a_restart_loop_with_the_wrong_clock_does_not_unlock_removal() {
    let settings = aged(400);
    let mut world = four_days(&settings);
    world.step_wall_clock(DAY * 730);
    for _ in 0..100 {
        run_once(&mut world, &settings);
        world.advance(Duration::from_secs(600));
    }
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]), "16 hours");
    for _ in 0..60 {
        run_once(&mut world, &settings);
        world.advance(Duration::from_secs(600));
    }
    assert_eq!(files(&world, 0).first(), Some(&4), "and now it is more than a day");
    checked(&world);
}

/// Every run is a jump of a week.
#[test]
fn a_short_program_that_runs_weekly_lags_by_one_run() {
    let settings = aged(30);
    let mut world = World::new(1);
    for week in 1..=20_u32 {
        run_once(&mut world, &settings);
        world.advance(DAY * 7);
        // The run before is four weeks behind the one before that, two days too young to be
        // removed. A segment ends where the next one begins.
        let oldest = week.saturating_sub(6).max(1);
        assert_eq!(files(&world, 0), (oldest..=week).collect::<Vec<_>>(), "week {week}");
    }
    checked(&world);
}

#[test]
fn a_segment_below_its_minimum_age_stays_whatever_the_clock_says() {
    let keep = Retention::keep_all().max_segments(1).min_age(DAY * 90);
    let settings = Settings::default().rotation(Rotation::daily()).retention(keep);
    let mut world = four_days(&settings);
    world.step_wall_clock(DAY * 730);
    run_once(&mut world, &settings);
    assert!(files(&world, 0).starts_with(&[1, 2, 3, 4]));
    checked(&world);
}

/// A chain that was just begun knows only the time of the wrong clock. It once took every other
/// chain for old.
#[test]
fn a_new_chain_with_the_wrong_clock_removes_nothing_of_the_others() {
    let settings = aged(400);
    let mut world = four_days(&settings);
    let mut held = world.opened(&Settings::default());
    let mut other = world.opened(&settings);
    run_days(&mut world, &mut other, 4);
    other.close(&mut world);
    let of_other = files(&world, 1);
    assert!(of_other.len() > 3);
    let mut blocked = world.opened(&Settings::default());
    world.step_wall_clock(DAY * 730);
    // Chains 000 and 001 are held, so it begins chain 002. The `close` of 001 has the right time
    // and must not report a jump.
    let mut new = world.opened(&settings);
    world.step_wall_clock_back(DAY * 730);
    blocked.close(&mut world);
    world.step_wall_clock(DAY * 730);
    new.run_for(&mut world, HOUR * 20);
    assert_eq!(files(&world, 2), [1]);
    assert_eq!(files(&world, 1), of_other);
    // Once it has run for a day, its time is trusted.
    new.critical(&mut world);
    new.run_for(&mut world, HOUR * 6);
    assert_eq!(files(&world, 1).len(), 1);
    new.close(&mut world);
    held.close(&mut world);
    oracle::check(&world, Strictness::Once).unwrap();
}

/// Such a segment once kept every later one until its own time had come.
#[test]
fn one_segment_that_begins_decades_ahead_keeps_no_other() {
    for ahead in [DAY * 365 * 30, DAY * 365 * 7000, DAY * 40] {
        let settings = aged(7);
        let mut world = World::new(1);
        let mut node = world.opened(&settings);
        run_days(&mut world, &mut node, 3);
        // One segment begins while the clock is ahead, and the next one at the right time.
        world.step_wall_clock(ahead);
        node.queue.ask_rotation();
        node.pump(&mut world);
        world.step_wall_clock_back(ahead);
        node.queue.ask_rotation();
        node.critical(&mut world);
        node.pump(&mut world);
        let begun_ahead = *files(&world, 0).last().unwrap() - 1;
        run_days(&mut world, &mut node, 30);
        let left = files(&world, 0);
        assert!(left.len() <= 9 && left[0] > begun_ahead, "{ahead:?}: {left:?}");
        node.close(&mut world);
        checked(&world);
    }
}

#[test]
fn one_segment_that_begins_decades_ago_makes_no_other_old() {
    let settings = aged(7);
    let mut world = World::new(1);
    let mut node = world.opened(&settings);
    run_days(&mut world, &mut node, 3);
    let back = DAY * 365 * 30;
    // One segment begins while the clock is behind. Its first record has the right time.
    world.step_wall_clock_back(back);
    node.queue.ask_rotation();
    node.pump(&mut world);
    world.step_wall_clock(back);
    node.critical(&mut world);
    node.pump(&mut world);
    let before = files(&world, 0);
    run_days(&mut world, &mut node, 3);
    assert!(files(&world, 0).starts_with(&before), "{before:?} {:?}", files(&world, 0));
    run_days(&mut world, &mut node, 30);
    assert!(files(&world, 0).len() <= 9, "{:?}", files(&world, 0));
    node.close(&mut world);
    checked(&world);
}

/// A clock without a battery begins decades ago. The segment that ended with such a start was once
/// taken for decades old. That happened as soon as the one before it was removed, although its own
/// records are young.
#[test]
fn a_start_decades_ago_makes_no_segment_old_when_the_one_before_it_is_removed() {
    let settings =
        Settings::default().rotation(Rotation::never()).retention(Retention::keep_all().max_age(DAY * 100));
    let mut world = World::new(1);
    let mut node = world.opened(&settings);
    run_days(&mut world, &mut node, 5);
    node.queue.ask_rotation();
    node.pump(&mut world);
    run_days(&mut world, &mut node, 80);
    let back = DAY * 365 * 30;
    world.step_wall_clock_back(back);
    node.queue.ask_rotation();
    node.critical(&mut world);
    node.pump(&mut world);
    world.step_wall_clock(back);
    node.critical(&mut world);
    node.pump(&mut world);
    // The first ended on the 5th day, the second on the 85th.
    run_days(&mut world, &mut node, 30);
    assert_eq!(files(&world, 0).first(), Some(&2), "{:?}", files(&world, 0));
    run_days(&mut world, &mut node, 60);
    assert_eq!(files(&world, 0).first(), Some(&2), "{:?}", files(&world, 0));
    run_days(&mut world, &mut node, 30);
    assert_eq!(files(&world, 0).first(), Some(&3), "{:?}", files(&world, 0));
    node.close(&mut world);
    checked(&world);
}
