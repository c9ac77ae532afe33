//! Desired: signed by the director, sent on change and whenever a device is behind.

use flotilla_server::tuf::director::{self, DirectorError, Wish};
use protocol::topic::Channel;
use protocol::{Counter, Digest, ModelName, ReleaseRef, Revision, UnixMillis, Version};
use trust::desired::Mode;
use trust::{Repository, Session, Step, Stored};

use crate::sql;
use crate::support::*;

fn wish(version: &str) -> Wish {
    let release = ReleaseRef {
        version: Version::new(version).unwrap(),
        digest: Digest::from_bytes([1; 32]),
        counter: Counter(1),
    };
    Wish {
        model: ModelName::new("digits").unwrap(),
        release: Some(release),
        mode: Mode::Replace,
        rollout: None,
        attempt: 0,
    }
}

/// Runs the device's client workflow over the device port and returns the director's keys.
async fn director_keys(server: &Server, device: &Device) -> trust::director::DirectorKeys {
    let (_, _, root) = fetch(server, device, "/tuf/v1/acme/1.root.json", None).await;
    let now = server.state.clock.now();
    let mut session =
        Session::new(Stored::new(root.to_vec()), ["director.json"], now, &trust::Limits::default()).unwrap();
    let repository: Repository = loop {
        match session.next().unwrap() {
            Step::Need(wanted) => {
                let (status, _, bytes) =
                    fetch(server, device, &format!("/tuf/v1/acme/{}", wanted.path), None).await;
                let reply =
                    if status == 200 { trust::Reply::Bytes(bytes.to_vec()) } else { trust::Reply::NotFound };
                session.feed(reply).unwrap();
            }
            Step::Persist(_) | Step::Forget(_) => {}
            Step::Done(accepted) => break accepted.repository,
        }
    };
    let info = repository.find_target("director.json").unwrap();
    let path = format!("/tuf/v1/acme/targets/{}", info.fetch_path());
    let (status, _, bytes) = fetch(server, device, &path, None).await;
    assert_eq!(status, 200, "{path}");
    trust::director::DirectorKeys::parse(&info.verify(bytes.to_vec()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_device_signed_and_is_repeated_until_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let keys = director_keys(&server, &device).await;
    let topic = device.topic(Channel::Desired);
    let mut connection = device.connect(&server).await;

    let revision = director::set_desired(&server.state, &project(), &device.id, wish("1.0.0")).await.unwrap();
    assert_eq!(revision, Revision(1));
    let sent = connection.message(&topic).await;
    let verify = |bytes: &[u8], floor| {
        trust::desired::verify(bytes, &keys, &project(), &device.id, UnixMillis(0), Revision(floor))
    };
    let desired = verify(&sent.payload, 0).unwrap();
    assert_eq!(desired.models[0].release.version.as_str(), "1.0.0");

    // The same wish again changes nothing.
    let again = director::set_desired(&server.state, &project(), &device.id, wish("1.0.0")).await.unwrap();
    assert_eq!(again, Revision(1));
    drop(connection);

    // While the device is away the wish changes; its next hello says that it is behind.
    director::set_desired(&server.state, &project(), &device.id, wish("1.1.0")).await.unwrap();
    let mut connection = device.connect(&server).await;
    let hello = device.hello(1);
    connection
        .client
        .publish(device.topic(Channel::Hello), rumqttc::v5::mqttbytes::QoS::AtLeastOnce, false, hello)
        .await
        .unwrap();
    let sent = connection.message(&topic).await;
    let verify = |bytes: &[u8], floor| {
        trust::desired::verify(bytes, &keys, &project(), &device.id, UnixMillis(0), Revision(floor))
    };
    let desired = verify(&sent.payload, 1).unwrap();
    assert_eq!((desired.revision, desired.models[0].release.version.as_str()), (Revision(2), "1.1.0"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_knows_a_higher_revision_is_overtaken() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    // As after a restored backup: the device has accepted revision 41 of a future that this database forgot.
    let hello = device.hello(41);
    connection.publish(&device.topic(Channel::Hello), hello).await;
    eventually("hello is stored", || async { server.row(&device).await.hello.is_some() }).await;
    let revision = director::set_desired(&server.state, &project(), &device.id, wish("1.0.0")).await.unwrap();
    assert_eq!(revision, Revision(42));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ff2_no_word_of_a_device_uses_its_revisions_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let topic = device.topic(Channel::Hello);
    for beyond in [Revision::MAX.0 + 1, u64::MAX] {
        let hello = device.hello(beyond);
        connection.publish(&topic, hello).await;
    }
    eventually("it is refused by name", || async {
        events(&server, &device).await.iter().any(|event| event.name == "refused_bad_revision")
    })
    .await;
    assert!(server.row(&device).await.hello.is_none());

    // As after a thief's Desired of the highest revision: one of our own is signed, for a new director's key.
    let hello = device.hello(Revision::MAX.0);
    connection.publish(&topic, hello).await;
    eventually("hello is stored", || async { server.row(&device).await.hello.is_some() }).await;
    let revision = director::set_desired(&server.state, &project(), &device.id, wish("1.0.0")).await.unwrap();
    assert_eq!(revision, Revision(1));

    sql::execute(&server.state.store, "UPDATE devices SET desired_revision = 9007199254740992").await;
    let spent = director::set_desired(&server.state, &project(), &device.id, wish("1.1.0")).await;
    assert!(matches!(spent, Err(DirectorError::Spent { .. })), "{spent:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_many_are_connected_hello_is_answered_with_the_time_to_spread_over() {
    let folder = tempfile::tempdir().unwrap();
    // One device is as many at ten seconds for each as two thousand at five milliseconds.
    let server = Server::start_with(folder.path(), 0, &[("mqtt.reconnect_gap_ms", "10000")]).await;
    server.add_project(&project()).await;
    server.publish_root(&project()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let hello = device.hello(0);
    let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
    connection.client.publish(device.topic(Channel::Hello), qos, false, hello).await.unwrap();
    let sent = connection.message(&device.topic(Channel::Command)).await;
    let command: protocol::message::Command = protocol::decode_json(&sent.payload).unwrap();
    assert_eq!(command.action, protocol::message::CommandAction::WidenJitter { max_s: 10 });
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_sees_only_its_own_project() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let other = protocol::ProjectId::new("other").unwrap();
    server.add_project(&other).await;
    server.publish_root(&other).await;
    assert_eq!(fetch(&server, &device, "/tuf/v1/acme/timestamp.json", None).await.0, 200);
    assert_eq!(fetch(&server, &device, "/tuf/v1/other/timestamp.json", None).await.0, 404);
    for path in ["snapshot.json", "0.root.json", "x.root.json", "..%2F..%2Fetc", "targets/x", "1.root"] {
        assert_eq!(fetch(&server, &device, &format!("/tuf/v1/acme/{path}"), None).await.0, 404, "{path}");
    }

    let bytes = bytes::Bytes::from_static(b"0123456789");
    let digest = protocol::Digest::from_bytes(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into());
    server.state.blobs.put_bytes(&digest, bytes).await.unwrap();
    let path = format!("/blobs/v1/sha256/{digest}");
    let refer = async |project: &protocol::ProjectId| {
        let mut tx = server.state.store.begin().await.unwrap();
        // An old one that no release names is collected.
        let now = server.state.clock.now();
        flotilla_server::store::blobs::insert(&mut tx, project, &digest, 10, now).await.unwrap();
        tx.commit().await.unwrap();
    };
    refer(&other).await;
    assert_eq!(fetch(&server, &device, &path, None).await.0, 404, "another project's blob");
    refer(&project()).await;
    let (status, headers, body) = fetch(&server, &device, &path, Some("bytes=4-")).await;
    assert_eq!((status.as_u16(), &body[..]), (206, &b"456789"[..]));
    assert_eq!(headers["content-range"], "bytes 4-9/10");
    assert_eq!(fetch(&server, &device, &path, Some("bytes=10-")).await.0, 416);
    assert_eq!(fetch(&server, &device, &path, None).await.2, "0123456789");
    server.stop().await;
}
