//! `POST /v2/models/{model}[/versions/{version}]/infer`

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inference::{InferError, Tensor, TensorJson};
use serde::Deserialize;

use super::answer::Answer;
use super::error::ApiError;
use super::work::{After, Api};
use crate::monitor::{Outcome, Request};
use crate::slots::Loaded;

/// Most tensors in one request.
const MAX_TENSORS: usize = 64;
/// Longest id that a caller may give, in bytes.
const MAX_ID_BYTES: usize = 128;
/// Header of the protocol's binary extension.
const BINARY_HEADER: &str = "inference-header-content-length";

/// The protocol's request; what it may hold beyond this is ignored.
#[derive(Debug, Deserialize)]
struct InferRequest<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<TensorJson<'a>>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

#[derive(Debug, Deserialize)]
struct WantedOutput {
    name: String,
}

pub(super) async fn latest(
    State(api): State<Api>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(api, &model, None, &headers, body).await
}

pub(super) async fn of_version(
    State(api): State<Api>,
    Path((model, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(api, &model, Some(&version), &headers, body).await
}

async fn answer(
    api: Api,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    if headers.contains_key(BINARY_HEADER) {
        return Err(ApiError::Field(
            "this server takes tensors as JSON only, not the binary extension".into(),
        ));
    }
    let body = body.map_err(ApiError::Body)?;
    let loaded = api.serving(model, version)?;
    let worker = api.clone();
    let json = api.run(move || work(worker, loaded, &body)).await??;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Everything that takes time, on a blocking thread.
fn work(api: Api, loaded: Arc<Loaded>, body: &[u8]) -> (Result<Vec<u8>, ApiError>, After) {
    let nothing: After = Box::new(|| ());
    let (id, inputs, wanted) = match parse(body) {
        Ok(request) => request,
        Err(error) => {
            let after = record(api, loaded, Vec::new(), Duration::ZERO, Ended::Refused);
            return (Err(error), after);
        }
    };
    if let Some(unknown) = unknown_output(&loaded, &wanted) {
        return (Err(unknown), nothing);
    }
    let id = id.unwrap_or_else(|| api.new_id());
    let kept = inputs.clone();
    let start = Instant::now();
    let result = loaded.runtime.infer(inputs);
    let latency = start.elapsed();
    match result {
        Ok(outputs) => {
            let json = Answer::new(&loaded, &id, &outputs, &wanted).to_json();
            api.monitor.remember(&loaded, &id, &outputs, (api.now)());
            (Ok(json), record(api, loaded, kept, latency, Ended::Answered(outputs)))
        }
        Err(error) => {
            let ended = if error.is_caller_fault() { Ended::Refused } else { Ended::Failed(kind_of(&error)) };
            (Err(ApiError::Infer(error)), record(api, loaded, kept, latency, ended))
        }
    }
}

enum Ended {
    Answered(Vec<Tensor>),
    Failed(&'static str),
    Refused,
}

fn record(api: Api, loaded: Arc<Loaded>, inputs: Vec<Tensor>, latency: Duration, ended: Ended) -> After {
    Box::new(move || {
        let outcome = match &ended {
            Ended::Answered(outputs) => Outcome::Answered(outputs),
            Ended::Failed(kind) => Outcome::Failed(kind),
            Ended::Refused => Outcome::Refused,
        };
        let at = (api.now)();
        api.monitor.record(&Request { loaded: &loaded, inputs: &inputs, at, latency, outcome });
    })
}

type Parsed = (Option<String>, Vec<Tensor>, Vec<String>);

fn parse(body: &[u8]) -> Result<Parsed, ApiError> {
    let request: InferRequest<'_> = serde_json::from_slice(body).map_err(ApiError::Json)?;
    if request.inputs.len() > MAX_TENSORS || request.outputs.len() > MAX_TENSORS {
        return Err(ApiError::Field(format!("a request may name at most {MAX_TENSORS} tensors")));
    }
    let id = request.id.filter(|id| !id.is_empty());
    if id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
        return Err(ApiError::Field(format!("an id may have at most {MAX_ID_BYTES} bytes")));
    }
    let inputs = request.inputs.into_iter().map(|input| input.parse().map_err(ApiError::Tensor));
    Ok((
        id,
        inputs.collect::<Result<_, _>>()?,
        request.outputs.into_iter().map(|output| output.name).collect(),
    ))
}

fn unknown_output(loaded: &Loaded, wanted: &[String]) -> Option<ApiError> {
    let outputs = &loaded.runtime.spec().outputs;
    let unknown = wanted.iter().find(|name| outputs.iter().all(|output| output.name != **name))?;
    let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    Some(ApiError::Field(format!("output {unknown:?} is unknown; the model gives {}", known.join(", "))))
}

/// A fixed name per kind of failure, for the pane's counters.
fn kind_of(error: &InferError) -> &'static str {
    match error {
        InferError::Panic { .. } => "panic",
        InferError::Post { .. } => "post",
        _ => "runtime",
    }
}
