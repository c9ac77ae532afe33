//! What the device says about itself, and what it does on a word of the server: small closures that the composition
//! root hands to the parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::UnixMillis;
use protocol::message::{Clock as ClockState, Command, CommandAction, Hello};
use protocol::telemetry::{Kind, LogLines};
use serde::Serialize;
use tokio::sync::watch;

use super::Run;
use crate::health::{Clock, LogRing};
use crate::link::Links;
use crate::monitor::{self, Monitor};
use crate::serve;
use crate::store::SpoolHandle;
use crate::update::Reported;

pub(super) type MakeHello = Arc<dyn Fn() -> Hello + Send + Sync>;

pub(super) fn hello(
    run: Run,
    labels: BTreeMap<String, String>,
    reported: watch::Receiver<Reported>,
    spool: SpoolHandle,
) -> MakeHello {
    Arc::new(move || {
        let Reported { revision, models, metadata, mut problems } = reported.borrow().clone();
        problems.extend(spool.problem());
        Hello {
            at: run.clock.now(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            target: env!("FLOTILLA_TARGET").into(),
            boot_id: run.boot_id.clone(),
            uptime_s: run.started.elapsed().as_secs(),
            clock: ClockState { floor: run.clock.floor(), is_plausible: run.clock.is_plausible() },
            hardware: run.hardware.clone(),
            labels: labels.clone(),
            desired_revision: revision,
            models,
            spool: spool.state(),
            metadata: metadata.map(|freshness| freshness.state(run.clock.now())),
            problems,
        }
    })
}

pub(super) fn status(
    run: &Run,
    links: &watch::Sender<Arc<Links>>,
    hello: MakeHello,
    online: watch::Receiver<bool>,
) -> serve::StatusSource {
    let links = links.subscribe();
    let started_at: UnixMillis = run.clock.now();
    Arc::new(move || {
        let identity = &links.borrow().identity;
        let mut status = serde_json::to_value(hello()).unwrap_or_default();
        if let serde_json::Value::Object(fields) = &mut status {
            fields.insert("project".into(), identity.project.as_str().into());
            fields.insert("device".into(), identity.device.as_str().into());
            fields.insert("is_online".into(), (*online.borrow()).into());
            fields.insert("started_at".into(), started_at.0.into());
        }
        status
    })
}

pub(super) fn commands(
    spool: SpoolHandle,
    monitor: Arc<Monitor>,
    logs: LogRing,
    clock: Clock,
) -> Box<dyn Fn(Command) + Send + Sync> {
    Box::new(move |command| match command.action {
        CommandAction::FlushPanes { model } => monitor.flush(Some(&model), clock.now()),
        CommandAction::CollectLogs { max_lines } => {
            let lines = logs.newest(usize::try_from(max_lines).unwrap_or(usize::MAX));
            offer(&spool, Kind::Log, &LogLines { command_id: command.id, lines });
        }
        CommandAction::Refresh | CommandAction::ReportFloor { .. } | CommandAction::WidenJitter { .. } => {}
    })
}

/// Closes panes in time and reads the device's resources.
pub(super) async fn watch_over(
    monitor: Arc<Monitor>,
    spool: SpoolHandle,
    clock: Clock,
    (state_dir, every): (std::path::PathBuf, Duration),
    stop: tokio_util::sync::CancellationToken,
) {
    let mut panes = tokio::time::interval(Duration::from_secs(1));
    let mut resources = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = panes.tick() => monitor.tick(clock.now()),
            _ = resources.tick() => {
                let dir = state_dir.clone();
                if let Ok(read) = tokio::task::spawn_blocking(move || monitor::read_resources(&dir)).await {
                    offer(&spool, Kind::Resources, &read);
                }
            }
        }
    }
}

pub(super) fn offer(spool: &SpoolHandle, kind: Kind, body: &impl Serialize) {
    let mut bytes = Vec::new();
    if ciborium::into_writer(body, &mut bytes).is_ok() {
        spool.offer(kind, bytes);
    }
}
