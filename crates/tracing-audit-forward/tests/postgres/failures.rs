//! Servers and connections that fail, and the errors for the forwarder.

use std::{
    net::{Ipv4Addr, TcpListener},
    slice,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_audit_forward::{Entry, Gap, Postgres, Sink as _, SinkError};

use crate::{
    check_stored, position, proxy,
    records::events,
    server::{PASSWORD, Server, skip},
    store,
};

/// How long a test waits for something that must happen.
const TIMEOUT: Duration = Duration::from_secs(60);

#[track_caller]
fn check_unavailable<T: std::fmt::Debug>(outcome: &Result<T, SinkError>, text: &str) {
    let Err(error @ SinkError::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(text) && !error.to_string().contains(PASSWORD), "{reason}");
}

#[track_caller]
fn check_setup<T: std::fmt::Debug>(outcome: &Result<T, SinkError>, text: &str) {
    let Err(error @ SinkError::Setup { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(text) && !error.to_string().contains(PASSWORD), "{reason}");
}

/// Offers the same again until it is accepted, as a forwarder does.
#[track_caller]
fn offer_until_taken(store: &mut Postgres, batch: &[Entry]) {
    let begun = Instant::now();
    while let Err(error) = store.offer(batch) {
        assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
        assert!(begun.elapsed() < TIMEOUT, "{error}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_may_be_missing_at_first() {
    let mut server = match Server::prepare(&[]) {
        Ok(server) => server,
        Err(why) => return skip("a_server_may_be_missing_at_first", &why),
    };
    let entries = events(5);
    let mut store = Postgres::new(&server.boss()).unwrap();
    check_unavailable(&store.offer(&entries), "Connection refused");
    check_unavailable(&store.positions(&[]), "Connection refused");
    check_unavailable(&store.verify().map(|report| report.records()), "Connection refused");
    server.run();
    check_setup(&store.offer(&entries), "create_schema");
    store.create_schema().unwrap();
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
}

#[test]
fn a_killed_server_has_everything_that_it_acknowledged() {
    let Some(mut server) = Server::start("a_killed_server_has_everything_that_it_acknowledged") else {
        return;
    };
    drop(store(&server));
    // Defaults of the role that would lose what was acknowledged, if they were not overridden.
    server.sql("ALTER ROLE boss SET synchronous_commit = off");
    server.sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    server.stop();
    server.run();
    let entries = events(1500);
    let (acknowledged, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let url = server.boss();
    let server = Mutex::new(server);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut store = Postgres::new(&url).unwrap();
            for batch in entries.chunks(5) {
                offer_until_taken(&mut store, batch);
                acknowledged.fetch_add(batch.len(), Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        });
        let mut kills = 0;
        while !ended.load(Ordering::SeqCst) && kills < 5 {
            let before = acknowledged.load(Ordering::SeqCst);
            while !ended.load(Ordering::SeqCst) && acknowledged.load(Ordering::SeqCst) < before + 100 {
                thread::sleep(Duration::from_millis(1));
            }
            let mut server = server.lock().unwrap();
            server.kill();
            let promised = acknowledged.load(Ordering::SeqCst);
            server.run();
            let stored: usize = server.sql("SELECT count(*) FROM audit_records").parse().unwrap();
            assert!(stored >= promised, "{stored} of {promised}");
            kills += 1;
        }
        assert!(kills >= 3, "it was over before the server could be killed");
    });
    let server = server.into_inner().unwrap();
    let mut store = Postgres::new(&url).unwrap();
    check_stored(&server, &mut store, &entries);
}

#[test]
fn a_connection_that_is_cut_after_the_commit_duplicates_nothing() {
    let Some(server) = Server::start("a_connection_that_is_cut_after_the_commit_duplicates_nothing") else {
        return;
    };
    drop(store(&server));
    let (port, faults) = proxy::start(server.port());
    let mut store = Postgres::new(&Server::url_at(port, "boss", PASSWORD)).unwrap();
    let entries = events(40);
    for (batch, cuts) in entries.chunks(10).zip(1..) {
        faults.cut_after_commit.store(true, Ordering::SeqCst);
        check_unavailable(&store.offer(batch), "cannot");
        assert_eq!(faults.cuts.load(Ordering::SeqCst), cuts);
        // It was committed nevertheless.
        let stored = server.sql("SELECT count(*) FROM audit_records");
        assert_eq!(stored.parse(), Ok(entries.len().min(10 * usize::try_from(cuts).unwrap())));
        store.offer(batch).unwrap();
    }
    check_stored(&server, &mut store, &entries);
    let last = position(entries.last().unwrap());
    assert_eq!(store.positions(slice::from_ref(&last.chain_id)).unwrap(), Some(vec![last.clone()]));
}

#[test]
fn no_call_waits_forever() {
    let Some(server) = Server::start("no_call_waits_forever") else { return };
    drop(store(&server));
    let entries = events(3);
    let bounded = |port| {
        let builder = Postgres::builder(&Server::url_at(port, "boss", PASSWORD));
        builder
            .connect_timeout(Duration::from_secs(1))
            .statement_timeout(Duration::from_secs(1))
            .build()
            .unwrap()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // Accepts connections, and never answers.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut store = bounded(listener.local_addr().unwrap().port());
            check_unavailable(&store.offer(&entries), "no answer");
        });
        scope.spawn(|| {
            // The server stops answering.
            let (port, faults) = proxy::start(server.port());
            let mut store = bounded(port);
            store.offer(&entries[..1]).unwrap();
            faults.silence.store(true, Ordering::SeqCst);
            // Or the server ends the idle transaction.
            check_unavailable(&store.offer(&entries), "");
            faults.silence.store(false, Ordering::SeqCst);
            store.offer(&entries[..1]).unwrap();
        });
    });
    // Somebody holds a lock: the server itself gives up.
    server.sql("CREATE ROLE locker SUPERUSER LOGIN PASSWORD 'Secr3t'");
    let mut store = bounded(server.port());
    thread::scope(|scope| {
        scope.spawn(|| server.sql("BEGIN; LOCK TABLE audit_records; SELECT pg_sleep(4); COMMIT"));
        let begun = Instant::now();
        while server.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted")
            == "0"
        {
            assert!(begun.elapsed() < TIMEOUT);
        }
        check_unavailable(&store.offer(&entries), "statement timeout");
    });
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
}

#[test]
fn answers_of_a_server_are_distinguished() {
    let Some(server) = Server::start("answers_of_a_server_are_distinguished") else { return };
    drop(store(&server));
    let entries = events(3);
    let outcome = || Postgres::new(&server.url("mia", "pass")).unwrap().offer(&entries);

    check_setup(&outcome(), "authentication failed");
    server.sql("CREATE ROLE mia LOGIN PASSWORD 'pass'");
    check_setup(&outcome(), "permission denied");
    server.sql("GRANT SELECT, INSERT ON audit_records, audit_gaps TO mia");
    outcome().unwrap();

    server.sql("ALTER ROLE mia CONNECTION LIMIT 0");
    check_unavailable(&outcome(), "too many connections");
    server.sql("ALTER ROLE mia CONNECTION LIMIT -1");
    server.sql("ALTER ROLE mia SET default_transaction_read_only = on; TRUNCATE audit_records");
    check_unavailable(&outcome(), "read-only");
    server.sql("ALTER ROLE mia RESET ALL");

    server.sql("COMMENT ON TABLE audit_records IS 'tracing-audit-forward schema 99'");
    check_setup(&outcome(), "is 99, and this program knows 1");
    server.sql("COMMENT ON TABLE audit_records IS NULL");
    check_setup(&outcome(), "is unknown");
    server.sql("COMMENT ON TABLE audit_records IS 'tracing-audit-forward schema 1: ours'");
    outcome().unwrap();

    server.sql("TRUNCATE audit_records; ALTER TABLE audit_records SET UNLOGGED");
    check_setup(&outcome(), "UNLOGGED");
    server.sql("ALTER TABLE audit_records SET LOGGED; ALTER TABLE audit_records ADD CHECK (actor <> 'mia')");
    let Err(SinkError::Refused { reason }) = outcome() else { panic!() };
    assert!(reason.contains("audit_records_actor_check") && !reason.contains("mia"), "{reason}");
    server.sql("ALTER TABLE audit_records DROP CONSTRAINT audit_records_actor_check");
    server.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    server.sql("CREATE TRIGGER no BEFORE INSERT ON audit_records FOR EACH ROW EXECUTE FUNCTION no()");
    check_setup(&outcome(), "a trigger");
    server.sql("CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE '%', NEW.actor; END$$");
    check_setup(&outcome(), "the server refuses it (P0001)");
    server.sql(
        "DROP TRIGGER no ON audit_records; ALTER TABLE audit_records DROP CONSTRAINT audit_records_pkey",
    );
    check_setup(&outcome(), "would be duplicated");
    server.sql("DROP TABLE audit_gaps");
    check_setup(&outcome(), "audit_gaps");
}

#[test]
fn a_store_that_may_lose_what_it_acknowledged_is_refused() {
    const NAME: &str = "a_store_that_may_lose_what_it_acknowledged_is_refused";
    let Some(server) = Server::start_with(NAME, &["fsync=off"]) else { return };
    let mut store = Postgres::new(&server.boss()).unwrap();
    check_setup(&store.offer(&events(1)), "create_schema");
    check_setup(&store.create_schema(), "fsync is off");
    server.sql("CREATE DATABASE latin ENCODING 'SQL_ASCII' TEMPLATE template0");
    let latin = format!("{}latin", server.boss().strip_suffix("postgres").unwrap());
    let mut store = Postgres::new(&latin).unwrap();
    check_setup(&store.create_schema(), "UTF8");
}

#[test]
fn a_role_that_may_insert_and_select_is_enough() {
    let Some(server) = Server::start("a_role_that_may_insert_and_select_is_enough") else { return };
    drop(store(&server));
    server.sql("CREATE ROLE mia LOGIN PASSWORD 'pass'; ALTER ROLE mia SET synchronous_commit = off");
    server.sql("GRANT SELECT, INSERT ON audit_records, audit_gaps TO mia");
    let mut store = Postgres::new(&server.url("mia", "pass")).unwrap();
    let entries = events(10);
    store.offer(&entries[..4]).unwrap();
    store.offer(&entries[..6]).unwrap();
    let gap = Gap::new(entries[6].chain_id.clone(), 0, 7..=8);
    store.gap(&gap).unwrap();
    store.gap(&gap).unwrap();
    store.offer(&entries[8..]).unwrap();
    let last = position(entries.last().unwrap());
    assert_eq!(store.positions(slice::from_ref(&last.chain_id)).unwrap(), Some(vec![last.clone()]));
    store.create_schema().unwrap();
    assert!(store.verify().unwrap().is_intact());
}

#[test]
fn a_batch_is_acknowledged_when_the_standbys_have_it() {
    let Some(server) = Server::start("a_batch_is_acknowledged_when_the_standbys_have_it") else { return };
    drop(store(&server));
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'absent'");
    server.sql("SELECT pg_reload_conf()");
    let entries = events(3);
    let new = || {
        let builder = Postgres::builder(&server.boss()).statement_timeout(Duration::from_secs(1));
        builder.build().unwrap()
    };
    thread::sleep(Duration::from_millis(500));
    // The timeout of the client is not an acknowledgement ...
    check_unavailable(&new().offer(&entries), "no answer");
    // ... nor is an operator who ends the wait ...
    let waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let (mut store, ended) = (new(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                server.sql(waiting);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _ending = SetAtEnd(&ended);
        let begun = Instant::now();
        loop {
            let outcome = store.offer(&entries);
            let Err(SinkError::Unavailable { reason, .. }) = &outcome else { panic!("{outcome:?}") };
            if reason.contains("canceling wait for synchronous replication") {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "{reason}");
        }
    });
    // ... nor that the rows are there when they are offered or queried again.
    assert_eq!(server.sql("SELECT count(*) FROM audit_records"), entries.len().to_string());
    check_unavailable(&new().offer(&entries), "no answer");
    check_unavailable(&new().positions(&[entries[0].chain_id.clone()]), "no answer");
    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("SELECT pg_reload_conf()");
    let mut store = new();
    offer_until_taken(&mut store, &entries);
    check_stored(&server, &mut store, &entries);
}

/// Ends the other thread of a test even if this one panics.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_full_disk_is_a_reason_to_wait() {
    const NAME: &str = "a_full_disk_is_a_reason_to_wait";
    let Some(server) = Server::start(NAME) else { return };
    let Some(user) = server.user() else { return skip(NAME, "a small file system needs root") };
    drop(store(&server));
    let mount = match Tmpfs::new("6m", user) {
        Ok(mount) => mount,
        Err(why) => return skip(NAME, &why),
    };
    let place = mount.dir.path().display();
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{place}'"));
    server.sql("ALTER TABLE audit_records SET TABLESPACE small");
    let filler =
        "CREATE TABLE filler TABLESPACE small AS SELECT n, repeat('x', 800) FROM generate_series(1, 6000) n";
    server.sql(filler);
    let entries = events(3000);
    let mut store = Postgres::new(&server.boss()).unwrap();
    let full = entries.chunks(500).find_map(|batch| store.offer(batch).err());
    check_unavailable(&Err::<(), _>(full.unwrap()), "No space left on device");
    server.sql("DROP TABLE filler");
    for batch in entries.chunks(500) {
        offer_until_taken(&mut store, batch);
    }
    check_stored(&server, &mut store, &entries);
    drop(store);
    drop(server);
}

/// A small file system, unmounted at the end.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn new(size: &str, owner: &str) -> Result<Self, String> {
        use std::process::Command;
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).arg(dir.path());
        let mounted = mount.output().map_err(|error| error.to_string())?;
        if !mounted.status.success() {
            return Err("no file system can be mounted".to_owned());
        }
        crate::server::succeed(Command::new("chown").arg(owner).arg(dir.path()));
        Ok(Self { dir })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).output();
    }
}
