//! Captured samples beside the spool: one file each until the server has stored it.
//!
//! A file appears whole or not at all. The room is bounded: when it is short, the oldest sample of the lowest strategy
//! goes, and a new one never displaces one of more worth. How many a day has had survives a restart. Where the
//! spool's records are encrypted at rest, so are the samples.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::sample::{MAX_SAMPLE_BYTES, Strategy};
use protocol::telemetry::Kind;
use protocol::{Digest, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::budget::is_other_day;
use super::seal::{OVERHEAD_BYTES, Seal};
use crate::config;
use crate::durable::{self, DurableError, cut};

const FOLDER: &str = "samples";
const TODAY: &str = "today";
const PLAIN: &str = "sample";
const SEALED: &str = "sealed";
const DAY_MS: i64 = 24 * 3600 * 1000;
const MAX_TODAY_BYTES: u64 = 4096;

/// One sample that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Why it was kept; what is worth less goes first.
    pub strategy: Strategy,
    /// Its place in time on this device.
    pub seq: u64,
    /// SHA-256 of its bytes: its name at the server.
    pub digest: Digest,
    is_sealed: bool,
    file_bytes: u64,
}

impl Held {
    fn file(&self) -> String {
        let end = if self.is_sealed { SEALED } else { PLAIN };
        format!("{:016x}-{}-{}.{end}", self.seq, self.strategy, self.digest.to_hex())
    }

    fn parse(name: &str, file_bytes: u64) -> Option<Self> {
        let (name, end) = name.rsplit_once('.')?;
        let (seq, rest) = name.split_once('-')?;
        let (strategy, digest) = rest.split_once('-')?;
        let held = Self {
            strategy: strategy.parse().ok()?,
            seq: u64::from_str_radix(seq, 16).ok()?,
            digest: digest.parse().ok()?,
            is_sealed: end == SEALED,
            file_bytes,
        };
        (end == SEALED || end == PLAIN).then_some(held)
    }
}

/// What became of a new sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is durable; so many others made room for it.
    Kept {
        /// Those that went.
        displaced: u64,
    },
    /// The strategy has had its share of the day.
    DayIsFull,
    /// What is here is worth more, or the sample is larger than all of the room.
    NoRoom,
}

/// How much the samples may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all files together.
    pub quota_bytes: u64,
    /// Samples of one strategy in one day (UTC).
    pub max_per_day: u64,
}

/// What each strategy has kept in one day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Today {
    day: i64,
    kept: BTreeMap<Strategy, u64>,
}

impl Today {
    fn kept(&self, strategy: Strategy, day: i64) -> u64 {
        if is_other_day(day, self.day) { 0 } else { self.kept.get(&strategy).copied().unwrap_or(0) }
    }

    fn with_one_more(&self, strategy: Strategy, day: i64) -> Self {
        let is_other = is_other_day(day, self.day);
        let mut next = if is_other { Self { day, kept: BTreeMap::new() } } else { self.clone() };
        *next.kept.entry(strategy).or_default() += 1;
        next
    }
}

/// The samples of this device. Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct Samples(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    seal: Option<Seal>,
    seals_new: bool,
    /// Whether the key can't be had: what is sealed stays on the disk, and nothing new is kept, least of all in plain.
    is_locked: bool,
    /// Held by who changes the folder, over all that waits for the disk. Taken before `state`, never after it.
    writing: Mutex<()>,
    /// Never held over anything that waits: who asks for figures may be the thread that serves.
    state: Mutex<State>,
    added: Notify,
}

/// What the folder holds. Changed only by who holds [`Shared::writing`], but for what [`Samples::let_go`] takes out.
struct State {
    held: BTreeSet<Held>,
    /// Numbers of those that the disk didn't give when they were to be sent: others go first.
    passed_over: BTreeSet<u64>,
    next_seq: u64,
    today: Today,
}

impl State {
    fn next(&self) -> Option<Held> {
        let waits = |held: &&Held| !self.passed_over.contains(&held.seq);
        let best = self.held.iter().rev().find(waits)?.strategy;
        self.held.iter().filter(waits).find(|held| held.strategy == best).cloned()
    }
}

impl Samples {
    /// Opens the folder, which the first sample makes; what is not whole is removed. Without the key, or with a folder
    /// that can't be used, nothing is kept and nothing sent until the next start, and the log says why: nothing that
    /// serves may end for the sake of samples.
    pub fn open(state_dir: &Path, spool: &config::Spool, now: UnixMillis) -> Self {
        let folder = state_dir.join(FOLDER);
        // A key is made by the spool, which is opened before.
        let (seal, is_locked) = match Seal::load(spool, state_dir, false) {
            Ok(None) if spool.encrypt => {
                tracing::error!("no samples are kept: there is no key to seal them with");
                (None, true)
            }
            Ok(seal) => (seal, false),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "no samples are kept: they can't be sealed");
                (None, true)
            }
        };
        let (found, is_usable) = match scan(&folder).and_then(|held| Ok((held, read_today(&folder, now)?))) {
            Ok(found) => (found, true),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "no samples are kept until the next start");
                (Default::default(), false)
            }
        };
        let (held, today) = found;
        let next_seq = held.iter().map(|held| held.seq + 1).max().unwrap_or(0);
        let (state, is_locked) =
            (State { held, passed_over: BTreeSet::new(), next_seq, today }, is_locked || !is_usable);
        let seals_new = spool.encrypt;
        let (writing, state, added) = (Mutex::default(), Mutex::new(state), Notify::new());
        Self(Arc::new(Shared { folder, seal, seals_new, is_locked, writing, state, added }))
    }

    /// Whether nothing can be kept until the next start.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked
    }

    /// Whether a strategy may keep another one today: a look before the work of making it.
    pub fn has_share(&self, strategy: Strategy, bounds: Bounds, at: UnixMillis) -> bool {
        self.lock().today.kept(strategy, day_of(at)) < bounds.max_per_day
    }

    /// Keeps a sample. It is durable when this returns [`Put::Kept`]. Blocks on the disk.
    ///
    /// # Errors
    /// [`DurableError`]; the sample is not kept then.
    pub fn put(
        &self,
        strategy: Strategy,
        at: UnixMillis,
        bytes: &[u8],
        bounds: Bounds,
    ) -> Result<Put, DurableError> {
        if self.0.is_locked {
            return Ok(Put::NoRoom);
        }
        let _alone = self.writing();
        let overhead = if self.0.seals_new { OVERHEAD_BYTES as u64 } else { 0 };
        let file_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(overhead);
        let (seq, today, victims) = {
            let (state, day) = (self.lock(), day_of(at));
            if state.today.kept(strategy, day) >= bounds.max_per_day {
                return Ok(Put::DayIsFull);
            }
            let Some(victims) = room_for(&state.held, strategy, file_bytes, bounds.quota_bytes) else {
                return Ok(Put::NoRoom);
            };
            (state.next_seq, state.today.with_one_more(strategy, day), victims)
        };
        if !self.0.folder.exists() {
            durable::make_dir(&self.0.folder)?;
        }
        let mut displaced = 0;
        for victim in victims {
            displaced += u64::from(self.forget(&victim)?);
        }
        // Counted first: after a power cut in between the day has one less to give, never one more.
        self.write_today(&today)?;
        self.lock().today = today;
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        let held = Held { strategy, seq, digest, is_sealed: self.0.seals_new, file_bytes };
        let path = self.0.folder.join(held.file());
        match self.sealed(&held, bytes)? {
            Some(sealed) => durable::write_atomic(&path, &sealed)?,
            None => durable::write_atomic(&path, bytes)?,
        }
        let mut state = self.lock();
        state.next_seq += 1;
        state.held.insert(held);
        drop(state);
        self.0.added.notify_one();
        Ok(Put::Kept { displaced })
    }

    /// The sample to send next: of the highest worth, the oldest. What was passed over comes after all others.
    pub fn next(&self) -> Option<Held> {
        if self.0.is_locked {
            return None;
        }
        let mut state = self.lock();
        let next = state.next();
        if next.is_some() {
            return next;
        }
        state.passed_over.clear();
        state.next()
    }

    /// Lets all others go before a sample that the disk doesn't give now.
    pub fn pass_over(&self, held: &Held) {
        self.lock().passed_over.insert(held.seq);
    }

    /// Waits until a sample was kept since the last time that somebody waited.
    pub async fn added(&self) {
        self.0.added.notified().await;
    }

    /// The bytes of a sample; none when they are not what was kept: damaged, or sealed with another key.
    ///
    /// # Errors
    /// [`DurableError`] when the disk gives nothing.
    pub fn read(&self, held: &Held) -> Result<Option<Vec<u8>>, DurableError> {
        let max = MAX_SAMPLE_BYTES + OVERHEAD_BYTES as u64;
        let Some(bytes) = durable::read_bounded(&self.0.folder.join(held.file()), max)? else {
            return Ok(None);
        };
        let plain = if held.is_sealed {
            self.0.seal.as_ref().and_then(|seal| seal.open(held.seq, Kind::Sample, &bytes))
        } else {
            Some(bytes)
        };
        Ok(plain.filter(|bytes| Digest::from_bytes(Sha256::digest(bytes).into()) == held.digest))
    }

    /// Removes a sample. Says whether it was still counted here: who has let go of it meanwhile, or has put another one
    /// in its place, counts it.
    ///
    /// # Errors
    /// [`DurableError`]; it is still here then.
    pub fn remove(&self, held: &Held) -> Result<bool, DurableError> {
        let _alone = self.writing();
        self.forget(held)
    }

    /// Removes what a lower quota has no room for, as for a new sample of the most worth. Returns how many went; one that
    /// the disk doesn't let go stays, and the log says so. Blocks on the disk.
    pub fn trim(&self, quota_bytes: u64) -> u64 {
        let Some(highest) = Strategy::ALL.into_iter().max().filter(|_| !self.0.is_locked) else { return 0 };
        let _alone = self.writing();
        let victims = room_for(&self.lock().held, highest, 0, quota_bytes).unwrap_or_default();
        let is_gone = |victim: &Held| {
            self.forget(victim).unwrap_or_else(|error| {
                tracing::warn!(error = crate::chain(&error), "a sample over the quota could not be removed");
                false
            })
        };
        victims.iter().map(|victim| u64::from(is_gone(victim))).sum()
    }

    /// Lets go of all samples: none of them is sent or counted any more. They lie on the disk until [`Samples::remove_all`].
    pub fn let_go(&self) -> BTreeSet<Held> {
        std::mem::take(&mut self.lock().held)
    }

    /// Removes what was let go of. Returns how many went, and why not all did: the rest is still here then, as before.
    /// Blocks on the disk.
    pub fn remove_all(&self, gone: BTreeSet<Held>) -> (u64, Result<(), DurableError>) {
        let _alone = self.writing();
        let left = gone.iter().enumerate().find_map(|(at, held)| Some((at, self.unlink(held).err()?)));
        let (count, removed) = match left {
            None => (gone.len(), Ok(())),
            Some((at, error)) => {
                self.lock().held.extend(gone.into_iter().skip(at));
                (at, Err(error))
            }
        };
        (u64::try_from(count).unwrap_or(u64::MAX), removed)
    }

    /// How many wait, and their bytes on disk.
    pub fn depth(&self) -> (u64, u64) {
        let state = self.lock();
        (u64::try_from(state.held.len()).unwrap_or(u64::MAX), total(&state.held))
    }

    fn sealed(&self, held: &Held, bytes: &[u8]) -> Result<Option<Vec<u8>>, DurableError> {
        let Some(seal) = self.0.seal.as_ref().filter(|_| held.is_sealed) else { return Ok(None) };
        let no_randomness = || DurableError::Io {
            operation: "seal",
            path: self.0.folder.join(held.file()),
            source: std::io::Error::other("the system has no randomness"),
        };
        seal.seal(held.seq, Kind::Sample, bytes).map(Some).ok_or_else(no_randomness)
    }

    /// Whether it was still counted: it may have been let go of meanwhile.
    fn forget(&self, held: &Held) -> Result<bool, DurableError> {
        self.unlink(held)?;
        Ok(self.lock().held.remove(held))
    }

    fn unlink(&self, held: &Held) -> Result<(), DurableError> {
        let path = self.0.folder.join(held.file());
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(DurableError::Io { operation: "remove", path, source })
            }
            _ => {
                cut::written();
                Ok(())
            }
        }
    }

    fn write_today(&self, today: &Today) -> Result<(), DurableError> {
        let path = self.0.folder.join(TODAY);
        let text = serde_json::to_vec(today).unwrap_or_default();
        durable::write_atomic(&path, &text)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that must go for a new one; none when it has to stay out. The set's order is that of worth and age.
fn room_for(held: &BTreeSet<Held>, strategy: Strategy, bytes: u64, quota_bytes: u64) -> Option<Vec<Held>> {
    let mut over = total(held).saturating_add(bytes).saturating_sub(quota_bytes);
    let mut victims = Vec::new();
    for one in held.iter().take_while(|one| one.strategy <= strategy) {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(one.file_bytes);
        victims.push(one.clone());
    }
    (over == 0).then_some(victims)
}

fn total(held: &BTreeSet<Held>) -> u64 {
    held.iter().map(|held| held.file_bytes).sum()
}

fn day_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(DAY_MS)
}

/// What is whole; the rest are leftovers of a power cut and go.
fn scan(folder: &Path) -> Result<BTreeSet<Held>, DurableError> {
    let failed = |operation| move |source| DurableError::Io { operation, path: folder.to_owned(), source };
    let mut held = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(held),
        entries => entries.map_err(failed("list"))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("list"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file_bytes = entry.metadata().map_err(failed("look into"))?.len();
        match Held::parse(&name, file_bytes) {
            Some(one) => drop(held.insert(one)),
            None if name == TODAY => {}
            None => clear(&entry.path()),
        }
    }
    Ok(held)
}

/// Whether a sealed one waits.
pub(super) fn any_sealed(state_dir: &Path) -> bool {
    let entries = fs::read_dir(state_dir.join(FOLDER)).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| Path::new(&name).extension().is_some_and(|end| end == SEALED))
}

/// What is no sample goes, if it can: a folder isn't ours.
fn clear(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "there is something in the folder for samples that is none");
    }
}

/// What today has had. Where that can't be known, today has had its share.
fn read_today(folder: &Path, now: UnixMillis) -> Result<Today, DurableError> {
    let Some(text) = durable::read_bounded(&folder.join(TODAY), MAX_TODAY_BYTES)? else {
        return Ok(Today { day: day_of(now), kept: BTreeMap::new() });
    };
    Ok(serde_json::from_slice(&text).unwrap_or_else(|_| {
        tracing::warn!("the count of today's samples is damaged; none are kept until tomorrow");
        Today { day: day_of(now), kept: Strategy::ALL.map(|strategy| (strategy, u64::MAX / 2)).into() }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const BOUNDS: Bounds = Bounds { quota_bytes: 100, max_per_day: 10 };

    fn open(dir: &Path) -> Samples {
        Samples::open(dir, &config::Spool::default(), NOW)
    }

    fn put(samples: &Samples, strategy: Strategy, bytes: &[u8]) -> Put {
        samples.put(strategy, NOW, bytes, BOUNDS).unwrap()
    }

    fn kept(samples: &Samples) -> Vec<(Strategy, u64)> {
        samples.lock().held.iter().map(|held| (held.strategy, held.seq)).collect()
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_leaves_by_worth_then_age() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        for (strategy, byte) in
            [(Strategy::Random, 1), (Strategy::Contradiction, 2), (Strategy::Contradiction, 3)]
        {
            assert_eq!(put(&samples, strategy, &[byte; 20]), Put::Kept { displaced: 0 });
        }
        drop(samples);
        let samples = open(dir.path());
        let mut sent = Vec::new();
        while let Some(held) = samples.next() {
            sent.push(samples.read(&held).unwrap().unwrap()[0]);
            samples.remove(&held).unwrap();
        }
        assert_eq!(sent, [2, 3, 1]);
        assert_eq!(samples.depth(), (0, 0));
    }

    #[test]
    fn what_the_disk_does_not_give_lets_all_others_go_first_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        put(&samples, Strategy::Contradiction, &[1; 20]);
        put(&samples, Strategy::Random, &[2; 20]);
        let first = samples.next().unwrap();
        samples.pass_over(&first);
        let other = samples.next().unwrap();
        assert_eq!((first.strategy, other.strategy), (Strategy::Contradiction, Strategy::Random));
        samples.remove(&other).unwrap();
        assert_eq!(samples.next(), Some(first));
    }

    #[test]
    fn the_oldest_of_the_lowest_worth_makes_room_and_nothing_of_more_worth_does() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        for (byte, strategy) in
            [Strategy::Uncertainty, Strategy::Random, Strategy::Random, Strategy::Disagreement]
                .iter()
                .enumerate()
        {
            put(&samples, *strategy, &[u8::try_from(byte).unwrap(); 25]);
        }
        assert_eq!(put(&samples, Strategy::Uncertainty, &[9; 40]), Put::Kept { displaced: 2 });
        assert_eq!(
            kept(&samples),
            [(Strategy::Uncertainty, 0), (Strategy::Uncertainty, 4), (Strategy::Disagreement, 3)]
        );
        assert_eq!(put(&samples, Strategy::Random, &[8; 20]), Put::NoRoom, "all that is here is worth more");
        assert_eq!(
            put(&samples, Strategy::Uncertainty, &[7; 90]),
            Put::NoRoom,
            "one of more worth would have to go"
        );
        assert_eq!(
            put(&samples, Strategy::Contradiction, &[6; 101]),
            Put::NoRoom,
            "larger than all of the room"
        );
        assert_eq!(samples.depth(), (3, 90), "a refused one displaces nothing");
    }

    #[test]
    fn a_day_gives_each_strategy_its_share_and_a_restart_gives_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { quota_bytes: 10_000, max_per_day: 2 };
        let put = |samples: &Samples, at, byte| samples.put(Strategy::Random, at, &[byte], bounds).unwrap();
        let samples = open(dir.path());
        assert!(put(&samples, NOW, 1) == put(&samples, NOW, 2));
        assert_eq!(put(&samples, NOW, 3), Put::DayIsFull);
        assert!(!samples.has_share(Strategy::Random, bounds, NOW));
        assert!(samples.has_share(Strategy::Uncertainty, bounds, NOW));
        let samples = open(dir.path());
        assert_eq!(put(&samples, NOW, 4), Put::DayIsFull);
        assert_eq!(put(&samples, NOW.plus_millis(-2 * DAY_MS), 4), Put::DayIsFull, "a clock that steps back");
        assert_eq!(put(&samples, NOW.plus_millis(DAY_MS), 4), Put::Kept { displaced: 0 });
        fs::write(dir.path().join(FOLDER).join(TODAY), b"{").unwrap();
        assert!(
            !open(dir.path()).has_share(Strategy::Random, bounds, NOW),
            "what can't be read gives nothing"
        );
    }

    #[test]
    fn leftovers_of_a_power_cut_go_and_a_damaged_sample_is_never_sent() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        put(&samples, Strategy::Random, b"whole");
        let held = samples.next().unwrap();
        let folder = dir.path().join(FOLDER);
        fs::write(folder.join("0000000000000001-random.tmp"), b"half").unwrap();
        let samples = open(dir.path());
        assert_eq!(
            (samples.depth().0, fs::read_dir(&folder).unwrap().count()),
            (1, 2),
            "the sample and the day"
        );
        fs::write(folder.join(held.file()), b"whale").unwrap();
        assert_eq!(samples.read(&held).unwrap(), None);
    }

    #[test]
    fn without_the_key_nothing_is_kept_in_plain_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let spool = config::Spool { encrypt: true, key_file: Some(key.clone()), ..config::Spool::default() };
        std::fs::write(&key, [7; 32]).unwrap();
        let put = |samples: &Samples| samples.put(Strategy::Random, NOW, b"secret", BOUNDS).unwrap();
        put(&Samples::open(dir.path(), &spool, NOW));
        std::fs::remove_file(&key).unwrap();
        let locked = Samples::open(dir.path(), &spool, NOW);
        assert_eq!((put(&locked), locked.next(), locked.depth().0), (Put::NoRoom, None, 1));
        std::fs::write(&key, [7; 32]).unwrap();
        let samples = Samples::open(dir.path(), &spool, NOW);
        let held = samples.next().unwrap();
        assert_eq!(samples.read(&held).unwrap().as_deref(), Some(&b"secret"[..]));
    }

    #[test]
    fn samples_are_sealed_where_the_spool_is() {
        let dir = tempfile::tempdir().unwrap();
        let spool = config::Spool { encrypt: true, ..config::Spool::default() };
        assert!(Samples::open(dir.path(), &spool, NOW).is_locked(), "the spool makes the key");
        fs::write(dir.path().join("spool.key"), [7; 32]).unwrap();
        let samples = Samples::open(dir.path(), &spool, NOW);
        put(&samples, Strategy::Random, b"a face at the door");
        let held = samples.next().unwrap();
        let stored = fs::read(dir.path().join(FOLDER).join(held.file())).unwrap();
        assert!(!stored.windows(4).any(|four| four == b"face"));
        let plain = open(dir.path());
        assert_eq!(
            plain.read(&plain.next().unwrap()).unwrap().unwrap(),
            b"a face at the door",
            "the key is still here"
        );
        assert_eq!(plain.depth().1, u64::try_from(stored.len()).unwrap());
    }

    #[test]
    fn who_asks_does_not_wait_for_the_disk_that_another_one_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        put(&samples, Strategy::Random, b"first");
        let (disk, slow, writing) = (mpsc::channel(), samples.clone(), mpsc::channel());
        let writer = thread::spawn(move || {
            durable::cut::hold(writing.0, disk.1);
            put(&slow, Strategy::Contradiction, b"second")
        });
        writing.1.recv().unwrap();
        let asked = samples.clone();
        let answers = mpsc::channel();
        thread::spawn(move || {
            let share = asked.has_share(Strategy::Random, BOUNDS, NOW);
            answers.0.send((asked.depth(), asked.next().map(|held| held.seq), share)).unwrap();
        });
        let answer = answers.1.recv_timeout(Duration::from_secs(20)).expect("it waits for the disk");
        assert_eq!(answer, ((1, 5), Some(0), true));
        let gone = samples.let_go();
        assert_eq!((samples.depth(), samples.next()), ((0, 0), None));
        drop(disk.0);
        assert_eq!(writer.join().unwrap(), Put::Kept { displaced: 0 });
        assert_eq!(samples.remove_all(gone).0, 1);
        assert_eq!(kept(&samples), [(Strategy::Contradiction, 1)], "it came later");
        assert_eq!(open(dir.path()).depth(), (1, 6));
    }

    #[test]
    fn what_is_let_go_of_while_it_makes_room_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        put(&samples, Strategy::Random, &[1; 60]);
        let gone = samples.let_go();
        assert!(!samples.remove(gone.first().unwrap()).unwrap(), "who has let go of it counts it");
        assert_eq!(samples.remove_all(gone).0, 1);
    }

    #[test]
    fn a_lower_quota_takes_the_oldest_of_the_lowest_worth() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        for (byte, strategy) in
            (0..).zip([Strategy::Random, Strategy::Contradiction, Strategy::Random, Strategy::Contradiction])
        {
            put(&samples, strategy, &[byte; 25]);
        }
        let in_flight = samples.next().unwrap();
        assert_eq!((samples.trim(100), samples.trim(74)), (0, 2));
        assert_eq!(kept(&samples), [(Strategy::Contradiction, 1), (Strategy::Contradiction, 3)]);
        assert_eq!((samples.trim(25), samples.remove(&in_flight).unwrap()), (1, false), "it is counted once");
        assert_eq!(open(dir.path()).depth(), (1, 25));
    }

    #[test]
    fn clearing_leaves_nothing_and_what_cannot_go_is_still_counted() {
        let dir = tempfile::tempdir().unwrap();
        let samples = open(dir.path());
        for byte in [b"a", b"b", b"c"] {
            put(&samples, Strategy::Random, byte);
        }
        let gone = samples.let_go();
        let in_the_way = dir.path().join(FOLDER).join(gone.iter().nth(1).unwrap().file());
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
        let (count, removed) = samples.remove_all(gone);
        assert!(count == 1 && removed.is_err());
        assert_eq!(samples.depth(), (2, 2));
        fs::remove_dir(&in_the_way).unwrap();
        assert_eq!((samples.remove_all(samples.let_go()).0, samples.next()), (2, None));
        assert_eq!(open(dir.path()).depth(), (0, 0));
    }
}
