//! The settings of the store, and their checks.

use std::{fmt, time::Duration};

use super::{Nats, NatsFeed, config::NatsAllow, failure::setup, session::Bounds, url::Target, wire::Prefix};
use crate::{origin::Origin, sink::SinkError};

/// The settings of a [`Nats`] store, and of a [`NatsFeed`].
#[derive(Clone)]
#[must_use = "nothing happens until `build`"]
pub struct NatsBuilder {
    url: String,
    service: Option<String>,
    host: Option<String>,
    prefix: Option<String>,
    allow: Vec<NatsAllow>,
    bounds: Bounds,
}

impl fmt::Debug for NatsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may contain a password.
        f.debug_struct("NatsBuilder")
            .field("service", &self.service)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl NatsBuilder {
    pub(super) fn new(url: &str) -> Self {
        let ten = Duration::from_secs(10);
        Self {
            url: url.to_owned(),
            service: None,
            host: None,
            prefix: None,
            allow: Vec::new(),
            bounds: Bounds { connect: ten, answer: ten },
        }
    }

    /// Sets the service that writes the log, if the URL does not name it. Default: none; then nothing can be
    /// forwarded, only verified.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Sets the host that the service runs on, if the URL does not name it. Default: the name of this
    /// machine.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the first part of the subjects, if the URL does not: letters, digits, `-` and `_`, with dots
    /// between them, at most 100 bytes. Default: `audit`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Allows settings of the stream with which it can lose what it acknowledged, in addition to those that
    /// the URL allows. Default: none.
    pub fn allow(mut self, allow: impl IntoIterator<Item = NatsAllow>) -> Self {
        self.allow.extend(allow);
        self
    }

    /// Sets how long connecting to one server may take. Connecting as a whole takes at most this long
    /// for each server of the URL, plus 5 seconds. Default: 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.connect = timeout;
        self
    }

    /// Sets how long an answer of the server may take, including that to a whole batch. Default: 10 seconds.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.answer = timeout;
        self
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL, a name or the prefix cannot be used, or a timeout is 0.
    pub fn build(self) -> Result<Nats, SinkError> {
        let (service, host) = (self.service.clone(), self.host.clone());
        let (target, prefix, bounds, allow) = self.checked()?;
        let said = (target.service.as_deref(), target.host.as_deref());
        let origin = Origin::of(said, (service.as_deref(), host.as_deref()))?;
        Ok(Nats::with(target, prefix, bounds, allow, origin))
    }

    /// Creates a feed of the stream instead of a store in it, for a collector. Service and host are ignored.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_feed(self) -> Result<NatsFeed, SinkError> {
        let (target, prefix, bounds, _) = self.checked()?;
        Ok(NatsFeed::with(target, prefix, bounds))
    }

    fn checked(self) -> Result<(Target, Prefix, Bounds, Vec<NatsAllow>), SinkError> {
        let Bounds { connect, answer } = self.bounds;
        if connect.is_zero() || answer.is_zero() {
            return Err(setup("a timeout of 0 leaves no time for an answer".to_owned()));
        }
        let target: Target = self.url.parse()?;
        let prefix = target.prefix.as_deref().or(self.prefix.as_deref()).unwrap_or("audit");
        let prefix = Prefix::new(prefix)?;
        let allow = [target.allow.clone(), self.allow].concat();
        Ok((target, prefix, self.bounds, allow))
    }
}
