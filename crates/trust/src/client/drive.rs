//! Sessions that need no network: over what is stored, and over files in memory.

use protocol::UnixMillis;

use super::{Mode, Reply, Session, Step, Stored, TIMESTAMP};
use crate::error::{Cause, TrustError};
use crate::limits::Limits;
use crate::repository::Repository;

/// Re-reads what was accepted before, without a network and whether expired or not: expiry refuses new
/// metadata only. Signatures, versions and hashes are all checked again.
///
/// # Errors
/// [`TrustError`] when something stored is missing or isn't what was signed.
pub fn load_stored<S: Into<String>>(
    stored: Stored,
    wanted: impl IntoIterator<Item = S>,
    limits: &Limits,
) -> Result<Repository, TrustError> {
    let mut session = Session::begin(stored, wanted, UnixMillis(0), limits, Mode::Stored)?;
    session.end_of_roots()?;
    let timestamp = session.old_timestamp.take();
    let timestamp =
        timestamp.ok_or_else(|| Cause::Missing("timestamp.json".into()).at(TIMESTAMP, "stored metadata"))?;
    session.accept_timestamp(timestamp)?;
    match session.next()? {
        Step::Done(accepted) => Ok(accepted.repository),
        Step::Need(fetch) => Err(Cause::Missing(fetch.path).at("repository", "stored metadata")),
        Step::Persist(_) | Step::Forget(_) => Err(Cause::OutOfTurn.at("repository", "stored metadata")),
    }
}

/// Runs a session against files in memory: the server's own check before it publishes, and tests.
/// `stored` follows the steps, as a device's folder would.
///
/// # Errors
/// [`TrustError`] as a device would see it.
pub fn run(
    stored: &mut Stored,
    wanted: &[&str],
    now: UnixMillis,
    limits: &Limits,
    mut fetch: impl FnMut(&str) -> Option<Vec<u8>>,
) -> Result<Repository, TrustError> {
    let mut session = Session::new(stored.clone(), wanted.iter().copied(), now, limits)?;
    loop {
        match session.next()? {
            Step::Need(need) => session.feed(fetch(&need.path).map_or(Reply::NotFound, Reply::Bytes))?,
            Step::Persist(file) => stored.put(file),
            Step::Forget(name) => {
                stored.files.remove(&name);
            }
            Step::Done(accepted) => {
                accepted.files.into_iter().for_each(|file| stored.put(file));
                return Ok(accepted.repository);
            }
        }
    }
}
