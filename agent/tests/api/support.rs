//! An agent's API in this process, and a client that looks at everything.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use flotilla_agent::config::{self, RawConfig};
use flotilla_agent::health::Pulse;
use flotilla_agent::monitor::{Capture, Monitor, Shadow};
use flotilla_agent::serve::{Api, Listening};
use flotilla_agent::slots::Table;
use flotilla_agent::store::Samples;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use profile::Pane;
use protocol::{ModelName, UnixMillis};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::digits;

pub(crate) const INFER: &str = "/v2/models/digits/infer";
pub(crate) const FEEDBACK: &str = "/v2/models/digits/feedback";

/// The API's limits with small ones for tests; flags as on the command line.
pub(crate) fn serve_config(flags: &[&str]) -> config::Serve {
    whole_config(flags).serve
}

fn whole_config(flags: &[&str]) -> config::Config {
    let ours = [
        "serve.listen=127.0.0.1:0",
        "serve.max_body_bytes=65536",
        "serve.timeout_ms=30000",
        "serve.max_wait_ms=30000",
    ];
    let flags = ours.iter().chain(flags).copied();
    RawConfig::default().with_flags(flags).check().unwrap()
}

pub(crate) struct Agent {
    pub(crate) address: String,
    pub(crate) api: Api,
    pub(crate) table: Table,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) panes: Arc<Mutex<Vec<Pane>>>,
    pub(crate) clock: Arc<Mutex<UnixMillis>>,
    /// Inferences wait here, with their turns.
    pub(crate) gate: Gate,
    pub(crate) pulse: Pulse,
    client: Client<HttpConnector, Full<Bytes>>,
    _folder: tempfile::TempDir,
    pub(crate) stop: CancellationToken,
}

/// Open, unless somebody holds it: then who infers waits before it answers, however fast it is.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// The gate opens when this is dropped.
pub(crate) struct Held(Gate);

impl Gate {
    pub(crate) fn hold(&self) -> Held {
        *self.0.0.lock().unwrap() = true;
        Held(self.clone())
    }

    fn pass(&self) {
        let (is_held, opened) = &*self.0;
        drop(opened.wait_while(is_held.lock().unwrap(), |is_held| *is_held).unwrap());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (is_held, opened) = &*self.0.0;
        *is_held.lock().unwrap() = false;
        opened.notify_all();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
    pub(crate) text: String,
    /// What stands behind the JSON.
    pub(crate) behind: Vec<u8>,
}

impl Agent {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let panes: Arc<Mutex<Vec<Pane>>> = Arc::default();
        let sink = Arc::clone(&panes);
        let limits = config::Monitor {
            pane_window: Duration::from_secs(10),
            resources_every: Duration::from_mins(1),
            label_ttl: Duration::from_secs(100),
            labels_remembered: 1000,
        };
        let sink = Box::new(move |_, body: Vec<u8>| sink.lock().unwrap().push(Pane::decode(&body).unwrap()));
        let table = Table::default();
        let config = whole_config(flags);
        let folder = tempfile::tempdir().unwrap();
        let samples = Samples::open(folder.path(), &config.spool, UnixMillis(1_000_000));
        let capture = Arc::new(Capture::new(config.capture, samples, 7));
        let monitor = Arc::new(Monitor::new(&limits, 7, Shadow::new(table.clone(), 10), capture, sink));
        let clock = Arc::new(Mutex::new(UnixMillis(1_000_000)));
        let (gate, now) = (Gate::default(), Arc::clone(&clock));
        // Who has inferred asks for the time, and still has its turn then.
        let passed = gate.clone();
        let limits = config.serve;
        let api = Api::new(
            &limits,
            table.clone(),
            Arc::clone(&monitor),
            7,
            Arc::new(move || {
                passed.pass();
                *now.lock().unwrap()
            }),
            Arc::new(|| json!({"agent": "test"})),
        );
        let listening = Listening::open(&limits).await.unwrap();
        let address = listening.places().split(' ').next().unwrap_or_default().to_owned();
        let stop = CancellationToken::new();
        let pulse = Pulse::default();
        tokio::spawn(listening.start(api.clone(), pulse.clone(), stop.clone()).unwrap());
        // A refused body ends its connection; the next request must not find that one in the pool.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { address, api, table, monitor, panes, clock, gate, pulse, client, _folder: folder, stop }
    }

    pub(crate) async fn serving(version: &str) -> Self {
        let agent = Self::start(&[]).await;
        agent.activate(version);
        agent
    }

    pub(crate) fn activate(&self, version: &str) {
        self.activate_with(version, &json!({}));
    }

    /// The same with the release's privacy policy.
    pub(crate) fn activate_with(&self, version: &str, privacy: &Value) {
        let loaded = digits::loaded_with(version, privacy);
        self.monitor.activated(&loaded.model, loaded.release.digest);
        self.table.swap(loaded);
    }

    /// Inferences that wait or run now.
    pub(crate) async fn waiting(&self) -> Option<usize> {
        let page = self.get("/metrics").await.text;
        page.lines().find_map(|line| line.strip_prefix("flotilla_requests_waiting ")?.parse().ok())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Vec::new()).await
    }

    /// As a browser asks that was led here by another name.
    pub(crate) async fn get_as(&self, host: &str, path: &str) -> Answer {
        let request = Request::get(format!("http://{}{path}", self.address)).header(header::HOST, host);
        self.sent(request.body(Full::new(Bytes::new())).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, serde_json::to_vec(body).unwrap()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body))).unwrap();
        self.sent(request).await
    }

    /// A request whose first `json_len` bytes are JSON.
    pub(crate) async fn post_binary(&self, path: &str, json_len: usize, body: Vec<u8>) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::post(uri).header("Inference-Header-Content-Length", json_len);
        self.sent(request.body(Full::new(Bytes::from(body))).unwrap()).await
    }

    async fn sent(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.client.request(request).await.unwrap();
        let status = response.status();
        let json_len = response.headers().get("Inference-Header-Content-Length");
        let json_len = json_len.map(|len| len.to_str().unwrap().parse::<usize>().unwrap());
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let (json, behind) = bytes.split_at(json_len.unwrap_or(bytes.len()));
        let text = String::from_utf8_lossy(json).into_owned();
        let body = serde_json::from_slice(json).unwrap_or(Value::Null);
        Answer { status, retry_after, body, text, behind: behind.to_vec() }
    }

    pub(crate) async fn refused(&self, path: &str, body: Vec<u8>, status: StatusCode, words: &str) {
        let answer = self.send("POST", path, body).await;
        let error = answer.body["error"].as_str().unwrap_or_else(|| panic!("{path}: {}", answer.text));
        assert!(answer.status == status && error.contains(words), "{path}: {} {error}", answer.status);
    }
}

pub(crate) fn request(pixels: &[f32]) -> Value {
    json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels}]})
}

pub(crate) fn batch_of_100() -> Value {
    let images = digits::images("held_out").into_iter().take(100);
    let pixels: Vec<f32> = images.flat_map(|(_, pixels)| pixels).collect();
    json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [100, 1, 8, 8], "data": pixels}]})
}

pub(crate) fn best(answer: &Answer) -> usize {
    let scores: Vec<f64> = serde_json::from_value(answer.body["outputs"][0]["data"].clone()).unwrap();
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap()
}

pub(crate) fn digits_name() -> ModelName {
    ModelName::new("digits").unwrap()
}

pub(crate) async fn wait_for(is_true: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition did not become true within 5 s");
}
