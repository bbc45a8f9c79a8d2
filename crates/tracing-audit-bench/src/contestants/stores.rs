//! Stores that make each write durable.

use std::{
    io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

/// A store, with a function that inserts one line durably under a unique number.
struct Store<T> {
    inner: T,
    put: fn(&T, u64, &[u8]) -> Result<()>,
    next: AtomicU64,
}

fn store<T: Send + Sync + 'static>(inner: T, put: fn(&T, u64, &[u8]) -> Result<()>) -> Box<dyn Subject> {
    Box::new(Store { inner, put, next: AtomicU64::new(0) })
}

impl<T: Send + Sync> Subject for Store<T> {
    fn emit(&self, event: Event<'_>) {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let put = workload::with_line(event.number, |line| (self.put)(&self.inner, key, line));
        if let Err(error) = put {
            eprintln!("put failed: {error}");
            std::process::exit(1);
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub(super) fn sqlite(dir: &Path) -> Result<Box<dyn Subject>> {
    let connection = rusqlite::Connection::open(dir.join("log.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, line BLOB NOT NULL)", ())?;
    // One connection, because connections per thread would wait for each other inside SQLite, which has one writer.
    Ok(store(Mutex::new(connection), |connection, _, line| {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached("INSERT INTO log (line) VALUES (?1)")?.execute((line,))?;
        Ok(())
    }))
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

pub(super) fn fjall(dir: &Path) -> Result<Box<dyn Subject>> {
    let database = fjall::Database::builder(dir.join("fjall")).open()?;
    let keyspace = database.keyspace("log", fjall::KeyspaceCreateOptions::default)?;
    Ok(store(Fjall { database, keyspace }, |fjall, key, line| {
        fjall.keyspace.insert(key.to_be_bytes(), line)?;
        fjall.database.persist(fjall::PersistMode::SyncData)?;
        Ok(())
    }))
}

/// A log manager that keeps nothing, because only the log itself is measured.
#[derive(Debug)]
struct Forgets;

impl okaywal::LogManager for Forgets {
    fn recover(&mut self, _: &mut okaywal::Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: okaywal::EntryId,
        _: &mut okaywal::SegmentReader,
        _: &okaywal::WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn okaywal(dir: &Path) -> Result<Box<dyn Subject>> {
    let log = okaywal::WriteAheadLog::recover(dir.join("okaywal"), Forgets)?;
    Ok(store(log, |log, _, line| {
        let mut entry = log.begin_entry()?;
        entry.write_chunk(line)?;
        entry.commit()?;
        Ok(())
    }))
}
