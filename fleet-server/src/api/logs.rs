//! A device's log lines, as the command `collect_logs` brought them.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::find;
use super::error::{ApiResult, ErrorBody};
use super::extract::{InProject, Json, Operator, Paging, Path, Query};
use super::types::{DevicePath, List, Timestamp};
use crate::app::AppState;
use crate::store::logs::{self, Upload};

/// Most uploads of a page: each may hold thousands of lines.
const MAX_UPLOADS: i64 = 20;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Log lines of a device, which one command asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogUpload {
    /// When they arrived, by the server's clock.
    pub received_at: Timestamp,
    /// The command's id.
    pub command_id: String,
    /// Newest last; control characters are replaced.
    pub lines: Vec<String>,
}

impl From<Upload> for LogUpload {
    fn from(upload: Upload) -> Self {
        Self { received_at: upload.received_at.into(), command_id: upload.command_id, lines: upload.lines }
    }
}

/// Log lines that a device sent on request, newest upload first; a page holds at most 20 uploads.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/logs", tag = "devices",
    operation_id = "listDeviceLogs", params(DevicePath, Paging),
    responses((status = 200, body = List<LogUpload>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<DevicePath>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<LogUpload>>> {
    let mut window = paging.window()?;
    window.limit = window.limit.min(MAX_UPLOADS);
    let mut conn = state.store.read().await?;
    find(&mut conn, &scope, &path).await?;
    let page = logs::list(&mut conn, &scope.project, &path.device, &window).await?;
    Ok(Json(List::page(page, window.limit, logs::key, LogUpload::from)))
}
