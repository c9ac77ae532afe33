//! `kill -9` of the agent's side, of the server with its embedded broker, or of both, in an order that a seed decides.
//! In the end no number that was ever given stands on the server twice, and none is missing there that the device did
//! not report as dropped.

pub(crate) mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions, wait_until};

use crate::rest::Rest;

const DEVICE: &str = "killed";
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of flotilla-server, flotilla-agent and flotilla.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder to work in; cleared first.
    #[arg(long)]
    folder: PathBuf,
    /// For so long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Decides who is killed when; from the clock if it is left out.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    let binaries = Binaries::in_folder(&args.binaries.canonicalize()?);
    let seed = args.seed.unwrap_or_else(from_clock);
    let fleet = Fleet::start(&binaries, &folder, &ServerOptions::default())?;
    let options = AgentOptions { device: DEVICE.into(), ..AgentOptions::default() };
    let token = fleet.token(DEVICE, &[])?;
    let agent = Agent::enroll(&binaries.agent, &folder.join("device"), options, &token)?;
    let mut world = World { fleet, state: agent.folder().join("state"), durable: Arc::default() };
    let killed =
        world.kill_for(Duration::from_secs(args.seconds), seed).with_context(|| format!("seed {seed}"))?;
    let told = world.reckon(&folder).with_context(|| format!("seed {seed}"))?;
    println!(
        "  ok  killed the agent {} times, the server with its broker {} times: {told} (seed {seed})",
        killed.0, killed.1
    );
    Ok(())
}

struct World {
    fleet: Fleet,
    state: PathBuf,
    /// What was printed as durable: number and text.
    durable: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl World {
    /// Returns how often each side was killed.
    fn kill_for(&mut self, time: Duration, seed: u64) -> Result<(u32, u32)> {
        let mut dice = Dice(seed | 1);
        let (mut agent_kills, mut server_kills) = (0, 0);
        let end = Instant::now() + time;
        let mut worker = Some(Worker::start(&self.state, &self.durable)?);
        while Instant::now() < end {
            std::thread::sleep(dice.time(200, 1800));
            let (is_agent, is_server) = [(true, false), (false, true), (true, true)][dice.below(3)];
            if is_server {
                self.fleet.server.kill();
                server_kills += 1;
            }
            if let Some(worker) = worker.take_if(|_| is_agent) {
                worker.kill()?;
                agent_kills += 1;
            }
            // Long enough, now and then, for the spool to fill up.
            std::thread::sleep(dice.time(0, 2500));
            if is_agent {
                worker = Some(Worker::start(&self.state, &self.durable)?);
                std::thread::sleep(dice.time(0, 2500));
            }
            if is_server {
                self.fleet.server.restart()?;
            }
        }
        worker.map_or(Ok(()), Worker::kill)?;
        Ok((agent_kills, server_kills))
    }

    fn reckon(&self, folder: &Path) -> Result<String> {
        let ended = self.drain()?;
        let last = ended["last"].as_u64().context("no last number")?;
        let losses = ended["dropped"].as_array().context("no losses")?;
        let dropped: u64 = losses.iter().filter_map(|loss| loss["count"].as_u64()).sum();
        let stored = Self::stored(folder)?;
        let texts: BTreeSet<&String> = stored.values().collect();
        ensure!(texts.len() == stored.len(), "{} records are stored twice", stored.len() - texts.len());
        let durable = self.durable.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        for (seq, text) in durable.iter() {
            let found = stored.get(seq);
            ensure!(found.is_none_or(|found| found == text), "number {seq} was {text}, stored is {found:?}");
            ensure!(*seq <= last, "number {seq} was durable, the spool ends with {last}");
        }
        let missing = last - u64::try_from(stored.len())?;
        // What the server had stored, but had not said before it was killed, the device drops without knowing better.
        ensure!(
            missing <= dropped,
            "of {last} numbers {} are stored: {missing} are missing, only {dropped} were reported as dropped",
            stored.len()
        );
        let reported = self.fleet.cli.json(&["device", "show", DEVICE])?;
        let said = reported.pointer("/spool/dropped").cloned().unwrap_or_default();
        let said: u64 = said.as_array().into_iter().flatten().filter_map(|loss| loss["count"].as_u64()).sum();
        ensure!(said == dropped, "the server was told of {said} dropped records, not of {dropped}");
        ensure!(!durable.is_empty(), "nothing was appended");
        Ok(format!(
            "{} numbers became durable before a kill, {last} in all; {} are stored once each, {missing} were dropped unsent; the \
             device reports {dropped}, {} of which the server had stored without having said so; none is missing unreported",
            durable.len(),
            stored.len(),
            dropped - missing
        ))
    }

    /// Lets everything out that waits.
    fn drain(&self) -> Result<Value> {
        let output = Command::new(std::env::current_exe()?)
            .args(["kill-work", "--drain", "--state"])
            .arg(&self.state)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("drained "));
        let line =
            line.with_context(|| format!("nothing drained: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(serde_json::from_str(line)?)
    }

    /// Numbers and texts on the server.
    fn stored(folder: &Path) -> Result<BTreeMap<u64, String>> {
        let rest = Rest::open(folder)?;
        let mut events = Vec::new();
        wait_until("the server's list of events", PATIENCE, || {
            events = rest.all(&format!("/devices/{DEVICE}/events"))?;
            Ok(Some(()))
        })?;
        let numbered = events.iter().filter(|event| event["name"] == work::NUMBERED);
        let entry = |event: &Value| {
            let seq = event["id"].as_str()?.rsplit_once(':')?.1.parse().ok()?;
            Some((seq, event["detail"].as_str()?.split(' ').next()?.to_owned()))
        };
        let all: Vec<(u64, String)> =
            numbered.map(|event| entry(event).context("an event without number")).collect::<Result<_>>()?;
        let stored: BTreeMap<u64, String> = all.iter().cloned().collect();
        ensure!(stored.len() == all.len(), "{} numbers are stored twice", all.len() - stored.len());
        Ok(stored)
    }
}

/// The process that appends, and the thread that reads what it prints.
struct Worker {
    child: Child,
    reader: JoinHandle<()>,
}

impl Worker {
    fn start(state: &Path, durable: &Arc<Mutex<BTreeMap<u64, String>>>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["kill-work", "--state"]).arg(state).stdout(Stdio::piped());
        let mut child = command.spawn().context("the worker can't be started")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let durable = durable.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut words = line.split(' ').skip(1);
                let seq = words.next().and_then(|seq| seq.parse().ok());
                if let (true, Some(seq), Some(text)) = (line.starts_with("durable "), seq, words.next())
                    && let Ok(mut durable) = durable.lock()
                {
                    durable.insert(seq, text.to_owned());
                }
            }
        });
        Ok(Self { child, reader })
    }

    fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("the agent's side ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        self.reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))
    }
}

/// A small generator: the same seed plays the same order.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn time(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.next() % (most_ms - least_ms))
    }
}

fn from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos())
}
