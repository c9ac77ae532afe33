//! What is served: health, metadata, configuration, statistics, status.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use inference::TensorSpec;
use protocol::UnixMillis;
use serde_json::{Value, json};

use super::error::ApiError;
use super::work::Api;
use crate::slots::Loaded;

/// `GET /v2`
pub(super) async fn server() -> Json<Value> {
    Json(
        json!({ "name": "flotilla-agent", "version": env!("CARGO_PKG_VERSION"), "extensions": ["feedback"] }),
    )
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
    fn serving(&self, api: &Api) -> Result<std::sync::Arc<Loaded>, ApiError> {
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
        "platform": "onnx_tract",
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
    let manifest = &loaded.manifest;
    Ok(Json(json!({
        "name": loaded.model,
        "version": loaded.release.version,
        "digest": loaded.release.digest,
        "counter": loaded.release.counter,
        "variant": loaded.variant,
        "platform": "onnx_tract",
        "max_batch_size": inference::MAX_BATCH_ROWS,
        "pre": manifest.pre,
        "post": manifest.post,
        "labels": manifest.labels,
    })))
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`
pub(super) async fn stats(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let loaded = path.serving(&api)?;
    Ok(Json(json!({ "model_stats": [model_stats(&api, &loaded)] })))
}

/// `GET /status`: the agent's own part and every model that serves.
pub(super) async fn status(State(api): State<Api>) -> Json<Value> {
    let mut status = (api.status)();
    let models: Vec<Value> = api.table.all_active().iter().map(|loaded| model_stats(&api, loaded)).collect();
    let UnixMillis(now) = (api.now)();
    if let Value::Object(fields) = &mut status {
        fields.insert("serving".into(), Value::Array(models));
        fields.insert("requests_waiting".into(), api.waiting().into());
        fields.insert("panes_closed".into(), api.monitor.panes().into());
        fields.insert("at".into(), now.into());
    }
    Json(status)
}

fn model_stats(api: &Api, loaded: &Loaded) -> Value {
    let totals = api.monitor.totals().get(&loaded.model).copied().unwrap_or_default();
    let since = api.monitor.probation(&loaded.model, loaded.release.digest);
    json!({
        "name": loaded.model,
        "version": loaded.release.version,
        "digest": loaded.release.digest,
        "variant": loaded.variant,
        "inference_count": totals.answered,
        "inference_stats": {
            "success": { "count": totals.answered, "ns": totals.busy_us.saturating_mul(1000) },
            "fail": { "count": totals.failed },
            "refused": { "count": totals.refused },
        },
        "labels": { "count": totals.labels, "right": totals.right },
        "since_activation": { "requests": since.requests, "errors": since.errors, "p95_us": since.p95_us },
    })
}
