//! Paths, and the server that listens for them.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{get, post};
use axum::serve::Listener;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::work::Api;
use super::{feedback, infer, metrics, models};

/// The server stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("the local API can't go on serving")]
pub struct ServeError(#[source] std::io::Error);

/// All paths of the local API.
pub fn router(api: Api) -> Router {
    let limit = DefaultBodyLimit::max(api.max_body_bytes);
    let model = Router::new()
        .route("/", get(models::metadata))
        .route("/ready", get(models::model_ready))
        .route("/config", get(models::config))
        .route("/stats", get(models::stats));
    Router::new()
        .route("/v2", get(models::server))
        .route("/v2/health/live", get(models::live))
        .route("/v2/health/ready", get(models::ready))
        .route("/v2/models/{model}/infer", post(infer::latest))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::of_version))
        .route("/v2/models/{model}/feedback", post(feedback::feedback))
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .route("/metrics", get(metrics::metrics))
        .route("/status", get(models::status))
        .fallback(|uri: Uri| async move { ApiError::UnknownPath(uri.path().chars().take(200).collect()) })
        .layer(limit)
        .with_state(api)
}

/// Serves until `stop`, then lets requests in flight finish. Works on a TCP and on a unix listener.
///
/// # Errors
/// [`ServeError`] when the listener breaks.
pub async fn run<L>(listener: L, api: Api, stop: CancellationToken) -> Result<(), ServeError>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    axum::serve(listener, router(api))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(ServeError)
}
