//! A server on free ports and devices that speak to it as agents do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flotilla_server::app::{self, AppState, Bound};
use flotilla_server::clock::Clock;
use flotilla_server::config;
use flotilla_server::link::Link;
use flotilla_server::pki::enroll::EnrollResponse;
use flotilla_server::pki::token::{TokenText, secret_hash};
use flotilla_server::store::{Window, devices, enrollment, history, projects};
use flotilla_server::tuf::keys::{self, OnlineRole};
use flotilla_server::tuf::publish::{self, Publication};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use protocol::message::{Clock as DeviceClock, Hardware, Hello, SpoolState};
use protocol::telemetry::{Batch, DeviceEvent, Kind, Record};
use protocol::topic::{Channel, Topic, client_id};
use protocol::{DeviceId, ProjectId, Revision, StreamId, UnixMillis, WIRE_VERSION, encode_json};
use rcgen::{CertificateParams, KeyPair};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, Signer, director};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// A running server. Dropping it without [`Server::stop`] is a crash: nothing is drained.
pub(crate) struct Server {
    pub(crate) state: AppState,
    pub(crate) bound: Bound,
    pub(crate) link: Link,
    shutdown: tokio_util::sync::CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

pub(crate) fn project() -> ProjectId {
    ProjectId::new("acme").unwrap()
}

pub(crate) fn device_id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

impl Server {
    /// A server over `folder` with the project `acme` and its signed root.
    pub(crate) async fn start(folder: &Path) -> Self {
        let server = Self::start_bare(folder, 0).await;
        if projects::get(&mut server.state.store.read().await.unwrap(), &project()).await.unwrap().is_none() {
            server.add_project(&project()).await;
            server.publish_root(&project()).await;
        }
        server
    }

    /// A server over `folder`; `mqtt_port` 0 means any.
    pub(crate) async fn start_bare(folder: &Path, mqtt_port: u16) -> Self {
        Self::start_with(folder, mqtt_port, &[]).await
    }

    /// The same with further settings.
    pub(crate) async fn start_with(folder: &Path, mqtt_port: u16, more: &[(&str, &str)]) -> Self {
        let flag = |key: &str, value: String| (key.to_owned(), value);
        let mut flags = vec![
            flag("data_dir", folder.display().to_string()),
            flag("https.listen", "127.0.0.1:0".into()),
            flag("device.listen", "127.0.0.1:0".into()),
            flag("mqtt.listen", format!("127.0.0.1:{mqtt_port}")),
        ];
        flags.extend(more.iter().map(|(key, value)| flag(key, (*value).to_owned())));
        let config = config::load(None, [], &flags).unwrap();
        let running = app::start(config, Clock::system()).await.unwrap();
        let (state, bound, mut link) = (running.state.clone(), running.bound, running.link.clone());
        let shutdown = running.shutdown_signal();
        let running = tokio::spawn(async move {
            running.run().await;
        });
        tokio::time::timeout(PATIENCE, link.ready()).await.expect("the server's session comes up");
        Self { state, bound, link, shutdown, running }
    }

    /// Shuts down and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("the server drains in time").unwrap();
    }

    pub(crate) async fn add_project(&self, project: &ProjectId) {
        let mut tx = self.state.store.begin().await.unwrap();
        let row =
            projects::Project { project: project.clone(), title: "Test".into(), created_at: UnixMillis(0) };
        projects::insert(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Publishes root and targets with the server's own online keys, as `flotilla keys init` does.
    pub(crate) async fn publish_root(&self, project: &ProjectId) -> Publisher {
        let publisher = Publisher { root: signer(1), targets: signer(2) };
        let publication = publisher.first(self, project).await;
        publish::publish(&self.state, project, "test", publication).await.unwrap();
        publisher
    }

    /// A token for `project` that lives for `validity_ms`, and its text.
    pub(crate) async fn token(&self, device: Option<&str>, validity_ms: i64) -> TokenText {
        let ca = self.state.authority.certificate();
        let text = TokenText::generate(self.state.urls.https.clone(), ca, project(), None);
        let now = self.state.clock.now();
        let token = enrollment::EnrollmentToken {
            token_id: flotilla_server::ids::ordered_id(now),
            project: project(),
            device: device.map(device_id),
            labels: [("line".to_owned(), "3".to_owned())].into(),
            created_at: now,
            created_by: "test".into(),
            expires_at: now.plus_millis(validity_ms),
            used_at: None,
            used_by: None,
        };
        let mut tx = self.state.store.begin().await.unwrap();
        enrollment::insert(&mut tx, &token, &secret_hash(&text.secret)).await.unwrap();
        tx.commit().await.unwrap();
        text
    }

    pub(crate) async fn enroll(&self, name: &str) -> Device {
        let token = self.token(None, 60_000).await;
        let mut device = Device::new(name);
        let (status, body) = device.try_enroll(self, &token.secret).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let response: EnrollResponse = serde_json::from_value(body).unwrap();
        device.certificate = response.certificate;
        device
    }

    pub(crate) async fn row(&self, device: &Device) -> devices::Device {
        let mut conn = self.state.store.read().await.unwrap();
        devices::get(&mut conn, &project(), &device.id).await.unwrap().unwrap()
    }

    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        self.state.authority.certificate().clone()
    }
}

/// Keys that only the publisher has.
pub(crate) struct Publisher {
    pub(crate) root: Ed25519Signer,
    pub(crate) targets: Ed25519Signer,
}

impl Publisher {
    /// Root and targets that name the server's online keys and delegate the model `digits`.
    pub(crate) async fn first(&self, server: &Server, project: &ProjectId) -> Publication {
        let online = keys::ensure(&server.state.store, &server.state.clock, &server.state.seal, project)
            .await
            .unwrap();
        let of = |wanted| online.iter().find(|(role, _)| *role == wanted).unwrap().1.clone();
        let expires = server.state.clock.now().plus_millis(YEAR_MS);
        let root = RootBuilder::new(expires)
            .role("root", &[self.root.public_key()], 1)
            .role("targets", &[self.targets.public_key()], 1)
            .role("snapshot", &[of(OnlineRole::Snapshot)], 1)
            .role("timestamp", &[of(OnlineRole::Timestamp)], 1)
            .sign(&[&self.root])
            .unwrap();
        let director = director::target_bytes(&[of(OnlineRole::Director)], 1);
        let targets = TargetsBuilder::new(expires)
            .target(director::TARGET, &director, None)
            .sign(&[&self.targets])
            .unwrap();
        Publication {
            metadata: vec![("root".into(), root), ("targets".into(), targets)],
            targets: vec![(director::TARGET.into(), director)],
        }
    }
}

pub(crate) fn signer(seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[seed; 32])
}

/// A device with its keys, as an agent makes them.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) key: KeyPair,
    pub(crate) report: Ed25519Signer,
    pub(crate) certificate: String,
    pub(crate) counter: u64,
}

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        let seed = name.bytes().fold(7u8, u8::wrapping_add);
        Self {
            id: device_id(name),
            key: KeyPair::generate().unwrap(),
            report: signer(seed),
            certificate: String::new(),
            counter: 0,
        }
    }

    pub(crate) fn csr(&self) -> String {
        let params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.serialize_request(&self.key).unwrap().pem().unwrap()
    }

    pub(crate) fn enrolment(&self, secret: &str) -> Value {
        json!({
            "secret": secret, "device": self.id, "csr": self.csr(),
            "report_key": STANDARD.encode(self.report.public_bytes()),
        })
    }

    pub(crate) async fn try_enroll(&self, server: &Server, secret: &str) -> (StatusCode, Value) {
        post(server, "/enroll/v1", &self.enrolment(secret)).await
    }

    pub(crate) fn tls(&self, server: &Server) -> ClientConfig {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap();
        flotilla_server::pki::client_config(&server.ca(), Some((chain, key))).unwrap()
    }

    pub(crate) fn topic(&self, channel: Channel) -> String {
        Topic::new(project(), self.id.clone(), channel).to_string()
    }

    pub(crate) fn options(&self, server: &Server, id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(id, "localhost", server.bound.mqtt.port());
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(self.tls(server)))));
        options.set_max_packet_size(Some(1024 * 1024));
        let will = json!({"v": 1, "is_online": false, "boot_id": "b"}).to_string();
        options.set_last_will(LastWill::new(self.topic(Channel::Status), will, QoS::AtLeastOnce, true, None));
        options
    }

    /// Connects under its own name and subscribes to what is for it.
    pub(crate) async fn connect(&self, server: &Server) -> Connection {
        let options = self.options(server, &client_id(&project(), &self.id));
        let mut connection = Connection::new(options);
        connection.until(|packet| matches!(packet, Packet::ConnAck(_))).await.unwrap();
        for channel in Channel::DOWN {
            connection.client.subscribe(self.topic(channel), QoS::AtLeastOnce).await.unwrap();
            connection.until(|packet| matches!(packet, Packet::SubAck(_))).await.unwrap();
        }
        connection
    }

    /// A signed report under the next counter.
    pub(crate) fn signed(&mut self, channel: Channel, payload: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let signed =
            trust::report::sign(&project(), &self.id, channel, self.counter, payload, &self.report).unwrap();
        encode_json(&signed)
    }

    pub(crate) fn hello(&mut self, revision: u64) -> Vec<u8> {
        self.hello_of("b", revision)
    }

    /// The same of another start of the device.
    pub(crate) fn hello_of(&mut self, boot_id: &str, revision: u64) -> Vec<u8> {
        let hello = Hello {
            at: UnixMillis(0),
            agent_version: "0.1.0".into(),
            target: "x86_64-unknown-linux-gnu".into(),
            boot_id: boot_id.into(),
            uptime_s: 1,
            clock: DeviceClock { floor: UnixMillis(0), is_plausible: true },
            hardware: Hardware {
                arch: "x86_64".into(),
                class: "test".into(),
                cpu_features: vec![],
                cpus: 1,
                memory_bytes: 1,
            },
            labels: [].into(),
            desired_revision: Revision(revision),
            models: vec![],
            spool: SpoolState { stream: stream(), depth_records: 0, depth_bytes: 0, dropped: vec![] },
            metadata: None,
            problems: vec![],
        };
        self.signed(Channel::Hello, &encode_json(&hello))
    }
}

pub(crate) fn stream() -> StreamId {
    StreamId::new("s1").unwrap()
}

/// A batch of events with these sequence numbers, compressed as on the wire.
pub(crate) fn batch(floor_seq: u64, seqs: &[u64]) -> Vec<u8> {
    let record = |seq: &u64| {
        let event = DeviceEvent { name: "tick".into(), detail: format!("number {seq}") };
        let mut body = Vec::new();
        ciborium::into_writer(&event, &mut body).unwrap();
        Record { seq: *seq, kind: Kind::Event, at: UnixMillis(0), body: body.into() }
    };
    let records = seqs.iter().map(record).collect();
    let batch = Batch { v: WIRE_VERSION, stream: stream(), floor_seq, from_seq: 0, records, dropped: vec![] };
    zstd::encode_all(batch.encode().as_slice(), 3).unwrap()
}

/// A device's MQTT connection.
pub(crate) struct Connection {
    pub(crate) client: AsyncClient,
    events: EventLoop,
}

impl Connection {
    pub(crate) fn new(options: MqttOptions) -> Self {
        let (client, events) = AsyncClient::new(options, 64);
        Self { client, events }
    }

    /// The first packet that fits.
    pub(crate) async fn until(
        &mut self,
        fits: impl Fn(&Packet) -> bool,
    ) -> Result<Packet, Box<ConnectionError>> {
        let wait = async {
            loop {
                match self.events.poll().await.map_err(Box::new)? {
                    Event::Incoming(packet) if fits(&packet) => return Ok(packet),
                    Event::Incoming(_) | Event::Outgoing(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the packet comes in time")
    }

    /// Publishes and waits for the broker's answer.
    pub(crate) async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Packet {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(_))).await.unwrap()
    }

    /// The next message on a topic.
    pub(crate) async fn message(&mut self, topic: &str) -> Publish {
        let fits = |packet: &Packet| matches!(packet, Packet::Publish(p) if p.topic == topic.as_bytes());
        match self.until(fits).await.unwrap() {
            Packet::Publish(publish) => publish,
            other => panic!("not a publication: {other:?}"),
        }
    }

    /// Waits for an acknowledgement of at least `upto_seq`.
    pub(crate) async fn acknowledged(&mut self, device: &Device, upto_seq: u64) {
        loop {
            let publish = self.message(&device.topic(Channel::Ack)).await;
            let ack: protocol::message::Ack = protocol::decode_json(&publish.payload).unwrap();
            if ack.upto_seq >= upto_seq {
                assert_eq!(ack.upto_seq, upto_seq);
                return;
            }
        }
    }
}

/// One HTTPS request.
pub(crate) async fn request(
    address: std::net::SocketAddr,
    tls: ClientConfig,
    request: http::Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

pub(crate) async fn post(server: &Server, path: &str, body: &Value) -> (StatusCode, Value) {
    let tls = flotilla_server::pki::client_config(&server.ca(), None).unwrap();
    post_to(server.bound.https, tls, path, body.to_string()).await
}

pub(crate) async fn post_to(
    address: std::net::SocketAddr,
    tls: ClientConfig,
    path: &str,
    body: String,
) -> (StatusCode, Value) {
    let builder = http::Request::builder().method(Method::POST).uri(path).header("host", "localhost");
    let sent = builder.header("content-type", "application/json").body(Full::new(Bytes::from(body))).unwrap();
    let (status, _, body) = request(address, tls, sent).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A device's GET on the device port.
pub(crate) async fn fetch(
    server: &Server,
    device: &Device,
    path: &str,
    range: Option<&str>,
) -> (StatusCode, HeaderMap, Bytes) {
    let mut builder = http::Request::builder().uri(path).header("host", "localhost");
    if let Some(range) = range {
        builder = builder.header("range", range);
    }
    let sent = builder.body(Full::new(Bytes::new())).unwrap();
    request(server.bound.device, device.tls(server), sent).await
}

/// Polls until `is_true`, or panics with `what`.
/// What the server has noted about a device, newest first.
pub(crate) async fn events(server: &Server, device: &Device) -> Vec<history::Event> {
    let mut conn = server.state.store.read().await.unwrap();
    history::events(&mut conn, &project(), &device.id, &Window::first(500)).await.unwrap().items
}

pub(crate) async fn eventually<F, Fut>(what: &str, mut is_true: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let until = tokio::time::Instant::now() + PATIENCE;
    while !is_true().await {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
