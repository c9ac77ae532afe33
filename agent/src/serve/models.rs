//! What is served: health, metadata, configuration, statistics, status.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inference::{Datatype, TensorSpec};
use protocol::UnixMillis;
use serde_json::{Value, json};

use super::error::ApiError;
use super::path::Path;
use super::stats;
use super::work::Api;
use crate::slots::Loaded;

/// What runs the models.
const PLATFORM: &str = "onnx_tract";

/// Extensions of the protocol that are served; `feedback` is our own.
const EXTENSIONS: [&str; 6] = [
    "classification",
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
    "feedback",
];

/// `GET /v2`
pub(super) async fn server() -> Json<Value> {
    Json(json!({
        "name": "flotilla-agent",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    }))
}

/// `GET /v2/health/live`
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`: ready once any model serves.
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let is_ready = !api.table.all_active().is_empty();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": is_ready })))
}

/// A model with or without a version in the path.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    /// The release that it means.
    pub(super) fn serving(&self, api: &Api) -> Result<std::sync::Arc<Loaded>, ApiError> {
        api.serving(&self.model, self.version.as_deref())
    }
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(super) async fn model_ready(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let loaded = path.serving(&api)?;
    Ok(Json(json!({ "name": loaded.model, "ready": true })))
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(super) async fn metadata(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let loaded = path.serving(&api)?;
    let tensor = |t: &TensorSpec| json!({ "name": t.name, "datatype": t.datatype.name(), "shape": t.shape });
    let spec = loaded.runtime.spec();
    Ok(Json(json!({
        "name": loaded.model,
        "versions": [loaded.release.version],
        "platform": PLATFORM,
        "inputs": spec.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": spec.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub(super) async fn config(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let loaded = path.serving(&api)?;
    let (manifest, spec) = (&loaded.manifest, loaded.runtime.spec());
    let is_batched = spec.inputs.iter().chain(&spec.outputs).all(TensorSpec::is_batched);
    let tensor = |t: &TensorSpec| {
        json!({
            "name": t.name,
            "data_type": config_type(t.datatype),
            "dims": t.shape.iter().skip(usize::from(is_batched)).collect::<Vec<_>>(),
        })
    };
    Ok(Json(json!({
        "name": loaded.model,
        "platform": PLATFORM,
        "backend": "tract",
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": if is_batched { inference::MAX_BATCH_ROWS } else { 0 },
        "input": spec.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "output": spec.outputs.iter().map(tensor).collect::<Vec<_>>(),
        "version": loaded.release.version,
        "digest": loaded.release.digest,
        "counter": loaded.release.counter,
        "variant": loaded.variant,
        "pre": manifest.pre,
        "post": manifest.post,
        "labels": manifest.labels,
    })))
}

/// The element type's name in a model configuration.
fn config_type(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}

/// `GET /status`: the agent's own part and every model that serves.
pub(super) async fn status(State(api): State<Api>) -> Json<Value> {
    let mut status = (api.status)();
    let models = stats::all(&api);
    let UnixMillis(now) = (api.now)();
    if let Value::Object(fields) = &mut status {
        fields.insert("serving".into(), Value::Array(models));
        fields.insert("requests_waiting".into(), api.waiting().into());
        fields.insert("panes_closed".into(), api.monitor.panes().into());
        fields.insert("at".into(), now.into());
    }
    Json(status)
}
