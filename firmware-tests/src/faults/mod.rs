//! One fleet, one fault after the other. Each asserts what the product itself says and what its users see, then
//! tells it in one line; a fault that can't be made on this machine is skipped by name.

mod aborted;
mod broker;
mod budget;
mod capture;
mod clock;
mod damaged;
mod disk;
mod disk_errors;
mod doctor;
mod enrolment;
mod failing_disk;
mod fence;
mod forgotten;
mod hardware;
mod idle;
mod input;
mod ipv6;
mod keys;
mod limits;
mod measured;
mod model;
mod offline;
mod power;
mod proxy;
mod renewal;
mod restored;
mod revision;
mod server;
mod server_keys;
mod shadow;
mod stolen;
mod tampered;
mod telemetry;
mod thief;
mod users;
mod watchdog;
mod widening;
mod withdrawn;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

pub(crate) use disk::SmallDisk;
use world::World;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of flotilla-server, flotilla-agent and flotilla.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder of examples/digits.
    #[arg(long, default_value = "examples/digits")]
    example: PathBuf,
    /// Folder to work in; cleared first.
    #[arg(long)]
    folder: PathBuf,
    /// Only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
}

/// The faults, in the order they are played: those that count telemetry exactly come before those that cut an
/// agent's power, because the open pane of an agent is in its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Fault {
    /// Wrong, expired and used enrolment tokens.
    Enrolment,
    /// Users that the command line makes, and a forgotten password.
    Users,
    /// What the doctor, the status screen and the exit codes say about each of these.
    Doctor,
    /// Malformed requests at the local API.
    Input,
    /// A model that the runtime can't load.
    Model,
    /// Nothing happens.
    Idle,
    /// The server asks for wider reconnects, and is gone.
    Widening,
    /// A server that listens on IPv6 only.
    Ipv6,
    /// A server that is reached through a proxy only.
    Proxy,
    /// Certificates that hold for seconds.
    Renewal,
    /// The agent's own bounds of memory and processor.
    Limits,
    /// The disk hangs under the agent's work.
    Watchdog,
    /// A release for other hardware.
    Hardware,
    /// A release is measured on a device that doesn't run it.
    Measured,
    /// The server is killed in the middle of telemetry and of a rollout.
    Server,
    /// The broker doesn't answer for a while.
    Broker,
    /// A candidate that runs beside and is compared.
    Shadow,
    /// A rollout is aborted while a device that never had the model fetches.
    Aborted,
    /// Unsigned and tampered releases.
    Tampered,
    /// Keys of every role are replaced; two people sign together; one leaves.
    Keys,
    /// A bad release is fenced off by an older one under a higher counter.
    Fence,
    /// A release is withdrawn while its rollout runs.
    Withdrawn,
    /// The whole server is in an attacker's hands.
    Stolen,
    /// The server's own keys, which somebody copied, are replaced while the fleet runs.
    ServerKeys,
    /// A thief signs the highest revision of Desired that there is.
    Revision,
    /// The device's disk is full.
    Disk,
    /// The device's disk fails each read and write.
    DiskErrors,
    /// The device boots in 1970.
    Clock,
    /// A release comes by an archive, without a network.
    Offline,
    /// The device's disk loses the release that serves.
    Damaged,
    /// The disk loses both copies of the boot record.
    Forgotten,
    /// Samples for retraining, with and without consent, over a dead server and a power cut.
    Capture,
    /// A budget of memory for all models together.
    Budget,
    /// The device's power is cut in the middle of updates.
    Power,
    /// The device's state goes back to an image of yesterday.
    Restored,
}

/// How a fault ended.
enum Outcome {
    /// As promised; the sentence tells what was seen.
    Ok(String),
    /// Not played; the sentence tells why.
    Skipped(String),
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let mut world = World::start(&args.binaries, &args.example, &args.folder)?;
    println!("  ok  fleet: a server and {} fed devices on 1.0.0", world.agents.len());
    let is_wanted = |fault: &Fault| args.only.is_empty() || args.only.contains(fault);
    for fault in Fault::value_variants().iter().copied().filter(is_wanted) {
        let start = Instant::now();
        let outcome = fault.play(&mut world).with_context(|| format!("fault {fault:?}"))?;
        let seconds = start.elapsed().as_secs();
        match outcome {
            Outcome::Ok(line) => println!("  ok  {line} ({seconds} s)"),
            Outcome::Skipped(why) => println!("  --  {fault:?} NOT played: {why}"),
        }
    }
    println!("faults took {} s", begun.elapsed().as_secs());
    Ok(())
}

impl Fault {
    fn play(self, world: &mut World) -> Result<Outcome> {
        match self {
            Self::Enrolment => enrolment::play(world),
            Self::Users => users::play(world),
            Self::Doctor => doctor::play(world),
            Self::Input => input::play(world),
            Self::Model => model::play(world),
            Self::Idle => idle::play(world),
            Self::Widening => widening::play(world),
            Self::Ipv6 => ipv6::play(world),
            Self::Proxy => proxy::play(world),
            Self::Renewal => renewal::play(world),
            Self::Limits => limits::play(world),
            Self::Watchdog => watchdog::play(world),
            Self::Hardware => hardware::play(world),
            Self::Measured => measured::play(world),
            Self::Server => server::play(world),
            Self::Broker => broker::play(world),
            Self::Shadow => shadow::play(world),
            Self::Aborted => aborted::play(world),
            Self::Tampered => tampered::play(world),
            Self::Keys => keys::play(world),
            Self::Fence => fence::play(world),
            Self::Withdrawn => withdrawn::play(world),
            Self::Stolen => stolen::play(world),
            Self::ServerKeys => server_keys::play(world),
            Self::Revision => revision::play(world),
            Self::Disk => disk::play(world),
            Self::DiskErrors => disk_errors::play(world),
            Self::Clock => clock::play(world),
            Self::Offline => offline::play(world),
            Self::Damaged => damaged::play(world),
            Self::Forgotten => forgotten::play(world),
            Self::Capture => capture::play(world),
            Self::Budget => budget::play(world),
            Self::Power => power::play(world),
            Self::Restored => restored::play(world),
        }
    }
}
