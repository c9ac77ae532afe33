//! Topic in, topic out: every message is one request of the protocol. The broker is asked to keep what can't be asked yet
//! (QoS 1); not every one does. What comes too early is refused, answered as far as there is room, and counted like any
//! overload.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Troubles;
use crate::config;
use crate::link::{LocalBroker, Message, Receipt, Said};
use crate::serve::Api;

/// Messages that are asked at once.
const AT_ONCE: u16 = 16;
/// Longest id that an error repeats, in bytes; the protocol's own bound here.
const MAX_ID_BYTES: usize = 128;
const NAME: &str = "local broker";

struct Answer {
    json: Vec<u8>,
    correlation: Option<Bytes>,
    receipt: Option<Receipt>,
}

/// Answers messages until `stop`.
pub async fn listen(config: config::Mqtt, api: Api, troubles: Troubles, stop: CancellationToken) {
    let model = config.model.clone();
    let place = format!("{}:{}", config.host, config.port);
    let mut broker = LocalBroker::new(config, AT_ONCE);
    let mut asked: JoinSet<Answer> = JoinSet::new();
    let mut is_overloaded = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(answer) = asked.join_next() => {
                is_overloaded &= !asked.is_empty();
                // What is asked ends with an answer even by a panic.
                if let Ok(answer) = answer {
                    hand_over(&mut broker, &api, answer);
                }
            }
            said = broker.next() => match said {
                Said::Up => {
                    tracing::info!(broker = place, "listening on the local broker");
                    troubles.set(NAME, None);
                }
                Said::Down { why, lost } => {
                    api.count_lost_answers(lost);
                    troubles.set(NAME, Some(format!("no connection to {place}: {why}")));
                }
                Said::Message(message) if asked.len() >= usize::from(AT_ONCE) || !broker.has_room() => {
                    if !is_overloaded {
                        tracing::warn!(broker = place, "messages come faster than they can be asked; some are refused");
                    }
                    is_overloaded = true;
                    refuse(&mut broker, &api, message);
                }
                Said::Message(message) => {
                    asked.spawn(ask(api.clone(), model.clone(), message));
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

fn ended() -> Vec<u8> {
    json!({ "error": "the request ended by a panic" }).to_string().into_bytes()
}

fn refuse(broker: &mut LocalBroker, api: &Api, message: Message) {
    let refused = api.refuse_message();
    // Where answers don't leave any more, refusals would only take the place of answers.
    if broker.has_room() {
        broker.publish(with_id(refused.json, &message.payload), message.correlation);
    }
    if let Some(receipt) = message.receipt {
        broker.acknowledge(receipt);
    }
}

fn hand_over(broker: &mut LocalBroker, api: &Api, answer: Answer) {
    if !broker.publish(answer.json, answer.correlation) {
        api.count_lost_answers(1);
        tracing::warn!("an answer could not be handed to the local broker");
    }
    if let Some(receipt) = answer.receipt {
        broker.acknowledge(receipt);
    }
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
