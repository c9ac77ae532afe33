//! The protocol's answer to an inference.

use inference::Tensor;
use serde::Serialize;

use crate::slots::Loaded;

#[derive(Serialize)]
pub(super) struct Answer<'a> {
    model_name: &'a str,
    model_version: &'a str,
    id: &'a str,
    outputs: Vec<&'a Tensor>,
}

impl<'a> Answer<'a> {
    /// All outputs, or the wanted ones.
    pub(super) fn new(loaded: &'a Loaded, id: &'a str, outputs: &'a [Tensor], wanted: &[String]) -> Self {
        let is_wanted =
            |output: &&Tensor| wanted.is_empty() || wanted.iter().any(|name| name == output.name());
        Self {
            model_name: loaded.model.as_str(),
            model_version: loaded.release.version.as_str(),
            id,
            outputs: outputs.iter().filter(is_wanted).collect(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("tensors and names always have a JSON form")
    }
}
