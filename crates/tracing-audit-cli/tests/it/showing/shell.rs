//! Completions, manual pages and help.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::place::{Place, can_run, skip};

const COMMANDS: [&str; 14] = [
    "verify",
    "heads",
    "query",
    "tail",
    "show",
    "stats",
    "export",
    "report",
    "doctor",
    "hold",
    "forward",
    "demo",
    "completions",
    "man",
];

#[test]
fn completions_have_every_command_and_no_other() {
    let place = Place::new().0;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, said, error) = place.run(&format!("completions {shell}"));
        assert_eq!((code, error.as_str()), (0, ""));
        for command in COMMANDS {
            assert!(said.contains(command), "{shell}: {command}");
        }
        assert!(!said.contains("demo-writer"), "{shell}");
    }
    if !can_run("bash", &["-c", "true"]) {
        return skip("completions_have_every_command_and_no_other", "it needs bash");
    }
    let script = "source /dev/stdin && COMP_WORDS=(tracing-audit do) COMP_CWORD=1 && \
                  function=$(complete -p tracing-audit | sed 's/.*-F \\([^ ]*\\).*/\\1/') && \
                  $function tracing-audit do tracing-audit && echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    bash.stdin.take().unwrap().write_all(place.run("completions bash").1.as_bytes()).unwrap();
    let offered = String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(offered, "doctor\n");
}

#[test]
fn every_command_has_a_manual_page_that_renders() {
    let place = Place::new().0;
    let known = [("man", vec!["--warnings", "-l", "-"]), ("mandoc", vec!["-T", "ascii"])];
    let formatter =
        known.into_iter().find(|(program, _)| can_run("sh", &["-c", &format!("command -v {program}")]));
    for command in [&[""][..], &COMMANDS].concat() {
        let line = if command.is_empty() { "man".to_owned() } else { format!("man {command}") };
        let (code, page, error) = place.run(&line);
        assert_eq!((code, error.as_str()), (0, ""), "{line}");
        assert!(page.contains(".TH ") && page.contains(".SH DESCRIPTION"), "{page}");
        assert!(!page.contains("demo-writer"), "{line}");
        let Some((program, arguments)) = &formatter else { continue };
        let mut format = Command::new(program);
        format.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut format = format.spawn().unwrap();
        format.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let rendered = format.wait_with_output().unwrap();
        assert!(rendered.status.success() && rendered.stderr.is_empty(), "{line}: {rendered:?}");
        assert!(String::from_utf8_lossy(&rendered.stdout).contains("tracing-audit"), "{line}");
    }
    assert_eq!(place.run("man nothing").0, 2);
    if formatter.is_none() {
        skip("every_command_has_a_manual_page_that_renders", "rendering needs man or mandoc");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let place = Place::new().0;
    for command in ["tail", "show", "doctor", "demo"] {
        let (code, said, _) = place.run(&format!("{command} --help"));
        assert!(
            code == 0 && said.contains("Examples:\n  tracing-audit ") && said.contains("Exit codes:"),
            "{said}"
        );
    }
}
