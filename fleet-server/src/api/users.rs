//! Local users and their grants.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{Admin, Everywhere, Json, Path};
use super::session::hash;
use super::types::{List, Timestamp, UserPath};
use crate::app::AppState;
use crate::domain::access::{Grant, Role, Scope};
use crate::domain::audit::{self, Change};
use crate::domain::users::{is_username, one_time_password};
use crate::store::{Conn, projects, sessions, users};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(update, delete))
}

/// One role in one project or in all.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    /// A project's id, or `*` for all projects and the server itself.
    pub project: String,
    /// The role.
    pub role: Role,
}

impl From<Grant> for GrantBody {
    fn from(grant: Grant) -> Self {
        Self { project: grant.scope.as_str().to_owned(), role: grant.role }
    }
}

/// A local user.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// Name to sign in with.
    pub username: String,
    /// Whether the password is still a one-time one.
    pub must_change_password: bool,
    /// Whether signing in is switched off.
    pub is_disabled: bool,
    /// What the user may do where.
    pub grants: Vec<GrantBody>,
    /// When the user was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            username: user.username,
            must_change_password: user.must_change_password,
            is_disabled: user.is_disabled,
            grants: user.grants.into_iter().map(GrantBody::from).collect(),
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }
}

/// A user to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// 1 to 64 letters, digits and `. _ - @ +`.
    username: String,
    /// What the user may do where.
    #[serde(default)]
    grants: Vec<GrantBody>,
}

/// A made user with the one-time password, which is shown only here.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedUser {
    /// The user.
    pub user: User,
    /// Must be changed at the first sign-in.
    pub one_time_password: String,
}

/// Changes to a user; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// Replaces all grants.
    grants: Option<Vec<GrantBody>>,
    /// Switches signing in off or on.
    is_disabled: Option<bool>,
    /// Makes a new one-time password and ends the user's sessions.
    #[serde(default)]
    reset_password: bool,
}

/// A changed user.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedUser {
    /// The user.
    pub user: User,
    /// Only after `reset_password`.
    #[schema(required)]
    pub one_time_password: Option<String>,
}

/// All users.
#[utoipa::path(get, path = "/users", tag = "users", operation_id = "listUsers",
    responses((status = 200, body = List<User>), (status = 403, body = ErrorBody)))]
async fn list(State(state): State<AppState>, _admin: Everywhere<Admin>) -> ApiResult<Json<List<User>>> {
    let found = users::list(&mut *state.store.read().await?).await?;
    Ok(Json(List::whole(found.into_iter().map(User::from).collect())))
}

/// Make a user with a one-time password.
#[utoipa::path(post, path = "/users", tag = "users", operation_id = "createUser", request_body = NewUser,
    responses((status = 201, body = CreatedUser), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    admin: Everywhere<Admin>,
    Json(body): Json<NewUser>,
) -> ApiResult<(StatusCode, Json<CreatedUser>)> {
    if !is_username(&body.username) {
        let message = "A user's name has 1 to 64 letters, digits and . _ - @ +.";
        return Err(ApiError::unprocessable("bad_username", message));
    }
    let (password, now) = (one_time_password(), state.clock.now());
    let password_hash = hash(&state, password.clone()).await?;
    let mut tx = state.store.begin().await?;
    let user = users::User {
        username: body.username,
        password_hash,
        must_change_password: true,
        is_disabled: false,
        created_at: now,
        updated_at: now,
        grants: checked_grants(&mut tx, body.grants).await?,
    };
    users::insert(&mut tx, &user).await.map_err(|e| {
        if e.is_conflict() {
            ApiError::conflict("user_exists", "There is a user of this name.")
        } else {
            e.into()
        }
    })?;
    let (actor, shown) = (admin.who.actor(), User::from(user));
    let change = Change::new(now, &actor, "user.create", "user", &shown.username).after(&shown);
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedUser { user: shown, one_time_password: password })))
}

/// Change a user's grants, state or password.
#[utoipa::path(patch, path = "/users/{user}", tag = "users", operation_id = "updateUser", params(UserPath),
    request_body = UserChange,
    responses((status = 200, body = ChangedUser), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    admin: Everywhere<Admin>,
    Path(path): Path<UserPath>,
    Json(body): Json<UserChange>,
) -> ApiResult<Json<ChangedUser>> {
    let now = state.clock.now();
    let password = body.reset_password.then(one_time_password);
    let password_hash = match &password {
        Some(password) => Some(hash(&state, password.clone()).await?),
        None => None,
    };
    let mut tx = state.store.begin().await?;
    users::lock(&mut tx).await?;
    let mut user = users::get(&mut tx, &path.user).await?.ok_or_else(|| ApiError::not_found("user"))?;
    let before = User::from(user.clone());
    if let Some(grants) = body.grants {
        user.grants = checked_grants(&mut tx, grants).await?;
    }
    user.is_disabled = body.is_disabled.unwrap_or(user.is_disabled);
    if let Some(password_hash) = password_hash {
        (user.password_hash, user.must_change_password) = (password_hash, true);
    }
    user.updated_at = now;
    users::update(&mut tx, &user).await?;
    if user.is_disabled || user.must_change_password {
        sessions::delete_of_user(&mut tx, &user.username).await?;
    }
    keep_an_admin(&mut tx).await?;
    let (actor, after) = (admin.who.actor(), User::from(user));
    let change = Change::new(now, &actor, "user.update", "user", &path.user).before(&before).after(&after);
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    Ok(Json(ChangedUser { user: after, one_time_password: password }))
}

/// Remove a user with sessions and tokens.
#[utoipa::path(delete, path = "/users/{user}", tag = "users", operation_id = "deleteUser", params(UserPath),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    admin: Everywhere<Admin>,
    Path(path): Path<UserPath>,
) -> ApiResult<StatusCode> {
    let mut tx = state.store.begin().await?;
    users::lock(&mut tx).await?;
    let user = users::get(&mut tx, &path.user).await?.ok_or_else(|| ApiError::not_found("user"))?;
    users::delete(&mut tx, &path.user).await?;
    keep_an_admin(&mut tx).await?;
    let actor = admin.who.actor();
    let change =
        Change::new(state.clock.now(), &actor, "user.delete", "user", &path.user).before(User::from(user));
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses what would lock everybody out.
async fn keep_an_admin(conn: &mut Conn) -> ApiResult<()> {
    if users::list(conn).await?.iter().any(users::User::is_admin) {
        return Ok(());
    }
    Err(ApiError::conflict("last_admin", "This would leave nobody who can manage users."))
}

pub(super) async fn checked_grant(conn: &mut Conn, body: &GrantBody) -> ApiResult<Grant> {
    let unknown = || {
        let message = format!("{:?} is no project; use * for all projects.", body.project);
        ApiError::unprocessable("unknown_project", message)
    };
    let scope: Scope = body.project.parse().map_err(|_| unknown())?;
    if let Scope::Project(project) = &scope
        && !projects::exists(conn, project).await?
    {
        return Err(unknown());
    }
    Ok(Grant { scope, role: body.role })
}

async fn checked_grants(conn: &mut Conn, bodies: Vec<GrantBody>) -> ApiResult<Vec<Grant>> {
    let mut grants: Vec<Grant> = Vec::new();
    for body in bodies {
        let grant = checked_grant(conn, &body).await?;
        if grants.iter().any(|known| known.scope == grant.scope) {
            return Err(ApiError::unprocessable(
                "double_grant",
                "A project may stand only once among the grants.",
            ));
        }
        grants.push(grant);
    }
    Ok(grants)
}
