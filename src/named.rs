//! Enums whose values have stable names in the log, in reports, in configuration and in metrics.

/// Generates `ALL`, `as_str`, `Display` and `FromStr` of an enum from one table, in the order of declaration.
macro_rules! named {
    ($type:ident, $what:literal, [$($value:ident => $name:literal),+ $(,)?]) => {
        impl $type {
            /// Every value, in the order of declaration. A later version may add some.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Returns the stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // `pad` rather than `write_str`, so that a width and an alignment apply.
                f.pad(self.as_str())
            }
        }

        #[cfg(feature = "serde")]
        $crate::serialize::as_text!($type, $what);

        /// Parses the stable name, and nothing else.
        impl std::str::FromStr for $type {
            type Err = $crate::error::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|value| value.as_str() == text);
                found.copied().ok_or_else(|| {
                    $crate::error::ParseError::new($what, text, concat!("one of" $(, " `", $name, "`")+))
                })
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use std::{fmt::Display, str::FromStr};

    use crate::{
        ChainState, FindingKind, Health, LossReason, MetricKind, NotCheckedKind, NoteKind, NoticeKind,
        OnFailure, OnFull, RecordKind, Severity, Verdict, error::ParseError,
    };

    #[track_caller]
    fn check<T>(all: &[T])
    where
        T: FromStr<Err = ParseError> + Display + PartialEq + std::fmt::Debug,
    {
        for value in all {
            let name = value.to_string();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(&name.parse::<T>().unwrap(), value);
            let shouted = name.to_uppercase().parse::<T>().unwrap_err().to_string();
            assert!(shouted.contains(&format!("`{name}`")), "{shouted}");
        }
        let names: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn each_name_is_read_back_and_nothing_else_is() {
        check(Verdict::ALL);
        check(Health::ALL);
        check(Severity::ALL);
        check(LossReason::ALL);
        check(NoticeKind::ALL);
        check(FindingKind::ALL);
        check(NoteKind::ALL);
        check(RecordKind::ALL);
        check(OnFull::ALL);
        check(OnFailure::ALL);
        check(MetricKind::ALL);
        check(ChainState::ALL);
        check(NotCheckedKind::ALL);
    }

    /// Arrays indexed by discriminant depend on it.
    #[test]
    fn the_index_of_every_value_is_its_discriminant() {
        assert!(FindingKind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(NoticeKind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(LossReason::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(Severity::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }
}
