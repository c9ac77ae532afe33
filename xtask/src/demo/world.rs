//! The demo's fleet: a server, devices, and an application that feeds each of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use testkit::feeder::{Feeder, Image, Lens, read_images};
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions};

use crate::run::root;

/// Port of the console, if it is free.
const CONSOLE_PORT: u16 = 8443;
/// Images per second and device.
const RATE: f64 = 20.0;
/// How long after an image its true label is known.
const LABEL_DELAY: Duration = Duration::from_secs(2);

/// Ordinary configuration that shortens what takes hours in a real fleet.
const SERVER_CONFIG: &str = "\
[jobs]
rollout_tick_s = 1
window_s = 10
window_tick_s = 1
window_late_s = 2
";
const AGENT_CONFIG: &str = "\
[monitor]
pane_window_s = 5
resources_every_s = 5

[update]
probation_s = 4

[link]
hello_every_s = 10
";

/// Everything that runs. Dropping it ends all of it.
pub(crate) struct World {
    pub(crate) feeders: Vec<Feeder>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) fleet: Fleet,
    images: Arc<Vec<Image>>,
}

impl World {
    /// Starts the server and signs in; devices come with the story.
    pub(crate) fn start(binaries: &Binaries, folder: &Path, devices: usize) -> Result<Self> {
        let is_free = std::net::TcpListener::bind(("127.0.0.1", CONSOLE_PORT)).is_ok();
        let options = ServerOptions {
            https_port: is_free.then_some(CONSOLE_PORT),
            extra_config: SERVER_CONFIG.into(),
            ..ServerOptions::default()
        };
        let fleet = Fleet::start(binaries, folder, &options)?;
        let images = Arc::new(read_images(&example("data/held_out.csv"))?);
        Ok(Self { feeders: Vec::new(), agents: Vec::with_capacity(devices), fleet, images })
    }

    /// Devices that the story shall have.
    pub(crate) fn devices_wanted(&self) -> usize {
        self.agents.capacity()
    }

    /// Publishes a release of the example.
    pub(crate) fn publish(&self, version: &str) -> Result<()> {
        self.fleet.publish(&example(&format!("{version}/release.toml")))
    }

    /// Enrols and starts one more device.
    pub(crate) fn add_device(&mut self) -> Result<()> {
        let number = self.agents.len() + 1;
        let site = if number.is_multiple_of(2) { "site=porto" } else { "site=lisbon" };
        let options = AgentOptions {
            device: format!("cam-{number}"),
            extra_config: AGENT_CONFIG.into(),
            ..AgentOptions::default()
        };
        self.agents.push(self.fleet.add_device(options, &[site], None)?);
        Ok(())
    }

    /// Starts an application beside each device.
    pub(crate) fn feed(&mut self) {
        let feeder =
            |agent: &Agent| Feeder::start(&agent.url(), "digits", self.images.clone(), RATE, LABEL_DELAY);
        self.feeders = self.agents.iter().map(feeder).collect();
    }

    /// Makes one device's lens dirty.
    pub(crate) fn dirty_lens(&self, device: &str) -> Result<()> {
        let at = self.agents.iter().position(|agent| agent.device() == device).context("no such device")?;
        self.feeders.get(at).context("nothing feeds it")?.set_lens(Lens::Dirty);
        Ok(())
    }

    /// The release that each device serves, as the server knows it.
    pub(crate) fn releases(&self) -> Result<Vec<(String, String)>> {
        let devices = self.fleet.cli.json(&["device", "list"])?;
        let one = |device: &Value| {
            let version =
                device.pointer("/models/0/active/version").and_then(Value::as_str).unwrap_or("none");
            (device["device"].as_str().unwrap_or_default().to_owned(), version.to_owned())
        };
        Ok(devices.as_array().context("the list of devices is no list")?.iter().map(one).collect())
    }

    pub(crate) fn console_url(&self) -> String {
        self.fleet.server.url()
    }

    pub(crate) fn password(&self) -> &str {
        self.fleet.password()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.fleet.server.ca_file()
    }

    /// Fails with a log's end if one of the processes has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        self.fleet.server.process()?.check_running()?;
        self.agents.iter_mut().try_for_each(|agent| agent.process()?.check_running())
    }
}

/// A file of `examples/digits`.
pub(crate) fn example(file: &str) -> PathBuf {
    root().join("examples/digits").join(file)
}
