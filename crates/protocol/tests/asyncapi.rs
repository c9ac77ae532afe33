//! Holds `docs/PROTOCOL.yaml` against the types: every field and every variant stands in both, and no other.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use protocol::ids::{Counter, Digest, ModelName, ReleaseRef, Revision, RolloutId, StreamId, Version};
use protocol::measurement::{Fallback, Figures, Measurement, Outcome};
use protocol::message::*;
use protocol::report::SignedReport;
use protocol::telemetry::{Batch, Kind, Record};
use protocol::topic::Channel;
use protocol::{UnixMillis, WIRE_VERSION, encode_json};
use serde_json::{Value, json};

fn page() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PROTOCOL.yaml");
    yaml_serde::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Fails when `value` and the schema named `name` differ in a field, at any depth.
fn hold(page: &Value, name: &str, value: &Value) {
    compare(page, name, &page["components"]["schemas"][name], value);
}

fn compare(page: &Value, place: &str, schema: &Value, value: &Value) {
    assert!(schema.is_object(), "{place} is not on the page");
    if let Some(reference) = schema["$ref"].as_str() {
        return hold(page, reference.rsplit('/').next().unwrap(), value);
    }
    match value {
        Value::Object(fields) if schema["additionalProperties"].is_null() => {
            let properties =
                schema["properties"].as_object().unwrap_or_else(|| panic!("{place}: no properties"));
            let on_page: BTreeSet<_> = properties.keys().collect();
            let in_code: BTreeSet<_> = fields.keys().collect();
            assert_eq!(on_page, in_code, "fields of {place}: page and code differ");
            for (key, field) in fields {
                compare(page, &format!("{place}.{key}"), &properties[key], field);
            }
        }
        Value::Array(items) if schema["type"] == "array" => {
            for item in items {
                compare(page, place, &schema["items"], item);
            }
        }
        Value::String(text) if schema["enum"].is_array() => {
            assert!(
                schema["enum"].as_array().unwrap().iter().any(|known| known == text),
                "{place}: {text} is not on the page"
            );
        }
        Value::String(_) => assert_eq!(schema["type"], "string", "{place}"),
        Value::Number(_) => assert_eq!(schema["type"], "integer", "{place}"),
        Value::Bool(_) => assert_eq!(schema["type"], "boolean", "{place}"),
        Value::Object(_) | Value::Array(_) => {}
        Value::Null => panic!("{place}: samples fill every field"),
    }
}

/// Fails when the page's list of words isn't exactly these values.
fn hold_words<T: serde::Serialize>(page: &Value, name: &str, all: &[T]) {
    let in_code: Vec<Value> = all.iter().map(|value| serde_json::to_value(value).unwrap()).collect();
    assert_eq!(page["components"]["schemas"][name]["enum"], Value::Array(in_code), "words of {name}");
}

fn release() -> ReleaseRef {
    ReleaseRef {
        version: Version::new("1.0.0").unwrap(),
        digest: Digest::from_bytes([1; 32]),
        counter: Counter(1),
    }
}

fn spool() -> SpoolState {
    let loss = Loss { kind: Kind::Pane, cause: LossCause::Full, count: 1 };
    SpoolState { stream: StreamId::new("s").unwrap(), depth_records: 1, depth_bytes: 1, dropped: vec![loss] }
}

fn hello() -> Hello {
    let model = ModelState {
        model: ModelName::new("digits").unwrap(),
        active: Some(release()),
        candidate: Some(release()),
        fallback: Some(release()),
        phase: TaskPhase::Idle,
        absent: Some("cannot load".into()),
    };
    Hello {
        at: UnixMillis(1),
        agent_version: "0.1.0".into(),
        target: "x".into(),
        boot_id: "b".into(),
        uptime_s: 1,
        clock: Clock { floor: UnixMillis(1), is_plausible: true },
        hardware: Hardware {
            arch: "x86_64".into(),
            class: "box".into(),
            cpu_features: vec!["avx2".into()],
            cpus: 1,
            memory_bytes: 1,
        },
        labels: [("site".into(), "a".into())].into(),
        desired_revision: Revision(1),
        models: vec![model],
        spool: spool(),
        metadata: Some(MetadataState { timestamp_version: 1, expires: UnixMillis(1), age_s: 1 }),
        problems: vec!["p".into()],
    }
}

fn task_report() -> TaskReport {
    TaskReport {
        at: UnixMillis(1),
        rollout: Some(RolloutId::new("r").unwrap()),
        revision: Revision(1),
        attempt: Some(1),
        model: ModelName::new("digits").unwrap(),
        release: release(),
        phase: TaskPhase::Failed,
        cause: Some(Cause { kind: CauseKind::Load, detail: "d".into() }),
        progress: Some(Progress { done_bytes: 1, total_bytes: 1 }),
        self_test: Some(SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 }),
    }
}

#[test]
fn every_message_has_the_fields_of_the_page() {
    let page = page();
    let sample = |value: Value, name: &str| hold(&page, name, &value);
    sample(serde_json::to_value(hello()).unwrap(), "Hello");
    sample(serde_json::to_value(task_report()).unwrap(), "TaskReport");
    sample(serde_json::to_value(SignedReport::new(1, b"x", b"y")).unwrap(), "SignedReport");
    sample(json!(Ack { stream: StreamId::new("s").unwrap(), upto_seq: 1, ahead: vec![(3, 4)] }), "Ack");
    sample(json!(Status { is_online: true, boot_id: "b".into() }), "Status");
    let action = CommandAction::Refresh;
    sample(json!(Command { id: "c".into(), at: UnixMillis(1), action }), "Command");
    let record = Record { seq: 1, kind: Kind::Pane, at: UnixMillis(1), body: vec![1].into() };
    let batch = Batch {
        v: WIRE_VERSION,
        stream: StreamId::new("s").unwrap(),
        floor_seq: 1,
        from_seq: 1,
        records: vec![record],
        dropped: spool().dropped,
    };
    sample(serde_json::to_value(batch).unwrap(), "Batch");
    let outcome = Outcome::Failed(Cause { kind: CauseKind::Load, detail: "d".into() });
    sample(serde_json::to_value(measurement(outcome)).unwrap(), "Measurement");
    let fallback = Fallback { node: "n".into(), op: "Gather".into(), why: "w".into() };
    let figures = Figures {
        kernels: Some("avx2".into()),
        why_all_tract: Some("w".into()),
        fallbacks: vec![fallback],
        ..Figures::default()
    };
    sample(serde_json::to_value(figures).unwrap(), "Figures");
}

fn measurement(outcome: Outcome) -> Measurement {
    Measurement {
        command_id: "c".into(),
        model: ModelName::new("digits").unwrap(),
        release: release(),
        variant: "int8".into(),
        agent_version: "0.1.0".into(),
        outcome,
    }
}

#[test]
fn every_word_stands_on_the_page() {
    use CauseKind as C;
    use TaskPhase as P;
    let page = page();
    hold_words(&page, "Kind", &Kind::ALL);
    hold_words(
        &page,
        "LossCause",
        &[LossCause::Full, LossCause::Expired, LossCause::TooLarge, LossCause::Storage],
    );
    let phases = [
        P::Idle,
        P::Accepted,
        P::Fetching,
        P::Verified,
        P::Staged,
        P::SelfTest,
        P::Shadow,
        P::Activating,
        P::Probation,
        P::Committed,
        P::RolledBack,
        P::Failed,
        P::Rejected,
    ];
    hold_words(&page, "TaskPhase", &phases);
    let causes = [
        C::Untrusted,
        C::MetadataExpired,
        C::Downgrade,
        C::DesiredMismatch,
        C::Incompatible,
        C::Download,
        C::Integrity,
        C::DiskFull,
        C::Storage,
        C::Load,
        C::GoldenMismatch,
        C::TooSlow,
        C::TooBig,
        C::ProbationErrors,
        C::ProbationLatency,
        C::CrashLoop,
        C::Timeout,
        C::Superseded,
        C::Internal,
    ];
    hold_words(&page, "CauseKind", &causes);
}

#[test]
fn every_channel_stands_on_the_page_by_its_topic() {
    let page = page();
    let channels = page["channels"].as_object().unwrap();
    let on_page: BTreeSet<&str> =
        channels.values().map(|channel| channel["address"].as_str().unwrap()).collect();
    let in_code = Channel::ALL.map(|channel| format!("fleet/v1/{{project}}/{{device}}/{}", channel.path()));
    assert_eq!(on_page, in_code.iter().map(String::as_str).collect());
}

#[test]
fn a_control_message_carries_the_wire_version() {
    let bytes = encode_json(&Status { is_online: true, boot_id: "b".into() });
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["v"], WIRE_VERSION);
}
