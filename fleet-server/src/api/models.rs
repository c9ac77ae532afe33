//! Models and releases, read side: manifest, signatures, card, adoption.

use std::collections::BTreeMap;

use axum::extract::State;
use protocol::{Digest, ModelName, ProjectId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Path, Viewer};
use super::types::{List, ModelPath, ProjectPath, ReleasePath, Timestamp};
use crate::app::AppState;
use crate::store::releases::{self, Release, ReleaseState};
use crate::store::{Conn, StoreError, devices, metadata};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(list_releases))
        .routes(routes!(show_release))
}

/// Largest model card that is shown; a longer one is left out.
const MAX_CARD_BYTES: u64 = 256 * 1024;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    /// Its name.
    pub model: String,
    /// When its first release was published.
    pub created_at: Timestamp,
    /// The release with the highest counter; null when all were withdrawn.
    #[schema(required)]
    pub newest: Option<ReleaseSummary>,
    /// How many releases it has.
    pub releases: usize,
    /// Devices per release that serves now.
    pub mix: Vec<MixPart>,
}

/// How many devices serve a release.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MixPart {
    /// The release; null where none serves yet.
    #[schema(required)]
    pub version: Option<String>,
    /// Devices.
    pub devices: i64,
}

/// A release in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleaseSummary {
    /// Which model.
    pub model: String,
    /// As people write it.
    pub version: String,
    /// SHA-256 of the manifest.
    pub digest: String,
    /// Order within the model.
    pub counter: u64,
    /// Whether it may be rolled out.
    pub state: ReleaseState,
    /// When it was published.
    pub published_at: Timestamp,
    /// Who published it.
    pub published_by: String,
    /// Its variants.
    pub variants: Vec<VariantSummary>,
    /// Devices on which it serves.
    pub active_devices: i64,
}

/// One build of a release.
#[derive(Debug, Serialize, ToSchema)]
pub struct VariantSummary {
    /// Its name, e.g. `int8`.
    pub name: String,
    /// Its precision.
    #[schema(required)]
    pub precision: Option<String>,
    /// Size of the model file.
    #[schema(required)]
    pub size_bytes: Option<u64>,
    /// Accuracy on the evaluation set, 0 to 1.
    #[schema(required)]
    pub accuracy: Option<f64>,
}

/// Who signed a release.
#[derive(Debug, Serialize, ToSchema)]
pub struct Signature {
    /// The role, which is the model's name.
    pub role: String,
    /// The key's id.
    pub key_id: String,
}

/// One release.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleaseDetail {
    /// What lists show too.
    #[serde(flatten)]
    pub summary: ReleaseSummary,
    /// The signed manifest.
    #[schema(value_type = Object)]
    pub manifest: Value,
    /// Signatures over the metadata that names it.
    pub signatures: Vec<Signature>,
    /// When that metadata expires.
    #[schema(required)]
    pub metadata_expires_at: Option<Timestamp>,
    /// The model card, Markdown; null when it isn't stored or too long.
    #[schema(required)]
    pub card: Option<String>,
    /// Devices of the model by the release that serves.
    pub mix: Vec<MixPart>,
}

type Mix = BTreeMap<ModelName, Vec<(Option<Digest>, MixPart)>>;

async fn mix(conn: &mut Conn, project: &ProjectId) -> Result<Mix, StoreError> {
    let mut by_model = Mix::new();
    for (model, version, digest, devices) in devices::release_mix(conn, project).await? {
        let part = MixPart { version: version.map(|v| v.to_string()), devices };
        by_model.entry(model).or_default().push((digest, part));
    }
    Ok(by_model)
}

fn parts(mix: &Mix, model: &ModelName) -> Vec<MixPart> {
    mix.get(model).map(|parts| parts.iter().map(|(_, part)| part.clone()).collect()).unwrap_or_default()
}

fn summary(release: &Release, mix: &Mix) -> ReleaseSummary {
    let of_model = mix.get(&release.model).map(Vec::as_slice).unwrap_or_default();
    let is_this = |digest: &Option<Digest>| *digest == Some(release.digest);
    ReleaseSummary {
        model: release.model.to_string(),
        version: release.version.to_string(),
        digest: release.digest.to_hex(),
        counter: release.counter.0,
        state: release.state,
        published_at: release.published_at.into(),
        published_by: release.published_by.clone(),
        variants: variants(&manifest_of(release)),
        active_devices: of_model
            .iter()
            .filter(|(digest, _)| is_this(digest))
            .map(|(_, part)| part.devices)
            .sum(),
    }
}

fn manifest_of(release: &Release) -> Value {
    serde_json::from_slice(&release.manifest).unwrap_or_default()
}

fn variants(manifest: &Value) -> Vec<VariantSummary> {
    let all = manifest["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|variant| VariantSummary {
            name: variant["name"].as_str().unwrap_or_default().to_owned(),
            precision: variant["precision"].as_str().map(str::to_owned),
            size_bytes: variant["model"]["size_bytes"].as_u64(),
            accuracy: variant["accuracy"].as_f64(),
        })
        .collect()
}

fn model(row: &releases::Model, all: &[Release], mix: &Mix) -> Model {
    let newest = all.iter().find(|release| release.state == ReleaseState::Published);
    Model {
        created_at: row.created_at.into(),
        newest: newest.map(|release| summary(release, mix)),
        releases: all.len(),
        mix: parts(mix, &row.model),
        model: row.model.to_string(),
    }
}

/// All models.
#[utoipa::path(get, path = "/projects/{project}/models", tag = "models", operation_id = "listModels",
    params(ProjectPath), responses((status = 200, body = List<Model>), (status = 404, body = ErrorBody)))]
async fn list(State(state): State<AppState>, scope: InProject<Viewer>) -> ApiResult<Json<List<Model>>> {
    let mut conn = state.store.read().await?;
    let mix = mix(&mut conn, &scope.project).await?;
    let mut found = Vec::new();
    for row in releases::models(&mut conn, &scope.project).await? {
        let all = releases::list(&mut conn, &scope.project, &row.model).await?;
        found.push(model(&row, &all, &mix));
    }
    Ok(Json(List::whole(found)))
}

/// One model.
#[utoipa::path(get, path = "/projects/{project}/models/{model}", tag = "models", operation_id = "showModel",
    params(ModelPath), responses((status = 200, body = Model), (status = 404, body = ErrorBody)))]
async fn show(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
) -> ApiResult<Json<Model>> {
    let mut conn = state.store.read().await?;
    let row = releases::model(&mut conn, &scope.project, &path.model).await?;
    let row = row.ok_or_else(|| ApiError::not_found("model"))?;
    let all = releases::list(&mut conn, &scope.project, &path.model).await?;
    let mix = mix(&mut conn, &scope.project).await?;
    Ok(Json(model(&row, &all, &mix)))
}

/// A model's releases, highest counter first.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/releases", tag = "models",
    operation_id = "listReleases", params(ModelPath),
    responses((status = 200, body = List<ReleaseSummary>), (status = 404, body = ErrorBody)))]
async fn list_releases(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
) -> ApiResult<Json<List<ReleaseSummary>>> {
    let mut conn = state.store.read().await?;
    if releases::model(&mut conn, &scope.project, &path.model).await?.is_none() {
        return Err(ApiError::not_found("model"));
    }
    let all = releases::list(&mut conn, &scope.project, &path.model).await?;
    let mix = mix(&mut conn, &scope.project).await?;
    Ok(Json(List::whole(all.iter().map(|release| summary(release, &mix)).collect())))
}

/// One release: manifest, signatures, card, adoption.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/releases/{version}", tag = "models",
    operation_id = "showRelease", params(ReleasePath),
    responses((status = 200, body = ReleaseDetail), (status = 404, body = ErrorBody)))]
async fn show_release(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ReleasePath>,
) -> ApiResult<Json<ReleaseDetail>> {
    let mut conn = state.store.read().await?;
    let release = releases::get(&mut conn, &scope.project, &path.model, &path.version).await?;
    let release = release.ok_or_else(|| ApiError::not_found("release"))?;
    let mix = mix(&mut conn, &scope.project).await?;
    let role = metadata::newest(&mut conn, &scope.project, path.model.as_str()).await?;
    drop(conn);
    let manifest = manifest_of(&release);
    Ok(Json(ReleaseDetail {
        summary: summary(&release, &mix),
        signatures: role.as_ref().map(signatures).unwrap_or_default(),
        metadata_expires_at: role.map(|file| file.expires_at.into()),
        card: card(&state, &manifest).await,
        mix: parts(&mix, &path.model),
        manifest,
    }))
}

fn signatures(file: &metadata::MetadataFile) -> Vec<Signature> {
    let envelope: Value = serde_json::from_slice(&file.bytes).unwrap_or_default();
    let all = envelope["signatures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = all.iter().filter_map(|signature| signature["keyid"].as_str());
    ids.map(|key_id| Signature { role: file.name.clone(), key_id: key_id.to_owned() }).collect()
}

/// The card is for reading only: if it can't be had, the release is shown without it.
async fn card(state: &AppState, manifest: &Value) -> Option<String> {
    let digest: Digest = manifest["card"]["digest"].as_str()?.parse().ok()?;
    match state.blobs.read(&digest, MAX_CARD_BYTES).await {
        Ok(bytes) => bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) => {
            tracing::warn!("cannot show the model card {digest}: {}", crate::supervisor::with_causes(&e));
            None
        }
    }
}
