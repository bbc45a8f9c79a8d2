//! The short way through a line: the members of an event in their order, which nearly every line has.

use super::{
    RecordKind,
    plain::find_quote,
    strict::{Scanner, Top},
};

/// How a member of an event begins.
struct MemberPrefix {
    /// `"name":`, the first byte lowest.
    word: u128,
    /// The bytes of it that count.
    mask: u128,
    length: usize,
    role: Role,
}

/// What the line itself is told by a member.
#[derive(Debug, Clone, Copy)]
enum Role {
    Seq,
    Time,
    Kind,
    Durable,
    None,
}

/// How the members of an event begin, in their order.
const EVENT_MEMBERS: [MemberPrefix; 24] = [
    start("\"seq\":", Role::Seq),
    start("\"ts\":", Role::Time),
    start("\"kind\":", Role::Kind),
    start("\"severity\":", Role::None),
    start("\"level\":", Role::None),
    start("\"action\":", Role::None),
    start("\"actor\":", Role::None),
    start("\"resource\":", Role::None),
    start("\"outcome\":", Role::None),
    start("\"reason\":", Role::None),
    start("\"session_id\":", Role::None),
    start("\"request_id\":", Role::None),
    start("\"source\":", Role::None),
    start("\"trace_id\":", Role::None),
    start("\"span_id\":", Role::None),
    start("\"message\":", Role::None),
    start("\"target\":", Role::None),
    start("\"module\":", Role::None),
    start("\"fields\":", Role::None),
    start("\"incomplete\":", Role::None),
    start("\"redacted\":", Role::None),
    start("\"repeated\":", Role::None),
    start("\"truncated\":", Role::None),
    start("\"durable\":", Role::Durable),
];

const fn start(text: &str, role: Role) -> MemberPrefix {
    let mut rest = text.as_bytes();
    assert!(rest.len() <= 16, "a start fits a word");
    let (mut word, mut mask) = (0, 0);
    while let Some((last, before)) = rest.split_last() {
        word = word << 8 | *last as u128;
        mask = mask << 8 | 0xFF;
        rest = before;
    }
    MemberPrefix { word, mask, length: text.len(), role }
}

impl<'a> Scanner<'a, '_> {
    /// The members up to the end of the bytes, where they are those of an event in their order. The
    /// order shows that none stands twice, so nothing is kept of their names. `None` for every other
    /// line, also where something is wrong.
    pub(super) fn members_of_an_event(&mut self) -> Option<Top<'a>> {
        let mut top = Top { seq: 0, kind: RecordKind::Other, time: None, durable: None, detail: None };
        let mut later = EVENT_MEMBERS.iter();
        // The position in a register: in `self` each member would wait for it to come back from memory.
        let (bytes, mut at) = (self.bytes, self.at);
        loop {
            let word = word(bytes.get(at..)?);
            let member = later.find(|start| (word ^ start.word) & start.mask == 0)?;
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
                // No member of an event is named like its kind.
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

    /// Where the value ends that begins there.
    #[inline(never)]
    fn end_of_value(&mut self, start: usize) -> Option<usize> {
        self.at = start;
        self.value(1).ok()?;
        Some(self.at)
    }
}

/// A number from 0 on, written the one way, at the start of `bytes`, and how many of them it takes. What
/// follows a longer number is no comma.
fn whole_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut length) = (0_u64, 0);
    for digit in bytes.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|digit| *digit < 10) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        length += 1;
    }
    (length == 1 || (length > 1 && bytes.first() != Some(&b'0'))).then_some((number, length))
}

/// The first sixteen bytes; fewer are filled up.
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

    /// Checks that the line is the same line, or wrong for the same reason, whichever way it is read. Returns
    /// whether it is one.
    #[track_caller]
    fn check(line: &[u8]) -> bool {
        let short = LineParser::default().parse(line);
        assert_eq!(short, LineParser::default().parse_either(line, false), "{}", line.escape_ascii());
        short.is_ok()
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
    fn the_short_way_leads_where_the_long_one_does() {
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

    /// The place of a time was once taken for one, whatever stood there.
    #[test]
    fn members_in_the_place_of_the_time_are_not_overlooked() {
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
