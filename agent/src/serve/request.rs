//! An inference request as the protocol writes it, taken apart.

use inference::{Pieces, Spec, Tensor, TensorJson};
use serde::Deserialize;

use super::body::Received;
use super::error::ApiError;
use super::object::Object;
use crate::slots::Loaded;

/// Most tensors in one request.
const MAX_TENSORS: usize = 64;
/// Longest id that a caller may give, in bytes.
const MAX_ID_BYTES: usize = 128;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The caller's id.
    pub(super) id: Option<String>,
    /// The tensors.
    pub(super) inputs: Vec<Tensor>,
    /// The outputs that are wanted; empty for all.
    pub(super) outputs: Vec<Wanted>,
    /// The form of outputs that name none.
    pub(super) form: Form,
}

/// How an output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the JSON.
    Json,
    /// Behind the JSON.
    Binary,
}

/// One wanted output.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: String,
    /// Its form, if it names one.
    pub(super) form: Option<Form>,
    /// So many best classes in place of the scores.
    pub(super) classes: Option<usize>,
}

/// The protocol's JSON; what it may hold beyond this is ignored.
#[derive(Debug, Deserialize)]
struct RequestJson<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<Object<TensorJson<'a>>>,
    // Some applications write null for what they leave out.
    outputs: Option<Vec<Object<WantedJson>>>,
    parameters: Option<Object<RequestParameters>>,
}

#[derive(Debug, Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Debug, Deserialize)]
struct WantedJson {
    name: String,
    parameters: Option<Object<WantedParameters>>,
}

#[derive(Debug, Default, Deserialize)]
struct WantedParameters {
    binary_data: Option<bool>,
    classification: Option<usize>,
}

impl Asked {
    /// Takes a body apart. No tensor is made of what the model doesn't take: a type or a shape that isn't its own may
    /// need many times the body's memory.
    ///
    /// # Errors
    /// When it breaks the protocol or a bound.
    pub(super) fn parse(body: &Received, spec: &Spec) -> Result<Self, ApiError> {
        let (json, mut behind) = body.split();
        let Object(request): Object<RequestJson<'_>> =
            serde_json::from_slice(&json).map_err(ApiError::Json)?;
        let wants = request.outputs.unwrap_or_default();
        if request.inputs.len() > MAX_TENSORS || wants.len() > MAX_TENSORS {
            return Err(ApiError::Field(format!("a request may name at most {MAX_TENSORS} tensors")));
        }
        let id = request.id.filter(|id| !id.is_empty());
        if id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(ApiError::Field(format!("an id may have at most {MAX_ID_BYTES} bytes")));
        }
        spec.check_heads(request.inputs.iter().map(|Object(input)| input)).map_err(ApiError::Infer)?;
        let inputs = inputs(request.inputs, &mut behind)?;
        let outputs = wants.into_iter().map(wanted).collect();
        let Object(parameters) = request.parameters.unwrap_or_default();
        Ok(Self { id, inputs, outputs, form: form(parameters.binary_data_output) })
    }

    /// An output that the model doesn't give.
    pub(super) fn unknown_output(&self, loaded: &Loaded) -> Option<ApiError> {
        let outputs = &loaded.runtime.spec().outputs;
        let unknown =
            self.outputs.iter().find(|wanted| outputs.iter().all(|output| output.name != wanted.name))?;
        let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        let name: String = unknown.name.chars().take(80).collect();
        Some(ApiError::Field(format!("output {name:?} is unknown; the model gives {}", known.join(", "))))
    }
}

fn inputs(inputs: Vec<Object<TensorJson<'_>>>, behind: &mut Pieces<'_>) -> Result<Vec<Tensor>, ApiError> {
    let parsed = inputs.into_iter().map(|Object(input)| input.parse(behind).map_err(ApiError::Tensor));
    let parsed = parsed.collect::<Result<_, _>>()?;
    match behind.left() {
        0 => Ok(parsed),
        left => Err(ApiError::Field(format!("{left} bytes behind the JSON belong to no input"))),
    }
}

fn wanted(Object(json): Object<WantedJson>) -> Wanted {
    let Object(WantedParameters { binary_data, classification }) = json.parameters.unwrap_or_default();
    Wanted {
        name: json.name,
        form: binary_data.map(form),
        classes: classification.filter(|classes| *classes > 0),
    }
}

fn form(is_binary: bool) -> Form {
    if is_binary { Form::Binary } else { Form::Json }
}
