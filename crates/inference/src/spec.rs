//! What the runtime needs to know of a manifest: signature, steps before and after, labels.

use release::{Manifest, PostStep, PreStep};

use crate::error::LoadError;
use crate::tensor::{Datatype, Tensor};

/// One input or output as applications see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its dimensions; -1 in first place is the batch.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a shape is one of those that this allows.
    pub fn allows(&self, shape: &[usize]) -> bool {
        let fits =
            |(want, got): (&i64, &usize)| *want < 0 || usize::try_from(*want).is_ok_and(|want| want == *got);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    /// Whether its first dimension is the batch.
    pub fn is_batched(&self) -> bool {
        self.shape.first().is_some_and(|dim| *dim < 0)
    }

    /// Whether a tensor is one of those that this allows, whatever its name.
    pub fn admits(&self, tensor: &Tensor) -> bool {
        self.datatype == tensor.datatype() && self.allows(tensor.shape())
    }
}

/// What the runtime needs to know of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What applications send.
    pub inputs: Vec<TensorSpec>,
    /// What they get.
    pub outputs: Vec<TensorSpec>,
    /// Steps before the model, on every input.
    pub pre: Vec<PreStep>,
    /// Steps after the model.
    pub post: Vec<PostStep>,
    /// Class names, by class number.
    pub labels: Vec<String>,
}

impl Spec {
    /// What a manifest says.
    ///
    /// # Errors
    /// [`LoadError::Signature`] when it names an element type that this build can't feed.
    pub fn of(manifest: &Manifest) -> Result<Self, LoadError> {
        Self::from_parts(&manifest.inputs, &manifest.outputs, &manifest.pre, &manifest.post, &manifest.labels)
    }

    /// The same from a manifest's parts, for a publisher who has no manifest yet.
    ///
    /// # Errors
    /// [`LoadError::Signature`] as in [`Spec::of`].
    pub fn from_parts(
        inputs: &[release::TensorSpec],
        outputs: &[release::TensorSpec],
        pre: &[PreStep],
        post: &[PostStep],
        labels: &[String],
    ) -> Result<Self, LoadError> {
        Ok(Self {
            inputs: inputs.iter().map(tensor_spec).collect::<Result<_, _>>()?,
            outputs: outputs.iter().map(tensor_spec).collect::<Result<_, _>>()?,
            pre: pre.to_vec(),
            post: post.to_vec(),
            labels: labels.to_vec(),
        })
    }

    /// Whether a step fills in missing values.
    pub(crate) fn fills_gaps(&self) -> bool {
        self.pre.iter().any(|step| matches!(step, PreStep::Impute { .. }))
    }
}

fn tensor_spec(spec: &release::TensorSpec) -> Result<TensorSpec, LoadError> {
    let datatype = datatype(spec.datatype).ok_or_else(|| LoadError::Signature {
        why: format!("tensor {:?} is {}, which this build can't feed", spec.name, spec.datatype.name()),
    })?;
    Ok(TensorSpec { name: spec.name.clone(), datatype, shape: spec.shape.clone() })
}

/// The manifest's element type as this crate's; none for half precision, which JSON and applications don't send.
pub(crate) fn datatype(datatype: release::Datatype) -> Option<Datatype> {
    Datatype::from_name(datatype.name())
}

/// A step's name in the manifest.
pub(crate) fn post_name(step: &PostStep) -> &'static str {
    match step {
        PostStep::Softmax => "softmax",
        PostStep::Sigmoid => "sigmoid",
        PostStep::Argmax => "argmax",
        PostStep::Labels => "labels",
        PostStep::TopK { .. } => "top_k",
        PostStep::Threshold { .. } => "threshold",
    }
}
