//! The protocol's answer to an inference: JSON, and behind it the outputs that were asked for in binary form.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use inference::{Data, Tensor, best_classes};
use serde::{Serialize, Serializer};

use super::body::JSON_BYTES;
use super::error::ApiError;
use super::request::{Asked, Form, Wanted};
use crate::slots::Loaded;

/// An answer's bytes.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    /// Bytes of JSON at the beginning, when others follow.
    json_len: Option<usize>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    model_name: &'a str,
    model_version: &'a str,
    id: &'a str,
    outputs: Vec<Output<'a>>,
}

/// One output and how it is sent.
struct Output<'a> {
    tensor: Cow<'a, Tensor>,
    form: Form,
}

/// An output whose values stand behind the JSON.
#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    parameters: HeaderParameters,
}

#[derive(Serialize)]
struct HeaderParameters {
    binary_data_size: usize,
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.tensor.as_ref();
        if self.form == Form::Json {
            return tensor.serialize(serializer);
        }
        Header {
            name: tensor.name(),
            datatype: tensor.datatype().name(),
            shape: tensor.shape(),
            parameters: HeaderParameters { binary_data_size: tensor.binary_len() },
        }
        .serialize(serializer)
    }
}

impl Answer {
    /// Writes all outputs, or the wanted ones.
    ///
    /// # Errors
    /// When classes are wanted of an output that has no scores.
    pub(super) fn write(
        loaded: &Loaded,
        id: &str,
        outputs: &[Tensor],
        asked: &Asked,
    ) -> Result<Self, ApiError> {
        let outputs = outputs.iter().filter_map(|tensor| match asked.outputs.as_slice() {
            [] => Some(Ok(Output { tensor: Cow::Borrowed(tensor), form: asked.form })),
            some => some
                .iter()
                .find(|wanted| wanted.name == tensor.name())
                .map(|wanted| output(loaded, tensor, wanted, asked.form)),
        });
        let answer = AnswerJson {
            model_name: loaded.model.as_str(),
            model_version: loaded.release.version.as_str(),
            id,
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        let mut bytes = serde_json::to_vec(&answer).expect("tensors and names always have a JSON form");
        let json_len = bytes.len();
        let mut binary = answer.outputs.iter().filter(|output| output.form == Form::Binary).peekable();
        let is_binary = binary.peek().is_some();
        for output in binary {
            bytes.reserve(output.tensor.binary_len());
            output.tensor.write_binary(&mut bytes);
        }
        Ok(Self { bytes, json_len: is_binary.then_some(json_len) })
    }
}

fn output<'a>(
    loaded: &Loaded,
    tensor: &'a Tensor,
    wanted: &Wanted,
    form: Form,
) -> Result<Output<'a>, ApiError> {
    let form = wanted.form.unwrap_or(form);
    let Some(classes) = wanted.classes else { return Ok(Output { tensor: Cow::Borrowed(tensor), form }) };
    let tensor = classified(tensor, classes, &loaded.manifest.labels)?;
    Ok(Output { tensor: Cow::Owned(tensor), form })
}

/// The protocol's classification extension: the best classes as texts `score:class:label`.
fn classified(tensor: &Tensor, classes: usize, labels: &[String]) -> Result<Tensor, ApiError> {
    let refused =
        |why: &str| ApiError::Field(format!("output {:?} can't be given as classes: {why}", tensor.name()));
    let Data::Fp32(scores) = tensor.data() else { return Err(refused("its scores are not FP32")) };
    let width = tensor.shape().last().copied().filter(|width| *width > 0);
    let width = width.ok_or_else(|| refused("it has no scores"))?;
    let classes = classes.min(width);
    let text = |row: &[f32], class: usize| match labels.get(class).filter(|_| labels.len() == width) {
        Some(label) => format!("{}:{class}:{label}", row[class]),
        None => format!("{}:{class}", row[class]),
    };
    let texts: Vec<String> = scores
        .chunks_exact(width)
        .flat_map(|row| best_classes(row, classes).into_iter().map(|class| text(row, class)))
        .collect();
    let mut shape = tensor.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = classes;
    }
    Tensor::new(tensor.name(), shape, Data::Bytes(texts)).map_err(|error| refused(&error.to_string()))
}

impl Answer {
    /// The answer as one JSON text.
    ///
    /// # Errors
    /// When outputs were asked in binary form, which only HTTP carries.
    pub(super) fn into_json(self) -> Result<Vec<u8>, ApiError> {
        match self.json_len {
            None => Ok(self.bytes),
            Some(_) => Err(ApiError::Field("binary outputs are answered over HTTP only".into())),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let kind = if self.json_len.is_some() { "application/octet-stream" } else { "application/json" };
        let mut response = self.bytes.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(json_len) = self.json_len {
            response.headers_mut().insert(HeaderName::from_static(JSON_BYTES), json_len.into());
        }
        response
    }
}
