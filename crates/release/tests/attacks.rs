//! The attacks of the threat model on manifests: wrong places, hostile names, wrong hardware, downgrades.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use protocol::message::Hardware;
use protocol::{Counter, Digest, ModelName, ReleaseRef, UnixMillis, Version};
use release::{
    DeviceFacts, Downgrade, DraftManifest, HighWater, Incompatible, Manifest, ManifestError, may_commit,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trust::client::{self, Stored};
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, Limits, Signer, TargetBytes, Verified};

fn manifest_json() -> Value {
    let blob =
        |n: u8| json!({"digest": hex::encode([n; 32]), "size_bytes": 10, "media_type": "application/onnx"});
    json!({
        "format": 1, "model": "digits", "version": "1.1.0", "counter": 3, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "hardware": {"arch": ["x86_64", "aarch64"]},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        "pre": [{"kind": "scale", "factor": 0.0625}], "post": [{"kind": "softmax"}],
        "variants": [
            {"name": "fast", "precision": "int8", "model": blob(1), "peak_memory_bytes": 1000,
             "hardware": {"cpu_features": ["avx512_vnni"]}},
            {"name": "int8", "precision": "int8", "model": blob(2), "peak_memory_bytes": 1000, "accuracy": 0.95}],
        "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "reference": blob(3), "golden": blob(4), "card": blob(5),
        "monitor": {"type": "image", "input": "image", "height": 8, "width": 8, "channels": 1, "range": [0, 16],
                    "layout": "nchw"},
        "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "fallback": [{"version": "1.0.0", "digest": hex::encode([9; 32]), "counter": 1}]
    })
}

fn draft(change: impl FnOnce(&mut Value)) -> Result<DraftManifest, ManifestError> {
    let mut json = manifest_json();
    change(&mut json);
    DraftManifest::parse_unsigned(&serde_json::to_vec(&json).unwrap())
}

fn device(hardware: &Hardware) -> DeviceFacts<'_> {
    DeviceFacts { hardware, agent_version: "0.1.0".parse().unwrap(), tract: "0.23.9" }
}

fn hardware() -> Hardware {
    Hardware {
        arch: "x86_64".into(),
        class: "pc".into(),
        cpu_features: vec!["avx2".into()],
        cpus: 2,
        memory_bytes: 1 << 30,
    }
}

/// Signs bytes as a target at a path and takes them through the whole client workflow.
fn verified(path: &str, bytes: &[u8]) -> Verified<TargetBytes> {
    let key = Ed25519Signer::from_seed(&[1; 32]);
    let signers: [&dyn Signer; 1] = [&key];
    let until = UnixMillis(i64::from(u32::MAX) * 1000);
    let publics = [key.public_key()];
    let root = ["root", "targets", "snapshot", "timestamp"]
        .iter()
        .fold(RootBuilder::new(until), |root, role| root.role(role, &publics, 1))
        .sign(&signers)
        .unwrap();
    let targets = TargetsBuilder::new(until).target(path, bytes, None).sign(&signers).unwrap();
    let snapshot = trust::repo::snapshot(1, until, [("targets", targets.as_slice())], &signers).unwrap();
    let timestamp = trust::repo::timestamp(1, until, &snapshot, UnixMillis(0), &signers).unwrap();
    let fetch = |name: &str| match name {
        "timestamp.json" => Some(timestamp.clone()),
        "1.snapshot.json" => Some(snapshot.clone()),
        "1.targets.json" => Some(targets.clone()),
        _ => None,
    };
    let view =
        client::run(&mut Stored::new(root), &[path], UnixMillis(0), &Limits::default(), fetch).unwrap();
    view.find_target(path).unwrap().verify(bytes.to_vec()).unwrap()
}

#[test]
fn verified_target_becomes_a_manifest_and_composing_it_again_gives_the_same() {
    let draft = draft(|_| {}).unwrap();
    let manifest = Manifest::parse(&verified("models/digits/1.1.0/manifest.json", draft.bytes())).unwrap();
    assert_eq!(*manifest, *draft);
    assert_eq!(*DraftManifest::compose(&manifest).unwrap(), *draft);
    assert_eq!(Manifest::reopen(draft.bytes(), draft.digest()).unwrap(), *manifest);
    assert!(matches!(Manifest::reopen(b"{}", draft.digest()), Err(ManifestError::Digest { .. })));
}

#[test]
fn a9_manifest_signed_for_another_model_or_version_is_refused() {
    let draft = draft(|_| {}).unwrap();
    for path in ["models/other/1.1.0/manifest.json", "models/digits/1.0.0/manifest.json", "manifest.json"] {
        let result = Manifest::parse(&verified(path, draft.bytes()));
        assert!(matches!(result, Err(ManifestError::WrongPlace { .. })), "{path}");
    }
}

#[test]
fn a9_release_for_other_hardware_agent_or_runtime_is_refused() {
    let manifest = draft(|_| {}).unwrap();
    let pc = hardware();
    assert_eq!(manifest.select_variant(&device(&pc)).unwrap().name, "int8");
    let vnni = Hardware { cpu_features: vec!["avx512_vnni".into()], ..hardware() };
    assert_eq!(manifest.select_variant(&device(&vnni)).unwrap().name, "fast");
    let riscv = Hardware { arch: "riscv64".into(), ..hardware() };
    assert!(matches!(manifest.select_variant(&device(&riscv)), Err(Incompatible::Hardware(_))));
    let tiny = Hardware { memory_bytes: 10, ..hardware() };
    assert!(matches!(manifest.select_variant(&device(&tiny)), Err(Incompatible::NoVariant(_))));
    let facts = DeviceFacts { tract: "0.231.0", ..device(&pc) };
    assert!(matches!(manifest.select_variant(&facts), Err(Incompatible::Runtime { .. })));
    let newer = draft(|m| m["min_agent_version"] = json!("0.2.0")).unwrap();
    assert!(matches!(newer.select_variant(&device(&pc)), Err(Incompatible::Agent { .. })));
}

#[test]
fn a_variant_trained_for_int8_stands_beside_one_quantized_afterwards() {
    let manifest = draft(|m| {
        let mut trained = m["variants"][1].clone();
        trained["name"] = json!("int8-qat");
        trained["accuracy"] = json!(0.97);
        m["variants"].as_array_mut().unwrap().insert(1, trained);
    });
    let manifest = manifest.unwrap();
    let chosen = manifest.select_variant(&device(&hardware())).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.accuracy), ("int8-qat", Some(0.97)));
}

#[test]
fn a8_hostile_names_and_values_break_a_named_bound() {
    let cases: [(&str, Value); 35] = [
        ("/model", json!("../etc")),
        ("/version", json!("../1")),
        ("/variants/0/name", json!("../int8")),
        ("/variants/0/name", json!("int8")),
        ("/variants/0/peak_memory_bytes", json!(0)),
        ("/variants/1/accuracy", json!(1.5)),
        ("/variants/0/model/digest", json!("zz")),
        ("/variants/0/model/size_bytes", json!(u64::MAX)),
        ("/variants", json!([])),
        ("/counter", json!(0)),
        ("/counter", json!(-1)),
        ("/counter", json!((1_u64 << 53) + 1)),
        ("/min_counter", json!(4)),
        ("/inputs/0/shape", json!([1, -1])),
        ("/inputs/0/shape", json!([i64::MAX, i64::MAX])),
        ("/inputs/0/datatype", json!("FP8")),
        ("/labels/0", json!("a\u{0}b")),
        ("/labels/0", json!("1")),
        ("/labels", json!(["0", "1", "2", "3", "4", "5", "6", "7", "8"])),
        ("/outputs/0/shape", json!([-1, 11])),
        ("/pre/0/factor", json!("1")),
        ("/pre", json!([{"kind": "standardise", "mean": [0.0], "std": [0.0]}])),
        ("/pre", json!([{"kind": "shell", "run": "rm"}])),
        ("/post", json!([{"kind": "top_k", "k": 0}])),
        ("/monitor/input", json!("other")),
        ("/monitor/channels", json!(2)),
        ("/monitor/channels", json!(3)),
        ("/monitor/height", json!(16)),
        ("/monitor/width", json!(16)),
        ("/monitor/layout", json!("nhwc")),
        ("/monitor", json!({"type": "tabular", "input": "image", "columns": ["a"]})),
        ("/probation/max_error_percent", json!(101.0)),
        ("/fallback/0/counter", json!(3)),
        ("/created", json!("yesterday")),
        ("/format", json!(2)),
    ];
    for (pointer, value) in cases {
        let result = draft(|m| {
            let parent = pointer.rsplit_once('/').unwrap();
            m.pointer_mut(parent.0).unwrap();
            match m.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => m.as_object_mut().unwrap().extend([(parent.1.to_owned(), value.clone())]),
            }
        });
        assert!(result.is_err(), "{pointer} = {value} was accepted");
    }
}

#[test]
fn d6_hostile_manifest_text_is_refused() {
    let deep = [vec![b'['; 5000], vec![b']'; 5000]].concat();
    let long = vec![b' '; 1_000_001];
    for bad in [&b"{\"format\":1,\"format\":1}"[..], b"", b"\xff", &deep, &long] {
        assert!(DraftManifest::parse_unsigned(bad).is_err());
    }
}

#[test]
fn m2_desired_must_agree_with_the_manifest() {
    let draft = draft(|_| {}).unwrap();
    let release = draft.release_ref();
    let model = draft.model.clone();
    draft.agrees_with(&model, &release, draft.digest()).unwrap();
    let others = [
        ReleaseRef { counter: Counter(4), ..release.clone() },
        ReleaseRef { version: Version::new("1.1.1").unwrap(), ..release.clone() },
        ReleaseRef { digest: Digest::from_bytes([0; 32]), ..release.clone() },
    ];
    for other in others {
        assert!(draft.agrees_with(&model, &other, draft.digest()).is_err());
    }
    assert!(draft.agrees_with(&ModelName::new("other").unwrap(), &release, draft.digest()).is_err());
}

#[test]
fn r3_old_release_offered_again_is_refused() {
    let newer = draft(|_| {}).unwrap();
    let old = draft(|m| {
        m["counter"] = json!(2);
        m["fallback"] = json!([]);
    })
    .unwrap();
    let committed = Some((newer.digest(), newer.counter));
    let result = may_commit(committed, Some(&newer), (old.digest(), &old), Counter(0));
    assert!(matches!(result, Err(Downgrade::NotPermitted { .. })));
    may_commit(None, None, (old.digest(), &old), Counter(0)).unwrap();
    may_commit(committed, Some(&newer), (newer.digest(), &newer), Counter(0)).unwrap();
    let twin = draft(|m| m["labels"][0] = json!("zero")).unwrap();
    let result = may_commit(committed, Some(&newer), (twin.digest(), &twin), Counter(0));
    assert!(matches!(result, Err(Downgrade::SameCounter { .. })));
}

#[test]
fn contradictions_are_told_by_key_and_a_stored_release_serves_on() {
    let said = |change: fn(&mut Value)| draft(change).unwrap_err().to_string();
    let nine = said(|m| m["labels"] = json!((0..9).map(|n| n.to_string()).collect::<Vec<_>>()));
    assert_eq!(nine, "labels must be 10 names, one for each score of output \"scores\", or none, got 9");
    let twice = said(|m| m["labels"][3] = json!("4"));
    assert_eq!(twice, "labels must be without duplicates, got \"4\" twice");
    let high = said(|m| m["monitor"]["height"] = json!(16));
    assert_eq!(high, "monitor.height must be 8 as in shape [-1, 1, 8, 8] of input \"image\", got 16");
    let columns = said(|m| {
        m["inputs"][0]["shape"] = json!([-1, 3]);
        m["monitor"] = json!({"type": "tabular", "input": "image", "columns": ["a", "b"]});
    });
    assert_eq!(columns, "monitor.columns must be 3 names, one for each column of input \"image\", got 2");
    draft(|m| m["labels"] = json!([])).unwrap();
    draft(|m| m["outputs"][0]["shape"] = json!([-1, 84, 8400])).unwrap();
    // Staged before there was such a rule.
    let mut old = manifest_json();
    old["labels"] = json!(["0", "1"]);
    let old = serde_json::to_vec(&old).unwrap();
    let digest = Digest::from_bytes(Sha256::digest(&old).into());
    assert_eq!(Manifest::reopen(&old, digest).unwrap().labels.len(), 2);
    assert!(DraftManifest::parse_unsigned(&old).is_err());
}

#[test]
fn r5_only_pairs_named_in_the_signed_manifest_are_fallbacks() {
    let old = draft(|m| {
        m["counter"] = json!(1);
        m["fallback"] = json!([]);
    })
    .unwrap();
    let name = |counter: u64| {
        let digest = old.digest().to_hex();
        draft(move |m| m["fallback"] = json!([{"version": "1.0.0", "digest": digest, "counter": counter}]))
            .unwrap()
    };
    let (right, wrong) = (name(1), name(2));
    may_commit(Some((right.digest(), Counter(3))), Some(&right), (old.digest(), &old), Counter(0)).unwrap();
    assert!(
        may_commit(Some((wrong.digest(), Counter(3))), Some(&wrong), (old.digest(), &old), Counter(0))
            .is_err()
    );
    assert!(may_commit(Some((right.digest(), Counter(3))), None, (old.digest(), &old), Counter(0)).is_err());
    assert!(
        may_commit(Some((right.digest(), Counter(5))), Some(&right), (old.digest(), &old), Counter(0))
            .is_err(),
        "a manifest that is not the committed one permits nothing"
    );
}

#[test]
fn fence_holds_for_ever_even_against_a_named_fallback() {
    let old = draft(|m| {
        m["counter"] = json!(1);
        m["fallback"] = json!([]);
    })
    .unwrap();
    let fence = draft(|m| {
        m["min_counter"] = json!(2);
        m["fallback"] = json!([]);
    })
    .unwrap();
    let mark = HighWater::after_commit(None, fence.digest(), &fence);
    assert!(matches!(mark.permits(old.digest(), old.counter), Err(Downgrade::Fenced { .. })));
    let later = draft(|m| {
        m["counter"] = json!(4);
        m["fallback"] = json!([{"version": "1.0.0", "digest": old.digest(), "counter": 1}]);
    })
    .unwrap();
    let mark = HighWater::after_commit(Some(&mark), later.digest(), &later);
    assert!(matches!(mark.permits(old.digest(), old.counter), Err(Downgrade::Fenced { .. })));
}

#[test]
fn r4_committing_a_fallback_leaves_the_high_water_mark() {
    let newer = draft(|_| {}).unwrap();
    let mark = HighWater::after_commit(None, newer.digest(), &newer);
    let old = draft(|m| {
        m["counter"] = json!(1);
        m["fallback"] = json!([]);
    })
    .unwrap();
    let after = HighWater::after_commit(Some(&mark), old.digest(), &old);
    assert_eq!(after, mark);
    after.permits(newer.digest(), newer.counter).unwrap();
    assert!(after.permits(Digest::from_bytes([8; 32]), Counter(2)).is_err());
    let stored = serde_json::to_vec(&after).unwrap();
    assert_eq!(serde_json::from_slice::<HighWater>(&stored).unwrap(), mark);
}
