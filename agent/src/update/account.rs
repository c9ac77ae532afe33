//! The account of declared memory: what the manifests allow what serves, what runs beside it, candidates on their way,
//! and threads that nothing can interrupt, until they end. Room for another release is what it leaves of the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::ModelName;
use protocol::message::{Cause, CauseKind};
use trust::desired::{DesiredModel, Mode};

use super::core::Core;
use super::memory::{self, OverBudget, Refusal, Room};
use crate::health::{Problem, ProblemKind};
use crate::machine::{Event, Held, Phase, Record, Task};
use crate::slots::Loaded;

/// Memory that threads hold which load a release. Clones see the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Passing(Arc<AtomicU64>);

/// Part of it, until dropped: by the thread itself, once what it loaded is freed or handed on.
#[derive(Debug)]
pub(super) struct Reserved {
    of: Passing,
    bytes: u64,
}

impl Passing {
    pub(super) fn reserve(&self, bytes: u64) -> Reserved {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Reserved { of: self.clone(), bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one model takes now, and once its update is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Claim {
    serves: u64,
    candidate: u64,
    is_beside: bool,
}

impl Claim {
    /// A candidate that takes the other's place brings only what it is larger by; both are there for the moment of the
    /// swap.
    fn bytes(self) -> u64 {
        if self.is_beside {
            self.serves.saturating_add(self.candidate)
        } else {
            self.serves.max(self.candidate)
        }
    }
}

impl Core {
    /// Memory that a candidate of `model` finds taken.
    pub(super) fn used_by_others(&self, model: &ModelName) -> u64 {
        self.used(|other| other != model)
    }

    /// The room that a candidate of `model` finds. One that runs beside needs its memory beside that of the release that
    /// answers.
    pub(super) fn room_for(&self, model: &ModelName, mode: Mode) -> Room {
        let beside = match mode {
            Mode::Shadow => self.table.active(model).map_or(0, |loaded| memory::of(&loaded)),
            Mode::Replace | Mode::Ab => 0,
        };
        Room {
            used_by_others: self.used_by_others(model).saturating_add(beside),
            budget: self.config.memory_budget_bytes,
            soft: self.footprint.soft(),
        }
    }

    /// Loads what was committed, and begins anew what is still asked for, where either found no room and there is room now.
    pub(super) async fn follow_room(&mut self) {
        while let Some(model) = self.kept_out_with_room() {
            tracing::info!(model = %model, "there is room in memory for its active release now");
            self.load_active(&model).await;
            self.announce();
        }
        // How much is lacking changes with what else serves.
        for model in &self.kept_out {
            let Some(held) = self.model(model).active else { continue };
            if let Err(why) = self.still_fits(model, &held) {
                self.table.set_absent(model, format!("{}: {why}", held.release.version));
            }
        }
        let boot = self.record();
        let finds_room = |wanted: &&DesiredModel| {
            let record = boot.models.get(&wanted.model);
            let lacked = record.and_then(|record| record.lacks(&Task::of(wanted, boot.revision)));
            lacked.is_some_and(|lacked| self.room_for(&wanted.model, wanted.mode).has(lacked))
        };
        let found: Vec<DesiredModel> = boot.desired.iter().filter(finds_room).cloned().collect();
        for DesiredModel { model, release, .. } in found {
            tracing::info!(model = %model, version = %release.version, "there is room in memory for it now");
            self.apply(&model, Event::RoomGrew).await;
        }
        self.follow_variants().await;
        self.follow_shadows().await;
    }

    fn kept_out_with_room(&self) -> Option<ModelName> {
        let fits = |model: &&ModelName| {
            let held = self.model(model).active;
            held.is_none_or(|held| self.still_fits(model, &held).is_ok())
        };
        let mut models = self.by_service();
        models.retain(|model| self.kept_out.contains(model));
        models.iter().find(fits).cloned()
    }

    /// All models, the ones first whose active release serves longest, those in probation last: where memory is short what
    /// is proven stays, as it does beside a new release that finds no room.
    pub(super) fn by_service(&self) -> Vec<ModelName> {
        let mut models: Vec<_> = self.record().models.iter().collect();
        // Stable: of the same time by name. An earlier version noted no time.
        models.sort_by_key(|(_, record)| (matches!(record.phase, Phase::Probation { .. }), record.since));
        models.into_iter().map(|(model, _)| model.clone()).collect()
    }

    /// That what serves is allowed more than a budget that was lowered meanwhile.
    pub(super) fn over_budget(&self) -> Option<Problem> {
        let loaded = self.table.all_active().into_iter().chain(self.table.all_shadow());
        let used = loaded.map(|loaded| memory::of(&loaded)).fold(0, u64::saturating_add);
        let budget = self.config.memory_budget_bytes;
        let detail = format!(
            "the models that serve may take {used} bytes of memory together, update.memory_budget_bytes is {budget}; they go \
             on until smaller variants take their place, or until the next start, which leaves out what finds no room"
        );
        (budget > 0 && used > budget).then(|| Problem::new(ProblemKind::OverBudget, detail))
    }

    /// Memory that something finds taken which takes no release's place.
    pub(super) fn used_by_all(&self) -> u64 {
        self.used(|_| true)
    }

    fn used(&self, is_counted: impl Fn(&ModelName) -> bool) -> u64 {
        let models = self.record().models.iter().filter(|(model, _)| is_counted(model));
        let claims = models.map(|(model, record)| self.claim(model, record).bytes());
        claims.fold(self.passing.bytes(), u64::saturating_add)
    }

    fn claim(&self, model: &ModelName, record: &Record) -> Claim {
        let serves = self.table.active(model).map_or(0, |loaded| memory::of(&loaded));
        if matches!(record.phase, Phase::Shadow { .. }) && self.kept_beside.contains_key(model) {
            return Claim { serves, ..Claim::default() };
        }
        let (Some(task), Some(variant)) = (record.phase.task(), record.phase.variant()) else {
            return Claim { serves, ..Claim::default() };
        };
        let candidate = self.declared(&Held { release: task.release.clone(), variant: variant.to_owned() });
        Claim { serves, candidate, is_beside: task.mode == Mode::Shadow }
    }

    /// What a release's manifest allows it; a manifest that can't be read is found out by the load itself.
    pub(super) fn declared(&self, held: &Held) -> u64 {
        let manifest = self.shelf.manifest(held.release.digest).ok();
        let variant = manifest.as_ref().and_then(|manifest| manifest.variant(&held.variant));
        variant.map_or(0, |variant| variant.peak_memory_bytes)
    }

    /// For a thread that loads `held`.
    pub(super) fn reserve(&self, held: &Held) -> Reserved {
        self.passing.reserve(self.declared(held))
    }

    /// Whether a release that is loaded again still fits beside what serves already: what was committed goes before
    /// candidates, which give way.
    ///
    /// # Errors
    /// [`OverBudget`].
    pub(super) fn still_fits(&self, model: &ModelName, held: &Held) -> Result<(), OverBudget> {
        let manifest = self.shelf.manifest(held.release.digest);
        let exceeds = |manifest| self.exceeds_device(&manifest, &held.variant);
        if manifest.is_ok_and(exceeds) {
            return Err(OverBudget::OfDevice { needed: self.declared(held) });
        }
        self.fits(model, held, self.table.all_active())
    }

    /// Whether it fits beside what serves and the candidates that run beside that.
    pub(super) fn fits_beside(&self, model: &ModelName, held: &Held) -> bool {
        let all = self.table.all_active().into_iter().chain(self.table.all_shadow());
        self.fits(model, held, all).is_ok()
    }

    fn fits(
        &self,
        model: &ModelName,
        held: &Held,
        loaded: impl IntoIterator<Item = Arc<Loaded>>,
    ) -> Result<(), OverBudget> {
        let others = loaded.into_iter().filter(|loaded| loaded.model != *model);
        let used = others.map(|loaded| memory::of(&loaded)).fold(0, u64::saturating_add);
        memory::still_fits(self.declared(held), used, self.config.memory_budget_bytes)
    }
}

/// Why a release was refused, when `passing` bytes of the account were those of threads that had been given up: where
/// that may be why it found no room, it is tried again.
pub(super) fn refused(why: Refusal, passing: u64) -> Refusal {
    if why.lacked.is_none() || passing == 0 {
        return why;
    }
    let detail = format!(
        "{}; {passing} bytes of it are held by a step or a measurement that was given up and has not ended yet",
        why.cause.detail
    );
    Cause { kind: CauseKind::Timeout, detail }.into()
}

#[cfg(test)]
mod tests {
    use protocol::message::TaskPhase;

    use super::super::rig::{F32_BYTES, INT8_BYTES, Rig, name};
    use super::*;

    #[tokio::test]
    async fn a_candidate_counts_before_it_is_loaded_and_once_when_it_is() {
        let mut rig = Rig::new();
        let (a, b) = (name("a"), name("b"));
        let variant = || "f32".to_owned();
        let staged = Phase::Staged { task: rig.task(Mode::Replace), variant: variant() };
        rig.stands(&a, staged);
        assert_eq!((rig.core.used_by_others(&a), rig.core.used_by_others(&b)), (0, F32_BYTES));
        rig.core.table.swap(rig.load(&a, &rig.held));
        assert_eq!(rig.core.used_by_others(&b), F32_BYTES, "it takes the place of what serves");
        let shadow = Phase::Shadow { task: rig.task(Mode::Shadow), variant: variant(), boots_left: 1 };
        rig.stands(&a, shadow);
        assert_eq!(rig.core.used_by_others(&b), INT8_BYTES + F32_BYTES, "it is to run beside");
        let candidate = rig.load(&a, &rig.held_as("f32"));
        rig.core.keep_warm(candidate.clone());
        rig.core.table.set_shadow(&a, Some(candidate));
        assert_eq!(rig.core.used_by_all(), INT8_BYTES + F32_BYTES, "it runs beside");
    }

    #[tokio::test]
    async fn at_a_start_what_was_committed_goes_before_candidates_that_wait() {
        let mut rig = Rig::new();
        rig.core.config.memory_budget_bytes = F32_BYTES;
        let waits = Phase::Staged { task: rig.task(Mode::Replace), variant: "f32".into() };
        rig.stands(&name("a"), waits);
        assert_eq!(rig.core.still_fits(&name("b"), &rig.held), Ok(()));
        rig.core.table.swap(rig.load(&name("a"), &rig.held_as("f32")));
        assert!(rig.core.still_fits(&name("b"), &rig.held).is_err());
    }

    #[tokio::test]
    async fn what_a_lowered_budget_kept_out_returns_once_it_is_raised_and_what_serves_stays() {
        let mut rig = Rig::new();
        let model = name("digits");
        rig.stands(&model, Phase::Committed { task: rig.task(Mode::Replace) });
        rig.core.config.memory_budget_bytes = INT8_BYTES - 1;
        rig.core.load_active(&model).await;
        rig.core.follow_room().await;
        assert!(rig.core.table.active(&model).is_none(), "nothing has grown");
        rig.core.config.memory_budget_bytes = INT8_BYTES;
        rig.core.follow_room().await;
        assert!(rig.core.table.active(&model).is_some() && rig.core.over_budget().is_none());
        rig.core.config.memory_budget_bytes = INT8_BYTES - 1;
        rig.core.follow_room().await;
        assert!(rig.core.table.active(&model).is_some(), "it goes on");
        assert_eq!(rig.core.over_budget().map(|problem| problem.kind), Some(ProblemKind::OverBudget));
    }

    /// The f32 variant in probation, with int8 to go back to.
    fn in_probation() -> (Rig, ModelName) {
        let (mut rig, model) = (Rig::new(), name("digits"));
        rig.stands(&model, Phase::Probation { task: rig.task(Mode::Replace), boots_left: 3 });
        let mut boot = rig.core.record().clone();
        let record = boot.models.get_mut(&model).unwrap();
        (record.active, record.fallback) = (Some(rig.held_as("f32")), Some(rig.held.clone()));
        assert!(rig.core.persist(boot));
        (rig, model)
    }

    #[tokio::test]
    async fn in_probation_it_begins_anew_where_it_finds_no_room_and_a_fallback_that_does_serves() {
        for (budget, serves, phase) in [
            (F32_BYTES, Some("f32"), TaskPhase::Probation),
            (INT8_BYTES, Some("int8"), TaskPhase::Fetching),
            (INT8_BYTES - 1, None, TaskPhase::Fetching),
        ] {
            let (mut rig, model) = in_probation();
            rig.core.config.memory_budget_bytes = budget;
            rig.core.start().await;
            let loaded = rig.core.table.active(&model);
            assert_eq!(loaded.as_ref().map(|loaded| loaded.variant.as_str()), serves, "{budget}");
            assert_eq!(rig.core.model(&model).phase.word(), phase, "{budget}");
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_in_probation_and_cannot_be_written_down_leaves_its_fallback_answering() {
        let (mut rig, model) = in_probation();
        for copy in ["boot.a", "boot.b"].map(|copy| rig.folder.path().join(copy)) {
            let _none_yet = std::fs::remove_file(&copy);
            std::fs::create_dir(&copy).unwrap();
        }
        rig.core.config.memory_budget_bytes = INT8_BYTES;
        rig.core.start().await;
        rig.core.follow_room().await;
        let loaded = rig.core.table.active(&model);
        assert_eq!(loaded.as_ref().map(|loaded| loaded.variant.as_str()), Some("int8"));
        assert_eq!(rig.core.model(&model).phase.word(), TaskPhase::Probation);
    }

    #[tokio::test]
    async fn where_room_is_short_what_serves_longest_goes_first() {
        let mut rig = Rig::new();
        let committed = Phase::Committed { task: rig.task(Mode::Replace) };
        let models = [("a", 3), ("b", 1), ("c", 2)].map(|(model, since)| (name(model), since));
        for (model, since) in &models {
            rig.stands(model, committed.clone());
            let mut boot = rig.core.record().clone();
            boot.models.get_mut(model).unwrap().since = Some(protocol::UnixMillis(*since));
            assert!(rig.core.persist(boot));
        }
        rig.core.config.memory_budget_bytes = INT8_BYTES;
        rig.core.start().await;
        let serving = |core: &Core| {
            let active = core.table.all_active();
            active.iter().map(|loaded| loaded.model.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(serving(&rig.core), ["b"]);
        rig.core.config.memory_budget_bytes = INT8_BYTES * 2;
        rig.core.follow_room().await;
        assert_eq!(serving(&rig.core), ["b", "c"]);
    }

    #[tokio::test]
    async fn a_thread_that_loads_counts_until_it_ends() {
        let rig = Rig::new();
        let memory = rig.core.reserve(&rig.held_as("f32"));
        assert_eq!((rig.core.used_by_all(), rig.core.used_by_others(&name("a"))), (F32_BYTES, F32_BYTES));
        drop(memory);
        assert_eq!(rig.core.used_by_all(), 0);
    }

    #[test]
    fn what_found_no_room_beside_a_late_thread_is_tried_again() {
        let cause = |kind| Cause { kind, detail: "no room".into() };
        let lacked = Some(crate::machine::Lacked { needed_bytes: 1, soft_bytes: 0 });
        let why = Refusal { cause: cause(CauseKind::TooBig), lacked };
        assert_eq!(refused(why.clone(), 0), why);
        let later = refused(why, 5).cause;
        assert!(later.kind.is_retryable() && later.detail.contains("5 bytes"), "{later:?}");
        let other = Refusal::from(cause(CauseKind::Incompatible));
        assert_eq!(refused(other.clone(), 5), other);
    }
}
