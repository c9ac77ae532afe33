//! Path, query and JSON body; a rejection becomes our envelope.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::error::{ApiError, ApiResult};
use crate::store::Window;

/// Checked path parameters.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(e) => Err(ApiError::malformed("bad_path", e.body_text())),
        }
    }
}

/// Longest query string in bytes: far above what a list's filters need, far below what a database chokes on.
const MAX_QUERY_BYTES: usize = 4096;

/// Checked query parameters; unknown ones are refused before, by `api/known_query.rs`.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        if parts.uri.query().is_some_and(|query| query.len() > MAX_QUERY_BYTES) {
            return Err(ApiError::malformed("bad_query", "The query has more than 4096 bytes."));
        }
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(e) => Err(ApiError::malformed("bad_query", what_is_wrong(&e.body_text()))),
        }
    }
}

/// A JSON body, in and out.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        match <axum::Json<T> as FromRequest<S>>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(e) => Err(rejected(&e)),
        }
    }
}

/// A body that may be left out altogether.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Option<Self>> {
        let found = <axum::Json<T> as OptionalFromRequest<S>>::from_request(request, state).await;
        found.map(|json| json.map(|axum::Json(value)| Self(value))).map_err(|e| rejected(&e))
    }
}

fn rejected(e: &JsonRejection) -> ApiError {
    let text = what_is_wrong(&e.body_text());
    match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The request body is too large.")
        }
        StatusCode::UNPROCESSABLE_ENTITY => ApiError::unprocessable("bad_body", text),
        _ => ApiError::malformed("bad_body", text),
    }
}

/// The reason without the framework's words before it, which name types of this program.
fn what_is_wrong(text: &str) -> String {
    let reason = ["Failed to parse the request body as JSON: ", "Failed to deserialize query string: "]
        .into_iter()
        .chain(["Failed to deserialize the JSON body into the target type: "])
        .find_map(|words| text.strip_prefix(words));
    match reason.map(|reason| reason.split_once(", expected struct ").map_or(reason, |(reason, _)| reason)) {
        Some(reason) => format!("What was sent isn't what is expected here: {reason}."),
        None => text.to_owned(),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// At most so many items, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Paging {
    /// The checked bounds.
    ///
    /// # Errors
    /// 400 when the limit is out of bounds or the cursor isn't one of ours.
    pub fn window(&self) -> ApiResult<Window> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=500).contains(&limit) {
            return Err(ApiError::malformed("bad_limit", "limit must be from 1 to 500."));
        }
        let decode = |cursor: &String| {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            text.and_then(|text| text.strip_prefix(CURSOR_MARK).map(ToOwned::to_owned)).ok_or_else(|| {
                ApiError::malformed("bad_cursor", "cursor is not one that this server gave out.")
            })
        };
        Ok(Window { after: self.cursor.as_ref().map(decode).transpose()?, limit })
    }
}

/// Begins every cursor, so that any other text is refused instead of giving some page.
const CURSOR_MARK: &str = "after ";

/// The cursor that stands for the item with this key.
pub(crate) fn cursor(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{CURSOR_MARK}{key}"))
}
