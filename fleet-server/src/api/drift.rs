//! Drift: windows, the devices that drift now, and distributions on the reference's bins.

use axum::extract::State;
use profile::drift::{Bin, DriftReport};
use protocol::{DeviceId, ModelName, ProjectId, UnixMillis, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Path, Query, Viewer};
use super::types::{List, ModelPath, Timestamp};
use crate::app::AppState;
use crate::domain::drift::{self as domain, DriftError, WindowRules, WindowSpan};
use crate::store::drift::{self, WindowFilter};
use crate::store::{Conn, devices, releases};

/// Most windows in one answer; in a longer time neighbours are added together.
const MAX_WINDOWS: i64 = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(windows)).routes(routes!(devices)).routes(routes!(distribution))
}

/// Which windows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WindowQuery {
    /// One release; all if left out.
    #[param(value_type = Option<String>)]
    version: Option<Version>,
    /// One device; the whole fleet if left out.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Segment of the data; all of it if left out.
    segment: Option<String>,
    /// Windows that end after this; the last 24 hours if left out.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Windows that start before this; now if left out.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// Which distribution.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DistributionQuery {
    /// A feature, or `predicted_class`, `confidence`, `entropy`, `margin`, `value`.
    feature: String,
    /// One release; the newest one of the time if left out.
    #[param(value_type = Option<String>)]
    version: Option<Version>,
    /// One device; the whole fleet if left out.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Windows that end after this; the last 24 hours if left out.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Windows that start before this; now if left out.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// One window of one release, of a device or of the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftWindow {
    /// The release.
    #[schema(value_type = String)]
    pub version: Version,
    /// SHA-256 of its manifest.
    pub digest: String,
    /// The device; null for the whole fleet.
    #[schema(value_type = Option<String>, required)]
    pub device: Option<DeviceId>,
    /// Segment of the data; empty for all of it.
    pub segment: String,
    /// First instant.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// Requests answered.
    pub n: u64,
    /// Whether anything drifted.
    pub is_drifting: bool,
    /// Whether late panes are no longer waited for.
    pub is_closed: bool,
    /// The comparison with the release's reference, as the profile room writes it.
    #[schema(value_type = Object)]
    pub report: DriftReport,
}

/// A device whose last windows drift.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftingDevice {
    /// Which device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// The release that it runs.
    #[schema(value_type = String)]
    pub version: Version,
    /// `drifting`.
    pub state: String,
    /// `one_device`, or `fleet` if at least half of the devices drift.
    pub pattern: String,
    /// What drifts, farthest first.
    pub features: Vec<DriftingFeature>,
    /// Requests answered in the newest drifting window.
    pub n: u64,
    /// Newest drifting window.
    pub window_start: Timestamp,
    /// Its end.
    pub window_end: Timestamp,
}

/// A feature that drifts on a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftingFeature {
    /// Its name.
    pub feature: String,
    /// `input` or `output`.
    #[schema(value_type = String)]
    pub role: profile::drift::Role,
    /// Jensen-Shannon distance, natural logarithm.
    pub distance: f64,
    /// p-value after Benjamini-Hochberg.
    #[schema(required)]
    pub adjusted_p: Option<f64>,
}

/// Name or limits of a bin.
#[derive(Debug, Serialize, ToSchema)]
pub struct DistributionBin {
    /// Category, or a name such as `outside`.
    #[schema(required)]
    pub name: Option<String>,
    /// Lower edge.
    #[schema(required)]
    pub low: Option<f64>,
    /// Upper edge.
    #[schema(required)]
    pub high: Option<f64>,
}

/// Reference and current counts on the same bins.
#[derive(Debug, Serialize, ToSchema)]
pub struct Distribution {
    /// The feature.
    pub feature: String,
    /// The release whose reference it is.
    #[schema(value_type = String)]
    pub version: Version,
    /// `input` or `output`.
    #[schema(value_type = String)]
    pub role: profile::drift::Role,
    /// `numeric` or `categorical`.
    pub kind: String,
    /// Values in the reference.
    pub n: u64,
    /// Values seen.
    pub m: u64,
    /// In order of value or category.
    pub bins: Vec<DistributionBin>,
    /// Count per bin in the reference.
    pub reference: Vec<u64>,
    /// Count per bin seen.
    pub current: Vec<u64>,
    /// Each bin's part of the whole difference, 0 to 1.
    pub contributions: Vec<f64>,
}

impl From<DriftError> for ApiError {
    fn from(e: DriftError) -> Self {
        match e {
            DriftError::Store(e) => e.into(),
            DriftError::Missing { .. } | DriftError::Manifest { .. } | DriftError::Reference { .. } => {
                Self::conflict("no_reference", format!("There is nothing to compare with: {e}."))
            }
            DriftError::Blob { .. } | DriftError::Panicked(_) => Self::internal(&e),
        }
    }
}

fn span(
    state: &AppState,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> ApiResult<(UnixMillis, UnixMillis)> {
    // Devices' clocks may run a little ahead of ours.
    let to = to.map_or_else(|| state.clock.now().plus_millis(3_600_000), |to| to.0);
    let from = from.map_or_else(|| to.plus_millis(-DAY_MS), |from| from.0);
    if from >= to {
        return Err(ApiError::unprocessable("bad_span", "from must lie before to."));
    }
    Ok((from, to))
}

/// Nothing to tell about a model is good news only if there is such a model.
async fn known_model(conn: &mut Conn, project: &ProjectId, model: &ModelName) -> ApiResult<()> {
    let found = releases::model(conn, project, model).await?;
    found.map(|_| ()).ok_or_else(|| ApiError::not_found("model"))
}

/// A misspelt device or version must not look like one without drift.
async fn known_places(
    conn: &mut Conn,
    path: &ModelPath,
    scope: &InProject<Viewer>,
    device: Option<&DeviceId>,
    version: Option<&Version>,
) -> ApiResult<()> {
    known_model(conn, &scope.project, &path.model).await?;
    if let Some(device) = device
        && devices::get(conn, &scope.project, device).await?.is_none()
    {
        return Err(ApiError::not_found("device"));
    }
    if let Some(version) = version
        && releases::get(conn, &scope.project, &path.model, version).await?.is_none()
    {
        return Err(ApiError::not_found("release"));
    }
    Ok(())
}

fn rules(state: &AppState) -> WindowRules {
    WindowRules::new(state.config.jobs.window, state.config.jobs.window_late)
}

/// Windows, oldest first: drift per feature, predictions, accuracy, latency, errors. Old ones are hours, older ones days;
/// where more than 500 would come, neighbours are added together.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/drift", tag = "drift", operation_id = "listDriftWindows",
    params(ModelPath, WindowQuery),
    responses((status = 200, body = List<DriftWindow>), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn windows(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
    Query(query): Query<WindowQuery>,
) -> ApiResult<Json<List<DriftWindow>>> {
    let (from, to) = span(&state, query.from, query.to)?;
    let filter = WindowFilter {
        version: query.version.as_ref(),
        device: query.device.as_ref(),
        segment: query.segment.as_deref().unwrap_or_default(),
        from,
        to,
        limit: MAX_WINDOWS,
    };
    let mut conn = state.store.read().await?;
    known_places(&mut conn, &path, &scope, filter.device, filter.version).await?;
    drop(conn);
    let found = domain::chart(&state, &scope.project, &path.model, &filter, rules(&state)).await?;
    let closed = state.clock.now().plus_millis(-rules(&state).late_ms);
    let shown = |(w, report): (drift::DriftWindow, DriftReport)| DriftWindow {
        version: w.version,
        digest: w.digest.to_hex(),
        device: w.device,
        segment: w.segment,
        from: w.window_start.into(),
        to: w.window_end.into(),
        n: w.n,
        is_drifting: w.is_drifting,
        is_closed: w.window_end <= closed,
        report,
    };
    Ok(Json(List::whole(found.into_iter().map(shown).collect())))
}

/// Which devices drift now, and in which features.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/drift/devices", tag = "drift",
    operation_id = "listDriftingDevices", params(ModelPath),
    responses((status = 200, body = List<DriftingDevice>), (status = 404, body = ErrorBody)))]
async fn devices(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
) -> ApiResult<Json<List<DriftingDevice>>> {
    known_model(&mut *state.store.read().await?, &scope.project, &path.model).await?;
    let found = domain::drifting_devices(&state, &scope.project, &path.model, rules(&state)).await?;
    let feature = |f: drift::DriftingFeature| DriftingFeature {
        feature: f.feature,
        role: f.role,
        distance: f.distance,
        adjusted_p: f.adjusted_p,
    };
    let shown = |d: domain::DriftingDevice| DriftingDevice {
        device: d.device,
        version: d.version,
        state: "drifting".into(),
        pattern: if d.is_fleet_wide { "fleet" } else { "one_device" }.into(),
        features: d.features.into_iter().map(feature).collect(),
        n: d.n,
        window_start: d.window_start.into(),
        window_end: d.window_end.into(),
    };
    Ok(Json(List::whole(found.into_iter().map(shown).collect())))
}

/// How a feature is distributed in the reference and now.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/drift/distribution", tag = "drift",
    operation_id = "getDriftDistribution", params(ModelPath, DistributionQuery),
    responses((status = 200, body = Distribution), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn distribution(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
    Query(query): Query<DistributionQuery>,
) -> ApiResult<Json<Distribution>> {
    let (from, to) = span(&state, query.from, query.to)?;
    let (device, version) = (query.device.as_ref(), query.version.as_ref());
    known_places(&mut *state.store.read().await?, &path, &scope, device, version).await?;
    let span = WindowSpan { version: query.version.as_ref(), device: query.device.as_ref(), from, to };
    let found = domain::distribution(&state, &scope.project, &path.model, &query.feature, &span).await?;
    let (version, found) =
        found.ok_or_else(|| ApiError::not_found("feature, or nothing was counted then"))?;
    let bin = |bin: Bin| DistributionBin { name: bin.name, low: bin.low, high: bin.high };
    Ok(Json(Distribution {
        feature: found.feature,
        version,
        role: found.role,
        kind: found.kind,
        n: found.n,
        m: found.m,
        bins: found.bins.into_iter().map(bin).collect(),
        reference: found.reference,
        current: found.current,
        contributions: found.contributions,
    }))
}
