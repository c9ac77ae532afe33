//! How devices look in JSON.

use std::collections::BTreeMap;

use protocol::message::{Cause, Hello, ModelState, TaskReport};
use protocol::{ReleaseRef, UnixMillis};
use serde::Serialize;
use utoipa::ToSchema;

use super::types::Timestamp;
use crate::store::devices::Device;
use crate::store::tasks::phase_text;

/// Names one release exactly.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReleaseName {
    /// As people write it.
    pub version: String,
    /// SHA-256 of the manifest.
    pub digest: String,
    /// Order within the model.
    pub counter: u64,
}

impl From<&ReleaseRef> for ReleaseName {
    fn from(release: &ReleaseRef) -> Self {
        let ReleaseRef { version, digest, counter } = release;
        Self { version: version.to_string(), digest: digest.to_hex(), counter: counter.0 }
    }
}

/// One model's slots on a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceModel {
    /// Which model.
    pub model: String,
    /// The release that serves, or would if it could be loaded.
    #[schema(required)]
    pub active: Option<ReleaseName>,
    /// Why the active release isn't loaded, so that nothing answers; null when it is.
    #[schema(required)]
    pub absent: Option<String>,
    /// The release under way.
    #[schema(required)]
    pub candidate: Option<ReleaseName>,
    /// The release to fall back to.
    #[schema(required)]
    pub fallback: Option<ReleaseName>,
    /// Where the update machine stands: `idle`, `accepted`, `fetching`, `verified`, `staged`, `self_test`, `shadow`,
    /// `activating`, `probation`, `committed`, `rolled_back`, `failed`, `rejected`.
    pub phase: String,
    /// The release that the server asks for; null when it asks for none.
    #[schema(required)]
    pub desired: Option<ReleaseName>,
    /// The rollout that asks for it.
    #[schema(required)]
    pub rollout: Option<String>,
}

/// A device in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceSummary {
    /// Its name.
    pub device: String,
    /// Whether it is connected.
    pub is_online: bool,
    /// Last sign of life.
    #[schema(required)]
    pub last_seen: Option<Timestamp>,
    /// Its own labels and the server's, which win.
    pub labels: BTreeMap<String, String>,
    /// Version of the agent; null before the first hello.
    #[schema(required)]
    pub agent_version: Option<String>,
    /// Hardware class.
    #[schema(required)]
    pub hardware_class: Option<String>,
    /// Processor architecture.
    #[schema(required)]
    pub arch: Option<String>,
    /// Its models.
    pub models: Vec<DeviceModel>,
    /// What is wrong now, each as one sentence.
    pub problems: Vec<String>,
}

/// What the hardware is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hardware {
    /// Processor architecture.
    pub arch: String,
    /// Hardware class.
    pub class: String,
    /// CPU features.
    pub cpu_features: Vec<String>,
    /// Logical CPUs.
    pub cpus: u32,
    /// Physical memory.
    pub memory_bytes: u64,
}

/// The telemetry spool.
#[derive(Debug, Serialize, ToSchema)]
pub struct Spool {
    /// Its stream.
    pub stream: String,
    /// Records that wait.
    pub depth_records: u64,
    /// Their size.
    pub depth_bytes: u64,
    /// Records dropped since the stream began.
    pub dropped: Vec<Loss>,
}

/// Records lost.
#[derive(Debug, Serialize, ToSchema)]
pub struct Loss {
    /// `pane`, `resources`, `event`, `sample`, `log`.
    pub kind: String,
    /// `full`, `expired`, `too_large`, `storage`.
    pub cause: String,
    /// How many.
    pub count: u64,
}

/// The signed metadata that a device holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetadataAge {
    /// Version of the timestamp role.
    pub timestamp_version: u64,
    /// When the timestamp expires.
    pub expires_at: Timestamp,
    /// Seconds since metadata was last refreshed, counted on to now.
    pub age_s: i64,
}

/// One device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceDetail {
    /// What lists show too.
    #[serde(flatten)]
    pub summary: DeviceSummary,
    /// The server's own labels, which can be changed here.
    pub server_labels: BTreeMap<String, String>,
    /// When it was enrolled first.
    pub created_at: Timestamp,
    /// When it was taken out of service.
    #[schema(required)]
    pub decommissioned_at: Option<Timestamp>,
    /// End of its certificate.
    pub certificate_expires_at: Timestamp,
    /// When its last report about itself arrived.
    #[schema(required)]
    pub reported_at: Option<Timestamp>,
    /// Target triple of the agent.
    #[schema(required)]
    pub target: Option<String>,
    /// Seconds since the agent started, at the last report.
    #[schema(required)]
    pub uptime_s: Option<u64>,
    /// Whether its clock stands after the time that it can prove.
    #[schema(required)]
    pub is_clock_plausible: Option<bool>,
    /// What the hardware is.
    #[schema(required)]
    pub hardware: Option<Hardware>,
    /// The telemetry spool.
    #[schema(required)]
    pub spool: Option<Spool>,
    /// The signed metadata that it holds.
    #[schema(required)]
    pub metadata: Option<MetadataAge>,
    /// Revision that the director signed last.
    pub desired_revision: u64,
    /// Revision that the device accepted last.
    #[schema(required)]
    pub reported_revision: Option<u64>,
    /// Records of it that could not be stored and are kept to be looked at, at most 200.
    pub quarantined_records: i64,
}

/// Why a task ended badly.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CauseBody {
    /// The class, e.g. `golden_mismatch`.
    pub kind: String,
    /// One sentence for people.
    pub detail: String,
}

impl From<&Cause> for CauseBody {
    fn from(cause: &Cause) -> Self {
        Self { kind: json_text(&cause.kind), detail: cause.detail.clone() }
    }
}

/// What the self-test measured.
#[derive(Debug, Serialize, ToSchema)]
pub struct SelfTestBody {
    /// Golden samples that were run.
    pub samples: u32,
    /// Samples whose answer was within tolerance.
    pub passed: u32,
    /// Median latency of one inference.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// Memory that loading the release added.
    pub memory_bytes: u64,
}

/// One transition of the update machine.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskTransition {
    /// The device's clock.
    pub at: Timestamp,
    /// The server's clock.
    pub received_at: Timestamp,
    /// The rollout that asked for it.
    #[schema(required)]
    pub rollout: Option<String>,
    /// Which model.
    pub model: String,
    /// Which release.
    pub release: ReleaseName,
    /// The phase that was entered.
    pub phase: String,
    /// Why, for phases that end badly.
    #[schema(required)]
    pub cause: Option<CauseBody>,
    /// Bytes fetched, while fetching.
    #[schema(required)]
    pub done_bytes: Option<u64>,
    /// Bytes to fetch, while fetching.
    #[schema(required)]
    pub total_bytes: Option<u64>,
    /// What the self-test measured.
    #[schema(required)]
    pub self_test: Option<SelfTestBody>,
}

impl TaskTransition {
    /// A stored report.
    pub fn new(report: &TaskReport, received_at: UnixMillis) -> Self {
        Self {
            at: report.at.into(),
            received_at: received_at.into(),
            rollout: report.rollout.as_ref().map(ToString::to_string),
            model: report.model.to_string(),
            release: (&report.release).into(),
            phase: phase_text(report.phase),
            cause: report.cause.as_ref().map(CauseBody::from),
            done_bytes: report.progress.map(|p| p.done_bytes),
            total_bytes: report.progress.map(|p| p.total_bytes),
            self_test: report.self_test.map(|t| SelfTestBody {
                samples: t.samples,
                passed: t.passed,
                p50_us: t.p50_us,
                p95_us: t.p95_us,
                memory_bytes: t.memory_bytes,
            }),
        }
    }
}

impl From<&Device> for DeviceSummary {
    fn from(device: &Device) -> Self {
        let hello = device.hello.as_ref();
        Self {
            device: device.device.to_string(),
            is_online: device.is_online,
            last_seen: device.last_seen.map(Timestamp),
            labels: device.all_labels(),
            agent_version: hello.map(|h| h.agent_version.clone()),
            hardware_class: hello.map(|h| h.hardware.class.clone()),
            arch: hello.map(|h| h.hardware.arch.clone()),
            models: models(device),
            problems: hello.map(|h| h.problems.clone()).unwrap_or_default(),
        }
    }
}

impl DeviceDetail {
    /// One device as of `now`, and how many of its records are in quarantine.
    pub fn new(device: &Device, quarantined_records: i64, now: UnixMillis) -> Self {
        let hello = device.hello.as_ref();
        Self {
            summary: device.into(),
            server_labels: device.labels.clone(),
            created_at: device.created_at.into(),
            decommissioned_at: device.decommissioned_at.map(Timestamp),
            certificate_expires_at: device.certificate_expires.into(),
            reported_at: device.hello_at.map(Timestamp),
            target: hello.map(|h| h.target.clone()),
            uptime_s: hello.map(|h| h.uptime_s),
            is_clock_plausible: hello.map(|h| h.clock.is_plausible),
            hardware: hello.map(hardware),
            spool: hello.map(spool),
            metadata: hello.and_then(|h| metadata(h, device.hello_at, now)),
            desired_revision: device.desired_revision.0,
            reported_revision: hello.map(|h| h.desired_revision.0),
            quarantined_records,
        }
    }
}

fn models(device: &Device) -> Vec<DeviceModel> {
    let reported = device.hello.as_ref().map(|h| h.models.as_slice()).unwrap_or_default();
    let desired = device.desired_models();
    let mut models: Vec<DeviceModel> = reported.iter().map(from_state).collect();
    for wanted in desired {
        let name = wanted.model.to_string();
        let index = models.iter().position(|m| m.model == name).unwrap_or_else(|| {
            models.push(DeviceModel {
                model: name.clone(),
                active: None,
                absent: None,
                candidate: None,
                fallback: None,
                phase: "idle".into(),
                desired: None,
                rollout: None,
            });
            models.len() - 1
        });
        models[index].desired = Some((&wanted.release).into());
        models[index].rollout = wanted.rollout.as_ref().map(ToString::to_string);
    }
    models
}

fn from_state(state: &ModelState) -> DeviceModel {
    DeviceModel {
        model: state.model.to_string(),
        active: state.active.as_ref().map(ReleaseName::from),
        absent: state.absent.clone(),
        candidate: state.candidate.as_ref().map(ReleaseName::from),
        fallback: state.fallback.as_ref().map(ReleaseName::from),
        phase: phase_text(state.phase),
        desired: None,
        rollout: None,
    }
}

fn hardware(hello: &Hello) -> Hardware {
    let h = hello.hardware.clone();
    Hardware {
        arch: h.arch,
        class: h.class,
        cpu_features: h.cpu_features,
        cpus: h.cpus,
        memory_bytes: h.memory_bytes,
    }
}

fn spool(hello: &Hello) -> Spool {
    let loss = |l: &protocol::message::Loss| Loss {
        kind: json_text(&l.kind),
        cause: json_text(&l.cause),
        count: l.count,
    };
    Spool {
        stream: hello.spool.stream.to_string(),
        depth_records: hello.spool.depth_records,
        depth_bytes: hello.spool.depth_bytes,
        dropped: hello.spool.dropped.iter().map(loss).collect(),
    }
}

fn metadata(hello: &Hello, hello_at: Option<UnixMillis>, now: UnixMillis) -> Option<MetadataAge> {
    let state = hello.metadata?;
    let since_hello_s = hello_at.map_or(0, |at| now.millis_since(at) / 1000);
    Some(MetadataAge {
        timestamp_version: state.timestamp_version,
        expires_at: state.expires.into(),
        age_s: i64::try_from(state.age_s).unwrap_or(i64::MAX).saturating_add(since_hello_s),
    })
}

/// A unit enum as its JSON text.
fn json_text<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
