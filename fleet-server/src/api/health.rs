//! For load balancers and systemd, without sign-in; and for Prometheus, with a viewer's token over all projects.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::{ApiError, ApiResult};
use super::extract::{Everywhere, Viewer};
use crate::app::AppState;
use crate::store::overview;

/// The server's jobs write every few seconds, so that this long without a commit means that it can't.
const MAX_WITHOUT_WRITING: Duration = Duration::from_mins(1);

/// Whoever asks for readiness waits a few seconds at most, and is to see the reason.
const MAX_PING: Duration = Duration::from_secs(2);

/// `/healthz`, `/readyz`, `/metrics`.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The server can do its work: the database answers and is written to, its jobs run, and it is not shutting down.
async fn readyz(State(state): State<AppState>) -> ApiResult<&'static str> {
    if state.closing.is_cancelled() {
        return Err(ApiError::unavailable("closing", "The server is shutting down.", 5));
    }
    let unreachable = |why: &str| {
        tracing::warn!("not ready: {why}");
        ApiError::unavailable("database_unreachable", "The database does not answer.", 5)
    };
    match tokio::time::timeout(MAX_PING, state.store.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(unreachable(&crate::supervisor::with_causes(&e))),
        Err(_) => return Err(unreachable("the database does not answer in time")),
    }
    let silent = state.store.since_last_commit();
    if silent > MAX_WITHOUT_WRITING {
        let message = format!("The database has taken nothing for {} s; is its disk full?", silent.as_secs());
        return Err(ApiError::unavailable("database_not_writable", message, 5));
    }
    if let Some(why) = state.standstill.why() {
        return Err(ApiError::unavailable("job_stands_still", why, 5));
    }
    Ok("ready\n")
}

async fn metrics(State(state): State<AppState>, _viewer: Everywhere<Viewer>) -> Response {
    let totals = match state.store.read().await {
        Ok(mut conn) => overview::totals(&mut conn).await,
        Err(e) => Err(e),
    };
    let Ok(totals) = totals else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response();
    };
    let gauge =
        |name, help, value: i64| state.metrics.gauge(name, help, &[]).set(u64::try_from(value).unwrap_or(0));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    state.metrics.gauge("flotilla_server_info", "Version of the server.", &version).set(1);
    gauge("flotilla_devices", "Devices in service.", totals.devices);
    gauge("flotilla_devices_online", "Devices that are connected.", totals.online);
    gauge("flotilla_rollouts_running", "Rollouts that have not ended.", totals.rollouts);
    gauge("flotilla_alerts_open", "Alerts that are open.", totals.alerts);
    // Asking the disk is one system call that waits for nothing.
    match rustix::fs::statvfs(&state.config.data_dir) {
        Ok(disk) => {
            let (block, all, free) = (disk.f_frsize, disk.f_blocks, disk.f_bavail);
            let help = "Free on the disk of the data folder, for the server's user.";
            state.metrics.gauge("flotilla_data_disk_free_bytes", help, &[]).set(free.saturating_mul(block));
            let help = "Size of the disk of the data folder.";
            state.metrics.gauge("flotilla_data_disk_size_bytes", help, &[]).set(all.saturating_mul(block));
        }
        Err(e) => tracing::warn!("the disk of {} can't be asked: {e}", state.config.data_dir.display()),
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render()).into_response()
}
