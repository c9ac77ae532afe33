//! What the engine may know about the fleet.

use std::collections::BTreeMap;

use protocol::message::Hello;
use protocol::{DeviceId, ModelName, ProjectId, ReleaseRef};
use release::{AgentVersion, DeviceFacts, Manifest};
use rollout::{Facts, SkipReason};

use crate::store::devices::{self, Device};
use crate::store::{Conn, StoreError, rollouts};

/// Label that tells a device's offset from UTC in seconds, for maintenance windows.
const UTC_OFFSET_LABEL: &str = "utc_offset_s";

/// Every device in service. A committed release is known from the device's report before its next hello tells it.
pub(super) async fn fleet(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    manifest: &Manifest,
) -> Result<Vec<Facts>, StoreError> {
    let newer: BTreeMap<DeviceId, ReleaseRef> = rollouts::committed_since_hello(conn, project, model)
        .await?
        .into_iter()
        .map(|(device, report)| (device, report.release))
        .collect();
    let devices = devices::all_in_service(conn, project).await?;
    let facts = devices.iter().map(|device| {
        let mut facts = of(device, model, manifest);
        if let Some(release) = newer.get(&device.device) {
            facts.current = Some(release.clone());
        }
        facts
    });
    Ok(facts.collect())
}

/// One device's facts. A device that never said hello has no attributes but its labels, and isn't skipped.
fn of(device: &Device, model: &ModelName, manifest: &Manifest) -> Facts {
    let labels = device.all_labels();
    let utc_offset_s = labels.get(UTC_OFFSET_LABEL).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut facts = Facts {
        labels,
        is_online: device.is_online,
        utc_offset_s,
        current: device.hello.as_ref().and_then(|hello| serving(hello, model)),
        ..Facts::named(device.device.clone())
    };
    if let Some(hello) = &device.hello {
        facts.class.clone_from(&hello.hardware.class);
        facts.arch.clone_from(&hello.hardware.arch);
        facts.agent_version.clone_from(&hello.agent_version);
        facts.memory_bytes = hello.hardware.memory_bytes;
        facts.skip = skip_reason(hello, manifest);
    }
    facts
}

fn serving(hello: &Hello, model: &ModelName) -> Option<ReleaseRef> {
    hello.models.iter().find(|state| &state.model == model)?.active.clone()
}

/// The device checks for itself with what it knows better; this only spares offers that it would refuse.
fn skip_reason(hello: &Hello, manifest: &Manifest) -> Option<SkipReason> {
    let agent_version: AgentVersion = hello.agent_version.parse().ok()?;
    let facts = DeviceFacts { hardware: &hello.hardware, agent_version, tract: &manifest.runtime.tract };
    if manifest.select_variant(&facts).is_ok() {
        return None;
    }
    let memory = hello.hardware.memory_bytes;
    let is_all_too_big = manifest.variants.iter().all(|variant| variant.peak_memory_bytes > memory);
    Some(if is_all_too_big { SkipReason::TooBig } else { SkipReason::Incompatible })
}
