//! REST under `/api/v1`: one file per resource; handlers extract, authorise, call domain or store, and map.

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::AppState;

pub mod error;
pub mod extract;

/// Head of the OpenAPI document.
#[derive(Debug, OpenApi)]
#[openapi(info(title = "Flotilla", description = "REST API of flotilla-server.", license(name = "Apache-2.0")))]
struct Document;

fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", OpenApiRouter::new())
}

/// The whole `https` port.
pub fn router(state: AppState) -> Router {
    let (router, _) = api().split_for_parts();
    router.with_state(state)
}

/// The OpenAPI document as committed in `docs/openapi.json`.
pub fn openapi_json() -> String {
    let mut text = api().into_openapi().to_pretty_json().expect("our own document has only string keys");
    text.push('\n');
    text
}
