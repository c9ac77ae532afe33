//! The local API as an application meets it: the real HTTP server on a port of its own, the real digits model.
#![expect(clippy::unwrap_used, reason = "what can't be set up must fail the test")]

mod digits;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_agent::config;
use flotilla_agent::monitor::Monitor;
use flotilla_agent::serve::{self, Api};
use flotilla_agent::slots::Table;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use profile::Pane;
use protocol::{ModelName, UnixMillis};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Agent {
    address: String,
    table: Table,
    monitor: Arc<Monitor>,
    panes: Arc<Mutex<Vec<Pane>>>,
    clock: Arc<Mutex<UnixMillis>>,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: CancellationToken,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    body: Value,
    text: String,
}

impl Agent {
    async fn start(queue: usize, timeout: Duration) -> Self {
        let panes: Arc<Mutex<Vec<Pane>>> = Arc::default();
        let sink = Arc::clone(&panes);
        let limits = config::Monitor {
            pane_window: Duration::from_secs(10),
            resources_every: Duration::from_mins(1),
            label_ttl: Duration::from_secs(100),
        };
        let sink = Box::new(move |_, body: Vec<u8>| sink.lock().unwrap().push(Pane::decode(&body).unwrap()));
        let monitor = Arc::new(Monitor::new(&limits, 7, sink));
        let table = Table::default();
        let clock = Arc::new(Mutex::new(UnixMillis(1_000_000)));
        let now = Arc::clone(&clock);
        let limits =
            config::Serve { listen: ([127, 0, 0, 1], 0).into(), max_body_bytes: 64 * 1024, queue, timeout };
        let api = Api::new(
            &limits,
            table.clone(),
            Arc::clone(&monitor),
            7,
            Arc::new(move || *now.lock().unwrap()),
            Arc::new(|| json!({"agent": "test"})),
        );
        let listener = TcpListener::bind(limits.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        tokio::spawn(serve::run(listener, api, stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, table, monitor, panes, clock, client, stop }
    }

    async fn serving(version: &str) -> Self {
        let agent = Self::start(64, Duration::from_secs(30)).await;
        agent.activate(version);
        agent
    }

    fn activate(&self, version: &str) {
        let loaded = digits::loaded(version);
        self.monitor.activated(&loaded.model, loaded.release.digest);
        self.table.swap(loaded);
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Vec::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, serde_json::to_vec(body).unwrap()).await
    }

    async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body))).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status, retry_after, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), text }
    }

    async fn refused(&self, path: &str, body: Vec<u8>, status: StatusCode, words: &str) {
        let answer = self.send("POST", path, body).await;
        let error = answer.body["error"].as_str().unwrap_or_else(|| panic!("{path}: {}", answer.text));
        assert!(answer.status == status && error.contains(words), "{path}: {} {error}", answer.status);
    }
}

const INFER: &str = "/v2/models/digits/infer";
const FEEDBACK: &str = "/v2/models/digits/feedback";

fn request(pixels: &[f32]) -> Value {
    json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels}]})
}

fn batch_of_100() -> Value {
    let images = digits::images("held_out").into_iter().take(100);
    let pixels: Vec<f32> = images.flat_map(|(_, pixels)| pixels).collect();
    json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [100, 1, 8, 8], "data": pixels}]})
}

fn best(answer: &Answer) -> usize {
    let scores: Vec<f64> = serde_json::from_value(answer.body["outputs"][0]["data"].clone()).unwrap();
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_infers_and_labels_follow() {
    let agent = Agent::serving("1.1.0").await;
    let mut right = 0;
    for (label, pixels) in digits::images("held_out").iter().take(40) {
        let answer = agent.post(INFER, &request(pixels)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(
            (&answer.body["model_name"], &answer.body["model_version"]),
            (&json!("digits"), &json!("1.1.0"))
        );
        assert_eq!(answer.body["outputs"][0]["shape"], json!([1, 10]));
        right += usize::from(best(&answer).to_string() == *label);
        let feedback = agent.post(FEEDBACK, &json!({"id": answer.body["id"], "label": label})).await;
        assert_eq!(feedback.status, StatusCode::OK, "{}", feedback.text);
    }
    assert!(right >= 36, "{right} of 40 right");
    wait_for(|| agent.monitor.totals()[&digits_name()].answered == 40).await;
    *agent.clock.lock().unwrap() = UnixMillis(1_020_000);
    agent.monitor.tick(UnixMillis(1_020_000));
    let panes = agent.panes.lock().unwrap();
    assert_eq!(panes.len(), 1);
    let counters = &panes[0].counters;
    assert_eq!((counters.answered, counters.labelled.correct(10)), (40, right as u64));
    assert_eq!(counters.classes().unwrap().n, 40);
    let names: Vec<u64> = counters.features.iter().map(|feature| feature.n_good_and_total().0).collect();
    assert_eq!(names, [40, 40, 40], "brightness, contrast, sharpness of each image");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_the_protocol_are_refused_by_name() {
    let agent = Agent::serving("1.0.0").await;
    let body = |value: Value| serde_json::to_vec(&value).unwrap();
    let tensor = |shape: Value, datatype: &str, data: Value| {
        body(json!({"inputs": [{"name": "image", "datatype": datatype, "shape": shape, "data": data}]}))
    };
    let bad = StatusCode::BAD_REQUEST;
    agent
        .refused(INFER, tensor(json!([1, 1, 9, 9]), "FP32", json!(vec![0.0; 81])), bad, "got [1, 1, 9, 9]")
        .await;
    agent
        .refused(INFER, tensor(json!([1, 1, 8, 8]), "FP32", json!([1, 2])), bad, "expected 64 entries")
        .await;
    agent
        .refused(
            INFER,
            tensor(json!([1, 1, 8, 8]), "UINT8", json!(vec![0; 64])),
            bad,
            "must be FP32, got UINT8",
        )
        .await;
    agent.refused(INFER, tensor(json!([1, 1, 8, 8]), "FP9", json!([])), bad, "FP9").await;
    agent.refused(INFER, tensor(json!([1_u64 << 40, 8]), "FP32", json!([])), bad, "over the bound").await;
    agent.refused(INFER, b"{\"inputs\": [".to_vec(), bad, "not valid JSON").await;
    agent.refused(INFER, b"\xff\xfe".to_vec(), bad, "not valid JSON").await;
    agent.refused(INFER, body(json!({"inputs": []})), bad, "\"image\" is missing").await;
    let mut wants = request(&[0.0; 64]);
    wants["outputs"] = json!([{"name": "nothing"}]);
    agent.refused(INFER, body(wants), bad, "output \"nothing\" is unknown").await;
    agent.refused(INFER, vec![b' '; 65 * 1024], StatusCode::PAYLOAD_TOO_LARGE, "not accepted").await;
    let found = StatusCode::NOT_FOUND;
    agent.refused("/v2/models/other/infer", body(request(&[0.0; 64])), found, "served are: digits").await;
    agent
        .refused("/v2/models/..%2f..%2fetc/infer", body(request(&[0.0; 64])), found, "not served here")
        .await;
    agent
        .refused(
            "/v2/models/digits/versions/9.9.9/infer",
            body(request(&[0.0; 64])),
            found,
            "serves version 1.0.0",
        )
        .await;
    agent.refused("/nowhere", Vec::new(), found, "/nowhere").await;
    assert_eq!(agent.post(INFER, &request(&[0.0; 64])).await.status, StatusCode::OK, "it still serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_can_not_be_matched_are_refused() {
    let agent = Agent::serving("1.0.0").await;
    let mut asked = request(&digits::images("held_out")[0].1);
    asked["id"] = json!("my-id");
    let answer = agent.post(INFER, &asked).await;
    assert_eq!(answer.body["id"], json!("my-id"));
    let label = |id: &str, label: Value| serde_json::to_vec(&json!({"id": id, "label": label})).unwrap();
    agent.refused(FEEDBACK, label("unknown", json!("4")), StatusCode::NOT_FOUND, "unknown").await;
    agent
        .refused(
            FEEDBACK,
            label("my-id", json!(["4", "5"])),
            StatusCode::BAD_REQUEST,
            "1 items, got 2 labels",
        )
        .await;
    agent.refused(FEEDBACK, b"{}".to_vec(), StatusCode::BAD_REQUEST, "not valid JSON").await;
    agent
        .refused("/v2/models/other/feedback", label("my-id", json!("4")), StatusCode::NOT_FOUND, "unknown")
        .await;
    assert_eq!(agent.post(FEEDBACK, &json!({"id": "my-id", "label": 4})).await.status, StatusCode::OK);
    agent.refused(FEEDBACK, label("my-id", json!("4")), StatusCode::CONFLICT, "already").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_answered_at_once_and_passes() {
    let agent = Arc::new(Agent::start(1, Duration::from_secs(30)).await);
    agent.activate("1.0.0");
    let body = batch_of_100();
    let mut asked = Vec::new();
    for _ in 0..24 {
        let (agent, body) = (Arc::clone(&agent), body.clone());
        asked.push(tokio::spawn(async move { agent.post(INFER, &body).await }));
    }
    let (mut answered, mut refused) = (0, 0);
    for asked in asked {
        let answer = asked.await.unwrap();
        match answer.status {
            StatusCode::OK => answered += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                refused += 1;
                assert_eq!(answer.retry_after.as_deref(), Some("1"));
                assert!(answer.body["error"].as_str().unwrap().contains("overloaded"));
            }
            status => panic!("{status}: {}", answer.text),
        }
    }
    assert!(answered >= 1 && refused >= 1, "{answered} answered, {refused} refused");
    wait_for(|| agent.monitor.totals().get(&digits_name()).is_some_and(|totals| totals.answered == answered))
        .await;
    let metrics = agent.get("/metrics").await.text;
    assert!(metrics.contains(&format!("flotilla_overloads_total {refused}")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_here_but_not_loaded_is_unavailable_with_the_reason() {
    let agent = Agent::serving("1.0.0").await;
    agent.table.set_absent(&digits_name(), "1.0.0 waits".into());
    let answer = agent.post(INFER, &request(&[0.0; 64])).await;
    assert_eq!((answer.status, answer.retry_after.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("10")));
    assert!(answer.text.contains("digits is not loaded: 1.0.0 waits"), "{}", answer.text);
    agent.activate("1.0.0");
    assert_eq!(agent.post(INFER, &request(&[0.0; 64])).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_its_time_is_given_up() {
    let agent = Agent::start(4, Duration::from_millis(1)).await;
    agent.activate("1.0.0");
    let answer = agent.post(INFER, &batch_of_100()).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text);
    assert!(answer.body["error"].as_str().unwrap().contains("not answered within"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_releases_are_swapped() {
    let agent = Arc::new(Agent::serving("1.0.0").await);
    let (first, second) = (digits::loaded("1.0.0"), digits::loaded("1.1.0"));
    let pixels = digits::images("held_out")[0].1.clone();
    let client = Arc::clone(&agent);
    let asking = tokio::spawn(async move {
        let mut versions = Vec::new();
        for _ in 0..200 {
            let answer = client.post(INFER, &request(&pixels)).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            versions.push(answer.body["model_version"].as_str().unwrap().to_owned());
        }
        versions
    });
    let mut swaps = 0;
    while !asking.is_finished() {
        agent.table.swap(Arc::clone(if swaps % 2 == 0 { &second } else { &first }));
        swaps += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let versions = asking.await.unwrap();
    assert!(swaps > 1 && versions.iter().any(|version| version == "1.1.0"), "{swaps} swaps");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_described() {
    let agent = Agent::start(4, Duration::from_secs(30)).await;
    assert_eq!(agent.get("/v2/health/live").await.status, StatusCode::OK);
    assert_eq!(agent.get("/v2/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(agent.get("/v2/models/digits/ready").await.status, StatusCode::NOT_FOUND);
    agent.activate("1.0.0");
    assert_eq!(agent.get("/v2/health/ready").await.body, json!({"ready": true}));
    assert_eq!(agent.get("/v2").await.body["name"], "flotilla-agent");
    for path in ["/v2/models/digits", "/v2/models/digits/versions/1.0.0"] {
        let metadata = agent.get(path).await;
        assert_eq!(metadata.status, StatusCode::OK, "{path}: {}", metadata.text);
        assert_eq!(
            metadata.body["inputs"][0],
            json!({"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]})
        );
        assert_eq!(agent.get(&format!("{path}/ready")).await.body["ready"], true);
        assert_eq!(agent.get(&format!("{path}/config")).await.body["variant"], "int8");
    }
    agent.post(INFER, &request(&[0.0; 64])).await;
    agent.post(INFER, &json!({"inputs": []})).await;
    let name = digits_name();
    wait_for(|| agent.monitor.totals().get(&name).is_some_and(|t| t.answered == 1 && t.refused == 1)).await;
    let vitals = agent.monitor.probation(&name, agent.table.active(&name).unwrap().release.digest);
    assert_eq!(
        (vitals.requests, vitals.errors),
        (1, 0),
        "a caller's mistake doesn't count against the model"
    );
    let status = agent.get("/status").await.body;
    assert_eq!((&status["agent"], &status["serving"][0]["version"]), (&json!("test"), &json!("1.0.0")));
    let metrics = agent.get("/metrics").await.text;
    assert!(metrics.contains("flotilla_inferences_total{model=\"digits\"} 1\n"), "{metrics}");
}

fn digits_name() -> ModelName {
    ModelName::new("digits").unwrap()
}

async fn wait_for(is_true: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition did not become true within 5 s");
}
