//! What devices measured of a release, as the command `measure` brought it.

use axum::extract::State;
use protocol::measurement::{Figures, Outcome};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_body::CauseBody;
use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Json, Path, Viewer};
use super::types::{List, ReleasePath, Timestamp};
use crate::app::AppState;
use crate::store::measurements::{self, Measured};
use crate::store::releases;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A variant of a release on one device: figures, or why there are none.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeasurementBody {
    /// The command that asked for it.
    pub command_id: String,
    /// The variant, e.g. `int8`.
    pub variant: String,
    /// The device's hardware class when it measured.
    pub hardware_class: String,
    /// The device.
    pub device: String,
    /// Version of its agent.
    pub agent_version: String,
    /// When it arrived, by the server's clock.
    pub received_at: Timestamp,
    /// What was measured.
    #[schema(required)]
    pub figures: Option<FiguresBody>,
    /// Why nothing was.
    #[schema(required)]
    pub failure: Option<CauseBody>,
}

/// The figures; times are CPU time.
#[derive(Debug, Serialize, ToSchema)]
pub struct FiguresBody {
    /// Loading and warming up, in microseconds.
    pub load_us: u64,
    /// Requests that were timed.
    pub runs: u32,
    /// Median of one request in microseconds.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Resident memory that loading added.
    pub loaded_bytes: u64,
    /// Most resident memory above what the agent had before.
    pub peak_bytes: u64,
    /// Golden samples.
    pub samples: u32,
    /// Those whose answer was within tolerance.
    pub passed: u32,
    /// Nodes in int8.
    pub int8_nodes: u32,
    /// Nodes in f32 between them.
    pub f32_nodes: u32,
    /// Nodes that tract runs; 0 where it runs the whole model.
    pub tract_nodes: u32,
    /// Share of the time that tract takes, 0 to 1.
    pub tract_time_share: f64,
    /// Level of the int8 kernels.
    #[schema(required)]
    pub kernels: Option<String>,
    /// Why tract runs the whole model.
    #[schema(required)]
    pub why_all_tract: Option<String>,
    /// The first nodes that aren't in int8.
    pub fallbacks: Vec<FallbackBody>,
}

/// A node that isn't in int8.
#[derive(Debug, Serialize, ToSchema)]
pub struct FallbackBody {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub why: String,
}

impl From<Figures> for FiguresBody {
    fn from(figures: Figures) -> Self {
        let fallbacks = figures.fallbacks.into_iter();
        Self {
            load_us: figures.load_us,
            runs: figures.runs,
            p50_us: figures.p50_us,
            p90_us: figures.p90_us,
            p95_us: figures.p95_us,
            p99_us: figures.p99_us,
            loaded_bytes: figures.loaded_bytes,
            peak_bytes: figures.peak_bytes,
            samples: figures.samples,
            passed: figures.passed,
            int8_nodes: figures.int8_nodes,
            f32_nodes: figures.f32_nodes,
            tract_nodes: figures.tract_nodes,
            tract_time_share: f64::from(figures.tract_permille) / 1000.0,
            kernels: figures.kernels,
            why_all_tract: figures.why_all_tract,
            fallbacks: fallbacks
                .map(|node| FallbackBody { node: node.node, op: node.op, why: node.why })
                .collect(),
        }
    }
}

impl From<Measured> for MeasurementBody {
    fn from(measured: Measured) -> Self {
        let measurement = measured.measurement;
        let (figures, failure) = match measurement.outcome {
            Outcome::Measured(figures) => (Some(FiguresBody::from(*figures)), None),
            Outcome::Failed(cause) => (None, Some(CauseBody::from(&cause))),
        };
        Self {
            command_id: measurement.command_id,
            variant: measurement.variant,
            hardware_class: measured.hardware_class,
            device: measured.device.to_string(),
            agent_version: measurement.agent_version,
            received_at: measured.received_at.into(),
            figures,
            failure,
        }
    }
}

/// What devices measured of a release on request, by hardware class, variant and device: the newest of each, of at
/// most 1000. Where a device could not measure again, its figures stay and the failure comes right behind them.
#[utoipa::path(get, path = "/projects/{project}/models/{model}/releases/{version}/measurements", tag = "models",
    operation_id = "listMeasurements", params(ReleasePath),
    responses((status = 200, body = List<MeasurementBody>), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    Path(path): Path<ReleasePath>,
) -> ApiResult<Json<List<MeasurementBody>>> {
    let mut conn = state.store.read().await?;
    let release = releases::get(&mut conn, &scope.project, &path.model, &path.version).await?;
    let release = release.ok_or_else(|| ApiError::not_found("release"))?;
    let found = measurements::list(&mut conn, &scope.project, &path.model, &release.digest).await?;
    Ok(Json(List::whole(found.into_iter().map(MeasurementBody::from).collect())))
}
