//! Samples for retraining, from real requests to a real model.

use protocol::sample::{SampleHead, Strategy};
use serde_json::json;

use crate::digits;
use crate::support::*;

const CONSENT: [&str; 4] = [
    "capture.consent=true",
    "capture.random_rate=0",
    "capture.uncertainty_rate=0",
    "capture.out_of_reference_rate=0",
];

fn heads(agent: &Agent) -> Vec<SampleHead> {
    let samples = agent.monitor.capture().samples().clone();
    let mut heads = Vec::new();
    while let Some(held) = samples.next() {
        let bytes = samples.read(&held).unwrap().unwrap();
        let (head, values) = SampleHead::split(&bytes).unwrap();
        assert_eq!((values.len(), values[0].len()), (1, 64 * 4));
        samples.remove(&held).unwrap();
        heads.push(head);
    }
    heads
}

fn taken(agent: &Agent) -> u64 {
    agent.monitor.capture().figures().taken.values().sum()
}

#[tokio::test]
async fn an_item_of_a_batch_that_its_label_contradicts_is_kept() {
    let agent = Agent::start(&CONSENT).await;
    agent.activate_with("1.0.0", &json!({"may_send_samples": true}));
    let images: Vec<_> = digits::images("held_out").into_iter().take(2).collect();
    let pixels: Vec<f32> = images.iter().flat_map(|(_, pixels)| pixels.clone()).collect();
    let input = json!({"name": "image", "datatype": "FP32", "shape": [2, 1, 8, 8], "data": pixels});
    let answer = agent.post(INFER, &json!({"id": "q", "inputs": [input]})).await;
    let scores: Vec<f64> = serde_json::from_value(answer.body["outputs"][0]["data"].clone()).unwrap();
    let best =
        |row: usize| (0..10).max_by(|a, b| scores[row * 10 + a].total_cmp(&scores[row * 10 + b])).unwrap();
    let wrong = (best(1) + 1) % 10;
    let told = agent.post(FEEDBACK, &json!({"id": "q", "label": [best(0), wrong]})).await;
    assert_eq!(told.body["right"], 1, "{}", told.text);
    wait_for(|| taken(&agent) == 1).await;
    let [head] = &heads(&agent)[..] else { panic!("one sample") };
    assert_eq!((head.id.as_str(), head.strategy), ("q#1", Strategy::Contradiction));
    assert_eq!(
        (head.label.clone(), head.answer.label.clone()),
        (Some(wrong.to_string()), Some(best(1).to_string()))
    );
    assert_eq!(head.inputs[0].shape, [1, 1, 8, 8]);
    assert!(
        agent
            .get("/metrics")
            .await
            .text
            .contains("flotilla_samples_taken_total{strategy=\"contradiction\"} 1")
    );
}

#[tokio::test]
async fn what_lies_outside_of_the_reference_is_kept_with_the_feature_and_the_uncertain_with_its_confidence() {
    let flags = [
        &CONSENT[..2],
        &["capture.out_of_reference_rate=1", "capture.uncertainty_rate=1", "capture.uncertain_below=1"],
    ];
    let agent = Agent::start(&flags.concat()).await;
    agent.activate_with("1.0.0", &json!({"may_send_samples": true}));
    // Brighter than any digit.
    agent.post(INFER, &request(&[16.0; 64])).await;
    agent.post(INFER, &request(&digits::images("held_out")[0].1)).await;
    wait_for(|| taken(&agent) == 2).await;
    let [strange, uncertain] = &heads(&agent)[..] else { panic!("two samples") };
    assert_eq!(
        (strange.strategy, strange.feature.as_deref()),
        (Strategy::OutOfReference, Some("brightness"))
    );
    assert_eq!(uncertain.strategy, Strategy::Uncertainty);
    assert!(uncertain.answer.confidence.unwrap() < 1.0);
}

#[tokio::test]
async fn neither_consent_nor_permission_alone_keeps_anything() {
    let all = ["capture.random_rate=1", "capture.uncertainty_rate=1", "capture.out_of_reference_rate=1"];
    let allowed = json!({"may_send_samples": true});
    for (consent, privacy, expected) in [
        ("capture.consent=true", json!({}), 0),
        ("capture.consent=false", allowed.clone(), 0),
        ("capture.consent=true", allowed, 5),
    ] {
        let agent = Agent::start(&[&all[..], &[consent]].concat()).await;
        agent.activate_with("1.0.0", &privacy);
        for (_, pixels) in digits::images("held_out").into_iter().take(5) {
            agent.post(INFER, &request(&pixels)).await;
        }
        let serving = || agent.monitor.totals().get(&digits_name()).map_or(0, |totals| totals.answered);
        wait_for(|| serving() == 5 && agent.monitor.capture().figures().waiting == expected).await;
        assert!(agent.monitor.capture().figures().dropped.is_empty());
    }
}
