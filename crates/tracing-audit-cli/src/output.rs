//! Output to the terminal: results on standard output, messages on standard error, text of records escaped.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    sync::OnceLock,
};

/// Prints a result to standard output, in colour where that is wanted.
///
/// A closed pipe is ignored: its reader wants no more. Any other failure is kept for [`failed_write`].
pub(crate) fn print(text: &str) {
    // `anstream` removes the colours if standard output is not a terminal or `NO_COLOR` is set.
    let mut stdout = anstream::stdout();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // Only the first failure is kept: it is the cause of those that follow.
        drop(FAILED.set(error));
    }
}

/// The first failed write to standard output.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Returns the first failed write to standard output, if any.
///
/// A command that did everything else must not exit as if its output were complete.
pub(crate) fn failed_write() -> Option<&'static io::Error> {
    FAILED.get()
}

/// Prints a message to standard error, on one line.
///
/// Line feeds are escaped too: they can only come from a path or a record, and could forge a line.
pub(crate) fn print_stderr(text: &str) {
    drop(writeln!(anstream::stderr(), "{}", escape(text)));
}

/// Returns whether an error is a closed pipe: nobody reads the output any more, which is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns whether a terminal could execute a character, show nothing for it, or reorder the text around it.
///
/// These are control characters, line separators, bidirectional marks, and characters without a width.
pub(crate) fn is_unsafe(character: char) -> bool {
    matches!(
        u32::from(character),
        0..=0x1F | 0x7F..=0x9F | 0xAD | 0x61C | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF
            | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F
    )
}

/// Escapes a text of a record for printing: an [unsafe character](is_unsafe) becomes `\u{1b}`.
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

/// Escapes JSON for printing: an [unsafe character](is_unsafe) becomes a JSON escape such as `\u001b`.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    // In valid JSON a raw line feed is only white space between values.
    let is_escaped = |character| character != '\n' && is_unsafe(character);
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 32);
    for character in json.chars() {
        if is_escaped(character) {
            // JSON escapes are UTF-16: a character beyond the basic plane needs a surrogate pair (RFC 8259, section
            // 7).
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Formats a number with commas between its thousands.
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
    fn characters_that_move_a_terminal_are_escaped() {
        assert_eq!(escape("é \"x\" \\n"), "é \"x\" \\n");
        assert_eq!(escape("\u{1b}[31m\r\n\u{9b}2J"), "\\u{1b}[31m\\u{d}\\u{a}\\u{9b}2J");
        assert_eq!(escape("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    }

    #[test]
    fn escaped_json_is_still_json() {
        assert_eq!(escape_json("[\"a\u{202e}\u{e0041}\",\n\"é\"]"), "[\"a\\u202e\\udb40\\udc41\",\n\"é\"]");
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
