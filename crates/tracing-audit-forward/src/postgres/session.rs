//! One connection: bounded in time, driven in the background, and its transactions.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::{
    AsyncMessage, Client, Connection, Error, NoTls, Row, SimpleQueryMessage,
    error::Severity,
    tls::TlsStream,
    types::{ToSql, Type},
};

use super::{
    failure::{self, unavailable},
    names::{CHECK, Names, VERSION, VERSION_MARK},
    password, tls,
    url::Target,
};
use crate::sink::SinkError;

/// How much longer the client waits than the server's own timeout, so that an answer in time can arrive.
const GRACE: Duration = Duration::from_secs(5);

/// How long ending a connection in order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A value and its type, as `tokio-postgres` takes them.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The settings of a session.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) connect: Duration,
    pub(super) statement: Duration,
    pub(super) accept_any_certificate: bool,
}

/// A connection on which statements are run.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    messages: Arc<Messages>,
    bounds: Bounds,
}

/// Messages of the server that are not answers. The locks are held only while copying.
#[derive(Debug, Default)]
struct Messages {
    /// The last warning.
    warning: Mutex<Option<String>>,
    /// Why the connection ended.
    end: Mutex<Option<SinkError>>,
}

impl Session {
    pub(super) async fn connect(target: &Target, bounds: &Bounds) -> Result<Self, SinkError> {
        let mut config = password::with_password(target)?;
        // The TCP timeout ends a connection whose peer vanished while data was in flight (tcp(7)).
        config.connect_timeout(bounds.connect).tcp_user_timeout(bounds.statement + GRACE);
        // The default is two hours.
        if config.get_keepalives_idle() > Duration::from_secs(60) {
            config.keepalives_idle(Duration::from_secs(60));
        }
        if config.get_application_name().is_none() {
            config.application_name("tracing-audit-forward");
        }
        let messages = Arc::new(Messages::default());
        let connecting = async {
            if config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) =
                    config.connect(NoTls).await.map_err(|error| cannot_connect(&error))?;
                return Ok((client, tokio::spawn(drive(connection, Arc::clone(&messages)))));
            }
            let connector = tls::connector(target, bounds.accept_any_certificate)?;
            let (client, connection) =
                config.connect(connector).await.map_err(|error| cannot_connect(&error))?;
            Ok((client, tokio::spawn(drive(connection, Arc::clone(&messages)))))
        };
        // The timeout of `config` applies to each address, and ends when the server has accepted the
        // connection.
        let hosts = config.get_hosts().len().max(1);
        let bound = bounds.connect.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX)) + GRACE;
        let Ok(connected) = timeout(bound, connecting).await else {
            return Err(unavailable(format!("cannot connect to PostgreSQL: no answer within {bound:?}")));
        };
        let (client, driver) = connected?;
        Ok(Self { client, driver, messages, bounds: bounds.clone() })
    }

    /// Checks that the tables exist, have this version, and keep what is inserted.
    pub(super) async fn check(&self, names: &Names) -> Result<(), SinkError> {
        let tables: [Parameter<'_>; 2] = [(&names.records, Type::TEXT), (&names.gaps, Type::TEXT)];
        let rows = self.query("check the tables", CHECK, &tables).await?;
        let advice = "see Postgres::create_schema";
        let Some(row) = rows.first() else {
            let records = &names.records;
            return Err(setup(format!(
                "there is no table {records}, or the role may not use its schema; {advice}"
            )));
        };
        let encoding: String = get(row, 0)?;
        if encoding != "UTF8" {
            return Err(setup(format!("the encoding of the database is {encoding}; it has to be UTF8")));
        }
        let fsync: String = get(row, 1)?;
        if fsync != "on" {
            return Err(setup("fsync is off in the server: it may lose what it acknowledged".to_owned()));
        }
        if !get::<bool>(row, 2)? {
            return Err(setup(format!("there is no table {}; {advice}", names.gaps)));
        }
        let comment: Option<String> = get(row, 3)?;
        let version = version_of(comment.as_deref().unwrap_or_default());
        if version != Some(VERSION) {
            let version = version.map_or("unknown".to_owned(), |version| version.to_string());
            let reason =
                format!("the version of {} is {version}, and this program knows {VERSION}", names.records);
            return Err(setup(format!("{reason}; {advice}")));
        }
        if !get::<bool>(row, 4)? {
            return Err(setup(format!("{} is UNLOGGED: a crash would empty it", names.records)));
        }
        if !get::<bool>(row, 5)? {
            let reason = "has no unique index on chain_id and seq (and ts, where it is partitioned)";
            return Err(setup(format!("{} {reason}: records would be duplicated", names.records)));
        }
        Ok(())
    }

    /// Begins a transaction whose commit is acknowledged only when it is on disk, whatever the role's
    /// defaults are.
    ///
    /// All settings are local to the transaction, so that they hold behind a pooler too.
    pub(super) async fn begin(&self) -> Result<(), SinkError> {
        let millis = self.bounds.statement.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {idle}; \
             SELECT pg_catalog.set_config('synchronous_commit', \
                 CASE pg_catalog.current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, \
                 true); \
             SHOW synchronous_commit",
            idle = millis * 2,
        );
        let answer = self.simple("begin a transaction", &begin).await?;
        let last = answer.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        match last {
            Some("on" | "remote_apply") => Ok(()),
            other => {
                let found = other.unwrap_or("unknown");
                Err(setup(format!("synchronous_commit is {found}, and the role cannot set it to on")))
            }
        }
    }

    /// Begins a read-only transaction that sees the tables as they are now.
    pub(super) async fn begin_reading(&self) -> Result<(), SinkError> {
        let millis = self.bounds.statement.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {idle}",
            idle = millis * 2,
        );
        self.simple("begin a transaction", &begin).await.map(drop)
    }

    /// Writes a message to the write-ahead log that changes nothing. Without it, a transaction that found its
    /// rows there would commit without waiting for the log and for the synchronous standbys. The transaction
    /// that inserted the rows may not have waited either: its connection may have been cut during the wait.
    pub(super) async fn write_something(&self) -> Result<(), SinkError> {
        let statement = "SELECT pg_catalog.pg_logical_emit_message(true, 'tracing-audit-forward', '')";
        self.query("write to the log of the server", statement, &[]).await.map(drop)
    }

    /// Commits a transaction. `Ok`: it is on disk, and on the synchronous standbys if there are any.
    pub(super) async fn commit(&self) -> Result<(), SinkError> {
        // Discards a warning of an earlier statement.
        self.messages.take_warning();
        // A timeout of the server would only end the wait for a standby, with a warning and success.
        self.simple("commit", "SET LOCAL statement_timeout = 0; COMMIT").await?;
        match self.messages.take_warning() {
            // Such as: "canceling wait for synchronous replication due to user request".
            Some(warning) => Err(unavailable(format!("the server warned when it committed: {warning}"))),
            None => Ok(()),
        }
    }

    pub(super) async fn rollback(&self) -> Result<(), SinkError> {
        self.simple("roll back", "ROLLBACK").await.map(drop)
    }

    pub(super) async fn simple(&self, doing: &str, text: &str) -> Result<Vec<SimpleQueryMessage>, SinkError> {
        self.within(doing, self.client.simple_query(text)).await
    }

    pub(super) async fn query(
        &self,
        doing: &str,
        text: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, SinkError> {
        self.within(doing, self.client.query_typed(text, parameters)).await
    }

    /// Returns how many rows were inserted.
    pub(super) async fn execute(
        &self,
        doing: &str,
        text: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, SinkError> {
        self.within(doing, self.client.execute_typed(text, parameters)).await
    }

    /// Returns whether the connection is not known to have ended since its last use.
    pub(super) async fn is_alive(&self) -> bool {
        // The driver runs only within calls, so let it process what arrived in between.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        !self.client.is_closed() && !self.driver.is_finished()
    }

    /// Waits for an answer, with a timeout.
    async fn within<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, SinkError> {
        let bound = self.bounds.statement + GRACE;
        match timeout(bound, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_closed() => {
                // The driver knows the cause.
                Err(self.messages.end().unwrap_or_else(|| failure::of(doing, &error)))
            }
            Ok(Err(error)) => Err(failure::of(doing, &error)),
            Err(_) => Err(unavailable(format!("cannot {doing}: no answer from the server within {bound:?}"))),
        }
    }

    /// Closes the connection at once.
    pub(super) async fn cut(self) {
        self.driver.abort();
        // When this returns, the driver is gone, and with it the socket. That it was aborted is expected.
        self.driver.await.unwrap_or_default();
    }

    /// Ends the connection in order.
    pub(super) async fn end(self) {
        let Self { client, mut driver, .. } = self;
        // Without a client, the driver sends the termination message and ends.
        drop(client);
        if timeout(CLOSE_TIMEOUT, &mut driver).await.is_err() {
            driver.abort();
            driver.await.unwrap_or_default();
        }
    }
}

impl Messages {
    fn take_warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end(&self) -> Option<SinkError> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Drives the connection until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, messages: Arc<Messages>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if notice.parsed_severity() == Some(Severity::Warning) {
                    let text = notice.message().to_owned();
                    *messages.warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let error = failure::of("continue on the connection", &error);
                *messages.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
            None => return,
        }
    }
}

/// Returns the value of a column.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, SinkError> {
    row.try_get(column).map_err(|error| failure::of("read an answer", &error))
}

fn cannot_connect(error: &Error) -> SinkError {
    failure::of("connect to PostgreSQL", error)
}

pub(super) fn setup(reason: String) -> SinkError {
    SinkError::Setup { reason }
}

/// Parses the version in the comment of the table.
fn version_of(comment: &str) -> Option<u32> {
    let rest = comment.strip_prefix(VERSION_MARK)?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}
