//! What can go wrong with a model, by cause.

use std::error::Error;

use crate::tensor::{Datatype, ShapeError};

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Over the bound; nothing was parsed.
    #[error("model has {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Size in bytes.
        got: usize,
        /// Bound in bytes.
        max: usize,
    },
    /// Not ONNX.
    #[error("model is not ONNX: {why}")]
    Parse {
        /// Where the parser stopped.
        why: String,
    },
    /// ONNX, but its parts contradict each other or break a bound.
    #[error("model breaks a rule of ONNX or a bound: {why}")]
    Malformed {
        /// Which rule, on which part.
        why: String,
    },
    /// The runtime doesn't have an operator that the model uses.
    #[error("the runtime has no operator {domain}{separator}{op}, which node {node:?} needs", separator = if domain.is_empty() { "" } else { "." })]
    UnknownOp {
        /// Name of the operator.
        op: String,
        /// Its domain; empty for ONNX's own.
        domain: String,
        /// The first node that uses it.
        node: String,
    },
    /// An operator that exists in int8 only, in a model that doesn't run in int8.
    #[error("node {node:?} needs {op}, which only int8 has, and the model can't run in int8: {why}")]
    OnlyInt8 {
        /// Name of the operator.
        op: String,
        /// The first node that uses it.
        node: String,
        /// Why it doesn't run in int8, and the nodes which stand in the way.
        why: String,
    },
    /// The runtime refuses the model.
    #[error("the runtime can't load the model: {why}")]
    Runtime {
        /// The runtime's own words; they name the node.
        why: String,
    },
    /// The manifest's signature and the model don't fit together.
    #[error("the manifest and the model disagree: {why}")]
    Signature {
        /// Which input or output, expected and got.
        why: String,
    },
    /// The model can't run a batch of zeros.
    #[error("the model fails on a warm-up input")]
    WarmUp(#[source] InferError),
}

/// Why one inference failed.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// An input that the signature names is missing.
    #[error("input {name:?} is missing; the model takes {expected}")]
    MissingInput {
        /// The input's name.
        name: String,
        /// Names of all inputs.
        expected: String,
    },
    /// An input that the signature doesn't name, or the same twice.
    #[error("input {name:?} is unknown or given twice; the model takes {expected}")]
    UnexpectedInput {
        /// The name that was given.
        name: String,
        /// Names of all inputs.
        expected: String,
    },
    /// Wrong element type.
    #[error("input {name:?} must be {expected}, got {got}")]
    Datatype {
        /// The input's name.
        name: String,
        /// What the signature says.
        expected: Datatype,
        /// What was given.
        got: Datatype,
    },
    /// Wrong shape.
    #[error("input {name:?} must have shape {expected:?} (-1 = batch), got {got:?}")]
    Shape {
        /// The input's name.
        name: String,
        /// What the signature says.
        expected: Vec<i64>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A number is missing, and no step of the release fills it in. An int8 model would take it for 0.
    #[error(
        "input {name:?} lacks value {place} (it is null or NaN), and the release has no impute step that fills it in"
    )]
    MissingValue {
        /// The input's name.
        name: String,
        /// Which value, from 0, in the order of the data.
        place: usize,
    },
    /// More rows at once than allowed, none at all, or a different number in each input.
    #[error("batch of {got} rows; 1 to {max} are allowed, the same in each input")]
    Batch {
        /// Rows in the request.
        got: usize,
        /// Bound.
        max: usize,
    },
    /// Several rows for a model that makes one row's answer depend on the others, and can't do that here.
    #[error("batch of {got} rows: this model mixes the rows of a batch, so it is asked one row at a time")]
    MixesRows {
        /// Rows in the request.
        got: usize,
    },
    /// A step before the model can't work on this input.
    #[error("pre-processing step {step} failed on input {name:?}: {why}")]
    Pre {
        /// Name of the step.
        step: &'static str,
        /// The input's name.
        name: String,
        /// Expected and got.
        why: String,
    },
    /// A step after the model can't work on its output.
    #[error("post-processing step {step} failed on output {name:?}: {why}")]
    Post {
        /// Name of the step.
        step: &'static str,
        /// The output's name.
        name: String,
        /// Expected and got.
        why: String,
    },
    /// A value of the request, or what the model makes of it, names a place in a table that isn't there.
    #[error(
        "node {node:?} takes place {place} of {size}, which isn't there; look at the whole numbers that were given"
    )]
    NoPlace {
        /// The node that looks it up.
        node: String,
        /// The place, from 0; below that it counts from the end.
        place: i64,
        /// How many there are.
        size: i64,
    },
    /// The runtime failed.
    #[error("the runtime failed: {why}")]
    Runtime {
        /// The runtime's own words.
        why: String,
    },
    /// The runtime panicked; the model stays usable.
    #[error("the runtime panicked: {why}")]
    Panic {
        /// The panic's message.
        why: String,
    },
    /// Our own bug: a result that doesn't fill its shape.
    #[error("a result doesn't fill its shape")]
    Result(#[source] ShapeError),
}

impl InferError {
    /// Whether the caller's input is at fault, not the model or the runtime.
    pub fn is_caller_fault(&self) -> bool {
        match self {
            Self::MissingInput { .. }
            | Self::UnexpectedInput { .. }
            | Self::Datatype { .. }
            | Self::Shape { .. }
            | Self::MissingValue { .. }
            | Self::Batch { .. }
            | Self::MixesRows { .. }
            | Self::NoPlace { .. }
            | Self::Pre { .. } => true,
            Self::Post { .. } | Self::Runtime { .. } | Self::Panic { .. } | Self::Result(_) => false,
        }
    }
}

/// An error in one line with all that caused it, for reports.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
