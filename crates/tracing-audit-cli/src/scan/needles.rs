//! Bytes that every matching line must have, so that most lines are skipped without being parsed.

use memchr::{memchr, memmem::Finder, memrchr};

use crate::filter::Filter;

/// Limit of the values of an option that are searched for as bytes; with more, every line is parsed.
const MAX_VALUES: usize = 8;

/// The bytes to search for. A line that matches has at least one of the needles; without needles, any line may match.
#[derive(Debug)]
pub(crate) struct Needles(Vec<Needle>);

#[derive(Debug)]
struct Needle {
    finder: Finder<'static>,
    /// Whether this is the beginning of an escape, of which only those of printable ASCII characters count. The library never
    /// writes those.
    of_printable: bool,
}

impl Needle {
    fn new(bytes: &[u8]) -> Self {
        Self { finder: Finder::new(bytes).into_owned(), of_printable: false }
    }

    /// Finds the next occurrence, from `at` on.
    fn find(&self, chunk: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let found = at + self.finder.find(chunk.get(at..)?)?;
            // `\u0020` to `\u007f`: the digit after `\u00` is 2 to 7.
            let digit = chunk.get(found + self.finder.needle().len());
            if !self.of_printable || digit.is_some_and(|digit| (b'2'..=b'7').contains(digit)) {
                return Some(found);
            }
            at = found + 1;
        }
    }
}

/// A part of a line as the library writes it, with what decides how else JSON could spell it.
#[derive(Debug, Default)]
struct Literal {
    bytes: Vec<u8>,
    /// Whether it has characters other than printable ASCII.
    has_others: bool,
    /// Whether it has a slash, which JSON may spell `\/`.
    has_slash: bool,
    /// Whether only this exact spelling counts, as for `--grep`.
    is_raw: bool,
}

impl Literal {
    /// Makes `"name":"value"`, as the library spells it. Returns `None` for a text with too many spellings.
    fn member(name: &str, value: &str) -> Option<Self> {
        let mut literal = Self::beginning(name, value)?;
        literal.bytes.push(b'"');
        Some(literal)
    }

    /// Makes `"name":"value`, for values that only begin like this.
    fn beginning(name: &str, value: &str) -> Option<Self> {
        let mut literal = Self::name(name)?;
        literal.bytes.push(b'"');
        literal.push(value)?;
        Some(literal)
    }

    /// Makes `"name":`.
    fn name(name: &str) -> Option<Self> {
        let mut literal = Self { bytes: vec![b'"'], ..Self::default() };
        literal.push(name)?;
        literal.bytes.extend_from_slice(b"\":");
        Some(literal)
    }

    /// Appends a text, escaped.
    ///
    /// Characters that need a `\u` escape are appended as they are: with one of them, every line with a `\u` is parsed.
    fn push(&mut self, text: &str) -> Option<()> {
        for character in text.chars() {
            match character {
                '"' => self.bytes.extend_from_slice(b"\\\""),
                '\\' => self.bytes.extend_from_slice(b"\\\\"),
                '\n' => self.bytes.extend_from_slice(b"\\n"),
                '\r' => self.bytes.extend_from_slice(b"\\r"),
                '\t' => self.bytes.extend_from_slice(b"\\t"),
                // JSON may spell these `\b` and `\f`, or as `\u` escapes.
                '\u{8}' | '\u{c}' => return None,
                _ => self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            self.has_others |= !(' '..='~').contains(&character);
            self.has_slash |= character == '/';
        }
        Some(())
    }
}

impl Needles {
    /// Makes the needles of a filter, from the option that usually has the fewest matches.
    pub(crate) fn of(filter: &Filter) -> Self {
        let literals = [
            members("request_id", &filter.request),
            members("session_id", &filter.session),
            members("resource", &filter.resource),
            members("actor", &filter.actor),
            filter.fields.first().and_then(|(name, value)| field(name, value)),
            grep(&filter.grep),
            actions(filter),
            members("outcome", &filter.outcome),
            members("kind", &filter.kind),
            filter.severity.and_then(|severity| members("severity", &[severity.as_str().to_owned()])),
        ];
        Self::any_of(&literals.into_iter().flatten().next().unwrap_or_default())
    }

    /// Makes the needles of `unconfirmed` lines, however JSON spells the kind.
    pub(crate) fn unconfirmed() -> Self {
        Self::any_of(&Literal::member("kind", "unconfirmed").into_iter().collect::<Vec<_>>())
    }

    fn any_of(literals: &[Literal]) -> Self {
        let mut needles: Vec<Needle> = literals.iter().map(|literal| Needle::new(&literal.bytes)).collect();
        let spelled = || literals.iter().filter(|literal| !literal.is_raw);
        // A searched character may be spelled as any `\u` escape. If all are printable ASCII, only escapes of those
        // can spell them, which lines of the library never have. So the common `\u001b` does not cost a parse.
        if spelled().any(|literal| literal.has_others) {
            needles.push(Needle::new(b"\\u"));
        } else if spelled().next().is_some() {
            needles.push(Needle { of_printable: true, ..Needle::new(b"\\u00") });
        }
        if spelled().any(|literal| literal.has_slash) {
            needles.push(Needle::new(b"\\/"));
        }
        Self(needles)
    }

    /// Calls `each` with every line of a chunk that may match, and the offset of the line in the chunk.
    ///
    /// The chunk must consist of complete lines.
    pub(crate) fn each_line<'a>(&self, chunk: &'a [u8], mut each: impl FnMut(usize, &'a [u8])) {
        if self.0.is_empty() {
            let mut start = 0;
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                each(start, line.strip_suffix(b"\n").unwrap_or(line));
                start += line.len();
            }
            return;
        }
        let mut next: Vec<Option<usize>> = self.0.iter().map(|needle| needle.find(chunk, 0)).collect();
        while let Some(found) = next.iter().flatten().min().copied() {
            let (before, behind) = chunk.split_at(found);
            let start = memrchr(b'\n', before).map_or(0, |at| at + 1);
            let end = memchr(b'\n', behind).map_or(chunk.len(), |at| found + at);
            each(start, chunk.get(start..end).unwrap_or_default());
            // Needles further on keep their positions; only those within this line are searched again.
            for (needle, next) in self.0.iter().zip(&mut next) {
                if next.is_some_and(|next| next <= end) {
                    *next = needle.find(chunk, end + 1);
                }
            }
        }
    }
}

fn members(name: &str, values: &[String]) -> Option<Vec<Literal>> {
    if values.is_empty() || values.len() > MAX_VALUES {
        return None;
    }
    values.iter().map(|value| Literal::member(name, value)).collect()
}

/// Makes the needle of a `--field`. Only the name is searched for if the value is also JSON, such as a number, which the line
/// may spell in another way.
fn field(name: &str, value: &str) -> Option<Vec<Literal>> {
    // JSON has several spellings of a number, such as `1e99` and `1e+99`.
    let is_text = serde_json::from_str::<serde_json::Value>(value).is_err();
    let literal = if is_text { Literal::member(name, value) } else { Literal::name(name) };
    literal.map(|literal| vec![literal])
}

fn grep(texts: &[String]) -> Option<Vec<Literal>> {
    // The longest text is usually the rarest.
    let longest = texts.iter().max_by_key(|text| text.len()).filter(|text| !text.is_empty())?;
    Some(vec![Literal { bytes: longest.clone().into_bytes(), is_raw: true, ..Literal::default() }])
}

/// Makes the needles of the action patterns, from their text before the first special character.
fn actions(filter: &Filter) -> Option<Vec<Literal>> {
    if filter.action.is_empty() || filter.action.len() > MAX_VALUES {
        return None;
    }
    let literal = |glob: &str| match glob.split_once(['*', '?', '[', ']', '{', '}', ',', '\\', '!']) {
        // A pattern that begins with `*` has no text to search for.
        Some(("", _)) => None,
        Some((beginning, _)) => Literal::beginning("action", beginning),
        None => Literal::member("action", glob),
    };
    filter.action.iter().map(|glob| literal(glob.as_str())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    #[track_caller]
    fn check(arguments: &[&str], line: &str, is_looked_at: bool) {
        let filter = Line::try_parse_from([&["x"], arguments].concat()).unwrap().filter;
        let chunk = format!("{{\"seq\":1}}\n{line}\n{{\"seq\":2}}\n");
        let mut found = Vec::new();
        Needles::of(&filter).each_line(chunk.as_bytes(), |start, line| found.push((start, line)));
        assert_eq!(found.contains(&(10, line.as_bytes())), is_looked_at, "{arguments:?} {line}");
        assert!(found.len() <= 1, "{arguments:?}: {found:?}");
    }

    #[test]
    fn a_value_is_found_however_json_spells_it() {
        check(&["--actor", "mia"], r#"{"actor":"mia"}"#, true);
        check(&["--actor", "mia"], r#"{"actor":"mian"}"#, false);
        check(&["--actor", "mia"], r#"{"actor":"m\u0069a"}"#, true);
        check(&["--actor", "mia"], r#"{"\u0061ctor":"mia"}"#, true);
        check(&["--actor", "mia"], r#"{"actor":"tom","note":"\u001b\n\""}"#, false);
        check(&["--actor", "a\"b"], r#"{"actor":"a\"b"}"#, true);
        check(&["--actor", "a\"b"], r#"{"actor":"a\u0022b"}"#, true);
        check(&["--actor", "a\\b"], r#"{"actor":"a\\b"}"#, true);
        check(&["--actor", "a\nb"], r#"{"actor":"a\nb"}"#, true);
        check(&["--actor", "a\nb"], r#"{"actor":"a\u000ab"}"#, true);
        check(&["--actor", "\u{202e}x"], r#"{"actor":"\u202ex"}"#, true);
        check(&["--actor", "é漢"], r#"{"actor":"é漢"}"#, true);
        check(&["--actor", "é漢"], r#"{"actor":"\u00e9漢"}"#, true);
        check(&["--resource", "/etc"], r#"{"resource":"\/etc"}"#, true);
        check(&["--resource", "/etc"], r#"{"resource":"/usr"}"#, false);
    }

    #[test]
    fn needles_are_in_all_matching_lines() {
        check(&["--action", "auth.*"], r#"{"action":"auth.login"}"#, true);
        check(&["--action", "auth.*"], r#"{"action":"author"}"#, false);
        check(&["--action", "a,b"], r#"{"action":"a,b"}"#, true);
        check(&["--field", "n=5"], r#"{"fields":{"n":5.0}}"#, true);
        check(&["--field", "n=acme"], r#"{"fields":{"n":"acme"}}"#, true);
        check(&["--field", "n=acme"], r#"{"fields":{"n":"acne"}}"#, false);
        check(&["--grep", "m\\u"], r#"{"x":"m\u0069a"}"#, true);
        check(&["--grep", "mia"], r#"{"x":"m\u0069a"}"#, false);
        check(&["--actor", "a", "--actor", "b"], r#"{"actor":"b"}"#, true);
        check(&["--kind", "gap"], r#"{"kind":"gap"}"#, true);
        check(&["--severity", "critical"], r#"{"severity":"routine"}"#, false);
    }

    #[test]
    fn without_needles_every_line_is_parsed() {
        for arguments in [&["--action", "*.login"][..], &["--actor", "a\u{8}"], &[]] {
            let filter = Line::try_parse_from([&["x"], arguments].concat()).unwrap().filter;
            let mut lines = Vec::new();
            Needles::of(&filter).each_line(b"a\nb\n", |start, line| lines.push((start, line)));
            assert_eq!(lines, [(0, &b"a"[..]), (2, b"b")], "{arguments:?}");
        }
    }
}
