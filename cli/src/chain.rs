//! The signed chain as a device walks it, from a root that this publisher trusts: what `verify` shows and `export`
//! takes along. What this key folder knows of earlier is never given up for something older.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use trust::repo::signed_by;
use trust::{Limits, PublicKey, Reply, Repository, Session, Step, Stored};

use crate::keyring::Keyring;
use crate::metadata::{UNPINNED, claims, now};
use crate::pending::{delegated_keys, root_keys};

/// Metadata by the names of files.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What was accepted.
pub(crate) struct Chain {
    /// The trusted view.
    pub(crate) repository: Repository,
    /// Each role's newest bytes, as `{role}.json`.
    pub(crate) files: Files,
    /// Everything that the server gave for it, by the names that it is fetched under.
    pub(crate) fetched: Files,
}

/// Walks from `stored` to all that is wanted. `fetch` answers with a file of the server's, or nothing.
///
/// # Errors
/// What a device would refuse, and what `fetch` could not do.
pub(crate) async fn walk(
    fetch: impl AsyncFn(&str) -> Result<Option<Vec<u8>>>,
    stored: &Stored,
    wanted: &[String],
) -> Result<Chain> {
    let wanted = wanted.iter().map(String::as_str);
    let mut session = Session::new(stored.clone(), wanted, now()?, &Limits::default())?;
    let (mut files, mut fetched) = (stored.files.clone(), Files::new());
    files.insert("root.json".to_owned(), stored.root.clone());
    loop {
        match session.next()? {
            Step::Need(need) => match fetch(&need.path).await? {
                Some(bytes) => {
                    session.feed(Reply::Bytes(bytes.clone()))?;
                    fetched.insert(need.path, bytes);
                }
                None => session.feed(Reply::NotFound)?,
            },
            Step::Persist(file) => drop(files.insert(file.name, file.bytes)),
            Step::Forget(name) => drop(files.remove(&name)),
            Step::Done(accepted) => {
                files.extend(accepted.files.into_iter().map(|file| (file.name, file.bytes)));
                return Ok(Chain { repository: accepted.repository, files, fetched });
            }
        }
    }
}

/// The root that this project's devices are pinned to, as this key folder knows it.
///
/// # Errors
/// When it knows none.
pub(crate) fn first_root(keyring: &Keyring) -> Result<Vec<u8>> {
    keyring.read("root.json")?.context(UNPINNED)
}

/// Beyond what snapshots say: nothing that the holders of a role signed, and that this folder has seen, may be missing.
///
/// # Errors
/// When something older is shown than what is `kept`.
pub(crate) fn ensure_not_older(files: &Files, kept: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<()> {
    for (name, shown) in files {
        let role = name.strip_suffix(".json").unwrap_or(name);
        let Some(known) = kept(role)? else { continue };
        let (shown, version) = (claims(shown)?.version, claims(&known)?.version);
        // What only keys vouch for that are replaced since may be an attacker's; 5.3.11 forgets it, too.
        let (keys, threshold) = keys(files, role)?;
        ensure!(
            version <= shown || signed_by(&known, &keys)?.len() < threshold,
            "the server shows {role} version {shown}, but this key folder knows version {version}: the server went \
             back, as a restored backup does, or somebody withholds what was published. Nothing was kept. If it was a \
             backup, publish again what is missing"
        );
    }
    Ok(())
}

/// A role's file.
///
/// # Errors
/// When there is none.
pub(crate) fn file<'a>(files: &'a Files, role: &str) -> Result<&'a [u8]> {
    let file = files.get(&format!("{role}.json"));
    file.map(Vec::as_slice).with_context(|| format!("{role} is missing"))
}

/// Who holds a role, and how many of them must sign.
///
/// # Errors
/// When the file that says it is missing.
pub(crate) fn keys(files: &Files, role: &str) -> Result<(Vec<PublicKey>, usize)> {
    if matches!(role, "root" | "targets" | "snapshot" | "timestamp") {
        root_keys(file(files, "root")?, role)
    } else {
        delegated_keys(file(files, "targets")?, role)
    }
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::{RootBuilder, TargetsBuilder};
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn k3_verify_does_not_go_back() {
        let (ada, bea) = (Ed25519Signer::from_seed(&[1; 32]), Ed25519Signer::from_seed(&[2; 32]));
        let root = |holder: &Ed25519Signer| {
            let all = ["root", "targets", "snapshot", "timestamp"];
            let root = RootBuilder::new(UnixMillis(0));
            let root = all.into_iter().fold(root, |root, role| root.role(role, &[holder.public_key()], 1));
            root.sign(&[holder]).unwrap()
        };
        let older = TargetsBuilder::new(UnixMillis(0)).sign(&[&ada]).unwrap();
        let newer = TargetsBuilder::resume(&older, UnixMillis(0)).unwrap().sign(&[&ada]).unwrap();
        let shows = |root: Vec<u8>, targets: &[u8]| {
            Files::from([("root.json".into(), root), ("targets.json".into(), targets.to_vec())])
        };
        let knows = |known: &[u8]| {
            let known = known.to_vec();
            move |role: &str| Ok((role == "targets").then(|| known.clone()))
        };
        assert!(ensure_not_older(&shows(root(&ada), &newer), knows(&older)).is_ok());
        assert!(ensure_not_older(&shows(root(&ada), &newer), knows(&newer)).is_ok());
        let error = ensure_not_older(&shows(root(&ada), &older), knows(&newer)).unwrap_err().to_string();
        assert!(error.contains("targets version 1") && error.contains("knows version 2"), "{error}");
        // The key that signed what is known was replaced since: nobody vouches for it any more.
        let again = TargetsBuilder::new(UnixMillis(0)).sign(&[&bea]).unwrap();
        assert!(ensure_not_older(&shows(root(&bea), &again), knows(&newer)).is_ok());
    }
}
