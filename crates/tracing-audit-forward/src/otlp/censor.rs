//! The text of a receiver, as far as it may appear in an error.

use tracing_audit::Value;

use crate::Entry;

/// Maximum number of characters of a receiver's text that are shown.
const MAX_CHARS: usize = 200;

/// A longer text is not shown at all, because searching only a part of it for secrets would not be safe.
const MAX_SEARCHED_BYTES: usize = 64 * 1024;

/// A secret or a value with fewer bytes is not searched for: it would be found in any text.
const MIN_SOUGHT: usize = 4;

/// The members of a record with values of the application, as opposed to those of the log itself.
const RECORDED: &[&str] = &[
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "trace_id",
    "span_id",
    "message",
    "fields",
];

/// Removes from texts what must not be shown.
#[derive(Default)]
pub(super) struct Censor {
    secrets: Vec<String>,
}

impl Censor {
    /// Creates a filter for these secrets: credentials, and parts of the URL.
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> =
            secrets.into_iter().filter(|secret| secret.len() >= MIN_SOUGHT).collect();
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// Returns the text of a receiver about these records, on one line, without secrets and without the
    /// values of the records. `None` if nothing is left.
    ///
    /// A receiver may quote a value that it refuses. A value that it quotes in part, or writes differently,
    /// is not found.
    pub(super) fn show(&self, text: &str, batch: &[Entry]) -> Option<String> {
        if text.len() > MAX_SEARCHED_BYTES {
            return None;
        }
        let mut shown = text.to_owned();
        for secret in &self.secrets {
            shown = shown.replace(secret, "…");
        }
        for entry in batch {
            for name in RECORDED {
                if let Some(value) = entry.record.get(name) {
                    take_out(&mut shown, value);
                }
            }
        }
        let line: Vec<&str> = shown.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line = line.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let shown: String = match line.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => line.chars().take(MAX_CHARS).chain((end < line.len()).then_some('…')).collect(),
            None => line,
        };
        (!shown.is_empty()).then_some(shown)
    }
}

/// Removes a value, and the values in it, from a text.
fn take_out(shown: &mut String, value: &Value) {
    match value {
        Value::Text(text) if text.len() >= MIN_SOUGHT && shown.contains(text.as_str()) => {
            *shown = shown.replace(text.as_str(), "…");
        }
        Value::List(values) => values.iter().for_each(|value| take_out(shown, value)),
        Value::Object(members) => members.values().for_each(|value| take_out(shown, value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_removed_and_a_short_one_is_not_searched_for() {
        let censor = Censor::new(["hunter2".to_owned(), "Bearer hunter2".to_owned(), "1".to_owned()]);
        assert_eq!(censor.show("401: Bearer hunter2, or hunter2", &[]).unwrap(), "401: …, or …");
    }

    #[test]
    fn a_text_is_one_line_of_at_most_200_characters() {
        let censor = Censor::default();
        assert_eq!(censor.show(" a\n\tb \u{1b}[31m c ", &[]).unwrap(), "a b [31m c");
        assert_eq!(censor.show("\r\n", &[]), None);
        assert_eq!(censor.show(&"ä".repeat(200), &[]).unwrap(), "ä".repeat(200));
        assert_eq!(censor.show(&"ä".repeat(201), &[]).unwrap(), "ä".repeat(200) + "…");
        assert_eq!(censor.show(&"a".repeat(MAX_SEARCHED_BYTES + 1), &[]), None);
    }
}
