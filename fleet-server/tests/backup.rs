//! A copy that was made of a running server is one to start from.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::http::{Method, StatusCode};
use flotilla_server::backup::{BackupError, backup};
use serde_json::json;
use support::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_from_a_copy_of_one_that_ran() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let reader = server.token(&admin, "default", "viewer").await;
    let made = server.post(&admin, "/projects", json!({"project": "harbour", "title": "Harbour"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let (config, store) = (&server.running.state.config, &server.running.state.store);

    let other = tempfile::tempdir().unwrap();
    let copied = backup(config, store, &other.path().join("data")).await.unwrap();
    assert!(copied.has_database && copied.files > 3, "{copied:?}");
    let late = server.post(&admin, "/projects", json!({"project": "late", "title": "Late"})).await;
    assert_eq!(late.status, StatusCode::CREATED, "the server goes on: {}", late.text);
    let again = backup(config, store, &other.path().join("data")).await;
    assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
    let inside = backup(config, store, &server.data_dir().join("copy")).await;
    assert!(matches!(inside, Err(BackupError::Inside(_))), "{inside:?}");
    for file in ["ca/ca.pem", "online-keys.seal"] {
        let [old, new] =
            [server.data_dir(), other.path().join("data")].map(|dir| std::fs::read(dir.join(file)).unwrap());
        assert!(!old.is_empty() && old == new, "{file}");
    }
    let names: Vec<_> =
        std::fs::read_dir(other.path().join("data")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "flotilla.db-wal"), "{names:?}");
    server.stop().await;

    let restored = TestServer::start_in(other).await;
    assert_eq!(restored.get(&reader, "/projects/default").await.status, StatusCode::OK);
    let projects = restored.call(&admin, Method::GET, "/projects", None).await;
    assert!(projects.text.contains("harbour") && !projects.text.contains("late"), "{}", projects.text);
    restored.stop().await;
}
