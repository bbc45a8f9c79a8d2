//! The settings of the store, and their checks.

use std::{fmt, time::Duration};

use super::{
    Postgres,
    names::Names,
    session::{Bounds, setup},
};
use crate::sink::SinkError;

/// The settings of a [`Postgres`] store.
#[derive(Clone)]
#[must_use = "nothing happens until `build`"]
pub struct PostgresBuilder {
    url: String,
    schema: Option<String>,
    prefix: String,
    bounds: Bounds,
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may contain a password.
        f.debug_struct("PostgresBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl PostgresBuilder {
    pub(super) fn new(url: &str) -> Self {
        let (connect, statement) = (Duration::from_secs(10), Duration::from_secs(30));
        Self {
            url: url.to_owned(),
            schema: None,
            prefix: "audit".to_owned(),
            bounds: Bounds { connect, statement, accept_any_certificate: false },
        }
    }

    /// Sets the schema that has the tables. Default: the first of the role's `search_path` that has them.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the first part of the names of the tables. The names are quoted, so any text can be used.
    /// Default: `audit`, for `audit_records`, `audit_gaps` and the view `audit_events`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long connecting to one host may take. Connecting as a whole, with encryption and
    /// authentication, takes at most this long for each host of the URL, plus 5 seconds. Default: 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.connect = timeout;
        self
    }

    /// Sets how long the server may take for one statement. If there is no answer 5 seconds after that, the
    /// connection is closed. A commit that waits for a standby is then aborted too, and offered again.
    /// Default: 30 seconds.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.statement = timeout;
        self
    }

    /// Accepts any certificate of the server. **Anybody on the path can then read and change everything,
    /// including the password.** For tests only. To trust a self-signed certificate, use `sslrootcert` in the
    /// URL.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.bounds.accept_any_certificate = true;
        self
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL or a name cannot be used, or a timeout is 0.
    pub fn build(self) -> Result<Postgres, SinkError> {
        let Bounds { connect, statement, .. } = self.bounds;
        if connect.is_zero() || statement.is_zero() {
            return Err(setup("a timeout of 0 leaves no time for an answer".to_owned()));
        }
        let names = Names::new(self.schema.as_deref(), &self.prefix)?;
        Postgres::with(self.url.parse()?, names, self.bounds)
    }
}
