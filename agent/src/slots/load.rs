//! From the shelf into memory: reads the manifest and blobs of a held release and makes the runtime's model.

use std::sync::Arc;
use std::time::Duration;

use inference::{LoadError, Model, Spec};
use protocol::ModelName;

use super::pace::{Pace, SHORT, cpu_time};
use super::shelf::{Shelf, ShelfError};
use super::table::Loaded;
use crate::machine::Held;

/// Inferences of one size by which a release's pace is known when it begins to serve.
const TRIES: usize = 5;
/// Largest batch that is tried.
const MOST_ROWS: usize = 64;
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

/// The first requests have to know which way to go: they may meet a queue. Larger and larger batches are tried as long as
/// they take half of what is short, since a request is also read and counted; how time grows with the rows is the model's
/// own matter. Of a long model no batch is tried: it would take memory for nothing.
fn tried(runtime: &Model) -> Pace {
    let Some(one) = shortest(runtime, 1) else { return Pace::default() };
    let mut known = 1;
    let is_short = |rows| shortest(runtime, rows).is_some_and(|took| took < SHORT / 2);
    while one < SHORT / 2 && known < MOST_ROWS && is_short(known * 2) {
        known *= 2;
    }
    Pace::known(one, known)
}

/// CPU time of the shortest of a few inferences of so many rows, since the first ones meet cold memory; one that is long
/// in any case is not repeated. None where it fails: not every model takes more than one row.
fn shortest(runtime: &Model, rows: usize) -> Option<Duration> {
    let example = runtime.example(rows);
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let begun = cpu_time();
        runtime.infer(&example).ok()?;
        shortest = shortest.min(cpu_time().saturating_sub(begun));
        if shortest > NEVER_SHORT {
            break;
        }
    }
    Some(shortest)
}
