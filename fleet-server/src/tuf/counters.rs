//! Order within a model: no two releases share a counter, and none comes below the model's fence.
//!
//! Devices refuse such a release, each by its own history, which is too late: the one that shares its counter with a
//! bad release is refused exactly where the bad one runs.

use protocol::{Counter, ModelName, Version};
use release::Manifest;

/// Why a release can't take its place among the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// Another release has the counter.
    #[error("{model} {version} has counter {counter}, which {other} has already; give it a higher one", counter = counter.0)]
    Shared {
        /// Of which model.
        model: ModelName,
        /// The new release.
        version: Version,
        /// Its counter.
        counter: Counter,
        /// The release that has it.
        other: Version,
    },
    /// A release that is signed now or was before forbids it.
    #[error(
        "{model} {version} has counter {counter}, below {fence}, the model's fence: no device would accept it",
        counter = counter.0, fence = fence.0
    )]
    Fenced {
        /// Of which model.
        model: ModelName,
        /// The new release.
        version: Version,
        /// Its counter.
        counter: Counter,
        /// The lowest counter that is accepted.
        fence: Counter,
    },
}

/// Checks a new release against `all` that signed metadata names, itself among them.
///
/// # Errors
/// [`CounterError`] with the release that is in its way.
pub(super) fn check<'a>(
    new: &Manifest,
    all: impl IntoIterator<Item = &'a Manifest>,
) -> Result<(), CounterError> {
    let (model, version, counter) = (new.model.clone(), new.version.clone(), new.counter);
    for other in all.into_iter().filter(|other| other.model == model) {
        if other.min_counter > counter {
            return Err(CounterError::Fenced { model, version, counter, fence: other.min_counter });
        }
        if other.counter == counter && other.version != version {
            return Err(CounterError::Shared { model, version, counter, other: other.version.clone() });
        }
    }
    Ok(())
}
