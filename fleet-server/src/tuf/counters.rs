//! Order within a model: no two releases share a counter, and none comes below the model's fence.
//!
//! Devices refuse such a release, each by its own history, which is too late: the one that shares its counter with a
//! bad release is refused exactly where the bad one runs.

use protocol::{Counter, ModelName, Version};
use release::Manifest;

use crate::store::releases::Release;

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

/// Checks a new release against all that the model ever had: one that was withdrawn still runs where it was committed,
/// and holds its counter there.
///
/// # Errors
/// [`CounterError::Shared`] with the release that has the counter.
pub(super) fn check_history(new: &Manifest, history: &[Release]) -> Result<(), CounterError> {
    let taken = history.iter().find(|old| old.counter == new.counter && old.version != new.version);
    taken.map_or(Ok(()), |old| {
        let (model, version, counter) = (new.model.clone(), new.version.clone(), new.counter);
        Err(CounterError::Shared { model, version, counter, other: old.version.clone() })
    })
}

#[cfg(test)]
mod tests {
    use release::DraftManifest;

    use super::*;

    fn manifest(version: &str, counter: u64, fence: u64) -> Manifest {
        let sample = include_bytes!("../../../fuzz/seeds/manifest/full");
        let mut manifest = (*DraftManifest::parse_unsigned(sample).unwrap()).clone();
        manifest.version = version.parse().unwrap();
        (manifest.counter, manifest.min_counter) = (Counter(counter), Counter(fence));
        manifest
    }

    #[test]
    fn a_counter_that_is_taken_or_fenced_off_is_refused() {
        let all = [manifest("1.0.0", 2, 0), manifest("1.1.0", 4, 3)];
        let ask = |new: &Manifest| check(new, all.iter().chain([new]));
        assert_eq!(ask(&manifest("2.0.0", 5, 0)), Ok(()));
        assert_eq!(ask(&all[1]), Ok(()), "it is no hindrance to itself");
        assert!(matches!(ask(&manifest("2.0.0", 4, 0)), Err(CounterError::Shared { .. })));
        assert!(matches!(ask(&manifest("2.0.0", 1, 0)), Err(CounterError::Fenced { fence: Counter(3), .. })));
        let mut other = manifest("2.0.0", 1, 0);
        other.model = "another".parse().unwrap();
        assert_eq!(ask(&other), Ok(()), "each model has its own order");
    }
}
