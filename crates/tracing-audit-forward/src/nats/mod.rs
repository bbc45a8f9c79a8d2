//! A copy in a stream of NATS JetStream.

mod beat;
mod builder;
mod config;
mod failure;
mod feed;
mod send;
mod session;
mod tls;
mod url;
mod verify;
mod wire;

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::watch;

use self::{
    beat::BeatContent,
    failure::setup,
    send::Work,
    session::{Bounds, Session},
    url::Target,
    wire::Prefix,
};
pub use self::{builder::NatsBuilder, config::NatsAllow, feed::NatsFeed};
use crate::{
    copy::{CopyChecker, CopyReport},
    origin::Origin,
    sink::{Entry, Gap, Position, Sink, SinkError},
};

/// Stores records in a NATS JetStream stream: each record is one message, under one subject per chain.
///
/// The subject is `<prefix>.<service>.<host>.<chain id>`, and the message is the line of the record, byte for
/// byte. A batch is published as one atomic batch if the stream allows that (server 2.12 and later), else one
/// message after another in each chain.
///
/// The first message of each chain in an atomic batch, and every message that is published singly, names the
/// message of its subject that it must follow. So messages of two senders never interleave, and a message
/// published twice is stored once, however late. After a doubtful answer, the leader of the stream is asked for
/// the last message of the subject.
///
/// A stream that may lose what it acknowledged is refused, unless that is [allowed](NatsBuilder::allow). What
/// an acknowledgement is worth also depends on the server: see docs/forwarding/nats.md, which also describes
/// permissions and settings.
///
/// Each call opens a connection if there is none, and waits no longer than its timeouts. Independently of the
/// calls, a heartbeat is published every 15 seconds, and at once when its content changes.
///
/// # Examples
///
/// ```no_run
/// use tracing_audit_forward::Nats;
///
/// # fn main() -> Result<(), tracing_audit_forward::SinkError> {
/// let mut store = Nats::new("tls://nats.example/AUDIT?service=web&creds=/etc/audit/writer.creds")?;
/// println!("{}", store.verify()?);
/// # Ok(())
/// # }
/// ```
pub struct Nats {
    target: Target,
    prefix: Prefix,
    bounds: Bounds,
    allow: Vec<NatsAllow>,
    origin: Option<Origin>,
    work: Work,
    session: Option<Session>,
    content: watch::Sender<BeatContent>,
}

impl Nats {
    /// Creates a store in the stream that this URL names, with default settings. Nothing is connected yet.
    ///
    /// The URL is `nats://user:password@host:port/STREAM?parameter=value`, or `tls://…`. Connections to other
    /// machines must be encrypted, unless the URL says `tls=off`. Credentials that are not in the URL are
    /// taken from `NATS_CREDS`, `NATS_USER` and `NATS_PASSWORD`, or `NATS_TOKEN`. docs/forwarding/nats.md has
    /// all parameters.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL cannot be used.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        Self::builder(url).build()
    }

    /// Returns the settings of a store in this stream.
    pub fn builder(url: &str) -> NatsBuilder {
        NatsBuilder::new(url)
    }

    fn with(
        target: Target,
        prefix: Prefix,
        bounds: Bounds,
        allow: Vec<NatsAllow>,
        origin: Option<Origin>,
    ) -> Self {
        let content = watch::Sender::new(BeatContent::default());
        Self { target, prefix, bounds, allow, origin, work: Work::default(), session: None, content }
    }

    /// Creates the stream with this many replicas: storage in files, no limits, no deletes, atomic batches if
    /// the server supports them. If it exists already, only its configuration is checked. The user must be
    /// allowed to create streams; the user that forwards need not be.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    pub fn create_stream(&mut self, replicas: u8) -> Result<(), SinkError> {
        let mut session = Session::connect(&self.target, &self.prefix, self.bounds)?;
        let has_batches = session.client.is_server_compatible(2, 12, 0);
        let config = config::safe_config(&self.target.stream, &self.prefix, replicas, has_batches);
        session.run(create(&session, &config))??;
        self.check(&mut session)
    }

    /// Verifies the whole copy: recomputes every chain from the lines in the stream.
    ///
    /// Finds messages that were altered, deleted or inserted. It reads everything under the prefix up to the
    /// message that was the last one when it began. [`CopyChecker`] lists what cannot be found.
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
        verify::verify(&self.target, &self.prefix, self.bounds, checker)
    }

    fn origin(&self) -> Result<&Origin, SinkError> {
        let missing = "the origin of the log is not known: name the service in the URL, as in \
                       nats://host:port/STREAM?service=NAME";
        self.origin.as_ref().ok_or_else(|| setup(missing.to_owned()))
    }

    /// Checks that the stream keeps what it takes.
    fn check(&self, session: &mut Session) -> Result<(), SinkError> {
        let info = session.run(session.info())??;
        let somebody = Origin::new("service", "host")?;
        let subject = self.prefix.subject(self.origin.as_ref().unwrap_or(&somebody), &"0".repeat(32));
        let max_payload = session.max_payload();
        info.config.check(&self.target.stream, &subject, &self.prefix, max_payload, &self.allow)?;
        session.max_line = info.config.max_line(max_payload);
        session.is_atomic = info.config.allow_atomic;
        Ok(())
    }

    /// Takes the connection out of `self`, or opens one. [`settle`](Self::settle) puts it back.
    fn open(&mut self) -> Result<Session, SinkError> {
        let origin = self.origin()?.clone();
        if let Some(session) = self.session.take().filter(Session::is_usable) {
            return Ok(session);
        }
        let mut session = Session::connect(&self.target, &self.prefix, self.bounds)?;
        self.check(&mut session)?;
        let alive = self.prefix.alive(&origin);
        session.spawn(beat::publish(session.client.clone(), alive, self.content.subscribe()));
        Ok(session)
    }

    /// Changes the content of the heartbeats.
    fn update_beat(&self, change: impl FnOnce(&mut BeatContent)) {
        self.content.send_if_modified(|content| {
            let before = content.clone();
            change(content);
            *content != before
        });
    }

    /// Keeps a connection that is still usable. After any other failure, the next call opens a new one and
    /// checks the stream again.
    fn settle<T>(&mut self, session: Session, outcome: Result<T, SinkError>) -> Result<T, SinkError> {
        if matches!(
            outcome,
            Ok(_) | Err(SinkError::Refused { .. } | SinkError::Conflict { .. } | SinkError::Chain { .. })
        ) {
            self.session = Some(session);
        }
        outcome
    }
}

/// Creates a stream that does not exist yet.
async fn create(session: &Session, config: &serde_json::Value) -> Result<(), SinkError> {
    const DOING: &str = "make the stream";
    match session.info().await {
        Ok(_) => return Ok(()),
        Err(SinkError::Setup { .. }) => {}
        Err(error) => return Err(error),
    }
    let made: Result<serde::de::IgnoredAny, _> = session.ask(DOING, "STREAM.CREATE", config).await;
    made.map(drop).map_err(|failure| failure.into_sink(DOING))
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("target", &self.target)
            .field("origin", &self.origin)
            .field("is_connected", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl Sink for Nats {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        let mut session = self.open()?;
        let subjects = self.work.subjects(&self.prefix, self.origin()?, chain_ids.iter());
        let outcome = match self.check(&mut session) {
            Ok(()) => session.run(self.work.positions(&session, &subjects)).and_then(|outcome| outcome),
            Err(error) => Err(error),
        };
        self.settle(session, outcome).map(Some)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let session = self.open()?;
        let ids = batch.iter().map(|entry| &entry.chain_id);
        let subjects = self.work.subjects(&self.prefix, self.origin()?, ids);
        let outcome = session.run(self.work.offer(&session, &subjects, batch)).and_then(|outcome| outcome);
        // Otherwise a monitor would take a forwarder that is alive for one that stores records.
        let trouble = match &outcome {
            Err(error @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => Some(error.to_string()),
            _ => None,
        };
        self.update_beat(|content| content.trouble = trouble);
        self.settle(session, outcome)
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let session = self.open()?;
        let subject = self.prefix.subject(self.origin()?, &gap.chain_id);
        let outcome = session.run(self.work.gap(&session, &subject, gap)).and_then(|outcome| outcome);
        self.settle(session, outcome)
    }

    fn left_out(&mut self, chains: &BTreeMap<Arc<str>, String>) {
        let left_out = chains.iter().map(|(id, why)| (id.to_string(), why.clone())).collect();
        self.update_beat(|content| content.left_out = left_out);
    }

    fn healed(&mut self) {
        self.update_beat(|content| content.trouble = None);
    }

    fn close(&mut self) {
        self.session = None;
    }
}
