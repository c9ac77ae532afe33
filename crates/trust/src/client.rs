//! The client workflow of the TUF specification, section 5, without IO.
//!
//! The caller asks [`Session::next`] what to do, does it, and answers fetches with [`Session::feed`]:
//!
//! ```text
//! Root (5.3, one step at a time, each persisted) -> Timestamp (5.4) -> Snapshot (5.5) -> Search (5.6, 5.7.1) -> Over
//! ```
//! Roots are persisted as they are accepted. Everything else comes in [`Accepted::files`] once the whole chain was
//! accepted, so that a refusal leaves the earlier state ([`Storing::WholeChain`], devices), or role by role as the
//! specification has it ([`Storing::EachRole`]). One fixed `now` serves the whole session (5.1).

mod drive;
mod search;
mod types;

use std::collections::{BTreeMap, VecDeque};

use protocol::UnixMillis;

use crate::envelope::{Envelope, KeySet};
use crate::error::{Cause, TrustError};
use crate::limits::Limits;
use crate::metadata::{MAX_VERSION, Role, Root, Signed, Snapshot, Targets, Timestamp};
use crate::repository::{Repository, TargetInfo, check_length_and_hashes};
use search::Walk;

pub use drive::{load_stored, run};
pub use types::{Accepted, Fetch, File, Reply, Step, Stored, Storing};

const ROOT: &str = "root";
const TIMESTAMP: &str = "timestamp";
const SNAPSHOT: &str = "snapshot";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Refresh from a repository.
    Online,
    /// Only what is stored, expired or not: what was accepted once still serves.
    Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Root,
    Timestamp,
    Snapshot,
    Search,
    Over,
}

struct Trusted<T> {
    signed: Signed<T>,
    envelope: Envelope,
    bytes: Vec<u8>,
}

/// One run of the client workflow.
pub struct Session {
    limits: Limits,
    now: UnixMillis,
    mode: Mode,
    storing: Storing,
    state: State,
    stored: BTreeMap<String, Vec<u8>>,
    root: Signed<Root>,
    root_updates: u32,
    chores: VecDeque<Step>,
    old_timestamp: Option<Trusted<Timestamp>>,
    old_snapshot: Option<Trusted<Snapshot>>,
    timestamp: Option<Trusted<Timestamp>>,
    snapshot: Option<Trusted<Snapshot>>,
    targets: BTreeMap<String, Trusted<Targets>>,
    walks: VecDeque<Walk>,
    fetching: Option<String>,
    found: BTreeMap<String, Option<TargetInfo>>,
}

impl Session {
    /// Begins a refresh (5.2: from the trusted root) that also looks for the wanted targets. `now` is the
    /// bounded clock, fixed for the whole session (5.1).
    ///
    /// # Errors
    /// When the stored root can't be used.
    pub fn new<S: Into<String>>(
        stored: Stored,
        wanted: impl IntoIterator<Item = S>,
        now: UnixMillis,
        limits: &Limits,
    ) -> Result<Self, TrustError> {
        Self::begin(stored, wanted, now, limits, Mode::Online)
    }

    fn begin<S: Into<String>>(
        stored: Stored,
        wanted: impl IntoIterator<Item = S>,
        now: UnixMillis,
        limits: &Limits,
        mode: Mode,
    ) -> Result<Self, TrustError> {
        let refuse = |cause: Cause| {
            Cause::StoredFile { name: "root.json".into(), source: Box::new(cause) }
                .at(ROOT, "5.2 trusted root")
        };
        let envelope = Envelope::parse(&stored.root, limits).map_err(refuse)?;
        let root = Signed::<Root>::read(&envelope).map_err(refuse)?;
        envelope.verify(&root.content.key_set(ROOT)).map_err(refuse)?;
        let walks = wanted.into_iter().map(|path| Walk::new(path.into())).collect();
        Ok(Self {
            limits: *limits,
            now,
            mode,
            storing: Storing::WholeChain,
            state: State::Root,
            stored: stored.files,
            root,
            root_updates: 0,
            chores: VecDeque::new(),
            old_timestamp: None,
            old_snapshot: None,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            walks,
            fetching: None,
            found: BTreeMap::new(),
        })
    }

    /// Chooses when accepted files are handed over to be stored.
    #[must_use]
    pub fn storing(mut self, storing: Storing) -> Self {
        self.storing = storing;
        self
    }

    /// Looks for one more target. With [`Storing::EachRole`] this goes on after [`Step::Done`]: the next one finds
    /// this target too.
    ///
    /// # Errors
    /// [`Cause::OutOfTurn`] when the session is over.
    pub fn want(&mut self, target: impl Into<String>) -> Result<(), TrustError> {
        let target = target.into();
        if self.state == State::Over {
            return Err(Cause::OutOfTurn.at(target, "5.7.1 target search"));
        }
        self.walks.push_back(Walk::new(target));
        Ok(())
    }

    /// What to do next. After an error the session is over.
    ///
    /// # Errors
    /// [`TrustError`] when something is refused.
    #[expect(clippy::should_implement_trait, reason = "steps are no items: each may need an answer")]
    pub fn next(&mut self) -> Result<Step, TrustError> {
        let step = self.advance();
        if step.is_err() {
            self.state = State::Over;
        }
        step
    }

    /// Answers the last [`Step::Need`].
    ///
    /// # Errors
    /// [`TrustError`] when the file is refused; the session is over then.
    pub fn feed(&mut self, reply: Reply) -> Result<(), TrustError> {
        let result = match self.state {
            State::Root => self.feed_root(reply),
            State::Timestamp => self.feed_timestamp(reply),
            State::Snapshot => self.feed_snapshot(reply),
            State::Search => self.feed_targets(reply),
            State::Over => Err(Cause::OutOfTurn.at("session", "feed")),
        };
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    fn advance(&mut self) -> Result<Step, TrustError> {
        if let Some(chore) = self.chores.pop_front() {
            return Ok(chore);
        }
        match self.state {
            State::Root => self.advance_root(),
            State::Timestamp => Ok(need("timestamp.json".into(), self.limits.timestamp_bytes)),
            State::Snapshot => self.advance_snapshot(),
            State::Search => match self.search()? {
                Some(fetch) => Ok(Step::Need(fetch)),
                None => self.finish(),
            },
            State::Over => Err(Cause::OutOfTurn.at("session", "next")),
        }
    }

    // 5.3 Update the root role.
    fn advance_root(&mut self) -> Result<Step, TrustError> {
        // 5.3.3: after so many roots in one run go on with the last; the next run takes the rest.
        if self.root_updates >= self.limits.root_updates {
            self.end_of_roots()?;
            return self.advance();
        }
        // FF3: at the bound there is no next one.
        if self.root.version >= MAX_VERSION {
            self.end_of_roots()?;
            return self.advance();
        }
        Ok(need(format!("{}.root.json", self.root.version + 1), self.limits.root_bytes))
    }

    fn feed_root(&mut self, reply: Reply) -> Result<(), TrustError> {
        let Reply::Bytes(bytes) = reply else { return self.end_of_roots() }; // 5.3.3: no newer root
        check_bound(&bytes, self.limits.root_bytes).map_err(|c| c.at(ROOT, "5.3.3 download"))?;
        let envelope = Envelope::parse(&bytes, &self.limits).map_err(|c| c.at(ROOT, "5.3.3 parse"))?;
        // 5.3.4: a threshold of the trusted root's keys and a threshold of the new root's own keys.
        let step = "5.3.4 signatures of the trusted root's keys";
        envelope.verify(&self.root.content.key_set(ROOT)).map_err(|c| c.at(ROOT, step))?;
        let next = Signed::<Root>::read(&envelope).map_err(|c| c.at(ROOT, "5.3.4 content"))?;
        let step = "5.3.4 signatures of the new root's keys";
        envelope.verify(&next.content.key_set(ROOT)).map_err(|c| c.at(ROOT, step))?;
        // 5.3.5: exactly the next version. 5.3.6: its expiry does not matter yet.
        let expected = self.root.version + 1;
        if next.version != expected {
            return Err(Cause::WrongVersion { expected, got: next.version }.at(ROOT, "5.3.5 rollback"));
        }
        self.forget_if_rotated(&next.content);
        self.root = next; // 5.3.7
        self.chores.push_back(Step::Persist(File { name: "root.json".into(), bytes })); // 5.3.8
        self.root_updates += 1;
        Ok(()) // 5.3.9: repeat
    }

    /// 5.3.11: after a rotation of timestamp or snapshot keys both files are dropped, to recover from a
    /// fast-forward attack. Rotated means that a key is gone: one more key or another threshold revokes nothing.
    /// The files go before the new root is durable, so that no power cut keeps them.
    fn forget_if_rotated(&mut self, next: &Root) {
        let is_rotated = |role| self.root.content.key_set(role).loses_a_key(&next.key_set(role));
        if !is_rotated(TIMESTAMP) && !is_rotated(SNAPSHOT) {
            return;
        }
        for name in ["timestamp.json", "snapshot.json"] {
            if self.stored.remove(name).is_some() {
                self.chores.push_back(Step::Forget(name.into()));
            }
        }
    }

    fn end_of_roots(&mut self) -> Result<(), TrustError> {
        self.check_expiry(&self.root).map_err(|c| c.at(ROOT, "5.3.10 freeze"))?;
        self.old_timestamp = self.load_stored(TIMESTAMP)?;
        self.old_snapshot = self.load_stored(SNAPSHOT)?;
        self.state = State::Timestamp;
        Ok(())
    }

    /// A stored file that can't be parsed is an error, never "nothing stored"; one whose keys the current root
    /// no longer names is dropped, as 5.3.11 asks.
    fn load_stored<T: Role>(&self, role: &str) -> Result<Option<Trusted<T>>, TrustError> {
        let name = format!("{role}.json");
        let Some(bytes) = self.stored.get(&name) else { return Ok(None) };
        let refuse = |cause| Cause::StoredFile { name, source: Box::new(cause) }.at(role, "stored metadata");
        let envelope = match Envelope::parse(bytes, &self.limits) {
            Ok(envelope) => envelope,
            Err(cause) => return Err(refuse(cause)),
        };
        let signed = Signed::<T>::read(&envelope).map_err(refuse)?;
        let is_current = envelope.verify(&self.root.content.key_set(role)).is_ok();
        Ok(is_current.then(|| Trusted { signed, envelope, bytes: bytes.clone() }))
    }

    // 5.4 Update the timestamp role.
    fn feed_timestamp(&mut self, reply: Reply) -> Result<(), TrustError> {
        let bytes = expect_bytes(reply, "timestamp.json", TIMESTAMP, self.limits.timestamp_bytes)?;
        let keys = self.root.content.key_set(TIMESTAMP);
        let new: Trusted<Timestamp> = self.open(bytes, &keys, TIMESTAMP, "5.4.2 signatures")?;
        let chosen = match self.old_timestamp.take() {
            Some(old) => newer_timestamp(old, new)?,
            None => new,
        };
        self.accept_timestamp(chosen)
    }

    fn accept_timestamp(&mut self, timestamp: Trusted<Timestamp>) -> Result<(), TrustError> {
        self.check_expiry(&timestamp.signed).map_err(|c| c.at(TIMESTAMP, "5.4.4 freeze"))?;
        self.keep("timestamp.json", &timestamp.bytes); // 5.4.5
        self.timestamp = Some(timestamp);
        self.state = State::Snapshot;
        Ok(())
    }

    // 5.5 Update the snapshot role.
    fn advance_snapshot(&mut self) -> Result<Step, TrustError> {
        let meta = self.snapshot_meta()?;
        if let Some(old) = self.old_snapshot.take_if(|old| {
            old.signed.version == meta.version
                && (self.mode == Mode::Stored || old.signed.check_expiry(self.now).is_ok())
                && check_length_and_hashes(&old.bytes, meta.length, meta.hashes.as_ref()).is_ok()
        }) {
            self.accept_snapshot(old)?;
            return self.advance();
        }
        if self.mode == Mode::Stored {
            return Err(Cause::Missing("snapshot.json".into()).at(SNAPSHOT, "stored metadata"));
        }
        let bound = meta.length.unwrap_or(self.limits.snapshot_bytes).min(self.limits.snapshot_bytes);
        Ok(need(self.versioned(meta.version, SNAPSHOT), bound))
    }

    fn feed_snapshot(&mut self, reply: Reply) -> Result<(), TrustError> {
        let meta = self.snapshot_meta()?;
        let bytes = expect_bytes(reply, "snapshot.json", SNAPSHOT, self.limits.snapshot_bytes)?;
        check_length_and_hashes(&bytes, meta.length, meta.hashes.as_ref())
            .map_err(|c| c.at(SNAPSHOT, "5.5.2 hashes in timestamp"))?;
        let keys = self.root.content.key_set(SNAPSHOT);
        let new: Trusted<Snapshot> = self.open(bytes, &keys, SNAPSHOT, "5.5.3 signatures")?;
        if new.signed.version != meta.version {
            let cause = Cause::WrongVersion { expected: meta.version, got: new.signed.version };
            return Err(cause.at(SNAPSHOT, "5.5.4 version in timestamp"));
        }
        if let Some(old) = self.old_snapshot.take() {
            check_snapshot_rollback(&old.signed.content, &new.signed.content)
                .map_err(|c| c.at(SNAPSHOT, "5.5.5 rollback"))?;
        }
        self.accept_snapshot(new)
    }

    fn accept_snapshot(&mut self, snapshot: Trusted<Snapshot>) -> Result<(), TrustError> {
        self.check_expiry(&snapshot.signed).map_err(|c| c.at(SNAPSHOT, "5.5.6 freeze"))?;
        self.keep("snapshot.json", &snapshot.bytes); // 5.5.7
        self.snapshot = Some(snapshot);
        self.state = State::Search;
        Ok(())
    }

    fn snapshot_meta(&self) -> Result<crate::metadata::MetaFile, TrustError> {
        let timestamp = self.timestamp.as_ref().ok_or_else(|| Cause::OutOfTurn.at(SNAPSHOT, "5.5"))?;
        Ok(timestamp.signed.content.snapshot())
    }

    /// With [`Storing::EachRole`]: hands a file over as soon as it is accepted.
    fn keep(&mut self, name: &str, bytes: &[u8]) {
        if self.storing == Storing::EachRole && self.stored.get(name).is_none_or(|old| old != bytes) {
            self.stored.insert(name.into(), bytes.into());
            self.chores.push_back(Step::Persist(File { name: name.into(), bytes: bytes.into() }));
        }
    }

    fn finish(&mut self) -> Result<Step, TrustError> {
        let (Some(timestamp), Some(snapshot)) = (&self.timestamp, &self.snapshot) else {
            return Err(Cause::OutOfTurn.at("session", "end"));
        };
        let mut files = Vec::new();
        let mut keep = |name: String, bytes: &Vec<u8>| {
            if self.stored.get(&name) != Some(bytes) {
                files.push(File { name, bytes: bytes.clone() });
            }
        };
        for (role, trusted) in &self.targets {
            keep(crate::metadata::file_name(role), &trusted.bytes);
        }
        keep("snapshot.json".into(), &snapshot.bytes);
        keep("timestamp.json".into(), &timestamp.bytes);
        let targets = self.targets.iter().map(|(role, trusted)| (role.clone(), trusted.signed.clone()));
        let repository = Repository {
            root: self.root.clone(),
            timestamp: timestamp.signed.clone(),
            snapshot: snapshot.signed.clone(),
            targets: targets.collect(),
            found: self.found.clone(),
        };
        if self.storing == Storing::WholeChain {
            self.state = State::Over;
        }
        Ok(Step::Done(Box::new(Accepted { repository, files })))
    }

    /// Signatures first, then the content: no field is used before.
    fn open<T: Role>(
        &self,
        bytes: Vec<u8>,
        keys: &KeySet,
        role: &str,
        step: &'static str,
    ) -> Result<Trusted<T>, TrustError> {
        let envelope = Envelope::parse(&bytes, &self.limits).map_err(|c| c.at(role, step))?;
        envelope.verify(keys).map_err(|c| c.at(role, step))?;
        let signed = Signed::read(&envelope).map_err(|c| c.at(role, step))?;
        Ok(Trusted { signed, envelope, bytes })
    }

    fn check_expiry<T: Role>(&self, signed: &Signed<T>) -> Result<(), Cause> {
        match self.mode {
            Mode::Online => signed.check_expiry(self.now),
            Mode::Stored => Ok(()),
        }
    }

    fn versioned(&self, version: u64, role: &str) -> String {
        let name = crate::metadata::file_name(role);
        if self.root.content.consistent_snapshot { format!("{version}.{name}") } else { name }
    }
}

fn expect_bytes(reply: Reply, name: &str, role: &str, max: u64) -> Result<Vec<u8>, TrustError> {
    let Reply::Bytes(bytes) = reply else { return Err(Cause::Missing(name.into()).at(role, "download")) };
    check_bound(&bytes, max).map_err(|c| c.at(role, "download"))?;
    Ok(bytes)
}

/// 5.4.3: neither the timestamp's version nor the snapshot's version in it may fall; an equal version is no
/// news, the trusted file stays.
fn newer_timestamp(
    old: Trusted<Timestamp>,
    new: Trusted<Timestamp>,
) -> Result<Trusted<Timestamp>, TrustError> {
    let rollback = |what: &str, trusted, got| {
        Err(Cause::Rollback { what: what.into(), trusted, got }.at(TIMESTAMP, "5.4.3 rollback"))
    };
    if new.signed.version < old.signed.version {
        return rollback("timestamp.json", old.signed.version, new.signed.version);
    }
    if new.signed.version == old.signed.version {
        return Ok(old);
    }
    let (trusted, got) = (old.signed.content.snapshot().version, new.signed.content.snapshot().version);
    if got < trusted { rollback("snapshot.json", trusted, got) } else { Ok(new) }
}

/// 5.5.5: every role that was listed stays listed, and its version does not fall.
fn check_snapshot_rollback(old: &Snapshot, new: &Snapshot) -> Result<(), Cause> {
    for (name, trusted) in &old.meta {
        let meta = new.meta.get(name).ok_or_else(|| Cause::RoleRemoved(name.clone()))?;
        if meta.version < trusted.version {
            return Err(Cause::Rollback { what: name.clone(), trusted: trusted.version, got: meta.version });
        }
    }
    Ok(())
}

fn check_bound(bytes: &[u8], max_bytes: u64) -> Result<(), Cause> {
    let is_within = u64::try_from(bytes.len()).is_ok_and(|length| length <= max_bytes);
    if is_within { Ok(()) } else { Err(Cause::TooLong { max_bytes }) }
}

fn need(path: String, max_bytes: u64) -> Step {
    Step::Need(Fetch { path, max_bytes })
}
