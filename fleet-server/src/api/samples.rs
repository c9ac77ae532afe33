//! Captured samples of a model, for whoever trains the next release. What they hold is told to all who see the
//! project; the inputs themselves go only to publishers, and each download is written down.

use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::sample::{Said, Strategy};
use protocol::{DeviceId, Version};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Paging, Path, Publisher, Query, Viewer, cursor};
use super::types::{List, ModelPath, Timestamp};
use crate::app::AppState;
use crate::domain::audit::{self, Change};
use crate::store::samples;

/// Samples of one page come to no more than so many bytes, but for the last one.
const PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(download))
}

/// What a model said of one item.
#[derive(Debug, Serialize, ToSchema)]
pub struct SampleAnswer {
    /// The class's name, of a classifier.
    #[schema(required)]
    pub label: Option<String>,
    /// The class's probability.
    #[schema(required)]
    pub confidence: Option<f64>,
    /// The number, of a regression.
    #[schema(required)]
    pub value: Option<f64>,
}

impl From<Said> for SampleAnswer {
    fn from(said: Said) -> Self {
        Self { label: said.label, confidence: said.confidence, value: said.value }
    }
}

/// One item that a device was asked, kept for retraining.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sample {
    /// SHA-256 of its bytes.
    pub digest: String,
    /// Who sent it.
    pub device: String,
    /// The inference's id on the device.
    pub inference: String,
    /// Version of the release that answered.
    pub version: String,
    /// The device's clock when it answered.
    pub at: Timestamp,
    /// When it was stored here.
    pub received_at: Timestamp,
    /// When it is deleted here.
    pub expires_at: Timestamp,
    /// Its size.
    pub size_bytes: u64,
    /// Why it was kept: random, uncertainty, out_of_reference, disagreement, contradiction.
    pub strategy: String,
    /// With which probability an item that the strategy applies to is kept.
    pub probability: f64,
    /// What the release said.
    pub answer: SampleAnswer,
    /// What a candidate beside said, for a disagreement.
    #[schema(required)]
    pub beside: Option<SampleAnswer>,
    /// The feature that lies outside, for an item out of the reference.
    #[schema(required)]
    pub feature: Option<String>,
    /// The true label, for a contradiction.
    #[schema(required)]
    pub label: Option<String>,
}

impl From<samples::Sample> for Sample {
    fn from(sample: samples::Sample) -> Self {
        let samples::Sample { key, head, .. } = sample;
        Self {
            digest: key.digest.to_hex(),
            device: key.device.to_string(),
            inference: head.id,
            version: head.version.to_string(),
            at: head.at.into(),
            received_at: sample.received_at.into(),
            expires_at: sample.expires_at.into(),
            size_bytes: sample.size_bytes,
            strategy: head.strategy.to_string(),
            probability: head.probability,
            answer: head.answer.into(),
            beside: head.beside.map(SampleAnswer::from),
            feature: head.feature,
            label: head.label,
        }
    }
}

/// A sample with its bytes.
#[derive(Debug, Serialize, ToSchema)]
pub struct SampleContent {
    /// What it is.
    pub sample: Sample,
    /// Its bytes in base64, in the form that docs/CAPTURE.md tells of.
    pub content: String,
}

/// Which samples.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct SampleQuery {
    /// Of this version only.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    version: Option<Version>,
    /// Kept for this reason only.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    strategy: Option<Strategy>,
    /// From this device only.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    device: Option<DeviceId>,
}

impl From<SampleQuery> for samples::Wanted {
    fn from(query: SampleQuery) -> Self {
        let SampleQuery { version, strategy, device } = query;
        Self { version, strategy, device }
    }
}

/// Captured samples of a model without their inputs, newest first.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/samples", tag = "samples", operation_id = "listSamples",
    params(ModelPath, SampleQuery, Paging),
    responses((status = 200, body = List<Sample>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ModelPath>,
    Query(query): Query<SampleQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<Sample>>> {
    let window = paging.window()?;
    let mut conn = state.store.read().await?;
    let page = samples::list(&mut conn, &scope.project, &path.model, &query.into(), &window).await?;
    Ok(Json(List::page(page, window.limit, |sample| sample.sample_id.clone(), Sample::from)))
}

/// Captured samples of a model with their inputs, newest first. A page may be shorter than asked for; the last one is
/// that without a `next_cursor`. Each call is written into the audit log before it is answered.
#[utoipa::path(post, path = "/projects/{project}/models/{model}/samples/download", tag = "samples",
    operation_id = "downloadSamples", params(ModelPath, SampleQuery, Paging),
    responses((status = 200, body = List<SampleContent>), (status = 404, body = ErrorBody)))]
async fn download(
    State(state): State<AppState>,
    scope: InProject<Publisher>,
    Path(path): Path<ModelPath>,
    Query(query): Query<SampleQuery>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<List<SampleContent>>> {
    let window = paging.window()?;
    let wanted = samples::Wanted::from(query);
    let mut conn = state.store.read().await?;
    let page = samples::list(&mut conn, &scope.project, &path.model, &wanted, &window).await?;
    drop(conn);
    let total = page.total;
    let is_full = i64::try_from(page.items.len()).is_ok_and(|n| n == window.limit);
    let fitting = fitting(&page.items);
    let is_cut = fitting < page.items.len();
    let page = &page.items[..fitting];
    let next_cursor = page.last().filter(|_| is_full || is_cut).map(|last| cursor(&last.sample_id));
    if !page.is_empty() {
        let (now, actor) = (state.clock.now(), scope.who.actor());
        let told = json!({
            "samples": page.len(), "version": wanted.version, "strategy": wanted.strategy, "device": wanted.device,
            "newest": page.first().map(|s| s.key.digest.to_hex()), "oldest": page.last().map(|s| s.key.digest.to_hex()),
        });
        let change = Change::new(now, &actor, "sample.download", "model", path.model.as_str());
        let mut tx = state.store.begin().await?;
        audit::record(&mut tx, &change.in_project(&scope.project).after(told)).await?;
        tx.commit().await?;
    }
    let mut items = Vec::with_capacity(page.len());
    for sample in page {
        // One that has just expired is not there any more.
        let content = state.blobs.read_sample(&sample.key).await.map_err(|e| ApiError::internal(&e))?;
        if let Some(content) = content {
            items.push(SampleContent { sample: sample.clone().into(), content: STANDARD.encode(content) });
        }
    }
    Ok(Json(List { items, next_cursor, total }))
}

/// How many from the first on go into one answer; always one.
fn fitting(page: &[samples::Sample]) -> usize {
    let mut bytes = 0_u64;
    let over = page.iter().position(|sample| {
        bytes = bytes.saturating_add(sample.size_bytes);
        bytes > PAGE_BYTES
    });
    over.map_or(page.len(), |over| over.max(1))
}
