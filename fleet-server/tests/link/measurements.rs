//! What devices measured of a release: kept where it belongs, bounded whatever a device says.

use protocol::measurement::{Fallback, Figures, MAX_FALLBACKS, Measurement, Outcome};
use protocol::telemetry::Kind;
use protocol::topic::Channel;
use protocol::{Counter, Digest, ModelName, ReleaseRef, UnixMillis, Version};

use flotilla_server::store::measurements::{self, Measured};
use flotilla_server::store::releases::{self, Release, ReleaseState};
use flotilla_server::store::{Window, quarantine};

use crate::support::*;
use crate::telemetry::{batch_of, cbor};

fn digits() -> ModelName {
    ModelName::new("digits").unwrap()
}

fn digest() -> Digest {
    Digest::from_bytes([7; 32])
}

async fn publish(server: &Server) {
    let release = Release {
        model: digits(),
        version: Version::new("1.0.0").unwrap(),
        digest: digest(),
        counter: Counter(1),
        manifest: br#"{"variants":[{"name":"int8"}]}"#.to_vec(),
        state: ReleaseState::Published,
        published_at: UnixMillis(1),
        published_by: "test".into(),
    };
    let mut tx = server.state.store.begin().await.unwrap();
    releases::insert(&mut tx, &project(), &release).await.unwrap();
    tx.commit().await.unwrap();
}

fn said(variant: &str, digest: Digest, outcome: Outcome) -> (Kind, Vec<u8>) {
    let release = ReleaseRef { version: Version::new("1.0.0").unwrap(), digest, counter: Counter(1) };
    let measurement = Measurement {
        command_id: "c1".into(),
        model: digits(),
        release,
        variant: variant.into(),
        agent_version: "0.1.0".into(),
        outcome,
    };
    (Kind::Measurement, cbor(&measurement))
}

fn figures(p50_us: u64) -> Outcome {
    Outcome::Measured(Box::new(Figures { p50_us, samples: 16, passed: 16, ..Figures::default() }))
}

async fn kept(server: &Server) -> Vec<Measured> {
    let mut conn = server.state.store.read().await.unwrap();
    measurements::list(&mut conn, &project(), &digits(), &digest()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn measurements_stand_under_release_variant_and_hardware_class() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    publish(&server).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let hello = device.hello(0);
    connection.publish(&device.topic(Channel::Hello), hello).await;
    eventually("hello is stored", || async { server.row(&device).await.hello.is_some() }).await;
    let class = server.row(&device).await.hello.unwrap().hardware.class;
    let other = Digest::from_bytes([9; 32]);
    let records = vec![
        said("int8", digest(), figures(9)),
        said("int8", digest(), figures(7)),
        said("int4", digest(), figures(5)),
        said("int8", other, figures(3)),
    ];
    connection.publish(&device.topic(Channel::Telemetry), batch_of(records)).await;
    connection.acknowledged(&device, 4).await;
    let found = kept(&server).await;
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((one.hardware_class.as_str(), &one.device), (class.as_str(), &device.id));
    assert_eq!(one.measurement.outcome, figures(7), "the newest of a device and variant");
    let mut conn = server.state.store.read().await.unwrap();
    let aside = quarantine::list(&mut conn, &project(), &device.id, &Window::first(9)).await.unwrap().items;
    let why: Vec<&str> = aside.iter().map(|record| record.why.as_str()).collect();
    assert!(why.len() == 2 && why[0].contains("no release of digits"), "{why:?}");
    assert!(why[1].contains("has no variant \"int4\""), "{why:?}");
    drop(conn);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_measurement_is_bounded_before_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    publish(&server).await;
    let device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let evil = format!("\u{1b}[2J{}", "x".repeat(400));
    let fallback = Fallback { node: evil.clone(), op: evil.clone(), why: evil.clone() };
    let figures = Figures {
        p50_us: u64::MAX,
        samples: 1,
        passed: 9,
        tract_permille: u16::MAX,
        kernels: Some(evil),
        fallbacks: vec![fallback; 150],
        ..Figures::default()
    };
    let record = said("int8", digest(), Outcome::Measured(Box::new(figures)));
    connection.publish(&device.topic(Channel::Telemetry), batch_of(vec![record])).await;
    connection.acknowledged(&device, 1).await;
    let found = kept(&server).await;
    let [Measured { measurement, .. }] = found.as_slice() else { panic!("{found:?}") };
    let Outcome::Measured(figures) = &measurement.outcome else { panic!("{measurement:?}") };
    assert_eq!((figures.passed, figures.tract_permille, figures.p50_us), (1, 1000, u64::MAX));
    assert_eq!(figures.fallbacks.len(), MAX_FALLBACKS);
    assert!(!figures.fallbacks[0].why.contains('\u{1b}') && figures.fallbacks[0].node.len() <= 102);
    server.stop().await;
}
