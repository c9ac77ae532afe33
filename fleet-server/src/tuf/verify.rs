//! A repository in memory, read by the very client that devices use.

use std::collections::BTreeMap;

use protocol::UnixMillis;
use trust::{Limits, Reply, Repository, Session, Step, Stored, TrustError};

/// Every file that a device could ask for, newest and older: role name to version to bytes.
#[derive(Debug, Default, Clone)]
pub(super) struct Candidate {
    files: BTreeMap<String, BTreeMap<u64, Vec<u8>>>,
}

impl Candidate {
    pub(super) fn put(&mut self, role: &str, version: u64, bytes: Vec<u8>) {
        self.files.entry(role.to_owned()).or_default().insert(version, bytes);
    }

    pub(super) fn newest(&self, role: &str) -> Option<(u64, &[u8])> {
        let (version, bytes) = self.files.get(role)?.last_key_value()?;
        Some((*version, bytes))
    }

    pub(super) fn get(&self, role: &str, version: u64) -> Option<&[u8]> {
        self.files.get(role)?.get(&version).map(Vec::as_slice)
    }

    /// The targets roles: `targets` and every model's.
    pub(super) fn targets_roles(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .filter(|(role, _)| !matches!(role.as_str(), "root" | "snapshot" | "timestamp"))
            .filter_map(|(role, versions)| Some((role.as_str(), versions.last_key_value()?.1.as_slice())))
    }

    /// Answers a fetch as the device port does.
    fn fetch(&self, path: &str) -> Reply {
        let found = match path.strip_suffix(".json").map(|name| name.split_once('.')) {
            Some(Some((version, role))) => version.parse().ok().and_then(|version| self.get(role, version)),
            Some(None) => {
                path.strip_suffix(".json").and_then(|role| self.newest(role)).map(|(_, bytes)| bytes)
            }
            None => None,
        };
        found.map_or(Reply::NotFound, |bytes| Reply::Bytes(bytes.to_vec()))
    }

    /// Runs the client from `trusted` over this repository, looking for `wanted` targets.
    pub(super) fn check(
        &self,
        trusted: Stored,
        wanted: &[String],
        now: UnixMillis,
    ) -> Result<Repository, TrustError> {
        let mut session = Session::new(trusted, wanted.iter().map(String::as_str), now, &Limits::default())?;
        loop {
            match session.next()? {
                Step::Need(fetch) => session.feed(self.fetch(&fetch.path))?,
                Step::Persist(_) | Step::Forget(_) => {}
                Step::Done(accepted) => return Ok(accepted.repository),
            }
        }
    }
}
