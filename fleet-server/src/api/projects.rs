//! Projects.

use axum::extract::State;
use axum::http::StatusCode;
use protocol::ProjectId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{Admin, Everywhere, InProject, Json, SignedIn, Viewer};
use super::types::{List, ProjectPath, Timestamp, check_title};
use crate::app::AppState;
use crate::domain::access::Role;
use crate::domain::audit::{self, Change};
use crate::store::projects;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show))
}

/// A tenant, as its viewer sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Project {
    /// Its name in paths and topics.
    pub project: String,
    /// Its name for people.
    pub title: String,
    /// What the asker may do in it.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A project to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// Its name in paths and topics: 1 to 63 of a-z, 0-9, `-`, `_`, `.`.
    #[schema(value_type = String)]
    project: ProjectId,
    /// Its name for people.
    title: String,
}

fn shown(project: projects::Project, role: Role) -> Project {
    let projects::Project { project, title, created_at } = project;
    Project { project: project.to_string(), title, role, created_at: created_at.into() }
}

/// Projects in which the asker has a role.
#[utoipa::path(get, path = "/projects", tag = "projects", operation_id = "listProjects",
    responses((status = 200, body = List<Project>), (status = 401, body = ErrorBody)))]
async fn list(State(state): State<AppState>, SignedIn(who): SignedIn) -> ApiResult<Json<List<Project>>> {
    let found = projects::list(&mut *state.store.read().await?).await?;
    let mine = found.into_iter().filter_map(|p| who.role_in(&p.project).map(|role| shown(p, role)));
    Ok(Json(List::whole(mine.collect())))
}

/// Make a project.
#[utoipa::path(post, path = "/projects", tag = "projects", operation_id = "createProject", request_body = NewProject,
    responses((status = 201, body = Project), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    admin: Everywhere<Admin>,
    Json(body): Json<NewProject>,
) -> ApiResult<(StatusCode, Json<Project>)> {
    check_title(&body.title)?;
    let project =
        projects::Project { project: body.project, title: body.title, created_at: state.clock.now() };
    let mut tx = state.store.begin().await?;
    projects::insert(&mut tx, &project).await.map_err(|e| {
        if e.is_conflict() {
            ApiError::conflict("project_exists", "There is a project of this name.")
        } else {
            e.into()
        }
    })?;
    let (actor, id) = (admin.who.actor(), project.project.clone());
    let change =
        Change::new(project.created_at, &actor, "project.create", "project", id.as_str()).in_project(&id);
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(shown(project, Role::Admin))))
}

/// One project.
#[utoipa::path(get, path = "/projects/{project}", tag = "projects", operation_id = "showProject", params(ProjectPath),
    responses((status = 200, body = Project), (status = 404, body = ErrorBody)))]
async fn show(State(state): State<AppState>, scope: InProject<Viewer>) -> ApiResult<Json<Project>> {
    let found = projects::get(&mut *state.store.read().await?, &scope.project).await?;
    let role = scope.who.role_in(&scope.project);
    found.zip(role).map(|(p, role)| Json(shown(p, role))).ok_or_else(|| ApiError::not_found("project"))
}
