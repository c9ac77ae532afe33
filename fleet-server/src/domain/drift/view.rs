//! What the console and the CLI ask: which devices drift now, and how a feature is distributed.

use std::collections::BTreeMap;

use profile::Pane;
use profile::drift::Distribution;
use protocol::{DeviceId, ModelName, ProjectId, UnixMillis, Version};
use serde::Serialize;
use tokio::sync::mpsc;

use super::WindowRules;
use super::alerts::{Hysteresis, Trend};
use super::panes::{DriftError, reference_of, sum};
use super::reports::sound_pane;
use crate::app::AppState;
use crate::store::drift::{self, DriftWindow, DriftingFeature, WindowFilter};
use crate::store::releases;

/// A device whose last windows drift.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DriftingDevice {
    /// Which device.
    pub device: DeviceId,
    /// The release that it ran.
    pub version: Version,
    /// What drifts, farthest first.
    pub features: Vec<DriftingFeature>,
    /// Values in the newest drifting window.
    pub n: u64,
    /// Newest drifting window.
    pub window_start: UnixMillis,
    /// Its end.
    pub window_end: UnixMillis,
    /// Whether at least half of the devices drift.
    pub is_fleet_wide: bool,
}

/// Which windows a distribution sums up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSpan<'a> {
    /// One release; the newest one of the span if left out.
    pub version: Option<&'a Version>,
    /// One device, or the fleet.
    pub device: Option<&'a DeviceId>,
    /// Windows that end after this.
    pub from: UnixMillis,
    /// Windows that start before this.
    pub to: UnixMillis,
}

/// Chunks of windows that may wait to be added: reading waits for it.
const CHUNKS: usize = 4;

/// Devices that drift now, by name.
///
/// # Errors
/// [`DriftError`] when the database refuses.
pub async fn drifting_devices(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    rules: WindowRules,
) -> Result<Vec<DriftingDevice>, DriftError> {
    let hysteresis = Hysteresis::default();
    let now = state.clock.now();
    let span = i64::try_from(hysteresis.of * 4).unwrap_or(i64::MAX).saturating_mul(rules.length_ms);
    let from = now.plus_millis(-span - rules.late_ms);
    let mut conn = state.store.read().await?;
    // Devices' clocks may run ahead of ours.
    let windows = drift::of_devices(&mut conn, project, model, from, now.plus_millis(span)).await?;
    Ok(drifting_among(&windows, hysteresis))
}

/// Devices that drift by these windows, which stand in order of device and time.
pub(super) fn drifting_among(windows: &[DriftWindow], hysteresis: Hysteresis) -> Vec<DriftingDevice> {
    let mut by_device: BTreeMap<&DeviceId, Vec<&DriftWindow>> = BTreeMap::new();
    for window in windows {
        if let Some(device) = &window.device {
            by_device.entry(device).or_default().push(window);
        }
    }
    let devices = by_device.len();
    let mut found: Vec<DriftingDevice> = by_device
        .into_iter()
        .filter(|(_, windows)| hysteresis.trend(windows.iter().copied()) == Trend::Drifting)
        .filter_map(|(device, windows)| drifting_device(device, &windows))
        .collect();
    let is_fleet_wide = found.len() >= 2 && 2 * found.len() >= devices;
    for device in &mut found {
        device.is_fleet_wide = is_fleet_wide;
    }
    found
}

fn drifting_device(device: &DeviceId, windows: &[&DriftWindow]) -> Option<DriftingDevice> {
    let newest = windows.iter().rev().find(|window| window.is_drifting)?;
    let mut features = newest.findings.drifted.clone();
    features.sort_by(|a, b| b.distance.total_cmp(&a.distance));
    Some(DriftingDevice {
        device: device.clone(),
        version: newest.version.clone(),
        features,
        n: newest.n,
        window_start: newest.window_start,
        window_end: newest.window_end,
        is_fleet_wide: false,
    })
}

/// How a feature is distributed in the reference and in the windows of a span; `None` if nothing was counted
/// there or there is no such feature.
///
/// # Errors
/// [`DriftError`] when database, blob store or reference fail.
pub async fn distribution(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    feature: &str,
    span: &WindowSpan<'_>,
) -> Result<Option<(Version, Distribution)>, DriftError> {
    let mut conn = state.store.read().await?;
    let filter = WindowFilter {
        version: span.version,
        device: span.device,
        segment: "",
        from: span.from,
        to: span.to,
        limit: 1,
    };
    let windows = drift::list(&mut conn, project, model, &filter).await?;
    let Some(newest) = windows.last() else { return Ok(None) };
    let Some(release) = releases::by_digest(&mut conn, project, model, &newest.digest).await? else {
        return Ok(None);
    };
    let reference = reference_of(&state.blobs, &release).await?;
    let (send, mut receive) = mpsc::channel::<Vec<DriftWindow>>(CHUNKS);
    let (digest, checked_by) = (newest.digest, reference.clone());
    let added = tokio::task::spawn_blocking(move || {
        let mut seen: Option<Pane> = None;
        while let Some(chunk) = receive.blocking_recv() {
            let of_release = chunk.iter().filter(|window| window.digest == digest);
            let panes: Vec<Pane> = of_release.filter_map(|window| sound_pane(window, &checked_by)).collect();
            seen = sum(seen.iter().chain(&panes));
        }
        seen
    });
    drift::send(&mut conn, project, model, &filter, send).await?;
    let Some(seen) = added.await.map_err(DriftError::Panicked)? else { return Ok(None) };
    let found = profile::drift::distribution(&reference.schema, &reference.counters, &seen.counters, feature);
    Ok(found.map(|found| (release.version, found)))
}
