//! A copy in a table of PostgreSQL.

mod builder;
mod columns;
mod failure;
mod names;
mod password;
mod session;
mod tls;
mod url;
mod verify;

use std::{fmt, sync::Arc};

use tokio::runtime::{self, Runtime};
use tokio_postgres::types::Type;

pub use self::{builder::PostgresBuilder, names::SCHEMA};
use self::{
    columns::{Columns, TEXTS},
    names::Names,
    session::{Bounds, Parameter, Session, get, setup},
    url::Target,
};
use crate::{
    copy::{CopiedLine, CopyChecker, CopyReport, digest_of},
    on_runtime::block_on,
    sink::{Entry, Gap, Position, Sink, SinkError},
};

/// Stores records in a PostgreSQL table: each record is one row, under its chain and sequence number.
///
/// The row has the line of the record, byte for byte, and columns parsed from the line, for queries. A batch
/// is one transaction. It is acknowledged when the server has it on disk (`synchronous_commit` is set to
/// `on`, whatever the default of the role is), and on the synchronous standbys if there are any. A batch that
/// is offered again, because its acknowledgement was lost, duplicates nothing.
///
/// The role needs `INSERT` and `SELECT` on the two tables, nothing else. Each call opens a connection if
/// there is none, and waits no longer than its timeouts. docs/forwarding/postgres.md describes the schema,
/// roles, TLS and queries.
///
/// # Examples
///
/// ```no_run
/// use tracing_audit_forward::Postgres;
///
/// # fn main() -> Result<(), tracing_audit_forward::SinkError> {
/// let mut store = Postgres::new("postgres://audit_writer@db.example/audit")?;
/// println!("{}", store.verify()?);
/// # Ok(())
/// # }
/// ```
pub struct Postgres {
    store: Store,
    /// `None` only during drop.
    runtime: Option<Runtime>,
}

/// The part that a call works on.
#[derive(Debug)]
struct Store {
    target: Target,
    names: Names,
    bounds: Bounds,
    session: Option<Session>,
}

impl Postgres {
    /// Creates a store in the database that this URL names, with default settings. Nothing is connected yet.
    ///
    /// The URL is that of `psql`: `postgres://user@host:port/database?parameter=value`. It may contain a
    /// password, but `PGPASSWORD` is better, or the file that the parameter `passfile`, `PGPASSFILE` or else
    /// `~/.pgpass` names. Connections to other machines are encrypted, and the certificate and the name of
    /// the server are verified, unless the URL says `sslmode=disable`.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL cannot be used.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        Self::builder(url).build()
    }

    /// Returns the settings of a store.
    pub fn builder(url: &str) -> PostgresBuilder {
        PostgresBuilder::new(url)
    }

    fn with(target: Target, names: Names, bounds: Bounds) -> Result<Self, SinkError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| setup(format!("cannot prepare to connect: {error}")))?;
        Ok(Self { store: Store { target, names, bounds, session: None }, runtime: Some(runtime) })
    }

    /// Creates the tables of [`SCHEMA`], with the names of this store. If they exist already, only their
    /// version is checked. The role must be allowed to create tables; the role that forwards need not be.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    pub fn create_schema(&mut self) -> Result<(), SinkError> {
        let (store, runtime) = self.parts()?;
        block_on(runtime, store.create_schema())
    }

    /// Verifies the whole copy: recomputes every chain from the lines in the table, and compares each column
    /// with its line.
    ///
    /// Finds rows that were edited, deleted or inserted, and columns that differ from the line. It reads
    /// everything, in one transaction that sees the table as it was at its beginning. [`CopyChecker`] lists
    /// what cannot be found.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]: the copy could not be verified. What is wrong
    /// with the copy is in the report.
    pub fn verify(&mut self) -> Result<CopyReport, SinkError> {
        self.verify_with(CopyChecker::new())
    }

    /// Verifies the copy with a checker that already knows of rejected records, or where forwarding began.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_with(&mut self, checker: CopyChecker) -> Result<CopyReport, SinkError> {
        let (store, runtime) = self.parts()?;
        block_on(runtime, store.verify(checker))
    }

    fn parts(&mut self) -> Result<(&mut Store, &Runtime), SinkError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| setup("the store is closed".to_owned()))?;
        Ok((&mut self.store, runtime))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Store { target, names, session, .. } = &self.store;
        f.debug_struct("Postgres")
            .field("hosts", &target.config.get_hosts())
            .field("table", &names.records)
            .field("is_connected", &session.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A plain drop would wait for a pending name lookup, and would panic on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Sink for Postgres {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        let (store, runtime) = self.parts()?;
        block_on(runtime, store.positions(chain_ids)).map(Some)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let rows = Rows::of(batch)?;
        let (store, runtime) = self.parts()?;
        block_on(runtime, store.offer(&rows))
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let (store, runtime) = self.parts()?;
        block_on(runtime, store.gap(gap))
    }

    fn close(&mut self) {
        if let Some(session) = self.store.session.take()
            && let Some(runtime) = &self.runtime
        {
            block_on(runtime, session.end());
        }
    }
}

impl Store {
    /// Takes the connection out of `self`, or opens one. [`settle`](Self::settle) puts it back.
    async fn open(&mut self) -> Result<Session, SinkError> {
        if let Some(session) = self.session.take() {
            if session.is_alive().await {
                return Ok(session);
            }
            session.cut().await;
        }
        let session = Session::connect(&self.target, &self.bounds).await?;
        match session.check(&self.names).await {
            Ok(()) => Ok(session),
            Err(error) => {
                session.end().await;
                Err(error)
            }
        }
    }

    /// Keeps a connection that is still usable. After any other failure, the next call opens a new one and
    /// checks the tables again.
    async fn settle<T>(&mut self, session: Session, outcome: Result<T, SinkError>) -> Result<T, SinkError> {
        let is_usable = match &outcome {
            Ok(_) => true,
            Err(SinkError::Refused { .. } | SinkError::Conflict { .. }) => session.rollback().await.is_ok(),
            Err(_) => false,
        };
        if is_usable {
            self.session = Some(session);
        } else {
            session.cut().await;
        }
        outcome
    }

    async fn create_schema(&mut self) -> Result<(), SinkError> {
        let session = Session::connect(&self.target, &self.bounds).await?;
        let made = create_schema(&session, &self.names).await;
        session.end().await;
        made
    }

    async fn offer(&mut self, rows: &Rows<'_>) -> Result<(), SinkError> {
        let session = self.open().await?;
        let outcome = offer(&session, &self.names, rows).await;
        self.settle(session, outcome).await
    }

    async fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Vec<Position>, SinkError> {
        let session = self.open().await?;
        let outcome = positions(&session, &self.names, chain_ids).await;
        self.settle(session, outcome).await
    }

    async fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let session = self.open().await?;
        let outcome = store_gap(&session, &self.names, gap).await;
        self.settle(session, outcome).await
    }

    async fn verify(&mut self, checker: CopyChecker) -> Result<CopyReport, SinkError> {
        let session = self.open().await?;
        let outcome = verify::verify(&session, &self.names, checker).await;
        self.settle(session, outcome).await
    }
}

async fn create_schema(session: &Session, names: &Names) -> Result<(), SinkError> {
    const DOING: &str = "create the tables";
    session.begin().await?;
    // Serialises two programs that create the tables at the same time.
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1))";
    session.query(DOING, lock, &[(&names.records, Type::TEXT)]).await?;
    let exists = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
    let rows = session.query(DOING, exists, &[(&names.records, Type::TEXT)]).await?;
    if !rows.first().map(|row| get::<bool>(row, 0)).transpose()?.unwrap_or_default() {
        if let Some(schema) = &names.schema {
            session.simple(DOING, &format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        }
        session.simple(DOING, &names.schema_statements()).await?;
    }
    session.check(names).await?;
    session.commit().await
}

async fn offer(session: &Session, names: &Names, rows: &Rows<'_>) -> Result<(), SinkError> {
    session.begin().await?;
    let inserted = session.execute("insert records", &names.insert(), &rows.parameters()).await?;
    // Even if all were inserted: a partitioned table may have another record in another partition, and a
    // trigger may drop what is inserted.
    let others = session.query("check what was inserted", &names.find_other(), &rows.key()).await?;
    if let Some(other) = others.first() {
        let place: i64 = get(other, 0)?;
        let stored: Option<&[u8]> = get(other, 1)?;
        let Some(stored) = stored.and_then(digest_of) else {
            let reason = "does not show what was inserted: a trigger, a rule or a policy of row security is in the way";
            return Err(setup(format!("{} {reason}", names.records)));
        };
        return Err(SinkError::Conflict { index: usize::try_from(place - 1).unwrap_or_default(), stored });
    }
    // Some rows were there already, possibly from a transaction whose commit was never confirmed.
    if inserted < rows.seqs.len() as u64 {
        session.write_something().await?;
    }
    session.commit().await
}

async fn positions(session: &Session, names: &Names, ids: &[Arc<str>]) -> Result<Vec<Position>, SinkError> {
    const DOING: &str = "ask for the last records";
    session.begin().await?;
    let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
    let rows = session.query(DOING, &names.last(), &[(&ids, Type::TEXT_ARRAY)]).await?;
    let mut positions = Vec::with_capacity(rows.len());
    for row in &rows {
        let (id, seq, hash): (&str, i64, &[u8]) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        let (Ok(seq), Some(hash)) = (u64::try_from(seq), digest_of(hash)) else {
            return Err(setup(format!("the last record of chain {id} has no number or no hash")));
        };
        positions.push(Position { chain_id: id.into(), seq, hash });
    }
    // A position is an acknowledgement too, so it must be durable as well.
    if !positions.is_empty() {
        session.write_something().await?;
    }
    session.commit().await?;
    Ok(positions)
}

async fn store_gap(session: &Session, names: &Names, gap: &Gap) -> Result<(), SinkError> {
    let (chain, first, last) =
        (chain_column(gap.chain)?, seq_column(gap.first_seq)?, seq_column(gap.last_seq)?);
    let id: &str = &gap.chain_id;
    let parameters: [Parameter<'_>; 4] =
        [(&id, Type::TEXT), (&chain, Type::INT2), (&first, Type::INT8), (&last, Type::INT8)];
    session.begin().await?;
    if session.execute("note a gap", &names.insert_gap(), &parameters).await? == 0 {
        session.write_something().await?;
    }
    session.commit().await
}

/// A batch as arrays, one per column.
struct Rows<'a> {
    chain_ids: Vec<&'a str>,
    seqs: Vec<i64>,
    chains: Vec<i16>,
    hashes: Vec<Vec<u8>>,
    lines: Vec<&'a [u8]>,
    times: Vec<tokio_postgres::types::Timestamp<std::time::SystemTime>>,
    nanos: Vec<i16>,
    /// In the order of [`TEXTS`].
    texts: Vec<Vec<Option<String>>>,
    fields: Vec<Option<String>>,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a [Entry]) -> Result<Self, SinkError> {
        let mut rows = Self {
            chain_ids: Vec::with_capacity(batch.len()),
            seqs: Vec::with_capacity(batch.len()),
            chains: Vec::with_capacity(batch.len()),
            hashes: Vec::with_capacity(batch.len()),
            lines: Vec::with_capacity(batch.len()),
            times: Vec::with_capacity(batch.len()),
            nanos: Vec::with_capacity(batch.len()),
            texts: TEXTS.iter().map(|_| Vec::with_capacity(batch.len())).collect(),
            fields: Vec::with_capacity(batch.len()),
        };
        for Entry { chain_id, record } in batch {
            let line = record.as_json().as_bytes();
            let parsed = CopiedLine::parse(line).map_err(|what| {
                let reason = format!("record {} is invalid: {what}", record.head());
                SinkError::Refused { reason }
            })?;
            let columns = Columns::of(&parsed);
            rows.chain_ids.push(chain_id);
            rows.seqs.push(seq_column(record.seq())?);
            rows.chains.push(chain_column(record.chain())?);
            rows.hashes.push(record.hash().as_bytes().to_vec());
            rows.lines.push(line);
            rows.times.push(columns.at);
            rows.nanos.push(columns.nanos);
            for (column, text) in rows.texts.iter_mut().zip(columns.texts) {
                column.push(text);
            }
            rows.fields.push(columns.fields.map(|fields| fields.to_string()));
        }
        Ok(rows)
    }

    /// Returns the parameters of [`Names::insert`].
    fn parameters(&self) -> Vec<Parameter<'_>> {
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&self.chain_ids, Type::TEXT_ARRAY),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.chains, Type::INT2_ARRAY),
            (&self.hashes, Type::BYTEA_ARRAY),
            (&self.lines, Type::BYTEA_ARRAY),
            (&self.times, Type::TIMESTAMPTZ_ARRAY),
            (&self.nanos, Type::INT2_ARRAY),
        ];
        for column in &self.texts {
            parameters.push((column, Type::TEXT_ARRAY));
        }
        parameters.push((&self.fields, Type::TEXT_ARRAY));
        parameters
    }

    /// Returns the parameters of [`Names::find_other`].
    fn key(&self) -> [Parameter<'_>; 3] {
        [
            (&self.chain_ids, Type::TEXT_ARRAY),
            (&self.seqs, Type::INT8_ARRAY),
            (&self.hashes, Type::BYTEA_ARRAY),
        ]
    }
}

/// Converts a sequence number. No chain exceeds the range: that would take 292,000 years at a million records
/// per second.
fn seq_column(seq: u64) -> Result<i64, SinkError> {
    let too_high = |_| SinkError::Refused { reason: format!("the sequence number {seq} is above 2^63 - 1") };
    i64::try_from(seq).map_err(too_high)
}

fn chain_column(chain: u16) -> Result<i16, SinkError> {
    let too_high =
        |_| SinkError::Refused { reason: format!("the number of the chain, {chain}, is above 32,767") };
    i16::try_from(chain).map_err(too_high)
}
