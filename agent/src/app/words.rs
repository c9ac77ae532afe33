//! What the device says about itself, and what it does on a word of the server: small closures that the composition
//! root hands to the parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::UnixMillis;
use protocol::measurement::Measurement;
use protocol::message::{Clock as ClockState, Command, CommandAction, Hello, UNKNOWN_COMMAND};
use protocol::telemetry::{DeviceEvent, Kind, LogLines, Resources};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Run;
use crate::health::{Clock, Footprint, LogRing, Problem, ProblemKind, unwritable};
use crate::inputs::Troubles;
use crate::link::http::Refusal;
use crate::link::{Identity, LinkState, Links};
use crate::monitor::{self, Monitor};
use crate::serve;
use crate::shown::bytes;
use crate::store::SpoolHandle;
use crate::update::{Measuring, Reported};

/// Room that the spool and the small files want beside an update.
const ROOM_FOR_ITSELF_BYTES: u64 = 8 * 1024 * 1024;

pub(super) type Problems = Arc<dyn Fn() -> Vec<Problem> + Send + Sync>;
/// The newest reading of the device's resources.
pub(super) type LastReading = Arc<Mutex<Option<Resources>>>;
pub(super) type MakeHello = Arc<dyn Fn() -> Hello + Send + Sync>;

pub(super) fn hello(
    run: Run,
    labels: BTreeMap<String, String>,
    reported: watch::Receiver<Reported>,
    spool: SpoolHandle,
    problems: Problems,
) -> MakeHello {
    Arc::new(move || {
        let Reported { revision, models, metadata, .. } = reported.borrow().clone();
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
            problems: problems().into_iter().map(|problem| problem.detail).collect(),
        }
    })
}

pub(super) fn status(
    run: &Run,
    links: &watch::Sender<Arc<Links>>,
    hello: MakeHello,
    problems: Problems,
    facts: Facts,
) -> serve::StatusSource {
    let links = links.subscribe();
    let (started_at, clock) = (run.clock.now(), run.clock.clone());
    Arc::new(move || {
        let links = links.borrow().clone();
        let state = facts.link.borrow().clone();
        let resources = *facts.resources.lock().unwrap_or_else(PoisonError::into_inner);
        let hello = hello();
        let mut attention = problems();
        attention.extend(noticed(&hello, &state, resources, &links.identity, &facts, clock.now()));
        let validity = links.identity.validity().ok();
        let more = json!({
            "project": links.identity.project,
            "device": links.identity.device,
            "is_online": state.is_online,
            "link": { "since": state.since, "why": state.why, "server": links.identity.mqtt_url },
            "started_at": started_at,
            "active_since": facts.reported.borrow().since,
            "certificate_expires": validity.map(|validity| validity.not_after),
            "resources": resources,
            "shadow": facts.monitor.shadow().tallies(),
            "measuring": *facts.measuring.borrow(),
            "capture": facts.monitor.capture().figures(),
            "spool_max_bytes": facts.spool.max_bytes(),
            "spool_kinds": facts.spool.waiting(),
            "spool_figures": facts.spool.figures(),
            "attention": attention.iter().map(Problem::shown).collect::<Vec<_>>(),
        });
        let mut status = serde_json::to_value(hello).unwrap_or_default();
        if let (Value::Object(fields), Value::Object(more)) = (&mut status, more) {
            fields.extend(more);
        }
        status
    })
}

/// What `status` tells beside hello.
pub(super) struct Facts {
    pub(super) link: watch::Receiver<LinkState>,
    pub(super) refusal: watch::Receiver<Option<Refusal>>,
    pub(super) reported: watch::Receiver<Reported>,
    pub(super) measuring: watch::Receiver<Vec<Measuring>>,
    pub(super) resources: LastReading,
    pub(super) monitor: Arc<Monitor>,
    pub(super) spool: SpoolHandle,
    pub(super) keep_free_bytes: u64,
}

/// What is wrong without any part having said so: the connection, expiry, room.
fn noticed(
    hello: &Hello,
    link: &LinkState,
    resources: Option<Resources>,
    identity: &Identity,
    facts: &Facts,
    now: UnixMillis,
) -> Vec<Problem> {
    let mut found = Vec::new();
    let refusal = facts.refusal.borrow().clone().filter(|_| !link.is_online);
    if let Some(Refusal { code, message }) = refusal {
        // It explains both the missing connection and a certificate that is not renewed.
        let detail = format!("the server does not let this device in: {message} ({code})");
        found.push(Problem::new(ProblemKind::NotAdmitted, detail));
    } else {
        let expiry = identity.validity().ok().and_then(|validity| validity.problem(now));
        found.extend(of_the_way(link, expiry, now));
    }
    if hello.metadata.is_some_and(|metadata| metadata.expires <= now) {
        let detail = "the signed metadata has expired; nothing new is accepted";
        found.push(Problem::new(ProblemKind::MetadataExpired, detail));
    }
    let (waiting, max_bytes) = (hello.spool.depth_bytes, facts.spool.max_bytes());
    if waiting > max_bytes / 10 * 8 {
        let detail = format!("{} of {} of telemetry wait", bytes(waiting), bytes(max_bytes));
        found.push(Problem::new(ProblemKind::SpoolFilling, detail));
    }
    let least = facts.keep_free_bytes.saturating_add(ROOM_FOR_ITSELF_BYTES);
    if let Some(free) = resources.map(|r| r.disk_free_bytes).filter(|free| *free < least) {
        let detail = format!(
            "{} are free on the disk of the state directory, {} should be",
            bytes(free),
            bytes(least)
        );
        found.push(Problem::new(ProblemKind::DiskLow, detail));
    }
    found
}

/// What is wrong with the connection and with the certificate that it needs.
fn of_the_way(link: &LinkState, mut expiry: Option<Problem>, now: UnixMillis) -> Vec<Problem> {
    // One that has expired explains the missing connection, and waiting mends neither.
    let expired = expiry.as_mut().filter(|expiry| expiry.kind == ProblemKind::CertificateExpired);
    let is_explained = expired.is_some();
    if let Some(problem) = expiry.as_mut().filter(|_| link.is_online || is_explained) {
        let but = if link.is_online { "but the server is connected: " } else { "" };
        let here = trust::format_rfc3339(now);
        let doubt = format!("; {but}if {here} is not the time, set this device's clock");
        problem.detail.push_str(&doubt);
    }
    let why = link.why.as_ref().filter(|_| !link.is_online && !is_explained);
    let offline =
        why.map(|why| Problem::new(ProblemKind::Offline, format!("no connection to the server: {why}")));
    offline.into_iter().chain(expiry).collect()
}

/// What is wrong as the parts say it: in hello and status.
pub(super) fn problems(
    reported: watch::Receiver<Reported>,
    clock: Clock,
    state_dir: PathBuf,
    spool: SpoolHandle,
    footprint: Footprint,
    inputs: Troubles,
    of_parts: impl Fn() -> Vec<Problem> + Send + Sync + 'static,
) -> Problems {
    Arc::new(move || {
        let mut all = reported.borrow().problems.clone();
        all.extend(clock.behind());
        all.extend(unwritable(&state_dir));
        all.extend(spool.problem());
        all.extend(spool.mishap());
        let figures = spool.figures();
        if figures.is_over_budget {
            let detail = format!(
                "{} of {} of flash writes are used up today; telemetry is committed less often",
                bytes(figures.written_today_bytes),
                bytes(figures.write_bytes_per_day)
            );
            all.push(Problem::new(ProblemKind::WriteBudget, detail));
        }
        all.extend(footprint.problem());
        all.extend(inputs.problems());
        all.extend(of_parts());
        all
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
        CommandAction::Unknown => {
            let version = env!("CARGO_PKG_VERSION");
            let detail = format!("{}: agent {version} doesn't know what this command asks for", command.id);
            tracing::warn!(id = command.id, "the server sent a command that this agent doesn't know");
            offer(&spool, Kind::Event, &DeviceEvent { name: UNKNOWN_COMMAND.into(), detail });
        }
        // The update machine and the link see to these.
        CommandAction::Refresh
        | CommandAction::Measure { .. }
        | CommandAction::ReportFloor { .. }
        | CommandAction::WidenJitter { .. } => {}
    })
}

/// Takes what measuring a release found to the server.
pub(super) fn measurements(spool: SpoolHandle) -> Box<dyn Fn(Measurement) + Send + Sync> {
    Box::new(move |measurement| offer(&spool, Kind::Measurement, &measurement))
}

/// Closes panes in time and reads the device's resources.
pub(super) async fn watch_over(
    monitor: Arc<Monitor>,
    spool: SpoolHandle,
    clock: Clock,
    (state_dir, every, last): (std::path::PathBuf, Duration, LastReading),
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
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                    offer(&spool, Kind::Resources, &read);
                }
            }
        }
    }
}

pub(super) fn offer(spool: &SpoolHandle, kind: Kind, body: &impl Serialize) {
    let mut encoded = Vec::new();
    if ciborium::into_writer(body, &mut encoded).is_ok() {
        spool.offer(kind, encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_expired_is_one_problem_and_explains_the_missing_connection() {
        let offline = LinkState { why: Some("TLS: no".into()), ..LinkState::default() };
        let online = LinkState { is_online: true, ..LinkState::default() };
        let told = |link: &LinkState, expiry: Option<ProblemKind>| {
            let found = of_the_way(link, expiry.map(|kind| Problem::new(kind, "c")), UnixMillis(0));
            found.into_iter().map(|problem| (problem.kind, problem.detail)).collect::<Vec<_>>()
        };
        let (expired, late) = (ProblemKind::CertificateExpired, ProblemKind::CertificateNotRenewed);
        let clock = "if 1970-01-01T00:00:00Z is not the time, set this device's clock";
        assert_eq!(told(&offline, Some(expired)), [(expired, format!("c; {clock}"))]);
        let connected = format!("c; but the server is connected: {clock}");
        assert_eq!(told(&online, Some(expired)), [(expired, connected)]);
        let no_connection = (ProblemKind::Offline, "no connection to the server: TLS: no".to_owned());
        assert_eq!(told(&offline, Some(late)), [no_connection.clone(), (late, "c".to_owned())]);
        assert_eq!(told(&offline, None), [no_connection]);
        assert_eq!(told(&online, None), []);
    }
}
