//! The fleet at a glance.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiResult, ErrorBody};
use super::extract::{InProject, Json, Viewer};
use super::models::MixPart;
use super::types::ProjectPath;
use crate::app::AppState;
use crate::store::{Conn, StoreError, Window, alerts, devices, overview};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The fleet at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// Devices in service.
    pub devices: DeviceCounts,
    /// Per model: devices by the release that serves.
    pub models: Vec<ModelMix>,
    /// Rollouts that have not ended.
    pub rollouts: Vec<RunningRollout>,
    /// Alerts that are open.
    pub open_alerts: i64,
}

/// Devices by state.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceCounts {
    /// In service.
    pub total: i64,
    /// Connected.
    pub online: i64,
    /// Not connected.
    pub offline: i64,
    /// With at least one problem in their last report.
    pub with_problems: i64,
}

/// A model's release mix.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMix {
    /// Which model.
    pub model: String,
    /// Devices by the release that serves.
    pub mix: Vec<MixPart>,
}

/// A rollout that has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunningRollout {
    /// Its id.
    pub rollout: String,
    /// Which model.
    pub model: String,
    /// Which release.
    pub version: String,
    /// Its state's name, e.g. `running`, `paused`.
    pub state: String,
}

/// Counts by state, release mix per model, running rollouts, open alerts.
#[utoipa::path(get, path = "/projects/{project}/overview", tag = "overview", operation_id = "showOverview",
    params(ProjectPath), responses((status = 200, body = Overview), (status = 404, body = ErrorBody)))]
async fn show(State(state): State<AppState>, scope: InProject<Viewer>) -> ApiResult<Json<Overview>> {
    let mut conn = state.store.read().await?;
    let (total, online, with_problems) = devices::counts(&mut conn, &scope.project).await?;
    let running = overview::running_rollouts(&mut conn, &scope.project).await?;
    let shown = |r: overview::RunningRollout| RunningRollout {
        rollout: r.rollout.to_string(),
        model: r.model.to_string(),
        version: r.version.to_string(),
        state: r.state_name,
    };
    Ok(Json(Overview {
        devices: DeviceCounts { total, online, offline: total - online, with_problems },
        models: models(&mut conn, &scope).await?,
        rollouts: running.into_iter().map(shown).collect(),
        open_alerts: alerts::list(&mut conn, &scope.project, true, &Window::first(1)).await?.total,
    }))
}

async fn models(conn: &mut Conn, scope: &InProject<Viewer>) -> Result<Vec<ModelMix>, StoreError> {
    let mut models: Vec<ModelMix> = Vec::new();
    for (model, version, _, devices) in devices::release_mix(conn, &scope.project).await? {
        let part = MixPart { version: version.map(|v| v.to_string()), devices };
        match models.last_mut() {
            Some(last) if last.model == model.as_str() => last.mix.push(part),
            _ => models.push(ModelMix { model: model.to_string(), mix: vec![part] }),
        }
    }
    Ok(models)
}
