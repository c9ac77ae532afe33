//! The binary tensor extension and the other parameters of outputs.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::digits;
use crate::support::{Agent, Answer, INFER, best, request};

/// JSON and what stands behind it.
fn body(json: &Value, behind: &[u8]) -> (usize, Vec<u8>) {
    let mut body = serde_json::to_vec(json).unwrap();
    let json_len = body.len();
    body.extend_from_slice(behind);
    (json_len, body)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A request for one image whose pixels stand behind the JSON.
fn asked(images: usize, more: Value) -> Value {
    let input = json!({"name": "image", "datatype": "FP32", "shape": [images, 1, 8, 8],
                       "parameters": {"binary_data_size": images * 256}});
    let mut asked = json!({"inputs": [input]});
    if let (Value::Object(asked), Value::Object(more)) = (&mut asked, more) {
        asked.extend(more);
    }
    asked
}

async fn infer(agent: &Agent, pixels: &[f32], more: Value) -> Answer {
    let (json_len, body) = body(&asked(pixels.len() / 64, more), &bytes(pixels));
    agent.post_binary(INFER, json_len, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_forms_give_the_same_scores() {
    let agent = Agent::serving("1.0.0").await;
    let pixels = &digits::images("held_out")[0].1;
    let json = agent.post(INFER, &request(pixels)).await;
    let scores: Vec<f32> = serde_json::from_value(json.body["outputs"][0]["data"].clone()).unwrap();
    let wants_binary = json!({"parameters": {"binary_data_output": true}});
    let both = infer(&agent, pixels, wants_binary.clone()).await;
    assert_eq!(both.status, StatusCode::OK, "{}", both.text);
    assert_eq!(both.body["outputs"][0]["parameters"], json!({"binary_data_size": 40}));
    assert_eq!(both.body["outputs"][0].get("data"), None);
    assert_eq!(floats(&both.behind), scores);
    let json_out = infer(&agent, pixels, json!({})).await;
    assert_eq!((&json_out.body["outputs"], json_out.behind.len()), (&json.body["outputs"], 0));
    let mut json_in = request(pixels);
    json_in["outputs"] = json!([{"name": "scores", "parameters": {"binary_data": true}}]);
    assert_eq!(floats(&agent.post(INFER, &json_in).await.behind), scores);
    let off = json!({"parameters": {"binary_data_output": true},
                     "outputs": [{"name": "scores", "parameters": {"binary_data": false}}]});
    let off = infer(&agent, pixels, off).await;
    assert_eq!((best(&off), off.behind.len()), (best(&json), 0), "what an output says comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_in_many_pieces_is_read_whole() {
    let agent = Agent::start(&["serve.max_body_bytes=1000000"]).await;
    agent.activate("1.0.0");
    let images: Vec<Vec<f32>> = digits::images("held_out").into_iter().take(256).map(|(_, p)| p).collect();
    let wanted = json!({"parameters": {"binary_data_output": true}});
    let together = infer(&agent, &images.concat(), wanted.clone()).await;
    assert_eq!(together.body["outputs"][0]["shape"], json!([256, 10]), "{}", together.text);
    let together = floats(&together.behind);
    for place in [0, 17, 255] {
        let alone = floats(&infer(&agent, &images[place], wanted.clone()).await.behind);
        assert_eq!(together[place * 10..][..10], alone[..], "image {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_given_with_score_place_and_label() {
    let agent = Agent::serving("1.0.0").await;
    let (label, pixels) = &digits::images("held_out")[0];
    let mut asked = request(pixels);
    asked["outputs"] = json!([{"name": "scores", "parameters": {"classification": 2}}]);
    let answer = agent.post(INFER, &asked).await;
    let output = &answer.body["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1, 2])), "{}", answer.text);
    let first = output["data"][0].as_str().unwrap();
    assert!(first.ends_with(&format!(":{label}:{label}")), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_break_the_extension_are_refused_by_name() {
    let agent = Agent::serving("1.0.0").await;
    let pixels = bytes(&[0.0; 64]);
    let refused = async |json: Value, behind: &[u8], shift: isize, words: &str| {
        let (json_len, body) = body(&json, behind);
        let answer = agent.post_binary(INFER, json_len.saturating_add_signed(shift), body).await;
        let error = answer.body["error"].as_str().unwrap_or_default();
        assert!(
            answer.status == StatusCode::BAD_REQUEST && error.contains(words),
            "{words}: {}",
            answer.text
        );
    };
    refused(asked(1, json!({})), &pixels[..255], 0, "256 bytes were promised, 255 are left").await;
    refused(asked(1, json!({})), &[&pixels[..], &[0]].concat(), 0, "1 bytes behind the JSON").await;
    refused(asked(2, json!({})), &pixels, 0, "512 bytes were promised").await;
    refused(asked(1, json!({})), &pixels, 1 << 20, "at most the body's").await;
    refused(asked(1, json!({})), &pixels, -1, "not valid JSON").await;
    let mut short = asked(1, json!({}));
    short["inputs"][0]["parameters"]["binary_data_size"] = json!(252);
    refused(short, &pixels[..252], 0, "takes 256 bytes, got 252").await;
    let mut both = asked(1, json!({}));
    both["inputs"][0]["data"] = json!([0]);
    refused(both, &pixels, 0, "needs either data or").await;
    let mut none = request(&[0.0; 64]);
    none["inputs"][0].as_object_mut().unwrap().remove("data");
    refused(none, &[], 0, "needs either data or").await;
    let text = json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1, 8, 8],
                                  "parameters": {"binary_data_size": 4}}]});
    refused(text, &[9, 0, 0, 0], 0, "input \"image\" must be FP32, got BYTES").await;
    let nan = bytes(&[&[0.0; 63][..], &[f32::NAN]].concat());
    refused(asked(1, json!({})), &nan, 0, "input \"image\" lacks value 63").await;
    assert_eq!(infer(&agent, &[0.0; 64], json!({})).await.status, StatusCode::OK, "it still serves");
}
