//! The emergency fence of each model, as the signed metadata states it: heard whenever a model's role is loaded, and
//! looked for with each refresh. What it does to what a device holds says `machine::fence`.

use std::sync::PoisonError;

use protocol::{Counter, ModelName};
use trust::Repository;

use super::core::Core;
use super::fetch::fence_of;
use crate::health::{Problem, ProblemKind};
use crate::machine::{Event, Record};

impl Core {
    /// Metadata was accepted in which `role` vouches for the model's releases.
    pub(super) fn hear_fence(&self, model: &ModelName, repository: &Repository, role: &str) {
        // A role that nothing was asked of says nothing.
        if repository.targets_roles().any(|(loaded, _, _)| loaded == role) {
            let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
            fences.insert(model.clone(), fence_of(repository.customs_of(role)));
        }
    }

    /// Holds what was heard against what is held. Durable before anything else is done.
    pub(super) async fn follow_fences(&mut self) {
        let heard = std::mem::take(&mut *self.fences.lock().unwrap_or_else(PoisonError::into_inner));
        for (model, fence) in heard {
            let Some(before) = self.record().models.get(&model).map(|record| record.fence) else { continue };
            if before != fence {
                tracing::warn!(model = %model, before = before.0, fence = fence.0, "the publisher's fence has changed");
                self.apply(&model, Event::Fenced(fence)).await;
            }
        }
    }

    /// Asks the metadata for the fences of all models that this device holds. What can't be had stays as it was: that
    /// one model's role has lapsed is no trouble of the others.
    pub(super) async fn refresh_fences(&self) {
        for (model, record) in &self.record().models {
            let Some(held) = record.active.as_ref().or(record.fallback.as_ref()) else { continue };
            let path = release::target_path(model, &held.release.version);
            match self.trusted.walk(&self.http(), Some(&path), &self.clock).await {
                Ok(repository) => {
                    // A release that was withdrawn is listed no more; its role is called like the model.
                    let role = repository.find_target(&path).map_or(model.as_str(), |target| target.role());
                    self.hear_fence(model, &repository, role);
                }
                Err(error) => {
                    tracing::debug!(model = %model, error = crate::chain(&error), "no fence could be had");
                }
            }
        }
    }
}

/// What to say of a model that serves although its publisher has fenced its release off.
pub(super) fn problem(model: &ModelName, record: &Record) -> Option<Problem> {
    let held = record.fenced_active()?;
    let Counter(min_counter) = record.min_counter();
    let detail = format!(
        "{model} {} serves, but its publisher has fenced it off: counter {}, at least {min_counter} is needed",
        held.release.version, held.release.counter
    );
    Some(Problem::new(ProblemKind::ReleaseFenced, detail))
}
