//! Answers that every operation may give, described in one place: 400, and 401 and 403 where one must be signed in.

use utoipa::Modify;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

/// Adds them to operations that don't describe them themselves.
pub(super) struct CommonAnswers;

const MALFORMED: (&str, &str) = ("400", "Path, query or body can't be read.");
const SIGNED_IN_ONLY: [(&str, &str); 2] = [
    ("401", "Nobody is signed in: no session or API token, or one that has ended."),
    ("403", "The role isn't enough, or the one-time password must be changed first."),
];

impl Modify for CommonAnswers {
    fn modify(&self, document: &mut OpenApi) {
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            // An operation that names no security of its own has the document's.
            let is_public = operation.security.is_some();
            let more = if is_public { &[][..] } else { &SIGNED_IN_ONLY };
            for (status, text) in std::iter::once(&MALFORMED).chain(more) {
                let responses = &mut operation.responses.responses;
                responses.entry((*status).to_owned()).or_insert_with(|| RefOr::T(error(text)));
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all =
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.head, &mut item.patch];
    all.into_iter().flatten()
}

fn error(text: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(text).content("application/json", body).build()
}
