//! The reader: the agent's own code starts on a crash state, and what it finds is compared with what was promised.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use flotilla_agent::config;
use flotilla_agent::health::Clock;
use flotilla_agent::link::Identity;
use flotilla_agent::machine::{Held, Record};
use flotilla_agent::slots::{BootStore, Kept, Shelf};
use flotilla_agent::store::{Spool, SpoolHandle};
use flotilla_agent::trusted_files::{TrustedFiles, trusted_dir};
use flotilla_agent::update::metadata::{Copies, TrustedStore};
use protocol::message::LossCause;
use protocol::telemetry::Kind;

use super::device::{self, Told};
use super::work::{METADATA, Promise, body, kind, metadata_text, root_text, spool_config};

/// Starts on the worker's `state` and says every promise that is broken.
pub(super) fn work(state: &Path, promise: &Promise) -> Vec<String> {
    let checks: [(&str, Check<Promise>); 2] = [("spool", spool), ("trusted files", metadata)];
    broken(&checks, state, promise)
}

/// The same of the device, whose folder this is.
pub(super) fn of_device(folder: &Path, told: &Told) -> Vec<String> {
    let state = folder.join("state");
    // Before it is enrolled nothing is promised, and there may be no folder.
    if !told.is_enrolled {
        return Vec::new();
    }
    let checks: [(&str, Check<Told>); 4] = [
        ("identity", identity),
        ("boot record", boot),
        ("trusted metadata", trusted),
        ("the device's spool", own_spool),
    ];
    broken(&checks, &state, told)
}

type Check<T> = fn(&Path, &T) -> Result<()>;

fn broken<T>(checks: &[(&str, Check<T>)], state: &Path, promise: &T) -> Vec<String> {
    let mut broken = Vec::new();
    for (what, look) in checks {
        match std::panic::catch_unwind(AssertUnwindSafe(|| look(state, promise))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken.push(format!("{what}: {error:#}")),
            Err(_panic) => broken.push(format!("{what}: the reader panicked")),
        }
    }
    broken
}

fn identity(state: &Path, _: &Told) -> Result<()> {
    Identity::load(state).map(drop).context("it can't be read")
}

/// The device comes up with a record that was written, not older than promised, and with whole releases.
fn boot(state: &Path, told: &Told) -> Result<()> {
    let (mut store, kept) = BootStore::open(state, &trusted_dir(state))?;
    ensure!(kept == Kept::Whole, "a copy is damaged ({kept:?})");
    let revision = store.record().revision.0;
    ensure!(revision >= told.revision, "revision {revision} is older than the promised {}", told.revision);
    let shelf = Shelf::open(state)?;
    for record in store.record().models.values() {
        let found = record.phase.task().map_or((0, 0), |task| {
            let word = serde_json::to_value(record.phase.word()).unwrap_or_default();
            device::place(task.release.counter.0, word.as_str().unwrap_or_default())
        });
        ensure!(found >= told.place, "record {found:?} is older than the promised {:?}", told.place);
        let counter = record.mark.as_ref().map_or(0, |mark| mark.counter.0);
        ensure!(counter >= told.committed, "counter {counter} is below {}", told.committed);
        ensure!(told.committed == 0 || record.active.is_some(), "no release is active any more");
        for held in needed(record) {
            whole(&shelf, &held).with_context(|| format!("release {}", held.release.version))?;
        }
    }
    ensure!(told.place.0 == 0 || !store.record().models.is_empty(), "the model is gone");
    let record = store.record().clone();
    store.write(record).context("the record can't be written again")
}

/// What must be on the shelf: the slots, and a candidate whose blobs are said to be there.
fn needed(record: &Record) -> Vec<Held> {
    let slots = [&record.active, &record.fallback].into_iter().flatten().cloned();
    // A phase has a variant from the moment on at which everything was fetched.
    let candidate = record
        .phase
        .task()
        .zip(record.phase.variant())
        .map(|(task, variant)| Held { release: task.release.clone(), variant: variant.to_owned() });
    slots.chain(candidate).collect()
}

/// Every byte is the one that was signed.
fn whole(shelf: &Shelf, held: &Held) -> Result<()> {
    let manifest = shelf.manifest(held.release.digest)?;
    let variant = manifest.variant(&held.variant).context("the variant is missing")?;
    Ok(shelf.check(&manifest, variant)?)
}

/// The signed chain loads as one, and isn't older than the device said.
fn trusted(state: &Path, told: &Told) -> Result<()> {
    let store = TrustedStore::open(state, Identity::load(state)?.project, None)?;
    ensure!(store.check()? == Copies::Both, "a copy of the root is damaged");
    ensure!(store.has_root()?, "the root is gone");
    let found = store.freshness().map_or(0, |freshness| freshness.timestamp_version);
    ensure!(found >= told.timestamp, "timestamp {found} is older than the promised {}", told.timestamp);
    ensure!(told.timestamp == 0 || store.stored_director().is_some(), "nobody may sign a Desired any more");
    Ok(())
}

/// It opens as if nothing had happened, and takes records.
fn own_spool(state: &Path, _: &Told) -> Result<()> {
    let (spool, report) = Spool::open(state, &config::Spool::default(), &Clock::open(state)?)?;
    if let Some(report) = report {
        bail!("{report}");
    }
    let handle = spool.handle();
    let last = *handle.durable_seq().borrow();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = runtime.block_on(handle.append(Kind::Event, Vec::new()))?;
    ensure!(next == last + 1, "number {next} was given after {last}");
    Ok(())
}

/// Every promised record is there that no bound excludes, whole and in order, and the sequence goes on.
fn spool(state: &Path, promise: &Promise) -> Result<()> {
    let clock = Clock::open(state)?;
    let (spool, report) = Spool::open(state, &spool_config(), &clock)?;
    if let Some(report) = report {
        bail!("{report}");
    }
    let handle = spool.handle();
    if let Some(problem) = handle.problem() {
        bail!("{}", problem.detail);
    }
    if promise.stream.is_empty() {
        return Ok(());
    }
    ensure!(handle.stream().to_string() == promise.stream, "a new stream began");
    let found = records(&handle, promise)?;
    let last = found.last;
    ensure!(last >= promise.seq, "record {} was promised, the last one is {last}", promise.seq);
    bounded(&handle, &found, promise)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = runtime.block_on(handle.append(Kind::Event, Vec::new()))?;
    ensure!(next > last, "number {next} was given again after {last}");
    Ok(())
}

/// What lies in the spool.
struct Found {
    last: u64,
    logs: u64,
    /// Log lines that are missing although the server has not said that it has them.
    missing_logs: u64,
}

/// Walks through what is there; fails at a gap that no bound explains, or where a record has another content.
fn records(handle: &SpoolHandle, promise: &Promise) -> Result<Found> {
    let mut found = Found { last: promise.acknowledged, logs: 0, missing_logs: 0 };
    let (mut from, mut is_first) = (0, true);
    loop {
        let chunk = handle.read(from, 100, 1 << 20)?;
        if chunk.records.is_empty() {
            return Ok(found);
        }
        for record in chunk.records {
            let seq = record.seq;
            // An acknowledgement that was under way may not have deleted anything yet.
            let expected = if is_first { seq.min(promise.acknowledged + 1) } else { from };
            let missing = expected..seq;
            let lost = missing.clone().find(|seq| kind(*seq) != Kind::Log);
            ensure!(lost.is_none(), "record {lost:?} is missing before {seq}");
            found.missing_logs += logs_in(missing.filter(|seq| *seq > promise.acknowledged));
            ensure!(
                record.kind == kind(seq) && *record.body == *body(seq),
                "record {seq} has another content"
            );
            found.logs += u64::from(record.kind == Kind::Log);
            found.last = found.last.max(seq);
            (from, is_first) = (seq + 1, false);
        }
    }
}

fn logs_in(seqs: impl Iterator<Item = u64>) -> u64 {
    seqs.map(|seq| u64::from(kind(seq) == Kind::Log)).sum()
}

/// Of log lines, the only ones that may be missing, there are no more than their bound permits, and the losses were
/// counted with the deletion: not one less than are missing, not one more than can have been dropped.
fn bounded(handle: &SpoolHandle, found: &Found, promise: &Promise) -> Result<()> {
    let mut lost = 0;
    for loss in handle.state().dropped {
        ensure!((loss.kind, loss.cause) == (Kind::Log, LossCause::Full), "something else is lost: {loss:?}");
        lost = loss.count;
    }
    let gone = logs_in(1..=found.last) - found.logs;
    let least = if promise.acknowledged == 0 { gone } else { found.missing_logs };
    ensure!(
        (least..=gone).contains(&lost),
        "{lost} log lines are counted as lost, but {least} to {gone} are"
    );
    let waiting = handle.waiting();
    for one in &waiting {
        ensure!(one.bytes <= one.max_bytes, "over its bound: {one:?}");
    }
    let logs = waiting.iter().find(|one| one.kind == Kind::Log).map_or(0, |one| one.records);
    ensure!(logs == found.logs, "{logs} log lines are counted, {} are there", found.logs);
    Ok(())
}

/// All files of one refresh are there, whole, of one version and not older than promised.
fn metadata(state: &Path, promise: &Promise) -> Result<()> {
    let files = TrustedFiles::open(trusted_dir(state))?;
    let Some(stored) = files.load()? else {
        ensure!(promise.root == 0, "the root is gone");
        return Ok(());
    };
    let root = version(&stored.root).context("the root has no number")?;
    ensure!(root >= promise.root, "root {root} is older than the promised {}", promise.root);
    ensure!(stored.root == root_text(root).into_bytes(), "root {root} is not whole");
    ensure!(!files.is_root_halved()?, "a copy of the root is damaged");
    let Some(first) = stored.files.get(METADATA[0]) else {
        ensure!(promise.metadata == 0, "{} is gone", METADATA[0]);
        ensure!(stored.files.is_empty(), "{} is missing beside others", METADATA[0]);
        return Ok(());
    };
    let n = version(first).with_context(|| format!("{} has no number", METADATA[0]))?;
    ensure!(n >= promise.metadata, "version {n} is older than the promised {}", promise.metadata);
    for name in METADATA {
        let bytes = stored.files.get(name).with_context(|| format!("{name} is missing"))?;
        ensure!(*bytes == metadata_text(n).into_bytes(), "{name} is not that of version {n}, or not whole");
    }
    Ok(())
}

/// The number that a file begins with.
fn version(bytes: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(bytes).split(' ').next()?.parse().ok()
}
