//! Publications: signed metadata and manifests, checked exactly as a device checks them, stored all or not at all.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Digest, ModelName, ProjectId, UnixMillis};
use release::{Manifest, ManifestError};
use tracing::warn;
use trust::repo::{self, BuildError};
use trust::{Cause, Repository, Signer, Stored, TargetBytes, TrustError, Verified, director};

use super::counters::{self, CounterError};
use super::keys::{self, KeyStoreError, OnlineRole};
use super::refresh::{self, RefreshError};
use super::verify::Candidate;
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::audit::{self, Change};
use crate::store::metadata::MetadataFile;
use crate::store::releases::{Release, ReleaseState};
use crate::store::{Conn, StoreError, blobs, metadata, projects, releases};

/// So far a role's version may rise at once (FF3). A stolen key of one model could use up its versions otherwise, and no
/// snapshot that lists the last one can ever list another: nobody could publish anything.
const MAX_STEP: u64 = 1000;

/// What a publisher sends.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Signed files by role: `root`, `targets` or a model's name.
    pub metadata: Vec<(String, Vec<u8>)>,
    /// Targets by their path: manifests and `director.json`.
    pub targets: Vec<(String, Vec<u8>)>,
}

/// What a publication changed.
#[derive(Debug, Clone)]
pub struct Published {
    /// Whether anything in it was new; if not, nothing was signed or stored.
    pub is_new: bool,
    /// Version of the snapshot that is served now.
    pub snapshot_version: u64,
    /// Version of the timestamp that is served now.
    pub timestamp_version: u64,
    /// Releases that are new.
    pub releases: Vec<Release>,
}

/// Why a publication is refused; nothing was stored then.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The bytes are no metadata.
    #[error("{name} is no TUF metadata")]
    Malformed {
        /// Which file.
        name: String,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// A file of another role than its name says, or of a role that the server signs itself.
    #[error("{name} holds metadata of type {kind:?}")]
    WrongRole {
        /// Which file.
        name: String,
        /// What it says it is.
        kind: String,
    },
    /// The version exists with other content.
    #[error("version {version} of {name} exists already with other content; raise the version")]
    Conflict {
        /// Which role.
        name: String,
        /// Which version.
        version: u64,
    },
    /// A newer version is served: what this one adds would get lost.
    #[error(
        "version {version} of {name} was signed on top of an older one, version {served} is served; sign again"
    )]
    Stale {
        /// Which role.
        name: String,
        /// Which version.
        version: u64,
        /// The version that is served.
        served: u64,
    },
    /// So high that versions could be used up.
    #[error(
        "version {version} of {name} is more than {MAX_STEP} above version {served}, which is served; build on that one"
    )]
    Jump {
        /// Which role.
        name: String,
        /// Which version.
        version: u64,
        /// The version that is served; 0 if none is.
        served: u64,
    },
    /// No root was ever published.
    #[error("the project has no root yet; publish root and targets first")]
    NoRoot,
    /// A device would refuse it.
    #[error("a device would refuse this")]
    Untrusted(#[source] TrustError),
    /// Metadata names a target that neither the publication nor the server has.
    #[error("the content of target {path} with digest {digest} is missing")]
    MissingTarget {
        /// Which.
        path: String,
        /// Its signed digest.
        digest: String,
    },
    /// A release that is out of the model's order.
    #[error(transparent)]
    Counter(#[from] CounterError),
    /// A manifest is not one, or breaks a bound.
    #[error("the manifest {path} is refused")]
    Manifest {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A release names blobs that were not uploaded.
    #[error("{path} names {} blob(s) that the project does not have", missing.len())]
    MissingBlobs {
        /// Which manifest.
        path: String,
        /// The blobs.
        missing: Vec<Digest>,
    },
    /// `director.json` doesn't name this server's director key.
    #[error("director.json does not name this server's director key")]
    ForeignDirector,
    /// The version of a release was published before with another manifest.
    #[error("release {version} of {model} exists already with another manifest")]
    ReleaseExists {
        /// Model.
        model: ModelName,
        /// Version.
        version: String,
    },
    /// The server's own keys or signatures fail.
    #[error("snapshot and timestamp can't be signed")]
    Refresh(#[from] RefreshError),
    /// The server's own keys fail.
    #[error("the online keys can't be used")]
    Keys(#[from] KeyStoreError),
    /// The database failed.
    #[error("the publication can't be stored")]
    Store(#[from] StoreError),
}

/// Checks a publication as a device would and stores it with a new snapshot and timestamp, in one transaction.
///
/// # Errors
/// [`PublishError`]; nothing is stored then.
pub async fn publish(
    state: &AppState,
    project: &ProjectId,
    actor: &str,
    publication: Publication,
) -> Result<Published, PublishError> {
    let now = state.clock.now();
    keys::ensure(&state.store, &state.clock, &state.seal, project).await?;
    let mut tx = state.store.begin().await?;
    projects::lock(&mut tx, project).await?;
    let (mut candidate, mut trusted) = stored(&mut tx, project).await?;
    let new_files = take_metadata(&mut candidate, &publication, actor, now)?;
    if new_files.is_empty()
        && let (Some((snapshot_version, _)), Some((timestamp_version, _))) =
            (candidate.newest("snapshot"), candidate.newest("timestamp"))
    {
        return Ok(Published { is_new: false, snapshot_version, timestamp_version, releases: vec![] });
    }
    if trusted.root.is_empty() {
        let first = candidate.get("root", 1).ok_or(PublishError::NoRoot)?;
        trusted.root = first.to_vec();
    }
    let online = refresh::sign_both(&mut tx, &state.seal, project, &mut candidate, now).await?;
    let touched: BTreeSet<&str> = new_files.iter().map(|file| file.name.as_str()).collect();
    let (repository, wanted, lapsed) = accepted(&candidate, &trusted, &touched, now)?;
    let mut check =
        Check { conn: &mut tx, state, project, repository: &repository, publication: &publication };
    let targets = check.targets(&wanted).await?;
    let [snapshot, timestamp] = &online;
    let (snapshot_version, timestamp_version) = (snapshot.version, timestamp.version);
    for file in new_files.iter().chain(&online) {
        metadata::insert(&mut tx, project, file).await?;
    }
    let releases = store_targets(&mut tx, project, &targets, &lapsed, actor, now).await?;
    record(&mut tx, project, actor, &new_files, &releases, now).await?;
    tx.commit().await?;
    for release in &releases {
        state.bus.changed(project, ChangeKind::Release, format!("{}/{}", release.model, release.version));
    }
    Ok(Published { is_new: true, snapshot_version, timestamp_version, releases })
}

/// Everything stored, as a repository, and what a device that is up to date holds.
async fn stored(conn: &mut Conn, project: &ProjectId) -> Result<(Candidate, Stored), StoreError> {
    let mut candidate = Candidate::default();
    let mut trusted = Stored::default();
    for file in metadata::all_newest(conn, project).await? {
        if file.name == "root" {
            for version in 1..file.version {
                if let Some(older) = metadata::get(conn, project, "root", version).await? {
                    candidate.put("root", version, older.bytes);
                }
            }
            trusted.root = file.bytes.clone();
        } else {
            trusted.files.insert(format!("{}.json", file.name), file.bytes.clone());
        }
        candidate.put(&file.name, file.version, file.bytes);
    }
    Ok((candidate, trusted))
}

/// Adds the publication's files to the candidate and returns those that are new.
fn take_metadata(
    candidate: &mut Candidate,
    publication: &Publication,
    actor: &str,
    now: UnixMillis,
) -> Result<Vec<MetadataFile>, PublishError> {
    let mut new = vec![];
    for (name, bytes) in &publication.metadata {
        let malformed = |source| PublishError::Malformed { name: name.clone(), source };
        let claims = repo::claims(bytes).map_err(malformed)?;
        let is_model = ModelName::new(name.clone()).is_ok() && !is_reserved(name);
        let is_good = match claims.kind.as_str() {
            "root" => name == "root",
            "targets" => name == "targets" || is_model,
            _ => false,
        };
        if !is_good {
            return Err(PublishError::WrongRole { name: name.clone(), kind: claims.kind });
        }
        let (name_again, version) = (|| name.clone(), claims.version);
        let served = candidate.newest(name).map_or(0, |(version, _)| version);
        match candidate.get(name, version) {
            Some(same) if same == bytes && (version == served || name == "root") => continue,
            Some(other) if other != bytes => {
                return Err(PublishError::Conflict { name: name_again(), version });
            }
            _ if version < served => return Err(PublishError::Stale { name: name_again(), version, served }),
            _ if version - served > MAX_STEP => {
                return Err(PublishError::Jump { name: name_again(), version, served });
            }
            _ => {}
        }
        candidate.put(name, claims.version, bytes.clone());
        new.push(MetadataFile {
            name: name.clone(),
            version: claims.version,
            bytes: bytes.clone(),
            expires_at: claims.expires,
            stored_at: now,
            stored_by: actor.to_owned(),
        });
    }
    Ok(new)
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "root" | "targets" | "snapshot" | "timestamp")
}

/// What a device would accept of it: the repository, the targets in it, and models' roles that have expired. Those are
/// somebody else's to sign again: they stop nobody who doesn't touch them, as they stop no device that doesn't ask.
fn accepted(
    candidate: &Candidate,
    trusted: &Stored,
    touched: &BTreeSet<&str>,
    now: UnixMillis,
) -> Result<(Repository, Vec<String>, BTreeSet<String>), PublishError> {
    let mut lapsed = BTreeSet::new();
    loop {
        let wanted = wanted_targets(candidate, &lapsed)?;
        match candidate.check(trusted.clone(), &wanted, now) {
            Ok(repository) => return Ok((repository, wanted, lapsed)),
            Err(TrustError { role, cause: Cause::Expired { .. }, .. })
                if !is_reserved(&role) && !touched.contains(role.as_str()) && lapsed.insert(role.clone()) =>
            {
                warn!(role, "the role has expired; publications go on without it");
            }
            Err(error) => return Err(PublishError::Untrusted(error)),
        }
    }
}

/// Every target that the newest targets roles name, but for those roles.
fn wanted_targets(candidate: &Candidate, without: &BTreeSet<String>) -> Result<Vec<String>, PublishError> {
    let mut wanted = BTreeSet::new();
    for (role, bytes) in candidate.targets_roles().filter(|(role, _)| !without.contains(*role)) {
        let malformed = |source| PublishError::Malformed { name: role.to_owned(), source };
        wanted.extend(repo::claims(bytes).map_err(malformed)?.targets);
    }
    Ok(wanted.into_iter().collect())
}

/// A target whose signed chain was accepted.
struct Accepted {
    path: String,
    target: Verified<TargetBytes>,
    manifest: Option<Verified<Manifest>>,
}

struct Check<'a> {
    conn: &'a mut Conn,
    state: &'a AppState,
    project: &'a ProjectId,
    repository: &'a Repository,
    publication: &'a Publication,
}

impl Check<'_> {
    async fn targets(&mut self, wanted: &[String]) -> Result<Vec<Accepted>, PublishError> {
        let mut accepted = vec![];
        for path in wanted {
            let target = self.target(path).await?;
            let manifest = if path == director::TARGET {
                self.director(&target).await?;
                None
            } else {
                Some(self.manifest(path, &target).await?)
            };
            accepted.push(Accepted { path: path.clone(), target, manifest });
        }
        Ok(accepted)
    }

    async fn target(&mut self, path: &str) -> Result<Verified<TargetBytes>, PublishError> {
        let info = self.repository.find_target(path).map_err(PublishError::Untrusted)?;
        let sent = self.publication.targets.iter().find(|(sent, _)| sent == path).map(|(_, bytes)| bytes);
        // What was sent for this path must fit; what wasn't sent may be stored already.
        if let Some(bytes) = sent {
            return info.verify(bytes.clone()).map_err(PublishError::Untrusted);
        }
        let digest = info.sha256();
        let missing = || PublishError::MissingTarget {
            path: path.to_owned(),
            digest: digest.map_or_else(|| "none of SHA-256".into(), |digest| digest.to_hex()),
        };
        let bytes = metadata::target(self.conn, self.project, path, &digest.ok_or_else(missing)?).await?;
        info.verify(bytes.ok_or_else(missing)?).map_err(PublishError::Untrusted)
    }

    async fn manifest(
        &mut self,
        path: &str,
        target: &Verified<TargetBytes>,
    ) -> Result<Verified<Manifest>, PublishError> {
        let refuse = |source| PublishError::Manifest { path: path.to_owned(), source };
        let manifest = Manifest::parse(target).map_err(refuse)?;
        let mut missing = vec![];
        for blob in manifest.all_blobs() {
            let size = blobs::size(self.conn, self.project, &blob.digest).await?;
            if size != Some(blob.size_bytes) {
                missing.push(blob.digest);
            }
        }
        if missing.is_empty() {
            Ok(manifest)
        } else {
            Err(PublishError::MissingBlobs { path: path.into(), missing })
        }
    }

    /// A director that isn't ours would leave every device without Desired.
    async fn director(&mut self, target: &Verified<TargetBytes>) -> Result<(), PublishError> {
        director::DirectorKeys::parse(target).map_err(PublishError::Untrusted)?;
        let ours = keys::signer(self.conn, &self.state.seal, self.project, OnlineRole::Director).await?;
        let listed: serde_json::Value = serde_json::from_slice(target.bytes()).unwrap_or_default();
        let ours = serde_json::to_value(ours.public_key()).unwrap_or_default();
        let is_listed = listed["keys"].as_array().is_some_and(|keys| keys.contains(&ours));
        if is_listed { Ok(()) } else { Err(PublishError::ForeignDirector) }
    }
}

/// Stores new targets and releases; withdraws releases that no signed metadata names any more or that a newer one
/// fences off. Models whose role has lapsed stay as they are.
async fn store_targets(
    conn: &mut Conn,
    project: &ProjectId,
    targets: &[Accepted],
    lapsed: &BTreeSet<String>,
    actor: &str,
    now: UnixMillis,
) -> Result<Vec<Release>, PublishError> {
    let mut new = vec![];
    let mut named: BTreeMap<ModelName, BTreeSet<Digest>> = BTreeMap::new();
    let mut fences: BTreeMap<ModelName, u64> = BTreeMap::new();
    for Accepted { path, target, manifest } in targets {
        let digest = target.digest();
        metadata::insert_target(conn, project, path, &digest, target.bytes(), now).await?;
        let Some(manifest) = manifest else { continue };
        named.entry(manifest.model.clone()).or_default().insert(digest);
        let fence = fences.entry(manifest.model.clone()).or_default();
        *fence = (*fence).max(manifest.min_counter.0);
        if let Some(release) = new_release(conn, project, manifest, target, actor, now).await? {
            counters::check(manifest, targets.iter().filter_map(|target| target.manifest.as_deref()))?;
            counters::check_history(manifest, &releases::list(conn, project, &manifest.model).await?)?;
            releases::insert(conn, project, &release).await?;
            new.push(release);
        }
    }
    for model in releases::models(conn, project).await? {
        if lapsed.contains(model.model.as_str()) {
            continue;
        }
        let names = named.get(&model.model);
        let fence = fences.get(&model.model).copied().unwrap_or_default();
        for release in releases::list(conn, project, &model.model).await? {
            let is_named = names.is_some_and(|digests| digests.contains(&release.digest));
            let is_good = is_named && release.counter.0 >= fence;
            let state = if is_good { ReleaseState::Published } else { ReleaseState::Withdrawn };
            if state != release.state {
                releases::set_state(conn, project, &release.model, &release.version, state).await?;
            }
        }
    }
    Ok(new)
}

async fn new_release(
    conn: &mut Conn,
    project: &ProjectId,
    manifest: &Manifest,
    target: &TargetBytes,
    actor: &str,
    now: UnixMillis,
) -> Result<Option<Release>, PublishError> {
    if let Some(stored) = releases::get(conn, project, &manifest.model, &manifest.version).await? {
        if stored.digest == target.digest() {
            return Ok(None);
        }
        let version = manifest.version.to_string();
        return Err(PublishError::ReleaseExists { model: manifest.model.clone(), version });
    }
    Ok(Some(Release {
        model: manifest.model.clone(),
        version: manifest.version.clone(),
        digest: target.digest(),
        counter: manifest.counter,
        manifest: target.bytes().to_vec(),
        state: ReleaseState::Published,
        published_at: now,
        published_by: actor.to_owned(),
    }))
}

async fn record(
    conn: &mut Conn,
    project: &ProjectId,
    actor: &str,
    files: &[MetadataFile],
    new: &[Release],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let files: Vec<_> = files.iter().map(|file| format!("{}.{}", file.version, file.name)).collect();
    let new: Vec<_> = new.iter().map(|release| format!("{}/{}", release.model, release.version)).collect();
    let object = if new.is_empty() { "metadata".to_owned() } else { new.join(", ") };
    let change = Change::new(now, actor, "publication.create", "publication", &object).in_project(project);
    audit::record(conn, &change.after(serde_json::json!({ "metadata": files, "releases": new }))).await
}

#[cfg(test)]
mod tests {
    use trust::Ed25519Signer;
    use trust::repo::{RootBuilder, TargetsBuilder};

    use super::*;

    const DAY: i64 = 86_400_000;
    const FAR: UnixMillis = UnixMillis(100 * DAY);

    /// Two models' roles with one target each; that of `faces` expires after ten days.
    fn candidate(key: &Ed25519Signer) -> (Candidate, Stored) {
        let holder = [key.public_key()];
        let all = ["root", "targets", "snapshot", "timestamp"];
        let root = all.into_iter().fold(RootBuilder::new(FAR), |root, role| root.role(role, &holder, 1));
        let mut targets = TargetsBuilder::new(FAR);
        let mut roles = vec![];
        for (model, expires) in [("digits", FAR), ("faces", UnixMillis(10 * DAY))] {
            targets = targets.delegate_model(&model.parse().unwrap(), &holder, 1);
            let role = TargetsBuilder::new(expires);
            let role = role.target(&format!("models/{model}/1.0.0/manifest.json"), b"{}", None);
            roles.push((model, role.sign(&[key]).unwrap()));
        }
        roles.push(("targets", targets.sign(&[key]).unwrap()));
        let listed = roles.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
        let snapshot = repo::snapshot(1, FAR, listed, &[key]).unwrap();
        let timestamp = repo::timestamp(1, FAR, &snapshot, UnixMillis(0), &[key]).unwrap();
        roles.extend([("snapshot", snapshot), ("timestamp", timestamp)]);
        let root = root.sign(&[key]).unwrap();
        let mut candidate = Candidate::default();
        candidate.put("root", 1, root.clone());
        for (name, bytes) in roles {
            candidate.put(name, 1, bytes);
        }
        (candidate, Stored::new(root))
    }

    #[test]
    fn a_role_that_expired_stops_only_those_who_touch_it() {
        let key = Ed25519Signer::from_seed(&[1; 32]);
        let (candidate, trusted) = candidate(&key);
        let ask = |touched: &[&str], day: i64| {
            let touched = touched.iter().copied().collect();
            let (_, wanted, lapsed) = accepted(&candidate, &trusted, &touched, UnixMillis(day * DAY))?;
            Ok::<_, PublishError>((wanted.len(), lapsed.into_iter().collect::<Vec<_>>()))
        };
        assert_eq!(ask(&["digits"], 1).unwrap(), (2, vec![]));
        assert_eq!(ask(&["digits"], 20).unwrap(), (1, vec!["faces".to_owned()]));
        assert!(matches!(ask(&["faces"], 20), Err(PublishError::Untrusted(_))));
        assert!(matches!(ask(&["digits"], 200), Err(PublishError::Untrusted(_))));
    }
}
