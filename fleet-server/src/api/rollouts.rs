//! Rollouts: list, create, try, look, decide.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{DeviceId, ModelName, ProjectId, RolloutId};
use rollout::{Scope, Verb};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Operator, Paging, Path, Query, Viewer};
use super::rollout_body::{DryRun, JournalEntry, RolloutDetail, RolloutSummary, RolloutTask};
use super::types::{List, ProjectPath, RolloutPath};
use crate::app::AppState;
use crate::domain::access::Principal;
use crate::domain::rollouts::{self as domain, NewRollout, Order, RolloutError};
use crate::store::rollouts::{self as store, Filter};
use crate::supervisor::with_causes;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(dry_run))
        .routes(routes!(show))
        .routes(routes!(tasks))
        .routes(routes!(journal))
        .routes(routes!(evidence))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(rollback))
        .routes(routes!(approve))
        .routes(routes!(deny))
}

/// Which rollouts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RolloutQuery {
    /// Only of this model.
    #[param(value_type = Option<String>)]
    model: Option<ModelName>,
    /// Only in this state.
    state: Option<String>,
    /// Only those with this device.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
}

/// Which tasks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TaskQuery {
    /// Only in this phase.
    phase: Option<String>,
}

/// Why a person decides so.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// For the journal; may be left out.
    #[serde(default)]
    reason: String,
    /// For `resume`: whether failed and unreachable devices of the stage get another chance first.
    #[serde(default)]
    retry_failed: bool,
    /// For `rollback`: `stage` for the current stage only; default `all`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    scope: Option<Scope>,
}

/// Rollouts, newest first.
#[utoipa::path(get, path = "/projects/{project}/rollouts", tag = "rollouts", operation_id = "listRollouts",
    params(ProjectPath, RolloutQuery, Paging),
    responses((status = 200, body = List<RolloutSummary>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Query(query): Query<RolloutQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<RolloutSummary>>> {
    let window = paging.window()?;
    let RolloutQuery { model, state: name, device } = query;
    let name = name.filter(|name| !name.is_empty());
    if name.as_deref().is_some_and(|name| !store::is_state_name(name)) {
        return Err(ApiError::malformed("bad_state", "state is not one of a rollout's states."));
    }
    let mut conn = state.store.read().await?;
    let filter = Filter { model, state: name, device };
    let page = store::list(&mut conn, &scope.project, &filter, &window).await?;
    let mut counts = BTreeMap::new();
    for row in &page.items {
        let id = row.core.id.clone();
        let tasks = store::counts(&mut conn, &scope.project, &id).await?;
        counts.insert(id, tasks);
    }
    let map = |row: store::Row| {
        let tasks = counts.get(&row.core.id).cloned().unwrap_or_default();
        RolloutSummary::new(&row, tasks)
    };
    Ok(Json(List::page(page, window.limit, store::list_key, map)))
}

/// Make a rollout; it starts with the next tick that its start time and approval allow.
#[utoipa::path(post, path = "/projects/{project}/rollouts", tag = "rollouts", operation_id = "createRollout",
    params(ProjectPath), request_body = NewRollout,
    responses((status = 201, body = RolloutDetail), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Json(new): Json<NewRollout>,
) -> ApiResult<(StatusCode, Json<RolloutDetail>)> {
    let id = domain::create(&state, &scope.project, &scope.who, new).await?;
    Ok((StatusCode::CREATED, Json(detail(&state, &scope.project, &id).await?)))
}

/// What a plan would do: which devices, when, what would block. Changes nothing.
#[utoipa::path(post, path = "/projects/{project}/rollouts/dry-run", tag = "rollouts", operation_id = "dryRunRollout",
    params(ProjectPath), request_body = NewRollout,
    responses((status = 200, body = DryRun), (status = 422, body = ErrorBody)))]
async fn dry_run(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Json(new): Json<NewRollout>,
) -> ApiResult<Json<DryRun>> {
    Ok(Json(domain::dry_run(&state, &scope.project, new).await?.into()))
}

/// One rollout: plan, state, stages, gates with evidence, counts by task phase.
#[utoipa::path(get, path = "/projects/{project}/rollouts/{rollout}", tag = "rollouts", operation_id = "getRollout",
    params(RolloutPath), responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody)))]
async fn show(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<RolloutPath>,
) -> ApiResult<Json<RolloutDetail>> {
    Ok(Json(detail(&state, &scope.project, &path.rollout).await?))
}

/// Each device's part.
#[utoipa::path(get, path = "/projects/{project}/rollouts/{rollout}/tasks", tag = "rollouts",
    operation_id = "listRolloutTasks", params(RolloutPath, TaskQuery, Paging),
    responses((status = 200, body = List<RolloutTask>), (status = 404, body = ErrorBody)))]
async fn tasks(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<RolloutPath>,
    Query(query): Query<TaskQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<RolloutTask>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    let loaded = store::get(&mut conn, &scope.project, &path.rollout).await?;
    let row = loaded.ok_or_else(|| ApiError::not_found("rollout"))?;
    let phase = query.phase.as_deref().filter(|name| !name.is_empty());
    if phase.is_some_and(|name| rollout::PhaseName::named(name).is_none()) {
        return Err(ApiError::malformed("bad_phase", "phase is not one of a task's phases."));
    }
    let page = store::tasks(&mut conn, &scope.project, &path.rollout, phase, &window).await?;
    let rollout = rollout::Rollout::assemble(row.core, page.items.clone());
    let map = |task: rollout::Task| RolloutTask::new(&task, rollout.why(&task.device).text);
    Ok(Json(List::page(page, window.limit, |task| task.device.to_string(), map)))
}

/// Every transition, oldest first.
#[utoipa::path(get, path = "/projects/{project}/rollouts/{rollout}/journal", tag = "rollouts",
    operation_id = "listRolloutJournal", params(RolloutPath, Paging),
    responses((status = 200, body = List<JournalEntry>), (status = 404, body = ErrorBody)))]
async fn journal(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<RolloutPath>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<JournalEntry>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    if store::get(&mut conn, &scope.project, &path.rollout).await?.is_none() {
        return Err(ApiError::not_found("rollout"));
    }
    let page = store::journal(&mut conn, &scope.project, &path.rollout, &window).await?;
    Ok(Json(List::page(page, window.limit, |entry| entry.seq.to_string(), JournalEntry::from)))
}

/// The evidence as one signed file: `payload` is JSON as text, signed by the director's key.
#[utoipa::path(get, path = "/projects/{project}/rollouts/{rollout}/evidence", tag = "rollouts",
    operation_id = "getRolloutEvidence", params(RolloutPath),
    responses((status = 200, body = Object, content_type = "application/json"), (status = 404, body = ErrorBody)))]
async fn evidence(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<RolloutPath>,
) -> ApiResult<Response> {
    let file = domain::evidence_file(&state, &scope.project, &path.rollout).await?;
    let name = format!("attachment; filename=\"evidence-{}.json\"", path.rollout);
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(file)).into_response())
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident, $path:literal, $operation:literal, $verb:expr;)+) => {
        $($(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "rollouts", operation_id = $operation, params(RolloutPath),
            request_body = Decision,
            responses((status = 200, body = RolloutDetail), (status = 404, body = ErrorBody),
                (status = 409, body = ErrorBody)))]
        async fn $name(
            State(state): State<AppState>,
            scope: InProject<Operator>,
            Path(path): Path<RolloutPath>,
            body: Bytes,
        ) -> ApiResult<Json<RolloutDetail>> {
            let verb: fn(Decision) -> Verb = $verb;
            let verb = verb(read(&body)?);
            act(&state, &scope.project, &scope.who, &path.rollout, stringify!($name), &verb).await
        })+
    };
}

verbs! {
    /// Offer nothing new; what is under way goes on.
    pause, "/projects/{project}/rollouts/{rollout}/pause", "pauseRollout",
        |d| Verb::Pause { reason: said(&d, "paused by a person") };
    /// Go on; a failed stage is judged again. `retry_failed` also while it runs; refused if nobody has failed.
    resume, "/projects/{project}/rollouts/{rollout}/resume", "resumeRollout",
        |d| Verb::Resume { retry_failed: d.retry_failed };
    /// End it; devices that have the release keep it.
    abort, "/projects/{project}/rollouts/{rollout}/abort", "abortRollout",
        |d| Verb::Abort { reason: said(&d, "aborted by a person") };
    /// Bring devices back to their earlier release and end it.
    rollback, "/projects/{project}/rollouts/{rollout}/rollback", "rollBackRollout",
        |d| Verb::RollBack { scope: d.scope.unwrap_or(Scope::All), reason: said(&d, "rolled back by a person") };
    /// Agree, as another person than the author.
    approve, "/projects/{project}/rollouts/{rollout}/approve", "approveRollout", |_| Verb::Approve;
    /// Refuse.
    deny, "/projects/{project}/rollouts/{rollout}/deny", "denyRollout",
        |d| Verb::Deny { reason: said(&d, "denied by a person") };
}

/// No body is a decision without a reason.
fn read(body: &Bytes) -> ApiResult<Decision> {
    if body.is_empty() {
        return Ok(Decision::default());
    }
    serde_json::from_slice(body)
        .map_err(|e| ApiError::malformed("bad_body", format!("The decision can't be read: {e}.")))
}

fn said(decision: &Decision, otherwise: &str) -> String {
    let reason: String = decision.reason.trim().chars().take(500).collect();
    if reason.is_empty() { otherwise.to_owned() } else { reason }
}

async fn act(
    state: &AppState,
    project: &ProjectId,
    who: &Principal,
    rollout: &RolloutId,
    name: &str,
    verb: &Verb,
) -> ApiResult<Json<RolloutDetail>> {
    let (actor, action) = (who.actor(), format!("rollout.{name}"));
    let order = Order { username: &who.username, actor: &actor, action: &action, verb };
    domain::order(state, project, rollout, &order).await?;
    Ok(Json(detail(state, project, rollout).await?))
}

async fn detail(state: &AppState, project: &ProjectId, id: &RolloutId) -> ApiResult<RolloutDetail> {
    let mut conn = state.store.read().await?;
    let row = store::get(&mut conn, project, id).await?.ok_or_else(|| ApiError::not_found("rollout"))?;
    let (rollout, _) =
        store::load(&mut conn, project, id).await?.ok_or_else(|| ApiError::not_found("rollout"))?;
    let counts = store::counts(&mut conn, project, id).await?;
    let waits_for = domain::waits_for(&mut conn, project, &rollout, state.clock.now()).await?;
    Ok(RolloutDetail::new(&row, &rollout, counts, waits_for))
}

impl From<RolloutError> for ApiError {
    fn from(e: RolloutError) -> Self {
        match e {
            RolloutError::NotFound => Self::not_found("rollout"),
            RolloutError::Release { .. } => Self::unprocessable("bad_release", sentence(&e)),
            RolloutError::NoTarget { .. } => Self::unprocessable("no_target", sentence(&e)),
            RolloutError::Shape(source) => {
                Self::unprocessable("bad_plan", format!("The plan can't be read: {source}."))
            }
            RolloutError::Plan(faults) => {
                let list = faults.0.iter().map(ToString::to_string).collect::<Vec<_>>();
                Self::unprocessable("bad_plan", format!("The plan is wrong: {}.", list.join("; ")))
                    .with("faults", list)
            }
            RolloutError::Open { ref rollout, .. } => {
                let rollout = rollout.to_string();
                Self::conflict("rollout_open", sentence(&e)).with("rollout", rollout)
            }
            RolloutError::Refused(ref why) => Self::conflict("not_in_this_state", capital(why)),
            RolloutError::Busy => Self::unavailable("rollout_busy", sentence(&e), 1),
            RolloutError::Store(source) => source.into(),
            RolloutError::Director(_)
            | RolloutError::Keys(_)
            | RolloutError::Sign(_)
            | RolloutError::Measure(_) => Self::internal(&e),
        }
    }
}

fn sentence(e: &RolloutError) -> String {
    capital(&with_causes(e))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", chars.as_str())
}
