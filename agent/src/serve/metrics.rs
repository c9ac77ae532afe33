//! `GET /metrics` in Prometheus' text format.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use protocol::ModelName;
use serde_json::Value;

use super::work::Api;
use crate::monitor::{ShadowTally, Totals};

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let mut page = Page::default();
    page.family("flotilla_agent_info", "gauge", "Version of the agent.");
    page.sample("flotilla_agent_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    models(&mut page, &api);
    shadow(&mut page, &api);
    capture(&mut page, &api);
    let status = (api.status)();
    agent(&mut page, &status);
    spool(&mut page, &status);
    page.family("flotilla_requests_waiting", "gauge", "Inferences that wait or run.");
    page.sample("flotilla_requests_waiting", &[], api.waiting());
    page.family("flotilla_overloads_total", "counter", "Inferences refused because the queue was full.");
    page.sample("flotilla_overloads_total", &[], api.overloads.load(Ordering::Relaxed));
    page.family(
        "flotilla_answers_lost_total",
        "counter",
        "Answers that the local broker did not acknowledge.",
    );
    page.sample("flotilla_answers_lost_total", &[], api.lost_answers.load(Ordering::Relaxed));
    page.family("flotilla_panes_closed_total", "counter", "Panes handed to the telemetry spool.");
    page.sample("flotilla_panes_closed_total", &[], api.monitor.panes());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
}

fn models(page: &mut Page, api: &Api) {
    page.family("flotilla_model_info", "gauge", "The release that serves.");
    for loaded in api.table.all_active() {
        let labels: [(&str, &dyn Display); 4] = [
            ("model", &loaded.model),
            ("version", &loaded.release.version),
            ("variant", &loaded.variant),
            ("digest", &loaded.release.digest),
        ];
        page.sample("flotilla_model_info", &labels, 1);
    }
    let totals = api.monitor.totals();
    let families: [(&str, &str, Read); 5] = [
        ("flotilla_inferences_total", "Requests that a model answered.", |t| t.answered),
        ("flotilla_inference_failures_total", "Requests that failed by the model's fault.", |t| t.failed),
        ("flotilla_inference_refusals_total", "Requests refused for the caller's fault.", |t| t.refused),
        ("flotilla_labels_total", "True labels that came later.", |t| t.labels),
        ("flotilla_labels_right_total", "Labels that the model had said.", |t| t.right),
    ];
    for (name, help, value) in families {
        page.family(name, "counter", help);
        for (model, totals) in &totals {
            page.sample(name, &[("model", model)], value(totals));
        }
    }
    page.family(
        "flotilla_labels_unmatched_total",
        "counter",
        "Labels that came too late, or for no inference.",
    );
    page.sample("flotilla_labels_unmatched_total", &[], api.monitor.late_labels());
    page.family("flotilla_inference_duration_seconds", "histogram", "Time of one inference.");
    for (model, totals) in &totals {
        page.latency(model, totals);
    }
    page.family("flotilla_inference_seconds_total", "counter", "Time spent in inference.");
    for (model, totals) in &totals {
        page.sample("flotilla_inference_seconds_total", &[("model", model)], totals.busy_us as f64 / 1e6);
    }
}

/// What the status tells about the agent itself. What it doesn't know has no sample.
fn agent(page: &mut Page, status: &Value) {
    page.family("flotilla_connected", "gauge", "1 while there is a session with the server.");
    page.sample("flotilla_connected", &[], u8::from(status["is_online"] == true));
    let seconds: [(&str, &str, Option<i64>); 3] = [
        ("flotilla_uptime_seconds", "Since the agent's start.", status["uptime_s"].as_i64()),
        (
            "flotilla_certificate_expires_seconds",
            "When the device's certificate ends, in seconds since 1970.",
            status["certificate_expires"].as_i64().map(|ms| ms.div_euclid(1000)),
        ),
        (
            "flotilla_metadata_expires_seconds",
            "When the signed metadata expires, in seconds since 1970.",
            status.pointer("/metadata/expires").and_then(Value::as_i64).map(|ms| ms.div_euclid(1000)),
        ),
    ];
    for (name, help, value) in seconds {
        page.family(name, "gauge", help);
        if let Some(value) = value {
            page.sample(name, &[], value);
        }
    }
}

/// What the status tells about the telemetry spool.
fn spool(page: &mut Page, status: &Value) {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let figures: [(&str, &str, &str, &str); 6] = [
        ("flotilla_spool_records", "gauge", "Records that wait for the server.", "/spool/depth_records"),
        ("flotilla_spool_bytes", "gauge", "Their size.", "/spool/depth_bytes"),
        (
            "flotilla_spool_memory_records",
            "gauge",
            "Records that were accepted and are not on disk yet.",
            "/spool_figures/in_memory_records",
        ),
        (
            "flotilla_spool_merged_panes_total",
            "counter",
            "Panes merged into wider ones because the spool was full.",
            "/spool_figures/merged_panes",
        ),
        (
            "flotilla_written_today_bytes",
            "gauge",
            "Bytes written to flash today (UTC).",
            "/spool_figures/written_today_bytes",
        ),
        (
            "flotilla_write_budget_bytes",
            "gauge",
            "Bytes that may be written in a day; 0: no bound.",
            "/spool_figures/write_bytes_per_day",
        ),
    ];
    for (name, kind, help, path) in figures {
        page.family(name, kind, help);
        page.sample(name, &[], number(path));
    }
    page.family("flotilla_spool_kind_bytes", "gauge", "What waits for the server of each kind of record.");
    for waiting in status["spool_kinds"].as_array().into_iter().flatten() {
        let (kind, bytes) = (waiting["kind"].as_str().unwrap_or("?"), waiting["bytes"].as_u64().unwrap_or(0));
        page.sample("flotilla_spool_kind_bytes", &[("kind", &kind)], bytes);
    }
    page.family("flotilla_spool_dropped_total", "counter", "Records lost since the stream began.");
    for loss in status["spool"]["dropped"].as_array().into_iter().flatten() {
        let (kind, cause) = (loss["kind"].as_str().unwrap_or("?"), loss["cause"].as_str().unwrap_or("?"));
        let count = loss["count"].as_u64().unwrap_or(0);
        page.sample("flotilla_spool_dropped_total", &[("kind", &kind), ("cause", &cause)], count);
    }
}

/// What candidates that run beside have said.
fn shadow(page: &mut Page, api: &Api) {
    let tallies = api.monitor.shadow().tallies();
    let families: [(&str, &str, ReadShadow); 4] = [
        ("flotilla_shadow_compared_total", "Items whose answers by a candidate were compared.", |t| {
            t.compared
        }),
        ("flotilla_shadow_agreed_total", "Those that agree in all with what was answered.", |t| t.agreed),
        ("flotilla_shadow_failed_total", "Items that a candidate failed.", |t| t.failed),
        ("flotilla_shadow_skipped_total", "Items that it did not get for want of CPU.", |t| t.skipped),
    ];
    for (name, help, value) in families {
        page.family(name, "counter", help);
        for tally in &tallies {
            page.sample(name, &[("model", &tally.model), ("version", &tally.version)], value(tally));
        }
    }
}

/// What became of samples for retraining.
fn capture(page: &mut Page, api: &Api) {
    let figures = api.monitor.capture().figures();
    page.family("flotilla_samples_taken_total", "counter", "Samples kept for retraining.");
    for (strategy, count) in &figures.taken {
        page.sample("flotilla_samples_taken_total", &[("strategy", strategy)], count);
    }
    page.family("flotilla_samples_dropped_total", "counter", "Samples that will not get to the server.");
    for (cause, count) in &figures.dropped {
        page.sample("flotilla_samples_dropped_total", &[("cause", &cause.as_str())], count);
    }
    let rest = [
        (
            "flotilla_samples_uploaded_total",
            "counter",
            "Samples that the server has stored.",
            figures.uploaded,
        ),
        ("flotilla_samples_waiting", "gauge", "Samples that wait for the server.", figures.waiting),
        ("flotilla_samples_bytes", "gauge", "Their size on disk.", figures.waiting_bytes),
    ];
    for (name, kind, help, value) in rest {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
}

/// Takes one figure out of the totals.
type Read = fn(&Totals) -> u64;
/// The same for what a candidate has said.
type ReadShadow = fn(&ShadowTally) -> u64;

/// A page under construction.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a string can't fail");
    }

    fn latency(&mut self, model: &ModelName, totals: &Totals) {
        let name = "flotilla_inference_duration_seconds";
        let bucket = format!("{name}_bucket");
        for (end_us, count) in totals.latency.up_to() {
            self.sample(&bucket, &[("model", model), ("le", &(end_us as f64 / 1e6))], count);
        }
        self.sample(&bucket, &[("model", model), ("le", &"+Inf")], totals.answered);
        self.sample(&format!("{name}_sum"), &[("model", model)], totals.busy_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[("model", model)], totals.answered);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("writing to a string can't fail");
    }
}

fn escape(text: &dyn Display) -> String {
    text.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::default();
        page.sample("m", &[("k", &"a\"b\\c\nd")], 1);
        assert_eq!(page.0, "m{k=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
