//! What the update machine says: task reports as they happen, the state for hello and status, the log.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use protocol::message::{Cause, CauseKind, ModelState, TaskPhase, TaskReport};
use protocol::{ModelName, ReleaseRef, Revision, UnixMillis};

use super::core::Core;
use super::fence;
use super::metadata::Freshness;
use super::selftest::cause;
use crate::health::{Problem, ProblemKind};
use crate::machine::{Phase, Record, Task};

/// What the device says of its updates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reported {
    /// Revision of the last accepted Desired.
    pub revision: Revision,
    /// Each model's slots.
    pub models: Vec<ModelState>,
    /// The trusted metadata.
    pub metadata: Option<Freshness>,
    /// Since when the active release of each model serves, over restarts.
    pub since: BTreeMap<ModelName, UnixMillis>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Core {
    pub(super) fn report(&self, model: &ModelName) {
        let record = self.model(model);
        let Some(task) = record.phase.task() else {
            self.tasks.send_modify(|tasks| drop(tasks.remove(model)));
            return;
        };
        let report =
            self.task_report(model, task, record.phase.word(), record.phase.cause().cloned(), &record);
        self.tasks.send_modify(|tasks| {
            tasks.insert(model.clone(), report.clone());
        });
        let _full = self.reports.try_send(report);
    }

    pub(super) fn report_superseded(&self, model: &ModelName, task: &Task, end: TaskPhase) {
        let record = self.model(model);
        let why = cause(CauseKind::Superseded, "the server asked for another release".into());
        let _full = self.reports.try_send(self.task_report(model, task, end, Some(why), &record));
    }

    fn task_report(
        &self,
        model: &ModelName,
        task: &Task,
        phase: TaskPhase,
        cause: Option<Cause>,
        record: &Record,
    ) -> TaskReport {
        TaskReport {
            at: self.clock.now(),
            rollout: task.rollout.clone(),
            revision: task.revision,
            attempt: Some(task.attempt),
            model: model.clone(),
            release: task.release.clone(),
            phase,
            cause,
            progress: None,
            self_test: record.self_test.map(|tested| tested.0),
        }
    }

    /// Says the state to hello and status.
    pub(super) fn announce(&self) {
        let record = self.record();
        let absent: BTreeMap<ModelName, String> = self.table.all_absent().into_iter().collect();
        let answers = |model: &ModelName| self.table.active(model).map(|loaded| loaded.release.clone());
        let state = |(model, record)| model_state(model, record, answers(model), absent.get(model).cloned());
        let models = record.models.iter().map(state).collect();
        let ends = record.models.iter().filter_map(|(model, record)| ended_badly(model, record));
        let not_loaded = absent.iter().map(|(model, why)| {
            Problem::new(ProblemKind::ModelAbsent, format!("{model} is not loaded: {why}"))
        });
        let lost = record.models.iter().filter_map(|(model, record)| {
            let lost = record.lost.as_ref()?;
            let instead = answers(model).map_or("nothing".to_owned(), |release| release.version.to_string());
            let detail = format!(
                "{model} {} can't be loaded: {}; {instead} answers instead",
                lost.release.version, lost.cause.detail
            );
            Some(Problem::new(ProblemKind::ReleaseLost, detail))
        });
        let fenced = record.models.iter().filter_map(|(model, record)| fence::problem(model, record));
        let since = record.models.iter().filter_map(|(model, record)| Some((model.clone(), record.since?)));
        let reported = Reported {
            // Also below a floor that was taken back: the server signs anew for who is ahead of it.
            revision: record.revision.min(Revision::MAX),
            models,
            since: since.collect(),
            metadata: *self.metadata.lock().unwrap_or_else(PoisonError::into_inner),
            problems: self
                .lasting_problems
                .iter()
                .chain(&self.trouble)
                .chain(&self.metadata_trouble)
                .cloned()
                .chain(lost)
                .chain(self.clock.ahead())
                .chain(self.over_budget())
                .chain(not_loaded)
                .chain(self.candidates_out())
                .chain(fenced)
                .chain(self.smaller())
                .chain(ends)
                .collect(),
        };
        self.reported.send_if_modified(|old| {
            let is_new = *old != reported;
            *old = reported;
            is_new
        });
    }
}

/// The active release is the one that `answers`; before it is loaded, and when it can't be, the recorded one.
fn model_state(
    model: &ModelName,
    record: &Record,
    answers: Option<ReleaseRef>,
    absent: Option<String>,
) -> ModelState {
    let candidate = record.phase.task().filter(|_| {
        let word = record.phase.word();
        !word.is_terminal() && word != TaskPhase::Idle
    });
    ModelState {
        model: model.clone(),
        active: answers.or_else(|| record.active.as_ref().map(|held| held.release.clone())),
        candidate: candidate.map(|task| task.release.clone()),
        fallback: record.fallback.as_ref().map(|held| held.release.clone()),
        phase: record.phase.word(),
        absent,
    }
}

/// What to say of a model whose last update ended badly.
fn ended_badly(model: &ModelName, record: &Record) -> Option<Problem> {
    let (cause, task) = (record.phase.cause()?, record.phase.task()?);
    let kept = record.active.as_ref().filter(|active| active.release == task.release);
    let of = kept
        .map_or_else(String::new, |kept| format!(" in another variant than {}, which is kept", kept.variant));
    let word = record.phase.word();
    let detail = format!("{model} {}{of}: {word:?}: {}", task.release.version, cause.detail);
    Some(Problem::new(ProblemKind::UpdateEnded(cause.kind), detail))
}

pub(super) fn log_transition(model: &ModelName, phase: &Phase) {
    let version = phase.task().map(|task| task.release.version.to_string()).unwrap_or_default();
    if let Some(Cause { kind, detail }) = phase.cause() {
        tracing::warn!(model = %model, version, phase = ?phase.word(), cause = ?kind, detail, "update ended");
    } else {
        tracing::info!(model = %model, version, phase = ?phase.word(), "update goes on");
    }
}
