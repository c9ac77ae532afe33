//! The spool as a peer: what was acknowledged as durable survives SIGKILL, what is dropped is counted exactly, and a
//! damaged database does not stop the agent.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod keys;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flotilla_agent::config;
use flotilla_agent::health::Clock;
use flotilla_agent::store::{Spool, SpoolHandle};
use protocol::message::LossCause;
use protocol::telemetry::Kind;
use protocol::{Digest, ModelName, UnixMillis};

const MIB: u64 = 1024 * 1024;

fn config(max_bytes: u64) -> config::Spool {
    config::Spool { max_bytes, commit_after: Duration::from_millis(5), ..config::Spool::default() }
}

fn open(dir: &Path, max_bytes: u64) -> (Spool, Option<String>) {
    let clock = Clock::open(dir).unwrap();
    Spool::open(dir, &config(max_bytes), &clock).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn all(spool: &SpoolHandle) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    loop {
        let from = records.last().map_or(0, |(seq, _): &(u64, _)| seq + 1);
        let chunk = spool.read(from, 100, 256 * 1024).unwrap();
        if chunk.records.is_empty() {
            return records;
        }
        records.extend(chunk.records.into_iter().map(|r| (r.seq, r.body.into_vec())));
    }
}

/// Not a test by itself: the process that the next test kills. Prints each durable sequence number.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SPOOL_CHILD_DIR") else { return };
    let (spool, _) = open(Path::new(&dir), 64 * MIB);
    let handle = spool.handle();
    runtime().block_on(async {
        for n in 0_u64.. {
            let body = [n.to_be_bytes().to_vec(), vec![7; usize::try_from(n % 9000).unwrap()]].concat();
            let seq = handle.append(Kind::Pane, body).await.unwrap();
            println!("\ndurable {seq}");
        }
    });
}

#[test]
fn what_was_durable_survives_being_killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut last_durable = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends_until_it_is_killed", "--nocapture"])
            .env("SPOOL_CHILD_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut durable =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let seen = durable.by_ref().take(20 + round * 13).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen > last_durable, "sequence numbers never repeat");
        last_durable = durable.last().unwrap_or(seen).max(seen);
        let (spool, report) = open(dir.path(), 64 * MIB);
        assert_eq!(report, None);
        let records = all(&spool.handle());
        let seqs: Vec<u64> = records.iter().map(|(seq, _)| *seq).collect();
        assert!(
            seqs.last().is_some_and(|last| *last >= last_durable),
            "{last_durable} is missing, last is {:?}",
            seqs.last()
        );
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1) && seqs[0] == 1, "no gap");
    }
}

#[test]
fn acknowledged_records_are_deleted_and_the_sequence_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let stream;
    {
        let (spool, _) = open(dir.path(), 64 * MIB);
        let handle = spool.handle();
        stream = handle.stream();
        for n in 1..=10 {
            assert_eq!(rt.block_on(handle.append(Kind::Event, vec![n])).unwrap(), u64::from(n));
        }
        handle.acknowledge(7);
        wait_for("deletion", || handle.read(0, 100, 1000).is_ok_and(|chunk| chunk.floor_seq == 8));
        assert_eq!(handle.read(0, 100, 1000).unwrap().records[0].seq, 8);
        wait_for("counting", || handle.state().depth_records == 3);
        handle.acknowledge(10);
        wait_for("deletion", || handle.state().depth_records == 0);
    }
    let (spool, _) = open(dir.path(), 64 * MIB);
    let handle = spool.handle();
    assert_eq!(handle.stream(), stream);
    assert_eq!(rt.block_on(handle.append(Kind::Event, vec![11])).unwrap(), 11);
    assert_eq!(handle.state().depth_bytes, 1);
}

#[test]
fn ranges_that_the_server_has_above_a_gap_are_deleted_too() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let (spool, _) = open(dir.path(), MIB);
    let handle = spool.handle();
    for n in 1..=10 {
        rt.block_on(handle.append(Kind::Event, vec![n])).unwrap();
    }
    handle.acknowledge_ranges(2, vec![(5, 6), (9, 12)]);
    wait_for("deletion", || handle.state().depth_records == 4);
    let left: Vec<u64> = all(&handle).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!((left, handle.state().dropped.len()), (vec![3, 4, 7, 8], 0));
}

#[test]
fn a_full_spool_drops_the_least_important_and_counts_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let (spool, _) = open(dir.path(), MIB);
    let handle = spool.handle();
    for n in 0..400_u32 {
        let kind = if n % 2 == 0 { Kind::Log } else { Kind::Pane };
        rt.block_on(handle.append(kind, vec![0; 4000])).unwrap();
    }
    let state = handle.state();
    assert!(state.depth_bytes <= MIB, "{} bytes", state.depth_bytes);
    let dropped: u64 = state.dropped.iter().map(|loss| loss.count).sum();
    assert_eq!(dropped + state.depth_records, 400);
    assert!(
        state.dropped.iter().all(|loss| loss.kind == Kind::Log && loss.cause == LossCause::Full),
        "{:?}",
        state.dropped
    );
    drop(spool);
    let (spool, _) = open(dir.path(), MIB);
    let again = spool.handle().state();
    assert_eq!(
        (again.dropped, again.depth_records, again.depth_bytes),
        (state.dropped, state.depth_records, state.depth_bytes)
    );
}

#[test]
fn a_record_over_the_bound_is_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), MIB);
    let handle = spool.handle();
    assert!(runtime().block_on(handle.append(Kind::Sample, vec![0; 300_000])).is_err());
    handle.offer(Kind::Sample, vec![0; 300_000]);
    let dropped = handle.state().dropped;
    assert_eq!((dropped[0].cause, dropped[0].count), (LossCause::TooLarge, 2));
}

#[test]
fn a_damaged_database_is_moved_aside_and_the_agent_lives() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let stream = {
        let (spool, _) = open(dir.path(), MIB);
        rt.block_on(spool.handle().append(Kind::Event, vec![1])).unwrap();
        spool.handle().stream()
    };
    std::fs::write(dir.path().join("spool/conf"), [0; 62]).unwrap();
    let (spool, report) = open(dir.path(), MIB);
    assert!(report.is_some_and(|text| text.contains("moved to")));
    assert_ne!(spool.handle().stream(), stream);
    assert_eq!(rt.block_on(spool.handle().append(Kind::Event, vec![2])).unwrap(), 1);
    assert!(dir.path().join("spool.quarantined/conf").exists());
}

/// One run that stores `records`, one after the other; returns their stream.
fn fill(dir: &Path, records: usize) -> protocol::StreamId {
    let (spool, _) = open(dir, MIB);
    let rt = runtime();
    for n in 0..records {
        let kind = if n.is_multiple_of(2) { Kind::Event } else { Kind::Resources };
        rt.block_on(spool.handle().append(kind, vec![7; 300])).unwrap();
    }
    spool.handle().stream()
}

#[test]
fn whatever_damage_takes_from_the_database_is_counted_and_no_number_is_given_twice() {
    let (dir, rt) = (tempfile::tempdir().unwrap(), runtime());
    let stream = fill(dir.path(), 30);
    let path = dir.path().join("spool/db");
    let good = std::fs::read(&path).unwrap();
    let length = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut damaged = 0;
    for place in (0..length).step_by(length / 40) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        let mut bad = good.clone();
        bad[place] ^= 0xff;
        std::fs::write(copy.path().join("spool/db"), &bad).unwrap();
        let (spool, report) = open(copy.path(), MIB);
        let state = spool.handle().state();
        let lost: u64 = state.dropped.iter().map(|loss| loss.count).sum();
        assert_eq!(state.depth_records + lost, 30, "byte {place}: {state:?}");
        assert_eq!(report.is_some(), lost > 0, "byte {place}: {report:?}");
        assert!(state.dropped.iter().all(|loss| loss.cause == LossCause::Storage));
        let next = rt.block_on(spool.handle().append(Kind::Event, vec![1])).unwrap();
        let first_free = if spool.handle().stream() == stream { 31 } else { 1 };
        assert_eq!(next, first_free, "byte {place}: {report:?}");
        damaged += u32::from(lost > 0);
    }
    assert!(damaged >= 5, "only {damaged} of 40 damaged bytes took a record");
}

#[test]
fn a_spool_whose_folder_is_gone_is_counted_as_lost_once() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 5);
    std::fs::remove_dir_all(dir.path().join("spool")).unwrap();
    for _run in 0..2 {
        let (spool, _) = open(dir.path(), MIB);
        runtime().block_on(spool.handle().append(Kind::Event, vec![1])).unwrap();
        let lost: u64 = spool.handle().state().dropped.iter().map(|loss| loss.count).sum();
        assert_eq!(lost, 5);
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_tree(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn what_is_no_folder_in_the_spools_place_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    for _again in 0..2 {
        let _gone = std::fs::remove_dir_all(dir.path().join("spool"));
        std::fs::write(dir.path().join("spool"), "mine").unwrap();
        let (spool, report) = open(dir.path(), MIB);
        assert!(report.is_some_and(|text| text.contains("it is no folder")));
        assert_eq!(runtime().block_on(spool.handle().append(Kind::Event, vec![1])).unwrap(), 1);
        assert_eq!(std::fs::read(dir.path().join("spool.quarantined")).unwrap(), b"mine");
    }
}

#[test]
fn what_the_database_never_put_there_is_moved_aside_unopened() {
    let make = |what: &str, path: &Path| {
        let _gone = std::fs::remove_file(path);
        match what {
            "pipe" => {
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap();
            }
            "folder" => std::fs::create_dir(path).unwrap(),
            "link" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            "hollow file" => std::fs::File::create(path).unwrap().set_len(1 << 42).unwrap(),
            _ => std::fs::File::create(path).unwrap().set_len(1 << 32).unwrap(),
        }
    };
    for (what, name) in [
        ("pipe", "conf"),
        ("pipe", "snap.00000000000000FF"),
        ("folder", "db"),
        ("link", "snap.00000000000000FF"),
        ("long file", "snap.00000000000000FF"),
        ("long file", "conf"),
        ("pipe", "blobs"),
        ("pipe", "blobs/77"),
        ("folder", "blobs/77"),
        ("long file", "blobs/77"),
        ("hollow file", "db"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 5);
        let place = dir.path().join("spool").join(name);
        if name == "blobs" {
            std::fs::remove_dir_all(&place).unwrap();
        }
        make(what, &place);
        let (spool, report) = open(dir.path(), MIB);
        assert!(report.as_ref().is_some_and(|text| text.contains(name)), "{what} at {name}: {report:?}");
        let lost: u64 = spool.handle().state().dropped.iter().map(|loss| loss.count).sum();
        assert_eq!(lost, 5, "{what} at {name}");
    }
    for (what, name) in [
        ("pipe", "noted"),
        ("link", "noted"),
        ("pipe", "opening"),
        ("folder", "opening"),
        ("long file", "opening"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        make(what, &dir.path().join("spool").with_extension(name));
        let (spool, _) = open(dir.path(), MIB);
        assert_eq!(runtime().block_on(spool.handle().append(Kind::Event, vec![1])).unwrap(), 1);
        assert!(dir.path().join("spool.noted").symlink_metadata().unwrap().is_file());
    }
}

#[test]
fn what_could_not_be_stored_at_the_end_is_counted_by_the_next_run_once() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let sealed = config::Spool { encrypt: true, key_file: Some(key.clone()), ..config(MIB) };
    let clock = Clock::open(dir.path()).unwrap();
    let run = || Spool::open(dir.path(), &sealed, &clock).unwrap().0;
    // More than one group: the writer takes no order any more, and has to see the end all the same.
    for _run in 0..2 {
        let spool = run();
        (0..600).for_each(|_| spool.handle().offer(Kind::Pane, vec![1]));
        wait_for("a count of what waits", || spool.handle().figures().in_memory_records == 600);
    }
    std::fs::write(&key, [7; 32]).unwrap();
    for _run in 0..2 {
        let spool = run();
        runtime().block_on(spool.handle().append(Kind::Event, vec![1])).unwrap();
        let lost: Vec<_> = spool.handle().state().dropped;
        assert!(
            matches!(lost.as_slice(), [loss] if loss.cause == LossCause::Storage && loss.count == 1200),
            "{lost:?}"
        );
        wait_for("an empty queue", || spool.handle().figures().in_memory_records == 0);
    }
}

#[test]
fn a_disk_that_takes_no_spool_is_tried_again_and_what_came_meanwhile_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::open(dir.path()).unwrap();
    // As one that is mounted late.
    let disk = dir.path().join("disk");
    let (spool, _) = Spool::open(&disk, &config(MIB), &clock).unwrap();
    let handle = spool.handle();
    assert!(handle.problem().is_some_and(|problem| problem.detail.contains("can't be stored")));
    (0..3).for_each(|_| handle.offer(Kind::Pane, vec![1]));
    std::fs::create_dir(&disk).unwrap();
    let seq = runtime().block_on(handle.append(Kind::Event, vec![1])).unwrap();
    assert_eq!((seq, handle.state().depth_records, handle.problem()), (4, 4, None), "nothing was lost");
}

#[test]
fn openings_that_end_the_process_lead_to_a_new_database() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), MIB));
    std::fs::write(dir.path().join("spool.opening"), [2]).unwrap();
    let (_spool, report) = open(dir.path(), MIB);
    assert!(report.is_some_and(|text| text.contains("2 openings")));
    assert!(!dir.path().join("spool.opening").exists());
}

#[test]
fn offered_records_are_kept_when_the_spool_closes() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (spool, _) = open(dir.path(), 64 * MIB);
        (0..100).for_each(|n| spool.handle().offer(Kind::Pane, vec![n; 100]));
    }
    assert_eq!(all(&open(dir.path(), 64 * MIB).0.handle()).len(), 100);
}

#[test]
fn after_the_state_went_back_numbers_go_on_above_what_the_server_has() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), 64 * MIB);
    let handle = spool.handle();
    runtime().block_on(async {
        assert_eq!(handle.append(Kind::Pane, b"before".to_vec()).await.unwrap(), 1);
        for upto in [1000, 7, u64::MAX] {
            handle.acknowledge(upto);
        }
        assert_eq!(handle.append(Kind::Pane, b"after".to_vec()).await.unwrap(), 1001);
    });
    drop(spool);
    let (spool, problem) = open(dir.path(), 64 * MIB);
    assert_eq!(problem, None);
    assert_eq!(all(&spool.handle()), [(1001, b"after".to_vec())]);
}

fn pane(minute: i64) -> Vec<u8> {
    let mut builder =
        profile::ReferenceBuilder::new(profile::features::Extractor::Nothing, vec!["a".into(), "b".into()]);
    (0..20).for_each(|_| builder.add_classified(&[], &[0.8, 0.2], Some(0)));
    let reference = builder.build().unwrap();
    let key = profile::PaneKey {
        model: ModelName::new("m").unwrap(),
        digest: Digest::from_bytes([1; 32]),
        schema: reference.schema.digest(),
        segment: String::new(),
        start: UnixMillis(minute * 60_000),
        end: UnixMillis((minute + 1) * 60_000),
        run: 1,
        revision: 0,
    };
    let mut pane = profile::Pane::new(key, &reference.schema);
    (0..=minute % 7).for_each(|_| pane.counters.observe_answer(5.0));
    pane.encode()
}

fn answered(records: &[(u64, Vec<u8>)]) -> u64 {
    records.iter().map(|(_, body)| profile::Pane::decode(body).unwrap().counters.answered).sum()
}

#[test]
fn panes_of_a_full_spool_merge_and_not_one_count_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let (spool, _) = open(dir.path(), MIB);
    let handle = spool.handle();
    let many = i64::try_from(3 * MIB).unwrap() / i64::try_from(pane(0).len()).unwrap();
    let mut counted = 0;
    for minute in 0..many {
        counted += u64::try_from(minute % 7 + 1).unwrap();
        rt.block_on(handle.append(Kind::Pane, pane(minute))).unwrap();
    }
    let (state, figures) = (handle.state(), handle.figures());
    assert!(state.dropped.is_empty() && state.depth_bytes <= MIB, "{state:?}");
    assert_eq!(state.depth_records + figures.merged_panes, u64::try_from(many).unwrap());
    assert!(figures.merged_panes > 0);
    assert_eq!(answered(&all(&handle)), counted);
    drop(spool);
    let (spool, report) = open(dir.path(), MIB);
    assert_eq!((report, answered(&all(&spool.handle()))), (None, counted), "after a restart too");
    assert_eq!(spool.handle().state().depth_bytes, state.depth_bytes);
}

#[test]
fn panes_that_may_have_been_sent_are_not_merged_but_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let (spool, _) = open(dir.path(), MIB);
    let handle = spool.handle();
    handle.set_sending(true);
    let many = i64::try_from(3 * MIB).unwrap() / i64::try_from(pane(0).len()).unwrap();
    for minute in 0..many {
        rt.block_on(handle.append(Kind::Pane, pane(minute))).unwrap();
    }
    wait_for("the mark", || *handle.sendable_seq().borrow() == u64::try_from(many).unwrap());
    let state = handle.state();
    let dropped: u64 = state.dropped.iter().map(|loss| loss.count).sum();
    assert_eq!(
        (handle.figures().merged_panes, dropped + state.depth_records),
        (0, u64::try_from(many).unwrap())
    );
}

#[test]
fn nothing_is_sendable_before_it_is_noted_as_sent() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    {
        let (spool, _) = open(dir.path(), MIB);
        let handle = spool.handle();
        rt.block_on(handle.append(Kind::Pane, vec![1])).unwrap();
        assert_eq!(*handle.sendable_seq().borrow(), 0);
        handle.set_sending(true);
        wait_for("the mark", || *handle.sendable_seq().borrow() == 1);
        handle.set_sending(false);
        rt.block_on(handle.append(Kind::Pane, vec![2])).unwrap();
        assert_eq!((*handle.sendable_seq().borrow(), *handle.durable_seq().borrow()), (1, 2));
    }
    let (spool, _) = open(dir.path(), MIB);
    assert_eq!(*spool.handle().sendable_seq().borrow(), 1, "the mark survives a restart");
}

#[test]
fn a_start_with_a_clock_that_is_ahead_makes_no_record_old() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    let clock = Clock::open(dir.path()).unwrap();
    let later = clock.now().plus_millis(400 * 24 * 3600 * 1000);
    std::fs::write(dir.path().join("clock-floor"), later.0.to_string()).unwrap();
    let clock = Clock::open(dir.path()).unwrap();
    let (spool, _) = Spool::open(dir.path(), &config(MIB), &clock).unwrap();
    runtime().block_on(spool.handle().append(Kind::Event, vec![2])).unwrap();
    let state = spool.handle().state();
    assert!(state.dropped.is_empty() && state.depth_records == 4, "{state:?}");
}

#[test]
fn records_too_old_for_their_kind_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let clock = Clock::open(dir.path()).unwrap();
    {
        let (spool, _) = open(dir.path(), MIB);
        for kind in [Kind::Pane, Kind::Log, Kind::Resources] {
            rt.block_on(spool.handle().append(kind, vec![1])).unwrap();
        }
    }
    // Ten days pass, for an agent that noted no time: another one would count only those that it has run.
    std::fs::remove_file(dir.path().join("spool.noted")).unwrap();
    let later = clock.now().plus_millis(10 * 24 * 3600 * 1000);
    std::fs::write(dir.path().join("clock-floor"), later.0.to_string()).unwrap();
    let clock = Clock::open(dir.path()).unwrap();
    let (spool, _) = Spool::open(dir.path(), &config(MIB), &clock).unwrap();
    let handle = spool.handle();
    rt.block_on(handle.append(Kind::Event, vec![2])).unwrap();
    let dropped = handle.state().dropped;
    let kinds: Vec<Kind> = dropped.iter().map(|loss| loss.kind).collect();
    assert_eq!(kinds, [Kind::Resources, Kind::Log], "panes are worth more time");
    assert!(dropped.iter().all(|loss| (loss.cause, loss.count) == (LossCause::Expired, 1)), "{dropped:?}");
}
