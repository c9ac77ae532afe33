//! The store of trusted metadata, byte for byte as accepted, and the refresh that walks the chain over the network.
//! All judgement is `trust`'s; nothing is stored before it has accepted it, and what it accepted is stored as a whole.

use std::path::Path;

use protocol::message::{Cause, CauseKind, MetadataState};
use protocol::{Digest, ProjectId, UnixMillis};
use sha2::{Digest as _, Sha256};
use trust::client::load_stored;
use trust::director::{self, DirectorKeys};
use trust::{Fetch, Limits, Reply, Repository, Session, Step, Stored, TargetBytes, TrustError, Verified};

use crate::durable::DurableError;
use crate::health::Clock;
use crate::link::http::{FetchError, Http};
use crate::trusted_files::{ROOT, TrustedFiles, check_root, trusted_dir};

/// Where the director's target lies among the trusted files; no role's file can have this name.
const DIRECTOR_FILE: &str = "target.director";
const REFRESHED_FILE: &str = "refreshed";

/// Why metadata can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Refused by the rules of trust.
    #[error("signed metadata was refused")]
    Trust(#[source] TrustError),
    /// The network or the server.
    #[error("signed metadata could not be fetched")]
    Fetch(#[source] FetchError),
    /// The disk.
    #[error("signed metadata could not be kept")]
    Disk(#[source] DurableError),
    /// The server has no root yet.
    #[error("the project has no root of trust yet")]
    NoRoot,
    /// What this device trusts is damaged on its disk.
    #[error("the trusted root on this disk is damaged; enrol this device again")]
    Damaged(#[source] TrustError),
    /// It is damaged in both copies.
    #[error("both copies of the trusted root on this disk are damaged; enrol this device again")]
    Lost(#[source] DurableError),
    /// The first root is not the pinned one.
    #[error("the first root is not the one that the enrolment token pins")]
    RootPin,
    /// The metadata lists a target that the server does not have.
    #[error("the server lacks the signed target {0}")]
    TargetMissing(String),
}

impl MetadataError {
    /// Of reading what this device trusts: two copies that are both damaged are no fault of the disk's alone.
    fn reading(error: DurableError) -> Self {
        match error {
            DurableError::Corrupt { .. } => Self::Lost(error),
            error => Self::Disk(error),
        }
    }

    /// Whether what this device trusts is damaged on its disk.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Lost(_))
    }

    fn is_expired(&self) -> bool {
        matches!(self, Self::Trust(TrustError { cause: trust::Cause::Expired { .. }, .. }))
    }

    /// As a task's cause.
    pub fn cause(&self) -> Cause {
        let kind = match self {
            Self::Trust(TrustError { cause: trust::Cause::Expired { .. }, .. }) => CauseKind::MetadataExpired,
            Self::Trust(TrustError { cause: trust::Cause::Missing(_), .. })
            | Self::NoRoot
            | Self::TargetMissing(_) => CauseKind::Download,
            Self::Trust(_) | Self::RootPin => CauseKind::Untrusted,
            Self::Fetch(FetchError::Disk { source, .. }) | Self::Disk(source) if source.is_disk_full() => {
                CauseKind::DiskFull
            }
            Self::Fetch(FetchError::Disk { .. }) | Self::Disk(_) | Self::Damaged(_) | Self::Lost(_) => {
                CauseKind::Storage
            }
            Self::Fetch(_) => CauseKind::Download,
        };
        Cause { kind, detail: crate::chain(self) }
    }
}

/// Where a repository's files come from: the server, or an archive. Nothing that comes is trusted.
pub trait Source: Sync {
    /// The file at `path` as the server names it, or none if there is no such file.
    fn get(
        &self,
        path: &str,
        max_bytes: u64,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, FetchError>> + Send;
}

impl Source for Http {
    async fn get(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, FetchError> {
        Self::get(self, path, max_bytes).await
    }
}

/// How many copies of the root are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// As it should be; also where there is no root yet.
    Both,
    /// The other one is damaged.
    One,
}

/// The folder of trusted files.
#[derive(Debug, Clone)]
pub struct TrustedStore {
    files: TrustedFiles,
    project: ProjectId,
    root_pin: Option<Digest>,
}

/// Which metadata is trusted, and since when it is known to be the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Version of the timestamp role.
    pub timestamp_version: u64,
    /// When the timestamp expires.
    pub expires: UnixMillis,
    /// When root expires.
    pub root_expires: UnixMillis,
    /// When it was refreshed, by this device's bounded clock.
    pub at: UnixMillis,
}

impl Freshness {
    /// Of a refresh at `at`.
    pub fn of(repository: &Repository, at: UnixMillis) -> Self {
        Self {
            timestamp_version: repository.timestamp_version(),
            expires: repository.timestamp_expires(),
            root_expires: repository.root_expires(),
            at,
        }
    }

    /// As hello says it.
    pub fn state(self, now: UnixMillis) -> MetadataState {
        let age_s = u64::try_from(now.millis_since(self.at) / 1000).unwrap_or(0);
        MetadataState { timestamp_version: self.timestamp_version, expires: self.expires, age_s }
    }
}

/// A refresh that was accepted.
#[derive(Debug, Clone)]
pub struct Refreshed {
    /// The trusted view.
    pub repository: Repository,
    /// Who may sign Desired.
    pub director: Option<DirectorKeys>,
}

impl TrustedStore {
    /// Opens the folder.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn open(
        state_dir: &Path,
        project: ProjectId,
        root_pin: Option<Digest>,
    ) -> Result<Self, DurableError> {
        let files = TrustedFiles::open(trusted_dir(state_dir))?;
        Ok(Self { files, project, root_pin })
    }

    /// Who may sign Desired, from what is stored; works without a network and with expired metadata.
    pub fn stored_director(&self) -> Option<DirectorKeys> {
        let stored = self.files.load().ok()??;
        let repository = load_stored(stored, [director::TARGET], &Limits::default()).ok()?;
        let bytes = self.files.read(DIRECTOR_FILE).ok()??;
        let target = repository.find_target(director::TARGET).ok()?.verify(bytes).ok()?;
        DirectorKeys::parse(&target).ok()
    }

    /// For hello: what is stored, and when it was refreshed.
    pub fn freshness(&self) -> Option<Freshness> {
        let stored = self.files.load().ok()??;
        let repository = load_stored(stored, [director::TARGET], &Limits::default()).ok()?;
        let at = self.files.read(REFRESHED_FILE).ok()??;
        let at = String::from_utf8(at).ok()?.parse().map(UnixMillis).ok()?;
        Some(Freshness::of(&repository, at))
    }

    /// Refreshes by the client workflow and finds `wanted`.
    ///
    /// # Errors
    /// [`MetadataError`]; what was trusted before still is.
    pub async fn refresh(
        &self,
        http: &Http,
        wanted: Option<&str>,
        clock: &Clock,
    ) -> Result<Refreshed, MetadataError> {
        let repository = self.walk(http, wanted, clock).await?;
        let now = clock.now();
        self.files.keep(REFRESHED_FILE, now.0.to_string().as_bytes()).map_err(MetadataError::Disk)?;
        let director = self.fetch_director(http, &repository).await?;
        Ok(Refreshed { repository, director })
    }

    /// Whether this device trusts a root already, which may be damaged.
    ///
    /// # Errors
    /// [`DurableError`] when it can't be read.
    pub fn has_root(&self) -> Result<bool, DurableError> {
        match self.files.read(ROOT) {
            Ok(root) => Ok(root.is_some()),
            Err(DurableError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether what this device trusts is whole; also where it trusts nothing yet. One damaged copy of two is
    /// [`Copies::One`].
    ///
    /// # Errors
    /// [`MetadataError::Damaged`], [`MetadataError::Lost`] and [`MetadataError::Disk`].
    pub fn check(&self) -> Result<Copies, MetadataError> {
        if let Some(root) = self.files.read(ROOT).map_err(MetadataError::reading)? {
            check_root(&root).map_err(MetadataError::Damaged)?;
        }
        let is_halved = self.files.is_root_halved().map_err(MetadataError::reading)?;
        Ok(if is_halved { Copies::One } else { Copies::Both })
    }

    /// Repairs a damaged copy of the root from the other one. Only for the agent itself, whose files they are.
    ///
    /// # Errors
    /// As [`check`](Self::check), or [`MetadataError::Disk`] when nothing can be written.
    pub fn mend(&self) -> Result<Copies, MetadataError> {
        let found = self.check()?;
        self.files.mend_root().map_err(MetadataError::reading)?;
        Ok(found)
    }

    /// The client workflow over any source; what it accepts is kept, and its signed time bounds the clock.
    ///
    /// # Errors
    /// [`MetadataError`]; what was trusted before still is.
    pub async fn walk(
        &self,
        source: &impl Source,
        wanted: Option<&str>,
        clock: &Clock,
    ) -> Result<Repository, MetadataError> {
        let fixed = clock.now();
        let walked = match self.walk_at(source, wanted, clock, fixed).await {
            // A new root has just set the clock right: what was judged by the wrong time is judged once more.
            Err(error) if error.is_expired() && clock.now() < fixed => {
                self.walk_at(source, wanted, clock, clock.now()).await
            }
            walked => walked,
        };
        let repository = walked?;
        clock.believe_until(repository.root_expires());
        if let Some(signed) = repository.signed_at() {
            clock.raise(signed);
        }
        Ok(repository)
    }

    /// `now` is fixed for the whole run.
    async fn walk_at(
        &self,
        source: &impl Source,
        wanted: Option<&str>,
        clock: &Clock,
        now: UnixMillis,
    ) -> Result<Repository, MetadataError> {
        let stored = match self.files.load().map_err(MetadataError::reading)? {
            Some(stored) => {
                check_root(&stored.root).map_err(MetadataError::Damaged)?;
                stored
            }
            None => self.first_root(source).await?,
        };
        let wanted = wanted.into_iter().chain([director::TARGET]);
        let mut session =
            Session::new(stored, wanted, now, &Limits::default()).map_err(MetadataError::Trust)?;
        let accepted = loop {
            match session.next().map_err(MetadataError::Trust)? {
                Step::Need(fetch) => {
                    let reply = self.fetch(source, &fetch).await?;
                    session.feed(reply).map_err(MetadataError::Trust)?;
                }
                Step::Persist(file) => {
                    self.files.keep(&file.name, &file.bytes).map_err(MetadataError::Disk)?;
                }
                Step::Forget(name) => {
                    // The key that signed it is revoked, and the time that it signed with it.
                    clock.forget_signed();
                    self.files.forget(&name).map_err(MetadataError::Disk)?;
                }
                Step::Done(accepted) => break accepted,
            }
        };
        self.files.commit(&accepted.files).map_err(MetadataError::Disk)?;
        Ok(accepted.repository)
    }

    /// Fetches and verifies a target that [`walk`](Self::walk) was asked for.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn target(
        &self,
        source: &impl Source,
        repository: &Repository,
        path: &str,
    ) -> Result<Verified<TargetBytes>, MetadataError> {
        let info = repository.find_target(path).map_err(MetadataError::Trust)?;
        let bound = info.length().min(Limits::default().target_bytes);
        let url = format!("/tuf/v1/{}/targets/{}", self.project, info.fetch_path());
        let bytes = source.get(&url, bound).await.map_err(MetadataError::Fetch)?;
        let bytes = bytes.ok_or_else(|| MetadataError::TargetMissing(path.to_owned()))?;
        info.verify(bytes).map_err(MetadataError::Trust)
    }

    async fn fetch_director(
        &self,
        http: &Http,
        repository: &Repository,
    ) -> Result<Option<DirectorKeys>, MetadataError> {
        let Ok(info) = repository.find_target(director::TARGET) else { return Ok(None) };
        let kept = self.files.read(DIRECTOR_FILE).map_err(MetadataError::Disk)?;
        let target = if let Some(target) = kept.and_then(|bytes| info.verify(bytes).ok()) {
            target
        } else {
            let target = self.target(http, repository, director::TARGET).await?;
            self.files.keep(DIRECTOR_FILE, target.bytes()).map_err(MetadataError::Disk)?;
            target
        };
        DirectorKeys::parse(&target).map(Some).map_err(MetadataError::Trust)
    }

    /// A device that enrolled before the project had a root takes the first one over its mutual TLS.
    async fn first_root(&self, source: &impl Source) -> Result<Stored, MetadataError> {
        let fetch = Fetch { path: "1.root.json".into(), max_bytes: Limits::default().root_bytes };
        let Reply::Bytes(bytes) = self.fetch(source, &fetch).await? else {
            return Err(MetadataError::NoRoot);
        };
        if self.root_pin.is_some_and(|pin| Digest::from_bytes(Sha256::digest(&bytes).into()) != pin) {
            return Err(MetadataError::RootPin);
        }
        // Used only if it is a root at all; the session checks its own signatures before it is kept.
        check_root(&bytes).map_err(MetadataError::Trust)?;
        self.files.keep(ROOT, &bytes).map_err(MetadataError::Disk)?;
        Ok(Stored::new(bytes))
    }

    async fn fetch(&self, source: &impl Source, fetch: &Fetch) -> Result<Reply, MetadataError> {
        let path = format!("/tuf/v1/{}/{}", self.project, fetch.path);
        let bytes = source.get(&path, fetch.max_bytes).await.map_err(MetadataError::Fetch)?;
        Ok(bytes.map_or(Reply::NotFound, Reply::Bytes))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use testkit::tuf::{Sim, key};

    use super::*;
    use crate::trusted_files::keep_first_root;

    #[test]
    fn the_root_of_an_enrolment_replaces_a_damaged_one_and_never_a_newer_one() {
        let mut sim = Sim::new();
        sim.next_root(|_| {});
        let root = |version: u8| sim.files[&format!("{version}.root.json")].clone();
        let mut forged = root(2);
        let digit = forged.iter().rposition(u8::is_ascii_digit).unwrap();
        forged[digit] ^= 1;
        for (kept, expected) in [
            (None, root(1)),
            (Some(b"{".to_vec()), root(1)),
            (Some(forged), root(1)),
            (Some(root(1)), root(1)),
            (Some(root(2)), root(2)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let files = TrustedFiles::open(trusted_dir(dir.path())).unwrap();
            if let Some(kept) = &kept {
                files.keep(ROOT, kept).unwrap();
            }
            let store = TrustedStore::open(dir.path(), ProjectId::new("p").unwrap(), None).unwrap();
            let is_damaged = kept.as_ref().is_some_and(|kept| *kept != root(1) && *kept != root(2));
            assert_eq!(matches!(store.check(), Err(MetadataError::Damaged(_))), is_damaged, "{kept:?}");
            keep_first_root(dir.path(), &root(1)).unwrap();
            assert!(files.read(ROOT).unwrap() == Some(expected), "{kept:?}");
        }
    }

    #[test]
    fn a_root_that_the_disk_lost_is_named_as_such_and_enrolment_brings_it_back() {
        let root = Sim::new().files["1.root.json"].clone();
        let dir = tempfile::tempdir().unwrap();
        let store = TrustedStore::open(dir.path(), ProjectId::new("p").unwrap(), None).unwrap();
        keep_first_root(dir.path(), &root).unwrap();
        let damage = |copy: &str| std::fs::write(trusted_dir(dir.path()).join(copy), "{").unwrap();
        damage("root.a");
        assert_eq!((store.check().unwrap(), store.mend().unwrap()), (Copies::One, Copies::One));
        assert_eq!(store.check().unwrap(), Copies::Both);
        damage("root.a");
        damage("root.b");
        let error = store.check().unwrap_err();
        assert!(error.is_damage() && error.cause().kind == CauseKind::Storage, "{error:?}");
        assert!(store.mend().is_err() && store.has_root().unwrap());
        keep_first_root(dir.path(), &root).unwrap();
        assert_eq!(store.check().unwrap(), Copies::Both);
    }

    impl Source for Sim {
        async fn get(&self, path: &str, _max_bytes: u64) -> Result<Option<Vec<u8>>, FetchError> {
            Ok(path.rsplit('/').next().and_then(|name| self.files.get(name)).cloned())
        }
    }

    /// As of a server that says this time.
    fn publish(sim: &mut Sim, said: &str, expires: &str) {
        sim.timestamp["signed_at"] = json!(said);
        sim.timestamp["expires"] = json!(expires);
        sim.publish();
    }

    #[tokio::test]
    async fn ff1_a_new_timestamp_key_takes_back_the_time_that_the_old_one_signed() {
        let dir = tempfile::tempdir().unwrap();
        let before = crate::health::built_at();
        // The wall clock was lost: it stands before the floor.
        std::fs::write(dir.path().join("clock-floor"), before.plus_millis(1 << 40).0.to_string()).unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        let mut sim = Sim::new();
        let last = json!("9500-01-01T00:00:00Z");
        sim.root["expires"] = last.clone();
        sim.snapshot["expires"] = last.clone();
        sim.role("targets")["expires"] = last;
        sim.put_root(&[]);
        publish(&mut sim, "9000-01-01T00:00:00Z", "9400-01-01T00:00:00Z");
        let store = TrustedStore::open(dir.path(), "lab".parse().unwrap(), None).unwrap();
        store.walk(&sim, None, &clock).await.unwrap();
        assert_eq!(trust::format_rfc3339(clock.floor()), "9000-01-01T00:00:00Z");

        sim.next_root(|sim| sim.replace_keys("timestamp", &[key(9)]));
        publish(&mut sim, &trust::format_rfc3339(before), "8000-01-01T00:00:00Z");
        store.walk(&sim, None, &clock).await.unwrap();
        assert_eq!(clock.floor(), before);
        assert!(Clock::open(dir.path()).unwrap().floor() < before.plus_millis(1 << 30), "for good");
    }

    #[test]
    fn f2_the_age_of_metadata_is_told_and_grows_while_a_server_serves_the_same() {
        let (expires, root_expires) = (UnixMillis(1), UnixMillis(2));
        let fresh = Freshness { timestamp_version: 3, expires, root_expires, at: UnixMillis(5_000) };
        for (now, age_s) in [(5_000, 0), (65_000, 60), (86_405_000, 86_400), (0, 0)] {
            let state = fresh.state(UnixMillis(now));
            assert_eq!((state.timestamp_version, state.age_s), (3, age_s), "at {now}");
        }
    }
}
