//! Classifies outcomes and actions by their words, for formats that have fixed categories.

use std::net::{IpAddr, SocketAddr};

use crate::scan::Hit;

/// How an action ended, according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    Success,
    Failure,
    /// A word that is neither.
    Other(&'a str),
    /// The record has no outcome.
    Missing,
    /// A caller got an error for the record, so the action may have been refused.
    Unconfirmed,
}

impl<'a> Outcome<'a> {
    /// Returns the outcome of a record. An unconfirmed one is never a success, whatever it contains.
    pub(crate) fn of(hit: &'a Hit) -> Self {
        if hit.is_unconfirmed {
            return Self::Unconfirmed;
        }
        hit.record.outcome().map_or(Self::Missing, Self::of_word)
    }

    /// Classifies a word, in upper or lower case.
    pub(crate) fn of_word(word: &'a str) -> Self {
        let is_one_of = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word.trim()));
        if is_one_of(&SUCCESS) {
            Self::Success
        } else if is_one_of(&FAILURE) {
            Self::Failure
        } else {
            Self::Other(word)
        }
    }
}

// Common words for outcomes. Other formats get any other word as it is.
const SUCCESS: [&str; 15] = [
    "success",
    "succeeded",
    "successful",
    "ok",
    "allow",
    "allowed",
    "grant",
    "granted",
    "accepted",
    "permitted",
    "approved",
    "pass",
    "passed",
    "done",
    "true",
];
const FAILURE: [&str; 15] = [
    "failure",
    "failed",
    "fail",
    "deny",
    "denied",
    "refused",
    "rejected",
    "forbidden",
    "blocked",
    "invalid",
    "error",
    "timeout",
    "expired",
    "aborted",
    "false",
];

/// What an action does, according to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    Logon,
    Logoff,
    Create,
    Read,
    Update,
    Delete,
    /// Something else.
    Other,
    /// The record has no action.
    Unknown,
}

/// A classified action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) is_authentication: bool,
    pub(crate) activity: Activity,
}

impl Action {
    /// Classifies an action by the words of its name: `auth.login`, `auth_failure`, `UserCreated`.
    pub(crate) fn of(action: Option<&str>) -> Self {
        let Some(action) = action else {
            return Self { is_authentication: false, activity: Activity::Unknown };
        };
        let words = words_of(action);
        let is_one_of = |word: &String, known: &[&str]| known.contains(&word.as_str());
        let has = |known: &[&str]| words.iter().any(|word| is_one_of(word, known));
        let are_results = |words: &[String]| words.iter().all(|word| is_one_of(word, &RESULT));
        // Either the first word is about authentication, as in `auth.…`, or the name ends with a login or logout and perhaps
        // a result, as in `user.logged_out.success`.
        let sign = sign_in(&words);
        let is_authentication = words.first().is_some_and(|word| is_one_of(word, &AUTHENTICATION))
            || sign.is_some_and(|(_, end)| words.get(end..).is_some_and(are_results));
        // The order decides for names with several verbs: deletion matters most, and a name such as `list.updated` is
        // no reading.
        let verb = || match () {
            () if has(&DELETE) => Activity::Delete,
            () if has(&CREATE) => Activity::Create,
            () if has(&UPDATE) => Activity::Update,
            () if has(&READ) => Activity::Read,
            () => Activity::Other,
        };
        let activity = match (is_authentication, sign, words.as_slice()) {
            (false, ..) => verb(),
            (true, Some((activity, end)), _) if !is_about_another_thing(words.get(end..)) => activity,
            // A result alone, as in `auth.failure`, is that of a login. In `auth.role.granted` it is that of something else.
            (true, None, [first, rest @ ..])
                if is_one_of(first, &WHO) && !rest.is_empty() && are_results(rest) =>
            {
                Activity::Logon
            }
            (true, ..) => Activity::Other,
        };
        Self { is_authentication, activity }
    }
}

/// Finds the last login or logout in the words, which may be two words as in `log_in`. Returns it with the index after it.
fn sign_in(words: &[String]) -> Option<(Activity, usize)> {
    let of = |word: &str| match word {
        _ if LOGOFF.contains(&word) => Some(Activity::Logoff),
        _ if LOGON.contains(&word) => Some(Activity::Logon),
        _ => None,
    };
    // `auth.not_logged_in` is no login.
    if words.iter().any(|word| word == "not") {
        return None;
    }
    (0..words.len()).rev().find_map(|index| {
        let word = words.get(index)?;
        let pair = words.get(index + 1).and_then(|next| of(&format!("{word}{next}")));
        pair.map(|activity| (activity, index + 2)).or_else(|| of(word).map(|activity| (activity, index + 1)))
    })
}

/// Returns whether the words after `login` have a verb, so that the action is about a login page, setting and so on.
fn is_about_another_thing(words: Option<&[String]>) -> bool {
    // Words such as `granted` are verbs and results; after a login they are results.
    let is_verb = |word: &String| {
        let word = word.as_str();
        let verbs: [&[&str]; 4] = [&DELETE, &CREATE, &UPDATE, &READ];
        !RESULT.contains(&word) && verbs.iter().any(|verbs| verbs.contains(&word))
    };
    words.unwrap_or_default().iter().any(is_verb)
}

/// First words after which a result alone is that of a login.
const WHO: [&str; 5] = ["auth", "authn", "authentication", "authenticate", "sso"];
const AUTHENTICATION: [&str; 12] = [
    "auth",
    "authn",
    "authentication",
    "authenticate",
    "login",
    "logon",
    "signin",
    "logout",
    "logoff",
    "signout",
    "mfa",
    "sso",
];
const LOGOFF: [&str; 7] = ["logout", "logoff", "signout", "signoff", "loggedout", "loggedoff", "signedout"];
const LOGON: [&str; 6] = ["login", "logon", "signin", "loggedin", "loggedon", "signedin"];
const RESULT: [&str; 20] = [
    "success",
    "succeeded",
    "successful",
    "failure",
    "failed",
    "fail",
    "denied",
    "deny",
    "refused",
    "rejected",
    "blocked",
    "error",
    "attempt",
    "attempted",
    "ok",
    "granted",
    "allowed",
    "accepted",
    "timeout",
    "passed",
];
const DELETE: [&str; 8] =
    ["delete", "deleted", "remove", "removed", "destroy", "destroyed", "purge", "purged"];
const CREATE: [&str; 10] = [
    "create",
    "created",
    "add",
    "added",
    "insert",
    "inserted",
    "register",
    "registered",
    "upload",
    "uploaded",
];
const UPDATE: [&str; 20] = [
    "reset", "update", "updated", "change", "changed", "modify", "modified", "edit", "edited", "set",
    "rename", "renamed", "enable", "enabled", "disable", "disabled", "grant", "granted", "revoke", "revoked",
];
const READ: [&str; 15] = [
    "read",
    "view",
    "viewed",
    "get",
    "list",
    "listed",
    "seen",
    "download",
    "downloaded",
    "export",
    "exported",
    "access",
    "accessed",
    "query",
    "search",
];

/// Length up to which an action is classified, in characters.
const MAX_LOOKED_AT: usize = 200;

/// Splits a name into words in lower case: at all but letters and digits, and before a capital after a small letter.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut was_small, mut was_capital) = (false, false);
    let mut characters = name.chars().take(MAX_LOOKED_AT).peekable();
    while let Some(character) = characters.next() {
        let (is_part, is_capital) = (character.is_alphanumeric(), character.is_uppercase());
        // The last capital of a run begins a word: `SSOLogin` is `sso` and `login`.
        let ends_acronym =
            is_capital && was_capital && characters.peek().is_some_and(|next| next.is_lowercase());
        if !is_part || (is_capital && was_small) || ends_acronym {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| is_part) {
            word.extend(character.to_lowercase());
        }
        (was_small, was_capital) = (character.is_lowercase(), is_capital);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Parses a source as an IP address with an optional port. Returns `None` for a name or anything else.
pub(crate) fn address(source: &str) -> Option<(IpAddr, Option<u16>)> {
    let source = source.trim();
    if let Ok(ip) = source.parse() {
        return Some((ip, None));
    }
    if let Ok(address) = source.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    // An IPv6 address in brackets, without a port.
    Some((source.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of actions, whether they are about authentication, and what they do.
    const NAMES: &[(&str, bool, Activity)] = &[
        ("auth.login", true, Activity::Logon),
        ("auth.success", true, Activity::Logon),
        ("AuthFailure", true, Activity::Logon),
        ("auth.denied", true, Activity::Logon),
        ("auth_failed", true, Activity::Logon),
        ("auth.login.success", true, Activity::Logon),
        ("auth.login.denied", true, Activity::Logon),
        ("auth.sign_in", true, Activity::Logon),
        ("auth.signIn", true, Activity::Logon),
        ("auth.log_in", true, Activity::Logon),
        ("auth.logIn", true, Activity::Logon),
        ("auth.logged_in", true, Activity::Logon),
        ("auth.loggedIn.failure", true, Activity::Logon),
        ("login", true, Activity::Logon),
        ("login.failed", true, Activity::Logon),
        ("LOGIN", true, Activity::Logon),
        ("loginFailed", true, Activity::Logon),
        ("sign-in", true, Activity::Logon),
        ("log_in", true, Activity::Logon),
        ("SSOLogin", true, Activity::Logon),
        ("sso.failed", true, Activity::Logon),
        ("authentication.failure", true, Activity::Logon),
        ("user.login", true, Activity::Logon),
        ("user.logged_in", true, Activity::Logon),
        ("user.signedIn.success", true, Activity::Logon),
        ("admin.login.denied", true, Activity::Logon),
        ("auth.login.mfa", true, Activity::Logon),
        ("auth.login_attempt", true, Activity::Logon),
        ("auth.logout", true, Activity::Logoff),
        ("auth.logged_out", true, Activity::Logoff),
        ("auth.logged_out.success", true, Activity::Logoff),
        ("auth.loggedOut", true, Activity::Logoff),
        ("auth.log_out", true, Activity::Logoff),
        ("auth.logOut", true, Activity::Logoff),
        ("auth.signed_out", true, Activity::Logoff),
        ("auth.sign_out", true, Activity::Logoff),
        ("auth.signOut.failed", true, Activity::Logoff),
        ("logout", true, Activity::Logoff),
        ("logoff", true, Activity::Logoff),
        ("sign_out", true, Activity::Logoff),
        ("user.logout", true, Activity::Logoff),
        ("user.logged_out", true, Activity::Logoff),
        ("SSOLogout", true, Activity::Logoff),
        ("auth.logout.denied", true, Activity::Logoff),
        ("auth.logon.logged_off", true, Activity::Logoff),
        ("auth", true, Activity::Other),
        ("auth.role.granted.denied", true, Activity::Other),
        ("auth.role.granted", true, Activity::Other),
        ("auth.token.revoked", true, Activity::Other),
        ("auth.token.refresh.failed", true, Activity::Other),
        ("auth.password.reset.success", true, Activity::Other),
        ("authMfaDenied", true, Activity::Other),
        ("mfa.enabled", true, Activity::Other),
        ("mfa.success", true, Activity::Other),
        ("login.page.viewed", true, Activity::Other),
        ("auth.login_page.viewed", true, Activity::Other),
        ("auth.login.settings.updated", true, Activity::Other),
        ("auth.not_logged_in", true, Activity::Other),
        ("auth.user.created", true, Activity::Other),
        ("authorize.read", false, Activity::Read),
        ("invoice.created", false, Activity::Create),
        ("UserDeleted", false, Activity::Delete),
        ("role_changed", false, Activity::Update),
        ("teleport", false, Activity::Other),
        ("", false, Activity::Other),
        ("user.login_count.updated", false, Activity::Update),
        ("sign_in.page.viewed", false, Activity::Read),
        ("log.in_progress", false, Activity::Other),
        ("log.out_of_space", false, Activity::Other),
        ("payment.denied", false, Activity::Other),
        ("log.hold", false, Activity::Other),
        ("design.in", false, Activity::Other),
    ];

    #[test]
    fn an_action_is_classified_by_its_words() {
        for (name, is_authentication, activity) in NAMES {
            assert_eq!(
                Action::of(Some(name)),
                Action { is_authentication: *is_authentication, activity: *activity },
                "{name}"
            );
        }
        assert_eq!(Action::of(None).activity, Activity::Unknown);
    }

    #[test]
    fn an_outcome_is_classified_by_common_words() {
        assert_eq!(Outcome::of_word("Success"), Outcome::Success);
        assert_eq!(Outcome::of_word("denied"), Outcome::Failure);
        assert_eq!(Outcome::of_word(" DENIED"), Outcome::Failure);
        assert_eq!(Outcome::of_word("unsuccessful"), Outcome::Other("unsuccessful"));
    }

    #[test]
    fn only_ip_addresses_are_parsed_as_addresses() {
        let of = |text| address(text).map(|(ip, port)| (ip.to_string(), port));
        assert_eq!(of("203.0.113.9"), Some(("203.0.113.9".to_owned(), None)));
        assert_eq!(of("203.0.113.9:443"), Some(("203.0.113.9".to_owned(), Some(443))));
        assert_eq!(of("[2001:db8::1]:443"), Some(("2001:db8::1".to_owned(), Some(443))));
        assert_eq!(of("[2001:db8::1]"), Some(("2001:db8::1".to_owned(), None)));
        for none in ["", "web-1", "203.0.113", "203.0.113.9.", "::1%eth0", "[web-1]", "é"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
