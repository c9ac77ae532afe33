//! Server-sent events: which object changed; the reader fetches it again.
//!
//! A stream lasts no longer than the right to it: at each keep-alive its first request is judged again by the same
//! extractor, and a reader whose session, token, user or grant is gone gets nothing more. Tests: `tests/stream.rs`.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorBody};
use super::extract::{InProject, Viewer};
use super::stream_places::{Full, Place};
use super::types::ProjectPath;
use crate::app::AppState;
use crate::bus::Change;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(open))
}

/// The data of an event; its name is `device`, `rollout`, `alert` or `release`. An event `missed` says that some
/// were lost: read everything again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeEvent {
    /// Which object changed.
    pub id: String,
}

/// How long a reader who got no place should wait.
const RETRY_AFTER_S: u64 = 30;

/// What changes, as it changes. Ends when the reader's right to it ends.
#[utoipa::path(get, path = "/projects/{project}/stream", tag = "stream", operation_id = "stream",
    params(ProjectPath),
    responses((status = 200, body = ChangeEvent, content_type = "text/event-stream"),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn open(
    State(state): State<AppState>,
    scope: InProject<Viewer>,
    request: Parts,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let place = state.streams.take(&scope.who.username)?;
    let every = state.config.limits.stream_check;
    let mut checks = interval_at(Instant::now() + every, every);
    // Whoever didn't read for a while is judged once, not once for each missed time.
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = Reader { changes: state.bus.subscribe(), checks, request, scope, state, _place: place };
    Ok(Sse::new(stream::unfold(reader, Reader::next)))
}

/// One open stream.
struct Reader {
    changes: Receiver<Change>,
    checks: Interval,
    /// The request that opened it, with the proof of who asks.
    request: Parts,
    scope: InProject<Viewer>,
    state: AppState,
    /// Given back when the reader goes away.
    _place: Place,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            let change = tokio::select! {
                // In this order: nothing is told to a reader whose check is due.
                biased;
                // Otherwise a graceful shutdown would wait for every console.
                () = self.state.closing.cancelled() => return None,
                _ = self.checks.tick() => {
                    // The comment also finds out whether a silent reader is still there.
                    let comment = Event::default().comment("");
                    return self.may_read().await.then_some((Ok(comment), self));
                }
                change = self.changes.recv() => change,
            };
            let event = match change {
                Ok(change) if change.project == self.scope.project => named(change.kind.as_str(), change.id),
                Ok(_) => continue,
                Err(RecvError::Lagged(_)) => named("missed", String::new()),
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(event), self));
        }
    }

    /// Whether the same request would be let in now. When that can't be known the stream ends; the reader comes again.
    async fn may_read(&mut self) -> bool {
        InProject::<Viewer>::from_request_parts(&mut self.request, &self.state).await.is_ok()
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        match full {
            Full::OfUser { bound } => {
                let message = format!("You have {bound} live streams open already; close one first.");
                Self::too_many(message, RETRY_AFTER_S)
            }
            Full::All => {
                Self::unavailable("too_many_streams", "Too many live streams are open.", RETRY_AFTER_S)
            }
        }
    }
}

fn named(name: &str, id: String) -> Event {
    Event::default().event(name).json_data(ChangeEvent { id }).unwrap_or_default()
}
