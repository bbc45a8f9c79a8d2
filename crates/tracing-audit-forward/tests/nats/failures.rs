//! Servers and connections that fail, and the errors for the forwarder.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    slice,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tracing_audit_forward::{
    Entry, Feed as _, Forwarder, Gap, Nats, NatsFeed, NoticeKind, Sink as _, SinkError,
};
use tracing_subscriber::prelude::*;

use crate::{
    check_setup, check_stored, check_unavailable, position, proxy,
    records::events,
    server::{PASSWORD, Server, skip},
    store,
};

/// How long a test waits for something that must happen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Offers the same again until it is accepted, as a forwarder does.
#[track_caller]
fn offer_until_taken(store: &mut Nats, batch: &[Entry]) {
    let begun = Instant::now();
    while let Err(error) = store.offer(batch) {
        assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
        assert!(begun.elapsed() < TIMEOUT, "{error}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_and_a_stream_may_be_missing_at_first() {
    let mut server = match Server::prepare("") {
        Ok(server) => server,
        Err(why) => return skip("a_server_and_a_stream_may_be_missing_at_first", &why),
    };
    let entries = events(5);
    let mut store = Nats::new(&server.url("AUDIT")).unwrap();
    check_unavailable(&store.offer(&entries), "Connection refused");
    check_unavailable(&store.positions(&[]), "Connection refused");
    check_unavailable(&store.verify().map(|report| report.records()), "Connection refused");
    server.run();
    check_setup(&store.offer(&entries), "create-stream");
    store.create_stream(1).unwrap();
    store.create_stream(1).unwrap();
    store.offer(&entries).unwrap();
    check_stored(&server.admin(), &mut store, &entries);
}

#[test]
fn a_killed_server_has_everything_that_it_acknowledged() {
    for is_atomic in [true, false] {
        let Some(server) = Server::start("a_killed_server_has_everything_that_it_acknowledged") else {
            return;
        };
        drop(store(&server, is_atomic));
        let entries = events(1500);
        let (acknowledged, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let url = server.url("AUDIT");
        let server = Mutex::new(server);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _set_at_end = SetAtEnd(&ended);
                let mut store = Nats::new(&url).unwrap();
                for batch in entries.chunks(5) {
                    offer_until_taken(&mut store, batch);
                    acknowledged.fetch_add(batch.len(), Ordering::SeqCst);
                }
            });
            let mut kills = 0;
            while !ended.load(Ordering::SeqCst) && kills < 4 {
                let before = acknowledged.load(Ordering::SeqCst);
                while !ended.load(Ordering::SeqCst) && acknowledged.load(Ordering::SeqCst) < before + 100 {
                    thread::sleep(Duration::from_millis(1));
                }
                let mut server = server.lock().unwrap();
                server.kill();
                let promised = acknowledged.load(Ordering::SeqCst);
                server.run();
                let stored = server.admin().count("AUDIT");
                assert!(stored >= promised as u64, "{stored} of {promised}");
                kills += 1;
            }
            assert!(kills >= 3, "it was over before the server could be killed");
        });
        let server = server.into_inner().unwrap();
        let mut store = Nats::new(&url).unwrap();
        check_stored(&server.admin(), &mut store, &entries);
    }
}

/// Ends the other thread of a test even if this one panics.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_lost_acknowledgement_duplicates_nothing() {
    for is_atomic in [true, false] {
        let Some(server) = Server::start("a_lost_acknowledgement_duplicates_nothing") else { return };
        drop(store(&server, is_atomic));
        let (port, faults) = proxy::start(server.port());
        let mut store = Nats::new(&Server::url_at(port, "boss", "AUDIT")).unwrap();
        let entries = events(40);
        let last = position(entries.last().unwrap());
        for (batch, cuts) in entries.chunks(10).zip(1..) {
            faults.cut_at_acknowledgement.store(true, Ordering::SeqCst);
            check_unavailable(&store.offer(batch), "cannot publish records: the connection was lost");
            assert_eq!(faults.cuts.load(Ordering::SeqCst), cuts);
            if cuts % 2 == 0 {
                // Past the duplicate window of 100 ms.
                thread::sleep(Duration::from_millis(300));
                store.positions(slice::from_ref(&last.chain_id)).unwrap();
            }
            store.offer(batch).unwrap();
        }
        check_stored(&server.admin(), &mut store, &entries);
        assert_eq!(store.positions(slice::from_ref(&last.chain_id)).unwrap(), Some(vec![last.clone()]));
        // The same for a gap.
        let gap = Gap::new(last.chain_id, 0, 100..=200);
        faults.cut_at_acknowledgement.store(true, Ordering::SeqCst);
        check_unavailable(&store.gap(&gap), "cannot publish records: the connection was lost");
        store.gap(&gap).unwrap();
        assert_eq!(server.admin().count("AUDIT"), entries.len() as u64 + 1);
    }
}

#[test]
fn a_late_acknowledgement_duplicates_nothing() {
    let Some(server) = Server::start("a_late_acknowledgement_duplicates_nothing") else { return };
    drop(store(&server, true));
    let (port, faults) = proxy::start(server.port());
    let builder =
        Nats::builder(&Server::url_at(port, "boss", "AUDIT")).answer_timeout(Duration::from_millis(700));
    let mut store = builder.build().unwrap();
    let entries = events(30);
    store.offer(&entries[..10]).unwrap();
    faults.drop_acknowledgements.store(true, Ordering::SeqCst);
    check_unavailable(&store.offer(&entries[..20]), "no answer within 0.7 s");
    faults.drop_acknowledgements.store(false, Ordering::SeqCst);
    assert_eq!(server.admin().count("AUDIT"), 20);
    offer_until_taken(&mut store, &entries);
    check_stored(&server.admin(), &mut store, &entries);
}

/// The client reconnects by itself, and would then publish what was still pending. The session ends before
/// that.
#[test]
fn what_a_lost_connection_had_to_send_is_not_sent_later() {
    for is_atomic in [true, false] {
        let Some(server) = Server::start("what_a_lost_connection_had_to_send_is_not_sent_later") else {
            return;
        };
        drop(store(&server, is_atomic));
        let (port, faults) = proxy::start(server.port());
        let mut store = Nats::new(&Server::url_at(port, "boss", "AUDIT")).unwrap();
        let entries = events(800);
        store.offer(&entries[..10]).unwrap();
        faults.cut_before_records.store(true, Ordering::SeqCst);
        check_unavailable(&store.offer(&entries[10..]), "the connection was lost");
        faults.cut_before_records.store(false, Ordering::SeqCst);
        // Longer than the client takes to reconnect.
        thread::sleep(Duration::from_millis(500));
        let admin = server.admin();
        assert_eq!(admin.count("AUDIT"), 10);
        // Another sender was faster; what is sent now follows that.
        Nats::new(&server.url("AUDIT")).unwrap().offer(&entries[..50]).unwrap();
        offer_until_taken(&mut store, &entries);
        check_stored(&admin, &mut store, &entries);
    }
}

#[test]
fn a_restarted_server_is_connected_to_again() {
    let Some(mut server) = Server::start("a_restarted_server_is_connected_to_again") else {
        return;
    };
    let mut store = store(&server, true);
    let entries = events(20);
    store.offer(&entries[..10]).unwrap();
    server.kill();
    server.run();
    offer_until_taken(&mut store, &entries[10..]);
    server.kill();
    check_unavailable(&store.positions(&[entries[0].chain_id.clone()]), "");
    server.run();
    assert_eq!(
        store.positions(&[entries[0].chain_id.clone()]).unwrap(),
        Some(vec![position(entries.last().unwrap())])
    );
    check_stored(&server.admin(), &mut store, &entries);
}

#[test]
fn no_call_waits_forever() {
    let Some(server) = Server::start("no_call_waits_forever") else { return };
    drop(store(&server, true));
    let entries = events(3);
    let second = Duration::from_secs(1);
    let bounded = |port| {
        let builder = Nats::builder(&Server::url_at(port, "boss", "AUDIT"));
        builder.connect_timeout(second).answer_timeout(second).build().unwrap()
    };
    // Accepts connections, and never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let begun = Instant::now();
    check_unavailable(&bounded(silent.local_addr().unwrap().port()).offer(&entries), "timed out");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (port, faults) = proxy::start(server.port());
    let mut store = bounded(port);
    offer_until_taken(&mut store, &entries[..1]);
    faults.silence.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    check_unavailable(&store.offer(&entries), "no answer within 1 s");
    check_unavailable(&store.positions(&[]), "timed out");
    let gap = Gap::new(entries[0].chain_id.clone(), 0, 7..=8);
    check_unavailable(&store.gap(&gap), "timed out");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_full_stream_is_a_reason_to_wait() {
    for is_atomic in [true, false] {
        let Some(server) = Server::start("a_full_stream_is_a_reason_to_wait") else { return };
        let mut store = store(&server, is_atomic);
        let admin = server.admin();
        let small = json!({ "allow_atomic": is_atomic, "max_bytes": 60_000 });
        admin.edit("AUDIT", &small);
        let entries = events(400);
        let mut feed = NatsFeed::new(&server.url("AUDIT")).unwrap();
        feed.state().unwrap();
        let full = entries.chunks(40).find_map(|batch| store.offer(batch).err());
        check_unavailable(&Err::<(), _>(full.unwrap()), "maximum bytes exceeded");
        // A monitor can see that it stores nothing: also of a new connection.
        store.positions(&[]).unwrap();
        wait_for_trouble(&mut feed, true);
        let report = store.verify().unwrap();
        assert!(report.is_intact(), "{report}");
        admin.edit("AUDIT", &json!({ "allow_atomic": is_atomic, "max_bytes": -1 }));
        store.positions(&[entries[0].chain_id.clone()]).unwrap();
        offer_until_taken(&mut store, &entries);
        check_stored(&admin, &mut store, &entries);
        wait_for_trouble(&mut feed, false);
    }
}

/// Waits for a heartbeat that reports that nothing can be stored, or no longer reports it.
#[track_caller]
fn wait_for_trouble(feed: &mut NatsFeed, is_expected: bool) {
    let begun = Instant::now();
    loop {
        if feed.beats().iter().any(|beat| beat.trouble.is_some() == is_expected) {
            return;
        }
        assert!(begun.elapsed() < TIMEOUT);
        thread::sleep(Duration::from_millis(50));
    }
}

/// With a complete forwarder: the stream is gone, and everything is sent again.
#[test]
fn a_stream_that_was_deleted_and_recreated_gets_everything_again() {
    let Some(server) = Server::start("a_stream_that_was_deleted_and_recreated_gets_everything_again") else {
        return;
    };
    let mut store = store(&server, true);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = tracing_audit::AuditLog::open(&path).unwrap();
    let layer = tracing_subscriber::registry().with(log.layer());
    let subscriber = tracing::Dispatch::new(layer);
    let emit = |count: u64| {
        tracing::dispatcher::with_default(&subscriber, || {
            (0..count).for_each(|n| tracing::info!(target: "audit", action = "a", actor = "b", n));
        });
    };
    emit(50);
    let notices = std::sync::Arc::new(Mutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&notices);
    let builder = Forwarder::builder("nats").on_notice(move |notice| told.lock().unwrap().push(notice.kind));
    let forwarder = builder.start_beside(&path, Nats::new(&server.url("AUDIT")).unwrap()).unwrap();
    forwarder.drain(TIMEOUT).unwrap();
    let admin = server.admin();
    admin.ask("$JS.API.STREAM.DELETE.AUDIT", "");
    admin.make("AUDIT", &json!({}));
    emit(50);
    log.close().unwrap();
    // Draining asks the stream what it has.
    forwarder.drain(TIMEOUT).unwrap();
    assert!(notices.lock().unwrap().contains(&NoticeKind::StoreLost));
    forwarder.close(TIMEOUT).unwrap();
    check_stored(&admin, &mut store, &crate::records::read(&path));
}

#[test]
fn a_reconfigured_stream_is_noticed_when_it_is_asked() {
    let Some(server) = Server::start("a_reconfigured_stream_is_noticed_when_it_is_asked") else { return };
    let mut store = store(&server, true);
    let entries = events(20);
    store.offer(&entries[..10]).unwrap();
    let admin = server.admin();
    // Atomic batches are no longer allowed: the next batch is refused, and the one after it is sent one by
    // one.
    admin.edit("AUDIT", &json!({ "allow_atomic": false }));
    offer_until_taken(&mut store, &entries);
    check_stored(&admin, &mut store, &entries);
    admin.edit("AUDIT", &json!({ "allow_atomic": false, "max_age": 3_600_000_000_000_u64 }));
    check_setup(&store.positions(&[]), "max-age");
}

#[test]
fn credentials_are_checked_and_never_shown() {
    let Some(server) = Server::start("credentials_are_checked_and_never_shown") else { return };
    drop(store(&server, true));
    let entries = events(2);
    let wrong = server.url("AUDIT").replace(PASSWORD, "Wr0ng");
    let mut wrong = Nats::new(&wrong).unwrap();
    let outcome = wrong.offer(&entries);
    check_setup(&outcome, "authorization violation");
    assert!(!format!("{outcome:?} {wrong:?}").contains("Wr0ng"));
    let store = Nats::new(&server.url("AUDIT")).unwrap();
    let feed = tracing_audit_forward::NatsFeed::new(&server.url("AUDIT")).unwrap();
    let builder = Nats::builder(&server.url("AUDIT"));
    assert!(!format!("{store:?} {feed:?} {builder:?}").contains(PASSWORD));
    let missing = format!("nats://127.0.0.1:{}/AUDIT?service=web&creds=/no/such.creds", server.port());
    check_setup(&Nats::new(&missing).unwrap().offer(&entries), "/no/such.creds");
}

#[test]
fn a_certificate_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |file: &str, pem: String| {
        let path = dir.path().join(file);
        fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = write("ca.pem", authority.pem());
    let start = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let certificate = write(&format!("{name}.pem"), certificate.pem());
        let key = write(&format!("{name}.key"), key.serialize_pem());
        let mut server =
            Server::prepare(&format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"))?;
        server.run();
        Ok::<_, String>(server)
    };
    let server = match start("127.0.0.1") {
        Ok(server) => server,
        Err(why) => return skip("a_certificate_is_verified", &why),
    };
    let entries = events(3);
    let url = |server: &Server| server.url("AUDIT").replace("nats://", "tls://");
    let trusted = |server: &Server| Nats::new(&format!("{}&ca={ca}", url(server))).unwrap();
    trusted(&server).create_stream(1).unwrap();
    trusted(&server).offer(&entries).unwrap();
    assert_eq!(trusted(&server).verify().unwrap().records(), entries.len() as u64);
    // A certificate of an authority that is not trusted, and one for another name.
    check_setup(&Nats::new(&url(&server)).unwrap().offer(&entries), "certificate");
    let other = start("other.example").unwrap();
    check_setup(&trusted(&other).offer(&entries), "certificate");
    // A server without TLS gets no password.
    let plain = Server::start("a_certificate_is_verified").unwrap();
    let outcome = trusted(&plain).offer(&entries);
    assert!(outcome.is_err());
    assert!(!plain.log().contains("boss"), "{}", plain.log());
}

/// Somebody else published after a chain. It stops; the others continue.
#[test]
fn a_foreign_message_stops_its_chain() {
    for is_atomic in [true, false] {
        let Some(server) = Server::start("a_foreign_message_stops_its_chain") else {
            return;
        };
        let mut first = store(&server, is_atomic);
        let (one, two) = (events(10), events(10));
        first.offer(&one[..5]).unwrap();
        let id = &one[0].chain_id;
        server.admin().publish(&format!("audit.web.n1.{id}"), "{}", &[]);
        let both = [&two[..5], &one[5..]].concat();
        // Also if it was published while a sender was connected.
        let mut second = Nats::new(&server.url("AUDIT")).unwrap();
        for store in [&mut first, &mut second] {
            let outcome = store.offer(&both);
            let Err(SinkError::Chain { index: 5, reason }) = outcome else { panic!("{outcome:?}") };
            assert!(reason.contains("somebody else"), "{reason}");
            store.offer(&two[..5]).unwrap();
        }
        let ids = [id.clone(), two[0].chain_id.clone()];
        let known = second.positions(&ids).unwrap().unwrap();
        assert_eq!(known, [position(&two[4])]);
        assert!(matches!(second.gap(&Gap::new(id.clone(), 0, 20..=21)), Err(SinkError::Chain { .. })));
        second.offer(&two).unwrap();
    }
}
