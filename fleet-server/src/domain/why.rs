//! The one answer to "why is this device not on the release?". Pure.

use protocol::message::{Cause, TaskPhase, TaskReport};
use protocol::{ModelName, ReleaseRef, RolloutId, UnixMillis};
use rollout::Rollout;

use crate::store::devices::Device;

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    /// Stable name.
    pub answer: &'static str,
    /// One sentence for people.
    pub message: String,
    /// What the server asks for.
    pub desired: Option<ReleaseRef>,
    /// What serves.
    pub active: Option<ReleaseRef>,
    /// The rollout that asks for it.
    pub rollout: Option<RolloutId>,
    /// What the device says about it.
    pub cause: Option<Cause>,
    /// Since when, where that is known.
    pub since: Option<UnixMillis>,
}

/// Looks from the outside in: is the device there, was it asked, did it hear, how far is it, how did it end.
/// `last` is its newest task report about this model, `open` the model's rollout that isn't over.
pub fn explain(device: &Device, model: &ModelName, last: Option<&TaskReport>, open: Option<&Rollout>) -> Why {
    let wanted = device.desired_models().into_iter().find(|wanted| &wanted.model == model);
    let state =
        device.hello.as_ref().and_then(|hello| hello.models.iter().find(|state| &state.model == model));
    let active = state.and_then(|state| state.active.clone());
    let base = Why {
        answer: "",
        message: String::new(),
        desired: wanted.as_ref().map(|w| w.release.clone()),
        rollout: wanted.as_ref().and_then(|w| w.rollout.clone()),
        cause: None,
        since: None,
        active,
    };
    let say = |answer, message: String, since| Why { answer, message, since, ..base.clone() };
    if let Some(at) = device.decommissioned_at {
        return say("decommissioned", "It was taken out of service.".into(), Some(at));
    }
    let is_asked = |rollout: &&Rollout| {
        base.desired.as_ref().is_some_and(|desired| desired.digest == rollout.plan().release.digest)
    };
    if let Some(rollout) = open.filter(|rollout| !is_asked(rollout)) {
        return not_asked_by(rollout, device, &base);
    }
    let Some(desired) = base.desired.clone() else {
        return say("nothing_desired", format!("No rollout has asked it to run {model} yet."), None);
    };
    let version = &desired.version;
    if base.active.as_ref().is_some_and(|a| a.digest == desired.digest) {
        if let Some(why) = state.and_then(|state| state.absent.as_ref()) {
            let message = format!("It has {model} {version}, but can't load it and answers nothing: {why}");
            return say("not_loaded", message, None);
        }
        return say("on_release", format!("It serves {model} {version}."), None);
    }
    let about_this = last.filter(|report| report.release.digest == desired.digest);
    if let Some(ended) = about_this.and_then(|report| ended_badly(report, &base)) {
        return ended;
    }
    let Some(hello) = &device.hello else {
        let message = "It was enrolled but has never connected.".into();
        return say("never_connected", message, Some(device.created_at));
    };
    if !device.is_online {
        return say("offline", "It is not connected; it goes on when it is back.".into(), device.last_seen);
    }
    if hello.desired_revision < device.desired_revision {
        let message = format!("It was asked to run {model} {version} and has not accepted that yet.");
        return say("not_accepted_yet", message, None);
    }
    let phase = about_this.map_or(TaskPhase::Accepted, |report| report.phase);
    let message =
        format!("It is on the way to {model} {version}: {}.", crate::store::tasks::phase_text(phase));
    say("under_way", message, about_this.map(|report| report.at))
}

/// The rollout itself knows why it hasn't asked the device, or no longer does.
fn not_asked_by(rollout: &Rollout, device: &Device, base: &Why) -> Why {
    let why = rollout.why(&device.device);
    let (id, version) = (&rollout.core().id, &rollout.plan().release.version);
    let message = format!("Rollout {id} of {version}: {}.", why.text);
    Why { answer: why.code.as_str(), message, rollout: Some(id.clone()), since: why.since, ..base.clone() }
}

fn ended_badly(report: &TaskReport, base: &Why) -> Option<Why> {
    let (answer, what) = match report.phase {
        TaskPhase::Failed => ("failed", "failed before it served"),
        TaskPhase::RolledBack => ("rolled_back", "was rolled back"),
        TaskPhase::Rejected => ("rejected", "was refused"),
        _ => return None,
    };
    let detail = report.cause.as_ref().map_or(String::new(), |cause| format!(": {}", cause.detail));
    let message = format!("{} {} {what}{detail}", report.model, report.release.version);
    Some(Why { answer, message, cause: report.cause.clone(), since: Some(report.at), ..base.clone() })
}
