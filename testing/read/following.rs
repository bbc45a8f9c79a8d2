//! Readers that wait for more, on a log that changes meanwhile.

use std::{collections::BTreeMap, time::Duration};

use super::super::{ReadItem, ReadItems, Reader};
use crate::{
    format::After,
    storage::sim::SimDisk,
    verify::tests::log::{Chain, name},
};

/// A log that is written by hand, and a reader that follows it.
struct Live {
    disk: SimDisk,
    items: ReadItems,
}

impl Live {
    fn new(chains: &[&Chain], reader: impl FnOnce(Reader) -> Reader) -> Self {
        let files: BTreeMap<_, _> = chains.iter().flat_map(|chain| chain.files()).collect();
        let disk = SimDisk::with_files(1, &files);
        let reader = reader(Reader::new("/log").follow(true));
        let items = reader.items_of(disk.process().storage()).unwrap();
        Self { disk, items }
    }

    /// Writes the present state of a chain to its files.
    fn write(&self, chain: &Chain) {
        for (name, bytes) in chain.files() {
            let known = self.disk.contents(&name);
            match known {
                Some(known) if known.len() <= bytes.len() => {
                    assert!(bytes.starts_with(&known));
                    self.append(&name, &bytes[known.len()..]);
                }
                Some(_) => {}
                None => self.disk.replace(&name, &bytes),
            }
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        assert!(bytes.is_empty() || self.disk.append_foreign(name, bytes));
    }

    /// Checks what is returned now, in a short form.
    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let mut found: Vec<String> = Vec::new();
        while let Some(item) = self.items.next_within(Duration::ZERO) {
            found.push(match item {
                Ok(ReadItem::Record(record)) => format!("{}/{}", record.chain(), record.seq()),
                Ok(ReadItem::Gap { chain, first_seq, last_seq }) => {
                    format!("gap {chain}/{first_seq}-{last_seq}")
                }
                Ok(ReadItem::Withdrawn { chain, from_seq }) => format!("withdrawn {chain}/{from_seq}"),
                Err(error) => error.to_string(),
            });
        }
        assert_eq!(found.join(" "), expected);
        // Nothing more is returned.
        assert!(self.items.next_within(Duration::ZERO).is_none());
    }
}

#[test]
fn whole_lines_are_returned_as_they_come() {
    let chain = Chain::new(0);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2");
    let more = chain.clone().events(2);
    let new = &more.segments[&1][chain.segments[&1].len()..];
    for half in [&new[..10], &new[10..100]] {
        live.append(&name(0, 1), half);
        live.expect("");
    }
    live.append(&name(0, 1), &new[100..]);
    live.expect("0/3 0/4");
}

#[test]
fn rotation_and_new_chains_are_followed() {
    let (one, two) = (Chain::new(0), Chain::new(1).events(2).roll());
    let mut live = Live::new(&[&one], |reader| reader);
    live.expect("0/1 0/2");
    let one = one.events(1).roll().roll().events(1);
    live.write(&one);
    live.expect("0/3 0/4 0/5 0/6");
    live.write(&two);
    live.expect("1/1 1/2 1/3 1/4 1/5");
    // First a file without its first line, and then with it.
    let three = one.clone().roll();
    let begun = &three.segments[&4];
    live.disk.replace(&name(0, 4), b"");
    live.expect("");
    live.append(&name(0, 4), &begun[..50]);
    live.expect("");
    live.append(&name(0, 4), &begun[50..]);
    live.expect("0/7");
    live.write(&two.close());
    live.expect("1/6");
}

#[test]
fn only_the_named_chains_are_followed() {
    let (one, two) = (Chain::new(0), Chain::new(1));
    let mut live = Live::new(&[&one], |reader| reader.chain("001"));
    live.expect("");
    live.write(&two);
    live.expect("1/1 1/2");
}

#[test]
fn an_empty_directory_can_be_followed() {
    let mut live = Live::new(&[], |reader| reader);
    live.expect("");
    live.write(&Chain::new(0).events(1));
    live.expect("0/1 0/2 0/3");
}

#[test]
fn records_that_become_void_are_withdrawn() {
    let chain = Chain::new(0).events(2);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2 0/3 0/4");
    let lost = chain.clone().event_marked("lost", None).event_marked("lost too", None);
    live.write(&lost);
    live.expect("0/5 0/6");
    let bytes = chain.segments[&1].len() as u64;
    let next = Chain { segments: lost.segments.clone(), ..chain };
    let next = next.segment(vec![After::counted(1, bytes, None)]).event("again");
    live.write(&next);
    live.expect("withdrawn 0/5 0/5 0/6");
    let next = next.events(1).roll();
    live.write(&next);
    live.expect("0/7 0/8");
    // The new segment was given up too, together with what it held.
    let before = next.clone();
    live.write(&next.clone().event_marked("lost", None));
    live.expect("0/9");
    let bytes = before.segments[&2].len() as u64;
    let mut after = Chain { seq: 7, hash: before.hashes[&7], ..before.clone() };
    after = after.segment(vec![After::counted(2, bytes, None), After::nothing(3, 3)]);
    live.disk.replace(&name(0, 4), &after.segments[&4]);
    live.expect("withdrawn 0/8 0/8");
    live.disk.append_foreign(&name(0, 4), &after.clone().events(1).segments[&4][after.segments[&4].len()..]);
    live.expect("0/9");
}

#[test]
fn a_torn_line_is_waited_for_and_skipped_once_it_is_void() {
    let chain = Chain::new(0).events(2);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2 0/3 0/4");
    live.append(&name(0, 1), b"no record\nand half of on");
    live.expect("");
    let next =
        chain.clone().segment(vec![After::counted(1, chain.segments[&1].len() as u64, None)]).events(1);
    live.disk.replace(&name(0, 2), &next.segments[&2]);
    live.expect("0/5 0/6");
}

#[test]
fn a_bad_line_that_counts_is_reported_once() {
    let chain = Chain::new(0).events(2);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2 0/3 0/4");
    let bytes = chain.segments[&1].len();
    let chain = chain.events(3);
    let mut new = chain.segments[&1][bytes..].to_vec();
    new[20] ^= 1;
    live.append(&name(0, 1), &new);
    live.expect("line 5 of /simulated/audit-log/audit-000-00000001.jsonl is not a record; verify the log gap 0/5-5 0/6 0/7");
    live.disk.replace(&name(0, 2), &chain.roll().segments[&2]);
    live.expect("0/8");
}

#[test]
fn what_was_pruned_before_it_was_read_is_a_gap() {
    let chain = Chain::new(0).events(2);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2 0/3 0/4");
    let chain = chain.events(1).roll().events(2).roll().events(1).roll().prune(9, (1, 3));
    live.write(&chain);
    for segment in 1..=2 {
        assert!(live.disk.remove_behind_back(&name(0, segment)));
    }
    live.expect("gap 0/5-8 0/9 0/10 0/11 0/12");
    // The same in a chain that began meanwhile.
    let other = Chain::new(1).events(2).roll();
    live.disk.replace(&name(1, 2), &other.segments[&2]);
    live.expect("gap 1/1-4 1/5");
}

#[test]
fn only_durable_records_are_returned() {
    let chain = Chain::new(0).event_marked("a", None).event_marked("b", None);
    let mut live = Live::new(&[&chain], |reader| reader.durable_only(true));
    live.expect("0/1");
    let chain = chain.event_marked("c", Some(3));
    live.write(&chain);
    live.expect("0/2 0/3");
    let chain = chain.event_marked("d", None).roll();
    live.write(&chain);
    live.expect("0/4 0/5 0/6");
    // The segment line itself, once a later mark covers it, and everything that was pruned before.
    let chain = chain.roll().roll();
    live.write(&chain);
    live.expect("0/7 0/8");
    live.disk.remove_behind_back(&name(0, 1));
    live.disk.remove_behind_back(&name(0, 2));
    live.expect("");
    let chain = chain.close();
    live.write(&chain);
    live.expect("0/9 0/10");
}

/// A record that is not durable yet must not be lost when everything before it is pruned.
#[test]
fn durable_only_also_waits_at_the_beginning_of_a_file() {
    let chain = Chain::new(0).events(2);
    let mut live = Live::new(&[&chain], |reader| reader.durable_only(true));
    live.expect("0/1 0/2 0/3");
    let chain = chain.roll();
    let hidden = chain.clone().events(1).roll();
    live.disk.replace(&name(0, 3), &hidden.segments[&3]);
    live.disk.remove_behind_back(&name(0, 1));
    live.expect("");
    let hidden = hidden.events(1);
    live.append(&name(0, 3), &hidden.segments[&3][live.disk.contents(&name(0, 3)).unwrap().len()..]);
    live.expect("gap 0/4-6 0/7");
}

#[test]
fn following_begins_at_the_given_position() {
    let chain = Chain::new(0).events(8).roll().events(8);
    let mut live = Live::new(&[&chain], |reader| reader.last(2));
    live.expect("0/18 0/19");
    let more = chain.clone().events(1);
    live.write(&more);
    live.expect("0/20");
    let mut live = Live::new(&[&chain], |reader| reader.from_seq(21));
    live.expect("");
    live.write(&chain.clone().events(4));
    live.expect("0/21 0/22 0/23");
    let mut live = Live::new(&[&chain], |reader| reader.after(chain.head_at(17)).durable_only(true));
    live.expect("0/18");
    // The newest head is durable, although no mark states it yet.
    let mut live = Live::new(&[&chain], |reader| reader.after(chain.head()).durable_only(true));
    live.expect("");
    live.write(&chain.clone().roll().close());
    live.expect("0/20 0/21");
    let mut live = Live::new(&[&chain, &Chain::new(1)], |reader| reader.last(0));
    live.expect("");
    live.write(&Chain::new(1).events(1));
    live.expect("1/3");
}

#[test]
fn a_reader_is_stopped_from_another_thread() {
    let chain = Chain::new(0);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2");
    let (stopper, disk) = (live.items.stopper(), live.disk.clone());
    let waiting = std::thread::spawn(move || {
        let third = live.items.next().unwrap().unwrap().into_record().map(|record| record.seq());
        (third, live.items.next().is_none(), live.items.next().is_none())
    });
    // The reader waits: a new record is returned.
    std::thread::sleep(Duration::from_millis(50));
    disk.replace(&name(0, 2), &chain.roll().segments[&2]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished() && !stopper.is_stopped());
    stopper.stop();
    assert_eq!(waiting.join().unwrap(), (Some(3), true, true));
    assert_eq!(format!("{stopper:?}"), "Stopper { is_stopped: true }");
}

/// A file that cannot be read now is an error, and is read later when it can be.
#[test]
fn a_failing_disk_delays() {
    use crate::storage::sim::{Errno, Fault, Op};
    let chain = Chain::new(0);
    let mut live = Live::new(&[&chain], |reader| reader);
    live.expect("0/1 0/2");
    live.write(&chain.clone().events(1));
    live.disk.inject(Fault::error(&[Op::Read], Errno::IO));
    let error = live.items.next_within(Duration::ZERO).unwrap().unwrap_err();
    assert!(error.to_string().starts_with("cannot read"), "{error}");
    live.disk.clear_faults();
    let item = live.items.next_within(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(item.into_record().map(|record| record.seq()), Some(3));
    live.expect("");
}

/// A caller who knows from elsewhere that a record is durable need not wait for the mark.
#[test]
fn trusted_records_are_returned() {
    let chain = Chain::new(0).event_marked("a", None).event_marked("b", None);
    let mut live = Live::new(&[&chain], |reader| reader.durable_only(true));
    live.expect("0/1");
    live.items.trust(chain.head_at(2));
    live.expect("0/2");
    live.items.trust(chain.head_at(3));
    live.items.trust(chain.head_at(2));
    live.expect("0/3");
    // A head that does not exist yet.
    let more = chain.clone().event_marked("c", None).event_marked("d", None);
    live.items.trust(more.head_at(6));
    live.expect("0/4");
    live.write(&more);
    live.expect("0/5 0/6");
    live.items.trust(Chain::new(7).head());
    live.expect("");
    let id = live.items.chains();
    assert!(id.len() == 1 && id[0].0 == 0 && id[0].1.len() == 32, "{id:?}");
    let other = Chain::new(3);
    live.write(&other);
    live.expect("3/1");
    assert_eq!(live.items.chains().iter().map(|(chain, _)| *chain).collect::<Vec<_>>(), [0, 3]);
}
