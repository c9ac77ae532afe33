//! Who gets in, and what they may touch.

use protocol::topic::{Channel, client_id};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{ConnectionError, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_can_not_pose_as_another_by_client_id() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (one, two) = (server.enroll("one").await, server.enroll("two").await);
    let mut victim = two.connect(&server).await;
    for id in [client_id(&project(), &two.id), "fleet-server".into(), "two".into()] {
        let mut thief = Connection::new(one.options(&server, &id));
        let refused = *thief.until(|packet| matches!(packet, Packet::ConnAck(_))).await.unwrap_err();
        let code = ConnectReturnCode::ClientIdentifierNotValid;
        assert!(matches!(&refused, ConnectionError::ConnectionRefused(c) if *c == code), "{id}: {refused:?}");
    }
    // The victim's connection was not taken over.
    victim.publish(&two.topic(Channel::Status), b"{}".to_vec()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_topics_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (one, two) = (server.enroll("one").await, server.enroll("two").await);
    let mut connection = one.connect(&server).await;
    for topic in
        [two.topic(Channel::Hello), one.topic(Channel::Desired), "$SYS/x".into(), "fleet/v1/x".into()]
    {
        let Packet::PubAck(ack) = connection.publish(&topic, b"{}".to_vec()).await else {
            panic!("no PUBACK")
        };
        assert_eq!(ack.reason, PubAckReason::NotAuthorized, "{topic}");
    }
    for filter in
        [two.topic(Channel::Desired), "#".into(), "fleet/v1/+/+/up/hello".into(), "$share/g/#".into()]
    {
        connection.client.subscribe(filter.clone(), QoS::AtLeastOnce).await.unwrap();
        let answer = connection.until(|packet| matches!(packet, Packet::SubAck(_))).await.unwrap();
        let Packet::SubAck(ack) = answer else { panic!("no SUBACK") };
        assert_eq!(ack.return_codes, [SubscribeReasonCode::NotAuthorized], "{filter}");
    }
    eventually("it stands among the device's events", || async {
        let events = events(&server, &one).await;
        events.iter().any(|event| {
            event.name == "refused_foreign_topic" && event.detail.contains(&two.topic(Channel::Hello))
        })
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_current_certificate_nobody_gets_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = server.enroll("one").await;
    let id = client_id(&project(), &device.id);
    let is_up = |packet: &Packet| matches!(packet, Packet::ConnAck(_));

    let mut options = MqttOptions::new(&id, "localhost", server.bound.mqtt.port());
    let tls = flotilla_server::pki::client_config(&server.ca(), None).unwrap();
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.into())));
    assert!(Connection::new(options).until(is_up).await.is_err(), "no certificate");

    // Another fleet's certificate for the same name.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Server::start(elsewhere.path()).await;
    let foreign = other.enroll("one").await;
    let mut posing = Device::new("one");
    (posing.key, posing.certificate) = (foreign.key, foreign.certificate);
    assert!(Connection::new(posing.options(&server, &id)).until(is_up).await.is_err(), "another CA");
    other.stop().await;

    let mut connection = device.connect(&server).await;
    let mut tx = server.state.store.begin().await.unwrap();
    let now = server.state.clock.now();
    flotilla_server::store::devices::decommission(&mut tx, &project(), &device.id, now).await.unwrap();
    tx.commit().await.unwrap();
    server.state.downlink.disconnect(project(), device.id.clone());
    assert!(connection.until(|_| false).await.is_err(), "a decommissioned device is disconnected");
    assert!(
        Connection::new(device.options(&server, &id)).until(is_up).await.is_err(),
        "and finds no way back"
    );
    assert_eq!(fetch(&server, &device, "/tuf/v1/acme/timestamp.json", None).await.0, 403);
    assert!(
        server
            .state
            .metrics
            .render()
            .contains("flotilla_link_refused_connections_total{code=\"decommissioned\"}")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_marks_a_lost_device_offline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let mut connection = device.connect(&server).await;
    let hello = device.hello(0);
    connection.publish(&device.topic(Channel::Hello), hello).await;
    eventually("online after hello", || async { server.row(&device).await.is_online }).await;
    assert_eq!(server.link.connected(), 1);
    drop(connection);
    eventually("offline by its last will", || async { !server.row(&device).await.is_online }).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_retires_the_old_one_at_its_first_use() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut device = server.enroll("one").await;
    let body = serde_json::json!({ "csr": device.csr() }).to_string();
    let (status, renewed) = post_to(server.bound.device, device.tls(&server), "/device/v1/renew", body).await;
    assert_eq!(status, 200, "{renewed}");
    let file = "/tuf/v1/acme/timestamp.json";
    assert_eq!(
        fetch(&server, &device, file, None).await.0,
        200,
        "the old one serves until the new one is used"
    );
    let old = std::mem::replace(&mut device.certificate, renewed["certificate"].as_str().unwrap().to_owned());
    assert_eq!(fetch(&server, &device, file, None).await.0, 200, "the new one is good");
    device.certificate = old;
    let (status, _, body) = fetch(&server, &device, file, None).await;
    assert_eq!(status, 403);
    assert!(String::from_utf8_lossy(&body).contains("superseded"));
    server.stop().await;
}
