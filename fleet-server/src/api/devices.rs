//! Devices: list, one, labels, why, commands, decommission.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use protocol::measurement::MAX_MEASURE_S;
use protocol::message::{Command, CommandAction};
use protocol::{ModelName, ProjectId, ReleaseRef, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_body::{CauseBody, DeviceDetail, DeviceSummary, ReleaseName};
use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Operator, Paging, Path, Query, Viewer};
use super::types::{DevicePath, List, ProjectPath, Timestamp};
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::audit::{self, Change};
use crate::domain::{labels, why};
use crate::ids::ordered_id;
use crate::store::alerts::Over;
use crate::store::{Conn, Window, alerts, devices, history, projects, quarantine, releases, rollouts, tasks};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, update, decommission))
        .routes(routes!(explain))
        .routes(routes!(command))
}

/// Which devices are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeviceQuery {
    /// A part of the name.
    q: Option<String>,
    /// Whether connected.
    online: Option<bool>,
    /// Labels as `key:value`, separated by commas; all must fit.
    label: Option<String>,
    /// A model that the device has.
    #[param(value_type = Option<String>)]
    model: Option<ModelName>,
    /// The release that serves.
    #[param(value_type = Option<String>)]
    version: Option<Version>,
}

/// Changes to a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// The server's labels to be set, and with `null` to be removed; the others stay.
    labels: BTreeMap<String, Option<String>>,
}

/// For which model.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// The model's name.
    #[param(value_type = String)]
    model: ModelName,
}

/// The one answer to "why is this device not on the release?".
#[derive(Debug, Serialize, ToSchema)]
pub struct Why {
    /// Stable name: `on_release`, `not_loaded`, `decommissioned`, `never_connected`, `nothing_desired`, `offline`,
    /// `not_accepted_yet`, `under_way`, `failed`, `rolled_back`, `rejected`; while a rollout is open that hasn't
    /// asked the device: `not_a_target`, `not_started`, `later_stage`, `paused`, `waiting`, `skipped`,
    /// `unreachable`, `brought_back`.
    pub answer: String,
    /// One sentence for people.
    pub message: String,
    /// The release that the server asks for.
    #[schema(required)]
    pub desired: Option<ReleaseName>,
    /// The release that serves.
    #[schema(required)]
    pub active: Option<ReleaseName>,
    /// The rollout that asks for it.
    #[schema(required)]
    pub rollout: Option<String>,
    /// What the device says about it.
    #[schema(required)]
    pub cause: Option<CauseBody>,
    /// Since when, where that is known.
    #[schema(required)]
    pub since: Option<Timestamp>,
}

/// What a device is asked to do once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum NewCommand {
    /// Say hello again and refresh the signed metadata.
    Refresh,
    /// Send the newest log lines.
    CollectLogs {
        /// At most so many, 1 to 10000.
        max_lines: u32,
    },
    /// Close this model's open pane now.
    FlushPanes {
        /// The model's name.
        #[schema(value_type = String)]
        model: ModelName,
    },
    /// Fetch a variant of a release and measure it beside what serves; the answer stands among the release's
    /// measurements.
    Measure {
        /// The model's name.
        #[schema(value_type = String)]
        model: ModelName,
        /// The release's version.
        #[schema(value_type = String)]
        version: Version,
        /// The variant's name.
        variant: String,
        /// Seconds that loading and measuring may take, 1 to 600.
        max_s: u32,
    },
}

/// A command that was queued; the device's answer names its id.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedCommand {
    /// Its id.
    pub id: String,
    /// Whether the device is connected; if not, the command is lost and may be repeated later.
    pub is_online: bool,
}

/// Devices in service.
#[utoipa::path(get, path = "/projects/{project}/devices", tag = "devices", operation_id = "listDevices",
    params(ProjectPath, DeviceQuery, Paging),
    responses((status = 200, body = List<DeviceSummary>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Query(query): Query<DeviceQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<DeviceSummary>>> {
    let window = paging.window()?;
    let filter = devices::Filter {
        name_contains: query.q.filter(|q| !q.is_empty()),
        is_online: query.online,
        labels: labels_of(query.label.as_deref().unwrap_or_default())?,
        model: query.model,
        version: query.version,
    };
    let mut conn = state.store.read().await?;
    let page = devices::list(&mut conn, &scope.project, &filter, &window).await?;
    if page.total == 0 {
        refuse_unknown(&mut conn, &scope.project, &filter).await?;
    }
    drop(conn);
    Ok(Json(List::page(page, window.limit, |d| d.device.to_string(), |d| DeviceSummary::from(&d))))
}

/// "No device" is an answer only about what there is: a model or release that was never published is named.
async fn refuse_unknown(conn: &mut Conn, project: &ProjectId, filter: &devices::Filter) -> ApiResult<()> {
    let models = match &filter.model {
        Some(model) => releases::model(conn, project, model).await?.into_iter().collect(),
        None => releases::models(conn, project).await?,
    };
    if filter.model.is_some() && models.is_empty() {
        return Err(ApiError::not_found("model"));
    }
    let Some(version) = &filter.version else { return Ok(()) };
    for known in models {
        if releases::get(conn, project, &known.model, version).await?.is_some() {
            return Ok(());
        }
    }
    Err(ApiError::not_found("release"))
}

/// One device.
#[utoipa::path(get, path = "/projects/{project}/devices/{device}", tag = "devices", operation_id = "showDevice",
    params(DevicePath), responses((status = 200, body = DeviceDetail), (status = 404, body = ErrorBody)))]
async fn show(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
) -> ApiResult<Json<DeviceDetail>> {
    let mut conn = state.store.read().await?;
    let device = find(&mut conn, &scope, &path).await?;
    let quarantined = quarantine::count(&mut conn, &scope.project, &path.device).await?;
    Ok(Json(DeviceDetail::new(&device, quarantined, state.clock.now())))
}

/// Change a device's labels.
#[utoipa::path(patch, path = "/projects/{project}/devices/{device}", tag = "devices", operation_id = "updateDevice",
    params(DevicePath), request_body = DeviceChange,
    responses((status = 200, body = DeviceDetail), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<DevicePath>,
    Json(body): Json<DeviceChange>,
) -> ApiResult<Json<DeviceDetail>> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    // Two at once would each keep what the other removes.
    projects::lock(&mut tx, &scope.project).await?;
    let mut device = find_in_service(&mut tx, &scope, &path).await?;
    let labels = merged(device.labels.clone(), body.labels);
    check_labels(&labels)?;
    devices::set_labels(&mut tx, &scope.project, &path.device, &labels).await?;
    let actor = scope.who.actor();
    let change =
        Change::new(now, &actor, "device.labels", "device", path.device.as_str()).in_project(&scope.project);
    audit::record(&mut tx, &change.before(&device.labels).after(&labels)).await?;
    let quarantined = quarantine::count(&mut tx, &scope.project, &path.device).await?;
    tx.commit().await?;
    state.bus.changed(&scope.project, ChangeKind::Device, path.device.as_str());
    device.labels = labels;
    Ok(Json(DeviceDetail::new(&device, quarantined, now)))
}

/// Take a device out of service: its certificate is no longer honoured, its history stays.
#[utoipa::path(delete, path = "/projects/{project}/devices/{device}", tag = "devices",
    operation_id = "decommissionDevice", params(DevicePath),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn decommission(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<DevicePath>,
) -> ApiResult<StatusCode> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    find_in_service(&mut tx, &scope, &path).await?;
    devices::decommission(&mut tx, &scope.project, &path.device, now).await?;
    alerts::close(&mut tx, &scope.project, Over::OfDevice(&path.device), now).await?;
    let actor = scope.who.actor();
    history::note(&mut tx, &scope.project, &path.device, now, "decommissioned", &format!("by {actor}"))
        .await?;
    let change = Change::new(now, &actor, "device.decommission", "device", path.device.as_str())
        .in_project(&scope.project);
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    state.bus.changed(&scope.project, ChangeKind::Device, path.device.as_str());
    state.downlink.disconnect(scope.project, path.device);
    Ok(StatusCode::NO_CONTENT)
}

/// Why is this device not on the release?
#[utoipa::path(get, path = "/projects/{project}/devices/{device}/why", tag = "devices", operation_id = "whyDevice",
    params(DevicePath, WhyQuery), responses((status = 200, body = Why), (status = 404, body = ErrorBody)))]
async fn explain(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<DevicePath>,
    Query(query): Query<WhyQuery>,
) -> ApiResult<Json<Why>> {
    let mut conn = state.store.read().await?;
    let device = find(&mut conn, &scope, &path).await?;
    let reports = tasks::list(&mut conn, &scope.project, &path.device, &Window::first(200)).await?;
    let last =
        reports.items.into_iter().map(|stored| stored.report).find(|report| report.model == query.model);
    let open = rollouts::open_for(&mut conn, &scope.project, &query.model, &path.device).await?;
    let found = why::explain(&device, &query.model, last.as_ref(), open.as_ref());
    Ok(Json(Why {
        answer: found.answer.to_owned(),
        message: found.message,
        desired: found.desired.as_ref().map(ReleaseName::from),
        active: found.active.as_ref().map(ReleaseName::from),
        rollout: found.rollout.map(|r| r.to_string()),
        cause: found.cause.as_ref().map(CauseBody::from),
        since: found.since.map(Timestamp),
    }))
}

/// Ask a device to do something once.
#[utoipa::path(post, path = "/projects/{project}/devices/{device}/commands", tag = "devices",
    operation_id = "commandDevice", params(DevicePath), request_body = NewCommand,
    responses((status = 202, body = QueuedCommand), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn command(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<DevicePath>,
    Json(body): Json<NewCommand>,
) -> ApiResult<(StatusCode, Json<QueuedCommand>)> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    let action = action_of(&mut tx, &scope.project, body).await?;
    let device = find_in_service(&mut tx, &scope, &path).await?;
    let command = Command { id: ordered_id(now), at: now, action };
    let actor = scope.who.actor();
    let change =
        Change::new(now, &actor, "device.command", "device", path.device.as_str()).in_project(&scope.project);
    audit::record(&mut tx, &change.after(&command.action)).await?;
    tx.commit().await?;
    let id = command.id.clone();
    state.downlink.command(scope.project, path.device, command).map_err(|_| {
        ApiError::unavailable("downlink_full", "Too many messages wait for the broker; try again.", 5)
    })?;
    Ok((StatusCode::ACCEPTED, Json(QueuedCommand { id, is_online: device.is_online })))
}

pub(super) async fn find<R>(
    conn: &mut Conn,
    scope: &InProject<R>,
    path: &DevicePath,
) -> ApiResult<devices::Device> {
    devices::get(conn, &scope.project, &path.device).await?.ok_or_else(|| ApiError::not_found("device"))
}

async fn find_in_service<R>(
    conn: &mut Conn,
    scope: &InProject<R>,
    path: &DevicePath,
) -> ApiResult<devices::Device> {
    let device = find(conn, scope, path).await?;
    if device.decommissioned_at.is_some() {
        return Err(ApiError::conflict("decommissioned", "This device was taken out of service."));
    }
    Ok(device)
}

async fn action_of(conn: &mut Conn, project: &ProjectId, body: NewCommand) -> ApiResult<CommandAction> {
    match body {
        NewCommand::Refresh => Ok(CommandAction::Refresh),
        NewCommand::CollectLogs { max_lines: max_lines @ 1..=10_000 } => {
            Ok(CommandAction::CollectLogs { max_lines })
        }
        NewCommand::CollectLogs { .. } => {
            Err(ApiError::unprocessable("bad_max_lines", "max_lines must be from 1 to 10000."))
        }
        NewCommand::FlushPanes { model } => Ok(CommandAction::FlushPanes { model }),
        NewCommand::Measure { model, version, variant, max_s: max_s @ 1..=MAX_MEASURE_S } => {
            let found = releases::get(conn, project, &model, &version).await?;
            let found = found.ok_or_else(|| ApiError::not_found("release"))?;
            if !found.has_variant(&variant) {
                let message = "The release has no variant of this name.";
                return Err(ApiError::unprocessable("bad_variant", message).with("variant", variant));
            }
            let release = ReleaseRef { version, digest: found.digest, counter: found.counter };
            Ok(CommandAction::Measure { model, release, variant, max_s })
        }
        NewCommand::Measure { .. } => {
            Err(ApiError::unprocessable("bad_max_s", "max_s must be from 1 to 600."))
        }
    }
}

fn merged(
    mut labels: BTreeMap<String, String>,
    changes: BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    for (key, value) in changes {
        match value {
            Some(value) => _ = labels.insert(key, value),
            None => _ = labels.remove(&key),
        }
    }
    labels
}

fn labels_of(text: &str) -> ApiResult<Vec<(String, String)>> {
    if text.split(',').count() > labels::MAX_LABELS {
        return Err(ApiError::malformed("bad_label", "A device has at most 64 labels."));
    }
    let parse = |pair: &str| {
        let (key, value) = pair.split_once(':')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            parse(pair)
                .ok_or_else(|| ApiError::malformed("bad_label", "A label filter looks like key:value."))
        })
        .collect()
}

pub(super) fn check_labels(wanted: &BTreeMap<String, String>) -> ApiResult<()> {
    if wanted.len() > labels::MAX_LABELS {
        return Err(ApiError::unprocessable("too_many_labels", "A device has at most 64 labels."));
    }
    match wanted.iter().find(|(key, value)| !labels::is_key(key) || !labels::is_value(value)) {
        None => Ok(()),
        Some((key, _)) => {
            let message = "A label's key has 1 to 63 of a-z, A-Z, 0-9, - _ . /; its value at most 255 bytes without \
                           commas and control characters.";
            Err(ApiError::unprocessable("bad_label", message).with("key", key.as_str()))
        }
    }
}
