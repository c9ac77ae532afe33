//! The model repository extension, as a view: what is there can be listed; what serves is the fleet's decision.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde_json::{Value, json};

use super::body;
use super::error::ApiError;
use super::path::Path;
use super::work::Api;

/// `POST /v2/repository/index`, and GET for a look by hand. Everything that is listed is ready, so the request's
/// wish for ready models only changes nothing.
pub(super) async fn index(State(api): State<Api>, request: Request<Body>) -> Result<Json<Value>, ApiError> {
    body::receive(&api, request).await?;
    let entry = |loaded: &std::sync::Arc<crate::slots::Loaded>| json!({ "name": loaded.model, "version": loaded.release.version, "state": "READY", "reason": "" });
    Ok(Json(api.table.all_active().iter().map(entry).collect()))
}

/// `POST /v2/repository/models/{model}/load`: true already for a model that serves; nothing else can be loaded.
pub(super) async fn load(
    State(api): State<Api>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    body::receive(&api, request).await?;
    match api.serving(&model, None) {
        Ok(_) => Ok(Json(json!({}))),
        Err(unknown) => Err(ApiError::ReadOnly(format!("cannot load: {unknown}"))),
    }
}

/// `POST /v2/repository/models/{model}/unload`: never.
pub(super) async fn unload(
    State(api): State<Api>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    body::receive(&api, request).await?;
    let loaded = api.serving(&model, None)?;
    Err(ApiError::ReadOnly(format!("cannot unload {}", loaded.model)))
}
