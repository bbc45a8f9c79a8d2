//! Settings as data, as people write them in TOML and the like. Feature `serde`.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tracing_core::Level;

use crate::{
    builder::Builder,
    error::{Error, ParseError},
    log::AuditLog,
    serialize::TextVisitor,
    settings::{FlushMode, OnFailure, OnFull, Period, Retention, Rotation},
    units::{DurationText, SizeText, parse_duration, parse_size},
};

/// Every setting of a [`Builder`] that is no closure, as data. Needs the feature `serde`.
///
/// It names no file and no format: read it with the crate that a service reads its other settings with, as a part of
/// them. Keys have the names of the builder's methods. A key that is left out has the builder's default; one that is not
/// known is an error that names it. Values out of range are errors of [`open`](Self::open).
///
/// ```toml
/// dir = "/var/lib/payments/audit-log"    # the only one that must be there
/// service = "payments"
/// flush_mode = "hybrid"                  # or "immediate", "batched", or a table:
/// # flush_mode = { mode = "hybrid", batch_size = 50, batch_interval = "500ms", critical_immediate = true }
/// # flush_mode = { mode = "batched", size = 50, interval = "500ms" }
/// rotation = "daily 256MiB"              # or "never", "hourly", "daily", "256MiB", or a table:
/// # rotation = { every = "day", max_bytes = "256MiB" }
/// retention = { max_age = "400d", max_bytes = "10GiB", max_segments = 1000, min_age = "90d" }  # or "keep_all"
/// exclusive = false
/// wait_for_chain = "250ms"
/// level = "info"
/// critical_actions = ["key.export"]
/// inherit = ["tenant"]
/// redact = ["iban"]
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
/// Durations are numbers with a unit, `ns`, `us`, `ms`, `s`, `m`, `h` or `d`, as in `1s` or `1h30m`. Sizes are bytes, or
/// a number with `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` or `TiB`. Neither is ever rounded. What is left out of a
/// table for `flush_mode` has the default of [`FlushMode`]. Serialised, each setting is the text that it prints, and what
/// is not set is left out.
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
    /// The directory of the log. `open` refuses an empty path, which is what `default()` has.
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
    /// See [`Builder::critical_actions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical_actions: Vec<String>,
    /// See [`Builder::inherit`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<String>,
    /// See [`Builder::redact`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
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

/// What is set.
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
            ("critical_actions", listed(&self.critical_actions)),
            ("inherit", listed(&self.inherit)),
            ("redact", listed(&self.redact)),
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
    /// A log in a directory, with the default of every setting.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), ..Self::default() }
    }

    /// A builder with these settings, to which closures can be added.
    pub fn builder(self) -> Builder {
        /// Applies what is set.
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
            critical_actions,
            inherit,
            redact,
            queue_bytes,
            wait_bound,
            low_space,
            group_readable,
            allow_network_fs,
            stderr,
            on_full,
            on_failure,
        } = self;
        let builder = Builder::new(&dir).critical_actions(critical_actions).inherit(inherit).redact(redact);
        let builder = set(builder, service, Builder::service);
        let builder = set(builder, flush_mode, Builder::flush_mode);
        let builder = set(builder, rotation, Builder::rotation);
        let builder = set(builder, retention, Builder::retention);
        let builder = set(builder, exclusive, Builder::exclusive);
        let builder = set(builder, wait_for_chain, Builder::wait_for_chain);
        let builder = set(builder, level, Builder::level);
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
    /// Opens a log with settings that were read from somewhere. Needs the feature `serde`.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn from_config(config: Config) -> Result<Self, Error> {
        config.open()
    }
}

// ---- Durations, sizes and levels.

/// A type of another crate that has a written form here.
trait Written: Sized + Copy {
    const WHAT: &'static str;

    fn read(text: &str) -> Result<Self, ParseError>;

    fn text(self) -> String;
}

impl Written for Duration {
    const WHAT: &'static str = "duration such as \"1s\"";

    fn read(text: &str) -> Result<Self, ParseError> {
        parse_duration(text)
    }

    fn text(self) -> String {
        DurationText(self).to_string()
    }
}

impl Written for u64 {
    const WHAT: &'static str = "size such as \"256MiB\"";

    fn read(text: &str) -> Result<Self, ParseError> {
        parse_size(text)
    }

    fn text(self) -> String {
        SizeText(self).to_string()
    }
}

impl Written for Level {
    const WHAT: &'static str = "level such as \"info\"";

    fn read(text: &str) -> Result<Self, ParseError> {
        let expected = "`error`, `warn`, `info`, `debug` or `trace`";
        text.parse().map_err(|_| ParseError::new("level", text, expected))
    }

    fn text(self) -> String {
        self.to_string().to_lowercase()
    }
}

/// Such a type, with the traits that serde needs.
struct AsWritten<T>(T);

impl<T: Written> FromStr for AsWritten<T> {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        T::read(text).map(Self)
    }
}

impl<'de, T: Written> Deserialize<'de> for AsWritten<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Any, because a size may be a number.
        deserializer.deserialize_any(TextVisitor::new(T::WHAT))
    }
}

/// For fields of serde's `with`.
mod as_written {
    use super::{AsWritten, Deserialize, Deserializer, Serializer, Written};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<T: Written, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&value.text()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: Written, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let value: Option<AsWritten<T>> = Deserialize::deserialize(deserializer)?;
        Ok(value.map(|AsWritten(value)| value))
    }
}

// ---- Settings that are a text or a table.

/// A setting that is a text, or a table whose keys serde knows and refuses.
trait Tabled: FromStr<Err = ParseError> + fmt::Display {
    const WHAT: &'static str;
    type Table: for<'de> Deserialize<'de>;

    fn of(table: Self::Table) -> Result<Self, String>;
}

struct TabledVisitor<T>(PhantomData<T>);

impl<'de, T: Tabled> Visitor<'de> for TabledVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}, as text or as a table", T::WHAT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        TextVisitor::new(T::WHAT).visit_str(text)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        TextVisitor::new(T::WHAT).visit_i64(number)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        TextVisitor::new(T::WHAT).visit_u64(number)
    }

    fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<T, A::Error> {
        let table = T::Table::deserialize(MapAccessDeserializer::new(keys))?;
        T::of(table).map_err(A::Error::custom)
    }
}

macro_rules! tabled {
    ($($type:ident),+) => {
        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_any(TabledVisitor(PhantomData))
                }
            }
        )+
    };
}

tabled!(FlushMode, Rotation, Retention);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Immediate,
    Batched,
    Hybrid,
}

/// The keys of every mode in one table, and not a table for each: so no value is buffered in between, and what the
/// environment says as text still becomes a number or a truth value where the reader knows how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushModeTable {
    mode: Mode,
    size: Option<u32>,
    #[serde(default, with = "as_written")]
    interval: Option<Duration>,
    batch_size: Option<u32>,
    #[serde(default, with = "as_written")]
    batch_interval: Option<Duration>,
    critical_immediate: Option<bool>,
}

impl Tabled for FlushMode {
    const WHAT: &'static str = "flush mode";
    type Table = FlushModeTable;

    fn of(table: FlushModeTable) -> Result<Self, String> {
        let FlushModeTable { mode, size, interval, batch_size, batch_interval, critical_immediate } = table;
        let of_batched = [("size", size.is_some()), ("interval", interval.is_some())];
        let of_hybrid = [
            ("batch_size", batch_size.is_some()),
            ("batch_interval", batch_interval.is_some()),
            ("critical_immediate", critical_immediate.is_some()),
        ];
        let none_of = |mode: &str, keys: &[(&str, bool)]| match keys.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(format!("`{key}` is no key of `flush_mode` where its mode is `{mode}`")),
            None => Ok(()),
        };
        match mode {
            Mode::Immediate => {
                none_of("immediate", &of_batched)?;
                none_of("immediate", &of_hybrid)?;
                Ok(Self::Immediate)
            }
            Mode::Batched => {
                none_of("batched", &of_hybrid)?;
                Ok(Self::Batched {
                    size: size.unwrap_or(Self::DEFAULT_SIZE),
                    interval: interval.unwrap_or(Self::DEFAULT_INTERVAL),
                })
            }
            Mode::Hybrid => {
                none_of("hybrid", &of_batched)?;
                Ok(Self::Hybrid {
                    batch_size: batch_size.unwrap_or(Self::DEFAULT_SIZE),
                    batch_interval: batch_interval.unwrap_or(Self::DEFAULT_INTERVAL),
                    critical_immediate: critical_immediate.unwrap_or(true),
                })
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Every {
    Hour,
    Day,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationTable {
    every: Option<Every>,
    #[serde(default, with = "as_written")]
    max_bytes: Option<u64>,
}

impl Tabled for Rotation {
    const WHAT: &'static str = "rotation";
    type Table = RotationTable;

    fn of(table: RotationTable) -> Result<Self, String> {
        let RotationTable { every, max_bytes } = table;
        if every.is_none() && max_bytes.is_none() {
            return Err("a `rotation` needs `every` or `max_bytes`; for none, say \"never\"".to_owned());
        }
        let period = every.map(|every| match every {
            Every::Hour => Period::Hour,
            Every::Day => Period::Day,
        });
        Ok(Self { period, max_bytes: max_bytes.unwrap_or(u64::MAX) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionTable {
    #[serde(default, with = "as_written")]
    max_age: Option<Duration>,
    #[serde(default, with = "as_written")]
    max_bytes: Option<u64>,
    max_segments: Option<u32>,
    #[serde(default, with = "as_written")]
    min_age: Option<Duration>,
}

impl Tabled for Retention {
    const WHAT: &'static str = "retention";
    type Table = RetentionTable;

    fn of(table: RetentionTable) -> Result<Self, String> {
        let RetentionTable { max_age, max_bytes, max_segments, min_age } = table;
        Ok(Self { max_age, max_bytes, max_segments, min_age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another value than the default in each setting.
    const EVERYTHING: &str = r#"
        dir = "some/where"
        service = "payments"
        flush_mode = { mode = "hybrid", batch_size = 50, batch_interval = "500ms", critical_immediate = false }
        rotation = { every = "hour", max_bytes = "64MiB" }
        retention = { max_age = "400d", max_bytes = "10GiB", max_segments = 1000, min_age = "90d" }
        exclusive = true
        wait_for_chain = "1s"
        level = "debug"
        critical_actions = ["key.export"]
        inherit = ["tenant"]
        redact = ["iban"]
        queue_bytes = "32MiB"
        wait_bound = "1m30s"
        low_space = 1000000
        group_readable = true
        allow_network_fs = true
        stderr = false
        on_full = "drop_routine"
        on_failure = "abort"
    "#;

    fn read(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[track_caller]
    fn value_of(setting: &str) -> Config {
        read(&format!("dir = 'x'\n{setting}")).unwrap()
    }

    /// The message without the excerpt of the text.
    #[track_caller]
    fn refusal(setting: &str) -> String {
        read(&format!("dir = 'x'\n{setting}")).unwrap_err().message().to_owned()
    }

    #[test]
    fn every_setting_is_read_and_reaches_the_builder() {
        let config = read(EVERYTHING).unwrap();
        let day = Duration::from_secs(86_400);
        let expected = Config {
            dir: "some/where".into(),
            service: Some("payments".to_owned()),
            flush_mode: Some(FlushMode::Hybrid {
                batch_size: 50,
                batch_interval: Duration::from_millis(500),
                critical_immediate: false,
            }),
            rotation: Some(Rotation::hourly().max_bytes(64 << 20)),
            retention: Some(
                Retention::keep_all()
                    .max_age(400 * day)
                    .max_bytes(10 << 30)
                    .max_segments(1000)
                    .min_age(90 * day),
            ),
            exclusive: Some(true),
            wait_for_chain: Some(Duration::from_secs(1)),
            level: Some(Level::DEBUG),
            critical_actions: vec!["key.export".to_owned()],
            inherit: vec!["tenant".to_owned()],
            redact: vec!["iban".to_owned()],
            queue_bytes: Some(32 << 20),
            wait_bound: Some(Duration::from_secs(90)),
            low_space: Some(1_000_000),
            group_readable: Some(true),
            allow_network_fs: Some(true),
            stderr: Some(false),
            on_full: Some(OnFull::DropRoutine),
            on_failure: Some(OnFailure::Abort),
        };
        assert_eq!(config, expected);
        let by_hand = AuditLog::builder("some/where")
            .service("payments")
            .flush_mode(expected.flush_mode.unwrap())
            .rotation(expected.rotation.unwrap())
            .retention(expected.retention.unwrap())
            .exclusive(true)
            .wait_for_chain(Duration::from_secs(1))
            .level(Level::DEBUG)
            .critical_actions(["key.export"])
            .inherit(["tenant"])
            .redact(["iban"])
            .queue_bytes(32 << 20)
            .wait_bound(Duration::from_secs(90))
            .low_space(1_000_000)
            .group_readable(true)
            .allow_network_fs(true)
            .stderr(false)
            .on_full(OnFull::DropRoutine)
            .on_failure(OnFailure::Abort);
        assert_eq!(config.builder().everything(), by_hand.everything());
    }

    #[test]
    fn what_is_left_out_has_the_default_of_the_builder() {
        let config = read("dir = 'x'").unwrap();
        assert_eq!(config, Config::new("x"));
        assert_eq!(format!("{config:?}"), "Config { dir: \"x\" }");
        assert_eq!(config.builder().everything(), AuditLog::builder("x").everything());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "dir = 'x'",
            EVERYTHING,
            "dir = 'x'\nrotation = '256MiB'\nretention = 'keep_all'\nflush_mode = 'batched'",
        ] {
            let config = read(text).unwrap();
            let written = toml::to_string(&config).unwrap();
            assert_eq!(read(&written).unwrap(), config, "{written}");
        }
        assert_eq!(toml::to_string(&Config::new("x")).unwrap(), "dir = \"x\"\n");
    }

    #[test]
    fn only_what_is_set_is_shown() {
        let shown = format!("{:?}", read(EVERYTHING).unwrap());
        for line in EVERYTHING.lines().filter_map(|line| line.split_once(" = ")) {
            assert!(shown.contains(&format!("{}: ", line.0.trim())), "{shown} {line:?}");
        }
    }

    #[test]
    fn a_setting_is_a_text_or_a_table() {
        let flush_mode = |text: &str| value_of(&format!("flush_mode = {text}")).flush_mode.unwrap();
        assert_eq!(flush_mode("'immediate'"), FlushMode::Immediate);
        assert_eq!(flush_mode("{ mode = 'immediate' }"), FlushMode::Immediate);
        assert_eq!(flush_mode("'hybrid'"), FlushMode::default());
        assert_eq!(flush_mode("{ mode = 'hybrid' }"), FlushMode::default());
        assert_eq!(flush_mode("'batched 100 1s'"), flush_mode("{ mode = 'batched' }"));
        assert_eq!(
            flush_mode("{ interval = '2s', size = 7, mode = 'batched' }"),
            FlushMode::Batched { size: 7, interval: Duration::from_secs(2) }
        );
        let rotation = |text: &str| value_of(&format!("rotation = {text}")).rotation.unwrap();
        assert_eq!(rotation("'daily 256MiB'"), Rotation::default());
        assert_eq!(rotation("{ every = 'day', max_bytes = 268435456 }"), Rotation::default());
        assert_eq!(rotation("{ every = 'hour' }"), Rotation::hourly());
        assert_eq!(rotation("1_000_000"), Rotation::never().max_bytes(1_000_000));
        let retention = |text: &str| value_of(&format!("retention = {text}")).retention.unwrap();
        assert_eq!(retention("'keep_all'"), Retention::keep_all());
        assert_eq!(retention("{}"), Retention::keep_all());
        assert_eq!(retention("'max_segments 3'"), retention("{ max_segments = 3 }"));
        assert_eq!(value_of("level = 'WARN'").level, Some(Level::WARN));
    }

    /// A misspelt key would be a setting that is silently not applied.
    #[test]
    fn an_unknown_key_is_named() {
        for (setting, key) in [
            ("flushmode = 'hybrid'", "flushmode"),
            ("flush_mode = { mode = 'hybrid', size_of_batch = 5 }", "size_of_batch"),
            ("flush_mode = { mode = 'hybrid', size = 5 }", "size"),
            ("flush_mode = { mode = 'hybrid', interval = '5s' }", "interval"),
            ("flush_mode = { mode = 'batched', batch_size = 5 }", "batch_size"),
            ("flush_mode = { mode = 'batched', batch_interval = '5s' }", "batch_interval"),
            ("flush_mode = { mode = 'batched', critical_immediate = true }", "critical_immediate"),
            ("flush_mode = { mode = 'immediate', size = 5 }", "size"),
            ("flush_mode = { mode = 'immediate', critical_immediate = true }", "critical_immediate"),
            ("rotation = { every = 'day', bytes = 5 }", "bytes"),
            ("retention = { age = '5d' }", "age"),
        ] {
            let refusal = refusal(setting);
            assert!(refusal.contains(&format!("`{key}`")), "{setting}: {refusal}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_says_what_was_expected() {
        for (setting, expected) in [
            ("wait_bound = 5", "cannot read \"5\" as a duration"),
            ("wait_bound = '5 seconds'", "`1h30m`"),
            ("wait_bound = true", "a duration such as \"1s\""),
            ("queue_bytes = '5 megs'", "`256MiB`"),
            ("queue_bytes = -5", "cannot read \"-5\" as a size"),
            ("low_space = 0.5", "a size such as"),
            ("level = 'loud'", "`trace`"),
            ("flush_mode = 'hybrit'", "`hybrid`"),
            ("flush_mode = 5", "`hybrid`"),
            ("flush_mode = ['hybrid']", "as text or as a table"),
            ("flush_mode = { mode = 'hybrit' }", "`hybrid`"),
            ("flush_mode = { size = 5 }", "`mode`"),
            ("rotation = 'weekly'", "`daily`"),
            ("rotation = {}", "`every`"),
            ("rotation = { every = 'week' }", "`day`"),
            ("retention = '90d'", "`keep_all`"),
            ("on_full = 'drop'", "`drop_routine`"),
            ("on_failure = 'panic'", "`abort`"),
            ("exclusive = 'perhaps'", "boolean"),
        ] {
            let refusal = refusal(setting);
            assert!(refusal.contains(expected), "{setting}: {refusal}");
        }
        assert!(read("service = 'x'").unwrap_err().message().contains("`dir`"));
    }

    /// The text in the documentation of `Config` has every key, with the default as its value but for the lists.
    #[test]
    fn the_documented_settings_are_those_that_there_are() {
        let source = include_str!("config.rs");
        let block = source.split("/// ```toml\n").nth(1).unwrap().split("/// ```").next().unwrap();
        let text: String =
            block.lines().map(|line| line.trim_start_matches("///").to_owned() + "\n").collect();
        let config = read(&text).unwrap();
        let written = toml::to_string(&config).unwrap();
        let all = toml::to_string(&read(EVERYTHING).unwrap()).unwrap();
        let keys = |text: &str| {
            text.lines().map(|line| line.split(" = ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&written), keys(&all));
        let settled = Config {
            dir: "x".into(),
            service: None,
            retention: None,
            critical_actions: Vec::new(),
            inherit: Vec::new(),
            redact: Vec::new(),
            ..config
        };
        assert_eq!(settled.builder().everything(), AuditLog::builder("x").everything());
        // The alternatives that stand there as comments can be read too.
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("# ")) {
            value_of(line);
        }
    }
}
