//! SIGKILL after every write of the spool and of the samples, one process for each: whatever the disk holds then, the next
//! opening has every record that was promised, counts what was dropped, neither less nor more, and goes on with the next
//! number. sled's own writes within a flush are cut at the block device by `firmware-tests crash`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use protocol::UnixMillis;
use protocol::sample::Strategy;
use protocol::telemetry::Kind;

use super::{Bounds, Put, Samples, Spool};
use crate::config;
use crate::durable::cut;
use crate::health::Clock;

/// No write is this one.
const NEVER: usize = usize::MAX;
/// Processes at the same time.
const AT_ONCE: usize = 4;
/// Records, and the bytes of each: the last ones are over the bound.
const RECORDS: u64 = 16;
const RECORD_BYTES: usize = 60_000;
const SPOOL_BYTES: u64 = 640_000;
/// The server has the first ones, told after so many.
const ACKNOWLEDGED: u64 = 2;
const TOLD_AFTER: u64 = 4;
const SAMPLES: u8 = 7;
const SAMPLE_BYTES: usize = 100;
/// Room for the last four of them.
const QUOTA: u64 = 450;
const NOW: UnixMillis = UnixMillis(1_795_219_200_000);

fn config() -> config::Spool {
    config::Spool {
        max_bytes: SPOOL_BYTES,
        max_bytes_of: BTreeMap::from([(Kind::Event, SPOOL_BYTES)]),
        commit_after: Duration::from_millis(1),
        ..config::Spool::default()
    }
}

fn open(dir: &Path) -> (Spool, Option<String>) {
    Spool::open(dir, &config(), &Clock::open(dir).unwrap()).unwrap()
}

fn append(spool: &Spool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(spool.handle().append(Kind::Event, vec![7; RECORD_BYTES])).unwrap()
}

/// Not a test by itself: the process that the next tests kill. Prints what is promised, and its writes in the end.
#[test]
fn child_that_stores_until_it_is_killed() {
    let Some(dir) = std::env::var_os("STORE_KILLS_DIR") else { return };
    let kill_at = std::env::var("STORE_KILLS_AT").unwrap().parse().unwrap();
    let dir = Path::new(&dir);
    cut::kill_at(kill_at);
    match std::env::var("STORE_KILLS_WHAT").unwrap().as_str() {
        "spool" => fill_spool(dir),
        _ => fill_samples(dir),
    }
    println!("\nwrites {}", cut::writes());
}

fn fill_spool(dir: &Path) {
    let (spool, _) = open(dir);
    for _record in 0..RECORDS {
        let seq = append(&spool);
        println!("\npromised {seq}");
        if seq == TOLD_AFTER {
            spool.handle().acknowledge(ACKNOWLEDGED);
        }
    }
}

fn bounds(max_per_day: u64) -> Bounds {
    Bounds { quota_bytes: QUOTA, max_per_day }
}

fn fill_samples(dir: &Path) {
    let samples = Samples::open(dir, &config::Spool::default(), NOW);
    for n in 1..=SAMPLES {
        let put = samples.put(Strategy::Random, NOW, &[n; SAMPLE_BYTES], bounds(1000));
        assert!(matches!(put, Ok(Put::Kept { .. })));
        println!("\npromised {n}");
    }
}

fn child(what: &str, dir: &Path, kill_at: usize) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "store::kills::child_that_stores_until_it_is_killed", "--nocapture"]);
    child.env("STORE_KILLS_DIR", dir).env("STORE_KILLS_WHAT", what);
    child.env("STORE_KILLS_AT", kill_at.to_string()).output().unwrap()
}

/// What a child said behind this word last.
fn said(output: &Output, word: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().rev().find_map(|line| line.strip_prefix(word)?.parse().ok())
}

/// Kills one at each of its writes; `check` looks at what is left, told the last promise.
fn at_each_write(what: &str, least: u64, check: impl Fn(&Path, u64) + Sync) {
    let dir = tempfile::tempdir().unwrap();
    let whole = child(what, dir.path(), NEVER);
    let writes = said(&whole, "writes ").unwrap_or_else(|| panic!("{whole:?}"));
    assert!(writes >= least, "only {writes} writes");
    check(dir.path(), said(&whole, "promised ").unwrap());
    let cases = Mutex::new((1..=usize::try_from(writes).unwrap()).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(at) = { cases.lock().unwrap().pop() } {
                let dir = tempfile::tempdir().unwrap();
                let killed = child(what, dir.path(), at);
                // What is acknowledged goes with the next record's group or on its own: runs differ by a few writes.
                let is_shorter = said(&killed, "writes ").is_some_and(|writes| writes < at as u64);
                assert!(is_shorter || !killed.status.success(), "not killed at write {at}: {killed:?}");
                let promised = said(&killed, "promised ").unwrap_or(0);
                let tried =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(dir.path(), promised)));
                tried.unwrap_or_else(|_| panic!("{what}, killed at write {at}, promised {promised}"));
            }
        };
        (0..AT_ONCE).for_each(|_| drop(scope.spawn(work)));
    });
}

#[test]
fn killed_after_any_write_the_spool_has_what_was_promised_and_counts_what_was_dropped() {
    // An append takes four: applied, flushed, synced, noted.
    at_each_write("spool", 4 * RECORDS, |dir, promised| {
        let (spool, report) = open(dir);
        assert_eq!(report, None);
        let handle = spool.handle();
        let last = *handle.durable_seq().borrow();
        assert!(last >= promised, "{promised} was promised, the last one is {last}");
        let stored: Vec<u64> =
            handle.read(0, 1000, 1 << 30).unwrap().records.iter().map(|record| record.seq).collect();
        let gone = (ACKNOWLEDGED + 1..=last).filter(|seq| !stored.contains(seq)).count();
        let counted: u64 = handle.state().dropped.iter().map(|loss| loss.count).sum();
        assert_eq!(counted, u64::try_from(gone).unwrap(), "{stored:?}");
        assert_eq!(handle.state().depth_records, u64::try_from(stored.len()).unwrap());
        assert_eq!(append(&spool), last + 1);
    });
}

#[test]
fn killed_after_any_write_the_samples_are_whole_and_within_their_bounds() {
    at_each_write("samples", 4 * u64::from(SAMPLES), |dir, promised| {
        let samples = Samples::open(dir, &config::Spool::default(), NOW);
        let (mut held, mut rest) = (Vec::new(), samples.let_go());
        while let Some(one) = rest.pop_first() {
            let bytes = samples.read(&one).unwrap().unwrap();
            assert_eq!(bytes, vec![bytes[0]; SAMPLE_BYTES], "whole");
            held.push(u64::from(bytes[0]));
        }
        assert!(held.len() <= 4, "{held:?}");
        assert!(promised == 0 || held.iter().any(|n| *n >= promised), "{promised} was promised, {held:?}");
        assert!(held.is_sorted_by(|a, b| a + 1 == *b), "the oldest went first: {held:?}");
        assert!(!samples.has_share(Strategy::Random, bounds(promised), NOW), "the day's count is too low");
    });
}
