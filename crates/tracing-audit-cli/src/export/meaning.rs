//! What a record says, in the few words that other formats have for it.

use std::net::{IpAddr, SocketAddr};

use crate::scan::Hit;

/// How an action ended, as far as a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    Success,
    Failure,
    /// A word that is neither.
    Other(&'a str),
    /// The record does not say it.
    Unsaid,
    /// Somebody was told that the record is not confirmed: what it says was done may have been refused.
    Unconfirmed,
}

impl<'a> Outcome<'a> {
    /// An unconfirmed record never says that something was done, whatever stands in it.
    pub(crate) fn of(hit: &'a Hit) -> Self {
        if hit.is_unconfirmed {
            return Self::Unconfirmed;
        }
        hit.record.outcome().map_or(Self::Unsaid, Self::of_word)
    }

    /// How an action ended, by the word alone.
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

/// What an action does, as its name says.
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
    /// The record does not say what was done.
    Unknown,
}

/// An action, and whether it is about who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) is_authentication: bool,
    pub(crate) activity: Activity,
}

impl Action {
    /// Reads the name of an action by its words: `auth.login`, `auth_failure`, `UserCreated`.
    pub(crate) fn of(action: Option<&str>) -> Self {
        let Some(action) = action else {
            return Self { is_authentication: false, activity: Activity::Unknown };
        };
        let words = words_of(action);
        let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
        let is_authentication = words.first().is_some_and(|word| AUTHENTICATION.contains(&word.as_str()));
        let activity = match () {
            () if is_authentication && has(&LOGOFF) => Activity::Logoff,
            () if is_authentication && has(&LOGON) => Activity::Logon,
            () if is_authentication => Activity::Other,
            () if has(&DELETE) => Activity::Delete,
            () if has(&CREATE) => Activity::Create,
            () if has(&UPDATE) => Activity::Update,
            () if has(&READ) => Activity::Read,
            () => Activity::Other,
        };
        Self { is_authentication, activity }
    }
}

const AUTHENTICATION: [&str; 11] = [
    "auth",
    "authn",
    "authentication",
    "login",
    "logon",
    "signin",
    "logout",
    "logoff",
    "signout",
    "mfa",
    "sso",
];
const LOGOFF: [&str; 4] = ["logout", "logoff", "signout", "loggedout"];
const LOGON: [&str; 11] = [
    "login",
    "logon",
    "signin",
    "loggedin",
    "success",
    "succeeded",
    "failure",
    "failed",
    "fail",
    "denied",
    "attempt",
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
const UPDATE: [&str; 19] = [
    "update", "updated", "change", "changed", "modify", "modified", "edit", "edited", "set", "rename",
    "renamed", "enable", "enabled", "disable", "disabled", "grant", "granted", "revoke", "revoked",
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

/// How much of an action is looked at: names are short.
const MAX_LOOKED_AT: usize = 200;

/// The words of a name in lower case: parted by what is no letter or digit, and by capitals behind small letters.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for character in name.chars().take(MAX_LOOKED_AT) {
        let is_part = character.is_alphanumeric();
        if !is_part || (character.is_uppercase() && was_small) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| is_part) {
            word.extend(character.to_lowercase());
        }
        was_small = character.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The address that a source is, with a port where it says one; `None` for a name, or anything else.
pub(crate) fn address(source: &str) -> Option<(IpAddr, Option<u16>)> {
    let source = source.trim();
    if let Ok(ip) = source.parse() {
        return Some((ip, None));
    }
    if let Ok(address) = source.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    Some((source.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_by_its_words() {
        let of = |action| {
            let action = Action::of(Some(action));
            (action.is_authentication, action.activity)
        };
        assert_eq!(of("auth.login"), (true, Activity::Logon));
        assert_eq!(of("AuthFailure"), (true, Activity::Logon));
        assert_eq!(of("auth.logout"), (true, Activity::Logoff));
        assert_eq!(of("auth.token.revoked"), (true, Activity::Other));
        assert_eq!(of("authorize.read"), (false, Activity::Read));
        assert_eq!(of("invoice.created"), (false, Activity::Create));
        assert_eq!(of("UserDeleted"), (false, Activity::Delete));
        assert_eq!(of("role_changed"), (false, Activity::Update));
        assert_eq!(of("teleport"), (false, Activity::Other));
        assert_eq!(of(""), (false, Activity::Other));
        assert_eq!(Action::of(None).activity, Activity::Unknown);
    }

    #[test]
    fn an_outcome_is_read_from_the_words_that_people_use() {
        assert_eq!(Outcome::of_word("Success"), Outcome::Success);
        assert_eq!(Outcome::of_word("denied"), Outcome::Failure);
        assert_eq!(Outcome::of_word("unsuccessful"), Outcome::Other("unsuccessful"));
    }

    #[test]
    fn only_an_address_is_an_address() {
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
