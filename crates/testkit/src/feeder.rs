//! The integrator's application: sends images to an agent's local API and the true labels some time later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// One labelled image: 8x8 pixels, row-major, 0..16.
#[derive(Debug, Clone)]
pub struct Image {
    /// 64 pixel values.
    pub pixels: Vec<f32>,
    /// The digit that it shows.
    pub label: u8,
}

/// What the world does to the images before the device's camera sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lens {
    /// Nothing.
    Clean,
    /// A dirty lens: a 3x3 blur and noise.
    Dirty,
}

/// What a feeder has seen so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered.
    pub answered: AtomicU64,
    /// Requests that were not.
    pub failed: AtomicU64,
    /// Answers that named the true label.
    pub right: AtomicU64,
    /// Why the first of those that were not answered wasn't.
    why: OnceLock<String>,
}

impl Tally {
    /// Fails if a request was not answered.
    ///
    /// # Errors
    /// How many were not, by whom, and why the first wasn't.
    pub fn all_answered(&self, device: &str) -> Result<()> {
        let failed = self.failed.load(Ordering::Relaxed);
        let why = self.why.get().map_or("", String::as_str);
        ensure!(failed == 0, "{failed} requests to {device} were not answered; the first: {why}");
        Ok(())
    }
}

/// Feeds one agent from its own thread until it is dropped.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    is_dirty: Arc<AtomicBool>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// Starts feeding `images` in turn, `per_second` of them, to the model at `base_url`
    /// (`http://127.0.0.1:PORT`); each true label follows `label_delay` later.
    pub fn start(
        base_url: &str,
        model: &str,
        images: Arc<Vec<Image>>,
        per_second: f64,
        label_delay: Duration,
    ) -> Self {
        let (stop, is_dirty, tally) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let hand = Hand { stop: stop.clone(), is_dirty: is_dirty.clone(), tally: tally.clone(), label_delay };
        let pause = Duration::from_secs_f64(1.0 / per_second);
        let client = Client::new(base_url, model);
        let thread = std::thread::spawn(move || hand.feed(client, &images, pause));
        Self { stop, is_dirty, tally, thread: Some(thread) }
    }

    /// Changes the lens from now on.
    pub fn set_lens(&self, lens: Lens) {
        self.is_dirty.store(lens == Lens::Dirty, Ordering::Relaxed);
    }

    /// What was seen so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Ends the feeding and returns what was seen until then; nothing is on its way any more.
    pub fn stop(self) -> Arc<Tally> {
        let tally = self.tally.clone();
        drop(self);
        tally
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What the feeding thread holds.
struct Hand {
    stop: Arc<AtomicBool>,
    is_dirty: Arc<AtomicBool>,
    tally: Arc<Tally>,
    label_delay: Duration,
}

/// A true label that is still to be told: when, for which inference.
type LateLabel = (Instant, String, u8);

impl Hand {
    fn feed(&self, mut client: Client, images: &[Image], pause: Duration) {
        let mut labels = VecDeque::new();
        let mut next = Instant::now();
        for turn in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.ask(&mut client, &images[turn % images.len()], turn, &mut labels);
            while labels.front().is_some_and(|(due, ..): &LateLabel| *due <= Instant::now()) {
                let Some((_, id, label)) = labels.pop_front() else { break };
                // A label that comes too late for the device's ring is refused there; that is its right.
                let _refused = client.feedback(&id, label);
            }
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn ask(&self, client: &mut Client, image: &Image, turn: usize, labels: &mut VecDeque<LateLabel>) {
        let lens = if self.is_dirty.load(Ordering::Relaxed) { Lens::Dirty } else { Lens::Clean };
        let asked = Instant::now();
        let answer = match client.infer(&lens.look(&image.pixels, turn)) {
            Ok(answer) => answer,
            Err(error) => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
                self.tally.why.get_or_init(|| format!("{error:#}, after {:?}", asked.elapsed()));
                return;
            }
        };
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
        if answer.label == image.label {
            self.tally.right.fetch_add(1, Ordering::Relaxed);
        }
        labels.push_back((Instant::now() + self.label_delay, answer.id, image.label));
    }
}

impl Lens {
    /// What the camera sees of an 8x8 image; the noise is a fixed function of `turn` and place.
    fn look(self, pixels: &[f32], turn: usize) -> Vec<f32> {
        match self {
            Self::Clean => pixels.to_vec(),
            Self::Dirty => (0..64).map(|at| dirty(pixels, turn, at)).collect(),
        }
    }
}

/// Half of the light comes through the smear; what is left of the range is noise.
fn dirty(pixels: &[f32], turn: usize, at: usize) -> f32 {
    (pixels[at].midpoint(blurred(pixels, at)) + noise(turn * 64 + at)).clamp(0.0, 16.0)
}

fn blurred(pixels: &[f32], at: usize) -> f32 {
    let (row, column) = (at / 8, at % 8);
    let near = |centre: usize| centre.saturating_sub(1)..=(centre + 1).min(7);
    let values: Vec<f32> =
        near(row).flat_map(|r| near(column).map(move |c| r * 8 + c)).map(|i| pixels[i]).collect();
    values.iter().sum::<f32>() / values.len() as f32
}

/// Uniform noise in -1.5..1.5 from a 64-bit mix (SplitMix64), so that runs repeat.
fn noise(index: usize) -> f32 {
    let mut x = (index as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let top = u16::try_from((x ^ (x >> 31)) >> 48).unwrap_or(0);
    (f32::from(top) / f32::from(u16::MAX) - 0.5) * 3.0
}

/// One answer of the model.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The inference's id, to be named with the true label.
    pub id: String,
    /// Version of the release that answered.
    pub version: String,
    /// The class with the highest score.
    pub label: u8,
    /// One score per class.
    pub scores: Vec<f64>,
}

/// A small Open Inference Protocol v2 client.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    infer_url: String,
    feedback_url: String,
}

impl Client {
    /// For one model of one agent.
    pub fn new(base_url: &str, model: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
        Self {
            agent: config.into(),
            infer_url: format!("{base_url}/v2/models/{model}/infer"),
            feedback_url: format!("{base_url}/v2/models/{model}/feedback"),
        }
    }

    /// Asks for one image's digit.
    ///
    /// # Errors
    /// When the agent doesn't answer, or not in the protocol's form.
    pub fn infer(&mut self, pixels: &[f32]) -> Result<Answer> {
        let body = json!({ "inputs": [
            { "name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels }
        ]});
        let answer: Value = self.agent.post(&self.infer_url).send_json(body)?.body_mut().read_json()?;
        let text = |key: &str| {
            answer[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in the answer"))
        };
        let outputs = answer["outputs"].as_array().context("no outputs in the answer")?;
        let scores = outputs.iter().find(|o| o["name"] == "scores").context("no output named scores")?;
        let scores: Vec<f64> = scores["data"]
            .as_array()
            .context("scores hold no data")?
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).context("no scores")?.0;
        Ok(Answer { id: text("id")?, version: text("model_version")?, label: u8::try_from(best)?, scores })
    }

    /// Tells the true label of an earlier inference.
    ///
    /// # Errors
    /// When the agent refuses it.
    pub fn feedback(&mut self, id: &str, label: u8) -> Result<()> {
        self.agent.post(&self.feedback_url).send_json(json!({ "id": id, "label": label.to_string() }))?;
        Ok(())
    }
}

/// Reads labelled images: a heading, then per line the label and 64 pixels.
///
/// # Errors
/// When the file can't be read or a line isn't an image; the line's number is in the error.
pub fn read_images(file: &std::path::Path) -> Result<Vec<Image>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let image = |line: &str| -> Option<Image> {
        let (label, pixels) = line.split_once(',')?;
        let pixels =
            pixels.split(',').map(|pixel| pixel.trim().parse().ok()).collect::<Option<Vec<f32>>>()?;
        (pixels.len() == 64).then_some(Image { pixels, label: label.trim().parse().ok()? })
    };
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            image(line).with_context(|| format!("{}: line {} is no image", file.display(), at + 1))
        })
        .collect()
}
