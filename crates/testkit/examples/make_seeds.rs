//! Writes the seeds of `fuzz/seeds` again: `cargo run -p testkit --features fuzz --example make_seeds -- fuzz/seeds`.
//! Inputs that fuzzing found are committed beside them under names that begin with `found-`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testkit::fuzz::{LATER, ids};
use testkit::tuf::{Sim, key, sign};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("name a folder")?;
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {name}"))
    };
    let mut sim = Sim::new();
    sim.hashes = vec!["sha256", "sha512"];
    sim.delegate("targets", "team", &key(40), &["dir/*"]);
    sim.add_target("targets", "file", b"content");
    sim.next_root(|sim| sim.add_key("timestamp", key(41)));
    sim.publish();
    let mut bins = Sim::new();
    bins.delegate_bins(3, "bin", &key(40));
    let roles = [
        ("root", &sim.root),
        ("timestamp", &sim.timestamp),
        ("snapshot", &sim.snapshot),
        ("targets", &sim.roles["targets"]),
        ("bins", &bins.roles["targets"]),
    ];
    for (name, signed) in roles {
        let role = if name == "bins" { "targets" } else { name };
        put("signed_role", name, &serde_json::to_vec(signed)?)?;
        put("metadata", name, &sign(signed, &sim.signers[role]))?;
    }
    for (name, text) in [
        ("escapes", r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","é":[]}"#),
        ("numbers", "[0,-1,9007199254740993,18446744073709551615,-9223372036854775808]"),
        ("nested", "[[[[[[{\"a\":{\"b\":[null,true,false]}}]]]]]]"),
        ("fraction", "{\"a\":1.5}"),
        ("twice", "{\"a\":1,\"a\":2}"),
    ] {
        put("canonical_json", name, text.as_bytes())?;
    }
    put("manifest", "full", &serde_json::to_vec(&manifest())?)?;
    put("desired", "one_model", &serde_json::to_vec(&desired())?)?;
    put("desired", "signed", &sign(&desired(), &[key(9)]))
}

fn manifest() -> Value {
    let blob = |n: u8| json!({"digest": format!("{n:02x}").repeat(32), "size_bytes": 10, "media_type": "application/onnx"});
    json!({
        "format": 1, "model": "digits", "version": "1.1.0", "counter": 3, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "hardware": {"arch": ["x86_64", "aarch64"]},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        "pre": [{"kind": "scale", "factor": 0.0625}], "post": [{"kind": "softmax"}],
        "variants": [{"name": "int8", "precision": "int8", "model": blob(2), "peak_memory_bytes": 1000,
            "accuracy": 0.95, "hardware": {"cpu_features": ["avx2"]}}],
        "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "reference": blob(3), "golden": blob(4), "card": blob(5),
        "monitor": {"type": "image", "input": "image", "height": 8, "width": 8, "channels": 1, "range": [0, 16],
            "layout": "nchw"},
        "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "fallback": [{"version": "1.0.0", "digest": "09".repeat(32), "counter": 1}], "min_counter": 1
    })
}

fn desired() -> Value {
    let (project, device) = ids();
    json!({
        "_type": "desired", "v": 1, "project": project, "device": device, "revision": 5,
        "issued_at": "2026-11-21T00:00:00Z", "expires": trust::format_rfc3339(LATER),
        "models": [{"model": "digits", "mode": "replace",
            "release": {"version": "1.0.0", "digest": "07".repeat(32), "counter": 1}}]
    })
}
