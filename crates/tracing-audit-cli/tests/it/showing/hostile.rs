//! Records made to attack their reader.

use crate::place::{Place, on_terminal};

/// Returns whether a character must never reach a terminal.
fn is_harmful(character: char) -> bool {
    let number = u32::from(character);
    (character.is_control() && character != '\n')
        || matches!(number, 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xE0000..=0xE007F)
}

const HOSTILE: [&str; 7] = [
    "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31mred",
    "user\u{202e}txt.exe\u{2066}",
    "one\ntwo\r2026-11-21 00:00:00.000Z  000/1  CRIT",
    "\u{9b}31m\u{90}\u{0}\u{8}\u{8}",
    "zero\u{200b}width\u{feff}\u{e0041}",
    "\\u001b[31m %s %n {} {0}",
    "<script>alert(1)</script> =cmd()",
];

#[test]
fn no_text_of_a_record_moves_a_terminal() {
    let place = Place::new().0;
    place.emit_as(&HOSTILE);
    let (code, said, error) = place.run("tail log -n 100");
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(!said.contains(is_harmful), "{said:?}");
    // Raw lines: the format itself escapes the characters that move a terminal, and no others.
    let (_, said, _) = place.run("tail log -n 100 --json");
    let is_moving = |character| is_harmful(character) && !('\u{200B}'..='\u{200D}').contains(&character);
    assert!(!said.contains(is_moving), "{said:?}");
    let mut command = place.command("tail log -n 100");
    command.env("NO_COLOR", "1");
    assert!(!on_terminal(command, 80).contains(is_harmful));
    let (_, said, _) = place.run("tail log -n 100");
    // A record is printed on one line, whatever it contains.
    let records = tracing_audit::read(place.path("log")).unwrap().count();
    assert_eq!(said.lines().count(), records);
    assert!(said.contains("\\u{1b}[2J") && said.contains("user\\u{202e}txt.exe"), "{said}");
    for seq in 1..=records {
        let (code, said, error) = place.run(&format!("show log 000/{seq}"));
        assert_eq!((code, error.as_str()), (0, ""));
        assert!(!said.contains(is_harmful), "{said:?}");
        // The second line of a value has a bar in front, so that it cannot look like a member.
        assert!(!said.lines().any(|line| line.trim_start().starts_with("two")), "{said}");
    }
    // Errors are escaped too.
    let mut command = place.command("tail");
    let output = command.arg("no\u{1b}[31mwhere").output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains(is_harmful));
}

#[test]
fn a_long_value_is_cut_in_a_line_and_complete_in_show() {
    let place = Place::new().0;
    let long = "ä".repeat(25_000);
    place.emit_as(&[&long]);
    let (_, said, _) = place.run("tail log -n 2");
    assert!(said.contains('…') && said.len() < 2_000, "{}", said.len());
    let (code, said, _) = place.run("show log 000/15");
    assert!(code == 0 && said.contains(&long), "{said}");
}
