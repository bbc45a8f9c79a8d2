//! Glob patterns for actions: `*` for any characters, `?` for any one, `[a-z]`, `{one,other}`, and `\` as an escape.

use anyhow::{Result, bail};

/// Limit of the alternatives of a pattern.
const MAX_ALTERNATIVES: usize = 1000;

/// A pattern, compared by characters. Braces are expanded into alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    text: String,
    alternatives: Vec<Vec<Sign>>,
}

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    This(char),
    AnyOne,
    Any,
    /// Whether the set is negated, and its ranges.
    OneOf(bool, Vec<(char, char)>),
}

impl Sign {
    fn is(&self, character: char) -> bool {
        match self {
            Self::This(this) => *this == character,
            Self::AnyOne => true,
            Self::Any => false,
            Self::OneOf(is_other, ranges) => {
                ranges.iter().any(|(from, to)| (from..=to).contains(&&character)) != *is_other
            }
        }
    }
}

/// Patterns without braces, of which one must match.
type Alternatives = Vec<Vec<Sign>>;

impl Glob {
    /// Parses a pattern from the command line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut alternatives = vec![Vec::new()];
        // Inside braces: the alternatives before the brace, and those of its parts so far.
        let mut open: Option<(Alternatives, Alternatives)> = None;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let sign = match character {
                '*' => Sign::Any,
                '?' => Sign::AnyOne,
                '[' => one_of(text, &mut characters)?,
                '\\' => match characters.next() {
                    Some(meant) => Sign::This(meant),
                    None => bail!("`{text}` ends with a `\\`"),
                },
                '{' if open.is_some() => bail!("`{text}` has braces in braces"),
                '{' => {
                    open = Some((alternatives.clone(), Vec::new()));
                    continue;
                }
                ',' => match &mut open {
                    Some((before, parts)) => {
                        parts.append(&mut alternatives);
                        // The next part begins again with what came before the brace.
                        alternatives.clone_from(before);
                        continue;
                    }
                    None => Sign::This(','),
                },
                '}' => {
                    let Some((_, mut parts)) = open.take() else {
                        bail!("`{text}` has a `}}` without a `{{`")
                    };
                    parts.append(&mut alternatives);
                    // Several groups multiply, so a short pattern could need any amount of memory.
                    if parts.len() > MAX_ALTERNATIVES {
                        bail!("`{text}` has too many alternatives");
                    }
                    alternatives = parts;
                    continue;
                }
                other => Sign::This(other),
            };
            for alternative in &mut alternatives {
                alternative.push(sign.clone());
            }
        }
        if open.is_some() {
            bail!("`{text}` has a `{{` without a `}}`");
        }
        Ok(Self { text: text.to_owned(), alternatives })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.alternatives.iter().any(|signs| matches(signs, &text))
    }
}

/// Parses a set of characters after its `[`.
fn one_of(text: &str, characters: &mut std::str::Chars<'_>) -> Result<Sign> {
    let Some((within, _)) = characters.as_str().split_once(']') else {
        bail!("`{text}` has a `[` without a `]`");
    };
    characters.nth(within.chars().count());
    let (is_other, mut within) = match within.strip_prefix(['!', '^']) {
        Some(rest) => (true, rest.chars().peekable()),
        None => (false, within.chars().peekable()),
    };
    let mut ranges = Vec::new();
    while let Some(from) = within.next() {
        let to = match within.next_if_eq(&'-') {
            Some(_) => within.next(),
            None => Some(from),
        };
        match to {
            Some(to) => ranges.push((from, to)),
            // A hyphen at the end of a set stands for itself.
            None => ranges.extend([(from, from), ('-', '-')]),
        }
    }
    if ranges.is_empty() {
        bail!("`{text}` has nothing between `[` and `]`");
    }
    Ok(Sign::OneOf(is_other, ranges))
}

/// Returns whether a text matches a pattern, in at most as many steps as the product of their lengths.
///
/// On a mismatch, only the last `*` has to be extended: an earlier one could not lead to a match that this one does not.
fn matches(signs: &[Sign], text: &[char]) -> bool {
    let (mut sign, mut at) = (0, 0);
    // The index of the last `*`, and where the text that it matches ends.
    let mut star: Option<(usize, usize)> = None;
    while let Some(character) = text.get(at) {
        match signs.get(sign) {
            Some(Sign::Any) => {
                star = Some((sign, at));
                sign += 1;
            }
            Some(one) if one.is(*character) => {
                sign += 1;
                at += 1;
            }
            _ => {
                let Some((of_star, until)) = star else { return false };
                star = Some((of_star, until + 1));
                // Let the `*` match one more character, and try again after it.
                (sign, at) = (of_star + 1, until + 1);
            }
        }
    }
    signs.get(sign..).unwrap_or_default().iter().all(|rest| *rest == Sign::Any)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn patterns_match_by_characters() {
        for (glob, text, is_match) in [
            ("auth.*", "auth.login", true),
            ("auth.*", "author", false),
            ("*.log?n", "auth.login", true),
            ("caf?", "café", true),
            ("caf??", "café", false),
            ("?", "漢", true),
            ("?", "", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[a-cé]x", "éx", true),
            ("[!a-c]x", "bx", false),
            ("auth.{login,logout}", "auth.logout", true),
            ("auth.{login,logout}", "auth.log", false),
            ("a,b", "a,b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().is_match(text), is_match, "{glob} {text}");
        }
        for wrong in ["[", "[]", "{a", "a}", "{a{b}}", "\\"] {
            assert!(Glob::parse(wrong).is_err(), "{wrong}");
        }
    }
}
