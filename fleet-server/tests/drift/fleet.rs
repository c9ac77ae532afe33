//! A server with six devices' worth of panes, whose clock the test holds.

use flotilla_server::app::{self, AppState, Running};
use flotilla_server::clock::Clock;
use flotilla_server::config;
use flotilla_server::domain::drift::{self, WindowRules};
use flotilla_server::jobs::windows;
use flotilla_server::store::drift::{DriftWindow, WindowFilter};
use flotilla_server::store::releases::{Release, ReleaseState};
use flotilla_server::store::telemetry::{PaneRow, add_pane};
use flotilla_server::store::{Window, alerts, drift as rows, leases, projects, releases};
use profile::drift::DriftReport;
use profile::features::Extractor;
use profile::{Observed, Pane, PaneKey, Reference, ReferenceBuilder};
use protocol::{Counter, DeviceId, Digest, ModelName, ProjectId, StreamId, UnixMillis, Version};
use sha2::{Digest as _, Sha256};

/// A window's length in the tests, and the start of the first one.
pub(super) const WINDOW: i64 = 10_000;
pub(super) const BEGIN: i64 = 1_800_000_000_000;

pub(super) struct Fleet {
    pub(super) running: Running,
    pub(super) clock: Clock,
    pub(super) reference: Reference,
    pub(super) seq: u64,
    _folder: tempfile::TempDir,
}

pub(super) fn project() -> ProjectId {
    ProjectId::new("acme").unwrap()
}

pub(super) fn model() -> ModelName {
    ModelName::new("digits").unwrap()
}

pub(super) fn device(number: usize) -> DeviceId {
    DeviceId::new(format!("cam-{number}")).unwrap()
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

pub(super) fn reference() -> Reference {
    let extractor = Extractor::Columns { input: "x".into(), names: vec!["level".into(), "tone".into()] };
    let mut builder = ReferenceBuilder::new(extractor, vec!["a".into(), "b".into()]);
    for i in 0..1000u32 {
        let row = [Observed::Number(f64::from(i % 100)), Observed::Number(f64::from(i % 90))];
        builder.add_classified(&row, &scores(i), Some(0));
    }
    builder.build().unwrap()
}

pub(super) fn scores(i: u32) -> [f64; 2] {
    let top = 0.6 + f64::from(i % 40) / 100.0;
    if i.is_multiple_of(2) { [top, 1.0 - top] } else { [1.0 - top, top] }
}

impl Fleet {
    pub(super) async fn start() -> Self {
        Self::of(reference()).await
    }

    pub(super) async fn of(reference: Reference) -> Self {
        Self::on(None, reference).await
    }

    /// On this database, or on a file of its own.
    pub(super) async fn on(database: Option<String>, reference: Reference) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = [
            ("data_dir", folder.path().display().to_string()),
            ("https.listen", "127.0.0.1:0".into()),
            ("device.listen", "127.0.0.1:0".into()),
            ("mqtt.listen", "127.0.0.1:0".into()),
            ("jobs.window_s", "10".into()),
            ("jobs.window_late_s", "1".into()),
            ("jobs.window_tick_s", "3600".into()),
        ];
        let mut flags: Vec<_> = flags.map(|(key, value)| (key.to_owned(), value)).into();
        flags.extend(database.map(|url| ("database.url".to_owned(), url)));
        let clock = Clock::fixed(UnixMillis(BEGIN));
        let running = app::start(config::load(None, [], &flags).unwrap(), clock.clone()).await.unwrap();
        // The job's own first round has to be over: it and the rounds of a test know nothing of each other.
        while leases::get(&running.state.store, "windows").await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let fleet = Self { running, clock, reference, seq: 0, _folder: folder };
        fleet.publish("1.0.0").await;
        fleet.publish("2.0.0").await;
        fleet
    }

    pub(super) fn state(&self) -> &AppState {
        &self.running.state
    }

    pub(super) fn manifest(&self, version: &str) -> Vec<u8> {
        let blob = digest(&self.reference.to_json());
        serde_json::json!({ "version": version, "reference": { "digest": blob } }).to_string().into_bytes()
    }

    pub(super) async fn publish(&self, version: &str) {
        let json = self.reference.to_json();
        self.state().blobs.put_bytes(&digest(&json), json.into()).await.unwrap();
        let mut tx = self.state().store.begin().await.unwrap();
        if !projects::exists(&mut tx, &project()).await.unwrap() {
            let new =
                projects::Project { project: project(), title: "Acme".into(), created_at: UnixMillis(0) };
            projects::insert(&mut tx, &new).await.unwrap();
        }
        let manifest = self.manifest(version);
        let release = Release {
            model: model(),
            version: Version::new(version).unwrap(),
            digest: digest(&manifest),
            counter: Counter(u64::from(version.as_bytes()[0])),
            manifest,
            state: ReleaseState::Published,
            published_at: UnixMillis(0),
            published_by: "test".into(),
        };
        releases::insert(&mut tx, &project(), &release).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(super) fn key(&self, version: &str, number: i64) -> PaneKey {
        let start = UnixMillis(BEGIN + number * WINDOW);
        PaneKey {
            model: model(),
            digest: digest(&self.manifest(version)),
            schema: self.reference.schema.digest(),
            segment: String::new(),
            start,
            end: start.plus_millis(WINDOW),
            run: 1,
            revision: 0,
        }
    }

    /// A device's pane of window `number`: 200 rows moved by `shift`, of which `right` in 100 are labelled right.
    pub(super) fn pane(&self, version: &str, number: i64, shift: f64, right: u32) -> Pane {
        let mut pane = Pane::new(self.key(version, number), &self.reference.schema);
        for i in 0..200u32 {
            let row = [Observed::Number(f64::from(i % 100) + shift), Observed::Number(f64::from(i % 90))];
            pane.counters.observe_row(&self.reference.schema, &row);
            pane.counters.observe_probabilities(&self.reference.schema, &scores(i));
            pane.counters.observe_answer(900.0 + f64::from(i));
            pane.counters.observe_label(&self.reference.schema, 0, Some(usize::from(i % 100 >= right)), 1.0);
        }
        pane
    }

    pub(super) async fn store(&mut self, from: usize, version: &str, pane: &Pane) {
        self.store_body(from, version, pane, pane.encode()).await;
    }

    pub(super) async fn store_body(&mut self, from: usize, version: &str, pane: &Pane, body: Vec<u8>) {
        self.seq += 1;
        let row = PaneRow {
            device: device(from),
            stream: StreamId::new("s").unwrap(),
            seq: self.seq,
            model: model(),
            version: Version::new(version).unwrap(),
            digest: pane.key.digest,
            segment: String::new(),
            window_start: pane.key.start,
            window_end: pane.key.end,
            n: pane.counters.answered,
            body,
            received_at: self.clock.now(),
        };
        let mut tx = self.state().store.begin().await.unwrap();
        add_pane(&mut tx, &project(), &row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One window of six devices on 1.0.0; the devices in `dirty` see something else. Then the job runs.
    pub(super) async fn window(&mut self, number: i64, dirty: &[usize]) {
        self.clock.set(UnixMillis(BEGIN + (number + 1) * WINDOW + 500));
        for from in 0..6 {
            let pane = self.pane("1.0.0", number, if dirty.contains(&from) { 40.0 } else { 0.0 }, 95);
            self.store(from, "1.0.0", &pane).await;
        }
        self.clock.set(UnixMillis(BEGIN + (number + 1) * WINDOW + 2_000));
        windows::tick(self.state()).await.unwrap();
    }

    pub(super) async fn windows(&self, of: Option<&DeviceId>) -> Vec<DriftWindow> {
        let mut conn = self.state().store.read().await.unwrap();
        let filter = WindowFilter {
            version: None,
            device: of,
            segment: "",
            from: UnixMillis(0),
            to: UnixMillis(i64::MAX),
            limit: 1000,
        };
        rows::list(&mut conn, &project(), &model(), &filter).await.unwrap()
    }

    /// Windows with their reports, as the API makes them.
    pub(super) async fn reports(&self, of: Option<&DeviceId>) -> Vec<(DriftWindow, DriftReport)> {
        drift::with_reports(self.state(), &project(), &model(), self.windows(of).await).await.unwrap()
    }

    /// At most so many windows with their reports.
    pub(super) async fn chart(&self, of: Option<&DeviceId>, limit: i64) -> Vec<(DriftWindow, DriftReport)> {
        let filter = WindowFilter {
            version: None,
            device: of,
            segment: "",
            from: UnixMillis(0),
            to: UnixMillis(i64::MAX),
            limit,
        };
        drift::chart(self.state(), &project(), &model(), &filter, self.rules()).await.unwrap()
    }

    pub(super) async fn open_alerts(&self) -> Vec<Option<DeviceId>> {
        let mut conn = self.state().store.read().await.unwrap();
        let page = alerts::list(&mut conn, &project(), true, &Window::first(100)).await.unwrap();
        page.items.into_iter().map(|alert| alert.device).collect()
    }

    pub(super) fn rules(&self) -> WindowRules {
        let jobs = &self.state().config.jobs;
        WindowRules::new(jobs.window, jobs.window_late)
    }

    pub(super) async fn drifting(&self) -> Vec<drift::DriftingDevice> {
        drift::drifting_devices(self.state(), &project(), &model(), self.rules()).await.unwrap()
    }
}
