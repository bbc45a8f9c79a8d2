//! Copies of a log, on this machine and on others: continuing one is reported.

use super::{
    oracle,
    world::{Settings, World},
};
use crate::{
    NoticeKind, Verdict, Verifier,
    clock::Clock,
    format::RecordKind,
    storage::sim::SimDisk,
    writer::{self, Former},
};

fn closed() -> World {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.critical(&mut world);
    node.pump(&mut world);
    node.close(&mut world);
    world
}

/// Returns what opening reports, to the application and in the log.
fn reported(disk: &SimDisk, world: &World, host: &str) -> (Vec<NoticeKind>, Vec<NoticeKind>) {
    let mut settings = Settings::default().writer;
    host.clone_into(&mut settings.host);
    let recorded = |disk: &SimDisk| {
        let chains = oracle::read_log(&disk.snapshot()).unwrap();
        let kinds = NoticeKind::ALL.iter().copied().flat_map(|kind| {
            let code = format!("\"code\":\"{}\"", kind.as_str());
            let notices = chains[&0].of_kind(RecordKind::Notice);
            vec![kind; notices.iter().filter(|line| line.text.contains(&code)).count()]
        });
        kinds.collect::<Vec<_>>()
    };
    let before = recorded(disk);
    let process = disk.process();
    let opened =
        writer::open(&process.storage(), &settings, &Former::default(), Clock::hurried(), &world.now)
            .unwrap();
    let reported = opened.notices().iter().map(|(kind, _)| *kind).collect();
    let after = recorded(disk).split_off(before.len());
    // Closed in order, so that the next opening has nothing else to report.
    let mut again = World::on(disk.clone());
    again.now = world.now;
    drop(opened);
    process.kill();
    again.opened(&Settings::default()).close(&mut again);
    (reported, after)
}

/// Two machines that continue one chain share its records up to a point and differ behind it.
#[test]
fn continuing_a_copied_directory_is_reported_and_recorded() {
    let world = closed();
    let copy = SimDisk::with_files(2, &world.disk.snapshot());
    let unknown = vec![NoticeKind::HeadUnknown];
    assert_eq!(reported(&copy, &world, "host"), (unknown.clone(), unknown.clone()));
    assert_eq!(reported(&world.disk, &world, "host"), (vec![], vec![]), "the original is not a copy");
    assert_eq!(
        reported(&copy, &world, "host"),
        (vec![], vec![]),
        "reported once, the copy counts as the original"
    );
    // Copied to another machine: the unknown head already reports that.
    let elsewhere = SimDisk::with_files(3, &world.disk.snapshot());
    elsewhere.move_to_machine("another machine");
    assert_eq!(reported(&elsewhere, &world, "host"), (unknown.clone(), unknown));
    for disk in [&world.disk, &copy, &elsewhere] {
        let report = Verifier::new("/log").run_on(&*disk.process().storage()).unwrap();
        assert_eq!(report.verdict(), Verdict::Intact, "{report}");
    }
}

/// A disk that was moved, or an image that keeps the inode numbers: the lock file is the same.
#[test]
fn continuing_on_another_machine_is_reported_and_recorded() {
    let world = closed();
    let changed = vec![NoticeKind::MachineChanged];
    world.disk.move_to_machine("another machine");
    assert_eq!(reported(&world.disk, &world, "host"), (changed.clone(), changed.clone()));
    assert_eq!(reported(&world.disk, &world, "host"), (vec![], vec![]), "once");
    world.disk.move_to_machine("a simulated machine");
    assert_eq!(reported(&world.disk, &world, "host"), (changed.clone(), changed), "and it is back");
    // A pod has a new host name each time, and a container may have no machine id.
    assert_eq!(reported(&world.disk, &world, "pod-7f3a"), (vec![], vec![]));
    world.disk.move_to_machine("");
    assert_eq!(reported(&world.disk, &world, "host"), (vec![], vec![]));
    world.disk.move_to_machine("a simulated machine");
    assert_eq!(reported(&world.disk, &world, "host"), (vec![], vec![]));
}
