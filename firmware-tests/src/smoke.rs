//! Two devices of one fleet: one runs this machine's agent, the other the cross-built one under an emulator.
//! Both get the same release by the same rollout and must give the same answers.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::feeder::{Client, Image, read_images};
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions};

/// Images that both devices are asked about.
const IMAGES: usize = 100;
/// Largest difference of two probabilities: the int8 layers agree bit for bit, softmax is computed in f32.
const TOLERANCE: f64 = 1e-5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Program that runs the cross-built agent, with its arguments.
    #[arg(long, default_value = "qemu-aarch64 -cpu cortex-a53")]
    emulator: String,
    /// The cross-built agent.
    #[arg(long)]
    cross_agent: PathBuf,
    /// Folder of this machine's flotilla-server, flotilla-agent and flotilla.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder of examples/digits.
    #[arg(long, default_value = "examples/digits")]
    example: PathBuf,
    /// Folder to work in; cleared first.
    #[arg(long)]
    folder: PathBuf,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    let binaries = Binaries::in_folder(&args.binaries);
    let config = "[jobs]\nrollout_tick_s = 1\n".to_owned();
    let fleet = Fleet::start(
        &binaries,
        &folder,
        &ServerOptions { extra_config: config, ..ServerOptions::default() },
    )?;
    fleet.publish(&args.example.join("1.0.0/release.toml").canonicalize()?)?;
    let runner = args.emulator.split_whitespace().map(str::to_owned).collect();
    let native = fleet.add_device(device("native", Vec::new()), &[], None)?;
    let emulated = fleet.add_device(device("emulated", runner), &[], Some(&args.cross_agent))?;
    fleet.wait_online(2)?;
    println!("  ok  both devices enrolled and online, one of them {}", args.emulator);
    roll_out(&fleet)?;
    println!("  ok  1.0.0 fetched, verified, self-tested and committed on both");
    let worst = compare(&native, &emulated, &read_images(&args.example.join("data/held_out.csv"))?)?;
    println!("  ok  {IMAGES} images: the same digits, scores differ by at most {worst:.1e}");
    Ok(())
}

fn device(name: &str, runner: Vec<String>) -> AgentOptions {
    // Emulation is 8 to 25 times slower than the machine: the budget for a step is wider, nothing else differs.
    let extra_config = "[update]\nprobation_s = 3\nstep_timeout_s = 600\n".to_owned();
    AgentOptions { device: name.into(), runner, extra_config, env: Vec::new() }
}

fn roll_out(fleet: &Fleet) -> Result<()> {
    let plan = json!({ "stages": ["100%"], "task_timeout_s": 600 });
    let rollout = fleet.rollout("1.0.0", &plan)?;
    let ended = fleet.wait_ended(&rollout, Duration::from_mins(5), |_| {})?;
    ensure!(ended["state"] == "completed", "the rollout did not complete: {ended:#}");
    let devices = fleet.cli.json(&["device", "list"])?;
    let on_release = |device: &Value| device.pointer("/models/0/active/version") == Some(&json!("1.0.0"));
    let devices = devices.as_array().context("the list of devices is no list")?;
    ensure!(devices.iter().all(on_release), "not every device serves 1.0.0: {devices:?}");
    Ok(())
}

fn compare(native: &Agent, emulated: &Agent, images: &[Image]) -> Result<f64> {
    let (mut here, mut there) =
        (Client::new(&native.url(), "digits"), Client::new(&emulated.url(), "digits"));
    let mut worst: f64 = 0.0;
    for (at, image) in images.iter().take(IMAGES).enumerate() {
        let (a, b) = (here.infer(&image.pixels)?, there.infer(&image.pixels)?);
        ensure!(a.label == b.label, "image {at}: {} here, {} there", a.label, b.label);
        let difference = a.scores.iter().zip(&b.scores).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        ensure!(difference <= TOLERANCE, "image {at}: scores differ by {difference}");
        worst = worst.max(difference);
    }
    Ok(worst)
}
