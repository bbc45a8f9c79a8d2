//! `verify --against`.

use std::{fs, process::Command};

use super::logs::{Scene, copy_files};
use crate::place::skip;

fn against(scene: &Scene) -> (i32, String, String) {
    scene.run(&["verify", "log", "--against", "copy"])
}

fn scene() -> Scene {
    let scene = Scene::new();
    copy_files(&scene.log(), &scene.path("copy"));
    scene
}

/// Compresses a segment of the copy.
fn pack(scene: &Scene, program: &str, arguments: &[&str], name: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).arg(scene.path("copy").join(name)).status().is_ok_and(|status| status.success())
}

#[test]
fn a_copy_is_compared_plain_or_compressed() {
    let test = "a_copy_is_compared_plain_or_compressed";
    let scene = scene();
    let (code, text, said) = against(&scene);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(
        text.contains(
            "the copy copy has the same records, as far as it goes\n  chain 000: 35 records in both\n"
        ),
        "{text}"
    );
    if !pack(&scene, "gzip", &[], "audit-000-00000001.jsonl") {
        return skip(test, "there is no gzip");
    }
    if !pack(&scene, "zstd", &["-q", "--rm"], "audit-000-00000002.jsonl") {
        return skip(test, "there is no zstd");
    }
    let (code, packed, said) = against(&scene);
    assert_eq!((code, packed, said.as_str()), (0, text, ""));
    assert!(!scene.path("copy/audit-000-00000002.jsonl").exists());
    // A change in the log, which its own hashes show too.
    scene.edit(0, 2, |lines| lines[4] = lines[4].replace("mia", "eve"));
    let (code, text, _) = against(&scene);
    assert!(code == 1 && text.contains("\n    record 17 differs in the copy\n"), "{text}");
    assert!(text.contains("      copy  audit-000-00000002.jsonl.zst, line 5 (byte "), "{text}");
    // A truncated compressed file is named.
    let path = scene.path("copy/audit-000-00000001.jsonl.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let (code, _, said) = against(&scene);
    assert!(code == 2 && said.contains("cannot read copy/audit-000-00000001.jsonl.gz"), "{said}");
}

#[test]
fn the_first_difference_from_a_copy_is_reported() {
    let edit = |change: fn(&mut Vec<String>)| {
        let scene = scene();
        let path = scene.path("copy/audit-000-00000002.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        change(&mut lines);
        fs::write(path, lines.concat()).unwrap();
        let (code, text, _) = against(&scene);
        assert!(
            code == 1 && text.starts_with("FAIL: every durable record is there and unaltered, but the copy"),
            "{text}"
        );
        text
    };
    let text = edit(|lines| lines[4] = lines[4].replace("mia", "eve"));
    assert!(text.contains("record 17 differs in the copy"), "{text}");
    let text = edit(|lines| drop(lines.remove(4)));
    assert!(text.contains("records 17 to 17 are missing in the copy"), "{text}");
    let text = edit(|lines| lines.insert(4, lines[3].clone()));
    assert!(text.contains("record 16 of the copy comes after record 16"), "{text}");
    let text = edit(|lines| lines[4] = "{}\n".to_owned());
    assert!(text.contains("a line of the copy is not a record"), "{text}");
}

/// A record that only the copy has was removed from the log, unless it is before the log's first one, where retention removes.
#[test]
fn a_log_that_was_truncated_after_the_copy_is_found() {
    let scene = scene();
    fs::remove_dir_all(scene.log().join("control")).unwrap();
    fs::remove_file(scene.segment(0, 3)).unwrap();
    let (code, text, _) = against(&scene);
    assert_eq!(code, 1);
    assert!(
        text.contains("the log ends before record 24, but in the copy records up to 35 are durable"),
        "{text}"
    );
    assert!(text.contains("only in the copy: records 24 to 35"), "{text}");
    fs::remove_file(scene.segment(1, 1)).unwrap();
    let (_, text, _) = against(&scene);
    assert!(text.contains("the log does not have the chain, and the copy has its records 1 to "), "{text}");
}

/// An archive is older than its log, or has records that retention removed.
#[test]
fn records_that_only_one_has_at_an_end_are_reported_but_no_fault() {
    let scene = scene();
    fs::remove_file(scene.path("copy/audit-000-00000003.jsonl")).unwrap();
    let (code, text, _) = against(&scene);
    assert!(code == 0 && text.contains("only in the log: records 24 to 35"), "{text}");
    fs::remove_file(scene.path("copy/audit-000-00000001.jsonl")).unwrap();
    let (code, text, _) = against(&scene);
    assert!(code == 0 && text.contains("only in the log: records 1 to 12"), "{text}");
    let (code, text, _) = scene.run(&["verify", "log", "--against", "copy", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert_eq!(report["against"]["parts"], false);
    assert_eq!(report["against"]["chains"][0]["only_in_log"][0][1], 12);
    let (code, _, said) = scene.run(&["verify", "log", "--against", "nowhere"]);
    assert!(code == 2 && said.contains("cannot list nowhere"), "{said}");
}
