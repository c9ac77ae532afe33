//! One run of the client workflow: the session decides, this fetches and stores.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use protocol::UnixMillis;
use trust::{Limits, Reply, Repository, Session, Step, Stored, Storing};

use crate::http::Base;
use crate::store::Store;

/// Other people's repositories hold more than a device ever fetches.
fn limits() -> Limits {
    Limits {
        snapshot_bytes: 50_000_000,
        targets_bytes: 50_000_000,
        delegated_roles: 256,
        signatures: 1024,
        ..Limits::default()
    }
}

/// A run that was begun.
pub(crate) struct Update {
    session: Session,
    store: Store,
    metadata: Base,
}

/// Starts from a root that came by a trusted way (5.2). It must be signed by its own keys; it may be expired.
///
/// # Errors
/// When it is no such root, or can't be stored.
pub(crate) fn init(folder: &Path, trusted_root: &Path) -> Result<()> {
    let root =
        std::fs::read(trusted_root).with_context(|| format!("cannot read {}", trusted_root.display()))?;
    let nothing = std::iter::empty::<String>();
    Session::new(Stored::new(root.clone()), nothing, UnixMillis(0), &limits())?;
    Store::open(folder)?.put("root.json", &root)
}

impl Update {
    /// Begins with what is stored; the time is fixed here (5.1).
    ///
    /// # Errors
    /// When there is no usable root.
    pub(crate) fn begin(folder: &Path, metadata_url: &str) -> Result<Self> {
        let store = Store::open(folder)?;
        let nothing = std::iter::empty::<String>();
        let session = Session::new(store.load()?, nothing, now()?, &limits())?;
        let session = session.storing(Storing::EachRole);
        Ok(Self { session, store, metadata: Base::new(metadata_url) })
    }

    /// Goes on until the top-level metadata is current and every target that is wanted so far was looked for.
    ///
    /// # Errors
    /// When something is refused or can't be fetched; what was accepted before stays stored.
    pub(crate) fn refresh(&mut self) -> Result<Repository> {
        loop {
            match self.session.next()? {
                Step::Need(fetch) => {
                    let bytes = self.metadata.bytes(&fetch.path, fetch.max_bytes)?;
                    self.session.feed(bytes.map_or(Reply::NotFound, Reply::Bytes))?;
                }
                Step::Persist(file) => self.store.put(&file.name, &file.bytes)?,
                Step::Forget(name) => self.store.remove(&name)?,
                Step::Done(accepted) => return Ok(accepted.repository),
            }
        }
    }

    /// Looks for one target.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) fn find(&mut self, target: &str) -> Result<Repository> {
        self.session.want(target)?;
        self.refresh()
    }
}

/// The time by the ordinary system call, so that a test can fake it.
fn now() -> Result<UnixMillis> {
    let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()),
        Err(before) => i64::try_from(before.duration().as_millis()).map(|millis| -millis),
    };
    Ok(UnixMillis(millis.context("this machine's clock is out of range")?))
}
