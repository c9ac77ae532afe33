//! What is killed: the agent's real spool and its real link in a process of their own, with applications that append
//! numbered records. Each number is printed once its record is durable: from then on it may not be lost unsaid. Each
//! record that is about to be dropped is printed too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flotilla_agent::app;
use flotilla_agent::config::{self, RawConfig};
use flotilla_agent::health::{Clock, Pulse, read_hardware};
use flotilla_agent::link::{Identity, Inputs, LinkState, Links, Reporter, Session};
use flotilla_agent::store::{Spool, SpoolHandle};
use protocol::Revision;
use protocol::message::Hello;
use protocol::telemetry::{DeviceEvent, Kind, LogLines};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ledger::{Listener, Said};

/// Applications that append at the same time.
const WRITERS: usize = 8;
/// Each of them pauses so long after a record.
const PAUSE: Duration = Duration::from_millis(40);
/// Bytes that a record is filled up with: an outage of seconds fills the spool.
const FILLING: usize = 3000;
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's state directory, enrolled.
    #[arg(long)]
    state: PathBuf,
    /// Append nothing; end when everything is sent, and print the last number and what was dropped.
    #[arg(long)]
    drain: bool,
    /// Offer so many records of each kind, whether or not they can be stored, and end in order.
    #[arg(long)]
    offer: Option<u64>,
}

/// Name of the events that carry a number.
pub(crate) const NUMBERED: &str = "numbered";

pub(crate) fn main(args: &Args) -> Result<()> {
    tracing::subscriber::set_global_default(Listener)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clock = Clock::open(&args.state)?;
    let config = config();
    let (spool, report) = Spool::open(&args.state, &config.spool, &clock)?;
    anyhow::ensure!(report.is_none(), "the spool was damaged: {report:?}");
    let handle = spool.handle();
    Said::opened(&handle)?.print();
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut session = session(&args.state, handle.clone(), clock, config.link)?;
        let running = stop.clone();
        let link = tokio::spawn(async move { session.run(&running).await });
        if args.drain {
            drained(&handle).await?;
        } else if let Some(records) = args.offer {
            offer(&handle, records).await;
        } else {
            let writers = (0..WRITERS).map(|writer| tokio::spawn(write(handle.clone(), writer)));
            for writer in writers.collect::<Vec<_>>() {
                writer.await?;
            }
        }
        stop.cancel();
        link.await.context("the link panicked")
    });
    drop(spool);
    ended
}

fn config() -> config::Config {
    let flags =
        ["link.backoff_max_s=1", "link.ack_timeout_s=2", "link.hello_every_s=5", "link.keep_alive_s=5"];
    let bounds = ["spool.max_bytes=1048576", "spool.event_max_bytes=524288", "spool.log_max_bytes=524288"];
    let spool = bounds.into_iter().chain(["spool.commit_after_ms=20"]);
    let raw = RawConfig::default().with_flags(flags.into_iter().chain(spool));
    raw.check().expect("these are valid keys and values")
}

/// One writer in four sends log lines, the others events.
fn kind_of(writer: usize) -> Kind {
    if writer % 4 == 3 { Kind::Log } else { Kind::Event }
}

async fn write(spool: SpoolHandle, writer: usize) {
    let kind = kind_of(writer);
    for n in 0_u64.. {
        let text = format!("{}:{writer}:{n}", std::process::id());
        let Ok(seq) = spool.append(kind, body(kind, &text)).await else { return };
        Said::Durable { seq, kind, text }.print();
        tokio::time::sleep(PAUSE).await;
    }
}

fn body(kind: Kind, text: &str) -> Vec<u8> {
    let filling = "x".repeat(FILLING);
    match kind {
        Kind::Log => encoded(&LogLines { command_id: text.into(), lines: vec![filling] }),
        _ => encoded(&DeviceEvent { name: NUMBERED.into(), detail: format!("{text} {filling}") }),
    }
}

/// Nobody waits for these: that is how an agent's own parts put records in.
async fn offer(spool: &SpoolHandle, records: u64) {
    for n in 0..records {
        for kind in [Kind::Event, Kind::Log] {
            spool.offer(kind, body(kind, &format!("{}:{kind:?}:{n}", std::process::id())));
        }
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for kind in [Kind::Event, Kind::Log] {
        Said::Offered { kind, records }.print();
    }
}

/// A record's CBOR.
fn encoded(record: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(record, &mut bytes).expect("memory takes every byte");
    bytes
}

async fn drained(spool: &SpoolHandle) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while spool.state().depth_records > 0 {
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "the spool does not drain: {:?}",
            spool.state()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = *spool.durable_seq().borrow();
    Said::Drained { last, dropped: spool.state().dropped }.print();
    Ok(())
}

fn session(state: &Path, spool: SpoolHandle, clock: Clock, link: config::Link) -> Result<Session> {
    let identity = Identity::load(state)?;
    let key = identity.report_key()?;
    let reporter = Reporter::open(state, identity.project.clone(), identity.device.clone(), key, &clock)?;
    let links = watch::Sender::new(Arc::new(Links::new(identity, &clock, app::terms(&link))?));
    let (reported_tx, changed) = watch::channel(());
    let (tasks_tx, tasks) = watch::channel(std::collections::BTreeMap::new());
    let (reports_tx, reports) = mpsc::channel(1);
    let (downlink, mut heard) = mpsc::channel(16);
    let inputs = Inputs {
        links: links.subscribe(),
        reporter,
        spool: spool.clone(),
        hello: Box::new({
            let clock = clock.clone();
            move || hello(&clock, &spool)
        }),
        changed,
        tasks,
        reports,
        downlink,
        state: watch::channel(LinkState::default()).0,
        boot_id: std::process::id().to_string(),
        clock,
        pulse: Pulse::default(),
        config_changes: watch::channel(link.clone()).1,
        config: link,
    };
    // What the parts of a whole agent would hold is held here as long as the process lives.
    tokio::spawn(async move {
        let _held = (links, reported_tx, tasks_tx, reports_tx);
        while heard.recv().await.is_some() {}
    });
    Ok(Session::new(inputs)?)
}

fn hello(clock: &Clock, spool: &SpoolHandle) -> Hello {
    Hello {
        at: clock.now(),
        agent_version: "0.1.0".into(),
        target: std::env::consts::ARCH.into(),
        boot_id: std::process::id().to_string(),
        uptime_s: 0,
        clock: protocol::message::Clock { floor: clock.floor(), is_plausible: true },
        hardware: read_hardware("rig"),
        labels: std::collections::BTreeMap::new(),
        desired_revision: Revision::default(),
        models: Vec::new(),
        spool: spool.state(),
        metadata: None,
        problems: Vec::new(),
    }
}
