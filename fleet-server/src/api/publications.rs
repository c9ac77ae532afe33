//! Publications: signed metadata and manifests in one transaction, and what a publisher needs before it signs.

use std::str::FromStr;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::{Cause, TrustError};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Path, Publisher, Viewer};
use super::types::ProjectPath;
use crate::app::AppState;
use crate::store::metadata;
use crate::supervisor::with_causes;
use crate::tuf::keys::{self, OnlineRole};
use crate::tuf::publish::{self, Publication, PublishError};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(online_keys))
        .routes(routes!(metadata_file))
        .routes(routes!(target))
        .routes(routes!(create))
}

/// Public keys that the server made; root must name the first two, `director.json` the third. TUF key objects.
#[derive(Debug, Serialize, ToSchema)]
pub struct OnlineKeys {
    /// For the role snapshot.
    #[schema(value_type = Object)]
    pub snapshot: Value,
    /// For the role timestamp.
    #[schema(value_type = Object)]
    pub timestamp: Value,
    /// For the target `director.json`.
    #[schema(value_type = Object)]
    pub director: Value,
}

/// A file of a publication.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Metadata: `root`, `targets` or a model's name. Targets: the target's path.
    pub name: String,
    /// Base64 of the exact bytes.
    pub content: String,
}

/// What a publisher sends. Blobs are uploaded before.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPublication {
    /// Signed files: `root`, `targets`, models' roles.
    #[serde(default)]
    pub metadata: Vec<PublishedFile>,
    /// Targets that are new: manifests and `director.json`.
    #[serde(default)]
    pub targets: Vec<PublishedFile>,
}

/// A release that a publication brought.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewRelease {
    /// Model.
    pub model: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the manifest.
    pub digest: String,
    /// Order within the model.
    pub counter: u64,
}

/// What a publication changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicationResult {
    /// Whether anything in it was new; the same publication again changes nothing.
    pub is_new: bool,
    /// Version of the snapshot that is served now.
    pub snapshot_version: u64,
    /// Version of the timestamp that is served now.
    pub timestamp_version: u64,
    /// Releases that are new.
    pub releases: Vec<NewRelease>,
}

/// Path of a metadata file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MetadataPath {
    /// Tenant.
    #[expect(dead_code, reason = "read by the access extractor; named here for the OpenAPI document")]
    project: String,
    /// `root.json`, `3.root.json`, `targets.json`, `digits.json`, ...
    file: String,
}

/// Path of a signed target.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TargetPath {
    /// Tenant.
    #[expect(dead_code, reason = "read by the access extractor; named here for the OpenAPI document")]
    project: String,
    /// SHA-256 of its bytes, as signed metadata names it.
    digest: String,
}

/// Public keys of the server's own roles; made at the first call.
#[utoipa::path(get, path = "/projects/{project}/online-keys", tag = "releases", operation_id = "getOnlineKeys",
    params(ProjectPath), responses((status = 200, body = OnlineKeys), (status = 403, body = ErrorBody)))]
async fn online_keys(
    State(state): State<AppState>,
    scope: InProject<Publisher>,
) -> ApiResult<Json<OnlineKeys>> {
    let keys = keys::ensure(&state.store, &state.clock, &state.seal, &scope.project).await;
    let keys = keys.map_err(|e| ApiError::internal(&e))?;
    let of = |wanted: OnlineRole| {
        let found = keys.iter().find(|(role, _)| *role == wanted);
        found.and_then(|(_, key)| serde_json::to_value(key).ok()).unwrap_or_default()
    };
    Ok(Json(OnlineKeys {
        snapshot: of(OnlineRole::Snapshot),
        timestamp: of(OnlineRole::Timestamp),
        director: of(OnlineRole::Director),
    }))
}

/// A signed file, byte for byte: the newest of a role, or the version that stands before its name.
#[utoipa::path(get, path = "/projects/{project}/metadata/{file}", tag = "releases", operation_id = "getMetadata",
    params(MetadataPath), responses((status = 200, content_type = "application/json", body = Object),
        (status = 404, body = ErrorBody)))]
async fn metadata_file(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<MetadataPath>,
) -> ApiResult<Response> {
    let not_found = || ApiError::not_found("metadata file");
    let name = path.file.strip_suffix(".json").ok_or_else(not_found)?;
    let mut conn = state.store.read().await?;
    let versioned =
        name.split_once('.').and_then(|(version, role)| Some((u64::from_str(version).ok()?, role)));
    let found = match versioned {
        Some((version, role)) => metadata::get(&mut conn, &scope.project, role, version).await?,
        None => metadata::newest(&mut conn, &scope.project, name).await?,
    };
    let bytes = found.ok_or_else(not_found)?.bytes;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// A target that signed metadata names (a release's manifest, `director.json`), byte for byte as it was signed.
#[utoipa::path(get, path = "/projects/{project}/targets/{digest}", tag = "releases", operation_id = "getTarget",
    params(TargetPath), responses((status = 200, content_type = "application/json", body = Object),
        (status = 404, body = ErrorBody)))]
async fn target(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<TargetPath>,
) -> ApiResult<Response> {
    let not_found = || ApiError::not_found("target");
    let digest = path.digest.parse().map_err(|_| not_found())?;
    let mut conn = state.store.read().await?;
    let bytes =
        metadata::target_by_digest(&mut conn, &scope.project, &digest).await?.ok_or_else(not_found)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// Publish: everything is checked as a device would check it, then stored at once, or nothing is.
#[utoipa::path(post, path = "/projects/{project}/publications", tag = "releases", operation_id = "createPublication",
    params(ProjectPath), request_body = NewPublication,
    responses((status = 201, body = PublicationResult), (status = 200, body = PublicationResult),
        (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    scope: InProject<Publisher>,
    Json(body): Json<NewPublication>,
) -> ApiResult<(StatusCode, Json<PublicationResult>)> {
    let publication = Publication { metadata: decode(body.metadata)?, targets: decode(body.targets)? };
    let published = publish::publish(&state, &scope.project, &scope.who.actor(), publication).await;
    let published = published.map_err(|e| refused(&e))?;
    let releases = published.releases.into_iter().map(|release| NewRelease {
        model: release.model.to_string(),
        version: release.version.to_string(),
        digest: release.digest.to_hex(),
        counter: release.counter.0,
    });
    let result = PublicationResult {
        is_new: published.is_new,
        snapshot_version: published.snapshot_version,
        timestamp_version: published.timestamp_version,
        releases: releases.collect(),
    };
    Ok((if result.is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(result)))
}

fn decode(files: Vec<PublishedFile>) -> ApiResult<Vec<(String, Vec<u8>)>> {
    let decode = |file: PublishedFile| match STANDARD.decode(&file.content) {
        Ok(bytes) => Ok((file.name, bytes)),
        Err(_) => {
            Err(ApiError::malformed("bad_base64", format!("The content of {} is not base64.", file.name)))
        }
    };
    files.into_iter().map(decode).collect()
}

fn refused(e: &PublishError) -> ApiError {
    let text = with_causes(e);
    let wrong = |code| ApiError::unprocessable(code, format!("Refused: {text}."));
    match e {
        PublishError::Malformed { .. } => wrong("malformed_metadata"),
        PublishError::WrongRole { .. } => wrong("wrong_role"),
        PublishError::Conflict { .. } => ApiError::conflict("version_exists", format!("Refused: {text}.")),
        PublishError::Stale { .. } => ApiError::conflict("stale_metadata", format!("Refused: {text}.")),
        PublishError::Jump { .. } => wrong("version_jump"),
        PublishError::NoRoot => ApiError::conflict("no_root", format!("Refused: {text}.")),
        PublishError::Untrusted(TrustError { role, cause: Cause::Expired { .. }, .. }) => {
            wrong("expired").with("role", role.clone())
        }
        PublishError::Untrusted(_) => wrong("untrusted"),
        PublishError::MissingTarget { .. } => wrong("missing_target"),
        PublishError::Counter(_) => ApiError::conflict("counter_taken", format!("Refused: {text}.")),
        PublishError::Manifest { .. } => wrong("bad_manifest"),
        PublishError::MissingBlobs { missing, .. } => {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            wrong("missing_blobs").with("missing", missing)
        }
        PublishError::ForeignDirector => wrong("foreign_director"),
        PublishError::ReleaseExists { .. } => {
            ApiError::conflict("release_exists", format!("Refused: {text}."))
        }
        PublishError::Refresh(_) | PublishError::Keys(_) | PublishError::Store(_) => ApiError::internal(e),
    }
}
