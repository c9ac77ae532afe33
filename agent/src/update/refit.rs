//! The variants of what is active, as memory goes. A release that was committed in a variant for which there is no room any
//! more is brought in the largest one that finds some, one after another, those first that serve shortest; and the
//! publisher's choice comes back once all have room for what they hold. It goes the way of every update.

use std::sync::Arc;

use protocol::ModelName;
use release::{Manifest, Variant};

use super::core::Core;
use super::fetch::fitting;
use super::memory::{self, Room};
use super::shares::{Share, Whole, plan};
use crate::health::{Problem, ProblemKind};
use crate::machine::{Event, Phase, Refit, Task};
use crate::slots::Loaded;

/// What a model holds, and the variant that it is to take.
struct Planned {
    model: ModelName,
    share: Share,
    taken: Option<usize>,
}

impl Planned {
    fn bytes(&self) -> u64 {
        self.taken.and_then(|at| self.share.sizes.get(at)).copied().unwrap_or(0)
    }

    fn refit(&self) -> Option<Refit> {
        let taken = self.taken.filter(|taken| self.share.held != Some(*taken))?;
        let is_preferred = self.share.held.is_some_and(|held| taken < held);
        let held = self.share.held.and_then(|held| self.share.sizes.get(held));
        let is_smaller = held.is_none_or(|held| self.bytes() < *held);
        Some(if is_preferred && !is_smaller { Refit::Preferred } else { Refit::Smaller })
    }
}

impl Core {
    /// Begins to bring one active release in another variant, if one is to be and nothing else is under way.
    pub(super) async fn follow_variants(&mut self) {
        let Some((model, refit)) = self.refit_due() else { return };
        if refit == Refit::Preferred {
            self.raised.insert(model.clone());
        }
        tracing::info!(model = %model, ?refit, "the active release is brought in another variant, as memory goes");
        self.apply(&model, Event::Refit(refit)).await;
    }

    fn refit_due(&self) -> Option<(ModelName, Refit)> {
        if self.record().models.values().any(|record| record.phase.work().is_some()) {
            return None;
        }
        self.planned(true).into_iter().rev().find_map(|planned| {
            let refit = planned.refit()?;
            self.model(&planned.model).may_refit(refit).then_some((planned.model, refit))
        })
    }

    /// The room that the candidate of `task` finds.
    pub(super) fn room_of(&self, model: &ModelName, task: &Task) -> Room {
        let Some(refit) = self.model(model).refit else { return self.room_for(model, task.mode) };
        let planned = self.planned(false);
        let others = planned.iter().filter(|planned| planned.model != *model).map(Planned::bytes);
        let others = others.fold(0, u64::saturating_add);
        let soft = self.footprint.soft();
        let (used_by_others, soft) = match refit {
            Refit::Preferred => {
                (others.saturating_add(self.spare_bytes()).max(self.used_by_others(model)), soft)
            }
            // Those that are too large as well shrink, too, and so does what serves.
            Refit::Smaller => (others, soft.filter(|_| self.table.active(model).is_none())),
        };
        Room { used_by_others, budget: self.config.memory_budget_bytes, soft }
    }

    /// Candidates beside what serves, and threads that load.
    fn spare_bytes(&self) -> u64 {
        let beside = self.table.all_shadow();
        let beside = beside.iter().map(|loaded| memory::of(loaded));
        beside.fold(self.passing.bytes(), u64::saturating_add)
    }

    /// What each model is to take; a preferred variant of one only where `is_raising`.
    fn planned(&self, is_raising: bool) -> Vec<Planned> {
        let held = self.by_service().into_iter().filter_map(|model| {
            let share = self.share(&model, is_raising)?;
            Some((model, share))
        });
        let (models, shares): (Vec<_>, Vec<_>) = held.unzip();
        let whole = Whole { budget: self.config.memory_budget_bytes, spare: self.spare_bytes() };
        let taken = plan(&shares, whole);
        let all = models.into_iter().zip(shares).zip(taken);
        all.map(|((model, share), taken)| Planned { model, share, taken }).collect()
    }

    fn share(&self, model: &ModelName, is_raising: bool) -> Option<Share> {
        let record = self.model(model);
        let held = record.active.as_ref()?;
        let serves = self.table.active(model);
        let loaded = serves.as_ref().map(|loaded| memory::of(loaded));
        let of_it = serves.filter(|loaded| loaded.release == held.release);
        let of_it = of_it.map(|loaded| Arc::clone(&loaded.manifest));
        let manifest = of_it.or_else(|| self.shelf.manifest(held.release.digest).ok().map(Arc::new))?;
        // What the agent has in memory changes by the minute: it is asked once.
        let is_raisable = is_raising && record.may_refit(Refit::Preferred) && !self.raised.contains(model);
        let Ok(fitting) = fitting(&self.hardware, &manifest) else {
            return Some(Share { sizes: vec![self.declared(held)], held: Some(0), loaded, is_raisable });
        };
        let at = fitting.iter().position(|variant| variant.name == held.variant);
        let sizes = fitting.iter().map(|variant| variant.peak_memory_bytes).collect();
        Some(Share { sizes, held: at, loaded, is_raisable })
    }

    /// Whether another variant of a release fits the device's memory where this one doesn't.
    pub(super) fn exceeds_device(&self, manifest: &Manifest, variant: &str) -> bool {
        let fits = |fitting: Vec<&Variant>| fitting.iter().any(|fits| fits.name == variant);
        fitting(&self.hardware, manifest).is_ok_and(|fitting| !fits(fitting))
    }

    /// Models that serve in another variant than their publisher prefers, and what would bring that one.
    pub(super) fn smaller(&self) -> impl Iterator<Item = Problem> {
        let all = self.table.all_active().into_iter();
        all.filter_map(|loaded| {
            let fitting = fitting(&self.hardware, &loaded.manifest).ok()?;
            let preferred: Vec<_> =
                fitting.into_iter().take_while(|variant| variant.name != loaded.variant).collect();
            let why = self.why_smaller(&loaded, &preferred)?;
            Some(Problem::new(ProblemKind::SmallerVariant, format!("{}: {why}", loaded.model)))
        })
    }

    fn why_smaller(&self, loaded: &Loaded, preferred: &[&Variant]) -> Option<String> {
        preferred.first()?;
        let record = self.model(&loaded.model);
        let used_by_others = self.used_by_others(&loaded.model);
        let room = Room { used_by_others, budget: self.config.memory_budget_bytes, soft: None };
        let lacks = |variant: &&Variant| {
            let soft = || Some(format!("health.memory_soft_bytes is {}", self.footprint.soft_bound()?));
            let why = room.lacks(variant.peak_memory_bytes).or_else(soft);
            format!("{} ({})", variant.name, why.unwrap_or_else(|| "there is room for it now".to_owned()))
        };
        let lacks = preferred.iter().map(lacks).collect::<Vec<_>>().join(", ");
        let failed = matches!(&record.phase, Phase::Failed { task, .. } | Phase::RolledBack { task, .. } if task.release == loaded.release);
        let failed = if failed { "; bringing in another one has failed" } else { "" };
        Some(format!("variant {} was taken; too big: {lacks}{failed}", loaded.variant))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use protocol::message::CauseKind;
    use protocol::{Revision, UnixMillis};
    use trust::desired::Mode;

    use super::super::Reported;
    use super::super::rig::{F32_BYTES, INT8_BYTES, Made, Rig, drive, name};
    use super::*;
    use crate::link::http::origin::Origin;
    use crate::machine::Record;
    use crate::monitor::Vitals;
    use crate::slots::{BootStore, Shelf};
    use crate::trusted_files::trusted_dir;

    /// Three models serve the same release in its f32 variant, which is preferred; the other one is not on the disk.
    struct World {
        dir: tempfile::TempDir,
        origin: Origin,
        made: Made,
    }

    impl World {
        fn new(made: Made) -> Self {
            let world = Self { dir: tempfile::tempdir().unwrap(), origin: Origin::begin(), made };
            let shelf = Shelf::open(world.dir()).unwrap();
            world.made.keep(&shelf);
            std::fs::remove_file(world.dir().join("blobs").join(world.int8().0)).unwrap();
            drop(world.core(0));
            let (mut boot, _) = BootStore::open(world.dir(), &trusted_dir(world.dir())).unwrap();
            let mut all = boot.record().clone();
            let task = Task {
                release: world.made.held.release.clone(),
                mode: Mode::Replace,
                rollout: None,
                attempt: 0,
                revision: Revision(1),
            };
            for (since, model) in [(1, "a"), (2, "b"), (3, "c")] {
                let record = Record {
                    phase: Phase::Committed { task: task.clone() },
                    active: Some(world.made.held.clone()),
                    since: Some(UnixMillis(since)),
                    ..Record::default()
                };
                all.models.insert(name(model), record);
            }
            boot.write(all).unwrap();
            world
        }

        fn dir(&self) -> &Path {
            self.dir.path()
        }

        /// Name and bytes of the smaller variant's blob.
        fn int8(&self) -> (String, Vec<u8>) {
            let (blob, bytes) = &self.made.blobs[0];
            (blob.digest.to_hex(), bytes.clone())
        }

        fn publish(&self) {
            let (digest, bytes) = self.int8();
            self.origin.put(format!("/blobs/v1/sha256/{digest}"), bytes);
        }

        fn core(&self, budget: u64) -> Core {
            let vitals = Vitals { requests: 100, errors: 0, p95_us: 1 };
            let mut core = Rig::core(self.dir(), Some(self.origin.client()), vitals);
            core.config.start_jitter = Duration::ZERO;
            core.config.probation = Some(Duration::ZERO);
            core.config.memory_budget_bytes = budget;
            core
        }
    }

    fn serving(core: &Core) -> BTreeMap<String, String> {
        let all = core.table.all_active();
        all.iter().map(|loaded| (loaded.model.as_str().to_owned(), loaded.variant.clone())).collect()
    }

    fn variants(a: &str, b: &str, c: &str) -> BTreeMap<String, String> {
        [("a", a), ("b", b), ("c", c)].map(|(model, variant)| (model.to_owned(), variant.to_owned())).into()
    }

    fn smaller(reported: &Reported) -> Vec<String> {
        let of_it = reported.problems.iter().filter(|problem| problem.kind == ProblemKind::SmallerVariant);
        of_it.map(|problem| problem.detail.clone()).collect()
    }

    /// Works until all models rest and so many of them serve another variant than the preferred one.
    async fn rest(core: Core, others: usize) -> Core {
        drive(core, move |reported| {
            let all_rest =
                reported.models.iter().all(|model| model.phase.is_terminal() && model.absent.is_none());
            all_rest && smaller(reported).len() == others
        })
        .await
    }

    const ALL: u64 = F32_BYTES * 3;
    const ONE: u64 = F32_BYTES + INT8_BYTES * 2;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_finds_no_room_at_a_start_serves_in_its_smaller_variant_and_in_the_preferred_one_later() {
        let world = World::new(Made::example("1.0.0", 1).with_f32_first());
        world.publish();
        let mut core = world.core(ONE);
        core.start().await;
        assert_eq!(serving(&core), [("a".to_owned(), "f32".to_owned())].into());
        let core = Box::pin(rest(core, 2)).await;
        assert_eq!(serving(&core), variants("f32", "int8", "int8"));
        for model in ["a", "b", "c"] {
            assert_eq!(core.model(&name(model)).phase.word(), protocol::message::TaskPhase::Committed);
        }
        drop(core);
        let mut core = world.core(ONE);
        core.start().await;
        assert_eq!(serving(&core), variants("f32", "int8", "int8"));
        let said = smaller(&core.reported.borrow().clone());
        assert!(
            said.len() == 2 && said[0].contains("too big: f32 (22000000 bytes of all models"),
            "{said:?}"
        );
        core.config.memory_budget_bytes = ALL;
        let core = Box::pin(rest(core, 0)).await;
        assert_eq!(serving(&core), variants("f32", "f32", "f32"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_budget_that_is_lowered_shrinks_what_serves_from_the_last_on_and_it_serves_meanwhile() {
        let world = World::new(Made::example("1.0.0", 1).with_f32_first());
        world.publish();
        let mut core = world.core(0);
        core.start().await;
        core.config.memory_budget_bytes = ONE;
        assert!(core.over_budget().is_some());
        let core = Box::pin(rest(core, 2)).await;
        assert_eq!(serving(&core), variants("f32", "int8", "int8"));
        assert_eq!(core.over_budget(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_variant_that_cannot_be_fetched_or_is_no_model_leaves_what_was() {
        for (made, is_there, why) in [
            (Made::example("1.0.0", 1), false, CauseKind::Download),
            (Made::example("1.0.0", 1).with_no_model(), true, CauseKind::Load),
        ] {
            let world = World::new(made.with_f32_first());
            if is_there {
                world.publish();
            }
            let mut core = world.core(ONE);
            core.config.memory_budget_bytes = F32_BYTES * 2 + INT8_BYTES;
            core.start().await;
            let failed = move |reported: &Reported| {
                reported.problems.iter().any(|problem| problem.kind == ProblemKind::UpdateEnded(why))
            };
            let mut core = drive(core, failed).await;
            assert_eq!(
                serving(&core),
                [("a", "f32"), ("b", "f32")].map(|(m, v)| (m.into(), v.into())).into()
            );
            assert_eq!(core.model(&name("c")).active, Some(world.made.held.clone()));
            let said = core.reported.borrow().problems.iter().any(|problem| {
                problem.detail.starts_with("c 1.0.0 in another variant than f32, which is kept: Failed: ")
            });
            assert!(said, "{:?}", core.reported.borrow().problems);
            core.follow_variants().await;
            assert_eq!(core.model(&name("c")).phase.cause().map(|cause| cause.kind), Some(why));
            core.config.memory_budget_bytes = ALL;
            core.follow_room().await;
            assert_eq!(serving(&core), variants("f32", "f32", "f32"));
        }
    }

    #[tokio::test]
    async fn a_variant_that_exceeds_the_device_is_not_loaded_where_another_one_fits() {
        let world = World::new(Made::example("1.0.0", 1).with_f32_first());
        let mut core = world.core(0);
        core.hardware.memory_bytes = F32_BYTES - 1;
        core.start().await;
        assert_eq!(serving(&core).len(), 0);
        assert!(core.table.absent(&name("a")).is_some_and(|why| why.contains("more than this device")));
        core.follow_room().await;
        assert_eq!(core.model(&name("c")).refit, Some(Refit::Smaller));
        core.hardware.memory_bytes = INT8_BYTES - 1;
        core.load_active(&name("a")).await;
        assert!(core.table.active(&name("a")).is_some(), "there is no better one");
    }
}
