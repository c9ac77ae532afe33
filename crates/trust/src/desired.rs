//! Desired: the director's signed statement of what one device should run.

use protocol::{DeviceId, ModelName, ProjectId, ReleaseRef, Revision, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::director::DirectorKeys;
use crate::envelope::Envelope;
use crate::error::{Cause, TrustError};
use crate::limits::Limits;
use crate::timestamp_text::{format_rfc3339, parse_rfc3339};
use crate::verified::Verified;

const TYPE: &str = "desired";

/// What one device should run. Read from the wire only by [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The device's project.
    pub project: ProjectId,
    /// The one device that this is for.
    pub device: DeviceId,
    /// Rises with every change.
    pub revision: Revision,
    /// When the director signed it; a lower bound of time. Whole seconds.
    pub issued_at: UnixMillis,
    /// Not accepted as new from then on. Whole seconds.
    pub expires: UnixMillis,
    /// One entry for each model; a model that is not here stays as it is.
    pub models: Vec<DesiredModel>,
}

/// What a device should do with one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredModel {
    /// Which model.
    pub model: ModelName,
    /// The release, with the digest and counter that its signed manifest must have.
    pub release: ReleaseRef,
    /// How to bring it in.
    pub mode: Mode,
    /// The rollout that asked, named in the device's reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// Rises when a person asks a device for another chance that has ended without the release: the same wish under a
    /// higher number begins anew. 0 is not written, so that agents which don't know it read what they always read.
    #[serde(default, skip_serializing_if = "is_first")]
    pub attempt: u32,
}

/// How to bring a release in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It replaces the active release.
    #[default]
    Replace,
    /// It runs beside the active one and never answers.
    Shadow,
    /// It answers a part of the requests.
    Ab,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_first(attempt: &u32) -> bool {
    *attempt == 0
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "_type")]
    kind: String,
    v: u16,
    project: ProjectId,
    device: DeviceId,
    revision: Revision,
    issued_at: String,
    expires: String,
    models: Vec<DesiredModel>,
}

/// Checks and reads a Desired. `floor` is the last accepted revision; the same revision again is refused as
/// not rising, which is normal for a repeated message.
///
/// # Errors
/// [`TrustError`]: signature, type, audience, revision, expiry.
pub fn verify(
    bytes: &[u8],
    keys: &DirectorKeys,
    project: &ProjectId,
    device: &DeviceId,
    now: UnixMillis,
    floor: Revision,
) -> Result<Verified<Desired>, TrustError> {
    check(bytes, keys, project, device, now, floor)
        .map(Verified::new)
        .map_err(|c| c.at("director", "desired"))
}

fn check(
    bytes: &[u8],
    keys: &DirectorKeys,
    project: &ProjectId,
    device: &DeviceId,
    now: UnixMillis,
    floor: Revision,
) -> Result<Desired, Cause> {
    let envelope = Envelope::parse(bytes, &Limits::default())?;
    envelope.verify(keys.key_set())?;
    let desired = read(&envelope)?;
    if desired.project != *project || desired.device != *device {
        let name = |p: &ProjectId, d: &DeviceId| format!("{p}/{d}");
        let (expected, got) = (name(project, device), name(&desired.project, &desired.device));
        return Err(Cause::WrongAudience { expected, got });
    }
    // FF2: nothing could rise above it.
    if desired.revision > Revision::MAX {
        return Err(Cause::Field(format!("revision {} is over {}", desired.revision, Revision::MAX)));
    }
    if desired.revision <= floor {
        return Err(Cause::NotRising { what: "revision", floor: floor.0, got: desired.revision.0 });
    }
    if desired.expires <= now {
        return Err(Cause::Expired { expires: format_rfc3339(desired.expires), now: format_rfc3339(now) });
    }
    Ok(desired)
}

fn read(envelope: &Envelope) -> Result<Desired, Cause> {
    let value = envelope.signed().to_value();
    if value.get("_type").and_then(|t| t.as_str()) != Some(TYPE) {
        let got = value.get("_type").map(ToString::to_string).unwrap_or_default();
        return Err(Cause::WrongType { expected: TYPE.into(), got });
    }
    let wire: Wire = serde_json::from_value(value).map_err(Cause::Format)?;
    if wire.v != protocol::WIRE_VERSION {
        return Err(Cause::Field(format!(
            "desired of version {}, this build knows {}",
            wire.v,
            protocol::WIRE_VERSION
        )));
    }
    let time = |text: &str| parse_rfc3339(text).ok_or_else(|| Cause::Field(format!("{text:?} is no time")));
    let mut seen = std::collections::BTreeSet::new();
    if !wire.models.iter().all(|m| seen.insert(&m.model)) {
        return Err(Cause::Field("a model is named twice".into()));
    }
    Ok(Desired {
        issued_at: time(&wire.issued_at)?,
        expires: time(&wire.expires)?,
        project: wire.project,
        device: wire.device,
        revision: wire.revision,
        models: wire.models,
    })
}

/// Signs a Desired as the director.
///
/// # Errors
/// When the key can't sign.
#[cfg(feature = "sign")]
pub fn sign(desired: &Desired, signer: &dyn crate::key::Signer) -> Result<Vec<u8>, crate::key::SignError> {
    let wire = Wire {
        kind: TYPE.into(),
        v: protocol::WIRE_VERSION,
        project: desired.project.clone(),
        device: desired.device.clone(),
        revision: desired.revision,
        issued_at: format_rfc3339(desired.issued_at),
        expires: format_rfc3339(desired.expires),
        models: desired.models.clone(),
    };
    let json = serde_json::to_value(&wire).ok().and_then(|v| crate::json::Json::from_value(&v));
    let mut envelope = Envelope::unsigned(json.unwrap_or(crate::json::Json::Null));
    envelope.add_signature(signer)?;
    Ok(envelope.to_bytes())
}
