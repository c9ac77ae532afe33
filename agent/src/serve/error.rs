//! Errors as the protocol writes them: `{"error": "..."}` with a status.

use std::fmt::{self, Write as _};

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
    /// This path, but not with this method.
    #[error("{method} is not for {path}")]
    Method { method: String, path: String },
    /// The body is over its bound.
    #[error("the request's body was not accepted: it may have at most {max} bytes")]
    BodyTooLarge { max: usize },
    /// The body came too slowly.
    #[error("the request's body was not accepted: it did not come within {timeout_ms} ms")]
    BodyTimeout { timeout_ms: u128 },
    /// The agent ends before the body was there.
    #[error("the agent stops")]
    Stopping,
    /// The body keeps memory and hardly comes.
    #[error("the request's body was not accepted: it came slower than {min} bytes a second")]
    BodySlow { min: usize },
    /// The body broke off.
    #[error("the request's body was not accepted: {0}")]
    BodyBroken(String),
    /// The body is compressed.
    #[error("the request's body was not accepted: content encoding {0:?} is not supported, send it as it is")]
    Encoding(String),
    /// A page of another machine asks.
    #[error("web pages of {0} may not ask this device")]
    ForeignOrigin(String),
    /// A name that isn't this machine's.
    #[error("{0:?} is no name of this machine: ask localhost or 127.0.0.1")]
    ForeignHost(String),
    /// Two names of the host.
    #[error("Host may be given once, it came twice")]
    DoubleHost,
    /// No name of the host.
    #[error("HTTP/1.1 asks for a Host header, e.g. Host: localhost")]
    NoHost,
    /// What is no name of a host.
    #[error("{0:?} in Host is no name with an optional port: ask localhost or 127.0.0.1")]
    GarbledHost(String),
    /// Something that only the fleet may change.
    #[error("{0}; what serves here is decided by the fleet's signed releases")]
    ReadOnly(String),
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
    #[error("overloaded: {why}")]
    Overloaded { why: String },
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
    /// Whether the same request may be answered later.
    pub(super) fn is_later(&self) -> bool {
        // A model that isn't here may still come; one that is overloaded will be free.
        self.status() == StatusCode::SERVICE_UNAVAILABLE || matches!(self, Self::UnknownModel { .. })
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } | Self::UnknownPath(_) => {
                StatusCode::NOT_FOUND
            }
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } | Self::BodySlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ReadOnly(_) | Self::ForeignOrigin(_) | Self::ForeignHost(_) => StatusCode::FORBIDDEN,
            Self::BodyBroken(_)
            | Self::DoubleHost
            | Self::NoHost
            | Self::GarbledHost(_)
            | Self::Json(_)
            | Self::Tensor(_)
            | Self::Field(_)
            | Self::Feedback(
                FeedbackError::Count { .. }
                | FeedbackError::NoClasses { .. }
                | FeedbackError::UnknownLabel { .. },
            ) => StatusCode::BAD_REQUEST,
            Self::Infer(error) if error.is_caller_fault() => StatusCode::BAD_REQUEST,
            Self::Infer(_) | Self::Died => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded { .. } | Self::NotLoaded { .. } | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Feedback(FeedbackError::UnknownId { .. }) => StatusCode::NOT_FOUND,
            Self::Feedback(FeedbackError::Twice { .. }) => StatusCode::CONFLICT,
        }
    }
}

/// Longest error text. Some repeat what the caller sent.
const MAX_WORDS: usize = 1000;

/// Takes the beginning of a text and stops whoever writes the rest.
struct Beginning(String);

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_WORDS.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

impl ApiError {
    /// The protocol's form of it, bounded whatever was sent.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut words = Beginning(String::new());
        if write!(words, "{self}").is_err() {
            words.0.push('…');
        }
        serde_json::json!({ "error": words.0 })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after_s = if matches!(self, Self::NotLoaded { .. }) { "10" } else { "1" };
        let mut response = (status, axum::Json(self.json())).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after_s));
        }
        response
    }
}
