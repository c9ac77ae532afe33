//! The agent's parts around the local API, as they ship, with releases of digits on the shelf: what the figures of
//! serving are measured on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use flotilla_agent::config::RawConfig;
use flotilla_agent::health::Pulse;
use flotilla_agent::machine::Held;
use flotilla_agent::monitor::{Capture, Monitor, Shadow};
use flotilla_agent::serve::{Api, Listening};
use flotilla_agent::slots::{self, Loaded, Shelf, Table};
use flotilla_agent::store::Samples;
use protocol::{ModelName, UnixMillis};
use release::{BlobRef, DraftManifest};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The model that serves.
pub(super) const MODEL: &str = "digits";
const VARIANT: &str = "int8";
/// The releases on the shelf.
pub(super) const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// A device in this process; it ends when this is dropped.
pub(super) struct Device {
    /// Where the local API listens on TCP.
    pub(super) address: SocketAddr,
    /// Where it listens on a unix socket.
    pub(super) unix: PathBuf,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    shelf: Shelf,
    table: Table,
    monitor: Arc<Monitor>,
    held: BTreeMap<&'static str, Held>,
}

impl Device {
    /// Puts the releases of `example` on a shelf in `folder` and serves; nothing is loaded yet.
    pub(super) fn start(folder: &Path, example: &Path) -> Result<Self> {
        let unix = folder.join("api.sock");
        let flags = ["serve.listen=127.0.0.1:0".to_owned(), format!("serve.unix={}", unix.display())];
        let config = RawConfig::default().with_flags(flags.iter().map(String::as_str)).check()?;
        // As many workers as the agent starts.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let shelf = Shelf::open(folder)?;
        let held = VERSIONS
            .into_iter()
            .map(|version| Ok((version, keep(&shelf, example, version)?)))
            .collect::<Result<_>>()?;
        let table = Table::default();
        let shadow = Shadow::new(table.clone(), config.update.shadow_cpu_percent);
        let samples = Samples::open(folder, &config.spool, UnixMillis(0));
        let capture = Arc::new(Capture::new(config.capture.clone(), samples, 1));
        let monitor = Arc::new(Monitor::new(&config.monitor, 1, shadow, capture, Box::new(|_, _| {})));
        let status = Arc::new(|| json!({}));
        let now = Arc::new(|| UnixMillis(1_800_000_000_000));
        let api = Api::new(&config.serve, table.clone(), monitor.clone(), 1, now, status);
        let listening = runtime.block_on(Listening::open(&config.serve))?;
        let address = listening.address().context("the local API listens on TCP")?;
        let stop = CancellationToken::new();
        runtime.spawn(listening.start(api, Pulse::default(), stop.clone())?);
        Ok(Self { address, unix, runtime, stop, shelf, table, monitor, held })
    }

    /// The local API's address.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Reads, verifies and loads a release beside the one that answers, then lets it answer.
    pub(super) fn swap(&self, version: &str) -> Result<()> {
        let held = self.held.get(version).context("a release of the shelf")?.clone();
        let (shelf, model) = (self.shelf.clone(), ModelName::new(MODEL)?);
        let loading = self.runtime.spawn_blocking(move || slots::load(&shelf, &model, &held));
        let loaded = Arc::new(self.runtime.block_on(loading)??);
        self.monitor.activated(&loaded.model, loaded.release.digest);
        self.table.swap(loaded);
        Ok(())
    }

    /// The release that answers.
    pub(super) fn serving(&self) -> Result<Arc<Loaded>> {
        self.table.active(&ModelName::new(MODEL)?).context("a release answers")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Puts a version of the example on the shelf.
fn keep(shelf: &Shelf, example: &Path, version: &str) -> Result<Held> {
    let names = ["int8.onnx", "reference.json", "golden.json", "card.md"];
    let mut blobs = Vec::new();
    for name in names {
        let path = example.join(version).join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let blob = BlobRef::of(&bytes, "application/octet-stream");
        std::fs::write(shelf.part(&blob), bytes)?;
        shelf.keep_blob(&blob)?;
        blobs.push(blob);
    }
    let manifest = json!({
        "format": 1, "model": MODEL, "version": version, "counter": 1, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        "pre": [{"kind": "scale", "factor": 0.0625}], "post": [{"kind": "softmax"}],
        "variants": [{"name": VARIANT, "precision": "int8", "model": blobs[0], "peak_memory_bytes": 1_000_000}],
        "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "reference": blobs[1], "golden": blobs[2], "card": blobs[3],
        "monitor": {"type": "image", "input": "image", "height": 8, "width": 8, "channels": 1, "range": [0, 16],
                    "layout": "nchw"},
        "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
    });
    let manifest = DraftManifest::parse_unsigned(&serde_json::to_vec(&manifest)?)?;
    shelf.keep_manifest(manifest.digest(), manifest.bytes())?;
    Ok(Held { release: manifest.release_ref(), variant: VARIANT.into() })
}
