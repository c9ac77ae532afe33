//! Builds a release's reference profile by running its own variant over training data, with exactly the
//! device's code: pre-processing, runtime, features, answers.

use profile::features::{Extractor, ShapeError};
use profile::{Reference, ReferenceBuilder, ReferenceError};

use crate::error::InferError;
use crate::features;
use crate::model::Model;
use crate::tensor::Tensor;

/// Why no reference could be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The model fails on a training row.
    #[error("the model fails on training row {row}")]
    Infer {
        /// Which row, from 1.
        row: usize,
        /// Why.
        #[source]
        source: InferError,
    },
    /// A training row isn't what the features need.
    #[error("training row {row} doesn't fit the features")]
    Features {
        /// Which row, from 1.
        row: usize,
        /// Why.
        #[source]
        source: ShapeError,
    },
    /// A label that is no class of the model.
    #[error("training row {row} has label {label:?}, which is none of the release's labels")]
    Label {
        /// Which row, from 1.
        row: usize,
        /// The label.
        label: String,
    },
    /// The counts make no sound reference.
    #[error("no reference can be made from the training data")]
    Reference(#[source] ReferenceError),
}

/// One row of training data: a request for one item and, where it is known, its true label.
#[derive(Debug, Clone)]
pub struct TrainingRow {
    /// Inputs as an application would send them, a batch of one.
    pub inputs: Vec<Tensor>,
    /// The true label, by its text.
    pub label: Option<String>,
}

/// Runs every row through the model and counts. `progress` is called with the rows done so far.
///
/// # Errors
/// [`BuildError`] names the row.
pub fn build(
    model: &Model,
    extractor: &Extractor,
    rows: impl Iterator<Item = TrainingRow>,
    mut progress: impl FnMut(usize),
) -> Result<Reference, BuildError> {
    let labels = &model.spec().labels;
    let mut builder = ReferenceBuilder::new(extractor.clone(), labels.clone());
    for (done, row) in rows.enumerate() {
        let number = done + 1;
        let found = features::rows(extractor, &row.inputs)
            .map_err(|source| BuildError::Features { row: number, source })?;
        let features = found.first().map_or(&[][..], Vec::as_slice);
        let actual = match row.label {
            None => None,
            Some(label) => match labels.iter().position(|known| *known == label) {
                Some(class) => Some(class),
                None => return Err(BuildError::Label { row: number, label }),
            },
        };
        let outputs = model.infer(&row.inputs).map_err(|source| BuildError::Infer { row: number, source })?;
        match features::answers(&outputs, labels.len()).into_iter().next() {
            Some(features::Answer::Probabilities(p)) => builder.add_classified(features, &p, actual),
            Some(features::Answer::Value(value)) => builder.add_valued(features, value),
            None => builder.add(features),
        }
        progress(number);
    }
    builder.build().map_err(BuildError::Reference)
}
