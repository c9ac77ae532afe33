//! `kill -9` of the agent's side, of a broker of its own, of the server with its embedded broker, or of several, in an
//! order that a seed decides. In the end no number that was ever given stands on the server twice, none is missing
//! there that the device did not drop, and the device reports as many drops of each kind and cause as there were.

mod broker;
mod full_disk;
mod ledger;
mod reckoning;
pub(crate) mod work;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flotilla_agent::link::Identity;
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions, free_port};

use broker::Broker;
use ledger::{Ledger, Said};

const DEVICE: &str = "killed";
/// Minutes of outages fill more than a device may store in an hour.
const SERVER_CONFIG: &str = "[limits]\ndevice_bytes_per_hour = 68719476736\n";

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
    /// Put mosquitto between device and server: a broker that dies apart from the server.
    #[arg(long)]
    own_broker: bool,
    /// Kill nobody; count numbered records over a full disk and restarts.
    #[arg(long)]
    full_disk: bool,
    /// Decides who is killed when; from the clock if it is left out.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if args.full_disk {
        match full_disk::play(&args.folder, &args.binaries.canonicalize()?)? {
            Some(line) => println!("  ok  {line}"),
            None => println!("  --  a full disk in numbers NOT played: only root may mount a small disk"),
        }
        return Ok(());
    }
    let folder = crate::fresh(&args.folder)?;
    let seed = args.seed.unwrap_or_else(from_clock);
    let mut world = World::open(&folder, &args.binaries.canonicalize()?, args.own_broker)?;
    let killed =
        world.kill_for(Duration::from_secs(args.seconds), seed).with_context(|| format!("seed {seed}"))?;
    let told = world.reckon(&folder).with_context(|| format!("seed {seed}"))?;
    if let Some(broker) = &world.broker {
        broker.ensure_used()?;
    }
    let times: Vec<String> =
        killed.iter().map(|(party, times)| format!("{} {times} times", world.name(*party))).collect();
    println!("  ok  killed {}: {told} (seed {seed})", times.join(", "));
    Ok(())
}

/// Who can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Party {
    Agent,
    Broker,
    Server,
}

/// What the workers have said so far.
type Shared = Arc<Mutex<Ledger>>;

struct World {
    fleet: Fleet,
    broker: Option<Broker>,
    worker: Option<Worker>,
    state: PathBuf,
    ledger: Shared,
}

impl World {
    fn open(folder: &Path, binaries: &Path, has_broker: bool) -> Result<Self> {
        let port = free_port()?;
        let mqtt_url = has_broker.then(|| format!("mqtts://localhost:{port}"));
        let options =
            ServerOptions { mqtt_url, extra_config: SERVER_CONFIG.into(), ..ServerOptions::default() };
        let binaries = Binaries::in_folder(binaries);
        let fleet = Fleet::start(&binaries, folder, &options)?;
        let options = AgentOptions { device: DEVICE.into(), ..AgentOptions::default() };
        let token = fleet.token(DEVICE, &[])?;
        let agent = Agent::enroll(&binaries.agent, &folder.join("device"), options, &token)?;
        let state = agent.folder().join("state");
        let broker = if has_broker {
            Some(Broker::start(folder, port, &fleet.server, &Identity::load(&state)?)?)
        } else {
            None
        };
        Ok(Self { fleet, broker, worker: None, state, ledger: Arc::default() })
    }

    fn name(&self, party: Party) -> &'static str {
        match party {
            Party::Agent => "the agent",
            Party::Broker => "the broker between",
            Party::Server if self.broker.is_some() => "the server",
            Party::Server => "the server with its broker",
        }
    }

    /// Returns how often each was killed.
    fn kill_for(&mut self, time: Duration, seed: u64) -> Result<BTreeMap<Party, u32>> {
        let mut dice = Dice(seed | 1);
        let mut parties = vec![Party::Agent, Party::Server];
        parties.extend(self.broker.is_some().then_some(Party::Broker));
        let mut killed: BTreeMap<Party, u32> = parties.iter().map(|party| (*party, 0)).collect();
        let end = Instant::now() + time;
        self.restart(Party::Agent)?;
        while Instant::now() < end || killed.values().any(|times| *times == 0) {
            std::thread::sleep(dice.time(200, 1800));
            dice.shuffle(&mut parties);
            // Whoever was never killed is among the first.
            parties.sort_by_key(|party| killed[party] > 0);
            let chosen = parties[..=dice.below(parties.len())].to_vec();
            for party in &chosen {
                self.kill(*party)?;
                *killed.entry(*party).or_default() += 1;
            }
            // Long enough, now and then, for the spool to fill up.
            std::thread::sleep(dice.time(0, 2500));
            for (n, party) in chosen.into_iter().rev().enumerate() {
                if n > 0 {
                    std::thread::sleep(dice.time(0, 2500));
                }
                self.restart(party)?;
            }
        }
        self.kill(Party::Agent)?;
        Ok(killed)
    }

    fn kill(&mut self, party: Party) -> Result<()> {
        match party {
            Party::Agent => self.worker.take().map_or(Ok(()), Worker::kill),
            Party::Broker => self.broker.as_mut().map_or(Ok(()), Broker::kill),
            Party::Server => {
                self.fleet.server.kill();
                Ok(())
            }
        }
    }

    fn restart(&mut self, party: Party) -> Result<()> {
        match party {
            Party::Agent => {
                self.worker = Some(Worker::start(&self.state, &self.ledger)?);
                Ok(())
            }
            Party::Broker => self.broker.as_mut().map_or(Ok(()), Broker::restart),
            Party::Server => self.fleet.server.restart(),
        }
    }
}

/// The process that appends, and the thread that reads what it prints.
struct Worker {
    child: Child,
    reader: JoinHandle<()>,
}

impl Worker {
    fn start(state: &Path, ledger: &Shared) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["kill-work", "--state"]).arg(state).stdout(Stdio::piped());
        let mut child = command.spawn().context("the worker can't be started")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let ledger = ledger.clone();
        let reader = std::thread::spawn(move || {
            for said in lines.map_while(Result::ok).filter_map(|line| Said::parse(&line)) {
                if let Ok(mut ledger) = ledger.lock() {
                    ledger.note(said);
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

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap_or(1)).unwrap_or(0)
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).rev().for_each(|last| all.swap(last, self.below(last + 1)));
    }

    fn time(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.next() % (most_ms - least_ms))
    }
}

fn from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos())
}
