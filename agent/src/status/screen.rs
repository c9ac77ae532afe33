//! The one screen of `status`: what runs, since when, what waits, what is wrong and what to do about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use protocol::message::{Hello, Loss, ModelState};
use protocol::telemetry::Resources;
use protocol::{ModelName, ReleaseRef, UnixMillis};
use serde::Deserialize;
use serde_json::Value;

use crate::health::ShownProblem;
use crate::monitor::{CaptureFigures, ShadowTally};
use crate::shown::{bytes, duration, instant};
use crate::store::{Figures, WaitingKind};
use crate::update::{Measuring, MeasuringState};

/// What `/status` says beside hello. Everything may be missing: the agent may be an older one.
#[derive(Deserialize, Default)]
#[serde(default)]
struct More {
    project: String,
    device: String,
    is_online: bool,
    link: Link,
    active_since: BTreeMap<ModelName, UnixMillis>,
    certificate_expires: Option<UnixMillis>,
    resources: Option<Resources>,
    spool_max_bytes: u64,
    spool_figures: Option<Figures>,
    spool_kinds: Vec<WaitingKind>,
    attention: Vec<ShownProblem>,
    serving: Vec<Value>,
    shadow: Vec<ShadowTally>,
    measuring: Vec<Measuring>,
    capture: CaptureFigures,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Link {
    since: Option<UnixMillis>,
    server: String,
}

/// The whole screen, as of the device's own time.
pub fn screen(status: &Value) -> String {
    let (Ok(hello), Ok(more)) =
        (serde_json::from_value::<Hello>(status.clone()), serde_json::from_value::<More>(status.clone()))
    else {
        return format!("{status:#}\n");
    };
    let mut screen = Screen { out: String::new(), now: hello.at };
    screen.head(&hello, &more);
    for model in &hello.models {
        screen.model(model, &more);
    }
    if hello.models.is_empty() {
        screen.line("models", "none yet: the fleet has not asked for one");
    }
    for measuring in &more.measuring {
        screen.measuring(measuring);
    }
    screen.telemetry(&hello, &more);
    screen.samples(&more.capture);
    screen.trust(&hello, &more);
    if let Some(resources) = more.resources {
        screen.device(&resources, &hello);
    }
    screen.attention(&more.attention, &hello.problems);
    screen.out
}

struct Screen {
    out: String,
    now: UnixMillis,
}

impl Screen {
    fn line(&mut self, name: &str, text: &str) {
        let _infallible = writeln!(self.out, "  {name:<11} {text}");
    }

    fn since(&self, at: UnixMillis) -> String {
        format!("since {} ({})", instant(at), duration(self.now.millis_since(at)))
    }

    fn head(&mut self, hello: &Hello, more: &More) {
        let up = i64::try_from(hello.uptime_s).unwrap_or(i64::MAX).saturating_mul(1000);
        let _infallible = writeln!(
            self.out,
            "{}/{}  flotilla-agent {}  up {}",
            more.project,
            more.device,
            hello.agent_version,
            duration(up)
        );
        let word = if more.is_online { "connected" } else { "NOT connected" };
        let since = more.link.since.map_or("for the first time yet".to_owned(), |at| self.since(at));
        self.line("server", &format!("{word} {since}, {}", more.link.server));
    }

    fn model(&mut self, model: &ModelState, more: &More) {
        let stats = more.serving.iter().find(|one| one["name"] == model.model.as_str());
        let variant = stats.and_then(|one| one["variant"].as_str());
        let active = match (&model.active, variant) {
            (Some(release), Some(variant)) => format!("{} {variant}", release.version),
            (Some(release), None) => format!("{} NOT loaded", release.version),
            (None, _) => "nothing active".to_owned(),
        };
        let since = more.active_since.get(&model.model).map(|at| self.since(*at)).unwrap_or_default();
        self.line("model", format!("{} {active}  {since}", model.model).trim_end());
        if let Some(stats) = stats {
            let count = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
            let (answered, failed) = (count("/execution_count"), count("/inference_stats/fail/count"));
            let text = match (answered + failed, count("/since_activation/p95_us")) {
                (0, _) => "nothing asked since the start".to_owned(),
                // Nobody has asked this release yet.
                (_, 0) => format!("{answered} answered, {failed} failed since the start"),
                (_, p95) => format!("{answered} answered, {failed} failed since the start; p95 {p95} µs"),
            };
            self.line("", &text);
        }
        let phase = serde_json::to_value(model.phase).ok();
        let phase = phase.as_ref().and_then(Value::as_str).unwrap_or("?");
        let of = |name: &str, release: &Option<ReleaseRef>| {
            release.as_ref().map(|release| format!(", {name} {}", release.version)).unwrap_or_default()
        };
        let update =
            format!("update {phase}{}{}", of("candidate", &model.candidate), of("fallback", &model.fallback));
        self.line("", &update);
        for shadow in more.shadow.iter().filter(|shadow| shadow.model == model.model.as_str()) {
            let ShadowTally { version, compared, agreed, failed, skipped, .. } = shadow;
            let text = format!(
                "{version} runs beside: {agreed} of {compared} items agree, {failed} items failed, {skipped} skipped"
            );
            self.line("", &text);
        }
    }

    fn measuring(&mut self, Measuring { model, version, variant, state, since }: &Measuring) {
        let state = match state {
            MeasuringState::Waiting => "waits",
            MeasuringState::Running => "is measured",
            MeasuringState::Ending => "was told to end, measured",
        };
        let since = self.since(*since);
        self.line("measurement", &format!("{model} {version} {variant} {state} {since}"));
    }

    fn telemetry(&mut self, hello: &Hello, more: &More) {
        let spool = &hello.spool;
        let bound = if more.spool_max_bytes > 0 {
            format!(" of {}", bytes(more.spool_max_bytes))
        } else {
            String::new()
        };
        let in_memory = match more.spool_figures.map_or(0, |figures| figures.in_memory_records) {
            0 => String::new(),
            records => format!(" on disk, {records} in memory"),
        };
        let waiting = format!(
            "{} records wait, {}{bound}{in_memory}; {}",
            spool.depth_records,
            bytes(spool.depth_bytes),
            lost(&spool.dropped)
        );
        self.line("telemetry", &waiting);
        let held_kinds = more.spool_kinds.iter().filter(|kind| kind.records > 0);
        let kinds: Vec<String> = held_kinds.map(|kind| held(kind, more)).collect();
        if !kinds.is_empty() {
            self.line("", &kinds.join(", "));
        }
        let Some(figures) = more.spool_figures else { return };
        let bound = match figures.write_bytes_per_day {
            0 => String::new(),
            bound => format!(" of {}", bytes(bound)),
        };
        let merged = match figures.merged_panes {
            0 => String::new(),
            panes => format!("; {panes} panes merged into wider ones"),
        };
        let sealed = if figures.is_encrypted { "; encrypted" } else { "" };
        self.line(
            "",
            &format!("{} written to flash today{bound}{merged}{sealed}", bytes(figures.written_today_bytes)),
        );
    }

    fn samples(&mut self, figures: &CaptureFigures) {
        if !figures.is_worth_telling() {
            return;
        }
        let all = |counts: &mut dyn Iterator<Item = (&str, u64)>| {
            counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let taken = all(&mut figures.taken.iter().map(|(strategy, count)| (strategy.as_str(), *count)));
        let dropped = all(&mut figures.dropped.iter().map(|(cause, count)| (cause.as_str(), *count)));
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let consent = if figures.is_on { "" } else { "no consent; " };
        self.line("samples", &format!("{consent}taken: {}; dropped: {}", or_none(taken), or_none(dropped)));
        let text = format!(
            "{} at the server, {} wait, {} of {}",
            figures.uploaded,
            figures.waiting,
            bytes(figures.waiting_bytes),
            bytes(figures.quota_bytes)
        );
        self.line("", &text);
    }

    fn trust(&mut self, hello: &Hello, more: &More) {
        let metadata = match hello.metadata {
            Some(metadata) => format!(
                "version {}, {} old, {}",
                metadata.timestamp_version,
                duration(i64::try_from(metadata.age_s).unwrap_or(i64::MAX).saturating_mul(1000)),
                self.expiry(metadata.expires)
            ),
            None => "none yet".to_owned(),
        };
        self.line("metadata", &metadata);
        if let Some(expires) = more.certificate_expires {
            let expiry = self.expiry(expires);
            self.line("certificate", &expiry);
        }
    }

    fn expiry(&self, at: UnixMillis) -> String {
        let left = at.millis_since(self.now);
        if left > 0 {
            format!("expires in {} ({})", duration(left), instant(at))
        } else {
            format!("EXPIRED {} ago ({})", duration(-left), instant(at))
        }
    }

    fn device(&mut self, resources: &Resources, hello: &Hello) {
        let temperature = resources.temperature_c.map(|c| format!(", {c:.0} °C")).unwrap_or_default();
        let text = format!(
            "{} memory, {} on disk, {} free, load {:.2} on {} CPUs{temperature}",
            bytes(resources.rss_bytes),
            bytes(resources.disk_used_bytes),
            bytes(resources.disk_free_bytes),
            resources.load1,
            hello.hardware.cpus
        );
        self.line("uses", &text);
    }

    fn attention(&mut self, attention: &[ShownProblem], problems: &[String]) {
        if attention.is_empty() && problems.is_empty() {
            return self.line("problems", "none");
        }
        for problem in attention {
            self.line("PROBLEM", &problem.what);
            self.line("  do", &problem.todo);
        }
        // An older agent says no more than this.
        for problem in problems.iter().filter(|_| attention.is_empty()) {
            self.line("PROBLEM", problem);
        }
    }
}

fn lost(dropped: &[Loss]) -> String {
    if dropped.iter().all(|loss| loss.count == 0) {
        return "nothing lost since the stream began".to_owned();
    }
    let word = |value: Value| value.as_str().unwrap_or("?").to_owned();
    let each: Vec<String> = dropped
        .iter()
        .filter_map(|loss| {
            let kind = word(serde_json::to_value(loss.kind).ok()?);
            let cause = word(serde_json::to_value(loss.cause).ok()?);
            Some(format!("{} {kind} {cause}", loss.count))
        })
        .collect();
    format!("LOST so far: {}", each.join(", "))
}

/// What waits of a kind, and its bound where that is another than the bound of all.
fn held(WaitingKind { kind, bytes: held, max_bytes, .. }: &WaitingKind, more: &More) -> String {
    let kind = serde_json::to_value(kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("?");
    let bound =
        if *max_bytes < more.spool_max_bytes { format!(" of {}", bytes(*max_bytes)) } else { String::new() };
    format!("{kind} {}{bound}", bytes(*held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> Value {
        json!({
            "at": 100_000_000, "agent_version": "0.1.0", "target": "t", "boot_id": "b", "uptime_s": 3700,
            "clock": { "floor": 0, "is_plausible": true },
            "hardware": { "arch": "x86_64", "class": "c", "cpu_features": [], "cpus": 2, "memory_bytes": 1 },
            "desired_revision": 1,
            "models": [{ "model": "digits", "candidate": null, "fallback": null, "phase": "committed",
                "active": { "version": "1.0.0", "digest": "00".repeat(32), "counter": 1 } }],
            "spool": { "stream": "s", "depth_records": 3, "depth_bytes": 2048,
                "dropped": [{ "kind": "log", "cause": "full", "count": 2 }] },
            "metadata": null, "problems": ["x"],
            "project": "demo", "device": "cam-1", "is_online": false,
            "link": { "since": 99_000_000, "why": "w", "server": "mqtts://h:1" },
            "active_since": { "digits": 10_000_000 },
            "certificate_expires": 90_000_000,
            "spool_max_bytes": 1_048_576,
            "spool_kinds": [
                { "kind": "pane", "records": 1, "bytes": 1536, "max_bytes": 1_048_576 },
                { "kind": "log", "records": 2, "bytes": 512, "max_bytes": 524_288 },
            ],
            "attention": [{ "kind": "offline", "what": "no connection", "todo": "run doctor" }],
            "serving": [{ "name": "digits", "variant": "int8", "execution_count": 7 }],
            "measuring": [
                { "model": "digits", "version": "1.1.0", "variant": "f32", "state": "running", "since": 99_990_000 },
                { "model": "faces", "version": "2.0.0", "variant": "int8", "state": "waiting", "since": 99_940_000 },
            ],
        })
    }

    #[test]
    fn the_screen_says_what_runs_since_when_what_waits_what_is_wrong_and_what_to_do() {
        let screen = screen(&status());
        for part in [
            "demo/cam-1  flotilla-agent 0.1.0  up 1 h 1 min",
            "NOT connected since 1970-01-02T03:30:00Z (16 min 40 s), mqtts://h:1",
            "digits 1.0.0 int8  since 1970-01-01T02:46:40Z (1 d 1 h)",
            "7 answered, 0 failed",
            "3 records wait, 2.0 KiB of 1.0 MiB; LOST so far: 2 log full",
            "pane 1.5 KiB, log 512 B of 512.0 KiB",
            "measurement digits 1.1.0 f32 is measured since 1970-01-02T03:46:30Z (10 s)",
            "measurement faces 2.0.0 int8 waits since 1970-01-02T03:45:40Z (1 min 0 s)",
            "EXPIRED 2 h 46 min ago",
            "PROBLEM     no connection\n    do        run doctor",
        ] {
            assert!(screen.contains(part), "{part} is missing in\n{screen}");
        }
        assert!(screen.lines().count() < 20, "one screen");
    }

    #[test]
    fn a_model_that_nobody_asks_has_no_figures() {
        let mut status = status();
        status["serving"][0]["execution_count"] = json!(0);
        let screen = screen(&status);
        assert!(screen.contains("nothing asked since the start") && !screen.contains("p95"), "{screen}");
    }

    #[test]
    fn an_older_agents_status_is_shown_with_what_there_is() {
        let mut status = status();
        for key in
            ["link", "active_since", "attention", "serving", "spool_max_bytes", "spool_kinds", "measuring"]
        {
            status.as_object_mut().unwrap().remove(key);
        }
        let screen = screen(&status);
        assert!(screen.contains("digits 1.0.0 NOT loaded") && screen.contains("PROBLEM     x"), "{screen}");
    }
}
