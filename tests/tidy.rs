//! Holds the code to ARCHITECTURE.md, and the documents to the code, as far as text can show it.
//!
//! Comments, the contents of strings and test modules are blanked before code is looked at, and `use`
//! trees are expanded, so that `use std::{fs, io}` says `std::fs`. All offences are reported at once.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// No file of the library has this many lines.
const MAX_LINES: usize = 600;

/// What only some files may say, and which.
const ONLY: &[(&[&str], &[&str])] = &[
    (&["std::fs", "fs2", "rustix::fs"], &["src/storage/disk.rs"]),
    (&["SystemTime::now"], &["src/clock.rs"]),
    (&["Instant::now"], &["src/clock.rs", "src/wait.rs", "src/queue"]),
    (&["serde_json"], &["src/format", "src/harness/fuzz"]),
    (&["sha2"], &["src/chain.rs"]),
    (&["tracing_subscriber"], &["src/capture", "src/log.rs", "src/lib.rs", "src/harness/fuzz"]),
    (&["crate::harness"], &["src/harness", "src/lib.rs"]),
];

/// What some rooms never say.
const NEVER: &[(&[&str], &[&str])] = &[
    (&["src/writer"], &["tracing", "tracing_core", "tracing_subscriber", "crate::capture"]),
    (&["src/capture"], &["crate::storage", "crate::writer", "std::fs"]),
    (&["src/verify", "src/read"], &["crate::writer", "crate::queue", "crate::capture"]),
    (&["src/queue"], &["crate::writer", "crate::storage", "crate::capture", "crate::read", "crate::verify"]),
    (
        &["src/format", "src/chain.rs", "src/segment_name.rs"],
        &["crate::storage", "crate::writer", "crate::capture"],
    ),
];

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/durability.md",
    "docs/format.md",
    "docs/operations.md",
];

// ---- Rust, as text.

/// The code with comments and the contents of strings and characters blanked. Lines stay lines.
fn code_of(source: &str) -> String {
    let mut rest: Vec<char> = source.chars().rev().collect();
    let mut code = String::with_capacity(source.len());
    let mut in_word = false;
    while let Some(first) = rest.pop() {
        let second = rest.last().copied();
        match first {
            '/' if second == Some('/') => {
                code.push(' ');
                while rest.last().is_some_and(|next| *next != '\n') {
                    blank(&mut rest, &mut code);
                }
            }
            '/' if second == Some('*') => {
                code.push(' ');
                block_comment(&mut rest, &mut code);
            }
            '"' => {
                code.push('"');
                string(&mut rest, &mut code);
            }
            'r' if !in_word && raw_hashes(&rest).is_some() => {
                code.push(' ');
                raw_string(&mut rest, &mut code);
            }
            // A character, or else a lifetime.
            '\'' if second == Some('\\') || rest.iter().rev().nth(1) == Some(&'\'') => {
                code.push('\'');
                while let Some(next) = blank(&mut rest, &mut code) {
                    match next {
                        '\\' => drop(blank(&mut rest, &mut code)),
                        '\'' => break,
                        _ => {}
                    }
                }
            }
            other => code.push(other),
        }
        // `b` and `c` may stand before the `r` of a raw string; anything else makes it part of a word.
        let may_begin_raw = !in_word && matches!(first, 'b' | 'c');
        in_word = !may_begin_raw && (first.is_alphanumeric() || first == '_');
    }
    code
}

/// Takes a character and leaves a blank for it.
fn blank(rest: &mut Vec<char>, code: &mut String) -> Option<char> {
    let next = rest.pop()?;
    code.push(if next == '\n' { '\n' } else { ' ' });
    Some(next)
}

fn block_comment(rest: &mut Vec<char>, code: &mut String) {
    let mut depth = 1;
    blank(rest, code);
    while let Some(next) = blank(rest, code) {
        match (next, rest.last()) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => continue,
        }
        blank(rest, code);
        if depth == 0 {
            break;
        }
    }
}

fn string(rest: &mut Vec<char>, code: &mut String) {
    while let Some(next) = blank(rest, code) {
        match next {
            '\\' => drop(blank(rest, code)),
            '"' => break,
            _ => {}
        }
    }
}

/// How many `#` stand before the quote of a raw string whose `r` was just taken.
fn raw_hashes(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().rev().take_while(|next| **next == '#').count();
    (rest.iter().rev().nth(hashes) == Some(&'"')).then_some(hashes)
}

fn raw_string(rest: &mut Vec<char>, code: &mut String) {
    let hashes = raw_hashes(rest).unwrap_or_default();
    for _ in 0..=hashes {
        blank(rest, code);
    }
    while let Some(next) = blank(rest, code) {
        let closing = rest.iter().rev().take_while(|next| **next == '#').count();
        if next == '"' && closing >= hashes {
            for _ in 0..hashes {
                blank(rest, code);
            }
            break;
        }
    }
}

/// The code without what `#[cfg(test)]` stands before.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        let mut depth = 0;
        let end = item.char_indices().find(|(_, character)| {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(character, '}' | ';')
        });
        let (gone, after) = item.split_at(end.map_or(item.len(), |(at, _)| at + 1));
        kept.extend(gone.chars().filter(|character| *character == '\n'));
        rest = after;
    }
    kept + rest
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Mark(char),
}

/// The words and marks of the code, each with its line.
fn tokens(code: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let is_word = |character: char| character.is_alphanumeric() || character == '_';
            let (token, length) = if is_word(first) {
                let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
                (Token::Word(rest.chars().take_while(|character| is_word(*character)).collect()), length)
            } else if rest.starts_with("::") {
                (Token::Colons, 2)
            } else {
                (Token::Mark(first), first.len_utf8())
            };
            if token != Token::Mark(' ') {
                tokens.push((index + 1, token));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    tokens
}

/// A path that the code says, `use` trees expanded, from `crate` on where it is one of ours.
#[derive(Debug, PartialEq)]
struct Said {
    line: usize,
    path: Vec<String>,
}

fn paths(code: &str, module: &[String]) -> Vec<Said> {
    let tokens = tokens(code);
    let mut said = Vec::new();
    let mut at = 0;
    while let Some((_, token)) = tokens.get(at) {
        match token {
            Token::Word(word) => {
                let start = if word == "use" { at + 1 } else { at };
                at = tree(&tokens, start, word == "use", &[], &mut said).max(at + 1);
            }
            _ => at += 1,
        }
    }
    for said in &mut said {
        said.path = resolve(&said.path, module);
    }
    said
}

/// Reads one tree, or one plain path, and returns where it ends.
fn tree(
    tokens: &[(usize, Token)],
    mut at: usize,
    is_use: bool,
    before: &[String],
    said: &mut Vec<Said>,
) -> usize {
    let mut path = before.to_vec();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    loop {
        match tokens.get(at).map(|(_, token)| token) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Colons) => {}
            Some(Token::Mark('*')) if is_use => path.push("*".to_owned()),
            Some(Token::Mark('{')) if is_use => {
                at += 1;
                while !matches!(tokens.get(at).map(|(_, token)| token), None | Some(Token::Mark('}' | ';'))) {
                    at = tree(tokens, at, true, &path, said).max(at + 1);
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        let next = tokens.get(at).map(|(_, token)| token);
        let was_word = matches!(tokens.get(at - 1), Some((_, Token::Word(_))));
        if was_word && !matches!(next, Some(Token::Colons)) {
            break;
        }
    }
    if path.len() > before.len() {
        said.push(Said { line, path });
    }
    at
}

fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for (index, word) in path.iter().enumerate() {
        match word.as_str() {
            "super" if index == 0 => {
                whole = module.to_vec();
                whole.pop();
            }
            "super" => drop(whole.pop()),
            "self" if index == 0 => whole = module.to_vec(),
            "self" => {}
            _ => whole.push(word.clone()),
        }
    }
    whole
}

/// Whether a path goes through `what`, e.g. `std::fs::File` through `std::fs`.
fn goes_through(path: &[String], what: &str) -> bool {
    let what: Vec<&str> = what.split("::").collect();
    let from_start = matches!(what.first(), Some(&"crate" | &"std")) || what.len() == 1;
    let is_at = |start: usize| {
        what.iter().enumerate().all(|(i, word)| path.get(start + i).is_some_and(|p| p == word))
    };
    if from_start { is_at(0) } else { (0..path.len()).any(is_at) }
}

fn is_in(file: &str, rooms: &[&str]) -> bool {
    rooms
        .iter()
        .any(|room| file == *room || file.strip_prefix(room).is_some_and(|rest| rest.starts_with('/')))
}

/// `src/capture/layer.rs` is the module `crate::capture::layer`.
fn module_of(file: &str) -> Vec<String> {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = inside.split('/').filter(|part| !matches!(*part, "mod" | "lib"));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// What a source file must not say.
fn offences_in(file: &str, source: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let code = code_of(source);
    let shipped = if is_test_file(file) { String::new() } else { without_tests(&code) };
    for Said { line, path } in paths(&shipped, &module_of(file)) {
        for (whats, rooms) in ONLY.iter().filter(|(_, rooms)| !is_in(file, rooms)) {
            for what in whats.iter().filter(|what| goes_through(&path, what)) {
                offences.push(format!("{file}:{line}: says `{what}`, which only {} may", rooms.join(", ")));
            }
        }
        for (_, whats) in NEVER.iter().filter(|(rooms, _)| is_in(file, rooms)) {
            for what in whats.iter().filter(|what| goes_through(&path, what)) {
                offences.push(format!("{file}:{line}: says `{what}`, which this room never may"));
            }
        }
    }
    for (index, line) in code.lines().enumerate() {
        let tight: String = line.split_whitespace().collect();
        for bad in ["#[ignore", "#[allow(", "todo!", "unimplemented!"] {
            if tight.contains(bad) {
                offences.push(format!("{file}:{}: has `{bad}`", index + 1));
            }
        }
    }
    for (line, token) in tokens(&code) {
        if token == Token::Word("unsafe".to_owned()) {
            offences.push(format!("{file}:{line}: has `unsafe` code"));
        }
    }
    for (index, line) in source.lines().enumerate() {
        if line.contains(concat!("FIX", "ME")) {
            offences.push(format!("{file}:{}: something is left to be fixed", index + 1));
        }
    }
    offences
}

// ---- Documents, as text.

/// A document without its blocks of code.
fn prose_of(document: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in document.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    prose
}

/// Where the links of a document lead.
fn links_of(document: &str) -> Vec<String> {
    let prose = prose_of(document);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// The names under which the headings of a document can be linked to.
fn anchors_of(document: &str) -> BTreeSet<String> {
    let prose = prose_of(document);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
            .map(|character| if character == ' ' { '-' } else { character })
            .collect()
    };
    headings.map(slug).collect()
}

/// The file names that a document says in code style.
fn files_named_in(document: &str) -> BTreeSet<String> {
    let prose = prose_of(document);
    let is_path = |span: &&str| {
        let plain =
            span.chars().all(|character| character.is_ascii_alphanumeric() || "_./-".contains(character));
        let known = [".rs", ".md", ".py", ".toml"].iter().any(|extension| span.ends_with(extension));
        plain && (span.contains('/') || known)
    };
    let spans = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(is_path).map(str::to_owned).collect()
}

/// What stands between the line that begins with `start` and the next line that is `}`.
fn block<'a>(source: &'a str, start: &str) -> &'a str {
    let from = source.find(start).map_or("", |at| source.get(at..).unwrap_or_default());
    from.split("\n}").next().unwrap_or_default()
}

/// The variants of `Error`, the names of notices and the fields of `Stats`.
fn names_to_explain(error: &str, stats: &str) -> Vec<String> {
    let variants = block(error, "pub enum Error {").lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.trim_end_matches([',', '{', ' ']);
        let name = name.split('(').next()?;
        (name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric))
            .then(|| name.to_owned())
    });
    let notices = block(stats, "impl NoticeCode {")
        .lines()
        .filter_map(|line| Some(line.split_once("=> \"")?.1.trim_end_matches([',', '"']).to_owned()));
    let fields = block(stats, "pub struct Stats {")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("    pub ")?.split_once(':')?.0.to_owned()));
    variants.chain(notices).chain(fields).collect()
}

// ---- The checks.

struct Repository {
    root: PathBuf,
    offences: Vec<String>,
}

impl Repository {
    fn read(&mut self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap_or_else(|error| {
            self.offences.push(format!("{file}: cannot be read: {error}"));
            String::new()
        })
    }

    /// The Rust files below a directory.
    fn sources(&self, dir: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.root.join(dir)];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.extend(path.strip_prefix(&self.root).ok().map(|path| path.display().to_string()));
                }
            }
        }
        found.sort();
        found
    }

    fn check_sources(&mut self) {
        let sources = self.sources("src");
        if sources.len() < 20 {
            self.offences.push(format!("only {} source files were found", sources.len()));
        }
        for file in sources {
            let source = self.read(&file);
            self.offences.extend(offences_in(&file, &source));
            let lines = source.lines().count();
            if lines >= MAX_LINES {
                self.offences.push(format!("{file}: has {lines} lines; does it have one reason to exist?"));
            }
        }
        for file in ["tests", "examples"].iter().flat_map(|dir| self.sources(dir)).collect::<Vec<_>>() {
            if code_of(&self.read(&file)).contains("#[ignore") {
                self.offences.push(format!("{file}: ignores a test; what cannot run says so and is counted"));
            }
        }
    }

    fn check_map(&mut self) {
        let named = files_named_in(&self.read("ARCHITECTURE.md"));
        for file in named.iter().filter(|file| !self.root.join(file).exists()) {
            self.offences.push(format!("ARCHITECTURE.md: names `{file}`, which does not exist"));
        }
        for entry in fs::read_dir(self.root.join("src")).into_iter().flatten().flatten() {
            let file = format!("src/{}", entry.file_name().to_string_lossy());
            if !named.iter().any(|named| is_in(named, &[&file])) {
                self.offences.push(format!("ARCHITECTURE.md: does not name `{file}`"));
            }
        }
    }

    fn check_links(&mut self) {
        for document in DOCUMENTS {
            let text = self.read(document);
            let dir = Path::new(document).parent().map(Path::to_owned).unwrap_or_default();
            for link in links_of(&text) {
                let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
                let target = if file.is_empty() { PathBuf::from(document) } else { dir.join(file) };
                if !self.root.join(&target).exists() {
                    self.offences.push(format!("{document}: links to {file}, which does not exist"));
                } else if !anchor.is_empty()
                    && !anchors_of(&self.read(&target.to_string_lossy())).contains(anchor)
                {
                    self.offences.push(format!("{document}: links to {link}, which has no such heading"));
                }
            }
        }
    }

    fn check_explanations(&mut self) {
        let operations = self.read("docs/operations.md");
        let names = names_to_explain(&self.read("src/error.rs"), &self.read("src/stats.rs"));
        if names.len() < 40 {
            self.offences.push(format!("only {} errors, notices and counters were found", names.len()));
        }
        for name in names.iter().filter(|name| !operations.contains(&format!("`{name}`"))) {
            self.offences.push(format!("docs/operations.md: does not explain `{name}`"));
        }
    }

    fn check_readme(&mut self) {
        let readme = self.read("README.md");
        let example = self.read("examples/quickstart.rs");
        let program = example
            .lines()
            .skip_while(|line| line.starts_with("//!") || line.starts_with("#![") || line.is_empty());
        let program = program.collect::<Vec<_>>().join("\n");
        if program.is_empty() || !readme.contains(&program) {
            self.offences.push("README.md: its program is not that of examples/quickstart.rs".to_owned());
        }
    }
}

#[test]
fn the_code_and_the_documents_keep_to_the_map() {
    let mut repository = Repository { root: env!("CARGO_MANIFEST_DIR").into(), offences: Vec::new() };
    repository.check_sources();
    repository.check_map();
    repository.check_links();
    repository.check_explanations();
    repository.check_readme();
    let offences = repository.offences;
    assert!(offences.is_empty(), "{} offences:\n  {}\n", offences.len(), offences.join("\n  "));
}

// ---- The check of the check.

#[test]
fn offences_are_found_wherever_they_hide() {
    let expect = |file: &str, source: &str, parts: &[&str]| {
        let offences = offences_in(file, source);
        assert_eq!(offences.len(), parts.len(), "{file}: {source}\n{offences:#?}");
        for (offence, part) in offences.iter().zip(parts) {
            assert!(offence.contains(part), "{offence} should contain {part}");
        }
    };
    expect("src/log.rs", "use std::{io, fs::File};", &["src/log.rs:1: says `std::fs`"]);
    expect(
        "src/log.rs",
        "use std::{\n    collections::{BTreeMap},\n    fs,\n};",
        &["src/log.rs:3: says `std::fs`"],
    );
    expect("src/log.rs", "fn f() { drop(std::fs::read(p)); fs2::x(); }", &["`std::fs`", "`fs2`"]);
    expect("src/log.rs", "use rustix::{fs::{Mode, OFlags}, io};", &["`rustix::fs`", "`rustix::fs`"]);
    expect("src/log.rs", "let now = std::time::SystemTime::now();", &["`SystemTime::now`"]);
    expect("src/read/x.rs", "let now = Instant::now();", &["`Instant::now`"]);
    expect("src/writer/x.rs", "tracing::info!(a = 1);", &["`tracing`"]);
    expect("src/writer/x.rs", "use crate::{chain::Head, capture};", &["`crate::capture`"]);
    expect("src/capture/x.rs", "use super::super::writer::Writer;", &["`crate::writer`"]);
    expect("src/capture/mod.rs", "use super::{queue, storage::Disk};", &["`crate::storage`"]);
    expect("src/verify/x.rs", "fn f() -> crate::queue::Queue {}", &["`crate::queue`"]);
    expect("src/chain.rs", "use serde_json::Value;", &["`serde_json`"]);
    expect(
        "src/error.rs",
        "use sha2::Sha256;\nuse tracing_subscriber::Layer;",
        &["`sha2`", "`tracing_subscriber`"],
    );
    expect(
        "src/error.rs",
        "#[allow(dead_code)]\nunsafe fn f() { todo!() }",
        &[":1: has `#[allow(`", ":2: has `todo!`", "`unsafe`"],
    );
    expect("src/x/tests.rs", "#[test]\n#[ignore]\nfn f() {}", &[":2: has `#[ignore`"]);
    expect("src/error.rs", concat!("// FIX", "ME: later"), &["left to be fixed"]);
    // After a raw string, a character and a lifetime the code is still seen.
    expect(
        "src/log.rs",
        "fn f<'a>(x: &'a str) { g(br#\"\"/*\"#, '\"', b'\\''); std::fs::read(x) }",
        &["`std::fs`"],
    );
    expect(
        "src/log.rs",
        "#[cfg(test)]\nmod tests { fn f() { {} } }\nuse std::fs;",
        &["src/log.rs:3: says `std::fs`"],
    );
}

#[test]
fn the_innocent_are_left_alone() {
    for (file, source) in [
        ("src/storage/disk.rs", "use std::{fs, io};"),
        ("src/log.rs", "// std::fs\n/* unsafe /* todo!() */ std::fs */ /// `#[allow(x)]`\n"),
        ("src/log.rs", "const A: &str = \"std::fs \\\" unsafe\"; const B: &str = r#\"std::fs \" todo!\"#;"),
        ("src/log.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n    use serde_json as s;\n}\n"),
        ("src/log.rs", "#[cfg(test)]\nmod tests;\nfn unsafe_file() {}"),
        ("src/verify/tests/log.rs", "use crate::writer::Writer;"),
        ("src/capture/fields.rs", "let mut writer = Capped::new(out); writer.storage();"),
        ("src/capture/layer.rs", "use super::{rules::Rules, scope}; use crate::queue::Queue;"),
        ("src/queue/mod.rs", "let now = Instant::now(); crate::clock::Timestamp::now();"),
    ] {
        assert_eq!(offences_in(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn documents_are_read_as_people_read_them() {
    let text = "# A & B: `c`\n[x](y.md#z) [w](https://e.org/) `src/a.rs` `io::Error` `.ci/run` `a b/c`\n```text\n[no](no)\n# no\n```\n";
    assert_eq!(links_of(text), ["y.md#z"]);
    assert_eq!(anchors_of(text), BTreeSet::from(["a--b-c".to_owned()]));
    assert_eq!(files_named_in(text), BTreeSet::from(["src/a.rs".to_owned(), ".ci/run".to_owned()]));
    let names = names_to_explain(
        "pub enum Error {\n    /// Text.\n    #[error(\"x\")]\n    Io {\n        path: PathBuf,\n    },\n    NotAttached(String),\n}\n",
        "pub struct Stats {\n    /// Text.\n    pub durable: u64,\n}\nimpl NoticeCode {\n    Self::Low => \"low\",\n}\n",
    );
    assert_eq!(names, ["Io", "NotAttached", "low", "durable"]);
}
