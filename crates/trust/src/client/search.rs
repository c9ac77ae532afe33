//! Targets and delegations: a pre-order, depth-first search for each wanted target (steps 5.6 and 5.7.1).

use std::collections::BTreeSet;

use super::{Fetch, Mode, Reply, Session, Trusted, check_bound, expect_bytes};
use crate::envelope::{Envelope, KeySet};
use crate::error::{Cause, TrustError};
use crate::metadata::{MetaFile, Signed, Targets, file_name};
use crate::repository::{TargetInfo, check_length_and_hashes};

pub(super) const TARGETS: &str = "targets";

/// The search for one target.
#[derive(Debug)]
pub(super) struct Walk {
    target: String,
    /// Roles still to visit, the next one last.
    stack: Option<Vec<Visit>>,
    visited: BTreeSet<String>,
}

/// A role and the keys that its delegator *now* names for it.
#[derive(Debug, Clone)]
struct Visit {
    role: String,
    keys: KeySet,
}

impl Walk {
    pub(super) fn new(target: String) -> Self {
        Self { target, stack: None, visited: BTreeSet::new() }
    }
}

impl Session {
    /// Searches until a file is needed (`Some`) or everything wanted was found or found absent (`None`).
    pub(super) fn search(&mut self) -> Result<Option<Fetch>, TrustError> {
        let top = Visit { role: TARGETS.into(), keys: self.root.content.key_set(TARGETS) };
        if !self.is_loaded(&top)? {
            return self.fetch_role(&top.role).map(Some);
        }
        while let Some(mut walk) = self.walks.pop_front() {
            let mut stack = walk.stack.take().unwrap_or_else(|| vec![top.clone()]);
            while let Some(visit) = stack.pop() {
                // 5.6.7.1: a role that was visited is skipped (cycles); the number of roles is bounded.
                if walk.visited.contains(&visit.role) {
                    continue;
                }
                if walk.visited.len() > self.limits.delegated_roles {
                    let max = self.limits.delegated_roles;
                    return Err(Cause::TooMany { what: "delegated roles for one target", max }
                        .at(walk.target, "5.6.7.1"));
                }
                if !self.is_loaded(&visit)? {
                    let role = visit.role.clone();
                    stack.push(visit);
                    walk.stack = Some(stack);
                    self.walks.push_front(walk);
                    return self.fetch_role(&role).map(Some);
                }
                walk.visited.insert(visit.role.clone());
                if let Some(info) = self.entry(&visit.role, &walk.target) {
                    self.found.insert(walk.target.clone(), Some(info));
                    break;
                }
                self.push_children(&visit.role, &walk.target, &mut stack);
            }
            self.found.entry(walk.target).or_insert(None);
        }
        Ok(None)
    }

    fn entry(&self, role: &str, target: &str) -> Option<TargetInfo> {
        let entry = self.targets.get(role)?.signed.content.targets.get(target)?;
        Some(TargetInfo::new(target, role, entry.clone(), self.root.content.consistent_snapshot))
    }

    /// 5.6.7.2: children that are trusted with the path, in order; a terminating one ends the whole search
    /// below it.
    fn push_children(&self, role: &str, target: &str, stack: &mut Vec<Visit>) {
        let Some(delegations) = self.targets.get(role).and_then(|t| t.signed.content.delegations.as_ref())
        else {
            return;
        };
        let mut children = Vec::new();
        for child in delegations.trusted_with(target) {
            children.push(Visit { role: child.name.into_owned(), keys: child.keys });
            if child.is_terminating {
                stack.clear();
                break;
            }
        }
        stack.extend(children.into_iter().rev());
    }

    /// Whether the role is loaded and signed by the keys of *this* delegator, from the session or the store.
    fn is_loaded(&mut self, visit: &Visit) -> Result<bool, TrustError> {
        if let Some(loaded) = self.targets.get(&visit.role) {
            let step = "5.6.3 signatures, under another delegator";
            loaded.envelope.verify(&visit.keys).map_err(|c| c.at(&visit.role, step))?;
            return Ok(true);
        }
        let Some(bytes) = self.stored.get(&file_name(&visit.role)).cloned() else { return Ok(false) };
        // What is cached counts only if it passes every check that a fetched file must pass.
        match self.check_targets(&visit.role, &visit.keys, bytes) {
            Ok(trusted) => {
                self.targets.insert(visit.role.clone(), trusted);
                Ok(true)
            }
            Err(error) if self.mode == Mode::Stored => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn fetch_role(&mut self, role: &str) -> Result<Fetch, TrustError> {
        let meta = self.targets_meta(role)?;
        let max_bytes = meta.length.unwrap_or(self.limits.targets_bytes).min(self.limits.targets_bytes);
        self.fetching = Some(role.into());
        Ok(Fetch { path: self.versioned(meta.version, role), max_bytes })
    }

    pub(super) fn feed_targets(&mut self, reply: Reply) -> Result<(), TrustError> {
        let role = self.fetching.take().ok_or_else(|| Cause::OutOfTurn.at(TARGETS, "feed"))?;
        let bytes = expect_bytes(reply, &file_name(&role), &role, self.limits.targets_bytes)?;
        let keys = self.keys_of(&role).ok_or_else(|| Cause::OutOfTurn.at(&role, "feed"))?;
        let trusted = self.check_targets(&role, &keys, bytes)?;
        self.keep(&file_name(&role), &trusted.bytes); // 5.6.6
        self.targets.insert(role, trusted);
        Ok(())
    }

    fn keys_of(&self, role: &str) -> Option<KeySet> {
        if role == TARGETS {
            return Some(self.root.content.key_set(TARGETS));
        }
        let visit = self.walks.front()?.stack.as_ref()?.last()?;
        (visit.role == role).then(|| visit.keys.clone())
    }

    /// 5.6.2 to 5.6.5, for the top-level and every delegated role alike.
    fn check_targets(
        &self,
        role: &str,
        keys: &KeySet,
        bytes: Vec<u8>,
    ) -> Result<Trusted<Targets>, TrustError> {
        let meta = self.targets_meta(role)?;
        check_bound(&bytes, self.limits.targets_bytes).map_err(|c| c.at(role, "5.6.1 download"))?;
        check_length_and_hashes(&bytes, meta.length, meta.hashes.as_ref())
            .map_err(|c| c.at(role, "5.6.2 hashes in snapshot"))?;
        let envelope = Envelope::parse(&bytes, &self.limits).map_err(|c| c.at(role, "5.6.3 parse"))?;
        envelope.verify(keys).map_err(|c| c.at(role, "5.6.3 signatures"))?;
        let signed = Signed::<Targets>::read(&envelope).map_err(|c| c.at(role, "5.6.3 content"))?;
        if signed.version != meta.version {
            let cause = Cause::WrongVersion { expected: meta.version, got: signed.version };
            return Err(cause.at(role, "5.6.4 version in snapshot"));
        }
        self.check_expiry(&signed).map_err(|c| c.at(role, "5.6.5 freeze"))?;
        Ok(Trusted { signed, envelope, bytes })
    }

    fn targets_meta(&self, role: &str) -> Result<MetaFile, TrustError> {
        let listed = self.snapshot.as_ref().and_then(|s| s.signed.content.meta.get(&format!("{role}.json")));
        listed
            .cloned()
            .ok_or_else(|| Cause::Missing(format!("{role}.json in snapshot")).at(role, "5.6.1 download"))
    }
}
