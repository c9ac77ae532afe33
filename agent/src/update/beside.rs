//! Candidates that run beside what serves. Committed releases go first: a candidate takes only the room that they leave,
//! runs only where something answers that it can be compared with, and gives way to a committed release that needs its
//! room. One that waits stays what it is in the boot record, is said as a problem, and is looked at again and again.

use protocol::ModelName;

use super::core::{Core, is_of};
use super::memory;
use crate::health::{Problem, ProblemKind};
use crate::machine::{Event, Held, Phase};

/// Why a candidate doesn't run beside.
const NOTHING_ANSWERS: &str = "nothing answers for this model that it could be compared with";

impl Core {
    /// Lets every candidate run beside that is to, as far as room goes; the others wait.
    pub(super) async fn follow_shadows(&mut self) {
        let waiting = self.waiting_beside();
        let before = std::mem::take(&mut self.kept_beside);
        // None of them is in memory yet: none counts before its own turn.
        self.kept_beside = waiting.iter().map(|(model, _)| (model.clone(), String::new())).collect();
        for (model, held) in waiting {
            match self.runs_beside(&model, &held) {
                Ok(()) => self.begin_shadow(&model, held).await,
                Err(why) => self.keep_beside_out(&model, why),
            }
        }
        if before != self.kept_beside {
            self.announce();
        }
    }

    /// Ends candidates beside until `held` fits, those first whose model serves shortest. The candidate of `model`
    /// itself ends with the swap.
    pub(super) fn give_way(&mut self, model: &ModelName, held: &Held) {
        for other in self.by_service().into_iter().rev().filter(|other| other != model) {
            if self.fits_beside(model, held) {
                return;
            }
            if let Some(candidate) = self.table.shadow(&other) {
                tracing::warn!(model = %other, version = %candidate.release.version, %model, "the candidate beside gives way");
                self.table.set_shadow(&other, None);
                self.keep_beside_out(&other, format!("it gave way to {model} {}", held.release.version));
            }
        }
    }

    /// Candidates that wait, and for what.
    pub(super) fn candidates_out(&self) -> impl Iterator<Item = Problem> {
        let told = self.kept_beside.iter().filter(|(_, why)| !why.is_empty());
        told.filter_map(|(model, why)| {
            let Phase::Shadow { task, .. } = self.model(model).phase else { return None };
            let detail = format!("{model} {} does not run beside: {why}", task.release.version);
            Some(Problem::new(ProblemKind::CandidateAbsent, detail))
        })
    }

    fn waiting_beside(&self) -> Vec<(ModelName, Held)> {
        let waiting = self.by_service().into_iter().filter_map(|model| {
            let Phase::Shadow { task, variant, .. } = self.model(&model).phase else { return None };
            let held = Held { release: task.release, variant };
            let runs = self.table.shadow(&model).is_some_and(|shadow| is_of(&shadow, &held));
            (!runs).then_some((model, held))
        });
        waiting.collect()
    }

    /// Whether there is something to compare it with, and room.
    fn runs_beside(&self, model: &ModelName, held: &Held) -> Result<(), String> {
        let active = self.table.active(model).ok_or(NOTHING_ANSWERS)?;
        let used = self.used_by_others(model).saturating_add(memory::of(&active));
        let fits = memory::still_fits(self.declared(held), used, self.config.memory_budget_bytes);
        fits.map_err(|why| why.to_string())
    }

    fn keep_beside_out(&mut self, model: &ModelName, why: String) {
        // What the self-test has loaded would be in memory all the same.
        self.warm.remove(model);
        self.kept_beside.insert(model.clone(), why);
    }

    async fn begin_shadow(&mut self, model: &ModelName, held: Held) {
        self.kept_beside.remove(model);
        let loaded = match self.warm(model, &held) {
            Some(loaded) => Ok(loaded),
            None => self.load(model, held).await,
        };
        match loaded {
            Ok(loaded) => self.table.set_shadow(model, Some(loaded)),
            Err(cause) => Box::pin(self.apply(model, Event::Failed(cause))).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{ModelName, Revision, UnixMillis};
    use trust::desired::Mode;

    use super::super::rig::{F32_BYTES, INT8_BYTES, Rig, name};
    use super::*;
    use crate::machine::{Phase, Task};

    fn task(rig: &Rig, mode: Mode) -> Task {
        Task { release: rig.held.release.clone(), mode, rollout: None, attempt: 0, revision: Revision(1) }
    }

    /// `slow` answers longest, has a candidate, and `tiny` came later.
    fn rig(budget: u64) -> (Rig, ModelName, ModelName) {
        let mut rig = Rig::new();
        let (slow, tiny) = (name("slow"), name("tiny"));
        let shadow = Phase::Shadow { task: task(&rig, Mode::Shadow), variant: "f32".into(), boots_left: 3 };
        rig.stands(&slow, shadow);
        let committed = Phase::Committed { task: task(&rig, Mode::Replace) };
        rig.stands(&tiny, committed);
        let mut boot = rig.core.record().clone();
        for (model, since) in [(&slow, 1), (&tiny, 2)] {
            boot.models.get_mut(model).unwrap().since = Some(UnixMillis(since));
        }
        assert!(rig.core.persist(boot));
        rig.core.config.memory_budget_bytes = budget;
        (rig, slow, tiny)
    }

    fn memory_of_all(core: &Core) -> u64 {
        let all = core.table.all_active().into_iter().chain(core.table.all_shadow());
        all.map(|loaded| memory::of(&loaded)).sum()
    }

    fn says(core: &Core) -> Vec<String> {
        let problems = core.reported.borrow().problems.clone();
        let absent = problems.into_iter().filter(|problem| problem.kind == ProblemKind::CandidateAbsent);
        absent.map(|problem| problem.detail).collect()
    }

    #[tokio::test]
    async fn at_a_start_all_that_was_committed_goes_before_a_candidate() {
        const ALL: u64 = INT8_BYTES * 2 + F32_BYTES;
        for (budget, active, candidate) in [
            (INT8_BYTES - 1, 0, false),
            (INT8_BYTES * 2, 2, false),
            (ALL - 1, 2, false),
            (ALL, 2, true),
            (0, 2, true),
        ] {
            let (mut rig, slow, _) = rig(budget);
            rig.core.start().await;
            assert_eq!(rig.core.table.all_active().len(), active, "{budget}");
            assert_eq!(rig.core.table.shadow(&slow).is_some(), candidate, "{budget}");
            assert!(budget == 0 || memory_of_all(&rig.core) <= budget, "{budget}");
            assert_eq!(says(&rig.core).len(), usize::from(!candidate), "{budget}: {:?}", says(&rig.core));
            assert!(matches!(rig.core.model(&slow).phase, Phase::Shadow { .. }), "{budget}");
        }
    }

    #[tokio::test]
    async fn a_candidate_runs_beside_again_once_its_active_release_is_back_and_there_is_room() {
        let (mut rig, slow, tiny) = rig(INT8_BYTES - 1);
        rig.core.start().await;
        assert!(says(&rig.core)[0].contains("slow 1.0.0") && says(&rig.core)[0].contains(NOTHING_ANSWERS));
        rig.core.config.memory_budget_bytes = INT8_BYTES * 2 + F32_BYTES - 1;
        rig.core.follow_room().await;
        assert!(rig.core.table.active(&slow).is_some() && rig.core.table.active(&tiny).is_some());
        assert!(rig.core.table.shadow(&slow).is_none());
        let why = says(&rig.core).concat();
        assert!(why.contains("17000000 bytes of memory, the budget is 16999999"), "{why}");
        rig.core.config.memory_budget_bytes += 1;
        rig.core.follow_room().await;
        assert!(rig.core.table.shadow(&slow).is_some() && says(&rig.core).is_empty());
        // What comes back without a change of the budget brings its candidate with it.
        rig.core.table.set_absent(&slow, "x".into());
        rig.core.load_active(&slow).await;
        rig.core.follow_room().await;
        assert!(rig.core.table.shadow(&slow).is_some());
    }

    #[tokio::test]
    async fn a_candidate_gives_way_to_what_was_committed_and_while_it_waits_takes_no_room() {
        let (mut rig, slow, tiny) = rig(0);
        rig.core.load_active(&slow).await;
        rig.core.follow_shadows().await;
        assert!(rig.core.table.shadow(&slow).is_some());
        rig.core.config.memory_budget_bytes = INT8_BYTES + F32_BYTES;
        rig.core.load_active(&tiny).await;
        assert!(rig.core.table.active(&tiny).is_some() && rig.core.table.shadow(&slow).is_none());
        rig.core.follow_room().await;
        assert_eq!(says(&rig.core).len(), 1, "{:?}", says(&rig.core));
        assert_eq!(rig.core.used_by_all(), INT8_BYTES * 2);
    }

    #[tokio::test]
    async fn what_the_self_test_has_loaded_is_freed_when_it_finds_no_room_beside() {
        let (mut rig, slow, _) = rig(INT8_BYTES * 2);
        rig.core.start().await;
        let loaded = rig.load(&slow, &rig.held_as("f32"));
        let there = std::sync::Arc::downgrade(&loaded);
        rig.core.keep_warm(loaded);
        rig.core.follow_shadows().await;
        assert!(there.upgrade().is_none());
    }
}
