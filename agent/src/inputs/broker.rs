//! Topic in, topic out: every message is one request of the protocol. As many are asked at once as the local API runs at
//! once; the broker keeps the others, or TCP does. So none is refused for the others' sake, and each is answered or
//! counted.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Troubles;
use crate::config;
use crate::link::{LocalBroker, Message, Receipt, Said, Unsent};
use crate::serve::Api;

/// Most messages that are asked at once, however many processors there are; their answers have room to leave.
const MOST_AT_ONCE: usize = 32;
/// Longest id that an error repeats, in bytes; the protocol's own bound here.
const MAX_ID_BYTES: usize = 128;
const NAME: &str = "local broker";

struct Answer {
    json: Vec<u8>,
    correlation: Option<Bytes>,
    receipt: Option<Receipt>,
}

/// Answers messages until `stop`, and then those that have been read.
pub async fn listen(config: config::Mqtt, api: Api, troubles: Troubles, stop: CancellationToken) {
    let place = format!("{}:{}", config.host, config.port);
    let at_once = api.at_once().min(MOST_AT_ONCE);
    let mut source = Source {
        model: config.model.clone(),
        place,
        broker: LocalBroker::new(config, api.max_request_bytes()),
        api,
        troubles,
        asked: JoinSet::new(),
    };
    loop {
        let may_ask = source.asked.len() < at_once;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(answer) = source.asked.join_next() => source.hand_over(answer.ok()),
            said = source.broker.next(may_ask) => source.hear(said),
        }
    }
    source.finish().await;
}

struct Source {
    model: String,
    /// The broker, for people.
    place: String,
    broker: LocalBroker,
    api: Api,
    troubles: Troubles,
    asked: JoinSet<Answer>,
}

impl Source {
    fn hear(&mut self, said: Said) {
        match said {
            Said::Up => {
                tracing::info!(broker = self.place, "listening on the local broker");
                self.troubles.set(NAME, None);
            }
            Said::Down { why, lost } => {
                self.api.count_lost_answers(lost);
                self.troubles.set(NAME, Some(format!("no connection to {}: {why}", self.place)));
            }
            Said::Refused(why) => {
                self.api.count_lost_answers(1);
                tracing::warn!(broker = self.place, why, "the local broker refuses an answer");
            }
            Said::Message(message) => {
                self.asked.spawn(ask(self.api.clone(), self.model.clone(), message));
            }
        }
    }

    /// What is asked ends with an answer even by a panic: none means that the runtime ends.
    fn hand_over(&mut self, answer: Option<Answer>) {
        let Some(answer) = answer else { return };
        let (json, correlation) = (Bytes::from(answer.json), answer.correlation);
        let bytes = json.len();
        let sent = match self.broker.publish(json.clone(), correlation.clone()) {
            Err(Unsent::TooLarge { max }) => {
                self.broker.publish(with_id(too_large(bytes, max), &json).into(), correlation)
            }
            sent => sent,
        };
        if let Err(why) = sent {
            self.api.count_lost_answers(1);
            tracing::warn!(?why, bytes, "an answer could not be handed to the local broker");
        }
        if let Some(receipt) = answer.receipt {
            self.broker.acknowledge(receipt);
        }
    }

    /// Answers what has been read and lets the answers leave, as long as there is a connection.
    async fn finish(&mut self) {
        while !self.asked.is_empty() || self.broker.holds_answers() {
            tokio::select! {
                Some(answer) = self.asked.join_next() => self.hand_over(answer.ok()),
                said = self.broker.next(false) => {
                    let is_over = matches!(said, Said::Down { .. });
                    self.hear(said);
                    if is_over {
                        return;
                    }
                }
            }
        }
    }
}

async fn ask(api: Api, model: String, message: Message) -> Answer {
    let Message { payload, correlation, receipt } = message;
    // A task of its own: what it panics on must still be acknowledged, or the broker would wait for ever.
    let asked = tokio::spawn(async move {
        let refused = match api.ask(&model, payload.clone(), Bytes::new()).await {
            Ok(json) => return json,
            Err(refused) => refused.json,
        };
        let named = tokio::task::spawn_blocking(move || with_id(refused, &payload));
        named.await.unwrap_or_else(|_| ended())
    });
    let json = asked.await.unwrap_or_else(|_| ended());
    Answer { json, correlation, receipt }
}

fn too_large(bytes: usize, max: u32) -> Vec<u8> {
    let why = format!(
        "the answer has {bytes} bytes, the broker takes messages of at most {max}: ask for less at once"
    );
    json!({ "error": why }).to_string().into_bytes()
}

fn ended() -> Vec<u8> {
    json!({ "error": "the request ended by a panic" }).to_string().into_bytes()
}

/// The protocol's error with the id of the request that it answers, if that has one.
fn with_id(error: Vec<u8>, request: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Named {
        id: Option<String>,
    }
    let id = serde_json::from_slice(request).ok().and_then(|Named { id }| id);
    let Some(id) = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES) else { return error };
    match serde_json::from_slice::<Map<String, Value>>(&error) {
        Ok(mut fields) => {
            fields.insert("id".into(), id.into());
            Value::Object(fields).to_string().into_bytes()
        }
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_id_of_its_request_if_that_can_be_read() {
        let named = |request: &str| {
            serde_json::from_slice::<Value>(&with_id(br#"{"error":"no"}"#.to_vec(), request.as_bytes()))
                .unwrap()
        };
        assert_eq!(named(r#"{"id":"m2","inputs":3}"#), json!({"error": "no", "id": "m2"}));
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
        for without in ["{", "{}", r#"{"id":5}"#, r#"{"id":""}"#, &long] {
            assert_eq!(named(without), json!({"error": "no"}), "{without}");
        }
    }
}
