//! Content-addressed blobs of a project: verified while stored, resumable when read.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::Digest;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Path, Publisher, Viewer};
use crate::app::AppState;
use crate::blobs::{BlobError, Name, serve};
use crate::domain::audit::{self, Change};
use crate::store::blobs;

/// Much less than unnamed blobs are kept.
const RENEWED_AFTER_MS: i64 = 3_600_000;

/// The routes of this file. The bound on bodies is the blob store's own, which counts while it hashes.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get, head, put)).layer(DefaultBodyLimit::disable())
}

/// Path of a blob.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct BlobPath {
    /// Tenant.
    #[expect(dead_code, reason = "read by the access extractor; named here for the OpenAPI document")]
    project: String,
    /// SHA-256 of the content, 64 lower-case hex digits.
    digest: String,
}

impl BlobPath {
    fn digest(&self) -> ApiResult<Digest> {
        self.digest.parse().map_err(|e: protocol::IdError| ApiError::malformed("bad_digest", e.to_string()))
    }
}

/// A blob's content, or the range that is asked for.
#[utoipa::path(get, path = "/projects/{project}/blobs/{digest}", tag = "releases", operation_id = "getBlob",
    params(BlobPath), responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "The part that was asked for."), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<BlobPath>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let digest = path.digest()?;
    let size = size(&state, &scope.project, &digest).await?;
    let answer = serve::respond(&state.blobs, &Name::Blob(digest), size, &headers).await;
    answer.map_err(|e| ApiError::internal(&e))
}

/// Whether the project has a blob, and its size as `Content-Length`.
#[utoipa::path(head, path = "/projects/{project}/blobs/{digest}", tag = "releases", operation_id = "headBlob",
    params(BlobPath), responses((status = 200), (status = 404)))]
async fn head(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<BlobPath>,
) -> ApiResult<Response> {
    let digest = path.digest()?;
    let size = size(&state, &scope.project, &digest).await?;
    // Whoever asks may name it soon: it is kept as long as one that was uploaded now.
    if !keep(&state, &scope.project, &digest).await? {
        return Err(ApiError::not_found("blob"));
    }
    Ok(([(header::CONTENT_LENGTH, HeaderValue::from(size))], Body::empty()).into_response())
}

/// Upload a blob under its digest; safe to repeat. Content that doesn't fit its name leaves nothing behind.
#[utoipa::path(put, path = "/projects/{project}/blobs/{digest}", tag = "releases", operation_id = "putBlob",
    params(BlobPath), request_body(content_type = "application/octet-stream", content = Vec<u8>),
    responses((status = 201, description = "Stored."), (status = 204, description = "The project had it already."),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn put(
    State(state): State<AppState>,
    scope: InProject<Publisher>,
    Path(path): Path<BlobPath>,
    body: Body,
) -> ApiResult<StatusCode> {
    let digest = path.digest()?;
    if keep(&state, &scope.project, &digest).await?
        && state.blobs.size(&digest).await.map_err(|e| failed(&e))?.is_some()
    {
        return Ok(StatusCode::NO_CONTENT);
    }
    // Even if another project has it, the content must be shown: a digest alone gives no access.
    let size = state.blobs.put(&digest, body.into_data_stream()).await.map_err(|e| failed(&e))?;
    let mut tx = state.store.begin().await?;
    let now = state.clock.now();
    blobs::insert(&mut tx, &scope.project, &digest, size, now).await?;
    let (actor, name) = (scope.who.actor(), digest.to_hex());
    let change = Change::new(now, &actor, "blob.create", "blob", &name).in_project(&scope.project);
    audit::record(&mut tx, &change.after(json!({ "size_bytes": size }))).await?;
    // Its row is ours until the commit, and nothing is removed without the row: what is here now stays.
    if state.blobs.size(&digest).await.map_err(|e| failed(&e))?.is_none() {
        return Err(ApiError::unavailable(
            "blob_removed",
            "The blob was just cleared away; send it again.",
            1,
        ));
    }
    tx.commit().await?;
    Ok(StatusCode::CREATED)
}

/// Renews what a project asks for, at most once an hour; `false` when it has no such blob.
async fn keep(state: &AppState, project: &protocol::ProjectId, digest: &Digest) -> ApiResult<bool> {
    let now = state.clock.now();
    let asked_at = blobs::asked_at(&mut *state.store.read().await?, project, digest).await?;
    match asked_at {
        None => Ok(false),
        Some(at) if now.millis_since(at).abs() < RENEWED_AFTER_MS => Ok(true),
        Some(_) => {
            let mut tx = state.store.begin().await?;
            let is_kept = blobs::renew(&mut tx, project, digest, now).await?;
            tx.commit().await?;
            Ok(is_kept)
        }
    }
}

async fn size(state: &AppState, project: &protocol::ProjectId, digest: &Digest) -> ApiResult<u64> {
    let size = blobs::size(&mut *state.store.read().await?, project, digest).await?;
    size.ok_or_else(|| ApiError::not_found("blob"))
}

fn failed(e: &BlobError) -> ApiError {
    match e {
        BlobError::Digest { .. } => ApiError::unprocessable("wrong_digest", format!("Refused: {e}.")),
        BlobError::TooLarge { .. } => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("Refused: {e}."))
        }
        BlobError::Upload { .. } => {
            ApiError::malformed("upload_broken", "The upload broke off; send it again.")
        }
        BlobError::Open { .. }
        | BlobError::List { .. }
        | BlobError::Folder { .. }
        | BlobError::Store { .. }
        | BlobError::Missing { .. }
        | BlobError::Make { .. } => ApiError::internal(e),
    }
}
