//! Settings as data, for TOML and similar formats. Feature `serde`.

mod written;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing_core::Level;

use self::written::as_written;
use crate::{
    builder::Builder,
    error::Error,
    log::AuditLog,
    settings::{FlushMode, OnFailure, OnFull, Retention, Rotation},
};

/// Every setting of a [`Builder`] except its closures, as data. Needs the feature `serde`.
///
/// It is tied to no file and no format: make it part of the settings of your service, and read it with the same crate.
/// Keys have the names of the builder's methods. A key that is left out has the builder's default. Values out of range
/// are errors of [`open`](Self::open).
///
/// ```toml
/// dir = "/var/lib/payments/audit-log"    # the only required key
/// service = "payments"
/// flush_mode = "hybrid"                  # or "immediate", "batched", or a table:
/// # flush_mode = { mode = "hybrid", batch_size = 50, batch_interval = "500ms", critical_immediate = true }
/// # flush_mode = { mode = "batched", size = 50, interval = "500ms" }
/// rotation = "daily 256MiB"              # or "never", "hourly", "daily", "256MiB", or a table:
/// # rotation = { every = "day", max_bytes = "256MiB" }
/// retention = { max_age = "400d", max_bytes = "10GiB", max_segments = 1000, min_age = "90d" }  # or "keep_all"
/// # retention = { max_age = "400d", require_forwarded = ["postgres"], unless_free_below = "1GiB" }
/// exclusive = false
/// wait_for_chain = "250ms"
/// level = "info"
/// span_level = "debug"
/// critical_actions = ["key.export"]
/// inherit = ["tenant"]
/// inherit_from = ["payments"]
/// explicit = ["actor"]
/// redact = ["iban"]
/// keep = ["token_count"]
/// queue_bytes = "16MiB"
/// wait_bound = "5s"
/// low_space = "64MiB"
/// group_readable = false
/// allow_network_fs = false
/// stderr = true
/// on_full = "block"                      # or "drop_routine"
/// on_failure = "continue"                # or "abort"
/// ```
///
/// Durations are numbers with a unit, `ns`, `us`, `ms`, `s`, `m`, `h` or `d`, as in `1s` or `1h30m`. Sizes are numbers
/// of bytes, or numbers with `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`. Neither is ever rounded. A key left
/// out of a table for `flush_mode` has the default of [`FlushMode`]. Each setting serialises as its printed text, and
/// settings that are not set are left out.
///
/// An unknown key is an error that names it. Under `#[serde(flatten)]` it is not detected, because serde does not tell a
/// struct which keys are its own; use a table there.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut config: tracing_audit::Config = toml::from_str("dir = 'audit-log'\nwait_bound = '2s'")?;
/// # config.dir = dir.path().join("log");
/// let audit = config.builder().on_notice(|notice| eprintln!("{notice}")).open()?;
/// # audit.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the log. `default()` leaves it empty, which `open` refuses.
    pub dir: PathBuf,
    /// See [`Builder::service`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// See [`Builder::flush_mode`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_mode: Option<FlushMode>,
    /// See [`Builder::rotation`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// See [`Builder::retention`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// See [`Builder::exclusive`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// See [`Builder::wait_for_chain`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub wait_for_chain: Option<Duration>,
    /// See [`Builder::level`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// See [`Builder::span_level`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub span_level: Option<Level>,
    /// See [`Builder::critical_actions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical_actions: Vec<String>,
    /// See [`Builder::inherit`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<String>,
    /// See [`Builder::inherit_from`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit_from: Vec<String>,
    /// See [`Builder::explicit`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explicit: Vec<String>,
    /// See [`Builder::redact`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// See [`Builder::keep`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// See [`Builder::queue_bytes`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// See [`Builder::wait_bound`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub wait_bound: Option<Duration>,
    /// See [`Builder::low_space`].
    #[serde(default, with = "as_written", skip_serializing_if = "Option::is_none")]
    pub low_space: Option<u64>,
    /// See [`Builder::group_readable`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_readable: Option<bool>,
    /// See [`Builder::allow_network_fs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_network_fs: Option<bool>,
    /// See [`Builder::stderr`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<bool>,
    /// See [`Builder::on_full`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_full: Option<OnFull>,
    /// See [`Builder::on_failure`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// Shows only what is set.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn set<T: fmt::Debug>(value: Option<&T>) -> Option<&dyn fmt::Debug> {
            value.map(|value| value as &dyn fmt::Debug)
        }
        fn listed(names: &Vec<String>) -> Option<&dyn fmt::Debug> {
            set(Some(names).filter(|names| !names.is_empty()))
        }
        let mut shown = f.debug_struct("Config");
        shown.field("dir", &self.dir);
        for (name, value) in [
            ("service", set(self.service.as_ref())),
            ("flush_mode", set(self.flush_mode.as_ref())),
            ("rotation", set(self.rotation.as_ref())),
            ("retention", set(self.retention.as_ref())),
            ("exclusive", set(self.exclusive.as_ref())),
            ("wait_for_chain", set(self.wait_for_chain.as_ref())),
            ("level", set(self.level.as_ref())),
            ("span_level", set(self.span_level.as_ref())),
            ("critical_actions", listed(&self.critical_actions)),
            ("inherit", listed(&self.inherit)),
            ("inherit_from", listed(&self.inherit_from)),
            ("explicit", listed(&self.explicit)),
            ("redact", listed(&self.redact)),
            ("keep", listed(&self.keep)),
            ("queue_bytes", set(self.queue_bytes.as_ref())),
            ("wait_bound", set(self.wait_bound.as_ref())),
            ("low_space", set(self.low_space.as_ref())),
            ("group_readable", set(self.group_readable.as_ref())),
            ("allow_network_fs", set(self.allow_network_fs.as_ref())),
            ("stderr", set(self.stderr.as_ref())),
            ("on_full", set(self.on_full.as_ref())),
            ("on_failure", set(self.on_failure.as_ref())),
        ] {
            if let Some(value) = value {
                shown.field(name, value);
            }
        }
        shown.finish()
    }
}

impl Config {
    /// Returns the settings of a log in a directory, with the default of every other setting.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), ..Self::default() }
    }

    /// Returns a builder with these settings, to which closures can be added.
    pub fn builder(self) -> Builder {
        /// Applies a setting that is set.
        fn set<T>(builder: Builder, value: Option<T>, setter: impl FnOnce(Builder, T) -> Builder) -> Builder {
            match value {
                Some(value) => setter(builder, value),
                None => builder,
            }
        }
        // Without `..`, so that no setting is forgotten.
        let Self {
            dir,
            service,
            flush_mode,
            rotation,
            retention,
            exclusive,
            wait_for_chain,
            level,
            span_level,
            critical_actions,
            inherit,
            inherit_from,
            explicit,
            redact,
            keep,
            queue_bytes,
            wait_bound,
            low_space,
            group_readable,
            allow_network_fs,
            stderr,
            on_full,
            on_failure,
        } = self;
        let builder = Builder::new(&dir).critical_actions(critical_actions).redact(redact).keep(keep);
        let builder = builder.inherit(inherit).inherit_from(inherit_from).explicit(explicit);
        let builder = set(builder, service, Builder::service);
        let builder = set(builder, flush_mode, Builder::flush_mode);
        let builder = set(builder, rotation, Builder::rotation);
        let builder = set(builder, retention, Builder::retention);
        let builder = set(builder, exclusive, Builder::exclusive);
        let builder = set(builder, wait_for_chain, Builder::wait_for_chain);
        let builder = set(builder, level, Builder::level);
        let builder = set(builder, span_level, Builder::span_level);
        let builder = set(builder, queue_bytes, Builder::queue_bytes);
        let builder = set(builder, wait_bound, Builder::wait_bound);
        let builder = set(builder, low_space, Builder::low_space);
        let builder = set(builder, group_readable, Builder::group_readable);
        let builder = set(builder, allow_network_fs, Builder::allow_network_fs);
        let builder = set(builder, stderr, Builder::stderr);
        let builder = set(builder, on_full, Builder::on_full);
        set(builder, on_failure, Builder::on_failure)
    }

    /// Opens the log.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`]: [`Error::Setting`] for a value out of range.
    pub fn open(self) -> Result<AuditLog, Error> {
        self.builder().open()
    }
}

impl AuditLog {
    /// Opens a log with settings given as data. Needs the feature `serde`.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn from_config(config: Config) -> Result<Self, Error> {
        config.open()
    }
}
