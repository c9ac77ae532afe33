//! `/device/v1/samples/{digest}` on the devices' port: samples come in parts and are acknowledged when they are stored.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use protocol::sample::PART_BYTES;
use tokio::sync::Semaphore;

use super::error::{ApiError, ApiResult};
use crate::app::AppState;
use crate::domain::samples::{self, Part, SampleError};
use crate::pki::DeviceIdentity;
use crate::store::samples::SampleKey;
use crate::supervisor::with_causes;

/// Parts in memory at once; one more is answered 503. Stops a fleet from filling the server's memory.
const MAX_PARTS: usize = 64;
/// A part that takes longer is given up: its place is for others.
const PART_TIMEOUT: Duration = Duration::from_mins(5);

/// The routes, for a router that knows the device.
pub fn router() -> Router<AppState> {
    let places = Arc::new(Semaphore::new(MAX_PARTS));
    Router::new()
        .route("/device/v1/samples/{digest}", get(look).put(take))
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(Places(places)))
}

#[derive(Clone)]
struct Places(Arc<Semaphore>);

async fn look(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Path(digest): Path<String>,
) -> ApiResult<Response> {
    let key = key(&identity, &digest)?;
    let found = samples::look(&state, &key).await;
    found.map(|found| Json(found).into_response()).map_err(|e| refused(&e))
}

async fn take(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Extension(Places(places)): Extension<Places>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let key = key(&identity, &digest)?;
    let (first, total) = place(&headers).ok_or_else(|| refused(&SampleError::Part))?;
    let busy = || ApiError::unavailable("samples_busy", "Too many samples come at once; try again.", 30);
    let _place = places.try_acquire().map_err(|_| busy())?;
    let max = usize::try_from(PART_BYTES).unwrap_or(usize::MAX);
    let content = tokio::time::timeout(PART_TIMEOUT, to_bytes(body, max)).await;
    let broken = || ApiError::malformed("upload_broken", "The part did not come whole; send it again.");
    let content = content.map_err(|_| broken())?.map_err(|_| broken())?;
    let taken = samples::take(&state, &key, Part { first, total, content }).await;
    count(&state, &taken);
    match taken {
        Ok(taken) if taken.is_stored => Ok((StatusCode::CREATED, Json(taken)).into_response()),
        Ok(taken) => Ok((StatusCode::ACCEPTED, Json(taken)).into_response()),
        Err(SampleError::Place(due)) => Ok((StatusCode::CONFLICT, Json(due)).into_response()),
        Err(e) => Err(refused(&e)),
    }
}

fn key(identity: &DeviceIdentity, digest: &str) -> ApiResult<SampleKey> {
    let digest = digest.parse().map_err(|_| ApiError::not_found("sample"))?;
    Ok(SampleKey { project: identity.project.clone(), device: identity.device.clone(), digest })
}

/// `bytes FIRST-LAST/TOTAL`; LAST is held against the body by its length.
fn place(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (part, total) = range.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, total))
}

fn count(state: &AppState, taken: &Result<protocol::sample::UploadState, SampleError>) {
    let outcome = match taken {
        Ok(taken) if taken.is_stored => "stored",
        Ok(_) => "part",
        Err(SampleError::Place(_)) => "place",
        Err(SampleError::Quota { .. }) => "quota",
        Err(SampleError::Store(_) | SampleError::Blobs(_) | SampleError::Manifest(_)) => "failed",
        Err(_) => "refused",
    };
    let labels = [("outcome", outcome)];
    state.metrics.counter("flotilla_samples_total", "Parts of samples from devices.", &labels).add(1);
}

fn refused(error: &SampleError) -> ApiError {
    let message = format!("Refused: {}.", with_causes(error));
    match error {
        SampleError::Part => ApiError::malformed("bad_part", message),
        SampleError::TooLarge { .. } => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "sample_too_large", message)
        }
        SampleError::Quota { .. } => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "sample_quota", message),
        SampleError::Place(_) => ApiError::conflict("other_part", message),
        SampleError::Digest { .. } => ApiError::unprocessable("wrong_digest", message),
        SampleError::Form(_) => ApiError::unprocessable("bad_sample", message),
        SampleError::UnknownRelease { .. } => ApiError::unprocessable("unknown_release", message),
        SampleError::Forbidden { .. } => ApiError::forbidden("samples_forbidden", message),
        SampleError::Store(e) if e.is_retryable() => {
            ApiError::unavailable("database_busy", "The database is busy; try again.", 5)
        }
        SampleError::Store(_) | SampleError::Blobs(_) | SampleError::Manifest(_) => ApiError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_a_range_that_can_be_is_a_place() {
        let place = |range: &'static str| {
            place(&[(header::CONTENT_RANGE, HeaderValue::from_static(range))].into_iter().collect())
        };
        assert_eq!(place("bytes 0-9/10"), Some((0, 10)));
        assert_eq!(place("bytes 5-9/20"), Some((5, 20)));
        for bad in
            ["bytes 9-0/10", "bytes 0-10/10", "bytes */10", "items 0-9/10", "bytes 0-9/*", "", "bytes -1-2/3"]
        {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
