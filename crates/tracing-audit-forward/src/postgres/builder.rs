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
#[must_use = "nothing happens before `build`"]
pub struct PostgresBuilder {
    url: String,
    schema: Option<String>,
    prefix: String,
    bounds: Bounds,
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL, which may hold a password.
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

    /// The schema in which the tables are. Default: the first of the role's `search_path` that has them.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// How the names of the tables begin. Default: `audit`, for `audit_records`, `audit_gaps` and the view `audit_events`.
    /// The names are quoted, so any text will do.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long connecting to one host may take. Default: 10 seconds. All of it together, with encryption and
    /// authentication, takes at most so long for each host, and 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.connect = timeout;
        self
    }

    /// How long the server may take for one statement. Default: 30 seconds. Where there is no answer 5 seconds after that, the
    /// connection is cut. A commit that waits for a standby is cut then too, and offered again.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.statement = timeout;
        self
    }

    /// Accepts whatever certificate the server shows. **Anybody in between can then read and change everything,
    /// the password too.** For tests only; a server with a certificate of its own is trusted with `sslrootcert` in the URL.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.bounds.accept_any_certificate = true;
        self
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] where the URL or a name cannot be used, or a timeout is 0.
    pub fn build(self) -> Result<Postgres, SinkError> {
        let Bounds { connect, statement, .. } = self.bounds;
        if connect.is_zero() || statement.is_zero() {
            return Err(setup("a timeout of 0 leaves no time for an answer".to_owned()));
        }
        let names = Names::new(self.schema.as_deref(), &self.prefix)?;
        Postgres::with(self.url.parse()?, names, self.bounds)
    }
}
