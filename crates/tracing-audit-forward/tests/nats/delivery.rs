//! What is offered is stored once, in its order, byte for byte.

use std::{sync::Arc, thread, time::Duration};

use serde_json::json;
use tracing_audit_forward::{CopyChain, Entry, Gap, Nats, Sink as _, SinkError};

use crate::{
    check_setup, check_stored, check_unavailable, position,
    records::{by_hand, events, logged, read},
    server::Server,
    store, subject,
};

/// Both ways of publishing: as atomic batches, and one after another.
fn both(test: &str, check: impl Fn(&Server, Nats)) {
    for is_atomic in [true, false] {
        let Some(server) = Server::start(test) else { return };
        check(&server, store(&server, is_atomic));
    }
}

#[test]
fn records_are_stored_byte_for_byte_whatever_they_contain() {
    both("records_are_stored_byte_for_byte_whatever_they_contain", |server, mut store| {
        let entries = logged(|| {
            let every = (0..=0x0010_FFFF).step_by(0x1_01).filter_map(char::from_u32).collect::<String>();
            let long = "é".repeat(40_000);
            tracing::info!(target: "audit", action = "nul\0nul\r\n", actor = "\u{1F980} \u{202E}x\u{FEFF}", every, "\0");
            tracing::info!(target: "audit", action = long, actor = "a", resource = "", nan = f64::NAN, "long");
            tracing::error!(target: "audit", action = "n", n = u64::MAX, i = i64::MIN, f = 1e308, z = -0.0);
        });
        store.offer(&entries).unwrap();
        check_stored(&server.admin(), &mut store, &entries);
    });
}

#[test]
fn what_is_offered_again_is_not_duplicated() {
    both("what_is_offered_again_is_not_duplicated", |server, mut store| {
        let entries = events(50);
        store.offer(&entries[..20]).unwrap();
        store.offer(&entries[..20]).unwrap();
        store.offer(&entries[10..40]).unwrap();
        let twice: Vec<Entry> = entries.iter().chain(&entries).cloned().collect();
        store.offer(&twice).unwrap();
        store.offer(&[]).unwrap();
        check_stored(&server.admin(), &mut store, &entries);
        // By another sender, without any state, after the duplicate window of 100 ms.
        thread::sleep(Duration::from_millis(300));
        let mut other = Nats::new(&server.url("AUDIT")).unwrap();
        other.offer(&entries[..30]).unwrap();
        other.offer(&entries).unwrap();
        other.offer(&entries[7..8]).unwrap();
        check_stored(&server.admin(), &mut other, &entries);
    });
}

#[test]
fn more_than_one_atomic_batch_is_stored_in_order() {
    let Some(server) = Server::start("more_than_one_atomic_batch_is_stored_in_order") else { return };
    let mut store = store(&server, true);
    let entries = events(2_500);
    store.offer(&entries).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_intact() && report.records() == entries.len() as u64, "{report}");
    assert_eq!(server.admin().count("AUDIT"), entries.len() as u64);
    // All records of the batch were published at once: the last message has the number of its batch and the
    // mark of its end.
    let get = json!({ "last_by_subj": subject(&entries[0]) }).to_string();
    let last = server.admin().ask("$JS.API.STREAM.MSG.GET.AUDIT", &get);
    assert_eq!(last["message"]["seq"], entries.len() as u64);
}

#[test]
fn another_record_under_the_same_key_is_a_conflict() {
    both("another_record_under_the_same_key_is_a_conflict", |server, mut store| {
        // Two logs of one chain: a log that was restored and then diverged.
        let event =
            |n: u32| format!(r#""ts":"2026-11-10T00:00:00.000000000Z","kind":"event","fields":{{"n":{n}}}"#);
        let (one, other): (Vec<String>, Vec<String>) =
            (1..20).map(|n| (event(n), event(if n < 5 { n } else { n + 100 }))).unzip();
        let members = |texts: &[String]| by_hand(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let (one, other) = (members(&one), members(&other));
        store.offer(&one[..8]).unwrap();
        // By a sender that knows what is there, and by one that does not.
        let mut fresh = Nats::new(&server.url("AUDIT")).unwrap();
        for sender in [&mut store, &mut fresh] {
            let outcome = sender.offer(&other[..12]);
            assert_eq!(outcome, Err(SinkError::Conflict { index: 7, stored: one[7].record.hash() }));
            let outcome = sender.offer(&other[5..7]);
            assert_eq!(outcome, Err(SinkError::Conflict { index: 1, stored: one[6].record.hash() }));
        }
        check_stored(&server.admin(), &mut store, &one[..8]);
        // The other chains of the batch are not delayed: the forwarder offers them again without that chain.
        let another = events(5);
        let mixed = [&another[..], &other[..12]].concat();
        let index = another.len() + 7;
        assert_eq!(store.offer(&mixed), Err(SinkError::Conflict { index, stored: one[7].record.hash() }));
        store.offer(&another).unwrap();
        store.offer(&one).unwrap();
        check_stored(&server.admin(), &mut store, &[&one[..], &another[..]].concat());
    });
}

#[test]
fn two_senders_of_one_chain_are_kept_apart() {
    both("two_senders_of_one_chain_are_kept_apart", |server, mut store| {
        let event =
            |n: u32| format!(r#""ts":"2026-11-10T00:00:00.000000000Z","kind":"event","fields":{{"n":{n}}}"#);
        let (one, other): (Vec<String>, Vec<String>) =
            (1..40).map(|n| (event(n), event(if n < 5 { n } else { n + 100 }))).unzip();
        let members = |texts: &[String]| by_hand(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let (one, other) = (members(&one), members(&other));
        let mut clone = Nats::new(&server.url("AUDIT")).unwrap();
        let ids = [Arc::clone(&one[0].chain_id)];
        store.offer(&one[..4]).unwrap();
        // Both know of the same last record.
        assert_eq!(store.positions(&ids).unwrap(), clone.positions(&ids).unwrap());
        store.offer(&one[4..10]).unwrap();
        // The clone continues with a different record: that is a conflict, and nothing of it is stored.
        let outcome = clone.offer(&other[4..8]);
        assert_eq!(
            outcome,
            Err(SinkError::Conflict { index: 3, stored: one[7].record.hash() }),
            "{outcome:?}"
        );
        check_stored(&server.admin(), &mut store, &one[..10]);
        // A second sender of the same log duplicates nothing, and needs no second call for what is there.
        let mut second = Nats::new(&server.url("AUDIT")).unwrap();
        second.positions(&ids).unwrap();
        store.offer(&one[10..20]).unwrap();
        second.offer(&one[10..15]).unwrap();
        second.offer(&one[..30]).unwrap();
        // The first one is behind now, and learns that before anything of its own is stored.
        check_unavailable(&store.offer(&one[20..32]), "asked what it has");
        store.positions(&ids).unwrap();
        store.offer(&one[30..32]).unwrap();
        assert_eq!(second.positions(&ids).unwrap(), Some(vec![position(&one[31])]));
        second.offer(&one[30..]).unwrap();
        check_stored(&server.admin(), &mut store, &one);
    });
}

#[test]
fn positions_are_the_last_records_of_the_chains() {
    both("positions_are_the_last_records_of_the_chains", |server, mut store| {
        let (one, two) = (events(30), events(3));
        let mixed: Vec<Entry> =
            one[..7].iter().zip(two.iter().cycle()).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        let mixed: Vec<Entry> =
            mixed.into_iter().take(2 * two.len()).chain(one[two.len()..7].iter().cloned()).collect();
        store.offer(&mixed).unwrap();
        let unknown: Arc<str> = "f".repeat(32).into();
        let asked = [Arc::clone(&one[0].chain_id), Arc::clone(&two[0].chain_id), unknown];
        for mut store in [store, Nats::new(&server.url("AUDIT")).unwrap()] {
            let mut positions = store.positions(&asked).unwrap().unwrap();
            positions.sort_by_key(|position| position.seq);
            let mut expected = [position(&one[6]), position(two.last().unwrap())];
            expected.sort_by_key(|position| position.seq);
            assert_eq!(positions, expected);
            assert_eq!(store.positions(&[]).unwrap(), Some(Vec::new()));
        }
    });
}

#[test]
fn gaps_are_stored_once_and_explain_holes() {
    both("gaps_are_stored_once_and_explain_holes", |server, mut store| {
        let entries = events(20);
        let id = Arc::clone(&entries[0].chain_id);
        let gap = |first, last| Gap::new(Arc::clone(&id), 0, first..=last);
        // At the beginning of a chain there is nothing before it.
        store.gap(&gap(1, 2)).unwrap();
        assert_eq!(store.positions(&[Arc::clone(&id)]).unwrap(), Some(vec![]));
        store.offer(&entries[2..4]).unwrap();
        store.gap(&gap(5, 9)).unwrap();
        store.gap(&gap(5, 9)).unwrap();
        assert_eq!(store.positions(&[Arc::clone(&id)]).unwrap(), Some(vec![position(&entries[3])]));
        let mut other = Nats::new(&server.url("AUDIT")).unwrap();
        other.gap(&gap(5, 9)).unwrap();
        other.offer(&entries[9..]).unwrap();
        other.gap(&gap(5, 9)).unwrap();
        assert_eq!(server.admin().count("AUDIT"), 2 + entries.len() as u64 - 7);
        let report = store.verify().unwrap();
        assert!(report.is_intact(), "{report}");
        assert!(report.to_string().contains("records 5 to 9 are not here"), "{report}");
        let CopyChain { chain, last, .. } = &report.chains()[0];
        assert_eq!((*chain, last.as_ref()), (Some(0), Some(&position(entries.last().unwrap()))));
        // A record before the end is found across the gaps; one in a gap is absent, and cannot be inserted.
        other.offer(&entries[3..4]).unwrap();
        let outcome = other.offer(&entries[5..6]);
        assert!(matches!(outcome, Err(SinkError::Refused { .. })), "{outcome:?}");
    });
}

#[test]
fn nothing_is_stored_after_a_hole() {
    both("nothing_is_stored_after_a_hole", |server, mut store| {
        let entries = events(30);
        store.offer(&entries[..10]).unwrap();
        // Somebody deletes and recreates the stream between two batches.
        let admin = server.admin();
        admin.ask("$JS.API.STREAM.DELETE.AUDIT", "");
        admin.make("AUDIT", &json!({ "allow_atomic": admin.client.is_server_compatible(2, 12, 0) }));
        check_unavailable(&store.offer(&entries[10..20]), "asked what it has");
        assert_eq!(admin.count("AUDIT"), 0);
        // Nor by one that did not ask.
        let mut other = Nats::new(&server.url("AUDIT")).unwrap();
        check_unavailable(&other.offer(&entries[10..20]), "is offered: it is asked again");
        assert_eq!(store.positions(&[Arc::clone(&entries[0].chain_id)]).unwrap(), Some(vec![]));
        store.offer(&entries).unwrap();
        check_stored(&admin, &mut store, &entries);
    });
}

#[test]
fn several_chains_of_one_log_are_kept_apart() {
    use tracing_subscriber::prelude::*;
    both("several_chains_of_one_log_are_kept_apart", |server, mut store| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let logs = [(); 3].map(|()| tracing_audit::AuditLog::open(&path).unwrap());
        for log in &logs {
            let subscriber = tracing_subscriber::registry().with(log.layer());
            tracing::subscriber::with_default(subscriber, || {
                (0..50).for_each(|n| tracing::info!(target: "audit", action = "a", actor = "b", n));
            });
        }
        for log in logs {
            log.close().unwrap();
        }
        let entries = read(&path);
        store.offer(&entries).unwrap();
        check_stored(&server.admin(), &mut store, &entries);
    });
}

#[test]
fn calls_work_on_the_threads_of_a_runtime() {
    let Some(server) = Server::start("calls_work_on_the_threads_of_a_runtime") else { return };
    let mut store = store(&server, true);
    let entries = events(3);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.offer(&entries).unwrap();
        assert!(store.verify().unwrap().is_intact());
        store.close();
        store.offer(&entries).unwrap();
        drop(store);
        // Also if it is dropped without a connection.
        drop(Nats::new(&server.url("AUDIT")).unwrap());
    });
}

#[test]
fn the_origin_is_required_and_is_part_of_the_subject() {
    let Some(server) = Server::start("the_origin_is_required_and_is_part_of_the_subject") else {
        return;
    };
    drop(store(&server, true));
    let entries = events(2);
    let url = server.url("AUDIT");
    let (bare, _) = url.split_once('?').unwrap();
    let mut nobody = Nats::new(bare).unwrap();
    check_setup(&nobody.offer(&entries), "name the service");
    assert_eq!(nobody.verify().unwrap().records(), 0);
    let mut store = Nats::builder(bare).service("web shop").host("n1.example").build().unwrap();
    store.offer(&entries).unwrap();
    let subjects: Vec<String> = server.admin().all("AUDIT").into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(subjects[0], format!("audit.web%20shop.n1%2Eexample.{}", entries[0].chain_id));
    // The URL takes precedence. Message ids are known in the whole stream, so this waits for the end of the
    // duplicate window.
    thread::sleep(Duration::from_millis(300));
    let mut store = Nats::builder(&url).service("other").host("other").build().unwrap();
    store.offer(&entries).unwrap();
    assert_eq!(server.admin().all("AUDIT").last().unwrap().0, subject(&entries[0]));
}
