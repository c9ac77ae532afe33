//! One-time enrolment tokens: make, list, remove. Using one up is `enrollment.rs`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::check_labels;
use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Operator, Paging, Path, Query};
use super::types::{EnrollmentTokenPath, List, ProjectPath, Timestamp};
use crate::app::AppState;
use crate::domain::audit::{self, Change};
use crate::ids::ordered_id;
use crate::pki::enroll::may_enroll_again;
use crate::pki::token::{TokenText, secret_hash};
use crate::store::{devices, enrollment};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

/// Longest validity of a token in seconds: 30 days.
const MAX_VALIDITY_S: u64 = 30 * 24 * 3600;
/// Validity if none is asked for: one day.
const DEFAULT_VALIDITY_S: u64 = 24 * 3600;

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrollmentToken {
    /// Its id.
    pub id: String,
    /// The device's name, if the token fixes it.
    #[schema(required)]
    pub device: Option<String>,
    /// Labels that the device gets.
    pub labels: BTreeMap<String, String>,
    /// `unused`, `used` or `expired`.
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was used.
    #[schema(required)]
    pub used_at: Option<Timestamp>,
    /// Which device used it.
    #[schema(required)]
    pub used_by: Option<String>,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnrollmentToken {
    /// Fixes the device's name.
    #[schema(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Labels that the device gets.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// How long it may be used, up to 30 days; default one day.
    validity_s: Option<u64>,
}

/// A made token with its text, which is shown only here.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedEnrollmentToken {
    /// The token.
    pub token: EnrollmentToken,
    /// Give it to the device: `flotilla-agent enroll --token <text>`.
    pub text: String,
}

fn shown(token: enrollment::EnrollmentToken, now: protocol::UnixMillis) -> EnrollmentToken {
    let state = match (token.used_at, token.expires_at <= now) {
        (Some(_), _) => "used",
        (None, true) => "expired",
        (None, false) => "unused",
    };
    EnrollmentToken {
        id: token.token_id,
        device: token.device.map(|d| d.to_string()),
        labels: token.labels,
        state: state.to_owned(),
        created_at: token.created_at.into(),
        created_by: token.created_by,
        expires_at: token.expires_at.into(),
        used_at: token.used_at.map(Timestamp),
        used_by: token.used_by.map(|d| d.to_string()),
    }
}

/// Tokens, newest first.
#[utoipa::path(get, path = "/projects/{project}/enrollment-tokens", tag = "devices",
    operation_id = "listEnrollmentTokens", params(ProjectPath, Paging),
    responses((status = 200, body = List<EnrollmentToken>), (status = 403, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<EnrollmentToken>>> {
    let (window, now) = (paging.window()?, state.clock.now());
    let page = enrollment::list(&mut *state.store.read().await?, &scope.project, &window).await?;
    Ok(Json(List::page(page, window.limit, |token| token.token_id.clone(), |token| shown(token, now))))
}

/// Make a token.
#[utoipa::path(post, path = "/projects/{project}/enrollment-tokens", tag = "devices",
    operation_id = "createEnrollmentToken", params(ProjectPath), request_body = NewEnrollmentToken,
    responses((status = 201, body = CreatedEnrollmentToken), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Json(body): Json<NewEnrollmentToken>,
) -> ApiResult<(StatusCode, Json<CreatedEnrollmentToken>)> {
    check_labels(&body.labels)?;
    let validity_s = body.validity_s.unwrap_or(DEFAULT_VALIDITY_S);
    if !(1..=MAX_VALIDITY_S).contains(&validity_s) {
        return Err(ApiError::unprocessable("bad_validity", "validity_s must be from 1 second to 30 days."));
    }
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    if let Some(device) = &body.device
        && let Some(known) = devices::get(&mut tx, &scope.project, device).await?
        && !may_enroll_again(&known, now)
    {
        let message = "There is a device of this name, and it may still connect. If it was lost or replaced, \
                       decommission it first (flotilla device delete).";
        return Err(ApiError::conflict("device_exists", message));
    }
    let root = crate::pki::enroll::root_pin(&mut tx, &scope.project).await?;
    let ca = state.authority.certificate();
    let text = TokenText::generate(state.urls.https.clone(), ca, scope.project.clone(), root);
    let row = enrollment::EnrollmentToken {
        token_id: ordered_id(now),
        project: scope.project.clone(),
        device: body.device,
        labels: body.labels,
        created_at: now,
        created_by: scope.who.actor(),
        expires_at: now.plus_millis(i64::try_from(validity_s * 1000).unwrap_or(i64::MAX)),
        used_at: None,
        used_by: None,
    };
    enrollment::insert(&mut tx, &row, &secret_hash(&text.secret)).await?;
    let shown = shown(row, now);
    let change =
        Change::new(now, &shown.created_by, "enrollment_token.create", "enrollment_token", &shown.id);
    audit::record(&mut tx, &change.in_project(&scope.project).after(&shown)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedEnrollmentToken { token: shown, text: text.to_text() })))
}

/// Remove a token.
#[utoipa::path(delete, path = "/projects/{project}/enrollment-tokens/{id}", tag = "devices",
    operation_id = "deleteEnrollmentToken", params(EnrollmentTokenPath),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    scope: InProject<Operator>,
    Path(path): Path<EnrollmentTokenPath>,
) -> ApiResult<StatusCode> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    let token = enrollment::get(&mut tx, &scope.project, &path.id).await?;
    let token = token.ok_or_else(|| ApiError::not_found("enrolment token"))?;
    enrollment::delete(&mut tx, &scope.project, &path.id).await?;
    let actor = scope.who.actor();
    let change = Change::new(now, &actor, "enrollment_token.delete", "enrollment_token", &path.id);
    audit::record(&mut tx, &change.in_project(&scope.project).before(shown(token, now))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
