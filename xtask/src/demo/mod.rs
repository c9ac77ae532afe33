//! `cargo xtask demo`: the product's main job, from an empty folder to a fleet that has refused a bad model.

mod story;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) use world::{World, example};

use crate::builds;
use crate::run::{check, root, target_folder};
use crate::tools;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Assert every outcome, then end instead of staying up.
    #[arg(long)]
    once: bool,
    /// Also take the pictures of docs/images in a real browser.
    #[arg(long)]
    screenshots: bool,
    /// Devices in the fleet.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(4..=50))]
    devices: u16,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut world = once(usize::from(args.devices))?;
    if args.screenshots {
        browse(&world, "screenshots")?;
    }
    if args.once {
        return Ok(());
    }
    println!("\nThe console: {}", world.console_url());
    println!("  user admin, password {}", world.password());
    println!("  (the certificate is the fleet's own: trust {} or click through)", world.ca_file().display());
    println!("The fleet stays up and is fed with images; end it with Ctrl-C.");
    stay_up(&mut world)
}

/// Plays the story in a fresh folder, asserting each outcome, and hands over the running fleet.
///
/// # Errors
/// At the first outcome that isn't as promised.
pub(crate) fn once(devices: usize) -> Result<World> {
    let binaries = builds::binaries()?;
    let folder = fresh_folder()?;
    println!("\nthe story (folder {}):", folder.display());
    let begun = Instant::now();
    let mut world = World::start(&binaries, &folder, devices)?;
    story::play(&mut world)?;
    println!("the story took {} s", begun.elapsed().as_secs());
    Ok(world)
}

/// Runs one of the console's browser scripts against the demo's fleet.
///
/// # Errors
/// When the browser is missing or the script fails.
pub(crate) fn browse(world: &World, script: &str) -> Result<()> {
    tools::ensure(&tools::CHROMIUM)?;
    builds::install_console()?;
    check(
        builds::npm(&["run", "--silent", script])
            .env("FLOTILLA_URL", world.console_url())
            .env("FLOTILLA_USER", "admin")
            .env("FLOTILLA_PASSWORD", world.password())
            .env("FLOTILLA_SCREENSHOTS", root().join("docs/images")),
    )
}

fn fresh_folder() -> Result<PathBuf> {
    let folder = target_folder()?.join("demo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn stay_up(world: &mut World) -> Result<()> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot listen for Ctrl-C")?;
    while !STOP.load(Ordering::Relaxed) {
        world.check_running()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("\nending the fleet");
    Ok(())
}
