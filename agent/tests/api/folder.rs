//! A watched folder: what an application puts there, what it finds, and what one bad file does to the others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_agent::config;
use flotilla_agent::inputs::{self, Troubles};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::digits;
use crate::support::{Agent, digits_name, request, wait_for};

struct Folder {
    agent: Agent,
    dir: tempfile::TempDir,
    troubles: Troubles,
    stop: CancellationToken,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Folder {
    async fn watched(done: Option<PathBuf>) -> Self {
        Self::asking("digits", done).await
    }

    async fn asking(model: &str, done: Option<PathBuf>) -> Self {
        let agent = Agent::serving("1.0.0").await;
        let dir = tempfile::tempdir().unwrap();
        let (watch, out) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&watch).unwrap();
        let every = Duration::from_millis(10);
        let config = config::Folder { watch, model: model.into(), out, done, every };
        let (troubles, stop) = (Troubles::default(), CancellationToken::new());
        tokio::spawn(inputs::watch(config, agent.api.clone(), troubles.clone(), stop.clone()));
        Self { agent, dir, troubles, stop }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As a careful application does it: the name comes when the file is complete.
    fn put(&self, name: &str, bytes: &[u8]) {
        let hidden = self.path("in/.part");
        std::fs::write(&hidden, bytes).unwrap();
        std::fs::rename(hidden, self.path("in").join(name)).unwrap();
    }

    async fn answer(&self, name: &str) -> Value {
        let path = self.path("out").join(format!("{name}.json"));
        wait_for(|| path.exists()).await;
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn asked(&self) -> u64 {
        self.agent.monitor.totals().get(&digits_name()).map_or(0, |totals| totals.answered)
    }
}

fn digit() -> Vec<u8> {
    request(&digits::images("held_out")[0].1).to_string().into_bytes()
}

#[tokio::test]
async fn a_file_whose_answer_has_no_room_is_asked_once_told_and_stops_no_other() {
    let folder = Folder::watched(None).await;
    let long = format!("{}.json", "a".repeat(247));
    folder.put(&long, &digit());
    folder.put("b.json", &digit());
    folder.put("c.json", &digit());
    for name in ["b.json", "c.json"] {
        assert!(folder.answer(name).await["outputs"].is_array());
    }
    // Many looks later nothing but the next file has been asked.
    for name in ["d.json", "e.json", "f.json"] {
        folder.put(name, &digit());
        folder.answer(name).await;
    }
    wait_for(|| folder.asked() == 6).await;
    let problems = folder.troubles.problems();
    assert!(problems.len() == 1 && problems[0].detail.contains("a file can't be"), "{problems:?}");
    std::fs::remove_file(folder.path("in").join(long)).unwrap();
    wait_for(|| folder.troubles.problems().is_empty()).await;
}

#[tokio::test]
async fn asked_files_go_to_another_file_system_as_to_any_folder() {
    // Memory is another file system than the disk nearly everywhere; where it isn't, the outcome is the same.
    let memory = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
    let elsewhere = memory.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let folder = Folder::watched(Some(elsewhere.path().join("done"))).await;
    for name in ["a.json", "b.json", "c.json"] {
        folder.put(name, &digit());
    }
    for name in ["a.json", "b.json", "c.json"] {
        folder.answer(name).await;
        wait_for(|| !folder.path("in").join(name).exists()).await;
        assert_eq!(std::fs::read(elsewhere.path().join("done").join(name)).unwrap(), digit());
    }
    wait_for(|| folder.asked() == 3).await;
    assert_eq!(folder.troubles.problems(), []);
}

#[tokio::test]
async fn a_refused_file_is_kept_and_neither_an_empty_one_nor_a_link_is_asked() {
    let folder = Folder::watched(None).await;
    folder.put("empty.png", b"");
    folder.put("half.png", b"the beginning of a picture");
    let refusal = folder.answer("half.png").await;
    assert!(refusal["error"].as_str().is_some_and(|error| error.contains("neither a PNG nor a JPEG")));
    wait_for(|| !folder.path("in/half.png").exists()).await;
    assert_eq!(std::fs::read(folder.path("out/half.png.refused")).unwrap(), b"the beginning of a picture");
    std::os::unix::fs::symlink(folder.path("out/half.png.refused"), folder.path("in/a.json")).unwrap();
    folder.put("b.JSON", &digit());
    folder.answer("b.JSON").await;
    assert!(folder.path("in/a.json").is_symlink() && !folder.path("out/a.json.json").exists());
    assert!(folder.path("in/empty.png").exists() && !folder.path("out/empty.png.json").exists());
}

#[tokio::test]
async fn files_for_a_model_that_does_not_serve_wait_and_are_told() {
    let folder = Folder::asking("digitz", None).await;
    folder.put("a.json", &digit());
    wait_for(|| !folder.troubles.problems().is_empty()).await;
    let problems = folder.troubles.problems();
    assert!(
        problems[0].detail.contains("a file waits") && problems[0].detail.contains("served are: digits"),
        "{problems:?}"
    );
    assert!(folder.path("in/a.json").exists());
}
