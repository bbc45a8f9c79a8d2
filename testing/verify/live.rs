use super::{
    check,
    log::{Chain, Log, name},
};
use crate::{
    FindingKind::NotClosed,
    NoteKind,
    Verdict::{Damaged, Intact, Unclean},
    format::After,
};

/// Returns a log that changes each time its directory is listed, to the next of these states.
fn changing(states: &[Log]) -> Log {
    let log = states[0].clone();
    *log.script.lock().unwrap() = states.iter().rev().map(|state| state.files.clone()).collect();
    log
}

#[test]
fn a_held_lock_excuses_a_missing_close() {
    let log = Log::of(&[&Chain::new(0).events(3)]);
    check(&log.verify(), Unclean, &[NotClosed]);
    let report = log.hold(0).verify();
    check(&report, Intact, &[]);
    assert!(report.notes().iter().any(|note| note.kind() == NoteKind::Live));
    assert_eq!(report.heads()[0].seq(), 4);
}

#[test]
fn a_log_that_grows_rotates_and_prunes_is_intact() {
    let a = Chain::new(0).events(3);
    let b = a.clone().event("b");
    let c = b.clone().roll().event("c");
    let d = c.clone().roll().event("d").prune(b.seq, (1, 1));
    let mut pruned = Log::of(&[&d]);
    pruned.files.remove(&name(0, 1));
    let states = [Log::of(&[&a]), Log::of(&[&b]), Log::of(&[&c]), pruned.clone(), pruned];
    for first in 0..states.len() {
        let report = changing(&states[first..]).hold(0).verify();
        check(&report, Intact, &[]);
    }
    // All steps at once, at each possible listing.
    let states = [Log::of(&[&a]), Log::of(&[&a]), states[4].clone()];
    check(&changing(&states).hold(0).verify(), Intact, &[]);
}

#[test]
fn a_torn_write_that_a_new_segment_voids_is_not_an_alarm() {
    let a = Chain::new(0).events(3);
    let counted = a.segments[&1].len() as u64;
    let lost = a.clone().event_marked("lost", None);
    let next = Chain { segments: lost.segments.clone(), ..a.clone() };
    let next = next.segment(vec![After::counted(1, counted, None)]).event("lost");
    let states = [Log::of(&[&lost]), Log::of(&[&lost]), Log::of(&[&next])];
    let report = changing(&states).hold(0).verify();
    check(&report, Intact, &[]);
    assert_eq!(report.records(), next.seq);
}

#[test]
fn a_record_that_another_chain_witnesses_is_looked_for_again() {
    let a = Chain::new(0).events(3);
    let longer = a.clone().events(2);
    let b = Chain::new(1).sees(&longer).mark();
    let states = [Log::of(&[&a, &b]), Log::of(&[&a, &b]), Log::of(&[&longer, &b])];
    check(&changing(&states).hold(0).hold(1).verify(), Intact, &[]);
    let c = Chain::new(2).events(1);
    let b = Chain::new(1).sees(&c).mark();
    let states = [Log::of(&[&b]), Log::of(&[&b]), Log::of(&[&b, &c])];
    check(&changing(&states).hold(1).hold(2).verify(), Intact, &[]);
}

#[test]
fn damage_is_damage_in_a_live_log() {
    let mut log = Log::of(&[&Chain::new(0).events(5)]).hold(0);
    log.edit(0, 1, |lines| lines[3][60] ^= 1);
    assert_eq!(log.verify().verdict(), Damaged);
}

#[test]
fn a_run_that_ends_while_it_is_verified_is_intact() {
    let a = Chain::new(0).events(3);
    let closed = a.clone().close();
    let states = [Log::of(&[&a]), Log::of(&[&a]), Log::of(&[&a]), Log::of(&[&a]), Log::of(&[&closed])];
    check(&changing(&states).verify(), Intact, &[]);
}
