//! Records that a store refuses, and stores that refuse everything.

use std::fs;

use tracing_audit::{Retention, Rotation};
use tracing_audit_forward::{Entry, Forwarder, NoticeKind, SinkError, StartAt, State, give_up, rejected};

use super::app::*;

fn refused() -> SinkError {
    SinkError::Refused { reason: "too odd".to_owned() }
}

/// Returns a store that refuses a batch with one of these records.
fn refuses(bad: impl Fn(u64) -> bool + Send + 'static) -> Store {
    Store::with(move |batch| batch.iter().any(|entry| bad(entry.record.seq())).then(refused))
}

fn list(app: &App) -> Vec<u64> {
    rejected(app.path(), "store").unwrap().iter().map(|one| one.record.seq()).collect()
}

/// More bad records in a row than are taken as refusals, and calls that fail between them, so that the store
/// is asked what it has.
#[test]
fn many_bad_records_in_a_row_stop_no_good_one() {
    for fails_each in [u64::MAX, 3, 7] {
        let app = App::new();
        app.emit(500);
        let mut calls = 0;
        let store = Store::with(move |batch| {
            calls += 1;
            if calls % fails_each == 0 {
                return Some(unavailable());
            }
            batch.iter().any(|entry| (10..70).contains(&entry.record.seq())).then(refused)
        });
        let (forwarder, _) = start(&app, &store);
        forwarder.drain(LONG).unwrap();
        assert_eq!(list(&app), (10..70).collect::<Vec<_>>());
        let good: Vec<u64> = (1..=502).filter(|seq| !(10..70).contains(seq)).collect();
        assert_eq!(store.seqs(), good, "{fails_each}");
        assert_eq!((forwarder.stats().rejected, forwarder.stats().losses), (60, 0));
    }
}

/// The test whether it refuses everything uses a record that it has; by now it has less.
#[test]
fn many_bad_records_after_a_loss_of_the_store_stop_no_good_one() {
    let app = App::new();
    app.emit(100);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    let mut calls = 0;
    {
        let mut inner = store.0.lock().unwrap();
        inner.rows.retain(|(_, seq), _| *seq <= 50);
        inner.script = Some(Box::new(move |batch| {
            calls += 1;
            if calls % 5 == 1 {
                return Some(unavailable());
            }
            batch.iter().any(|entry| (60..90).contains(&entry.record.seq())).then(refused)
        }));
    }
    app.emit(1);
    forwarder.drain(LONG).unwrap();
    assert_eq!(list(&app), (60..90).collect::<Vec<_>>());
    let good = lines(&app.path()).len() - 30;
    assert_eq!(store.lines().len(), good, "{:?}", store.seqs());
}

/// That does not depend on the content of a record.
#[test]
fn a_store_that_refuses_everything_needs_action() {
    let app = App::new();
    app.emit(100);
    let store = refuses(|_| true);
    for _ in 0..3 {
        let (forwarder, notices) = start(&app, &store);
        until("it says so", || forwarder.stats().state == State::Setup);
        assert!(kinds(&notices).contains(&NoticeKind::Setup));
        until("the lag is measured", || forwarder.stats().lag_records >= 80);
        assert!(store.lines().is_empty());
        assert_eq!(list(&app).len(), 16, "no more at each start");
    }
}

/// Nothing is set aside because of it.
#[test]
fn a_store_that_begins_to_refuse_everything_needs_action() {
    for is_started_anew in [false, true] {
        let app = App::new();
        app.emit(10);
        let store = Store::default();
        let (mut forwarder, _) = start(&app, &store);
        forwarder.drain(LONG).unwrap();
        store.0.lock().unwrap().script = Some(Box::new(|_| Some(refused())));
        if is_started_anew {
            forwarder.close(LONG).unwrap();
            (forwarder, _) = start(&app, &store);
        }
        app.emit(100);
        until("it says so", || forwarder.stats().state == State::Setup);
        let set_aside = list(&app).len();
        assert_eq!(set_aside, 0);
        store.0.lock().unwrap().script = None;
        forwarder.drain(LONG).unwrap();
        assert_eq!(store.lines().len(), 112 - set_aside);
    }
}

/// If the forwarder were killed before the refused record is on the list, the store would report that it has
/// it.
#[test]
fn a_partial_refusal_by_a_store_that_can_be_asked_divides_the_batch() {
    let app = App::new();
    app.emit(50);
    let store = Store::with(|batch| {
        let bad = batch.iter().position(|entry| entry.record.seq() == 7)?;
        Some(SinkError::Partly { refused: vec![(bad, "too odd".to_owned())] })
    });
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert_eq!(list(&app), [7]);
    let came: Vec<u64> = store.0.lock().unwrap().came.iter().map(|(_, seq)| *seq).collect();
    assert_eq!(came, (1..=52).filter(|seq| *seq != 7).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_sink_that_refuses_what_was_not_offered_needs_action() {
    type Named = fn(&[Entry]) -> Vec<usize>;
    for named in [(|batch| vec![batch.len()]) as Named, |_| vec![0, 0], |_| vec![]] {
        let app = App::new();
        app.emit(20);
        let store = Store::with(move |batch| {
            let refused = named(batch).into_iter().map(|index| (index, "too odd".to_owned())).collect();
            Some(SinkError::Partly { refused })
        });
        store.0.lock().unwrap().cannot_be_asked = true;
        let (forwarder, _) = start(&app, &store);
        until("it says so", || forwarder.stats().state == State::Setup);
        assert_eq!((forwarder.stats().records, list(&app).len()), (0, 0));
    }
}

/// A chain that began anew has the number of the previous one, and none of its refusals.
#[test]
fn a_refusal_of_another_chain_hides_no_loss() {
    let app = App::new();
    app.emit(7);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    let head = app.log.head();
    let line =
        format!("{{\"record\":\"{head}\",\"chain_id\":\"{}\",\"reason\":\"too odd\"}}\n", "ab".repeat(16));
    fs::write(app.control("forward-store.rejected.jsonl"), line).unwrap();
    store.0.lock().unwrap().rows.retain(|(_, seq), _| *seq < head.seq());
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert_eq!(kinds(&notices), [NoticeKind::StoreLost]);
    assert!(store.seqs().contains(&head.seq()));
}

/// The store has nothing of the chain, and lost nothing.
#[test]
fn a_whole_batch_may_be_refused() {
    let app = App::new();
    app.emit(9);
    let store = refuses(|_| true);
    let start_from_now = || {
        let (told, notices) = notices();
        let builder = Forwarder::builder("store").start_at(StartAt::Now).on_notice(told);
        (builder.start(&app.log, store.sink()).unwrap(), notices)
    };
    let (forwarder, _) = start_from_now();
    forwarder.drain(LONG).unwrap();
    app.emit(3);
    forwarder.close(LONG).unwrap();
    let set_aside = list(&app).len();
    assert!((3..=4).contains(&set_aside), "{set_aside}, with a mark");
    let (forwarder, notices) = start_from_now();
    forwarder.drain(LONG).unwrap();
    assert_eq!((forwarder.stats().losses, kinds(&notices)), (0, vec![]));
}

/// Even if the position is lost, or a kill came between the two.
#[test]
fn the_list_determines_what_retention_waits_for() {
    let app = App::new();
    app.emit(20);
    let store = refuses(|seq| seq == 9);
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    fs::remove_file(app.control("forward-store")).unwrap();
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    assert!(app.position().contains("\"refused\": 9"), "{}", app.position());
    let heads: Vec<_> = rejected(app.path(), "store").unwrap().into_iter().map(|one| one.record).collect();
    give_up(app.path(), "store", &heads).unwrap();
    assert!(!app.position().contains("refused"), "{}", app.position());
}

#[test]
fn a_list_that_cannot_be_understood_is_named() {
    let app = App::new();
    app.emit(3);
    fs::create_dir_all(app.path().join("control")).unwrap();
    fs::write(app.control("forward-store.rejected.jsonl"), "what\n").unwrap();
    let store = Store::default();
    let (forwarder, notices) = start(&app, &store);
    until("it says so", || forwarder.stats().state == State::Setup);
    let notice = notices.lock().unwrap()[0].message.clone();
    assert!(
        notice.contains("control/forward-store.rejected.jsonl is not a list of refused records"),
        "{notice}"
    );
    fs::remove_file(app.control("forward-store.rejected.jsonl")).unwrap();
    forwarder.drain(LONG).unwrap();
    assert_eq!(store.lines().len(), 5);
}

/// What a store does with a gap is up to the store.
#[test]
fn a_gap_that_is_refused_stops_nothing() {
    let app = App::with(|builder| {
        builder
            .rotation(Rotation::never().max_bytes(64 << 10))
            .retention(Retention::keep_all().max_segments(2))
    });
    app.emit(10);
    let store = Store::default();
    store.0.lock().unwrap().takes_no_gap = Some(refused());
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    for _ in 0..40 {
        app.emit(50);
    }
    until("old segments go", || !app.path().join("audit-000-00000001.jsonl").exists());
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert_ne!(store.0.lock().unwrap().gaps, []);
    let kinds = kinds(&notices);
    assert!(kinds.contains(&NoticeKind::Missed) && kinds.contains(&NoticeKind::Rejected), "{kinds:?}");
    assert_eq!(store.lines().last(), lines(&app.path()).last());
}
