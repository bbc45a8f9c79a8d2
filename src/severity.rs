//! Which events are critical.

use crate::named::named;

/// How important it is that an event is on disk.
///
/// In [`FlushMode::Hybrid`](crate::FlushMode::Hybrid), a critical event is durable when the macro
/// returns; a routine one is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Written within 10 ms, synced with the next batch.
    Routine,
    /// Synced before the macro returns, in the default flush mode.
    Critical,
}

impl Severity {
    /// Parses the severity that an event gives: one of [`SPELLINGS`], in any case. The flag is whether the text is
    /// also the name of the severity in the log.
    pub(crate) fn understand(text: &str) -> Option<(Self, bool)> {
        // A text recorded with `Debug` is in quotes.
        let word = text.trim();
        let word = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')).unwrap_or(word).trim();
        let is_said = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
        let (severity, _) = SPELLINGS.into_iter().find(|(_, words)| is_said(words))?;
        Some((severity, word.eq_ignore_ascii_case(severity.as_str())))
    }
}

named!(Severity, "severity", [
    Routine => "routine",
    Critical => "critical",
]);

/// The words for each severity: those of syslog (RFC 5424), of OCSF and of common loggers. docs/events.md has the same
/// table. Words that call for action now are critical; a warning is not.
const SPELLINGS: [(Severity, &[&str]); 2] = [
    (
        Severity::Critical,
        &[
            "critical",
            "crit",
            "fatal",
            "emergency",
            "emerg",
            "panic",
            "alert",
            "severe",
            "high",
            "error",
            "err",
        ],
    ),
    (
        Severity::Routine,
        &[
            "routine",
            "info",
            "information",
            "informational",
            "low",
            "notice",
            "normal",
            "medium",
            "moderate",
            "warning",
            "warn",
            "debug",
            "trace",
        ],
    ),
];

/// The built-in critical actions, to which a user can add.
const BUILT_IN: [&str; 10] = [
    "AuthFailure",
    "TokenRevoked",
    "PolicyViolation",
    "SealVerificationFailed",
    "PathTraversalAttempt",
    "InvalidTokenUsed",
    "SuspiciousActivity",
    "IntegrityViolation",
    "MalformedModelRejected",
    "ResourceLimitViolation",
];

/// The longest action that can be in the set, in bytes after folding.
const MAX_FOLDED: usize = 128;

/// A set of actions that compares only letters and digits, ignoring case: `AuthFailure`,
/// `auth.failure` and `auth_failure` are the same.
#[derive(Debug, Clone)]
pub(crate) struct CriticalActions {
    /// The folded actions of each length, starting at 0. Looked up for every event, so it is a scan of
    /// the few actions of one length rather than a hash.
    by_length: Vec<Vec<Box<[u8]>>>,
}

impl Default for CriticalActions {
    fn default() -> Self {
        let mut actions = Self { by_length: Vec::new() };
        for action in BUILT_IN {
            actions.insert(action);
        }
        actions
    }
}

impl CriticalActions {
    /// Adds an action. Returns whether it can be matched at all: it must have 1 to 128 letters and
    /// digits.
    pub(crate) fn insert(&mut self, action: &str) -> bool {
        let folded: Vec<u8> = fold(action).collect();
        let usable = !folded.is_empty() && folded.len() <= MAX_FOLDED;
        if usable && !self.contains(action) {
            let length = folded.len();
            self.by_length.resize(self.by_length.len().max(length + 1), Vec::new());
            self.by_length.get_mut(length).into_iter().for_each(|same| same.push(folded.clone().into()));
        }
        usable
    }

    pub(crate) fn contains(&self, action: &str) -> bool {
        // Called for every event, so the folded name stays on the stack.
        let mut folded = [0; MAX_FOLDED];
        let mut length = 0;
        for byte in fold(action) {
            let Some(slot) = folded.get_mut(length) else { return false };
            *slot = byte;
            length += 1;
        }
        let same_length = self.by_length.get(length).map_or(&[][..], Vec::as_slice);
        folded.get(..length).is_some_and(|folded| same_length.iter().any(|known| **known == *folded))
    }
}

/// Returns the letters and digits of an action, ASCII letters in lower case. Bytes beyond ASCII are kept unchanged.
fn fold(action: &str) -> impl Iterator<Item = u8> {
    action
        .bytes()
        .filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
        .map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_hide_a_critical_action() {
        let mut actions = CriticalActions::default();
        for spelling in ["AuthFailure", "auth.failure", "auth_failure", "AUTH-FAILURE", "auth::failure"] {
            assert!(actions.contains(spelling), "{spelling}");
        }
        for routine in ["auth.success", "auth", "", "…", "authfailures"] {
            assert!(!actions.contains(routine), "{routine}");
        }
        assert!(!actions.insert("--"));
        assert!(actions.insert("key.export"));
        assert!(actions.contains("KeyExport"));
        assert!(!actions.contains(&"a".repeat(1000)));
    }

    #[test]
    fn a_severity_has_more_than_one_name_and_each_name_means_one() {
        for (severity, words) in SPELLINGS {
            assert_eq!(words.first(), Some(&severity.as_str()));
            for word in words {
                for said in
                    [(*word).to_owned(), word.to_uppercase(), format!(" {word}\n"), format!("{word:?}")]
                {
                    let expected = Some((severity, *word == severity.as_str()));
                    assert_eq!(Severity::understand(&said), expected, "{said:?}");
                }
            }
        }
        for nothing in
            ["", " ", "\"", "\"\"", "purple", "critically", "crit.", "1", "Some(\"critical\")", "crıtical"]
        {
            assert_eq!(Severity::understand(nothing), None, "{nothing:?}");
        }
        // In the log itself, each severity has one name.
        assert!("crit".parse::<Severity>().is_err() && "CRITICAL".parse::<Severity>().is_err());
    }

    #[test]
    fn all_ten_built_in_actions_are_critical() {
        let actions = CriticalActions::default();
        assert_eq!(actions.by_length.iter().map(Vec::len).sum::<usize>(), 10);
        assert!(BUILT_IN.iter().all(|action| actions.contains(action)));
    }
}
