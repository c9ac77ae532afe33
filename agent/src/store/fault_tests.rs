//! What the disk refuses, forgets and garbles while the spool runs: what was promised is there afterwards or counted as
//! lost, exactly, and no number is given twice.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::StreamId;
use protocol::message::LossCause;
use protocol::telemetry::Kind;

use super::faults::{self, FORGET, FULL, HANG, PANIC, SYNC};
use super::{Spool, SpoolHandle};
use crate::config;
use crate::health::{Clock, ProblemKind, Pulse, ends_within};

const MIB: u64 = 1024 * 1024;

struct World {
    dir: tempfile::TempDir,
    spool: Option<Spool>,
    report: Option<String>,
    config: config::Spool,
    runtime: tokio::runtime::Runtime,
    stream: StreamId,
}

impl World {
    fn new(max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let commit_after = Duration::from_millis(1);
        let config = config::Spool { max_bytes, commit_after, ..config::Spool::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (spool, report) = open(dir.path(), &config);
        let stream = spool.handle().stream();
        Self { dir, spool: Some(spool), report, config, runtime, stream }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn handle(&self) -> SpoolHandle {
        self.spool.as_ref().unwrap().handle()
    }

    fn append(&self, kind: Kind, length: usize) -> u64 {
        self.runtime.block_on(self.handle().append(kind, vec![7; length])).unwrap()
    }

    fn append_many(&self, records: u64, length: usize) {
        for _ in 0..records {
            self.append(Kind::Event, length);
        }
    }

    fn close(&mut self) {
        self.spool = None;
    }

    fn reopen(&mut self) {
        self.close();
        let (spool, report) = open(self.path(), &self.config);
        (self.spool, self.report) = (Some(spool), report);
    }

    fn numbers(&self) -> BTreeSet<u64> {
        numbers(&self.handle())
    }

    fn lost(&self) -> Vec<(LossCause, u64)> {
        self.handle().state().dropped.iter().map(|loss| (loss.cause, loss.count)).collect()
    }

    fn is_of_first_stream(&self) -> bool {
        self.handle().stream() == self.stream
    }
}

fn open(dir: &Path, config: &config::Spool) -> (Spool, Option<String>) {
    Spool::open(dir, config, &Clock::open(dir).unwrap()).unwrap()
}

fn numbers(handle: &SpoolHandle) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    loop {
        let from = all.last().map_or(0, |last| last + 1);
        let chunk = handle.read(from, 1000, 1 << 20).unwrap();
        if chunk.records.is_empty() {
            return all;
        }
        all.extend(chunk.records.iter().map(|record| record.seq));
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_failed_sync_has_lost_is_on_the_disk_before_it_is_promised() {
    let world = World::new(64 * MIB);
    faults::set(world.path(), FORGET, 2);
    world.append_many(20, 3000);
    faults::set(world.path(), SYNC, 1);
    assert_eq!(world.append(Kind::Event, 3000), 21);
    let handle = world.handle();
    assert_eq!((world.numbers(), world.lost()), ((1..=21).collect(), vec![]));
    assert_eq!((handle.state().depth_records, handle.problem()), (21, None));
    assert_eq!(handle.mishap().map(|mishap| mishap.kind), Some(ProblemKind::SpoolQuarantined));
    assert!(world.is_of_first_stream());
    // The power goes: of the database there is what the last good sync took.
    let disk = tempfile::tempdir().unwrap();
    std::fs::create_dir(disk.path().join("spool")).unwrap();
    std::fs::copy(world.path().join("spool/conf"), disk.path().join("spool/conf")).unwrap();
    std::fs::copy(world.path().join("spool.synced"), disk.path().join("spool/db")).unwrap();
    let (after, report) = open(disk.path(), &world.config);
    assert_eq!((numbers(&after.handle()), report), ((1..=21).collect(), None));
    assert_eq!(after.handle().stream(), world.stream);
}

#[test]
fn a_copy_that_fails_too_is_made_again() {
    let mut world = World::new(64 * MIB);
    world.append_many(5, 100);
    faults::set(world.path(), SYNC, 3);
    assert_eq!(world.append(Kind::Event, 100), 6);
    assert_eq!(faults::left(world.path(), SYNC), 0);
    assert_eq!((world.numbers(), world.lost()), ((1..=6).collect(), vec![]));
    world.reopen();
    assert_eq!((world.numbers(), world.lost(), &world.report), ((1..=6).collect(), vec![], &None));
    assert_eq!(world.append(Kind::Event, 100), 7);
    let left: Vec<_> = ["unsynced", "rescuing", "rescued"]
        .into_iter()
        .filter(|name| world.path().join("spool").with_extension(name).exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_deletion_whose_sync_fails_is_counted_once_and_deletes_no_other() {
    let world = World::new(MIB);
    world.append_many(10, 3000);
    faults::set(world.path(), SYNC, 1);
    world.handle().acknowledge(4);
    wait_for("a deletion", || world.handle().mishap().is_some());
    let handle = world.handle();
    assert_eq!((world.numbers(), handle.state().depth_records), ((5..=10).collect(), 6));
    assert_eq!((world.lost(), handle.read(0, 1, 1).unwrap().floor_seq), (vec![], 5));
    // Until it is full; then the next sync is that of a deletion.
    let mut given = 10;
    while world.lost().is_empty() {
        given = world.append(Kind::Event, 3000);
    }
    let once = world.lost()[0].1;
    for _again in 0..2 {
        let before = world.lost()[0].1;
        while world.lost()[0].1 == before {
            let is_full = world.handle().state().depth_bytes + 3000 > MIB;
            faults::set(world.path(), SYNC, u32::from(is_full));
            given = world.append(Kind::Event, 3000);
        }
        assert_eq!(faults::left(world.path(), SYNC), 0);
        assert_eq!(world.lost(), [(LossCause::Full, before + once)], "as many as without a fault");
        let stored = u64::try_from(world.numbers().len()).unwrap();
        assert_eq!(4 + stored + before + once, given);
        assert_eq!(stored, world.handle().state().depth_records);
    }
}

#[test]
fn on_a_full_disk_not_even_what_the_server_has_is_deleted() {
    let world = World::new(MIB);
    world.append_many(10, 3000);
    let db = world.path().join("spool/db");
    let before = std::fs::read(&db).unwrap();
    faults::set(world.path(), FULL, 1);
    world.handle().acknowledge(10);
    wait_for("a problem", || world.handle().problem().is_some());
    assert_eq!((world.numbers(), std::fs::read(&db).unwrap() == before), ((1..=10).collect(), true));
    std::fs::remove_file(world.path().join(FULL)).unwrap();
    // Without another order.
    wait_for("the deletion", || world.handle().state().depth_records == 0);
    wait_for("the problem's end", || world.handle().problem().is_none());
}

#[test]
fn what_waits_on_a_full_disk_is_stored_or_counted_over_a_restart() {
    let mut world = World::new(64 * MIB);
    world.append_many(10, 3000);
    faults::set(world.path(), FULL, 1);
    let offered = 2000;
    (0..offered).for_each(|_| world.handle().offer(Kind::Pane, vec![1; 3000]));
    world.close();
    std::fs::remove_file(world.path().join(FULL)).unwrap();
    world.reopen();
    let last = world.append(Kind::Event, 1);
    let (stored, lost) = (world.numbers().len(), world.lost().iter().map(|lost| lost.1).sum::<u64>());
    assert_eq!(u64::try_from(stored).unwrap() + lost, 10 + offered + 1, "{:?}", world.lost());
    assert!(lost > 0 && world.numbers().contains(&last));
}

/// Writes over a part of each stretch of the database's file, as bad blocks would.
fn garble(world: &World) {
    let path = world.path().join("spool/db");
    let length = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for place in (1 << 20..length).step_by(1 << 17) {
        file.write_all_at(&[0x55; 1024], place).unwrap();
    }
}

#[test]
fn a_database_that_is_garbled_at_run_time_is_written_anew_and_what_is_gone_is_counted() {
    let mut world = World::new(64 * MIB);
    // Many more leaves than sled keeps in memory.
    for _group in 0..12 {
        (0..299).for_each(|_| world.handle().offer(Kind::Event, vec![7; 10_000]));
        world.append(Kind::Event, 10_000);
    }
    world.reopen();
    garble(&world);
    let handle = world.handle();
    let read_all = || {
        let mut from = 0;
        while let Ok(chunk) = handle.read(from, 1000, 1 << 20) {
            let Some(last) = chunk.records.last() else { return };
            from = last.seq + 1;
        }
    };
    wait_for("a reader who meets it", || {
        read_all();
        handle.mishap().is_some()
    });
    let seq = world.append(Kind::Event, 10);
    assert!(seq == 3601 && world.is_of_first_stream());
    let (stored, lost) = (world.numbers(), world.lost());
    let [(LossCause::Storage, count)] = lost[..] else { panic!("{lost:?}") };
    assert_eq!(u64::try_from(stored.len()).unwrap() + count, 3601);
    assert!(count < 1000, "{count} are lost to 300 bad blocks");
    assert_eq!(handle.state().depth_records, 3601 - count);
    assert!(world.path().join("spool.quarantined/db").exists());
    world.reopen();
    assert_eq!((world.numbers(), world.lost(), &world.report), (stored, lost, &None));
    assert_eq!(world.append(Kind::Event, 10), 3602);
}

#[test]
fn a_writer_that_panics_begins_again_and_loses_nothing() {
    let world = World::new(64 * MIB);
    world.append_many(5, 100);
    faults::set(world.path(), PANIC, 1);
    assert_eq!(world.append(Kind::Event, 100), 6);
    assert_eq!((world.numbers(), world.lost()), ((1..=6).collect(), vec![]));
    assert_eq!(world.handle().problem(), None);
}

#[test]
fn a_sync_that_never_returns_is_told_as_a_part_that_hangs() {
    let (world, pulse) = (World::new(64 * MIB), Pulse::default());
    world.handle().beat_in(pulse.clone());
    world.append_many(5, 100);
    let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
    let is_told_in = |time| pulse.problem(Instant::now() + time).map(|problem| problem.detail);
    wait_for("rest", || is_told_in(hour).is_none());
    faults::set(world.path(), HANG, 1);
    world.handle().offer(Kind::Event, vec![1]);
    wait_for("a commit", || is_told_in(hour).is_some());
    assert_eq!(is_told_in(hour).as_deref(), Some("parts of the agent hang: spool"));
    assert_eq!(is_told_in(2 * minute), None, "a slow disk may take so long");
    assert_eq!(pulse.stuck(Instant::now() + hour, minute), ["spool"], "the watchdog isn't fed");
    std::fs::remove_file(world.path().join(HANG)).unwrap();
    wait_for("its end", || is_told_in(hour).is_none());
    assert_eq!((world.append(Kind::Event, 100), world.handle().problem()), (7, None));
}

#[test]
fn a_disk_that_never_answers_holds_up_no_end_and_what_was_promised_is_on_it() {
    let mut world = World::new(64 * MIB);
    world.append_many(5, 100);
    faults::set(world.path(), HANG, 1);
    world.handle().offer(Kind::Event, vec![1]);
    let spool = world.spool.take();
    let closing = ends_within(Duration::from_millis(50), move || drop(spool));
    assert!(!world.runtime.block_on(closing));
    std::fs::remove_file(world.path().join(HANG)).unwrap();
    world.runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    world.reopen();
    assert_eq!((world.numbers(), world.lost()), ((1..=6).collect(), vec![]));
    let spool = world.spool.take();
    assert!(world.runtime.block_on(ends_within(Duration::from_mins(1), move || drop(spool))));
}

#[test]
fn a_failed_sync_at_the_end_costs_nothing_and_a_disk_that_stays_broken_is_counted() {
    let mut world = World::new(64 * MIB);
    world.append_many(5, 100);
    faults::set(world.path(), SYNC, 1);
    (0..7).for_each(|_| world.handle().offer(Kind::Event, vec![1]));
    world.reopen();
    assert_eq!((world.numbers().len(), world.lost()), (12, vec![]));
    faults::set(world.path(), SYNC, 1000);
    (0..7).for_each(|_| world.handle().offer(Kind::Event, vec![1]));
    world.close();
    faults::set(world.path(), SYNC, 0);
    world.reopen();
    assert!(
        world.report.as_ref().is_some_and(|report| report.contains("written anew")),
        "{:?}",
        world.report
    );
    assert_eq!((world.numbers().len(), world.lost()), (12, vec![(LossCause::Storage, 7)]));
    assert!(world.is_of_first_stream());
    for _run in 0..2 {
        world.reopen();
        assert_eq!((world.lost(), &world.report), (vec![(LossCause::Storage, 7)], &None), "once");
    }
    assert_eq!(world.append(Kind::Event, 1), 13, "the numbers of what was not promised are free");
}

#[test]
fn a_first_sync_that_fails_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    faults::set(dir.path(), SYNC, 1);
    let (spool, _) = open(dir.path(), &config::Spool::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(spool.handle().append(Kind::Event, vec![1])).unwrap(), 1);
    assert!(!dir.path().join("spool.unsynced").exists());
}

#[test]
fn whatever_rung_the_power_cut_hits_the_next_opening_goes_on() {
    for rung in ["marked", "half a copy", "copied", "old one aside", "in place"] {
        let mut world = World::new(64 * MIB);
        world.append_many(9, 5000);
        world.close();
        let at = |name: &str| world.path().join("spool").with_extension(name);
        let old = world.path().join("spool");
        std::fs::write(at("unsynced"), 10_u64.to_be_bytes()).unwrap();
        match rung {
            "half a copy" => std::fs::create_dir_all(at("rescuing").join("db")).unwrap(),
            "copied" => copy_tree(&old, &at("rescued")),
            "old one aside" => {
                copy_tree(&old, &at("rescued"));
                std::fs::rename(&old, at("quarantined")).unwrap();
            }
            "in place" => copy_tree(&old, &at("quarantined")),
            _ => {}
        }
        world.reopen();
        assert_eq!((world.numbers(), world.lost()), ((1..=9).collect(), vec![]), "{rung}");
        assert_eq!((world.append(Kind::Event, 1), world.is_of_first_stream()), (10, true), "{rung}");
        let left = |name: &str| world.path().join("spool").with_extension(name).exists();
        assert!(!left("unsynced") && !left("rescuing") && !left("rescued"), "{rung}");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
