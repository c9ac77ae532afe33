//! The fleet that the faults happen to, and the words in which they are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::feeder::{Client, Feeder, Image, Tally, read_images};
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions, wait_until};

use super::disk::SmallDisk;
use super::{disk_errors, watchdog};

/// Longest time that any single outcome may take.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// Images per second and device.
const RATE: f64 = 20.0;
/// How long after an image its true label is known.
const LABEL_DELAY: Duration = Duration::from_secs(1);
/// The device whose state lies on a small disk.
pub(super) const ON_SMALL_DISK: usize = 2;

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
pane_window_s = 2
resources_every_s = 2

[update]
probation_s = 1
retry_min_s = 1
retry_max_s = 3
keep_free_bytes = 1048576

[link]
hello_every_s = 5
keep_alive_s = 5
ack_timeout_s = 5
backoff_max_s = 2

[health]
max_early_ends = 100
";

/// Everything that runs. Dropping it ends all of it, the small disk last.
pub(super) struct World {
    pub(super) feeders: Vec<Feeder>,
    pub(super) agents: Vec<Agent>,
    pub(super) fleet: Fleet,
    pub(super) disk: Option<SmallDisk>,
    pub(super) binaries: Binaries,
    pub(super) folder: PathBuf,
    /// Requests of each device that were answered so far, by feeders that have ended.
    pub(super) answered: Vec<u64>,
    example: PathBuf,
    images: Arc<Vec<Image>>,
    releases: u32,
}

impl World {
    /// Server and three devices, 1.0.0 on all of them, an application beside each.
    pub(super) fn start(binaries: &Path, example: &Path, folder: &Path) -> Result<Self> {
        SmallDisk::clean_up(&disk_folder(folder));
        watchdog::clean_up(folder);
        disk_errors::clean_up(folder);
        let folder = crate::fresh(folder)?;
        let binaries = Binaries::in_folder(&binaries.canonicalize()?);
        let example = example.canonicalize()?;
        let options = ServerOptions { extra_config: SERVER_CONFIG.into(), ..ServerOptions::default() };
        let fleet = Fleet::start(&binaries, &folder, &options)?;
        let images = Arc::new(read_images(&example.join("data/held_out.csv"))?);
        let disk = SmallDisk::mount(&disk_folder(&folder))?;
        let (feeders, agents) = (Vec::new(), Vec::new());
        let mut world = Self {
            feeders,
            agents,
            fleet,
            disk,
            binaries,
            folder,
            answered: vec![0; 3],
            example,
            images,
            releases: 0,
        };
        let spec = world.copied_spec("1.0.0", |text| text)?;
        world.fleet.publish(&spec)?;
        for device in ["cam-1", "cam-2", "cam-3"] {
            let options = agent_options(device);
            world.agents.push(world.fleet.add_device(options, &[], None)?);
        }
        world.fleet.wait_online(3)?;
        let rollout = world.roll_out("1.0.0", &[0, 1, 2])?;
        world.completed(&rollout)?;
        world.feed();
        Ok(world)
    }

    /// Starts an application beside each device.
    pub(super) fn feed(&mut self) {
        self.feeders = (0..self.agents.len()).map(|agent| self.feeder(agent)).collect();
    }

    fn feeder(&self, agent: usize) -> Feeder {
        Feeder::start(&self.agents[agent].url(), "digits", self.images.clone(), RATE, LABEL_DELAY)
    }

    /// Ends the application of one device; [`World::feed_one`] starts it again.
    pub(super) fn rest_one(&mut self, agent: usize) -> Result<()> {
        let tally = self.feeders.remove(agent).stop();
        self.count(agent, &tally)
    }

    /// Starts the application of one device again.
    pub(super) fn feed_one(&mut self, agent: usize) {
        let feeder = self.feeder(agent);
        self.feeders.insert(agent, feeder);
    }

    fn count(&mut self, agent: usize, tally: &Tally) -> Result<()> {
        tally.all_answered(self.agents[agent].device())?;
        self.answered[agent] += tally.answered.load(Ordering::Relaxed);
        Ok(())
    }

    /// Ends the applications, adds up what they were answered and fails if any request was not.
    pub(super) fn stop_feeding(&mut self) -> Result<()> {
        for (at, feeder) in std::mem::take(&mut self.feeders).into_iter().enumerate() {
            let tally = feeder.stop();
            self.count(at, &tally)?;
        }
        Ok(())
    }

    /// The spec of a new release, 1.0.0 but for its name and one blob; `edit` changes its text.
    pub(super) fn spec(&mut self, edit: impl FnOnce(String) -> String) -> Result<(String, PathBuf)> {
        self.releases += 1;
        let (number, version) = (self.releases, format!("1.0.{}", self.releases));
        let spec = self.copied_spec(&version, |text| {
            edit(text.replace("counter = 1\n", &format!("counter = {}\n", number + 1)))
        })?;
        let golden = spec.with_file_name("golden.json");
        let text = std::fs::read_to_string(&golden)?;
        std::fs::write(&golden, text + &"\n".repeat(usize::try_from(number)?))?;
        Ok((version, spec))
    }

    /// Number and version of a release that comes after all others.
    pub(super) fn next(&mut self) -> (u32, String) {
        self.releases += 1;
        (self.releases + 1, format!("1.0.{}", self.releases))
    }

    /// Where a release was built.
    pub(super) fn release_folder(&self, version: &str) -> String {
        self.folder.join("releases").join(version).display().to_string()
    }

    /// The example's 1.0.0 under another version. Its latency budgets are wide: how busy this machine is shall not
    /// decide about faults.
    fn copied_spec(&self, version: &str, edit: impl FnOnce(String) -> String) -> Result<PathBuf> {
        let folder = self.folder.join("specs").join(version);
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(self.example.join("1.0.0"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        let spec = folder.join("release.toml");
        let text = std::fs::read_to_string(&spec)?
            .replace("version = \"1.0.0\"", &format!("version = \"{version}\""))
            .replace("latency_p95_us = 50_000", "latency_p95_us = 5_000_000")
            .replace("max_p95_us = 100_000", "max_p95_us = 5_000_000");
        std::fs::write(&spec, edit(text))?;
        Ok(spec)
    }

    /// A new published release.
    pub(super) fn release(&mut self) -> Result<String> {
        let (version, spec) = self.spec(|text| text)?;
        self.fleet.publish(&spec)?;
        Ok(version)
    }

    /// Begins a rollout to these devices at once; returns its id.
    pub(super) fn roll_out(&self, version: &str, agents: &[usize]) -> Result<String> {
        let one = |at: &usize| format!("device = \"{}\"", self.agents[*at].device());
        let target = agents.iter().map(one).collect::<Vec<_>>().join(" OR ");
        self.fleet.rollout(
            version,
            &json!({ "target": target, "stages": ["100%"], "task_timeout_s": 300, "unreachable_after_s": 300 }),
        )
    }

    /// Waits until a rollout is completed.
    pub(super) fn completed(&self, rollout: &str) -> Result<()> {
        self.completed_within(rollout, PATIENCE)
    }

    /// Waits until a rollout is completed, for so long.
    pub(super) fn completed_within(&self, rollout: &str, limit: Duration) -> Result<()> {
        let ended = self.fleet.wait_ended(rollout, limit, |_| {})?;
        ensure!(ended["state"] == "completed", "the rollout did not complete: {ended:#}");
        Ok(())
    }

    /// A device's part of a rollout.
    pub(super) fn task(&self, rollout: &str, agent: usize) -> Result<Value> {
        let tasks = self.fleet.cli.json(&["rollout", "tasks", rollout])?;
        let device = self.agents[agent].device();
        let found = tasks.as_array().into_iter().flatten().find(|task| task["device"] == device);
        found.cloned().with_context(|| format!("the rollout has no task of {device}: {tasks}"))
    }

    /// A device as the server knows it.
    pub(super) fn device(&self, agent: usize) -> Result<Value> {
        self.fleet.cli.json(&["device", "show", self.agents[agent].device()])
    }

    /// Waits until `flotilla device show` names a problem that contains one of these words; returns it.
    pub(super) fn problem(&self, agent: usize, words: &[&str]) -> Result<String> {
        let mut shown = Value::Null;
        let device = self.agents[agent].device();
        let found = wait_until(&format!("a problem of {device} that names {words:?}"), PATIENCE, || {
            shown = self.device(agent)?["problems"].clone();
            let problems = shown.as_array().into_iter().flatten().filter_map(Value::as_str);
            Ok(named(problems, words))
        });
        found.with_context(|| format!("flotilla device show {device} names as problems: {shown}"))
    }

    /// Waits until one line of the agent's log contains one of these words; returns it.
    pub(super) fn logged(&self, agent: usize, words: &[&str]) -> Result<String> {
        let device = self.agents[agent].device();
        wait_until(&format!("a line of {device}'s log that names {words:?}"), PATIENCE, || {
            Ok(named(self.agents[agent].log().lines(), words))
        })
    }

    /// Whether the applications have such an image.
    pub(super) fn has_image(&self, pixels: &[f32]) -> bool {
        self.images.iter().any(|image| image.pixels == pixels)
    }

    /// The version that answers an image now.
    pub(super) fn answers(&mut self, agent: usize) -> Result<String> {
        let answer = Client::new(&self.agents[agent].url(), "digits").infer(&self.images[0].pixels)?;
        self.answered[agent] += 1;
        Ok(answer.version)
    }

    /// Asks for so many images at once; each of them counts.
    pub(super) fn ask_batch(&mut self, agent: usize, rows: usize) -> Result<()> {
        let pixels: Vec<f32> = (0..rows).flat_map(|_| self.images[0].pixels.iter().copied()).collect();
        let input = json!({ "name": "image", "datatype": "FP32", "shape": [rows, 1, 8, 8], "data": pixels });
        let url = format!("{}/v2/models/digits/infer", self.agents[agent].url());
        ureq::post(url).send_json(json!({ "inputs": [input] })).context("a batch was not answered")?;
        self.answered[agent] += u64::try_from(rows)?;
        Ok(())
    }

    /// Fails unless this version answers an image now.
    pub(super) fn serves(&mut self, agent: usize, version: &str) -> Result<()> {
        let answers = self.answers(agent)?;
        ensure!(answers == version, "{} serves {answers}, not {version}", self.agents[agent].device());
        Ok(())
    }

    /// The version that a device's own status calls active.
    pub(super) fn active(&self, agent: usize) -> Result<String> {
        let status = self.agents[agent].status()?;
        let version = status.pointer("/models/0/active/version").and_then(Value::as_str);
        version.map(str::to_owned).with_context(|| format!("no active release: {status:#}"))
    }

    /// Ends the agents behind the first `devices`, and forgets them.
    pub(super) fn forget_behind(&mut self, devices: usize) {
        self.agents.truncate(devices);
        self.answered.truncate(devices);
    }

    /// Number of devices that the server knows.
    pub(super) fn devices(&self) -> Result<usize> {
        let devices = self.fleet.cli.json(&["device", "list"])?;
        Ok(devices.as_array().context("the list of devices is no list")?.len())
    }

    /// The agent's binary.
    pub(super) fn agent_binary(&self) -> &Path {
        &self.binaries.agent
    }
}

/// How every device is configured.
pub(super) fn agent_options(device: &str) -> AgentOptions {
    AgentOptions { device: device.into(), extra_config: AGENT_CONFIG.into(), ..AgentOptions::default() }
}

fn named<'a>(lines: impl IntoIterator<Item = &'a str>, words: &[&str]) -> Option<String> {
    let names = |line: &&str| words.iter().any(|word| line.contains(word));
    lines.into_iter().find(names).map(|line| line.trim().to_owned())
}

fn disk_folder(folder: &Path) -> PathBuf {
    folder.join("devices/cam-3/state")
}
