//! The device at work on the logged disk: the agent's own binary, with its own spool, boot record, shelf and trusted
//! metadata, takes one release after the other from a real server. What its own status says is promised: it says nothing
//! that is not durable.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions};

use super::marks::{DEVICE, Marks};

const NAME: &str = "crashing";
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at the device's status.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const SERVER_CONFIG: &str = "[jobs]\nrollout_tick_s = 1\n";
const AGENT_CONFIG: &str = "\
[monitor]
resources_every_s = 1

[update]
probation_s = 1
retry_min_s = 1
retry_max_s = 3
keep_free_bytes = 1048576

[link]
hello_every_s = 5
backoff_max_s = 2
";

/// The way of an update, as the status calls its stations.
const WAY: [&str; 8] =
    ["accepted", "fetching", "verified", "staged", "self_test", "activating", "probation", "committed"];

/// How far updates have come: counter of the release, and its station.
pub(super) type Place = (u64, usize);

/// What the device has said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) is_enrolled: bool,
    pub(super) place: Place,
    /// Counter of the highest release that was committed.
    pub(super) committed: u64,
    /// Revision of the last accepted Desired.
    pub(super) revision: u64,
    /// Version of the trusted timestamp.
    pub(super) timestamp: u64,
}

/// Where a release with this counter stands, by the word for its phase.
pub(super) fn place(counter: u64, phase: &str) -> Place {
    WAY.iter().position(|word| *word == phase).map_or((0, 0), |station| (counter, station))
}

/// A server, and what it publishes.
pub(super) struct World {
    fleet: Fleet,
    binaries: Binaries,
    example: PathBuf,
    releases: u64,
}

impl World {
    pub(super) fn start(folder: &Path, binaries: &Path, example: &Path, releases: u64) -> Result<Self> {
        let binaries = Binaries::in_folder(&binaries.canonicalize()?);
        let folder = folder.join("fleet");
        fs::create_dir_all(&folder)?;
        let options = ServerOptions { extra_config: SERVER_CONFIG.into(), ..ServerOptions::default() };
        let fleet = Fleet::start(&binaries, &folder, &options)?;
        Ok(Self { fleet, binaries, example: example.canonicalize()?, releases })
    }

    /// Enrols a device in `folder`, on the logged disk, and lets it take all releases.
    pub(super) fn play(&self, folder: &Path, marks: &Path) -> Result<()> {
        let options = AgentOptions {
            device: NAME.into(),
            extra_config: AGENT_CONFIG.into(),
            ..AgentOptions::default()
        };
        let token = self.fleet.token(NAME, &[])?;
        let mut agent = Agent::enroll(&self.binaries.agent, folder, options, &token)?;
        let mut marks = Marks::<Told>::open(marks, DEVICE)?;
        marks.write(|told| told.is_enrolled = true)?;
        agent.start()?;
        let is_over = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            let looking = scope.spawn(|| look(&agent, &mut marks, &is_over));
            let updated = (1..=self.releases).try_for_each(|n| self.update(n));
            is_over.store(true, Ordering::Relaxed);
            let looked = looking.join().map_err(|_| anyhow::anyhow!("who looks panicked"))?;
            updated.and(looked)
        })?;
        ensure!(told.committed == self.releases && told.timestamp > 0, "the device said {told:?}");
        agent.kill();
        Ok(())
    }

    fn update(&self, n: u64) -> Result<()> {
        self.fleet.publish(&self.spec(n)?)?;
        let plan = json!({ "target": format!("device = \"{NAME}\""), "stages": ["100%"] });
        let rollout = self.fleet.rollout(&format!("{n}.0.0"), &plan)?;
        let ended = self.fleet.wait_ended(&rollout, PATIENCE, |_| {})?;
        ensure!(ended["state"] == "completed", "update {n} did not complete: {ended:#}");
        Ok(())
    }

    /// The example under another version, with other bytes in each of its files.
    fn spec(&self, n: u64) -> Result<PathBuf> {
        let folder = self.fleet.folder().join("specs").join(format!("{n}.0.0"));
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(self.example.join("1.0.0"))? {
            let entry = entry?;
            let copy = folder.join(entry.file_name());
            fs::copy(entry.path(), &copy)?;
            let more = match copy.extension().and_then(|extension| extension.to_str()) {
                // The net's field 6, a text for people: of several the last one counts.
                Some("onnx") => [&[0x32, 8], format!("{n:08}").as_bytes()].concat(),
                Some("json" | "md") => "\n".repeat(usize::try_from(n)?).into_bytes(),
                _ => continue,
            };
            fs::File::options().append(true).open(&copy)?.write_all(&more)?;
        }
        let spec = folder.join("release.toml");
        let text = fs::read_to_string(&spec)?
            .replace("version = \"1.0.0\"", &format!("version = \"{n}.0.0\""))
            .replace("counter = 1\n", &format!("counter = {n}\n"))
            .replace("latency_p95_us = 50_000", "latency_p95_us = 5_000_000")
            .replace("max_p95_us = 100_000", "max_p95_us = 5_000_000");
        fs::write(&spec, text)?;
        Ok(spec)
    }
}

/// Marks what the device says until it is over, and once more then.
fn look(agent: &Agent, marks: &mut Marks<Told>, is_over: &AtomicBool) -> Result<Told> {
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let now = said(&agent.status()?, &marks.promise).context("the status says too little")?;
        if now != marks.promise {
            ensure!(now.place >= marks.promise.place, "{now:?} after {:?}", marks.promise);
            marks.write(|told| *told = now)?;
        }
        if is_last {
            return Ok(marks.promise.clone());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn said(status: &Value, before: &Told) -> Option<Told> {
    let model = &status["models"][0];
    let counter = |what: &str| model[what]["counter"].as_u64();
    let phase = model["phase"].as_str().unwrap_or_default();
    let under_way = counter("candidate").or(counter("active")).unwrap_or(0);
    let place = place(under_way, phase);
    let committed = if phase == "committed" { under_way } else { before.committed };
    Some(Told {
        is_enrolled: true,
        place,
        committed,
        revision: status["desired_revision"].as_u64()?,
        timestamp: status.pointer("/metadata/timestamp_version").and_then(Value::as_u64).unwrap_or(0),
    })
}
