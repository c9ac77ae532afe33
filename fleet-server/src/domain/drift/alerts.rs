//! From windows to alerts: N of the last M closed windows raise one, none of them closes it, and a closed one
//! stays closed for a while. Many devices at once are the fleet's drift, not each device's fault.

use std::collections::BTreeMap;

use protocol::{DeviceId, ModelName, ProjectId, UnixMillis};
use serde_json::json;

use super::WindowRules;
use super::panes::DriftError;
use super::view::{DriftingDevice, drifting_among};
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::store::alerts::{NewAlert, Over, Severity};
use crate::store::drift::{self, DriftWindow};
use crate::store::{Conn, alerts};

/// When windows make an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// Windows that are looked at.
    pub of: usize,
    /// So many of them must drift.
    pub needed: usize,
    /// A closed alert is not raised again for so many windows.
    pub cool_down_windows: i64,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { of: 3, needed: 2, cool_down_windows: 6 }
    }
}

/// What the last windows say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trend {
    Drifting,
    Unsure,
    Calm,
}

impl Hysteresis {
    /// Judges windows in rising order of time; those with too few values to say anything are passed over.
    pub(super) fn trend<'a>(self, windows: impl DoubleEndedIterator<Item = &'a DriftWindow>) -> Trend {
        let judged: Vec<bool> =
            windows.rev().filter(|w| w.findings.judged > 0).take(self.of).map(|w| w.is_drifting).collect();
        let drifting = judged.iter().filter(|is_drifting| **is_drifting).count();
        match drifting {
            n if n >= self.needed => Trend::Drifting,
            0 if judged.len() >= self.of => Trend::Calm,
            _ => Trend::Unsure,
        }
    }
}

/// Raises and closes the drift alerts of one model. Returns whether any changed.
///
/// # Errors
/// [`DriftError`] when the database refuses.
pub async fn review(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    rules: WindowRules,
    hysteresis: Hysteresis,
) -> Result<(), DriftError> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    let span = i64::try_from(hysteresis.of * 4).unwrap_or(i64::MAX).saturating_mul(rules.length_ms);
    let closed = now.plus_millis(-rules.late_ms - rules.length_ms);
    let windows = drift::of_devices(&mut tx, project, model, closed.plus_millis(-span), closed).await?;
    let mut by_device: BTreeMap<&DeviceId, Vec<&DriftWindow>> = BTreeMap::new();
    for window in &windows {
        if let Some(device) = &window.device {
            by_device.entry(device).or_default().push(window);
        }
    }
    let trends: Vec<(&DeviceId, Trend)> = by_device
        .iter()
        .map(|(device, windows)| (*device, hysteresis.trend(windows.iter().copied())))
        .collect();
    let drifting = trends.iter().filter(|(_, trend)| *trend == Trend::Drifting).count();
    let is_fleet = drifting >= 2 && 2 * drifting >= trends.len();
    let found = drifting_among(&windows, hysteresis);
    let place = Place { project, model, rules, hysteresis, now };
    let mut changed = Vec::new();
    let fleet = if is_fleet {
        Trend::Drifting
    } else if drifting == 0 {
        Trend::Calm
    } else {
        Trend::Unsure
    };
    let fleet_alert = || fleet_alert(model, &found, trends.len());
    changed.extend(place.settle(&mut tx, None, fleet, fleet_alert).await?);
    for (device, trend) in &trends {
        if is_fleet && *trend == Trend::Drifting {
            continue;
        }
        let alert = || device_alert(model, device, &found);
        changed.extend(place.settle(&mut tx, Some(device), *trend, alert).await?);
    }
    tx.commit().await?;
    for id in changed {
        state.bus.changed(project, ChangeKind::Alert, id);
    }
    Ok(())
}

struct Place<'a> {
    project: &'a ProjectId,
    model: &'a ModelName,
    rules: WindowRules,
    hysteresis: Hysteresis,
    now: UnixMillis,
}

impl Place<'_> {
    /// Returns what the live stream is told: the alert's id, or its key when it was closed.
    async fn settle(
        &self,
        conn: &mut Conn,
        device: Option<&DeviceId>,
        trend: Trend,
        alert: impl FnOnce() -> NewAlert,
    ) -> Result<Option<String>, DriftError> {
        match trend {
            Trend::Unsure => Ok(None),
            Trend::Calm => {
                let key = key(self.model, device);
                let is_closed = alerts::close(conn, self.project, Over::Key(&key), self.now).await?;
                Ok(is_closed.then_some(key))
            }
            Trend::Drifting => {
                let closed = drift::alert_closed_at(conn, self.project, self.model, device).await?;
                let rest = self.hysteresis.cool_down_windows.saturating_mul(self.rules.length_ms);
                if closed.is_some_and(|closed| self.now.millis_since(closed) < rest) {
                    return Ok(None);
                }
                Ok(alerts::raise(conn, self.project, &alert(), self.now).await?)
            }
        }
    }
}

fn key(model: &ModelName, device: Option<&DeviceId>) -> String {
    format!("drift/{model}/{}", device.map_or("", DeviceId::as_str))
}

fn device_alert(model: &ModelName, device: &DeviceId, found: &[DriftingDevice]) -> NewAlert {
    let features = found.iter().find(|d| d.device == *device).map_or(&[][..], |d| &d.features);
    let names: Vec<&str> = features.iter().map(|f| f.feature.as_str()).collect();
    NewAlert {
        key: key(model, Some(device)),
        kind: "drift".into(),
        severity: Severity::Warning,
        device: Some(device.clone()),
        model: Some(model.clone()),
        rollout: None,
        message: format!("{device} alone drifts in {model}: {}", names.join(", ")),
        details: json!({ "pattern": "one_device", "features": features }),
    }
}

fn fleet_alert(model: &ModelName, found: &[DriftingDevice], devices: usize) -> NewAlert {
    let mut features: Vec<&str> =
        found.iter().flat_map(|d| &d.features).map(|f| f.feature.as_str()).collect();
    features.sort_unstable();
    features.dedup();
    let names: Vec<&str> = found.iter().take(100).map(|d| d.device.as_str()).collect();
    NewAlert {
        key: key(model, None),
        kind: "drift".into(),
        severity: Severity::Critical,
        device: None,
        model: Some(model.clone()),
        rollout: None,
        message: format!("{} of {devices} devices drift in {model}: {}", found.len(), features.join(", ")),
        details: json!({ "pattern": "fleet", "devices": names, "features": features }),
    }
}
