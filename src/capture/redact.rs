//! Decides which values are withheld, by the names of their fields.

use std::fmt;

/// Words, and runs of words written together, that denote a secret anywhere in a name. Whole words only: `token` does not
/// match `tokens`, which are usually counted, or `tokenizer`.
const ANYWHERE: &[&str] = &[
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
    "proxyauthorization",
    "apikey",
    "apikeys",
    "privatekey",
    "privatekeys",
    "secretkey",
    "secretkeys",
    "accesskey",
    "accesskeys",
    "encryptionkey",
    "signingkey",
    "credential",
    "credentials",
    "accesstokens",
    "refreshtokens",
    "idtokens",
    "authtokens",
    "oauthtokens",
    "apitokens",
    "bearertokens",
    "sessiontokens",
    "setcookie",
    "cookievalue",
    "cookieheader",
    "bearervalue",
    "bearerheader",
    "pwdhash",
    "dbpass",
    "smtppass",
    "ftppass",
    "userpass",
    "adminpass",
];

/// Words that denote a secret at the end of a name, ignoring trailing numbers: `session_cookie` is one, `cookie_consent`
/// is not.
const LAST: [&str; 3] = ["cookie", "cookies", "bearer"];

/// A word like [`LAST`], but only after another word: `db_pwd` is a password, `pwd` is a directory.
const LAST_OF_SEVERAL: &str = "pwd";

/// The beginning of words that denote a password: `passwordhash`.
const BEGINNING: &str = "password";

/// The only word with that beginning that denotes none.
const NO_PASSWORD: &str = "passwordless";

/// Endings of longer words that denote a secret, written together with another word: `dbpassword`.
const ENDINGS: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "credentials", "cookie", "pwd"];

/// The most neighbouring words that are joined and compared.
const LONGEST_RUN: usize = 8;

/// The field in which `#[instrument(ret)]` records the return value of a function. Matches only as a whole name.
const RETURNED: &str = "return";

/// The names whose values are withheld.
///
/// Names are split into words at separators, at digits and at changes of case. They are compared word by word, and
/// case is ignored.
#[derive(Clone, Default)]
pub(crate) struct Redaction {
    /// Names given by the application, folded.
    more: Vec<String>,
    /// Whole names whose values are always recorded, folded.
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
    /// Adds a name to withhold. Returns whether it can be matched at all: it has a letter or digit.
    pub(crate) fn insert(&mut self, name: &str) -> bool {
        add(&mut self.more, name)
    }

    /// Exempts a whole name. Returns whether it can be matched at all.
    pub(crate) fn keep(&mut self, name: &str) -> bool {
        add(&mut self.kept, name)
    }

    /// Returns whether the values of a field are withheld. Called once for each field of a callsite, not for each event.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let whole = fold(name);
        if self.kept.contains(&whole) {
            return false;
        }
        // The last of several capitals can begin the next word, as in `HTTPToken`, or end this one, as in `AWSsecret`. Both
        // readings are tried.
        let is_secret = |words: &[String]| self.has_secret(words) || ends_in_secret(words);
        self.more.contains(&whole)
            || whole == RETURNED
            || is_secret(&words(name, true))
            || is_secret(&words(name, false))
            || self.more.iter().any(|more| has_no_case(more) && whole.contains(more))
    }

    /// Returns whether any word, or run of words, denotes a secret.
    fn has_secret(&self, words: &[String]) -> bool {
        let is_secret = |joined: &String| ANYWHERE.contains(&joined.as_str()) || self.more.contains(joined);
        let is_long_secret = |word: &String| {
            (word.starts_with(BEGINNING) && word != NO_PASSWORD)
                || ENDINGS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending))
        };
        (0..words.len()).any(|start| {
            let run = words.iter().skip(start).take(LONGEST_RUN);
            let mut joined = run.scan(String::new(), |joined, word| {
                joined.push_str(word);
                Some(is_secret(joined))
            });
            joined.any(|found| found)
        }) || words.iter().any(is_long_secret)
    }
}

/// Returns whether the last word that is no number denotes a secret in that place.
fn ends_in_secret(words: &[String]) -> bool {
    let is_number = |word: &String| word.chars().all(char::is_numeric);
    let mut backward = words.iter().rev().skip_while(|word| is_number(word));
    let last = backward.next().map_or("", String::as_str);
    LAST.contains(&last) || (last == LAST_OF_SEVERAL && backward.next().is_some())
}

/// Returns whether a name has letters of a script without case. Most such scripts do not separate words either, so these
/// names are searched for anywhere.
fn has_no_case(name: &str) -> bool {
    name.chars().any(|c| c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase())
}

/// Returns the letters and digits of a name, in lower case.
fn fold(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Adds a name, folded. Returns whether anything is left of it.
fn add(names: &mut Vec<String>, name: &str) -> bool {
    let folded = fold(name);
    let is_usable = !folded.is_empty();
    if is_usable {
        names.push(folded);
    }
    is_usable
}

/// Returns the words of a name, in lower case. A word is a run of letters or of digits.
///
/// A capital after a lower-case letter begins a word. Several capitals before a lower-case letter can be split in two
/// ways. With `last_begins` the last capital begins a word, as in `HTTPToken`; else the lower-case letter does, as in
/// `AWSsecret`.
fn words(name: &str, last_begins: bool) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    // Whether the last two characters were capitals.
    let mut is_second_capital = false;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let is_small_next = characters.peek().is_some_and(|next| next.is_lowercase());
        let begins = before.is_none_or(|before: char| {
            !before.is_alphanumeric()
                || before.is_numeric() != character.is_numeric()
                || (character.is_uppercase() && (!before.is_uppercase() || (last_begins && is_small_next)))
                || (character.is_lowercase() && !last_begins && is_second_capital)
        });
        is_second_capital = before.is_some_and(char::is_uppercase) && character.is_uppercase();
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

    const WITHHELD: &[&str] = &[
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
        "access_tokens",
        "cookie2",
        "http.request.header.cookie.0",
        "cookie_value",
        "bearer_header",
        "userPwd1",
        "pwd_hash",
        "appsecret",
        "webhookSecret",
        "usertoken",
        "userpwd",
        "passwordhash",
        "awscredentials",
        "proxyauthorization",
        "AWSsecret",
        "JWTtoken",
        "DBpwd",
        "PASSWORDhash",
    ];

    const RECORDED: &[&str] = &[
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
        "boarding_pass",
        "tests_pass",
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
            ("ABCd", "ab cd"),
        ] {
            assert_eq!(words(name, true).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn capitals_in_front_of_a_small_letter_are_read_both_ways() {
        assert_eq!(words("AWSsecretKEYs", false).join(" "), "aws secret key s");
        assert_eq!(words("AWSSecretKey", true).join(" "), "aws secret key");
    }

    #[test]
    fn a_name_of_a_script_without_capitals_is_found_in_a_longer_one() {
        let mut redaction = Redaction::default();
        assert!(redaction.insert("密码"));
        assert!(redaction.covers("用户密码") && !redaction.covers("用户"));
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
