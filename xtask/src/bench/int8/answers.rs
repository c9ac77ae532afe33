//! Whether our answers are right: at each level of the kernels that this machine has, against what ONNX Runtime gave
//! when the models were made.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::engine::{Engine, Maker, Programs};
use super::models::Models;

/// Levels by the names of `FLOTILLA_INT8_LEVEL`, but for the reference, which takes minutes.
const LEVELS: [&str; 5] = ["amx", "avx512-vnni", "avx-vnni", "avx2", "portable"];

/// Compares what all rows give at all levels; says how far they are off.
///
/// # Errors
/// When an answer is further from ONNX Runtime's than the script says, or when two levels give other answers.
pub(super) fn check(net: &str, programs: &Programs, models: &Models) -> Result<()> {
    for variant in models.variants(net)? {
        let (want, allowed) = models.answers(net, variant)?;
        let mut first: Option<(&str, Vec<f32>)> = None;
        for level in LEVELS {
            let Some(got) = outputs((net, variant), level, programs, models)? else { continue };
            let off = furthest(&got, &want)?;
            eprintln!("{net} {variant}, {level} kernels: {off:.5} off at most, {allowed:.5} allowed");
            ensure!(off <= allowed, "{net} {variant}, {level} kernels: {off} off, {allowed} allowed");
            let (other, bytes) = first.get_or_insert_with(|| (level, got.clone()));
            ensure!(got == *bytes, "{net} {variant}: {level} and {other} kernels give other answers");
        }
    }
    Ok(())
}

/// What all rows give, one behind the other; none where this machine or build has no such level.
fn outputs(
    (net, variant): (&str, &str),
    level: &str,
    programs: &Programs,
    models: &Models,
) -> Result<Option<Vec<f32>>> {
    let mask = [("FLOTILLA_INT8_LEVEL", level)];
    let mut engine = Engine::start(programs, models, (Maker::Ours, net, variant), &mask)?;
    if engine.ask("about")?["level"].as_str() != Some(level) {
        return Ok(None);
    }
    engine.ask("load")?;
    let said = engine.ask("outputs")?;
    let rows = said["outputs"].as_array().context("the engine gave no outputs")?;
    #[expect(clippy::cast_possible_truncation, reason = "they were f32 before they were written")]
    let value = |value: &Value| value.as_f64().map(|value| value as f32).context("an output is no number");
    rows.iter().filter_map(Value::as_array).flatten().map(value).collect::<Result<_>>().map(Some)
}

fn furthest(got: &[f32], want: &[f32]) -> Result<f32> {
    ensure!(got.len() == want.len(), "{} answers for {} of ONNX Runtime", got.len(), want.len());
    let off = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    // What is no number is further than any bound.
    Ok(off.fold(0.0, |most, off| if off <= most || most.is_nan() { most } else { off }))
}

#[cfg(test)]
mod tests {
    use super::furthest;

    #[test]
    fn answers_that_are_missing_or_no_numbers_dont_pass() {
        assert!(furthest(&[1.0], &[1.0, 2.0]).is_err());
        assert!((furthest(&[1.0, 2.5], &[1.5, 2.5]).unwrap() - 0.5).abs() < 1e-9);
        let is_within = |bound: f32| furthest(&[f32::NAN, 1.0], &[0.0, 1.0]).unwrap() <= bound;
        assert!(!is_within(f32::MAX));
    }
}
