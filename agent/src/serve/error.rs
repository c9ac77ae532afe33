//! Errors as the protocol writes them: `{"error": "..."}` with a status.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inference::{InferError, TensorJsonError};

use crate::monitor::FeedbackError;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No such model here.
    #[error("model {name:?} is not served here; served are: {served}")]
    UnknownModel { name: String, served: String },
    /// It is here but not loaded now.
    #[error("model {name} is not loaded: {why}")]
    NotLoaded { name: String, why: String },
    /// Another version serves.
    #[error("model {name} serves version {serving}, not {wanted:?}")]
    UnknownVersion { name: String, serving: String, wanted: String },
    /// No such path.
    #[error("there is nothing at {0}")]
    UnknownPath(String),
    /// The body can't be read.
    #[error("the request's body was not accepted: {}", .0.body_text())]
    Body(BytesRejection),
    /// The body is not what the protocol says.
    #[error("the request is not valid JSON of the protocol: {0}")]
    Json(#[source] serde_json::Error),
    /// A tensor is not valid.
    #[error("{0}{because}", because = because(.0))]
    Tensor(TensorJsonError),
    /// A field is over its bound, or asks for what this server doesn't do.
    #[error("{0}")]
    Field(String),
    /// The model refused or failed.
    #[error("{0}")]
    Infer(InferError),
    /// Too many requests wait already.
    #[error("overloaded: {queue} requests wait or run already")]
    Overloaded { queue: usize },
    /// It took too long.
    #[error("not answered within {timeout_ms} ms")]
    Timeout { timeout_ms: u128 },
    /// The thread that worked on it died.
    #[error("the inference thread ended by a panic")]
    Died,
    /// A label was refused.
    #[error("{0}")]
    Feedback(FeedbackError),
}

fn because(error: &TensorJsonError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::UnknownPath(_) => {
                StatusCode::NOT_FOUND
            }
            Self::Body(rejection) => rejection.status(),
            Self::Json(_) | Self::Tensor(_) | Self::Field(_) => StatusCode::BAD_REQUEST,
            Self::Infer(error) if error.is_caller_fault() => StatusCode::BAD_REQUEST,
            Self::Infer(_) | Self::Died => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded { .. } | Self::NotLoaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Feedback(FeedbackError::UnknownId { .. }) => StatusCode::NOT_FOUND,
            Self::Feedback(FeedbackError::Twice { .. }) => StatusCode::CONFLICT,
            Self::Feedback(FeedbackError::Count { .. } | FeedbackError::NoClasses { .. }) => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after_s = if matches!(self, Self::NotLoaded { .. }) { "10" } else { "1" };
        let body = serde_json::json!({ "error": self.to_string() });
        let mut response = (status, axum::Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after_s));
        }
        response
    }
}
