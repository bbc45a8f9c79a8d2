//! The written form of settings: text, and for some also a table.

use std::{fmt, marker::PhantomData, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tracing_core::Level;

use crate::{
    error::ParseError,
    serialize::TextVisitor,
    settings::{FlushMode, Period, Retention, Rotation},
    units::{DurationText, SizeText, parse_duration, parse_size},
};

// ---- Durations, sizes and levels.

/// A type of another crate that has a written form in settings.
pub(super) trait Written: Sized + Copy {
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

/// A wrapper that gives such a type the traits that serde needs.
struct AsWritten<T>(T);

impl<T: Written> FromStr for AsWritten<T> {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        T::read(text).map(Self)
    }
}

impl<'de, T: Written> Deserialize<'de> for AsWritten<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `deserialize_str`, because a size may be a number.
        deserializer.deserialize_any(TextVisitor::new(T::WHAT))
    }
}

/// Functions for serde's `with`, for fields that may be absent.
pub(super) mod as_written {
    use super::{AsWritten, Deserialize, Deserializer, Serializer, Written};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(in crate::config) fn serialize<T: Written, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&value.text()),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::config) fn deserialize<'de, T: Written, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let value: Option<AsWritten<T>> = Deserialize::deserialize(deserializer)?;
        Ok(value.map(|AsWritten(value)| value))
    }
}

// ---- Settings that are a text or a table.

/// A setting that is a text or a table. Serde refuses unknown keys of the table.
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

/// The keys of every mode, in one table rather than a tagged enum.
///
/// Serde buffers the values of a tagged enum, and a buffered value keeps its type. A text from the environment could then
/// not become a number or a boolean, as some readers of settings allow.
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
            Some((key, _)) => Err(format!("`{key}` is not a key of `flush_mode` in mode `{mode}`")),
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
            return Err(
                "a `rotation` needs `every` or `max_bytes`; for no rotation, use \"never\"".to_owned()
            );
        }
        let period = every.map(|every| match every {
            Every::Hour => Period::Hour,
            Every::Day => Period::Day,
        });
        Ok(Self { period, max_bytes: max_bytes.unwrap_or(Self::DEFAULT_MAX_BYTES) })
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
    #[serde(default)]
    require_forwarded: Vec<String>,
    #[serde(default, with = "as_written")]
    unless_free_below: Option<u64>,
}

impl Tabled for Retention {
    const WHAT: &'static str = "retention";
    type Table = RetentionTable;

    fn of(table: RetentionTable) -> Result<Self, String> {
        let RetentionTable {
            max_age,
            max_bytes,
            max_segments,
            min_age,
            require_forwarded,
            unless_free_below,
        } = table;
        Ok(Self { max_age, max_bytes, max_segments, min_age, require_forwarded, unless_free_below })
    }
}
