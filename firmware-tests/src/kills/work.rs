//! What is killed: the agent's real spool and its real link in a process of their own, with applications that append
//! numbered records. Each number is printed once its record is durable: from then on it may not be lost unsaid.

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
}

/// Name of the events that carry a number.
pub(crate) const NUMBERED: &str = "numbered";

pub(crate) fn main(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clock = Clock::open(&args.state)?;
    let config = config();
    let (spool, report) = Spool::open(&args.state, &config.spool, &clock)?;
    anyhow::ensure!(report.is_none(), "the spool was damaged: {report:?}");
    let handle = spool.handle();
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut session = session(&args.state, handle.clone(), clock, config.link)?;
        let running = stop.clone();
        let link = tokio::spawn(async move { session.run(&running).await });
        if args.drain {
            drained(&handle).await?;
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
    let (kind, filling) = (kind_of(writer), "x".repeat(FILLING));
    for n in 0_u64.. {
        let text = format!("{}:{writer}:{n}", std::process::id());
        let body = match kind {
            Kind::Log => encoded(&LogLines { command_id: text.clone(), lines: vec![filling.clone()] }),
            _ => encoded(&DeviceEvent { name: NUMBERED.into(), detail: format!("{text} {filling}") }),
        };
        let Ok(seq) = spool.append(kind, body).await else { return };
        println!("durable {seq} {writer} {text}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Number, kind and text of a line that says that a record is durable.
pub(crate) fn durable_of(line: &str) -> Option<(u64, Kind, String)> {
    let mut words = line.strip_prefix("durable ")?.split(' ');
    let seq = words.next()?.parse().ok()?;
    Some((seq, kind_of(words.next()?.parse().ok()?), words.next()?.to_owned()))
}

/// A record's body.
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
    println!("drained {}", serde_json::json!({ "last": last, "dropped": spool.state().dropped }));
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
