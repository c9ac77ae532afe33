//! The paths of the local API.

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};

use super::error::ApiError;
use super::origin::Reach;
use super::work::Api;
use super::{feedback, infer, metrics, models, origin, repository, stats};

/// All paths, for a listener.
pub(super) fn router(api: Api, reach: Reach) -> Router {
    let model = Router::new()
        .route("/", get(models::metadata))
        .route("/ready", get(models::model_ready))
        .route("/config", get(models::config))
        .route("/stats", get(stats::of_model))
        .route("/infer", post(infer::infer));
    Router::new()
        .route("/v2", get(models::server))
        .route("/v2/health/live", get(models::live))
        .route("/v2/health/ready", get(models::ready))
        .route("/v2/models/stats", get(stats::of_all))
        .route("/v2/models/{model}/feedback", post(feedback::feedback))
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .route("/v2/repository/index", post(repository::index).get(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/metrics", get(metrics::metrics))
        .route("/status", get(models::status))
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::Method { method: method.as_str().chars().take(20).collect(), path: path(&uri) }
        })
        .fallback(|uri: Uri| async move { ApiError::UnknownPath(path(&uri)) })
        .layer(axum::middleware::from_fn(move |request, next| origin::check(reach, request, next)))
        .with_state(api)
}

fn path(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}
