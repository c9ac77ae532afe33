//! One check before every documented route: a query parameter that the route doesn't know is refused by name. A misspelt
//! filter that was passed over would answer with a list that nobody asked for. What is known is what the OpenAPI
//! document says, so that a parameter can't be taken without being described. Tests: `tests/queries.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

use super::error::ApiError;

/// Longest name that is repeated in the refusal.
const MAX_NAME_CHARS: usize = 64;

/// Names of query parameters by method and path template.
#[derive(Debug, Clone)]
pub(super) struct KnownQuery(Arc<HashMap<(Method, String), Vec<String>>>);

impl KnownQuery {
    /// What the document describes.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut known = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                known.insert((method, path.clone()), query_names(operation));
            }
        }
        Self(Arc::new(known))
    }

    /// Refuses the first name that the route doesn't know; a query that can't be read is the route's own to refuse.
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        if request.uri().query().is_none_or(str::is_empty) {
            return Ok(());
        }
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
        let at = |method: &Method| self.0.get(&(method.clone(), path.as_str().to_owned()));
        // HEAD is answered by the handler of GET where it has none of its own.
        let as_get = || (*request.method() == Method::HEAD).then(|| at(&Method::GET)).flatten();
        let Some(known) = at(request.method()).or_else(as_get) else { return Ok(()) };
        let Ok(Query(sent)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Ok(());
        };
        match sent.into_iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(unknown(&name, known)),
            None => Ok(()),
        }
    }
}

/// The layer.
pub(super) async fn refuse_unknown(
    State(known): State<KnownQuery>,
    request: Request,
    next: Next,
) -> Response {
    match known.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::HEAD, &item.head),
        (Method::PATCH, &item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn query_names(operation: &Operation) -> Vec<String> {
    let all = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    all.filter(|p| p.parameter_in == ParameterIn::Query).map(|p| p.name.clone()).collect()
}

fn unknown(name: &str, known: &[String]) -> ApiError {
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    let offered = match known {
        [] => "this path takes none".to_owned(),
        known => format!("this path knows {}", known.join(", ")),
    };
    ApiError::malformed("unknown_parameter", format!("There is no query parameter {name:?}; {offered}."))
        .with("parameter", name)
        .with("known", known.to_vec())
}
