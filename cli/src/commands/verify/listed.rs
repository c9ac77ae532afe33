//! The targets that verified roles list, each found as a device finds it: over files that were accepted before, so that
//! nothing is fetched again and no publication can come in between.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use protocol::UnixMillis;
use serde_json::{Value, json};
use trust::{Limits, Reply, Repository, Session, Step, Stored, TargetInfo};

use crate::chain::{Files, file};
use crate::metadata::claims;

/// A row for each target that one of these roles lists. What a role lists without being trusted with it says so.
///
/// # Errors
/// When a role's file is missing, or what was accepted once is not accepted again.
pub(super) fn rows<'a>(
    files: &Files,
    roles: impl Iterator<Item = &'a String>,
    now: UnixMillis,
) -> Result<Vec<Value>> {
    let mut listed = BTreeSet::new();
    for role in roles {
        listed.extend(claims(file(files, role)?)?.targets.into_iter().map(|path| (path, role.clone())));
    }
    let paths: BTreeSet<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
    let repository = looked_up(files, &paths, now).context("what the roles list can't be looked up")?;
    let found = paths.iter().filter_map(|path| repository.find_target(path).ok()).collect::<Vec<_>>();
    let fences = fences(&found);
    let row = |(path, role): &(String, String)| match repository.find_target(path) {
        Ok(info) if info.role() != role => {
            json!({ "path": path, "role": role, "refused": format!("{} speaks for it", info.role()) })
        }
        Ok(info) => row(info, fences[role.as_str()]),
        Err(error) => json!({ "path": path, "role": role, "refused": error.cause.to_string() }),
    };
    Ok(listed.iter().map(row).collect())
}

/// The view of a device that looks for all these targets and is offered exactly these files.
fn looked_up(files: &Files, paths: &BTreeSet<&str>, now: UnixMillis) -> Result<Repository> {
    let root = files.get("root.json").context("root is missing")?;
    let stored = Stored::new(root.clone());
    let mut session = Session::new(stored, paths.iter().copied(), now, &Limits::default())?;
    loop {
        match session.next()? {
            Step::Need(need) => session.feed(offered(files, &need.path))?,
            Step::Persist(_) | Step::Forget(_) => {}
            Step::Done(accepted) => return Ok(accepted.repository),
        }
    }
}

/// A file by the name that devices ask for, with its version in front. There is no root after the last one.
fn offered(files: &Files, path: &str) -> Reply {
    let name = match path.split_once('.') {
        Some((version, name)) if version.bytes().all(|byte| byte.is_ascii_digit()) && name != "json" => name,
        _ => path,
    };
    let file = files.get(name).filter(|_| name != "root.json");
    file.map_or(Reply::NotFound, |bytes| Reply::Bytes(bytes.clone()))
}

/// The highest fence that each role's releases set.
fn fences<'a>(found: &[&'a TargetInfo]) -> BTreeMap<&'a str, u64> {
    let mut fences: BTreeMap<&str, u64> = BTreeMap::new();
    for info in found {
        let fence = fences.entry(info.role()).or_default();
        *fence = (*fence).max(number(info, "min_counter").unwrap_or_default());
    }
    fences
}

fn row(info: &TargetInfo, fence: u64) -> Value {
    let counter = number(info, "counter");
    json!({
        "path": info.path(), "role": info.role(), "digest": info.sha256(), "counter": counter,
        "is_fenced_off": counter.is_some_and(|counter| counter < fence),
    })
}

fn number(info: &TargetInfo, name: &str) -> Option<u64> {
    info.custom().and_then(|custom| custom.get(name)).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use trust::repo::{RootBuilder, TargetsBuilder, snapshot, timestamp};
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    const LATER: UnixMillis = UnixMillis(86_400_000);

    /// What a walk has accepted: one key for all, and a model whose second release fences off the first.
    fn accepted() -> Files {
        let key = Ed25519Signer::from_seed(&[1; 32]);
        let holder = [key.public_key()];
        let all = ["root", "targets", "snapshot", "timestamp"];
        let root = all.into_iter().fold(RootBuilder::new(LATER), |root, role| root.role(role, &holder, 1));
        let digits = "digits".parse().unwrap();
        let targets = TargetsBuilder::new(LATER).delegate_model(&digits, &holder, 1);
        let targets = targets.target("director.json", b"{}", None).sign(&[&key]).unwrap();
        let custom = |counter: u64, fence: u64| Some(json!({ "counter": counter, "min_counter": fence }));
        let digits = TargetsBuilder::new(LATER)
            .target("models/digits/1.0.0/manifest.json", b"1", custom(1, 0))
            .target("models/digits/2.0.0/manifest.json", b"2", custom(2, 2))
            .target("models/faces/1.0.0/manifest.json", b"3", custom(3, 0));
        let digits = digits.sign(&[&key]).unwrap();
        let roles = [("targets", targets.as_slice()), ("digits", digits.as_slice())];
        let snapshot = snapshot(7, LATER, roles, &[&key]).unwrap();
        let timestamp = timestamp(9, LATER, &snapshot, UnixMillis(0), &[&key]).unwrap();
        let root = root.sign(&[&key]).unwrap();
        let files = [("root", root), ("targets", targets), ("digits", digits)];
        let files = files.into_iter().chain([("snapshot", snapshot), ("timestamp", timestamp)]);
        files.map(|(role, bytes)| (format!("{role}.json"), bytes)).collect()
    }

    #[test]
    fn every_release_that_a_role_lists_is_shown_and_fenced_off_ones_say_so() {
        let roles = ["targets".to_owned(), "digits".to_owned()];
        let rows = rows(&accepted(), roles.iter(), UnixMillis(0)).unwrap();
        let said: Vec<_> = rows.iter().map(|row| (row["path"].as_str().unwrap(), &row["counter"])).collect();
        let release = |version: &str| format!("models/digits/{version}/manifest.json");
        assert_eq!(said[0], ("director.json", &Value::Null));
        assert_eq!(said[1], (release("1.0.0").as_str(), &json!(1)));
        assert_eq!(said[2], (release("2.0.0").as_str(), &json!(2)));
        assert_eq!((&rows[1]["is_fenced_off"], &rows[2]["is_fenced_off"]), (&json!(true), &json!(false)));
        assert_eq!(rows[1]["role"], "digits");
    }

    #[test]
    fn what_a_role_lists_outside_its_delegation_is_shown_as_refused() {
        let roles = ["digits".to_owned()];
        let rows = rows(&accepted(), roles.iter(), UnixMillis(0)).unwrap();
        assert_eq!(rows[2]["path"], "models/faces/1.0.0/manifest.json");
        assert_eq!(rows[2]["refused"], "no trusted role lists this target");
    }
}
