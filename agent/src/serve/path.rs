//! What stands in a request's path, with errors in the protocol's form.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Axum's `Path`, but for the answer to one that can't be read.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let unreadable = |_| ApiError::Field("the path's percent-encoded part is not UTF-8".into());
        read.map(|axum::extract::Path(value)| Self(value)).map_err(unreadable)
    }
}
