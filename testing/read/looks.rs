//! Changes of a log between two calls of a reader, and calls that fail.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::super::{ReadItem, ReadItems, Reader};
use crate::{
    format::After,
    storage::{Access, Dir, File, FileSystem, Stat, Storage, sim::SimDisk},
    verify::tests::log::{Chain, Log, name},
};

type Hook = Box<dyn FnMut(&str, &str) -> io::Result<()> + Send>;

struct Hooked {
    inner: Arc<dyn Storage>,
    hook: Mutex<Hook>,
}
impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}
impl Hooked {
    fn on(
        disk: &SimDisk,
        hook: impl FnMut(&str, &str) -> io::Result<()> + Send + 'static,
    ) -> Arc<dyn Storage> {
        Arc::new(Self { inner: disk.process().storage(), hook: Mutex::new(Box::new(hook)) })
    }
}
impl Storage for Hooked {
    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        self.inner.path(dir, name)
    }
    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        (self.hook.lock().unwrap())("list", "")?;
        self.inner.list(dir)
    }
    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        (self.hook.lock().unwrap())("open", name)?;
        self.inner.open(dir, name, access)
    }
    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.inner.remove(dir, name)
    }
    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        self.inner.stat(dir, name)
    }
    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool {
        self.inner.is_seen_locked(dir, name)
    }
    fn reattach(&self) -> io::Result<()> {
        self.inner.reattach()
    }
    fn apart(&self) -> io::Result<Arc<dyn Storage>> {
        self.inner.apart()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }
    fn machine_id(&self) -> String {
        self.inner.machine_id()
    }
    fn filesystem(&self) -> FileSystem {
        self.inner.filesystem()
    }
    fn file_size_limit(&self) -> Option<u64> {
        self.inner.file_size_limit()
    }
    fn random(&self) -> io::Result<u128> {
        self.inner.random()
    }
}

fn show(item: Result<ReadItem, crate::Error>) -> String {
    match item {
        Ok(ReadItem::Record(record)) => {
            format!("{}/{}{}", record.chain(), record.seq(), if record.is_provisional() { "?" } else { "" })
        }
        Ok(ReadItem::Gap { chain, first_seq, last_seq }) => format!("gap {chain}/{first_seq}-{last_seq}"),
        Ok(ReadItem::Withdrawn { chain, from_seq }) => format!("withdrawn {chain}/{from_seq}"),
        Err(error) => format!("<{error}>"),
    }
}
fn now(items: &mut ReadItems) -> String {
    let mut found = Vec::new();
    while let Some(item) = items.next_within(Duration::ZERO) {
        found.push(show(item));
        if found.len() > 40 {
            found.push("...".into());
            break;
        }
    }
    found.join(" ")
}
fn disk(chains: &[&Chain]) -> SimDisk {
    let files: BTreeMap<_, _> = chains.iter().flat_map(|chain| chain.files()).collect();
    SimDisk::with_files(1, &files)
}
fn follow(disk: &SimDisk, reader: Reader) -> ReadItems {
    reader.follow(true).items_of(disk.process().storage()).unwrap()
}

/// Records whose file retention removed before their void was seen are withdrawn before anything else.
#[test]
fn records_that_became_void_in_a_removed_file_are_withdrawn() {
    let chain = Chain::new(0).events(2);
    let disk = disk(&[&chain]);
    let mut items = follow(&disk, Reader::new("/log"));
    assert_eq!(now(&mut items), "0/1 0/2 0/3 0/4?");
    let lost = chain.clone().event_marked("lost", None).event_marked("lost too", None);
    disk.append_foreign(&name(0, 1), &lost.segments[&1][chain.segments[&1].len()..]);
    assert_eq!(now(&mut items), "0/5? 0/6?");
    let bytes = chain.segments[&1].len() as u64;
    let next = chain.segment(vec![After::counted(1, bytes, None)]).events(3).prune(4, (1, 1));
    disk.replace(&name(0, 2), &next.segments[&2]);
    disk.remove_behind_back(&name(0, 1));
    let told = now(&mut items);
    assert!(told.starts_with("withdrawn 0/5 0/5 0/6 0/7 0/8"), "{told}");
}

#[test]
fn a_chain_that_begins_later_has_no_gap_for_unwanted_records() {
    let one = disk(&[&Chain::new(0)]);
    let mut items = follow(&one, Reader::new("/log").from_seq(4));
    assert_eq!(now(&mut items), "");
    one.replace(&name(1, 1), &Chain::new(1).events(4).segments[&1]);
    let told = now(&mut items);
    assert!(told.starts_with("1/4 ") && !told.contains("gap"), "{told}");
    let mut long = Chain::new(2);
    for _ in 0..300 {
        long = long.event(&"x".repeat(2_000));
    }
    let late = long.second - 50;
    let one = disk(&[&Chain::new(0)]);
    let at = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(late).unwrap());
    let mut items = follow(&one, Reader::new("/log").since(at));
    now(&mut items);
    one.replace(&name(2, 1), &long.segments[&1]);
    let told = now(&mut items);
    assert!(told.starts_with("2/") && !told.contains("gap"), "{told}");
}

#[test]
fn a_chain_that_cannot_be_read_does_not_stop_the_others() {
    let (one, two) = (Chain::new(0), Chain::new(1));
    let disk = disk(&[&one, &two]);
    let broken = Arc::new(Mutex::new(false));
    let is = Arc::clone(&broken);
    let storage = Hooked::on(&disk, move |_, file| {
        let fails = *is.lock().unwrap() && file.starts_with("audit-000-00000002");
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    });
    let mut items = Reader::new("/log").follow(true).items_of(storage).unwrap();
    now(&mut items);
    *broken.lock().unwrap() = true;
    disk.replace(&name(0, 2), &one.roll().segments[&2]);
    let two = two.events(2).roll();
    disk.replace(&name(1, 1), &two.segments[&1]);
    disk.replace(&name(1, 2), &two.segments[&2]);
    let told: Vec<String> =
        (0..8).filter_map(|_| items.next_within(Duration::from_millis(600))).map(show).collect();
    assert!(told.iter().any(|item| item.starts_with("1/3")), "{told:?}");
    assert!(told.iter().any(|item| item.contains("audit-000-00000002")), "{told:?}");
}

/// A call that reads the end returns the end, or an error.
#[test]
fn a_call_that_fails_never_moves_the_end() {
    let chain = Chain::new(0).events(2).roll().events(3).mark();
    let disk = disk(&[&chain]);
    for nth in 1..8 {
        for (reader, first) in
            [(Reader::new("/log").reverse(true), chain.seq), (Reader::new("/log").last(3), chain.seq - 2)]
        {
            let mut opened = 0;
            let storage = Hooked::on(&disk, move |_, file| {
                opened += usize::from(file == name(0, 2));
                let fails = file == name(0, 2) && opened == nth;
                if fails { Err(io::Error::from_raw_os_error(24)) } else { Ok(()) }
            });
            let Ok(items) = reader.items_of(storage) else { continue };
            let told: Vec<String> = items.map(show).collect();
            let is_told = told.iter().any(|item| item.starts_with('<'));
            assert!(is_told || told[0].starts_with(&format!("0/{first}")), "open {nth}: {told:?}");
        }
    }
}

#[test]
fn a_durable_record_behind_a_malformed_one_is_returned_once_it_is_durable() {
    let chain = Chain::new(0).events(3).event("x");
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| lines[4][0] = b'x');
    let disk = SimDisk::with_files(1, &log.files);
    let mut items = follow(&disk, Reader::new("/log").durable_only(true));
    let before = now(&mut items);
    let more = chain.clone().events(3);
    disk.append_foreign(&name(0, 1), &more.segments[&1][chain.segments[&1].len()..]);
    let told = format!("{before} {}", now(&mut items));
    assert!(told.contains("0/6 ") && told.contains("0/7"), "{told}");
}

/// A segment gets its first line after its start was read, and before its last mark is read.
#[test]
fn a_mark_written_after_the_first_line_was_read_makes_no_void_record_durable() {
    for durable_only in [true, false] {
        for follows in [false, true] {
            let chain = Chain::new(0).events(2);
            let lost = chain.clone().event_marked("lost", None).event_marked("lost too", None);
            let disk = Arc::new(disk(&[&lost]));
            let bytes = chain.segments[&1].len() as u64;
            let next = chain.segment(vec![After::counted(1, bytes, None)]).events(4);
            disk.replace(&name(0, 2), b"");
            let (mut opened, writer) = (0, Arc::clone(&disk));
            let storage = Hooked::on(&disk, move |_, file| {
                opened += usize::from(file == name(0, 2));
                if file == name(0, 2) && opened == 2 {
                    writer.replace(&name(0, 2), &next.segments[&2]);
                }
                Ok(())
            });
            let reader = Reader::new("/log").durable_only(durable_only).follow(follows);
            let mut items = reader.items_of(storage).unwrap();
            let told = if follows { now(&mut items) } else { items.map(show).collect::<Vec<_>>().join(" ") };
            // 5 and 6 are void. They may be returned as provisional, but not as durable until the new records of these
            // numbers are.
            assert!(!told.contains('<'), "durable_only {durable_only}, follow {follows}: {told}");
            let fives = told.matches("0/5").count();
            assert!(fives <= 1 || told.contains("0/5? ") && told.contains("withdrawn 0/5"), "{told}");
        }
    }
}

#[test]
fn a_head_is_not_reported_missing_while_retention_removes_files() {
    for follows in [false, true] {
        let chain = Chain::new(0).events(2);
        let head = chain.head();
        let disk = Arc::new(disk(&[&chain]));
        let next = chain.clone().roll().events(2).roll().prune(4, (1, 1));
        let (mut is_done, writer) = (false, Arc::clone(&disk));
        let storage = Hooked::on(&disk, move |_, file| {
            if file == name(0, 1) && !std::mem::replace(&mut is_done, true) {
                writer.replace(&name(0, 2), &next.segments[&2]);
                writer.replace(&name(0, 3), &next.segments[&3]);
                writer.remove_behind_back(&name(0, 1));
            }
            Ok(())
        });
        let mut items = Reader::new("/log").after(head).follow(follows).items_of(storage).unwrap();
        let told = now(&mut items);
        assert!(told.starts_with("0/5"), "{told}");
    }
}

/// A withdrawal is returned even if none of the next records is wanted.
#[test]
fn a_withdrawal_is_not_lost_among_unwanted_records() {
    let chain = Chain::new(0).events(2);
    let late = chain.second - 5;
    let at = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(late).unwrap());
    let lost = chain.clone().event_marked("lost", None).event_marked("lost too", None);
    let disk = disk(&[&lost]);
    let mut items = follow(&disk, Reader::new("/log").since(at));
    now(&mut items);
    let bytes = chain.segments[&1].len() as u64;
    // The clock was set back.
    let mut next =
        Chain { second: chain.second - 100, ..chain }.segment(vec![After::counted(1, bytes, None)]).events(2);
    next.segments.insert(1, lost.segments[&1].clone());
    disk.replace(&name(0, 2), &next.segments[&2]);
    let before = now(&mut items);
    let length = next.segments[&2].len();
    let next = Chain { second: next.second + 1000, ..next }.events(3);
    let mut more = next.segments[&2][length..].to_vec();
    more[0] = b'x';
    disk.append_foreign(&name(0, 2), &more);
    let told = format!("{before} {}", now(&mut items));
    assert!(told.contains("withdrawn 0/5"), "{told}");
}

#[test]
fn a_withdrawn_close_does_not_make_a_record_of_the_same_number_durable() {
    let chain = Chain::new(0).events(2).mark();
    let closed = chain.clone().close();
    let disk = disk(&[&closed]);
    let mut items = follow(&disk, Reader::new("/log").durable_only(true));
    assert!(now(&mut items).ends_with(&format!("0/{}", closed.seq)));
    let bytes = chain.segments[&1].len() as u64;
    // Its sync failed. The first line of the next segment has its number, and is not known to be durable.
    let next = chain.segment(vec![After::counted(1, bytes, None)]);
    disk.replace(&name(0, 2), &next.segments[&2]);
    assert_eq!(now(&mut items), "");
}

/// With more copies of early lines near its end than reading backward searches, most of the log does not fit. That is
/// reported, and no part of a file is counted or searched again for each line.
#[test]
fn lines_that_do_not_fit_are_numbered_once() {
    let mut log = Log::of(&[&Chain::new(0).events(7_000).mark()]);
    log.edit(0, 1, |lines| {
        let copies = lines[1..6_000].to_vec();
        let at = lines.len() - 4;
        drop(lines.splice(at..at, copies));
    });
    let (size, read) = (log.file_bytes() as u64, Arc::clone(&log.read_bytes));
    let items = Reader::new("/log").reverse(true).items_of(Arc::new(log)).unwrap();
    let told: Vec<String> = items.map(show).collect();
    let bad: Vec<u64> =
        told.iter().filter_map(|item| item.strip_prefix("<line ")?.split(' ').next()?.parse().ok()).collect();
    assert!(bad.len() > 1_000 && bad.is_sorted_by(|earlier, later| earlier > later), "{:?}", &told[..10]);
    let read = read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 20 * size, "{read} bytes of {size}");
}
