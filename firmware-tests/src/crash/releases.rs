//! Releases that follow from their number alone, so that the checker knows what the worker stored.

use anyhow::Result;
use protocol::message::SelfTestResult;
use release::{BlobRef, DraftManifest};
use serde_json::json;

/// Name of the only variant.
pub(super) const VARIANT: &str = "int8";
const MODEL_BYTES: u64 = 90_000;

/// Release number `n`.
pub(super) struct Release {
    pub(super) manifest: DraftManifest,
    /// Model, reference, golden samples, card.
    contents: [Vec<u8>; 4],
}

impl Release {
    pub(super) fn new(n: u64) -> Result<Self> {
        let model = (0..MODEL_BYTES).map(|at| (at.wrapping_mul(n + 3) >> 3).to_le_bytes()[0]).collect();
        let text = |what: &str| format!("{what} of release {n}").into_bytes();
        let contents = [model, text("reference"), text("golden samples"), text("card")];
        let blob = |number: usize| BlobRef::of(&contents[number], "application/octet-stream");
        let manifest = json!({
            "format": 1, "model": super::work::MODEL, "version": format!("{n}.0.0"), "counter": n,
            "created": "2026-11-21T00:00:00Z", "min_agent_version": "0.1.0",
            "runtime": {"tract": "0.23", "opset": 17},
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
            "variants": [{"name": VARIANT, "precision": "int8", "model": blob(0), "peak_memory_bytes": 1_000_000}],
            "reference": blob(1), "golden": blob(2), "card": blob(3),
            "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
            "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        });
        let manifest = DraftManifest::parse_unsigned(&serde_json::to_vec(&manifest)?)?;
        Ok(Self { manifest, contents })
    }

    /// Its blobs with their bytes.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (&BlobRef, &Vec<u8>)> {
        self.manifest.all_blobs().zip(&self.contents)
    }
}

pub(super) fn tested() -> SelfTestResult {
    SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 }
}
