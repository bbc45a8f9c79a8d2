//! What a collector reads.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tracing_audit_forward::{
    Beat, Delivered, Entry, Feed as _, Gap, Nats, NatsFeed, Origin, Sink as _, SinkError, What,
};

use crate::{
    proxy,
    records::{events, logged},
    server::Server,
    store,
};

const SECOND: Duration = Duration::from_secs(1);

/// Reads everything from a place on.
#[track_caller]
fn everything(feed: &mut NatsFeed, place: u64) -> Vec<Delivered> {
    feed.start(place).unwrap();
    let mut all = Vec::new();
    loop {
        let part = feed.next(7, SECOND / 2).unwrap();
        assert!(part.len() <= 7);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

#[track_caller]
fn check_lines(delivered: &[Delivered], expected: &[Entry]) {
    assert_eq!(delivered.len(), expected.len());
    for (message, entry) in delivered.iter().zip(expected) {
        let What::Line { origin, chain_id, line } = &message.what else { panic!("{message:?}") };
        assert_eq!(line, entry.record.as_json().as_bytes());
        assert_eq!(*chain_id, entry.chain_id);
        assert_eq!(*origin, Origin::new("web", "n1").unwrap());
    }
}

/// Returns the others, after checking that this many are not of a forwarder.
#[track_caller]
fn without_strangers(delivered: Vec<Delivered>, strangers: usize) -> Vec<Delivered> {
    let count = delivered.len();
    let is_known = |message: &Delivered| !matches!(message.what, What::Stranger);
    let known: Vec<Delivered> = delivered.into_iter().filter(is_known).collect();
    assert_eq!(known.len() + strangers, count);
    known
}

#[test]
fn everything_is_delivered_in_order_from_any_place() {
    let Some(server) = Server::start("everything_is_delivered_in_order_from_any_place") else { return };
    let mut store = store(&server, true);
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    let state = feed.state().unwrap();
    assert_eq!((state.first, state.last), (1, 0));
    let (one, two) = (events(40), events(20));
    let all = [&one[..], &two[..]].concat();
    for batch in all.chunks(9) {
        store.offer(batch).unwrap();
    }
    let after = feed.state().unwrap();
    assert_eq!((after.first, after.last, &after.identity), (1, all.len() as u64, &state.identity));
    let delivered = everything(&mut feed, 1);
    check_lines(&delivered, &all);
    assert!(delivered.iter().map(|message| message.place).eq(1..=all.len() as u64));
    check_lines(&everything(&mut feed, 30), &all[29..]);
    check_lines(&everything(&mut feed, 0), &all);
    assert!(everything(&mut feed, 1_000).is_empty());
    // It waits for new messages, and only as long as necessary.
    feed.start(all.len() as u64 + 1).unwrap();
    let gap = Gap::new(Arc::clone(&one[0].chain_id), 3, 100..=120);
    let begun = Instant::now();
    let next = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            store.gap(&gap).unwrap();
        });
        feed.next(10, 20 * SECOND).unwrap()
    });
    assert!(begun.elapsed() < 10 * SECOND);
    let [Delivered { place: 63.., what: What::Gap { gap: told, .. }, .. }] = &next[..] else {
        panic!("{next:?}")
    };
    assert_eq!(told, &gap);
    let begun = Instant::now();
    assert!(feed.next(10, SECOND / 4).unwrap().is_empty());
    assert!(begun.elapsed() < 5 * SECOND);
}

#[test]
fn messages_of_no_forwarder_are_strangers() {
    let Some(server) = Server::start("messages_of_no_forwarder_are_strangers") else { return };
    let admin = server.admin();
    admin.make("AUDIT", &json!({ "subjects": ["audit.>", "other.>"], "deny_delete": false }));
    let mut store = Nats::new(&format!("{}&allow=delete", server.url("AUDIT"))).unwrap();
    let entries = events(10);
    store.offer(&entries[..5]).unwrap();
    let id = &entries[0].chain_id;
    for (subject, payload) in [
        ("other.x".to_owned(), "x"),
        ("audit.x".to_owned(), "x"),
        (format!("audit.we%62.n1.{id}"), "x"),
        (format!("audit.web.n1.{id}.x"), "x"),
        (format!("audit.web.n2.{id}"), ""),
    ] {
        admin.publish(&subject, payload, &[]);
    }
    // One that is larger than the server may send ahead.
    store.offer(&entries[5..]).unwrap();
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    check_lines(&without_strangers(everything(&mut feed, 1), 5), &entries);
    // What was deleted is not delivered.
    admin.ask("$JS.API.STREAM.MSG.DELETE.AUDIT", r#"{"seq":2}"#);
    admin.ask("$JS.API.STREAM.MSG.DELETE.AUDIT", r#"{"seq":6}"#);
    let left: Vec<Entry> = [&entries[..1], &entries[2..]].concat();
    check_lines(&without_strangers(everything(&mut feed, 1), 4), &left);
}

#[test]
fn a_feed_continues_after_a_failure_and_recognises_another_stream() {
    let Some(mut server) = Server::start("a_feed_continues_after_a_failure_and_recognises_another_stream")
    else {
        return;
    };
    let mut store = store(&server, true);
    let entries = events(60);
    store.offer(&entries).unwrap();
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    let before = feed.state().unwrap();
    feed.start(1).unwrap();
    let mut delivered = feed.next(20, SECOND).unwrap();
    server.kill();
    let outcome = loop {
        match feed.next(5, SECOND) {
            // What the server had already sent ahead.
            Ok(more) => delivered.extend(more),
            Err(error) => break error,
        }
    };
    assert!(matches!(outcome, SinkError::Unavailable { .. }), "{outcome}");
    assert!(feed.next(5, SECOND).is_err());
    server.run();
    assert_eq!(feed.state().unwrap(), before);
    let place = delivered.last().map_or(1, |last| last.place + 1);
    delivered.extend(everything(&mut feed, place));
    check_lines(&delivered, &entries);
    let admin = server.admin();
    admin.ask("$JS.API.STREAM.DELETE.AUDIT", "");
    admin.make("AUDIT", &json!({}));
    let after = feed.state().unwrap();
    assert!(after.identity != before.identity && (after.first, after.last) == (1, 0), "{after:?}");
}

#[test]
fn a_connection_that_breaks_loses_nothing_silently() {
    let Some(server) = Server::start("a_connection_that_breaks_loses_nothing_silently") else { return };
    let mut store = store(&server, true);
    let long = "x".repeat(30_000);
    let entries = logged(|| (0..200).for_each(|n| tracing::info!(target: "audit", action = long, n)));
    for batch in entries.chunks(20) {
        store.offer(batch).unwrap();
    }
    let (port, faults) = proxy::start(server.port());
    let mut feed = NatsFeed::new(&Server::url_at(port, "boss", "AUDIT")).unwrap();
    feed.start(1).unwrap();
    let (mut delivered, mut failures) = (Vec::new(), 0);
    let begun = Instant::now();
    while delivered.len() < entries.len() {
        assert!(begun.elapsed() < 60 * SECOND);
        if delivered.len() > 50 && failures < 3 {
            faults.cut_at_message.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        if let Ok(more) = feed.next(30, SECOND) {
            delivered.extend(more);
        } else {
            failures += 1;
            feed.start(delivered.last().map_or(1, |last: &Delivered| last.place + 1)).unwrap();
        }
    }
    assert!(failures >= 1);
    check_lines(&delivered, &entries);
}

#[test]
fn heartbeats_are_sent_at_once_when_they_change() {
    let Some(server) = Server::start("heartbeats_are_sent_at_once_when_they_change") else { return };
    let mut store = store(&server, true);
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    feed.state().unwrap();
    assert!(feed.beats().is_empty());
    let mut wait_for = |left_out: &BTreeMap<Arc<str>, String>| {
        let begun = Instant::now();
        loop {
            let beats = feed.beats();
            let is_it = |beat: &Beat| {
                assert_eq!(beat.origin, Origin::new("web", "n1").unwrap());
                beat.left_out == *left_out
            };
            if beats.iter().any(is_it) {
                return;
            }
            assert!(begun.elapsed() < 10 * SECOND, "{beats:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let nothing = BTreeMap::new();
    store.positions(&[]).unwrap();
    wait_for(&nothing);
    let one: BTreeMap<Arc<str>, String> =
        [("f".repeat(32).into(), "its files are \"gone\"".to_owned())].into();
    store.left_out(&one);
    wait_for(&one);
    store.left_out(&nothing);
    wait_for(&nothing);
    // Heartbeats are not stored.
    assert_eq!(server.admin().count("AUDIT"), 0);
}

#[test]
fn heartbeats_continue_between_calls_and_after_a_restart_of_the_server() {
    let Some(mut server) =
        Server::start("heartbeats_continue_between_calls_and_after_a_restart_of_the_server")
    else {
        return;
    };
    let mut store = store(&server, true);
    store.positions(&[]).unwrap();
    server.kill();
    server.run();
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    feed.state().unwrap();
    let begun = Instant::now();
    // One every 15 seconds.
    while feed.beats().is_empty() {
        assert!(begun.elapsed() < 25 * SECOND);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(store);
}

/// Whatever the places are: messages that were purged or have expired are not delivered, and the reader knows
/// that nothing is missing.
#[test]
fn a_feed_knows_that_there_is_nothing_more() {
    let Some(server) = Server::start("a_feed_knows_that_there_is_nothing_more") else { return };
    let admin = server.admin();
    admin.make("AUDIT", &json!({ "deny_purge": false }));
    let mut store = Nats::new(&format!("{}&allow=purge", server.url("AUDIT"))).unwrap();
    let entries = events(10);
    store.offer(&entries).unwrap();
    let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
    feed.start(1).unwrap();
    assert!(!feed.is_at_end());
    // One call may return fewer than there are.
    check_lines(&everything(&mut feed, 1), &entries);
    assert!(feed.is_at_end());
    admin.ask("$JS.API.STREAM.PURGE.AUDIT", "");
    feed.start(1).unwrap();
    assert!(feed.is_at_end() && feed.next(100, SECOND / 4).unwrap().is_empty() && feed.is_at_end());
    let into = tempfile::tempdir().unwrap();
    let mut collector = tracing_audit_forward::Collector::open(into.path()).unwrap();
    let begun = Instant::now();
    collector.catch_up(&mut feed).unwrap();
    assert!(begun.elapsed() < 10 * SECOND && collector.alarms().is_empty());
}
