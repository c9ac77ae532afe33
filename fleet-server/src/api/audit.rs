//! Who changed what when.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiResult, ErrorBody};
use super::extract::{Admin, Everywhere, InProject, Json, Paging, Query, Viewer};
use super::types::{List, ProjectPath, Timestamp};
use crate::app::AppState;
use crate::store::{Page, audit};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(list_server))
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditRow {
    /// Its id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What was done, e.g. `rollout.pause`.
    pub action: String,
    /// Kind of the object, e.g. `rollout`.
    pub object_kind: String,
    /// Which object.
    pub object: String,
    /// The object before; null when it is new.
    #[schema(value_type = Option<Object>, required)]
    pub before: Option<serde_json::Value>,
    /// The object after; null when it is gone.
    #[schema(value_type = Option<Object>, required)]
    pub after: Option<serde_json::Value>,
}

impl From<audit::AuditRow> for AuditRow {
    fn from(row: audit::AuditRow) -> Self {
        Self {
            id: row.audit_id,
            at: row.at.into(),
            actor: row.actor,
            action: row.action,
            object_kind: row.object_kind,
            object: row.object,
            before: row.before,
            after: row.after,
        }
    }
}

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Who made them.
    actor: Option<String>,
    /// Beginning of what was done, e.g. `rollout.` or `rollout.pause`.
    action: Option<String>,
    /// Which object.
    object: Option<String>,
    /// Only changes at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
}

impl AuditQuery {
    fn filter(self) -> audit::Filter {
        let Self { actor, action, object, since } = self;
        audit::Filter { actor, action, object, since: since.map(|since| since.0) }
    }
}

fn shown(page: Page<audit::AuditRow>, limit: i64) -> Json<List<AuditRow>> {
    Json(List::page(page, limit, |row| row.audit_id.clone(), AuditRow::from))
}

/// A project's changes, newest first.
#[utoipa::path(get, path = "/projects/{project}/audit", tag = "audit", operation_id = "listAudit",
    params(ProjectPath, AuditQuery, Paging),
    responses((status = 200, body = List<AuditRow>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Query(query): Query<AuditQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<AuditRow>>> {
    let window = paging.window()?;
    let (project, filter) = (Some(&scope.project), query.filter());
    let page = audit::list(&mut *state.store.read().await?, project, &filter, &window).await?;
    Ok(shown(page, window.limit))
}

/// Changes that concern the whole server (users, tokens, sign-ins), newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listServerAudit",
    params(AuditQuery, Paging),
    responses((status = 200, body = List<AuditRow>), (status = 403, body = ErrorBody)))]
async fn list_server(
    State(state): State<AppState>,
    _admin: Everywhere<Admin>,
    Query(query): Query<AuditQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<AuditRow>>> {
    let window = paging.window()?;
    let page = audit::list(&mut *state.store.read().await?, None, &query.filter(), &window).await?;
    Ok(shown(page, window.limit))
}
