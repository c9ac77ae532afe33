//! Who runs a job, and whether the server says that it can work.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use flotilla_server::clock::Clock;
use flotilla_server::jobs;
use flotilla_server::store::{Store, leases};
use support::{As, NOW, TestServer};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_told_soon_when_the_database_does_not_answer() {
    let server = TestServer::start().await;
    let state = server.running.state.clone();
    let mut busy = Vec::new();
    for _ in 0..state.config.database.max_connections {
        busy.push(state.store.read().await.unwrap());
    }
    let asked = Instant::now();
    let answer = server.send(support::request(&As::Nobody, Method::GET, "/readyz", None)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "database_unreachable"));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}; to get a connection takes 15 s",
        asked.elapsed()
    );
    drop(busy);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_held_by_a_clock_that_was_ahead_is_taken_over() {
    const DAY_MS: i64 = 86_400_000;
    let set = [("jobs.lease_s".to_owned(), "5".to_owned())];
    let server = TestServer::start_set(tempfile::tempdir().unwrap(), Clock::fixed(NOW), &set).await;
    let state = server.running.state.clone();
    let ahead = NOW.plus_millis(DAY_MS);
    assert!(leases::take(&state.store, "job", "other", ahead, Duration::from_secs(2)).await.unwrap());
    let (ticks, shutdown) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let job = tokio::spawn({
        let (state, ticks, shutdown) = (state.clone(), ticks.clone(), shutdown.clone());
        async move {
            let tick = || {
                ticks.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            };
            jobs::every(&state, "job", Duration::from_millis(50), &shutdown, tick).await.unwrap();
        }
    });
    let readyz = || server.send(support::request(&As::Nobody, Method::GET, "/readyz", None));
    let until = Instant::now() + Duration::from_mins(1);
    while readyz().await.code() != "job_stands_still" {
        assert!(Instant::now() < until && ticks.load(Ordering::SeqCst) == 0, "never told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while ticks.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "never taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(readyz().await.text, "ready\n");
    let lease = leases::get(&state.store, "job").await.unwrap().unwrap();
    assert_eq!(lease.holder, *state.instance);
    shutdown.cancel();
    job.await.unwrap();
    server.stop().await;
}

/// Of SQLite a process has the file for itself: whoever held a lease is gone.
#[tokio::test]
async fn leases_of_an_earlier_process_are_forgotten_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let url = format!("sqlite://{}", dir.path().join("data/flotilla.db").display());
    let store = Store::open(&url, 1).await.unwrap();
    assert!(leases::take(&store, "job", "dead", NOW, Duration::from_secs(30)).await.unwrap());
    store.close().await;
    let server = TestServer::start_in(dir).await;
    assert_eq!(leases::get(&server.running.state.store, "job").await.unwrap(), None);
    server.stop().await;
}
