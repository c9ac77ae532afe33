//! Topic in, topic out: every message is one request of the protocol.

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::link::{LocalBroker, Said};
use crate::serve::Api;

/// Messages that are asked at once; one more is answered with an error.
const AT_ONCE: usize = 16;

/// Answers messages until `stop`.
pub async fn listen(config: config::Mqtt, api: Api, stop: CancellationToken) {
    let model = config.model.clone();
    let place = format!("{}:{}", config.host, config.port);
    let mut broker = LocalBroker::new(config);
    let mut asked: JoinSet<Vec<u8>> = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(answer) = asked.join_next() => {
                let answer = answer.unwrap_or_else(|_| error("the request ended by a panic"));
                if !broker.publish(answer) {
                    tracing::warn!(broker = place, "an answer could not be handed to the local broker");
                }
            }
            said = broker.next() => match said {
                Said::Up => tracing::info!(broker = place, "listening on the local broker"),
                Said::Down(why) => tracing::warn!(broker = place, why, "no connection to the local broker"),
                Said::Message(_) if asked.len() >= AT_ONCE => {
                    broker.publish(error("overloaded: too many messages wait already"));
                }
                Said::Message(request) => {
                    let (api, model) = (api.clone(), model.clone());
                    asked.spawn(async move {
                        let answer = api.ask(&model, request, Bytes::new()).await;
                        answer.unwrap_or_else(|refused| refused.json)
                    });
                }
            }
        }
    }
}

fn error(why: &str) -> Vec<u8> {
    serde_json::json!({ "error": why }).to_string().into_bytes()
}
