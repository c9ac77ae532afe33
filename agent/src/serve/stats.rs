//! The statistics extension: counts and times of each model since the agent started.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use super::models::ModelPath;
use super::path::Path;
use super::work::Api;
use crate::slots::Loaded;

/// `GET /v2/models/{model}[/versions/{version}]/stats`
pub(super) async fn of_model(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let loaded = path.serving(&api)?;
    Ok(Json(json!({ "model_stats": [one(&api, &loaded)] })))
}

/// `GET /v2/models/stats`
pub(super) async fn of_all(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "model_stats": all(&api) }))
}

/// Statistics of every model that serves.
pub(super) fn all(api: &Api) -> Vec<Value> {
    api.table.all_active().iter().map(|loaded| one(api, loaded)).collect()
}

/// Counts are of the model since the agent started, whatever its release; `since_activation` is of the release.
fn one(api: &Api, loaded: &Arc<Loaded>) -> Value {
    let totals = api.monitor.totals().get(&loaded.model).copied().unwrap_or_default();
    let since = api.monitor.probation(&loaded.model, loaded.release.digest);
    let part = |us: u64| json!({ "count": totals.answered, "ns": us.saturating_mul(1000) });
    let success_us = [totals.queue_us, totals.input_us, totals.busy_us, totals.output_us];
    let success_us = success_us.into_iter().fold(0, u64::saturating_add);
    json!({
        "name": loaded.model,
        "version": loaded.release.version,
        "digest": loaded.release.digest,
        "variant": loaded.variant,
        "last_inference": totals.last.map_or(0, |at| at.0),
        "inference_count": totals.rows,
        "execution_count": totals.answered,
        "inference_stats": {
            "success": part(success_us),
            "fail": { "count": totals.failed, "ns": totals.failed_us.saturating_mul(1000) },
            "queue": part(totals.queue_us),
            "compute_input": part(totals.input_us),
            "compute_infer": part(totals.busy_us),
            "compute_output": part(totals.output_us),
            "cache_hit": { "count": 0, "ns": 0 },
            "cache_miss": { "count": 0, "ns": 0 },
            "refused": { "count": totals.refused },
        },
        "batch_stats": [],
        "labels": { "count": totals.labels, "right": totals.right },
        "since_activation": { "requests": since.requests, "errors": since.errors, "p95_us": since.p95_us },
    })
}
