//! Runs models: ONNX through tract, pre- and post-processing as the manifest names them, golden samples.
//!
//! tract is fenced in here: none of its types is in the public API, its panics become errors, and a model is
//! checked before tract sees it. The crate reads no file and no clock; time comes from the caller.
//! Tests stand in each module; `tests/` runs the real artifacts of `examples/digits` and hostile models.

mod binary;
mod clock;
mod columns;
mod engine;
mod error;
pub mod features;
pub mod golden;
mod image;
mod image8;
pub mod int8;
pub mod measure;
mod model;
mod oip;
#[cfg(test)]
mod parity;
mod post;
mod pre;
pub mod reference;
mod spec;
mod tensor;
mod texts;

pub use binary::{BinaryError, Pieces};
pub use clock::Clock;
pub use engine::{Makeup, TESTED_OPSETS, keep_tensors_in_heap, quiet_caught_panics, share_heap, trim_heap};
pub use error::{InferError, LoadError};
pub use model::{MAX_BATCH_ROWS, Model};
pub use oip::{MAX_ELEMENTS, MAX_RANK, TensorJson, TensorJsonError};
pub use post::best_classes;
pub use spec::{Spec, TensorSpec};
pub use tensor::{Data, Datatype, ShapeError, Tensor};
pub use texts::TextError;

/// The version of tract that is built in; a release names the one that it was tried with.
pub const TRACT_VERSION: &str = "0.23.9";

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_that_is_named_is_the_one_that_is_pinned() {
        let workspace = include_str!("../../../Cargo.toml");
        assert!(workspace.contains(&format!("tract-onnx = {{ version = \"={}\"", super::TRACT_VERSION)));
    }
}
