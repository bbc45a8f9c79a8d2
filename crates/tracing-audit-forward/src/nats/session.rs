//! One connection, with its own runtime.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind, ServerError};
use futures_util::future::{Either, select};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
    time,
};

use super::{
    config::StreamConfig,
    failure::{ApiError, Failure, of_connecting, setup, unavailable},
    tls,
    url::{Credentials, Target, Tls},
    wire::{Last, Prefix, Stored},
};
use crate::{on_runtime::block_on, sink::SinkError};

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For connecting to one server.
    pub(super) connect: Duration,
    /// For an answer.
    pub(super) answer: Duration,
}

/// A connection. Everything that it still had to send ends with it, so a batch with a doubtful answer is
/// never sent later.
///
/// Between calls the client reconnects by itself, so that heartbeats continue. The next call notices that,
/// and replaces the session, which checks the stream again.
#[derive(Debug)]
pub(super) struct Session {
    /// `None` only during drop.
    runtime: Option<Runtime>,
    pub(super) client: Client,
    link: watch::Receiver<Link>,
    api: String,
    stream: String,
    bounds: Bounds,
    batches: AtomicU64,
    /// The longest line that the stream accepts.
    pub(super) max_line: u64,
    /// Whether the stream accepts atomic batches.
    pub(super) is_atomic: bool,
}

/// What happened to a connection since it was opened.
#[derive(Debug, Default)]
struct Link {
    is_lost: bool,
    /// What the server denied.
    denied: Option<String>,
}

/// The state of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) created: String,
    pub(super) state: State,
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    pub(super) messages: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

/// The acknowledgement of a message or a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Ack {
    #[serde(default)]
    pub(super) stream: String,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
    #[serde(default)]
    pub(super) count: u64,
}

impl Session {
    pub(super) fn connect(target: &Target, prefix: &Prefix, bounds: Bounds) -> Result<Self, SinkError> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| setup(format!("cannot prepare to connect: {error}")))?;
        let (notes, link) = watch::channel(Link::default());
        match block_on(&runtime, connect(target, prefix, bounds, notes)) {
            Ok(client) => Ok(Self {
                runtime: Some(runtime),
                client,
                link,
                api: target.api.clone(),
                stream: target.stream.clone(),
                bounds,
                batches: AtomicU64::new(0),
                max_line: 0,
                is_atomic: false,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub(super) fn run<F>(&self, future: F) -> Result<F::Output, SinkError>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let runtime = self.runtime.as_ref().ok_or_else(|| setup("the connection has ended".to_owned()))?;
        Ok(block_on(runtime, future))
    }

    /// Runs a task beside all calls, until the session ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(task));
        }
    }

    /// Returns whether the connection was never interrupted, and the server has allowed everything so far.
    pub(super) fn is_usable(&self) -> bool {
        let link = self.link.borrow();
        !link.is_lost && link.denied.is_none()
    }

    /// Returns how long an answer may take.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.bounds.answer
    }

    pub(super) fn max_payload(&self) -> u64 {
        self.client.max_payload() as u64
    }

    /// Returns a unique name for a batch.
    pub(super) fn batch_id(&self) -> String {
        // Relaxed: the number only has to be unique.
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        let inbox = self.client.new_inbox();
        format!("{}-{number}", inbox.rsplit('.').next().unwrap_or_default())
    }

    /// Waits for a call up to its timeout, and only while the connection holds.
    async fn bounded<T>(
        &self,
        doing: &str,
        wait: Duration,
        call: impl Future<Output = T>,
    ) -> Result<T, SinkError> {
        let done = self.within(doing, wait, call).await?;
        done.ok_or_else(|| unavailable(format!("cannot {doing}: no answer within {} s", wait.as_secs_f32())))
    }

    /// Waits for something optional: `None` after the timeout.
    pub(super) async fn within<T>(
        &self,
        doing: &str,
        wait: Duration,
        call: impl Future<Output = T>,
    ) -> Result<Option<T>, SinkError> {
        let mut link = self.link.clone();
        let trouble = pin!(async move {
            let trouble = link.wait_for(|link| link.is_lost || link.denied.is_some()).await;
            match trouble.ok().and_then(|link| link.denied.clone()) {
                Some(denied) => setup(format!("cannot {doing}: the server says {denied}")),
                None => unavailable(format!("cannot {doing}: the connection was lost")),
            }
        });
        let call = pin!(time::timeout(wait, call));
        match select(call, trouble).await {
            Either::Left((done, _)) => Ok(done.ok()),
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Publishes messages that the answer to a later one covers.
    pub(super) async fn publish(&self, messages: Vec<(String, HeaderMap, Vec<u8>)>) -> Result<(), SinkError> {
        const DOING: &str = "publish records";
        let published = async {
            for (subject, headers, payload) in messages {
                self.client.publish_with_headers(subject, headers, payload.into()).await?;
            }
            Ok::<_, async_nats::PublishError>(())
        };
        let published = self.bounded(DOING, self.bounds.answer, published).await?;
        published.map_err(|error| unavailable(format!("cannot {DOING}: {error}")))
    }

    /// Publishes a message, and waits until the stream has it.
    pub(super) async fn acknowledged(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<Ack, Failure> {
        const DOING: &str = "publish records";
        let request = Request::new().headers(headers).payload(payload.into());
        let ack: Ack = read(DOING, &self.request(DOING, subject, request).await?)?;
        // The acknowledgement of another stream says nothing about this one.
        if ack.stream != self.stream {
            return Err(Failure::Sink(setup(format!(
                "the stream {} took the records, and not {}: both capture the subject",
                ack.stream, self.stream
            ))));
        }
        Ok(ack)
    }

    /// Sends a request about the stream to the JetStream API.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        doing: &str,
        what: &str,
        body: &serde_json::Value,
    ) -> Result<T, Failure> {
        let subject = format!("{}.{what}.{}", self.api, self.stream);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::new().payload(body.into());
        read(doing, &self.request(doing, subject, request).await?)
    }

    async fn request(&self, doing: &str, subject: String, request: Request) -> Result<Message, Failure> {
        // `bounded` has the timeout.
        let call = self.client.send_request(subject, request.timeout(None));
        match self.bounded(doing, self.bounds.answer, call).await? {
            Ok(message) => Ok(message),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Failure::Nobody,
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Failure::Sink(SinkError::Refused { reason: format!("cannot {doing}: {error}") })
                }
                _ => Failure::Sink(unavailable(format!("cannot {doing}: {error}"))),
            }),
        }
    }

    /// Returns the state of the stream.
    pub(super) async fn info(&self) -> Result<StreamInfo, SinkError> {
        let doing = format!("check the stream {}", self.stream);
        if !self.client.server_info().jetstream {
            return Err(setup(format!("cannot {doing}: the server has no JetStream")));
        }
        let info = self.ask(&doing, "STREAM.INFO", &serde_json::Value::Null).await;
        info.map_err(|failure| failure.into_sink(&doing))
    }

    /// Returns the last message of a subject from the leader, because a replica may be behind.
    /// [`SinkError::Chain`] if no forwarder would publish it.
    pub(super) async fn last(&self, subject: &str) -> Result<Last, SinkError> {
        let stored = self.get(&serde_json::json!({ "last_by_subj": subject })).await?;
        let Some(stored) = stored else { return Ok(Last::default()) };
        stored.read().ok_or_else(|| {
            let reason = format!(
                "the last message of {subject} in the stream {} (number {}) is neither a record nor a gap: somebody else \
                 published it. Look at it with `nats stream get`, and verify the stream",
                self.stream, stored.seq
            );
            SinkError::Chain { index: 0, reason }
        })
    }

    /// Returns the first message of a subject at or after a place.
    pub(super) async fn next(&self, subject: &str, place: u64) -> Result<Option<Last>, SinkError> {
        let stored = self.get(&serde_json::json!({ "seq": place, "next_by_subj": subject })).await?;
        Ok(stored.map(|stored| stored.read().unwrap_or(Last { place: stored.seq, ..Last::default() })))
    }

    async fn get(&self, what: &serde_json::Value) -> Result<Option<Stored>, SinkError> {
        #[derive(Deserialize)]
        struct Got {
            message: Stored,
        }
        const DOING: &str = "ask the stream for the last record of a chain";
        match self.ask::<Got>(DOING, "STREAM.MSG.GET", what).await {
            Ok(got) => Ok(Some(got.message)),
            Err(Failure::Answer(answer)) if answer.is_no_message() => Ok(None),
            Err(failure) => Err(failure.into_sink(DOING)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A plain drop would wait for a pending name lookup, and would panic on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Parses a result, or the error in its place.
fn read<T: DeserializeOwned>(doing: &str, message: &Message) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Refused {
        error: ApiError,
    }
    if let Ok(refused) = serde_json::from_slice::<Refused>(&message.payload) {
        return Err(Failure::Answer(refused.error));
    }
    serde_json::from_slice(&message.payload)
        .map_err(|_| unavailable(format!("cannot {doing}: the answer of the server cannot be read")).into())
}

async fn connect(
    target: &Target,
    prefix: &Prefix,
    bounds: Bounds,
    notes: watch::Sender<Link>,
) -> Result<Client, SinkError> {
    let (notes, prefix) = (Arc::new(notes), prefix.clone());
    let options = ConnectOptions::new()
        .name("tracing-audit")
        .connection_timeout(bounds.connect)
        // Before the credentials: a server without TLS must not get them.
        .require_tls(target.tls != Tls::AsTheServer)
        // They may be elsewhere, and are not what was allowed.
        .ignore_discovered_servers()
        .event_callback(move |event| {
            note(&notes, &prefix, &event);
            std::future::ready(())
        });
    let options = if target.tls == Tls::First { options.tls_first() } else { options };
    let options = match &target.inbox {
        Some(inbox) => options.custom_inbox_prefix(inbox),
        None => options,
    };
    let options = match target.credentials() {
        Credentials::None => options,
        Credentials::Password(user, password) => options.user_and_password(user, password),
        Credentials::Token(token) => options.token(token),
        Credentials::File(path) => {
            let unreadable = format!("cannot use the credentials in {}", path.display());
            options.credentials_file(path).await.map_err(|error| setup(format!("{unreadable}: {error}")))?
        }
    };
    let options = tls::prepare(options, target)?;
    let servers = target.shown();
    // A name may have several addresses, and each of them gets this time.
    let all = bounds.connect * u32::try_from(target.servers.len()).unwrap_or(1) + Duration::from_secs(5);
    match time::timeout(all, options.connect(target.servers.clone())).await {
        Ok(connected) => connected.map_err(|error| of_connecting(&servers, &error)),
        Err(_) => Err(unavailable(format!("cannot connect to NATS at {servers}: no answer"))),
    }
}

/// Records an event that a pending call must know of.
fn note(notes: &watch::Sender<Link>, prefix: &Prefix, event: &Event) {
    match event {
        // Also if the client reconnects at once: what was published before may be lost.
        Event::Disconnected | Event::Closed => notes.send_modify(|link| link.is_lost = true),
        // A heartbeat that is not permitted must not stop records.
        Event::ServerError(ServerError::Other(text))
            if text.to_lowercase().starts_with("permissions violation") && !prefix.is_alive(text) =>
        {
            notes.send_modify(|link| link.denied = Some(text.clone()));
        }
        _ => {}
    }
}
