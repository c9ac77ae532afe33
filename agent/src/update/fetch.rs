//! The fetching step: what must be true before a release may be staged, in order. Repeat-safe: what is here and
//! verified is not fetched again, and transfers resume.

use std::sync::PoisonError;

use protocol::message::{Cause, CauseKind, Hardware};
use protocol::{Counter, ModelName, ReleaseRef};
use release::{AgentVersion, BlobRef, DeviceFacts, Downgrade, Manifest, Variant};
use serde_json::Value;
use tokio::time::Instant;

use super::core::Core;
use super::memory::{self, Refusal};
use super::selftest::{cause, shelf_cause};
use super::transport::{self, Carrier};
use crate::durable::aside;
use crate::health::disk;
use crate::machine::{Held, Record, Task};
use crate::retry;
use crate::shown::bytes;

/// The variant that this device takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Its name.
    pub(super) variant: String,
    /// Why it is not the preferred one.
    pub(super) instead: Option<String>,
}

/// Fetches and verifies everything that `task` needs. Returns the variant for this device.
///
/// # Errors
/// The cause that the task ends with.
pub(super) async fn fetch(
    core: &Core,
    model: &ModelName,
    record: &Record,
    task: &Task,
) -> Result<Chosen, Refusal> {
    permitted(record, task)?;
    take_turn(core, model, task).await;
    let manifest = manifest(core, model, record, &task.release).await?;
    fenced(record, &manifest)?;
    let fitting = fitting(&core.hardware, &manifest)?;
    let (variant, instead) = memory::choose(&fitting, core.room_of(model, task))?;
    fetch_blobs(core, record.active.as_ref(), &manifest, variant).await?;
    Ok(Chosen { variant: variant.name.clone(), instead })
}

/// R3 to R5: the counter of what is committed never falls, but to a pair that the signed manifest names, and to none
/// below the fence (R6).
pub(super) fn permitted(record: &Record, task: &Task) -> Result<(), Cause> {
    let (digest, counter) = (task.release.digest, task.release.counter);
    below(record.min_counter(), counter)?;
    let check = record.mark.as_ref().map_or(Ok(()), |mark| mark.permits(digest, counter));
    check.map_err(|downgrade: Downgrade| cause(CauseKind::Downgrade, downgrade.to_string()))
}

/// A release cannot stand below its own fence, or the fence that stands already.
pub(super) fn fenced(record: &Record, manifest: &Manifest) -> Result<(), Cause> {
    below(record.min_counter().max(manifest.min_counter), manifest.counter)
}

/// Nor below a fence that the role which vouches for it states beside any release: it binds devices that never
/// committed the one that brought it, too.
pub(super) fn fenced_off<'a>(
    customs: impl Iterator<Item = &'a Value>,
    manifest: &Manifest,
) -> Result<(), Cause> {
    below(fence_of(customs), manifest.counter)
}

/// The highest fence that a role states.
pub(super) fn fence_of<'a>(customs: impl Iterator<Item = &'a Value>) -> Counter {
    Counter(customs.filter_map(|custom| custom["min_counter"].as_u64()).max().unwrap_or_default())
}

fn below(fence: Counter, counter: Counter) -> Result<(), Cause> {
    if counter >= fence {
        return Ok(());
    }
    let detail = format!("release counter {counter} is fenced off: at least {fence} is needed");
    Err(cause(CauseKind::Downgrade, detail))
}

/// What a measurement needs: the variant, if it fits this device and finds room beside all that runs. The same
/// verified way as for a release that is to serve, but nothing is activated: no counter is held against it.
///
/// # Errors
/// The cause for which nothing is measured.
pub(super) async fn fetch_beside(
    core: &Core,
    model: &ModelName,
    release: &ReleaseRef,
    variant: &str,
) -> Result<(), Cause> {
    let record = core.model(model);
    let manifest = manifest(core, model, &record, release).await?;
    fenced(&record, &manifest)?;
    let fitting = fitting(&core.hardware, &manifest)?;
    let Some(wanted) = fitting.into_iter().find(|fits| fits.name == variant) else {
        let detail = format!("{model} {} has no variant {variant:?} that fits this device", release.version);
        return Err(cause(CauseKind::Incompatible, detail));
    };
    let room = memory::Room {
        used_by_others: core.used_by_all(),
        budget: core.config.memory_budget_bytes,
        soft: core.footprint.soft(),
    };
    memory::choose(&[wanted], room).map_err(|refusal| refusal.cause)?;
    fetch_blobs(core, record.active.as_ref(), &manifest, wanted).await
}

async fn manifest(
    core: &Core,
    model: &ModelName,
    record: &Record,
    release: &ReleaseRef,
) -> Result<Manifest, Cause> {
    match known_manifest(core, record, release) {
        Some(manifest) => Ok(manifest),
        None => fetch_manifest(core, model, release).await,
    }
}

/// The manifest of a release that this device verified before and that a signed statement still permits: one in a
/// slot, or a fallback that the highest committed manifest names. It needs no network and no fresh metadata.
fn known_manifest(core: &Core, record: &Record, release: &ReleaseRef) -> Option<Manifest> {
    let digest = release.digest;
    let is_held =
        [&record.active, &record.fallback].into_iter().flatten().any(|held| held.release == *release);
    let is_named =
        record.mark.as_ref().is_some_and(|mark| mark.fallback.contains(&(digest, release.counter)));
    if !is_held && !is_named {
        return None;
    }
    core.shelf.manifest(digest).ok()
}

async fn fetch_manifest(core: &Core, model: &ModelName, release: &ReleaseRef) -> Result<Manifest, Cause> {
    let path = release::target_path(model, &release.version);
    let http = core.http();
    let refreshed =
        core.trusted.refresh(&http, Some(&path), &core.clock).await.map_err(|error| error.cause())?;
    core.refreshed(&refreshed.repository);
    if let Ok(target) = refreshed.repository.find_target(&path) {
        core.hear_fence(model, &refreshed.repository, target.role());
    }
    let target =
        core.trusted.target(&http, &refreshed.repository, &path).await.map_err(|error| error.cause())?;
    let manifest =
        Manifest::parse(&target).map_err(|error| cause(CauseKind::Untrusted, crate::chain(&error)))?;
    manifest
        .agrees_with(model, release, target.digest())
        .map_err(|error| cause(CauseKind::DesiredMismatch, crate::chain(&error)))?;
    fenced_off(refreshed.repository.customs_of(target.role()), &manifest)?;
    core.shelf.keep_manifest(target.digest(), target.bytes()).map_err(|error| shelf_cause(&error))?;
    Ok(manifest.into_inner())
}

/// The variants that fit the hardware and this agent, in the publisher's order; never empty.
///
/// # Errors
/// The cause, when none fits.
pub(super) fn fitting<'a>(hardware: &Hardware, manifest: &'a Manifest) -> Result<Vec<&'a Variant>, Cause> {
    let agent_version = env!("CARGO_PKG_VERSION").parse::<AgentVersion>();
    let agent_version = agent_version.map_err(|error| cause(CauseKind::Internal, error.to_string()))?;
    let facts = DeviceFacts { hardware, agent_version, tract: inference::TRACT_VERSION };
    manifest.fitting_variants(&facts).map_err(|error| cause(CauseKind::Incompatible, error.to_string()))
}

async fn fetch_blobs(
    core: &Core,
    active: Option<&Held>,
    manifest: &Manifest,
    variant: &Variant,
) -> Result<(), Cause> {
    aside(|| has_room(core, manifest, variant))?;
    let older = active.and_then(|held| Some((core.shelf.manifest(held.release.digest).ok()?, held)));
    for blob in manifest.blobs_for(variant) {
        let base = older.as_ref().and_then(|(older, held)| counterpart(older, held, manifest, blob));
        transport::bring(&carrier(core), blob, base, part_name(manifest, blob)).await?;
    }
    Ok(())
}

/// The way to the server may be another one by the next blob.
fn carrier(core: &Core) -> Carrier {
    Carrier {
        http: core.http(),
        shelf: core.shelf.clone(),
        delta_max_memory_bytes: core.config.delta_max_memory_bytes,
    }
}

/// Disk preflight: everything that is missing, and once more the largest of it, which may lie here encoded and
/// plain at the same time.
fn has_room(core: &Core, manifest: &Manifest, variant: &Variant) -> Result<(), Cause> {
    let missing = core.shelf.missing_bytes(manifest.blobs_for(variant));
    let free =
        disk::free_bytes(&core.state_dir).map_err(|error| cause(CauseKind::Storage, error.to_string()))?;
    let absent = manifest.blobs_for(variant).filter(|blob| !core.shelf.has_blob(blob));
    let encoded = absent.map(|blob| blob.size_bytes).max().unwrap_or(0);
    let needed = missing.saturating_add(encoded).saturating_add(core.config.keep_free_bytes);
    if missing == 0 || free >= needed {
        return Ok(());
    }
    let detail = format!(
        "{} to fetch, up to {} of it in two forms, with {} to stay free, but only {} are",
        bytes(missing),
        bytes(encoded),
        bytes(core.config.keep_free_bytes),
        bytes(free)
    );
    Err(cause(CauseKind::DiskFull, detail))
}

/// What had the same part in the release that serves now.
fn counterpart<'a>(
    older: &'a Manifest,
    held: &Held,
    manifest: &Manifest,
    blob: &BlobRef,
) -> Option<&'a BlobRef> {
    let parts = [
        (&manifest.golden, &older.golden),
        (&manifest.reference, &older.reference),
        (&manifest.card, &older.card),
    ];
    let part = parts.into_iter().find(|(part, _)| *part == blob).map(|(_, older)| older);
    part.or_else(|| older.variant(&held.variant).map(|variant| &variant.model))
}

/// What a blob is in its release, for people.
fn part_name(manifest: &Manifest, blob: &BlobRef) -> &'static str {
    let parts = [
        (&manifest.golden, "the golden samples"),
        (&manifest.reference, "the reference profile"),
        (&manifest.card, "the model card"),
    ];
    parts.into_iter().find(|(part, _)| *part == blob).map_or("the model", |(_, name)| name)
}

/// Waits for this device's turn: a fleet that is asked at once does not come at once. A fetch that was interrupted
/// or is tried again has had its turn.
async fn take_turn(core: &Core, model: &ModelName, task: &Task) {
    let at = {
        let mut turns = core.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = task.release.digest;
        let known = turns.get(model).filter(|(release, _)| *release == digest).map(|(_, at)| *at);
        let part = f64::from(retry::random()) / f64::from(u32::MAX);
        let at = known.unwrap_or_else(|| Instant::now() + core.config.start_jitter.mul_f64(part));
        turns.insert(model.clone(), (digest, at));
        at
    };
    tokio::time::sleep_until(at).await;
}

#[cfg(test)]
mod tests {
    use release::DraftManifest;
    use serde_json::json;
    use trust::desired::Mode;

    use super::*;

    #[test]
    fn r6_a_fence_holds_on_a_device_that_never_committed_it() {
        let sample = include_bytes!("../../../fuzz/seeds/manifest/full");
        let manifest = DraftManifest::parse_unsigned(sample).unwrap();
        let Counter(counter) = manifest.counter;
        let customs = |fence: u64| [json!({ "min_counter": 0 }), json!({ "min_counter": fence }), json!({})];
        assert!(fenced_off(customs(counter).iter(), &manifest).is_ok());
        let refused = fenced_off(customs(counter + 1).iter(), &manifest).unwrap_err();
        assert_eq!(refused.kind, CauseKind::Downgrade);
        assert!(fenced_off([].into_iter(), &manifest).is_ok());
    }

    #[test]
    fn r6_what_metadata_fences_off_is_not_permitted_from_the_disk_either() {
        let version = protocol::Version::new("1.0.0").unwrap();
        let release =
            ReleaseRef { version, digest: protocol::Digest::from_bytes([1; 32]), counter: Counter(1) };
        let wanted =
            Task { release, mode: Mode::Replace, rollout: None, attempt: 0, revision: protocol::Revision(1) };
        let mark = release::HighWater {
            digest: protocol::Digest::from_bytes([2; 32]),
            counter: Counter(2),
            fallback: vec![(wanted.release.digest, Counter(1))],
            min_counter: Counter(0),
        };
        let mut record = Record { mark: Some(mark), ..Record::default() };
        assert!(permitted(&record, &wanted).is_ok(), "the committed manifest names it");
        record.fence = Counter(2);
        let refused = permitted(&record, &wanted).unwrap_err();
        assert!(refused.kind == CauseKind::Downgrade && refused.detail.contains("fenced off"), "{refused:?}");
    }
}
