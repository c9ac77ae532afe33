//! Control messages: JSON, small, each with its wire version (`v`, written and checked by the codec).

use std::fmt;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::ids::{ModelName, ReleaseRef, Revision, RolloutId, StreamId};
use crate::time::UnixMillis;

/// On connect and on change: everything the device says about itself. Travels in a
/// [`SignedReport`](crate::report::SignedReport).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The device's clock when it wrote this.
    pub at: UnixMillis,
    /// Version of the agent.
    pub agent_version: String,
    /// Target triple that the agent was built for.
    pub target: String,
    /// Random id of this boot of the agent; order by it and by counters, never by wall time.
    pub boot_id: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// What the device knows about time.
    pub clock: Clock,
    /// What the hardware is.
    pub hardware: Hardware,
    /// Labels from the device's own configuration; the server's labels win.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Revision of the last Desired that was accepted.
    pub desired_revision: Revision,
    /// Each model that has a slot on the device.
    #[serde(default)]
    pub models: Vec<ModelState>,
    /// The telemetry spool.
    pub spool: SpoolState,
    /// The signed metadata that the device holds; none before the first update.
    pub metadata: Option<MetadataState>,
    /// What is wrong now, each as one sentence; empty when all is well.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What a device knows about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The lower bound of time that the device can prove.
    pub floor: UnixMillis,
    /// Whether the wall clock stands at or after that bound.
    pub is_plausible: bool,
}

/// What the hardware is, as far as a release or a rollout may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// `x86_64`, `aarch64`, `armv7`, `riscv64`.
    pub arch: String,
    /// Hardware class from the device's configuration, e.g. `rpi4`.
    pub class: String,
    /// CPU features found at run time, in the names of `/proc/cpuinfo`, sorted.
    pub cpu_features: Vec<String>,
    /// Logical CPUs.
    pub cpus: u32,
    /// Physical memory in bytes.
    pub memory_bytes: u64,
}

/// One model's slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Which model.
    pub model: ModelName,
    /// The release that serves.
    pub active: Option<ReleaseRef>,
    /// The release under way, until it is committed or rolled back.
    pub candidate: Option<ReleaseRef>,
    /// The release to fall back to.
    pub fallback: Option<ReleaseRef>,
    /// Where the update machine stands.
    pub phase: TaskPhase,
    /// Why the active release isn't loaded, so that nothing answers; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// The spool's size and losses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolState {
    /// The stream that its sequence numbers belong to.
    pub stream: StreamId,
    /// Records that wait for the server's acknowledgement.
    pub depth_records: u64,
    /// Their size in bytes.
    pub depth_bytes: u64,
    /// Records dropped since the stream began, exactly. One that the server had already, without the device knowing
    /// it when it dropped the record, counts too.
    #[serde(default)]
    pub dropped: Vec<Loss>,
}

/// Records lost of one kind for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Kind of the records.
    pub kind: crate::telemetry::Kind,
    /// Why they were dropped.
    pub cause: LossCause,
    /// How many.
    pub count: u64,
}

/// Why a record was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// The byte bound was reached and nothing could be merged.
    Full,
    /// Older than its kind's time to live.
    Expired,
    /// One record over the size bound.
    TooLarge,
    /// The store could not be written or read.
    Storage,
}

/// The signed metadata that a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataState {
    /// Version of the timestamp role.
    pub timestamp_version: u64,
    /// When the timestamp expires.
    pub expires: UnixMillis,
    /// Seconds since metadata was last refreshed.
    pub age_s: u64,
}

/// Where one device stands with one model. Only `Committed` counts as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPhase {
    /// Nothing under way.
    #[default]
    Idle,
    /// Desired was accepted; nothing fetched yet.
    Accepted,
    /// Metadata and blobs are being fetched.
    Fetching,
    /// The signed chain and every blob were verified.
    Verified,
    /// All blobs are durable in the candidate slot.
    Staged,
    /// Golden samples, latency and memory are tried on this device.
    SelfTest,
    /// Runs beside the active release and never answers.
    Shadow,
    /// The swap is being made.
    Activating,
    /// Serves under watch.
    Probation,
    /// Serves for good.
    Committed,
    /// An earlier release serves again.
    RolledBack,
    /// Ended before it served; the earlier release never stopped serving.
    Failed,
    /// Refused before anything was fetched.
    Rejected,
}

impl TaskPhase {
    /// Whether nothing more follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack | Self::Failed | Self::Rejected)
    }
}

/// One transition of the update machine. Travels in a [`SignedReport`](crate::report::SignedReport).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The device's clock.
    pub at: UnixMillis,
    /// The rollout that asked for it, if the Desired named one.
    pub rollout: Option<RolloutId>,
    /// The Desired that is being worked on.
    pub revision: Revision,
    /// The attempt that the Desired named, 0 the first; agents that don't know of attempts leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: ReleaseRef,
    /// The phase that was entered.
    pub phase: TaskPhase,
    /// Why, for phases that end badly.
    pub cause: Option<Cause>,
    /// Bytes fetched and to fetch, while fetching.
    pub progress: Option<Progress>,
    /// What the self-test measured on this device, from `SelfTest`'s end on.
    pub self_test: Option<SelfTestResult>,
}

/// Bytes fetched of those to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Fetched.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// What the self-test measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTestResult {
    /// Golden samples that were run.
    pub samples: u32,
    /// Samples whose answer was within tolerance.
    pub passed: u32,
    /// Median CPU time of one inference in microseconds.
    pub p50_us: u64,
    /// 95th percentile in microseconds.
    pub p95_us: u64,
    /// Memory that loading the release added, in bytes.
    pub memory_bytes: u64,
}

/// Why a task ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The class, for budgets, gates and translations.
    pub kind: CauseKind,
    /// One sentence for people: what, where, why.
    pub detail: String,
}

/// Classes of bad ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// A signature, threshold, version, length or hash in the signed chain is wrong.
    Untrusted,
    /// Signed metadata has expired.
    MetadataExpired,
    /// The release's counter is lower than the committed one and it is no permitted fallback.
    Downgrade,
    /// Desired and the manifest disagree.
    DesiredMismatch,
    /// The release isn't for this hardware, agent or runtime.
    Incompatible,
    /// The server or the network failed.
    Download,
    /// What the server gave for a blob is not what was signed; it was thrown away.
    Integrity,
    /// Not enough space.
    DiskFull,
    /// The disk failed otherwise.
    Storage,
    /// The runtime can't load the model.
    Load,
    /// Answers differ from the golden samples.
    GoldenMismatch,
    /// Over the latency budget.
    TooSlow,
    /// Over the memory budget.
    TooBig,
    /// Too many errors in probation.
    ProbationErrors,
    /// Too slow in probation.
    ProbationLatency,
    /// The agent crashed in probation or went round too often.
    CrashLoop,
    /// A step took longer than its bound.
    Timeout,
    /// The server asked for another release.
    Superseded,
    /// A bug of ours.
    Internal,
}

/// As written in JSON.
impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl CauseKind {
    /// Whether trying again later can help without a new release.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::MetadataExpired
                | Self::Download
                | Self::Integrity
                | Self::DiskFull
                | Self::Storage
                | Self::Timeout
                | Self::Internal
        )
    }
}

/// Most ranges in an [`Ack`].
pub const MAX_ACK_RANGES: usize = 16;

/// Server to device: everything up to and including `upto_seq` is stored. Cumulative; the next one repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The stream that it is about.
    pub stream: StreamId,
    /// Highest sequence number without a gap before it.
    pub upto_seq: u64,
    /// Ranges above it (first and last, both included) that are stored too: the highest [`MAX_ACK_RANGES`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<(u64, u64)>,
}

/// Retained on `status`; `is_online: false` is the last will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the device is connected.
    pub is_online: bool,
    /// The boot that it speaks for.
    pub boot_id: String,
}

/// Server to device: do something once. Safe to lose and safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Named in the answer.
    pub id: String,
    /// When the server issued it. Nobody signs that: it bounds no clock.
    pub at: UnixMillis,
    /// What to do.
    pub action: CommandAction,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CommandAction {
    /// Say hello again and refresh the signed metadata.
    Refresh,
    /// Send the newest log lines.
    CollectLogs {
        /// At most so many lines.
        max_lines: u32,
    },
    /// Close this model's open pane now.
    FlushPanes {
        /// Which model.
        model: ModelName,
    },
    /// Fetch a variant of a release, measure it beside what serves, and answer with a
    /// [`Measurement`](crate::measurement::Measurement). Nothing of it ever serves by this.
    Measure {
        /// Which model.
        model: ModelName,
        /// Which release; its signed manifest must say the same.
        release: ReleaseRef,
        /// Name of the variant.
        variant: String,
        /// Seconds that loading and measuring may take in all.
        max_s: u32,
    },
    /// Should this connection end, spread the next one over at least so many seconds, from the first attempt on.
    /// Holds until then; the newest word counts.
    WidenJitter {
        /// Upper end of the random delay, in seconds.
        max_s: u32,
    },
    /// Go on with report counters above this one: the server took a report with it before, so the device's state
    /// went back. A device never lowers its counter, so a repeated or replayed order changes nothing.
    ReportFloor {
        /// Highest counter that the server has taken from this device.
        floor: u64,
    },
    /// Something that this build doesn't know; the device says so by the event [`UNKNOWN_COMMAND`]. Never sent.
    #[serde(other)]
    Unknown,
}

/// Name of the event by which a device says that it doesn't know what a command asks for; its detail begins with the
/// command's id.
pub const UNKNOWN_COMMAND: &str = "command_unknown";

macro_rules! versioned {
    ($($type:ty => $what:literal),+ $(,)?) => {
        $(impl Versioned for $type { const WHAT: &'static str = $what; })+
    };
}
versioned!(
    Hello => "hello", TaskReport => "task report", Ack => "ack", Status => "status", Command => "command",
    crate::report::SignedReport => "signed report",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_json, encode_json};

    #[test]
    fn command_round_trips_with_its_version() {
        let command = Command {
            id: "c1".into(),
            at: UnixMillis(5),
            action: CommandAction::CollectLogs { max_lines: 10 },
        };
        let bytes = encode_json(&command);
        assert!(String::from_utf8_lossy(&bytes).starts_with(r#"{"v":1,"#));
        assert_eq!(decode_json::<Command>(&bytes).unwrap(), command);
    }

    #[test]
    fn a_command_of_a_later_server_is_read_as_unknown_and_keeps_its_id() {
        let later = br#"{"v":1,"id":"c9","at":5,"action":{"type":"polish","lenses":[1,{"deep":true}]}}"#;
        let command = decode_json::<Command>(later).unwrap();
        assert_eq!((command.id.as_str(), command.action), ("c9", CommandAction::Unknown));
    }

    #[test]
    fn v2_only_a_named_phase_is_success() {
        assert!(TaskPhase::Committed.is_terminal() && !TaskPhase::Probation.is_terminal());
        assert!(!CauseKind::Untrusted.is_retryable() && CauseKind::Download.is_retryable());
    }
}
