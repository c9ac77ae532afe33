//! A device's history: task transitions, events, resource readings.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_body::TaskTransition;
use super::devices::find;
use super::error::{ApiResult, ErrorBody};
use super::extract::{InProject, Json, Paging, Path, Query, Viewer};
use super::types::{DevicePath, List, Timestamp};
use crate::app::AppState;
use crate::store::history::{self, event_key};
use crate::store::tasks;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(transitions)).routes(routes!(events)).routes(routes!(resources))
}

/// Something that happened on a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceEvent {
    /// Its id.
    pub id: String,
    /// The device's clock.
    pub at: Timestamp,
    /// The server's clock.
    pub received_at: Timestamp,
    /// Stable name.
    pub name: String,
    /// One sentence.
    pub detail: String,
}

/// Resource readings at one time.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResourceReading {
    /// The device's clock.
    pub at: Timestamp,
    /// Resident memory of the agent.
    pub rss_bytes: u64,
    /// CPU time of the agent since its start.
    pub cpu_ms: u64,
    /// Free on the disk of the state directory.
    pub disk_free_bytes: u64,
    /// Used by slots, spool and metadata.
    pub disk_used_bytes: u64,
    /// Load average over one minute.
    pub load1: f64,
    /// Hottest thermal zone.
    #[schema(required)]
    pub temperature_c: Option<f64>,
}

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// Readings that arrived from then on; the last 24 hours if left out.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
}

/// Most readings in one answer.
const MAX_READINGS: i64 = 2000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Every transition of the update machine, newest first.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/tasks", tag = "devices",
    operation_id = "listDeviceTasks", params(DevicePath, Paging),
    responses((status = 200, body = List<TaskTransition>), (status = 404, body = ErrorBody)))]
async fn transitions(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<TaskTransition>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    find(&mut conn, &scope, &path).await?;
    let page = tasks::list(&mut conn, &scope.project, &path.device, &window).await?;
    let shown = |stored: tasks::StoredReport| TaskTransition::new(&stored.report, stored.received_at);
    Ok(Json(List::page(page, window.limit, |stored| stored.counter.to_string(), shown)))
}

/// What happened, newest first.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/events", tag = "devices",
    operation_id = "listDeviceEvents", params(DevicePath, Paging),
    responses((status = 200, body = List<DeviceEvent>), (status = 404, body = ErrorBody)))]
async fn events(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<DeviceEvent>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    find(&mut conn, &scope, &path).await?;
    let page = history::events(&mut conn, &scope.project, &path.device, &window).await?;
    let shown = |event: history::Event| DeviceEvent {
        id: event.event_id,
        at: event.at.into(),
        received_at: event.received_at.into(),
        name: event.name,
        detail: event.detail,
    };
    Ok(Json(List::page(page, window.limit, event_key, shown)))
}

/// Memory, CPU, disk, load and temperature, oldest first, at most the newest 2000.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/resources", tag = "devices",
    operation_id = "listDeviceResources", params(DevicePath, Since),
    responses((status = 200, body = List<ResourceReading>), (status = 404, body = ErrorBody)))]
async fn resources(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
    Query(query): Query<Since>,
) -> ApiResult<Json<List<ResourceReading>>> {
    let since = query.from.map_or_else(|| state.clock.now().plus_millis(-DAY_MS), |from| from.0);
    let mut conn = state.store.read().await?;
    find(&mut conn, &scope, &path).await?;
    let readings = history::readings(&mut conn, &scope.project, &path.device, since, MAX_READINGS).await?;
    let shown = |reading: history::Reading| ResourceReading {
        at: reading.at.into(),
        rss_bytes: reading.resources.rss_bytes,
        cpu_ms: reading.resources.cpu_ms,
        disk_free_bytes: reading.resources.disk_free_bytes,
        disk_used_bytes: reading.resources.disk_used_bytes,
        load1: reading.resources.load1,
        temperature_c: reading.resources.temperature_c,
    };
    Ok(Json(List::whole(readings.into_iter().map(shown).collect())))
}
