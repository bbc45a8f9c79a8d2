//! `report`: the content of the page, in which text of records stays text.

use std::{fs, process::Command};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tracing_audit::AuditLog;
use tracing_subscriber::prelude::*;

use super::forge::{BEGIN, Forge, two_days};
use crate::{place::Place, sealed::hexadecimal};

/// Makes the page of a log. Returns it with the exit code.
fn page(place: &Place, log: &str) -> (i32, String) {
    let (code, out, err) = place.run(&format!("report {log} -o -"));
    assert!(err.contains("no evidence by itself"), "{err}");
    (code, out)
}

/// Parses a page with an independent parser. Returns every tag with the names of its attributes, and all text.
fn parsed(place: &Place, page: &str) -> Option<(Vec<String>, String)> {
    const PARSER: &str = r"
import html.parser, json, sys
class P(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = set(), []
    def handle_starttag(self, tag, attrs):
        self.tags.add(' '.join([tag] + sorted(name for name, _ in attrs)))
    def handle_data(self, data): self.text.append(data)
    def handle_comment(self, data): self.tags.add('COMMENT')
    def handle_decl(self, data): self.tags.add('DECL ' + data)
    def handle_pi(self, data): self.tags.add('PI')
    def unknown_decl(self, data): self.tags.add('UNKNOWN')
p = P(); p.feed(open(sys.argv[1], encoding='utf-8').read()); p.close()
print(json.dumps([sorted(p.tags), ''.join(p.text)]))
";
    fs::write(place.path("parsed.html"), page).unwrap();
    let output =
        Command::new("python3").arg("-c").arg(PARSER).arg(place.path("parsed.html")).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Writes events through the layer, with these texts in every place that takes one.
fn emit(place: &Place, name: &str, texts: &[String]) {
    let log = AuditLog::builder(place.path(name)).stderr(false).open().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for text in texts {
            let text = text.as_str();
            tracing::info!(target: "audit", action = text, actor = text, outcome = text, resource = text,
                reason = text, source = text, session_id = text, note = text, "{text}");
        }
    });
    log.close().unwrap();
}

#[test]
fn nothing_of_a_record_becomes_markup() {
    let place = Place::new().0;
    let hostile: Vec<String> = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><svg/onload=alert(1)></title></style></svg><h1>owned</h1>",
        "&lt;b&gt; &amp; &#60;script&#62;",
        "<!-- comment --> <?php ?> <![CDATA[ x ]]>",
        "\u{1b}[31mred\u{1b}]0;title\u{7}\u{0}\u{8}\u{fffd}\u{ffff}",
        "\u{202e}txet\u{2066}x\u{200b}y\u{feff}",
        "javascript:alert(1)",
        "",
    ]
    .map(ToOwned::to_owned)
    .into();
    let long = ["<b>".repeat(20_000), "é".repeat(30_000), "\u{202e}".repeat(9_000)];
    emit(&place, "hostile", &[hostile.as_slice(), &long].concat());
    let harmless: Vec<String> = (0..15).map(|n| format!("word-{n}")).collect();
    emit(&place, "harmless", &harmless);
    let (code, page_of_hostile) = page(&place, "hostile");
    assert_eq!(code, 0);
    for raw in [
        "<script",
        "<img",
        "<h1>owned",
        "onerror=alert(1)>",
        "\u{1b}",
        "\u{202e}",
        "\u{200b}",
        "\u{feff}",
        "\u{0}",
        "\u{7}",
    ] {
        assert!(!page_of_hostile.contains(raw), "{raw:?}");
    }
    assert!(page_of_hostile.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page_of_hostile.len() < 200_000, "{}", page_of_hostile.len());
    let (_, page_of_harmless) = page(&place, "harmless");
    let (Some((tags, text)), Some((expected, _))) =
        (parsed(&place, &page_of_hostile), parsed(&place, &page_of_harmless))
    else {
        return crate::place::skip("nothing_of_a_record_becomes_markup", "python3 is not there");
    };
    assert_eq!(tags, expected);
    // All of it is there as text.
    for shown in
        ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "&lt;b&gt; &amp;", "\\u{202e}txet"]
    {
        assert!(text.contains(shown), "{shown}");
    }
}

#[test]
fn a_page_loads_and_runs_nothing() {
    let place = Place::new().0;
    let (_, page) = page(&place, "log");
    for outside in [
        "http://", "https://", "//", "<script", "<link", "<iframe", "<img", "@import", "url(", "style=",
        "src=",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The policy names the hash of the only style sheet.
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let sum = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, Sha256::digest(style));
    let policy = format!("default-src 'none'; style-src 'sha256-{sum}'; base-uri 'none'; form-action 'none'");
    assert!(page.contains(&policy.replace('\'', "&#39;")) || page.contains(&policy), "{policy}");
}

#[test]
fn a_page_says_what_the_log_is_and_what_was_not_checked() {
    let (place, head) = Place::new();
    let (code, whole) = page(&place, "log");
    assert_eq!(code, 0);
    for said in [
        "<p class=\"word\">Intact</p>",
        &head.to_string(),
        "No head kept elsewhere was given",
        "Not checked",
        "python3 verify.py",
    ] {
        assert!(whole.contains(said), "{said}");
    }
    let path = place.path("log/audit-000-00000001.jsonl");
    let line = fs::read_to_string(&path).unwrap();
    let sum = hexadecimal(&Sha256::digest(&line));
    assert!(whole.contains(&sum), "{sum}");
    assert!(whole.contains(&format!("head -c {} audit-000-00000001.jsonl | sha256sum", line.len())));

    let (code, with_head, _) = place.run(&format!("report log --head {head} -o -"));
    assert_eq!(code, 0);
    assert!(with_head.contains("Compared with 1 head kept elsewhere."));

    fs::write(&path, line.replacen("\"mia\"", "\"eve\"", 1)).unwrap();
    let (code, damaged) = page(&place, "log");
    assert_eq!(code, 1);
    for said in ["<p class=\"word\">Damaged</p>", "edited", "class=\"finding\" x=", "1 line without a record"]
    {
        assert!(damaged.contains(said), "{said}");
    }
    fs::write(&path, line.rsplit_once("{\"seq\":13").unwrap().0).unwrap();
    // With the noted head in its lock file this log would be damaged, not unclean. Without `control` it is like a copy.
    fs::remove_dir_all(place.path("log/control")).unwrap();
    let (code, unclean) = page(&place, "log");
    assert_eq!(code, 3);
    assert!(unclean.contains("<p class=\"word\">Unclean</p>"));
}

#[test]
fn an_unconfirmed_record_is_listed_separately() {
    let place = Place::new().0;
    let mut forge = Forge::new(&place.path("small"), BEGIN);
    let members = json!({"action": "role.granted", "actor": "jonas", "outcome": "success"});
    let seq = forge.event(BEGIN, "critical", &members);
    forge.unconfirmed(BEGIN + 1, seq, seq);
    forge.close(BEGIN + 2);
    let (code, page) = page(&place, "small");
    assert_eq!(code, 0);
    let Some((_, text)) = parsed(&place, &page) else {
        return crate::place::skip("an_unconfirmed_record_is_listed_separately", "python3 is not there");
    };
    assert!(text.contains("Unconfirmed records") && text.contains("000/3"), "{text}");
    // The recorded outcome appears only in the column for it.
    assert_eq!(text.matches("success").count(), 1, "{text}");
    assert!(text.contains("OutcomeEventsFailedUnconf.unconfirmed1–1"), "{text}");
}

#[test]
fn gaps_recoveries_and_every_segment_are_on_the_page() {
    let place = Place::new().0;
    two_days(&place.path("days"), 40);
    let (code, page) = page(&place, "days");
    assert_eq!(code, 0);
    for said in [
        "class=\"gap\" x=",
        "class=\"recovery\" x=",
        "in each 30 minutes",
        "2026-11-20 06:00:00",
        "203.0.113.9",
        "audit-000-00000005.jsonl",
    ] {
        assert!(page.contains(said), "{said}");
    }
    for number in 1..=5 {
        let bytes = fs::read(place.path(&format!("days/audit-000-{number:08}.jsonl"))).unwrap();
        let sum = hexadecimal(&Sha256::digest(&bytes));
        assert!(page.contains(&sum), "{number}");
    }
}
