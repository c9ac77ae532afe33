//! The port for devices: mutual TLS, and each device sees its own project only.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use protocol::{Digest, ProjectId};

use crate::api::error::{ApiError, ApiResult};
use crate::api::sample_uploads;
use crate::app::AppState;
use crate::blobs::{self, Name};
use crate::link::{Gate, Refusal};
use crate::listener::Peer;
use crate::pki::{DeviceIdentity, enroll};
use crate::store::{blobs as blob_rows, metadata};

/// The whole port. Every request passes the same gate as an MQTT connection.
pub fn router(state: AppState, gate: Arc<dyn Gate>) -> Router {
    let routes = Router::new()
        .route("/tuf/v1/{project}/{*file}", get(file))
        .route("/blobs/v1/sha256/{digest}", get(blob))
        .route("/blobs/v1/sha256/{digest}/zstd", get(blob_as_zstd))
        .route("/blobs/v1/sha256/{digest}/delta/{base}", get(blob_as_delta))
        .merge(enroll::renew_router())
        .merge(sample_uploads::router())
        .with_state(state);
    routes.layer(middleware::from_fn_with_state(gate, identify))
}

async fn identify(
    State(gate): State<Arc<dyn Gate>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let identity = match admit(gate.as_ref(), &peer).await {
        Ok(identity) => identity,
        Err(refusal) => {
            gate.refused(&refusal);
            return Err(refused(&refusal));
        }
    };
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

async fn admit(gate: &dyn Gate, peer: &Peer) -> Result<DeviceIdentity, Refusal> {
    let certificate = peer.certificates.first().ok_or(Refusal::NoCertificate)?;
    let identity = DeviceIdentity::from_certificate(certificate).map_err(Refusal::NotADevice)?;
    gate.admit(&identity).await?;
    Ok(identity)
}

fn refused(refusal: &Refusal) -> ApiError {
    match refusal {
        Refusal::Store(_) => {
            ApiError::unavailable("database_busy", "The server can't look the device up now.", 5)
        }
        other => ApiError::forbidden(other.code(), format!("Refused: {other}.")),
    }
}

/// A file of the project's repository: `timestamp.json`, `{version}.{role}.json` or `targets/...`.
async fn file(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Path((project, file)): Path<(String, String)>,
) -> ApiResult<Response> {
    let not_found = || ApiError::not_found("file");
    if project != identity.project.as_str() {
        return Err(not_found());
    }
    let bytes = read(&state, &identity.project, &file).await?.ok_or_else(not_found)?;
    let cache = if file == "timestamp.json" { "no-store" } else { "private, max-age=31536000, immutable" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    Ok((StatusCode::OK, headers, bytes).into_response())
}

async fn read(state: &AppState, project: &ProjectId, file: &str) -> ApiResult<Option<Vec<u8>>> {
    let mut conn = state.store.read().await?;
    if let Some(target) = file.strip_prefix("targets/") {
        let Some((path, digest)) = target_path(target) else { return Ok(None) };
        return Ok(metadata::target(&mut conn, project, &path, &digest).await?);
    }
    let Some(name) = file.strip_suffix(".json") else { return Ok(None) };
    let found = match name.split_once('.') {
        None if name == "timestamp" => metadata::newest(&mut conn, project, "timestamp").await?,
        Some((version, role)) => match version.parse() {
            Ok(version) => metadata::get(&mut conn, project, role, version).await?,
            Err(_) => None,
        },
        None => None,
    };
    Ok(found.map(|file| file.bytes))
}

/// `models/digits/1.0.0/{sha256}.manifest.json` names the target `models/digits/1.0.0/manifest.json`.
fn target_path(fetched: &str) -> Option<(String, Digest)> {
    let (folder, file) = fetched.rsplit_once('/').map_or(("", fetched), |(folder, file)| (folder, file));
    let (digest, name) = file.split_once('.')?;
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    Some((path, digest.parse().ok()?))
}

async fn blob(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (digest, size) = known(&state, &identity, &digest).await?;
    let answer = blobs::serve::respond(&state.blobs, &Name::Blob(digest), size, &headers).await;
    answer.map_err(|e| ApiError::internal(&e))
}

/// The same blob as one zstd frame. 404 when that saves nothing, or is not made yet.
async fn blob_as_zstd(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (digest, _) = known(&state, &identity, &digest).await?;
    derived(&state, Name::Zstd(digest), &headers).await
}

/// What turns a blob that the device holds into another. 404 when that saves nothing over zstd, or is not made yet.
async fn blob_as_delta(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Path((digest, base)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    // A delta tells about both blobs.
    let (target, _) = known(&state, &identity, &digest).await?;
    let (base, _) = known(&state, &identity, &base).await?;
    derived(&state, Name::Delta { base, target }, &headers).await
}

async fn derived(state: &AppState, name: Name, headers: &HeaderMap) -> ApiResult<Response> {
    let size = state.derived.size(name).await.map_err(|e| ApiError::internal(&e))?;
    let size = size.ok_or_else(|| ApiError::not_found("encoding"))?;
    blobs::serve::respond(&state.blobs, &name, size, headers).await.map_err(|e| ApiError::internal(&e))
}

/// A blob of the device's own project, and its size.
async fn known(state: &AppState, identity: &DeviceIdentity, digest: &str) -> ApiResult<(Digest, u64)> {
    let not_found = || ApiError::not_found("blob");
    let digest: Digest = digest.parse().map_err(|_| not_found())?;
    let mut conn = state.store.read().await?;
    let size = blob_rows::size(&mut conn, &identity.project, &digest).await?;
    Ok((digest, size.ok_or_else(not_found)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_names_lead_to_their_targets() {
        let hex = "a".repeat(64);
        let (path, digest) = target_path(&format!("models/digits/1.0.0/{hex}.manifest.json")).unwrap();
        assert_eq!((path.as_str(), digest.to_hex()), ("models/digits/1.0.0/manifest.json", hex.clone()));
        assert_eq!(target_path(&format!("{hex}.director.json")).unwrap().0, "director.json");
        assert!(target_path("models/digits/manifest.json").is_none());
    }
}
