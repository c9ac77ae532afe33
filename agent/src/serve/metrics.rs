//! `GET /metrics` in Prometheus' text format.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::work::Api;
use crate::monitor::Totals;

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let mut page = Page::default();
    page.family("flotilla_agent_info", "gauge", "Version of the agent.");
    page.sample("flotilla_agent_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    models(&mut page, &api);
    page.family("flotilla_requests_waiting", "gauge", "Inferences that wait or run.");
    page.sample("flotilla_requests_waiting", &[], api.waiting());
    page.family("flotilla_overloads_total", "counter", "Inferences refused because the queue was full.");
    page.sample("flotilla_overloads_total", &[], api.overloads.load(Ordering::Relaxed));
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
    page.family("flotilla_inference_seconds_total", "counter", "Time spent in inference.");
    for (model, totals) in &totals {
        page.sample("flotilla_inference_seconds_total", &[("model", model)], totals.busy_us as f64 / 1e6);
    }
}

/// Takes one figure out of the totals.
type Read = fn(&Totals) -> u64;

/// A page under construction.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a string can't fail");
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
