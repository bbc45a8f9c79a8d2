//! The fast path for a line: the members of an event in their usual order, which nearly every line has.

use super::{
    RecordKind,
    plain::find_quote,
    strict::{Scanner, Top},
};

/// The beginning of a member of an event.
struct MemberPrefix {
    /// `"name":`, the first byte lowest.
    word: u128,
    /// The bits of `word` that are compared.
    mask: u128,
    length: usize,
    role: Role,
}

/// What a member means for the line itself.
#[derive(Debug, Clone, Copy)]
enum Role {
    Seq,
    Time,
    Kind,
    Durable,
    None,
}

/// The beginnings of the members of an event, in order.
const EVENT_MEMBERS: [MemberPrefix; 24] = [
    prefix("\"seq\":", Role::Seq),
    prefix("\"ts\":", Role::Time),
    prefix("\"kind\":", Role::Kind),
    prefix("\"severity\":", Role::None),
    prefix("\"level\":", Role::None),
    prefix("\"action\":", Role::None),
    prefix("\"actor\":", Role::None),
    prefix("\"resource\":", Role::None),
    prefix("\"outcome\":", Role::None),
    prefix("\"reason\":", Role::None),
    prefix("\"session_id\":", Role::None),
    prefix("\"request_id\":", Role::None),
    prefix("\"source\":", Role::None),
    prefix("\"trace_id\":", Role::None),
    prefix("\"span_id\":", Role::None),
    prefix("\"message\":", Role::None),
    prefix("\"target\":", Role::None),
    prefix("\"module\":", Role::None),
    prefix("\"fields\":", Role::None),
    prefix("\"incomplete\":", Role::None),
    prefix("\"redacted\":", Role::None),
    prefix("\"repeated\":", Role::None),
    prefix("\"truncated\":", Role::None),
    prefix("\"durable\":", Role::Durable),
];

const fn prefix(text: &str, role: Role) -> MemberPrefix {
    let mut rest = text.as_bytes();
    assert!(rest.len() <= 16, "a prefix fits a word");
    let (mut word, mut mask) = (0, 0);
    while let Some((last, before)) = rest.split_last() {
        word = word << 8 | *last as u128;
        mask = mask << 8 | 0xFF;
        rest = before;
    }
    MemberPrefix { word, mask, length: text.len(), role }
}

impl<'a> Scanner<'a, '_> {
    /// Reads the members up to the end of the bytes, if they are those of an event in order. The order implies that
    /// none occurs twice, so their names need not be kept. Returns `None` for every other line, including an
    /// invalid one: the slow path then finds out what is wrong.
    pub(super) fn members_of_an_event(&mut self) -> Option<Top<'a>> {
        let mut top = Top { seq: 0, kind: RecordKind::Other, time: None, durable: None, detail: None };
        let mut later = EVENT_MEMBERS.iter();
        // The position is kept in a local variable, that is, a register. In `self`, each member would wait for memory.
        let (bytes, mut at) = (self.bytes, self.at);
        loop {
            let word = word(bytes.get(at..)?);
            let member = later.find(|prefix| (word ^ prefix.word) & prefix.mask == 0)?;
            let start = at + member.length;
            at = match member.role {
                Role::Seq | Role::Durable => {
                    let (number, length) = whole_number(bytes.get(start..)?)?;
                    if matches!(member.role, Role::Durable) {
                        top.durable = Some(number);
                    } else {
                        top.seq = Some(number).filter(|seq| *seq > 0)?;
                    }
                    start + length
                }
                _ if self.is_plain && bytes.get(start) == Some(&b'"') => find_quote(bytes, start + 1)? + 1,
                _ => self.end_of_value(start)?,
            };
            match member.role {
                Role::Time => top.time = bytes.get(start..at),
                // An event has no member that is named like its kind.
                Role::Kind if bytes.get(start..at) != Some(b"\"event\"") => return None,
                Role::Kind => top.kind = RecordKind::Event,
                _ => {}
            }
            match bytes.get(at) {
                Some(b',') => at += 1,
                None => return (top.kind == RecordKind::Event).then_some(top),
                Some(_) => return None,
            }
        }
    }

    /// Returns the end of the value that begins at `start`.
    #[inline(never)]
    fn end_of_value(&mut self, start: usize) -> Option<usize> {
        self.at = start;
        self.value(1).ok()?;
        Some(self.at)
    }
}

/// Parses an unsigned number without leading zeros at the start of `bytes`; returns it with its length. If the number
/// has a fraction or an exponent, no comma follows, which the caller notices.
fn whole_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut length) = (0_u64, 0);
    for digit in bytes.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|digit| *digit < 10) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        length += 1;
    }
    (length == 1 || (length > 1 && bytes.first() != Some(&b'0'))).then_some((number, length))
}

/// Returns the first sixteen bytes as a word, padded with zeros if there are fewer.
fn word(bytes: &[u8]) -> u128 {
    match bytes.first_chunk() {
        Some(first) => u128::from_le_bytes(*first),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LineParser, seal};
    use crate::chain::Digest;

    /// Checks that both paths parse the same line, or refuse it for the same reason. Returns whether it was
    /// parsed.
    #[track_caller]
    fn check(line: &[u8]) -> bool {
        let fast = LineParser::default().parse(line);
        assert_eq!(fast, LineParser::default().parse_either(line, false), "{}", line.escape_ascii());
        fast.is_ok()
    }

    const PAYLOADS: [&str; 8] = [
        concat!(
            r#","ts":"2026-11-21T08:00:00.000000005Z","kind":"event","severity":"routine","level":"INFO","#,
            r#""action":"key.export","actor":"mia","resource":"r/1","outcome":"ok","reason":"r","#,
            r#""session_id":"s","request_id":"q","source":"::1","trace_id":"0","span_id":"1","message":"m m","#,
            r#""target":"audit","module":"app","fields":{"n":-1.5e3,"l":[1,"x",null],"o":{"n":true}},"#,
            r#""incomplete":["actor"],"redacted":["p"],"repeated":["l"],"truncated":{"n":{"bytes":7}}"#
        ),
        r#","ts":"2026-11-21T08:00:00.000000005Z","kind":"event","message":"ü \"ñ\" \u202e 漢","actor":"a""#,
        r#","kind":"event","level":{"event":1},"durable":5,"x":1"#,
        r#","kind":"level","level":"INFO""#,
        r#","kind":"mark","mark":{"chains":{}}"#,
        r#","level":"INFO","durable":007"#,
        r#","kind":"event","fields":{"a":1,"a":2}"#,
        r#","ts":5,"kind":"event","event":{"a":1}"#,
    ];

    #[test]
    fn the_fast_path_and_the_slow_one_agree() {
        let mut good = 0;
        for payload in PAYLOADS {
            let mut line = Vec::new();
            seal(&mut line, 7, payload.as_bytes(), Some(6), &Digest::ZERO);
            line.pop();
            good += usize::from(check(&line));
            for at in 0..line.len() - 160 {
                for byte in *b"\"\\{}[],:09e.-+ x\x00\x7f\x80\xc3" {
                    let mut edited = line.clone();
                    edited[at] = byte;
                    good += usize::from(check(&edited));
                    edited.insert(at, line[at]);
                    good += usize::from(check(&edited));
                }
                for length in 1..16 {
                    let mut edited = line.clone();
                    drop(edited.drain(at..(at + length).min(line.len() - 158)));
                    good += usize::from(check(&edited));
                }
            }
        }
        assert!(good > 5_000, "only {good} edited lines are lines");
    }

    /// Anything in the position of the time was once skipped unread, as if it were a time.
    #[test]
    fn members_in_the_position_of_the_time_are_not_overlooked() {
        for (payload, seen) in [
            (r#","ts":"","durable":5,"x":"aaaaaaaaaaa","kind":"event","level":"INFO""#, Some(5)),
            (r#","ts":"","x":{"a":"bbbbbbbbbbbbbbbbbb","kind":"event","c":1},"kind":"mark""#, None),
        ] {
            let mut line = Vec::new();
            seal(&mut line, 7, payload.as_bytes(), None, &Digest::ZERO);
            line.pop();
            assert_eq!(&line[14..16], b"\"\"", "the time is empty");
            assert_eq!(&line[46..61], br#","kind":"event""#, "and 32 bytes on an event seems to begin");
            assert!(check(&line));
            assert_eq!(LineParser::default().parse(&line).unwrap().durable, seen);
        }
    }
}
