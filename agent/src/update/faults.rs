//! The table of the pure machine once more, with the real driver, a real shelf and a server on a socket: each step of an
//! update x what can be wrong around it -> where the update ends, and who answers then.

use std::path::Path;
use std::time::Duration;

use protocol::Revision;
use protocol::message::{CauseKind, SelfTestResult, TaskPhase};
use trust::desired::Mode;

use super::rig::{INT8_BYTES, Made, Rig, drive, mark, name, write_record};
use super::*;
use crate::health::ProblemKind;
use crate::link::http::origin::Origin;
use crate::machine::{Held, Phase, Record, Task, TestedOnce};
use crate::monitor::Vitals;
use crate::slots::Shelf;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process ended there; nothing else is wrong.
    PowerCut,
    /// The boot record takes no writes.
    ReadOnlyDisk,
    /// The model's file changed on the disk.
    DamagedBlob,
    /// The new release's manifest is gone.
    LostManifest,
    /// Signed, and no model.
    NoModel,
    /// A step doesn't end in its time.
    Hang,
    /// The budget has no room for the variant that was chosen.
    NoMemory,
    /// The answers aren't those of the golden samples.
    OtherAnswers,
}

const FAULTS: [Fault; 8] = [
    Fault::PowerCut,
    Fault::ReadOnlyDisk,
    Fault::DamagedBlob,
    Fault::LostManifest,
    Fault::NoModel,
    Fault::Hang,
    Fault::NoMemory,
    Fault::OtherAnswers,
];

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

const STATES: [TaskPhase; 6] = [
    TaskPhase::Fetching,
    TaskPhase::Verified,
    TaskPhase::Staged,
    TaskPhase::SelfTest,
    TaskPhase::Activating,
    TaskPhase::Probation,
];

/// How an update goes: who answers after the start, where it ends and why, who answers then.
type Played = (String, TaskPhase, Option<CauseKind>, String);

/// One row and column.
#[expect(clippy::match_same_arms, reason = "each for a reason of its own")]
fn expected(state: TaskPhase, fault: Fault) -> Played {
    use TaskPhase::{Activating, Committed, Failed, Fetching, Probation, RolledBack};
    let (end, why) = match (fault, state) {
        (Fault::PowerCut, _) => (Committed, None),
        (Fault::ReadOnlyDisk, _) => (state, None),
        // It is fetched anew.
        (Fault::DamagedBlob, Fetching | Probation) => (Committed, None),
        // The server has no metadata.
        (Fault::LostManifest, Fetching | Probation) => (Failed, Some(CauseKind::Download)),
        (Fault::DamagedBlob | Fault::LostManifest, _) => (Failed, Some(CauseKind::Storage)),
        (Fault::NoModel, Probation) => (RolledBack, Some(CauseKind::Load)),
        (Fault::NoModel, _) => (Failed, Some(CauseKind::Load)),
        // No step is left that could hang.
        (Fault::Hang, Probation) => (Committed, None),
        (Fault::Hang, _) => (Failed, Some(CauseKind::Timeout)),
        // Another variant is chosen.
        (Fault::NoMemory, Fetching | Probation) => (Committed, None),
        (Fault::NoMemory, _) => (Failed, Some(CauseKind::TooBig)),
        // They were compared before.
        (Fault::OtherAnswers, Activating | Probation) => (Committed, None),
        (Fault::OtherAnswers, _) => (Failed, Some(CauseKind::GoldenMismatch)),
    };
    let cannot_serve =
        matches!(fault, Fault::DamagedBlob | Fault::LostManifest | Fault::NoModel | Fault::NoMemory);
    let first = if state == Probation && !cannot_serve { NEW } else { OLD };
    let last = if matches!(end, Committed | Probation) { NEW } else { OLD };
    (first.into(), end, why, last.into())
}

impl Fault {
    fn new_release(self) -> Made {
        let made = Made::example(NEW, 2);
        match self {
            Self::NoMemory => made.into_f32(),
            Self::NoModel => made.with_no_model(),
            Self::OtherAnswers => made.with_other_answers(),
            _ => made,
        }
    }
}

/// The old release answers, the new one stands in `state`, and its files lie where they do then.
fn prepare(dir: &Path, state: TaskPhase, new: &Made) {
    let (old, shelf) = (Made::example(OLD, 1), Shelf::open(dir).unwrap());
    old.keep(&shelf);
    if state == TaskPhase::Fetching {
        new.keep_manifest(&shelf);
    } else {
        new.keep(&shelf);
    }
    let mark = Some(mark(&old, new));
    let mut record = Record { phase: phase(state, &new.held), mark, ..Record::default() };
    record.active = Some(old.held.clone());
    if state == TaskPhase::Probation {
        (record.active, record.fallback) = (Some(new.held.clone()), Some(old.held));
        let result = SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 };
        record.self_test = Some(TestedOnce(result));
    }
    write_record(dir, record);
}

fn phase(state: TaskPhase, held: &Held) -> Phase {
    let (release, revision) = (held.release.clone(), Revision(2));
    let task = Task { release, mode: Mode::Replace, rollout: None, attempt: 0, revision };
    let variant = held.variant.clone();
    match state {
        TaskPhase::Fetching => Phase::Fetching { task },
        TaskPhase::Verified => Phase::Verified { task, variant },
        TaskPhase::Staged => Phase::Staged { task, variant },
        TaskPhase::SelfTest => Phase::SelfTest { task, variant, tries_left: 2 },
        TaskPhase::Activating => Phase::Activating { task, variant, tries_left: 2 },
        TaskPhase::Probation => Phase::Probation { task, boots_left: 3 },
        other => unreachable!("{other:?} is no step"),
    }
}

/// What is wrong on the disk, and in what the agent is told.
fn put(fault: Fault, dir: &Path, core: &mut Core, new: &Made) {
    let model = new.blobs[0].0.digest.to_hex();
    match fault {
        Fault::PowerCut | Fault::NoModel | Fault::OtherAnswers => {}
        Fault::ReadOnlyDisk => {
            for copy in ["boot.a", "boot.b"].map(|copy| dir.join(copy)) {
                let _none_yet = std::fs::remove_file(&copy);
                std::fs::create_dir(&copy).unwrap();
            }
        }
        Fault::DamagedBlob => {
            let path = dir.join("blobs").join(model);
            if let Ok(mut bytes) = std::fs::read(&path) {
                bytes[100] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        Fault::LostManifest => {
            std::fs::remove_file(dir.join("manifests").join(new.held.release.digest.to_hex())).unwrap();
        }
        Fault::Hang => core.config.step_timeout = Duration::ZERO,
        Fault::NoMemory => core.config.memory_budget_bytes = INT8_BYTES,
    }
}

async fn played(state: TaskPhase, fault: Fault) -> Played {
    let (dir, origin, new) = (tempfile::tempdir().unwrap(), Origin::begin(), fault.new_release());
    prepare(dir.path(), state, &new);
    for (blob, bytes) in &new.blobs {
        origin.put(format!("/blobs/v1/sha256/{}", blob.digest), bytes.clone());
    }
    let mut core = Rig::core(dir.path(), Some(origin.client()), Vitals::default());
    core.config.start_jitter = Duration::ZERO;
    core.config.probation = Some(Duration::ZERO);
    put(fault, dir.path(), &mut core, &new);
    core.start().await;
    let model = name("digits");
    let answers = |core: &Core| {
        core.table.active(&model).map_or("nobody".to_owned(), |loaded| loaded.release.version.to_string())
    };
    let first = answers(&core);
    let core = drive(core, |reported| {
        let cannot_go_on =
            reported.problems.iter().any(|problem| problem.kind == ProblemKind::BootRecordUnwritable);
        cannot_go_on || reported.models.iter().all(|model| model.phase.is_terminal())
    })
    .await;
    let record = core.model(&model);
    (first, record.phase.word(), record.phase.cause().map(|cause| cause.kind), answers(&core))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_around_a_step_something_answers_and_the_update_ends_as_the_table_says() {
    let cases = STATES.into_iter().flat_map(|state| FAULTS.map(|fault| (state, fault)));
    for (state, fault) in cases {
        assert_eq!(Box::pin(played(state, fault)).await, expected(state, fault), "{state:?} x {fault:?}");
    }
}
