//! One item of a batch, and why it has no answer.

use inference::{InferError, ShapeError, Tensor, TensorJsonError, TextError};

use crate::durable::DurableError;
use crate::picture::PictureError;

/// One item, or why it is none.
#[derive(Debug)]
pub(super) struct Item {
    /// `2` for a file's second line, a picture's name.
    pub(super) name: String,
    /// What the model is asked; else why this item can't be asked.
    pub(super) inputs: Result<Vec<Tensor>, ItemError>,
    /// Its true class, if the batch says it.
    pub(super) label: Option<String>,
    /// The outputs that it asks for; empty for all.
    pub(super) wanted: Vec<String>,
}

/// Why one item has no answer; the batch goes on with the next one. The texts stand in the output.
#[derive(Debug, thiserror::Error)]
pub(super) enum ItemError {
    #[error("a quote doesn't end on its line: a row is one line, also where it is quoted")]
    Quote,
    #[error("it has {got} fields, the head has {expected}")]
    Fields { got: usize, expected: usize },
    #[error("it is no UTF-8 text")]
    Text,
    #[error("column {column:?} of line {line}: {why}")]
    Value { line: u64, column: String, why: TextError },
    #[error("{0}")]
    Shape(ShapeError),
    #[error("it is no request in JSON: {0}")]
    Json(serde_json::Error),
    #[error(transparent)]
    Tensor(TensorJsonError),
    #[error("{0}")]
    Picture(PictureError),
    #[error("its label {0:?} is no class of the model")]
    Label(String),
    #[error("its label is blank")]
    NoLabel,
    #[error("output {name:?} is unknown; the model gives {known}")]
    Output { name: String, known: String },
    #[error("it is gone")]
    Gone,
    #[error(transparent)]
    Read(DurableError),
    #[error(transparent)]
    Infer(InferError),
}
