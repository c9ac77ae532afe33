//! A device's own words, bounded and cleaned before they are stored: people read them on terminals and in the console,
//! and a device that was taken over chooses them. Nothing is refused for its words: an unseen device would be worse.

use protocol::message::{Hello, TaskReport};
use protocol::text::one_line;

use crate::domain::labels::{self, MAX_LABELS};

/// Longest name of a thing: version, target, class, CPU feature.
const MAX_NAME: usize = 100;
const MAX_CPU_FEATURES: usize = 256;
/// Most problems that are kept, and the longest.
const MAX_PROBLEMS: usize = 32;
const MAX_PROBLEM: usize = 500;
/// Longest sentence of a cause.
const MAX_CAUSE: usize = 2000;
/// Most models of a device.
const MAX_MODELS: usize = 256;
/// There are not as many pairs of kind and cause.
const MAX_LOSSES: usize = 64;

/// Bounds and cleans what a device says about itself. What was left out is named among its problems.
pub(super) fn clean_hello(hello: &mut Hello) {
    let hardware = &mut hello.hardware;
    for name in [
        &mut hello.agent_version,
        &mut hello.target,
        &mut hello.boot_id,
        &mut hardware.arch,
        &mut hardware.class,
    ] {
        clean(name, MAX_NAME);
    }
    hardware.cpu_features.truncate(MAX_CPU_FEATURES);
    hardware.cpu_features.iter_mut().for_each(|feature| clean(feature, MAX_NAME));
    hello.spool.dropped.truncate(MAX_LOSSES);
    let mut left_out = vec![];
    if let Some(rest) = overlong(&mut hello.problems, MAX_PROBLEMS) {
        left_out.push(format!("{rest} more problems"));
    }
    hello.problems.iter_mut().for_each(|problem| clean(problem, MAX_PROBLEM));
    if let Some(rest) = overlong(&mut hello.models, MAX_MODELS) {
        left_out.push(format!("{rest} more models"));
    }
    let said = hello.labels.len();
    hello.labels.retain(|key, value| labels::is_key(key) && labels::is_value(value));
    while hello.labels.len() > MAX_LABELS {
        hello.labels.pop_last();
    }
    if let Some(bad) = said.checked_sub(hello.labels.len()).filter(|bad| *bad > 0) {
        left_out.push(format!("{bad} labels that can't be such"));
    }
    if !left_out.is_empty() {
        hello.problems.push(format!("the server left out of the device's report: {}", left_out.join(", ")));
    }
}

/// Bounds and cleans what a device says about an update.
pub(super) fn clean_task(task: &mut TaskReport) {
    if let Some(cause) = &mut task.cause {
        clean(&mut cause.detail, MAX_CAUSE);
    }
}

fn clean(text: &mut String, max_chars: usize) {
    *text = one_line(text, max_chars);
}

/// Cuts a list; how many were over the bound.
fn overlong<T>(list: &mut Vec<T>, max: usize) -> Option<usize> {
    let rest = list.len().checked_sub(max).filter(|rest| *rest > 0);
    list.truncate(max);
    rest
}

#[cfg(test)]
mod tests {
    use protocol::text::is_acting;
    use serde_json::json;

    use super::*;

    fn hello(changed: &serde_json::Value) -> Hello {
        let mut value = json!({
            "at": 5, "agent_version": "0.1.0", "target": "x86_64-unknown-linux-musl", "boot_id": "b", "uptime_s": 1,
            "clock": {"floor": 1, "is_plausible": true},
            "hardware": {"arch": "x86_64", "class": "box", "cpu_features": ["avx"], "cpus": 2, "memory_bytes": 1},
            "labels": {"site": "lab"}, "desired_revision": 1, "models": [],
            "spool": {"stream": "s1", "depth_records": 0, "depth_bytes": 0}, "metadata": null, "problems": ["hot"],
        });
        let fields = value.as_object_mut().unwrap();
        fields.extend(changed.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_honest_hello_stays_as_it_is() {
        let mut cleaned = hello(&json!({}));
        clean_hello(&mut cleaned);
        assert_eq!(cleaned, hello(&json!({})));
    }

    #[test]
    fn a_hostile_hello_is_bounded_and_moves_no_terminal() {
        let evil = "\u{1b}[2J\rall is well\u{202e}";
        let long = "x".repeat(5000);
        let mut labels = json!({ "k\u{1b}[2J": "v", "site": "s1", "long": long, "bad": evil });
        for n in 0..100 {
            labels[format!("z{n}")] = json!("v");
        }
        let hardware = json!({"arch": evil, "class": evil, "cpu_features": vec![evil; 5000], "cpus": 1, "memory_bytes": 1});
        let mut problems = vec![json!(evil), json!(long)];
        problems.extend(vec![json!("p"); 500]);
        let mut hello = hello(&json!({
            "agent_version": evil, "target": long, "boot_id": evil, "hardware": hardware, "labels": labels,
            "problems": problems,
        }));
        clean_hello(&mut hello);
        let text = serde_json::to_value(&hello).unwrap();
        assert!(!all_texts(&text).iter().any(|text| text.chars().any(is_acting)), "{text}");
        assert!(text.to_string().len() < 64 * 1024);
        assert_eq!((hello.labels.len(), hello.labels["site"].as_str()), (MAX_LABELS, "s1"));
        assert_eq!((hello.problems.len(), hello.problems[1].len()), (MAX_PROBLEMS + 1, MAX_PROBLEM));
        let said =
            "the server left out of the device's report: 470 more problems, 40 labels that can't be such";
        assert_eq!(hello.problems[MAX_PROBLEMS], said);
    }

    fn all_texts(value: &serde_json::Value) -> Vec<String> {
        match value {
            serde_json::Value::String(text) => vec![text.clone()],
            serde_json::Value::Array(items) => items.iter().flat_map(all_texts).collect(),
            serde_json::Value::Object(fields) => fields
                .iter()
                .flat_map(|(key, value)| [vec![key.clone()], all_texts(value)].concat())
                .collect(),
            _ => vec![],
        }
    }
}
