//! API tokens: for scripts and the CLI; the text is shown once, only its hash is stored.

use axum::extract::State;
use axum::http::StatusCode;
use protocol::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{Json, Path, SignedIn};
use super::types::{List, Timestamp, TokenPath, check_title};
use super::users::{GrantBody, checked_grant};
use crate::app::AppState;
use crate::domain::access::{Grant, Principal, Proof, Role, Scope};
use crate::domain::audit::{self, Change};
use crate::ids::{ordered_id, secret_hash, secret_text};
use crate::store::tokens;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

/// An API token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiToken {
    /// Its id.
    pub id: String,
    /// Its owner; it never may more than its owner.
    pub username: String,
    /// What it is for.
    pub title: String,
    /// A project's id, or `*` for all.
    pub project: String,
    /// What it is limited to.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[schema(required)]
    pub last_used_at: Option<Timestamp>,
}

impl From<tokens::ApiToken> for ApiToken {
    fn from(token: tokens::ApiToken) -> Self {
        Self {
            id: token.token_id,
            username: token.username,
            title: token.title,
            project: token.limit.scope.as_str().to_owned(),
            role: token.limit.role,
            created_at: token.created_at.into(),
            expires_at: token.expires_at.map(Timestamp),
            last_used_at: token.last_used_at.map(Timestamp),
        }
    }
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    title: String,
    /// A project's id, or `*` for all.
    project: String,
    /// What it is limited to.
    role: Role,
    /// When it ends by itself. If left out, with the token that makes it, or never.
    expires_at: Option<Timestamp>,
}

/// A made token with its text, which is shown only here.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// The token.
    pub token: ApiToken,
    /// Send it as `Authorization: Bearer flt_...`.
    pub text: String,
}

/// The own tokens; an admin sees everyone's. A token sees itself and those that are limited to no more than it is.
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "listTokens",
    responses((status = 200, body = List<ApiToken>), (status = 401, body = ErrorBody)))]
async fn list(State(state): State<AppState>, SignedIn(who): SignedIn) -> ApiResult<Json<List<ApiToken>>> {
    let of = if is_admin(&who) { None } else { Some(who.username.as_str()) };
    let found = tokens::list(&mut *state.store.read().await?, of).await?;
    let seen = found.into_iter().filter(|token| may_touch(&who, token)).map(ApiToken::from);
    Ok(Json(List::whole(seen.collect())))
}

/// Make a token for oneself.
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "createToken", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    SignedIn(who): SignedIn,
    Json(body): Json<NewToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    let now = state.clock.now();
    check_title(&body.title)?;
    let expires_at = end_of(&who, body.expires_at.map(|end| end.0), now)?;
    let mut tx = state.store.begin().await?;
    let limit = checked_grant(&mut tx, &GrantBody { project: body.project, role: body.role }).await?;
    refuse_more_than_own(&who, &limit)?;
    let token = tokens::ApiToken {
        token_id: ordered_id(now),
        username: who.username.clone(),
        title: body.title,
        limit,
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    let text = secret_text("flt_");
    tokens::insert(&mut tx, &token, &secret_hash(&text)).await?;
    let (actor, shown) = (who.actor(), ApiToken::from(token));
    audit::record(&mut tx, &Change::new(now, &actor, "token.create", "token", &shown.id).after(&shown))
        .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token: shown, text })))
}

/// End a token; one's own, or any as admin. A token ends itself and those that are limited to no more than it is.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "tokens", operation_id = "deleteToken", params(TokenPath),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    SignedIn(who): SignedIn,
    Path(path): Path<TokenPath>,
) -> ApiResult<StatusCode> {
    let mut tx = state.store.begin().await?;
    let token = tokens::get(&mut tx, &path.token).await?;
    let token = token.filter(|token| may_touch(&who, token));
    let token = token.ok_or_else(|| ApiError::not_found("token"))?;
    tokens::delete(&mut tx, &token.token_id).await?;
    let actor = who.actor();
    let change = Change::new(state.clock.now(), &actor, "token.delete", "token", &path.token);
    audit::record(&mut tx, &change.before(ApiToken::from(token))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A narrow token in the wrong hands must not end its owner's others.
fn may_touch(who: &Principal, token: &tokens::ApiToken) -> bool {
    let is_reached = match &who.proof {
        Proof::Session => true,
        Proof::Token { id, limit, .. } => *id == token.token_id || limit.includes(&token.limit),
    };
    is_reached && (token.username == who.username || is_admin(who))
}

fn is_admin(who: &Principal) -> bool {
    who.role_everywhere() == Some(Role::Admin)
}

/// A token that leaked must not outlive its own end in one that it makes.
fn end_of(who: &Principal, wanted: Option<UnixMillis>, now: UnixMillis) -> ApiResult<Option<UnixMillis>> {
    let own = match who.proof {
        Proof::Session => None,
        Proof::Token { expires_at, .. } => expires_at,
    };
    if wanted.is_some_and(|end| end <= now) {
        return Err(ApiError::unprocessable("bad_expiry", "The token would have ended already."));
    }
    match (wanted, own) {
        (Some(wanted), Some(own)) if wanted > own => {
            Err(ApiError::unprocessable("bad_expiry", "A token can't outlive the token that makes it."))
        }
        _ => Ok(wanted.or(own)),
    }
}

fn refuse_more_than_own(who: &Principal, limit: &Grant) -> ApiResult<()> {
    let own = match &limit.scope {
        Scope::All => who.role_everywhere(),
        Scope::Project(project) => who.role_in(project),
    };
    if own >= Some(limit.role) {
        return Ok(());
    }
    Err(ApiError::forbidden("more_than_own", "A token can't be given more than its maker may do."))
}
