//! The publisher's own view of signed metadata: what to build the next version on.
//!
//! A server may be taken over, so nothing of it is signed again unless this publisher's key signed it before, or a
//! threshold of the people who hold the role together.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use protocol::UnixMillis;
use reqwest::Method;
use trust::envelope::{Envelope, KeySet};
use trust::repo::{self, Claims};
use trust::{Limits, PublicKey};

use crate::client::{Client, ClientError};
use crate::keyring::Keyring;
use crate::pending::root_keys;

/// What somebody has to do whose folder doesn't know the project's first root.
pub(crate) const UNPINNED: &str = "this key folder doesn't know the project's first root. If the project is new, make \
its keys with: flotilla keys init. Else get root.json from the key folder of somebody who holds the project's keys, by a \
way that you trust, and run: flotilla verify --root root.json --pin";
/// How long root stays valid, in days.
pub(crate) const ROOT_DAYS: u32 = 730;
/// How long targets and models' roles stay valid, in days.
pub(crate) const TARGETS_DAYS: u32 = 365;

/// The time `days` from now.
///
/// # Errors
/// When the clock stands before 1970.
pub(crate) fn expiry(days: u32) -> Result<UnixMillis> {
    Ok(now()?.plus_millis(i64::from(days) * 86_400_000))
}

/// This machine's time, in whole seconds.
///
/// # Errors
/// When the clock stands before 1970.
pub(crate) fn now() -> Result<UnixMillis> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.context("this machine's clock stands before 1970")?.as_secs();
    Ok(UnixMillis(i64::try_from(seconds)?.saturating_mul(1000)))
}

/// The current file of a role on the server; none if it has none.
///
/// # Errors
/// What the server refused.
pub(crate) async fn fetch(client: &Client, role: &str) -> Result<Option<Vec<u8>>> {
    fetch_file(client, &format!("{role}.json")).await
}

/// A file of signed metadata on the server, by the name that devices fetch it under; none if it has none.
///
/// # Errors
/// What the server refused.
pub(crate) async fn fetch_file(client: &Client, name: &str) -> Result<Option<Vec<u8>>> {
    get(client, &format!("/metadata/{name}"), Limits::default().targets_bytes).await
}

/// A file of the project, of at most so many bytes; none where the server doesn't have it.
///
/// # Errors
/// When the server refuses it, or sends more.
pub(crate) async fn get(client: &Client, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
    let path = client.in_project(path);
    match client.send(client.request(Method::GET, &path)).await {
        Ok(response) => Ok(Some(bounded(response, max).await?)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An answer's body, of at most so many bytes: a server that somebody stole may send without end (D1, D2).
///
/// # Errors
/// When it is longer, or breaks off.
async fn bounded(mut response: reqwest::Response, max: u64) -> Result<Vec<u8>> {
    let (url, mut bytes) = (response.url().clone(), Vec::new());
    while let Some(chunk) = response.chunk().await.with_context(|| format!("{url} broke off"))? {
        bytes.extend_from_slice(&chunk);
        ensure!(bytes.len() as u64 <= max, "{url} has more than the {max} bytes that are allowed");
    }
    Ok(bytes)
}

/// A file that somebody gave, of at most as many bytes as metadata may have (D1): it may be a device that never ends.
///
/// # Errors
/// When it can't be read, or is longer.
pub(crate) fn read_given(path: &Path) -> Result<Vec<u8>> {
    let (max, mut bytes) = (Limits::default().targets_bytes, Vec::new());
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(max + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() as u64 <= max,
        "{} has more than the {max} bytes that metadata may have",
        path.display()
    );
    Ok(bytes)
}

/// What the next version of a role builds on: the newer one of what the server has and what was last published from
/// here; the server's only if one of `accepted` vouches for it: this folder's own key, or all who hold the role.
///
/// # Errors
/// When the server offers something newer that none of them signed.
pub(crate) async fn newest(
    client: &Client,
    keyring: &Keyring,
    role: &str,
    accepted: &[KeySet],
) -> Result<Option<Vec<u8>>> {
    let local = keyring.read(&kept_name(role))?;
    let server = fetch(client, role).await?;
    choose(role, accepted, local, server)
}

/// One key that is enough by itself.
pub(crate) fn own(key: PublicKey) -> KeySet {
    KeySet::new([key], 1)
}

/// Where the last published file of a role is kept.
pub(crate) fn kept_name(role: &str) -> String {
    format!("metadata/{role}.json")
}

fn choose(
    role: &str,
    accepted: &[KeySet],
    local: Option<Vec<u8>>,
    server: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let version = |bytes: &Option<Vec<u8>>| -> Result<u64> {
        bytes.as_ref().map_or(Ok(0), |bytes| Ok(repo::claims(bytes)?.version))
    };
    let ours = version(&local).with_context(|| format!("the kept {role} metadata is damaged"))?;
    let theirs = version(&server).with_context(|| format!("the server's {role} metadata can't be read"))?;
    if theirs <= ours {
        return Ok(local);
    }
    let Some(bytes) = server else { return Ok(local) };
    let envelope = Envelope::parse(&bytes, &Limits::default())?;
    let verdicts: Vec<_> = accepted.iter().map(|keys| envelope.verify(keys)).collect();
    if !verdicts.iter().any(Result::is_ok) {
        let causes: Vec<_> =
            verdicts.into_iter().filter_map(Result::err).map(|cause| cause.to_string()).collect();
        bail!(
            "the server's {role} metadata, version {theirs}, is not signed by this folder's key, nor by enough of \
             those who hold the role ({}); nothing is built on it. If colleagues changed \
             keys meanwhile, follow the chain of roots with: flotilla verify",
            causes.join("; ")
        );
    }
    Ok(Some(bytes))
}

/// Whether `next` is the root right after `root`, as a device takes it: signed by both (5.3.4, 5.3.5).
///
/// # Errors
/// When one is no root.
pub(crate) fn is_next_root(root: &[u8], next: &[u8]) -> Result<bool> {
    let is_next = claims(root)?.version.checked_add(1) == Some(claims(next)?.version);
    Ok(is_next && is_signed(next, root_keys(root, "root")?) && is_signed(next, root_keys(next, "root")?))
}

/// Whether enough of these have signed it.
pub(crate) fn is_signed(bytes: &[u8], (keys, threshold): (Vec<PublicKey>, usize)) -> bool {
    let envelope = Envelope::parse(bytes, &Limits::default());
    envelope.is_ok_and(|envelope| envelope.verify(&KeySet::new(keys, threshold)).is_ok())
}

/// The id of a key as people compare it.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(16).collect()
}

/// Reads what a file says of itself.
///
/// # Errors
/// When it is no metadata.
pub(crate) fn claims(bytes: &[u8]) -> Result<Claims> {
    repo::claims(bytes).context("not signed metadata")
}

#[cfg(test)]
mod tests {
    use trust::repo::TargetsBuilder;
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn d1_a_file_without_end_is_refused_before_it_fills_the_memory() {
        let error = read_given(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("/dev/zero has more than the 5000000 bytes"), "{error}");
    }

    #[test]
    fn k2_metadata_that_our_key_did_not_sign_is_never_built_on() {
        let (ours, thief) = (Ed25519Signer::from_seed(&[1; 32]), Ed25519Signer::from_seed(&[2; 32]));
        let v1 = TargetsBuilder::new(UnixMillis(0)).sign(&[&ours]).unwrap();
        let next = TargetsBuilder::resume(&v1, UnixMillis(0)).unwrap();
        let (good, forged) = (next.sign(&[&ours]).unwrap(), next.sign(&[&thief]).unwrap());
        let accepted = [own(ours.public_key())];
        let pick = |local: &[u8], server: &[u8]| {
            choose("targets", &accepted, Some(local.into()), Some(server.into()))
        };
        assert_eq!(pick(&v1, &good).unwrap().unwrap(), good);
        assert_eq!(pick(&good, &v1).unwrap().unwrap(), good, "a server that went back changes nothing");
        let group = KeySet::new([thief.public_key(), Ed25519Signer::from_seed(&[3; 32]).public_key()], 2);
        let error =
            choose("targets", &[own(ours.public_key()), group], Some(v1.clone()), Some(forged.clone()));
        assert!(error.is_err(), "one of two is not enough");
        assert!(pick(&v1, &forged).unwrap_err().to_string().contains("not signed by this folder's key"));
    }
}
