//! Sign in, who am I, sign out, change password.

use std::net::IpAddr;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{AnySession, ClientAddress, Json, SESSION_COOKIE, cookie_value, is_same_origin};
use super::users::GrantBody;
use crate::app::AppState;
use crate::domain::access::{Principal, Proof};
use crate::domain::audit::{self, Change};
use crate::domain::passwords::Busy;
use crate::domain::users::{forget_first_password, hash_password, password_problem, verify_password};
use crate::ids::{secret_hash, secret_text};
use crate::store::{sessions, users};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create, show, delete)).routes(routes!(change_password))
}

/// Name and password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The user's name.
    username: String,
    /// The password.
    password: String,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password until now.
    old_password: String,
    /// The password from now on: at least 10 characters, without the user's name.
    new_password: String,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// The user's name.
    pub username: String,
    /// Whether only `POST /session/password` is allowed.
    pub must_change_password: bool,
    /// What the user may do where.
    pub grants: Vec<GrantBody>,
}

impl From<Principal> for Session {
    fn from(who: Principal) -> Self {
        let grants = who.grants.into_iter().map(GrantBody::from).collect();
        Self { username: who.username, must_change_password: who.must_change_password, grants }
    }
}

/// Sign in; sets the session's cookie.
#[utoipa::path(post, path = "/session", tag = "session", operation_id = "signIn", request_body = SignIn, security(()),
    responses((status = 200, body = Session), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    Json(body): Json<SignIn>,
) -> ApiResult<Response> {
    if headers.contains_key(header::ORIGIN) && !is_same_origin(&headers) {
        return Err(ApiError::forbidden("wrong_origin", "This request comes from another web site."));
    }
    let user = check_password(&state, address, &body).await?;
    let (secret, now) = (secret_text(""), state.clock.now());
    let lifetime = state.config.sessions.lifetime;
    let expires = now.plus_millis(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
    let mut tx = state.store.begin().await?;
    sessions::insert(&mut tx, &secret_hash(&secret), &user.username, now, expires).await?;
    audit::record(&mut tx, &Change::new(now, &user.username, "session.create", "user", &user.username))
        .await?;
    tx.commit().await?;
    let session = Session::from(Principal {
        username: user.username,
        proof: Proof::Session,
        must_change_password: user.must_change_password,
        grants: user.grants,
    });
    Ok(with_cookie(Json(session).into_response(), &secret, lifetime.as_secs()))
}

/// Who am I.
#[utoipa::path(get, path = "/session", tag = "session", operation_id = "showSession",
    responses((status = 200, body = Session), (status = 401, body = ErrorBody)))]
async fn show(AnySession(who): AnySession) -> Json<Session> {
    Json(who.into())
}

/// Sign out.
#[utoipa::path(delete, path = "/session", tag = "session", operation_id = "signOut",
    responses((status = 204), (status = 401, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    AnySession(who): AnySession,
    headers: HeaderMap,
) -> ApiResult<Response> {
    if let Some(secret) = cookie_value(&headers, SESSION_COOKIE) {
        let mut tx = state.store.begin().await?;
        sessions::delete(&mut tx, &secret_hash(secret)).await?;
        let change = Change::new(state.clock.now(), &who.username, "session.end", "user", &who.username);
        audit::record(&mut tx, &change).await?;
        tx.commit().await?;
    }
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), "", 0))
}

/// Change the own password; ends all sessions but this one.
#[utoipa::path(post, path = "/session/password", tag = "session", operation_id = "changePassword",
    request_body = ChangePassword,
    responses((status = 204), (status = 401, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn change_password(
    State(state): State<AppState>,
    AnySession(who): AnySession,
    ClientAddress(address): ClientAddress,
    Json(body): Json<ChangePassword>,
) -> ApiResult<Response> {
    if who.proof != Proof::Session {
        return Err(ApiError::forbidden(
            "session_required",
            "A password is changed by its user, not by a token.",
        ));
    }
    let old = SignIn { username: who.username.clone(), password: body.old_password };
    let before = check_password(&state, address, &old).await?;
    if body.new_password == old.password {
        return Err(ApiError::unprocessable("password_unchanged", "The new password is the old one."));
    }
    if let Some(problem) = password_problem(&before.username, &body.new_password) {
        return Err(ApiError::unprocessable("password_weak", problem));
    }
    let password_hash = hash(&state, body.new_password).await?;
    let (secret, now) = (secret_text(""), state.clock.now());
    let lifetime = state.config.sessions.lifetime;
    let expires = now.plus_millis(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
    let mut tx = state.store.begin().await?;
    let user = users::change_password(&mut tx, &before, &password_hash, now).await?;
    let user = user.ok_or_else(|| {
        ApiError::conflict("user_changed", "An admin has changed this user meanwhile; sign in again.")
    })?;
    sessions::delete_of_user(&mut tx, &user.username).await?;
    sessions::insert(&mut tx, &secret_hash(&secret), &user.username, now, expires).await?;
    audit::record(&mut tx, &Change::new(now, &user.username, "user.password", "user", &user.username))
        .await?;
    tx.commit().await?;
    forget_first_password(&state, &user.username);
    Ok(with_cookie(StatusCode::NO_CONTENT.into_response(), &secret, lifetime.as_secs()))
}

async fn check_password(state: &AppState, address: Option<IpAddr>, body: &SignIn) -> ApiResult<users::User> {
    let now = state.clock.now();
    let too_many = |wait_s| ApiError::too_many("Too many wrong passwords; wait a little.", wait_s);
    state.sign_in.begin(&body.username, address, now).map_err(too_many)?;
    let user =
        users::get(&mut *state.store.read().await?, &body.username).await?.filter(|user| !user.is_disabled);
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let password = body.password.clone();
    let is_right =
        state.passwords.run(move || verify_password(&password, hash.as_deref())).await.map_err(busy)?;
    match user {
        Some(user) if is_right => {
            state.sign_in.succeeded(&user.username, address, now);
            Ok(user)
        }
        _ => {
            record_refusal(state, address, &body.username).await?;
            Err(ApiError::unauthenticated("wrong_password", "Name or password is wrong."))
        }
    }
}

/// A row for names that exist and names that don't, so that the time of the answer tells neither. The limit of
/// wrong passwords bounds how many rows there can be.
async fn record_refusal(state: &AppState, address: Option<IpAddr>, username: &str) -> ApiResult<()> {
    let name: String = username.chars().filter(|c| !c.is_control()).take(64).collect();
    let actor = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    tracing::warn!("wrong password for {name:?} from {actor}");
    let mut tx = state.store.begin().await?;
    audit::record(&mut tx, &Change::new(state.clock.now(), &actor, "session.refused", "user", &name)).await?;
    Ok(tx.commit().await?)
}

/// The hash of a new password.
pub(super) async fn hash(state: &AppState, password: String) -> ApiResult<String> {
    let hashed = state.passwords.run(move || hash_password(&password)).await.map_err(busy)?;
    hashed.map_err(|e| ApiError::internal(&e))
}

fn busy(_: Busy) -> ApiError {
    ApiError::unavailable("busy", "Too many passwords are being checked; try again in a moment.", 2)
}

fn with_cookie(mut response: Response, secret: &str, max_age_s: u64) -> Response {
    let cookie =
        format!("{SESSION_COOKIE}={secret}; Max-Age={max_age_s}; Path=/; HttpOnly; Secure; SameSite=Strict");
    let value = HeaderValue::from_str(&cookie).expect("base64 and digits are fine in a header");
    response.headers_mut().insert(header::SET_COOKIE, value);
    response
}
