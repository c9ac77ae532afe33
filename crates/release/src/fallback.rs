//! Which release may follow which (attacks R3 to R5). Pure rules; the agent keeps [`HighWater`] in its boot record,
//! beside the metadata store, so that deleting either does not lower the counter.

use protocol::{Counter, Digest};
use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// The highest release that was ever committed for a model, and what its signed manifest permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// Digest of the manifest with the highest counter.
    pub digest: Digest,
    /// Its counter.
    pub counter: Counter,
    /// The pairs that it names as fallback.
    pub fallback: Vec<(Digest, Counter)>,
    /// The highest fence that a committed manifest has set.
    pub min_counter: Counter,
}

/// Why a release may not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Downgrade {
    /// Below the fence.
    #[error("release counter {got} is fenced off: at least {min_counter} is needed")]
    Fenced {
        /// The fence.
        min_counter: Counter,
        /// What was offered.
        got: Counter,
    },
    /// Lower and not named as fallback.
    #[error(
        "release counter {got} is below the committed {committed}, whose manifest does not name it as fallback"
    )]
    NotPermitted {
        /// The highest committed.
        committed: Counter,
        /// What was offered.
        got: Counter,
    },
    /// The same counter, another release.
    #[error("another release was committed under the same counter {counter}")]
    SameCounter {
        /// The counter.
        counter: Counter,
    },
}

impl HighWater {
    /// What to store when `manifest` is committed. Committing a fallback leaves the mark where it is.
    #[must_use]
    pub fn after_commit(earlier: Option<&Self>, digest: Digest, manifest: &Manifest) -> Self {
        match earlier {
            Some(mark) if manifest.counter < mark.counter => mark.clone(),
            _ => Self {
                digest,
                counter: manifest.counter,
                fallback: manifest.fallback.iter().map(|f| (f.digest, f.counter)).collect(),
                min_counter: earlier.map_or(Counter(0), |m| m.min_counter).max(manifest.min_counter),
            },
        }
    }

    /// Whether the candidate may be committed above this mark.
    ///
    /// # Errors
    /// [`Downgrade`] says why not.
    pub fn permits(&self, digest: Digest, counter: Counter) -> Result<(), Downgrade> {
        if counter < self.min_counter {
            return Err(Downgrade::Fenced { min_counter: self.min_counter, got: counter });
        }
        if counter > self.counter || (digest, counter) == (self.digest, self.counter) {
            return Ok(());
        }
        if counter == self.counter {
            return Err(Downgrade::SameCounter { counter });
        }
        if self.fallback.contains(&(digest, counter)) {
            return Ok(());
        }
        Err(Downgrade::NotPermitted { committed: self.counter, got: counter })
    }
}

/// The same rules for callers that hold manifests: `committed` is the highest pair ever committed and
/// `committed_manifest` the manifest of exactly that release. Without that manifest nothing lower is permitted.
///
/// # Errors
/// [`Downgrade`] says why not.
pub fn may_commit(
    committed: Option<(Digest, Counter)>,
    committed_manifest: Option<&Manifest>,
    candidate: (Digest, &Manifest),
    min_counter: Counter,
) -> Result<(), Downgrade> {
    let (digest, manifest) = candidate;
    let min_counter = committed_manifest.map_or(min_counter, |m| m.min_counter.max(min_counter));
    let Some((committed_digest, counter)) = committed else {
        let got = manifest.counter;
        return if got < min_counter { Err(Downgrade::Fenced { min_counter, got }) } else { Ok(()) };
    };
    let named = committed_manifest.filter(|m| m.counter == counter);
    let fallback =
        named.map(|m| m.fallback.iter().map(|f| (f.digest, f.counter)).collect()).unwrap_or_default();
    HighWater { digest: committed_digest, counter, fallback, min_counter }.permits(digest, manifest.counter)
}
