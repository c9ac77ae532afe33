//! A device's records that could not be stored in their tables, for people to look at.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::find;
use super::error::{ApiResult, ErrorBody};
use super::extract::{InProject, Json, Paging, Path, Query, Viewer};
use super::types::{DevicePath, List, Timestamp};
use crate::app::AppState;
use crate::store::quarantine::{self, Quarantined};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A record that could not be stored in its table. It counts as received and is not tried again.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedRecord {
    /// When it arrived, by the server's clock.
    pub received_at: Timestamp,
    /// The device's stream of records.
    pub stream: String,
    /// Position in the stream.
    pub seq: u64,
    /// What it said it was: `pane`, `resources`, `event`, `sample`, `log`.
    pub kind: String,
    /// Why it isn't in that table.
    pub why: String,
    /// Size of the whole body.
    pub size_bytes: u64,
    /// SHA-256 of the whole body; null for records from before servers noted it.
    #[schema(required)]
    pub body_sha256: Option<String>,
    /// The body's first 4096 bytes, base64.
    pub body_start: String,
}

impl From<Quarantined> for QuarantinedRecord {
    fn from(record: Quarantined) -> Self {
        Self {
            received_at: record.received_at.into(),
            stream: record.stream.to_string(),
            seq: record.seq,
            kind: record.kind,
            why: record.why,
            size_bytes: record.size_bytes,
            body_sha256: record.body_sha256.map(|digest| digest.to_hex()),
            body_start: STANDARD.encode(&record.body),
        }
    }
}

/// Records that could not be stored, newest first; at most 200 of a device are kept.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/quarantine", tag = "devices",
    operation_id = "listQuarantinedRecords", params(DevicePath, Paging),
    responses((status = 200, body = List<QuarantinedRecord>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<QuarantinedRecord>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    find(&mut conn, &scope, &path).await?;
    let page = quarantine::list(&mut conn, &scope.project, &path.device, &window).await?;
    Ok(Json(List::page(page, window.limit, quarantine::key, QuarantinedRecord::from)))
}
