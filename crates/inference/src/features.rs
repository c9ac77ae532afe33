//! From requests and answers to what a profile counts. The device counts with this while it serves and the
//! publisher while building a reference: the same code, so the same figures.

use profile::features::{Extractor, Layout, ShapeError};
use profile::{Counters, Observed, Schema};
use release::{ImageLayout, Monitor};

use crate::post::best_of;
use crate::tensor::{Data, Tensor};

/// How features come from inputs, as the manifest says.
pub fn extractor(monitor: Option<&Monitor>) -> Extractor {
    match monitor {
        None => Extractor::Nothing,
        Some(Monitor::Image { input, channels, layout, .. }) => Extractor::Image {
            input: input.clone(),
            layout: match layout {
                ImageLayout::Nchw => Layout::Nchw,
                ImageLayout::Nhwc => Layout::Nhwc,
            },
            channels: usize::try_from(*channels).unwrap_or(1),
        },
        Some(Monitor::Tabular { input, columns }) => {
            Extractor::Columns { input: input.clone(), names: columns.clone() }
        }
    }
}

/// Rows of features, one per item of the batch; none when nothing of the input is profiled.
///
/// # Errors
/// [`ShapeError`] when the input isn't what the extractor expects.
pub fn rows(extractor: &Extractor, inputs: &[Tensor]) -> Result<Vec<Vec<Observed<'static>>>, ShapeError> {
    let wanted = extractor.input().and_then(|name| inputs.iter().find(|input| input.name() == name));
    wanted.map_or(Ok(Vec::new()), |input| extractor.rows(input.shape(), &input.data().to_f64()))
}

/// What one item's answer was, as far as it is profiled.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A probability per class.
    Probabilities(Vec<f64>),
    /// One number.
    Value(f64),
}

impl Answer {
    /// The class with the highest probability; none for a number.
    pub fn class(&self) -> Option<usize> {
        match self {
            Self::Probabilities(probabilities) => Some(best_of(probabilities)),
            Self::Value(_) => None,
        }
    }
}

/// The model's first output, taken apart by item. `classes` is 0 for a regression.
pub fn answers(outputs: &[Tensor], classes: usize) -> Vec<Answer> {
    let Some(scores) = outputs.first() else { return Vec::new() };
    if matches!(scores.data(), Data::Bytes(_)) {
        return Vec::new();
    }
    let values = scores.data().to_f64();
    match classes {
        0 => values.into_iter().map(Answer::Value).collect(),
        classes => values.chunks_exact(classes).map(|row| Answer::Probabilities(row.to_vec())).collect(),
    }
}

/// Counts features and answers of one request.
pub fn observe(counters: &mut Counters, schema: &Schema, rows: &[Vec<Observed<'_>>], answers: &[Answer]) {
    for row in rows {
        counters.observe_row(schema, row);
    }
    for answer in answers {
        match answer {
            Answer::Probabilities(probabilities) => counters.observe_probabilities(schema, probabilities),
            Answer::Value(value) => counters.observe_value(schema, *value),
        }
    }
}
