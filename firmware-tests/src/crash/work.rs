//! The work that is recorded beside a device's: the agent's own spool with records that follow from their numbers, and
//! its own files of trusted metadata, replaced round after round. After each step that returned as durable, a mark on the
//! same disk says what was promised.
//!
//! [`Bug`] makes the same work with a deliberate mistake: a rig that doesn't find it is broken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use flotilla_agent::config;
use flotilla_agent::durable;
use flotilla_agent::health::Clock;
use flotilla_agent::store::{Spool, SpoolHandle};
use flotilla_agent::trusted_files::{TrustedFiles, trusted_dir};
use protocol::telemetry::Kind;
use serde::{Deserialize, Serialize};

use super::marks::{Marks, WORK};

/// A new trusted root after so many rounds.
const ROUNDS_PER_ROOT: u32 = 3;

/// Length of log lines, at least: what waits of them is over their bound every few rounds.
const LOG_BYTES: u64 = 60_000;
/// Their bound.
const LOG_BOUND: u64 = 512 * 1024;
/// The server acknowledges after so many rounds.
const ROUNDS_PER_ACKNOWLEDGEMENT: u32 = 10;

/// A deliberate mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Bug {
    /// Records are promised when they are offered, not when they are durable.
    EarlyPromise,
    /// A file is replaced by a rename without any fsync.
    UnsyncedRename,
}

impl Bug {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::EarlyPromise => "early-promise",
            Self::UnsyncedRename => "unsynced-rename",
        }
    }
}

/// What the program was told to be durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promise {
    /// Stream of the records.
    pub(super) stream: String,
    /// Highest durable record.
    pub(super) seq: u64,
    /// The server has all up to this one: these may be gone.
    pub(super) acknowledged: u64,
    /// Version of the trusted metadata.
    pub(super) metadata: u64,
    /// Version of the trusted root.
    pub(super) root: u64,
}

/// What a record is, by its number: one in eight is a log line, the one kind that is more than its bound permits.
pub(super) fn kind(seq: u64) -> Kind {
    match seq % 8 {
        0 => Kind::Log,
        1..4 => Kind::Pane,
        _ => Kind::Event,
    }
}

/// The body of a record: its length and content follow from its number.
pub(super) fn body(seq: u64) -> Vec<u8> {
    let base = if kind(seq) == Kind::Log { LOG_BYTES } else { 0 };
    let length = base + seq.wrapping_mul(7919) % 9000;
    (0..length).map(|at| seq.wrapping_mul(31).wrapping_add(at).to_le_bytes()[0]).collect()
}

/// Names of the trusted metadata that one refresh replaces: all or none.
pub(super) const METADATA: [&str; 4] = ["digits.json", "snapshot.json", "targets.json", "timestamp.json"];

/// Content of each of them in version `n`.
pub(super) fn metadata_text(n: u64) -> String {
    format!("{n} {}", "signed ".repeat(100 + usize::try_from(n % 50).unwrap_or(0)))
}

/// Content of the trusted root in version `n`.
pub(super) fn root_text(n: u64) -> String {
    format!("{n} {}", "root ".repeat(1 + usize::try_from(n % 7).unwrap_or(0)))
}

pub(super) fn spool_config() -> config::Spool {
    config::Spool {
        max_bytes: 4 << 20,
        max_bytes_of: BTreeMap::from([(Kind::Log, LOG_BOUND)]),
        commit_after: Duration::from_millis(1),
        ttl: Duration::from_hours(24 * 365),
        write_bytes_per_day: 0,
        ..config::Spool::default()
    }
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's state directory.
    #[arg(long)]
    state: PathBuf,
    /// The disk beyond its file system.
    #[arg(long)]
    marks: PathBuf,
    #[arg(long)]
    rounds: u32,
    /// After each round, so that a device beside has its time.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    #[arg(long, value_enum)]
    bug: Option<Bug>,
}

/// One device at work.
struct Work {
    state: PathBuf,
    marks: Marks<Promise>,
    spool: SpoolHandle,
    trusted: TrustedFiles,
    bug: Option<Bug>,
    runtime: tokio::runtime::Runtime,
}

/// Not for people: the program that [`super::disk::record`] lets work on a logged disk.
pub(crate) fn main(args: &Args) -> Result<()> {
    durable::make_dir(&args.state)?;
    durable::make_dir(&trusted_dir(&args.state))?;
    let clock = Clock::open(&args.state)?;
    let (spool, report) = Spool::open(&args.state, &spool_config(), &clock)?;
    ensure!(report.is_none(), "a new spool has something to report: {report:?}");
    let mut work = Work {
        marks: Marks::open(&args.marks, WORK)?,
        spool: spool.handle(),
        trusted: TrustedFiles::open(trusted_dir(&args.state))?,
        state: args.state.clone(),
        bug: args.bug,
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    let stream = work.spool.stream().to_string();
    work.marks.write(|promise| promise.stream = stream)?;
    work.root(1)?;
    for round in 1..=args.rounds {
        work.telemetry(round)?;
        work.metadata(u64::from(round))?;
        if round.is_multiple_of(ROUNDS_PER_ROOT) {
            work.root(u64::from(round / ROUNDS_PER_ROOT) + 1)?;
        }
        std::thread::sleep(Duration::from_millis(args.pause_ms));
    }
    ensure!(!work.spool.state().dropped.is_empty(), "no kind of record ever came to its bound");
    drop(work);
    drop(spool);
    Ok(())
}

impl Work {
    /// Some records one by one, some as a group, and now and then the server's acknowledgement.
    fn telemetry(&mut self, round: u32) -> Result<()> {
        let mut next = self.marks.promise.seq + 1;
        for _ in 0..=(round % 3) {
            if self.bug == Some(Bug::EarlyPromise) {
                self.marks.write(|promise| promise.seq = next)?;
            }
            let seq = self.runtime.block_on(self.spool.append(kind(next), body(next)))?;
            ensure!(seq == next, "record {next} got the number {seq}");
            self.marks.write(|promise| promise.seq = seq)?;
            next += 1;
        }
        let last = next + 7;
        for seq in next..last {
            self.spool.offer(kind(seq), body(seq));
        }
        let seq = self.runtime.block_on(self.spool.append(kind(last), body(last)))?;
        ensure!(seq == last, "record {last} got the number {seq}");
        self.marks.write(|promise| promise.seq = seq)?;
        if round.is_multiple_of(ROUNDS_PER_ACKNOWLEDGEMENT) {
            // From here on these may be gone, whether or not the deletion is durable.
            let upto = seq - 10;
            self.marks.write(|promise| promise.acknowledged = upto)?;
            self.spool.acknowledge(upto);
        }
        Ok(())
    }

    /// As a refresh that was accepted.
    fn metadata(&mut self, n: u64) -> Result<()> {
        let text = metadata_text(n);
        if self.bug == Some(Bug::UnsyncedRename) {
            for name in METADATA {
                let path = trusted_dir(&self.state).join(name);
                let temp = path.with_extension("tmp");
                std::fs::write(&temp, &text)?;
                std::fs::rename(&temp, &path)?;
            }
        } else {
            let file = |name: &str| trust::File { name: name.into(), bytes: text.clone().into_bytes() };
            self.trusted.commit(&METADATA.map(file))?;
        }
        self.marks.write(|promise| promise.metadata = n)
    }

    fn root(&mut self, n: u64) -> Result<()> {
        self.trusted.keep("root.json", root_text(n).as_bytes())?;
        self.marks.write(|promise| promise.root = n)
    }
}
