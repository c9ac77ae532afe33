//! `docs/openapi.json` is what the handlers say. To renew it: `cargo run -p flotilla-server -- openapi > docs/openapi.json`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;

use rollout::{Amount, Gate, Limit, Metric, Plan, StagePlan};
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(&flotilla_server::api::openapi_json()).unwrap()
}

/// The fields that a schema names.
fn described(document: &Value, schema: &str) -> BTreeSet<String> {
    let found = document["components"]["schemas"][schema]["properties"].as_object();
    found.unwrap_or_else(|| panic!("{schema} has no fields")).keys().cloned().collect()
}

/// The fields that are written when everything is set.
fn written(of: &impl serde::Serialize) -> BTreeSet<String> {
    serde_json::to_value(of).unwrap().as_object().unwrap().keys().cloned().collect()
}

fn gate() -> Gate {
    Gate {
        metric: Metric::InstallFailures,
        kind: Some(protocol::message::CauseKind::Download),
        slice: Some("night".into()),
        limit: Limit::Tasks { at_most: Amount::Count(1) },
        min_sample: 1,
        min_control_sample: 1,
    }
}

fn stage() -> StagePlan {
    let on_failure = Some(rollout::OnFailure::Abort);
    StagePlan {
        name: Some("first".into()),
        gates: Some(vec![gate()]),
        on_failure,
        ..StagePlan::of(Amount::Count(1))
    }
}

fn plan() -> Plan {
    let release = protocol::ReleaseRef {
        version: protocol::Version::new("1.0.0").unwrap(),
        digest: protocol::Digest::from_bytes([1; 32]),
        counter: protocol::Counter(1),
    };
    let rate = rollout::Rate { per_minute: 1, growth: None, max_in_flight: None };
    let window = rollout::Window { days: [true; 7], start_minute: 0, length_minutes: 60 };
    Plan {
        seed: Some("s".into()),
        failure_budget: Some(Amount::Count(1)),
        unreachable_budget: Some(Amount::Count(1)),
        rate: Some(rate),
        window: Some(window),
        start_at: Some(protocol::UnixMillis(1)),
        ..Plan::new(protocol::ModelName::new("digits").unwrap(), release, vec![stage()])
    }
}

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

#[test]
fn plans_stages_and_gates_are_described_field_by_field() {
    let document = document();
    let plan = written(&plan());
    assert_eq!(described(&document, "RolloutPlan"), plan);
    assert_eq!(described(&document, "StagePlan"), written(&stage()));
    assert_eq!(described(&document, "Gate"), written(&gate()));
    let said_elsewhere = ["model", "release", "fallbacks", "stages"];
    let options = plan.into_iter().filter(|name| !said_elsewhere.contains(&name.as_str())).collect();
    assert_eq!(described(&document, "PlanOptions"), options);
    let used =
        |schema: &str, field: &str| document["components"]["schemas"][schema]["properties"][field].clone();
    let reference = |name: &str| json!(format!("#/components/schemas/{name}"));
    assert_eq!(used("RolloutGate", "gate")["$ref"], reference("Gate"));
    let new = document["components"]["schemas"]["NewRollout"].to_string();
    assert!(new.contains(&reference("PlanOptions").to_string()), "{new}");
    let detail = document["components"]["schemas"]["RolloutDetail"].to_string();
    assert!(detail.contains(&reference("RolloutPlan").to_string()), "{detail}");
}

#[test]
fn the_page_on_rollouts_names_every_field_and_metric() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ROLLOUTS.md");
    let page = std::fs::read_to_string(page).unwrap();
    let document = document();
    let mut names: BTreeSet<String> = described(&document, "PlanOptions");
    names.extend(described(&document, "StagePlan"));
    names.extend(described(&document, "Gate"));
    for choices in ["GateMetric", "JudgedBy", "OnFailure"] {
        let values = document["components"]["schemas"][choices].to_string();
        let words = values.split('"').filter(|word| word.contains('_') && !word.contains(' '));
        names.extend(words.map(ToOwned::to_owned));
    }
    names.remove("additional_properties");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/ROLLOUTS.md doesn't name {name}");
    }
}

#[test]
fn every_operation_says_how_it_refuses() {
    let document = document();
    let mut public = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(_, o)| o["operationId"].is_string())
        {
            let answers = operation["responses"].as_object().unwrap();
            let is_public = operation.get("security").is_some();
            let needed: &[&str] = if is_public { &["400"] } else { &["400", "401", "403"] };
            for status in needed {
                let body =
                    &answers.get(*status).unwrap_or(&Value::Null)["content"]["application/json"]["schema"];
                assert_eq!(body["$ref"], "#/components/schemas/ErrorBody", "{method} {path} {status}");
            }
            public.extend(is_public.then(|| operation["operationId"].as_str().unwrap()));
        }
    }
    assert_eq!(public, ["signIn"], "what needs no sign-in says so, and nothing else");
}
