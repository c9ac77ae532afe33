//! `docs/openapi.json` is what the handlers say. To renew it: `cargo run -p flotilla-server -- openapi > docs/openapi.json`.

use std::path::Path;

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == flotilla_server::api::openapi_json(),
        "docs/openapi.json is stale; run: cargo run -p flotilla-server -- openapi > docs/openapi.json"
    );
}

#[test]
fn operations_have_unique_ids() {
    let document: serde_json::Value = serde_json::from_str(&flotilla_server::api::openapi_json()).unwrap();
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(id) = operation["operationId"].as_str() {
                ids.push(id.to_owned());
            } else if method != "parameters" {
                panic!("{method} {path} has no operationId");
            }
        }
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an operationId stands twice");
}
