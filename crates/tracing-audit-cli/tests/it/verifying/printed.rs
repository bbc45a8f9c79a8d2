//! Output about unconfirmed and hostile records, and the arguments that are accepted.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, process::Command};

use super::logs::{Scene, copy_files, said};
use crate::showing::crafted::Crafted;

fn run(log: &Crafted, arguments: &[&str]) -> (i32, String, String) {
    said(Command::new(env!("CARGO_BIN_EXE_tracing-audit")).arg("verify").arg(log.path()).args(arguments))
}

#[test]
fn an_unconfirmed_record_beside_damage_is_marked() {
    let mut log = Crafted::new();
    for _ in 0..3 {
        log.event(r#","outcome":"success""#);
    }
    log.line(r#""kind":"unconfirmed","unconfirmed":{"reason":"timeout","records":[[3,3]]},"durable":5"#);
    let copy = tempfile::tempdir().unwrap();
    copy_files(&log.path(), copy.path());
    let text = fs::read_to_string(log.file()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[3] = lines[3].replace("success", "failure");
    fs::write(log.file(), lines.join("\n") + "\n").unwrap();
    let (code, text, _) = run(&log, &[]);
    let before = text.lines().find(|line| line.contains("before  ")).unwrap();
    assert!(code == 1 && before.contains("000/3 ") && before.contains("UNCONFIRMED"), "{text}");
    let after = text.lines().find(|line| line.contains("after   ")).unwrap();
    assert!(after.contains("000/5 ") && !after.contains("UNCONFIRMED"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&log, &["--json"]).1).unwrap();
    let finding = &json["findings"][0];
    let said = ["before", "here", "after"].map(|name| finding[name]["unconfirmed"].as_bool().unwrap());
    assert_eq!(said, [true, false, false]);

    // The first difference between a log and its copy.
    fs::write(log.file(), fs::read_to_string(copy.path().join("audit-000-00000001.jsonl")).unwrap()).unwrap();
    let path = copy.path().join("audit-000-00000001.jsonl");
    lines[2] = lines[2].replace("success", "failure");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let against = ["--against", copy.path().to_str().unwrap(), "--json"];
    let (code, text, _) = run(&log, &against);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let parting = &json["against"]["chains"][0]["parting"];
    assert!(code == 1 && parting["log"]["unconfirmed"] == true, "{text}");
    let (_, text, _) = run(&log, &against[..2]);
    assert!(text.contains("): UNCONFIRMED {\"seq\":3,"), "{text}");
}

#[test]
fn verify_json_cannot_move_a_terminal() {
    let scene = Scene::new();
    scene.edit(0, 2, |lines| lines[4] = lines[4].replace("mia", "e\u{9b}31m\u{202e}\u{7f}"));
    let (code, text, _) = scene.run(&["verify", "log", "--json"]);
    assert!(code == 1 && text.is_ascii() && !text.contains('\u{7f}'), "{text:?}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let here = json["findings"][0]["here"]["text"].as_str().unwrap();
    assert!(here.contains("e\u{9b}31m\u{202e}\u{7f}"), "{here:?}");
}

#[test]
fn a_copy_that_differs_from_an_unclean_log_has_its_own_message() {
    let scene = Scene::new();
    copy_files(&scene.log(), &scene.path("copy"));
    scene.edit(1, 1, |lines| drop(lines.pop()));
    fs::remove_dir_all(scene.log().join("control")).unwrap();
    assert_eq!(scene.run(&["verify", "log"]).0, 3);
    let path = scene.path("copy/audit-000-00000002.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("mia", "eve", 1)).unwrap();
    let (code, text, _) = scene.run(&["verify", "log", "--against", "copy"]);
    let expected = "FAIL: the copy differs from the log, which did not end in order either\n";
    assert!(code == 1 && text.starts_with(expected), "{text}");
}

#[test]
fn a_copy_of_another_log_fails_and_one_without_common_records_does_not_pass() {
    let (scene, other) = (Scene::new(), Scene::new());
    copy_files(&other.log(), &scene.path("copy"));
    let (code, text, _) = scene.run(&["verify", "log", "--against", "copy"]);
    assert!(code == 1 && text.contains("is of another log"), "{text}");
    // The copy has only records that retention removed from the log.
    fs::remove_dir_all(scene.path("copy")).unwrap();
    fs::create_dir(scene.path("copy")).unwrap();
    for name in ["audit-000-00000001.jsonl", "audit-000-00000002.jsonl"] {
        fs::rename(scene.log().join(name), scene.path("copy").join(name)).unwrap();
    }
    let (_, text, _) = scene.run(&["verify", "log", "--against", "copy"]);
    assert!(text.contains("nothing could be compared"), "{text}");
    copy_files(&other.log(), &scene.path("whole"));
    fs::create_dir(scene.path("empty")).unwrap();
    // A copy with one segment of which no bytes count.
    fs::write(scene.path("empty/audit-000-00000001.jsonl"), "").unwrap();
    let (code, text, _) = scene.run(&["verify", "whole", "--against", "empty"]);
    assert!(code == 2 && text.starts_with("UNCOMPARED: "), "{code} {text}");
    assert!(text.contains("nothing could be compared"), "{text}");
    assert_eq!(scene.run(&["verify", "whole", "--against", "empty", "-q"]).1, "uncompared\n");
}

#[test]
fn directories_may_have_any_name_and_take_no_options_of_copies() {
    let scene = Scene::new();
    let named = scene.dir.path().join(OsStr::from_bytes(b"l\xffg"));
    copy_files(&scene.log(), &named);
    let output = scene.command(&["verify", "-q"]).arg(&named).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"intact\n".as_slice()));
    let (code, _, said) = scene.run(&["verify", "./2026-11-29T10:00"]);
    assert!(code == 2 && said.contains("there is no audit log at ./2026-11-29T10:00"), "{said}");
    for option in ["--of", "--name"] {
        for logs in [&["log"][..], &["log", "log"][..]] {
            let (code, _, said) = scene.run(&[&["verify", option, "log"][..], logs].concat());
            assert!(
                code == 2 && said.contains("--of and --name are for a forwarded copy"),
                "{option}: {said}"
            );
        }
    }
}

#[test]
fn the_number_of_threads_is_bounded() {
    let scene = Scene::new();
    for threads in ["0", "1025", "100000"] {
        let (code, _, said) = scene.run(&["verify", "log", "--threads", threads]);
        assert!(code == 2 && said.contains("1..=1024"), "{code} {said}");
    }
    assert_eq!(scene.run(&["verify", "log", "--threads", "2"]).0, 0);
}
