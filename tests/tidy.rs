//! Checks the code against ARCHITECTURE.md, and the documents against the code.
//!
//! The code is parsed, so that comments and strings do not count. Code that is compiled only for tests and simulations
//! may use more than code that ships. All offences are reported at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Attribute, ItemExternCrate, ItemMod, Meta, MetaList, PathSegment, Token, UseGlob, UseName, UsePath,
    UseRename, parse_str,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// Files of the library and of its tests must have fewer lines than this.
const MAX_LINES: usize = 600;

/// Paths that only some files may use, and these files.
const ONLY: &[(&[&str], &[&str])] = &[
    (&["std::fs", "fs2", "rustix::fs"], &["src/storage/disk"]),
    (&["SystemTime::now"], &["src/clock.rs"]),
    (&["Instant::now"], &["src/clock.rs", "src/wait.rs", "src/queue"]),
    (&["serde_json"], &["src/format", "testing/harness/fuzz"]),
    (&["sha2"], &["src/chain.rs"]),
    (&["tracing_subscriber"], &["src/capture", "src/log.rs", "src/lib.rs", "testing/harness/fuzz"]),
    (&["crate::harness"], &["testing/harness", "src/lib.rs"]),
    (&["crate::writer"], &["src/writer", "src/wiring.rs", "testing/harness"]),
];

/// Files, and the paths that they must not use.
const NEVER: &[(&[&str], &[&str])] = &[
    (&["src/writer"], &["tracing", "tracing_core", "tracing_subscriber", "crate::capture"]),
    (&["src/capture"], &["crate::storage", "std::fs"]),
    (&["src/chain_reader"], &["crate::queue", "crate::capture", "crate::read", "crate::verify"]),
    (&["src/read"], &["crate::queue", "crate::capture", "crate::verify"]),
    (&["src/verify"], &["crate::queue", "crate::capture", "crate::read"]),
    (&["src/queue"], &["crate::storage", "crate::capture", "crate::read", "crate::verify"]),
    (&["src/format", "src/chain.rs", "src/segment_name.rs"], &["crate::storage", "crate::capture"]),
];

/// Sequences of tokens that must not appear anywhere in the code, including tests.
const FORBIDDEN: &[&[&str]] =
    &[&["#", "[", "ignore"], &["#", "[", "allow", "("], &["todo", "!"], &["unimplemented", "!"], &["unsafe"]];

/// The only files of `src` that may mention simulations.
const SIMULATED: &[&str] = &["src/lib.rs", "src/clock.rs", "src/notify.rs", "src/storage/mod.rs"];

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/README.md",
    "docs/comparison.md",
    "docs/confirm.md",
    "docs/durability.md",
    "docs/events.md",
    "docs/filters.md",
    "docs/format.md",
    "docs/operations.md",
    "docs/reading.md",
    "docs/settings.md",
    "docs/testing.md",
    "examples/README.md",
];

// ---- Rust.

/// Appends tokens with their lines. A group is appended as its opening delimiter and its content.
fn flatten(tokens: TokenStream, flat: &mut Vec<(usize, String)>) {
    for token in tokens {
        let line = token.span().start().line;
        if let TokenTree::Group(group) = token {
            flat.push((line, group.to_string().chars().take(1).collect()));
            flatten(group.stream(), flat);
        } else {
            flat.push((line, token.to_string()));
        }
    }
}

/// Returns the tokens of a source file, including tests and macros.
fn tokens_of(source: &str) -> syn::Result<Vec<(usize, String)>> {
    let mut flat = Vec::new();
    flatten(source.parse()?, &mut flat);
    Ok(flat)
}

/// Returns the lines on which this sequence of tokens begins.
fn lines_with(tokens: &[(usize, String)], sought: &[&str]) -> Vec<usize> {
    let begins = |(index, (line, _)): (usize, &(usize, String))| {
        let here = tokens.iter().skip(index).take(sought.len()).map(|(_, token)| token);
        here.eq(sought).then_some(*line)
    };
    tokens.iter().enumerate().filter_map(begins).collect()
}

/// Collects every path in the shipped code, with its line. `use` trees are expanded, and paths to our own modules start
/// with `crate`.
struct Paths {
    module: Vec<String>,
    /// The path being read, of a `use` tree or in a macro.
    tree: Vec<Ident>,
    is_test: bool,
    said: Vec<(usize, Vec<String>)>,
}

impl Paths {
    fn of(source: &str, module: Vec<String>) -> syn::Result<Vec<(usize, Vec<String>)>> {
        let mut paths = Self { module, tree: Vec::new(), is_test: false, said: Vec::new() };
        paths.visit_file(&syn::parse_file(source)?);
        Ok(paths.said)
    }

    fn say<'a>(&mut self, path: impl IntoIterator<Item = &'a Ident>) {
        let mut whole = Vec::new();
        let mut line = 0;
        for (index, word) in path.into_iter().enumerate() {
            line = word.span().start().line;
            match word.to_string().as_str() {
                "super" | "self" if index == 0 => whole.clone_from(&self.module),
                "super" | "self" => {}
                other => whole.push(other.to_owned()),
            }
            if word == "super" {
                whole.pop();
            }
        }
        if !self.is_test {
            self.said.push((line, whole));
        }
    }

    /// Records the path of the tree if it has more than `kept` words, and cuts it back to these.
    fn say_tree(&mut self, kept: usize) {
        let path = self.tree.clone();
        if path.len() > kept {
            self.say(&path);
        }
        self.tree.truncate(kept);
    }

    /// Reads the tokens of a macro. Words with `::` between them count as a path, and a group after `::` as a tree.
    fn read(&mut self, tokens: TokenStream) {
        let kept = self.tree.len();
        let mut colons = 0;
        for token in tokens {
            if matches!(&token, TokenTree::Punct(mark) if mark.as_char() == ':') {
                colons += 1;
                continue;
            }
            if colons != 2 {
                self.say_tree(kept);
            }
            colons = 0;
            match token {
                // A path does not begin with a keyword.
                TokenTree::Ident(word) if parse_str::<PathSegment>(&word.to_string()).is_ok() => {
                    self.tree.push(word);
                }
                TokenTree::Group(group) => {
                    self.read(group.stream());
                    self.tree.truncate(kept);
                }
                _ => self.say_tree(kept),
            }
        }
        self.say_tree(kept);
    }
}

/// Visits a node and then restores `Paths`, because the attributes of a node, such as `#[cfg(test)]`, come first and
/// apply to that node only.
macro_rules! nodes_with_attributes {
    ($($visit:ident $Node:ident),*) => {
        $(fn $visit(&mut self, node: &'ast syn::$Node) {
            let was_test = self.is_test;
            visit::$visit(self, node);
            self.is_test = was_test;
        })*
    };
}

impl<'ast> Visit<'ast> for Paths {
    nodes_with_attributes!(
        visit_item Item, visit_impl_item ImplItem, visit_trait_item TraitItem, visit_stmt Stmt, visit_expr Expr,
        visit_arm Arm, visit_pat Pat, visit_field Field, visit_field_pat FieldPat, visit_field_value FieldValue,
        visit_variant Variant, visit_fn_arg FnArg, visit_generic_param GenericParam
    );

    fn visit_attribute(&mut self, node: &'ast Attribute) {
        self.is_test |=
            node.path().is_ident("cfg") && node.parse_args().is_ok_and(|predicate| !may_ship(&predicate));
        visit::visit_attribute(self, node);
    }

    fn visit_item_mod(&mut self, node: &'ast ItemMod) {
        self.module.push(node.ident.to_string());
        visit::visit_item_mod(self, node);
        self.module.pop();
    }

    fn visit_item_extern_crate(&mut self, node: &'ast ItemExternCrate) {
        visit::visit_item_extern_crate(self, node);
        self.say([&node.ident]);
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        self.say(node.segments.iter().map(|segment| &segment.ident));
        visit::visit_path(self, node);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.read(tokens.clone());
    }

    fn visit_use_path(&mut self, node: &'ast UsePath) {
        self.tree.push(node.ident.clone());
        self.visit_use_tree(&node.tree);
        self.tree.pop();
    }

    fn visit_use_name(&mut self, node: &'ast UseName) {
        self.tree.push(node.ident.clone());
        self.say_tree(self.tree.len() - 1);
    }

    fn visit_use_rename(&mut self, node: &'ast UseRename) {
        self.tree.push(node.ident.clone());
        self.say_tree(self.tree.len() - 1);
    }

    fn visit_use_glob(&mut self, _: &'ast UseGlob) {
        let path = self.tree.clone();
        self.say(&path);
    }
}

/// Returns whether the predicate of a `cfg` can hold in a build that is neither for tests nor for simulations.
fn may_ship(predicate: &Meta) -> bool {
    let parts = |list: &MetaList| {
        list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default()
    };
    match predicate {
        Meta::Path(flag) => !flag.is_ident("test") && !flag.is_ident("audit_simulation"),
        Meta::List(list) if list.path.is_ident("any") => parts(list).iter().any(may_ship),
        Meta::List(list) if list.path.is_ident("all") => parts(list).iter().all(may_ship),
        _ => true,
    }
}

/// Returns whether a path goes through `what`, as `std::fs::File` goes through `std::fs`.
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

/// Returns the module of a file: `src/capture/layer.rs` is `crate::capture::layer`.
fn module_of(file: &str) -> Vec<String> {
    let mounted = file.replace("testing/simulation", "src/storage/sim");
    let inside = mounted.trim_start_matches("src/").trim_start_matches("testing/").trim_end_matches(".rs");
    let parts = inside.split('/').filter(|part| !matches!(*part, "mod" | "lib"));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

/// Returns whether a file is a test, which may use anything. The harness and the simulation are not: a simulation that
/// read the real clock would not be repeatable.
fn is_test_file(file: &str) -> bool {
    let is_test = is_in(file, &["testing"]) && !is_in(file, &["testing/harness", "testing/simulation"]);
    is_test || file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// Returns the offences in a source file.
fn offences_in(file: &str, source: &str) -> Vec<String> {
    match (tokens_of(source), Paths::of(source, module_of(file))) {
        (Ok(tokens), Ok(paths)) => {
            let paths = if is_test_file(file) { Vec::new() } else { paths };
            [foreign(file, &paths), forbidden(file, &tokens, source)].concat()
        }
        (Err(error), _) | (_, Err(error)) => {
            vec![format!("{file}:{}: cannot be parsed: {error}", error.span().start().line)]
        }
    }
}

fn foreign(file: &str, paths: &[(usize, Vec<String>)]) -> Vec<String> {
    let mut offences = Vec::new();
    for (line, path) in paths {
        for (whats, rooms) in ONLY.iter().filter(|(_, rooms)| !is_in(file, rooms)) {
            for what in whats.iter().filter(|what| goes_through(path, what)) {
                offences.push(format!("{file}:{line}: says `{what}`, which only {} may", rooms.join(", ")));
            }
        }
        for (_, whats) in NEVER.iter().filter(|(rooms, _)| is_in(file, rooms)) {
            for what in whats.iter().filter(|what| goes_through(path, what)) {
                offences.push(format!("{file}:{line}: says `{what}`, which this room never may"));
            }
        }
    }
    offences
}

fn forbidden(file: &str, tokens: &[(usize, String)], source: &str) -> Vec<String> {
    let mut offences = Vec::new();
    for sought in FORBIDDEN {
        let lines = lines_with(tokens, sought).into_iter();
        offences.extend(lines.map(|line| format!("{file}:{line}: has `{}`", sought.concat())));
    }
    if is_in(file, &["src"]) && !is_in(file, SIMULATED) {
        let lines = lines_with(tokens, &["audit_simulation"]).into_iter();
        offences.extend(lines.map(|line| {
            format!("{file}:{line}: says `audit_simulation`, which only {} may", SIMULATED.join(", "))
        }));
    }
    for (index, line) in source.lines().enumerate() {
        if line.contains(concat!("FIX", "ME")) {
            offences.push(format!("{file}:{}: something is left to be fixed", index + 1));
        }
    }
    offences
}

// ---- Documents, as text.

/// Returns a document without its code blocks.
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

/// Parses the definition of a label: `[label]: target`.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// Returns the targets of the links in a document, and of the definitions of labels, without URLs.
fn links_of(document: &str) -> Vec<String> {
    let prose = prose_of(document);
    let inline = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let defined = prose.lines().filter_map(definition).map(|(_, target)| target);
    inline.chain(defined).filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// Returns the labels that a document links to, as `[text][label]`, but does not define.
fn undefined_labels_of(document: &str) -> Vec<String> {
    let prose = prose_of(document);
    let defined: BTreeSet<&str> = prose.lines().filter_map(definition).map(|(label, _)| label).collect();
    let used = prose.split("][").skip(1).filter_map(|rest| Some(rest.split_once(']')?.0));
    used.filter(|label| !defined.contains(label)).map(str::to_owned).collect()
}

/// Returns the anchors of the headings in a document.
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

/// Returns the file names that a document has in code style.
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

/// Returns the text from the line that begins with `start` to the next line that is `}`.
fn block<'a>(source: &'a str, start: &str) -> &'a str {
    let from = source.find(start).map_or("", |at| source.get(at..).unwrap_or_default());
    from.split("\n}").next().unwrap_or_default()
}

/// Returns the variants of `Error`, the names of notices and the fields of `Stats`.
fn names_to_explain(error: &str, stats: &str) -> Vec<String> {
    let variants = block(error, "pub enum Error {").lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.trim_end_matches([',', '{', ' ']);
        let name = name.split('(').next()?;
        (name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric))
            .then(|| name.to_owned())
    });
    // The table of names ends with the first line that begins with a bracket.
    let notices = block(stats, "named!(NoticeKind").split("\n]").next().unwrap_or_default();
    let notices = notices
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

    /// Returns the Rust files below a directory.
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
        let sources = [self.sources("src"), self.sources("testing")].concat();
        if sources.len() < 100 {
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
        for file in [self.sources("tests"), self.sources("examples"), self.sources("crates")].concat() {
            let tokens = tokens_of(&self.read(&file)).unwrap_or_default();
            if !lines_with(&tokens, &["#", "[", "ignore"]).is_empty() {
                self.offences.push(format!("{file}: ignores a test; what cannot run says so and is counted"));
            }
        }
    }

    /// Checks that no two files of the library have the same name, so that a name in an editor tab or a backtrace is
    /// enough.
    fn check_names(&mut self) {
        let mut seen = BTreeMap::new();
        for file in self.sources("src").into_iter().filter(|file| !file.ends_with("/mod.rs")) {
            let name = Path::new(&file).file_name().map(ToOwned::to_owned);
            if let Some(other) = seen.insert(name, file.clone()) {
                self.offences.push(format!("{file}: has the same name as {other}"));
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
            for label in undefined_labels_of(&text) {
                self.offences.push(format!("{document}: links to [{label}], which it does not define"));
            }
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

    fn check_programs(&mut self) {
        let login = "crates/tracing-audit-test/tests/login.rs";
        for (document, file) in [("README.md", "examples/quickstart.rs"), ("docs/testing.md", login)] {
            let example = self.read(file);
            let program = example
                .lines()
                .skip_while(|line| line.starts_with("//!") || line.starts_with("#![") || line.is_empty());
            let program = program.collect::<Vec<_>>().join("\n");
            if program.is_empty() || !self.read(document).contains(&program) {
                self.offences.push(format!("{document}: does not show the program of {file}"));
            }
        }
        // The blocks that no doctest compiles are a part of that file.
        let (readme, login) = (self.read("README.md"), self.read(login));
        let mut parts = readme.split("```rs\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
        if !readme.contains("```rs\n") || !parts.all(|part| login.contains(part)) {
            self.offences.push("README.md: does not show a part of the tests of the kit".to_owned());
        }
    }
}

#[test]
fn the_code_and_the_documents_keep_to_the_map() {
    let mut repository = Repository { root: env!("CARGO_MANIFEST_DIR").into(), offences: Vec::new() };
    repository.check_sources();
    repository.check_names();
    repository.check_map();
    repository.check_links();
    repository.check_explanations();
    repository.check_programs();
    let offences = repository.offences;
    assert!(offences.is_empty(), "{} offences:\n  {}\n", offences.len(), offences.join("\n  "));
}

// ---- Tests of the checks.

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
    expect("src/log.rs", "fn f() { let now = std::time::SystemTime::now(); }", &["`SystemTime::now`"]);
    expect("src/read/x.rs", "fn f() { let now = Instant::now(); }", &["`Instant::now`"]);
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
        &[":1: has `#[allow(`", ":2: has `todo!`", ":2: has `unsafe`"],
    );
    expect("testing/x.rs", "use std::fs;\n#[test]\n#[ignore]\nfn f() {}", &[":3: has `#[ignore`"]);
    expect("src/error.rs", concat!("// FIX", "ME: later"), &["left to be fixed"]);
    // Code after a raw string, a character and a lifetime is still checked.
    expect(
        "src/log.rs",
        "fn f<'a>(x: &'a str) { g(br#\"\"/*\"#, '\"', b'\\''); std::fs::read(x) }",
        &["`std::fs`"],
    );
    expect(
        "src/log.rs",
        "#[cfg(test)]\nmod tests { fn f() { {} } }\nuse std::fs;",
        &["log.rs:3: says `std::fs`"],
    );
    // Macros, attributes, types, nested modules, and code beside a test.
    expect("src/log.rs", "fn f() { format!(\"{}\", std::fs::read(a, b::c)); }", &["`std::fs`"]);
    expect("src/log.rs", "m! { use ::std::{io, fs::{File}}; todo!() }", &["`std::fs`", "`todo!`"]);
    expect("src/writer/x.rs", "#[tracing::instrument]\nfn f() {}", &["src/writer/x.rs:1: says `tracing`"]);
    expect("src/log.rs", "struct A<T = Vec<std::fs::File>>(T);", &["`std::fs`"]);
    expect(
        "src/log.rs",
        "extern crate fs2; use sha2 as s; use std::fs::*;",
        &["`fs2`", "`sha2`", "`std::fs`"],
    );
    expect("src/queue/mod.rs", "mod a { use super::super::writer; }", &["`crate::writer`"]);
    expect(
        "src/log.rs",
        "#[cfg(any(test, not(unix)))] use fs2; #[cfg(not(test))] use sha2;",
        &["`fs2`", "`sha2`"],
    );
    expect("src/log.rs", "fn f() { #[cfg(test)] { fs2::a() }; fs2::b() }", &["`fs2`"]);
    // The simulation and the harness must follow the map; their tests, and all other tests, need not.
    expect("testing/simulation/mod.rs", "use std::fs; fn f() { unsafe {} }", &["`std::fs`", "`unsafe`"]);
    expect("testing/harness/run.rs", "fn f() { Instant::now(); }", &["`Instant::now`"]);
    expect("src/log.rs", "#[cfg(audit_simulation)]\nuse fs2;", &[":1: says `audit_simulation`"]);
    expect("src/queue/mod.rs", "use crate::harness;", &["`crate::harness`"]);
    expect("src/log.rs", "fn f( {", &["cannot be parsed"]);
}

#[test]
fn the_innocent_are_left_alone() {
    for (file, source) in [
        ("src/storage/disk/mod.rs", "use std::{fs, io};"),
        ("src/log.rs", "// std::fs\n/* unsafe /* todo!() */ std::fs */ /// `#[allow(x)]`\nfn f() {}"),
        ("src/log.rs", "const A: &str = \"std::fs \\\" unsafe\"; const B: &str = r#\"std::fs \" todo!\"#;"),
        ("src/log.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n    use serde_json as s;\n}\n"),
        ("src/log.rs", "#[cfg(test)]\nmod tests;\nfn unsafe_file() {}"),
        ("src/log.rs", "struct A { #[cfg(any(test, all(unix, test)))] b: fs2::C }"),
        (
            "src/log.rs",
            "fn f() { match a { #[cfg(test)] 1 => fs2::b(), _ => C { #[cfg(test)] d: fs2::e() } } }",
        ),
        ("src/clock.rs", "impl A { #[cfg(any(test, audit_simulation))] fn f() { fs2::g!(std::fs::h) } }"),
        ("testing/verify/log.rs", "use crate::writer::Writer;"),
        ("testing/harness/fuzz/tests.rs", "use {std::fs, crate::harness::run};"),
        ("src/capture/fields.rs", "fn f() { let mut writer = Capped::new(out); writer.storage(); }"),
        ("src/capture/layer.rs", "use super::{rules::Rules, scope}; use crate::queue::Queue;"),
        ("src/queue/mod.rs", "fn f() { Instant::now(); crate::clock::Timestamp::now(); }"),
    ] {
        assert_eq!(offences_in(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn documents_are_read_as_people_read_them() {
    let text = "# A & B: `c`\n[x](y.md#z) [w](https://e.org/) `src/a.rs` `io::Error` `.ci/run` `a b/c`\n```text\n[no](no)\n# no\n```\n";
    assert_eq!(links_of(text), ["y.md#z"]);
    let labels = "[x][a.md], [a.md], [y][b.md]\n\n[a.md]: ../a.md\n[e]: https://e.org/\n";
    assert_eq!(
        (links_of(labels), undefined_labels_of(labels)),
        (vec!["../a.md".to_owned()], vec!["b.md".to_owned()])
    );
    assert_eq!(anchors_of(text), BTreeSet::from(["a--b-c".to_owned()]));
    assert_eq!(files_named_in(text), BTreeSet::from(["src/a.rs".to_owned(), ".ci/run".to_owned()]));
    let names = names_to_explain(
        "pub enum Error {\n    /// Text.\n    #[error(\"x\")]\n    Io {\n        path: PathBuf,\n    },\n    NotAttached(String),\n}\n",
        "pub struct Stats {\n    /// Text.\n    pub durable: u64,\n}\nnamed!(NoticeKind, \"kind\", [\n    Low => \"low\",\n]);\n",
    );
    assert_eq!(names, ["Io", "NotAttached", "low", "durable"]);
}
