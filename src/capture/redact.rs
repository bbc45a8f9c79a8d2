//! Which values are never written.

use std::fmt;

/// What a name contains whose value is withheld before a user names more, folded.
const BUILT_IN: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "jwt",
    "bearer",
    "authorization",
    "apikey",
    "privatekey",
    "cookie",
    "credential",
];

/// Names whose values are withheld. Compares letters and digits only, without case, anywhere in the
/// name: `user_password`, `X-Api-Key` and `set-cookie` are withheld, and so are dotted names.
#[derive(Clone)]
pub(crate) struct Redaction {
    folded: Vec<Box<[u8]>>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { folded: BUILT_IN.iter().map(|name| name.as_bytes().into()).collect() }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("names", &self.folded.len()).finish_non_exhaustive()
    }
}

impl Redaction {
    /// Adds a name; says whether it can be matched at all (it has a letter or digit).
    pub(crate) fn insert(&mut self, name: &str) -> bool {
        let folded = fold(name);
        let usable = !folded.is_empty();
        if usable {
            self.folded.push(folded.into());
        }
        usable
    }

    /// Called once for each field of a callsite, not for each event.
    pub(super) fn covers(&self, name: &str) -> bool {
        let folded = fold(name);
        self.folded.iter().any(|secret| folded.windows(secret.len()).any(|part| part == &**secret))
    }
}

/// Letters and digits only, ASCII letters in lower case; letters beyond ASCII stand as they are.
fn fold(name: &str) -> Vec<u8> {
    name.bytes()
        .filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
        .map(|byte| byte.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_hide_a_secret() {
        let mut redaction = Redaction::default();
        for secret in [
            "password",
            "user_password",
            "UserPassword",
            "x-api-key",
            "api.key",
            "http.request.header.authorization",
            "set-cookie",
            "client_secret",
            "access_token",
            "credentials",
            "private_key",
        ] {
            assert!(redaction.covers(secret), "{secret}");
        }
        for plain in ["action", "actor", "session_id", "request_id", "path", "bytes", "", "…"] {
            assert!(!redaction.covers(plain), "{plain}");
        }
        assert!(!redaction.insert("--"));
        assert!(redaction.insert("Session-ID"));
        assert!(redaction.covers("session_id"));
    }
}
