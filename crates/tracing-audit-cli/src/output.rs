//! What reaches the terminal: data on standard output, talk on standard error, and nothing of a record unescaped.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    sync::OnceLock,
};

/// Prints what a command was asked for, in colour where that is wanted. A reader that has gone away wants no more.
/// Any other failure is kept for [`failed_write`].
pub(crate) fn print(text: &str) {
    let mut stdout = anstream::stdout();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first tells why.
        drop(FAILED.set(error));
    }
}

/// Why something could not be printed, if anything could not.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Why standard output lacks something: a command that did the rest must not end as if it were there.
pub(crate) fn failed_write() -> Option<&'static io::Error> {
    FAILED.get()
}

/// Prints what happens beside that, on one line: a line feed would be one of a path or of a record, and could forge a line.
pub(crate) fn say(text: &str) {
    drop(writeln!(anstream::stderr(), "{}", escape(text)));
}

/// Whether a command ended because nobody reads its output any more, which is nothing to tell.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a terminal could take a character for a command, show nothing for it, or put what stands around it in another
/// order: control characters, line separators, marks of direction, and characters without a width.
pub(crate) fn is_unsafe(character: char) -> bool {
    matches!(
        u32::from(character),
        0..=0x1F | 0x7F..=0x9F | 0xAD | 0x61C | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF
            | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F
    )
}

/// A text of a record as it may be printed: what a terminal must not get stands as `\u{1b}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            write!(escaped, "\\u{{{:x}}}", u32::from(character)).unwrap_or_default();
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// JSON as it may be printed: what a terminal must not get is escaped as JSON escapes it.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    // Raw line feeds stand between values only.
    let is_escaped = |character| character != '\n' && is_unsafe(character);
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 32);
    for character in json.chars() {
        if is_escaped(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{escape, escape_json, grouped};

    #[test]
    fn nothing_reaches_a_terminal_that_moves_it() {
        assert_eq!(escape("é \"x\" \\n"), "é \"x\" \\n");
        assert_eq!(escape("\u{1b}[31m\r\n\u{9b}2J"), "\\u{1b}[31m\\u{d}\\u{a}\\u{9b}2J");
        assert_eq!(escape("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    }

    #[test]
    fn json_stays_json() {
        assert_eq!(escape_json("[\"a\u{202e}\u{e0041}\",\n\"é\"]"), "[\"a\\u202e\\udb40\\udc41\",\n\"é\"]");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
