//! What the runtime needs to know of a manifest: signature, steps before and after, labels.

use release::{Manifest, PostStep, PreStep};

use crate::error::{InferError, LoadError};
use crate::model::MAX_BATCH_ROWS;
use crate::oip::TensorJson;
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

    /// The same as an error that says what was expected.
    pub(crate) fn check(&self, datatype: Datatype, shape: &[usize]) -> Result<(), InferError> {
        let name = || self.name.clone();
        if datatype != self.datatype {
            return Err(InferError::Datatype { name: name(), expected: self.datatype, got: datatype });
        }
        if !self.allows(shape) {
            let (expected, got) = (self.shape.clone(), shape.to_vec());
            return Err(InferError::Shape { name: name(), expected, got });
        }
        Ok(())
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

    /// Whether the tensors of a request are those that the model takes, before any data is parsed: names, types, shapes
    /// and rows. A type that this build doesn't know is left to [`TensorJson::parse`], which names it.
    ///
    /// # Errors
    /// [`InferError`] as the model itself would refuse them.
    pub fn check_heads<'a>(&self, asked: impl Iterator<Item = &'a TensorJson<'a>>) -> Result<(), InferError> {
        let mut rest: Vec<&TensorJson<'_>> = asked.collect();
        for spec in &self.inputs {
            let Some(place) = rest.iter().position(|input| input.name() == spec.name) else {
                return Err(InferError::MissingInput {
                    name: spec.name.clone(),
                    expected: self.input_names(),
                });
            };
            let (datatype, shape) = rest.swap_remove(place).head();
            spec.check(datatype.unwrap_or(spec.datatype), shape)?;
            match shape.first() {
                Some(got) if spec.is_batched() && *got > MAX_BATCH_ROWS => {
                    return Err(InferError::Batch { got: *got, max: MAX_BATCH_ROWS });
                }
                _ => {}
            }
        }
        let unexpected = |extra: &&TensorJson<'_>| InferError::UnexpectedInput {
            name: extra.name().to_owned(),
            expected: self.input_names(),
        };
        rest.first().map_or(Ok(()), |extra| Err(unexpected(extra)))
    }

    /// The inputs' names, for people.
    pub(crate) fn input_names(&self) -> String {
        self.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_held_against_the_signature_before_their_data_is_looked_at() {
        let input = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
        let spec = Spec {
            inputs: vec![input],
            outputs: Vec::new(),
            pre: Vec::new(),
            post: Vec::new(),
            labels: Vec::new(),
        };
        let check = |head: &str| {
            let tensor = format!(r#"{{{head},"data":["never","parsed"]}}"#);
            let tensor: TensorJson<'_> = serde_json::from_str(&tensor).unwrap();
            spec.check_heads(std::iter::once(&tensor)).map_err(|error| error.to_string())
        };
        assert_eq!(check(r#""name":"x","datatype":"FP32","shape":[256,2]"#), Ok(()));
        assert_eq!(
            check(r#""name":"x","datatype":"FP8","shape":[1,2]"#),
            Ok(()),
            "that is named by the parser"
        );
        for (head, why) in [
            (r#""name":"y","datatype":"FP32","shape":[1,2]"#, "x"),
            (r#""name":"x","datatype":"BYTES","shape":[1,2]"#, "BYTES"),
            (r#""name":"x","datatype":"FP32","shape":[1,3]"#, "[1, 3]"),
            (r#""name":"x","datatype":"FP32","shape":[257,2]"#, "257"),
        ] {
            let error = check(head).unwrap_err();
            assert!(error.contains(why), "{head}: {error}");
        }
        assert!(matches!(spec.check_heads(std::iter::empty()), Err(InferError::MissingInput { .. })));
    }
}
