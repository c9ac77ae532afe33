//! Nothing lost, nothing twice, and nothing that a device sends can stop the ingest.

use protocol::message::{Command, CommandAction, Hello, TaskPhase, TaskReport};
use protocol::report::SignedReport;
use protocol::telemetry::{Batch, DeviceEvent, Kind, Record, Resources};
use protocol::topic::Channel;
use protocol::{
    Counter, Digest, ModelName, ReleaseRef, Revision, StreamId, UnixMillis, Version, WIRE_VERSION,
    encode_json,
};

use flotilla_server::store::quarantine::{self, Quarantined};
use flotilla_server::store::{Window, history, tasks, telemetry};
use rumqttc::v5::mqttbytes::QoS;
use sha2::Digest as _;

use crate::sql;
use crate::support::*;

fn counter(server: &Server, line: &str) -> u64 {
    let text = server.state.metrics.render();
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_count_once_and_the_acknowledgement_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let topic = device.topic(Channel::Telemetry);
    let mut connection = device.connect(&server).await;
    connection.publish(&topic, batch(1, &[1, 2, 3])).await;
    connection.acknowledged(&device, 3).await;
    connection.publish(&topic, batch(1, &[2, 3, 5])).await;
    connection.acknowledged(&device, 3).await;
    assert_eq!(events(&server, &device).await.len(), 4);
    drop(connection);
    server.stop().await;

    let server = Server::start(folder.path()).await;
    let mut connection = device.connect(&server).await;
    connection.publish(&topic, batch(1, &[4])).await;
    connection.acknowledged(&device, 5).await;
    connection.publish(&topic, batch(1, &[1, 2, 3, 4, 5])).await;
    connection.acknowledged(&device, 5).await;
    connection.publish(&topic, batch(9, &[10])).await;
    connection.acknowledged(&device, 8).await;
    assert_eq!(events(&server, &device).await.len(), 6, "1 to 5 and 10, each once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_named_and_the_loop_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let telemetry = device.topic(Channel::Telemetry);
    let bomb = zstd::encode_all(vec![0u8; 256 * 1024 * 1024].as_slice(), 3).unwrap();
    let not_cbor = zstd::encode_all(&b"\xff\x00\x01"[..], 3).unwrap();
    for payload in [bomb, b"not zstd".to_vec(), not_cbor, vec![]] {
        connection.publish(&telemetry, payload).await;
    }
    connection.publish(&device.topic(Channel::Hello), b"{{{".to_vec()).await;
    connection.publish(&device.topic(Channel::Hello), br#"{"v":9}"#.to_vec()).await;
    connection.publish(&device.topic(Channel::Status), b"\xff\xfe".to_vec()).await;

    connection.publish(&telemetry, batch(1, &[1])).await;
    connection.acknowledged(&device, 1).await;
    let hello = device.hello(0);
    connection.publish(&device.topic(Channel::Hello), hello).await;
    eventually("a good hello after all the bad ones", || async { server.row(&device).await.hello.is_some() })
        .await;
    for code in ["zstd_bomb", "malformed_zstd", "malformed_cbor", "malformed_json", "wire_version"] {
        let name = format!("refused_{code}");
        assert!(events(&server, &device).await.iter().any(|event| event.name == name), "{name}");
        let line = format!("flotilla_link_rejected_messages_total{{code=\"{code}\"}}");
        assert!(counter(&server, &line) >= 1, "{line}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_can_not_be_read_are_quarantined_and_count_as_received() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let record = |seq, kind| Record { seq, kind, at: UnixMillis(0), body: b"\xff garbage".to_vec().into() };
    let records = Kind::ALL.into_iter().enumerate().map(|(n, kind)| record(1 + n as u64, kind)).collect();
    let batch =
        Batch { v: WIRE_VERSION, stream: stream(), floor_seq: 1, from_seq: 1, records, dropped: vec![] };
    let payload = zstd::encode_all(batch.encode().as_slice(), 3).unwrap();
    connection.publish(&device.topic(Channel::Telemetry), payload).await;
    connection.acknowledged(&device, 6).await;
    assert_eq!(counter(&server, "flotilla_link_quarantined_records_total"), 6);
    server.stop().await;
}

/// A batch with these bodies from sequence number 1, compressed as on the wire.
pub(crate) fn batch_of(records: Vec<(Kind, Vec<u8>)>) -> Vec<u8> {
    let record = |(n, (kind, body)): (usize, (Kind, Vec<u8>))| {
        let seq = 1 + u64::try_from(n).unwrap();
        Record { seq, kind, at: UnixMillis(0), body: body.into() }
    };
    let records = records.into_iter().enumerate().map(record).collect();
    let batch =
        Batch { v: WIRE_VERSION, stream: stream(), floor_seq: 1, from_seq: 1, records, dropped: vec![] };
    zstd::encode_all(batch.encode().as_slice(), 3).unwrap()
}

pub(crate) fn cbor<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut body = Vec::new();
    ciborium::into_writer(value, &mut body).unwrap();
    body
}

fn happened(name: &str) -> (Kind, Vec<u8>) {
    (Kind::Event, cbor(&DeviceEvent { name: name.into(), detail: "it did".into() }))
}

async fn set_aside(server: &Server, device: &Device) -> Vec<Quarantined> {
    let mut conn = server.state.store.read().await.unwrap();
    quarantine::list(&mut conn, &project(), &device.id, &Window::first(500)).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_none_are_quarantined_and_the_rest_of_the_batch_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let reading = |load1, temperature_c| {
        let (rss_bytes, cpu_ms, disk_free_bytes, disk_used_bytes) = (1, u64::MAX, 3, 4);
        let said = Resources { rss_bytes, cpu_ms, disk_free_bytes, disk_used_bytes, load1, temperature_c };
        (Kind::Resources, cbor(&said))
    };
    let records = vec![
        happened("first"),
        reading(f64::NAN, None),
        reading(0.5, Some(f64::INFINITY)),
        reading(0.5, Some(40.0)),
        happened("last"),
    ];
    connection.publish(&device.topic(Channel::Telemetry), batch_of(records)).await;
    connection.acknowledged(&device, 5).await;
    let kept = set_aside(&server, &device).await;
    let why: Vec<_> = kept.iter().map(|record| (record.seq, record.why.as_str())).collect();
    let unreadable = |name| format!("the record's body is no resources: {name} is no finite number");
    assert_eq!(why, [(3, &*unreadable("temperature_c")), (2, &*unreadable("load1"))]);
    eventually("the event is noted", || async {
        events(&server, &device).await.iter().any(|event| event.name == "quarantined")
    })
    .await;
    let noted = events(&server, &device).await;
    let noted = noted.iter().find(|event| event.name == "quarantined").unwrap();
    assert!(noted.detail.contains("2 now") && noted.detail.contains("load1"), "{}", noted.detail);
    let mut conn = server.state.store.read().await.unwrap();
    let stored = history::readings(&mut conn, &project(), &device.id, UnixMillis(0), 9).await.unwrap();
    assert_eq!(stored.len(), 1);
    drop(conn);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_database_refuses_is_quarantined_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON device_events WHEN NEW.name = 'poison' \
                  BEGIN SELECT RAISE(ABORT, 'no poison here'); END";
    sql::execute(&server.state.store, refuse).await;
    let mut connection = device.connect(&server).await;
    let records = vec![happened("first"), happened("poison"), happened("last")];
    connection.publish(&device.topic(Channel::Telemetry), batch_of(records)).await;
    connection.acknowledged(&device, 3).await;
    let kept = set_aside(&server, &device).await;
    assert_eq!(kept.len(), 1);
    assert!(kept[0].seq == 2 && kept[0].why.contains("no poison here"), "{kept:?}");
    let stored = events(&server, &device).await;
    for name in ["first", "last"] {
        assert_eq!(stored.iter().filter(|event| event.name == name).count(), 1, "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_can_not_fill_the_disk_with_what_nobody_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let telemetry = device.topic(Channel::Telemetry);
    let zeros = vec![0; protocol::telemetry::MAX_RECORD_BYTES];
    let fill = (Kind::Pane, zeros.clone());
    let mut records = vec![fill; 15];
    let junk = (Kind::Pane, vec![0]);
    connection.publish(&telemetry, batch_of(records.clone())).await;
    connection.acknowledged(&device, 15).await;
    let kept = set_aside(&server, &device).await;
    assert_eq!(kept.len(), 15);
    assert_eq!(kept[0].size_bytes, u64::try_from(zeros.len()).unwrap());
    assert_eq!(kept[0].body.len(), quarantine::MAX_BODY_BYTES);
    assert_eq!(kept[0].body_sha256, Some(Digest::from_bytes(sha2::Sha256::digest(&zeros).into())));
    records.extend(vec![junk; 300]);
    connection.publish(&telemetry, batch_of(records)).await;
    connection.acknowledged(&device, 315).await;
    let kept = set_aside(&server, &device).await;
    assert_eq!(i64::try_from(kept.len()).unwrap(), quarantine::MAX_RECORDS);
    assert_eq!((kept[0].seq, kept[199].seq), (315, 116), "the newest stay");
    for n in 0..50 {
        let stream = StreamId::new(format!("s{n}")).unwrap();
        let empty =
            Batch { v: WIRE_VERSION, stream, floor_seq: 1, from_seq: 0, records: vec![], dropped: vec![] };
        let payload = zstd::encode_all(empty.encode().as_slice(), 3).unwrap();
        connection.publish(&telemetry, payload).await;
    }
    let streams = async || sql::count(&server.state.store, "SELECT COUNT(*) FROM streams").await;
    eventually("the last stream is known", || async {
        let mut conn = server.state.store.read().await.unwrap();
        let last = StreamId::new("s49").unwrap();
        telemetry::position(&mut conn, &project(), &device.id, &last).await.unwrap().is_some()
    })
    .await;
    assert!(streams().await <= telemetry::MAX_STREAMS + 1, "{}", streams().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_device_are_bounded_and_move_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let evil = "\u{1b}[2J\u{1b}]0;pwned\u{7}\rall is well\u{202e}";
    let signed: SignedReport = protocol::decode_json(&device.hello(0)).unwrap();
    let mut hello: Hello = protocol::decode_json(&signed.payload().unwrap()).unwrap();
    hello.hardware.class = evil.into();
    hello.labels = [("k\u{1b}[2J".to_owned(), "v".to_owned()), ("site".to_owned(), "s1".to_owned())].into();
    hello.problems = vec![evil.to_owned(); 500];
    let signed = device.signed(Channel::Hello, &encode_json(&hello));
    connection.publish(&device.topic(Channel::Hello), signed).await;
    let said = (Kind::Event, cbor(&DeviceEvent { name: evil.into(), detail: format!("{evil}\nforged") }));
    connection.publish(&device.topic(Channel::Telemetry), batch_of(vec![said])).await;
    connection.acknowledged(&device, 1).await;
    let known = server.row(&device).await.hello.unwrap();
    let shown = "\u{fffd}[2J\u{fffd}]0;pwned\u{fffd} all is well\u{fffd}";
    assert_eq!(known.hardware.class, shown);
    assert_eq!(known.labels.keys().collect::<Vec<_>>(), ["site"]);
    assert_eq!((known.problems.len(), known.problems[0].as_str()), (33, shown));
    let events = events(&server, &device).await;
    assert!(events.iter().any(|event| event.name == shown && event.detail == format!("{shown} forged")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_over_its_budget_is_refused_by_name_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let limit = [("limits.device_bytes_per_hour", "1000000")];
    let server = Server::start_with(folder.path(), 0, &limit).await;
    server.add_project(&project()).await;
    server.publish_root(&project()).await;
    let (device, other) = (server.enroll("one").await, server.enroll("two").await);
    let mut connection = device.connect(&server).await;
    let fill = vec![(Kind::Event, vec![0; 250_000]); 5];
    connection.publish(&device.topic(Channel::Telemetry), batch_of(fill)).await;
    eventually("the refusal is noted", || async {
        events(&server, &device).await.iter().any(|event| event.name == "refused_over_budget")
    })
    .await;
    assert!(set_aside(&server, &device).await.is_empty(), "nothing of it is stored");
    let mut second = other.connect(&server).await;
    second.publish(&other.topic(Channel::Telemetry), batch(1, &[1])).await;
    second.acknowledged(&other, 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_replayed_reports_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (mut device, mut other) = (server.enroll("one").await, server.enroll("two").await);
    let mut connection = device.connect(&server).await;
    let topic = device.topic(Channel::Hello);
    let (first, second) = (device.hello(0), device.hello(0));
    connection.publish(&topic, second).await;
    eventually("the report is taken", || async { server.row(&device).await.report_counter == 2 }).await;
    // An older report, another device's report, one with a changed counter.
    connection.publish(&topic, first.clone()).await;
    other.counter = 100;
    connection.publish(&topic, other.hello(0)).await;
    let replayed: SignedReport = protocol::decode_json(&first).unwrap();
    let (payload, signature) = (replayed.payload().unwrap(), replayed.signature().unwrap());
    connection.publish(&topic, encode_json(&SignedReport::new(50, &payload, &signature))).await;
    let refused =
        |code: &str| counter(&server, &format!("flotilla_link_rejected_messages_total{{code=\"{code}\"}}"));
    eventually("all are refused by name", || async {
        refused("replayed_report") == 1 && refused("untrusted_report") == 2
    })
    .await;
    assert_eq!(server.row(&device).await.report_counter, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_device_whose_state_went_back_is_told_its_floor_and_heard_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let (hello, commands) = (device.topic(Channel::Hello), device.topic(Channel::Command));
    device.counter = 500;
    connection.publish(&hello, device.hello(0)).await;
    eventually("the report is taken", || async { server.row(&device).await.report_counter > 500 }).await;
    let floor = server.row(&device).await.report_counter;
    // A forged report is told nothing; the next message on the topic is about the device's own.
    let stranger = protocol::encode_json(&SignedReport::new(3, b"{}", &[0; 64]));
    connection.publish(&hello, stranger).await;
    device.counter = 3;
    let stale = device.hello_of("restored", 0);
    connection.client.publish(&hello, QoS::AtLeastOnce, false, stale.clone()).await.unwrap();
    let told: Command = protocol::decode_json(&connection.message(&commands).await.payload).unwrap();
    assert_eq!(told.action, CommandAction::ReportFloor { floor });
    assert_eq!(server.row(&device).await.report_counter, floor, "nothing of a stale report is believed");
    assert_eq!(server.row(&device).await.hello.unwrap().boot_id, "b");
    eventually("the event is noted", || async {
        events(&server, &device).await.iter().any(|event| event.name == "state_went_back")
    })
    .await;
    device.counter = floor;
    connection.publish(&hello, device.hello_of("restored", 0)).await;
    eventually("the device is heard again", || async {
        server.row(&device).await.hello.is_some_and(|hello| hello.boot_id == "restored")
    })
    .await;
    // Replayed later, the stale report names the floor once more; to a device that stands above it that is nothing.
    let floor = server.row(&device).await.report_counter;
    connection.client.publish(&hello, QoS::AtLeastOnce, false, stale).await.unwrap();
    let told: Command = protocol::decode_json(&connection.message(&commands).await.payload).unwrap();
    assert_eq!(told.action, CommandAction::ReportFloor { floor });
    let noted = events(&server, &device).await;
    assert_eq!(noted.iter().filter(|event| event.name == "state_went_back").count(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_reports_are_stored_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    for phase in [TaskPhase::Accepted, TaskPhase::Fetching, TaskPhase::Committed] {
        let report = TaskReport {
            at: UnixMillis(1),
            rollout: None,
            revision: Revision(1),
            attempt: None,
            model: ModelName::new("digits").unwrap(),
            release: ReleaseRef {
                version: Version::new("1.0.0").unwrap(),
                digest: Digest::from_bytes([1; 32]),
                counter: Counter(1),
            },
            phase,
            cause: None,
            progress: None,
            self_test: None,
        };
        let signed = device.signed(Channel::Task, &encode_json(&report));
        connection.publish(&device.topic(Channel::Task), signed).await;
    }
    let phases = async || {
        let mut conn = server.state.store.read().await.unwrap();
        let page = tasks::list(&mut conn, &project(), &device.id, &Window::first(10)).await.unwrap();
        page.items.iter().map(|stored| stored.report.phase).collect::<Vec<_>>()
    };
    eventually("three reports", || async { phases().await.len() == 3 }).await;
    assert_eq!(phases().await, [TaskPhase::Committed, TaskPhase::Fetching, TaskPhase::Accepted]);
    server.stop().await;
}
