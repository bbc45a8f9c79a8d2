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
    beat::Said,
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

/// Keeps records in a stream of NATS JetStream, one message for each, under a subject for each chain.
///
/// The subject is `<prefix>.<service>.<host>.<chain id>`, and the message is the line of the record, byte for byte. A batch
/// is published as one atomic batch where the stream allows that (server 2.12 and later), else one message after the other
/// in each chain. Every message says after which one of its subject it belongs, so that two senders never mix, and what was
/// published twice is stored once, however late. After a doubtful answer the leader of the stream is asked for the last
/// message of the subject.
///
/// A stream that may lose what it acknowledged is refused, unless that is [allowed](NatsBuilder::allow). What an
/// acknowledgement is worth depends on the server too: see docs/forwarding/nats.md, which has permissions and settings as well.
///
/// Each call connects where there is no connection, and waits no longer than its timeouts. Beside the calls a sign of life is
/// published every 15 seconds, and at once when it changes.
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
    said: watch::Sender<Said>,
}

impl Nats {
    /// A store in the stream that this URL names, with default settings. Nothing is connected yet.
    ///
    /// The URL is `nats://user:password@host:port/STREAM?parameter=value`, or `tls://…`. To every host but this machine
    /// the connection must be encrypted, unless the URL says `tls=off`. Credentials that the URL does not have stand in
    /// `NATS_CREDS`, `NATS_USER` and `NATS_PASSWORD`, or `NATS_TOKEN`. docs/forwarding/nats.md has all parameters.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] where the URL cannot be used.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        Self::builder(url).build()
    }

    /// A store with other settings.
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
        let said = watch::Sender::new(Said::default());
        Self { target, prefix, bounds, allow, origin, work: Work::default(), session: None, said }
    }

    /// Makes the stream, with so many replicas: storage in files, no limits, no deletes, atomic batches where the server has
    /// them. Where it is there already, only its configuration is checked. The user has to be allowed to create streams; the
    /// one that forwards need not be.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    pub fn create_stream(&mut self, replicas: u8) -> Result<(), SinkError> {
        let mut session = Session::connect(&self.target, &self.prefix, self.bounds)?;
        let has_batches = session.client.is_server_compatible(2, 12, 0);
        let config = config::right(&self.target.stream, &self.prefix, replicas, has_batches);
        session.run(create(&session, &config))??;
        self.check(&mut session)
    }

    /// Checks the whole copy: recomputes every chain from the lines in the stream.
    ///
    /// Finds messages that were altered, deleted or inserted. It reads everything under the prefix up to the message that was
    /// the last one when it began. [`CopyChecker`] says what cannot be found.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]: it could not be checked. What is wrong with the copy stands
    /// in the report.
    pub fn verify(&mut self) -> Result<CopyReport, SinkError> {
        self.verify_with(CopyChecker::new())
    }

    /// The same, with a checker that knows already of rejected records, or where forwarding began.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_with(&mut self, checker: CopyChecker) -> Result<CopyReport, SinkError> {
        verify::verify(&self.target, &self.prefix, self.bounds, checker)
    }

    fn origin(&self) -> Result<&Origin, SinkError> {
        let missing = "whose log is forwarded is not known: name the service in the URL, as in \
                       nats://host:port/STREAM?service=NAME";
        self.origin.as_ref().ok_or_else(|| setup(missing.to_owned()))
    }

    /// Looks whether the stream is one that keeps what it takes.
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

    /// Takes the connection out, or makes one. It is put back by [`settle`](Self::settle).
    fn open(&mut self) -> Result<Session, SinkError> {
        let origin = self.origin()?.clone();
        if let Some(session) = self.session.take().filter(Session::is_usable) {
            return Ok(session);
        }
        let mut session = Session::connect(&self.target, &self.prefix, self.bounds)?;
        self.check(&mut session)?;
        let alive = self.prefix.alive(&origin);
        session.spawn(beat::give(session.client.clone(), alive, self.said.subscribe()));
        Ok(session)
    }

    /// Changes what the signs of life say.
    fn say(&self, change: impl FnOnce(&mut Said)) {
        self.said.send_if_modified(|said| {
            let before = said.clone();
            change(said);
            *said != before
        });
    }

    /// Keeps a connection that can be used on. After any other failure the next call makes a new one, and looks at the
    /// stream again.
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

/// Makes a stream that is not there yet.
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
        // Who watches must not take a forwarder that lives for one that stores.
        let trouble = match &outcome {
            Err(error @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => Some(error.to_string()),
            _ => None,
        };
        self.say(|said| said.trouble = trouble);
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
        self.say(|said| said.left_out = left_out);
    }

    fn healed(&mut self) {
        self.say(|said| said.trouble = None);
    }

    fn close(&mut self) {
        self.session = None;
    }
}
