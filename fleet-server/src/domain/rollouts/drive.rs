//! Feeding the engine and storing what it decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::message::TaskReport;
use protocol::{DeviceId, ProjectId, RolloutId, UnixMillis};
use rollout::{
    Action, Actor, Change, Entry, Event, Input, PauseReason, Rollout, StageState, Status, Verb, step,
};
use serde_json::json;
use tracing::{info, warn};
use trust::desired::{DesiredModel, Mode};

use super::create::why_withdrawn;
use super::{RolloutError, facts, measure};
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::audit;
use crate::link::TaskHook;
use crate::store::alerts::{self, ABORTED, ENDED, INVALIDATED, NewAlert, Over, ROLLED_BACK, Severity};
use crate::store::releases::{self, ReleaseState};
use crate::store::rollouts::{self, StoredEvidence};
use crate::store::{Conn, devices};
use crate::supervisor::with_causes;
use crate::tuf::SealKey;
use crate::tuf::director::{self, DirectorError, Wish};

/// Tries when another replica changes the same rollout at the same time.
const TRIES: usize = 5;

/// What one run of the engine is about.
enum Work<'a> {
    /// A person's decision.
    Order(&'a Order<'a>),
    /// Stored reports.
    Reports,
    /// Everything that time brings.
    Tick,
    /// A measurement.
    Measured(u16, &'a [rollout::Evidence]),
}

/// A person's decision about a rollout, and the words of its audit row.
#[derive(Debug)]
pub struct Order<'a> {
    /// The user who decides.
    pub username: &'a str,
    /// Who acts: the user, and the token if one was used.
    pub actor: &'a str,
    /// Name of the act in audit rows.
    pub action: &'a str,
    /// What is decided.
    pub verb: &'a Verb,
}

/// One rollout in one transaction.
pub(super) struct Session {
    project: ProjectId,
    rollout: Rollout,
    row_version: i64,
    now: UnixMillis,
    entries: Vec<Entry>,
    wishes: Vec<(DeviceId, Wish, bool)>,
    touched: BTreeSet<DeviceId>,
    sent: Vec<DeviceId>,
    /// Whether a person's decision changed anything.
    has_decided: bool,
    refused: Option<String>,
    measure: Option<(u16, UnixMillis)>,
}

/// Carries a person's decision out; its audit row stands in the same transaction.
///
/// # Errors
/// [`RolloutError::Refused`] when the engine says no; nothing is changed then.
pub async fn order(
    state: &AppState,
    project: &ProjectId,
    rollout: &RolloutId,
    order: &Order<'_>,
) -> Result<(), RolloutError> {
    run(state, project, rollout, Work::Order(order)).await.map(|_| ())
}

/// Takes in a device's stored report. Call it after the report's commit; a call that is lost is made up for by the
/// next tick.
///
/// # Errors
/// [`RolloutError`] when the database or the director's key fails.
pub async fn on_task_report(
    state: &AppState,
    project: &ProjectId,
    device: &DeviceId,
    report: &TaskReport,
) -> Result<(), RolloutError> {
    let open = rollouts::at_work_on(&mut *state.store.read().await?, project, &report.model, device).await?;
    for rollout in open {
        run(state, project, &rollout, Work::Reports).await?;
    }
    Ok(())
}

/// What the link calls after it has stored a report.
pub fn task_hook(state: &AppState) -> TaskHook {
    let state = state.clone();
    Arc::new(move |project, device, report| {
        let state = state.clone();
        Box::pin(async move {
            if let Err(e) = on_task_report(&state, &project, &device, &report).await {
                warn!(%project, %device, "a report waits for the next tick: {}", with_causes(&e));
            }
        })
    })
}

/// One tick of every rollout that isn't over. One that fails is named in the log and doesn't hold up the others.
///
/// # Errors
/// [`RolloutError`] when the list of rollouts can't be read.
pub async fn tick_all(state: &AppState) -> Result<(), RolloutError> {
    let all = rollouts::at_work(&mut *state.store.read().await?).await?;
    for (project, rollout) in all {
        if let Err(e) = tick_one(state, &project, &rollout).await {
            warn!(%project, %rollout, "rollout {rollout} can't go on now: {}", with_causes(&e));
        }
    }
    Ok(())
}

/// One tick of one rollout, with the measurement that it asks for.
///
/// # Errors
/// [`RolloutError`] when the database or the director's key fails.
pub async fn tick_one(
    state: &AppState,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<(), RolloutError> {
    let session = run(state, project, rollout, Work::Tick).await?;
    let Some((stage, from)) = session.measure else { return Ok(()) };
    let evidence = measure::measure(state, project, &session.rollout, stage, from).await?;
    run(state, project, rollout, Work::Measured(stage, &evidence)).await.map(|_| ())
}

async fn run(
    state: &AppState,
    project: &ProjectId,
    rollout: &RolloutId,
    work: Work<'_>,
) -> Result<Session, RolloutError> {
    for _ in 0..TRIES {
        let mut tx = state.store.begin().await?;
        let loaded = rollouts::load(&mut tx, project, rollout).await?;
        let (loaded, row_version) = loaded.ok_or(RolloutError::NotFound)?;
        let mut session = Session::new(project.clone(), loaded, row_version, state.clock.now());
        session.work(&mut tx, &work).await?;
        if let Some(why) = session.refused {
            return Err(RolloutError::Refused(why));
        }
        if session.save(&mut tx, &state.seal).await? {
            if let Work::Order(order) = &work
                && session.has_decided
            {
                let change =
                    audit::Change::new(session.now, order.actor, order.action, "rollout", rollout.as_str());
                audit::record(&mut tx, &change.in_project(project).after(order.verb)).await?;
            }
            tx.commit().await?;
            session.tell(state);
            return Ok(session);
        }
    }
    Err(RolloutError::Busy)
}

impl Session {
    pub(super) fn new(project: ProjectId, rollout: Rollout, row_version: i64, now: UnixMillis) -> Self {
        Self {
            project,
            rollout,
            row_version,
            now,
            entries: Vec::new(),
            wishes: Vec::new(),
            touched: BTreeSet::new(),
            sent: Vec::new(),
            has_decided: false,
            refused: None,
            measure: None,
        }
    }

    pub(super) fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    async fn work(&mut self, conn: &mut Conn, work: &Work<'_>) -> Result<(), RolloutError> {
        let engine = |event| Input { actor: Actor::Engine, event };
        match work {
            Work::Order(order) => {
                self.take_in_reports(conn).await?;
                self.refuse_outdated(conn, order.verb).await?;
                let (actor, known) = (Actor::User(order.username.to_owned()), self.entries.len());
                self.feed(Input { actor, event: Event::Verb(order.verb.clone()) });
                self.has_decided = self.entries.len() > known;
            }
            Work::Reports => self.take_in_reports(conn).await?,
            Work::Tick => {
                self.take_in_reports(conn).await?;
                self.follow_release(conn).await?;
                self.follow_fleet(conn).await?;
                self.feed(engine(Event::Tick));
            }
            Work::Measured(stage, evidence) => {
                self.feed(engine(Event::Measured { stage: *stage, evidence: evidence.to_vec() }));
            }
        }
        Ok(())
    }

    pub(super) fn feed(&mut self, input: Input) {
        let empty = Rollout::assemble(self.rollout.core().clone(), Vec::new());
        let before = std::mem::replace(&mut self.rollout, empty);
        let (after, actions) = step(before, input, self.now);
        self.rollout = after;
        for action in actions {
            self.note(action);
        }
    }

    fn note(&mut self, action: Action) {
        let plan = self.rollout.plan();
        let wish = |release, mode, attempt| Wish {
            model: plan.model.clone(),
            release,
            mode,
            rollout: Some(self.rollout.core().id.clone()),
            attempt,
        };
        match action {
            Action::Offer { device, mode, attempt, chances } => {
                let mode = match mode {
                    // Its share of devices is fixed by the engine; on each of them it simply serves.
                    rollout::Mode::Replace | rollout::Mode::Ab(_) => Mode::Replace,
                    rollout::Mode::Shadow => Mode::Shadow,
                };
                let wish = wish(Some(plan.release.clone()), mode, chances);
                self.wishes.push((device, wish, attempt > 1));
            }
            Action::Restore { device, to } => self.wishes.push((device, wish(to, Mode::Replace, 0), false)),
            Action::Measure { stage, from } => self.measure = Some((stage, from)),
            Action::Refuse { why } => self.refused = Some(why),
            Action::Record(entry) => {
                self.touched.extend(devices_of(&entry.change).cloned());
                self.entries.push(*entry);
            }
        }
    }

    async fn take_in_reports(&mut self, conn: &mut Conn) -> Result<(), RolloutError> {
        let (id, model) = (self.rollout.core().id.clone(), self.rollout.plan().model.clone());
        for (device, counter, report) in rollouts::unread_reports(conn, &self.project, &id, &model).await? {
            rollouts::set_read(conn, &self.project, &id, &device, counter).await?;
            let TaskReport { release, phase, cause, attempt, .. } = report;
            let (reporter, cause) = (device.clone(), cause.map(|c| c.kind));
            let event = Event::Report { device: reporter, release, phase, cause, attempt };
            self.feed(Input { actor: Actor::Device(device), event });
        }
        Ok(())
    }

    /// Devices go back from the newest release; that of an ended rollout may not be theirs any more.
    async fn refuse_outdated(&mut self, conn: &mut Conn, verb: &Verb) -> Result<(), RolloutError> {
        let status = self.rollout.status();
        let has_ended = status.is_terminal() && !matches!(status, Status::RolledBack { .. });
        if !matches!(verb, Verb::RollBack { .. }) || !has_ended {
            return Ok(());
        }
        let (model, core) = (&self.rollout.plan().model, self.rollout.core());
        match rollouts::newer_of(conn, &self.project, model, core.created_at).await? {
            Some((rollout, state)) if state == Status::Completed.name() => Err(RolloutError::Refused(
                format!("rollout {rollout} of this model came later: roll that one back"),
            )),
            Some((rollout, state)) => Err(RolloutError::Open { rollout, state }),
            None => Ok(()),
        }
    }

    /// What its publisher has withdrawn no device can fetch any more, and nobody should: no more offers. A rollout that
    /// goes back goes on with that.
    async fn follow_release(&mut self, conn: &mut Conn) -> Result<(), RolloutError> {
        let (plan, status) = (self.rollout.plan(), self.rollout.status());
        if status.is_terminal() || matches!(status, Status::RollingBack { .. }) {
            return Ok(());
        }
        let release = releases::by_digest(conn, &self.project, &plan.model, &plan.release.digest).await?;
        if let Some(release) = release.filter(|release| release.state == ReleaseState::Withdrawn) {
            let reason = why_withdrawn(conn, &self.project, &release).await?.to_owned();
            let event = Event::Verb(Verb::Invalidate { reason });
            self.feed(Input { actor: Actor::Engine, event });
        }
        Ok(())
    }

    /// Devices that left, that are new to a dynamic rollout, or that changed before the start.
    async fn follow_fleet(&mut self, conn: &mut Conn) -> Result<(), RolloutError> {
        let id = self.rollout.core().id.clone();
        for device in rollouts::gone_devices(conn, &self.project, &id).await? {
            self.feed(Input { actor: Actor::Engine, event: Event::Removed(device) });
        }
        let plan = self.rollout.plan();
        let is_starting = *self.rollout.status() == Status::Scheduled
            && plan.start_at.is_none_or(|start| start <= self.now);
        let is_joinable = plan.is_dynamic && self.rollout.status().is_offering();
        if !is_starting && !is_joinable {
            return Ok(());
        }
        let release = releases::by_digest(conn, &self.project, &plan.model, &plan.release.digest).await?;
        let manifest = release.and_then(|r| release::Manifest::reopen(&r.manifest, r.digest).ok());
        let Some(manifest) = manifest else { return Ok(()) };
        let facts = facts::fleet(conn, &self.project, &plan.model, &manifest).await?;
        self.feed(Input { actor: Actor::Engine, event: Event::Devices(facts) });
        Ok(())
    }

    /// Writes everything; `false` when another writer was first: nothing must be committed then.
    pub(super) async fn save(&mut self, conn: &mut Conn, seal: &SealKey) -> Result<bool, RolloutError> {
        if self.entries.is_empty() {
            return Ok(true);
        }
        let id = self.rollout.core().id.clone();
        if !rollouts::update(conn, &self.project, &self.rollout, self.row_version, self.now).await? {
            return Ok(false);
        }
        let touched = self.touched.iter().filter_map(|device| self.rollout.task(device));
        rollouts::write_tasks(conn, &self.project, &id, touched).await?;
        rollouts::append(conn, &self.project, &id, &self.entries).await?;
        self.keep_evidence(conn, &id).await?;
        self.raise_alert(conn, &id).await?;
        for (device, wish, is_again) in std::mem::take(&mut self.wishes) {
            self.wish(conn, seal, device, wish, is_again).await?;
        }
        Ok(true)
    }

    async fn wish(
        &mut self,
        conn: &mut Conn,
        seal: &SealKey,
        device: DeviceId,
        wish: Wish,
        is_again: bool,
    ) -> Result<(), RolloutError> {
        let row = devices::get(conn, &self.project, &device).await?;
        let Some(row) = row.filter(|row| row.decommissioned_at.is_none()) else {
            // The engine learns of it with the next tick.
            return Ok(());
        };
        let ours = &self.rollout.plan().release;
        let is_ours =
            |desired: &DesiredModel| desired.model == wish.model && desired.release.digest == ours.digest;
        if wish.release.as_ref() != Some(ours) && !director::models(&row).iter().any(is_ours) {
            // Another rollout's release is desired by now: nothing to take back.
            return Ok(());
        }
        if is_again {
            // The same wish would change nothing; taking it out first makes the next revision ask again.
            let without = Wish { release: None, ..wish.clone() };
            self.sign(conn, seal, &device, without).await?;
        }
        if self.sign(conn, seal, &device, wish).await? {
            self.sent.push(device);
        }
        Ok(())
    }

    /// Whether anything changed. A device whose revisions are used up is named and left as it is: no reason to stop
    /// for the others.
    async fn sign(
        &self,
        conn: &mut Conn,
        seal: &SealKey,
        device: &DeviceId,
        wish: Wish,
    ) -> Result<bool, RolloutError> {
        match director::set_desired_in(conn, seal, &self.project, device, wish, self.now).await {
            Ok((_, is_changed)) => Ok(is_changed),
            Err(spent @ DirectorError::Spent { .. }) => {
                warn!(project = %self.project, %device, "device {device} is left out: {spent}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A verdict is stored with its gate and its numbers, so that it can be understood without the rest.
    async fn keep_evidence(&self, conn: &mut Conn, id: &RolloutId) -> Result<(), RolloutError> {
        for entry in &self.entries {
            let Change::Stage { stage, to: StageState::GatePassed | StageState::GateFailed, gates, .. } =
                &entry.change
            else {
                continue;
            };
            let defined = self.rollout.gates(*stage);
            let evidence = &self.rollout.core().stages[usize::from(*stage)].evidence;
            for judged in gates {
                let gate = defined.iter().find(|gate| gate.label() == judged.gate);
                let found =
                    gate.and_then(|g| evidence.iter().find(|e| e.metric == g.metric && e.slice == g.slice));
                let stored = StoredEvidence {
                    stage: *stage,
                    gate: judged.gate.clone(),
                    at: entry.at,
                    is_passed: match judged.verdict {
                        rollout::Verdict::Passed(_) => Some(true),
                        rollout::Verdict::Failed(_) => Some(false),
                        rollout::Verdict::Open(_) => None,
                    },
                    body: json!({ "gate": gate, "judged": judged, "evidence": found }),
                };
                rollouts::keep_evidence(conn, &self.project, id, &stored).await?;
            }
        }
        Ok(())
    }

    /// Someone should look when a rollout stops by itself. The alert closes when it goes on, or when somebody decides
    /// otherwise; that of one that ended by itself, when somebody takes note or a later rollout of the model completes.
    async fn raise_alert(&self, conn: &mut Conn, id: &RolloutId) -> Result<(), RolloutError> {
        let last = self.entries.iter().rev().find_map(|e| match &e.change {
            Change::Status { to, .. } => Some((to, matches!(e.actor, Actor::User(_)))),
            _ => None,
        });
        let (status, is_by_person) = last.unzip();
        let is_by_itself = is_by_person == Some(false);
        if let Some(status) = status {
            self.close_alerts(conn, id, status).await?;
        }
        let (kind, severity, message) = match status {
            Some(Status::Paused { reason: PauseReason::Gate(why), .. }) => {
                ("gate_failed", Severity::Warning, why)
            }
            Some(Status::Paused { reason: PauseReason::ErrorBudget(why), .. }) => {
                ("budget_exceeded", Severity::Warning, why)
            }
            Some(Status::RollingBack { by: rollout::RollbackReason::Gate, reason, .. }) => {
                (ROLLED_BACK, Severity::Critical, reason)
            }
            Some(Status::Aborted { reason }) if is_by_itself => (ABORTED, Severity::Critical, reason),
            Some(Status::Invalidated { reason }) if is_by_itself => (INVALIDATED, Severity::Warning, reason),
            Some(_) | None => return Ok(()),
        };
        let plan = self.rollout.plan();
        let alert = NewAlert {
            key: format!("rollout:{id}:{kind}"),
            kind: kind.into(),
            severity,
            device: None,
            model: Some(plan.model.clone()),
            rollout: Some(id.clone()),
            message: format!("Rollout of {} {}: {message}", plan.model, plan.release.version),
            details: json!({ "stage": self.rollout.status().stage() }),
        };
        alerts::raise(conn, &self.project, &alert, self.now).await?;
        Ok(())
    }

    async fn close_alerts(
        &self,
        conn: &mut Conn,
        id: &RolloutId,
        status: &Status,
    ) -> Result<(), RolloutError> {
        if matches!(status, Status::Paused { .. }) {
            return Ok(());
        }
        for kind in ["gate_failed", "budget_exceeded"] {
            alerts::close(conn, &self.project, Over::Key(&format!("rollout:{id}:{kind}")), self.now).await?;
        }
        if matches!(status, Status::Completed) {
            let model = &self.rollout.plan().model;
            for kind in ENDED {
                alerts::close(conn, &self.project, Over::OfModel(kind, model), self.now).await?;
            }
        }
        Ok(())
    }

    /// Hints for everyone else; call it after the commit.
    pub(super) fn tell(&self, state: &AppState) {
        if self.entries.is_empty() {
            return;
        }
        for device in &self.sent {
            director::send(state, &self.project, device);
        }
        let (project, core) = (&self.project, self.rollout.core());
        state.bus.changed(project, ChangeKind::Rollout, core.id.as_str());
        for entry in &self.entries {
            if let Change::Status { from, to } = &entry.change {
                let (rollout, from, to) = (&core.id, from.name(), to.name());
                info!(%project, %rollout, "rollout {rollout} went from {from} to {to}: {}", entry.cause);
            }
        }
    }
}

fn devices_of(change: &Change) -> impl Iterator<Item = &DeviceId> {
    let (many, one) = match change {
        Change::Joined { devices } | Change::Filled { devices, .. } => (devices.as_slice(), None),
        Change::Task { device, .. }
        | Change::Waiting { device, .. }
        | Change::Restore { device }
        | Change::Late { device, .. } => (&[][..], Some(device)),
        Change::Status { .. }
        | Change::Stage { .. }
        | Change::Measured { .. }
        | Change::BudgetAccepted { .. } => (&[][..], None),
    };
    many.iter().chain(one)
}
