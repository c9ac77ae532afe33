//! A local broker that keeps to MQTT 5: what an application hears whose request is too large.

use std::time::Duration;

use bytes::BytesMut;
use flotilla_agent::config;
use flotilla_agent::inputs::{self, Troubles};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Agent, digits_name, wait_for};

/// One connection of the agent.
struct Session {
    stream: TcpStream,
    bytes: BytesMut,
    /// Largest packet that the agent takes.
    max_packet: usize,
}

impl Session {
    async fn hear(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.bytes, None) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            if self.stream.read_buf(&mut self.bytes).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// MQTT 5, 3.1.2.11.4: what is larger than the client takes is dropped, as if it had been sent.
    async fn say(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        if bytes.len() <= self.max_packet {
            self.stream.write_all(&bytes).await.unwrap();
        }
    }

    /// Delivers `requests` once the agent listens, and passes on what it answers.
    async fn serve(mut self, requests: Vec<Vec<u8>>, answers: mpsc::UnboundedSender<Vec<u8>>) {
        while let Some(packet) = self.hear().await {
            match packet {
                Packet::Connect(connect, ..) => {
                    let most = connect.properties.and_then(|properties| properties.max_packet_size);
                    self.max_packet = usize::try_from(most.unwrap_or(u32::MAX)).unwrap();
                    let code = ConnectReturnCode::Success;
                    self.say(&Packet::ConnAck(ConnAck { session_present: false, code, properties: None }))
                        .await;
                }
                Packet::Subscribe(asked) => {
                    let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
                    self.say(&Packet::SubAck(SubAck { pkid: asked.pkid, return_codes, properties: None }))
                        .await;
                    for (number, request) in (1..).zip(&requests) {
                        let mut publish = Publish::new("in", QoS::AtLeastOnce, request.clone(), None);
                        publish.pkid = number;
                        self.say(&Packet::Publish(publish)).await;
                    }
                }
                Packet::Publish(answer) => {
                    answers.send(answer.payload.to_vec()).unwrap();
                    self.say(&Packet::PubAck(PubAck::new(answer.pkid, None))).await;
                }
                _ => {}
            }
        }
    }
}

/// What the agent answers to these requests, until the token is cancelled.
async fn asked(
    agent: &Agent,
    requests: Vec<Vec<u8>>,
) -> (mpsc::UnboundedReceiver<Vec<u8>>, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answers, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let session = Session { stream, bytes: BytesMut::new(), max_packet: usize::MAX };
            tokio::spawn(session.serve(requests.clone(), answers.clone()));
        }
    });
    let [model, topic_in, topic_out] = ["digits", "in", "out"].map(str::to_owned);
    let config = config::Mqtt { host: "127.0.0.1".into(), port, model, topic_in, topic_out };
    let stop = CancellationToken::new();
    tokio::spawn(inputs::listen(config, agent.api.clone(), Troubles::default(), stop.clone()));
    (heard, stop)
}

/// One that no model takes, so long in all.
fn request(id: &str, bytes: usize) -> Vec<u8> {
    let mut text = format!(r#"{{"id":"{id}","inputs":"#).into_bytes();
    text.push(b'"');
    text.resize(bytes - 2, b'x');
    text.extend(b"\"}");
    text
}

#[tokio::test]
async fn a_request_above_the_bound_is_answered_with_the_error_and_counted() {
    for bound in [16 << 10, 16 << 20, 20 << 20] {
        let agent = Agent::start(&[&format!("serve.max_body_bytes={bound}")]).await;
        agent.activate("1.0.0");
        // The last one is more than the agent tells the broker to send.
        let most = (bound + bound / 4).max(16 << 20);
        let requests = vec![
            request("over", bound + 1),
            request("far over", most - 1000),
            request("unheard", most + 1),
            request("within", bound),
        ];
        let (mut heard, stop) = asked(&agent, requests).await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            let answer = tokio::time::timeout(Duration::from_mins(1), heard.recv()).await;
            answers.push(serde_json::from_slice::<Value>(&answer.expect("an answer").unwrap()).unwrap());
        }
        let said = |id: &str| {
            let found = answers.iter().find(|answer| answer["id"] == id);
            found.and_then(|answer| answer["error"].as_str()).unwrap_or_default()
        };
        for id in ["over", "far over"] {
            assert!(said(id).contains(&bound.to_string()), "{id}: {answers:?}");
        }
        assert!(!said("within").is_empty() && !said("within").contains(&bound.to_string()), "{answers:?}");
        wait_for(|| agent.monitor.totals().get(&digits_name()).is_some_and(|totals| totals.refused == 3))
            .await;
        stop.cancel();
    }
}
