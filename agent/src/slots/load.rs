//! From the shelf into memory: reads the manifest and blobs of a held release and makes the runtime's model.

use std::sync::Arc;
use std::time::Duration;

use inference::{LoadError, Model, Spec};
use protocol::ModelName;

use super::pace::{Pace, cpu_time};
use super::shelf::{Shelf, ShelfError};
use super::table::Loaded;
use crate::update::machine::Held;

/// Inferences by which a release's pace is known when it begins to serve.
const TRIES: usize = 5;
/// Cold memory alone doesn't take so long.
const NEVER_SHORT: Duration = Duration::from_millis(2);

/// Why a release can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadReleaseError {
    /// Its files.
    #[error("its files can't be read")]
    Shelf(#[source] ShelfError),
    /// The manifest has no variant of this name.
    #[error("the manifest has no variant {0:?}")]
    NoVariant(String),
    /// The runtime refuses the model.
    #[error("the runtime refuses the model")]
    Runtime(#[source] LoadError),
}

/// Loads a held release. Blocks: disk, hashing and compiling.
///
/// # Errors
/// [`LoadReleaseError`].
pub fn load(shelf: &Shelf, model: &ModelName, held: &Held) -> Result<Loaded, LoadReleaseError> {
    let manifest = shelf.manifest(held.release.digest).map_err(LoadReleaseError::Shelf)?;
    let variant =
        manifest.variant(&held.variant).ok_or_else(|| LoadReleaseError::NoVariant(held.variant.clone()))?;
    let bytes = shelf.read_blob(&variant.model).map_err(LoadReleaseError::Shelf)?;
    let reference = shelf.read_blob(&manifest.reference).map_err(LoadReleaseError::Shelf)?;
    let spec = Spec::of(&manifest).map_err(LoadReleaseError::Runtime)?;
    let runtime = Model::load(&bytes, spec).map_err(LoadReleaseError::Runtime)?;
    let pace = tried(&runtime);
    Ok(Loaded {
        model: model.clone(),
        release: held.release.clone(),
        variant: held.variant.clone(),
        manifest: Arc::new(manifest),
        runtime,
        reference: Arc::new(reference),
        pace,
    })
}

/// The first request has to know which way to go: it may meet a queue. The shortest of a few inferences counts, since the
/// first ones meet cold memory; one that is long in any case is not repeated.
fn tried(runtime: &Model) -> Pace {
    let pace = Pace::default();
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let begun = cpu_time();
        if runtime.infer(runtime.example()).is_err() {
            return pace;
        }
        shortest = shortest.min(cpu_time().saturating_sub(begun));
        if shortest > NEVER_SHORT {
            break;
        }
    }
    pace.note(shortest, 1);
    pace
}
