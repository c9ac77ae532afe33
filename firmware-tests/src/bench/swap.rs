//! The hot swap under load: clients ask without pause over HTTP while releases are read from the shelf, verified,
//! loaded and put in place as the update machine does it. No request may fail, and each answer must be exactly the one
//! of the release that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::feeder::{Client, Image, read_images};

use super::MORE;
use super::device::{Device, MODEL, VERSIONS};

/// Clients without pause, each on its own connection.
const CLIENTS: usize = 8;
/// Images that are asked in turn.
const IMAGES: usize = 32;
/// Load without swaps, to compare with.
const STEADY: Duration = Duration::from_secs(3);
/// Between two swaps, so that clients also ask while nothing is swapped and each swap meets requests of its own.
const BETWEEN: Duration = Duration::from_millis(50);

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
    let expected = Arc::new(expected(&device, &images)?);
    let steady = under_load(&device, &images, &expected, || {
        std::thread::sleep(STEADY);
        Ok(())
    })?;
    let mut swaps = Vec::with_capacity(args.swaps);
    let swapping = under_load(&device, &images, &expected, || {
        (0..args.swaps).try_for_each(|turn| {
            std::thread::sleep(BETWEEN);
            let begun = Instant::now();
            device.swap(VERSIONS[turn % VERSIONS.len()])?;
            swaps.push(Span { begun, ended: Instant::now() });
            Ok(())
        })
    })?;
    let meeting = swapping.meeting(&swaps);
    println!(
        "{:#}",
        json!({
            "swaps": args.swaps,
            "requests": swapping.spans.len(),
            "failed": steady.failed + swapping.failed,
            "wrong": steady.wrong + swapping.wrong,
            "p99_ms_steady": p99_ms(&steady.spans),
            "p99_ms_during_swap": p99_ms(&meeting),
            (MORE): { "requests_during_swaps": meeting.len() },
        })
    );
    ensure!(!meeting.is_empty(), "no request was under way during a swap");
    ensure!(swapping.failed + steady.failed == 0, "a request failed: {:?}", swapping.why);
    ensure!(swapping.wrong + steady.wrong == 0, "an answer was wrong: {:?}", swapping.why);
    Ok(())
}

/// What each release answers when nothing else happens.
fn expected(device: &Device, images: &[Image]) -> Result<Expected> {
    let mut expected = Expected::new();
    let mut client = Client::new(&device.url(), MODEL);
    for version in VERSIONS {
        device.swap(version)?;
        let answers = images.iter().map(|image| client.infer(&image.pixels)).collect::<Result<Vec<_>>>()?;
        ensure!(
            answers.iter().all(|answer| answer.version == version),
            "another release than {version} answered"
        );
        let right = answers.iter().zip(images).filter(|(answer, image)| answer.label == image.label).count();
        ensure!(right * 10 >= images.len() * 9, "{version} knows only {right} of {} images", images.len());
        expected.insert(version.into(), answers.into_iter().map(|answer| answer.scores).collect());
    }
    ensure!(expected[VERSIONS[0]] != expected[VERSIONS[1]], "both releases answer the same");
    Ok(expected)
}

/// A request, or a swap.
#[derive(Clone, Copy)]
struct Span {
    begun: Instant,
    ended: Instant,
}

impl Span {
    fn meets(self, other: Self) -> bool {
        self.begun < other.ended && other.begun < self.ended
    }
}

fn p99_ms(spans: &[Span]) -> f64 {
    let mut micros: Vec<_> = spans.iter().map(|span| (span.ended - span.begun).as_micros()).collect();
    micros.sort_unstable();
    let at = micros.len().saturating_sub(1) * 99 / 100;
    micros.get(at).map_or(0.0, |micros| *micros as f64 / 1000.0)
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    failed: usize,
    wrong: usize,
    /// The first failure.
    why: Option<String>,
}

impl Seen {
    /// The requests that were under way while something was swapped.
    fn meeting(&self, swaps: &[Span]) -> Vec<Span> {
        // Swaps follow one another: the first that ends after a request began is the only one to ask, or begins later.
        let next =
            |request: Span| swaps.get(swaps.partition_point(|swap| swap.ended <= request.begun)).copied();
        let is_met = |request: &Span| next(*request).is_some_and(|swap| swap.meets(*request));
        self.spans.iter().copied().filter(is_met).collect()
    }

    fn add(&mut self, other: Self) {
        self.spans.extend(other.spans);
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
            let client = Client::new(&device.url(), MODEL);
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
        seen.spans.push(Span { begun, ended: Instant::now() });
    }
    seen
}
