//! For tests of this room: the digits example on a shelf, and a core in a folder of its own with nobody at the other
//! end of its links.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{Counter, ModelName, ProjectId, ReleaseRef, Revision};
use release::{BlobRef, DraftManifest, HighWater};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trust::desired::Mode;

use super::metadata::TrustedStore;
use super::{Core, CoreParts, Driver, Jobs, Observer, Reported, Steps};
use crate::config::RawConfig;
use crate::health::{Clock, Footprint, ProblemKind, Pulse, read_hardware};
use crate::link::http::Http;
use crate::machine::{Held, Phase, Record, Task};
use crate::monitor::Vitals;
use crate::slots::{self, BootStore, Loaded, Shelf, Table};
use crate::trusted_files::trusted_dir;

/// What the manifest allows its variants.
pub(super) const INT8_BYTES: u64 = 4_000_000;
pub(super) const F32_BYTES: u64 = 9_000_000;

/// A release of the digits example.
pub(super) struct Made {
    /// Its int8 variant.
    pub(super) held: Held,
    pub(super) blobs: Vec<(BlobRef, Vec<u8>)>,
    pub(super) manifest: Vec<u8>,
    parts: Value,
}

impl Made {
    pub(super) fn example(version: &str, counter: u64) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits")).join(version);
        let mut blobs = Vec::new();
        let mut blob = |name: &str| {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            let blob = BlobRef::of(&bytes, "application/octet-stream");
            blobs.push((blob.clone(), bytes));
            serde_json::to_value(blob).unwrap()
        };
        let variant = |name: &str, model, bytes: u64| json!({ "name": name, "precision": name, "model": model, "peak_memory_bytes": bytes });
        let manifest = json!({
            "format": 1, "model": "digits", "version": version, "counter": counter, "created": "2026-11-21T00:00:00Z",
            "min_agent_version": "0.1.0", "runtime": { "tract": "0.23", "opset": 17 },
            "inputs": [{ "name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8] }],
            "outputs": [{ "name": "scores", "datatype": "FP32", "shape": [-1, 10] }],
            "pre": [{ "kind": "scale", "factor": 0.0625 }], "post": [{ "kind": "softmax" }],
            "variants": [
                variant("int8", blob("int8.onnx"), INT8_BYTES), variant("f32", blob("f32.onnx"), F32_BYTES),
            ],
            "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            "reference": blob("reference.json"), "golden": blob("golden.json"), "card": blob("card.md"),
            "budgets": { "latency_p95_us": 5_000_000, "memory_bytes": 400_000_000 },
            "probation": { "duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000 },
        });
        Self::of(manifest, blobs)
    }

    fn of(parts: Value, blobs: Vec<(BlobRef, Vec<u8>)>) -> Self {
        let manifest = serde_json::to_vec(&parts).unwrap();
        let draft = DraftManifest::parse_unsigned(&manifest).unwrap();
        let release =
            ReleaseRef { version: draft.version.clone(), digest: draft.digest(), counter: draft.counter };
        Self { held: Held { release, variant: "int8".into() }, blobs, manifest, parts }
    }

    /// The same with golden samples that no model answers.
    pub(super) fn with_other_answers(self) -> Self {
        self.with_other("/golden", |bytes| {
            let mut set: Value = serde_json::from_slice(bytes).unwrap();
            for sample in set["samples"].as_array_mut().unwrap() {
                sample["outputs"][0]["data"] = json!(vec![0.5; 10]);
            }
            serde_json::to_vec(&set).unwrap()
        })
    }

    /// The same with an int8 variant that is no model.
    pub(super) fn with_no_model(self) -> Self {
        self.with_other("/variants/0/model", |_| b"no model".to_vec())
    }

    /// The same, where f32 is preferred and held.
    pub(super) fn with_f32_first(mut self) -> Self {
        self.parts["variants"].as_array_mut().unwrap().reverse();
        Self::of(self.parts, self.blobs).into_f32()
    }

    /// The same, held as its f32 variant.
    pub(super) fn into_f32(mut self) -> Self {
        self.held.variant = "f32".into();
        self
    }

    /// The same with other bytes in the blob that the manifest names there.
    fn with_other(mut self, there: &str, bytes: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        let named = self.parts.pointer_mut(there).unwrap();
        let blob: BlobRef = serde_json::from_value(named.clone()).unwrap();
        let place = self.blobs.iter().position(|(other, _)| *other == blob).unwrap();
        let bytes = bytes(&self.blobs[place].1);
        let other = BlobRef::of(&bytes, "application/octet-stream");
        *named = serde_json::to_value(&other).unwrap();
        self.blobs[place] = (other, bytes);
        Self::of(self.parts, self.blobs)
    }

    /// Puts all of it on the shelf, as a fetch leaves it.
    pub(super) fn keep(&self, shelf: &Shelf) {
        for (blob, bytes) in &self.blobs {
            std::fs::write(shelf.part(blob), bytes).unwrap();
            shelf.keep_blob(blob).unwrap();
        }
        self.keep_manifest(shelf);
    }

    pub(super) fn keep_manifest(&self, shelf: &Shelf) {
        shelf.keep_manifest(self.held.release.digest, &self.manifest).unwrap();
    }
}

/// A shelf with the example's first release.
pub(super) fn shelf(folder: &Path) -> (Shelf, Held) {
    let (shelf, made) = (Shelf::open(folder).unwrap(), Made::example("1.0.0", 1));
    made.keep(&shelf);
    (shelf, made.held)
}

/// A core whose shelf holds the example; nothing is loaded.
pub(super) struct Rig {
    pub(super) core: Core,
    /// The example's int8 variant.
    pub(super) held: Held,
    pub(super) folder: TempDir,
}

/// Sees the same whatever serves.
struct Fixed(Vitals);

impl Observer for Fixed {
    fn begin(&self, _: &Loaded) {}

    fn vitals(&self, _: &ModelName) -> Vitals {
        self.0
    }

    fn attention(&self, _: ProblemKind, _: String) {}
}

impl Rig {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, held) = shelf(folder.path());
        Self { core: Self::core(folder.path(), None, Vitals::default()), held, folder }
    }

    /// A core on what lies in `dir`, with this way to a server, that sees this of whatever serves.
    pub(super) fn core(dir: &Path, http: Option<Http>, seen: Vitals) -> Core {
        let clock = Clock::open(dir).unwrap();
        let mut links = crate::link::alone::links(&clock);
        links.http = http.unwrap_or(links.http);
        Core::new(CoreParts {
            state_dir: dir.to_owned(),
            config: RawConfig::default().check().unwrap().update,
            clock,
            shelf: Shelf::open(dir).unwrap(),
            table: Table::default(),
            trusted: TrustedStore::open(dir, ProjectId::new("p").unwrap(), None).unwrap(),
            boot: BootStore::open(dir, &trusted_dir(dir)).unwrap().0,
            links: watch::Sender::new(Arc::new(links)).subscribe(),
            hardware: read_hardware("test"),
            footprint: Footprint::default(),
            observer: Arc::new(Fixed(seen)),
            reports: mpsc::channel(64).0,
            tasks: watch::Sender::default(),
            reported: watch::Sender::default(),
            lasting_problems: Vec::new(),
            load_at: Instant::now(),
            settled_at: Instant::now(),
        })
    }

    /// What is held, under another variant.
    pub(super) fn held_as(&self, variant: &str) -> Held {
        Held { variant: variant.into(), ..self.held.clone() }
    }

    /// To bring in what is held.
    pub(super) fn task(&self, mode: Mode) -> Task {
        Task { release: self.held.release.clone(), mode, rollout: None, attempt: 0, revision: Revision(1) }
    }

    pub(super) fn load(&self, model: &ModelName, held: &Held) -> Arc<Loaded> {
        Arc::new(slots::load(&self.core.shelf, model, held).unwrap())
    }

    /// Writes down that `model` stands so, with what is held active.
    pub(super) fn stands(&mut self, model: &ModelName, phase: Phase) {
        let mut boot = self.core.record().clone();
        let record = Record { phase, active: Some(self.held.clone()), ..Record::default() };
        boot.models.insert(model.clone(), record);
        assert!(self.core.persist(boot));
    }
}

/// What committing `old` has left, where `new` is known already: no signed metadata has to be fetched for it.
pub(super) fn mark(old: &Made, new: &Made) -> HighWater {
    let ReleaseRef { digest, counter, .. } = old.held.release;
    let fallback = vec![(new.held.release.digest, new.held.release.counter)];
    HighWater { digest, counter, fallback, min_counter: Counter(0) }
}

/// Writes down, before an agent starts in `dir`, that `digits` stands so.
pub(super) fn write_record(dir: &Path, record: Record) {
    TrustedStore::open(dir, ProjectId::new("p").unwrap(), None).unwrap();
    let (mut boot, _) = BootStore::open(dir, &trusted_dir(dir)).unwrap();
    let mut all = boot.record().clone();
    all.models.insert(name("digits"), record);
    boot.write(all).unwrap();
}

/// Runs the driver until what it reports says that it is over.
pub(super) async fn drive(core: Core, is_over: impl Fn(&Reported) -> bool + Send + Sync + 'static) -> Core {
    let mut reported = core.reported.subscribe();
    let mut driver = Driver {
        downlink: mpsc::channel(1).1,
        updates: watch::Sender::new(core.config.clone()).subscribe(),
        core,
        commands: Box::new(|_| {}),
        jobs: Jobs::new(Box::new(|_| {}), watch::Sender::default()),
        steps: Steps::default(),
        pulse: Pulse::default(),
    };
    let stop = CancellationToken::new();
    let ended = stop.clone();
    tokio::spawn(async move {
        let _ = reported.wait_for(|reported| is_over(reported)).await;
        ended.cancel();
    });
    driver.run(&stop).await;
    driver.core
}

pub(super) fn name(model: &str) -> ModelName {
    ModelName::new(model).unwrap()
}
