//! The model repository extension, as a view: what is there can be listed; what serves is the fleet's decision.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::error::ApiError;
use super::object::Object;
use super::path::Path;
use super::work::Api;
use crate::slots::Loaded;

/// A wish takes less.
const MAX_BYTES: usize = 64 * 1024;

/// A body of the index; without one everything is listed.
#[derive(Debug, Default, Deserialize)]
struct Wish {
    /// Only what is ready.
    #[serde(default)]
    ready: bool,
}

/// `POST /v2/repository/index`, and GET for a look by hand: what serves, and what is here but can't serve now, with why.
pub(super) async fn index(State(api): State<Api>, request: Request<Body>) -> Result<Json<Value>, ApiError> {
    let body = body::receive_at_most(MAX_BYTES, &api, request).await?;
    let (wish, _) = body.split();
    let Object(wish) = match wish.as_ref() {
        b"" => Object(Wish::default()),
        wish => serde_json::from_slice(wish).map_err(ApiError::Json)?,
    };
    let entry = |loaded: &Arc<Loaded>| json!({ "name": loaded.model, "version": loaded.release.version, "state": "READY", "reason": "" });
    let mut list: Vec<Value> = api.table.all_active().iter().map(entry).collect();
    if !wish.ready {
        let absent = api.table.all_absent().into_iter();
        let entry =
            |(name, why)| json!({ "name": name, "version": "", "state": "UNAVAILABLE", "reason": why });
        list.extend(absent.map(entry));
    }
    Ok(Json(list.into()))
}

/// `POST /v2/repository/models/{model}/load`: true already for a model that serves; nothing else can be loaded.
pub(super) async fn load(
    State(api): State<Api>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    body::receive_at_most(MAX_BYTES, &api, request).await?;
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
    body::receive_at_most(MAX_BYTES, &api, request).await?;
    let loaded = api.serving(&model, None)?;
    Err(ApiError::ReadOnly(format!("cannot unload {}", loaded.model)))
}
