//! Bounds: queue, time, connections; and swaps under load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::digits;
use crate::support::{Agent, Answer, INFER, batch_of_100, digits_name, request, wait_for};

/// Asks for a batch, which holds the only turn until the gate opens.
async fn hold_the_turn(agent: &Arc<Agent>) -> JoinHandle<Answer> {
    let asking = Arc::clone(agent);
    let asked = tokio::spawn(async move { asking.post(INFER, &batch_of_100()).await });
    while agent.waiting().await != Some(1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_answered_at_once_and_passes() {
    let agent = Arc::new(Agent::start(&["serve.queue=1", "serve.threads=1"]).await);
    agent.activate("1.0.0");
    let held = agent.gate.hold();
    let first = hold_the_turn(&agent).await;
    for _ in 0..3 {
        let answer = agent.post(INFER, &batch_of_100()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
        assert_eq!(answer.retry_after.as_deref(), Some("1"));
        assert!(answer.body["error"].as_str().unwrap().contains("overloaded"));
    }
    drop(held);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    let answered = || agent.monitor.totals().get(&digits_name()).map_or(0, |totals| totals.answered);
    wait_for(|| answered() == 1).await;
    let metrics = agent.get("/metrics").await.text;
    assert!(metrics.contains("flotilla_overloads_total 3"), "{metrics}");
    assert_eq!(agent.post(INFER, &batch_of_100()).await.status, StatusCode::OK, "it has passed");
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
    let agent = Arc::new(Agent::start(&["serve.timeout_ms=500", "serve.threads=1"]).await);
    agent.activate("1.0.0");
    let held = agent.gate.hold();
    let answer = agent.post(INFER, &batch_of_100()).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text);
    assert!(answer.body["error"].as_str().unwrap().contains("not answered within 500 ms"));
    assert_eq!(agent.waiting().await, Some(1), "it keeps its place until it is done");
    drop(held);
    assert_eq!(agent.post(INFER, &batch_of_100()).await.status, StatusCode::OK);
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

/// Whether the agent has not answered yet.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Sends bytes on a connection of its own and reads until the agent closes it.
fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_turn_does_not_come_is_told_to_come_back() {
    let agent = Arc::new(Agent::start(&["serve.max_wait_ms=1", "serve.threads=1"]).await);
    agent.activate("1.0.0");
    let held = agent.gate.hold();
    let first = hold_the_turn(&agent).await;
    let answer = agent.post(INFER, &batch_of_100()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    assert!(answer.text.contains("no turn came within 1 ms"), "{}", answer.text);
    drop(held);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thread_that_serves_says_that_it_is_alive_until_it_ends_in_order() {
    let agent = Agent::start(&["serve.timeout_ms=60000"]).await;
    let (long, minute) = (Instant::now() + Duration::from_hours(1), Duration::from_mins(1));
    wait_for(|| agent.pulse.stuck(long, minute) == ["api"]).await;
    // An inference that it does itself may take so long.
    assert!(agent.pulse.stuck(Instant::now() + minute + Duration::from_secs(30), minute).is_empty());
    agent.stop.cancel();
    wait_for(|| agent.pulse.stuck(long, minute).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_and_a_silent_one_is_closed() {
    let agent = Agent::start(&["serve.max_connections=1", "serve.header_timeout_ms=1500"]).await;
    let address = agent.address.clone();
    let answers = tokio::task::spawn_blocking(move || {
        let mut silent = TcpStream::connect(&address).unwrap();
        silent.write_all(b"GET /v2 HTTP/1.1\r\nHo").unwrap();
        // The agent has taken the first connection before it takes the second one.
        let refused = raw(&address, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut rest = String::new();
        silent.read_to_string(&mut rest).unwrap();
        (refused, rest, address)
    });
    let (refused, rest, address) = answers.await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.ends_with(r#"1 connections are open already"}"#), "{refused}");
    assert_eq!(rest, "", "closed without an answer");
    let asked = move || raw(&address, b"GET /v2 HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200");
    assert!(tokio::task::spawn_blocking(asked).await.unwrap(), "the place is free again");
}

fn head(bytes: usize) -> String {
    format!(
        "POST {INFER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n"
    )
}

/// Reads one answer and leaves the connection open.
fn read_answer(stream: &mut TcpStream) -> String {
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\"}") {
        match stream.read(&mut byte).unwrap() {
            0 => break,
            _ => answer.push(byte[0]),
        }
    }
    String::from_utf8(answer).unwrap()
}

/// The head of an inference that is long: its body is no small one.
fn long_head(bytes: usize) -> String {
    head(bytes).replacen("Connection: close\r\n", "", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_that_finds_the_queue_full_is_refused_before_its_body_is_read() {
    let agent = Agent::start(&["serve.queue=1", "serve.threads=1", "serve.max_body_bytes=8388608"]).await;
    let agent = Arc::new(agent);
    agent.activate("1.0.0");
    let held = agent.gate.hold();
    let first = hold_the_turn(&agent).await;
    let address = agent.address.clone();
    let refused = tokio::task::spawn_blocking(move || {
        let mut asks_first = TcpStream::connect(&address).unwrap();
        let expecting = long_head(70_000).replacen("Host", "Expect: 100-continue\r\nHost", 1);
        asks_first.write_all(expecting.as_bytes()).unwrap();
        let unsent = read_answer(&mut asks_first);
        // Who sends it all the same reads why, and may ask again on the same connection.
        let mut sends = TcpStream::connect(&address).unwrap();
        let mut ask = |bytes: usize, pause: Duration| {
            sends.write_all(long_head(bytes).as_bytes()).unwrap();
            std::thread::sleep(pause);
            sends.write_all(&vec![b' '; bytes]).unwrap();
            read_answer(&mut sends)
        };
        let (at_once, slowly) = (Duration::ZERO, Duration::from_millis(1200));
        [unsent, ask(70_000, at_once), ask(5 << 20, at_once), ask(70_000, slowly), ask(70_000, at_once)]
    });
    for answer in refused.await.unwrap() {
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        assert!(answer.ends_with(r#"{"error":"overloaded: 1 requests wait or run already"}"#), "{answer}");
    }
    drop(held);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hammers_at_a_full_queue_is_told_less_often() {
    let agent = Arc::new(Agent::start(&["serve.queue=1", "serve.threads=1"]).await);
    agent.activate("1.0.0");
    let held = agent.gate.hold();
    let first = hold_the_turn(&agent).await;
    let begun = Instant::now();
    for _ in 0..30 {
        let answer = agent.post(INFER, &batch_of_100()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    }
    // Eight in a tenth of a second are told at once.
    assert!(begun.elapsed() > Duration::from_millis(250), "{:?}", begun.elapsed());
    drop(held);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_given_up() {
    let agent = Agent::start(&["serve.timeout_ms=300"]).await;
    let address = agent.address.clone();
    let answer = tokio::task::spawn_blocking(move || raw(&address, (head(10) + "{").as_bytes())).await;
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("within 300 ms"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_stands_still_is_given_up_long_before_its_time() {
    let agent = Agent::start(&["serve.timeout_ms=600000", "serve.max_body_bytes=1000000"]).await;
    let address = agent.address.clone();
    let body = head(1_000_000) + &" ".repeat(100_000);
    let asked = tokio::task::spawn_blocking(move || raw(&address, body.as_bytes()));
    let answer = tokio::time::timeout(Duration::from_mins(2), asked).await.expect("it is told").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slower than 65536 bytes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_together_are_bounded_in_memory() {
    let agent = Agent::serving("1.0.0").await;
    let address = agent.address.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let begun = |sent: usize| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let expecting = head(65_536).replacen("Host", "Expect: 100-continue\r\nHost", 1);
            stream.write_all(expecting.as_bytes()).unwrap();
            let mut go_on = [0; 25];
            stream.read_exact(&mut go_on).unwrap();
            assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "it is being read now");
            stream.write_all(&vec![b' '; sent]).unwrap();
            stream
        };
        let ask = || raw(&address, (head(1) + "{").as_bytes());
        let _silent: Vec<TcpStream> = (0..8).map(|_| begun(0)).collect();
        let answer = ask();
        assert!(answer.starts_with("HTTP/1.1 400"), "who only announces a body takes no room: {answer}");
        // What asks takes room too: a body that was still coming then is refused in its place, and another one comes.
        let (mut held, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
        loop {
            held.retain(is_open);
            held.resize_with(4, || begun(65_535));
            let answer = ask();
            if answer.starts_with("HTTP/1.1 503") || Instant::now() > deadline {
                return answer;
            }
        }
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains("fill the memory"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_reads_why() {
    let agent = Agent::start(&["serve.max_body_bytes=1048576"]).await;
    let address = agent.address.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut whole = head(17 << 20).into_bytes();
        whole.resize(whole.len() + (17 << 20), b' ');
        raw(&address, &whole)
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("at most 1048576 bytes"), "{answer}");
    let labels = json!({ "id": "a", "label": vec![1; 40_000] }).to_string().into_bytes();
    agent
        .refused("/v2/models/digits/feedback", labels, StatusCode::PAYLOAD_TOO_LARGE, "at most 65536 bytes")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_bodies_without_a_length_take_little_room() {
    let agent = Agent::serving("1.0.0").await;
    let address = agent.address.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let body = serde_json::to_string(&request(&[0.0; 64])).unwrap();
        let head = head(0).replacen("Content-Length: 0", "Transfer-Encoding: chunked", 1);
        let ask = |_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let chunk = format!("{head}{:x}\r\n{body}\r\n", body.len());
            stream.write_all(chunk.as_bytes()).unwrap();
            stream
        };
        let streams: Vec<TcpStream> = (0..16).map(ask).collect();
        let answers = streams.into_iter().map(|mut stream| {
            stream.write_all(b"0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        answers.collect::<Vec<String>>()
    });
    for answer in asked.await.unwrap() {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
