//! The output for each kind of tampering.

use std::fs;

use super::{
    corpus::CHANGES,
    logs::{Scene, masked},
};

/// The output of `verify` for each change, with what differs between runs masked.
#[test]
fn each_kind_of_tampering_is_printed_as_expected() {
    let mut printed = String::new();
    for (what, change) in CHANGES {
        let scene = Scene::new();
        change(&scene);
        let (code, text, said) = scene.run(&["verify", "log"]);
        assert_eq!(said, "", "{what}");
        assert!(!text.contains('\u{1b}'), "{what}: {text:?}");
        printed.push_str(&format!("==== {what}: exit code {code}\n{}\n", masked(&text)));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/verifying/findings.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, &printed).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap();
    for (printed, expected) in printed.split("==== ").zip(expected.split("==== ")) {
        assert_eq!(printed, expected);
    }
    assert_eq!(printed.len(), expected.len());
}

#[test]
fn a_damaged_place_is_shown_with_the_records_around_it() {
    let scene = Scene::new();
    scene.edit(0, 2, |lines| lines[4] = lines[4].replace("mia", "eve"));
    let (code, text, _) = scene.run(&["verify", "log"]);
    assert_eq!(code, 1);
    assert!(text.starts_with("FAIL: "), "{text}");
    let place =
        text.lines().position(|line| line.contains("audit-000-00000002.jsonl, line 5 (byte ")).unwrap();
    let lines: Vec<&str> = text.lines().skip(place + 1).take(3).collect();
    assert!(
        lines[0].contains("before") && lines[0].contains("item.seen") && lines[0].contains("n=2"),
        "{text}"
    );
    assert!(lines[1].contains("here") && lines[1].contains("\"actor\":\"eve\""), "{text}");
    assert!(lines[2].contains("after") && lines[2].contains("n=4"), "{text}");
}

#[test]
fn twenty_findings_of_a_kind_are_printed_and_the_others_counted() {
    let scene = Scene::new();
    scene.edit(0, 2, |lines| lines[1..9].iter_mut().for_each(|line| *line = line.replace("mia", "eve")));
    scene.edit(0, 1, |lines| lines[2..11].iter_mut().for_each(|line| *line = line.replace("mia", "eve")));
    scene.edit(0, 3, |lines| lines[1..10].iter_mut().for_each(|line| *line = line.replace("mia", "eve")));
    let (_, text, _) = scene.run(&["verify", "log"]);
    let edited = text.split("  edited (").nth(1).unwrap();
    let edited = edited.split("\n  - and ").collect::<Vec<_>>();
    assert_eq!(edited[0].matches("\n  - ").count(), 20, "{text}");
    assert!(edited[1].starts_with("6 more\n"), "{text}");
    assert!(text.contains("edited (26)"), "{text}");
}

/// Texts of a record may come from an attacker who made the program log them.
#[test]
fn hostile_records_beside_damage_cannot_move_a_terminal() {
    use tracing_subscriber::prelude::*;
    let scene = Scene::new();
    let log = tracing_audit::AuditLog::builder(scene.log()).stderr(false).open().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for hostile in ["\u{1b}[2J\u{1b}]0;x\u{7}", "\u{202e}evil\u{2066}", "a\r\nPASS: fine\n", "\u{9b}31m"]
        {
            tracing::info!(target: "audit", action = hostile, actor = hostile, big = "x".repeat(50_000), "{hostile}");
        }
    });
    log.close().unwrap();
    let path = fs::read_dir(scene.log()).unwrap().map(|entry| entry.unwrap().path());
    let hostile = |text: &str| text.contains("evil");
    let path =
        path.into_iter().find(|path| fs::read_to_string(path).is_ok_and(|text| hostile(&text))).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in [("evil", "evjl"), ("evil", "\u{202e}\u{9b}2J\u{1b}[31m")] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let (code, printed, said) = scene.run(&["verify", "log"]);
        assert_eq!((code, said.as_str()), (1, ""));
        let is_hostile = |character: char| {
            (character.is_control() && character != '\n')
                || ('\u{2028}'..='\u{202e}').contains(&character)
                || ('\u{2066}'..='\u{2069}').contains(&character)
        };
        assert!(!printed.contains(is_hostile), "{printed:?}");
        assert!(!printed.lines().any(|line| line.starts_with("PASS")), "{printed}");
        assert!(printed.contains("more bytes") && printed.len() < 20_000, "{printed}");
    }
}
