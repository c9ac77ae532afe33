//! The hot swap under load: clients ask without pause over HTTP while releases are read from the shelf, verified,
//! loaded and put in place as the update machine does it. No request may fail, and each answer must be exactly the one
//! of the release that it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flotilla_agent::config::RawConfig;
use flotilla_agent::monitor::{Monitor, Shadow};
use flotilla_agent::serve::{self, Api};
use flotilla_agent::slots::{self, Shelf, Table};
use flotilla_agent::update::machine::Held;
use protocol::{ModelName, UnixMillis};
use release::{BlobRef, DraftManifest};
use serde_json::json;
use testkit::feeder::{Client, Image, read_images};
use tokio_util::sync::CancellationToken;

const MODEL: &str = "digits";
const VARIANT: &str = "int8";
/// The releases that take turns.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// Clients without pause, each on its own connection.
const CLIENTS: usize = 2;
/// Images that are asked in turn.
const IMAGES: usize = 32;
/// Load without swaps, to compare with.
const STEADY: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of examples/digits.
    #[arg(long, default_value = "examples/digits")]
    example: PathBuf,
    /// Folder to work in; cleared first.
    #[arg(long)]
    folder: PathBuf,
    /// Swaps to make.
    #[arg(long, default_value_t = 100)]
    swaps: usize,
}

/// Scores of each image by version.
type Expected = BTreeMap<String, Vec<Vec<f64>>>;

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    let device = Device::start(&folder, &args.example)?;
    let mut images = read_images(&args.example.join("data/held_out.csv"))?;
    images.truncate(IMAGES);
    let images = Arc::new(images);
    let expected = Arc::new(device.expected(&images)?);
    let steady = under_load(&device, &images, &expected, || {
        std::thread::sleep(STEADY);
        Ok(())
    })?;
    let swapping = under_load(&device, &images, &expected, || {
        (0..args.swaps).try_for_each(|turn| device.swap(VERSIONS[turn % VERSIONS.len()]))
    })?;
    println!(
        "{:#}",
        json!({
            "swaps": args.swaps,
            "requests": swapping.micros.len(),
            "failed": steady.failed + swapping.failed,
            "wrong": steady.wrong + swapping.wrong,
            "p99_ms_steady": steady.p99_ms(),
            "p99_ms_during_swap": swapping.p99_ms(),
        })
    );
    ensure!(swapping.failed + steady.failed == 0, "a request failed: {:?}", swapping.why);
    ensure!(swapping.wrong + steady.wrong == 0, "an answer was wrong: {:?}", swapping.why);
    Ok(())
}

/// The agent's parts around the local API, with two releases on the shelf.
struct Device {
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    url: String,
    shelf: Shelf,
    table: Table,
    monitor: Arc<Monitor>,
    held: BTreeMap<&'static str, Held>,
}

impl Device {
    fn start(folder: &Path, example: &Path) -> Result<Self> {
        let flags = ["serve.queue=64"];
        let config = RawConfig::default().with_flags(flags.into_iter()).check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let shelf = Shelf::open(folder)?;
        let held = VERSIONS
            .into_iter()
            .map(|version| Ok((version, keep(&shelf, example, version)?)))
            .collect::<Result<_>>()?;
        let table = Table::default();
        let shadow = Shadow::new(table.clone(), 10);
        let monitor = Arc::new(Monitor::new(&config.monitor, 1, shadow, Box::new(|_, _| {})));
        let status = Arc::new(|| json!({}));
        let now = Arc::new(|| UnixMillis(1_800_000_000_000));
        let api = Api::new(&config.serve, table.clone(), monitor.clone(), 1, now, status);
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        runtime.spawn(serve::run(listener, api, stop.clone()));
        Ok(Self { runtime, stop, url, shelf, table, monitor, held })
    }

    /// Reads, verifies and loads a release beside the one that answers, then lets it answer.
    fn swap(&self, version: &str) -> Result<()> {
        let held = self.held.get(version).context("a release of the shelf")?.clone();
        let (shelf, model) = (self.shelf.clone(), ModelName::new(MODEL)?);
        let loading = self.runtime.spawn_blocking(move || slots::load(&shelf, &model, &held));
        let loaded = Arc::new(self.runtime.block_on(loading)??);
        self.monitor.activated(&loaded.model, loaded.release.digest);
        self.table.swap(loaded);
        Ok(())
    }

    /// What each release answers when nothing else happens.
    fn expected(&self, images: &[Image]) -> Result<Expected> {
        let mut expected = Expected::new();
        let mut client = Client::new(&self.url, MODEL);
        for version in VERSIONS {
            self.swap(version)?;
            let answers =
                images.iter().map(|image| client.infer(&image.pixels)).collect::<Result<Vec<_>>>()?;
            ensure!(
                answers.iter().all(|answer| answer.version == version),
                "another release than {version} answered"
            );
            let right =
                answers.iter().zip(images).filter(|(answer, image)| answer.label == image.label).count();
            ensure!(
                right * 10 >= images.len() * 9,
                "{version} knows only {right} of {} images",
                images.len()
            );
            expected.insert(version.into(), answers.into_iter().map(|answer| answer.scores).collect());
        }
        ensure!(expected[VERSIONS[0]] != expected[VERSIONS[1]], "both releases answer the same");
        Ok(expected)
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

/// What clients saw.
#[derive(Default)]
struct Seen {
    micros: Vec<u128>,
    failed: usize,
    wrong: usize,
    /// The first failure.
    why: Option<String>,
}

impl Seen {
    fn p99_ms(&self) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = sorted.len().saturating_sub(1) * 99 / 100;
        sorted.get(at).map_or(0.0, |micros| *micros as f64 / 1000.0)
    }

    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.why = self.why.take().or(other.why);
    }
}

fn under_load(
    device: &Device,
    images: &Arc<Vec<Image>>,
    expected: &Arc<Expected>,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Seen> {
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (images, expected, is_over) = (images.clone(), expected.clone(), is_over.clone());
            let client = Client::new(&device.url, MODEL);
            std::thread::spawn(move || ask(client, &images, &expected, &is_over))
        })
        .collect();
    let outcome = meanwhile();
    is_over.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for client in clients {
        seen.add(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
    }
    outcome.map(|()| seen)
}

fn ask(mut client: Client, images: &[Image], expected: &Expected, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    for turn in 0_usize.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let number = turn % images.len();
        let begun = Instant::now();
        match client.infer(&images[number].pixels) {
            Ok(answer) if expected.get(&answer.version).is_some_and(|all| all[number] == answer.scores) => {}
            Ok(answer) => {
                seen.wrong += 1;
                seen.why.get_or_insert(format!(
                    "{} answered {:?} to image {number}",
                    answer.version, answer.scores
                ));
            }
            Err(error) => {
                seen.failed += 1;
                seen.why.get_or_insert(format!("{error:#}"));
            }
        }
        seen.micros.push(begun.elapsed().as_micros());
    }
    seen
}
