//! Server-sent events: which object changed; the reader fetches it again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Viewer};
use super::types::ProjectPath;
use crate::app::AppState;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// The data of an event; its name is `device`, `rollout`, `alert` or `release`. An event `missed` says that some
/// were lost: read everything again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeEvent {
    /// Which object changed.
    pub id: String,
}

/// A client that never says anything is noticed by this comment line.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What changes, as it changes.
#[utoipa::path(get, path = "/projects/{project}/stream", tag = "stream", operation_id = "stream",
    params(ProjectPath),
    responses((status = 200, body = ChangeEvent, content_type = "text/event-stream"),
        (status = 503, body = ErrorBody)))]
async fn stream(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let permit = Arc::clone(&state.streams).try_acquire_owned();
    let permit = permit
        .map_err(|_| ApiError::unavailable("too_many_streams", "Too many live streams are open.", 30))?;
    let project = scope.project;
    let changes = BroadcastStream::new(state.bus.subscribe()).filter_map(move |change| {
        // Held by the stream, so that it is given back when the reader goes away.
        let _permit = &permit;
        let event = match change {
            Ok(change) if change.project == project => Some(named(change.kind.as_str(), change.id)),
            Ok(_) => None,
            Err(BroadcastStreamRecvError::Lagged(_)) => Some(named("missed", String::new())),
        };
        std::future::ready(event.map(Ok))
    });
    // Live streams end with the server; otherwise a graceful shutdown would wait for every console.
    let changes = changes.take_until(state.closing.clone().cancelled_owned());
    Ok(Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn named(name: &str, id: String) -> Event {
    Event::default().event(name).json_data(ChangeEvent { id }).unwrap_or_default()
}
