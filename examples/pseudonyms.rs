//! Personal data and a log that cannot be edited. The log contains pseudonyms; a table of the application, from which
//! entries can be erased, maps them to people.
//!
//! A pseudonym is random and not a hash of the name: whoever has a list of all names could find the name behind a hash.
//!
//! ```sh
//! cargo run --example pseudonyms
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use tracing_audit::{AuditLog, read, verify};
use tracing_subscriber::prelude::*;

/// Who is behind which pseudonym. A table of the application's database will do as well; it must not be in the log's
/// directory, nor in backups that are kept for longer than a person may be identifiable.
struct Pseudonyms {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

impl Pseudonyms {
    fn open(path: &Path) -> io::Result<Self> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let known = lines.map(|(pseudonym, person)| (person.to_owned(), pseudonym.to_owned())).collect();
        Ok(Self { path: path.to_owned(), known })
    }

    /// Returns the pseudonym of a person; assigns one at first use. It is on disk before it is used.
    fn of(&mut self, person: &str) -> io::Result<String> {
        if let Some(pseudonym) = self.known.get(person) {
            return Ok(pseudonym.clone());
        }
        let mut random = [0; 16];
        io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
        let pseudonym = format!("p-{:032x}", u128::from_le_bytes(random));
        self.known.insert(person.to_owned(), pseudonym.clone());
        self.save()?;
        Ok(pseudonym)
    }

    /// Erases a person. The log keeps their records, but no longer shows who it was.
    fn forget(&mut self, person: &str) -> io::Result<()> {
        self.known.remove(person);
        self.save()
    }

    #[expect(clippy::disallowed_methods, reason = "the table is not a segment, and is rewritten as a whole")]
    fn save(&self) -> io::Result<()> {
        let lines = self.known.iter().map(|(person, pseudonym)| format!("{pseudonym} {person}\n"));
        let aside = self.path.with_extension("new");
        fs::write(&aside, lines.collect::<String>())?;
        fs::File::open(&aside)?.sync_all()?;
        fs::rename(&aside, &self.path)?;
        // Without this, a power cut can bring the old table back.
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(dir)?.sync_all()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let path = dir.path().join("log");
    let mut pseudonyms = Pseudonyms::open(&dir.path().join("people"))?;

    // What must not be recorded at all is withheld by its name, wherever it comes from.
    let audit = AuditLog::builder(&path).redact(["email", "address"]).open()?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;
    for (person, email) in [("mia tanaka", "mia@example.org"), ("jon doe", "jon@example.org")] {
        let actor = pseudonyms.of(person)?;
        tracing::info!(target: "audit", action = "order.placed", actor, email);
    }
    audit.close()?;

    let text = read(&path)?.map(|record| Ok(record?.as_json().to_owned()));
    let text: String = text.collect::<Result<_, tracing_audit::Error>>()?;
    assert!(!text.contains("tanaka") && !text.contains("example.org"));
    assert!(text.contains(&pseudonyms.of("mia tanaka")?));

    // Mia asks to be forgotten. The log is untouched, and intact.
    let was = pseudonyms.of("mia tanaka")?;
    pseudonyms.forget("mia tanaka")?;
    verify(&path)?.ensure_intact()?;
    assert!(text.contains(&was) && !fs::read_to_string(&pseudonyms.path)?.contains(&was));
    println!("the log still says that somebody placed an order, and no longer who: {was}");
    Ok(())
}
