//! Colours and columns.

use unicode_width::UnicodeWidthStr as _;

use crate::place::{Place, on_terminal};

const ESCAPE: char = '\u{1b}';

#[test]
fn colours_are_for_terminals_or_on_request() {
    let (place, _) = Place::new();
    let command = || {
        let mut command = place.command("tail log");
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLORTERM", "CI"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command
    };
    let piped = |name: &str| {
        let mut command = command();
        if !name.is_empty() {
            command.env(name, "1");
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(!piped("").contains(ESCAPE));
    assert!(piped("CLICOLOR_FORCE").contains(ESCAPE));
    assert!(on_terminal(command(), 200).contains("\u{1b}[1mitem.seen\u{1b}[0m"));
    let mut plain = command();
    plain.env("NO_COLOR", "1");
    let plain = on_terminal(plain, 200);
    // Without its colours the text is the same.
    assert_eq!(plain, piped(""));
}

#[test]
fn columns_are_aligned_and_narrow_on_narrow_terminals() {
    let place = Place::new().0;
    place.emit_as(&["mia", "クッション", "zoë", "Ελένη"]);
    let (_, said, _) = place.run("tail log -n 5");
    let columns: Vec<usize> =
        said.lines().filter_map(|line| line.find("wide=1").map(|at| line[..at].width())).collect();
    assert_eq!(columns.len(), 4, "{said}");
    assert!(columns.iter().all(|column| *column == columns[0]), "{columns:?} in\n{said}");
    let mut command = place.command("tail log -n 5");
    command.env("NO_COLOR", "1");
    let narrow = on_terminal(command, 80);
    let line = narrow.lines().find(|line| line.contains("mia")).unwrap();
    assert!(line.width() <= 80, "{narrow}");
    assert!(!line.starts_with("20"), "{narrow}");
}
