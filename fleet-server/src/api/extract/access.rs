//! Who is asking, and whether they may.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use protocol::ProjectId;

use crate::api::error::{ApiError, ApiResult};
use crate::app::AppState;
use crate::domain::access::{Principal, Role};
use crate::ids::secret_hash;
use crate::store::{projects, sessions, tokens};

/// Name of the console's cookie; the prefix makes browsers insist on `Secure` and `Path=/`.
pub const SESSION_COOKIE: &str = "__Host-flotilla";

/// A least role, as a type.
pub trait MinRole: Send + Sync + 'static {
    /// The role.
    const ROLE: Role;
}

macro_rules! min_roles {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl MinRole for $name { const ROLE: Role = Role::$name; })+
    };
}
min_roles!(
    /// At least viewer.
    Viewer,
    /// At least operator.
    Operator,
    /// At least publisher.
    Publisher,
    /// Admin.
    Admin,
);

/// Someone with a session or token, even if only changing the password is allowed to them.
#[derive(Debug)]
pub struct AnySession(pub Principal);

/// Someone with a session or token, of any role.
#[derive(Debug)]
pub struct SignedIn(pub Principal);

/// Someone with at least role `R` over all projects.
#[derive(Debug)]
pub struct Everywhere<R> {
    /// Who.
    pub who: Principal,
    role: PhantomData<R>,
}

/// Someone with at least role `R` in the project that the path names; the project exists.
#[derive(Debug)]
pub struct InProject<R> {
    /// Which project.
    pub project: ProjectId,
    /// Who.
    pub who: Principal,
    role: PhantomData<R>,
}

impl FromRequestParts<AppState> for AnySession {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        principal(&parts.headers, &parts.method, state).await.map(Self)
    }
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let AnySession(who) = AnySession::from_request_parts(parts, state).await?;
        if who.must_change_password {
            let message = "This one-time password only allows to choose a new one (POST /session/password).";
            return Err(ApiError::forbidden("password_change_required", message));
        }
        Ok(Self(who))
    }
}

impl<R: MinRole> FromRequestParts<AppState> for Everywhere<R> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let SignedIn(who) = SignedIn::from_request_parts(parts, state).await?;
        if who.role_everywhere() < Some(R::ROLE) {
            return Err(not_allowed(R::ROLE, "all projects"));
        }
        Ok(Self { who, role: PhantomData })
    }
}

impl<R: MinRole> FromRequestParts<AppState> for InProject<R> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let SignedIn(who) = SignedIn::from_request_parts(parts, state).await?;
        let project = project_of(parts, state).await?;
        // Without any role the answer is the same as for a project that doesn't exist.
        let role = who.role_in(&project).ok_or_else(|| ApiError::not_found("project"))?;
        if !projects::exists(&mut *state.store.read().await?, &project).await? {
            return Err(ApiError::not_found("project"));
        }
        if role < R::ROLE {
            return Err(not_allowed(R::ROLE, project.as_str()));
        }
        Ok(Self { project, who, role: PhantomData })
    }
}

async fn project_of(parts: &mut Parts, state: &AppState) -> ApiResult<ProjectId> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    let params = params.map_err(|e| ApiError::malformed("bad_path", e.body_text()))?;
    let text = params.iter().find(|(name, _)| *name == "project").map(|(_, value)| value.to_owned());
    // A name that can't be a project's is no project.
    text.and_then(|text| text.parse().ok()).ok_or_else(|| ApiError::not_found("project"))
}

fn not_allowed(role: Role, scope: &str) -> ApiError {
    let message = format!("This needs the role {} for {scope}.", role.as_str());
    ApiError::forbidden("role_required", message).with("role", role.as_str())
}

async fn principal(headers: &HeaderMap, method: &Method, state: &AppState) -> ApiResult<Principal> {
    let now = state.clock.now();
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let token = authorization.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| {
            ApiError::unauthenticated("bad_authorization", "Authorization must be 'Bearer' and an API token.")
        })?;
        let found =
            tokens::principal(&mut *state.store.read().await?, &secret_hash(token.trim()), now).await?;
        return found.ok_or_else(|| {
            ApiError::unauthenticated("token_invalid", "This API token is unknown or has expired.")
        });
    }
    let secret = cookie_value(headers, SESSION_COOKIE)
        .ok_or_else(|| ApiError::unauthenticated("not_signed_in", "Sign in first, or send an API token."))?;
    if !is_safe(method) && !is_same_origin(headers) {
        return Err(ApiError::forbidden("wrong_origin", "This request comes from another web site."));
    }
    sessions::principal(&mut *state.store.read().await?, &secret_hash(secret), now)
        .await?
        .ok_or_else(|| ApiError::unauthenticated("session_expired", "The session has ended; sign in again."))
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the browser says that our own page made this request.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("https://").is_some_and(|rest| rest == host),
        _ => false,
    }
}

/// One cookie's value.
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), header::HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_our_own_page_may_change_things_by_cookie() {
        let host = (header::HOST, "fleet.example:8443");
        let from = |origin| is_same_origin(&headers(&[host.clone(), (header::ORIGIN, origin)]));
        assert!(from("https://fleet.example:8443"));
        assert!(!from("http://fleet.example:8443"));
        assert!(!from("https://fleet.example"));
        assert!(!from("https://evil.example"));
        assert!(!from("null"));
        assert!(!is_same_origin(&headers(&[host])));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&[(header::COOKIE, "a=1; __Host-flotilla=s3cret; __Host-flotilla2=x")]);
        assert_eq!(cookie_value(&headers, SESSION_COOKIE), Some("s3cret"));
        assert_eq!(cookie_value(&headers, "b"), None);
    }
}
