//! `--gate METRIC:LIMIT[:SAMPLES]`: the short form of a gate.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Metrics that the server counts from tasks; their limit is devices or a share of the stage.
const TASKS: [&str; 4] = ["install_failures", "timeouts", "self_test_failures", "probation_failures"];
/// Metrics of behaviour; their limit is how much worse than the control group the new release may be.
const BEHAVIOUR: [&str; 6] =
    ["accuracy", "estimated_accuracy", "error_rate", "latency_p95", "prediction_drift", "input_drift"];
/// Samples that a gate on behaviour needs on either side unless the text says otherwise.
const SAMPLES: u64 = 100;

/// The gate as the server's plan has it.
///
/// # Errors
/// When the metric is unknown or a number isn't one; the message shows the form.
pub(crate) fn parse(text: &str) -> Result<Value> {
    let mut parts = text.split(':');
    let (Some(metric), Some(limit)) = (parts.next(), parts.next()) else { bail!("{}", form(text)) };
    let samples = match parts.next() {
        Some(count) => Some(count.parse::<u64>().with_context(|| form(text))?),
        None => None,
    };
    if parts.next().is_some() {
        bail!("{}", form(text));
    }
    if TASKS.contains(&metric) {
        let at_most = limit.parse::<u64>().map_or_else(|_| json!(limit), Value::from);
        return Ok(
            json!({ "metric": metric, "limit": { "tasks": { "at_most": at_most } }, "min_sample": samples.unwrap_or(1) }),
        );
    }
    if !BEHAVIOUR.contains(&metric) {
        bail!("{metric} is no metric; known: {}, {}", TASKS.join(", "), BEHAVIOUR.join(", "));
    }
    let by_at_most = share(limit).filter(|limit| limit.is_finite()).with_context(|| form(text))?;
    let samples = samples.unwrap_or(SAMPLES);
    Ok(json!({
        "metric": metric,
        "limit": { "worse_than_control": { "by_at_most": by_at_most } },
        "min_sample": samples,
        "min_control_sample": samples,
    }))
}

/// `0.05` and `5%` are the same.
fn share(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    }
}

fn form(text: &str) -> String {
    format!("{text:?} is not METRIC:LIMIT[:SAMPLES], e.g. accuracy:0.05:200 or install_failures:5%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_is_compared_with_the_control_group() {
        let gate = parse("accuracy:0.05:200").unwrap();
        assert_eq!(gate["limit"]["worse_than_control"]["by_at_most"], 0.05);
        assert_eq!((&gate["min_sample"], &gate["min_control_sample"]), (&json!(200), &json!(200)));
        assert_eq!(parse("error_rate:0.01").unwrap()["min_sample"], 100);
        assert_eq!(parse("accuracy:5%").unwrap()["limit"], parse("accuracy:0.05").unwrap()["limit"]);
    }

    #[test]
    fn tasks_are_counted() {
        assert_eq!(parse("install_failures:5%").unwrap()["limit"]["tasks"]["at_most"], "5%");
        assert_eq!(parse("timeouts:2").unwrap()["limit"]["tasks"]["at_most"], 2);
    }

    #[test]
    fn what_is_no_gate_is_named() {
        for text in
            ["", "accuracy", "accuracy:much", "accuracy:0.1:x", "speed:3", "accuracy:1:2:3", "accuracy:NaN"]
        {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
