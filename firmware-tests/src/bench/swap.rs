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

use super::device::{Device, MODEL, VERSIONS};

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
    let expected = Arc::new(expected(&device, &images)?);
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
        seen.micros.push(begun.elapsed().as_micros());
    }
    seen
}
