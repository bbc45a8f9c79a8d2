//! Which values are never written.

use std::fmt;

/// Words, and words that stand together, that name a secret wherever they stand in a name. `token` is not `tokens`,
/// which are counted, and neither is the beginning of a longer word.
const ANYWHERE: [&str; 38] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passphrases",
    "passcode",
    "passcodes",
    "secret",
    "secrets",
    "token",
    "jwt",
    "jwts",
    "authorization",
    "apikey",
    "apikeys",
    "privatekey",
    "privatekeys",
    "secretkey",
    "accesskey",
    "accesskeys",
    "encryptionkey",
    "signingkey",
    "credential",
    "credentials",
    "clientsecret",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "apitoken",
    "bearertoken",
    "sessiontoken",
    "csrftoken",
    "xsrftoken",
    "setcookie",
    "sessioncookie",
    "authcookie",
    "totpseed",
];

/// Words that name a secret at the end of a name: `session_cookie` is one, `cookie_consent` is not.
const LAST: [&str; 3] = ["cookie", "cookies", "bearer"];

/// As [`LAST`], but only behind another word: `db_pwd` is a password, `pwd` is a directory.
const LAST_OF_SEVERAL: [&str; 2] = ["pwd", "pass"];

/// A word that ends so is a password, even where it is written together with the word before: `dbpassword`.
const ENDINGS: [&str; 3] = ["password", "passwd", "passphrase"];

/// What `#[instrument(ret)]` calls the value that a function returned. Only as a whole name.
const RETURNED: &str = "return";

/// Names whose values are withheld. Names are split into words at separators, at digits and at changes of case, and
/// compared word by word, without case.
#[derive(Clone, Default)]
pub(crate) struct Redaction {
    /// Names given by the application, folded.
    more: Vec<String>,
    /// Whole names that are recorded whatever they look like, folded.
    kept: Vec<String>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction")
            .field("more", &self.more.len())
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Redaction {
    /// Adds a name. Returns whether it can be matched at all: it has a letter or digit.
    pub(crate) fn insert(&mut self, name: &str) -> bool {
        add(&mut self.more, name)
    }

    /// Takes a whole name out of the redaction. Returns whether it can be matched at all.
    pub(crate) fn keep(&mut self, name: &str) -> bool {
        add(&mut self.kept, name)
    }

    /// Called once for each field of a callsite, not for each event.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let words = words(name);
        let whole = words.concat();
        if self.kept.contains(&whole) {
            return false;
        }
        let is_secret = |joined: &String| ANYWHERE.contains(&joined.as_str()) || self.more.contains(joined);
        let starts = 0..words.len();
        let mut runs = starts.flat_map(|start| (start + 1..=words.len()).map(move |end| (start, end)));
        let has_secret =
            runs.any(|(start, end)| words.get(start..end).is_some_and(|run| is_secret(&run.concat())));
        let is_password = |word: &String| ENDINGS.iter().any(|ending| word.ends_with(ending));
        let ends_in_secret = words.last().is_some_and(|last| {
            LAST.contains(&last.as_str()) || (words.len() > 1 && LAST_OF_SEVERAL.contains(&last.as_str()))
        });
        has_secret || ends_in_secret || whole == RETURNED || words.iter().any(is_password)
    }
}

/// Adds a name, folded. Returns whether anything is left of it.
fn add(names: &mut Vec<String>, name: &str) -> bool {
    let folded = words(name).concat();
    let is_usable = !folded.is_empty();
    if is_usable {
        names.push(folded);
    }
    is_usable
}

/// The words of a name, in lower case: runs of letters or of digits. A capital begins a word behind a small letter, and
/// in front of one: `userPassword`, `HTTPToken`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let is_small_next = characters.peek().is_some_and(|next| next.is_lowercase());
        let begins = before.is_none_or(|before: char| {
            !before.is_alphanumeric()
                || before.is_numeric() != character.is_numeric()
                || (character.is_uppercase() && (!before.is_uppercase() || is_small_next))
        });
        before = Some(character);
        if !character.is_alphanumeric() {
            continue;
        }
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHHELD: [&str; 62] = [
        "password",
        "passwords",
        "Password",
        "PASSWORD",
        "user_password",
        "userPassword",
        "UserPassword",
        "dbpassword",
        "password2",
        "password_hash",
        "db.password",
        "new-password",
        "passwd",
        "passphrase",
        "keyPassphrase",
        "passcode",
        "db_pwd",
        "userPwd",
        "smtp_pass",
        "secret",
        "secrets",
        "client_secret",
        "clientSecret",
        "clientsecret",
        "aws.secret.access.key",
        "secret_key",
        "token",
        "TOKEN",
        "access_token",
        "accessToken",
        "accesstoken",
        "oauth2_token",
        "oauth2Token",
        "refresh-token",
        "id_token",
        "token_hash",
        "HTTPToken",
        "x_csrf_token",
        "jwt",
        "session.jwt",
        "bearer",
        "http.bearer",
        "bearer_token",
        "authorization",
        "Proxy-Authorization",
        "http.request.header.authorization",
        "apikey",
        "api_key",
        "api.key",
        "ApiKey",
        "APIKey",
        "X-Api-Key",
        "x-api-key-2",
        "private_key",
        "privateKey",
        "cookie",
        "set-cookie",
        "session_cookie",
        "http.request.header.cookie",
        "credential",
        "credentials",
        "return",
    ];

    const RECORDED: [&str; 54] = [
        "tokens",
        "max_tokens",
        "maxTokens",
        "gen_ai.usage.input_tokens",
        "tokenizer",
        "tokenized",
        "detokenize",
        "secretary",
        "secretariat",
        "undersecretary",
        "cookie_consent",
        "cookieConsent",
        "cookie_policy",
        "bearer_bond",
        "bearerBond",
        "forbearer",
        "pwd",
        "PWD",
        "cwd",
        "pass",
        "passed",
        "bypass",
        "passenger",
        "passage",
        "passport",
        "compass",
        "passwordless",
        "authorized",
        "authorizations_checked",
        "author",
        "authority",
        "accredited",
        "credit",
        "key",
        "key.id",
        "api",
        "api_version",
        "monkey",
        "private",
        "private_network",
        "apikeyring",
        "return_code",
        "returned",
        "action",
        "actor",
        "session_id",
        "request_id",
        "path",
        "bytes",
        "message",
        "",
        "…",
        "__",
        "jwtlib",
    ];

    #[test]
    fn names_are_withheld_by_their_words() {
        let redaction = Redaction::default();
        for secret in WITHHELD {
            assert!(redaction.covers(secret), "{secret} is withheld");
        }
        for plain in RECORDED {
            assert!(!redaction.covers(plain), "{plain} is recorded");
        }
    }

    #[test]
    fn names_are_split_at_separators_digits_and_changes_of_case() {
        for (name, expected) in [
            ("userPassword", "user password"),
            ("X-Api-Key", "x api key"),
            ("gen_ai.usage.input_tokens", "gen ai usage input tokens"),
            ("oauth2Token", "oauth 2 token"),
            ("HTTPServerURL", "http server url"),
            ("größeMaß", "größe maß"),
            ("..__", ""),
        ] {
            assert_eq!(words(name).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn an_application_adds_names_and_takes_them_out() {
        let mut redaction = Redaction::default();
        assert!(!redaction.insert("--") && !redaction.keep("…"));
        assert!(redaction.insert("Session-ID") && redaction.insert("iban"));
        for secret in ["session_id", "sessionId", "sessionid", "old.session.id", "customerIban", "iban2"] {
            assert!(redaction.covers(secret), "{secret} is withheld");
        }
        for plain in ["session", "id_session", "ibanez", "urban"] {
            assert!(!redaction.covers(plain), "{plain} is recorded");
        }
        assert!(redaction.keep("token_count") && redaction.keep("return") && redaction.keep("iban"));
        for plain in ["token_count", "tokenCount", "return", "iban"] {
            assert!(!redaction.covers(plain), "{plain} is recorded");
        }
        assert!(redaction.covers("token"), "only whole names are taken out");
        assert!(redaction.covers("customer_iban"));
    }
}
