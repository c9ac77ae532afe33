//! The update machine of one model: pure. The driver persists the new [`Record`], then acts, then reports; every
//! action is safe to repeat after a power cut.
//!
//! ```text
//!                 Wanted                                                       mode shadow
//! Idle ------------------> Fetching -> Verified -> Staged -> SelfTest -------------> Shadow
//!  (or any end state)         |  |         |          |         |                      | Wanted(replace)
//!                    Rejected-+  +---------+----------+---------+-> Failed <-----------+
//!                                                               v                      v
//!   RolledBack <------------------- Probation <------------ Activating <---------------+
//!        (active := fallback)           |        (fallback := active, active := candidate)
//!                                       v
//!                                   Committed
//! ```
//! What failed for want of memory alone goes on with `Fetching` once there is room, while it is still wanted; what finds
//! no room any more in `Probation` goes on with `Fetching`, too, and the fallback serves. Where the budget changed, the
//! active release is fetched again in another variant (`refit`), and goes the same way. A wish that is taken back ends what
//! is before `Probation`.
//! A crash loop is seen by `tries_left` and `boots_left`, counted down at each start; a machine that goes round is
//! stopped by the transition counter. Both are part of the persisted record.

use protocol::message::{Cause, CauseKind, SelfTestResult, TaskPhase};
use protocol::{Counter, ReleaseRef, UnixMillis};
use release::HighWater;
use serde::{Deserialize, Serialize};
use trust::desired::Mode;

mod again;
mod fence;
mod refit;
mod starts;
mod task;
mod unwanted;

pub use refit::Refit;
pub use task::Task;

/// Starts that a self-test or a swap may end before it counts as a crash loop.
const TRIES: u8 = 2;
/// Starts within probation, or in a row within a shadow, before it counts as a crash loop.
const BOOTS: u8 = 3;

fn full_boots() -> u8 {
    BOOTS
}

/// Transitions of one task, after which it goes round.
const MAX_TRANSITIONS: u32 = 28;

/// A release in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which release.
    pub release: ReleaseRef,
    /// The variant that was chosen for this device.
    pub variant: String,
}

/// Where a model stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Phase {
    /// Nothing was ever asked.
    #[default]
    Idle,
    /// The signed chain and the blobs are being fetched.
    Fetching {
        /// For what.
        task: Task,
    },
    /// Chain and blobs are verified.
    Verified {
        /// For what.
        task: Task,
        /// Chosen variant.
        variant: String,
    },
    /// Everything is durable in the candidate slot.
    Staged {
        /// For what.
        task: Task,
        /// Chosen variant.
        variant: String,
    },
    /// Golden samples, latency and memory are being tried.
    SelfTest {
        /// For what.
        task: Task,
        /// Chosen variant.
        variant: String,
        /// Starts that may still end in it.
        tries_left: u8,
    },
    /// Runs beside the active release.
    Shadow {
        /// For what.
        task: Task,
        /// Chosen variant.
        variant: String,
        /// Starts that may still end early in it; full again once the agent has stayed up.
        #[serde(default = "full_boots")]
        boots_left: u8,
    },
    /// The swap is being made.
    Activating {
        /// For what.
        task: Task,
        /// Chosen variant.
        variant: String,
        /// Starts that may still end in it.
        tries_left: u8,
    },
    /// Serves under watch.
    Probation {
        /// For what.
        task: Task,
        /// Starts that may still end in it.
        boots_left: u8,
    },
    /// Serves for good.
    Committed {
        /// For what.
        task: Task,
    },
    /// The fallback serves again.
    RolledBack {
        /// For what.
        task: Task,
        /// Why.
        cause: Cause,
    },
    /// Ended before it served.
    Failed {
        /// For what.
        task: Task,
        /// Why.
        cause: Cause,
    },
    /// Refused before any blob was fetched.
    Rejected {
        /// For what.
        task: Task,
        /// Why.
        cause: Cause,
    },
}

/// What a release that found no room would need, to be tried again by itself once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacked {
    /// Memory of the smallest variant that fits the device.
    pub needed_bytes: u64,
    /// The agent's soft bound, where it was what refused this variant; 0: it was the budget of all models.
    #[serde(default)]
    pub soft_bytes: u64,
}

/// Everything that is persisted about one model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Where it stands.
    pub phase: Phase,
    /// The release that serves.
    pub active: Option<Held>,
    /// Since when it is the active one, by the device's clock.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// The release to go back to.
    pub fallback: Option<Held>,
    /// The highest release that was ever committed, with the fallbacks that it permits.
    pub mark: Option<HighWater>,
    /// The fence that the metadata states which was accepted last. It falls when its release is withdrawn.
    #[serde(default)]
    pub fence: Counter,
    /// Transitions of the current task.
    pub transitions: u32,
    /// What the last self-test measured.
    pub self_test: Option<TestedOnce>,
    /// The release that was active and can't be loaded any more, until one is activated or committed.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// What the task that has failed for want of memory would need, while it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacked: Option<Lacked>,
    /// The task brings the active release in another variant, in place of the one that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit: Option<Refit>,
}

/// A release that was active and can't be loaded any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Which release.
    pub release: ReleaseRef,
    /// Why.
    pub cause: Cause,
}

impl Record {
    /// Whether the task that ended is not what is wanted: it repaired what the disk had lost, or the wish could
    /// not be persisted when it came. What will be retried by itself has not ended.
    pub fn has_strayed(&self, wanted: &Task) -> bool {
        match &self.phase {
            Phase::Idle => true,
            Phase::Failed { cause, .. } if cause.kind.is_retryable() => false,
            Phase::Committed { task }
            | Phase::RolledBack { task, .. }
            | Phase::Failed { task, .. }
            | Phase::Rejected { task, .. } => !task.answers(wanted),
            Phase::Fetching { .. }
            | Phase::Verified { .. }
            | Phase::Staged { .. }
            | Phase::SelfTest { .. }
            | Phase::Shadow { .. }
            | Phase::Activating { .. }
            | Phase::Probation { .. } => false,
        }
    }
}

/// A self-test's result as it is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TestedOnce(pub SelfTestResult);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Desired names this release.
    Wanted(Task),
    /// A Desired was accepted that doesn't name the model.
    Unwanted,
    /// Chain and blobs are there and verified.
    Fetched {
        /// The variant for this device.
        variant: String,
    },
    /// All of it is durable.
    Staged,
    /// The self-test is about to begin.
    TestBegins,
    /// The self-test passed.
    Tested(SelfTestResult),
    /// The candidate answers in memory.
    Activated,
    /// Probation passed.
    Healthy(HighWater),
    /// The step under way ended badly: error, hang, unhealthy.
    Failed(Cause),
    /// No variant finds room in memory; nothing was fetched, or the chosen one finds none any more.
    TooBig(Cause, Lacked),
    /// The release in probation finds no room any more.
    OutOfRoom,
    /// What was lacking is there.
    RoomGrew,
    /// The active release is to run in another variant.
    Refit(Refit),
    /// The active release can't be loaded any more.
    Unloadable(Cause),
    /// Trying again is due.
    Retry,
    /// Metadata was accepted that states this fence.
    Fenced(Counter),
    /// The agent has started.
    Boot,
    /// It has stayed up since.
    Settled,
    /// It is ending because it was told to.
    EndsInOrder,
}

/// What the driver does at once, after persisting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the server where the task stands.
    Report,
    /// Tell the server that this task ended in that word because another was asked for.
    ReportSuperseded(Task, TaskPhase),
    /// Load the active slot and let it answer.
    SwitchBack,
    /// End the shadow.
    StopShadow,
    /// Free what no slot holds.
    Collect,
}

/// What a phase asks to be worked on; repeated after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Fetch and verify chain and blobs.
    Fetch,
    /// Make all durable, check again.
    Stage,
    /// Persist that the test begins.
    BeginTest,
    /// Run it.
    SelfTest,
    /// Swap in memory.
    Activate,
}

impl Phase {
    /// The task of this phase.
    pub fn task(&self) -> Option<&Task> {
        match self {
            Self::Idle => None,
            Self::Fetching { task }
            | Self::Verified { task, .. }
            | Self::Staged { task, .. }
            | Self::SelfTest { task, .. }
            | Self::Shadow { task, .. }
            | Self::Activating { task, .. }
            | Self::Probation { task, .. }
            | Self::Committed { task }
            | Self::RolledBack { task, .. }
            | Self::Failed { task, .. }
            | Self::Rejected { task, .. } => Some(task),
        }
    }

    /// Its word on the wire.
    pub fn word(&self) -> TaskPhase {
        match self {
            Self::Idle => TaskPhase::Idle,
            Self::Fetching { .. } => TaskPhase::Fetching,
            Self::Verified { .. } => TaskPhase::Verified,
            Self::Staged { .. } => TaskPhase::Staged,
            Self::SelfTest { .. } => TaskPhase::SelfTest,
            Self::Shadow { .. } => TaskPhase::Shadow,
            Self::Activating { .. } => TaskPhase::Activating,
            Self::Probation { .. } => TaskPhase::Probation,
            Self::Committed { .. } => TaskPhase::Committed,
            Self::RolledBack { .. } => TaskPhase::RolledBack,
            Self::Failed { .. } => TaskPhase::Failed,
            Self::Rejected { .. } => TaskPhase::Rejected,
        }
    }

    /// Why it ended badly.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::RolledBack { cause, .. } | Self::Failed { cause, .. } | Self::Rejected { cause, .. } => {
                Some(cause)
            }
            _ => None,
        }
    }

    /// The candidate's variant, once it is chosen and until it is active.
    pub fn variant(&self) -> Option<&str> {
        match self {
            Self::Verified { variant, .. }
            | Self::Staged { variant, .. }
            | Self::SelfTest { variant, .. }
            | Self::Shadow { variant, .. }
            | Self::Activating { variant, .. } => Some(variant),
            _ => None,
        }
    }

    /// What is to be worked on.
    pub fn work(&self) -> Option<Work> {
        match self {
            Self::Fetching { .. } => Some(Work::Fetch),
            Self::Verified { .. } => Some(Work::Stage),
            Self::Staged { .. } => Some(Work::BeginTest),
            Self::SelfTest { .. } => Some(Work::SelfTest),
            Self::Activating { .. } => Some(Work::Activate),
            _ => None,
        }
    }
}

/// The next record and what to do after persisting it.
pub fn step(record: Record, event: Event) -> (Record, Vec<Action>) {
    let before = record.phase.word();
    let (record, mut freed) = record.without_barred_fallback();
    let (mut next, mut actions) = match event {
        Event::Fenced(fence) => fence::fenced(record, fence),
        Event::Wanted(task) => wanted(record, task),
        Event::Unwanted => unwanted::unwanted(record),
        Event::Boot => starts::boot(record),
        Event::Settled => starts::settled(record),
        Event::EndsInOrder => starts::ends_in_order(record),
        Event::Failed(cause) => failed(record, cause),
        Event::TooBig(cause, lacked) => again::too_big(record, cause, lacked),
        Event::OutOfRoom => again::out_of_room(record),
        Event::RoomGrew => again::room_grew(record),
        Event::Refit(refit) => refit::begin(record, refit),
        Event::Unloadable(cause) => unloadable(record, &cause),
        Event::Retry => again::retry(record),
        event @ (Event::Fetched { .. }
        | Event::Staged
        | Event::TestBegins
        | Event::Tested(_)
        | Event::Activated
        | Event::Healthy(_)) => forward(record, event),
    };
    if matches!(next.phase, Phase::Probation { .. } | Phase::Committed { .. }) {
        next.lost = None;
    }
    if !matches!(next.phase, Phase::Failed { .. }) {
        next.lacked = None;
        // What has failed may be tried again.
        next.refit = next.refit.filter(|_| !next.phase.word().is_terminal());
    }
    // A counter within a state is no transition.
    if next.phase.word() != before {
        next.transitions = next.transitions.saturating_add(1);
        if next.transitions > MAX_TRANSITIONS && !next.phase.word().is_terminal() {
            let cause = Cause {
                kind: CauseKind::CrashLoop,
                detail: format!("the task went round {MAX_TRANSITIONS} times"),
            };
            // What has to answer instead still has to.
            actions.retain(|action| *action != Action::Report);
            let (ended, more) = failed(next, cause);
            next = ended;
            actions.extend(more);
        }
    }
    let (next, freed_now) = next.without_barred_fallback();
    freed.extend(freed_now);
    freed.retain(|action| !actions.contains(action));
    actions.extend(freed.into_iter().take(1));
    (next, actions)
}

fn forward(mut record: Record, event: Event) -> (Record, Vec<Action>) {
    use Action::{Collect, Report, SwitchBack};
    use Phase::{Activating, Committed, Fetching, Probation, SelfTest, Shadow, Staged, Verified};
    let (phase, actions) = match (record.phase, event) {
        (Fetching { task }, Event::Fetched { variant })
            if refit::is_over(record.refit, record.active.as_ref(), &task, &variant) =>
        {
            (Committed { task }, vec![SwitchBack, Report])
        }
        (Fetching { task }, Event::Fetched { variant }) => (Verified { task, variant }, vec![Report]),
        (Verified { task, variant }, Event::Staged) => (Staged { task, variant }, vec![Report]),
        (Staged { task, variant }, Event::TestBegins) => {
            (SelfTest { task, variant, tries_left: TRIES }, vec![Report])
        }
        (SelfTest { task, variant, .. }, Event::Tested(result)) => {
            record.self_test = Some(TestedOnce(result));
            match task.mode {
                Mode::Shadow => (Shadow { task, variant, boots_left: BOOTS }, vec![Report]),
                Mode::Replace | Mode::Ab => (Activating { task, variant, tries_left: TRIES }, vec![Report]),
            }
        }
        (Activating { task, variant, .. }, Event::Activated) => {
            let candidate = Held { release: task.release.clone(), variant };
            let before = record.active.replace(candidate);
            record.fallback = refit::fallback(record.refit, before, record.fallback);
            (Probation { task, boots_left: BOOTS }, vec![Report])
        }
        (Probation { task, .. }, Event::Healthy(mark)) => {
            record.mark = Some(mark);
            (Committed { task }, vec![Report, Collect])
        }
        // An event of a step that was overtaken changes nothing.
        (same, _) => (same, vec![]),
    };
    record.phase = phase;
    (record, actions)
}

fn wanted(mut record: Record, task: Task) -> (Record, Vec<Action>) {
    let current = record.phase.task();
    if let Some(current) = current.filter(|current| current.answers(&task)) {
        // Asked again by another revision (after a new director's key a lower one): whoever asks hasn't heard the end.
        let is_answer_due = current.revision != task.revision && record.phase.word().is_terminal();
        return (record, if is_answer_due { vec![Action::Report] } else { vec![] });
    }
    record.transitions = 0;
    let mut actions = Vec::new();
    if let Some(current) = current.filter(|_| !record.phase.word().is_terminal()) {
        // The same release for another rollout, or under a higher attempt, goes on under the new name.
        if current.release == task.release && current.mode == task.mode {
            return (renamed(record, task), vec![Action::Report]);
        }
        if let (Phase::Shadow { variant, .. }, true) = (&record.phase, current.release == task.release) {
            let variant = variant.clone();
            record.phase = Phase::Activating { task, variant, tries_left: TRIES };
            return (record, vec![Action::Report]);
        }
        let has_served = matches!(record.phase, Phase::Probation { .. });
        let end = if has_served { TaskPhase::RolledBack } else { TaskPhase::Failed };
        actions.push(Action::ReportSuperseded(current.clone(), end));
        match record.phase {
            Phase::Probation { .. } => {
                record.active = record.fallback.take();
                actions.push(Action::SwitchBack);
            }
            Phase::Activating { .. } => actions.push(Action::SwitchBack),
            Phase::Shadow { .. } => actions.push(Action::StopShadow),
            _ => {}
        }
    }
    record.refit = None;
    let is_active = record.active.as_ref().is_some_and(|held| held.release == task.release);
    record.phase = if is_active { Phase::Committed { task } } else { Phase::Fetching { task } };
    actions.push(Action::Report);
    (record, actions)
}

fn renamed(mut record: Record, task: Task) -> Record {
    record.phase = match record.phase {
        Phase::Fetching { .. } => Phase::Fetching { task },
        Phase::Verified { variant, .. } => Phase::Verified { task, variant },
        Phase::Staged { variant, .. } => Phase::Staged { task, variant },
        Phase::SelfTest { variant, tries_left, .. } => Phase::SelfTest { task, variant, tries_left },
        Phase::Shadow { variant, boots_left, .. } => Phase::Shadow { task, variant, boots_left },
        Phase::Activating { variant, tries_left, .. } => Phase::Activating { task, variant, tries_left },
        Phase::Probation { boots_left, .. } => Phase::Probation { task, boots_left },
        end => end,
    };
    record
}

fn failed(mut record: Record, cause: Cause) -> (Record, Vec<Action>) {
    use Action::{Collect, Report, StopShadow, SwitchBack};
    use Phase::{
        Activating, Failed, Fetching, Probation, Rejected, RolledBack, SelfTest, Shadow, Staged, Verified,
    };
    let (phase, actions) = match record.phase {
        Fetching { task } if is_refusal(cause.kind) => (Rejected { task, cause }, vec![Report]),
        Fetching { task } | Verified { task, .. } | Staged { task, .. } => {
            (Failed { task, cause }, vec![Report])
        }
        SelfTest { task, .. } => (Failed { task, cause }, vec![Report, Collect]),
        Shadow { task, .. } => (Failed { task, cause }, vec![StopShadow, Report, Collect]),
        Activating { task, .. } => (Failed { task, cause }, vec![SwitchBack, Report]),
        Probation { task, .. } => {
            record.active = record.fallback.take();
            (RolledBack { task, cause }, vec![SwitchBack, Report])
        }
        end => (end, vec![]),
    };
    record.phase = phase;
    (record, actions)
}

/// Causes that speak against the release itself, found before its blobs are fetched.
fn is_refusal(kind: CauseKind) -> bool {
    matches!(
        kind,
        CauseKind::Untrusted | CauseKind::Downgrade | CauseKind::DesiredMismatch | CauseKind::Incompatible
    )
}

/// The fallback becomes the active release, so that it still answers after the next start.
fn unloadable(mut record: Record, cause: &Cause) -> (Record, Vec<Action>) {
    // What the disk lost is fetched again; the signed digests decide what is still good.
    let is_lost = cause.kind == CauseKind::Storage;
    if matches!(record.phase, Phase::Probation { .. }) && !is_lost {
        return failed(record, cause.clone());
    }
    let Some(active) = record.active.clone() else { return (record, vec![]) };
    record.lost = Some(Lost { release: active.release.clone(), cause: cause.clone() });
    match record.phase {
        Phase::Probation { task, .. } | Phase::Committed { task } => {
            record.phase = Phase::Fetching { task };
            fall_back(record, vec![Action::Report])
        }
        Phase::RolledBack { task, .. } | Phase::Failed { task, .. } | Phase::Rejected { task, .. }
            if is_lost =>
        {
            let (release, revision) = (active.release, task.revision);
            let task = Task { release, mode: Mode::Replace, rollout: None, attempt: 0, revision };
            record.phase = Phase::Fetching { task };
            fall_back(record, vec![Action::Report])
        }
        // The task under way goes on; without a fallback the lost release is what there is.
        same if is_lost && record.fallback.is_some() => {
            record.phase = same;
            fall_back(record, vec![])
        }
        same => {
            record.phase = same;
            (record, vec![])
        }
    }
}

fn fall_back(mut record: Record, mut actions: Vec<Action>) -> (Record, Vec<Action>) {
    record.active = record.fallback.take();
    if record.active.is_some() {
        actions.insert(0, Action::SwitchBack);
    }
    (record, actions)
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Digest, Revision, RolloutId, Version};

    pub(super) fn release(n: u8) -> ReleaseRef {
        let version = Version::new(format!("{n}.0.0")).unwrap();
        ReleaseRef { version, digest: Digest::from_bytes([n; 32]), counter: Counter(n.into()) }
    }

    pub(super) fn task(n: u8) -> Task {
        Task {
            release: release(n),
            mode: Mode::Replace,
            rollout: None,
            attempt: 0,
            revision: Revision(n.into()),
        }
    }

    pub(super) fn held(n: u8) -> Held {
        Held { release: release(n), variant: "int8".into() }
    }

    fn why(kind: CauseKind) -> Cause {
        Cause { kind, detail: "x".into() }
    }

    const TESTED: SelfTestResult =
        SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 };

    pub(super) fn mark(n: u8) -> HighWater {
        HighWater {
            digest: Digest::from_bytes([n; 32]),
            counter: Counter(n.into()),
            fallback: vec![],
            min_counter: Counter(0),
        }
    }

    pub(super) fn after(record: Record, events: impl IntoIterator<Item = Event>) -> Record {
        events.into_iter().fold(record, |record, event| step(record, event).0)
    }

    /// What happens to a release that was asked for, up to its end.
    pub(super) fn way() -> [Event; 6] {
        [
            Event::Fetched { variant: "int8".into() },
            Event::Staged,
            Event::TestBegins,
            Event::Tested(TESTED),
            Event::Activated,
            Event::Healthy(mark(2)),
        ]
    }

    fn forward_events() -> [Event; 7] {
        let [fetched, staged, begins, tested, activated, healthy] = way();
        [Event::Wanted(task(2)), fetched, staged, begins, tested, activated, healthy]
    }

    /// Release 1 is committed; `n` events of the way to release 2 have happened.
    fn on_the_way(n: usize) -> Record {
        let committed = Record {
            phase: Phase::Committed { task: task(1) },
            active: Some(held(1)),
            mark: Some(mark(1)),
            ..Record::default()
        };
        after(committed, forward_events().into_iter().take(n))
    }

    #[test]
    fn after_a_repair_what_is_wanted_is_asked_for_again() {
        let rolled_back = after(on_the_way(6), [Event::Failed(why(CauseKind::ProbationErrors))]);
        assert!(!rolled_back.has_strayed(&task(2)), "it ended as what was wanted");
        let repairing = after(rolled_back, [Event::Unloadable(why(CauseKind::Storage))]);
        assert!(!repairing.has_strayed(&task(2)), "the repair is not interrupted");
        let repaired = after(repairing, forward_events().into_iter().skip(1));
        assert_eq!(repaired.active, Some(held(1)));
        assert!(repaired.has_strayed(&task(2)));
        assert!(!after(repaired, [Event::Wanted(task(2))]).has_strayed(&task(2)));
    }

    #[test]
    fn the_whole_way_ends_committed_with_the_old_release_as_fallback() {
        use TaskPhase::{Activating, Committed, Fetching, Probation, SelfTest, Staged, Verified};
        let words: Vec<_> = (1..=7).map(|n| on_the_way(n).phase.word()).collect();
        assert_eq!(words, [Fetching, Verified, Staged, SelfTest, Activating, Probation, Committed]);
        let end = on_the_way(7);
        assert_eq!((end.active, end.fallback, end.mark), (Some(held(2)), Some(held(1)), Some(mark(2))));
    }

    /// The table: each state x fault -> expected end, and which release serves.
    #[test]
    fn every_fault_in_every_state_ends_as_the_table_says() {
        use CauseKind::{
            CrashLoop, DiskFull, Download, GoldenMismatch, Load, MetadataExpired, Storage, Timeout, Untrusted,
        };
        use TaskPhase::{Committed, Failed, Rejected, RolledBack};
        let faults = [
            Download,
            Timeout,
            DiskFull,
            Storage,
            MetadataExpired,
            Untrusted,
            Load,
            GoldenMismatch,
            CrashLoop,
        ];
        for at in 1..=7 {
            for fault in faults {
                let (end, actions) = step(on_the_way(at), Event::Failed(why(fault)));
                let expected = match at {
                    1 if fault == Untrusted => Rejected,
                    1..=5 => Failed,
                    6 => RolledBack,
                    _ => Committed,
                };
                assert_eq!(end.phase.word(), expected, "state {at}, {fault:?}");
                let serving = if at == 7 { held(2) } else { held(1) };
                assert_eq!(end.active, Some(serving), "state {at}, {fault:?}");
                assert_eq!(actions.contains(&Action::SwitchBack), matches!(at, 5 | 6), "state {at}");
                assert_eq!(actions.contains(&Action::Report), at != 7, "state {at}");
            }
        }
    }

    #[test]
    fn a_power_cut_in_any_state_goes_on_with_the_same_work_and_the_same_release() {
        for at in 1..=7 {
            let before = on_the_way(at);
            let (booted, actions) = step(before.clone(), Event::Boot);
            assert_eq!(booted.phase.word(), before.phase.word());
            assert_eq!(booted.phase.work(), before.phase.work());
            assert_eq!((booted.active, booted.fallback, actions), (before.active, before.fallback, vec![]));
        }
    }

    #[test]
    fn a_crash_loop_of_the_new_model_ends_with_the_old_one_serving() {
        for (at, word) in [(4, TaskPhase::Failed), (5, TaskPhase::Failed), (6, TaskPhase::RolledBack)] {
            let end = after(on_the_way(at), std::iter::repeat_n(Event::Boot, 10));
            assert_eq!((end.phase.word(), end.active.clone()), (word, Some(held(1))), "state {at}");
            assert_eq!(end.phase.cause().unwrap().kind, CauseKind::CrashLoop);
        }
    }

    #[test]
    fn only_retryable_failures_are_tried_again() {
        for (kind, expected) in
            [(CauseKind::Download, TaskPhase::Fetching), (CauseKind::GoldenMismatch, TaskPhase::Failed)]
        {
            let end = after(on_the_way(2), [Event::Failed(why(kind)), Event::Retry]);
            assert_eq!(end.phase.word(), expected);
        }
    }

    #[test]
    fn what_found_no_room_goes_on_once_there_is_some_and_nothing_else_does() {
        let lacked = Lacked { needed_bytes: 1, soft_bytes: 0 };
        let no_room = || Event::TooBig(why(CauseKind::TooBig), lacked);
        let refused = after(on_the_way(1), [no_room(), Event::Boot, Event::Retry]);
        assert_eq!((refused.phase.word(), refused.lacks(&task(2))), (TaskPhase::Failed, Some(&lacked)));
        assert_eq!(refused.lacks(&task(3)), None, "the fleet asks for another one");
        let stored = serde_json::to_vec(&refused).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&stored).unwrap(), refused);
        let (taken_up, actions) = step(refused.clone(), Event::RoomGrew);
        assert_eq!((taken_up.phase.word(), actions), (TaskPhase::Fetching, vec![Action::Report]));
        assert_eq!((taken_up.lacked, taken_up.active), (None, Some(held(1))));
        for n in 0..=forward_events().len() {
            let before = after(on_the_way(n), [Event::Failed(why(CauseKind::TooBig))]);
            assert_eq!(step(before.clone(), Event::RoomGrew), (before, vec![]), "its own budget, {n}");
        }
        for n in [4, 5] {
            let tested = after(on_the_way(n), [no_room()]);
            assert_eq!((tested.phase.word(), tested.lacked), (TaskPhase::Failed, Some(lacked)), "{n}");
        }
        assert_eq!(after(on_the_way(6), [no_room()]).lacked, None, "what has served is not tried again");
        assert_eq!(after(refused, [Event::Wanted(task(3))]).lacked, None);
    }

    #[test]
    fn what_finds_no_room_in_probation_begins_anew_and_what_served_before_serves() {
        let serving = on_the_way(6);
        let (anew, actions) = step(serving.clone(), Event::OutOfRoom);
        assert_eq!(actions, [Action::SwitchBack, Action::Report]);
        assert_eq!(anew.phase, Phase::Fetching { task: task(2) });
        assert_eq!((anew.active.clone(), anew.fallback.clone()), (Some(held(1)), None));
        assert_eq!(anew.transitions, serving.transitions + 1, "it does not go round for ever");
        // Another variant, the whole way.
        let end = after(anew.clone(), forward_events().into_iter().skip(1));
        assert_eq!((end.phase.word(), end.active), (TaskPhase::Committed, Some(held(2))));
        assert_eq!((end.fallback, end.mark), (Some(held(1)), Some(mark(2))));
        // None fits: once there is room it is tried again.
        let lacked = Lacked { needed_bytes: 1, soft_bytes: 0 };
        let refused = after(anew.clone(), [Event::TooBig(why(CauseKind::TooBig), lacked), Event::Boot]);
        assert_eq!((refused.phase.word(), refused.lacks(&task(2))), (TaskPhase::Failed, Some(&lacked)));
        assert_eq!(refused.active, Some(held(1)));
        assert_eq!(after(refused, [Event::RoomGrew]).phase.word(), TaskPhase::Fetching);
        // A budget that changes at each start.
        let round = || std::iter::once(Event::OutOfRoom).chain(forward_events().into_iter().skip(1).take(5));
        let end =
            after(anew, (0..9).flat_map(|_| forward_events().into_iter().skip(1).take(5).chain(round())));
        assert_eq!(end.phase.cause().map(|cause| cause.kind), Some(CauseKind::CrashLoop));
        assert_eq!(end.active, Some(held(1)));
        let last = Record { transitions: MAX_TRANSITIONS, ..serving };
        let (end, actions) = step(last, Event::OutOfRoom);
        assert_eq!((end.phase.word(), end.active), (TaskPhase::Failed, Some(held(1))));
        assert_eq!(actions, [Action::SwitchBack, Action::Report]);
        for at in [0, 1, 2, 3, 4, 5, 7] {
            assert_eq!(step(on_the_way(at), Event::OutOfRoom), (on_the_way(at), vec![]), "state {at}");
        }
    }

    #[test]
    fn a_first_release_that_finds_no_room_in_probation_begins_anew_with_nothing_serving() {
        let record = after(Record::default(), forward_events().into_iter().take(6));
        let anew = after(record, [Event::OutOfRoom]);
        assert_eq!((anew.phase.word(), anew.active), (TaskPhase::Fetching, None));
    }

    #[test]
    fn a_repeated_request_changes_nothing_and_a_new_rollout_tries_again() {
        let failed = after(on_the_way(4), [Event::Failed(why(CauseKind::GoldenMismatch))]);
        let repeated = Task { revision: Revision(9), ..task(2) };
        assert_eq!(step(failed.clone(), Event::Wanted(task(2))), (failed.clone(), vec![]));
        assert_eq!(step(failed.clone(), Event::Wanted(repeated)), (failed.clone(), vec![Action::Report]));
        let anew = Task { rollout: Some(RolloutId::new("r2").unwrap()), ..task(2) };
        assert_eq!(step(failed, Event::Wanted(anew)).0.phase.word(), TaskPhase::Fetching);
    }

    /// Each end, and each state on the way, under a higher attempt.
    #[test]
    fn another_chance_begins_anew_what_ended_and_goes_on_with_what_is_under_way() {
        let again = |attempt| Task { attempt, revision: Revision(9), ..task(2) };
        for (at, kind) in [
            (6, CauseKind::ProbationErrors),
            (4, CauseKind::GoldenMismatch),
            (1, CauseKind::TooBig),
            (1, CauseKind::Untrusted),
        ] {
            let ended = after(on_the_way(at), [Event::Failed(why(kind))]);
            assert!(ended.has_strayed(&again(1)), "{kind:?}");
            let (begun, actions) = step(ended, Event::Wanted(again(1)));
            assert_eq!(begun.phase, Phase::Fetching { task: again(1) }, "{kind:?}");
            assert_eq!((begun.active.clone(), begun.transitions), (Some(held(1)), 1));
            assert_eq!(actions, [Action::Report]);
            let end = after(begun, forward_events().into_iter().skip(1));
            assert_eq!(
                (end.phase.clone(), end.active.clone()),
                (Phase::Committed { task: again(1) }, Some(held(2)))
            );
            // An earlier attempt is answered by it.
            assert_eq!(step(end.clone(), Event::Wanted(again(0))).0, end);
            let (told, actions) = step(end, Event::Wanted(again(2)));
            assert_eq!((told.phase, actions), (Phase::Committed { task: again(2) }, vec![Action::Report]));
        }
        for at in 1..=6 {
            let before = on_the_way(at);
            let (on, actions) = step(before.clone(), Event::Wanted(again(1)));
            assert_eq!(
                (on.phase.word(), on.phase.task()),
                (before.phase.word(), Some(&again(1))),
                "state {at}"
            );
            assert_eq!(
                (on.active, on.fallback, actions),
                (before.active, before.fallback, vec![Action::Report])
            );
        }
    }

    #[test]
    fn a_task_that_an_older_agent_wrote_down_is_a_first_attempt() {
        let record = on_the_way(1);
        let mut text = serde_json::to_value(&record).unwrap();
        text["phase"]["task"].as_object_mut().unwrap().remove("attempt").unwrap();
        assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record);
    }

    #[test]
    fn asking_for_the_serving_release_commits_it_under_the_new_name() {
        let anew = Task { rollout: Some(RolloutId::new("r2").unwrap()), ..task(2) };
        let (end, actions) = step(on_the_way(7), Event::Wanted(anew.clone()));
        assert_eq!((end.phase, actions), (Phase::Committed { task: anew }, vec![Action::Report]));
    }

    #[test]
    fn a_desired_rollback_in_probation_returns_at_once_and_after_commit_goes_the_whole_way() {
        let back = Task { rollout: Some(RolloutId::new("r2").unwrap()), ..task(1) };
        let (end, actions) = step(on_the_way(6), Event::Wanted(back.clone()));
        assert_eq!((end.phase.word(), end.active), (TaskPhase::Committed, Some(held(1))));
        let superseded = Action::ReportSuperseded(task(2), TaskPhase::RolledBack);
        assert_eq!(actions, [superseded, Action::SwitchBack, Action::Report]);
        let (end, _) = step(on_the_way(7), Event::Wanted(back));
        assert_eq!((end.phase.word(), end.active), (TaskPhase::Fetching, Some(held(2))));
    }

    #[test]
    fn another_release_supersedes_what_is_under_way() {
        for at in 1..=6 {
            let (end, actions) = step(on_the_way(at), Event::Wanted(task(3)));
            assert_eq!(end.phase, Phase::Fetching { task: task(3) });
            assert_eq!(end.active, Some(held(1)), "state {at}");
            // Only what had its turn is rolled back.
            let word = if at == 6 { TaskPhase::RolledBack } else { TaskPhase::Failed };
            assert!(actions.contains(&Action::ReportSuperseded(task(2), word)), "state {at}");
        }
    }

    #[test]
    fn shadow_never_answers_until_it_is_asked_to_replace() {
        let shadow = Task { mode: Mode::Shadow, ..task(2) };
        let events = forward_events().into_iter().skip(1).take(4);
        let record = after(on_the_way(0), std::iter::once(Event::Wanted(shadow)).chain(events));
        assert_eq!((record.phase.word(), record.active.clone()), (TaskPhase::Shadow, Some(held(1))));
        assert_eq!(step(record, Event::Wanted(task(2))).0.phase.word(), TaskPhase::Activating);
    }

    #[test]
    fn a_first_release_that_is_unhealthy_leaves_nothing_serving() {
        let record = after(Record::default(), forward_events().into_iter().take(6));
        let (end, actions) = step(record, Event::Failed(why(CauseKind::ProbationErrors)));
        assert_eq!((end.phase.word(), end.active), (TaskPhase::RolledBack, None));
        assert!(actions.contains(&Action::SwitchBack));
    }

    #[test]
    fn a_committed_release_that_the_disk_lost_is_fetched_again() {
        let (end, actions) = step(on_the_way(7), Event::Unloadable(why(CauseKind::Storage)));
        assert_eq!((end.phase, end.active), (Phase::Fetching { task: task(2) }, Some(held(1))));
        assert_eq!(actions, [Action::SwitchBack, Action::Report]);
        assert_eq!(end.lost.map(|lost| lost.release), Some(release(2)));
    }

    #[test]
    fn a_repaired_release_keeps_the_fallback_it_had() {
        let lost = step(on_the_way(7), Event::Unloadable(why(CauseKind::Storage))).0;
        let end = after(lost, forward_events().into_iter().skip(1));
        assert_eq!((end.active, end.fallback, end.lost), (Some(held(2)), Some(held(1)), None));
    }

    #[test]
    fn what_the_disk_lost_is_fetched_again_in_probation_and_after_a_rollback_but_a_bad_model_is_not() {
        let lost = Event::Unloadable(why(CauseKind::Storage));
        let (end, actions) = step(on_the_way(6), lost.clone());
        assert_eq!((end.phase, end.active), (Phase::Fetching { task: task(2) }, Some(held(1))));
        assert!(actions.contains(&Action::SwitchBack));
        let rolled_back = after(on_the_way(6), [Event::Failed(why(CauseKind::ProbationErrors)), lost]);
        assert_eq!(rolled_back.phase.task().map(|task| &task.release), Some(&release(1)));
        assert_eq!(rolled_back.phase.word(), TaskPhase::Fetching);
        let bad = step(on_the_way(6), Event::Unloadable(why(CauseKind::Load))).0;
        assert_eq!((bad.phase.word(), bad.active), (TaskPhase::RolledBack, Some(held(1))));
    }

    #[test]
    fn going_round_is_stopped() {
        let mut record = on_the_way(1);
        record.transitions = MAX_TRANSITIONS;
        let (end, _) = step(record, Event::Fetched { variant: "int8".into() });
        assert_eq!(end.phase.cause().map(|c| c.kind), Some(CauseKind::CrashLoop));
    }

    #[test]
    fn events_of_an_overtaken_step_change_nothing() {
        let done = on_the_way(7);
        for event in forward_events().into_iter().skip(1).take(5) {
            assert_eq!(step(done.clone(), event), (done.clone(), vec![]));
        }
    }

    #[test]
    fn records_survive_their_text() {
        for at in 0..=7 {
            let record = on_the_way(at);
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }
}
