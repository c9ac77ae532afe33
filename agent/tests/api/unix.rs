//! The unix socket, alone and beside TCP.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flotilla_agent::app::AppError;
use flotilla_agent::exit::Exit;
use flotilla_agent::serve::Listening;

use crate::support::{Agent, serve_config, wait_for};

fn get(path: &std::path::Path, what: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(format!("GET {what} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_serves_the_same_and_is_gone_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let agent = Agent::start(&[&format!("serve.unix={}", path.display())]).await;
    agent.activate("1.0.0");
    let (one, other) = (path.clone(), path.clone());
    let answer = tokio::task::spawn_blocking(move || get(&one, "/v2/models/digits/ready")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with(r#""ready":true}"#), "{answer}");
    assert_eq!(agent.get("/v2/models/digits/ready").await.body["ready"], true, "TCP serves beside it");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let busy = Listening::open(&serve_config(&[&format!("serve.unix={}", path.display())])).await;
    assert_eq!(busy.unwrap_err().source.kind(), std::io::ErrorKind::AddrInUse, "a living agent keeps it");
    drop(agent);
    wait_for(move || !other.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_lets_in_whom_the_configuration_names_and_has_the_agents_group() {
    let dir = tempfile::tempdir().unwrap();
    for (word, mode) in [("0600", 0o600), ("0660", 0o660), ("0666", 0o666)] {
        let path = dir.path().join(word);
        let flags = [format!("serve.unix={}", path.display()), format!("serve.unix_mode={word}")];
        let listening = Listening::open(&serve_config(&[&flags[0], &flags[1]])).await.unwrap();
        let made = path.metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, mode);
        assert_eq!(made.gid(), dir.path().metadata().unwrap().gid());
        drop(listening);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_left_by_a_dead_agent_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let flags = [format!("serve.unix={}", path.display()), "serve.listen=off".to_owned()];
    let config = serve_config(&[&flags[0], &flags[1]]);
    let listening = Listening::open(&config).await.unwrap();
    assert_eq!(listening.places(), path.display().to_string());
    drop(listening);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    let refused = Listening::open(&config).await.unwrap_err();
    let why = refused.source.to_string();
    assert!(
        refused.place == path.display().to_string() && why.starts_with("a file that is no socket"),
        "{why}"
    );
    assert_eq!(AppError::Listen(refused).exit(), Exit::Config, "trying again can't help");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

/// Asks for more than the socket's buffers hold, and reads nothing of it.
fn ask_and_read_nothing(path: &std::path::Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    let asked = "GET /v2/models/digits/config HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // The agent takes no more than it can answer.
    let _ = stream.write_all(asked.as_bytes());
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answer_loses_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let flags =
        [&*format!("serve.unix={}", path.display()), "serve.timeout_ms=500", "serve.max_connections=1"];
    let agent = Agent::start(&flags).await;
    agent.activate("1.0.0");
    tokio::task::spawn_blocking(move || {
        let mut silent = ask_and_read_nothing(&path);
        let deadline = Instant::now() + Duration::from_mins(1);
        while !get(&path, "/v2").starts_with("HTTP/1.0 200") {
            assert!(Instant::now() < deadline, "it holds the only connection for ever");
        }
        let mut got = Vec::new();
        // Closed on what was not read of it, it is reset.
        let _reset = silent.read_to_end(&mut got);
        let answers = String::from_utf8_lossy(&got).matches("HTTP/1.1 200").count();
        assert!((1..2000).contains(&answers), "{answers} answers were sent before that");
    })
    .await
    .unwrap();
}

/// Starts a request of digits and never ends it.
fn ask_half(path: &std::path::Path, head: &str) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(format!("POST /v2/models/digits/infer HTTP/1.1\r\n{head}").as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answer_or_ends_no_request_does_not_keep_the_agent_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let unix = format!("serve.unix={}", path.display());
    let agent = Agent::start(&[&unix, "serve.timeout_ms=600000", "serve.header_timeout_ms=600000"]).await;
    agent.activate("1.0.0");
    let (asked, gone) = (path.clone(), path);
    let silent = tokio::task::spawn_blocking(move || {
        let halves =
            ["Ho", "Host: localhost\r\nContent-Length: 100\r\n\r\n{"].map(|head| ask_half(&asked, head));
        (ask_and_read_nothing(&asked), halves)
    });
    let silent = silent.await.unwrap();
    drop(agent);
    let stopped = async {
        while gone.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), stopped).await.expect("it stops");
    drop(silent);
}
