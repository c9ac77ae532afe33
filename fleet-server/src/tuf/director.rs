//! The director: the signed statement of what each device should run.
//!
//! It can only choose among releases that publishers signed; a device compares with the signed manifest itself.

use protocol::{DeviceId, ModelName, ProjectId, ReleaseRef, Revision, RolloutId, UnixMillis};
use serde_json::{Value, json};
use trust::desired::{self, Desired, DesiredModel, Mode};
use trust::{SignError, format_rfc3339};

use super::SealKey;
use super::keys::{self, KeyStoreError, OnlineRole};
use super::refresh::whole_second;
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::store::devices::{self, Device};
use crate::store::{Conn, StoreError};

/// A Desired is signed anew when it is sent with less than half of this left.
const LIFETIME_MS: i64 = 30 * 24 * 3600 * 1000;
/// A device may be so far ahead of the database, as after a restored backup, and is followed. Whoever says more is
/// not: a thief's signature, or its own word, must not use its revisions up.
const LEAP: u64 = 1 << 32;

/// Why a device's Desired can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    /// No such device in service.
    #[error("device {0} is not in service")]
    UnknownDevice(DeviceId),
    /// This device had the last revision that there is. It can only be enrolled anew.
    #[error("revision {revision} of device {device} is the last one; enrol the device anew")]
    Spent {
        /// Which device.
        device: DeviceId,
        /// What was signed last.
        revision: Revision,
    },
    /// The director's key can't be used.
    #[error("the director's key can't be used")]
    Keys(#[from] KeyStoreError),
    /// Signing failed.
    #[error("Desired can't be signed")]
    Sign(#[from] SignError),
    /// The database failed.
    #[error("Desired can't be stored")]
    Store(#[from] StoreError),
}

/// What one device should do with one model; `None` takes the model out of Desired (the device keeps what it has).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: Option<ReleaseRef>,
    /// How to bring it in.
    pub mode: Mode,
    /// The rollout that asks.
    pub rollout: Option<RolloutId>,
    /// Rises when a person gives a device that has ended another chance.
    pub attempt: u32,
}

/// Changes one device's Desired: signs, stores and sends it. Returns the revision that holds the wish; wishing for
/// what is desired already changes nothing.
///
/// # Errors
/// [`DirectorError`]; nothing is changed then.
pub async fn set_desired(
    state: &AppState,
    project: &ProjectId,
    device: &DeviceId,
    wish: Wish,
) -> Result<Revision, DirectorError> {
    keys::ensure(&state.store, &state.clock, &state.seal, project).await?;
    let mut tx = state.store.begin().await?;
    let (revision, is_changed) =
        set_desired_in(&mut tx, &state.seal, project, device, wish, state.clock.now()).await?;
    tx.commit().await?;
    if is_changed {
        send(state, project, device);
    }
    Ok(revision)
}

/// As [`set_desired`], inside a transaction of the caller's; [`keys::ensure`] must have run for the project. Returns
/// whether anything changed: call [`send`] after the commit then.
///
/// # Errors
/// [`DirectorError`]; the transaction must not be committed then.
pub async fn set_desired_in(
    conn: &mut Conn,
    seal: &SealKey,
    project: &ProjectId,
    device: &DeviceId,
    wish: Wish,
    now: UnixMillis,
) -> Result<(Revision, bool), DirectorError> {
    let row = in_service(conn, project, device).await?;
    let before = models(&row);
    let mut after: Vec<DesiredModel> = before.iter().filter(|m| m.model != wish.model).cloned().collect();
    let Wish { model, release, mode, rollout, attempt } = wish;
    after.extend(release.map(|release| DesiredModel { model, release, mode, rollout, attempt }));
    after.sort_by(|a, b| a.model.cmp(&b.model));
    if after == before {
        return Ok((row.desired_revision, false));
    }
    let revision = sign_and_store(conn, seal, &row, after, now).await?;
    Ok((revision, true))
}

/// Hints that a device's Desired changed; call it after the commit.
pub fn send(state: &AppState, project: &ProjectId, device: &DeviceId) {
    state.downlink.desired_changed(project.clone(), device.clone());
    state.bus.changed(project, ChangeKind::Device, device.as_str());
}

/// What a device's row desires.
pub fn models(row: &Device) -> Vec<DesiredModel> {
    let listed = row.desired.as_ref().map(|desired| desired["models"].clone());
    listed.and_then(|listed| serde_json::from_value(listed).ok()).unwrap_or_default()
}

/// Whether what is stored would expire soon, or the device has accepted a higher revision (a restored database).
pub fn needs_renewal(row: &Device, now: UnixMillis) -> bool {
    let expires = row.desired.as_ref().and_then(|d| trust::parse_rfc3339(d["expires"].as_str()?));
    let Some(expires) = expires else { return false };
    let is_behind = row.hello.as_ref().is_some_and(|hello| hello.desired_revision > row.desired_revision);
    is_behind || expires.millis_since(now) < LIFETIME_MS / 2
}

/// Signs a device's Desired anew, with the same content, if [`needs_renewal`]. Returns whether it did.
///
/// # Errors
/// [`DirectorError`]; the old one stays then.
pub async fn renew_if_needed(
    conn: &mut Conn,
    seal: &SealKey,
    project: &ProjectId,
    device: &DeviceId,
    now: UnixMillis,
) -> Result<bool, DirectorError> {
    let row = in_service(conn, project, device).await?;
    if !needs_renewal(&row, now) {
        return Ok(false);
    }
    let same = models(&row);
    sign_and_store(conn, seal, &row, same, now).await?;
    Ok(true)
}

/// The last revision of the database or, after a restored backup, of the device.
fn known(row: &Device) -> Revision {
    let ours = row.desired_revision;
    let theirs = row.hello.as_ref().map_or(ours, |hello| hello.desired_revision);
    if theirs.0 <= ours.0.saturating_add(LEAP) { ours.max(theirs) } else { ours }
}

async fn in_service(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
) -> Result<Device, DirectorError> {
    let row = devices::get(conn, project, device).await?;
    row.filter(|row| row.decommissioned_at.is_none())
        .ok_or_else(|| DirectorError::UnknownDevice(device.clone()))
}

async fn sign_and_store(
    conn: &mut Conn,
    seal: &SealKey,
    row: &Device,
    models: Vec<DesiredModel>,
    now: UnixMillis,
) -> Result<Revision, DirectorError> {
    let signer = keys::signer(conn, seal, &row.project, OnlineRole::Director).await?;
    let last = known(row);
    let spent = || DirectorError::Spent { device: row.device.clone(), revision: last };
    let desired = Desired {
        project: row.project.clone(),
        device: row.device.clone(),
        revision: last.next().ok_or_else(spent)?,
        issued_at: whole_second(now),
        expires: whole_second(now.plus_millis(LIFETIME_MS)),
        models,
    };
    let envelope = desired::sign(&desired, &signer)?;
    let revision = desired.revision;
    devices::set_desired(conn, &row.project, &row.device, revision, &for_people(&desired), &envelope).await?;
    Ok(revision)
}

fn for_people(desired: &Desired) -> Value {
    json!({
        "revision": desired.revision,
        "issued_at": format_rfc3339(desired.issued_at),
        "expires": format_rfc3339(desired.expires),
        "models": desired.models,
    })
}
