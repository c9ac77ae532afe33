//! Requests and answers as JSON, refusals by name, descriptions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use hyper::StatusCode;
use protocol::UnixMillis;
use serde_json::{Value, json};

use crate::digits;
use crate::support::{Agent, FEEDBACK, INFER, best, digits_name, request, wait_for};

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
    agent
        .refused(INFER, tensor(json!([1_u64 << 40, 1, 8, 8]), "FP32", json!([])), bad, "1 to 256 are allowed")
        .await;
    let gaps = |count: usize| {
        let data: Vec<Value> =
            (0..64).map(|n| if n < 64 - count { json!(0.5) } else { Value::Null }).collect();
        tensor(json!([1, 1, 8, 8]), "FP32", json!(data))
    };
    agent.refused(INFER, gaps(64), bad, "input \"image\" lacks value 0").await;
    agent.refused(INFER, gaps(1), bad, "no impute step that fills it in").await;
    agent.refused(INFER, b"{\"inputs\": [".to_vec(), bad, "not valid JSON").await;
    agent.refused(INFER, b"\xff\xfe".to_vec(), bad, "not valid JSON").await;
    let digit = request(&[0.0; 64])["inputs"].clone();
    agent.refused(INFER, body(json!([null, digit, [], {}])), bad, "expected an object").await;
    agent
        .refused(INFER, body(json!({"inputs": [["image", "FP32", [1], {}, [0]]]})), bad, "expected an object")
        .await;
    agent.refused(INFER, body(json!([])), bad, "expected an object").await;
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
    agent.refused("/v2/models/%ff/infer", Vec::new(), bad, "not UTF-8").await;
    let huge =
        br#"{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [1e39]}]}"#;
    agent.refused(INFER, huge.to_vec(), bad, "expected a number of 32 bits").await;
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
    for odd in [json!("banana"), json!(""), json!(17)] {
        agent.refused(FEEDBACK, label("my-id", odd), StatusCode::BAD_REQUEST, "known are: 0, 1, 2").await;
    }
    agent
        .refused(
            FEEDBACK,
            label("my-id", json!(["4", "5"])),
            StatusCode::BAD_REQUEST,
            "1 items, got 2 labels",
        )
        .await;
    agent.refused(FEEDBACK, b"{}".to_vec(), StatusCode::BAD_REQUEST, "not valid JSON").await;
    agent.refused(FEEDBACK, br#"["my-id", 4]"#.to_vec(), StatusCode::BAD_REQUEST, "expected an object").await;
    agent
        .refused(
            "/v2/models/other/feedback",
            label("my-id", json!("4")),
            StatusCode::NOT_FOUND,
            "served are: digits",
        )
        .await;
    assert_eq!(agent.post(FEEDBACK, &json!({"id": "my-id", "label": 4})).await.status, StatusCode::OK);
    agent.refused(FEEDBACK, label("my-id", json!("4")), StatusCode::CONFLICT, "already").await;
    let metrics = agent.get("/metrics").await.text;
    // `unknown`, and `my-id` of another model.
    assert!(metrics.contains("flotilla_labels_unmatched_total 2\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_described() {
    let agent = Agent::start(&[]).await;
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
        let config = agent.get(&format!("{path}/config")).await.body;
        assert_eq!((&config["variant"], &config["max_batch_size"]), (&json!("int8"), &json!(256)));
        let input = json!({"name": "image", "data_type": "TYPE_FP32", "dims": [1, 8, 8]});
        assert_eq!(config["input"][0], input, "without the batch");
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
    for path in ["/v2/models/stats", "/v2/models/digits/stats", "/v2/models/digits/versions/1.0.0/stats"] {
        let stats = &agent.get(path).await.body["model_stats"][0];
        assert_eq!((&stats["inference_count"], &stats["version"]), (&json!(1), &json!("1.0.0")), "{path}");
        assert_eq!(stats["inference_stats"]["compute_infer"]["count"], 1);
        assert_eq!(stats["last_inference"], 1_000_000);
    }
    let metrics = agent.get("/metrics").await.text;
    for line in [
        "flotilla_inferences_total{model=\"digits\"} 1",
        "# TYPE flotilla_inference_duration_seconds histogram",
        "flotilla_inference_duration_seconds_bucket{model=\"digits\",le=\"+Inf\"} 1",
        "flotilla_inference_duration_seconds_count{model=\"digits\"} 1",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line}: {metrics}");
    }
    let ends = metrics.lines().filter(|line| line.starts_with("flotilla_inference_duration_seconds_bucket"));
    let counts: Vec<u64> = ends.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counts.len() == 16 && counts.is_sorted(), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_for_a_model_without_classes_is_refused_as_that() {
    let agent = Agent::start(&[]).await;
    agent.table.swap(digits::loaded_without_classes("1.0.0"));
    let answer = agent.post(INFER, &request(&[0.0; 64])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let label = serde_json::to_vec(&json!({"id": answer.body["id"], "label": "8"})).unwrap();
    agent
        .refused(
            FEEDBACK,
            label,
            StatusCode::BAD_REQUEST,
            "the reference profile of model digits counts no classes",
        )
        .await;
    let metrics = agent.get("/metrics").await.text;
    assert!(metrics.contains("flotilla_labels_unmatched_total 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_can_be_looked_at_and_not_changed() {
    let agent = Agent::serving("1.0.0").await;
    let listed = json!([{"name": "digits", "version": "1.0.0", "state": "READY", "reason": ""}]);
    assert_eq!(agent.post("/v2/repository/index", &json!({"ready": true})).await.body, listed);
    assert_eq!(agent.get("/v2/repository/index").await.body, listed);
    agent.table.set_absent(&protocol::ModelName::new("faces").unwrap(), "1.0.0 needs too much memory".into());
    assert_eq!(agent.post("/v2/repository/index", &json!({"ready": true})).await.body, listed);
    let all = agent.post("/v2/repository/index", &json!({})).await.body;
    let faces = json!({"name": "faces", "version": "", "state": "UNAVAILABLE", "reason": "1.0.0 needs too much memory"});
    assert_eq!(all, json!([listed[0], faces]));
    let load = agent.post("/v2/repository/models/digits/load", &json!({})).await;
    assert_eq!(load.status, StatusCode::OK, "it is loaded already: {}", load.text);
    let no = StatusCode::FORBIDDEN;
    let words = "decided by the fleet's signed releases";
    agent.refused("/v2/repository/models/other/load", b"{}".to_vec(), no, words).await;
    agent.refused("/v2/repository/models/digits/unload", b"{}".to_vec(), no, words).await;
    assert_eq!(agent.get("/v2/models/digits/ready").await.status, StatusCode::OK, "it still serves");
    let not_for = agent.get(INFER).await;
    assert_eq!(not_for.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(not_for.body["error"].as_str().unwrap().contains("GET is not for"), "{}", not_for.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_points_its_name_here_reads_nothing() {
    let agent = Agent::serving("1.0.0").await;
    for path in ["/status", "/metrics", "/v2", "/v2/models/digits", "/nowhere"] {
        let answer = agent.get_as("evil.example:8500", path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.text);
        assert!(answer.body["error"].as_str().unwrap().contains("evil.example"), "{}", answer.text);
    }
    for host in ["localhost", "127.0.0.1:8500", "[::1]"] {
        assert_eq!(agent.get_as(host, "/v2").await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_two_hosts_is_refused_whichever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let agent = Agent::start(&[&format!("serve.unix={}", socket.display())]).await;
    let address = agent.address.clone();
    let answers = tokio::task::spawn_blocking(move || {
        let orders =
            [("localhost", "evil.example"), ("evil.example", "localhost"), ("localhost", "localhost")];
        let heads = orders.map(|(first, second)| {
            format!("GET /v2 HTTP/1.1\r\nHost: {first}\r\nHost: {second}\r\nConnection: close\r\n\r\n")
        });
        let over_tcp = heads.clone().map(|head| answer_to(TcpStream::connect(&address).unwrap(), &head));
        let over_unix = heads.map(|head| answer_to(UnixStream::connect(&socket).unwrap(), &head));
        [over_tcp, over_unix].concat()
    });
    for answer in answers.await.unwrap() {
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.ends_with(r#"{"error":"Host may be given once, it came twice"}"#), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_must_name_a_host_unless_it_is_older_than_that() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let agent = Agent::start(&[&format!("serve.unix={}", socket.display())]).await;
    let address = agent.address.clone();
    let asked = move || {
        for (version, host, over_tcp, over_unix) in [
            ("1.1", "", "400", "400"),
            ("1.0", "", "200", "200"),
            ("1.1", "Host:\r\n", "400", "200"),
            ("1.1", "Host: local host\r\n", "400", "400"),
            ("1.1", "Host: localhost\r\n", "200", "200"),
        ] {
            let head = format!("GET /v2 HTTP/{version}\r\n{host}Connection: close\r\n\r\n");
            let tcp = answer_to(TcpStream::connect(&address).unwrap(), &head);
            let unix = answer_to(UnixStream::connect(&socket).unwrap(), &head);
            for (answer, status) in [(tcp, over_tcp), (unix, over_unix)] {
                assert!(answer.starts_with(&format!("HTTP/{version} {status}")), "{head} {answer}");
            }
        }
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
}

fn answer_to(mut stream: impl Read + Write, head: &str) -> String {
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
