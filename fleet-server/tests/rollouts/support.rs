//! A server with a fleet in its database; time stands still unless a test moves it.

use std::time::Duration;

use flotilla_server::app::{self, AppState};
use flotilla_server::clock::Clock;
use flotilla_server::config;
use flotilla_server::domain::access::{Grant, Principal, Proof, Role, Scope};
use flotilla_server::domain::rollouts::{self, NewRollout, RolloutError};
use flotilla_server::domain::why::{self, Why};
use flotilla_server::store::releases::{Release, ReleaseState};
use flotilla_server::store::tasks::StoredReport;
use flotilla_server::store::telemetry::PaneRow;
use flotilla_server::store::{
    self, Store, Window, alerts, audit, devices, projects, releases, tasks, telemetry,
};
use flotilla_server::tuf::director;
use flotilla_server::tuf::keys::{self, OnlineRole};
use profile::features::Extractor;
use profile::{Observed, Pane, PaneKey, Reference, ReferenceBuilder};
use protocol::message::{Cause, CauseKind, Hardware, Hello, ModelState, SpoolState, TaskPhase, TaskReport};
use protocol::{
    DeviceId, Digest, ModelName, ProjectId, ReleaseRef, Revision, RolloutId, StreamId, UnixMillis,
};
use release::DraftManifest;
use rollout::{Actor, Phase, Rollout, Status, Verb};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio_util::sync::CancellationToken;

const YEARS: Duration = Duration::from_hours(100_000);
const T0: UnixMillis = UnixMillis(1_795_000_000_000);

pub(crate) struct Fleet {
    pub(crate) state: AppState,
    pub(crate) project: ProjectId,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    devices: Vec<DeviceId>,
    counter: u64,
    now: UnixMillis,
}

pub(crate) fn stages(amounts: &[&str]) -> Value {
    json!({ "stages": amounts })
}

fn model() -> ModelName {
    ModelName::new("digits").unwrap()
}

fn reference() -> Reference {
    let extractor = Extractor::Columns { input: "x".into(), names: vec!["level".into()] };
    let mut builder = ReferenceBuilder::new(extractor, vec!["a".into(), "b".into()]);
    for i in 0..500u32 {
        builder.add_classified(&[Observed::Number(f64::from(i % 100))], &[0.9, 0.1], Some(0));
    }
    builder.build().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// Release `n.0.0`, with every earlier one as permitted fallback.
fn manifest(version: &str) -> DraftManifest {
    let n: u8 = version.split('.').next().unwrap().parse().unwrap();
    let fallback: Vec<Value> = (1..n)
        .map(|earlier| serde_json::to_value(manifest(&format!("{earlier}.0.0")).release_ref()).unwrap())
        .collect();
    let blob =
        |n: u8| json!({"digest": hex::encode([n; 32]), "size_bytes": 10, "media_type": "application/onnx"});
    let bytes = reference().to_json();
    let reference = json!({"digest": sha256(&bytes).to_hex(), "size_bytes": bytes.len(), "media_type": "application/json"});
    let text = json!({
        "format": 1, "model": "digits", "version": version, "counter": n, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "hardware": {"arch": ["x86_64"]},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [], "post": [{"kind": "softmax"}],
        "variants": [{"name": "int8", "precision": "int8", "model": blob(2), "peak_memory_bytes": 1000}],
        "labels": ["a", "b"], "reference": reference, "golden": blob(4), "card": blob(5),
        "budgets": {"latency_p95_us": 50000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "fallback": fallback,
    });
    DraftManifest::parse_unsigned(&serde_json::to_vec(&text).unwrap()).unwrap()
}

fn release_ref(version: &str) -> ReleaseRef {
    manifest(version).release_ref()
}

fn hello(active: Option<ReleaseRef>) -> Hello {
    let state = ModelState {
        model: model(),
        active,
        candidate: None,
        fallback: None,
        phase: TaskPhase::Idle,
        absent: None,
    };
    Hello {
        at: T0,
        agent_version: "0.1.0".into(),
        target: "x86_64-unknown-linux-musl".into(),
        boot_id: "b".into(),
        uptime_s: 1,
        clock: protocol::message::Clock { floor: T0, is_plausible: true },
        hardware: Hardware {
            arch: "x86_64".into(),
            class: "pc".into(),
            cpu_features: vec![],
            cpus: 2,
            memory_bytes: 1 << 30,
        },
        labels: std::collections::BTreeMap::default(),
        desired_revision: Revision(0),
        models: vec![state],
        spool: SpoolState {
            stream: StreamId::new("s").unwrap(),
            depth_records: 0,
            depth_bytes: 0,
            dropped: vec![],
        },
        metadata: None,
        problems: vec![],
    }
}

impl Fleet {
    /// A server with `n` devices without a release, and releases 1.0.0 and 2.0.0.
    pub(crate) async fn start(n: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = ProjectId::new("acme").unwrap();
        let devices = (0..n).map(|i| DeviceId::new(format!("cam-{i:02}")).unwrap()).collect();
        let fleet = Self::open(folder, project, devices, 0, T0).await;
        fleet.fill().await;
        fleet
    }

    async fn open(
        folder: tempfile::TempDir,
        project: ProjectId,
        devices: Vec<DeviceId>,
        counter: u64,
        now: UnixMillis,
    ) -> Self {
        let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let flags = [
            flag("data_dir", &folder.path().display().to_string()),
            flag("https.listen", "127.0.0.1:0"),
            flag("device.listen", "127.0.0.1:0"),
            flag("mqtt.listen", "127.0.0.1:0"),
            flag("jobs.lease_s", &YEARS.as_secs().to_string()),
        ];
        let config = config::load(None, [], &flags).unwrap();
        // The tests tick by themselves: they hold the lease that the server's own ticks need.
        let store = Store::open(&config.database.url, 2).await.unwrap();
        assert!(store::leases::take(&store, "rollouts", "test", now, YEARS).await.unwrap());
        crate::sql::keep_the_tests_leases(&store).await;
        store.close().await;
        let running = app::start(config, Clock::fixed(now)).await.unwrap();
        let (state, shutdown) = (running.state.clone(), running.shutdown_signal());
        let running = tokio::spawn(async move {
            running.run().await;
        });
        Self { state, project, folder, shutdown, running, devices, counter, now }
    }

    async fn fill(&self) {
        let bytes = reference().to_json();
        self.state.blobs.put_bytes(&sha256(&bytes), bytes.into()).await.unwrap();
        let mut tx = self.state.store.begin().await.unwrap();
        let row = projects::Project { project: self.project.clone(), title: "Test".into(), created_at: T0 };
        projects::insert(&mut tx, &row).await.unwrap();
        for version in ["1.0.0", "2.0.0"] {
            let manifest = manifest(version);
            let ReleaseRef { version, digest, counter } = manifest.release_ref();
            let release = Release {
                model: model(),
                version,
                digest,
                counter,
                manifest: manifest.bytes().to_vec(),
                state: ReleaseState::Published,
                published_at: T0,
                published_by: "test".into(),
            };
            releases::insert(&mut tx, &self.project, &release).await.unwrap();
        }
        for device in &self.devices {
            let new = devices::NewDevice {
                project: self.project.clone(),
                device: device.clone(),
                report_key: vec![0; 32],
                certificate_serial: device.to_string(),
                certificate_expires: T0,
                labels: std::collections::BTreeMap::default(),
                created_at: T0,
            };
            devices::insert(&mut tx, &new).await.unwrap();
            devices::set_hello(&mut tx, &self.project, device, &hello(None), T0).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// The server goes down and comes up again over the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.cancel();
        self.running.await.unwrap();
        Self::open(self.folder, self.project, self.devices, self.counter, self.now).await
    }

    pub(crate) fn devices(&self) -> Vec<DeviceId> {
        self.devices.clone()
    }

    pub(crate) async fn all_serve(&self, version: &str) {
        let mut tx = self.state.store.begin().await.unwrap();
        for device in &self.devices {
            let hello = hello(Some(release_ref(version)));
            devices::set_hello(&mut tx, &self.project, device, &hello, self.now).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// As a publication does whose metadata names a release no longer.
    pub(crate) async fn withdraw(&self, version: &str) {
        let mut tx = self.state.store.begin().await.unwrap();
        let (version, state) = (version.parse().unwrap(), releases::ReleaseState::Withdrawn);
        releases::set_state(&mut tx, &self.project, &model(), &version, state).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn try_create(&self, version: &str, mut plan: Value) -> Result<RolloutId, RolloutError> {
        plan["model"] = "digits".into();
        plan["version"] = version.into();
        let new: NewRollout = serde_json::from_value(plan).unwrap();
        let who = Principal {
            username: "ana".into(),
            proof: Proof::Session,
            must_change_password: false,
            grants: vec![Grant { scope: Scope::All, role: Role::Admin }],
        };
        rollouts::create(&self.state, &self.project, &who, new).await
    }

    pub(crate) async fn create(&self, version: &str, plan: Value) -> RolloutId {
        self.try_create(version, plan).await.unwrap()
    }

    /// Moves the clock without a tick.
    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now = self.now.plus_millis(seconds * 1000);
        self.state.clock.set(self.now);
    }

    pub(crate) async fn tick(&mut self, seconds: i64) {
        self.pass(seconds);
        let all = store::rollouts::at_work(&mut self.state.store.read().await.unwrap()).await.unwrap();
        for (project, rollout) in all {
            rollouts::tick_one(&self.state, &project, &rollout).await.unwrap();
        }
    }

    pub(crate) async fn order(&self, id: &RolloutId, verb: &Verb) -> Result<(), RolloutError> {
        let order = rollouts::Order { username: "bea", actor: "bea", action: "rollout.order", verb };
        rollouts::order(&self.state, &self.project, id, &order).await
    }

    /// What the audit tells of a rollout, oldest first.
    pub(crate) async fn audited(&self, id: &RolloutId) -> Vec<String> {
        let mut conn = self.state.store.read().await.unwrap();
        let filter = audit::Filter { object: Some(id.to_string()), ..audit::Filter::default() };
        let rows = audit::list(&mut conn, Some(&self.project), &filter, &Window::first(100)).await.unwrap();
        rows.items.into_iter().rev().map(|row| row.action).collect()
    }

    pub(crate) async fn load(&self, id: &RolloutId) -> Rollout {
        let mut conn = self.state.store.read().await.unwrap();
        store::rollouts::load(&mut conn, &self.project, id).await.unwrap().unwrap().0
    }

    pub(crate) async fn load_all(&self) -> Vec<store::rollouts::Row> {
        let mut conn = self.state.store.read().await.unwrap();
        let filter = store::rollouts::Filter::default();
        store::rollouts::list(&mut conn, &self.project, &filter, &Window::first(100)).await.unwrap().items
    }

    pub(crate) async fn status(&self, id: &RolloutId) -> Status {
        self.load(id).await.status().clone()
    }

    pub(crate) async fn phase(&self, id: &RolloutId, device: &DeviceId) -> Phase {
        self.load(id).await.task(device).unwrap().phase
    }

    pub(crate) async fn offered(&self, id: &RolloutId) -> Vec<DeviceId> {
        let rollout = self.load(id).await;
        rollout.tasks().iter().filter(|t| t.phase == Phase::Offered).map(|t| t.device.clone()).collect()
    }

    async fn row(&self, device: &DeviceId) -> devices::Device {
        let mut conn = self.state.store.read().await.unwrap();
        devices::get(&mut conn, &self.project, device).await.unwrap().unwrap()
    }

    pub(crate) async fn desired(&self, device: &DeviceId) -> Option<String> {
        let models = self.row(device).await.desired_models();
        models
            .into_iter()
            .find(|wanted| wanted.model == model())
            .map(|wanted| wanted.release.version.to_string())
    }

    /// The attempt that Desired names.
    pub(crate) async fn attempt(&self, device: &DeviceId) -> Option<u32> {
        let models = director::models(&self.row(device).await);
        models.into_iter().find(|wanted| wanted.model == model()).map(|wanted| wanted.attempt)
    }

    pub(crate) async fn why(&self, device: &DeviceId) -> Why {
        let mut conn = self.state.store.read().await.unwrap();
        let row = devices::get(&mut conn, &self.project, device).await.unwrap().unwrap();
        let open = store::rollouts::open_for(&mut conn, &self.project, &model(), device).await.unwrap();
        why::explain(&row, &model(), None, open.as_ref())
    }

    pub(crate) async fn revision(&self, device: &DeviceId) -> Revision {
        self.row(device).await.desired_revision
    }

    /// As if the director had signed the last revision that there is for a device.
    pub(crate) async fn spend_revisions(&self, device: &DeviceId) {
        let mut tx = self.state.store.begin().await.unwrap();
        let nothing = json!({ "models": [] });
        let last = Revision::MAX;
        assert!(devices::set_desired(&mut tx, &self.project, device, last, &nothing, b"").await.unwrap());
        tx.commit().await.unwrap();
    }

    pub(crate) async fn decommission(&self, device: &DeviceId) {
        let mut tx = self.state.store.begin().await.unwrap();
        devices::decommission(&mut tx, &self.project, device, self.now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Stores a report as the link does, without telling the rollout.
    pub(crate) async fn store_report(
        &mut self,
        id: &RolloutId,
        device: &DeviceId,
        version: &str,
        phase: TaskPhase,
        cause: Option<CauseKind>,
    ) -> TaskReport {
        self.counter += 1;
        let report = TaskReport {
            at: self.now,
            rollout: Some(id.clone()),
            revision: Revision(1),
            attempt: None,
            model: model(),
            release: release_ref(version),
            phase,
            cause: cause.map(|kind| Cause { kind, detail: "it went wrong".into() }),
            progress: None,
            self_test: None,
        };
        let stored = StoredReport { counter: self.counter, received_at: self.now, report: report.clone() };
        let mut tx = self.state.store.begin().await.unwrap();
        tasks::insert(&mut tx, &self.project, device, &stored).await.unwrap();
        tx.commit().await.unwrap();
        report
    }

    pub(crate) async fn report(
        &mut self,
        id: &RolloutId,
        device: &DeviceId,
        version: &str,
        phase: TaskPhase,
        cause: Option<CauseKind>,
    ) {
        let report = self.store_report(id, device, version, phase, cause).await;
        rollouts::on_task_report(&self.state, &self.project, device, &report).await.unwrap();
    }

    pub(crate) async fn commit(&mut self, id: &RolloutId, devices: &[DeviceId]) {
        let version = self.load(id).await.plan().release.version.to_string();
        for device in devices {
            for phase in [TaskPhase::Accepted, TaskPhase::Probation, TaskPhase::Committed] {
                self.report(id, device, &version, phase, None).await;
            }
        }
    }

    /// A pane of 300 labelled answers of the last 20 seconds, `right` of 100 correct.
    pub(crate) async fn pane(&mut self, device: &DeviceId, version: &str, right: usize) {
        let reference = reference();
        let (start, end) = (self.now.plus_millis(-20_000), self.now.plus_millis(-1000));
        let release = release_ref(version);
        let key = PaneKey {
            model: model(),
            digest: release.digest,
            schema: reference.schema.digest(),
            segment: String::new(),
            start,
            end,
            run: 1,
            revision: 0,
        };
        let mut pane = Pane::new(key, &reference.schema);
        for i in 0..300usize {
            let counters = &mut pane.counters;
            counters.observe_row(&reference.schema, &[Observed::Number((i % 100) as f64)]);
            counters.observe_probabilities(&reference.schema, &[0.9, 0.1]);
            counters.observe_answer(1000.0);
            counters.observe_label(&reference.schema, 0, Some(usize::from(i % 100 >= right)), 1.0);
        }
        self.counter += 1;
        let row = PaneRow {
            device: device.clone(),
            stream: StreamId::new("s").unwrap(),
            seq: self.counter,
            model: model(),
            version: release.version,
            digest: release.digest,
            segment: String::new(),
            window_start: start,
            window_end: end,
            n: 300,
            body: pane.encode(),
            received_at: self.now,
        };
        let mut tx = self.state.store.begin().await.unwrap();
        telemetry::add_pane(&mut tx, &self.project, &row).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn open_alerts(&self) -> Vec<String> {
        let mut conn = self.state.store.read().await.unwrap();
        let found = alerts::list(&mut conn, &self.project, true, &Window::first(10)).await.unwrap();
        found.items.into_iter().map(|alert| alert.kind).collect()
    }

    /// Takes note of every open alert.
    pub(crate) async fn acknowledge(&self) {
        let mut tx = self.state.store.begin().await.unwrap();
        let found = alerts::list(&mut tx, &self.project, true, &Window::first(10)).await.unwrap();
        for alert in found.items {
            alerts::acknowledge(&mut tx, &self.project, &alert.alert_id, "ana", self.state.clock.now())
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// The stored journal leads to the stored state.
    pub(crate) async fn replay(&self, id: &RolloutId) {
        let stored = self.load(id).await;
        let mut conn = self.state.store.read().await.unwrap();
        let journal =
            store::rollouts::journal(&mut conn, &self.project, id, &Window::first(10_000)).await.unwrap();
        let core = stored.core();
        let author = Actor::User("ana".into());
        let again =
            rollout::replay(id.clone(), core.plan.clone(), &author, core.created_at, &journal.items).unwrap();
        assert_eq!(&again, &stored);
    }

    pub(crate) async fn is_signed_by_the_director(&self, file: &Value) -> bool {
        let mut tx = self.state.store.begin().await.unwrap();
        let signer =
            keys::signer(&mut tx, &self.state.seal, &self.project, OnlineRole::Director).await.unwrap();
        let message =
            [b"flotilla-rollout-evidence-v1\0", file["payload"].as_str().unwrap().as_bytes()].concat();
        let key = ed25519_dalek::VerifyingKey::from_bytes(&signer.public_bytes()).unwrap();
        let signature = hex::decode(file["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        key.verify_strict(&message, &ed25519_dalek::Signature::from_slice(&signature).unwrap()).is_ok()
    }
}
