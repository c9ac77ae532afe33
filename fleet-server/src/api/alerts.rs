//! Alerts: open and past, and taking note of one.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Operator, Paging, Path, Query, Viewer};
use super::types::{AlertPath, List, ProjectPath, Timestamp};
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::audit::{self, Change};
use crate::store::alerts::{self, Severity};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(acknowledge))
}

/// Something that people should know.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alert {
    /// Its id.
    pub id: String,
    /// Stable name, e.g. `drift`, `gate_failed`.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about.
    #[schema(required)]
    pub device: Option<String>,
    /// The model that it is about.
    #[schema(required)]
    pub model: Option<String>,
    /// The rollout that it is about.
    #[schema(required)]
    pub rollout: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// Numbers behind it.
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
    /// When it was raised first.
    pub opened_at: Timestamp,
    /// When it was last seen true.
    pub updated_at: Timestamp,
    /// When it was no longer true; null while open.
    #[schema(required)]
    pub closed_at: Option<Timestamp>,
    /// When someone took note.
    #[schema(required)]
    pub acknowledged_at: Option<Timestamp>,
    /// Who.
    #[schema(required)]
    pub acknowledged_by: Option<String>,
}

impl From<alerts::Alert> for Alert {
    fn from(alert: alerts::Alert) -> Self {
        Self {
            id: alert.alert_id,
            kind: alert.kind,
            severity: alert.severity,
            device: alert.device.map(|id| id.to_string()),
            model: alert.model.map(|id| id.to_string()),
            rollout: alert.rollout.map(|id| id.to_string()),
            message: alert.message,
            details: alert.details,
            opened_at: alert.opened_at.into(),
            updated_at: alert.updated_at.into(),
            closed_at: alert.closed_at.map(Timestamp),
            acknowledged_at: alert.acknowledged_at.map(Timestamp),
            acknowledged_by: alert.acknowledged_by,
        }
    }
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AlertQuery {
    /// Only open ones.
    #[serde(default)]
    open: bool,
}

/// Alerts, newest first.
#[utoipa::path(get, path = "/projects/{project}/alerts", tag = "alerts", operation_id = "listAlerts",
    params(ProjectPath, AlertQuery, Paging),
    responses((status = 200, body = List<Alert>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Query(query): Query<AlertQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<Alert>>> {
    let window = paging.window()?;
    let page = alerts::list(&mut *state.store.read().await?, &scope.project, query.open, &window).await?;
    Ok(Json(List::page(page, window.limit, |alert| alert.alert_id.clone(), Alert::from)))
}

/// Take note of an alert; safe to repeat. One about a rollout that was rolled back closes by it.
#[utoipa::path(post, path = "/projects/{project}/alerts/{alert}/acknowledge", tag = "alerts",
    operation_id = "acknowledgeAlert", params(AlertPath),
    responses((status = 200, body = Alert), (status = 404, body = ErrorBody)))]
async fn acknowledge(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<AlertPath>,
) -> ApiResult<Json<Alert>> {
    let (now, actor) = (state.clock.now(), scope.who.actor());
    let mut tx = state.store.begin().await?;
    if alerts::acknowledge(&mut tx, &scope.project, &path.alert, &actor, now).await? {
        let change =
            Change::new(now, &actor, "alert.acknowledge", "alert", &path.alert).in_project(&scope.project);
        audit::record(&mut tx, &change).await?;
    }
    let alert = alerts::get(&mut tx, &scope.project, &path.alert).await?;
    tx.commit().await?;
    state.bus.changed(&scope.project, ChangeKind::Alert, path.alert);
    alert.map(|alert| Json(alert.into())).ok_or_else(|| ApiError::not_found("alert"))
}
