//! `POST /v2/models/{model}/feedback`: the true label of an earlier inference, by its id.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use protocol::ModelName;
use serde::{Deserialize, Serialize};

use super::body;
use super::error::ApiError;
use super::object::Object;
use super::path::Path;
use super::work::Api;
use crate::monitor::{FeedbackError, Label};

/// An id and the labels of the largest batch take less. It is read on the threads that answer everybody.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
struct Feedback {
    id: String,
    label: Labels,
}

/// One label, or one per item of a batch.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "label: expected a class by name or number, or a list of them")]
enum Labels {
    One(Label),
    Many(Vec<Label>),
}

#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    /// Labels that were counted.
    labels: usize,
    /// Those that were the class that the model had said.
    right: usize,
}

pub(super) async fn feedback(
    State(api): State<Api>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Json<Accepted>, ApiError> {
    let body = body::receive_at_most(MAX_BYTES, &api, request).await?;
    let Object(feedback): Object<Feedback> =
        serde_json::from_slice(&body.split().0).map_err(ApiError::Json)?;
    let labels = match feedback.label {
        Labels::One(label) => vec![label],
        Labels::Many(labels) => labels,
    };
    if labels.len() > inference::MAX_BATCH_ROWS {
        let most = inference::MAX_BATCH_ROWS;
        return Err(ApiError::Field(format!("label: at most {most}, one per item, got {}", labels.len())));
    }
    let not_served = || api.serving(&model, None).err();
    let Ok(name) = ModelName::new(model.clone()) else {
        return Err(not_served().unwrap_or(ApiError::UnknownPath(model)));
    };
    let right = match api.monitor.feedback(&name, &feedback.id, &labels, (api.now)()) {
        Ok(right) => right,
        // No id of a model that doesn't serve is known; that it doesn't is what the application has to hear.
        Err(error @ FeedbackError::UnknownId { .. }) => {
            return Err(not_served().unwrap_or(ApiError::Feedback(error)));
        }
        Err(error) => return Err(ApiError::Feedback(error)),
    };
    Ok(Json(Accepted { labels: labels.len(), right }))
}
