//! Reads a stream from a place on.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;

use super::{
    beat::{BeatContent, MAX_CHAINS, MAX_LEN},
    failure::{setup, unavailable},
    session::{Bounds, Session},
    url::Target,
    wire::{Prefix, gap_of},
};
use crate::{
    collect::{Beat, Delivered, Feed, StreamState, What},
    origin::Origin,
    sink::{Gap, SinkError},
};

/// The most bytes of messages that a server may send ahead.
const MAX_BYTES: u64 = 8 << 20;

/// How long a consumer may be idle before the server drops it.
const FORGET_NANOS: u64 = 120_000_000_000;

/// The longest duration of one request.
const MAX_WAIT_NANOS: u64 = 60_000_000_000;

/// Maximum number of heartbeats that one call of [`Feed::beats`] looks at.
const MAX_BEATS: usize = 10_000;

/// The records of a fleet in a NATS JetStream stream, in the order in which they were stored.
///
/// It creates a consumer without acknowledgements, which the server drops two minutes after its last use, and
/// changes nothing in the stream. Deleted messages are not delivered. Messages that no forwarder writes are
/// strangers. The stream is identified by its name and creation time.
///
/// The user needs to publish to `$JS.API.STREAM.INFO.<stream>`, `$JS.API.CONSUMER.CREATE.<stream>` and
/// `$JS.API.CONSUMER.MSG.NEXT.<stream>.>`, and to subscribe to `_INBOX.>` and, for heartbeats, to
/// `<prefix>-alive.>`.
pub struct NatsFeed {
    reader: Reader,
    /// The number of messages after the last one delivered, or at the creation of the consumer.
    left: u64,
}

impl NatsFeed {
    /// Creates a feed of the stream in this URL, as for [`Nats::new`](super::Nats::new). Nothing is connected
    /// yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL cannot be used.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        super::Nats::builder(url).build_feed()
    }

    pub(super) fn with(target: Target, prefix: Prefix, bounds: Bounds) -> Self {
        Self { reader: Reader::new(target, prefix, bounds, false), left: 1 }
    }
}

impl fmt::Debug for NatsFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsFeed").field("target", &self.reader.target).finish_non_exhaustive()
    }
}

impl Feed for NatsFeed {
    fn state(&mut self) -> Result<StreamState, SinkError> {
        self.reader.state()
    }

    fn start(&mut self, place: u64) -> Result<(), SinkError> {
        self.left = self.reader.start(place)?;
        Ok(())
    }

    fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<Delivered>, SinkError> {
        let until = Instant::now() + wait;
        loop {
            let mut delivered = Vec::new();
            for ParsedMessage { place, what, left } in
                self.reader.next(limit, until.saturating_duration_since(Instant::now()))?
            {
                let what = match what {
                    Read::Line { origin, chain_id, line } => What::Line { origin, chain_id, line },
                    Read::Gap { origin, gap } => What::Gap { origin, gap },
                    Read::Stranger { .. } => What::Stranger,
                };
                self.left = left;
                delivered.push(Delivered::new(place, what));
            }
            if !delivered.is_empty() || Instant::now() >= until {
                return Ok(delivered);
            }
        }
    }

    /// Asks the consumer itself: a replica may get later what the leader of the stream has.
    fn is_at_end(&self) -> bool {
        self.left == 0
    }

    fn beats(&mut self) -> Vec<Beat> {
        self.reader.beats()
    }
}

/// A delivered message, parsed.
pub(super) struct ParsedMessage {
    pub(super) place: u64,
    /// The number of messages that the server has after it.
    pub(super) left: u64,
    pub(super) what: Read,
}

/// The content of a message.
pub(super) enum Read {
    Line { origin: Origin, chain_id: Arc<str>, line: Vec<u8> },
    Gap { origin: Origin, gap: Gap },
    Stranger { subject: String, payload: Vec<u8> },
}

/// Reads the messages of a stream.
pub(super) struct Reader {
    target: Target,
    prefix: Prefix,
    bounds: Bounds,
    /// Whether messages outside the prefix are ignored.
    is_filtered: bool,
    session: Option<Session>,
    consumer: Option<Consumer>,
    beats: Option<Subscriber>,
}

/// A consumer of this reader.
struct Consumer {
    name: String,
    inbox: String,
    messages: Subscriber,
    /// The number of messages delivered so far.
    delivered: u64,
    /// The number of the last request. Its answers arrive at the inbox with this number appended.
    requests: u64,
    /// How many messages the current request may still deliver; 0 without a request.
    wanted: usize,
    /// How many it has delivered.
    brought: usize,
    /// When an answer to it is overdue.
    overdue: Instant,
    /// The server said that there is nothing more.
    is_at_end: bool,
    /// The next message is larger than the number of bytes requested at once.
    is_large: bool,
}

/// The result of waiting for a message.
enum Received {
    Message(ParsedMessage),
    /// The request ended without a message: there is none.
    Nothing,
    /// A request ended, and another may deliver more.
    End,
}

impl Reader {
    pub(super) fn new(target: Target, prefix: Prefix, bounds: Bounds, is_filtered: bool) -> Self {
        Self { target, prefix, bounds, is_filtered, session: None, consumer: None, beats: None }
    }

    fn open(&mut self) -> Result<&Session, SinkError> {
        if !self.session.as_ref().is_some_and(Session::is_usable) {
            // All of them belong to the connection that was lost.
            (self.consumer, self.beats, self.session) = (None, None, None);
            let session = Session::connect(&self.target, &self.prefix, self.bounds)?;
            if !self.is_filtered {
                let subject = self.prefix.all_alive();
                self.beats = session.run(session.client.subscribe(subject))?.ok();
            }
            self.session = Some(session);
        }
        self.session.as_ref().ok_or_else(|| unavailable("there is no connection".to_owned()))
    }

    pub(super) fn state(&mut self) -> Result<StreamState, SinkError> {
        let name = self.target.stream.clone();
        let session = self.open()?;
        let info = session.run(session.info())?;
        if info.is_err() {
            self.session = None;
        }
        let info = info?;
        let first = if info.state.messages == 0 { info.state.last_seq + 1 } else { info.state.first_seq };
        Ok(StreamState::new(format!("{name} {}", info.created), first, info.state.last_seq))
    }

    /// Starts at a place. Returns how many messages there are from there on.
    pub(super) fn start(&mut self, place: u64) -> Result<u64, SinkError> {
        self.consumer = None;
        let (stream, filter) = (self.target.stream.clone(), self.is_filtered.then(|| self.prefix.all()));
        let session = self.open()?;
        let begun = session.run(begin(session, &stream, filter, place))?;
        match begun {
            Ok((consumer, left)) => {
                self.consumer = Some(consumer);
                Ok(left)
            }
            Err(error) => {
                self.session = None;
                Err(error)
            }
        }
    }

    /// Returns whether the server said in the last call that there is nothing more.
    pub(super) fn is_at_end(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| consumer.is_at_end)
    }

    /// Returns the next messages; none if none arrived in time.
    pub(super) fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<ParsedMessage>, SinkError> {
        let not_begun = || unavailable("reading the stream has to begin again".to_owned());
        let session = self.session.as_ref().filter(|session| session.is_usable()).ok_or_else(not_begun)?;
        let mut consumer = self.consumer.take().ok_or_else(not_begun)?;
        let (target, prefix) = (&self.target, &self.prefix);
        let read = session.run(async {
            let read = consumer.next(session, target, prefix, limit.max(1), wait).await;
            (consumer, read)
        });
        match read? {
            (consumer, Ok(messages)) => {
                self.consumer = Some(consumer);
                Ok(messages)
            }
            (_, Err(error)) => {
                self.session = None;
                Err(error)
            }
        }
    }

    /// Returns the newest heartbeat of each log among those that are waiting, looking at a bounded number.
    /// Messages that are not heartbeats are skipped.
    fn beats(&mut self) -> Vec<Beat> {
        let mut beats = BTreeMap::new();
        let Some(subscription) = &mut self.beats else { return Vec::new() };
        for _ in 0..MAX_BEATS {
            let Some(Some(message)) = subscription.next().now_or_never() else { break };
            if message.payload.len() > MAX_LEN {
                continue;
            }
            let origin = self.prefix.parse_alive(&message.subject);
            let content = serde_json::from_slice::<BeatContent>(&message.payload).ok();
            if let Some((origin, content)) = origin.zip(content)
                && content.left_out.len() <= MAX_CHAINS
            {
                let left_out = content.left_out.into_iter().map(|(id, why)| (id.into(), why)).collect();
                let mut beat = Beat::new(origin, left_out);
                beat.trouble = content.trouble;
                beats.insert(beat.origin.clone(), beat);
            }
        }
        beats.into_values().collect()
    }
}

async fn begin(
    session: &Session,
    stream: &str,
    filter: Option<String>,
    place: u64,
) -> Result<(Consumer, u64), SinkError> {
    #[derive(Deserialize)]
    struct Made {
        name: String,
        num_pending: u64,
    }
    const DOING: &str = "begin to read the stream";
    let mut config = json!({
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": place.max(1),
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": FORGET_NANOS,
    });
    if let (Some(filter), Some(members)) = (filter, config.as_object_mut()) {
        members.insert("filter_subject".to_owned(), filter.into());
    }
    let body = json!({ "stream_name": stream, "config": config });
    let made: Made =
        session.ask(DOING, "CONSUMER.CREATE", &body).await.map_err(|failure| failure.into_sink(DOING))?;
    let inbox = session.client.new_inbox();
    // One subscription for all requests: answers to an earlier one are recognised by their subjects.
    let messages = session.client.subscribe(format!("{inbox}.*")).await;
    let messages = messages.map_err(|error| unavailable(format!("cannot {DOING}: {error}")))?;
    let consumer = Consumer {
        name: made.name,
        inbox,
        messages,
        delivered: 0,
        requests: 0,
        wanted: 0,
        brought: 0,
        overdue: Instant::now(),
        is_at_end: false,
        is_large: false,
    };
    Ok((consumer, made.num_pending))
}

const READING: &str = "read the stream";

impl Consumer {
    async fn next(
        &mut self,
        session: &Session,
        target: &Target,
        prefix: &Prefix,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<ParsedMessage>, SinkError> {
        let mut messages = Vec::new();
        let until = Instant::now() + wait;
        self.is_at_end = false;
        while messages.is_empty() && !self.is_at_end {
            if self.wanted == 0 {
                self.request(session, target, limit, wait).await?;
            }
            let now = Instant::now();
            if now > self.overdue {
                return Err(unavailable(format!("cannot {READING}: no answer in time; it is read again")));
            }
            let answer_timeout = until.min(self.overdue).saturating_duration_since(now);
            match session.within(READING, answer_timeout, self.messages.next()).await? {
                // A request may continue, and be answered in the next call.
                None if Instant::now() >= until => return Ok(messages),
                None => {}
                Some(came) => match self.judge(came, prefix)? {
                    Received::Message(message) => messages.push(message),
                    Received::Nothing => self.is_at_end = true,
                    Received::End => {}
                },
            }
        }
        while messages.len() < limit && self.wanted > 0 {
            let Some(came) = self.messages.next().now_or_never() else { break };
            if let Received::Message(message) = self.judge(came, prefix)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    async fn request(
        &mut self,
        session: &Session,
        target: &Target,
        limit: usize,
        wait: Duration,
    ) -> Result<(), SinkError> {
        let subject = format!("{}.CONSUMER.MSG.NEXT.{}.{}", target.api, target.stream, self.name);
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).clamp(1_000_000, MAX_WAIT_NANOS);
        let body = if self.is_large {
            self.wanted = 1;
            json!({ "batch": 1, "expires": wait })
        } else {
            self.wanted = limit;
            json!({ "batch": limit, "max_bytes": MAX_BYTES, "expires": wait })
        };
        (self.is_large, self.brought) = (false, 0);
        self.requests += 1;
        // The server answers when the request expires.
        self.overdue = Instant::now() + Duration::from_nanos(wait) + session.answer_timeout();
        let inbox = format!("{}.{}", self.inbox, self.requests);
        let sent = session.client.publish_with_reply(subject, inbox, body.to_string().into());
        sent.await.map_err(|error| unavailable(format!("cannot {READING}: {error}")))
    }

    /// Interprets a message of the server.
    fn judge(&mut self, came: Option<Message>, prefix: &Prefix) -> Result<Received, SinkError> {
        let lost = |why: &str| unavailable(format!("cannot {READING}: {why}; it is read again"));
        let message = came.ok_or_else(|| lost("the connection was lost"))?;
        if let Some(status) = message.status {
            // It belongs to an earlier request, which has delivered all that it could.
            if !message.subject.ends_with(&format!(".{}", self.requests)) {
                return Ok(Received::End);
            }
            self.wanted = 0;
            let content = message.description.as_deref().unwrap_or_default().to_lowercase();
            return match status {
                StatusCode::NOT_FOUND | StatusCode::TIMEOUT if self.brought == 0 => Ok(Received::Nothing),
                StatusCode::NOT_FOUND | StatusCode::TIMEOUT => Ok(Received::End),
                StatusCode::NO_RESPONDERS => Err(lost("the server has forgotten the consumer")),
                _ if content == "batch completed" => Ok(Received::End),
                _ if content.contains("maxbytes") => {
                    // Nothing was delivered because the first message alone exceeds the limit, so the
                    // next request has none.
                    self.is_large = self.brought == 0;
                    Ok(Received::End)
                }
                _ => Err(lost(&format!("the server says {content:?}"))),
            };
        }
        // `$JS.ACK.<stream>.<consumer>.<deliveries>.<place>.<number>.<time>.<left>`. With a domain and an
        // account there are two more tokens in front, and one at the end.
        let reply = message.reply.as_deref().unwrap_or_default();
        let tokens: Vec<&str> = reply.split('.').collect();
        let at = if tokens.len() > 9 { 7 } else { 5 };
        let number = |index: usize| tokens.get(index).and_then(|token| token.parse::<u64>().ok());
        let (Some(place), Some(count), Some(left)) = (number(at), number(at + 1), number(at + 3)) else {
            return Err(setup(format!(
                "cannot {READING}: the server numbers messages in a way that is not known"
            )));
        };
        // Without acknowledgements the server does not deliver again, so a lost message has to be
        // noticed here.
        if count != self.delivered + 1 {
            return Err(lost("a message was lost on its way"));
        }
        self.delivered = count;
        self.wanted = self.wanted.saturating_sub(1);
        self.brought += 1;
        Ok(Received::Message(ParsedMessage { place, left, what: what(&message, prefix) }))
    }
}

fn what(message: &Message, prefix: &Prefix) -> Read {
    if let Some((origin, chain_id)) = prefix.parse(&message.subject) {
        if !message.payload.is_empty() {
            return Read::Line { origin, chain_id, line: message.payload.to_vec() };
        }
        let get = |name: &str| message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str);
        if let Some(gap) = gap_of(&chain_id, get) {
            return Read::Gap { origin, gap };
        }
    }
    Read::Stranger { subject: message.subject.to_string(), payload: message.payload.to_vec() }
}
